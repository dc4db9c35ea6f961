//! Why one attempt failed, and what helps against it.

use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::ErrorReplyV1;
use kv_types::{BucketName, Epoch, Outcome};

use crate::error::Error;
use crate::transport::{SendError, SendFault};

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Nothing helps: the request itself is refused.
    None,
    /// Another node, or the same one a little later.
    Elsewhere,
    /// A topology of at least this epoch.
    Refresh(Epoch),
}

/// What an attempt met in place of its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The node says no.
    Refused(ErrorReplyV1),
    /// There was no answer.
    Send(SendError),
    /// The answer makes no sense.
    Malformed(String),
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The name of the node.
    pub(crate) node: String,
    pub(crate) cause: Cause,
}

/// What is known of a request when it is given up.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) bucket: BucketName,
    pub(crate) outcome: Outcome,
    pub(crate) attempts: u32,
    /// The request's whole time, and whether it ran out.
    pub(crate) deadline: Duration,
    pub(crate) is_expired: bool,
    /// The nodes that said nothing.
    pub(crate) silent: Vec<String>,
}

impl Failure {
    /// Whether a node found that the write was made too long ago, or in the future.
    pub(crate) fn is_stale_write(&self) -> bool {
        matches!(&self.cause, Cause::Refused(reply) if reply.code == ErrorCode::StaleWriteId)
    }

    pub(crate) fn remedy(&self) -> Remedy {
        match &self.cause {
            Cause::Refused(reply) => match reply.code {
                ErrorCode::StaleEpoch | ErrorCode::UnknownBucket | ErrorCode::NotReplica => {
                    Remedy::Refresh(reply.epoch)
                }
                code if code.is_retryable() => Remedy::Elsewhere,
                _ => Remedy::None,
            },
            Cause::Send(error) if error.fault == SendFault::Unsendable => Remedy::None,
            Cause::Send(_) | Cause::Malformed(_) => Remedy::Elsewhere,
        }
    }

    /// What became of the request in this attempt, if it was a write.
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.cause {
            Cause::Refused(reply) => reply.outcome,
            Cause::Send(error) => error.outcome,
            Cause::Malformed(_) => Outcome::Unknown,
        }
    }

    /// Whether the node should be left alone for a while.
    pub(crate) fn blames_node(&self) -> bool {
        match &self.cause {
            Cause::Refused(reply) => {
                matches!(
                    reply.code,
                    ErrorCode::Storage | ErrorCode::ShuttingDown | ErrorCode::Incomplete
                )
            }
            Cause::Send(error) => match error.fault {
                SendFault::Unreachable | SendFault::Untrusted | SendFault::Lost => true,
                // Silence within a budget that was short says little; the driver judges it by time.
                SendFault::Silent | SendFault::Busy | SendFault::Unsendable => false,
                SendFault::Malformed => true,
            },
            Cause::Malformed(_) => true,
        }
    }

    /// How much it says about the cluster: a node's word more than a failure to hear one.
    pub(crate) fn weight(&self) -> u8 {
        match &self.cause {
            Cause::Refused(_) => 2,
            Cause::Malformed(_) => 1,
            Cause::Send(_) => 0,
        }
    }

    /// Whether a node that lives says that too few others do. Asking nodes that rest would only
    /// take time.
    pub(crate) fn lacks_replicas(&self) -> bool {
        matches!(&self.cause, Cause::Refused(reply) if reply.code == ErrorCode::NotEnoughReplicas)
    }

    /// Whether a node says that the deadline passed.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(&self.cause, Cause::Refused(reply) if reply.code == ErrorCode::Timeout)
    }

    /// Whether the node said nothing for the whole attempt.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(&self.cause, Cause::Send(error) if error.fault == SendFault::Silent)
    }

    /// Whether the same node may be asked again at once, after the remedy.
    pub(crate) fn spares_node(&self) -> bool {
        matches!(&self.cause, Cause::Refused(reply) if reply.code == ErrorCode::StaleEpoch)
    }

    fn detail(&self) -> String {
        match &self.cause {
            Cause::Refused(reply) => format!("{}: {}", self.node, reply.message),
            Cause::Send(error) => format!("{}: {error}", self.node),
            Cause::Malformed(what) => {
                format!(
                    "{}: its answer makes no sense ({what}); compare the versions",
                    self.node
                )
            }
        }
    }
}

impl GivenUp {
    /// The error of a request whose most telling failure is `telling`; none when no attempt ended.
    pub(crate) fn into_error(self, telling: Option<Failure>) -> Error {
        let (outcome, attempts) = (self.outcome, self.attempts);
        let is_late = |telling: &Failure| telling.is_silence() || telling.is_timeout();
        let is_over = self.is_expired || telling.as_ref().is_some_and(is_late);
        let lacks_replicas = telling.as_ref().is_some_and(Failure::lacks_replicas);
        if is_over && !lacks_replicas {
            let detail = self.silence(telling.as_ref());
            return Error::Timeout {
                deadline: self.deadline,
                attempts,
                outcome,
                detail,
            };
        }
        let Some(telling) = telling else {
            let detail = "no member could be asked".to_owned();
            return Error::Unreachable {
                attempts,
                outcome,
                detail,
            };
        };
        let detail = telling.detail();
        match telling.cause {
            Cause::Refused(reply) => self.refused(reply, detail),
            Cause::Send(error) if error.fault == SendFault::Busy => {
                Error::Overloaded { outcome, detail }
            }
            Cause::Send(error) if error.fault == SendFault::Unsendable => {
                Error::TooLarge { outcome, detail }
            }
            Cause::Send(_) | Cause::Malformed(_) => Error::Unreachable {
                attempts,
                outcome,
                detail,
            },
        }
    }

    fn refused(self, reply: ErrorReplyV1, detail: String) -> Error {
        let outcome = self.outcome;
        let ErrorReplyV1 {
            code,
            needed,
            got,
            epoch,
            ..
        } = reply;
        match code {
            ErrorCode::UnknownBucket => Error::UnknownBucket {
                bucket: self.bucket,
                epoch,
                outcome,
            },
            ErrorCode::TooLarge => Error::TooLarge { outcome, detail },
            ErrorCode::TooManySiblings => Error::TooManySiblings { outcome, detail },
            ErrorCode::WrongContext => Error::WrongContext { outcome, detail },
            ErrorCode::NotEnoughReplicas => Error::Unavailable {
                needed,
                got,
                outcome,
                detail,
            },
            ErrorCode::Overloaded => Error::Overloaded { outcome, detail },
            ErrorCode::Denied => Error::Denied { outcome, detail },
            ErrorCode::BadRequest
            | ErrorCode::Timeout
            | ErrorCode::StaleEpoch
            | ErrorCode::NotReplica
            | ErrorCode::Storage
            | ErrorCode::ShuttingDown
            | ErrorCode::StaleWriteId
            | ErrorCode::Unsupported
            | ErrorCode::Internal
            | ErrorCode::Incomplete
            | ErrorCode::ClockSkew => Error::Refused {
                code,
                outcome,
                detail,
            },
        }
    }

    fn silence(&self, telling: Option<&Failure>) -> String {
        let silent = match self.silent.as_slice() {
            [] => None,
            nodes => Some(format!("no answer from {}", nodes.join(", "))),
        };
        let other = telling.filter(|failure| !failure.is_silence());
        let other = other.map(Failure::detail);
        let parts: Vec<String> = silent.into_iter().chain(other).collect();
        if parts.is_empty() {
            return "no time was left to send it".to_owned();
        }
        parts.join("; ")
    }
}
