//! Clients that connect at the wrong moment, say nothing, say nonsense, go without a word, or shake
//! hands without end.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sv2::message::common::SetupConnection;
use sv2::message::mining::SubmitSharesStandard;
use sv2::{ACT1_BYTES, ToMiner};

use super::rude::{OPEN, Rude, SETUP, SHARE, dial, dial_many, is_closed, read_to_end, reset};
use super::stack::client::{Client, Heard};
use super::stack::{PATIENCE, Stack, wait_until};
use super::{SETUP_TIMEOUT_MILLIS, closing, random, wait_for_the_honest_alone};

/// Connections that never come to the point: silent, half an act, one byte at a time, silent after
/// the handshake, and without a channel.
pub struct Silent {
    /// Without the whole of act 1.
    pub unshaken: Vec<TcpStream>,
    /// Without SetupConnection.
    pub without_setup: Vec<TcpStream>,
    /// Without a channel.
    pub without_channel: Vec<TcpStream>,
}

impl Silent {
    /// How many of the first kind.
    pub const UNSHAKEN: usize = 200;
    /// How many of the second.
    pub const WITHOUT_SETUP: usize = 100;
    /// How many of the third.
    pub const WITHOUT_CHANNEL: usize = 50;

    /// Connect all of them.
    pub fn connect(address: &str) -> Silent {
        let mut unshaken = dial_many(1, address, Silent::UNSHAKEN);
        for stream in &mut unshaken[..50] {
            stream.write_all(&random::<{ ACT1_BYTES - 1 }>()).unwrap();
        }
        let shaken = |_| Rude::shake_hands(dial(address)).stream;
        let set_up = |_| Rude::set_up(address).stream;
        Silent {
            unshaken,
            without_setup: (0..Silent::WITHOUT_SETUP).map(shaken).collect(),
            without_channel: (0..Silent::WITHOUT_CHANNEL).map(set_up).collect(),
        }
    }

    /// Act 1, a byte at a time and so slowly that it never ends; the other half stays silent.
    pub fn trickle(&mut self) {
        let act1: [u8; ACT1_BYTES] = random();
        let mut open: Vec<&mut TcpStream> = self.unshaken[50..100].iter_mut().collect();
        for byte in act1.chunks(1).take(ACT1_BYTES - 1) {
            open.retain_mut(|stream| stream.write_all(byte).is_ok());
            if open.is_empty() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(SETUP_TIMEOUT_MILLIS / 40));
        }
    }

    /// Each of them.
    pub fn all(&mut self) -> impl Iterator<Item = &mut TcpStream> {
        let others = self.without_setup.iter_mut().chain(&mut self.without_channel);
        self.unshaken.iter_mut().chain(others)
    }
}

/// All kinds of silence, each ended when its time is over.
pub fn silence(stack: &Stack, address: &str) {
    let timed_out = Silent::UNSHAKEN + Silent::WITHOUT_SETUP;
    closing(stack, "handshake_timeout", timed_out, || {
        closing(stack, "no_channel", Silent::WITHOUT_CHANNEL, || {
            let mut silent = Silent::connect(address);
            silent.trickle();
            silent.all().for_each(|stream| drop(read_to_end(stream)));
        });
    });
}

/// Two hundred connections with bytes that are none of the protocol's.
pub fn garbage(stack: &Stack, address: &str) {
    const EACH: usize = 40;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: browser/1.0\r\n\r\n");
    let request = format!("{request}{}", " ".repeat(ACT1_BYTES));
    let sv1 = "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"miner/1.0\"]}\n\
               {\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"a\",\"b\"]}\n";
    let unshaken = |bytes: &[u8]| {
        let mut stream = dial(address);
        // The gateway may close before all is written.
        let _ = stream.write_all(bytes);
        stream
    };
    closing(stack, "handshake_failed", 3 * EACH, || {
        let send = |_| [&random::<4_096>()[..], request.as_bytes(), sv1.as_bytes()].map(unshaken);
        let mut streams: Vec<TcpStream> = (0..EACH).flat_map(send).collect();
        streams.iter_mut().for_each(|stream| drop(read_to_end(stream)));
    });
    closing(stack, "peer_gone", EACH, || {
        (0..EACH).for_each(|_| drop(unshaken(&random::<{ ACT1_BYTES / 2 }>())));
    });
    closing(stack, "frame_out_of_sequence", EACH, || {
        let mut rude: Vec<Rude> = (0..EACH).map(|_| Rude::shake_hands(dial(address))).collect();
        for rude in &mut rude {
            let _ = rude.stream.write_all(&random::<8_192>());
        }
        rude.iter_mut().for_each(|rude| drop(read_to_end(&mut rude.stream)));
    });
}

/// A setup that must be refused, and one more frame behind it in the same segment: two such
/// connections first, then many at once.
pub fn bad_setups(stack: &Stack, address: &str) {
    const MANY: usize = 100;
    let bad: [SetupConnection; 3] = [
        SetupConnection { protocol: 1, ..SETUP },
        SetupConnection { min_version: 3, max_version: 3, ..SETUP },
        SetupConnection { flags: 0x8000_0000, ..SETUP },
    ];
    let send = |number: usize| {
        let mut rude = Rude::shake_hands(dial(address));
        let mut wire = Vec::new();
        rude.seal(&bad[number % bad.len()], &mut wire);
        rude.seal(&OPEN, &mut wire);
        rude.stream.write_all(&wire).unwrap();
        rude
    };
    let refused = |mut rude: Rude| {
        let is_error = rude.hear(|message| matches!(message, ToMiner::SetupConnectionError(_)));
        assert_eq!(is_error, Some(true));
        assert_eq!(rude.hear(|message| format!("{message:?}")), None, "nothing follows a refusal");
    };
    closing(stack, "setup_rejected", 2, || (0..2).map(send).for_each(refused));
    closing(stack, "setup_rejected", MANY, || {
        let many: Vec<Rude> = (0..MANY).map(send).collect();
        many.into_iter().for_each(refused);
    });
}

/// Connections that are reset, or closed on one side, after each step of the protocol.
pub fn resets(stack: &Stack, address: &str) {
    const EACH: usize = 40;
    let open = |_| {
        let (mut rude, opened) = Rude::open(address);
        rude.send(&SubmitSharesStandard { channel_id: opened.channel_id, ..SHARE });
        rude.stream
    };
    let steps: [&dyn Fn(usize) -> TcpStream; 5] = [
        &|_| dial(address),
        &|_| {
            let mut stream = dial(address);
            stream.write_all(&random::<{ ACT1_BYTES / 2 }>()).unwrap();
            stream
        },
        &|_| {
            let mut stream = dial(address);
            stream.write_all(&random::<ACT1_BYTES>()).unwrap();
            stream
        },
        &|_| Rude::set_up(address).stream,
        &open,
    ];
    let mut half_open = Vec::new();
    for step in steps {
        (0..EACH).for_each(|number| reset(step(number)));
        for number in 0..EACH {
            let stream = step(number);
            stream.shutdown(Shutdown::Write).unwrap();
            half_open.push(stream);
        }
    }
    half_open.iter_mut().for_each(|stream| drop(read_to_end(stream)));
    wait_for_the_honest_alone(stack);
}

/// Handshakes in such numbers that they alone keep the gateway busy for a while.
pub fn handshakes(stack: &Stack, address: &str) {
    const COUNT: usize = 2_000;
    let before = stack.gateway.metric("noise_handshakes_total{result=\"ok\"}");
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..COUNT {
        let mut stream = dial(address);
        // Any 64 bytes are an act 1, and cost who sends them nothing.
        stream.write_all(&random::<ACT1_BYTES>()).unwrap();
        streams.push(stream);
    }
    wait_until("all handshakes, or their end in time", PATIENCE, || {
        streams.iter_mut().all(is_closed)
    });
    let answered = stack.gateway.metric("noise_handshakes_total{result=\"ok\"}") - before;
    println!("{answered} of {COUNT} handshakes were answered in time");
    assert!(answered > 0.0);
    wait_for_the_honest_alone(stack);
}

/// The verifier stands still until this is dropped, so that a new tip has no verified work.
pub struct Paused(Pid);

impl Paused {
    /// From now on.
    pub fn new(stack: &mut Stack) -> Paused {
        let id = stack.verifier.process().id();
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Paused(pid)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn tip_of(client: &Client, channel_id: u32) -> work::BlockHash {
    client.channels[&channel_id].tip.unwrap().prev_hash
}

/// Clients that connect and open between a new tip and its SetNewPrevHash get nothing then, and
/// everything after it; more requests than a connection may have waiting are refused.
pub fn connects_in_a_hold(stack: &Stack, paused: Paused) {
    const CLIENTS: usize = 20;
    /// The default of `mining.max_channels_per_connection`.
    const CHANNELS_PER_CONNECTION_MAX: usize = 1_024;
    stack.demo_block();
    wait_until("the hold", PATIENCE, || stack.gateway.metric("prevhash_hold_active") == 1.0);
    let opened = stack.gateway.metric("channels{kind=\"standard\"}");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| stack.client()).collect();
    clients.iter_mut().for_each(|client| client.ask_to_open("early", 20));
    let mut greedy = stack.client();
    for number in 0..CHANNELS_PER_CONNECTION_MAX + 3 {
        greedy.ask_to_open(&format!("greedy.{number}"), 20);
    }
    for _ in 0..3 {
        greedy.wait_for("a refusal", |_, heard| match heard {
            Heard::OpenRefused(code) if code == "not-ready-retry" => Some(()),
            other => panic!("{other:?} in a hold"),
        });
    }
    for client in &mut clients {
        client.catch_up();
        assert!(client.channels.is_empty(), "a channel without work");
    }
    assert_eq!(stack.gateway.metric("channels{kind=\"standard\"}"), opened);

    drop(paused);
    greedy.wait_until("all that waited", |client| {
        client.channels.len() == CHANNELS_PER_CONNECTION_MAX
    });
    let mut tips = Vec::new();
    for client in clients.iter_mut().chain([&mut greedy]) {
        let has_work = |client: &Client| {
            let mut channels = client.channels.values();
            !client.channels.is_empty() && channels.all(|channel| channel.active.is_some())
        };
        client.wait_until("work after the hold", has_work);
        tips.push(tip_of(client, *client.channels.keys().next().unwrap()));
    }
    // A block may come in between; what all of them work on then is one of two.
    tips.dedup();
    assert!(tips.len() <= 2, "{tips:?}");
}

/// Clients that connect at the very moment of a new template.
pub fn connects_in_a_switch(stack: &Stack) {
    const ROUNDS: usize = 8;
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            scope.spawn(|| stack.demo_block());
            for number in 0..3 {
                let mut client = stack.client();
                let channel_id = client.open(&format!("switch.{round}.{number}"), 20);
                let first = tip_of(&client, channel_id);
                if round + 1 == ROUNDS {
                    client.wait_until("the next tip", |client| tip_of(client, channel_id) != first);
                }
            }
        });
    }
}
