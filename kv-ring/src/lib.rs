//! Placement: which nodes hold which key, in which epoch, and who must answer for it.
//!
//! A keyed hash puts every key on a ring, which is cut into a fixed number of equal partitions. A table
//! gives each partition its replica slots; a node holds slots of many partitions, which are its virtual
//! nodes. A deterministic assigner makes the table from members, zones and weights, and moves as little
//! as possible when they change. The table is part of the topology: one immutable value for each epoch,
//! the next one agreed on and appended to a chain.
//!
//! The crate decides and computes. It does no IO, reads no clock, and knows nothing of which nodes are
//! alive.
//!
//! | module | holds |
//! |---|---|
//! | [`hash`] | [`HashSecret`]: the keyed hashes of a cluster |
//! | [`partition`] | [`PartitionId`] and [`PartitionCount`]: the arcs of the ring |
//! | [`topology`] | [`Topology`]: all that is agreed on at one epoch, and its lookups; genesis |
//! | [`preference`] | [`PreferenceList`]: a key's replicas, then who stands in for them |
//! | [`transition`] | [`ReplicaSet`] and [`fence`]: the rules of safety while owners change |
//! | [`chain`] | [`ChainEntry`]: topologies in their byte format, linked by hashes |
//! | [`consensus`] | [`Acceptor`](consensus::Acceptor) and [`Proposer`](consensus::Proposer): how the next entry is agreed on |
//! | [`assign`] | [`plan`](assign::plan): members to table, with the fewest moves |
//!
//! The topology's bytes are specified in `docs/formats/topology.md`.

pub mod assign;
pub mod chain;
pub mod consensus;
pub mod hash;
pub mod partition;
pub mod preference;
pub mod topology;
pub mod transition;

pub use chain::{ChainEntry, ChainError, ChainHash};
pub use hash::{HashDomain, HashSecret, KeyHash};
pub use partition::{PartitionCount, PartitionCountError, PartitionId};
pub use preference::{PreferenceEntry, PreferenceList, Role};
pub use topology::{
    Bucket, Change, ChangeError, ClusterMode, GenesisError, GenesisSpec, Member, MemberChanges,
    MemberState, MembershipPlan, PartitionState, PlanId, RecoveryError, Removal, Sources, Topology,
    TopologyError,
};
pub use transition::{Fence, ReplicaSet, fence};
