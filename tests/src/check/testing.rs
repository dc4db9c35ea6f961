//! Hand-made histories.

use std::collections::BTreeSet;
use std::time::Duration;

use kv_types::{Durability, Hlc, Level, NodeId, Quorum, WriteId};

use super::Violation;
use crate::history::{Fate, Held, History, Read, Seen, Write};

/// The write with this number.
pub(super) fn id(number: u64) -> WriteId {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&number.to_le_bytes());
    WriteId::new(1_000, random)
}

/// Two of three replicas answer.
pub(super) fn majorities() -> Quorum {
    Quorum::new(3, 2, 2).expect("possible")
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Tells a history of key 1 and client 1, at quorum unless it says otherwise.
pub(super) struct Story {
    pub(super) history: History,
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            history: History::default(),
        }
    }

    pub(super) fn put(&mut self, number: u64, begun: u64, read: &[u64]) -> &mut Write {
        let write = Write {
            key: 1,
            client: 1,
            level: Level::Quorum,
            number: None,
            durability: Durability::Quorum,
            is_delete: false,
            expires: false,
            is_astray: false,
            is_told_later: false,
            is_blind: false,
            read: read.iter().map(|number| id(*number)).collect(),
            begun: ms(begun),
            attempts: 1,
            fate: Fate::Unknown,
            minted: None,
        };
        self.history.writes.entry(id(number)).or_insert(write)
    }

    pub(super) fn delete(&mut self, number: u64, begun: u64, read: &[u64]) -> &mut Write {
        let write = self.put(number, begun, read);
        write.is_delete = true;
        write
    }

    fn seen(&self, numbers: &[u64]) -> Vec<Seen> {
        let see = |number: &u64| {
            let id = id(*number);
            let deletes = self
                .history
                .writes
                .get(&id)
                .is_some_and(|write| write.is_delete);
            Seen {
                id,
                value: (!deletes).then(|| History::value_of(id)),
                minted: Hlc(*number),
            }
        };
        numbers.iter().map(see).collect()
    }

    pub(super) fn read(&mut self, begun: u64, ended: u64, seen: &[u64]) -> &mut Read {
        let read = Read {
            key: 1,
            client: 1,
            level: Level::Quorum,
            number: None,
            begun: ms(begun),
            ended: ms(ended),
            in_session: false,
            is_listed: false,
            seen: self.seen(seen),
        };
        self.history.reads.push(read);
        self.last_read()
    }

    pub(super) fn last_read(&mut self) -> &mut Read {
        self.history.reads.last_mut().expect("there was a read")
    }

    pub(super) fn hold(&mut self, node: u128, seen: &[u64]) {
        let seen = self.seen(seen);
        let held = Held {
            key: 1,
            node: NodeId(node),
            bytes: format!("{seen:?}").into_bytes(),
            seen,
        };
        self.history.held.push(held);
    }

    /// Which rules a checker finds broken, each once.
    pub(super) fn rules(&self, check: impl Fn(&History) -> Vec<Violation>) -> Vec<&'static str> {
        let rules: BTreeSet<_> = check(&self.history)
            .iter()
            .map(|found| found.rule)
            .collect();
        rules.into_iter().collect()
    }
}

impl Write {
    pub(super) fn acked(&mut self, at: u64) -> &mut Self {
        self.fate = Fate::Acked(ms(at));
        self
    }

    pub(super) fn not_applied(&mut self) {
        self.fate = Fate::NotApplied;
    }

    pub(super) fn unknown(&mut self) {
        self.fate = Fate::Unknown;
    }

    pub(super) fn blind(&mut self) -> &mut Self {
        self.is_blind = true;
        self
    }
}
