//! A peer whose history of the topology is another one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kv_types::NodeId;

/// Gossip compares histories with every message, so one that is still there is heard of long before.
const LASTS: Duration = Duration::from_mins(1);

/// The last peer with another history, and when it was heard.
#[derive(Debug, Default)]
pub(crate) struct Fork(Mutex<Option<(NodeId, Duration)>>);

impl Fork {
    /// A peer has another history. Says whether that is news.
    pub(crate) fn met(&self, peer: NodeId, now: Duration) -> bool {
        let before = self.peer(now);
        *self.last() = Some((peer, now));
        before != Some(peer)
    }

    /// The peer, if it was heard lately.
    pub(crate) fn peer(&self, now: Duration) -> Option<NodeId> {
        let (peer, heard) = (*self.last())?;
        (now.saturating_sub(heard) < LASTS).then_some(peer)
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<(NodeId, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_news_once_and_is_over_a_minute_after_it_was_heard_last() {
        let fork = Fork::default();
        let at = Duration::from_secs;
        assert_eq!(fork.peer(at(0)), None);
        assert!(fork.met(NodeId(5), at(10)));
        assert!(!fork.met(NodeId(5), at(69)));
        assert_eq!(fork.peer(at(128)), Some(NodeId(5)));
        assert_eq!(fork.peer(at(129)), None);
        assert!(fork.met(NodeId(5), at(200)), "it is there again");
    }
}
