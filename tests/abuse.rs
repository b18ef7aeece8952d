//! Clients that should not exist, against the real gateway, beside fifty honest miners who must
//! notice nothing: nobody cut off, nothing refused, every job received, the memory back soon.
//!
//! Each limit that the gateway is saved by is also taken away, and then the same clients get what
//! they want: by the key of the configuration where there is one, and on the machine (`limits`)
//! where it is a constant.
//!
//! ```text
//! crowd.rs      the honest miners, and what they may expect
//! rude.rs       connections that do as much of the protocol as their mischief takes
//! strangers.rs  wrong moments, silence, nonsense, resets, handshakes
//! floods.rs     sending without end
//! footprint.rs  memory, processor and descriptors of the gateway's process
//! limits.rs     the limits that are constants, each met exactly
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

#[path = "abuse/crowd.rs"]
mod crowd;
#[path = "abuse/floods.rs"]
mod floods;
#[path = "abuse/footprint.rs"]
mod footprint;
mod in_memory;
#[path = "abuse/limits.rs"]
mod limits;
#[path = "abuse/rude.rs"]
mod rude;
mod stack;
#[path = "abuse/strangers.rs"]
mod strangers;

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crowd::{Crowd, MINERS};
use floods::{ASKED, CHANNELS, Opens, channels, open_many, tireless, unread, use_all_buffers};
use rude::{dial_many, is_closed};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use stack::client::Client;
use stack::{PATIENCE, Settings, Stack, wait_until};
use strangers::{
    Paused, Silent, bad_setups, connects_in_a_hold, connects_in_a_switch, garbage, handshakes,
    resets, silence,
};

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Hashes a second of each honest miner.
const HASH_RATE: u32 = 1_000;

/// Time for both acts, milliseconds.
const HANDSHAKE_TIMEOUT_MILLIS: u64 = 1_000;

/// Time until SetupConnection and until the first channel, milliseconds.
const SETUP_TIMEOUT_MILLIS: u64 = 1_500;

/// How long a timeout that is off is watched for not ending anything.
const OFF_SPAN: Duration = Duration::from_millis(SETUP_TIMEOUT_MILLIS + 1_000);

/// One stack at a time: two of them would be each other's abuse.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Thousands of sockets are held on this side, too.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    guard
}

/// Connections that ended for this reason so far.
fn closes(stack: &Stack, code: &str) -> f64 {
    stack.gateway.metric(&format!("connections_closed_total{{reason_code=\"{code}\"}}"))
}

fn connections(stack: &Stack, state: &str) -> f64 {
    stack.gateway.metric(&format!("connections{{state=\"{state}\"}}"))
}

/// Only the honest are left.
fn wait_for_the_honest_alone(stack: &Stack) {
    let others = || connections(stack, "handshake") + connections(stack, "setup");
    wait_until("only honest miners", PATIENCE, || {
        others() == 0.0 && connections(stack, "open") == MINERS as f64
    });
}

/// Run `abuse`; afterwards so many more connections have ended for `code`.
fn closing(stack: &Stack, code: &str, count: usize, abuse: impl FnOnce()) {
    let before = closes(stack, code);
    abuse();
    wait_until(&format!("{count} more {code}"), PATIENCE, || {
        closes(stack, code) == before + count as f64
    });
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Goal: whoever connects at the wrong moment, says nothing, says nonsense, says it twice, resets
/// or shakes hands without end is dealt with, and nobody else notices.
#[test]
fn strangers_at_the_door() {
    let _alone = alone();
    let mut settings = Settings::demo(NBITS);
    settings.gateway = json!({
        "noise": { "handshake_timeout_ms": HANDSHAKE_TIMEOUT_MILLIS },
        "timing": { "setup_timeout_ms": SETUP_TIMEOUT_MILLIS },
    });
    let mut stack = Stack::start(&settings);
    let address = stack.gateway.address("listen_addr");
    let crowd = Crowd::start(&mut stack, HASH_RATE);
    // What a first thousand channels make the allocator keep belongs to the program; the question
    // is whether the next thousand make it keep more.
    drop(open_many(&stack, CHANNELS, false));
    wait_for_the_honest_alone(&stack);
    let paused = Paused::new(&mut stack);
    crowd.beside(&stack, "connecting in a hold", || connects_in_a_hold(&stack, paused));
    crowd.beside(&stack, "connecting in a switch", || connects_in_a_switch(&stack));
    crowd.beside(&stack, "bad setups", || bad_setups(&stack, &address));
    crowd.beside(&stack, "silence", || silence(&stack, &address));
    crowd.beside(&stack, "garbage", || garbage(&stack, &address));
    crowd.beside(&stack, "resets", || resets(&stack, &address));
    crowd.beside(&stack, "handshakes", || handshakes(&stack, &address));
    wait_for_the_honest_alone(&stack);
    crowd.leave();
    assert!(!stack.gateway.log().contains("panicked"));
}

/// Goal: floods are taken at the pace of everybody else's turns; who never reads is ended, who
/// wants all channels gets some, and nobody else notices.
#[test]
fn endless_senders() {
    let _alone = alone();
    let mut settings = Settings::demo(NBITS);
    settings.gateway = json!({ "mining": { "max_channels_per_connection": CHANNELS } });
    let mut stack = Stack::start(&settings);
    let address = stack.gateway.address("listen_addr");
    use_all_buffers(&stack, &address);
    let crowd = Crowd::start(&mut stack, HASH_RATE);
    crowd.beside(&stack, "floods that never read", || unread(&stack, &address));
    crowd.beside(&stack, "floods that do", || tireless(&stack, &address));
    crowd.beside(&stack, "twenty thousand channels", || channels(&stack));
    crowd.leave();
    assert!(!stack.gateway.log().contains("panicked"));
}

/// Descriptors of the gateway's process: those of its connections, and the reserve.
const DESCRIPTORS: u64 = 456;

/// Connections in all, and of one address.
const CONNECTIONS: usize = 200;
const CONNECTIONS_PER_IP: usize = 100;

/// Connections that strangers try to hold, from each of their addresses.
const TRIED: usize = 300;

/// Dial `TRIED` times from 127.0.0.`from`: so many are held, and all others closed at once.
fn held(stack: &Stack, address: &str, from: u8, expected: usize) -> Vec<TcpStream> {
    let before = connections(stack, "handshake");
    let mut streams = dial_many(from, address, TRIED);
    let mut open = TRIED;
    wait_until("a ruling on every connection", PATIENCE, || {
        open = streams.iter_mut().map(|stream| usize::from(!is_closed(stream))).sum();
        open <= expected && connections(stack, "handshake") == before + expected as f64
    });
    assert_eq!(open, expected);
    streams
}

/// More connections than one address, and then than all together may have.
fn connections_without_end(stack: &Stack, address: &str) {
    let room = CONNECTIONS - CONNECTIONS_PER_IP - MINERS as usize;
    let of_one = held(stack, address, 2, CONNECTIONS_PER_IP);
    let of_another = held(stack, address, 3, room);
    drop((of_one, of_another));
}

/// A new miner gets in and gets work.
fn assert_open_for_business(stack: &Stack) {
    let address = stack.gateway.address("listen_addr");
    let authority = stack.gateway.address("authority_pubkey");
    let mut client = stack::wait_for("a place for a new miner", PATIENCE, || {
        Client::try_connect(&address, &authority).ok()
    });
    client.open("new", 20);
}

/// Goal: strangers cannot take more connections than they may have, nor all descriptors; when
/// none is left all the same, the gateway neither spins nor fills its log, and it goes on when
/// some are free again.
#[test]
fn out_of_descriptors() {
    let _alone = alone();
    let mut settings = Settings::demo(NBITS);
    settings.gateway = json!({
        "gateway": {
            "max_connections": CONNECTIONS,
            "max_connections_per_ip": CONNECTIONS_PER_IP,
        },
        "noise": { "handshake_timeout_ms": 10_000 },
    });
    let mut stack = Stack::without_gateway(&settings);
    stack.gateway.limit_descriptors(DESCRIPTORS);
    let verifier = stack.verifier.address("listen_addr");
    stack.start_gateway(&verifier);
    let address = stack.gateway.address("listen_addr");
    let crowd = Crowd::start(&mut stack, HASH_RATE);
    crowd.beside(&stack, "connections without end", || connections_without_end(&stack, &address));
    wait_for_the_honest_alone(&stack);
    assert_open_for_business(&stack);

    crowd.beside(&stack, "no descriptors", || no_descriptors(&stack, &crowd, &address));
    wait_for_the_honest_alone(&stack);
    assert_open_for_business(&stack);
    crowd.leave();
}

/// All descriptors that can be taken from outside are taken: the operators' port has no limit of
/// its own on idle connections, so they take the reserve as well.
fn no_descriptors(stack: &Stack, crowd: &Crowd, address: &str) {
    /// What all cores of the gateway may use beside fifty miners, of one processor.
    const SHARE_OF_PROCESSOR_MAX: f64 = 0.5;
    const LOG_BYTES_MAX: usize = 64 * 1_024;
    const WATCHED: Duration = Duration::from_secs(3);
    let http = stack.gateway.http_addr();
    let idle = dial_many(1, &http, usize::try_from(DESCRIPTORS).unwrap());
    let limit = usize::try_from(DESCRIPTORS).unwrap();
    wait_until("the end of the descriptors", PATIENCE, || crowd.gateway().descriptors() == limit);
    let (log, processor) = (stack.gateway.log().len(), crowd.gateway().processor_seconds());
    let began = Instant::now();
    let mut waiting = dial_many(2, address, TRIED);
    waiting[0].set_read_timeout(Some(WATCHED)).unwrap();
    let heard = waiting[0].read(&mut [0]);
    assert!(heard.is_err(), "nobody is served without a descriptor: {heard:?}");
    let share = (crowd.gateway().processor_seconds() - processor) / began.elapsed().as_secs_f64();
    let said = stack.gateway.log()[log..].to_owned();
    println!("without descriptors: {share:.2} of a processor, {} bytes of log", said.len());
    assert!(said.contains("could not be accepted"), "{said}");
    assert!(share < SHARE_OF_PROCESSOR_MAX && said.len() < LOG_BYTES_MAX, "{share}: {said}");
    drop((waiting, idle));
}

/// Goal: what saves the gateway is its limits: with the keys turned off, the same clients hold
/// what they could not hold before.
#[test]
fn without_its_limits() {
    let _alone = alone();
    const OFF: u64 = 60_000;
    let mut settings = Settings::demo(NBITS);
    settings.gateway = json!({
        "gateway": { "max_connections_per_ip": 0 },
        "noise": { "handshake_timeout_ms": OFF },
        "timing": { "setup_timeout_ms": OFF },
        "mining": { "max_channels_per_connection": u16::MAX },
    });
    let stack = Stack::start(&settings);
    let address = stack.gateway.address("listen_addr");

    let mut silent = Silent::connect(&address);
    silent.trickle();
    silent.unshaken[0].set_read_timeout(Some(OFF_SPAN)).unwrap();
    let heard = silent.unshaken[0].read(&mut [0]);
    assert!(heard.is_err(), "silence was ended: {heard:?}");
    let open = silent.all().map(|stream| !is_closed(stream));
    assert_eq!(
        open.filter(|is_open| *is_open).count(),
        Silent::UNSHAKEN + Silent::WITHOUT_SETUP + Silent::WITHOUT_CHANNEL,
        "without timeouts nobody is ended"
    );
    let of_one = held(&stack, &address, 2, TRIED);
    let of_another = held(&stack, &address, 3, TRIED);
    drop((of_one, of_another));
    let (opens, _rude) = open_many(&stack, ASKED, false);
    assert_eq!(opens, Opens { opened: ASKED, refused: 0 });
}
