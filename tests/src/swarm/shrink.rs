//! Makes a failing day smaller: fewer faults, fewer clients, less time, as long as it fails for the same reason
//! (Zeller and Hildebrandt's delta debugging, 2002).

use std::collections::BTreeSet;

use super::run::run;
use super::scenario::Scenario;

/// The rules that a day breaks.
#[must_use]
pub fn rules(scenario: &Scenario) -> BTreeSet<&'static str> {
    let report = run(scenario, false);
    report.violations.iter().map(|found| found.rule).collect()
}

/// A smaller day that breaks one of the same rules, found in at most `most_runs` runs. `tell` hears of each success.
pub fn shrink(scenario: &Scenario, most_runs: usize, mut tell: impl FnMut(&Scenario)) -> Scenario {
    let wanted = rules(scenario);
    let mut left = most_runs;
    let mut best = scenario.clone();
    let mut fails = |candidate: &Scenario| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let fails = !rules(candidate).is_disjoint(&wanted);
        if fails {
            tell(candidate);
        }
        fails
    };
    loop {
        let before = best.clone();
        shorten(&mut best, &mut fails);
        drop_some(&mut best, |scenario| &mut scenario.events, &mut fails);
        drop_some(&mut best, |scenario| &mut scenario.orders, &mut fails);
        drop_some(&mut best, |scenario| &mut scenario.clients, &mut fails);
        if best == before {
            return best;
        }
    }
}

/// Ends the day earlier.
fn shorten(best: &mut Scenario, fails: &mut impl FnMut(&Scenario) -> bool) {
    for eighths in [1, 2, 4, 6, 7] {
        let mut candidate = best.clone();
        candidate.work_ms = best.work_ms * eighths / 8;
        candidate
            .events
            .retain(|event| event.at_ms < candidate.work_ms);
        if fails(&candidate) {
            *best = candidate;
            return;
        }
    }
}

/// Leaves out ever smaller parts of a list.
fn drop_some<T: Clone>(
    best: &mut Scenario,
    list: impl Fn(&mut Scenario) -> &mut Vec<T>,
    fails: &mut impl FnMut(&Scenario) -> bool,
) {
    let mut size = list(best).len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < list(best).len() {
            let mut candidate = best.clone();
            let end = (from + size).min(list(&mut candidate).len());
            list(&mut candidate).drain(from..end);
            if fails(&candidate) {
                *best = candidate;
            } else {
                from = end;
            }
        }
        size /= 2;
    }
}
