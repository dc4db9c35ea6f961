//! Why a client could not be made. Nothing was sent to any key.

use std::path::PathBuf;
use std::time::Duration;

use kv_net::CredentialsError;
use kv_types::Outcome;

/// Why [`crate::Client::connect`] failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A text that is not a target; correct it.
    #[error("`{text}` is not a target: {reason}; one reads kv://host:port,host:port?context=name")]
    Target {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing says which cluster is meant; name a context, or select one.
    #[error(
        "no cluster is selected: {reason}; run `kv context use NAME`, set KV_CONTEXT, or start one with `cargo xtask cluster`"
    )]
    NoContext {
        /// Where was looked.
        reason: String,
    },
    /// A context's file cannot be used; correct it or write it anew.
    #[error("context file {}: {reason}", path.display())]
    Context {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate, its key or the authority cannot be used; the message names the file.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// This machine cannot open a socket.
    #[error(
        "cannot open a UDP socket: {reason}; look at the limits and the network of this machine"
    )]
    Socket {
        /// What the system says.
        reason: String,
    },
    /// One side does not believe the other's certificate; use the certificates of this cluster.
    #[error("certificates do not fit: {}; use those of this cluster's authority", tried.join("; "))]
    Untrusted {
        /// Every seed with its error.
        tried: Vec<String>,
    },
    /// No seed answered in time; look whether the nodes run and the addresses are right.
    #[error("no seed answered within {} ms: {}; are the nodes running, and are these their addresses?", .waited.as_millis(), tried.join("; "))]
    NoAnswer {
        /// How long was waited.
        waited: Duration,
        /// Every seed with its error.
        tried: Vec<String>,
    },
}

impl ConnectError {
    /// Always [`Outcome::NotApplied`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::NotApplied
    }

    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoAnswer { .. })
    }

    /// A stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Target { .. } => "bad-target",
            Self::NoContext { .. } => "no-context",
            Self::Context { .. } => "bad-context",
            Self::Credentials(_) => "credentials",
            Self::Untrusted { .. } => "untrusted",
            Self::Socket { .. } | Self::NoAnswer { .. } => "connect",
        }
    }

    /// The exit code of a program that ends with this error: always 8.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        8
    }
}

impl From<core::convert::Infallible> for ConnectError {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}
