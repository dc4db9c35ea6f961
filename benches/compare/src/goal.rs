//! What our engine is to reach, row by row, and how that is judged.

use crate::measure::Metric;

/// One goal: a figure of a row and what is demanded of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Goal {
    /// The row's name.
    pub(crate) row: &'static str,
    /// Which of its figures.
    pub(crate) metric: Metric,
    /// What is demanded.
    pub(crate) rule: Rule,
}

/// What can be demanded of a figure. "The better" is the better of RocksDB and fjall in the same run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// At least so many times the better, which is the larger.
    TimesBetter(f64),
    /// At least so many times RocksDB's.
    TimesRocksDb(f64),
    /// At most so many times the better, which is the smaller.
    AtMostTimesBetter(f64),
    /// At most this, whatever others do.
    AtMost(f64),
    /// Less than this, whatever others do.
    Below(f64),
}

/// The figures of a row that a rule is applied to: medians, missing where a run failed or did not count.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Figures {
    /// Our engine's.
    pub(crate) ours: Option<f64>,
    /// RocksDB's.
    pub(crate) rocksdb: Option<f64>,
    /// fjall's.
    pub(crate) fjall: Option<f64>,
}

/// Whether a goal is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Reached,
    /// It is not.
    Missed,
    /// A figure is missing.
    Unknown,
}

impl Rule {
    /// Applies it.
    pub(crate) fn judge(self, figures: Figures) -> Verdict {
        let Figures { ours, rocksdb, .. } = figures;
        match self {
            Self::TimesBetter(times) => compare(ours, figures.larger(), |ours, theirs| {
                ours >= times * theirs
            }),
            Self::TimesRocksDb(times) => {
                compare(ours, rocksdb, |ours, theirs| ours >= times * theirs)
            }
            Self::AtMostTimesBetter(times) => compare(ours, figures.smaller(), |ours, theirs| {
                ours <= times * theirs
            }),
            Self::AtMost(limit) => compare(ours, Some(limit), |ours, limit| ours <= limit),
            Self::Below(limit) => compare(ours, Some(limit), |ours, limit| ours < limit),
        }
    }
}

impl Figures {
    /// The larger of the two others'; missing if one of them is, since that one might be the better.
    pub(crate) fn larger(&self) -> Option<f64> {
        Some(self.rocksdb?.max(self.fjall?))
    }

    /// The smaller of the two others'; missing if one of them is.
    pub(crate) fn smaller(&self) -> Option<f64> {
        Some(self.rocksdb?.min(self.fjall?))
    }
}

fn compare(ours: Option<f64>, theirs: Option<f64>, holds: impl Fn(f64, f64) -> bool) -> Verdict {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if holds(ours, theirs) => Verdict::Reached,
        (Some(_), Some(_)) => Verdict::Missed,
        _ => Verdict::Unknown,
    }
}

/// The median of some figures: the middle one, or the mean of the two in the middle.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

const fn faster(row: &'static str, times: f64) -> Goal {
    Goal {
        row,
        metric: Metric::OperationsPerSecond,
        rule: Rule::TimesBetter(times),
    }
}

const fn goal(row: &'static str, metric: Metric, rule: Rule) -> Goal {
    Goal { row, metric, rule }
}

/// All goals. The first one of a row is the one of its headline figure.
#[rustfmt::skip]
pub(crate) const GOALS: &[Goal] = &[
    faster("fill-seq-100", 2.5),
    faster("fill-rand-100", 2.5),
    faster("fill-rand-1024", 1.7),
    faster("fill-rand-16384", 1.4),
    faster("durable-1024-t1", 1.2),
    faster("durable-1024-t16", 1.5),
    faster("get-hit-100", 3.0),
    faster("get-hot-100", 4.0),
    faster("get-miss-100", 2.0),
    faster("get-warm-1024", 1.4),
    goal("get-cold-1024", Metric::OperationsPerSecond, Rule::TimesRocksDb(1.0)),
    faster("scan-100-100", 1.2),
    faster("scan-100-1024", 1.2),
    faster("scan-full-warm-100", 1.2),
    faster("ycsb-c-1024", 1.8),
    faster("ycsb-b-1024", 1.6),
    faster("ycsb-e-1024", 1.2),
    faster("ycsb-f-1024", 1.8),
    faster("ycsb-a-1024", 1.8),
    faster("overwrite-1024", 1.6),
    goal("recover-1024", Metric::OpenMillis, Rule::AtMost(300.0)),
    // Amplification of long overwriting.
    goal("overwrite-1024", Metric::WriteAmplification, Rule::AtMostTimesBetter(1.0)),
    goal("overwrite-1024", Metric::SpaceEnd, Rule::AtMostTimesBetter(1.0)),
    goal("overwrite-1024", Metric::SpacePeak, Rule::AtMostTimesBetter(1.0)),
    // The longest put.
    goal("fill-seq-100", Metric::MaxMicros, Rule::Below(20e3)),
    goal("fill-rand-100", Metric::MaxMicros, Rule::Below(20e3)),
    goal("fill-rand-1024", Metric::MaxMicros, Rule::Below(20e3)),
    goal("fill-rand-16384", Metric::MaxMicros, Rule::Below(20e3)),
    goal("overwrite-1024", Metric::MaxMicros, Rule::Below(20e3)),
    goal("fill-seq-100", Metric::P9999Micros, Rule::Below(5e3)),
    goal("fill-rand-100", Metric::P9999Micros, Rule::Below(5e3)),
    goal("fill-rand-1024", Metric::P9999Micros, Rule::Below(5e3)),
    goal("fill-rand-16384", Metric::P9999Micros, Rule::Below(5e3)),
    goal("overwrite-1024", Metric::P9999Micros, Rule::Below(5e3)),
    goal("fill-seq-100", Metric::StallMillis, Rule::Below(100.0)),
    goal("fill-rand-100", Metric::StallMillis, Rule::Below(100.0)),
    goal("fill-rand-1024", Metric::StallMillis, Rule::Below(100.0)),
    goal("fill-rand-16384", Metric::StallMillis, Rule::Below(100.0)),
    goal("overwrite-1024", Metric::StallMillis, Rule::Below(100.0)),
    // Memory: the rows that use most of it in their kind.
    goal("fill-rand-1024", Metric::PeakResidentMib, Rule::AtMostTimesBetter(1.1)),
    goal("get-hit-100", Metric::PeakResidentMib, Rule::AtMostTimesBetter(1.1)),
    goal("get-warm-1024", Metric::PeakResidentMib, Rule::AtMostTimesBetter(1.1)),
    goal("ycsb-a-1024", Metric::PeakResidentMib, Rule::AtMostTimesBetter(1.1)),
    goal("overwrite-1024", Metric::PeakResidentMib, Rule::AtMostTimesBetter(1.1)),
];

/// The goal of a row's headline figure.
pub(crate) fn headline(row: &str) -> Option<&'static Goal> {
    // The second and later ones of a row are for its other figures.
    GOALS.iter().find(|goal| {
        goal.row == row
            && matches!(
                goal.metric,
                Metric::OperationsPerSecond | Metric::OpenMillis
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Row;

    fn figures(ours: f64, rocksdb: f64, fjall: f64) -> Figures {
        Figures {
            ours: Some(ours),
            rocksdb: Some(rocksdb),
            fjall: Some(fjall),
        }
    }

    #[test]
    fn median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([7.0]), Some(7.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn rates_are_judged_against_the_better_peer() {
        let rule = Rule::TimesBetter(1.5);
        assert_eq!(rule.judge(figures(150.0, 80.0, 100.0)), Verdict::Reached);
        assert_eq!(rule.judge(figures(149.9, 80.0, 100.0)), Verdict::Missed);
        assert_eq!(rule.judge(figures(149.9, 100.0, 80.0)), Verdict::Missed);
        let rule = Rule::TimesRocksDb(1.0);
        assert_eq!(rule.judge(figures(80.0, 80.0, 100.0)), Verdict::Reached);
    }

    #[test]
    fn costs_are_judged_against_the_smaller_peer() {
        let rule = Rule::AtMostTimesBetter(1.1);
        assert_eq!(rule.judge(figures(109.0, 100.0, 300.0)), Verdict::Reached);
        assert_eq!(rule.judge(figures(111.0, 300.0, 100.0)), Verdict::Missed);
    }

    #[test]
    fn absolute_limits_need_no_peer() {
        let alone = Figures {
            ours: Some(300.0),
            ..Figures::default()
        };
        assert_eq!(Rule::AtMost(300.0).judge(alone), Verdict::Reached);
        assert_eq!(Rule::Below(300.0).judge(alone), Verdict::Missed);
    }

    #[test]
    fn nothing_is_reached_while_a_figure_is_missing() {
        let without_fjall = Figures {
            fjall: None,
            ..figures(900.0, 1.0, 1.0)
        };
        assert_eq!(
            Rule::TimesBetter(1.0).judge(without_fjall),
            Verdict::Unknown
        );
        let without_ours = Figures {
            ours: None,
            ..figures(0.0, 1.0, 1.0)
        };
        assert_eq!(Rule::AtMost(1.0).judge(without_ours), Verdict::Unknown);
    }

    #[test]
    fn every_goal_is_of_a_row_and_every_headline_goal_of_its_headline() {
        for goal in GOALS {
            let row = Row::named(goal.row).unwrap();
            if let Some(first) = headline(goal.row) {
                assert_eq!(first.metric, row.headline(), "{}", goal.row);
            }
        }
    }
}
