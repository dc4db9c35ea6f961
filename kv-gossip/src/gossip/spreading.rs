//! Composing messages, rounds of news, saying goodbye.

use kv_types::NodeId;

use super::Gossip;
use crate::io::Output;
use crate::member::Member;
use crate::message::{Body, COMPOSED_SIZE_BYTES, Claim, Header, Message, RUMORS_SIZE_BYTES, Rumor};
use crate::standing::{Standing, State};
use crate::time::Time;
use crate::timers::Timer;

impl Gossip {
    /// Sends a message that begins with the rumors `lead`; news fill it up.
    ///
    /// A recipient that is believed to be anything but alive is told so, that it may refute.
    pub(super) fn send(&mut self, to: NodeId, body: Body, lead: Vec<Rumor>) {
        let mut rumors = lead;
        let recipient = self
            .members
            .get(to)
            .filter(|member| member.state() != State::Alive);
        let is_told = rumors.iter().any(|rumor| rumor.node == to);
        rumors.extend(recipient.filter(|_| !is_told).map(Member::rumor));
        let taken: usize = rumors.iter().map(Rumor::size_bytes).sum();
        let limit = self.transmissions();
        rumors.extend(
            self.rumors
                .take(RUMORS_SIZE_BYTES.saturating_sub(taken), limit, &rumors),
        );
        self.transmit(to, body, rumors);
    }

    /// Sends a message with exactly these rumors.
    pub(super) fn transmit(&mut self, to: NodeId, body: Body, rumors: Vec<Rumor>) {
        let bytes = Message {
            header: self.header(),
            body,
            rumors,
        }
        .encode();
        debug_assert!(bytes.len() <= COMPOSED_SIZE_BYTES);
        self.stats.messages_sent += 1;
        self.stats.bytes_sent += bytes.len() as u64;
        let address = self.address_of(to);
        self.out.push(Output::Send { to, address, bytes });
    }

    /// Queues what this member now believes about `node`, as news.
    pub(super) fn spread_about(&mut self, node: NodeId) {
        let period = self.config.period();
        if let Some(rumor) = self
            .members
            .get(node)
            .map(|member| member.news(self.now, period))
        {
            self.rumors_add(rumor);
        }
    }

    pub(super) fn rumors_add(&mut self, rumor: Rumor) {
        let is_suspicion = matches!(rumor.claim, Claim::Suspect { .. });
        self.rumors.spread(rumor);
        if is_suspicion {
            self.hurry_news();
        } else {
            self.arm_news();
        }
    }

    /// Tells a member what is said about it, not more often than once a period.
    pub(super) fn tell(&mut self, node: NodeId, rumor: Rumor) {
        let (now, period) = (self.now, self.config.period());
        let is_due = self.members.update(node, |member| {
            let due = member.told_at.is_none_or(|told| now.since(told) >= period);
            if due {
                member.told_at = Some(now);
            }
            due
        });
        if is_due == Some(true) {
            self.send(
                node,
                Body::News,
                vec![Rumor {
                    profile: None,
                    ..rumor
                }],
            );
        }
    }

    /// Tells a member what this one believes about it.
    pub(super) fn tell_own_standing(&mut self, node: NodeId) {
        if let Some(rumor) = self.members.get(node).map(Member::rumor) {
            self.tell(node, rumor);
        }
    }

    /// Sees to it that a round of news follows.
    pub(super) fn arm_news(&mut self) {
        self.news_by(self.now + self.config.gossip_period());
    }

    /// Sees to it that a round of news follows at once, or a period after the last one: a suspicion that waits a
    /// period at each of its steps is late at the last, by more than it takes to find it out.
    fn hurry_news(&mut self) {
        let period = self.config.gossip_period();
        // A little later, together with what else is heard now.
        self.news_by((self.news_at + period).max(self.now + period / 10));
    }

    fn news_by(&mut self, round: Time) {
        if self.news_due.is_none_or(|due| due > round) {
            self.news_due = Some(round);
            self.timers.set(round, Timer::News);
        }
    }

    /// Sends a round of news to a few random members, while there are any.
    pub(super) fn send_news(&mut self) {
        if self.news_due.is_none_or(|due| due > self.now) {
            // That round was brought forward, and was sent.
            return;
        }
        self.news_due = None;
        self.news_at = self.now;
        let peers = self.live_peers(self.config.fanout);
        for &peer in &peers {
            if self.topology.announce() || !self.rumors.is_empty() {
                self.send(peer, Body::News, vec![]);
            }
        }
        let has_more = self.topology.is_announcing() || !self.rumors.is_empty();
        // With nobody there, the next member that appears starts the rounds again.
        if has_more && !peers.is_empty() {
            self.arm_news();
        }
    }

    /// Says goodbye: at once to a few, then by the usual rounds.
    pub(super) fn leave(&mut self) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.probe = None;
        self.checks.clear();
        let (now, gone) = (self.now, Standing::left(self.members.me().incarnation()));
        self.members.update(self.me, |me| me.adopt(gone, 0, now));
        self.spread_about(self.me);
        for peer in self.live_peers(2 * self.config.fanout) {
            self.send(peer, Body::News, vec![]);
        }
    }

    pub(super) fn live_peers(&mut self, count: usize) -> Vec<NodeId> {
        self.members
            .pick(&mut self.rng, count, |member| member.state().is_live())
    }

    fn header(&self) -> Header {
        Header {
            incarnation: self.members.me().incarnation(),
            heartbeat: self.own.value(),
            epoch: self.topology.epoch(),
            chain_hash: self.topology.chain_hash(),
        }
    }

    /// Where a node was last known to be reached.
    fn address_of(&mut self, node: NodeId) -> String {
        if let Some(last) = self.removed.get(&node) {
            return last.clone();
        }
        let listed = self.seeds.get(&node);
        let Some(member) = self.members.get(node) else {
            return listed.cloned().unwrap_or_default();
        };
        // Of a dead member either address may be out of date.
        match listed {
            Some(listed) if !member.state().is_live() && self.rng.bool() => listed.clone(),
            Some(_) | None => member.address().to_owned(),
        }
    }
}
