//! Sequences of U16 and U32, borrowed either from values (to encode) or from the wire (decoded).
//!
//! A sequence of U256 needs no such type: 32-byte values have no byte order to convert, so it is
//! simply `&[[u8; 32]]`.

use std::fmt;

macro_rules! sequence {
    ($(#[$meta:meta])* $name:ident, $source:ident, $value:ty, $bytes:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub struct $name<'a>($source<'a>);

        #[derive(Clone, Copy)]
        enum $source<'a> {
            Values(&'a [$value]),
            Wire(&'a [[u8; $bytes]]),
        }

        impl<'a> $name<'a> {
            /// A sequence of values in memory, to be encoded.
            pub const fn new(values: &'a [$value]) -> Self {
                Self($source::Values(values))
            }

            pub(crate) const fn from_wire(wire: &'a [[u8; $bytes]]) -> Self {
                Self($source::Wire(wire))
            }

            /// Number of values.
            pub const fn len(&self) -> usize {
                match self.0 {
                    $source::Values(values) => values.len(),
                    $source::Wire(wire) => wire.len(),
                }
            }

            /// Whether there are no values.
            pub const fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The value at `index`, or `None` past the end.
            pub fn at(&self, index: usize) -> Option<$value> {
                match self.0 {
                    $source::Values(values) => values.get(index).copied(),
                    $source::Wire(wire) => wire.get(index).copied().map(<$value>::from_le_bytes),
                }
            }

            /// The values in order.
            pub fn iter(self) -> impl Iterator<Item = $value> + 'a {
                (0..self.len()).filter_map(move |index| self.at(index))
            }

            /// Whether one of the values equals `value`.
            pub fn contains(&self, value: $value) -> bool {
                self.iter().any(|each| each == value)
            }
        }

        impl<'a> From<&'a [$value]> for $name<'a> {
            fn from(values: &'a [$value]) -> Self {
                Self::new(values)
            }
        }

        impl PartialEq for $name<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.len() == other.len() && self.iter().eq(other.iter())
            }
        }

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }
    };
}

sequence!(
    /// SEQ0_64K\[U16\]: up to 65 535 values, such as extension types.
    U16Sequence, U16Source, u16, 2
);
sequence!(
    /// SEQ0_64K\[U32\]: up to 65 535 values, such as channel ids.
    U32Sequence, U32Source, u32, 4
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_wire_are_equal() {
        let values = [1u16, 0x0203, 65_535];
        let wire = [[1, 0], [3, 2], [255, 255]];
        let (ours, theirs) = (U16Sequence::new(&values), U16Sequence::from_wire(&wire));
        assert_eq!(ours, theirs);
        assert!(theirs.contains(0x0203) && !theirs.contains(0x0302));
        assert_eq!(theirs.at(3), None);
        assert_ne!(ours, U16Sequence::new(&values[..2]));
        assert_eq!(format!("{theirs:?}"), "[1, 515, 65535]");
    }
}
