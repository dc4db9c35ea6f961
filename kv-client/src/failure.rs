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
    /// The request's whole time, when it is that which ran out.
    pub(crate) expired: Option<Duration>,
    /// The nodes whose answers were still awaited.
    pub(crate) silent: Vec<String>,
}

impl Failure {
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
                matches!(reply.code, ErrorCode::Storage | ErrorCode::ShuttingDown)
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
    /// The error of a request whose last failed attempt is `last`; without one, all were silent.
    pub(crate) fn into_error(self, last: Option<Failure>) -> Error {
        let outcome = self.outcome;
        if let Some(deadline) = self.expired {
            let detail = self.silence(last.as_ref());
            return Error::Timeout {
                deadline,
                attempts: self.attempts,
                outcome,
                detail,
            };
        }
        let Some(last) = last else {
            let detail = "no member could be asked".to_owned();
            return Error::Unreachable {
                attempts: self.attempts,
                outcome,
                detail,
            };
        };
        let detail = last.detail();
        match last.cause {
            Cause::Refused(reply) => self.refused(reply, detail),
            Cause::Send(error) if error.fault == SendFault::Busy => {
                Error::Overloaded { outcome, detail }
            }
            Cause::Send(error) if error.fault == SendFault::Unsendable => {
                Error::TooLarge { outcome, detail }
            }
            Cause::Send(_) | Cause::Malformed(_) => Error::Unreachable {
                attempts: self.attempts,
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
            | ErrorCode::Internal => Error::Refused {
                code,
                outcome,
                detail,
            },
        }
    }

    fn silence(&self, last: Option<&Failure>) -> String {
        let silent = match self.silent.as_slice() {
            [] => None,
            nodes => Some(format!("no answer from {}", nodes.join(", "))),
        };
        let last = last.map(|failure| format!("before that, {}", failure.detail()));
        let parts: Vec<String> = silent.into_iter().chain(last).collect();
        if parts.is_empty() {
            "no time was left to send it".to_owned()
        } else {
            parts.join("; ")
        }
    }
}
