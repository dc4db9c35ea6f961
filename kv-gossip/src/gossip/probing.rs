//! Probe cycles, and what they ask of others.

use kv_types::NodeId;

use super::Gossip;
use crate::member::Member;
use crate::message::{Body, Header};
use crate::pings::Purpose;
use crate::probe::{Probe, Verdict};
use crate::standing::{Incarnation, State};
use crate::timers::Timer;

/// How many suspects are probed at a time beside the probe of the period.
const CHECKS_LIMIT: usize = 4;

impl Gossip {
    /// Pings the next member.
    pub(super) fn start_probe(&mut self) {
        if self.leaving {
            return;
        }
        let Some(target) = self.next_target() else {
            self.timers
                .set(self.now + self.config.period(), Timer::NextProbe);
            return;
        };
        self.probe = Some(self.ping(target));
    }

    /// Probes, beside the probe of the period, suspects whose suspicion waits for the word of this
    /// observer of theirs: one that is dead is confirmed soon, one that lives hears of it soon.
    pub(super) fn check_suspects(&mut self) {
        if self.leaving {
            return;
        }
        let in_flight = |node| {
            self.probe
                .iter()
                .chain(&self.checks)
                .any(|p| p.target == node)
        };
        let waits = |suspect: &&Member| {
            let is_wanted = suspect.suspicion().is_some_and(|s| s.wants(self.me));
            is_wanted && !in_flight(suspect.node())
        };
        let room = CHECKS_LIMIT - self.checks.len();
        let waiting = self.members.suspected_subjects().filter(waits);
        let due: Vec<NodeId> = waiting.take(room).map(Member::node).collect();
        for suspect in due {
            let check = self.ping(suspect);
            self.checks.push(check);
        }
    }

    /// Begins a probe of `target`.
    fn ping(&mut self, target: NodeId) -> Probe {
        let seq = self.pings.send(target, Purpose::Probe);
        let timeout = self.health.scale(self.config.probe_timeout());
        self.timers
            .set(self.now + timeout, Timer::ProbeTimeout { seq });
        self.send(target, Body::Ping { seq }, vec![]);
        let incarnation = self.members.get(target).map(Member::incarnation);
        Probe::new(seq, target, incarnation.unwrap_or_default())
    }

    /// The target has not answered in time: others may reach it, or a second ping.
    ///
    /// From now on, and not from the ping on, it has the rest of its time: if this member itself was held up,
    /// what has arrived meanwhile is heard first.
    pub(super) fn ask_others(&mut self, seq: u32) {
        if self.current_probe(seq).is_some() {
            let rest = self.config.probe_patience() - self.config.probe_timeout();
            let end = self.now + self.health.scale(rest);
            self.timers.set(end, Timer::ProbeEnd { seq });
        }
        let Some(target) = self
            .current_probe(seq)
            .filter(|p| !p.is_answered())
            .map(|p| p.target)
        else {
            return;
        };
        let relays = self.relays_to(target);
        if let Some(probe) = self.current_probe(seq) {
            probe.asked(relays.len());
        }
        for relay in relays {
            self.send(relay, Body::PingRequest { seq, target }, vec![]);
        }
        // Where messages get lost, one more costs less than a suspicion that all have to hear of, and its end.
        self.send(target, Body::Ping { seq }, vec![]);
    }

    /// Judges a probe; after that of the period the next one starts.
    pub(super) fn end_probe(&mut self, seq: u32) {
        if let Some(index) = self.checks.iter().position(|check| check.seq == seq) {
            let check = self.checks.swap_remove(index);
            return self.end_check(&check);
        }
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
        let rest = self.config.period() - self.config.probe_patience();
        let rest = self.health.scale(rest);
        self.timers.set(self.now + rest, Timer::NextProbe);
        self.check_suspects();
    }

    /// Judges the probe of a suspect. It says nothing about this member's own health, which would
    /// else go up and down with the number of suspects.
    fn end_check(&mut self, check: &Probe) {
        match check.verdict() {
            Verdict::Alive => {}
            Verdict::Stalled | Verdict::Silent { .. } => self.accuse_probed(check),
        }
        self.check_suspects();
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
        let mut probes = self.probe.iter_mut().chain(&mut self.checks);
        probes.find(|probe| probe.seq == seq)
    }

    /// Whom to ask about a target: its observers first, then anybody.
    fn relays_to(&mut self, target: NodeId) -> Vec<NodeId> {
        let count = self.config.indirect_probes;
        let mut relays = self.members.observers_of(target);
        relays.retain(|&observer| observer != self.me);
        relays.truncate(count);
        let others = self.members.pick(&mut self.rng, count - relays.len(), |m| {
            m.state() == State::Alive && m.node() != target && !relays.contains(&m.node())
        });
        relays.extend(others);
        relays
    }

    /// Whom to probe next: members that a peer doubts, then in turn one of those that this one
    /// observes, and one of the round.
    fn next_target(&mut self) -> Option<NodeId> {
        while let Some(node) = self.doubted.pop_first() {
            if self.state_of(node).is_some_and(State::is_live) {
                return Some(node);
            }
        }
        self.next_subject()
            .or_else(|| self.members.next_in_round(&mut self.rng))
    }

    /// Every other time the next one of those that this member observes, in a fixed order.
    fn next_subject(&mut self) -> Option<NodeId> {
        self.turns_count += 1;
        if self.turns_count.is_multiple_of(2) {
            return None;
        }
        let subjects = self.members.subjects();
        let index = self.turns_count / 2 % subjects.len().max(1);
        subjects.get(index).copied()
    }
}
