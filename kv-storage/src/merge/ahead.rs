//! Damage that a merge knows of but has not come to.
//!
//! A merge looks ahead in every source, so it meets damage before it has merged all keys in front of it. A
//! merge that is read for answers goes on without the damaged source, and ends where the damaged keys
//! begin; only then is the damage an error. A scan that stops before never hears of it.

use super::Direction;
use crate::error::Error;
use crate::range::KeyRange;
use std::ops::Bound;

#[derive(Debug)]
pub(super) struct Ahead {
    direction: Direction,
    /// Where the reader will stop.
    far: Bound<Vec<u8>>,
    nearest: Option<Nearest>,
}

/// The damage that is met first.
#[derive(Debug)]
struct Nearest {
    error: Error,
    /// The first damaged key, seen in the merge's direction.
    key: Vec<u8>,
}

impl Ahead {
    pub(super) fn new(direction: Direction, far: Bound<&[u8]>) -> Self {
        Self {
            direction,
            far: far.map(<[u8]>::to_vec),
            nearest: None,
        }
    }

    /// Notes damage.
    ///
    /// # Errors
    /// The error itself if it does not say which keys it touches.
    pub(super) fn note(&mut self, error: Error) -> Result<(), Error> {
        let Error::Corrupt {
            range: KeyRange::Between { first, last },
            ..
        } = &error
        else {
            return Err(error);
        };
        let key = match self.direction {
            Direction::Forward => first.to_vec(),
            Direction::Backward => last.to_vec(),
        };
        if !self.has_reached(&key) {
            self.nearest = Some(Nearest { error, key });
        }
        Ok(())
    }

    /// True if there is damage at all.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.nearest.is_some()
    }

    /// True if known damage begins at `key` or before it.
    pub(super) fn has_reached(&self, key: &[u8]) -> bool {
        let nearest = self.nearest.as_ref();
        nearest.is_some_and(|nearest| match self.direction {
            Direction::Forward => *key >= *nearest.key,
            Direction::Backward => *key <= *nearest.key,
        })
    }

    /// The damage at which the merge has ended, if it is in front of where the reader stops.
    pub(super) fn take(&mut self) -> Option<Error> {
        let nearest = self.nearest.take()?;
        (!self.is_beyond(&nearest.key)).then_some(nearest.error)
    }

    /// True if `key` lies behind where the reader stops.
    pub(super) fn is_beyond(&self, key: &[u8]) -> bool {
        match (&self.far, self.direction) {
            (Bound::Unbounded, _) => false,
            (Bound::Included(far), Direction::Forward) => key > &far[..],
            (Bound::Excluded(far), Direction::Forward) => key >= &far[..],
            (Bound::Included(far), Direction::Backward) => key < &far[..],
            (Bound::Excluded(far), Direction::Backward) => key <= &far[..],
        }
    }
}
