//! Whom to call, and what can go wrong with a call.

use core::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use kv_types::{NodeId, Outcome, planted};

use crate::codec::DecodeError;

/// Whom to call: an address, and who is meant to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The node that must answer; `None` takes whichever node of the cluster is there.
    pub node: Option<NodeId>,
    /// Where it is.
    pub address: SocketAddr,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "node {} at {}", node.short(), self.address),
            None => write!(f, "the node at {}", self.address),
        }
    }
}

/// Why a call has no response. [`Self::outcome`] says whether it may have had an effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// No connection could be made, so nothing was sent: try another node, or later.
    #[error("cannot connect to {peer}: {reason}")]
    Connect {
        /// Whom.
        peer: Peer,
        /// Why not.
        reason: DialError,
    },
    /// The budget passed before the request was sent: try another node, or give more time.
    #[error("the request to {peer} was not sent within {} ms", .budget.as_millis())]
    NotSent {
        /// Whom.
        peer: Peer,
        /// The budget.
        budget: Duration,
    },
    /// The budget passed and no response came. The request may still be executed: repeat it with
    /// the same write id, or read.
    #[error("{peer} did not answer within {} ms", .budget.as_millis())]
    Deadline {
        /// Whom.
        peer: Peer,
        /// The budget.
        budget: Duration,
    },
    /// The connection was lost while the response was awaited. The request may have been executed:
    /// repeat it with the same write id, or read.
    #[error("the connection to {peer} was lost before it answered: {reason}")]
    Lost {
        /// Whom.
        peer: Peer,
        /// What is known of the loss.
        reason: String,
    },
    /// The response is not one to this request. The request may have been executed; compare the
    /// versions of both sides.
    #[error("{peer} answered with what is not a response to the request: {reason}")]
    BadResponse {
        /// Whom.
        peer: Peer,
        /// What is wrong.
        reason: DecodeError,
    },
    /// Too many calls to this peer wait already; nothing was sent: slow down.
    #[error("{waiting} calls to {peer} wait already: send fewer at a time")]
    Busy {
        /// Whom.
        peer: Peer,
        /// How many calls wait.
        waiting: usize,
    },
    /// The request is too large to be sent; nothing was sent: make it smaller.
    #[error("the request has {size} bytes, and the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit, in bytes, for who sends it.
        limit: usize,
    },
    /// The endpoint is closed; nothing was sent.
    #[error("this endpoint is closed")]
    Closed,
}

impl CallError {
    /// Whether the request may have had an effect.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Connect { .. }
            | Self::NotSent { .. }
            | Self::Busy { .. }
            | Self::TooLarge { .. }
            | Self::Closed => Outcome::NotApplied,
            Self::Lost { .. } if planted!("say \"not applied\" when a connection is lost") => {
                Outcome::NotApplied
            }
            Self::Deadline { .. } | Self::Lost { .. } | Self::BadResponse { .. } => {
                Outcome::Unknown
            }
        }
    }
}

/// Why no connection could be made. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answers: start the node, or correct the address.
    #[error(
        "no answer within {} ms: is kv-node running there, and may UDP packets pass?",
        .waited.as_millis()
    )]
    NoAnswer {
        /// How long was waited.
        waited: Duration,
    },
    /// The certificate over there is not believed here.
    #[error("its certificate is refused here: {reason}")]
    Untrusted {
        /// What this side says of it.
        reason: String,
    },
    /// The certificate of this side is not believed over there.
    #[error("it refuses our certificate: {reason}")]
    Rejected {
        /// What the other side says of it.
        reason: String,
    },
    /// The other side ended the connection before it was in use.
    #[error("it closed the connection: {reason}")]
    Closed {
        /// What is known of it.
        reason: String,
    },
    /// This machine cannot send there.
    #[error("packets cannot be sent there: {reason}")]
    Local {
        /// What the system says.
        reason: String,
    },
}

/// Why an endpoint cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the address: stop it, or listen elsewhere.
    #[error(
        "{address} is taken by another program: stop it (`ss -ulpn` shows which one it is), \
         or choose another port"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be used: choose one of this machine.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No socket can be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// Only a node can be dialled: use a node's certificate.
    #[error(
        "a certificate of {role} cannot be listened with: use the one that `kv-node cert` \
         made for this node"
    )]
    NotNode {
        /// The certificate's role.
        role: crate::identity::Role,
    },
}
