//! The side that is compared with.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_net::message::{
    ObjectsV1, ReplicaListEntryV1, Response, TreeKeysReplyV1, TreeKeysV1, TreeNodesReplyV1,
    TreeNodesV1, TreeObjectsV1, TreeRootsReplyV1, TreeRootsV1,
};
use kv_ring::{PartitionId, Topology};
use kv_types::{Epoch, Key, NodeId, planted};

use super::shared;
use super::trees::{Place, Trees};
use crate::completeness::Completeness;
use crate::refusal::Refusal;
use crate::replica::{Copy, Replica, Stretch};
use crate::topologies::Topologies;

/// The most bytes of objects in an answer, but for the first.
const MAX_BYTES: usize = 512 << 10;

/// Answers peers who compare.
#[derive(Debug)]
pub struct Answers {
    pub(crate) me: NodeId,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) trees: Arc<Trees>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) completeness: Arc<Completeness>,
}

impl Answers {
    /// The roots of what this node shares with a peer, if their sum is another than the peer's.
    ///
    /// # Errors
    /// [`Refusal`] when the two are at different epochs.
    pub fn roots(&self, from: NodeId, asked: &TreeRootsV1) -> Result<Response, Refusal> {
        let topology = self.topologies.current();
        if asked.epoch != topology.epoch() {
            return Err(Refusal::stale(topology.epoch()));
        }
        let ready = self.trees.are_made();
        let roots = self.trees.roots(&shared(&topology, self.me, from));
        let tail = if !ready || sum(&roots) == asked.sum {
            Bytes::new()
        } else {
            words(&roots)
        };
        Ok(Response::TreeRoots(TreeRootsReplyV1 { ready }, tail))
    }

    /// The sums below some nodes of a tree.
    ///
    /// # Errors
    /// [`Refusal`] for a partition that this node does not hold, or where it lacks something.
    pub fn nodes(&self, asked: &TreeNodesV1) -> Result<Response, Refusal> {
        let (_, place) = self.held(asked)?;
        let sums = self.trees.children(place, asked.depth, &asked.nodes);
        self.check_whole(asked)?;
        let tail = sums.map_or_else(Bytes::new, |sums| words(&sums));
        Ok(Response::TreeNodes(TreeNodesReplyV1 {}, tail))
    }

    /// Names and digests of the keys below some nodes of a tree.
    ///
    /// # Errors
    /// [`Refusal`] for a partition that this node does not hold or cannot read, or where it lacks something.
    pub async fn keys(&self, asked: &TreeKeysV1) -> Result<Response, Refusal> {
        let (_, place) = self.held(&asked.under)?;
        let (copies, until) = copies(&self.replica, place, &stretch(asked)).await?;
        self.check_whole(&asked.under)?;
        let pairs: Vec<u64> = copies
            .iter()
            .flat_map(|copy| [copy.id, copy.digest])
            .collect();
        Ok(Response::TreeKeys(TreeKeysReplyV1 { until }, words(&pairs)))
    }

    /// Objects of keys below some nodes of a tree: the first ones asked for, as many as fit.
    ///
    /// # Errors
    /// [`Refusal`] for a partition that this node does not hold or cannot read, or where it lacks something.
    pub async fn objects(&self, asked: &TreeObjectsV1) -> Result<Response, Refusal> {
        let (epoch, place) = self.held(&asked.stretch.under)?;
        let mut missing: BTreeSet<u64> = asked.ids.iter().copied().collect();
        let (mut entries, mut objects, mut bytes) = (Vec::new(), Vec::new(), 0);
        let stretch = stretch(&asked.stretch);
        let visited = self.replica.visit_copies(place, &stretch, |copy, encoded| {
            if missing.is_empty() {
                return ControlFlow::Break(());
            }
            if missing.contains(&copy.id) {
                bytes += encoded.len();
                if bytes > MAX_BYTES && !objects.is_empty() {
                    return ControlFlow::Break(());
                }
                missing.remove(&copy.id);
                let object_bytes = u32::try_from(encoded.len());
                entries.push(ReplicaListEntryV1 {
                    key: copy.key,
                    object_bytes: object_bytes.expect("objects are at most a little over 16 MiB"),
                });
                objects.push(encoded);
            }
            ControlFlow::Continue(())
        });
        let until = visited.await?.filter(|_| !missing.is_empty());
        self.check_whole(&asked.stretch.under)?;
        // Whoever takes them in may hear of a write that this node could still forget.
        self.replica.sync().await?;
        let reply = ObjectsV1 {
            partition_epoch: epoch,
            entries,
            until,
        };
        Ok(Response::TreeObjects(reply, objects.concat().into()))
    }

    /// The place that a question is about, and the epoch of its last change.
    fn held(&self, asked: &TreeNodesV1) -> Result<(Epoch, Place), Refusal> {
        let topology = self.topologies.current();
        let partition = PartitionId(asked.partition);
        if u32::from(asked.partition) >= topology.partition_count().get() {
            let message = format!("there is no partition {}", asked.partition);
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        let changed = topology.changed_at(partition);
        if asked.epoch < changed {
            return Err(Refusal::stale(topology.epoch()));
        }
        if !self.holds(&topology, asked) {
            let message = format!("this node holds no replica of {partition}");
            return Err(Refusal::new(ErrorCode::NotReplica, message));
        }
        Ok((changed, (asked.bucket, partition)))
    }

    /// Refuses an answer, after what is in it was read, if something of the place may have been lost by then: who asks may take what
    /// is not in it for deleted.
    fn check_whole(&self, asked: &TreeNodesV1) -> Result<(), Refusal> {
        let Some(since) = asked.whole_since else {
            return Ok(());
        };
        self.completeness.check(PartitionId(asked.partition))?;
        if self.completeness.losses() != since
            && !planted!("count a source that has lost something")
        {
            return Err(Refusal::incomplete());
        }
        Ok(())
    }

    fn holds(&self, topology: &Topology, asked: &TreeNodesV1) -> bool {
        topology.bucket(asked.bucket).is_some_and(|bucket| {
            let n = bucket.properties.quorum.n();
            let owners = topology.replicas(PartitionId(asked.partition), n);
            owners.contains(self.me)
        })
    }
}

/// What a question is about.
pub(super) fn stretch(asked: &TreeKeysV1) -> Stretch<'_> {
    Stretch {
        depth: asked.under.depth,
        nodes: &asked.under.nodes,
        after: asked.after.as_ref(),
        until: asked.until.as_ref(),
    }
}

/// The first copies of a stretch, and the key up to which these are all; `None` if they are all.
pub(super) async fn copies(
    replica: &Replica,
    place: Place,
    stretch: &Stretch<'_>,
) -> Result<(Vec<Copy>, Option<Key>), Refusal> {
    let mut all = Vec::new();
    let visited = replica.visit_copies(place, stretch, |copy, _| {
        all.push(copy);
        ControlFlow::Continue(())
    });
    let until = visited.await?;
    Ok((all, until))
}

/// Numbers as a tail.
pub(super) fn words(numbers: &[u64]) -> Bytes {
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    bytes.into()
}

/// The numbers of a tail.
pub(super) fn numbers(tail: &Bytes) -> Vec<u64> {
    let (words, _) = tail.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

pub(super) fn sum(roots: &[u64]) -> u64 {
    roots.iter().fold(0, |sum, root| sum.wrapping_add(*root))
}
