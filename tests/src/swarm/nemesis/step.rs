//! What the nemesis does in one moment.

use std::time::Duration;

use kv_storage::sim::Fault as DiskFault;
use kv_types::NodeId;

use crate::sim::network::Link;

/// A moment's change.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Kill(NodeId),
    CutPower(NodeId),
    Start(NodeId),
    Copy(NodeId),
    PutBack(NodeId),
    Wipe(NodeId),
    Pause(NodeId),
    Resume(NodeId),
    Block(Vec<Link>),
    Unblock(Vec<Link>),
    Chances { loss: u64, duplicates: u64 },
    SlowDown(Link, Duration),
    SpeedUp(Link, Duration),
    DiskFault(NodeId, DiskFault, u64),
    Fill(NodeId, u64),
    Free(NodeId),
    Slowness(NodeId, u64),
    HangUntil(NodeId, Duration),
    Skew(NodeId, i64),
    Flip(NodeId, u64),
    Expire(NodeId),
    Renew(NodeId),
    FoundAuthority,
    IssueByNewest,
    BelieveOnlyIssuing,
    Strangers(NodeId, u16),
    Propose(NodeId),
}

impl Step {
    /// Whose machine it is about.
    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Self::Kill(node)
            | Self::CutPower(node)
            | Self::Start(node)
            | Self::Copy(node)
            | Self::PutBack(node)
            | Self::Wipe(node)
            | Self::Pause(node)
            | Self::Resume(node)
            | Self::DiskFault(node, ..)
            | Self::Fill(node, _)
            | Self::Free(node)
            | Self::Slowness(node, _)
            | Self::HangUntil(node, _)
            | Self::Skew(node, _)
            | Self::Flip(node, _)
            | Self::Expire(node)
            | Self::Renew(node) => Some(*node),
            Self::Block(_)
            | Self::Unblock(_)
            | Self::Chances { .. }
            | Self::SlowDown(..)
            | Self::SpeedUp(..)
            | Self::FoundAuthority
            | Self::IssueByNewest
            | Self::BelieveOnlyIssuing
            | Self::Strangers(..)
            | Self::Propose(_) => None,
        }
    }

    /// Whether it makes things worse.
    pub(super) fn is_trouble(&self) -> bool {
        match self {
            Self::Chances { loss, duplicates } => loss + duplicates > 0,
            Self::Slowness(_, factor) => *factor > 1,
            Self::Kill(_)
            | Self::CutPower(_)
            | Self::Pause(_)
            | Self::Block(_)
            | Self::SlowDown(..)
            | Self::DiskFault(..)
            | Self::Fill(..)
            | Self::HangUntil(..) => true,
            _ => false,
        }
    }
}
