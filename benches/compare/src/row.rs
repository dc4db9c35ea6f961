//! The rows of the tables: one workload each.

use crate::dataset::{Dataset, Order};
use crate::measure::Metric;
use anyhow::{Context, Result};

/// One workload, run in a process of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its name in results and on the command line.
    pub(crate) name: &'static str,
    /// What it is, for readers.
    pub(crate) title: &'static str,
    /// What it does.
    pub(crate) work: Work,
}

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Puts into an empty store by one thread, without syncs. The process is killed afterwards, and
    /// everything acknowledged has to be there.
    Fill {
        /// The order of the keys.
        order: Order,
        /// Length of the values.
        value_bytes: usize,
        /// What later rows read of it.
        keeps: Option<Dataset>,
    },
    /// Puts of 1 KiB that survive power loss each.
    Durable {
        /// Threads that put.
        threads: usize,
    },
    /// Gets of random keys.
    Get {
        /// Where they find what they look for.
        place: Place,
        /// What they read.
        dataset: Dataset,
        /// Threads that get.
        threads: usize,
    },
    /// Scans of 100 rows from random keys on.
    ShortScan {
        /// What they read.
        dataset: Dataset,
    },
    /// One scan of everything.
    FullScan {
        /// Nothing is in the page cache, else everything is.
        is_cold: bool,
    },
    /// A mix of YCSB, by two threads.
    Ycsb(Mix),
    /// Puts over random keys that exist, for long enough that compaction has to keep up.
    Overwrite,
    /// Opening a store whose process was killed while all its puts were only in the log.
    Recover,
}

/// Where gets find what they look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the engine's caches, as far as they hold everything.
    Cached,
    /// In the engine's caches: a tenth of the keys, which fits by far.
    Hot,
    /// Nowhere: the keys were never stored.
    Absent,
    /// In the page cache of the kernel, the rest in the engine's caches.
    Warm,
    /// On the device.
    Cold,
}

/// A mix of YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010); keys are zipfian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Half gets, half puts.
    A,
    /// 95 % gets, 5 % puts.
    B,
    /// Gets only.
    C,
    /// 95 % scans of 1 to 100 rows, 5 % puts of new keys.
    E,
    /// Half gets, half gets followed by a put of the same key.
    F,
}

/// Threads of the YCSB rows.
pub(crate) const YCSB_THREADS: usize = 2;

impl Row {
    /// The figure that stands in the main table.
    pub(crate) fn headline(&self) -> Metric {
        match self.work {
            Work::Recover => Metric::OpenMillis,
            Work::Fill { .. }
            | Work::Durable { .. }
            | Work::Get { .. }
            | Work::ShortScan { .. }
            | Work::FullScan { .. }
            | Work::Ycsb(_)
            | Work::Overwrite => Metric::OperationsPerSecond,
        }
    }

    /// The store it reads, if it reads one that another row fills.
    pub(crate) fn reads(&self) -> Option<Dataset> {
        match self.work {
            Work::Get { dataset, .. } | Work::ShortScan { dataset } => Some(dataset),
            Work::FullScan { .. } => Some(Dataset::Small),
            Work::Ycsb(_) => Some(Dataset::Large),
            Work::Fill { .. } | Work::Durable { .. } | Work::Overwrite | Work::Recover => None,
        }
    }

    /// The row of this name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        ROWS.iter()
            .find(|row| row.name == name)
            .with_context(|| format!("no row {name}; `rows` lists them"))
    }

    /// The rows whose name contains one of the words in a list separated by commas.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn matching(words: &str) -> Result<Vec<&'static Self>> {
        let words: Vec<&str> = words.split(',').filter(|word| !word.is_empty()).collect();
        let rows: Vec<&Self> = ROWS
            .iter()
            .filter(|row| words.iter().any(|word| row.name.contains(word)))
            .collect();
        anyhow::ensure!(
            !rows.is_empty(),
            "no row is called like {}; `rows` lists them",
            words.join(" or ")
        );
        Ok(rows)
    }
}

const fn row(name: &'static str, title: &'static str, work: Work) -> Row {
    Row { name, title, work }
}

const fn fill(order: Order, value_bytes: usize, keeps: Option<Dataset>) -> Work {
    Work::Fill {
        order,
        value_bytes,
        keeps,
    }
}

const fn get(place: Place, dataset: Dataset, threads: usize) -> Work {
    Work::Get {
        place,
        dataset,
        threads,
    }
}

/// All rows in the order in which they run: those that fill a store come before those that read it,
/// and the mixes that change it come last, the mildest first.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    row("fill-seq-100", "fill, ascending keys, 100 B", fill(Order::Ascending, 100, None)),
    row("fill-rand-100", "fill, random keys, 100 B", fill(Order::Random, 100, Some(Dataset::Small))),
    row("fill-rand-1024", "fill, random keys, 1 KiB", fill(Order::Random, 1024, Some(Dataset::Large))),
    row("fill-rand-16384", "fill, random keys, 16 KiB", fill(Order::Random, 16_384, None)),
    row("durable-1024-t1", "durable put, 1 KiB, 1 thread", Work::Durable { threads: 1 }),
    row("durable-1024-t16", "durable put, 1 KiB, 16 threads", Work::Durable { threads: 16 }),
    row("get-hit-100", "get, cached, 100 B", get(Place::Cached, Dataset::Small, 1)),
    row("get-hit-100-t2", "get, cached, 100 B, 2 threads", get(Place::Cached, Dataset::Small, 2)),
    row("get-hot-100", "get, all resident, 100 B", get(Place::Hot, Dataset::Small, 1)),
    row("get-miss-100", "get, absent key, 100 B", get(Place::Absent, Dataset::Small, 1)),
    row("get-warm-1024", "get, page cache, 1 KiB", get(Place::Warm, Dataset::Large, 1)),
    row("get-cold-1024", "get, device, 1 KiB", get(Place::Cold, Dataset::Large, 1)),
    row("scan-100-100", "scan of 100 rows, 100 B", Work::ShortScan { dataset: Dataset::Small }),
    row("scan-100-1024", "scan of 100 rows, 1 KiB", Work::ShortScan { dataset: Dataset::Large }),
    row("scan-full-cold-100", "full scan from the device, 100 B (rows)", Work::FullScan { is_cold: true }),
    row("scan-full-warm-100", "full scan from the page cache, 100 B (rows)", Work::FullScan { is_cold: false }),
    row("ycsb-c-1024", "YCSB C: gets", Work::Ycsb(Mix::C)),
    row("ycsb-b-1024", "YCSB B: 5 % puts", Work::Ycsb(Mix::B)),
    row("ycsb-e-1024", "YCSB E: scans, 5 % inserts", Work::Ycsb(Mix::E)),
    row("ycsb-f-1024", "YCSB F: read-modify-write", Work::Ycsb(Mix::F)),
    row("ycsb-a-1024", "YCSB A: half puts", Work::Ycsb(Mix::A)),
    row("overwrite-1024", "overwrite, 1 KiB", Work::Overwrite),
    row("recover-1024", "reopen after a kill, 184 MB of log", Work::Recover),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for row in ROWS {
            assert_eq!(Row::named(row.name).unwrap(), row);
        }
        assert!(Row::named("fill").is_err());
    }

    #[test]
    fn words_choose_rows_in_their_order() {
        let names = |words| {
            let rows = Row::matching(words).unwrap();
            rows.iter().map(|row| row.name).collect::<Vec<_>>()
        };
        assert_eq!(names("durable"), ["durable-1024-t1", "durable-1024-t16"]);
        assert_eq!(names("recover,get-hot"), ["get-hot-100", "recover-1024"]);
        assert!(Row::matching("nothing").is_err());
        assert!(Row::matching("").is_err());
    }

    #[test]
    fn every_store_is_filled_before_it_is_read() {
        let mut filled = Vec::new();
        for row in ROWS {
            if let Work::Fill {
                keeps: Some(dataset),
                ..
            } = row.work
            {
                filled.push(dataset);
            }
            assert!(row.reads().is_none_or(|dataset| filled.contains(&dataset)));
        }
    }
}
