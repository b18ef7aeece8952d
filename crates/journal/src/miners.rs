//! Who mined the share behind a result: a result names the event of the share's acceptance, which
//! stands earlier in the log.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::folder::{Cursor, Folder, FolderError};
use crate::record::Record;

/// Shares that are remembered: those of the batches in flight.
const REMEMBERED_MAX: usize = 1 << 16;

/// Events that are read over rather than jumped.
const NEAR_EVENTS: u64 = 1 << 14;

/// Finds miners by shares' events, cheapest for events that rise.
#[derive(Debug)]
pub struct Miners {
    folder: Folder,
    cursor: Option<Cursor>,
    /// The event behind the last record that was read.
    next_event: u64,
    /// Accepted shares that were read, without a gap between the first and the last.
    remembered: VecDeque<(u64, Arc<str>)>,
    /// Everything from this event up to `next_event` is remembered.
    remembered_from: u64,
}

impl Miners {
    /// Nothing is read before somebody asks.
    pub fn new(folder: &Folder) -> Miners {
        Miners {
            folder: folder.clone(),
            cursor: None,
            next_event: 0,
            remembered: VecDeque::new(),
            remembered_from: 0,
        }
    }

    /// The miner of the share that event `share_event` accepted; `None` if that is no longer kept,
    /// or no share. Events before `below` must be on disk.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn miner_of(
        &mut self,
        share_event: u64,
        below: u64,
    ) -> Result<Option<Arc<str>>, FolderError> {
        let is_near = self.cursor.is_some()
            && share_event >= self.remembered_from
            && share_event < self.next_event.saturating_add(NEAR_EVENTS);
        if !is_near {
            self.remembered.clear();
            self.remembered_from = share_event;
            self.next_event = share_event;
            self.cursor = match Cursor::at_event(&self.folder, share_event) {
                Err(FolderError::Pruned(_)) => None,
                cursor => Some(cursor?),
            };
        }
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        while self.next_event <= share_event
            && let Some(located) = cursor.next(below)?
        {
            self.next_event = located.event_id.saturating_add(located.record.events());
            if let Record::Accepted(share) = &located.record {
                self.remembered.push_back((located.event_id, Arc::clone(&share.miner_id)));
            }
            if self.remembered.len() > REMEMBERED_MAX
                && let Some((event, _)) = self.remembered.pop_front()
            {
                self.remembered_from = event + 1;
            }
        }
        let place = self.remembered.binary_search_by_key(&share_event, |(event, _)| *event);
        Ok(place.ok().and_then(|place| self.remembered.get(place)).map(|(_, m)| Arc::clone(m)))
    }
}
