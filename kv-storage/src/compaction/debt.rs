//! How far flushes and compactions are behind, as a share of what the store bears.
//!
//! Debt is the worst of three shares: runs in level 0 (readers suffer), bytes in memtables (memory), and
//! bytes above the bottom (space). Work under way counts as far as it is done, so debt falls
//! steadily and not in jumps. Writers pay from 60 % of the limit on; see `db/pace.rs`.

use crate::options::Options;
use crate::version::{BOTTOM, Level, Version};

/// Memtables that may lie above the bottom besides as many bytes as the bottom has.
const SPARE_MEMTABLES: u64 = 64;

/// A share of the hard limit, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Debt(u64);

impl Debt {
    /// Where writes must stop.
    pub(crate) const LIMIT: Self = Self(1000);
    /// Where writers begin to pay.
    const PAID_FROM: u64 = 600;

    /// Debt in tables. `relieved` are thousandths of runs of level 0 that a compaction under way has dealt with.
    pub(crate) fn of_tables<R>(version: &Version<R>, relieved: u64, options: &Options) -> Self {
        let runs = (version.levels[0].runs.len() as u64 * 1000).saturating_sub(relieved);
        let by_runs = Self(runs / options.level0_stop.max(1) as u64);
        let bottom = version.levels[usize::from(BOTTOM)].size_bytes();
        // What was ingested came at once and is no sign that compaction falls behind. It must not stop writers
        // for as long as it takes to merge it.
        let written = version.levels[..usize::from(BOTTOM)]
            .iter()
            .flat_map(Level::tables)
            .filter(|table| table.summary.number.is_none());
        let upper = written.map(|table| table.summary.size_bytes).sum();
        let memtables = SPARE_MEMTABLES.saturating_mul(options.memtable_bytes as u64);
        by_runs.max(Self::share(upper, bottom.saturating_add(memtables)))
    }

    /// Debt in memory: bytes in memtables, the active one included.
    pub(crate) fn of_memory(bytes: usize, options: &Options) -> Self {
        let limit = options.memtable_bytes as u64 * (options.sealed_memtables_max as u64 + 1);
        Self::share(bytes as u64, limit)
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
        assert_eq!(Debt::of_tables(&world.version, 0, &options), Debt(0));
        for number in 0..500 {
            if world.write(number, false) {
                world.flush();
            }
        }
        // 50 runs of 1000 bytes: a quarter of the runs, 50 of 64 spare memtables.
        assert_eq!(Debt::of_tables(&world.version, 0, &options), Debt(781));
        let few = Options {
            level0_stop: 60,
            ..options.clone()
        };
        assert_eq!(Debt::of_tables(&world.version, 0, &few), Debt(833));
        assert_eq!(Debt::of_tables(&world.version, 20_000, &few), Debt(781));
        assert_eq!(Debt::of_memory(3000, &options), Debt(750));
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
