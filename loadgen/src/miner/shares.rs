//! Shares on their way: sent, and not answered yet.

use std::collections::VecDeque;

use sv2::message::mining::{SubmitSharesError, SubmitSharesSuccess};
use work::Mono;

use super::error::MinerError;

/// Unanswered shares of one connection beyond which the miner stops submitting.
pub const OUTSTANDING_MAX: usize = 4_096;

/// A share that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub channel_id: u32,
    pub sequence_number: u32,
    pub at: Mono,
    pub is_fake: bool,
}

/// Shares in the order in which they were sent.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    sent: VecDeque<Sent>,
}

impl Outstanding {
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    pub fn is_full(&self) -> bool {
        self.sent.len() >= OUTSTANDING_MAX
    }

    pub fn clear(&mut self) {
        self.sent.clear();
    }

    pub fn push(&mut self, sent: Sent) {
        self.sent.push_back(sent);
    }

    /// Everything up to the named share that was not refused is accepted (SV2 5.3.12); calls
    /// `accepted` for each, in order.
    pub fn accept(
        &mut self,
        message: &SubmitSharesSuccess,
        mut accepted: impl FnMut(Sent),
    ) -> Result<(), MinerError> {
        let is_named = |sent: &Sent| {
            sent.channel_id == message.channel_id
                && sent.sequence_number == message.last_sequence_number
        };
        let last = self.sent.iter().position(is_named).ok_or({
            MinerError::UnknownSequenceNumber {
                msg_type: SubmitSharesSuccess::MSG_TYPE,
                sequence_number: message.last_sequence_number,
            }
        })?;
        let of_channel = |sent: &&Sent| sent.channel_id == message.channel_id;
        let undecided = self.sent.iter().take(last + 1).filter(of_channel).count();
        let undecided = u32::try_from(undecided).unwrap_or(u32::MAX);
        if undecided != message.new_submits_accepted_count {
            return Err(MinerError::WrongAcknowledgement {
                last_sequence_number: message.last_sequence_number,
                count: message.new_submits_accepted_count,
                undecided,
            });
        }
        if undecided as usize == last + 1 {
            self.sent.drain(..=last).for_each(accepted);
            return Ok(());
        }
        let mut place = 0;
        self.sent.retain(|sent| {
            let is_accepted = place <= last && sent.channel_id == message.channel_id;
            place += 1;
            if is_accepted {
                accepted(*sent);
            }
            !is_accepted
        });
        Ok(())
    }

    /// One share is refused.
    pub fn refuse(&mut self, message: &SubmitSharesError<'_>) -> Result<Sent, MinerError> {
        let is_named = |sent: &Sent| {
            sent.channel_id == message.channel_id && sent.sequence_number == message.sequence_number
        };
        let at = self.sent.iter().position(is_named);
        at.and_then(|at| self.sent.remove(at)).ok_or(MinerError::UnknownSequenceNumber {
            msg_type: SubmitSharesError::MSG_TYPE,
            sequence_number: message.sequence_number,
        })
    }

    /// Forgets the shares of a channel that is closed, and returns how many they were.
    pub fn forget(&mut self, channel_id: u32) -> u64 {
        let before = self.sent.len();
        self.sent.retain(|sent| sent.channel_id != channel_id);
        (before - self.sent.len()) as u64
    }

    /// Whether any share was sent to `channel_id`.
    pub fn has_channel(&self, channel_id: u32) -> bool {
        self.sent.iter().any(|sent| sent.channel_id == channel_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outstanding(numbers: &[u32]) -> Outstanding {
        let mut outstanding = Outstanding::default();
        for number in numbers {
            let at = Mono(u64::from(*number));
            outstanding.push(Sent { channel_id: 2, sequence_number: *number, at, is_fake: false });
        }
        outstanding
    }

    fn success(last: u32, count: u32) -> SubmitSharesSuccess {
        SubmitSharesSuccess {
            channel_id: 2,
            last_sequence_number: last,
            new_submits_accepted_count: count,
            new_shares_sum: 1,
        }
    }

    #[test]
    fn counts_have_to_match() {
        // Numbers wrap: order is that of sending, not of the numbers.
        let mut all = outstanding(&[u32::MAX - 1, u32::MAX, 0, 1]);
        let mut accepted = Vec::new();
        all.accept(&success(0, 3), |sent| accepted.push(sent.sequence_number)).unwrap();
        assert_eq!(accepted, [u32::MAX - 1, u32::MAX, 0]);
        let again = all.accept(&success(0, 3), |_| ());
        assert!(matches!(again, Err(MinerError::UnknownSequenceNumber { .. })));
        let more = all.accept(&success(1, 2), |_| ());
        assert!(matches!(more, Err(MinerError::WrongAcknowledgement { undecided: 1, .. })));
        all.accept(&success(1, 1), |_| ()).unwrap();
        assert_eq!(all.len(), 0);
    }

    #[test]
    fn refused_ones_are_not_acknowledged() {
        let mut all = outstanding(&[1, 2, 3]);
        let error = SubmitSharesError { channel_id: 2, sequence_number: 2, error_code: b"stale" };
        assert_eq!(all.refuse(&error).unwrap().at, Mono(2));
        assert!(all.refuse(&error).is_err());
        let all_three = all.accept(&success(3, 3), |_| ());
        assert!(matches!(all_three, Err(MinerError::WrongAcknowledgement { undecided: 2, .. })));
        all.accept(&success(3, 2), |_| ()).unwrap();
    }

    #[test]
    fn other_channels_keep_waiting() {
        let mut all = outstanding(&[]);
        for (channel_id, sequence_number) in [(9, 0), (2, 1), (9, 2), (2, 3)] {
            all.push(Sent { channel_id, sequence_number, at: Mono(0), is_fake: false });
        }
        all.push(Sent { channel_id: 9, sequence_number: 4, at: Mono(0), is_fake: false });
        all.accept(&success(3, 2), |sent| assert_eq!(sent.channel_id, 2)).unwrap();
        assert_eq!(all.len(), 3);
        assert!(all.has_channel(9) && !all.has_channel(2));
        let mut accepted = Vec::new();
        let of_nine = SubmitSharesSuccess { channel_id: 9, ..success(2, 2) };
        all.accept(&of_nine, |sent| accepted.push(sent.sequence_number)).unwrap();
        assert_eq!(accepted, [0, 2]);
        assert_eq!((all.forget(9), all.len()), (1, 0));
    }
}
