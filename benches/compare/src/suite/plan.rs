//! The order of runs. Ours comes before each of its judges, so that a noisy minute hits both.

use crate::engine::EngineName;
use crate::row::Row;

/// One run: a row with an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// The row.
    pub(crate) row: &'static Row,
    /// The engine.
    pub(crate) engine: EngineName,
    /// The pass over all rows, from 1.
    pub(crate) pass: u32,
    /// The place within the row's runs of a pass: ours has several.
    pub(crate) slot: u32,
}

/// All runs of all passes: pass by pass, row by row.
///
/// Engines that ours is not judged against run in the first pass only.
pub(crate) fn plan(rows: &[&'static Row], engines: &[EngineName], passes: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    for pass in 1..=passes {
        let turns = turns(engines, pass, passes);
        for &row in rows {
            steps.extend((0..).zip(&turns).map(|(slot, &engine)| Step {
                row,
                engine,
                pass,
                slot,
            }));
        }
    }
    steps
}

/// Who runs a row in this pass, in which order: ours, RocksDB, ours, fjall, then the others.
///
/// With a single pass, which judges nothing, ours runs once.
fn turns(engines: &[EngineName], pass: u32, passes: u32) -> Vec<EngineName> {
    let has = |engine: &EngineName| engines.contains(engine);
    let is_judge = |engine: &EngineName| EngineName::JUDGED_AGAINST.contains(engine);
    let ours = has(&EngineName::Kv).then_some(EngineName::Kv);
    let judges: Vec<EngineName> = engines.iter().copied().filter(is_judge).collect();
    let mut turns = Vec::new();
    if judges.is_empty() || passes == 1 {
        turns.extend(ours);
        turns.extend(judges);
    } else {
        for judge in judges {
            turns.extend(ours);
            turns.push(judge);
        }
    }
    if pass == 1 {
        let others = engines
            .iter()
            .filter(|engine| **engine != EngineName::Kv && !is_judge(engine));
        turns.extend(others);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use EngineName::{Fjall, Kv, Lmdb, Redb, RocksDb};

    fn engines(steps: &[Step]) -> Vec<EngineName> {
        steps.iter().map(|step| step.engine).collect()
    }

    #[test]
    fn ours_alternates_with_its_judges() {
        let row = Row::named("recover-1024").unwrap();
        let steps = plan(&[row], &EngineName::ALL, 2);
        assert_eq!(
            engines(&steps),
            [Kv, RocksDb, Kv, Fjall, Redb, Lmdb, Kv, RocksDb, Kv, Fjall]
        );
        assert_eq!((steps[9].pass, steps[9].slot), (2, 3));
    }

    #[test]
    fn single_pass_runs_everyone_once() {
        let row = Row::named("recover-1024").unwrap();
        assert_eq!(engines(&plan(&[row], &EngineName::ALL, 1)), EngineName::ALL);
    }

    #[test]
    fn chosen_engines_run_alone() {
        let row = Row::named("recover-1024").unwrap();
        assert_eq!(engines(&plan(&[row], &[Kv], 2)), [Kv, Kv]);
        assert_eq!(
            engines(&plan(&[row], &[Kv, Fjall], 2)),
            [Kv, Fjall, Kv, Fjall]
        );
        assert_eq!(engines(&plan(&[row], &[Lmdb], 1)), [Lmdb]);
    }

    #[test]
    fn pass_ends_before_the_next_begins() {
        let rows = [
            Row::named("fill-seq-100").unwrap(),
            Row::named("recover-1024").unwrap(),
        ];
        let steps = plan(&rows, &[Kv], 2);
        let order: Vec<_> = steps
            .iter()
            .map(|step| (step.pass, step.row.name))
            .collect();
        assert_eq!(
            order,
            [
                (1, "fill-seq-100"),
                (1, "recover-1024"),
                (2, "fill-seq-100"),
                (2, "recover-1024")
            ]
        );
    }
}
