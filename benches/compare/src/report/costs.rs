//! Latency, processor time, amplification and memory: one line for each row and engine.

use super::number;
use super::results::Results;
use super::table::Table;
use crate::engine::EngineName;
use crate::measure::Metric;
use crate::row::Row;

const LATENCIES: [Metric; 6] = [
    Metric::P50Micros,
    Metric::P99Micros,
    Metric::P999Micros,
    Metric::P9999Micros,
    Metric::MaxMicros,
    Metric::CpuMicros,
];

/// Figures for the last column, and what stands before each.
const OTHERS: [(Metric, &str); 12] = [
    (Metric::ReadKib, "read/op"),
    (Metric::StallMillis, "over 10 ms"),
    (Metric::SettledSeconds, "settled"),
    (Metric::WriteAmplification, "WA"),
    (Metric::SpaceEnd, "space"),
    (Metric::SpacePeak, "peak"),
    (Metric::SlowestHalfSecond, "slowest ½ s"),
    (Metric::OpenMillis, "open"),
    (Metric::OpenedMb, "opened"),
    (Metric::FoundPercent, "found"),
    (Metric::PeakResidentMib, "RSS"),
    (Metric::AnonymousMib, "anonymous"),
];

/// Renders it; nothing if no row was run.
pub(super) fn render(results: &Results<'_>) -> Option<String> {
    if results.is_empty() {
        return None;
    }
    let headings = [
        "row",
        "engine",
        "runs",
        "rate",
        "from – to",
        "p50",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "CPU/op",
        "other",
    ];
    let mut table = Table::new(&headings, 2);
    for row in results.rows() {
        for engine in EngineName::ALL {
            if results.runs(row.name, engine) > 0 {
                table.line(line(results, row, engine));
            }
        }
    }
    Some(format!(
        "Medians over the runs; latencies and processor time in microseconds unless said.\n\n{}",
        table.finish()
    ))
}

fn line(results: &Results<'_>, row: &Row, engine: EngineName) -> Vec<String> {
    let median = |metric| results.median(row.name, engine, metric);
    let rate = |value| number::rate(value);
    let runs = results.runs(row.name, engine);
    let range = results
        .range(row.name, engine, Metric::OperationsPerSecond)
        .filter(|_| runs > 1);
    let mut cells = vec![
        row.name.to_owned(),
        engine.to_string(),
        runs.to_string(),
        median(Metric::OperationsPerSecond).map_or_else(String::new, rate),
        range.map_or_else(String::new, |(low, high)| {
            format!("{} – {}", rate(low), rate(high))
        }),
    ];
    for metric in LATENCIES {
        cells.push(median(metric).map_or_else(String::new, number::micros));
    }
    cells.push(others(median));
    cells
}

/// What a row has besides, as `WA 2.35; space 0.66`.
fn others(median: impl Fn(Metric) -> Option<f64>) -> String {
    let is_dull = |metric, value: f64| metric == Metric::ReadKib && value < 0.01;
    let parts: Vec<String> = OTHERS
        .into_iter()
        .filter_map(|(metric, name)| {
            let value = median(metric)?;
            (!is_dull(metric, value))
                .then(|| format!("{name} {}", number::with_unit(metric, value)))
        })
        .collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::results::samples::record;
    use super::*;

    #[test]
    fn every_engine_that_ran_has_a_line() {
        let row = "overwrite-1024";
        let figures = |rate| {
            [
                (Metric::OperationsPerSecond, rate),
                (Metric::P50Micros, 5.8),
                (Metric::MaxMicros, 122_300.0),
                (Metric::SpaceEnd, 0.66),
                (Metric::ReadKib, 0.001),
                (Metric::PeakResidentMib, 229.0),
            ]
        };
        let records = [
            record(row, EngineName::Kv, 0, &figures(100e3)),
            record(row, EngineName::Kv, 2, &figures(120e3)),
        ];
        let text = render(&Results::of(&records)).unwrap();
        let expected = "| overwrite-1024 | kv-storage | 2 | 110 k | 100 k – 120 k | 5.80 | | | | 122 ms | \
                        | space 0.66; RSS 229 MiB |";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("RocksDB"));
    }
}
