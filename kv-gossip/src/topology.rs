//! The newest topology epoch among peers.
//!
//! Every message states its sender's epoch and chain hash. Gossip compares, and leaves fetching and
//! deciding to others.

use core::time::Duration;

use kv_types::{Epoch, NodeId};

use crate::io::Event;
use crate::time::Time;

/// This member's topology, and what was said about that of others.
#[derive(Debug)]
pub(crate) struct TopologyWatch {
    epoch: Epoch,
    chain_hash: u64,
    /// No event before this: the driver is already fetching.
    quiet_until: Time,
    /// How many messages still go out only because the epoch is new.
    announcements: u32,
}

impl TopologyWatch {
    pub(crate) fn new(epoch: Epoch, chain_hash: u64) -> Self {
        Self {
            epoch,
            chain_hash,
            quiet_until: Time::ZERO,
            announcements: 0,
        }
    }

    /// This node adopted a topology, to be told `announcements` times.
    pub(crate) fn adopt(&mut self, epoch: Epoch, chain_hash: u64, announcements: u32) {
        if (epoch, chain_hash) != (self.epoch, self.chain_hash) {
            *self = Self {
                epoch,
                chain_hash,
                quiet_until: Time::ZERO,
                announcements,
            };
        }
    }

    /// Compares with what a peer stated; says something at most once in `period`.
    pub(crate) fn compare(
        &mut self,
        now: Time,
        period: Duration,
        node: NodeId,
        (epoch, chain_hash): (Epoch, u64),
    ) -> Option<Event> {
        if now < self.quiet_until {
            return None;
        }
        let event = if epoch > self.epoch {
            Event::NewerTopology {
                node,
                epoch,
                chain_hash,
            }
        } else if epoch == self.epoch && chain_hash != self.chain_hash {
            Event::ConflictingTopology {
                node,
                epoch,
                chain_hash,
            }
        } else {
            return None;
        };
        self.quiet_until = now + period;
        Some(event)
    }

    /// Whether a message should go out for the epoch alone; counts it as sent.
    pub(crate) fn announce(&mut self) -> bool {
        let due = self.announcements > 0;
        self.announcements = self.announcements.saturating_sub(1);
        due
    }

    pub(crate) fn is_announcing(&self) -> bool {
        self.announcements > 0
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn chain_hash(&self) -> u64 {
        self.chain_hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn compare(watch: &mut TopologyWatch, seconds: u32, epoch: u64, hash: u64) -> Option<Event> {
        let now = Time::from(SECOND * seconds);
        watch.compare(now, SECOND, NodeId(9), (Epoch(epoch), hash))
    }

    #[test]
    fn a_newer_epoch_is_told_once_a_period_until_it_is_adopted() {
        let mut watch = TopologyWatch::new(Epoch(1), 10);
        let newer = Some(Event::NewerTopology {
            node: NodeId(9),
            epoch: Epoch(3),
            chain_hash: 30,
        });
        assert_eq!(compare(&mut watch, 5, 3, 30), newer);
        assert_eq!(compare(&mut watch, 5, 3, 30), None);
        assert_eq!(compare(&mut watch, 6, 3, 30), newer);
        watch.adopt(Epoch(3), 30, 4);
        assert_eq!(compare(&mut watch, 7, 3, 30), None);
        assert_eq!(
            compare(&mut watch, 7, 2, 99),
            None,
            "older ones are the peer's concern"
        );
    }

    #[test]
    fn another_chain_at_the_same_epoch_is_a_conflict() {
        let mut watch = TopologyWatch::new(Epoch(2), 20);
        assert!(matches!(
            compare(&mut watch, 5, 2, 21),
            Some(Event::ConflictingTopology { .. })
        ));
    }

    #[test]
    fn an_adopted_epoch_is_announced_a_bounded_number_of_times() {
        let mut watch = TopologyWatch::new(Epoch(1), 10);
        watch.adopt(Epoch(2), 20, 2);
        assert!(watch.announce() && watch.announce() && !watch.announce());
        watch.adopt(Epoch(2), 20, 2);
        assert!(!watch.is_announcing(), "nothing new");
    }
}
