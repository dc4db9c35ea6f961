//! Judges what clients saw.
//!
//! | module | says |
//! |---|---|
//! | [`invented`] | only what was written shows, and never what was "not applied" |
//! | [`lost`] | no acknowledged write is gone |
//! | [`returned`] | nothing superseded or deleted comes back |
//! | [`fresh`] | reads are as new as their level promises, for others' writes and for one's own |
//! | [`siblings`] | siblings are truly concurrent |
//! | [`last`] | where the last writer wins: the latest write shows, and none that is older than promised |
//! | [`converged`] | after healing all replicas hold the same, byte for byte |
//! | [`linear`] | registers are linearizable |
//!
//! Each is a pure function of a [`History`], and each is tried on good and on bad ones.

pub mod ancestry;
pub mod converged;
pub mod fresh;
pub mod invented;
pub mod last;
pub mod linear;
pub mod lost;
pub mod places;
pub mod returned;
pub mod siblings;

#[cfg(test)]
mod testing;

use std::fmt;

use kv_types::Quorum;

use crate::history::History;
use ancestry::Ancestry;

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule was broken: a word that stays the same when a run is made smaller.
    pub rule: &'static str,
    /// How.
    pub what: String,
}

impl Violation {
    /// A broken rule.
    #[must_use]
    pub fn new(rule: &'static str, what: String) -> Self {
        Self { rule, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Everything that the checkers of whole stores find.
#[must_use]
pub fn all(history: &History, quorum: Quorum) -> Vec<Violation> {
    let mut found = invented::check(history);
    found.extend(converged::check(history));
    if history.last_writer_wins {
        found.extend(last::check(history, quorum));
        return found;
    }
    let ancestry = Ancestry::of(history);
    found.extend(lost::check(history, &ancestry));
    found.extend(returned::check(history, &ancestry, quorum));
    found.extend(fresh::check(history, &ancestry, quorum));
    found.extend(siblings::check(history, &ancestry));
    found
}
