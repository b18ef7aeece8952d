//! An event of control's on its way to the log.

use work::{TemplateId, UnixTime};

/// What happened, ready to be written down. May be lost on the way; that is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub at: UnixTime,
    /// The event's `type`.
    pub kind: &'static str,
    /// Its fields behind the envelope, as one JSON object.
    pub body: String,
    /// The template on which this is the ruling, so that its shares can name the event.
    pub verdict_on: Option<TemplateId>,
}
