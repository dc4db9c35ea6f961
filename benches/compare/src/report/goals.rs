//! The goals that are no rates: longest puts, amplification, memory.

use super::number;
use super::rates::{demand, word};
use super::results::Results;
use super::table::Table;
use crate::engine::EngineName;
use crate::goal::{GOALS, Goal, Verdict};
use crate::measure::Metric;
use crate::row::Row;

/// Renders them, with the number of goals reached below; nothing if no row that was run has any.
pub(super) fn render(results: &Results<'_>) -> Option<String> {
    let mut headings = vec!["figure", "row"];
    let names = EngineName::ALL.map(|engine| engine.to_string());
    headings.extend(names.iter().map(String::as_str));
    headings.extend(["goal", "reached"]);
    let mut table = Table::new(&headings, 2);
    let (mut reached, mut judged) = (0, 0);
    for goal in GOALS {
        let Some(row) = results.rows().find(|row| row.name == goal.row) else {
            continue;
        };
        if goal.metric == row.headline() {
            continue; // The main table has it.
        }
        let verdict = goal.rule.judge(results.figures(row.name, goal.metric));
        reached += usize::from(verdict == Verdict::Reached);
        judged += 1;
        table.line(line(results, row, goal, verdict));
    }
    (judged > 0).then(|| {
        format!(
            "{}\n{reached} of {judged} goals of this table are reached.\n",
            table.finish()
        )
    })
}

fn line(results: &Results<'_>, row: &Row, goal: &Goal, verdict: Verdict) -> Vec<String> {
    let mut cells = vec![name(goal.metric).to_owned(), row.title.to_owned()];
    cells.extend(EngineName::ALL.map(|engine| {
        let value = results.median(row.name, engine, goal.metric);
        value.map_or_else(String::new, |value| number::with_unit(goal.metric, value))
    }));
    cells.push(demand(goal.metric, goal.rule));
    cells.push(word(verdict));
    cells
}

fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::MaxMicros => "longest put",
        Metric::P9999Micros => "99.99 % of puts",
        Metric::StallMillis => "puts over 10 ms in sum",
        Metric::WriteAmplification => "write amplification",
        Metric::SpaceEnd => "space at the end",
        Metric::SpacePeak => "space at the peak",
        Metric::PeakResidentMib => "peak resident memory",
        Metric::OperationsPerSecond => "rate",
        Metric::Operations => "operations",
        Metric::P50Micros => "median latency",
        Metric::P99Micros => "99 %",
        Metric::P999Micros => "99.9 %",
        Metric::CpuMicros => "processor time",
        Metric::SettledSeconds => "settled after",
        Metric::SlowestHalfSecond => "slowest half second",
        Metric::ReadKib => "read from the device",
        Metric::AnonymousMib => "anonymous memory",
        Metric::FoundPercent => "found after the kill",
        Metric::OpenMillis => "time to open",
        Metric::OpenedMb => "on disk when opened",
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::samples::record;
    use super::*;

    #[test]
    fn only_goals_of_rows_that_were_run_are_listed() {
        let row = "overwrite-1024";
        let figures = |amplification| {
            [
                (Metric::WriteAmplification, amplification),
                (Metric::MaxMicros, 15e3),
            ]
        };
        let records = [
            record(row, EngineName::Kv, 0, &figures(2.0)),
            record(row, EngineName::RocksDb, 1, &figures(2.4)),
            record(row, EngineName::Fjall, 2, &figures(2.6)),
        ];
        let text = render(&Results::of(&records)).unwrap();
        assert!(!text.contains("fill"), "{text}");
        let amplification = "| write amplification | overwrite, 1 KiB | 2.00 | 2.40 | 2.60 | | \
                             | ≤ 1 × the better | yes |";
        assert!(text.contains(amplification), "{text}");
        let longest = "| 15.0 ms | 15.0 ms | 15.0 ms | | | < 20.0 ms | yes |";
        assert!(text.contains(longest), "{text}");
    }
}
