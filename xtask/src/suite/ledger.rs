//! Which package ran how many tests in what time, read from the lines that cargo and libtest print.

use crate::binaries::Executable;
use crate::table::{self, Align};
use crate::terminal::seconds;
use std::path::Path;
use std::time::{Duration, Instant};

const COLUMNS: [(&str, Align); 5] = [
    ("PACKAGE", Align::Left),
    ("PASSED", Align::Right),
    ("FAILED", Align::Right),
    ("IGNORED", Align::Right),
    ("TIME", Align::Right),
];

/// The account of one run of the suite; packages stand in the order in which they first appear.
#[derive(Debug)]
pub(super) struct Ledger {
    /// File name of a test program and the package it belongs to.
    owners: Vec<(String, String)>,
    entries: Vec<Entry>,
    /// The program that runs now: index of its entry, and since when.
    running: Option<(usize, Instant)>,
}

/// What is known about one package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    package: String,
    tally: Tally,
    time: Duration,
}

/// Numbers of tests by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Ledger {
    /// An empty ledger for these test programs.
    pub(super) fn new(programs: &[Executable]) -> Self {
        let owners = programs.iter().filter_map(|program| {
            let file = program.path.file_name()?.to_str()?.to_owned();
            Some((file, program.package.clone()))
        });
        Self {
            owners: owners.collect(),
            entries: Vec::new(),
            running: None,
        }
    }

    /// Reads one line of output, printed at `now`.
    pub(super) fn enter(&mut self, line: &str, now: Instant) {
        let line = without_colour(line);
        if let Some(package) = self.begun(line.trim()) {
            self.close(now);
            let index = self.index_of(&package);
            self.running = Some((index, now));
        } else if let Some(tally) = parse_result(&line)
            && let Some((index, _)) = self.running
        {
            self.entries[index].tally.add(tally);
        }
    }

    /// Ends the program that runs at `now`; nothing more is entered for it.
    pub(super) fn close(&mut self, now: Instant) {
        if let Some((index, since)) = self.running.take() {
            self.entries[index].time += now.duration_since(since);
        }
    }

    /// The table, with a sum below when there is more than one package; empty when no program ran.
    pub(super) fn render(&self) -> String {
        if self.entries.is_empty() {
            return String::new();
        }
        let mut rows: Vec<Vec<String>> = self.entries.iter().map(Entry::row).collect();
        if self.entries.len() > 1 {
            let sum = self.entries.iter().fold(Entry::default(), Entry::plus);
            rows.push(
                Entry {
                    package: "total".to_owned(),
                    ..sum
                }
                .row(),
            );
        }
        format!("\n{}\n", table::render(&COLUMNS, &rows))
    }

    /// The package whose tests begin with this line.
    fn begun(&self, line: &str) -> Option<String> {
        if let Some(library) = line.strip_prefix("Doc-tests ") {
            return Some(library.replace('_', "-"));
        }
        // `Running unittests src/lib.rs (target/debug/deps/kv_ring-0f3a)`
        let (_, path) = line.strip_prefix("Running ")?.split_once(" (")?;
        let file = Path::new(path.strip_suffix(')')?).file_name()?.to_str()?;
        let owner = self.owners.iter().find(|(program, _)| program == file);
        Some(owner.map_or(file, |(_, package)| package).to_owned())
    }

    fn index_of(&mut self, package: &str) -> usize {
        let known = self
            .entries
            .iter()
            .position(|entry| entry.package == package);
        known.unwrap_or_else(|| {
            self.entries.push(Entry {
                package: package.to_owned(),
                ..Entry::default()
            });
            self.entries.len() - 1
        })
    }
}

impl Entry {
    fn plus(mut self, other: &Self) -> Self {
        self.tally.add(other.tally);
        self.time += other.time;
        self
    }

    fn row(&self) -> Vec<String> {
        let Tally {
            passed,
            failed,
            ignored,
        } = self.tally;
        vec![
            self.package.clone(),
            passed.to_string(),
            failed.to_string(),
            ignored.to_string(),
            seconds(self.time),
        ]
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Reads `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; ..`.
fn parse_result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |outcome: &str| {
        counts.split("; ").find_map(|part| {
            let (number, word) = part.split_once(' ')?;
            if word == outcome {
                number.parse().ok()
            } else {
                None
            }
        })
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        ignored: count("ignored")?,
    })
}

/// The line without escape sequences of the form `ESC [ .. letter`, the only ones cargo prints.
fn without_colour(line: &str) -> String {
    let mut pieces = line.split("\x1b[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|letter: char| letter.is_ascii_alphabetic());
        plain.push_str(end.map_or("", |end| &piece[end + 1..]));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let program = |package: &str, file: &str| Executable {
            package: package.into(),
            target: String::new(),
            path: Path::new("/kv/target/debug/deps").join(file),
        };
        Ledger::new(&[
            program("kv-ring", "kv_ring-0f3a"),
            program("kv-tests", "it-77b1"),
        ])
    }

    #[test]
    fn tests_are_counted_for_the_package_that_runs_them() {
        let mut ledger = ledger();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let lines = [
            (
                0,
                "     Running unittests src/lib.rs (target/debug/deps/kv_ring-0f3a)",
            ),
            (1, "running 14 tests"),
            (
                2,
                "test result: FAILED. 12 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.99s",
            ),
            (
                3,
                "\x1b[1m\x1b[92m     Running\x1b[0m tests/it/main.rs (target/debug/deps/it-77b1)",
            ),
            (
                8,
                "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 5.00s",
            ),
            (9, "   Doc-tests kv_ring"),
            (
                10,
                "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.40s",
            ),
        ];
        for (second, line) in lines {
            ledger.enter(line, at(second));
        }
        ledger.close(at(11));
        assert_eq!(
            ledger.render(),
            "\n  PACKAGE   PASSED  FAILED  IGNORED   TIME
  kv-ring       14       1        1  5.00s
  kv-tests       4       0        0  6.00s
  total         18       1        1  11.0s\n\n"
        );
    }

    #[test]
    fn lines_of_tests_themselves_are_no_entries() {
        let mut ledger = ledger();
        for line in ["Running out of words", "test result: strange", "Doc-tests"] {
            ledger.enter(line, Instant::now());
        }
        assert!(ledger.entries.is_empty());
    }
}
