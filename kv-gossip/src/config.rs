//! How often, how long, how many: a few numbers, and every timing derived from them.

use core::time::Duration;

/// The shortest period that is honoured: shorter ones would spin.
const SHORTEST: Duration = Duration::from_millis(1);

/// The timings and limits of one member.
///
/// All members of a cluster should run the same `probe_period`: it is also the unit of heartbeats.
/// Where it differs, third parties clear false suspicions later or not at all, and the suspected
/// member has to refute by itself. Every duration below one millisecond acts as one millisecond.
///
/// ```
/// use core::time::Duration;
/// use kv_gossip::Config;
///
/// let patient = Config { suspicion_floor: Duration::from_secs(20), ..Config::lan() };
/// assert_eq!(patient.probe_timeout(), Duration::from_millis(250));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Time between two probes of one member, and the length of one heartbeat. Default 1 s.
    ///
    /// Raising it saves traffic and slows detection in proportion.
    pub probe_period: Duration,
    /// How long a direct ping may take before others are asked, at most half a period. Default 250 ms.
    ///
    /// After 2.2 times as long, or a period if that is shorter, a silent member is suspected. Raising it
    /// spares members that are slow to answer, or far away, from suspicions that they must refute;
    /// lowering it finds the dead earlier.
    pub ping_timeout: Duration,
    /// The shortest time between a suspicion and a death. Default 6 s.
    ///
    /// Raising it gives slow members more time to refute; lowering it declares the dead earlier.
    /// Small clusters rest on it, because `suspicion_multiplier` alone would give them 4 s.
    pub suspicion_floor: Duration,
    /// The shortest suspicion in probe periods, times log10 of the cluster's size. Default 4.
    ///
    /// Raising it gives news more time to spread in large clusters; lowering it declares the dead
    /// earlier.
    pub suspicion_multiplier: u32,
    /// How many times longer than the shortest an unconfirmed suspicion lasts. Default 6.
    ///
    /// Raising it protects against a member that accuses everyone because it is itself cut off;
    /// lowering it declares the dead earlier where few members could confirm.
    pub suspicion_stretch: u32,
    /// How many observers of the suspect must confirm a suspicion to bring it to its shortest.
    /// Default 2; a member has four observers, and what others confirm does not count.
    ///
    /// Raising it asks for more agreement; 0 makes every suspicion the shortest.
    pub confirmations: u32,
    /// How many members are asked to ping a target that does not answer. Default 6.
    ///
    /// Raising it costs traffic under loss and avoids false suspicions; 0 turns indirect probes off.
    pub indirect_probes: usize,
    /// How many members get each round of news. Default 3.
    ///
    /// Raising it spreads news faster for more traffic.
    pub fanout: usize,
    /// How often one member repeats one piece of news, times log10 of the cluster's size. Default 4.
    ///
    /// Raising it costs traffic and loses less news; what is lost anyway is found by the next
    /// reconciliation.
    pub retransmit_multiplier: u32,
    /// The greatest slowdown of a member that doubts its own health, as a factor minus 1. Default 8.
    ///
    /// Raising it makes an unhealthy member slower to judge others; 0 turns local health off.
    pub health_limit: u32,
    /// Time between two reconciliations of one member with a random other. Default 10 s.
    ///
    /// Raising it saves about 200 bytes per reconciliation; lowering it repairs lost news sooner.
    pub sync_period: Duration,
    /// Time between two tries at dead and at listed but unknown members. Default 5 s.
    ///
    /// Raising it saves traffic while members are down; lowering it heals partitions sooner. A
    /// member that sees nobody alive tries every `probe_period`.
    pub reconnect_period: Duration,
    /// How long one [`LivenessProof`](crate::Input::LivenessProof) stands for. Default 10 s.
    ///
    /// The driver must report more often than this, or the member answers its probes as stalled and
    /// is suspected. Raising it hides a hung disk for longer; lowering it asks for more reports.
    pub proof_validity: Duration,
    /// How many members are remembered, dead ones included. Default 8192.
    ///
    /// Further ones are refused and counted. One member takes about 500 bytes.
    pub members_limit: usize,
}

impl Config {
    /// Timings for machines in one data centre or nearby ones.
    #[must_use]
    pub fn lan() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            ping_timeout: Duration::from_millis(250),
            suspicion_floor: Duration::from_secs(6),
            suspicion_multiplier: 4,
            suspicion_stretch: 6,
            confirmations: 2,
            indirect_probes: 6,
            fanout: 3,
            retransmit_multiplier: 4,
            health_limit: 8,
            sync_period: Duration::from_secs(10),
            reconnect_period: Duration::from_secs(5),
            proof_validity: Duration::from_secs(10),
            members_limit: 8192,
        }
    }

    /// Timings for machines in regions far from each other: pings may take most of a second.
    #[must_use]
    pub fn wan() -> Self {
        Self {
            probe_period: Duration::from_secs(2),
            ping_timeout: Duration::from_millis(800),
            suspicion_floor: Duration::from_secs(12),
            ..Self::lan()
        }
    }

    /// Timings for a development cluster on the loopback of one machine.
    ///
    /// Four times faster than [`Self::lan`]. The floor of suspicions still lets a process be starved
    /// by a compiler for two seconds without being declared dead.
    #[must_use]
    pub fn local() -> Self {
        Self {
            probe_period: Duration::from_millis(250),
            ping_timeout: Duration::from_millis(125),
            suspicion_floor: Duration::from_secs(2),
            sync_period: Duration::from_secs(2),
            reconnect_period: Duration::from_secs(1),
            proof_validity: Duration::from_secs(5),
            ..Self::lan()
        }
    }

    /// How long a direct ping may take before others are asked, as honoured.
    #[must_use]
    pub fn probe_timeout(&self) -> Duration {
        self.ping_timeout.clamp(2 * SHORTEST, self.period() / 2)
    }

    /// How long a member that pings for another waits before it says that it got no answer.
    ///
    /// Less than what the asking member still waits, so that the refusal arrives in time.
    #[must_use]
    pub fn relay_patience(&self) -> Duration {
        self.probe_timeout() * 4 / 5
    }

    /// Time between two rounds of news while there are any: a fifth of a period.
    #[must_use]
    pub fn gossip_period(&self) -> Duration {
        self.period() / 5
    }

    /// How long the driver should keep a member running after `Leave`, so that the news get out.
    #[must_use]
    pub fn leave_linger(&self) -> Duration {
        self.period()
    }

    /// How often one piece of news is sent by one member of a cluster of `live` members.
    #[must_use]
    pub(crate) fn transmissions(&self, live: usize) -> u32 {
        // ceil(log10(live + 1)), the number of digits.
        let digits = live.max(1).ilog10() + 1;
        self.retransmit_multiplier.max(1) * digits
    }

    /// The shortest suspicion in a cluster of `live` members.
    #[must_use]
    pub(crate) fn suspicion_shortest(&self, live: usize) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a member count is far below 2^52"
        )]
        let scale = (live.max(10) as f64).log10();
        let spread = self
            .period()
            .mul_f64(f64::from(self.suspicion_multiplier) * scale);
        spread.max(self.suspicion_floor).max(SHORTEST)
    }

    /// How long a member may take to show that it lives, be it through others: enough for the others'
    /// patience and the way there and back, and no longer than a period.
    #[must_use]
    pub fn probe_patience(&self) -> Duration {
        (self.probe_timeout() * 11 / 5).min(self.period())
    }

    /// The probe period, as honoured.
    pub(crate) fn period(&self) -> Duration {
        self.probe_period.max(5 * SHORTEST)
    }

    /// The period of reconciliations, as honoured.
    pub(crate) fn sync_every(&self) -> Duration {
        self.sync_period.max(SHORTEST)
    }

    /// The period of tries at the dead and the unknown, as honoured.
    pub(crate) fn reconnect_every(&self) -> Duration {
        self.reconnect_period.max(SHORTEST)
    }
}

impl Default for Config {
    /// [`Self::lan`].
    fn default() -> Self {
        Self::lan()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_suspicion_has_its_floor_below_fifty_members() {
        let config = Config::lan();
        for live in [0, 1, 3, 10, 31] {
            assert_eq!(
                config.suspicion_shortest(live),
                Duration::from_secs(6),
                "{live}"
            );
        }
        assert_eq!(config.suspicion_shortest(100), Duration::from_secs(8));
        assert_eq!(config.suspicion_shortest(1000), Duration::from_secs(12));
    }

    #[test]
    fn transmissions_grow_with_the_digits_of_the_cluster() {
        let config = Config::lan();
        let counts = [1, 3, 9, 10, 99, 100, 1000].map(|live| config.transmissions(live));
        assert_eq!(counts, [4, 4, 4, 8, 8, 12, 16]);
    }

    #[test]
    fn zero_durations_do_not_spin() {
        let zero = Config {
            probe_period: Duration::ZERO,
            ..Config::lan()
        };
        assert!(zero.gossip_period() >= Duration::from_millis(1));
    }
}
