//! Everything of a store that can be verified, in order: the newest version of each key.

use super::ToolError;
use super::closed::ClosedStore;
use super::finding::Finding;
use super::log::{self, Logged};
use crate::files::Numbered;
use crate::key::{Kind, Seq};
use crate::ranges::Fragments;
use crate::table::{Damaged, StoredVersion, Table};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A merge over all tables and the log that goes on behind damage.
pub(super) struct Salvage {
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<Head>>,
    last_key: Option<Vec<u8>>,
    /// All deleted ranges. A number says alone what they hide, whichever table they come from.
    ranges: Fragments,
    /// The highest number of a version.
    pub newest: Seq,
    /// What is missing.
    pub findings: Vec<Finding>,
}

enum Source {
    Log(std::vec::IntoIter<StoredVersion>),
    Table {
        table: Box<Table>,
        next_block: usize,
        versions: std::vec::IntoIter<StoredVersion>,
    },
}

/// The next version of a source.
struct Head {
    version: StoredVersion,
    source: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_version = self.version.version().cmp(&other.version.version());
        by_version.then(self.source.cmp(&other.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl Salvage {
    pub(super) fn new(closed: &ClosedStore) -> Result<Self, ToolError> {
        let mut findings = closed.findings.clone();
        let logged = closed.log_writes(&mut findings);
        let mut newest = closed
            .catalog
            .as_ref()
            .map_or(Seq::ZERO, |known| known.flushed);
        newest = logged.keys().copied().fold(newest, Seq::max);
        let mut tables = closed.tables(&mut findings);
        log::add_ingested(closed, &logged, &mut tables, &mut findings);
        let (mut versions, mut ranges) = (Vec::new(), Vec::new());
        for write in logged.into_values() {
            match write {
                Logged::Version(version) => versions.push(version),
                Logged::Range(range) => ranges.push(range),
                // They are among the tables.
                Logged::Tables(_) => {}
            }
        }
        versions.sort_by(|a, b| a.version().cmp(&b.version()));
        let mut sources = vec![Source::Log(versions.into_iter())];
        let files = closed.table_files();
        for summary in tables {
            let path = Numbered::Table(summary.file).path(&closed.dir);
            let table = Table::open_damaged(&files, &path, &summary)?;
            match table.damaged() {
                Damaged::Outline(error) => {
                    findings.push(Finding::of(error));
                    continue;
                }
                Damaged::Filter(_) | Damaged::Nothing => {}
            }
            ranges.push(Fragments::clone(table.ranges()));
            sources.push(Source::Table {
                table: Box::new(table),
                next_block: 0,
                versions: Vec::new().into_iter(),
            });
        }
        let mut salvage = Self {
            sources,
            heads: BinaryHeap::new(),
            last_key: None,
            ranges: Fragments::merge(&ranges),
            newest,
            findings,
        };
        for source in 0..salvage.sources.len() {
            salvage.advance(source);
        }
        Ok(salvage)
    }

    /// The next key that is there, with its newest version.
    pub(super) fn next(&mut self) -> Option<StoredVersion> {
        while let Some(Reverse(Head { version, source })) = self.heads.pop() {
            self.advance(source);
            self.newest = self.newest.max(version.seq);
            if self.last_key.as_ref() == Some(&version.key) {
                continue;
            }
            self.last_key = Some(version.key.clone());
            let deleted = self.ranges.covering(&version.key, Seq::MAX);
            let is_hidden = deleted.is_some_and(|deleted| deleted > version.seq);
            if version.kind == Kind::Put && !is_hidden {
                return Some(version);
            }
        }
        None
    }

    fn advance(&mut self, source: usize) {
        let next = match &mut self.sources[source] {
            Source::Log(writes) => writes.next(),
            Source::Table {
                table,
                next_block,
                versions,
            } => loop {
                if let Some(version) = versions.next() {
                    break Some(version);
                }
                if *next_block == table.blocks() {
                    break None;
                }
                match table.read_block(*next_block) {
                    Ok(read) => *versions = read.into_iter(),
                    Err(error) => self.findings.push(Finding::of(&error)),
                }
                *next_block += 1;
            },
        };
        self.heads
            .extend(next.map(|version| Reverse(Head { version, source })));
    }
}
