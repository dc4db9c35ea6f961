//! When a majority of the voters will never be back.
//!
//! Then nothing can be decided any more, not even who votes instead. An operator decides, once: the voters of the next topology are
//! some of those who are left. Nobody voted on it, so it begins a new generation: its epoch lies far above all that the
//! voters before may have decided without those who are left knowing of it, and whoever comes back takes it over.

use kv_types::{ActorId, Epoch, NodeId};

use super::genesis::choose_voters;
use super::member::{Member, MemberState};
use super::{Topology, TopologyError};

/// The epochs of a generation. One epoch a second makes twelve days of it: far more than are decided while somebody sleeps.
const GENERATION: u64 = 1 << 20;
/// So many actors are left out where a generation begins: more than can have been granted in epochs that nobody knows who is left.
/// Who was granted one of those may be left, and mint under it.
const ACTORS_OF_A_GENERATION: u32 = 1 << 20;

/// Why no new generation begins. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The voters can decide themselves.
    #[error(
        "{left} of {all} voters are not named, which is a majority: start them, and change members as usual (`kv cluster remove`); if they run and some cannot vote, because they have lost a part of their disks, name those with --without-vote"
    )]
    MajorityIsLeft {
        /// How many voters are left.
        left: usize,
        /// How many there are.
        all: usize,
    },
    /// There is nobody to vote.
    #[error("nobody is left who could vote: every member that has run is named as lost")]
    NobodyIsLeft,
    /// All actors were granted or left out, which takes four thousand generations.
    #[error("no actor is left for a new generation")]
    NoActorLeft,
    /// Something that was named is not there.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

impl Topology {
    /// The first topology of a new generation, in which these members are lost, and some of the others vote. What the lost own is theirs
    /// until the new voters have decided who takes it over.
    ///
    /// Those `without_vote` are members still: they have lost a part of their disks, do not know any more how they have voted, and wait for
    /// an actor that too few voters are left to grant.
    ///
    /// Among those that vote is `by`, on whose directory the operator does it, if it may: of the others nobody knows here whether they can.
    ///
    /// It is safe only if the lost never run again, or learn of it before they serve: what they decided in the meantime
    /// is dropped.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn recovered(
        &self,
        by: NodeId,
        lost: &[NodeId],
        without_vote: &[NodeId],
    ) -> Result<Self, RecoveryError> {
        let mut next = self.clone();
        for node in lost {
            let mut members = next.members.iter_mut();
            let member = members.find(|member| member.node == *node);
            let member = member.ok_or(TopologyError::NotAMember { node: *node })?;
            member.state = MemberState::Lost;
        }
        if let Some(node) = without_vote
            .iter()
            .find(|node| self.member(**node).is_none())
        {
            return Err(TopologyError::NotAMember { node: *node }.into());
        }
        let is_left = |node: &&NodeId| !lost.contains(node) && !without_vote.contains(node);
        let (left, all) = (
            self.voters.iter().filter(is_left).count(),
            self.voters.len(),
        );
        if left > all / 2 {
            return Err(RecoveryError::MajorityIsLeft { left, all });
        }
        let loads = self.table.loads(self.replication_factor());
        let members = next.members.iter().zip(loads);
        let may_vote = |(member, load): &(&Member, u32)| {
            let has_run = *load > 0 || self.voters.contains(&member.node);
            has_run && member.state != MemberState::Lost && is_left(&&member.node)
        };
        let members = members.filter(may_vote).map(|(member, _)| member);
        let voters = choose_voters(members, &[by]);
        if voters.is_empty() {
            return Err(RecoveryError::NobodyIsLeft);
        }
        let last = self.actors.last_key_value().map_or(0, |(actor, _)| actor.0);
        let first = last.checked_add(ACTORS_OF_A_GENERATION);
        let first = ActorId(first.ok_or(RecoveryError::NoActorLeft)?);
        next.actors.insert(first, voters[0]);
        next.voters = voters;
        let generation = self.epoch.0 / GENERATION + 1;
        next.epoch = Epoch(generation * GENERATION);
        for node in lost {
            next.give_up_draining(*node);
        }
        next.call_off(|_, joining| lost.contains(&joining));
        next.mark(self.may_lose(&next, lost));
        next.check()?;
        Ok(next)
    }

    /// The epoch that began this one's generation; of the first one, none.
    pub(super) fn generation_began(&self) -> Epoch {
        Epoch(self.epoch.0 / GENERATION * GENERATION)
    }

    /// Whether nobody voted on it: what only the lost knew is dropped with it.
    #[must_use]
    pub fn begins_generation(&self) -> bool {
        self.epoch.0.is_multiple_of(GENERATION)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Change;
    use super::super::tests::{members, spec};
    use super::*;

    fn nodes(topology: &Topology, names: &[&str]) -> Vec<NodeId> {
        let members = topology.members().iter();
        let named = members.filter(|member| names.contains(&member.name.as_str()));
        named.map(|member| member.node).collect()
    }

    #[test]
    fn those_who_are_left_vote_in_an_epoch_that_nobody_has_reached() {
        let topology = Topology::genesis(spec(members(5, 5))).expect("a good specification");
        let lost = nodes(&topology, &["n1", "n2", "n3"]);
        let by = nodes(&topology, &["n5"])[0];
        let next = topology.recovered(by, &lost, &[]).expect("two are left");
        assert_eq!(next.epoch(), Epoch(GENERATION));
        assert_eq!(next.voters(), [by], "an odd number");
        for member in next.members() {
            let is_lost = member.state == MemberState::Lost;
            assert_eq!(is_lost, lost.contains(&member.node));
        }
        assert!(next.begins_generation() && !topology.begins_generation());
        let once_more = next
            .recovered(by, &nodes(&topology, &["n4"]), &[])
            .unwrap_err();
        assert_eq!(once_more, RecoveryError::MajorityIsLeft { left: 1, all: 1 });
        let other = nodes(&topology, &["n4"])[0];
        let once_more = next.recovered(other, &[by], &[]).expect("one is left");
        assert_eq!(once_more.epoch(), Epoch(2 * GENERATION));
    }

    #[test]
    fn no_actor_is_granted_again_that_only_the_lost_know_to_be_granted() {
        let topology = Topology::genesis(spec(members(3, 3))).expect("a good specification");
        let [lost, other, left] = topology.members() else {
            panic!("three")
        };
        let grant = |before: &Topology, node| before.changed_by(Change::GrantActor { node });
        // One of those who are left has not heard of this, when it begins a generation.
        let unknown = grant(&topology, left.node).expect("it is a member");
        let unknown = unknown.actor_of(left.node);
        let lost = [lost.node, other.node];
        let next = topology
            .recovered(left.node, &lost, &[])
            .expect("one is left");
        let granted = grant(&next, left.node).expect("it is a member");
        assert!(granted.actor_of(left.node) > next.actor_of(left.node));
        assert!(next.actor_of(left.node) > unknown);
    }

    #[test]
    fn voters_that_cannot_vote_stay_members_and_do_not_vote() {
        let topology = Topology::genesis(spec(members(3, 3))).expect("a good specification");
        let voteless = nodes(&topology, &["n1", "n2"]);
        let by = nodes(&topology, &["n3"])[0];
        let next = topology.recovered(by, &[], &voteless);
        let next = next.expect("one is left");
        assert_eq!(next.voters(), nodes(&topology, &["n3"]));
        assert_eq!(next.members(), topology.members());
        assert_eq!(next.marked().len(), 0, "nothing is given up");
        let all = topology.recovered(by, &[by], &voteless);
        assert_eq!(all.unwrap_err(), RecoveryError::NobodyIsLeft);
        assert!(topology.recovered(by, &[], &[NodeId(77)]).is_err());
    }

    #[test]
    fn a_majority_decides_itself_and_nobody_cannot() {
        let topology = Topology::genesis(spec(members(3, 3))).expect("a good specification");
        let by = nodes(&topology, &["n1"])[0];
        let one = topology.recovered(by, &nodes(&topology, &["n2"]), &[]);
        assert_eq!(
            one.unwrap_err(),
            RecoveryError::MajorityIsLeft { left: 2, all: 3 }
        );
        let all = topology.recovered(by, &nodes(&topology, &["n1", "n2", "n3"]), &[]);
        assert_eq!(all.unwrap_err(), RecoveryError::NobodyIsLeft);
        let unknown = topology.recovered(by, &[NodeId(77)], &[]);
        assert!(matches!(unknown, Err(RecoveryError::Topology(_))));
    }
}
