//! What the machine itself allows: no engine can beat these.

mod disk;
mod processor;

use crate::report::number;
use crate::terminal;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limit {
    /// What was done.
    name: String,
    /// How fast.
    rate: f64,
    /// What the rate counts.
    unit: Unit,
    /// Median and 99 % of the latencies in microseconds, where single operations were timed.
    micros: Option<(f64, f64)>,
}

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    /// Operations a second.
    Operations,
    /// Bytes a second.
    Bytes,
}

/// Measures all limits, for some seconds each, and keeps them in the folder.
///
/// # Errors
/// A file cannot be written or read.
pub(crate) fn measure(folder: &Path, is_quick: bool) -> Result<()> {
    let time = Duration::from_millis(if is_quick { 500 } else { 2000 });
    let scratch = folder.join("limits");
    fs::create_dir_all(&scratch)?;
    let mut limits = Vec::new();
    let outcome = disk::measure(&scratch, time, &mut |limit| enter(&mut limits, limit));
    fs::remove_dir_all(&scratch)?;
    outcome?;
    processor::measure(time, &mut |limit| enter(&mut limits, limit))?;
    fs::write(file(folder), serde_json::to_string(&limits)?)?;
    Ok(())
}

/// The limits kept in a folder; none if they were not measured.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn load(folder: &Path) -> Result<Vec<Limit>> {
    let path = file(folder);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => serde_json::from_str(&other?)
            .with_context(|| format!("{} holds no limits", path.display())),
    }
}

/// A Markdown table; nothing if no limit was measured.
pub(crate) fn render(limits: &[Limit]) -> Option<String> {
    if limits.is_empty() {
        return None;
    }
    let mut text = "| what | rate | p50 | p99 |\n|---|--:|--:|--:|\n".to_owned();
    for limit in limits {
        let latencies = limit.micros.map_or_else(
            || "| |".to_owned(),
            |(p50, p99)| {
                format!(
                    "{} | {} |",
                    number::with_unit(crate::measure::Metric::P50Micros, p50),
                    number::with_unit(crate::measure::Metric::P99Micros, p99)
                )
            },
        );
        let _ = writeln!(text, "| {} | {} | {latencies}", limit.name, limit.shown());
    }
    Some(text)
}

impl Limit {
    fn shown(&self) -> String {
        match self.unit {
            Unit::Operations => format!("{}/s", number::rate(self.rate)),
            Unit::Bytes if self.rate >= 999.5e6 => {
                format!("{} GB/s", number::three_digits(self.rate / 1e9))
            }
            Unit::Bytes => format!("{} MB/s", number::three_digits(self.rate / 1e6)),
        }
    }
}

fn enter(limits: &mut Vec<Limit>, limit: Limit) {
    terminal::status("Limit", &format!("{:<56} {}", limit.name, limit.shown()));
    limits.push(limit);
}

fn file(folder: &Path) -> PathBuf {
    folder.join("limits.json")
}

/// Does something again and again for this long, and tells how many bytes a second it went through.
fn bytes_per_second(name: &str, bytes: usize, time: Duration, mut work: impl FnMut()) -> Limit {
    work();
    let (begin, mut rounds) = (Instant::now(), 0_u64);
    while begin.elapsed() < time {
        // A look at the clock costs as much as a copy of a block.
        for _ in 0..16 {
            work();
        }
        rounds += 16;
    }
    Limit {
        name: name.to_owned(),
        rate: (rounds * bytes as u64) as f64 / begin.elapsed().as_secs_f64(),
        unit: Unit::Bytes,
        micros: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shown_with_their_unit() {
        let limit = |unit, rate, micros| Limit {
            name: "x".to_owned(),
            rate,
            unit,
            micros,
        };
        assert_eq!(limit(Unit::Operations, 7_500.0, None).shown(), "7.50 k/s");
        assert_eq!(limit(Unit::Bytes, 700e6, None).shown(), "700 MB/s");
        assert_eq!(limit(Unit::Bytes, 9.1e9, None).shown(), "9.10 GB/s");
        let table = render(&[
            limit(Unit::Operations, 10.0, Some((1.0, 2_000.0))),
            limit(Unit::Bytes, 1e6, None),
        ])
        .unwrap();
        assert!(
            table.contains("| x | 10.0/s | 1.00 µs | 2.00 ms |\n"),
            "{table}"
        );
        assert!(table.contains("| x | 1.00 MB/s | | |\n"), "{table}");
    }

    #[test]
    fn folder_without_limits_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), []);
    }
}
