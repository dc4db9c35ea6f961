//! What the demo has shown, in figures and in one verdict.

use super::transfer::Report;
use crate::terminal::{grouped, seconds};
use anyhow::{Result, bail};
use std::fmt::Write as _;

/// Everything the demo found out.
#[derive(Debug)]
pub(super) struct Summary {
    /// Where the records come from.
    pub(super) origin: String,
    /// Records in the source, as counted by the demo itself.
    pub(super) records: u64,
    /// Size of the source.
    pub(super) bytes: u64,
    /// How the import went.
    pub(super) import: Report,
    /// What was done to the cluster meanwhile.
    pub(super) crash: Crash,
    /// How the comparison through each node went.
    pub(super) checks: Vec<(String, Report)>,
}

/// The node that was killed, and how much of the source the import had read before and after.
#[derive(Debug)]
pub(super) struct Crash {
    /// Its name.
    pub(super) node: String,
    /// When it was killed.
    pub(super) killed_percent: u64,
    /// When it was started again.
    pub(super) returned_percent: u64,
}

impl Summary {
    /// The figures, one fact a line.
    pub(super) fn render(&self) -> String {
        let Crash {
            node,
            killed_percent,
            returned_percent,
        } = &self.crash;
        let mut lines = vec![
            (
                "records".to_owned(),
                format!(
                    "{} ({:.1} MiB) from {}",
                    grouped(self.records),
                    self.bytes as f64 / f64::from(1 << 20),
                    self.origin
                ),
            ),
            (
                "import".to_owned(),
                format!(
                    "W=2: {}; {node} killed at {killed_percent} %, started again at {returned_percent} %",
                    self.outcome(&self.import, "acknowledged")
                ),
            ),
        ];
        for (node, check) in &self.checks {
            lines.push((
                format!("through {node}"),
                format!("R=2: {}", self.outcome(check, "equal byte for byte")),
            ));
        }
        lines.push(("lost".to_owned(), grouped(self.lost())));
        let mut text = String::from("\n");
        for (label, line) in lines {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "  {label:<11} {line}");
        }
        text.push('\n');
        text
    }

    /// Fails unless every record was written, and was read back unchanged through every node.
    ///
    /// # Errors
    /// With the numbers that are wrong.
    pub(super) fn verdict(&self) -> Result<()> {
        let unwritten = self.records.saturating_sub(self.import.good());
        if unwritten > 0 || self.lost() > 0 {
            bail!(
                "{} of {} records were not acknowledged, {} are missing or differ",
                grouped(unwritten),
                grouped(self.records),
                grouped(self.lost())
            );
        }
        Ok(())
    }

    /// Records that at least one node did not give back as they were.
    fn lost(&self) -> u64 {
        let checks = self.checks.iter();
        checks
            .map(|(_, check)| self.records.saturating_sub(check.good()))
            .max()
            .unwrap_or(self.records)
    }

    fn outcome(&self, report: &Report, good: &str) -> String {
        let rate = report.good() as f64 / report.took.as_secs_f64().max(0.001);
        format!(
            "{} {good}, {} errors, {} ({}/s)",
            grouped(report.good()),
            grouped(report.counts.errors),
            seconds(report.took),
            grouped(rate as u64)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::transfer::Counts;
    use std::time::Duration;

    fn report(records: u64, errors: u64) -> Report {
        Report {
            counts: Counts { records, errors },
            took: Duration::from_secs(10),
        }
    }

    fn summary(import: Report, check: Report) -> Summary {
        Summary {
            origin: "apt-cache dumpavail".into(),
            records: 63_498,
            bytes: 50_088_566,
            import,
            crash: Crash {
                node: "n2".into(),
                killed_percent: 33,
                returned_percent: 67,
            },
            checks: vec![("n1".into(), report(63_498, 0)), ("n2".into(), check)],
        }
    }

    #[test]
    fn summary_says_what_happened() {
        let summary = summary(report(63_498, 0), report(63_498, 0));
        assert_eq!(
            summary.render(),
            "
  records     63,498 (47.8 MiB) from apt-cache dumpavail
  import      W=2: 63,498 acknowledged, 0 errors, 10.0s (6,349/s); n2 killed at 33 %, started again at 67 %
  through n1  R=2: 63,498 equal byte for byte, 0 errors, 10.0s (6,349/s)
  through n2  R=2: 63,498 equal byte for byte, 0 errors, 10.0s (6,349/s)
  lost        0

"
        );
        assert!(summary.verdict().is_ok());
    }

    #[test]
    fn one_record_too_few_anywhere_is_a_failure() {
        let unwritten = summary(report(63_498, 1), report(63_498, 0));
        let error = unwritten.verdict().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("1 of 63,498 records were not"),
            "{error}"
        );
        let differs = summary(report(63_498, 0), report(63_498, 2));
        assert!(
            differs
                .verdict()
                .unwrap_err()
                .to_string()
                .contains("2 are missing")
        );
        // A program that overlooks a record and calls that a success does not get away with it.
        let overlooked = summary(report(63_498, 0), report(63_497, 0));
        assert!(overlooked.verdict().is_err());
    }
}
