//! The real surroundings of a node: tokio, the system's clocks and randomness, threads for blocking
//! work, QUIC. Nothing else in this crate touches them.

mod host;
mod jobs;
mod network;

pub use host::TokioHost;
pub use jobs::JobThreads;
pub use network::{NodeHandler, QuicTransport};
