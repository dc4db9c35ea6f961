//! Which ping an ack answers.

use std::collections::VecDeque;

use kv_types::NodeId;

/// How many pings are remembered. A member sends about two per period, more only for others.
const REMEMBERED: usize = 256;

/// A ping that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ping {
    pub(crate) seq: u32,
    pub(crate) target: NodeId,
    pub(crate) purpose: Purpose,
}

/// Why a ping was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To probe the target.
    Probe,
    /// Because another member asked, with a sequence number of its own.
    Relay { origin: NodeId, origin_seq: u32 },
}

/// The latest pings, so that late acks still count as evidence, and acks that were never asked for
/// do not.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    sent: VecDeque<Ping>,
    next_seq: u32,
}

impl Pings {
    /// Notes a ping to `target` and gives its sequence number.
    pub(crate) fn send(&mut self, target: NodeId, purpose: Purpose) -> u32 {
        let seq = self.next_seq;
        self.next_seq = self.next_seq.wrapping_add(1);
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(Ping {
            seq,
            target,
            purpose,
        });
        seq
    }

    /// The ping that `target` answers with `seq`; it can be answered only once.
    pub(crate) fn answered(&mut self, seq: u32, target: NodeId) -> Option<Ping> {
        let index = self
            .sent
            .iter()
            .position(|ping| ping.seq == seq && ping.target == target)?;
        self.sent.remove(index)
    }

    /// The ping `seq` if it has not been answered yet.
    pub(crate) fn unanswered(&self, seq: u32) -> Option<Ping> {
        self.sent.iter().find(|ping| ping.seq == seq).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_counts_once_and_only_from_whom_was_pinged() {
        let mut pings = Pings::default();
        let seq = pings.send(NodeId(1), Purpose::Probe);
        assert!(pings.answered(seq, NodeId(2)).is_none());
        assert!(pings.answered(seq + 1, NodeId(1)).is_none());
        assert!(pings.answered(seq, NodeId(1)).is_some());
        assert!(pings.answered(seq, NodeId(1)).is_none());
    }

    #[test]
    fn the_memory_of_pings_is_bounded() {
        let mut pings = Pings::default();
        let first = pings.send(NodeId(1), Purpose::Probe);
        for _ in 0..REMEMBERED {
            pings.send(NodeId(1), Purpose::Probe);
        }
        assert!(pings.unanswered(first).is_none());
        assert_eq!(pings.sent.len(), REMEMBERED);
    }
}
