//! What became of a write that did not answer "done".

use serde::{Deserialize, Serialize};

/// Whether a failed write may have changed something.
///
/// Ordered from best known to worst, so that the outcome over several attempts is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Outcome {
    /// Nothing was changed, and nothing will be.
    NotApplied = 0,
    /// It may have been applied, or still become visible. Repeating it with the same write id is safe.
    Unknown = 1,
}
