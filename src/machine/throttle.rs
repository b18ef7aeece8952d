//! Addresses that fail too often: wrong passwords, broken handshakes.
//!
//! Each address may fail [`FAILURES_PER_ADDRESS`] times at once, and one failure is forgiven each
//! [`FAILURE_FORGIVEN_MILLIS`]. An address that is forgiven everything is forgotten; if the table
//! is full all the same, whoever failed least leaves. Miners behind one address share its budget,
//! so it is wide: it ends guessing, not a farm with one wrong password in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use work::Mono;

use crate::limits::{AUTH_THROTTLE_ADDRESSES_MAX, FAILURE_FORGIVEN_MILLIS, FAILURES_PER_ADDRESS};

/// Microseconds in which one failure is forgiven.
const FORGIVEN_MICROS: u64 = FAILURE_FORGIVEN_MILLIS * 1_000;

/// Microseconds in which all failures are forgiven.
const BUDGET_MICROS: u64 = FORGIVEN_MICROS * FAILURES_PER_ADDRESS as u64;

/// Bits of an IPv6 address that a customer is given to choose freely.
const IPV6_HOST_BITS: u32 = 64;

/// The failures of all addresses, of one kind.
#[derive(Debug, Default)]
pub struct Throttle {
    /// When each will have been forgiven everything; at most [`AUTH_THROTTLE_ADDRESSES_MAX`].
    forgiven_at: BTreeMap<IpAddr, Mono>,
    /// The same, soonest first.
    soonest: BTreeSet<(Mono, IpAddr)>,
}

impl Throttle {
    /// Nobody failed so far.
    pub fn new() -> Throttle {
        Throttle::default()
    }

    /// Whether the address may try now. One that may not is answered as if it had failed, without
    /// the work of looking, and that is no further failure.
    pub fn may_try(&self, now: Mono, address: IpAddr) -> bool {
        let forgiven_at = self.forgiven_at.get(&source(address)).copied().unwrap_or(now);
        forgiven_at.micros_since(now) + FORGIVEN_MICROS <= BUDGET_MICROS
    }

    /// The address failed.
    pub fn on_failed(&mut self, now: Mono, address: IpAddr) {
        let source = source(address);
        let until = match self.forgiven_at.remove(&source) {
            Some(forgiven_at) => {
                self.soonest.remove(&(forgiven_at, source));
                forgiven_at.max(now)
            }
            None => {
                self.make_room(now);
                now
            }
        };
        let owed = until.micros_since(now).saturating_add(FORGIVEN_MICROS).min(BUDGET_MICROS);
        let forgiven_at = Mono(now.0.saturating_add(owed));
        self.forgiven_at.insert(source, forgiven_at);
        self.soonest.insert((forgiven_at, source));
    }

    /// Addresses that are remembered.
    pub fn len(&self) -> usize {
        self.forgiven_at.len()
    }

    /// Whether no address is remembered.
    pub fn is_empty(&self) -> bool {
        self.forgiven_at.is_empty()
    }

    /// Forget who was forgiven, and if that is nobody and the table is full, who failed least.
    fn make_room(&mut self, now: Mono) {
        while let Some((forgiven_at, address)) = self.soonest.first().copied() {
            if forgiven_at > now && self.forgiven_at.len() < AUTH_THROTTLE_ADDRESSES_MAX {
                break;
            }
            self.soonest.pop_first();
            self.forgiven_at.remove(&address);
        }
    }
}

/// Who is behind an address: an IPv4 address, however it is written, or a network of IPv6.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> IPV6_HOST_BITS << IPV6_HOST_BITS;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    fn fail(throttle: &mut Throttle, now: Mono, address: IpAddr, times: u32) {
        for _ in 0..times {
            throttle.on_failed(now, address);
        }
    }

    #[test]
    fn a_budget_is_spent_and_forgiven() {
        let mut throttle = Throttle::new();
        let (now, guesser) = (Mono(5), address(1));
        for failure in 0..FAILURES_PER_ADDRESS {
            assert!(throttle.may_try(now, guesser), "failure {failure}");
            throttle.on_failed(now, guesser);
        }
        assert!(!throttle.may_try(now, guesser));
        assert!(throttle.may_try(now, address(2)), "others are not touched");
        let later = Mono(now.0 + FORGIVEN_MICROS);
        assert!(!throttle.may_try(Mono(later.0 - 1), guesser));
        assert!(throttle.may_try(later, guesser), "one is forgiven");
        throttle.on_failed(later, guesser);
        assert!(!throttle.may_try(later, guesser));
        // However often it failed: no debt is longer than the budget.
        fail(&mut throttle, later, guesser, 10 * FAILURES_PER_ADDRESS);
        assert!(throttle.may_try(Mono(later.0 + FORGIVEN_MICROS), guesser));
        // And after that the whole budget is there again.
        let calm = Mono(later.0 + BUDGET_MICROS);
        fail(&mut throttle, calm, guesser, FAILURES_PER_ADDRESS - 1);
        assert!(throttle.may_try(calm, guesser));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let mut throttle = Throttle::new();
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        for host in 0..FAILURES_PER_ADDRESS {
            throttle.on_failed(Mono(0), parse(&format!("2001:db8:0:1::{host:x}")));
        }
        assert_eq!(throttle.len(), 1);
        assert!(!throttle.may_try(Mono(0), parse("2001:db8:0:1:ffff::1")));
        assert!(throttle.may_try(Mono(0), parse("2001:db8:0:2::1")));
        fail(&mut throttle, Mono(0), parse("::ffff:192.0.2.1"), FAILURES_PER_ADDRESS);
        assert!(!throttle.may_try(Mono(0), parse("192.0.2.1")));
        assert!(throttle.may_try(Mono(0), parse("::ffff:192.0.2.2")));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_worst() {
        let mut throttle = Throttle::new();
        let guesser = address(u32::MAX);
        fail(&mut throttle, Mono(0), guesser, FAILURES_PER_ADDRESS);
        for number in 0..4 * AUTH_THROTTLE_ADDRESSES_MAX as u32 {
            throttle.on_failed(Mono(u64::from(number)), address(number));
            assert!(throttle.len() <= AUTH_THROTTLE_ADDRESSES_MAX);
        }
        assert_eq!(throttle.len(), AUTH_THROTTLE_ADDRESSES_MAX);
        assert_eq!(throttle.soonest.len(), throttle.len());
        assert!(!throttle.may_try(Mono(1_000), guesser), "it is not washed out");
        // Who is forgiven leaves when there is need of room.
        throttle.on_failed(Mono(2 * BUDGET_MICROS), address(1));
        assert_eq!(throttle.len(), 1);
    }
}
