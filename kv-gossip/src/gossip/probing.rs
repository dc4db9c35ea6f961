//! Probe cycles, and what they ask of others.

use kv_types::NodeId;

use super::Gossip;
use crate::member::Member;
use crate::message::{Body, Header};
use crate::pings::Purpose;
use crate::probe::{Probe, Verdict};
use crate::standing::{Incarnation, State};
use crate::timers::Timer;

impl Gossip {
    /// Pings the next member of the round.
    pub(super) fn start_probe(&mut self) {
        if self.leaving {
            return;
        }
        let Some(target) = self.next_target() else {
            self.timers
                .set(self.now + self.config.period(), Timer::NextProbe);
            return;
        };
        let seq = self.pings.send(target, Purpose::Probe);
        let incarnation = self.members.get(target).map(Member::incarnation);
        self.probe = Some(Probe::new(seq, target, incarnation.unwrap_or_default()));
        let timeout = self.health.scale(self.config.probe_timeout());
        let period = self.health.scale(self.config.period());
        self.timers
            .set(self.now + timeout, Timer::ProbeTimeout { seq });
        self.timers.set(self.now + period, Timer::ProbeEnd { seq });
        self.send(target, Body::Ping { seq }, vec![]);
    }

    /// The target has not answered in time: others may reach it, or a second ping.
    pub(super) fn ask_others(&mut self, seq: u32) {
        let Some(target) = self
            .current_probe(seq)
            .filter(|p| !p.is_answered())
            .map(|p| p.target)
        else {
            return;
        };
        let count = self.config.indirect_probes;
        let relays = self.members.pick(&mut self.rng, count, |m| {
            m.state() == State::Alive && m.node() != target
        });
        if let Some(probe) = self.current_probe(seq) {
            probe.asked(relays.len());
        }
        for relay in relays {
            self.send(relay, Body::PingRequest { seq, target }, vec![]);
        }
        // Where messages get lost, one more costs less than a suspicion that all have to hear of, and its end.
        self.send(target, Body::Ping { seq }, vec![]);
    }

    /// Judges the probe and starts the next one.
    pub(super) fn end_probe(&mut self, seq: u32) {
        let Some(probe) = self.probe.take_if(|probe| probe.seq == seq) else {
            return;
        };
        self.stats.probes += 1;
        match probe.verdict() {
            Verdict::Alive => self.health.improve(),
            Verdict::Stalled => self.accuse_probed(&probe),
            Verdict::Silent { missing } => {
                self.stats.probes_failed += 1;
                self.health.worsen(missing);
                self.accuse_probed(&probe);
            }
        }
        self.start_probe();
    }

    /// Accuses the target of a probe, unless that was an earlier incarnation: the member has been
    /// started again in the meantime, or has refuted.
    fn accuse_probed(&mut self, probe: &Probe) {
        let incarnation = self.members.get(probe.target).map(Member::incarnation);
        if incarnation == Some(probe.incarnation) {
            self.accuse(probe.target);
        }
    }

    /// Another member waits for this ping, and no ack has come yet.
    pub(super) fn give_up_relay(&mut self, seq: u32) {
        if let Some(Purpose::Relay { origin, origin_seq }) =
            self.pings.unanswered(seq).map(|ping| ping.purpose)
        {
            self.send(origin, Body::Nack { seq: origin_seq }, vec![]);
        }
    }

    pub(super) fn on_ping(&mut self, from: NodeId, seq: u32) {
        let stalled = self.own.is_stalled(self.now);
        self.send(from, Body::Ack { seq, stalled }, vec![]);
    }

    pub(super) fn on_ack(&mut self, from: NodeId, header: &Header, seq: u32, stalled: bool) {
        let Some(ping) = self.pings.answered(seq, from) else {
            return;
        };
        self.own.contact(self.now);
        let Header {
            incarnation,
            heartbeat,
            ..
        } = *header;
        if !stalled {
            self.witness(from, incarnation, heartbeat);
        }
        match ping.purpose {
            Purpose::Probe => {
                if let Some(probe) = self.current_probe(seq) {
                    probe.acked(stalled);
                }
            }
            Purpose::Relay { origin, origin_seq } => {
                let body = Body::RelayedAck {
                    seq: origin_seq,
                    incarnation,
                    heartbeat,
                    stalled,
                };
                self.send(origin, body, vec![]);
            }
        }
    }

    pub(super) fn on_ping_request(&mut self, from: NodeId, seq: u32, target: NodeId) {
        if self.members.get(target).is_none() || target == self.me {
            // Says only that this member is well.
            return self.send(from, Body::Nack { seq }, vec![]);
        }
        let purpose = Purpose::Relay {
            origin: from,
            origin_seq: seq,
        };
        let own_seq = self.pings.send(target, purpose);
        let patience = self.config.relay_patience();
        self.timers
            .set(self.now + patience, Timer::RelayPatience { seq: own_seq });
        self.send(target, Body::Ping { seq: own_seq }, vec![]);
    }

    pub(super) fn on_relayed_ack(
        &mut self,
        seq: u32,
        incarnation: Incarnation,
        heartbeat: u64,
        stalled: bool,
    ) {
        let Some(probe) = self.current_probe(seq) else {
            return;
        };
        probe.relay_answered();
        probe.acked(stalled);
        let target = probe.target;
        self.own.contact(self.now);
        if !stalled {
            self.witness(target, incarnation, heartbeat);
        }
    }

    pub(super) fn on_nack(&mut self, seq: u32) {
        if let Some(probe) = self.current_probe(seq) {
            probe.relay_answered();
            self.own.contact(self.now);
        }
    }

    fn current_probe(&mut self, seq: u32) -> Option<&mut Probe> {
        self.probe.as_mut().filter(|probe| probe.seq == seq)
    }

    fn next_target(&mut self) -> Option<NodeId> {
        while let Some(node) = self.doubted.pop_first() {
            if self.state_of(node).is_some_and(State::is_live) {
                return Some(node);
            }
        }
        self.members.next_in_round(&mut self.rng)
    }
}
