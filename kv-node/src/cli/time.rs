//! Moments and lengths as text.

use std::time::Duration;

use jiff::Timestamp;

/// A moment given in milliseconds since the Unix epoch: `2026-11-22T19:20:03.118Z`.
pub(super) fn moment(millis: u64) -> String {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    match Timestamp::from_millisecond(millis) {
        Ok(moment) => format!("{moment:.3}"),
        Err(_) => format!("{millis} ms"),
    }
}

/// The milliseconds since the Unix epoch of a moment as [`moment`] writes it.
pub(super) fn milliseconds(moment: &str) -> Option<u64> {
    let moment: Timestamp = moment.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok()
}

/// The present moment, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// The present second.
pub(super) fn present() -> String {
    format!("{:.0}", Timestamp::now())
}

/// A length with its two largest units: `3h 04m`, `2m 13s`, `0.4 s`.
pub(super) fn length(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{rest} s"),
        60..3600 => format!("{minutes}m {rest:02}s"),
        3600..86_400 => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h"),
    }
}

/// Microseconds as milliseconds: `0.4 ms`.
pub(super) fn latency(micros: u32) -> String {
    format!("{:.1} ms", f64::from(micros) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(moment(1_763_839_203_118), "2025-11-22T19:20:03.118Z");
        assert_eq!(
            milliseconds("2025-11-22T19:20:03.118Z"),
            Some(1_763_839_203_118)
        );
        assert_eq!(milliseconds("tomorrow"), None);
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert!(moment(u64::MAX).ends_with("ms"));
    }

    #[test]
    fn lengths_have_two_units() {
        for (millis, text) in [
            (0, "0.0 s"),
            (450, "0.5 s"),
            (59_900, "59 s"),
            (133_000, "2m 13s"),
            (11_040_000, "3h 04m"),
            (200_000_000, "2d 07h"),
        ] {
            assert_eq!(length(Duration::from_millis(millis)), text);
        }
        assert_eq!(latency(412), "0.4 ms");
    }
}
