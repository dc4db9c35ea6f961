//! Members that come and go, and weigh otherwise: what an operator wants, and what follows from it.
//!
//! A plan is computed from a topology and the wanted changes alone, so that every node computes the same. Its [`PlanId`] stands
//! for all that follows: whoever commits a plan names it, and a plan that something else has overtaken has another one.
//!
//! To commit a plan gives nobody anything yet. It says which owners each partition is to have in the end; the partitions
//! go there one by one, each over joint owners (see [`super::moving`]).

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use kv_types::{ActorId, NodeId};

use super::change::ChangeError;
use super::genesis::choose_voters;
use super::member::{Member, MemberState, count_zones};
use super::{Topology, TopologyError};
use crate::assign::{Candidate, PlanInput, SlotMove, Table, plan};
use crate::partition::PartitionId;

/// What an operator wants of the members. What is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberChanges {
    /// Nodes that become members. They have never been any, not even long ago.
    pub joins: Vec<Member>,
    /// Members that give away all that they own and then go.
    pub leaves: Vec<NodeId>,
    /// Members that will never be back: nobody waits for them, and what only they had is lost.
    pub lost: Vec<NodeId>,
    /// Other weights.
    pub weights: Vec<(NodeId, u32)>,
    /// Other zones.
    pub zones: Vec<(NodeId, String)>,
}

/// Stands for one plan.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId(pub u64);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanId({self})")
    }
}

/// What follows from changes of members.
#[derive(Debug, Clone)]
pub struct MembershipPlan {
    /// Stands for it.
    pub id: PlanId,
    /// The topology once it is committed.
    pub committed: Topology,
    /// The slots that will have changed hands in the end, since now.
    pub moves: Vec<SlotMove>,
}

impl Topology {
    /// What would follow from changes of members, at the epoch after this one.
    ///
    /// Partitions that are on their way still are taken for arrived. Those whose joining owner is to go at once stay with their
    /// old owners.
    ///
    /// # Errors
    /// [`ChangeError`]; it names what is not possible.
    pub fn plan_members(&self, changes: &MemberChanges) -> Result<MembershipPlan, ChangeError> {
        let mut next = self.clone();
        next.epoch = self.epoch.next();
        next.change_members(changes)?;
        let from = self.arrived();
        next.call_off(|topology, joining| {
            topology
                .member(joining)
                .is_none_or(|member| member.state == MemberState::Lost)
        });
        next.aim()?;
        next.choose_voters_anew();
        next.check()?;
        let to = next.arrived();
        Ok(MembershipPlan {
            id: next.plan_id(),
            moves: to.moves_from(&from),
            committed: next,
        })
    }

    /// The owners that all partitions have once they have arrived where they are going.
    #[must_use]
    pub fn arrived(&self) -> Table {
        let mut table = self.table.clone();
        for (partition, new) in self.joint.iter().chain(&self.moves) {
            table.slots_mut(*partition).copy_from_slice(new);
        }
        table
    }

    fn change_members(&mut self, changes: &MemberChanges) -> Result<(), ChangeError> {
        let mut named = BTreeSet::new();
        let nodes = changes.leaves.iter().chain(&changes.lost);
        for node in nodes {
            if !named.insert(*node) {
                return Err(ChangeError::NamedTwice { node: *node });
            }
        }
        for node in &changes.leaves {
            let member = self.member_mut(*node)?;
            if member.state == MemberState::Lost {
                return Err(ChangeError::IsLost { node: *node });
            }
            member.state = MemberState::Leaving;
        }
        for node in &changes.lost {
            self.member_mut(*node)?.state = MemberState::Lost;
            self.give_up_draining(*node);
        }
        for (node, weight) in &changes.weights {
            self.member_mut(*node)?.weight = *weight;
        }
        for (node, zone) in &changes.zones {
            self.member_mut(*node)?.zone.clone_from(zone);
        }
        let mut members = self.members.clone();
        for joining in &changes.joins {
            let node = joining.node;
            if self.removed.contains_key(&node) {
                return Err(ChangeError::WasRemoved { node });
            }
            if self.member(node).is_some() {
                return Err(ChangeError::IsMember { node });
            }
            members.push(Member {
                state: MemberState::Active,
                ..joining.clone()
            });
            let last = self.actors.last_key_value().map_or(0, |(actor, _)| actor.0);
            let actor = ActorId(last.checked_add(1).ok_or(ChangeError::NoActorLeft)?);
            self.actors.insert(actor, node);
        }
        members.sort_by_key(|member| member.node);
        self.set_members(members)
    }

    /// Chooses voters among those that have voted, or own something, and so have run: a majority of nodes that were never started
    /// could not even call off the plan that made them members. Those that leave vote until they go: whoever took their place might be
    /// away, and one node more that loses its disk must not end all changes.
    pub(super) fn choose_voters_anew(&mut self) {
        let loads = self.table.loads(self.replication_factor());
        let members = self.members.iter().zip(loads);
        let voted = |member: &&Member| self.voters.contains(&member.node);
        let has_run = |(member, load): &(&Member, u32)| *load > 0 || voted(member);
        let members: Vec<&Member> = members.filter(has_run).map(|(member, _)| member).collect();
        let is = |state: MemberState| move |member: &&Member| member.state == state;
        let staying = members.iter().copied().filter(is(MemberState::Active));
        let leaving = members.iter().copied().filter(is(MemberState::Leaving));
        let voters = choose_voters(staying.chain(leaving.filter(voted)), &self.voters);
        // Where all that voted are lost, they go on until others have run.
        if !voters.is_empty() {
            self.voters = voters;
        }
    }

    fn member_mut(&mut self, node: NodeId) -> Result<&mut Member, ChangeError> {
        let member = self.members.iter_mut().find(|member| member.node == node);
        Ok(member.ok_or(TopologyError::NotAMember { node })?)
    }

    /// Other members, in order of their ids. Those that own something, or are to own it, are among them.
    pub(super) fn set_members(&mut self, members: Vec<Member>) -> Result<(), ChangeError> {
        super::check::members(&members)?;
        let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        let index: BTreeMap<NodeId, u16> = nodes.iter().copied().zip(0..).collect();
        let anew = |slots: &mut Vec<u16>, before: &[Member]| -> Result<(), ChangeError> {
            for slot in slots {
                let node = before[usize::from(*slot)].node;
                *slot = *index.get(&node).ok_or(ChangeError::OwnsStill { node })?;
            }
            Ok(())
        };
        let maps = [&mut self.joint, &mut self.moves, &mut self.draining];
        for slots in maps.into_iter().flat_map(BTreeMap::values_mut) {
            anew(slots, &self.members)?;
        }
        self.table = self
            .table
            .over(&nodes)
            .map_err(|node| ChangeError::OwnsStill { node })?;
        self.zone_count = count_zones(&members);
        self.members = members;
        Ok(())
    }

    /// Sets out for the best owners of all partitions, with the fewest moves from where they are going now.
    fn aim(&mut self) -> Result<(), ChangeError> {
        let stays = |member: &&Member| member.state == MemberState::Active;
        let candidates: Vec<Candidate> = self
            .members
            .iter()
            .filter(stays)
            .map(Candidate::from)
            .collect();
        let arrived = self.arrived();
        let input = PlanInput {
            members: &candidates,
            partitions: self.partitions.get(),
            replicas: self.replication_factor(),
            previous: Some(&arrived),
        };
        let nodes: Vec<NodeId> = self.members.iter().map(|member| member.node).collect();
        let aim = plan(&input)?
            .over(&nodes)
            .map_err(|node| TopologyError::NotAMember { node })?;
        self.moves.clear();
        for partition in self.partitions.iter() {
            let present = self
                .joint
                .get(&partition)
                .map_or(self.table.slots(partition), Vec::as_slice);
            let wanted = in_place(present, aim.slots(partition));
            if wanted != present {
                self.moves.insert(partition, wanted);
            }
        }
        Ok(())
    }

    fn plan_id(&self) -> PlanId {
        let mut text = Vec::new();
        for Member {
            node,
            name,
            zone,
            weight,
            address,
            fingerprint,
            state,
        } in &self.members
        {
            text.extend_from_slice(&node.0.to_be_bytes());
            text.extend_from_slice(&weight.to_be_bytes());
            text.extend_from_slice(fingerprint);
            text.push(*state as u8);
            for part in [name, zone, address] {
                text.extend_from_slice(&(part.len() as u64).to_be_bytes());
                text.extend_from_slice(part.as_bytes());
            }
        }
        for slot in self.arrived().all_slots() {
            text.extend_from_slice(&slot.to_be_bytes());
        }
        PlanId(self.secret.plan_id(&text))
    }

    /// Where a partition is going, beyond the change in progress: the owners of its slots in the end.
    #[must_use]
    pub fn destination(&self, partition: PartitionId) -> Option<Vec<NodeId>> {
        let wanted = self.moves.get(&partition)?;
        Some(wanted.iter().map(|index| self.node_at(*index)).collect())
    }
}

/// The same owners as `wanted`, with those that are there already in the slots where they are: nobody moves from slot to slot.
fn in_place(present: &[u16], wanted: &[u16]) -> Vec<u16> {
    let mut newcomers = wanted.iter().filter(|owner| !present.contains(owner));
    let mut slot = |owner: &u16| {
        if wanted.contains(owner) {
            *owner
        } else {
            // As many come as go.
            newcomers.next().copied().unwrap_or(*owner)
        }
    };
    present.iter().map(&mut slot).collect()
}

impl From<&Member> for Candidate {
    fn from(member: &Member) -> Self {
        Self {
            node: member.node,
            zone: member.zone.clone(),
            weight: member.weight,
        }
    }
}
