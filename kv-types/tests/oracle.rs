//! The clock against exact causal histories, with lost and rolled-back memory.
//!
//! Every object is paired with its exact history: the plain set of every dot in its past, and the
//! set of dots that are live. Random replicas write, merge, lose writes that were not yet durable,
//! are restored from old disks, and drop and regain keys. After every step the siblings of every
//! replica must be exactly the live dots of its history.

use std::collections::BTreeSet;

use bytes::Bytes;
use fastrand::Rng;
use kv_types::{ActorId, Clock, Dot, Hlc, Object, Payload, Write, WriteId};

const REPLICAS: usize = 4;
const KEYS: usize = 2;
const CLIENTS: usize = 5;

/// What exactly happened to one copy of one key.
#[derive(Clone, Default)]
struct History {
    past: BTreeSet<Dot>,
    live: BTreeSet<Dot>,
}

impl History {
    fn write(&mut self, read: &BTreeSet<Dot>, dot: Dot) {
        self.live.retain(|d| !read.contains(d));
        self.past.extend(read);
        self.past.insert(dot);
        self.live.insert(dot);
    }

    fn merge(&mut self, other: &Self) {
        let kept = |a: &Self, b: &Self| -> BTreeSet<Dot> {
            a.live
                .iter()
                .filter(|d| b.live.contains(d) || !b.past.contains(d))
                .copied()
                .collect()
        };
        self.live = &kept(self, other) | &kept(other, self);
        self.past.extend(&other.past);
    }
}

#[derive(Clone, Default)]
struct Copy {
    object: Object,
    history: History,
}

struct Replica {
    actor: ActorId,
    copies: [Copy; KEYS],
    held_since: Hlc,
    /// An older state of the disk, to be rolled back to.
    backup: [Copy; KEYS],
}

/// Which rule a run follows: the one that ships, or one known to be wrong.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Shipped,
    /// Extends the interval whatever was forgotten.
    IgnoreHeldSince,
}

struct World {
    rng: Rng,
    now: u64,
    next_actor: u32,
    replicas: Vec<Replica>,
    /// What each client read last of each key.
    read: Vec<[(Clock, BTreeSet<Dot>); KEYS]>,
    rule: Rule,
}

impl World {
    fn new(seed: u64, rule: Rule) -> Self {
        let replica = |n| Replica {
            actor: ActorId(n),
            copies: Default::default(),
            held_since: Hlc::ZERO,
            backup: Default::default(),
        };
        Self {
            rng: Rng::with_seed(seed),
            now: 0,
            next_actor: REPLICAS as u32,
            replicas: (0..REPLICAS as u32).map(replica).collect(),
            read: vec![Default::default(); CLIENTS],
            rule,
        }
    }

    /// Time only moves on: a restarted node starts above its durable high-water mark.
    fn tick(&mut self) -> Hlc {
        self.now += 1 + self.rng.u64(0..3);
        Hlc(self.now)
    }

    fn step(&mut self) {
        let (replica, key) = (self.rng.usize(0..REPLICAS), self.rng.usize(0..KEYS));
        match self.rng.u32(0..100) {
            0..25 => self.client_reads(replica, key),
            25..55 => self.client_writes(replica, key),
            55..90 => self.replicas_merge(replica, key),
            90..93 => self.replicas[replica].backup = self.replicas[replica].copies.clone(),
            93..96 => self.restart_without_the_latest_writes(replica),
            96..98 => self.restore_an_old_disk(replica),
            _ => self.drop_and_regain(replica, key),
        }
    }

    fn client_reads(&mut self, replica: usize, key: usize) {
        let copy = &self.replicas[replica].copies[key];
        let client = self.rng.usize(0..CLIENTS);
        self.read[client][key] = (copy.object.clock().clone(), copy.history.past.clone());
    }

    fn client_writes(&mut self, replica: usize, key: usize) {
        let hlc = self.tick();
        let blind = self.rng.u8(0..5) == 0;
        let client = self.rng.usize(0..CLIENTS);
        let (read, exact) = if blind {
            Default::default()
        } else {
            self.read[client][key].clone()
        };
        let held_since = match self.rule {
            Rule::Shipped => self.replicas[replica].held_since,
            Rule::IgnoreHeldSince => Hlc::ZERO,
        };
        let write_id = WriteId::new(
            self.now,
            self.rng.u128(..).to_le_bytes()[..10]
                .try_into()
                .expect("ten bytes"),
        );
        let replica = &mut self.replicas[replica];
        let dot = Dot::new(replica.actor, hlc);
        let copy = &mut replica.copies[key];
        let write = Write {
            write_id,
            payload: Payload::Value(Bytes::from_static(b"v")),
            expires_ms: None,
        };
        if copy
            .object
            .write(write, &read, dot, held_since, self.now)
            .is_ok()
        {
            copy.history.write(&exact, dot);
        }
    }

    fn replicas_merge(&mut self, to: usize, key: usize) {
        let from = self.replicas[self.rng.usize(0..REPLICAS)].copies[key].clone();
        let copy = &mut self.replicas[to].copies[key];
        copy.object.merge(&from.object);
        copy.history.merge(&from.history);
    }

    /// Power loss: the disk falls back to an earlier state; the actor goes on, above its mark.
    fn restart_without_the_latest_writes(&mut self, replica: usize) {
        let now = self.tick();
        let replica = &mut self.replicas[replica];
        replica.copies = replica.backup.clone();
        replica.held_since = now;
    }

    /// A restored or wiped disk is noticed by its boot counter: the node gets a new actor.
    fn restore_an_old_disk(&mut self, replica: usize) {
        let now = self.tick();
        let wiped = self.rng.bool();
        let replica = &mut self.replicas[replica];
        replica.copies = if wiped {
            Default::default()
        } else {
            replica.backup.clone()
        };
        replica.backup = replica.copies.clone();
        replica.actor = ActorId(self.next_actor);
        replica.held_since = now;
        self.next_actor += 1;
    }

    /// Ownership of a key leaves the node and comes back later.
    fn drop_and_regain(&mut self, replica: usize, key: usize) {
        let now = self.tick();
        let replica = &mut self.replicas[replica];
        replica.copies[key] = Copy::default();
        replica.held_since = now;
    }

    fn agrees_with_history(&self) -> bool {
        self.replicas.iter().flat_map(|r| &r.copies).all(|copy| {
            let live: BTreeSet<Dot> = copy
                .object
                .siblings()
                .flat_map(|s| s.dots().iter().copied())
                .collect();
            live == copy.history.live
        })
    }
}

fn diverges(seed: u64, rule: Rule) -> bool {
    let mut world = World::new(seed, rule);
    (0..120).any(|_| {
        world.step();
        !world.agrees_with_history()
    })
}

#[test]
fn siblings_equal_exact_causal_history_in_twenty_thousand_runs() {
    let diverged: Vec<u64> = (0..20_000)
        .filter(|seed| diverges(*seed, Rule::Shipped))
        .collect();
    assert!(
        diverged.is_empty(),
        "{} runs diverged, first seeds {:?}",
        diverged.len(),
        &diverged[..5.min(diverged.len())]
    );
}

#[test]
fn the_oracle_notices_when_intervals_are_extended_over_lost_memory() {
    let diverged = (0..2_000)
        .filter(|seed| diverges(*seed, Rule::IgnoreHeldSince))
        .count();
    assert!(diverged > 20, "only {diverged} of 2,000 runs diverged");
    println!("without held_since {diverged} of 2,000 runs diverge");
}
