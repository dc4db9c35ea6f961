//! How far flushes and compactions are behind, as a share of what the store bears.
//!
//! Debt is the worst of four shares: runs in level 0 (readers suffer), bytes in memtables (memory), bytes
//! above the bottom with what they point to, and garbage in blob files (space). Work under way counts as far as it is done, so debt falls
//! steadily and not in jumps. Writers pay from 60 % of the limit on; see `db/pace.rs`.

use crate::options::Options;
use crate::version::{Level, Placed, Version};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Memtables that may lie above the bottom besides as many bytes as the bottom has.
const SPARE_MEMTABLES: u64 = 64;

/// Memtables that may be garbage in blob files besides what the option allows.
const GARBAGE_MEMTABLES: u64 = 8;
/// What nobody may be able to pay slows writers down, but never stops them: garbage may lie in files that are damaged,
/// or belong to tables that are not worth a rewrite; and what lies over a damaged table cannot be merged past it.
const UNPAYABLE_MOST: Debt = Debt(900);

/// A share of the hard limit, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Debt(u64);

impl Debt {
    /// Where writes must stop.
    pub(crate) const LIMIT: Self = Self(1000);
    /// Where writers begin to pay.
    const PAID_FROM: u64 = 600;

    /// Debt in tables. `relieved` are thousandths of runs of level 0 that a compaction under way has dealt with; `fenced`
    /// tables are never compacted, so nobody can pay for them.
    pub(crate) fn of_tables<R>(
        version: &Version<R>,
        relieved: u64,
        fenced: &BTreeSet<u64>,
        options: &Options,
    ) -> Self {
        let is_fenced = |table: &Arc<Placed<R>>| fenced.contains(&table.summary.file);
        let runs = version.levels[0].runs.iter();
        let payable = runs.filter(|run| !run.tables.iter().any(is_fenced)).count();
        let runs = (payable as u64 * 1000).saturating_sub(relieved);
        let by_runs = Self(runs / options.level0_stop.max(1) as u64);
        let (bottom, upper) = version.levels.split_last().expect("there are seven levels");
        let weight = |table: &Arc<Placed<R>>| {
            let summary = &table.summary;
            summary.size_bytes + summary.references.bytes()
        };
        let bottom: u64 = bottom.tables().map(weight).sum();
        // What was ingested came at once and is no sign that compaction falls behind. It must not stop writers
        // for as long as it takes to merge it.
        let written = upper.iter().flat_map(Level::tables);
        let written = written.filter(|table| table.summary.number.is_none() && !is_fenced(table));
        let upper = written.map(weight).sum();
        let memtables = |count: u64| count.saturating_mul(options.memtable_bytes as u64);
        let space = bottom.saturating_add(memtables(SPARE_MEMTABLES));
        let by_tables = by_runs.max(Self::share(upper, space));
        let by_tables = if fenced.is_empty() {
            by_tables
        } else {
            by_tables.min(UNPAYABLE_MOST)
        };
        by_tables.max(Self::of_garbage(
            version,
            options,
            memtables(GARBAGE_MEMTABLES),
        ))
    }

    /// Debt of collecting garbage in blob files: the limit is what is garbage when each file has its share of it.
    fn of_garbage<R>(version: &Version<R>, options: &Options, spare_bytes: u64) -> Self {
        let percent = u64::from(options.blob_garbage_percent);
        if percent >= 100 {
            return Self::default();
        }
        let live: u64 = version.blobs.iter().map(|blob| blob.live_bytes).sum();
        let allowed = live.saturating_mul(percent) / (100 - percent);
        // What is not worth the rewriting of tables stays.
        let allowed = allowed.saturating_add(spare_bytes + version.size_bytes());
        let (_, garbage) = version.blobs.bytes();
        Self::share(garbage, allowed).min(UNPAYABLE_MOST)
    }

    /// Debt in memory: bytes in memtables, the active one included. Writers pay for the last half of what the last
    /// memtable may take: before that, a flush that keeps up makes room in time.
    pub(crate) fn of_memory(bytes: usize, options: &Options) -> Self {
        let memtable = options.memtable_bytes as u64;
        let limit = memtable * (options.sealed_memtables_max as u64 + 1);
        let paid = (memtable / 2).max(1);
        match (bytes as u64).checked_sub(limit - paid) {
            Some(into) => Self(Self::PAID_FROM + into * (1000 - Self::PAID_FROM) / paid),
            None => Self(bytes as u64 * Self::PAID_FROM / (limit - paid)),
        }
    }

    fn share(part: u64, whole: u64) -> Self {
        Self(part.saturating_mul(1000) / whole.max(1))
    }

    pub(crate) fn per_mille(self) -> u64 {
        self.0
    }

    /// How far it is into the span in which writers pay, in thousandths; `None` below.
    pub(crate) fn paid(self) -> Option<u64> {
        let span = Self::LIMIT.0 - Self::PAID_FROM;
        let into = self.0.checked_sub(Self::PAID_FROM)?;
        Some((into * 1000 / span).min(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compaction::model::World;

    #[test]
    fn debt_is_the_worst_of_runs_and_bytes_and_falls_with_work_under_way() {
        let options = Options {
            level0_trigger: 100,
            level0_stop: 200,
            memtable_bytes: 1000,
            ..Options::tiny()
        };
        let mut world = World::new(options.clone());
        let none = BTreeSet::new();
        assert_eq!(Debt::of_tables(&world.version, 0, &none, &options), Debt(0));
        for number in 0..500 {
            if world.write(number, false) {
                world.flush();
            }
        }
        // 50 runs of 1000 bytes: a quarter of the runs, 50 of 64 spare memtables.
        assert_eq!(
            Debt::of_tables(&world.version, 0, &none, &options),
            Debt(781)
        );
        let few = Options {
            level0_stop: 60,
            ..options.clone()
        };
        assert_eq!(Debt::of_tables(&world.version, 0, &none, &few), Debt(833));
        let fewer = Options {
            level0_stop: 20,
            ..options.clone()
        };
        assert!(Debt::of_tables(&world.version, 0, &none, &fewer) > Debt::LIMIT);
        let first = world.version.tables().next().map(|it| it.summary.file);
        let fenced = BTreeSet::from_iter(first);
        assert_eq!(
            Debt::of_tables(&world.version, 0, &fenced, &fewer),
            UNPAYABLE_MOST,
            "nobody can pay what lies over a damaged table"
        );
        assert_eq!(
            Debt::of_tables(&world.version, 20_000, &none, &few),
            Debt(781)
        );
        // Of four memtables' memory, the last half of one is paid for.
        let memory = [0, 3000, 3500, 3750, 4000].map(|bytes| Debt::of_memory(bytes, &options));
        assert_eq!(memory, [0, 514, 600, 800, 1000].map(Debt));
    }

    #[test]
    fn writers_pay_from_sixty_percent_on() {
        let paid = [0, 599, 600, 800, 1000, 5000].map(|share| Debt(share).paid());
        assert_eq!(
            paid,
            [None, None, Some(0), Some(500), Some(1000), Some(1000)]
        );
    }
}
