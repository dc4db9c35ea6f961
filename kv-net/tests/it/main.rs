//! Endpoints over real loopback sockets.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests use the real clock and real sockets"
)]

mod calls;
mod hostile;
mod identities;
mod issuing;
mod limits;
mod losses;
mod papers;
mod proxy;
mod raw;
mod support;
