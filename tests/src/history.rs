//! What clients did and saw, for the checkers.
//!
//! Every write has an id of its own, and its value names that id. A write knows which writes its client had been
//! shown: they are what it may supersede.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kv_types::{Durability, Hlc, Level, NodeId, WriteId};

/// A key, by its number.
pub type KeyNumber = u32;

/// What a client knows of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was acknowledged at this time.
    Acked(Duration),
    /// It was refused with the promise that it never shows.
    NotApplied,
    /// Anything may have become of it.
    Unknown,
}

/// One write, with all its attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Of what.
    pub key: KeyNumber,
    /// By whom.
    pub client: u32,
    /// How many replicas it asked for.
    pub level: Level,
    /// So many replicas instead of what the level says.
    pub number: Option<u8>,
    /// What of it was to be on disks when it was acknowledged.
    pub durability: Durability,
    /// It deletes.
    pub is_delete: bool,
    /// Its value expires at some time, so it may not show.
    pub expires: bool,
    /// It came with the context of another key: it must be refused.
    pub is_astray: bool,
    /// Its client was told only later that it had been applied, and without a context: its session does not cover it.
    pub is_told_later: bool,
    /// It came without a context: its coordinator may have superseded anything.
    pub is_blind: bool,
    /// What its client had been shown, and so may be superseded by it.
    pub read: BTreeSet<WriteId>,
    /// When it was first sent.
    pub begun: Duration,
    /// How often it was sent. Each attempt may have been applied under a dot of its own.
    pub attempts: u32,
    /// What became of it.
    pub fate: Fate,
    /// When it was made by the nodes' clocks, as far as its client was told.
    pub minted: Option<Hlc>,
}

impl Write {
    /// When it was acknowledged as one that no loss of power takes, if it was.
    #[must_use]
    pub fn lasts_from(&self) -> Option<Duration> {
        self.acked_at()
            .filter(|_| self.durability != Durability::Memory)
    }

    /// When it was acknowledged, if it was.
    #[must_use]
    pub fn acked_at(&self) -> Option<Duration> {
        match self.fate {
            Fate::Acked(at) => Some(at),
            Fate::NotApplied | Fate::Unknown => None,
        }
    }
}

/// One answered read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Of what.
    pub key: KeyNumber,
    /// By whom.
    pub client: u32,
    /// How many replicas were asked.
    pub level: Level,
    /// So many replicas instead of what the level says.
    pub number: Option<u8>,
    /// When it was sent.
    pub begun: Duration,
    /// When it was answered.
    pub ended: Duration,
    /// Its client keeps a session: it said what it had seen.
    pub in_session: bool,
    /// It is one key of a listing.
    pub is_listed: bool,
    /// What it showed.
    pub seen: Vec<Seen>,
}

/// One sibling of an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Which write it was.
    pub id: WriteId,
    /// The value, or nothing for a delete.
    pub value: Option<String>,
    /// When it was made by the nodes' clocks; of a write that was made more than once, when it was last.
    pub minted: Hlc,
}

impl Read {
    /// The writes that it showed.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<WriteId> {
        self.seen.iter().map(|seen| seen.id).collect()
    }
}

/// What one replica holds of a key after all is healed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Of what.
    pub key: KeyNumber,
    /// Who.
    pub node: NodeId,
    /// Its siblings.
    pub seen: Vec<Seen>,
    /// Everything about them, byte for byte.
    pub bytes: Vec<u8>,
}

/// All that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// All writes.
    pub writes: BTreeMap<WriteId, Write>,
    /// All reads that were answered, in the order of their answers.
    pub reads: Vec<Read>,
    /// What the replicas hold at the end.
    pub held: Vec<Held>,
    /// From this age on a deletion that all replicas had may be forgotten: then it shows no longer.
    pub forgets_after: Option<Duration>,
    /// Of each key only the write shows that was made last by the nodes' clocks.
    pub last_writer_wins: bool,
    /// Until when durable bytes of a replica were destroyed, if any were.
    pub loses_until: Option<Duration>,
}

/// Where an id counts the writes of its client, and where it says that its value is large.
const WRITES_AT: usize = 6;
const LARGE_AT: usize = 15;
const LARGE: u8 = 0x80;
/// Above what the streams take that small messages share.
const LARGE_BYTES: usize = 80 << 10;

impl History {
    /// The value of a write: it names it, and its length differs from others'.
    #[must_use]
    pub fn value_of(id: WriteId) -> String {
        let text = format!("{id:?} ");
        let bytes = id.to_bytes();
        let count = 1 + usize::from(bytes[WRITES_AT]) % 8;
        text.repeat(if Self::is_large(id) {
            count + LARGE_BYTES / text.len()
        } else {
            count
        })
    }

    /// Whether the value of a write is large.
    #[must_use]
    pub fn is_large(id: WriteId) -> bool {
        id.to_bytes()[LARGE_AT] & LARGE != 0
    }

    /// The id of a write whose value is large, made from another.
    #[must_use]
    pub fn large(id: WriteId) -> WriteId {
        let mut bytes = id.to_bytes();
        bytes[LARGE_AT] |= LARGE;
        WriteId::from_bytes(bytes)
    }

    /// All that happened to a key, a line each, in the order of time.
    #[must_use]
    pub fn tell(&self, key: KeyNumber) -> Vec<String> {
        let mut numbers = BTreeMap::new();
        let mut in_order: Vec<_> = self
            .writes
            .iter()
            .filter(|(_, write)| write.key == key)
            .collect();
        in_order.sort_by_key(|(id, write)| (write.begun, **id));
        for (number, (id, _)) in in_order.iter().enumerate() {
            numbers.insert(**id, format!("w{number}"));
        }
        let short = |ids: &mut dyn Iterator<Item = WriteId>| -> String {
            let names = ids.map(|id| {
                numbers
                    .get(&id)
                    .cloned()
                    .unwrap_or_else(|| format!("{id:?}"))
            });
            names.collect::<Vec<_>>().join(" ")
        };
        let of_number =
            |number: Option<u8>| number.map_or_else(String::new, |number| format!(" of {number}"));
        let mut lines: Vec<(Duration, String)> = Vec::new();
        for (id, write) in in_order {
            let blind = if write.is_blind { " blind" } else { "" };
            let line = format!(
                "client {} writes {} ({id:?}) at {:?}{}{blind} over [{}], sent {} times: {:?}",
                write.client,
                numbers[id],
                write.level,
                of_number(write.number),
                short(&mut write.read.iter().copied()),
                write.attempts,
                write.fate
            );
            lines.push((write.begun, line));
        }
        for read in self.reads.iter().filter(|read| read.key == key) {
            let line = format!(
                "client {} reads at {:?}{} since {:?}: [{}]",
                read.client,
                read.level,
                of_number(read.number),
                read.begun,
                short(&mut read.seen.iter().map(|seen| seen.id))
            );
            lines.push((read.ended, line));
        }
        lines.sort();
        for held in self.held.iter().filter(|held| held.key == key) {
            let line = format!(
                "{} holds [{}]",
                held.node,
                short(&mut held.seen.iter().map(|seen| seen.id))
            );
            lines.push((Duration::MAX, line));
        }
        let text = |(at, line): (Duration, String)| {
            if at == Duration::MAX {
                line
            } else {
                format!("{at:?}: {line}")
            }
        };
        lines.into_iter().map(text).collect()
    }

    /// For each write those that had read it, and may have superseded it.
    #[must_use]
    pub fn readers(&self) -> BTreeMap<WriteId, Vec<WriteId>> {
        let mut readers: BTreeMap<WriteId, Vec<WriteId>> = BTreeMap::new();
        for (id, write) in &self.writes {
            for read in &write.read {
                readers.entry(*read).or_default().push(*id);
            }
        }
        readers
    }

    /// What the replicas of a key show together.
    #[must_use]
    pub fn shown(&self) -> BTreeMap<KeyNumber, BTreeSet<WriteId>> {
        let mut shown: BTreeMap<_, BTreeSet<WriteId>> = BTreeMap::new();
        for held in &self.held {
            let ids = held.seen.iter().map(|seen| seen.id);
            shown.entry(held.key).or_default().extend(ids);
        }
        shown
    }
}
