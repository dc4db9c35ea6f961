//! A running suspicion: long at first, shorter with every independent confirmation (Lifeguard §3.2).
//!
//! Lifeguard counts any member that accuses as well. Here only the suspect's observers count
//! ([`observers`](crate::observers)): anybody may raise a suspicion, and it is the shortest once two
//! observers have confirmed it. So three members agree as before, and two of them are of those that
//! everybody knows in advance to be responsible. That costs no time where the suspect is dead, for
//! its observers probe it as soon as they hear of the suspicion, and the shortest suspicion is long
//! compared to that. An observer that is suspected itself gives its place to the next one, so that
//! also where many die together each has observers that live.

use core::time::Duration;

use kv_types::NodeId;

use crate::config::Config;
use crate::time::Time;

/// One suspicion of one member, as this member sees it.
#[derive(Debug, Clone)]
pub(crate) struct Suspicion {
    since: Time,
    shortest: Duration,
    longest: Duration,
    confirmations_needed: usize,
    /// Who accuses, the first one first; at most one more than the confirmations needed.
    accusers: Vec<NodeId>,
    /// Names the timer that is valid; a change of the deadline takes a new one.
    pub(crate) token: u64,
}

impl Suspicion {
    /// A suspicion raised by `accuser` in a cluster of `live` members, both it and the suspect
    /// included.
    pub(crate) fn new(
        config: &Config,
        live: usize,
        accuser: NodeId,
        now: Time,
        token: u64,
    ) -> Self {
        let shortest = config.suspicion_shortest(live);
        let wanted = usize::try_from(config.confirmations).unwrap_or(usize::MAX);
        Self {
            since: now,
            shortest,
            longest: shortest * config.suspicion_stretch.max(1),
            // Nobody can confirm but those who are neither the suspect nor the first accuser.
            confirmations_needed: wanted.min(live.saturating_sub(2)),
            accusers: vec![accuser],
            token,
        }
    }

    /// Whether this observer's word would shorten the suspicion.
    pub(crate) fn wants(&self, observer: NodeId) -> bool {
        self.confirmations() < self.confirmations_needed && !self.accusers.contains(&observer)
    }

    /// Counts an observer that accuses; true if that shortens the suspicion.
    pub(crate) fn confirm(&mut self, observer: NodeId) -> bool {
        let counts = self.wants(observer);
        if counts {
            self.accusers.push(observer);
        }
        counts
    }

    /// When the suspect is declared dead.
    ///
    /// `longest − (longest − shortest) · ln(c + 1) / ln(k + 1)` for c of k confirmations: the first
    /// ones weigh most.
    pub(crate) fn deadline(&self) -> Time {
        self.since + self.timeout()
    }

    /// Who accused first.
    pub(crate) fn accuser(&self) -> NodeId {
        self.accusers[0]
    }

    fn confirmations(&self) -> usize {
        self.accusers.len() - 1
    }

    fn timeout(&self) -> Duration {
        if self.confirmations() >= self.confirmations_needed {
            return self.shortest;
        }
        #[expect(clippy::cast_precision_loss, reason = "both counts are small")]
        let weight = (self.confirmations() as f64 + 1.0).ln()
            / (self.confirmations_needed as f64 + 1.0).ln();
        // Whole milliseconds, so that the last bit of a logarithm decides nothing.
        let shrunk = (self.longest - self.shortest)
            .mul_f64(1.0 - weight)
            .as_millis();
        self.shortest + Duration::from_millis(u64::try_from(shrunk).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspicion(live: usize) -> Suspicion {
        Suspicion::new(&Config::lan(), live, NodeId(1), Time::ZERO, 0)
    }

    fn seconds(suspicion: &Suspicion) -> f64 {
        suspicion.deadline().since(Time::ZERO).as_secs_f64()
    }

    #[test]
    fn independent_confirmations_shorten_a_suspicion() {
        let mut suspicion = suspicion(100);
        assert_eq!(seconds(&suspicion), 48.0);
        assert!(suspicion.confirm(NodeId(2)));
        assert_eq!(seconds(&suspicion), 22.762);
        assert!(!suspicion.confirm(NodeId(2)), "the same accuser again");
        assert!(!suspicion.confirm(NodeId(1)), "the first accuser again");
        assert!(suspicion.confirm(NodeId(3)));
        assert_eq!(seconds(&suspicion), 8.0);
        assert!(!suspicion.confirm(NodeId(4)), "no more are needed");
    }

    #[test]
    fn nobody_waits_for_confirmations_that_cannot_come() {
        assert_eq!(seconds(&suspicion(2)), 6.0);
        let mut of_three = suspicion(3);
        assert_eq!(seconds(&of_three), 36.0);
        assert!(of_three.confirm(NodeId(2)));
        assert_eq!(seconds(&of_three), 6.0);
    }
}
