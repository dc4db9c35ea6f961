//! Which members answer, as far as this node knows: written by membership, read by requests.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use kv_net::message::MemberState;
use kv_types::NodeId;

/// The present state of every member that was heard of.
#[derive(Debug)]
pub struct Liveness {
    me: NodeId,
    started: Duration,
    /// The state, and the time since which it holds.
    states: RwLock<BTreeMap<NodeId, (MemberState, Duration)>>,
    /// Until when members are damped that came and went too often.
    damped: RwLock<BTreeMap<NodeId, Duration>>,
}

impl Liveness {
    /// How long a suspected member is still tried by requests that need it.
    pub const SUSPICION_GRACE: Duration = Duration::from_secs(1);

    /// How long after the start a member that was never heard of counts as up. Later it is tried only where a
    /// quorum needs it: it was down before this node started, or it is unreachable.
    pub const UNHEARD_GRACE: Duration = Duration::from_secs(3);

    /// Nobody was heard of yet, at the start of this node.
    #[must_use]
    pub fn new(me: NodeId, started: Duration) -> Self {
        Self {
            me,
            started,
            states: RwLock::default(),
            damped: RwLock::default(),
        }
    }

    /// A member has come and gone so often that it is asked last until then, among its like.
    pub fn damp(&self, node: NodeId, until: Duration) {
        let mut damped = self.damped.write().unwrap_or_else(PoisonError::into_inner);
        damped.insert(node, until);
    }

    /// Whether a member comes and goes: a replica like any other, but a bad choice as coordinator or for whole values.
    #[must_use]
    pub fn is_damped(&self, node: NodeId, now: Duration) -> bool {
        let damped = self.damped.read().unwrap_or_else(PoisonError::into_inner);
        damped.get(&node).is_some_and(|until| now < *until)
    }

    /// Takes in a change at time `now`.
    pub fn set(&self, node: NodeId, state: MemberState, now: Duration) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        states.insert(node, (state, now));
    }

    /// The state of a member.
    #[must_use]
    pub fn state(&self, node: NodeId) -> MemberState {
        self.state_and_since(node).0
    }

    fn state_and_since(&self, node: NodeId) -> (MemberState, Duration) {
        if node == self.me {
            return (MemberState::Up, Duration::ZERO);
        }
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let unheard = (MemberState::Unknown, Duration::ZERO);
        states.get(&node).copied().unwrap_or(unheard)
    }

    /// Whether a member may answer a request made at `now`: one that was suspected only just now is
    /// tried where a quorum needs it, because most suspicions on a busy machine are refuted.
    #[must_use]
    pub fn may_answer(&self, node: NodeId, now: Duration) -> bool {
        match self.state_and_since(node) {
            (MemberState::Up | MemberState::Unknown, _) => true,
            (MemberState::Suspect, since) => now.saturating_sub(since) < Self::SUSPICION_GRACE,
            (MemberState::Down | MemberState::Left, _) => false,
        }
    }

    /// For how long a member has not been up, as far as this node knows; zero for one that is up or suspected.
    #[must_use]
    pub fn away_for(&self, node: NodeId, now: Duration) -> Duration {
        match self.state_and_since(node) {
            (MemberState::Up | MemberState::Suspect, _) => Duration::ZERO,
            (MemberState::Unknown, _) => now.saturating_sub(self.started),
            (MemberState::Down | MemberState::Left, since) => now.saturating_sub(since),
        }
    }

    /// Whether requests made at `now` should be sent to a member.
    #[must_use]
    pub fn is_up(&self, node: NodeId, now: Duration) -> bool {
        match self.state(node) {
            MemberState::Up => true,
            MemberState::Unknown => now.saturating_sub(self.started) < Self::UNHEARD_GRACE,
            MemberState::Suspect | MemberState::Down | MemberState::Left => false,
        }
    }
}
