//! All members: the probe round, random choices, and the hash of the view.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use kv_types::NodeId;

use crate::fnv::Fnv;
use crate::member::Member;
use crate::message::{BUCKETS, ViewHash};
use crate::observers::Observers;
use crate::standing::State;

/// Every node heard of, this one included.
#[derive(Debug)]
pub(crate) struct Members {
    me: NodeId,
    by_node: BTreeMap<NodeId, Member>,
    /// Every other node, in the order of the present probe round.
    round: Vec<NodeId>,
    round_position: usize,
    /// Wrapping sums of the hashes of the members in each sixteenth of the id space.
    buckets: [u64; BUCKETS],
    counts: [usize; State::ALL.len()],
    /// The living ones, and whom each of them observes.
    observers: Observers,
    suspects: BTreeSet<NodeId>,
}

impl Members {
    pub(crate) fn new(me: Member) -> Self {
        let mut members = Self {
            me: me.node(),
            by_node: BTreeMap::new(),
            round: Vec::new(),
            round_position: 0,
            buckets: [0; BUCKETS],
            counts: [0; State::ALL.len()],
            observers: Observers::default(),
            suspects: BTreeSet::new(),
        };
        members.add(Share::of(&me));
        members.enter(me.node(), me.state());
        members.by_node.insert(me.node(), me);
        members
    }

    /// Takes in a member that was not there, at a random place of the probe round.
    pub(crate) fn insert(&mut self, member: Member, rng: &mut Rng) {
        debug_assert!(!self.by_node.contains_key(&member.node()));
        self.add(Share::of(&member));
        self.enter(member.node(), member.state());
        self.round
            .insert(rng.usize(..=self.round.len()), member.node());
        self.by_node.insert(member.node(), member);
    }

    /// Drops a member, never this one; its round goes on with the next.
    pub(crate) fn forget(&mut self, node: NodeId) -> Option<Member> {
        debug_assert_ne!(node, self.me);
        let member = self.by_node.remove(&node)?;
        self.remove(Share::of(&member));
        self.exit(node, member.state());
        if let Some(place) = self.round.iter().position(|&other| other == node) {
            self.round.remove(place);
            if place < self.round_position {
                self.round_position -= 1;
            }
        }
        Some(member)
    }

    /// Changes a member. Every change goes through here, because the view hash follows it.
    pub(crate) fn update<R>(
        &mut self,
        node: NodeId,
        change: impl FnOnce(&mut Member) -> R,
    ) -> Option<R> {
        let member = self.by_node.get_mut(&node)?;
        let before = Share::of(member);
        let result = change(member);
        let after = Share::of(member);
        if before.state != after.state {
            self.exit(node, before.state);
            self.enter(node, after.state);
        }
        self.remove(before);
        self.add(after);
        Some(result)
    }

    /// The next member of the round that may be running; a finished round is shuffled anew.
    pub(crate) fn next_in_round(&mut self, rng: &mut Rng) -> Option<NodeId> {
        for _ in 0..self.round.len() {
            if self.round_position >= self.round.len() {
                self.round_position = 0;
                rng.shuffle(&mut self.round);
            }
            let node = self.round[self.round_position];
            self.round_position += 1;
            if self.by_node[&node].state().is_live() {
                return Some(node);
            }
        }
        None
    }

    /// Up to `count` different others that pass `accept`, each choice equally likely.
    pub(crate) fn pick(
        &self,
        rng: &mut Rng,
        count: usize,
        accept: impl Fn(&Member) -> bool,
    ) -> Vec<NodeId> {
        let mut picked = Vec::with_capacity(count.min(self.round.len()));
        // Guessing is cheap in large clusters where most members pass.
        for _ in 0..4 * count {
            if picked.len() == count || self.round.is_empty() {
                return picked;
            }
            let node = self.round[rng.usize(..self.round.len())];
            if !picked.contains(&node) && accept(&self.by_node[&node]) {
                picked.push(node);
            }
        }
        let mut rest: Vec<NodeId> = self
            .others()
            .filter(|m| !picked.contains(&m.node()) && accept(m))
            .map(Member::node)
            .collect();
        while picked.len() < count && !rest.is_empty() {
            picked.push(rest.swap_remove(rng.usize(..rest.len())));
        }
        picked
    }

    /// Who observes a member; see [`Observers`].
    pub(crate) fn observers_of(&self, subject: NodeId) -> Vec<NodeId> {
        self.observers.of(subject)
    }

    /// Whom this member observes.
    pub(crate) fn subjects(&self) -> Vec<NodeId> {
        self.observers.subjects_of(self.me)
    }

    /// Suspects that this member observes.
    pub(crate) fn suspected_subjects(&self) -> impl Iterator<Item = &Member> {
        let mine = |suspect: &&NodeId| self.observers.of(**suspect).contains(&self.me);
        self.suspects
            .iter()
            .filter(mine)
            .map(|node| &self.by_node[node])
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Member> {
        self.by_node.get(&node)
    }

    pub(crate) fn me(&self) -> &Member {
        &self.by_node[&self.me]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_node.values()
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.node() != self.me)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_node.len()
    }

    /// How many members may be running, this one included.
    pub(crate) fn live_count(&self) -> usize {
        self.count(State::Alive) + self.count(State::Suspect)
    }

    pub(crate) fn count(&self, state: State) -> usize {
        self.counts[state as usize]
    }

    pub(crate) fn buckets(&self) -> [ViewHash; BUCKETS] {
        self.buckets.map(ViewHash)
    }

    /// Members whose bucket is marked.
    pub(crate) fn in_buckets(&self, marked: [bool; BUCKETS]) -> impl Iterator<Item = &Member> {
        self.iter()
            .filter(move |member| marked[bucket_of(member.node())])
    }

    /// A hash of everything members must agree on.
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = Fnv::new();
        for bucket in self.buckets {
            hash.write(&bucket.to_le_bytes());
        }
        hash.finish()
    }

    fn enter(&mut self, node: NodeId, state: State) {
        match state {
            State::Alive => self.observers.insert(node),
            State::Suspect => drop(self.suspects.insert(node)),
            State::Dead | State::Left => {}
        }
    }

    fn exit(&mut self, node: NodeId, state: State) {
        match state {
            State::Alive => self.observers.remove(node),
            State::Suspect => drop(self.suspects.remove(&node)),
            State::Dead | State::Left => {}
        }
    }

    fn add(&mut self, share: Share) {
        let bucket = &mut self.buckets[share.bucket];
        *bucket = bucket.wrapping_add(share.hash);
        self.counts[share.state as usize] += 1;
    }

    fn remove(&mut self, share: Share) {
        let bucket = &mut self.buckets[share.bucket];
        *bucket = bucket.wrapping_sub(share.hash);
        self.counts[share.state as usize] -= 1;
    }
}

/// What one member adds to the sums over all.
struct Share {
    bucket: usize,
    hash: u64,
    state: State,
}

impl Share {
    fn of(member: &Member) -> Self {
        Self {
            bucket: bucket_of(member.node()),
            hash: belief_hash(member),
            state: member.state(),
        }
    }
}

fn bucket_of(node: NodeId) -> usize {
    let mut hash = Fnv::new();
    hash.write(&node.0.to_be_bytes());
    usize::try_from(hash.finish() % BUCKETS as u64).expect("below BUCKETS")
}

/// The hash of what members must agree on about one node: standing, boot, address.
fn belief_hash(member: &Member) -> u64 {
    let standing = member.standing();
    let mut hash = Fnv::new();
    hash.write(&member.node().0.to_be_bytes());
    hash.write(&standing.incarnation.0.to_le_bytes());
    hash.write(&standing.cleared.to_le_bytes());
    hash.write(&[standing.state as u8]);
    hash.write(&member.boot().to_le_bytes());
    hash.write(member.address().as_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use kv_types::Epoch;

    use super::*;
    use crate::message::Profile;
    use crate::standing::{Incarnation, Standing};
    use crate::time::Time;

    fn member(node: u128) -> Member {
        let profile = Profile {
            address: String::new(),
            boot: 1,
            heartbeat: 0,
            age: 0,
            epoch: Epoch::GENESIS,
        };
        let standing = Standing::alive(Incarnation(1));
        Member::new(NodeId(node), standing, &profile, 0, Time::ZERO)
    }

    #[test]
    fn a_round_goes_on_without_a_gap_when_a_member_is_forgotten() {
        let mut rng = Rng::with_seed(1);
        for (taken, forgotten) in [(0, 3), (3, 0), (3, 2), (3, 3), (3, 8), (9, 8)] {
            let mut members = Members::new(member(0));
            for node in 1..10 {
                members.insert(member(node), &mut rng);
            }
            let mut rest: Vec<NodeId> = members.round.clone();
            rest.drain(..taken);
            for _ in 0..taken {
                members.next_in_round(&mut rng);
            }
            let gone = members.round[forgotten];
            assert!(members.forget(gone).is_some() && members.get(gone).is_none());
            rest.retain(|&node| node != gone);
            let next: Vec<_> = rest
                .iter()
                .filter_map(|_| members.next_in_round(&mut rng))
                .collect();
            assert_eq!(next, rest, "{taken} taken, place {forgotten} forgotten");
            assert_eq!(members.count(State::Alive), 9);
        }
    }

    #[test]
    fn a_view_that_forgets_a_member_is_as_if_it_had_never_met_it() {
        let mut rng = Rng::with_seed(1);
        let mut members = Members::new(member(0));
        let before = members.hash();
        members.insert(member(1), &mut rng);
        assert_ne!(members.hash(), before);
        members.forget(NodeId(1));
        assert_eq!(members.hash(), before);
    }
}
