//! What can go wrong with a request: one enum, with an outcome, a stable code and an exit code.
//!
//! | `code()` | exit | what happened |
//! |---|---|---|
//! | `bad-key`, `bad-bucket-name`, `bad-quorum`, `bad-request` | 2 | the request makes no sense |
//! | `wrong-context` | 2 | the context is damaged, of another key, or from the future |
//! | `too-large` | 2 | key, value, object or context is over its limit |
//! | `unknown-bucket` | 2 | no such bucket |
//! | `conflict` | 4 | several concurrent values where one was wanted |
//! | `too-many-siblings` | 4 | the key holds as many concurrent values as a key may |
//! | `unavailable` | 6 | too few replicas can be reached |
//! | `timeout`, `stale-write-id` | 7 | not known in time whether it was done |
//! | `unreachable` | 8, or 7 when a write may have been applied | no node answered |
//! | `connect`, `bad-target`, `no-context`, `bad-context`, `credentials`, `untrusted`, `denied` | 8 | no connection, or no permission |
//! | `overloaded`, `codec`, `storage`, `shutting-down`, `stale-epoch`, `not-replica`, `unsupported`, `internal`, `incomplete`, `clock-skew` | 1 | see the message |
//!
//! The command line adds 3 (key absent), 5 (precondition failed) and 9 (cluster degraded).

use core::fmt;
use std::time::Duration;

use kv_net::ErrorCode;
use kv_types::{BucketName, BucketNameError, Context, Epoch, KeyError, Outcome, QuorumError};

pub use crate::connect_error::ConnectError;

type BoxError = Box<dyn core::error::Error + Send + Sync>;

/// Why a request failed. [`Self::outcome`] says whether it may have changed something: the worst over
/// all attempts of the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are not a key. Nothing was sent; correct the key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A text that cannot name a bucket. Nothing was sent; correct the name.
    #[error(transparent)]
    BucketName(#[from] BucketNameError),
    /// Numbers of replicas that are not possible in the bucket. Nothing was sent; correct them.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The context was refused. Read the key again and use the context of that read.
    #[error("the context was refused ({detail}); {}", Said(*outcome))]
    WrongContext {
        /// What became of the write.
        outcome: Outcome,
        /// Which node, and why.
        detail: String,
    },
    /// Key, value, object or context is over its limit. Make it smaller.
    #[error("too large ({detail}); {}", Said(*outcome))]
    TooLarge {
        /// What became of the write.
        outcome: Outcome,
        /// What is too large, with the limit.
        detail: String,
    },
    /// The cluster has no such bucket. Correct the name or create the bucket.
    #[error("there is no bucket `{bucket}` in topology epoch {epoch}; correct the name; {}", Said(*outcome))]
    UnknownBucket {
        /// The bucket.
        bucket: BucketName,
        /// The epoch that was looked into.
        epoch: Epoch,
        /// What became of the write.
        outcome: Outcome,
    },
    /// The key holds as many siblings as a key may. Read it, resolve them, put with the context.
    #[error("the key holds too many siblings ({detail}); {}; read, resolve, and put with the context", Said(*outcome))]
    TooManySiblings {
        /// What became of the write.
        outcome: Outcome,
        /// Which node, with numbers.
        detail: String,
    },
    /// Too few replicas can be reached. Wait for nodes to come back, or ask for fewer replicas.
    #[error("too few replicas: needed {needed}, got {got} ({detail}); {}; wait for nodes to come back, or ask for fewer replicas", Said(*outcome))]
    Unavailable {
        /// How many had to answer.
        needed: u8,
        /// How many did.
        got: u8,
        /// What became of the write.
        outcome: Outcome,
        /// Which node says so.
        detail: String,
    },
    /// The deadline passed. A read may be repeated; a write too, once its outcome matters no more.
    #[error("no result within {} ms after {attempts} attempts ({detail}); {}; give it a longer deadline, or look at the cluster's status", .deadline.as_millis(), Said(*outcome))]
    Timeout {
        /// The deadline of the whole request.
        deadline: Duration,
        /// How often it was sent.
        attempts: u32,
        /// What became of the write.
        outcome: Outcome,
        /// Who was silent, and what went wrong before.
        detail: String,
    },
    /// The cluster sheds load. Send less, or try again a little later.
    #[error("overloaded ({detail}); {}; try again a little later", Said(*outcome))]
    Overloaded {
        /// What became of the write.
        outcome: Outcome,
        /// Who says so.
        detail: String,
    },
    /// No node that was tried answered. Look whether the nodes run and can be reached from here.
    #[error("no node answered in {attempts} attempts ({detail}); {}; are the nodes running and reachable from here?", Said(*outcome))]
    Unreachable {
        /// How often it was sent.
        attempts: u32,
        /// What became of the write.
        outcome: Outcome,
        /// The last node and why.
        detail: String,
    },
    /// The certificate may not make this request. Use another certificate.
    #[error("denied ({detail}); {}; use a certificate whose role allows it", Said(*outcome))]
    Denied {
        /// What became of the write.
        outcome: Outcome,
        /// Who says so.
        detail: String,
    },
    /// A read has several concurrent values where one was wanted. Nothing was changed. Look at the
    /// siblings, then put the right value with the context.
    #[error(
        "{siblings} concurrent values where one was wanted; resolve them and put the result with the context"
    )]
    Conflict {
        /// How many, deletions included.
        siblings: usize,
        /// What to put the resolved value with.
        context: Context,
    },
    /// A value or key could not be encoded or decoded. Nothing was changed. Compare the type with the
    /// one that wrote it.
    #[error(
        "cannot {what}: {source}; nothing was changed; compare the type with the one that wrote it"
    )]
    Codec {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: BoxError,
    },
    /// The client could not connect. Nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The node refused for another reason, which the message gives.
    #[error("refused ({detail}); {}{}", Said(*outcome), next_step(*code))]
    Refused {
        /// The reason.
        code: ErrorCode,
        /// What became of the write.
        outcome: Outcome,
        /// Which node, and why.
        detail: String,
    },
}

impl Error {
    /// Whether the request may have changed something.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Key(_)
            | Self::BucketName(_)
            | Self::Quorum(_)
            | Self::Conflict { .. }
            | Self::Codec { .. }
            | Self::Connect(_) => Outcome::NotApplied,
            Self::WrongContext { outcome, .. }
            | Self::TooLarge { outcome, .. }
            | Self::UnknownBucket { outcome, .. }
            | Self::TooManySiblings { outcome, .. }
            | Self::Unavailable { outcome, .. }
            | Self::Timeout { outcome, .. }
            | Self::Overloaded { outcome, .. }
            | Self::Unreachable { outcome, .. }
            | Self::Denied { outcome, .. }
            | Self::Refused { outcome, .. } => *outcome,
        }
    }

    /// Whether the same request may succeed later. A write whose outcome is unknown is repeated
    /// safely only by its own write id, which the client did until the deadline.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Timeout { .. }
            | Self::Overloaded { .. }
            | Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => code.is_retryable(),
            Self::Connect(error) => error.is_retryable(),
            Self::Key(_)
            | Self::BucketName(_)
            | Self::Quorum(_)
            | Self::WrongContext { .. }
            | Self::TooLarge { .. }
            | Self::UnknownBucket { .. }
            | Self::TooManySiblings { .. }
            | Self::Denied { .. }
            | Self::Conflict { .. }
            | Self::Codec { .. } => false,
        }
    }

    /// A stable name of the error, the same in the command line's JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(_) => "bad-key",
            Self::BucketName(_) => "bad-bucket-name",
            Self::Quorum(_) => "bad-quorum",
            Self::WrongContext { .. } => "wrong-context",
            Self::TooLarge { .. } => "too-large",
            Self::UnknownBucket { .. } => "unknown-bucket",
            Self::TooManySiblings { .. } => "too-many-siblings",
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout { .. } => "timeout",
            Self::Overloaded { .. } => "overloaded",
            Self::Unreachable { .. } => "unreachable",
            Self::Denied { .. } => "denied",
            Self::Conflict { .. } => "conflict",
            Self::Codec { .. } => "codec",
            Self::Connect(error) => error.code(),
            Self::Refused { code, .. } => refusal_code(*code),
        }
    }

    /// The exit code of a program that ends with this error; the table above lists them.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Key(_)
            | Self::BucketName(_)
            | Self::Quorum(_)
            | Self::WrongContext { .. }
            | Self::TooLarge { .. }
            | Self::UnknownBucket { .. }
            | Self::Refused {
                code: ErrorCode::BadRequest,
                ..
            } => 2,
            Self::Conflict { .. } | Self::TooManySiblings { .. } => 4,
            Self::Unavailable { .. } => 6,
            Self::Timeout { .. }
            | Self::Unreachable {
                outcome: Outcome::Unknown,
                ..
            }
            | Self::Refused {
                code: ErrorCode::Timeout | ErrorCode::StaleWriteId,
                ..
            } => 7,
            Self::Unreachable {
                outcome: Outcome::NotApplied,
                ..
            }
            | Self::Denied { .. } => 8,
            Self::Connect(error) => error.exit_code(),
            Self::Overloaded { .. } | Self::Codec { .. } | Self::Refused { .. } => 1,
        }
    }

    pub(crate) fn encoding(source: impl Into<BoxError>) -> Self {
        Self::Codec {
            what: "encode the value",
            source: source.into(),
        }
    }

    pub(crate) fn decoding(source: impl Into<BoxError>) -> Self {
        Self::Codec {
            what: "decode the value",
            source: source.into(),
        }
    }
}

/// An outcome as a half sentence for people.
struct Said(Outcome);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Outcome::NotApplied => "nothing was changed",
            Outcome::Unknown => {
                "the write may or may not have been applied, so read the key to know"
            }
        })
    }
}

fn refusal_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "bad-request",
        ErrorCode::UnknownBucket => "unknown-bucket",
        ErrorCode::TooLarge => "too-large",
        ErrorCode::TooManySiblings => "too-many-siblings",
        ErrorCode::WrongContext => "wrong-context",
        ErrorCode::NotEnoughReplicas => "unavailable",
        ErrorCode::Timeout => "timeout",
        ErrorCode::Overloaded => "overloaded",
        ErrorCode::StaleEpoch => "stale-epoch",
        ErrorCode::NotReplica => "not-replica",
        ErrorCode::Denied => "denied",
        ErrorCode::Storage => "storage",
        ErrorCode::ShuttingDown => "shutting-down",
        ErrorCode::StaleWriteId => "stale-write-id",
        ErrorCode::Unsupported => "unsupported",
        ErrorCode::Internal => "internal",
        ErrorCode::Incomplete => "incomplete",
        ErrorCode::ClockSkew => "clock-skew",
    }
}

fn next_step(code: ErrorCode) -> &'static str {
    if code.is_retryable() {
        "; try again a little later"
    } else if code == ErrorCode::Unsupported {
        "; bring client and nodes to one version"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests;
