//! What one epoch changes in the one before it.

use kv_types::{ActorId, BucketId, BucketName, BucketProperties, Epoch, NodeId, Quorum};

use super::membership::{MemberChanges, PlanId};
use super::{Bucket, Past, Topology, TopologyError};
use crate::assign::PlanError;
use crate::partition::PartitionId;

/// One change of a topology. The voters decide the topology that follows from it, as the value of the next epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new, empty bucket.
    CreateBucket {
        /// Its name, which no bucket has.
        name: BucketName,
        /// Its properties.
        properties: BucketProperties,
    },
    /// Other properties for a bucket. Its number of replicas, and how it treats concurrent writes, stay.
    SetBucket {
        /// Which bucket.
        id: BucketId,
        /// Its properties until now: else it was changed meanwhile.
        was: BucketProperties,
        /// Its properties from now on.
        properties: BucketProperties,
        /// The epoch in which all nodes have compared all of it with each other, and none was left out.
        repaired: Option<Epoch>,
    },
    /// A bucket goes with all that is in it. Its name may be given again, its id never is.
    DropBucket {
        /// Which bucket.
        id: BucketId,
    },
    /// A member mints under an actor that nobody had before: it does not know what it minted under its last one.
    GrantActor {
        /// Which member.
        node: NodeId,
    },
    /// Members come, go, or weigh otherwise, by a plan that somebody has seen.
    Members {
        /// What is wanted.
        changes: MemberChanges,
        /// The plan that follows from it, as it was seen.
        plan: PlanId,
    },
    /// Partitions begin the next change of owners on their way.
    BeginMoves {
        /// Which.
        partitions: Vec<PartitionId>,
    },
    /// A node has all that it must have of the partitions that it gains.
    FinishMoves {
        /// Which node.
        by: NodeId,
        /// Which partitions, and the epochs in which their owners became joint.
        partitions: Vec<(PartitionId, Epoch)>,
    },
    /// The owners have all that a node still held of partitions that it lost.
    Drained {
        /// Which node.
        by: NodeId,
        /// Which partitions.
        partitions: Vec<PartitionId>,
    },
    /// All changes of owners are called off that have not finished, but for those by which somebody takes the place of a member
    /// that is lost. Members that were to leave stay.
    AbortMoves,
    /// A member that leaves and owns nothing any more is no member from now on.
    RemoveMember {
        /// Which member.
        node: NodeId,
    },
    /// Somebody has seen to what may have been lost with members that were given up.
    ClearLoss {
        /// The last epoch in which they were given up.
        through: Epoch,
    },
    /// A member is found elsewhere.
    MoveMember {
        /// Which member.
        node: NodeId,
        /// Where it listens now.
        address: String,
    },
}

/// A change that is not possible. Nothing was changed; correct what the message names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Names are unique.
    #[error("there is a bucket `{name}` already; choose another name")]
    BucketExists {
        /// The name.
        name: BucketName,
    },
    /// There is no such bucket.
    #[error("no bucket has id {}; refresh the list of buckets", id.0)]
    NoSuchBucket {
        /// The id.
        id: BucketId,
    },
    /// What must stay would change.
    #[error("the {what} of bucket `{bucket}` cannot be changed; create another bucket and copy")]
    Fixed {
        /// Which property.
        what: &'static str,
        /// The bucket's name.
        bucket: BucketName,
    },
    /// It is another bucket by now than the one that was to be changed.
    #[error(
        "bucket `{bucket}` was changed meanwhile; look at it (`kv bucket ls`), then repeat the command"
    )]
    ChangedMeanwhile {
        /// The bucket's name.
        bucket: BucketName,
    },
    /// What was written since that repair would be missed.
    #[error(
        "the numbers of bucket `{bucket}` were changed in epoch {since}, after it was repaired in epoch {repaired}; repair it once more (`kv repair --bucket {bucket}`)"
    )]
    RepairedBefore {
        /// The bucket's name.
        bucket: BucketName,
        /// When it was repaired.
        repaired: Epoch,
        /// When its numbers were changed.
        since: Epoch,
    },
    /// Reads would miss what was written before, or reads of nodes that are behind what is written from now on.
    #[error(
        "with r={} and w={} reads of bucket `{bucket}` could miss what was written before with w={2}, or reads with r={3} what is written from now on; first choose numbers that meet those, or have all nodes compare it (`kv repair --bucket {bucket}`)",
        now.r(), now.w(), past.written, past.read
    )]
    QuorumsMiss {
        /// The bucket's name.
        bucket: BucketName,
        /// The numbers asked for.
        now: Quorum,
        /// The least ones so far.
        past: Past,
    },
    /// The bucket that requests use when they name none must be there.
    #[error("the bucket `default` cannot be dropped")]
    DefaultBucket,
    /// Something else was decided since the plan was made.
    #[error("the plan {plan} is out of date; look at the new one, and commit that")]
    StalePlan {
        /// The plan that was named.
        plan: PlanId,
    },
    /// It would go in two ways.
    #[error("node {node} is named twice; it either leaves or is lost")]
    NamedTwice {
        /// The node.
        node: NodeId,
    },
    /// It is there already.
    #[error("node {node} is a member already")]
    IsMember {
        /// The node.
        node: NodeId,
    },
    /// Ids of nodes are never used again.
    #[error(
        "node {node} was a member and was removed, for ever; set the machine up with an empty directory, which makes it another node"
    )]
    WasRemoved {
        /// The node.
        node: NodeId,
    },
    /// It cannot go before somebody else owns that.
    #[error(
        "node {node} owns partitions, or is on the way to; it leaves when it owns nothing any more"
    )]
    OwnsStill {
        /// The node.
        node: NodeId,
    },
    /// Only who leaves, or is lost, is removed.
    #[error("node {node} is not leaving; let it leave first (`kv cluster leave`)")]
    Stays {
        /// The node.
        node: NodeId,
    },
    /// It is where it belongs, or something of it is not finished.
    #[error("partition {partition} has no change of owners to begin")]
    NothingToMove {
        /// The partition.
        partition: PartitionId,
    },
    /// The change was called off, or begun anew, or is another node's.
    #[error("no change of partition {partition} since epoch {since} ends with node {node}")]
    NotMoving {
        /// The partition.
        partition: PartitionId,
        /// The node.
        node: NodeId,
        /// The epoch that it named.
        since: Epoch,
    },
    /// It has nothing of it to give away.
    #[error("node {node} does not drain partition {partition}")]
    NotDraining {
        /// The partition.
        partition: PartitionId,
        /// The node.
        node: NodeId,
    },
    /// Nobody waits for it, so it cannot give anything away.
    #[error("node {node} is lost, and cannot leave; remove it when it owns nothing any more")]
    IsLost {
        /// The node.
        node: NodeId,
    },
    /// What was acknowledged under the earlier numbers may be with a node that is no owner any more.
    #[error(
        "partitions are still being drained; change the numbers of bucket `{bucket}` when all moves have ended"
    )]
    Draining {
        /// The bucket's name.
        bucket: BucketName,
    },
    /// No table can have these members.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is nothing to see to.
    #[error("no partition is marked as one that may have lost writes up to epoch {through}")]
    NothingMarked {
        /// The epoch.
        through: Epoch,
    },
    /// All actors were granted, which takes four billion changes.
    #[error("no actor is left")]
    NoActorLeft,
    /// What would follow is not a topology.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

/// Ids of buckets that genesis made lie below this; a later bucket's is this and the epoch that made it, so that none is
/// ever given twice.
const FIRST_LATER_BUCKET: u32 = 1 << 16;

impl Topology {
    /// The topology of the next epoch, in which one thing is different.
    ///
    /// # Errors
    /// [`ChangeError`]; it names what is not possible.
    pub fn changed_by(&self, change: Change) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        next.epoch = self.epoch.next();
        match change {
            Change::CreateBucket { name, properties } => {
                if self.bucket_by_name(&name).is_some() {
                    return Err(ChangeError::BucketExists { name });
                }
                let id = next.later_bucket_id();
                next.buckets
                    .push(Bucket::new(id, name, properties, next.epoch));
            }
            Change::SetBucket {
                id,
                was,
                properties,
                repaired,
            } => {
                let epoch = next.epoch;
                let is_draining = !next.draining.is_empty();
                let bucket = next.bucket_mut(id)?;
                if bucket.properties != was {
                    let bucket = bucket.name.clone();
                    return Err(ChangeError::ChangedMeanwhile { bucket });
                }
                if is_draining && (properties.quorum != was.quorum || repaired.is_some()) {
                    let bucket = bucket.name.clone();
                    return Err(ChangeError::Draining { bucket });
                }
                bucket.set(properties, repaired, epoch)?;
                if properties.quorum != was.quorum {
                    // So that nobody goes on with the old numbers who knows of the new ones.
                    next.changed.fill(epoch);
                }
            }
            Change::DropBucket { id } => {
                if next.bucket_mut(id)?.name == BucketName::default_bucket() {
                    return Err(ChangeError::DefaultBucket);
                }
                next.buckets.retain(|bucket| bucket.id != id);
            }
            Change::GrantActor { node } => {
                if self.member(node).is_none() {
                    return Err(TopologyError::NotAMember { node }.into());
                }
                let last = self.actors.last_key_value().map_or(0, |(actor, _)| actor.0);
                let actor = ActorId(last.checked_add(1).ok_or(ChangeError::NoActorLeft)?);
                next.actors.insert(actor, node);
            }
            Change::Members { changes, plan } => {
                let planned = self.plan_members(&changes)?;
                if planned.id != plan {
                    return Err(ChangeError::StalePlan { plan });
                }
                next = planned.committed;
                next.mark(self.may_lose(&next, &changes.lost));
            }
            Change::BeginMoves { partitions } => next.begin_moves(&partitions)?,
            Change::FinishMoves { by, partitions } => next.finish_moves(by, &partitions)?,
            Change::Drained { by, partitions } => next.drained(by, &partitions)?,
            Change::AbortMoves => next.abort_moves(),
            Change::RemoveMember { node } => next.remove_member(node)?,
            Change::ClearLoss { through } => next.clear_marks(through)?,
            Change::MoveMember { node, address } => {
                let member = next.members.iter_mut().find(|member| member.node == node);
                let member = member.ok_or(TopologyError::NotAMember { node })?;
                member.address = address;
            }
        }
        next.check()?;
        Ok(next)
    }

    /// Whether a bucket was dropped in some epoch up to this one. One that only a later epoch makes was not.
    #[must_use]
    pub fn has_dropped(&self, bucket: BucketId) -> bool {
        self.bucket(bucket).is_none() && bucket <= self.later_bucket_id()
    }

    fn later_bucket_id(&self) -> BucketId {
        // Epochs are reached one by one; four billion take more than a century at one a second.
        let epoch = u32::try_from(self.epoch.0).unwrap_or(u32::MAX);
        BucketId(FIRST_LATER_BUCKET.saturating_add(epoch))
    }

    fn bucket_mut(&mut self, id: BucketId) -> Result<&mut Bucket, ChangeError> {
        let bucket = self.buckets.iter_mut().find(|bucket| bucket.id == id);
        bucket.ok_or(ChangeError::NoSuchBucket { id })
    }
}

impl Bucket {
    fn set(
        &mut self,
        properties: BucketProperties,
        repaired: Option<Epoch>,
        epoch: Epoch,
    ) -> Result<(), ChangeError> {
        self.keeps_what_is_fixed(&properties)?;
        let bucket = || self.name.clone();
        let since = self.past.since;
        let (before, now) = (self.properties.quorum, properties.quorum);
        let past = match repaired {
            None => self.past,
            Some(repaired) if repaired >= since => Past::of(before, since),
            Some(repaired) => {
                return Err(ChangeError::RepairedBefore {
                    bucket: bucket(),
                    repaired,
                    since,
                });
            }
        };
        if now == before {
            self.past = past;
        } else if now.is_strict() && !past.meets(now) {
            let bucket = bucket();
            return Err(ChangeError::QuorumsMiss { bucket, now, past });
        } else {
            self.past = past.and(now, epoch);
        }
        self.properties = properties;
        Ok(())
    }

    fn keeps_what_is_fixed(&self, properties: &BucketProperties) -> Result<(), ChangeError> {
        let fixed = |what| ChangeError::Fixed {
            what,
            bucket: self.name.clone(),
        };
        if self.properties.mode != properties.mode {
            return Err(fixed("mode"));
        }
        // Other nodes would have to hold what they do not: that is a change of owners.
        if self.properties.quorum.n() != properties.quorum.n() {
            return Err(fixed("n"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kv_types::Quorum;

    use super::super::tests::{members, spec};
    use super::*;
    use crate::chain::ChainEntry;

    fn genesis() -> Topology {
        Topology::genesis(spec(members(4, 2))).expect("a good specification")
    }

    fn create(name: &str) -> Change {
        Change::CreateBucket {
            name: BucketName::new(name).expect("a good name"),
            properties: BucketProperties::majority_of(3).expect("3 is in range"),
        }
    }

    fn quorum(n: u8, r: u8, w: u8) -> BucketProperties {
        let majority = BucketProperties::majority_of(n).expect("in range");
        BucketProperties {
            quorum: Quorum::new(n, r, w).expect("possible"),
            ..majority
        }
    }

    fn refusal(topology: &Topology, change: Change) -> String {
        topology
            .changed_by(change)
            .expect_err("impossible")
            .to_string()
    }

    #[test]
    fn a_bucket_comes_changes_and_goes_and_its_id_is_never_given_again() {
        let first = genesis().changed_by(create("beds")).expect("a new name");
        assert_eq!(first.epoch(), Epoch(2));
        let beds = first.buckets().last().expect("just made").clone();
        assert_eq!(beds.name.as_str(), "beds");
        let changed = Change::SetBucket {
            id: beds.id,
            was: beds.properties,
            properties: quorum(3, 3, 2),
            repaired: None,
        };
        let second = first.changed_by(changed).expect("the same n");
        let now = second
            .bucket(beds.id)
            .expect("it is there")
            .properties
            .quorum;
        assert_eq!((now.r(), now.w()), (3, 2));
        let third = second
            .changed_by(Change::DropBucket { id: beds.id })
            .expect("it is there");
        assert!(third.bucket(beds.id).is_none());
        let fourth = third.changed_by(create("beds")).expect("the name is free");
        let again = fourth.buckets().last().expect("just made");
        assert_ne!(again.id, beds.id);
    }

    #[test]
    fn what_is_served_is_served_alike_since_it_last_changed_itself() {
        let first = genesis();
        let bucket = first.buckets()[0].id;
        let (here, there) = (PartitionId(7), PartitionId(8));
        let since = |topology: &Topology, partition| topology.served_since(bucket, partition);
        let second = first.changed_by(create("beds")).expect("a new name");
        let beds = second.buckets().last().expect("just made").id;
        assert_eq!(second.served_since(beds, here), Epoch(2));
        assert_eq!(since(&second, here), Epoch(1), "it is another bucket");
        let numbers = set_numbers(&second, (3, 2), None).expect("all of them meet");
        assert_eq!(since(&numbers, here), Epoch(3));
        let state = numbers.partition_state(here);
        let fourth = numbers.with_partition_state(here, &state, Epoch(4));
        let fourth = fourth.expect("a possible change");
        assert_eq!(since(&fourth, here), Epoch(4));
        assert_eq!(since(&fourth, there), Epoch(3), "it lies elsewhere");
        let (by, lost) = (fourth.members()[0].node, fourth.voters().to_vec());
        let lost: Vec<_> = lost.into_iter().filter(|node| *node != by).collect();
        let anew = fourth
            .recovered(by, &lost, &[])
            .expect("a majority is lost");
        assert_eq!(since(&anew, there), anew.epoch());
    }

    fn set_numbers(
        topology: &Topology,
        (r, w): (u8, u8),
        repaired: Option<Epoch>,
    ) -> Result<Topology, ChangeError> {
        let bucket = &topology.buckets()[0];
        let n = bucket.properties.quorum.n();
        topology.changed_by(Change::SetBucket {
            id: bucket.id,
            was: bucket.properties,
            properties: quorum(n, r, w),
            repaired,
        })
    }

    #[test]
    fn numbers_change_only_to_such_as_meet_what_was_written_and_read_before() {
        let genesis = genesis();
        // Of three replicas w = 1 leaves a write on one; reads of two would miss it, for as long as it is there alone.
        let refused =
            set_numbers(&genesis, (3, 1), None).expect_err("nodes that are behind read two");
        assert!(
            matches!(refused, ChangeError::QuorumsMiss { .. }),
            "{refused}"
        );
        let more = set_numbers(&genesis, (3, 2), None).expect("all of them meet");
        let refused = set_numbers(&more, (3, 1), None).expect_err("some may be behind still");
        assert!(refused.to_string().contains("kv repair --bucket default"));
        let refused =
            set_numbers(&more, (3, 1), Some(genesis.epoch())).expect_err("that was before");
        assert!(
            matches!(refused, ChangeError::RepairedBefore { .. }),
            "{refused}"
        );
        let least = set_numbers(&more, (3, 1), Some(more.epoch())).expect("all know of r = 3");
        let refused = set_numbers(&least, (2, 2), None).expect_err("it may be on one only");
        assert!(refused.to_string().contains("w=1"), "{refused}");
        let between = set_numbers(&least, (3, 2), None).expect("all of them meet");
        assert!(
            set_numbers(&between, (2, 2), None).is_err(),
            "it is remembered"
        );
        let again = set_numbers(&between, (3, 2), Some(least.epoch()));
        assert!(again.is_err(), "a repair is not repeated with the command");
        let back = set_numbers(&between, (2, 2), Some(between.epoch())).expect("all were compared");
        let past = back.buckets()[0].past;
        assert_eq!((past.read, past.written, past.since), (2, 2, back.epoch()));

        assert_eq!(
            back.changed_at(PartitionId(7)),
            back.epoch(),
            "old numbers are fenced off"
        );
        let mut set = Change::SetBucket {
            id: back.buckets()[0].id,
            was: quorum(3, 2, 2),
            properties: BucketProperties {
                ttl_s: 60,
                ..quorum(3, 2, 2)
            },
            repaired: None,
        };
        let same = back.changed_by(set.clone()).expect("the numbers stay");
        assert_eq!(same.changed_at(PartitionId(7)), back.epoch());
        if let Change::SetBucket { properties, .. } = &mut set {
            *properties = quorum(3, 3, 2);
        }
        let refused = same
            .changed_by(set)
            .expect_err("it lives for a minute by now");
        assert!(
            matches!(refused, ChangeError::ChangedMeanwhile { .. }),
            "{refused}"
        );
        let mut loose = quorum(3, 1, 1);
        loose.ttl_s = 60;
        let loose = Change::SetBucket {
            id: same.buckets()[0].id,
            was: same.buckets()[0].properties,
            properties: loose,
            repaired: None,
        };
        same.changed_by(loose).expect("it promises nothing then");
    }

    #[test]
    fn all_numbers_that_keep_the_promise_can_be_reached_from_all_others() {
        for n in 1..=5_u8 {
            let mut spec = spec(members(5, 2));
            spec.replication_factor = n;
            spec.buckets.clear();
            let genesis = Topology::genesis(spec).expect("a good specification");
            let pairs = (1..=n).flat_map(|r| (1..=n).map(move |w| (r, w)));
            let strict: Vec<_> = pairs.filter(|(r, w)| r + w > n).collect();
            for (from, to) in strict
                .iter()
                .flat_map(|from| strict.iter().map(move |to| (*from, *to)))
            {
                let mut topology = genesis.clone();
                let past = Past::of(quorum(n, from.0, from.1).quorum, topology.epoch());
                topology.buckets[0].properties = quorum(n, from.0, from.1);
                topology.buckets[0].past = past;
                // More of each, a repair, and then what is wanted.
                for step in [(from.0.max(to.0), from.1.max(to.1)), to] {
                    let repaired = Some(topology.epoch());
                    topology = set_numbers(&topology, step, repaired).expect("it meets what was");
                }
            }
        }
    }

    #[test]
    fn an_actor_is_granted_anew_and_the_earlier_one_stays_taken() {
        let before = genesis();
        let node = before.members()[1].node;
        let old = before.actor_of(node).expect("granted by genesis");
        let after = before
            .changed_by(Change::GrantActor { node })
            .expect("a member");
        let new = after.actor_of(node).expect("just granted");
        assert!(before.actors().keys().all(|actor| *actor < new));
        assert_eq!(after.actors().get(&old), Some(&node));
    }

    #[test]
    fn a_member_is_found_elsewhere_and_owns_what_it_owned() {
        let before = genesis();
        let node = before.members()[2].node;
        let address = "10.1.1.1:7400".to_owned();
        let after = before
            .changed_by(Change::MoveMember { node, address })
            .expect("a member");
        assert_eq!(
            after.member(node).expect("it stays").address,
            "10.1.1.1:7400"
        );
        for partition in before.partition_count().iter() {
            assert_eq!(
                before.partition_state(partition),
                after.partition_state(partition)
            );
            assert_eq!(before.changed_at(partition), after.changed_at(partition));
        }
    }

    #[test]
    fn what_is_not_possible_is_refused_by_name() {
        let topology = genesis();
        let default = topology.buckets()[0].id;
        let node = NodeId(9);
        let taken = topology.members()[0].address.clone();
        let other = topology.members()[1].node;
        for (change, words) in [
            (create("pairs"), "there is a bucket `pairs` already"),
            (
                Change::DropBucket { id: default },
                "`default` cannot be dropped",
            ),
            (Change::DropBucket { id: BucketId(7) }, "no bucket has id 7"),
            (
                Change::SetBucket {
                    id: default,
                    was: topology.buckets()[0].properties,
                    properties: quorum(2, 1, 1),
                    repaired: None,
                },
                "the n of bucket `default`",
            ),
            (Change::GrantActor { node }, "is not a member"),
            (
                Change::MoveMember {
                    node,
                    address: "a:1".to_owned(),
                },
                "is not a member",
            ),
            (
                Change::MoveMember {
                    node: other,
                    address: taken,
                },
                "is given twice",
            ),
            (
                Change::MoveMember {
                    node: other,
                    address: " ".to_owned(),
                },
                "is blank",
            ),
        ] {
            let said = refusal(&topology, change);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn every_change_makes_an_entry_that_continues_the_chain() {
        let mut topology = Arc::new(genesis());
        let mut entry = ChainEntry::genesis(Arc::clone(&topology)).expect("epoch 1");
        let node = topology.members()[0].node;
        for change in [
            create("one"),
            Change::GrantActor { node },
            create("two"),
            Change::MoveMember {
                node,
                address: "10.1.1.1:7400".to_owned(),
            },
        ] {
            topology = Arc::new(topology.changed_by(change).expect("possible"));
            let next = ChainEntry::snapshot(Arc::clone(&topology), entry.chain_hash());
            let next = next.expect("the epoch follows");
            let read = ChainEntry::decode(&next.encode()).expect("what was encoded");
            assert_eq!(read.topology(), &topology);
            assert_eq!(read.previous(), entry.chain_hash());
            entry = next;
        }
        assert_eq!(entry.epoch(), Epoch(5));
    }
}
