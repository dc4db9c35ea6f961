//! Flapping: a member that comes and goes is not to be relied on for a while, though it is there now.
//!
//! Every return from suspicion or death weighs one, and its weight halves every five minutes. The
//! penalty of a member is the sum over its latest returns; from four on it is damped. Only eight
//! returns are kept, so the penalty saturates: a member that has flapped for hours is relied on again
//! at most ten minutes after its last return. All is integers, so the same returns give the same
//! answer, to the bit.
//!
//! Worked example: returns at 0:00, 1:00, 2:00 and 4:30. From 4:30 on the penalty is 4 and the member
//! damped; at 5:00 the first return weighs half, the penalty is 3.5, and the member is not damped any
//! more. With a fifth return at 4:40 it would have stayed damped until 7:00, when three of the five
//! weigh half.

use core::time::Duration;

use crate::time::Time;

/// After this the weight of a return has halved.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// The weight of a return just now. A power of two, so that its halvings are exact.
const ONE: u32 = 1 << 16;

/// From this penalty on a member is damped: a node that is restarted a few times stays below.
const DAMPED: u32 = 4 * ONE;

/// How many returns are kept, the latest ones.
const KEPT: usize = 8;

/// How often all weights can halve before no penalty is left that damps.
const HALVINGS: u32 = 2;

const _: () = assert!((KEPT as u32 * ONE) >> HALVINGS < DAMPED);

/// The latest returns of one member, the earliest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Flapping {
    returns: Vec<Time>,
}

impl Flapping {
    /// The member was suspected or dead, and is alive again.
    pub(crate) fn count_return(&mut self, now: Time) {
        if self.returns.len() == KEPT {
            self.returns.remove(0);
        }
        self.returns.push(now);
    }

    /// The first moment since the last return at which the member is not damped, `None` if it was
    /// not damped by that return.
    pub(crate) fn damped_until(&self) -> Option<Time> {
        let last = *self.returns.last()?;
        let mut changes: Vec<Time> = self
            .returns
            .iter()
            .flat_map(|&at| (1..=HALVINGS).map(move |halvings| at + HALF_LIFE * halvings))
            .filter(|&at| at > last)
            .collect();
        changes.sort_unstable();
        if self.penalty(last) < DAMPED {
            return None;
        }
        changes.into_iter().find(|&at| self.penalty(at) < DAMPED)
    }

    /// The sum of the weights at `now`, in parts of [`ONE`].
    fn penalty(&self, now: Time) -> u32 {
        let weight = |at: &Time| {
            let halvings = now.since(*at).as_micros() / HALF_LIFE.as_micros();
            let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
            ONE.checked_shr(halvings).unwrap_or(0)
        };
        self.returns.iter().map(weight).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from(Duration::from_secs(seconds))
    }

    fn flapping(returns: &[u64]) -> Flapping {
        let mut flapping = Flapping::default();
        for &seconds in returns {
            flapping.count_return(at(seconds));
        }
        flapping
    }

    #[test]
    fn a_member_is_damped_from_four_returns_on_until_their_weights_have_halved() {
        let table: [(&[u64], Option<u64>); 10] = [
            (&[], None),
            (&[0, 1, 2], None),
            (&[0, 0, 0, 0], Some(300)),
            (&[0, 60, 120, 270], Some(300)),
            (&[0, 60, 120, 270, 280], Some(420)),
            // The first one weighs half by now: three and a half.
            (&[0, 60, 120, 300], None),
            (&[0, 60, 120, 300, 301], Some(420)),
            // Once in four minutes for ever: 1 + 1 + 1/2 + 1/2 + 1/4 + ... stays below.
            (&[0, 240, 480, 720, 960, 1200, 1440, 1680, 1920], None),
            // Once a minute for ever.
            (&[0, 60, 120, 180, 240, 300, 360, 420, 480, 540], Some(840)),
            (&[7; 100], Some(607)),
        ];
        for (returns, until) in table {
            let damped_until = flapping(returns).damped_until();
            assert_eq!(damped_until, until.map(at), "{returns:?}");
        }
    }

    #[test]
    fn a_return_weighs_half_after_five_minutes_and_nothing_in_the_end() {
        let once = flapping(&[10]);
        let table = [(10, ONE), (309, ONE), (310, ONE / 2), (610, ONE / 4)];
        for (seconds, penalty) in table {
            assert_eq!(once.penalty(at(seconds)), penalty, "{seconds} s");
        }
        assert_eq!(once.penalty(at(10 + 300 * 16)), 1);
        assert_eq!(once.penalty(at(10 + 300 * 17)), 0);
        assert_eq!(once.penalty(at(u64::MAX / 2_000_000)), 0);
    }

    #[test]
    fn no_member_is_damped_for_longer_than_ten_minutes_after_its_last_return() {
        for gap in [0, 1, 10, 60, 100, 150] {
            let mut flapping = Flapping::default();
            for count in 0..1000 {
                flapping.count_return(at(count * gap));
            }
            let last = at(999 * gap);
            let rest = flapping.damped_until().map(|until| until.since(last));
            assert!(
                rest.is_none_or(|rest| rest <= 2 * HALF_LIFE),
                "{gap}: {rest:?}"
            );
            assert!(flapping.returns.len() <= KEPT);
        }
    }
}
