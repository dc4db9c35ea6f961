//! Anti-entropy: replicas compare what they hold, all the time, and bring each other what differs.
//!
//! Dynamo (2007), section 4.7. Each node keeps a Merkle tree over every partition of every bucket that it holds
//! ([`tree`], pure; [`trees`], in step with the log). In turn it compares with each peer: the sum of all roots, then the
//! roots ([`exchange`]), then goes down to where they differ (`comparison`); [`answers`] is the other side. Under the nodes
//! that differ the two compare keys, and move exactly the objects that differ, both ways, each merged as any other copy.

pub mod answers;
mod comparison;
pub mod exchange;
pub mod making;
pub mod pace;
pub mod tree;
pub mod trees;

use kv_ring::Topology;
use kv_types::NodeId;

use trees::Place;

/// The partitions of buckets that two nodes both hold, in order of bucket and partition. Both compute the same from one
/// topology.
#[must_use]
pub fn shared(topology: &Topology, one: NodeId, other: NodeId) -> Vec<Place> {
    let mut places = Vec::new();
    for bucket in topology.buckets() {
        for partition in topology.partition_count().iter() {
            let owners = topology.replicas(partition, bucket.properties.quorum.n());
            if owners.contains(one) && owners.contains(other) {
                places.push((bucket.id, partition));
            }
        }
    }
    places
}
