//! What must wake the machine.

use std::collections::BTreeMap;

use kv_types::NodeId;

use crate::time::Time;

/// When to …
///
/// Nothing is ever cancelled: an entry that names a sequence number or a token of the past does
/// nothing when it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// … start the next probe.
    NextProbe,
    /// … ask others to ping the target of probe `seq`.
    ProbeTimeout { seq: u32 },
    /// … judge probe `seq`.
    ProbeEnd { seq: u32 },
    /// … tell the member that asked for ping `seq` that no ack has come.
    RelayPatience { seq: u32 },
    /// … send a round of news.
    News,
    /// … reconcile views with a random member.
    Sync,
    /// … try dead and listed but unknown members.
    Reconnect,
    /// … declare a suspect dead.
    SuspicionEnd { node: NodeId, token: u64 },
}

/// Pending timers, earliest first; those of one instant in the order they were set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    pending: BTreeMap<(Time, u64), Timer>,
    set_count: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Time, timer: Timer) {
        self.pending.insert((at, self.set_count), timer);
        self.set_count += 1;
    }

    /// Takes out the earliest timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let entry = self.pending.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(crate) fn earliest(&self) -> Option<Time> {
        self.pending.first_key_value().map(|((at, _), _)| *at)
    }
}
