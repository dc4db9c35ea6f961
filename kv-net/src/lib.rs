//! The wire of kv: who speaks, what is said, and how it gets there.
//!
//! Every connection is QUIC with mutual TLS 1.3; there is no other mode. A certificate of the
//! cluster's authority says who its holder is: a node, a client or an admin ([`Identity`]). An
//! [`Endpoint`] dials its peers when they are first called and serves those that dial it. Messages
//! ([`Request`], [`Response`]) are frozen structures with a number each; `docs/formats/wire.md` has
//! their bytes.
//!
//! Within a connection, small frames of one class share a long-lived stream (a *lane*), where many
//! tasks append and one sends, so that under load a packet carries many frames. Frames above 64 KiB
//! have a stream of their own, so that a small request never waits behind a large value. Every
//! request carries the time that is left for it, and every limit is checked before anything is
//! reserved or decoded.
//!
//! Time, tasks and the socket come from quinn's abstraction of them: from tokio and the system as a
//! rule, from a simulator in tests. The crate knows nothing of rings, storage or gossip, whose
//! messages it carries as opaque bytes.
//!
//! | module | holds |
//! |---|---|
//! | [`message`], [`error`] | the vocabulary |
//! | [`method`] | numbers, classes, and which role may call what |
//! | [`codec`], [`frame`] | messages and frames as bytes; pure |
//! | [`identity`], [`certificate`], [`credentials`] | who someone is, and how that is issued and loaded |
//! | [`trust`] | whether a certificate is believed |
//! | [`issuing`] | how a new node gets its certificate over the wire |
//! | [`endpoint`] | [`Endpoint`]: calling, serving, gossiping |
//! | [`call`] | [`Peer`], and what can go wrong with a call |
//! | [`handler`] | [`Handler`]: who answers |
//! | [`config`], [`stats`] | limits and times; figures |
//!
//! Below them, unseen: `tls` and `transport` (settings), `hello`, `accept`, `admission`, `session`
//! and `reply` (accepted connections), `pool`, `dial`, `link` and `pending` (dialled ones), `outbox`
//! and `streams` (lanes and other streams), `bounded` and `x509` (decoding), `runtime` (time and tasks).

mod accept;
mod admission;
mod bounded;
pub mod call;
pub mod certificate;
pub mod codec;
pub mod config;
pub mod credentials;
mod dial;
pub mod endpoint;
pub mod error;
pub mod frame;
pub mod handler;
mod hello;
pub mod identity;
pub mod issuing;
mod link;
pub mod message;
pub mod method;
mod outbox;
mod pending;
mod pool;
mod reply;
mod runtime;
mod session;
pub mod stats;
mod streams;
mod tls;
mod transport;
pub mod trust;
mod x509;

pub use call::{BindError, CallError, DialError, Peer};
pub use certificate::{CertificateAuthority, CertificateError, KeyPair, PublicKey, Validity};
pub use config::EndpointConfig;
pub use credentials::{Credentials, CredentialsError, write_private};
pub use endpoint::{Endpoint, OtherIdentity};
pub use error::ErrorCode;
pub use handler::Handler;
pub use hello::HelloV1;
pub use identity::{Identity, IdentityError, Role};
pub use message::{Request, Response};
pub use method::{Class, Method};
pub use stats::EndpointStats;
pub use streams::CloseCode;
pub use tls::ALPN;
pub use trust::Refusal;
pub use x509::NoIdentity;
