//! The watermark of a place, as answers to readers need it.

use bytes::Bytes;
use kv_types::{BucketMode, Hlc, Key, Object};

use super::deletions::is_forgettable;
use super::{Replica, Target, damaged};
use crate::anti_entropy::trees::Place;
use crate::refusal::Refusal;

/// The watermark of a place at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Up to where other owners may have forgotten what was deleted.
    hides: Hlc,
    /// Up to where this node knows all that there was: zero where it may lack what was acknowledged.
    pub(super) knows: Hlc,
}

impl Marks {
    /// Whether readers are told nothing of a copy, because other owners may have forgotten it: else it would show beside
    /// what was written since, which never heard of it.
    pub(super) fn hide(
        &self,
        mode: BucketMode,
        key: &Key,
        encoded: &Bytes,
    ) -> Result<bool, Refusal> {
        // Nothing was ever forgotten in most places.
        if self.hides == Hlc::ZERO {
            return Ok(false);
        }
        let object = Object::decode(encoded).map_err(|damage| damaged(key, damage))?;
        Ok(is_forgettable(&object, mode, self.hides))
    }
}

impl Replica {
    /// Those of the place of a copy; of what is kept for another, nothing is known.
    pub(super) fn marks(&self, target: &Target) -> Marks {
        match target.stands_in_for {
            None => self.marks_of((target.bucket, target.partition)),
            Some(_) => Marks {
                hides: Hlc::ZERO,
                knows: Hlc::ZERO,
            },
        }
    }

    /// Those of a place.
    pub(super) fn marks_of(&self, place: Place) -> Marks {
        let hides = self.watermarks.of(place);
        let knows = match self.completeness.check(place.1) {
            Ok(()) => hides,
            Err(_) => Hlc::ZERO,
        };
        Marks { hides, knows }
    }
}
