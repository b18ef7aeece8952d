//! What the services write to each other beside the verifier's lines: template-manager's feed and
//! its `/chain`, the batches the gateway posts, and the backend's answers. Whatever decodes,
//! encodes to what decodes to the same; a template that a feed carries survives being passed on.
//!
//! Input: selector U8 (0 feed, 1 chain, 2 batch, 3 answer, modulo 4), then lines.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use work::contract::chain::Chain;
use work::contract::feed::{FeedLine, FeedReader, FeedWriter};
use work::contract::shares::{ShareAnswer, ShareBatch};

/// Lines that are read.
const LINES_MAX: usize = 64;

/// What `line` says, after it was written and read again.
fn decode<T: Serialize + DeserializeOwned + Debug>(line: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(line).ok()?;
    let text = serde_json::to_string(&value).expect("what decodes, encodes");
    let again: T = serde_json::from_str(&text).expect("what we encode decodes");
    // Compared as text: not every message can be compared.
    assert_eq!(format!("{value:?}"), format!("{again:?}"));
    Some(value)
}

fuzz_target!(|input: &[u8]| {
    let Some((selector, rest)) = input.split_first() else { return };
    let lines = rest.split(|byte| *byte == b'\n').take(LINES_MAX);
    match selector % 4 {
        0 => {
            let mut reader = FeedReader::default();
            // A second reader behind a writer, as template-manager passes templates on.
            let (mut writer, mut second) = (FeedWriter::default(), FeedReader::default());
            for line in lines {
                let Some(FeedLine::Template(template)) = decode(line) else { continue };
                let Ok(template) = reader.template(*template) else { return };
                template.total_fees().checked_add(template.total_weight()).expect("no overflow");
                let Some(FeedLine::Template(passed_on)) =
                    decode(&serde_json::to_vec(&writer.line(&template)).expect("a line"))
                else {
                    panic!("a template is passed on as one");
                };
                assert_eq!(second.template(*passed_on), Ok(template));
            }
        }
        1 => lines.for_each(|line| drop(decode::<Chain>(line))),
        2 => lines.for_each(|line| drop(decode::<ShareBatch>(line))),
        _ => lines.for_each(|line| drop(decode::<ShareAnswer>(line))),
    }
});
