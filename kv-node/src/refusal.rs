//! Why a request was not done, as it goes back to whoever asked.

use kv_net::ErrorCode;
use kv_net::message::{ErrorReplyV1, Response};
use kv_types::{ContextError, Epoch, Outcome};

use crate::store::StoreError;
use crate::turns::QueueFull;

/// A request that was not done: what went wrong, whether anything changed, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What went wrong.
    pub code: ErrorCode,
    /// Whether this attempt may have changed something.
    pub outcome: Outcome,
    /// For people, with numbers and the next step.
    pub message: String,
    /// How many replicas had to answer; 0 where that does not apply.
    pub needed: u8,
    /// How many did.
    pub got: u8,
}

impl Refusal {
    /// A refusal before anything was changed.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            outcome: Outcome::NotApplied,
            message: message.into(),
            needed: 0,
            got: 0,
        }
    }

    /// Too few replicas answered or could answer.
    #[must_use]
    pub fn not_enough(needed: u8, got: u8, doing: &str) -> Self {
        let message = format!(
            "needed {needed} replicas to {doing}, got {got}; see which nodes are down with `kv status`, or ask for fewer"
        );
        Self {
            needed,
            got,
            ..Self::new(ErrorCode::NotEnoughReplicas, message)
        }
    }

    /// The deadline passed first.
    #[must_use]
    pub fn timeout(needed: u8, got: u8, doing: &str) -> Self {
        let message = format!("the deadline passed with {got} of {needed} replicas to {doing}");
        Self {
            needed,
            got,
            ..Self::new(ErrorCode::Timeout, message)
        }
    }

    /// This node's copies do not count now.
    #[must_use]
    pub fn incomplete() -> Self {
        let message = "this node has lost a part of its disk and fetches it from the other owners; nothing was changed here; try another node";
        Self::new(ErrorCode::Incomplete, message)
    }

    /// Nobody has told this node yet whether its copies may count.
    #[must_use]
    pub fn unnoticed() -> Self {
        let message = "this node has met no other member since it was started, so it does not know whether its disk is the latest; nothing was changed here; try another node";
        Self::new(ErrorCode::Incomplete, message)
    }

    /// The request was made under a topology older than the partition's last change.
    #[must_use]
    pub fn stale(own: Epoch) -> Self {
        let message = format!("the topology has moved on to epoch {own}; refresh it and try again");
        Self::new(ErrorCode::StaleEpoch, message)
    }

    /// The request was made under a topology that this node has not learnt of yet.
    #[must_use]
    pub fn behind(own: Epoch, theirs: Epoch) -> Self {
        let message = format!(
            "this node is at topology epoch {own} and could not fetch epoch {theirs} yet; try another node or a little later"
        );
        Self::new(ErrorCode::Overloaded, message)
    }

    /// This refusal, of a request that may have been carried out in part.
    #[must_use]
    pub fn unknown(self) -> Self {
        Self {
            outcome: Outcome::Unknown,
            ..self
        }
    }

    /// What is told whoever asked.
    #[must_use]
    pub fn told(self, epoch: Epoch) -> ErrorReplyV1 {
        ErrorReplyV1 {
            code: self.code,
            outcome: self.outcome,
            message: self.message,
            needed: self.needed,
            got: self.got,
            epoch,
        }
    }

    /// The reply that carries it.
    #[must_use]
    pub fn reply(self, epoch: Epoch) -> Response {
        Response::Error(self.told(epoch))
    }
}

impl From<ErrorReplyV1> for Refusal {
    fn from(error: ErrorReplyV1) -> Self {
        Self {
            code: error.code,
            outcome: error.outcome,
            message: error.message,
            needed: error.needed,
            got: error.got,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Busy => Self::new(ErrorCode::Overloaded, error.to_string()),
            StoreError::Full(_) | StoreError::Refused(_) => {
                Self::new(ErrorCode::Storage, error.to_string())
            }
            StoreError::Failed(_) => Self::new(ErrorCode::Storage, error.to_string()).unknown(),
        }
    }
}

impl From<QueueFull> for Refusal {
    fn from(full: QueueFull) -> Self {
        Self::new(
            ErrorCode::Overloaded,
            format!("{full}; try again in a moment"),
        )
    }
}

impl From<ContextError> for Refusal {
    fn from(error: ContextError) -> Self {
        let code = match error {
            ContextError::TooLong { .. } => ErrorCode::TooLarge,
            ContextError::Damaged | ContextError::OtherKey | ContextError::Future { .. } => {
                ErrorCode::WrongContext
            }
        };
        Self::new(code, error.to_string())
    }
}
