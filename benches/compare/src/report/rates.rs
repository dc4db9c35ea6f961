//! The main table: one line a row, ours beside the others, and whether the goal is reached.

use super::number;
use super::results::Results;
use super::table::Table;
use crate::engine::EngineName;
use crate::goal::{self, Figures, Rule, Verdict};
use crate::measure::Metric;
use crate::row::Row;

/// Renders it, with the number of goals reached below; nothing if no row was run.
pub(super) fn render(results: &Results<'_>) -> Option<String> {
    if results.is_empty() {
        return None;
    }
    let mut headings = vec!["row"];
    let names = EngineName::ALL.map(|engine| engine.to_string());
    headings.extend(names.iter().map(String::as_str));
    headings.extend(["to RocksDB", "to fjall", "to the better", "goal", "reached"]);
    let mut table = Table::new(&headings, 1);
    let (mut reached, mut judged) = (0, 0);
    for row in results.rows() {
        let verdict = verdict(results, row);
        reached += usize::from(verdict == Some(Verdict::Reached));
        judged += usize::from(verdict.is_some());
        table.line(line(results, row, verdict));
    }
    Some(format!(
        "{}\n{reached} of {judged} goals of this table are reached.\n",
        table.finish()
    ))
}

fn line(results: &Results<'_>, row: &Row, verdict: Option<Verdict>) -> Vec<String> {
    let metric = row.headline();
    let figures = results.figures(row.name, metric);
    let mut cells = vec![row.title.to_owned()];
    cells.extend(EngineName::ALL.map(|engine| cell(results, row, engine)));
    for theirs in [figures.rocksdb, figures.fjall, better(metric, &figures)] {
        cells.push(ratio(metric, figures.ours, theirs));
    }
    let goal = goal::headline(row.name);
    cells.push(goal.map_or_else(String::new, |goal| demand(goal.metric, goal.rule)));
    cells.push(verdict.map_or_else(String::new, word));
    cells
}

fn verdict(results: &Results<'_>, row: &Row) -> Option<Verdict> {
    let goal = goal::headline(row.name)?;
    Some(goal.rule.judge(results.figures(row.name, goal.metric)))
}

/// An engine's figure; one that lost puts is told, but does not count.
fn cell(results: &Results<'_>, row: &Row, engine: EngineName) -> String {
    let metric = row.headline();
    let Some(value) = results.median(row.name, engine, metric) else {
        return String::new();
    };
    let text = match metric {
        Metric::OperationsPerSecond => number::rate(value),
        _ => number::with_unit(metric, value),
    };
    if results.has_kept_all(row.name, engine) {
        text
    } else {
        format!("({text}, lost puts)")
    }
}

/// The better of the two judges.
fn better(metric: Metric, figures: &Figures) -> Option<f64> {
    if is_cost(metric) {
        figures.smaller()
    } else {
        figures.larger()
    }
}

/// How many times better ours is.
fn ratio(metric: Metric, ours: Option<f64>, theirs: Option<f64>) -> String {
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return "–".to_owned();
    };
    let ratio = if is_cost(metric) {
        theirs / ours
    } else {
        ours / theirs
    };
    number::factor(ratio)
}

/// True if less is better.
fn is_cost(metric: Metric) -> bool {
    !matches!(
        metric,
        Metric::OperationsPerSecond | Metric::SlowestHalfSecond
    )
}

/// What a rule demands, in a few characters.
pub(super) fn demand(metric: Metric, rule: Rule) -> String {
    match rule {
        Rule::TimesBetter(times) => format!("≥ {times} ×"),
        Rule::TimesRocksDb(times) => format!("≥ {times} × RocksDB"),
        Rule::AtMostTimesBetter(times) => format!("≤ {times} × the better"),
        Rule::AtMost(limit) => format!("≤ {}", number::with_unit(metric, limit)),
        Rule::Below(limit) => format!("< {}", number::with_unit(metric, limit)),
    }
}

/// A verdict in a word.
pub(super) fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Reached => "yes",
        Verdict::Missed => "**no**",
        Verdict::Unknown => "–",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::results::samples::record;
    use super::*;
    use crate::engine::EngineName::{Fjall, Kv, Redb, RocksDb};

    const RATE: Metric = Metric::OperationsPerSecond;

    fn rendered(records: &[crate::suite::Record]) -> String {
        render(&Results::of(records)).unwrap()
    }

    #[test]
    fn line_tells_figures_ratios_and_the_goal() {
        let row = "fill-rand-100";
        let lost = [(RATE, 58_400.0), (Metric::FoundPercent, 0.0)];
        let text = rendered(&[
            record(row, Kv, 0, &[(RATE, 600_000.0)]),
            record(row, RocksDb, 1, &[(RATE, 200_000.0)]),
            record(row, Fjall, 3, &[(RATE, 240_000.0)]),
            record(row, Redb, 4, &lost),
        ]);
        let expected = "| fill, random keys, 100 B | 600 k | 200 k | 240 k | (58.4 k, lost puts) | \
                        | 3.00 | 2.50 | 2.50 | ≥ 2.5 × | yes |";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("1 of 1 goals"), "{text}");
    }

    #[test]
    fn shorter_times_are_better() {
        let row = "recover-1024";
        let millis = Metric::OpenMillis;
        let text = rendered(&[
            record(row, Kv, 0, &[(millis, 400.0)]),
            record(row, RocksDb, 1, &[(millis, 1600.0)]),
            record(row, Fjall, 3, &[(millis, 1000.0)]),
        ]);
        let expected =
            "| 400 ms | 1600 ms | 1000 ms | | | 4.00 | 2.50 | 2.50 | ≤ 300 ms | **no** |";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn missing_peer_leaves_the_goal_open() {
        let row = "fill-rand-100";
        let text = rendered(&[
            record(row, Kv, 0, &[(RATE, 600_000.0)]),
            record(row, RocksDb, 1, &[(RATE, 200_000.0)]),
        ]);
        assert!(text.contains("| 3.00 | – | – | ≥ 2.5 × | – |"), "{text}");
    }
}
