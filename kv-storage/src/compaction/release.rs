//! Which inputs of a compaction can go before it ends.
//!
//! When the outputs up to some key are in the version, inputs that end there are superfluous. Others
//! reach beyond it and stay; what they hold up to that key is then in the store twice, which is
//! harmless as long as readers still meet the newer of two versions first:
//! 1. In the run that takes the output no input may reach over the edge, or tables would overlap.
//! 2. A newer input stays as long as an older one that overlaps it, outside of that run: the older
//!    one lies above the output, and only the newer one hides what the output has replaced.

use super::choice::Place;
use crate::version::Placed;
use std::sync::Arc;

/// Outputs are put into the version whenever there are this many.
pub(crate) const RELEASE_TABLES: usize = 4;

/// The inputs that can be removed once all outputs up to the key `passed` are in the run `to`; `None`
/// if these outputs cannot be put there yet. `inputs` are newest first.
pub(crate) fn released<R>(
    inputs: &[(Place, Vec<Arc<Placed<R>>>)],
    to: Place,
    passed: &[u8],
) -> Option<Vec<u64>> {
    let mut released = Vec::new();
    let mut staying: Vec<&Placed<R>> = Vec::new();
    for (place, tables) in inputs.iter().rev() {
        let older = staying.len();
        for table in tables {
            let summary = &table.summary;
            let is_passed = *summary.largest <= *passed;
            let hides = |other: &&Placed<R>| other.overlaps(&summary.smallest, &summary.largest);
            if *place == to {
                if is_passed {
                    released.push(summary.file);
                } else if *summary.smallest <= *passed {
                    return None;
                }
            } else if is_passed && !staying[..older].iter().any(hides) {
                released.push(summary.file);
            } else {
                staying.push(table);
            }
        }
    }
    Some(released)
}
