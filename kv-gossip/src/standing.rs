//! The order in which beliefs about a member override each other.
//!
//! A belief is a [`Standing`], and standings are totally ordered: when two meet, the greater one
//! holds. So it does not matter in which order, how often, or along which way news arrive: after the
//! same set of news every member believes the same (a join-semilattice).
//!
//! The order is lexicographic over incarnation, cleared heartbeat, state:
//!
//! | belief | overrides |
//! |---|---|
//! | anything of a higher incarnation | everything of a lower one (SWIM §4.2) |
//! | `Alive` cleared by an ack with a later heartbeat | accusations made before that heartbeat |
//! | `Suspect` | `Alive`, same incarnation and clearance |
//! | `Dead` | `Suspect`, same incarnation and clearance |
//! | `Left` | everything of its incarnation, for ever |

use core::fmt;

use serde::{Deserialize, Serialize};

/// How often a member has raised its voice: raised only by the member itself, to refute.
///
/// A later process of the same node must start higher than an earlier one;
/// [`Self::first_of_boot`] sees to that. One that starts too low is told by its peers and raises
/// itself, at the cost of one round trip.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The highest incarnation accepted from the wire, so that adding one never overflows.
    pub const MAX: Self = Self(1 << 60);

    /// The incarnation to start with in the `boot`-th run of a node: room for 65,536 refutations.
    #[must_use]
    pub fn first_of_boot(boot: u64) -> Self {
        Self(boot.min(1 << 43) << 16)
    }

    /// The incarnation that overrides this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a member is believed to be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Answers, or has not been found not to.
    Alive = 0,
    /// Did not answer some member: routing should avoid it, it may still refute.
    Suspect = 1,
    /// Stayed suspect until the timer ended.
    Dead = 2,
    /// Said goodbye.
    Left = 3,
}

impl State {
    /// All states, by their discriminant.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Dead, Self::Left];

    /// Whether the member may be running: probes and news go to it.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// Whether this is a claim that the member does not answer.
    #[must_use]
    pub fn is_accusation(self) -> bool {
        matches!(self, Self::Suspect | Self::Dead)
    }
}

/// A belief about one member; the greater of two holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// Which incarnation the belief is about.
    pub incarnation: Incarnation,
    /// The latest heartbeat by which an accusation of this incarnation was disproved, else 0.
    ///
    /// `u64::MAX` in state `Left`: nothing disproves a goodbye.
    pub cleared: u64,
    /// What the member is believed to be doing.
    pub state: State,
}

impl Standing {
    /// Alive, and never accused in this incarnation.
    #[must_use]
    pub fn alive(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            cleared: 0,
            state: State::Alive,
        }
    }

    /// Gone by its own word.
    #[must_use]
    pub fn left(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            cleared: u64::MAX,
            state: State::Left,
        }
    }

    /// The same incarnation and clearance in another state.
    #[must_use]
    pub(crate) fn but(self, state: State) -> Self {
        debug_assert_ne!(state, State::Left, "a goodbye is made by `left`");
        Self { state, ..self }
    }

    /// Alive again, by an ack that carried `heartbeat`.
    #[must_use]
    pub(crate) fn cleared_at(self, heartbeat: u64) -> Self {
        Self {
            cleared: heartbeat,
            state: State::Alive,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standing(incarnation: u64, cleared: u64, state: State) -> Standing {
        Standing {
            incarnation: Incarnation(incarnation),
            cleared,
            state,
        }
    }

    #[test]
    fn beliefs_override_each_other_in_the_documented_order() {
        let rising = [
            standing(0, 0, State::Alive),
            standing(0, 0, State::Suspect),
            standing(0, 0, State::Dead),
            standing(0, 7, State::Alive),
            standing(0, 7, State::Suspect),
            standing(0, 7, State::Dead),
            Standing::left(Incarnation(0)),
            standing(1, 0, State::Alive),
            standing(1, 0, State::Dead),
            standing(2, 0, State::Suspect),
        ];
        assert!(rising.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_later_boot_starts_above_all_refutations_of_the_earlier() {
        let mut incarnation = Incarnation::first_of_boot(3);
        for _ in 0..65_535 {
            incarnation = incarnation.next();
        }
        assert!(incarnation < Incarnation::first_of_boot(4));
        assert!(Incarnation::first_of_boot(u64::MAX) < Incarnation::MAX);
    }

    prop_compose! {
        fn any_standing()(incarnation in 0_u64..4, cleared in 0_u64..4, state in 0_usize..4) -> Standing {
            match State::ALL[state] {
                State::Left => Standing::left(Incarnation(incarnation)),
                state => standing(incarnation, cleared, state),
            }
        }
    }

    proptest! {
        #[test]
        fn the_greatest_belief_holds_in_whatever_order_they_arrive(
            mut beliefs in prop::collection::vec(any_standing(), 1..12),
            seed in any::<u64>(),
        ) {
            let fold = |beliefs: &[Standing]| beliefs.iter().copied().reduce(Standing::max);
            let before = fold(&beliefs);
            fastrand::Rng::with_seed(seed).shuffle(&mut beliefs);
            beliefs.extend_from_within(..beliefs.len() / 2);
            prop_assert_eq!(fold(&beliefs), before);
        }
    }
}
