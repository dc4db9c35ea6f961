//! Endpoints over real loopback sockets.

mod calls;
mod hostile;
mod identities;
mod limits;
mod losses;
mod papers;
mod proxy;
mod raw;
mod support;
