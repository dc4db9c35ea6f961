//! What of a write must be on disks before it is acknowledged.

use serde::{Deserialize, Serialize};

/// On how many of the nodes that acknowledge a write it must survive a loss of power by then. All of them sync it soon,
/// whatever is asked here: it is only a matter of whether the writer waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Durability {
    /// On none: they have it in memory, and in the operating system's. It survives the end of their processes. If all of
    /// them lose power before they have synced it, it is lost, though it was acknowledged. That takes some ten milliseconds, and
    /// longer where disks do not keep up.
    Memory = 0,
    /// On the one that coordinates it; the others have it in memory. It is not lost unless that disk is; but after a loss of
    /// power at one of the others fewer replicas than were asked for may have it, and reads may miss it until it is repaired.
    One = 1,
    /// On each of the w nodes that are waited for.
    #[default]
    Quorum = 2,
    /// On all replicas of the key, however small w is: none may be away, but that at level `eventual` others stand in for them.
    All = 3,
}
