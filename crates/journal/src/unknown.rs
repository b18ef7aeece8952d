//! Names in the parameters of an export that are none.

use std::fmt;

/// A name that is not one of those expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    pub(crate) what: &'static str,
    pub(crate) name: String,
    pub(crate) expected: Vec<&'static str>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownName { what, name, expected } = self;
        write!(f, "{name:?} is no {what}; expected some of {}", expected.join(", "))
    }
}

impl std::error::Error for UnknownName {}
