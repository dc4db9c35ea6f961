//! Heartbeats: a node's age in periods, at the last moment its liveness proofs passed.
//!
//! A heartbeat is a reading of the subject's own clock, so it can be placed in time by others: a
//! member that has heard a few knows to within a period which heartbeat a healthy subject would have
//! now. An accusation carries that number, and an ack with a later heartbeat is proof that the
//! subject answered *after* the accusation was made. A plain counter could not tell an old ack from
//! a new one.
//!
//! Worked example, periods of 1 s: X stops at its heartbeat 100. B got an ack with 99 just before. A
//! probes X, and accuses it three seconds later with `accused_at` = 103 + 2. B's ack is no evidence,
//! as it should be. Had X merely lost a packet, its ack to C six seconds later would carry 106 and
//! clear it.

use core::time::Duration;

use crate::time::Time;

/// Periods added to an estimate: one for the part of a period already begun, one for delay.
const ESTIMATE_SLACK: u64 = 2;

/// How many periods without any ack stop the own heartbeat, while peers are believed to be there.
const SILENCE_LIMIT: u32 = 10;

/// The heartbeat of this member.
#[derive(Debug)]
pub(crate) struct OwnHeartbeat {
    started: Time,
    period: Duration,
    validity: Duration,
    /// The last good report of the driver stands until here.
    proven_until: Time,
    /// The last ack from anybody, or the last moment without any live peer.
    contact: Time,
    value: u64,
}

impl OwnHeartbeat {
    /// A heartbeat that starts now; starting counts as the first proof.
    pub(crate) fn new(now: Time, period: Duration, validity: Duration) -> Self {
        Self {
            started: now,
            period,
            validity,
            proven_until: now + validity,
            contact: now,
            value: 0,
        }
    }

    /// Takes in the driver's report.
    pub(crate) fn report(&mut self, now: Time, healthy: bool) {
        self.proven_until = if healthy { now + self.validity } else { now };
    }

    /// An ack arrived, or there is nobody to expect one from.
    pub(crate) fn contact(&mut self, now: Time) {
        self.contact = now;
    }

    /// The heartbeat to state now: moves on only while the proofs pass.
    pub(crate) fn beat(&mut self, now: Time) -> u64 {
        let silent = now.since(self.contact) > self.period * SILENCE_LIMIT;
        if !self.is_stalled(now) && !silent {
            self.value = self.age(now);
        }
        self.value
    }

    /// The heartbeat stated last.
    pub(crate) fn value(&self) -> u64 {
        self.value
    }

    /// Whether the driver's reports say that this node does not work, or have stopped.
    pub(crate) fn is_stalled(&self, now: Time) -> bool {
        now >= self.proven_until
    }

    /// Periods since the start.
    pub(crate) fn age(&self, now: Time) -> u64 {
        periods(now.since(self.started).as_micros(), self.period)
    }
}

/// What is known of another member's heartbeat, within one incarnation of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse {
    /// The newest heartbeat anybody told.
    newest: u64,
    /// The newest heartbeat in an ack to a ping: the only kind that is evidence.
    acked: u64,
    /// When the subject's heartbeat was 0, on this member's clock, in microseconds; the earliest
    /// estimate, because a reading can be delayed but cannot arrive early.
    born_micros: Option<i128>,
}

impl Pulse {
    /// Takes in that the subject has stated `heartbeat` by `now`.
    pub(crate) fn hear(&mut self, now: Time, heartbeat: u64, period: Duration) {
        self.newest = self.newest.max(heartbeat);
        self.place(now, heartbeat, period);
    }

    /// Takes in that the subject's clock stands at `age` periods now, which says nothing about life.
    pub(crate) fn place(&mut self, now: Time, age: u64, period: Duration) {
        let lived = i128::from(age).saturating_mul(period_micros(period));
        let born = i128::from(now.as_micros()).saturating_sub(lived);
        self.born_micros = Some(self.born_micros.map_or(born, |known| known.min(born)));
    }

    /// Takes in what a third party passes on: a heartbeat that was stated some time ago, and where
    /// the subject's clock stands now.
    pub(crate) fn learn(&mut self, now: Time, heartbeat: u64, age: u64, period: Duration) {
        self.newest = self.newest.max(heartbeat);
        self.place(now, age, period);
    }

    /// Takes in a heartbeat that came with an ack.
    pub(crate) fn ack(&mut self, heartbeat: u64) {
        self.acked = self.acked.max(heartbeat);
    }

    /// A heartbeat that the subject cannot have stated before `now`: what an accusation carries.
    pub(crate) fn not_before(&self, now: Time, period: Duration) -> u64 {
        self.age(now, period) + ESTIMATE_SLACK
    }

    /// The subject's age in periods, by its own clock, as far as known.
    pub(crate) fn age(&self, now: Time, period: Duration) -> u64 {
        let lived = self.born_micros.map_or(0, |born| {
            i128::from(now.as_micros()).saturating_sub(born).max(0)
        });
        let age = u64::try_from(lived / period_micros(period)).unwrap_or(u64::MAX / 2);
        age.max(self.newest).min(u64::MAX / 2)
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }
}

fn periods(micros: u128, period: Duration) -> u64 {
    u64::try_from(micros / period.as_micros().max(1)).unwrap_or(u64::MAX / 2)
}

fn period_micros(period: Duration) -> i128 {
    i128::try_from(period.as_micros())
        .unwrap_or(i128::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Time {
        Time::from(Duration::from_secs(seconds))
    }

    #[test]
    fn a_heartbeat_moves_only_while_its_proofs_pass() {
        let mut own = OwnHeartbeat::new(at(0), PERIOD, 5 * PERIOD);
        assert_eq!(own.beat(at(4)), 4);
        assert_eq!(own.beat(at(7)), 4, "the report is too old");
        assert!(own.is_stalled(at(7)));
        own.report(at(8), true);
        assert_eq!(own.beat(at(8)), 8);
        own.report(at(9), false);
        assert_eq!(own.beat(at(9)), 8);
        assert!(own.is_stalled(at(9)));
    }

    #[test]
    fn a_heartbeat_stops_when_nobody_acks() {
        let mut own = OwnHeartbeat::new(at(0), PERIOD, 1000 * PERIOD);
        own.contact(at(5));
        assert_eq!(own.beat(at(15)), 15);
        assert_eq!(own.beat(at(16)), 15);
        assert!(!own.is_stalled(at(16)), "silence is not a failed proof");
        own.contact(at(17));
        assert_eq!(own.beat(at(17)), 17);
    }

    #[test]
    fn no_ack_from_before_an_accusation_reaches_its_heartbeat() {
        let mut pulse = Pulse::default();
        // The subject was born at 100; its readings arrive with delays of 3, 0 and 2 seconds.
        for (heard, heartbeat) in [(113, 10), (120, 20), (127, 25)] {
            pulse.hear(at(heard), heartbeat, PERIOD);
        }
        assert_eq!(pulse.age(at(150), PERIOD), 50);
        assert_eq!(pulse.not_before(at(150), PERIOD), 52);
        assert_eq!(pulse.newest(), 25);
    }

    #[test]
    fn absurd_readings_do_not_overflow() {
        let mut pulse = Pulse::default();
        pulse.hear(at(0), u64::MAX, PERIOD);
        pulse.place(at(1), u64::MAX, Duration::from_secs(u64::MAX));
        assert!(pulse.not_before(at(2), PERIOD) > 0);
    }
}
