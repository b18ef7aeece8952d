//! Connects that do not block: begun at a bounded rate, at most a few at once.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use work::Mono;

/// Connects under way at once in one thread.
pub const DIALS_MAX: usize = 128;

/// Milliseconds a connect may take.
const DIAL_TIMEOUT_MS: u64 = 10_000;

/// Microseconds of the ramp that may be caught up at once after a long turn.
const RAMP_BURST_MICROS: f64 = 20_000.0;

/// A connect that is over.
#[derive(Debug)]
pub struct Dialled {
    /// Number of the miner in its thread.
    pub seat: usize,
    /// When it began.
    pub began: Mono,
    /// The socket, or why there is none.
    pub stream: io::Result<TcpStream>,
}

struct Pending {
    seat: usize,
    began: Mono,
    socket: Socket,
}

/// The connects of one thread.
pub struct Dialler {
    target: SocketAddr,
    source_addresses: u8,
    /// Miners to connect, with the time from which on they may be.
    waiting: VecDeque<(Mono, usize)>,
    pending: Vec<Pending>,
    micros_per_dial: f64,
    next_dial: f64,
}

impl Dialler {
    /// Connects to `target`, `per_second` connects a second at most; 0 for no limit but
    /// [`DIALS_MAX`]. To a loopback address of IPv4 the seats dial from the addresses 127.0.0.1 up
    /// to 127.0.0.`source_addresses` in turn, 0 counting as 1; to others from where the kernel
    /// chooses.
    pub fn new(target: SocketAddr, per_second: f64, source_addresses: u8) -> Dialler {
        let micros_per_dial = if per_second > 0.0 { 1_000_000.0 / per_second } else { 0.0 };
        Dialler {
            target,
            source_addresses,
            waiting: VecDeque::new(),
            pending: Vec::new(),
            micros_per_dial,
            next_dial: 0.0,
        }
    }

    /// Connects `seat` at `at` or later, behind those asked for before.
    pub fn ask(&mut self, seat: usize, at: Mono) {
        self.waiting.push_back((at, seat));
    }

    /// Whether a connect is under way, which only polling finishes.
    pub fn is_dialling(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Begins what may begin. Returns connects that were over at once.
    pub fn begin(&mut self, now: Mono, done: &mut Vec<Dialled>) {
        self.next_dial = self.next_dial.max(now.0 as f64 - RAMP_BURST_MICROS);
        while self.pending.len() < DIALS_MAX && self.next_dial <= now.0 as f64 {
            match self.waiting.front() {
                Some((at, _)) if *at <= now => {}
                _ => return,
            }
            let Some((_, seat)) = self.waiting.pop_front() else { return };
            self.next_dial += self.micros_per_dial;
            match dial(self.target, self.source(seat)) {
                Ok((socket, true)) => {
                    done.push(Dialled { seat, began: now, stream: Ok(socket.into()) });
                }
                Ok((socket, false)) => self.pending.push(Pending { seat, began: now, socket }),
                Err(error) => done.push(Dialled { seat, began: now, stream: Err(error) }),
            }
        }
    }

    fn source(&self, seat: usize) -> Option<SocketAddr> {
        let SocketAddr::V4(target) = self.target else { return None };
        let count = usize::from(self.source_addresses);
        if count < 2 || !target.ip().is_loopback() {
            return None;
        }
        // Below 256, as the count is.
        let last = (seat % count + 1) as u8;
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0))
    }

    /// Finishes what the kernel has finished. Does not wait.
    pub fn finish(&mut self, now: Mono, done: &mut Vec<Dialled>) {
        if self.pending.is_empty() {
            return;
        }
        let mut polled: Vec<PollFd<'_>> =
            self.pending.iter().map(|dial| PollFd::new(&dial.socket, PollFlags::OUT)).collect();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An interrupted poll leaves no answers; the next turn asks again.
        let _ = poll(&mut polled, Some(&at_once));
        let ready: Vec<bool> = polled.iter().map(|dial| !dial.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let over = |dial: &mut Pending| {
            let is_late = now.micros_since(dial.began) > DIAL_TIMEOUT_MS * 1_000;
            ready.next().unwrap_or(false) || is_late
        };
        for dial in self.pending.extract_if(.., over) {
            done.push(Dialled { seat: dial.seat, began: dial.began, stream: outcome(dial.socket) });
        }
    }
}

/// A socket that connects, and whether it is connected already.
fn dial(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<(Socket, bool)> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => Ok((socket, true)),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
            Ok((socket, false))
        }
        Err(error) => Err(error),
    }
}

fn outcome(socket: Socket) -> io::Result<TcpStream> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    // Not connected and without an error: the time was up.
    socket.peer_addr().map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {DIAL_TIMEOUT_MS} ms"))
    })?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn all(dialler: &mut Dialler, count: usize, from: Mono) -> Vec<Dialled> {
        let mut done = Vec::new();
        // Bounded: each round polls; loopback answers within a few of them.
        for round in 0..1_000_000 {
            let now = Mono(from.0 + round);
            dialler.begin(now, &mut done);
            dialler.finish(now, &mut done);
            if done.len() >= count {
                break;
            }
        }
        done
    }

    #[test]
    fn connects_and_refusals() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let mut dialler = Dialler::new(target, 0.0, 1);
        (0..20).for_each(|seat| dialler.ask(seat, Mono(0)));
        let done = all(&mut dialler, 20, Mono(1));
        assert_eq!(done.len(), 20);
        assert!(done.iter().all(|dialled| dialled.stream.is_ok()));
        assert!(!dialler.is_dialling());

        drop(listener);
        dialler.ask(7, Mono(0));
        let refused = all(&mut dialler, 1, Mono(2));
        assert_eq!(refused[0].seat, 7);
        let error = refused[0].stream.as_ref().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn seats_dial_from_addresses_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut dialler = Dialler::new(listener.local_addr().unwrap(), 0.0, 3);
        (0..6).for_each(|seat| dialler.ask(seat, Mono(0)));
        for dialled in all(&mut dialler, 6, Mono(1)) {
            let source = dialled.stream.unwrap().local_addr().unwrap();
            let expected = Ipv4Addr::new(127, 0, 0, (dialled.seat % 3 + 1) as u8);
            assert_eq!(source.ip(), expected);
        }
    }

    #[test]
    fn the_ramp_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut dialler = Dialler::new(listener.local_addr().unwrap(), 1_000.0, 1);
        (0..100).for_each(|seat| dialler.ask(seat, Mono(0)));
        dialler.ask(100, Mono(u64::MAX));
        let mut done = Vec::new();
        for now in [0, 999, 1_000] {
            dialler.begin(Mono(now), &mut done);
            dialler.finish(Mono(now), &mut done);
        }
        let begun = |dialler: &Dialler, done: &Vec<Dialled>| done.len() + dialler.pending.len();
        assert_eq!(begun(&dialler, &done), 2);
        // A long turn does not become a burst.
        dialler.begin(Mono(60_000_000), &mut done);
        assert_eq!(begun(&dialler, &done), 2 + 21);
    }
}
