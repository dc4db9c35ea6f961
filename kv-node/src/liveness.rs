//! Which members answer, as far as this node knows: written by membership, read by requests.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use kv_net::message::MemberState;
use kv_types::NodeId;

/// The present state of every member that was heard of.
#[derive(Debug)]
pub struct Liveness {
    me: NodeId,
    states: RwLock<BTreeMap<NodeId, MemberState>>,
}

impl Liveness {
    /// Nobody was heard of yet.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            states: RwLock::default(),
        }
    }

    /// Takes in a change.
    pub fn set(&self, node: NodeId, state: MemberState) {
        self.states
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node, state);
    }

    /// The state of a member.
    #[must_use]
    pub fn state(&self, node: NodeId) -> MemberState {
        if node == self.me {
            return MemberState::Up;
        }
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        states.get(&node).copied().unwrap_or(MemberState::Unknown)
    }

    /// Whether requests should be sent to a member. One that was never heard of is given a chance.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        match self.state(node) {
            MemberState::Up | MemberState::Unknown => true,
            MemberState::Suspect | MemberState::Down | MemberState::Left => false,
        }
    }
}
