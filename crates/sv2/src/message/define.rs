//! How a message is declared: its struct, its place in the protocol, and the wire type of each
//! field, from which encoder, decoder and length limits follow.
//!
//! ```text
//! message! {
//!     /// Page of the message.
//!     Name<'a> = (extension, message type, channel bit) {
//!         /// Page of the field.
//!         field: RustType = wire_type,      // wire_type names methods of Reader and Writer
//!     }
//! }
//! ```

macro_rules! message {
    (
        $(#[$meta:meta])*
        $name:ident $(<$life:lifetime>)? = ($extension:expr, $msg_type:literal, $channel:literal) {
            $( $(#[$field_meta:meta])* $field:ident : $type:ty = $wire:ident ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name $(<$life>)? {
            $( $(#[$field_meta])* pub $field: $type, )+
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// Extension the message belongs to, without the channel bit.
            pub const EXTENSION_TYPE: u16 = $extension;
            /// Message type within the extension.
            pub const MSG_TYPE: u8 = $msg_type;
            /// Whether the channel bit is sent.
            pub const CHANNEL_MSG: bool = $channel;
            /// The longest payload that its fields can make, in bytes.
            pub const PAYLOAD_MAX: usize = 0 $( + $crate::codec::size::$wire::MAX )+;

            /// Appends the payload, without the frame header. A field too long for its wire type
            /// is cut at that type's bound.
            pub fn encode(&self, out: &mut Vec<u8>) {
                let mut writer = $crate::codec::Writer::new(out);
                $( writer.$wire(self.$field); )+
            }

            /// Reads a payload, without the frame header. Bytes behind the last field are allowed.
            ///
            /// # Errors
            /// When the payload ends early or a length is out of the bounds of its type.
            pub fn decode(
                payload: & $($life)? [u8],
            ) -> Result<Self, $crate::error::CodecError> {
                let mut reader = $crate::codec::Reader::new(payload);
                $( let $field = reader.$wire()?; )+
                Ok(Self { $( $field ),+ })
            }
        }

        impl $(<$life>)? $crate::message::Message for $name $(<$life>)? {
            const EXTENSION_TYPE: u16 = Self::EXTENSION_TYPE;
            const MSG_TYPE: u8 = Self::MSG_TYPE;
            const CHANNEL_MSG: bool = Self::CHANNEL_MSG;

            fn encode_payload(&self, out: &mut Vec<u8>) {
                self.encode(out);
            }

            fn payload_length(&self) -> Option<usize> {
                Some(0 $( + $crate::codec::size::$wire::of(self.$field) )+)
            }
        }
    };
}
