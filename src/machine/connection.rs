//! One miner's connection: Handshake, then Setup, then Open.
//!
//! ```text
//! Handshake   64 bytes of act 1 in, 234 of act 2 out
//! Setup       only SetupConnection is understood; its answer is the first thing sent
//! Open        channels; everything else of the mining protocol
//! ```
//!
//! Every state has a deadline. A connection holds bytes only while a frame is unfinished, a turn
//! is over, or there is no credit; it holds sealed bytes only while a send is in flight.

use std::net::IpAddr;

use sv2::message::common::{
    PROTOCOL_MINING, PROTOCOL_VERSION, REQUIRES_EXTENDED_CHANNELS, REQUIRES_FIXED_VERSION,
    REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, REQUIRES_WORK_SELECTION, SetupConnection,
    SetupConnectionError, SetupConnectionSuccess,
};
use sv2::message::mining::CloseChannel;
use sv2::{ACT1_BYTES, CodecError, FromMiner, Opened, Transport, TransportError};
use work::{Mono, Now};

use super::opening::OpenRequest;
use super::output::{ConnectionId, Flow, Output};
use super::session::{OpenConnection, Session};
use super::shard::{PendingAck, ShardState};
use super::submission::Submission;
use crate::limits::{
    FRAMES_PER_TURN, STASH_BYTES_MAX, WIRE_BYTES_PER_TURN, WIRE_WAITING_MAX, WIRE_WAITING_PAUSE,
    WRITE_STALL_MILLIS,
};
use crate::metrics::shard as counter;
use crate::reason::{Close, CloseCause, Reason};

/// What a miner may ask for at setup.
const SUPPORTED_FLAGS: u32 =
    REQUIRES_STANDARD_JOBS | REQUIRES_WORK_SELECTION | REQUIRES_VERSION_ROLLING;

/// How far a connection has come.
enum Phase {
    Handshake,
    Setup(Transport),
    Open(Transport, Box<Session>),
}

/// One miner's connection.
pub struct Connection {
    /// Its name.
    pub id: ConnectionId,
    /// Where it comes from.
    pub peer: IpAddr,
    phase: Phase,
    /// Received and not handled: the start of a frame, or what a turn left.
    stash: Vec<u8>,
    /// Since when whole frames have waited in it.
    frames_wait_since: Option<Mono>,
    /// Whether the stash begins with at least one whole frame, as far as is known.
    has_more: bool,
    /// Sealed and not sent: replies written while a send was in flight.
    waiting: Vec<u8>,
    /// Since when the kernel has bytes of ours.
    in_flight: Option<Mono>,
    accepted_at: Mono,
    heard_at: Mono,
    /// When the tip was heard whose SetNewPrevHash is in flight.
    switching_since: Option<Mono>,
    /// Whether it is in the shard's list of those with something to do.
    pub listed: bool,
    /// Why it is to end, at its next step.
    pub ending: Option<Close>,
    /// It ends with this step: nothing is waited for any more.
    is_last_look: bool,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(id: ConnectionId, peer: IpAddr, now: Now) -> Connection {
        Connection {
            id,
            peer,
            phase: Phase::Handshake,
            stash: Vec::new(),
            frames_wait_since: None,
            has_more: false,
            waiting: Vec::new(),
            in_flight: None,
            accepted_at: now.mono,
            heard_at: now.mono,
            switching_since: None,
            listed: false,
            ending: None,
            is_last_look: false,
        }
    }

    /// Bytes came. They are decrypted in place.
    pub fn on_bytes(
        &mut self,
        state: &mut ShardState,
        now: Now,
        bytes: &mut [u8],
        out: &mut Output,
    ) -> Flow {
        self.heard_at = now.mono;
        state.counters.add(counter::BYTES_RECEIVED, bytes.len() as u64);
        if self.stash.is_empty() {
            let (consumed, flow) = self.process(state, now, bytes, out);
            self.stash.extend_from_slice(&bytes[consumed..]);
            return flow;
        }
        if self.stash.len() + bytes.len() > STASH_BYTES_MAX {
            return Flow::Close(Reason::ProtocolViolation.into());
        }
        self.stash.extend_from_slice(bytes);
        self.process_stash(state, now, out)
    }

    /// Do what is due: work first, then acknowledgements, then bytes that were left.
    pub fn step(&mut self, state: &mut ShardState, now: Now, out: &mut Output) -> Flow {
        if let Some(close) = self.ending {
            return self.step_to_end(state, now, close, out);
        }
        if self.in_flight.is_some() {
            // Nothing is given out behind a send (D16); reading goes on where it stopped later.
            return self.reading_flow();
        }
        if let Err(close) = self.catch_up(state, now, out) {
            return Flow::Close(close);
        }
        self.process_stash(state, now, out)
    }

    /// The send in flight is done. `Some` is the time since its tip was heard, if it carried one.
    pub fn on_sent(&mut self, now: Now, out: &mut Output) -> Option<u64> {
        self.in_flight = None;
        out.wire.append(&mut self.waiting);
        self.waiting = Vec::new();
        self.switching_since.take().map(|since| now.mono.micros_since(since))
    }

    /// Close the books of a step: what was written either goes out or waits behind what does.
    pub fn finish(&mut self, now: Now, out: &mut Output, flow: Flow) -> Flow {
        if out.wire.is_empty() {
            return flow;
        }
        if self.in_flight.is_none() {
            self.in_flight = Some(now.mono);
            return flow;
        }
        self.waiting.append(&mut out.wire);
        if self.waiting.len() > WIRE_WAITING_MAX {
            return Flow::Close(Reason::ProtocolViolation.into());
        }
        flow
    }

    /// Whether a step would do something now.
    pub fn has_work(&self, state: &ShardState) -> bool {
        if self.in_flight.is_some() {
            // An ending for no reason of the miner's has nothing to say and waits for nothing.
            return matches!(self.ending, Some(Close::Cause(_)));
        }
        if self.ending.is_some() {
            return true;
        }
        if self.has_more {
            return true;
        }
        let Phase::Open(_, session) = &self.phase else { return false };
        session.has_work(state)
    }

    /// Whether all it has to do is to open channels and to acknowledge shares, which takes credit.
    pub fn waits_for_credit(&self, state: &ShardState) -> bool {
        let Phase::Open(_, session) = &self.phase else { return false };
        self.ending.is_none() && !self.has_more && !session.has_news(state)
    }

    /// A share of one of its channels is safe.
    pub fn acknowledge(&mut self, ack: &PendingAck) {
        let Phase::Open(_, session) = &mut self.phase else { return };
        session.acknowledge(ack);
    }

    /// Judge what was received and not looked at, without waiting for anything. Whether frames
    /// are left that one step has no room for.
    pub fn on_last_look(&mut self, state: &mut ShardState, now: Now, out: &mut Output) -> bool {
        if !matches!(self.phase, Phase::Open(..)) {
            return false;
        }
        self.is_last_look = true;
        self.has_more = false;
        self.process_stash(state, now, out);
        self.has_more
    }

    /// Whether it has not been shown who we are.
    pub fn is_before_act1(&self) -> bool {
        matches!(self.phase, Phase::Handshake)
    }

    /// When it must have moved on, and why it is closed if not.
    pub fn deadline(&self, state: &ShardState) -> (Mono, Close) {
        let stalled = self.in_flight.map(|since| since.plus_millis(WRITE_STALL_MILLIS));
        let (deadline, close) = self.deadline_of_phase(state);
        match stalled {
            Some(stalled) if stalled < deadline => (stalled, Reason::ProtocolViolation.into()),
            _ => (deadline, close),
        }
    }

    fn deadline_of_phase(&self, state: &ShardState) -> (Mono, Close) {
        let settings = &state.settings;
        let setup = self.accepted_at.plus_millis(settings.setup_timeout_ms);
        match &self.phase {
            Phase::Handshake => (
                self.accepted_at.plus_millis(settings.handshake_timeout_ms),
                Reason::HandshakeTimeout.into(),
            ),
            Phase::Setup(_) => (setup, Reason::HandshakeTimeout.into()),
            Phase::Open(_, session) if session.channels.is_empty() => {
                let since = session.empty_since.max(self.accepted_at);
                (since.plus_millis(settings.setup_timeout_ms), CloseCause::NoChannel.into())
            }
            Phase::Open(..) if settings.channel_idle_timeout_ms == 0 => {
                (Mono(u64::MAX), CloseCause::Idle.into())
            }
            Phase::Open(..) => (
                self.heard_at.plus_millis(settings.channel_idle_timeout_ms),
                CloseCause::Idle.into(),
            ),
        }
    }

    /// Time has passed. Whether it has something to do because of it.
    pub fn on_sweep(&mut self, state: &mut ShardState, now: Now) -> bool {
        let Phase::Open(_, session) = &mut self.phase else { return false };
        session.on_sweep(self.id, state, now)
    }

    /// Why it ends if its peer sends no more: within a frame that is a fault.
    pub fn close_at_end(&self) -> Close {
        let is_sealed = !matches!(self.phase, Phase::Handshake);
        if is_sealed && !self.stash.is_empty() && !self.has_more {
            return Reason::MessageTruncated.into();
        }
        CloseCause::PeerGone.into()
    }

    /// Cell of the gauge that counts connections like this one.
    pub fn gauge(&self) -> usize {
        match &self.phase {
            Phase::Handshake => counter::IN_HANDSHAKE,
            Phase::Open(_, session) if !session.channels.is_empty() => counter::OPEN,
            _ => counter::IN_SETUP,
        }
    }

    /// End it: give back what its channels held, and tell that they and it have ended.
    pub fn end(&mut self, state: &mut ShardState, now: Now, close: Close) {
        let Phase::Open(_, session) = &mut self.phase else { return };
        session.end(self.id, self.peer, state, now, close.code());
    }

    /// Tell the miner why all its channels end, as far as the protocol can.
    fn write_goodbye(&mut self, reason: Reason, out: &mut Output) {
        let Phase::Open(transport, session) = &mut self.phase else { return };
        for channel in &session.channels {
            if out.wire.len() >= WIRE_BYTES_PER_TURN {
                return;
            }
            let goodbye = CloseChannel {
                channel_id: channel.channel_id,
                reason_code: reason.error_code().as_bytes(),
            };
            if transport.seal(&goodbye, &mut out.wire).is_err() {
                return;
            }
        }
    }

    /// Bytes on the heap, for the memory budget.
    pub fn heap_bytes(&self) -> usize {
        self.stash.capacity() + self.waiting.capacity()
    }

    /// The last step: say what is safe and why it ends, if the wire is free.
    fn step_to_end(
        &mut self,
        state: &mut ShardState,
        now: Now,
        close: Close,
        out: &mut Output,
    ) -> Flow {
        if self.in_flight.is_some() {
            return match close {
                Close::Reason(_) => self.reading_flow(),
                Close::Cause(_) => Flow::Close(close),
            };
        }
        let (id, peer) = (self.id, self.peer);
        if let Phase::Open(transport, session) = &mut self.phase {
            let received_at = now.mono;
            let mut open = OpenConnection { id, peer, transport, session, state, now, received_at };
            if open.flush(out).is_err() {
                return Flow::Close(close);
            }
        }
        if let Close::Reason(reason) = close {
            self.write_goodbye(reason, out);
        }
        Flow::Close(close)
    }

    fn reading_flow(&self) -> Flow {
        if self.stash.len() > STASH_BYTES_MAX / 2 || self.waiting.len() > WIRE_WAITING_PAUSE {
            Flow::Wait
        } else {
            Flow::Continue
        }
    }

    fn process_stash(&mut self, state: &mut ShardState, now: Now, out: &mut Output) -> Flow {
        if self.stash.is_empty() {
            return Flow::Continue;
        }
        let mut stash = std::mem::take(&mut self.stash);
        let (consumed, flow) = self.process(state, now, &mut stash, out);
        if consumed < stash.len() {
            stash.drain(..consumed);
            self.stash = stash;
        }
        flow
    }

    /// Handle the frames of `input` that this turn has room for; how many bytes are done with.
    fn process(
        &mut self,
        state: &mut ShardState,
        now: Now,
        input: &mut [u8],
        out: &mut Output,
    ) -> (usize, Flow) {
        let done = self.process_frames(state, now, input, out);
        let since = self.frames_wait_since.unwrap_or(now.mono);
        self.frames_wait_since = self.has_more.then_some(since);
        done
    }

    fn process_frames(
        &mut self,
        state: &mut ShardState,
        now: Now,
        input: &mut [u8],
        out: &mut Output,
    ) -> (usize, Flow) {
        self.has_more = false;
        let mut at = 0;
        for _ in 0..FRAMES_PER_TURN {
            if at == input.len() {
                return (at, Flow::Continue);
            }
            if self.must_wait(state, now, out) {
                self.has_more = true;
                return (at, Flow::Wait);
            }
            match self.process_one(state, now, &mut input[at..], out) {
                Ok(0) => return (at, Flow::Continue),
                Ok(consumed) => at += consumed,
                Err(close) => return (at, Flow::Close(close)),
            }
            if let Some(reason) = self.ending_of_session() {
                return (at, Flow::Close(reason.into()));
            }
        }
        self.has_more = at < input.len();
        (at, Flow::Continue)
    }

    /// Whether the next frame has to wait: for the peer to drain, or for a free ring slot.
    /// Credit is asked for before a frame is opened, because opening it cannot be undone.
    fn must_wait(&self, state: &mut ShardState, now: Now, out: &Output) -> bool {
        if self.is_last_look {
            return false;
        }
        if self.waiting.len() + out.wire.len() > WIRE_BYTES_PER_TURN
            || (self.in_flight.is_some() && self.waiting.len() > WIRE_WAITING_PAUSE)
        {
            return true;
        }
        matches!(self.phase, Phase::Open(..))
            && (!out.has_credit() || state.acks_free() == 0)
            && state.may_wait_for_credit(now)
    }

    /// Handle the frame at the start of `input`; 0 if it is not all there.
    fn process_one(
        &mut self,
        state: &mut ShardState,
        now: Now,
        input: &mut [u8],
        out: &mut Output,
    ) -> Result<usize, Close> {
        let transport = match &mut self.phase {
            Phase::Handshake => return self.on_act1(state, input, out),
            Phase::Setup(transport) | Phase::Open(transport, _) => transport,
        };
        match transport.open(input) {
            Opened::Need(_) => Ok(0),
            Opened::Error(error) => Err(close_for(error).into()),
            Opened::Frame { frame, consumed } => {
                state.counters.add(counter::FRAMES_RECEIVED, 1);
                let message = FromMiner::decode(&frame).map_err(malformed)?;
                if message.payload_length().is_some_and(|length| length < frame.payload.len()) {
                    let mismatch = Reason::MessageLengthMismatch as usize;
                    state.counters.add(counter::REFUSALS + mismatch, 1);
                }
                self.on_message(state, now, &message, out)?;
                Ok(consumed)
            }
        }
    }

    /// Act 1 in, act 2 out. A client sends nothing more before act 2 has come.
    fn on_act1(
        &mut self,
        state: &mut ShardState,
        input: &[u8],
        out: &mut Output,
    ) -> Result<usize, Close> {
        let Some((act1, rest)) = input.split_first_chunk::<ACT1_BYTES>() else { return Ok(0) };
        if !rest.is_empty() {
            return Err(Reason::HandshakeFailed.into());
        }
        if !state.may_shake_hands() {
            self.has_more = true;
            return Ok(0);
        }
        let mut act2 = [0u8; sv2::ACT2_BYTES];
        let transport =
            state.respond(act1, &mut act2).map_err(|_| Close::from(Reason::HandshakeFailed))?;
        out.wire.extend_from_slice(&act2);
        state.counters.take(counter::IN_HANDSHAKE);
        state.counters.add(counter::IN_SETUP, 1);
        state.counters.add(counter::HANDSHAKES, 1);
        self.phase = Phase::Setup(transport);
        Ok(ACT1_BYTES)
    }

    fn on_message(
        &mut self,
        state: &mut ShardState,
        now: Now,
        message: &FromMiner<'_>,
        out: &mut Output,
    ) -> Result<(), Close> {
        if matches!(self.phase, Phase::Setup(_)) {
            let FromMiner::SetupConnection(setup) = message else {
                return Err(Reason::ProtocolViolation.into());
            };
            return self.on_setup(state, now, setup, out);
        }
        let (id, peer) = (self.id, self.peer);
        let received_at = self.frames_wait_since.unwrap_or(now.mono);
        let Phase::Open(transport, session) = &mut self.phase else {
            return Err(Reason::ProtocolViolation.into());
        };
        let mut open = OpenConnection { id, peer, transport, session, state, now, received_at };
        let done = match message {
            FromMiner::SubmitSharesStandard(submit) => {
                open.on_submit(&Submission::standard(submit), out)
            }
            FromMiner::SubmitSharesExtended(submit) => open.on_submit_extended(submit, out),
            FromMiner::OpenStandardMiningChannel(request) => {
                open.on_open(&OpenRequest::standard(request), out)
            }
            FromMiner::OpenExtendedMiningChannel(request) => {
                open.on_open(&OpenRequest::extended(request), out)
            }
            FromMiner::UpdateChannel(update) => open.on_update(update, out),
            FromMiner::CloseChannel(close) => open.on_close(close.channel_id),
            FromMiner::SetCustomMiningJob(custom) => open.refuse_custom(custom, out),
            FromMiner::RequestExtensions(request) => open.on_request_extensions(request, out),
            FromMiner::SetupConnection(_) => return Err(Reason::SetupRejected.into()),
            FromMiner::Unknown { extension_type, .. } => {
                open.on_unknown(*extension_type);
                Ok(())
            }
        };
        done.map_err(|error| close_for(error).into())
    }

    /// Why the connection ends behind the frame that was just handled.
    fn ending_of_session(&self) -> Option<Reason> {
        let Phase::Open(_, session) = &self.phase else { return None };
        session.ending.filter(|_| !self.is_last_look)
    }

    /// Answer the one message that this phase understands.
    fn on_setup(
        &mut self,
        state: &mut ShardState,
        now: Now,
        setup: &SetupConnection<'_>,
        out: &mut Output,
    ) -> Result<(), Close> {
        let phase = std::mem::replace(&mut self.phase, Phase::Handshake);
        let Phase::Setup(mut transport) = phase else {
            return Err(Reason::ProtocolViolation.into());
        };
        let rolls = state.settings.version_mask != 0;
        let supported =
            if rolls { SUPPORTED_FLAGS } else { SUPPORTED_FLAGS & !REQUIRES_VERSION_ROLLING };
        let unsupported = setup.flags & !supported;
        let versions = setup.min_version..=setup.max_version;
        let refusal = if setup.protocol != PROTOCOL_MINING {
            Some((0, "unsupported-protocol"))
        } else if !versions.contains(&PROTOCOL_VERSION) {
            Some((0, "protocol-version-mismatch"))
        } else if unsupported != 0 {
            Some((unsupported, "unsupported-feature-flags"))
        } else {
            None
        };
        if let Some((flags, error_code)) = refusal {
            let error = SetupConnectionError { flags, error_code: error_code.as_bytes() };
            // The refusal is sent if it can be; the connection ends either way.
            let _ = transport.seal(&error, &mut out.wire);
            self.phase = Phase::Setup(transport);
            return Err(Reason::SetupRejected.into());
        }
        let version = if rolls { 0 } else { REQUIRES_FIXED_VERSION };
        // Who selects its own work is given no standard jobs.
        let selects = setup.flags & REQUIRES_WORK_SELECTION != 0;
        let flags = version | if selects { REQUIRES_EXTENDED_CHANNELS } else { 0 };
        let success = SetupConnectionSuccess { used_version: PROTOCOL_VERSION, flags };
        let sealed = transport.seal(&success, &mut out.wire);
        let session = Session::new((self.id, self.peer), state, now, setup);
        self.phase = Phase::Open(transport, Box::new(session));
        sealed.map_err(|error| close_for(error).into())
    }

    /// Give every channel the newest work, then acknowledge what is safe, within one turn's bytes.
    fn catch_up(
        &mut self,
        state: &mut ShardState,
        now: Now,
        out: &mut Output,
    ) -> Result<(), Close> {
        let (id, peer) = (self.id, self.peer);
        let Phase::Open(transport, session) = &mut self.phase else { return Ok(()) };
        let received_at = now.mono;
        let mut open = OpenConnection { id, peer, transport, session, state, now, received_at };
        let switched = open.catch_up(out).map_err(|error| Close::from(close_for(error)))?;
        if switched {
            self.switching_since = Some(state.board.tip_seen());
        }
        Ok(())
    }
}

/// The reason for which a connection ends whose message cannot be read.
fn malformed(error: CodecError) -> Close {
    match error {
        CodecError::Truncated { .. } => Reason::MessageTruncated.into(),
        CodecError::TooLong { .. } | CodecError::OptionCount { .. } => {
            Reason::InvalidEncoding.into()
        }
    }
}

/// The reason for which a broken stream ends.
fn close_for(error: TransportError) -> Reason {
    match error {
        TransportError::FrameTooLarge { .. } => Reason::MessageTooLarge,
        TransportError::DecryptFailed | TransportError::NonceExhausted | TransportError::Closed => {
            Reason::FrameOutOfSequence
        }
        TransportError::PayloadTooLong { .. } | TransportError::FieldTooLong { .. } => {
            Reason::InvalidEncoding
        }
    }
}
