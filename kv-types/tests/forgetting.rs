//! Merging beside forgetting: replicas that know the same up to a watermark let go of what was deleted
//! or has expired by then, each in its own time, and merge by the rule for what comes late.
//!
//! Every replica is kept twice: once it forgets, once it never does. Whatever is written, read, merged
//! and forgotten, and in whatever order, readers must see the same of both.

use std::collections::BTreeSet;

use bytes::Bytes;
use fastrand::Rng;
use kv_types::{
    ActorId, Admission, BucketMode, Clock, Dot, Hlc, Object, Payload, Sibling, Write, WriteId,
};

const REPLICAS: usize = 3;
const START_MS: u64 = 1_000_000_000;

/// Which rule a run follows: the one that ships, or one known to be wrong.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Shipped,
    /// Merges what comes late as if nothing had been forgotten.
    TakeInAll,
    /// Forgets what was deleted lately, too.
    ForgetAboveTheWatermark,
    /// Forgets what is to expire one day.
    ForgetBeforeItExpires,
}

/// A replica of one key, as it is and as it would be if nothing were ever forgotten.
#[derive(Clone, Default)]
struct Copy {
    forgets: Object,
    remembers: Object,
}

struct World {
    rng: Rng,
    mode: BucketMode,
    rule: Rule,
    now_ms: u64,
    copies: Vec<Copy>,
    /// What all replicas have known since: none of them holds anything from before that another one lacks.
    watermark: Hlc,
    /// What was once on its way, or read by a client, at any time.
    earlier: Vec<Copy>,
    /// Writes since then that may come once more, and what their writers had read.
    sent: Vec<(Write, Copy)>,
}

impl World {
    /// Replicas with a past that all of them know.
    fn new(seed: u64, rule: Rule) -> Self {
        let mode = match seed % 2 {
            0 => BucketMode::Siblings,
            _ => BucketMode::Lww,
        };
        let mut world = Self {
            rng: Rng::with_seed(seed),
            mode,
            rule,
            now_ms: START_MS,
            copies: vec![Copy::default(); REPLICAS],
            watermark: Hlc::ZERO,
            earlier: vec![Copy::default()],
            sent: Vec::new(),
        };
        for _ in 0..world.rng.usize(0..15) {
            world.write_or_merge();
        }
        let all = world.copies.iter().map(|copy| &copy.remembers);
        let all = all.fold(Object::new(), |all, copy| all.merged(copy));
        world.copies.fill(Copy {
            forgets: all.clone(),
            remembers: all,
        });
        world.raise();
        world
    }

    fn step(&mut self) {
        match self.rng.u8(0..40) {
            0 => {
                self.converge();
                self.raise();
            }
            1..10 => self.forget(),
            10..20 => self.late(),
            _ => self.write_or_merge(),
        }
    }

    /// All know the same by now, and nothing from before is sent once more.
    fn raise(&mut self) {
        self.now_ms += self.rng.u64(0..200_000);
        self.watermark = Hlc::new(self.now_ms, 0);
        self.now_ms += 1;
        self.sent.clear();
    }

    fn write_or_merge(&mut self) {
        self.now_ms += self.rng.u64(1..20_000);
        if self.rng.bool() {
            self.write();
        } else {
            let from = self.copies[self.rng.usize(0..REPLICAS)].clone();
            self.take_in(&from);
        }
    }

    /// A client writes, with the context of an earlier read or without, or repeats a write.
    fn write(&mut self) {
        if !self.sent.is_empty() && self.rng.u8(0..4) == 0 {
            let (write, read) = self.sent[self.rng.usize(0..self.sent.len())].clone();
            return self.put(write, &read);
        }
        let read = self.earlier[self.rng.usize(0..self.earlier.len())].clone();
        let payload = match self.rng.bool() {
            true => Payload::Value(Bytes::copy_from_slice(&self.rng.u64(..).to_be_bytes())),
            false => Payload::Tombstone,
        };
        let lives_ms = self.rng.u8(0..3) == 0;
        let expires_ms = lives_ms.then(|| self.now_ms + self.rng.u64(0..200_000));
        let write = Write {
            write_id: WriteId::new(
                self.now_ms,
                self.rng.u128(..).to_le_bytes()[..10]
                    .try_into()
                    .expect("ten"),
            ),
            payload,
            expires_ms,
        };
        self.sent.push((write.clone(), read.clone()));
        self.put(write, &read);
    }

    fn put(&mut self, write: Write, read: &Copy) {
        let at = self.rng.usize(0..REPLICAS);
        let dot = Dot::new(ActorId(at as u32), Hlc::new(self.now_ms, 0));
        let (now_ms, through) = (self.now_ms, self.watermark);
        let put = |object: &mut Object, write: Write, read: &Clock| {
            if object.admit(write.write_id, now_ms) != Admission::New {
                return false;
            }
            object.close_gaps(through);
            object.write(write, read, dot, Hlc::ZERO, now_ms).is_ok()
        };
        let copy = &mut self.copies[at];
        let is_taken = put(&mut copy.remembers, write.clone(), read.remembers.clock());
        let is_taken_too = put(&mut copy.forgets, write, read.forgets.clock());
        assert_eq!(is_taken, is_taken_too);
        self.earlier.push(self.copies[at].clone());
    }

    /// A replica takes in what another one had.
    fn take_in(&mut self, from: &Copy) {
        let at = self.rng.usize(0..REPLICAS);
        self.take_in_at(at, from);
        self.earlier.push(self.copies[at].clone());
    }

    fn take_in_at(&mut self, at: usize, from: &Copy) {
        self.remember(at);
        let copy = &mut self.copies[at];
        copy.remembers.merge(&from.remembers);
        let (left, _) = from
            .forgets
            .without_deleted(copy.forgets.clock(), self.watermark);
        let incoming = match self.rule {
            Rule::TakeInAll => &from.forgets,
            _ => &left,
        };
        let merged = copy.forgets.merged(incoming);
        let is_past = merged.oldest_dot().is_none() && merged.clock().latest() <= self.watermark;
        if !is_past || self.rule == Rule::TakeInAll {
            copy.forgets = merged;
        }
    }

    /// Something that was on its way for long, or stood on another disk, arrives.
    fn late(&mut self) {
        let from = self.earlier[self.rng.usize(0..self.earlier.len())].clone();
        self.take_in(&from);
    }

    /// A compaction comes by.
    fn forget(&mut self) {
        let at = self.rng.usize(0..REPLICAS);
        self.remember(at);
    }

    /// What is as good as forgotten is not built upon, whether it is still there or not.
    fn remember(&mut self, at: usize) {
        if self.is_forgettable(&self.copies[at].forgets) {
            self.copies[at].forgets = Object::new();
        }
    }

    fn is_forgettable(&self, object: &Object) -> bool {
        let through = match self.rule {
            Rule::ForgetAboveTheWatermark => Hlc::new(self.now_ms, u16::MAX),
            Rule::ForgetBeforeItExpires => Hlc::new(self.watermark.millis() + 100_000, 0),
            _ => self.watermark,
        };
        let gone_from = object.gone_from(self.mode);
        let is_of_then =
            self.rule != Rule::ForgetBeforeItExpires || object.clock().latest() <= self.watermark;
        is_of_then && gone_from.is_some_and(|from| from <= through)
    }

    fn shown(&self, object: &Object) -> BTreeSet<WriteId> {
        let shows = |sibling: &&Sibling| {
            matches!(sibling.payload(), Payload::Value(_)) && !sibling.is_expired(self.now_ms)
        };
        match self.mode {
            BucketMode::Siblings => object
                .siblings()
                .filter(shows)
                .map(Sibling::write_id)
                .collect(),
            BucketMode::Lww => object
                .last_written()
                .filter(|last| shows(last))
                .map(Sibling::write_id)
                .into_iter()
                .collect(),
        }
    }

    fn shows_the_same(&self) -> bool {
        let mut copies = self.copies.iter();
        copies.all(|copy| self.shown(&copy.forgets) == self.shown(&copy.remembers))
    }

    /// All replicas have told each other everything.
    fn converge(&mut self) {
        for _ in 0..2 {
            for at in 0..REPLICAS {
                for from in 0..REPLICAS {
                    let from = self.copies[from].clone();
                    self.take_in_at(at, &from);
                }
            }
        }
    }

    fn is_equal(&self) -> bool {
        let objects: Vec<Object> = self
            .copies
            .iter()
            .map(|copy| match self.is_forgettable(&copy.forgets) {
                true => Object::new(),
                false => copy.forgets.clone(),
            })
            .collect();
        objects.windows(2).all(|pair| pair[0] == pair[1])
    }
}

fn goes_wrong(seed: u64, rule: Rule) -> bool {
    let mut world = World::new(seed, rule);
    let differs = (0..80).any(|_| {
        world.step();
        !world.shows_the_same()
    });
    differs || {
        world.converge();
        !world.shows_the_same() || !world.is_equal()
    }
}

#[test]
fn readers_see_the_same_whoever_has_forgotten_and_in_whatever_order_all_meet() {
    for seed in 0..20_000 {
        assert!(!goes_wrong(seed, Rule::Shipped), "seed {seed}");
    }
}

#[test]
fn each_weaker_rule_is_noticed() {
    for (rule, name) in [
        (Rule::TakeInAll, "what comes late is merged"),
        (
            Rule::ForgetAboveTheWatermark,
            "deletions of late are forgotten",
        ),
        (
            Rule::ForgetBeforeItExpires,
            "what is yet to expire is forgotten",
        ),
    ] {
        assert!((0..2_000).any(|seed| goes_wrong(seed, rule)), "{name}");
    }
}
