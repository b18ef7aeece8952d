//! Mischief: now and then one of the faults of this world strikes somewhere.

use gateway::limits::{FREE_BYTES_FULL, FREE_BYTES_SLOW};
use work::Mono;

use crate::checkers::Wire;
use crate::disk::FULL_MICROS;
use crate::faults::{MILLI, Plant, SECOND};
use crate::net::{State, Who};
use crate::process::Fact;
use crate::world::{Core, Event, World};

/// Connections of noise that are open at once.
const GARBAGE_MAX: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Mischief {
    Reset,
    Damage,
    Silence,
    Stall,
    SlowCore,
    LoseLink,
    MuteVerifier,
    ChangePolicy,
    LoseSource,
    Garbage,
    Forge,
    Flood,
    SlowDisk,
    Space,
    Operate,
}

impl World {
    /// One stroke, and when the next comes.
    pub fn mischief(&mut self) {
        self.lie();
        if self.is_calm {
            return;
        }
        let all = [
            (self.faults.resets, Mischief::Reset),
            (self.faults.corrupts, Mischief::Damage),
            (self.faults.silence, Mischief::Silence),
            (self.faults.stalls, Mischief::Stall),
            (self.faults.slow_cores, Mischief::SlowCore),
            (self.faults.link_losses, Mischief::LoseLink),
            (self.faults.link_losses, Mischief::MuteVerifier),
            (self.faults.policy_changes, Mischief::ChangePolicy),
            (self.faults.source_losses, Mischief::LoseSource),
            (self.faults.garbage, Mischief::Garbage),
            (self.faults.forgeries, Mischief::Forge),
            (self.faults.forgeries, Mischief::Forge),
            (self.faults.forgeries, Mischief::Forge),
            (self.faults.floods, Mischief::Flood),
            (self.faults.disk_hangs, Mischief::SlowDisk),
            (self.faults.scarce_space, Mischief::Space),
            (self.faults.operators, Mischief::Operate),
        ];
        let on: Vec<Mischief> = all.iter().filter(|(is_on, _)| *is_on).map(|(_, m)| *m).collect();
        if !on.is_empty() {
            let mischief = self.chance.pick(&on);
            self.stats.mischief += 1;
            self.strike(mischief);
        }
        let after = self.chance.between(50, 1_500) * MILLI;
        self.after(after, Event::Mischief);
    }

    /// Plants that strike by themselves.
    fn lie(&mut self) {
        if self.plant.is_none() || self.is_calm {
            return;
        }
        if self.may_plant(Plant::BrokenTaken)
            && let Some(view) = self.checker.wires.values_mut().find(|view| view.is_tracked)
        {
            view.broken_at = Some(0);
        }
        if self.may_plant(Plant::CreditTooHigh) {
            self.wake_of(Core::Forwarder).slow_until = Mono(self.now().mono.0 + SECOND);
        }
        if self.may_plant(Plant::SilentEnd)
            && let Some(wire) = self.some_wire()
        {
            self.reset(wire);
        }
    }

    fn strike(&mut self, mischief: Mischief) {
        let now = self.now();
        let wire = self.some_wire();
        let at = wire.filter(|_| {
            matches!(
                mischief,
                Mischief::Reset | Mischief::Damage | Mischief::Silence | Mischief::Stall
            )
        });
        self.trace.note(now.mono, format_args!("mischief: {mischief:?} {at:?}"));
        match (mischief, wire) {
            (Mischief::Reset, Some(wire)) => self.reset(wire),
            (Mischief::Damage, Some(wire)) => self.pipes[wire].damages = true,
            (Mischief::Silence, Some(wire)) => self.fall_silent(wire),
            (Mischief::Stall, Some(wire)) => {
                self.pipes[wire].is_stalled = true;
                let after = self.chance.pick(&[100, 2_000, 20_000]) * MILLI;
                self.after(after, Event::Unstall(wire));
            }
            (Mischief::SlowCore, _) => self.slow_core(),
            (Mischief::LoseLink, _) => self.lose_link("reset"),
            (Mischief::MuteVerifier, _) => {
                let length = self.chance.pick(&[500, 3_000, 12_000]) * MILLI;
                self.verifier.mute_until = now.mono.0 + length;
                self.lose_link("the verifier is down");
            }
            (Mischief::ChangePolicy, _) => self.change_policy(),
            (Mischief::LoseSource, _) => self.lose_source(),
            (Mischief::Garbage, _) => self.garbage(),
            (Mischief::Forge, _) => {
                let count = self.chance.between(1, 6);
                self.forge(count);
            }
            (Mischief::Flood, _) => {
                let count = self.chance.between(30, 300);
                self.forge(count);
            }
            (Mischief::SlowDisk, _) => {
                self.segments.delay = self.chance.pick(&[200, 1_500, 6_000]) * MILLI;
            }
            (Mischief::Space, _) => self.take_space(),
            (Mischief::Operate, _) => self.on_operator(),
            (Mischief::Reset | Mischief::Damage | Mischief::Silence | Mischief::Stall, None) => (),
        }
    }

    fn some_wire(&mut self) -> Option<Wire> {
        let open: Vec<Wire> = (0..self.pipes.len())
            .rev()
            .take(40)
            .filter(|wire| self.pipes[*wire].state == State::Open)
            .collect();
        (!open.is_empty()).then(|| self.chance.pick(&open))
    }

    /// The far end is gone without a word; its owner dials anew when it notices.
    fn fall_silent(&mut self, wire: Wire) {
        self.pipes[wire].is_silent = true;
        if let Who::Miner(number) = self.pipes[wire].who {
            let now = self.now();
            self.peers[number].wire = None;
            self.peers[number].miner.on_disconnected(now);
            let after = self.chance.between(1, 10) * SECOND;
            self.after(after, Event::Connect(number));
        }
    }

    fn slow_core(&mut self) {
        let shard = self.chance.below(self.faults.shards as u64) as usize;
        let core = self.chance.pick(&[Core::Shard(shard), Core::Control, Core::Forwarder]);
        let length = self.chance.pick(&[5, 100, 1_500]) * MILLI;
        let until = Mono(self.now().mono.0 + length);
        self.wake_of(core).slow_until = until;
    }

    /// Somebody else fills the disk, and cleans up after a while.
    fn take_space(&mut self) {
        self.segments.free = self.chance.pick(&[FREE_BYTES_SLOW - 1, FREE_BYTES_FULL - 1]);
        self.segments.is_full = self.chance.one_in(2);
        let after = self.chance.pick(&FULL_MICROS);
        self.after(after, Event::SpaceBack);
    }

    fn lose_source(&mut self) {
        if !std::mem::replace(&mut self.is_source_up, false) {
            return;
        }
        self.source_losses += 1;
        self.tell_control(100, Fact::SourceLost);
        if self.chance.one_in(3) {
            self.node.restart_numbers();
        }
        let after = self.chance.pick(&[1, 10, 35]) * SECOND;
        self.after(after, Event::SourceBack);
    }

    /// Noise from a stranger, before or instead of a handshake.
    fn garbage(&mut self) {
        let is_noise =
            |pipe: &&crate::net::Pipe| pipe.who == Who::Garbage && pipe.state == State::Open;
        if self.pipes.iter().filter(is_noise).count() >= GARBAGE_MAX {
            return;
        }
        let Some(wire) = self.dial(Who::Garbage) else { return };
        let mut bytes = vec![0; self.chance.pick(&[1, 63, 64, 65, 700])];
        self.chance.fill(&mut bytes);
        self.write_up(wire, &bytes);
    }
}
