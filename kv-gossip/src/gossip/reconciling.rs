//! Comparing views, and trying members that are dead or were never seen.

use kv_types::NodeId;

use super::Gossip;
use crate::message::{BUCKETS, Body, RUMORS_SIZE_BYTES, Rumor, ViewHash};
use crate::standing::State;
use crate::timers::Timer;

impl Gossip {
    /// Takes in who should be there, and tries those who are not.
    pub(super) fn on_seeds(&mut self, seeds: Vec<(NodeId, String)>) {
        let others = seeds.into_iter().filter(|(node, _)| *node != self.me);
        self.seeds = others.take(self.config.members_limit).collect();
        self.try_absent(self.config.fanout);
    }

    /// Takes in who will never be a member again, and forgets them.
    pub(super) fn on_removed(&mut self, nodes: Vec<NodeId>) {
        self.removed.retain(|node, _| nodes.contains(node));
        for node in nodes {
            if node == self.me || self.removed.contains_key(&node) {
                continue;
            }
            let member = self.members.forget(node);
            let address = member.map_or_else(String::new, |member| member.address().to_owned());
            self.removed.insert(node, address);
            self.rumors.forget(node);
            self.checks.retain(|check| check.target != node);
            // Its silence says nothing about this member's health.
            if self.probe.take_if(|probe| probe.target == node).is_some() {
                self.timers.set(self.now, Timer::NextProbe);
            }
        }
    }

    /// Compares views with a random member, and sets the next time.
    pub(super) fn sync(&mut self) {
        let next = self.about(self.config.sync_every());
        self.timers.set(self.now + next, Timer::Sync);
        if let Some(peer) = self.live_peers(1).pop() {
            self.send_digest(peer, false);
        }
    }

    /// Compares views with a member that knows something this one lacks; not too often.
    pub(super) fn sync_out_of_turn(&mut self, node: NodeId) {
        if self.now >= self.sync_free_at {
            self.sync_free_at = self.now + self.config.gossip_period();
            self.send_digest(node, false);
        }
    }

    /// Tries dead members and listed but unknown ones, for ever: this is what heals partitions.
    pub(super) fn reconnect(&mut self) {
        let is_alone = self.members.live_count() <= 1;
        let (count, period) = if is_alone {
            (self.config.fanout, self.config.period())
        } else {
            (1, self.config.reconnect_every())
        };
        self.try_absent(count);
        let next = self.about(period);
        self.timers.set(self.now + next, Timer::Reconnect);
    }

    /// Answers with what differs, and once with a digest, so that the sender can do the same.
    pub(super) fn on_digest(&mut self, from: NodeId, answer: bool, theirs: &[ViewHash; BUCKETS]) {
        let ours = self.members.buckets();
        let differing = core::array::from_fn(|index| ours[index] != theirs[index]);
        if differing.contains(&true) {
            self.send_state(from, differing);
            if !answer {
                self.send_digest(from, true);
            }
        }
    }

    /// A digest introduces its sender: the recipient may never have heard of it.
    fn send_digest(&mut self, to: NodeId, answer: bool) {
        let buckets = self.members.buckets();
        let introduction = self.members.me().record(self.now, self.config.period());
        self.send(to, Body::Digest { answer, buckets }, vec![introduction]);
    }

    /// Sends the records of the marked buckets, in as many messages as they need.
    fn send_state(&mut self, to: NodeId, marked: [bool; BUCKETS]) {
        let period = self.config.period();
        let records: Vec<Rumor> = self
            .members
            .in_buckets(marked)
            .map(|member| member.record(self.now, period))
            .collect();
        for chunk in chunks(records) {
            self.transmit(to, Body::State, chunk);
        }
    }

    /// Up to `count` dead members, and as many listed ones that nobody has seen, get a digest.
    fn try_absent(&mut self, count: usize) {
        if self.leaving {
            return;
        }
        let mut absent = self
            .members
            .pick(&mut self.rng, count, |member| member.state() == State::Dead);
        let mut unseen: Vec<NodeId> = self
            .seeds
            .keys()
            .copied()
            .filter(|node| self.members.get(*node).is_none() && !self.removed.contains_key(node))
            .collect();
        self.rng.shuffle(&mut unseen);
        absent.extend(unseen.into_iter().take(count));
        for node in absent {
            self.send_digest(node, false);
        }
    }
}

/// Splits records so that each part fits into a message.
fn chunks(records: Vec<Rumor>) -> Vec<Vec<Rumor>> {
    let mut chunks: Vec<Vec<Rumor>> = vec![];
    let mut room_bytes = 0;
    for record in records {
        let size_bytes = record.size_bytes();
        if size_bytes > room_bytes {
            chunks.push(vec![]);
            room_bytes = RUMORS_SIZE_BYTES;
        }
        room_bytes -= size_bytes;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(record);
        }
    }
    chunks
}
