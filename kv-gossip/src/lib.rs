//! Who is in the cluster and who is alive: SWIM with Lifeguard and heartbeat counters.
//!
//! The crate is a pure state machine. It opens no socket, starts no thread, reads no clock and draws
//! no randomness but from the seed it is given: the same inputs give the same outputs, bit for bit.
//! A driver owns one [`Gossip`] and makes three calls:
//!
//! ```
//! use kv_gossip::{Config, Gossip, Incarnation, Input, Myself, Output, Time};
//! use kv_types::{Epoch, NodeId};
//!
//! let me = Myself {
//!     node: NodeId(1),
//!     address: "127.0.0.1:7001".to_owned(),
//!     incarnation: Incarnation::first_of_boot(1),
//!     boot: 1,
//!     epoch: Epoch::GENESIS,
//!     chain_hash: 0,
//! };
//! let mut gossip = Gossip::new(Config::local(), me, 42, Time::ZERO);
//! let mut out = Vec::new();
//!
//! // 1. Hand in what happened, here the peers that the topology lists.
//! let peer = (NodeId(2), "127.0.0.1:7002".to_owned());
//! gossip.handle(Time::ZERO, Input::Seeds(vec![peer]), &mut out);
//! // 2. Do what comes out.
//! assert!(matches!(&out[0], Output::Send { to: NodeId(2), .. }));
//! // 3. Sleep until the deadline, unless something happens earlier, then hand in a tick.
//! let wake = gossip.next_deadline().expect("a running node always has something to wait for");
//! gossip.handle(wake, Input::Tick, &mut out);
//! ```
//!
//! # The protocol
//!
//! * **Probe.** Every period a member pings, by turns, the next one of a shuffled round and one of the
//!   few that it observes. Without an ack in time it asks some others to ping on its behalf, the
//!   target's observers first; without any answer it *suspects* the target (SWIM, Das and others 2002).
//! * **Suspicion.** A suspicion becomes a death when its timer ends. The timer starts long and
//!   shrinks as observers of the suspect confirm, which probe it at once; a member that misses answers
//!   becomes slower to judge others (Lifeguard, Dadgar and others 2017).
//! * **Observers.** Each member has four fixed ones, which all members reckon alike from the ids
//!   (Rapid, Suresh and others 2018). Nothing is sent about that.
//! * **Refutation.** Only its subject raises an incarnation. It does so when it hears that it is
//!   accused, and only while its own liveness proofs pass.
//! * **Heartbeats.** A heartbeat is a node's age in probe periods at the last moment its proofs
//!   passed. An accusation states the heartbeat that its subject must have had by then; whoever
//!   holds a two-way ack with a later heartbeat clears the subject, without waiting for it. What a
//!   node merely sends out is never evidence, so one that cannot receive cannot stay alive.
//! * **Dissemination.** News ride on every message, least transmitted first, and no message grows
//!   with the cluster.
//! * **Reconciliation.** Now and then two members compare sixteen hashes of their views and exchange
//!   what differs; dead members and members that the topology lists but nobody has seen are tried
//!   again for ever, so that partitions heal.
//! * **Removal.** Only the topology removes a member ([`Input::Removed`]). It is forgotten then, and
//!   what peers that are behind still say about it is not taken in.
//!
//! Routing should react to [`Event::Suspect`] at once; [`Event::Dead`] is for hints and alarms. A
//! member that comes and goes is damped ([`Gossip::is_damped`]): a replica still, but no good choice
//! as coordinator.
//! Gossip never decides who owns data: it only says that a newer topology exists and who has it.
//!
//! # Invariants
//!
//! 1. The incarnation of a member is raised only by that member.
//! 2. What members believe is merged by taking the greater [`Standing`], so the order in which news
//!    arrive does not matter.
//! 3. No message is longer than [`MAX_MESSAGE_SIZE_BYTES`] (1200), whatever the size of the cluster.
//! 4. Bytes from a peer never panic; what does not decode is counted and dropped.
//! 5. A delayed event carries a token; one that is out of date does nothing.
//! 6. A removed node is never a member again.
//!
//! # Map
//!
//! | module | noun |
//! |---|---|
//! | [`gossip`] | [`Gossip`], the machine: orchestrates the nouns below |
//! | [`io`] | what goes in and out: [`Input`], [`Output`], [`Event`], [`Stats`] |
//! | [`config`] | [`Config`]: few numbers, all timings derived |
//! | [`standing`] | [`Standing`]: the order in which beliefs override each other |
//! | [`member`] | [`Member`]: what is known of one node |
//! | `members` | all members: probe round, random choice, hash of the view |
//! | `heartbeat` | the own heartbeat and the pulse of another |
//! | `flapping` | how often a member came back of late |
//! | `observers`, `fnv` | who observes whom; the hash of rings and views |
//! | `suspicion`, `health` | Lifeguard: shrinking timers, local health |
//! | `rumors` | the piggyback queue |
//! | `probe`, `pings` | one probe cycle; which ping an ack answers |
//! | `topology` | the newest topology epoch among peers |
//! | `timers` | what must wake the machine |
//! | [`message`] | the bytes, specified in `docs/formats/gossip.md` |

pub mod config;
mod flapping;
mod fnv;
pub mod gossip;
mod health;
mod heartbeat;
pub mod io;
pub mod member;
mod members;
pub mod message;
mod observers;
mod pings;
mod probe;
mod rumors;
pub mod standing;
mod suspicion;
pub mod time;
mod timers;
mod topology;

pub use config::Config;
pub use gossip::Gossip;
pub use io::{Event, Input, Myself, Output, Stats};
pub use member::Member;
pub use message::{DecodeError, MAX_MESSAGE_SIZE_BYTES};
pub use standing::{Incarnation, Standing, State};
pub use time::Time;
