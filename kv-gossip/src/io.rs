//! What goes into the machine and what comes out.

use bytes::Bytes;
use kv_types::{Epoch, NodeId};

use crate::standing::Incarnation;

/// Who this member is when its process starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Myself {
    /// The node's id, the one its certificate names.
    pub node: NodeId,
    /// Where peers reach this node, `host:port`, at most 255 bytes. It may change only with `boot`.
    pub address: String,
    /// The incarnation to start with; [`Incarnation::first_of_boot`] of `boot` is the right one.
    pub incarnation: Incarnation,
    /// How often this node has been started: durable, raised and synced before every start.
    pub boot: u64,
    /// The newest topology epoch this node has.
    pub epoch: Epoch,
    /// The hash of the topology chain up to that epoch.
    pub chain_hash: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes arrived from a peer whose identity the transport has authenticated.
    Message {
        /// The node id of the peer's certificate.
        from: NodeId,
        /// One message.
        bytes: Bytes,
    },
    /// The time of [`next_deadline`](crate::Gossip::next_deadline) has come.
    Tick,
    /// Members listed by the topology, or join seeds, with their addresses; replaces the last list.
    ///
    /// The listed are tried at once, and for ever while they are unknown or dead.
    Seeds(Vec<(NodeId, String)>),
    /// All former members that the topology has removed for ever.
    ///
    /// They are forgotten at once, and nothing from or about them is taken in again. Hand in the
    /// whole list at the start and with every topology: a peer that is behind still speaks of them.
    /// Whoever is not named stays or is taken in as before, listed or not: this node may itself be
    /// behind, and not know a new member yet. This node's own id is passed over.
    Removed(Vec<NodeId>),
    /// This node's own newest topology changed.
    Topology {
        /// The newest epoch this node has adopted.
        epoch: Epoch,
        /// The hash of the chain up to it.
        chain_hash: u64,
    },
    /// The driver's verdict on its own node: the log sync probe returned and the event loop turns.
    ///
    /// Report more often than [`Config::proof_validity`](crate::Config::proof_validity). While
    /// `healthy` is false, or the last report is too old, the heartbeat stands still, probes are
    /// answered as stalled, and accusations are not refuted.
    LivenessProof {
        /// Whether all proofs passed.
        healthy: bool,
    },
    /// Say goodbye. Keep the machine running for [`Config::leave_linger`](crate::Config::leave_linger).
    Leave,
}

/// What the driver must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a message, best effort: a datagram, or a frame where datagrams do not get through.
    Send {
        /// To whom; the transport must refuse a peer with another id.
        to: NodeId,
        /// Where it was last known to be reached; empty if not known: use a connection that is
        /// already open to that node, or drop the message.
        address: String,
        /// At most [`COMPOSED_SIZE_BYTES`](crate::message::COMPOSED_SIZE_BYTES), 1120.
        bytes: Bytes,
    },
    /// Something to know.
    Event(Event),
}

/// What changed in this member's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A member is there, for the first time or again.
    Alive {
        /// Which one.
        node: NodeId,
    },
    /// A member did not answer somebody: route around it.
    Suspect {
        /// Which one.
        node: NodeId,
    },
    /// A member stayed suspect until the timer ended: start hint windows, raise alarms.
    Dead {
        /// Which one.
        node: NodeId,
    },
    /// A member said goodbye.
    Left {
        /// Which one.
        node: NodeId,
    },
    /// A peer has a newer topology: fetch it from there. Repeated about once per probe period,
    /// possibly naming other peers, until [`Input::Topology`] tells that it was adopted.
    NewerTopology {
        /// Who has it.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
        /// Its chain hash.
        chain_hash: u64,
    },
    /// A peer has another chain at the same epoch: freeze topology changes and raise an alarm.
    /// Repeated at most once per probe period.
    ConflictingTopology {
        /// Who has it.
        node: NodeId,
        /// The epoch both have.
        epoch: Epoch,
        /// The peer's chain hash.
        chain_hash: u64,
    },
    /// Peers remember a later boot of this node than this one: its disk was rolled back or copied.
    /// What it stores is incomplete, and it must start again with a boot above this.
    OlderBoot {
        /// The highest boot that peers remember.
        remembered: u64,
    },
}

/// Counters since the start, and the present local health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Messages handed to the driver.
    pub messages_sent: u64,
    /// Their bytes, without what the transport adds.
    pub bytes_sent: u64,
    /// Messages handed in.
    pub messages_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Messages that did not decode.
    pub malformed: u64,
    /// Probes that ended.
    pub probes: u64,
    /// Probes that ended without an answer.
    pub probes_failed: u64,
    /// Suspicions this member raised itself.
    pub suspicions: u64,
    /// Suspicions that ended in a death by this member's own timer.
    pub deaths: u64,
    /// Accusations of this member that it refuted.
    pub refutations: u64,
    /// Suspicions of others that this member disproved by an ack it held.
    pub clearances: u64,
    /// Members that were not taken in because the list is full.
    pub members_refused: u64,
    /// Local health: 0 is well; probes are slower by this factor plus one.
    pub health_score: u32,
}
