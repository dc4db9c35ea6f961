//! How much of everything: the sizes and times of a full run and of a quick one.

use crate::dataset::Dataset;
use crate::engine::Budget;
use std::time::Duration;

/// Sizes and times of all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Keys with values of 100 B.
    small_keys: u64,
    /// Keys with values of 1 KiB.
    large_keys: u64,
    /// Keys with values of 16 KiB.
    huge_keys: u64,
    /// A fill ends after this time even if keys are left.
    pub(crate) fill_limit: Duration,
    /// How long durable puts are measured.
    pub(crate) durable_time: Duration,
    /// How long gets, scans and mixes are measured.
    pub(crate) read_time: Duration,
    /// How long a row may use a store before it is measured.
    pub(crate) warm_up_limit: Duration,
    /// Keys of the overwrite row.
    pub(crate) overwrite_keys: u64,
    /// Puts of the overwrite row.
    pub(crate) overwrite_operations: u64,
    /// The overwrite row ends after this time even if puts are left.
    pub(crate) overwrite_limit: Duration,
    /// Puts in the log when the process is killed in the recover row.
    pub(crate) recover_keys: u64,
    /// Passes over all rows if nothing else is asked for.
    pub(crate) passes: u32,
    /// What every engine may use.
    pub(crate) budget: Budget,
}

const MIB: usize = 1 << 20;

impl Scale {
    /// What figures are judged by.
    pub(crate) fn full() -> Self {
        Self {
            small_keys: 2_000_000,
            large_keys: 800_000,
            huge_keys: 40_000,
            fill_limit: Duration::from_secs(20),
            durable_time: Duration::from_secs(3),
            read_time: Duration::from_secs(4),
            warm_up_limit: Duration::from_secs(25),
            overwrite_keys: 400_000,
            overwrite_operations: 2_000_000,
            overwrite_limit: Duration::from_secs(20),
            recover_keys: 180_000,
            passes: 3,
            budget: Budget {
                cache_bytes: 256 * MIB,
                memtable_bytes: 64 * MIB,
                block_bytes: 4096,
                filter_bits_per_key: 10,
                zstd_level: 1,
                background_threads: 2,
                is_durable: false,
            },
        }
    }

    /// A quarter of the data with a quarter of the memory, one pass: says whether everything works
    /// and roughly where it stands.
    pub(crate) fn quick() -> Self {
        let full = Self::full();
        Self {
            small_keys: full.small_keys / 4,
            large_keys: full.large_keys / 4,
            huge_keys: full.huge_keys / 4,
            fill_limit: Duration::from_secs(5),
            durable_time: Duration::from_secs(1),
            read_time: Duration::from_secs(1),
            warm_up_limit: Duration::from_secs(4),
            overwrite_keys: full.overwrite_keys / 4,
            overwrite_operations: full.overwrite_operations / 4,
            overwrite_limit: Duration::from_secs(5),
            passes: 1,
            budget: Budget {
                cache_bytes: full.budget.cache_bytes / 4,
                memtable_bytes: full.budget.memtable_bytes / 4,
                ..full.budget
            },
            ..full
        }
    }

    /// The full or the quick one.
    pub(crate) fn new(is_quick: bool) -> Self {
        if is_quick {
            Self::quick()
        } else {
            Self::full()
        }
    }

    /// Keys of a fill with values of this length.
    pub(crate) fn fill_keys(&self, value_bytes: usize) -> u64 {
        if value_bytes <= 256 {
            self.small_keys
        } else if value_bytes <= 4096 {
            self.large_keys
        } else {
            self.huge_keys
        }
    }

    /// Keys of a store.
    pub(crate) fn keys(&self, dataset: Dataset) -> u64 {
        self.fill_keys(dataset.value_bytes())
    }

    /// The budget of the recover row: all its puts fit into one memtable, so that they are only in the log.
    pub(crate) fn recover_budget(&self) -> Budget {
        Budget {
            memtable_bytes: 512 * MIB,
            ..self.budget
        }
    }

    /// The budget of durable puts.
    pub(crate) fn durable_budget(&self) -> Budget {
        Budget {
            is_durable: true,
            ..self.budget
        }
    }
}
