//! Why a request was answered as it was.
//!
//! [`Get::explain`](crate::get::Get::explain) and the like send a request and have its coordinator tell what it did, also when
//! that was not enough.

pub use kv_net::message::{
    ExplanationV1 as Explanation, MemberState, NotShown, PreferredV1 as Preferred, ReadSource,
    StepKind, StepV1 as Step,
};

use crate::error::Error;

/// A request failed that was to be explained.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct ExplainedError {
    /// Why it failed; the same as without an explanation.
    pub error: Error,
    /// What the last coordinator that refused it did before; nothing if none did, because none could be reached, or
    /// because the request makes no sense.
    pub explanation: Option<Box<Explanation>>,
}

impl From<Error> for ExplainedError {
    fn from(error: Error) -> Self {
        Self {
            error,
            explanation: None,
        }
    }
}

impl From<ExplainedError> for Error {
    fn from(explained: ExplainedError) -> Self {
        explained.error
    }
}
