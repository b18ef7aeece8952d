//! Any payload of any type: decoding never panics, and what decodes, encodes to bytes that decode
//! to the same message.
//!
//! Input: extension type U16, message type U8, payload.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sv2::{Frame, FrameHeader, FromMiner, ToMiner};

fuzz_target!(|input: &[u8]| {
    let Some((&[e0, e1, msg_type], payload)) = input.split_first_chunk() else {
        return;
    };
    let extension_type = u16::from_le_bytes([e0, e1]);
    let header = FrameHeader { extension_type, channel_msg: false, msg_type, msg_length: 0 };
    let frame = Frame { header, payload };
    let _ = sv2::message::extension::user_identity(payload);

    if let Ok(message) = FromMiner::decode(&frame) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        message.encode_payload(&mut first);
        let again = FromMiner::decode(&Frame { header, payload: &first });
        again.expect("what we encode decodes").encode_payload(&mut second);
        assert_eq!(first, second);
    }
    if let Ok(message) = ToMiner::decode(&frame) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        message.encode_payload(&mut first);
        let again = ToMiner::decode(&Frame { header, payload: &first });
        again.expect("what we encode decodes").encode_payload(&mut second);
        assert_eq!(first, second);
    }
});
