//! A closed loop: a writer at full speed, one flush at a time, compaction on a disk of some speed.

use super::*;
use crate::compaction::Debt;
use crate::options::Options;
use crate::table::TableSummary;
use crate::version::{Edit, NewTable, Version};
use std::collections::BTreeSet;
use std::convert::Infallible;

/// One simulated step.
const STEP: Duration = Duration::from_micros(100);
/// Bytes of a write.
const WRITE: usize = 1024;
/// Most writes that fit in a step: about 200 MB/s.
const WRITES: usize = 20;
/// Bytes that compaction rewrites for a byte flushed.
const AMPLIFICATION: f64 = 3.0;

struct Store {
    options: Options,
    version: Version<()>,
    files: u64,
    active: usize,
    sealed: usize,
    flushed: f64,
    /// Runs that compaction works on, and bytes it has rewritten.
    relief: Option<(Vec<u64>, f64)>,
}

impl Store {
    fn debt(&self) -> Debt {
        let memtable = self.options.memtable_bytes;
        let memory = self.active + self.sealed * memtable - self.flushed as usize;
        let relieved = self.relief.as_ref().map_or(0, |(runs, done)| {
            let work = runs.len() as f64 * memtable as f64 * AMPLIFICATION;
            (done / work * runs.len() as f64 * 1000.0) as u64
        });
        Debt::of_tables(&self.version, relieved, &BTreeSet::new(), &self.options)
            .max(Debt::of_memory(memory, &self.options))
    }

    fn apply(&mut self, edit: Edit) {
        let Ok(version) = self.version.apply(&edit, |_| Ok::<(), Infallible>(()));
        self.version = version;
    }

    fn write(&mut self) {
        self.active += WRITE;
        if self.active >= self.options.memtable_bytes {
            self.active = 0;
            self.sealed += 1;
        }
    }

    /// Flushes and compacts for one step; the two share the disk.
    fn work(&mut self, disk_bytes_per_second: f64) {
        let mut share = disk_bytes_per_second * STEP.as_secs_f64();
        if self.sealed > 0 {
            share /= 2.0;
            self.flushed += share;
            if self.flushed >= self.options.memtable_bytes as f64 {
                (self.flushed, self.sealed) = (0.0, self.sealed - 1);
                self.files += 1;
                let table = table(self.files, self.options.memtable_bytes as u64);
                let added = vec![NewTable {
                    level: 0,
                    run: self.files,
                    table,
                }];
                self.apply(Edit {
                    added,
                    ..Edit::default()
                });
            }
        }
        let level0 = &self.version.levels[0].runs;
        if self.relief.is_none() && level0.len() >= self.options.level0_trigger {
            let oldest = level0.iter().rev().take(4 * self.options.level0_trigger);
            self.relief = Some((oldest.map(|run| run.id).collect(), 0.0));
        }
        if let Some((runs, done)) = &mut self.relief {
            *done += share;
            let work = (runs.len() * self.options.memtable_bytes) as f64 * AMPLIFICATION;
            if *done >= work {
                let removed = std::mem::take(runs);
                self.relief = None;
                self.apply(Edit {
                    removed,
                    ..Edit::default()
                });
            }
        }
    }
}

fn table(file: u64, size_bytes: u64) -> TableSummary {
    TableSummary {
        file,
        size_bytes,
        entries: 1,
        deletes: 0,
        smallest: vec![0],
        largest: vec![1],
        newest: crate::key::Seq(file),
        ..TableSummary::default()
    }
}

/// Megabytes written in each of the last `seconds`, and the longest time that a write waited since the
/// fifth second.
fn run(disk_mb: f64, seconds: usize) -> (Vec<f64>, Duration) {
    let mut store = Store {
        options: Options::default(),
        version: Version::empty(),
        files: 0,
        active: 0,
        sealed: 0,
        flushed: 0.0,
        relief: None,
    };
    let mut pacer = Pacer::default();
    let (mut now, mut waits_since, mut longest) = (Duration::ZERO, None, Duration::ZERO);
    let mut rates = vec![0.0; seconds];
    while now < Duration::from_secs(seconds as u64) {
        for number in 0..WRITES as u32 {
            let at = now + STEP / WRITES as u32 * number;
            let debt = store.debt();
            let waits = |paid| pacer.admit(at, WRITE, paid).is_err();
            if debt >= Debt::LIMIT || debt.paid().is_some_and(waits) {
                waits_since.get_or_insert(at);
                continue;
            }
            if let Some(since) = waits_since.take() {
                longest = longest.max(at - since);
            }
            store.write();
            rates[now.as_secs() as usize] += WRITE as f64 / 1e6;
        }
        store.work(disk_mb * 1e6);
        now += STEP;
    }
    (rates, longest)
}

#[test]
fn a_writer_at_full_speed_is_never_stalled_and_gets_what_the_disk_can_do() {
    for disk_mb in [40.0, 100.0, 400.0, 1500.0] {
        let (rates, longest) = run(disk_mb, 240);
        let tail = &rates[160..];
        let mean = tail.iter().sum::<f64>() / tail.len() as f64;
        let least = tail.iter().copied().fold(f64::MAX, f64::min);
        let possible = (disk_mb / (1.0 + AMPLIFICATION)).min(205.0);
        println!(
            "disk {disk_mb:6} MB/s: {mean:6.1} of {possible:6.1} MB/s, least in a second {least:6.1}, longest wait {longest:?}"
        );
        assert!(
            longest < Duration::from_millis(10),
            "{disk_mb} MB/s: {longest:?}"
        );
        assert!(
            mean > 0.85 * possible,
            "{disk_mb} MB/s: {mean} of {possible}"
        );
        assert!(least > 0.3 * mean, "{disk_mb} MB/s: {least} of {mean}");
    }
}
