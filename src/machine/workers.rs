//! Workers behind one extended channel, told apart by extension 0x0002.

use crate::limits::WORKER_ID_BYTES_MAX;

/// The names of a channel's workers and their numbers, from 1. Bounded by
/// `auth.max_workers_per_channel`.
#[derive(Debug, Default)]
pub struct Workers {
    /// By name.
    names: Vec<(Box<str>, u32)>,
}

/// What a name is to its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worker {
    /// It has this number.
    Known(u32),
    /// It is heard for the first time, and would get this number.
    New(u32),
    /// There is no room for it, or it is no name: the share counts, nobody's in particular.
    Nobody,
}

impl Workers {
    /// Who `name` is. Allocates nothing.
    pub fn find(&self, name: &str, max: usize) -> Worker {
        match self.names.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Ok(at) => Worker::Known(self.names[at].1),
            Err(_) if self.names.len() < max => {
                u32::try_from(self.names.len() + 1).map_or(Worker::Nobody, Worker::New)
            }
            Err(_) => Worker::Nobody,
        }
    }

    /// Remember a new name under `number`.
    pub fn insert(&mut self, name: &str, number: u32) {
        if let Err(at) = self.names.binary_search_by(|(known, _)| (**known).cmp(name)) {
            self.names.insert(at, (name.into(), number));
        }
    }

    /// Names it holds.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// The name in a worker TLV, if it is one: printable, not empty, of at most 32 bytes.
pub fn name(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_name = !text.is_empty()
        && bytes.len() <= WORKER_ID_BYTES_MAX
        && !text.chars().any(char::is_control);
    is_name.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_number() {
        let mut workers = Workers::default();
        assert!(workers.is_empty());
        for (at, text) in ["rig3", "rig1", "rig2"].into_iter().enumerate() {
            let number = at as u32 + 1;
            assert_eq!(workers.find(text, 3), Worker::New(number));
            workers.insert(text, number);
            assert_eq!(workers.find(text, 3), Worker::Known(number));
        }
        assert_eq!(workers.find("rig4", 3), Worker::Nobody);
        assert_eq!(workers.find("rig1", 3), Worker::Known(2));
        assert_eq!(workers.len(), 3);
    }

    #[test]
    fn what_is_no_name() {
        assert_eq!(name(b"rig1"), Some("rig1"));
        for bytes in [&b""[..], b"\xff", b"a\nb", &[b'x'; 33]] {
            assert_eq!(name(bytes), None, "{bytes:?}");
        }
    }
}
