//! A store without files: compaction is picked and carried out on keys alone, so that thousands of
//! memtables take seconds. Tests judge by it what picks cost, and that reads stay right.

mod amplification;
mod leveled;

use super::below::Below;
use super::choice::Choice;
use super::cut::{Boundary, Cuts};
use super::pick::{Situation, pick};
use super::release::{RELEASE_TABLES, released};
use crate::key::Seq;
use crate::options::Options;
use crate::table::TableSummary;
use crate::version::{BOTTOM, Edit, NewTable, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

/// Bytes of a put and of a delete.
pub(super) const PUT_BYTES: u64 = 100;
const DELETE_BYTES: u64 = 20;

/// One version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    key: u32,
    seq: u64,
    is_delete: bool,
}

impl Item {
    fn size_bytes(self) -> u64 {
        if self.is_delete {
            DELETE_BYTES
        } else {
            PUT_BYTES
        }
    }
}

/// Bytes written, by cause.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    pub user: u64,
    pub flushed: u64,
    pub compacted: u64,
    pub moved: u64,
}

/// A simulated store.
pub(super) struct World {
    pub options: Options,
    pub version: Version<()>,
    contents: BTreeMap<u64, Vec<Item>>,
    memtable: BTreeMap<u32, Item>,
    memtable_bytes: u64,
    next_file: u64,
    seq: u64,
    pub in_flight: Vec<Arc<Choice>>,
    pub fenced: BTreeSet<u64>,
    pub written: Written,
    /// Credit for idle compactions, in bytes.
    pub idle_bytes: u64,
    /// What a reader must find.
    truth: BTreeMap<u32, u64>,
    /// Most bytes ever taken, outputs of a compaction and its inputs counted together.
    pub peak_bytes: u64,
    pub compactions: u64,
    /// Checks what readers see also while a compaction is half done.
    pub checks_each_step: bool,
}

fn encode(key: u32) -> Vec<u8> {
    key.to_be_bytes().to_vec()
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            version: Version::empty(),
            contents: BTreeMap::new(),
            memtable: BTreeMap::new(),
            memtable_bytes: 0,
            next_file: 0,
            seq: 0,
            in_flight: Vec::new(),
            fenced: BTreeSet::new(),
            written: Written::default(),
            idle_bytes: 0,
            truth: BTreeMap::new(),
            peak_bytes: 0,
            compactions: 0,
            checks_each_step: false,
        }
    }

    /// Writes a key; true if the memtable is full now.
    pub(super) fn write(&mut self, key: u32, is_delete: bool) -> bool {
        self.seq += 1;
        let item = Item {
            key,
            seq: self.seq,
            is_delete,
        };
        self.written.user += item.size_bytes();
        // Overwritten versions take memory too.
        self.memtable_bytes += item.size_bytes();
        self.memtable.insert(key, item);
        if is_delete {
            self.truth.remove(&key);
        } else {
            self.truth.insert(key, self.seq);
        }
        self.memtable_bytes >= self.options.memtable_bytes as u64
    }

    pub(super) fn flush(&mut self) {
        let items: Vec<Item> = std::mem::take(&mut self.memtable).into_values().collect();
        self.memtable_bytes = 0;
        if items.is_empty() {
            return;
        }
        let table = self.store(items);
        self.written.flushed += table.size_bytes;
        self.idle_bytes += table.size_bytes;
        let new = NewTable {
            level: 0,
            run: table.file,
            table,
        };
        self.apply(&Edit {
            added: vec![new],
            ..Edit::default()
        });
        self.note_peak(0);
    }

    fn store(&mut self, items: Vec<Item>) -> TableSummary {
        self.next_file += 1;
        let summary = TableSummary {
            file: self.next_file,
            size_bytes: items.iter().map(|item| item.size_bytes()).sum(),
            entries: items.len() as u64,
            deletes: items.iter().filter(|item| item.is_delete).count() as u64,
            smallest: encode(items[0].key),
            largest: encode(items[items.len() - 1].key),
            newest: Seq(items.iter().map(|item| item.seq).max().unwrap()),
            ..TableSummary::default()
        };
        self.contents.insert(self.next_file, items);
        summary
    }

    pub(super) fn apply(&mut self, edit: &Edit) {
        let Ok(next) = self.version.apply(edit, |_| Ok::<(), Infallible>(()));
        self.version = next;
    }

    fn note_peak(&mut self, extra: u64) {
        self.peak_bytes = self.peak_bytes.max(self.size_bytes() + extra);
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.version
            .tables()
            .map(|table| table.summary.size_bytes)
            .sum()
    }

    /// Bytes of one run with nothing superfluous.
    pub(super) fn live_bytes(&self) -> u64 {
        self.truth.len() as u64 * PUT_BYTES
    }

    pub(super) fn runs(&self) -> usize {
        self.version
            .levels
            .iter()
            .map(|level| level.runs.len())
            .sum()
    }

    pub(super) fn pick(&self, idle: bool) -> Option<Choice> {
        let situation = Situation {
            in_flight: &self.in_flight,
            fenced: &self.fenced,
            fenced_blobs: &BTreeSet::new(),
            oldest_snapshot: None,
            idle_bytes: if idle {
                self.idle_bytes.min(self.size_bytes())
            } else {
                0
            },
            expired: None,
        };
        pick(&self.version, &self.options, &situation, false)
    }

    /// Carries out a choice at once.
    pub(super) fn perform(&mut self, choice: &Choice) {
        let below = self.version.ranges_older_than(choice.to);
        self.perform_with(choice, below);
    }

    /// Carries out a choice, merging what its tables hold. `below` are the key ranges of older tables,
    /// as they were when it began.
    pub(super) fn perform_with(&mut self, choice: &Choice, below: Vec<(Vec<u8>, Vec<u8>)>) {
        self.compactions += 1;
        let mut inputs: Vec<_> = choice
            .inputs
            .iter()
            .map(|part| (part.place, self.version.tables_of(part.place, &part.files)))
            .collect();
        let tables = || inputs.iter().flat_map(|(_, tables)| tables);
        assert_eq!(
            tables().count(),
            choice.files().count(),
            "an input is gone: {choice:?}"
        );
        if choice.is_move {
            self.written.moved += choice.size_bytes;
            let moved = tables().map(|table| table.summary.clone()).collect();
            return self.replace(choice, moved, &choice.files().collect::<Vec<_>>());
        }
        let mut finished: Vec<TableSummary> = Vec::new();
        for table in self.merge(choice, Below::new(below)) {
            finished.push(table);
            self.note_peak(finished.iter().map(|table| table.size_bytes).sum());
            let last = &finished[finished.len() - 1].largest;
            if finished.len() >= RELEASE_TABLES
                && let Some(gone) = released(&inputs, choice.to, last)
            {
                for (_, tables) in &mut inputs {
                    tables.retain(|table| !gone.contains(&table.summary.file));
                }
                self.replace(choice, std::mem::take(&mut finished), &gone);
                if self.checks_each_step {
                    self.check_reads();
                }
            }
        }
        let rest = inputs.iter().flat_map(|(_, tables)| tables);
        let gone: Vec<u64> = rest.map(|table| table.summary.file).collect();
        self.replace(choice, finished, &gone);
    }

    fn replace(&mut self, choice: &Choice, added: Vec<TableSummary>, gone: &[u64]) {
        let added = added.into_iter().map(|table| NewTable {
            level: choice.to.level,
            run: choice.to.run,
            table,
        });
        let edit = Edit {
            added: added.collect(),
            removed: gone.to_vec(),
            ..Edit::default()
        };
        self.apply(&edit);
    }

    fn merge(&mut self, choice: &Choice, mut below: Below) -> Vec<TableSummary> {
        let mut merged: BTreeMap<u32, Item> = BTreeMap::new();
        for file in choice.files() {
            for item in &self.contents[&file] {
                merged.entry(item.key).or_insert(*item);
            }
        }
        let boundaries = self.version.levels[usize::from(BOTTOM)]
            .tables()
            .filter(|table| table.overlaps(&choice.smallest, &choice.largest))
            .map(|table| Boundary::of(&table.summary));
        let mut cuts = Cuts::new(
            self.options.table_bytes,
            boundaries.collect(),
            choice.to,
            choice.size_bytes,
        );
        let (mut tables, mut items, mut size) = (Vec::new(), Vec::new(), 0);
        for item in merged.into_values() {
            if item.is_delete && !below.may_hold(&encode(item.key)) {
                continue;
            }
            if cuts.before(&encode(item.key), size) && !items.is_empty() {
                tables.push(self.store(std::mem::take(&mut items)));
                size = 0;
            }
            size += item.size_bytes();
            items.push(item);
        }
        if !items.is_empty() {
            tables.push(self.store(items));
        }
        self.written.compacted += tables.iter().map(|table| table.size_bytes).sum::<u64>();
        tables
    }

    /// Compacts until nothing more is picked.
    pub(super) fn rest(&mut self, idle: bool) {
        let mut steps = 0;
        while let Some(choice) = self.pick(idle) {
            if choice.reason == super::Reason::Idle {
                self.idle_bytes = self.idle_bytes.min(self.size_bytes()) - choice.size_bytes;
            }
            self.perform(&choice);
            if self.checks_each_step {
                self.check_reads();
            }
            steps += 1;
            assert!(
                steps < 10_000,
                "compaction does not come to rest: {choice:?}"
            );
        }
    }

    /// Asserts that a reader, going from new to old, finds the newest version of every key.
    pub(super) fn check_reads(&self) {
        let mut found: BTreeMap<u32, Item> = self.memtable.clone();
        for run in self.version.levels.iter().flat_map(|level| &level.runs) {
            for item in run
                .tables
                .iter()
                .flat_map(|table| &self.contents[&table.summary.file])
            {
                found.entry(item.key).or_insert(*item);
            }
        }
        let live: BTreeMap<u32, u64> = found
            .into_values()
            .filter(|item| !item.is_delete)
            .map(|item| (item.key, item.seq))
            .collect();
        assert_eq!(live, self.truth, "a reader finds something old");
    }
}
