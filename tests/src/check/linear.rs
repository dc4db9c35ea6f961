//! Linearizability of one register: Wing and Gong's search (1993) with Lowe's memory of visited states ("Testing for
//! linearizability", 2017).
//!
//! Linearizability is local (Herlihy and Wing, 1990): a store of registers is linearizable if each of them is, so
//! each is judged alone.

use std::collections::HashSet;
use std::time::Duration;

/// What an operation did, as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read this value, or that there is none.
    Read(Option<u64>),
    /// Set the value.
    Write(u64),
    /// Found the first value, and set the second.
    Swap(Option<u64>, u64),
}

/// One operation on the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// What was done.
    pub action: Action,
    /// When it began.
    pub begun: Duration,
    /// When it was answered. If never, it may have taken effect at any time since, or not at all.
    pub ended: Option<Duration>,
}

/// What the search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains all answers.
    Linearizable,
    /// There is none.
    Impossible,
    /// The search looked at as many states as it was allowed to.
    Unknown,
}

/// Which operations have taken effect, and what the register holds then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    done: Vec<u64>,
    value: Option<u64>,
}

impl State {
    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] >> (index % 64) & 1 == 1
    }

    /// The state after an operation, if its answer fits.
    fn after(&self, index: usize, action: Action) -> Option<Self> {
        let value = match action {
            Action::Read(seen) => (seen == self.value).then_some(self.value)?,
            Action::Write(value) => Some(value),
            Action::Swap(from, to) => (from == self.value).then_some(Some(to))?,
        };
        let mut done = self.done.clone();
        done[index / 64] |= 1 << (index % 64);
        Some(Self { done, value })
    }
}

/// Looks for an order of all operations on a register that holds nothing at first, in at most `most_states` states.
#[must_use]
pub fn check(operations: &[Operation], most_states: usize) -> Verdict {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| (operation.begun, operation.ended));
    let first = State {
        done: vec![0; operations.len().div_ceil(64)],
        value: None,
    };
    let mut visited = HashSet::from([first.clone()]);
    let mut rest = vec![first];
    while let Some(state) = rest.pop() {
        let waiting = |(index, _): &(usize, &Operation)| !state.is_done(*index);
        let undone = operations.iter().enumerate().filter(waiting);
        // Whoever was answered first must take effect before anything that began later.
        let Some(first_end) = undone
            .clone()
            .filter_map(|(_, operation)| operation.ended)
            .min()
        else {
            return Verdict::Linearizable;
        };
        let able = undone.take_while(|(_, operation)| operation.begun <= first_end);
        for (index, operation) in able {
            if let Some(next) = state.after(index, operation.action)
                && visited.insert(next.clone())
            {
                rest.push(next);
            }
        }
        if visited.len() > most_states {
            return Verdict::Unknown;
        }
    }
    Verdict::Impossible
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Read, Swap, Write};

    fn judge(operations: &[(Action, u64, u64)]) -> Verdict {
        let operation = |(action, begun, ended): &(Action, u64, u64)| Operation {
            action: *action,
            begun: Duration::from_millis(*begun),
            ended: (*ended > 0).then(|| Duration::from_millis(*ended)),
        };
        let operations: Vec<_> = operations.iter().map(operation).collect();
        check(&operations, 100_000)
    }

    #[test]
    fn one_after_the_other() {
        let good = [
            (Write(1), 0, 1),
            (Read(Some(1)), 2, 3),
            (Write(2), 4, 5),
            (Read(Some(2)), 6, 7),
        ];
        assert_eq!(judge(&good), Verdict::Linearizable);
        let stale = [(Write(1), 0, 1), (Write(2), 2, 3), (Read(Some(1)), 4, 5)];
        assert_eq!(judge(&stale), Verdict::Impossible);
        assert_eq!(
            judge(&[(Read(None), 0, 1), (Write(1), 2, 3)]),
            Verdict::Linearizable
        );
        assert_eq!(
            judge(&[(Write(1), 0, 1), (Read(None), 2, 3)]),
            Verdict::Impossible
        );
    }

    #[test]
    fn overlapping_ones_take_effect_in_some_order_for_all_readers() {
        let good = [
            (Write(1), 0, 10),
            (Write(2), 0, 10),
            (Read(Some(1)), 11, 12),
            (Read(Some(1)), 13, 14),
        ];
        assert_eq!(judge(&good), Verdict::Linearizable);
        let split = [
            (Write(1), 0, 10),
            (Write(2), 0, 10),
            (Read(Some(1)), 11, 12),
            (Read(Some(2)), 13, 14),
        ];
        assert_eq!(judge(&split), Verdict::Impossible);
        let back = [(Write(1), 0, 20), (Read(Some(1)), 2, 4), (Read(None), 6, 8)];
        assert_eq!(judge(&back), Verdict::Impossible, "seen once, gone again");
    }

    #[test]
    fn one_without_an_answer_may_take_effect_late_or_never() {
        let late = [
            (Write(1), 0, 0),
            (Read(None), 2, 3),
            (Read(Some(1)), 90, 91),
        ];
        assert_eq!(judge(&late), Verdict::Linearizable);
        assert_eq!(
            judge(&[(Write(1), 0, 0), (Read(None), 90, 91)]),
            Verdict::Linearizable
        );
        let before = [(Read(Some(1)), 0, 1), (Write(1), 2, 0)];
        assert_eq!(judge(&before), Verdict::Impossible);
    }

    #[test]
    fn of_two_swaps_from_one_value_only_one_succeeds() {
        let good = [
            (Swap(None, 1), 0, 10),
            (Swap(Some(1), 2), 0, 10),
            (Read(Some(2)), 11, 12),
        ];
        assert_eq!(judge(&good), Verdict::Linearizable);
        assert_eq!(
            judge(&[(Swap(None, 1), 0, 10), (Swap(None, 2), 0, 10)]),
            Verdict::Impossible
        );
    }

    #[test]
    fn the_search_gives_up_at_its_limit() {
        let writes: Vec<_> = (0..16).map(|n| (Write(n), 0, 100)).collect();
        let operations: Vec<_> = writes
            .into_iter()
            .chain([(Read(Some(99)), 101, 102)])
            .collect();
        assert_eq!(judge(&operations), Verdict::Unknown);
    }

    /// All orders that respect time, tried one by one.
    fn naive(operations: &[Operation]) -> bool {
        fn search(rest: &[Operation], value: Option<u64>) -> bool {
            if rest.iter().all(|operation| operation.ended.is_none()) {
                return true;
            }
            (0..rest.len()).any(|index| {
                let first = rest[index];
                let is_first = rest
                    .iter()
                    .all(|other| other.ended.is_none_or(|end| end >= first.begun));
                let value = match first.action {
                    Read(seen) if seen == value => value,
                    Swap(from, to) if from == value => Some(to),
                    Write(value) => Some(value),
                    Read(_) | Swap(..) => return false,
                };
                let mut others = rest.to_vec();
                others.remove(index);
                is_first && search(&others, value)
            })
        }
        search(operations, None)
    }

    #[test]
    fn it_agrees_with_trying_all_orders() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let operations: Vec<Operation> = (0..random.usize(1..7))
                .map(|_| {
                    let value = |random: &mut fastrand::Rng| {
                        Some(random.u64(0..3)).filter(|value| *value > 0)
                    };
                    let begun = random.u64(0..12);
                    Operation {
                        action: match random.u8(0..5) {
                            0..2 => Read(value(&mut random)),
                            2..4 => Write(random.u64(1..3)),
                            _ => Swap(value(&mut random), random.u64(1..3)),
                        },
                        begun: Duration::from_millis(begun),
                        ended: (random.u8(0..6) > 0)
                            .then(|| Duration::from_millis(begun + random.u64(0..6))),
                    }
                })
                .collect();
            let expected = naive(&operations);
            let found = check(&operations, 100_000) == Verdict::Linearizable;
            assert_eq!(found, expected, "{operations:?}");
            if found { good += 1 } else { bad += 1 }
        }
        assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad");
    }
}
