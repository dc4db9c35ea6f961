//! Why a request was answered as it was.
//!
//! [`Get::explain`](crate::get::Get::explain) and the like send a request and have its coordinator tell what it did.

pub use kv_net::message::{
    ExplanationV1 as Explanation, MemberState, PreferredV1 as Preferred, ReadSource, StepKind,
    StepV1 as Step,
};
