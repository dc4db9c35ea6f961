//! Numbers as readers want them: three digits and a unit.

use crate::measure::Metric;

/// A number with three digits that count, and no more than its whole part if that has more.
pub(crate) fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    // The limits are where rounding would add a digit.
    if magnitude >= 99.95 {
        format!("{value:.0}")
    } else if magnitude >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// A rate: `950`, `5.82 k`, `1.14 M`.
pub(crate) fn rate(value: f64) -> String {
    if value >= 999_500.0 {
        format!("{} M", three_digits(value / 1e6))
    } else if value >= 999.5 {
        format!("{} k", three_digits(value / 1e3))
    } else {
        three_digits(value)
    }
}

/// Microseconds, from a millisecond on as milliseconds: `3.62`, `48.7 ms`.
pub(crate) fn micros(value: f64) -> String {
    if value >= 999.5 {
        format!("{} ms", three_digits(value / 1e3))
    } else {
        three_digits(value)
    }
}

/// A factor: `1.25`.
pub(crate) fn factor(value: f64) -> String {
    three_digits(value)
}

/// A figure with its unit.
pub(crate) fn with_unit(metric: Metric, value: f64) -> String {
    match metric {
        Metric::OperationsPerSecond | Metric::SlowestHalfSecond => format!("{}/s", rate(value)),
        Metric::Operations => rate(value),
        Metric::P50Micros
        | Metric::P99Micros
        | Metric::P999Micros
        | Metric::P9999Micros
        | Metric::MaxMicros
        | Metric::CpuMicros => {
            if value >= 999.5 {
                micros(value)
            } else {
                format!("{} µs", micros(value))
            }
        }
        Metric::StallMillis | Metric::OpenMillis => format!("{} ms", three_digits(value)),
        Metric::SettledSeconds => format!("{} s", three_digits(value)),
        Metric::WriteAmplification | Metric::SpaceEnd | Metric::SpacePeak => three_digits(value),
        Metric::ReadKib => format!("{} KiB", three_digits(value)),
        Metric::PeakResidentMib | Metric::AnonymousMib => format!("{value:.0} MiB"),
        Metric::FoundPercent => format!("{} %", three_digits(value)),
        Metric::OpenedMb => format!("{} MB", three_digits(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        let cases = [
            (0.0, "0.00"),
            (53.77, "53.8"),
            (950.4, "950"),
            (999.6, "1.00 k"),
            (5_823.0, "5.82 k"),
            (27_199.0, "27.2 k"),
            (403_249.0, "403 k"),
            (999_600.0, "1.00 M"),
            (1_140_000.0, "1.14 M"),
            (15_950_000.0, "15.9 M"),
        ];
        for (value, text) in cases {
            assert_eq!(rate(value), text, "{value}");
        }
    }

    #[test]
    fn long_latencies_are_told_in_milliseconds() {
        assert_eq!(micros(3.617), "3.62");
        assert_eq!(micros(48_700.0), "48.7 ms");
        assert_eq!(with_unit(Metric::MaxMicros, 760.0), "760 µs");
        assert_eq!(with_unit(Metric::MaxMicros, 1_105.0), "1.10 ms");
        assert_eq!(with_unit(Metric::OpenMillis, 1_485.2), "1485 ms");
    }
}
