//! What a read found: all concurrent values of a key, and the context for the write that follows.

use bytes::Bytes;
use kv_types::{Context, Dot, NodeId, WriteId};

use crate::error::Error;
use crate::resolve::Resolver;

/// One of the concurrent values of a key; or a deletion, which is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling<T> {
    pub(crate) value: Option<T>,
    pub(crate) dot: Dot,
    pub(crate) write_id: WriteId,
    pub(crate) size_bytes: u32,
    pub(crate) hash: u64,
    pub(crate) expires_ms: Option<u64>,
}

impl<T> Sibling<T> {
    /// The value; `None` for a deletion. An empty value is a value.
    #[must_use]
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The value; `None` for a deletion.
    #[must_use]
    pub fn into_value(self) -> Option<T> {
        self.value
    }

    /// Whether this is a deletion, concurrent with the other siblings.
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        self.value.is_none()
    }

    /// Who minted it, and when by the clock of that node.
    #[must_use]
    pub fn dot(&self) -> Dot {
        self.dot
    }

    /// The write that made it.
    #[must_use]
    pub fn write_id(&self) -> WriteId {
        self.write_id
    }

    /// Length of the stored value in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u32 {
        self.size_bytes
    }

    /// When it expires, in milliseconds since the Unix epoch; `None` is never.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }

    /// xxh3-64 of the stored value.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// What a read found.
///
/// Leave it by [`Self::one`], which refuses to choose, by [`Self::latest`], which drops all but one, or
/// by [`Self::resolve`]. A write with [`Self::context`] replaces everything that this read saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T = Bytes> {
    pub(crate) siblings: Vec<Sibling<T>>,
    pub(crate) context: Context,
    pub(crate) answered: Vec<NodeId>,
    pub(crate) needed: u8,
}

impl<T> Read<T> {
    /// Whether the key has a value. A key that was deleted, or never written, has none.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.siblings.iter().any(|sibling| !sibling.is_deletion())
    }

    /// Whether one has to choose: several siblings, at least one of which is a value.
    ///
    /// A value and a concurrent deletion are a conflict: either may be what was meant.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.siblings.len() > 1 && self.is_found()
    }

    /// The one value, or `None` when there is none.
    ///
    /// # Errors
    /// [`Conflict`] when [`Self::is_conflict`]; it owns this read.
    pub fn one(mut self) -> Result<Option<T>, Conflict<T>> {
        if self.is_conflict() {
            return Err(Conflict {
                read: Box::new(self),
            });
        }
        Ok(self.siblings.pop().and_then(Sibling::into_value))
    }

    /// The sibling with the newest dot by the nodes' clocks; `None` when that is a deletion or there
    /// is none. The others are dropped: choose this only where losing them is right.
    #[must_use]
    pub fn latest(self) -> Option<T> {
        let newest = self
            .siblings
            .into_iter()
            .max_by_key(|s| (s.dot.hlc, s.dot.actor));
        newest.and_then(Sibling::into_value)
    }

    /// The one value; where there are several siblings, what the resolver makes of them.
    ///
    /// # Errors
    /// [`Conflict`] when the resolver cannot decide.
    pub fn resolve(self, resolver: &(impl Resolver<T> + ?Sized)) -> Result<Option<T>, Conflict<T>> {
        if self.is_conflict() {
            resolver.resolve(self)
        } else {
            self.one()
        }
    }

    /// All siblings, in the order of their dots.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling<T>] {
        &self.siblings
    }

    /// All siblings, in the order of their dots.
    #[must_use]
    pub fn into_siblings(self) -> Vec<Sibling<T>> {
        self.siblings
    }

    /// What to write with, so that all that this read saw is replaced. Also a key that was never
    /// written has one.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The replicas whose answers are in here.
    #[must_use]
    pub fn answered(&self) -> &[NodeId] {
        &self.answered
    }

    /// How many replicas had to answer.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.needed
    }
}

/// Several siblings where one value was wanted. Nothing was changed: decide, and put the result with
/// the context of [`Self::read`].
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} concurrent values where one was wanted; resolve them and put the result with the context", read.siblings.len())]
pub struct Conflict<T = Bytes> {
    pub(crate) read: Box<Read<T>>,
}

impl<T> Conflict<T> {
    /// The read.
    #[must_use]
    pub fn read(&self) -> &Read<T> {
        &self.read
    }

    /// The read.
    #[must_use]
    pub fn into_read(self) -> Read<T> {
        *self.read
    }
}

/// Does not show the values.
impl<T> core::fmt::Debug for Conflict<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Conflict")
            .field("siblings", &self.read.siblings.len())
            .finish()
    }
}

impl<T> From<Read<T>> for Conflict<T> {
    fn from(read: Read<T>) -> Self {
        Self {
            read: Box::new(read),
        }
    }
}

impl<T> From<Conflict<T>> for Error {
    fn from(Conflict { read }: Conflict<T>) -> Self {
        Self::Conflict {
            siblings: read.siblings.len(),
            context: read.context,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use kv_types::{ActorId, Hlc};

    use super::*;

    /// A read with one sibling per entry; `None` is a deletion. Later entries are newer.
    pub(crate) fn read<T>(values: impl IntoIterator<Item = Option<T>>) -> Read<T> {
        let sibling = |(value, millis): (Option<T>, u64)| Sibling {
            value,
            dot: Dot::new(ActorId(1), Hlc::from_millis(millis)),
            write_id: WriteId::new(millis, [0; 10]),
            size_bytes: 0,
            hash: 0,
            expires_ms: None,
        };
        Read {
            siblings: values.into_iter().zip(1..).map(sibling).collect(),
            context: Context::from_bytes(Bytes::from_static(b"context")),
            answered: Vec::new(),
            needed: 2,
        }
    }

    #[test]
    fn a_key_whose_only_sibling_is_a_deletion_is_not_found_but_has_a_context() {
        let deleted = read::<u8>([None]);
        assert!(!deleted.is_found());
        assert!(!deleted.is_conflict());
        assert!(!deleted.context().as_bytes().is_empty());
        assert_eq!(deleted.one().unwrap(), None);
    }

    #[test]
    fn an_empty_value_is_a_value() {
        assert_eq!(read([Some("")]).one().unwrap(), Some(""));
    }

    #[test]
    fn several_siblings_are_never_chosen_from_silently() {
        for siblings in [vec![Some(1), Some(2)], vec![Some(1), None]] {
            let conflict = read(siblings).one().unwrap_err();
            assert_eq!(conflict.read().siblings().len(), 2);
            let error = Error::from(conflict);
            assert_eq!((error.code(), error.exit_code()), ("conflict", 4));
        }
        assert_eq!(
            read::<u8>([None, None]).one().unwrap(),
            None,
            "two deletions agree"
        );
    }

    #[test]
    fn the_latest_may_be_a_deletion() {
        assert_eq!(read([Some(1), Some(2)]).latest(), Some(2));
        assert_eq!(read([Some(1), None]).latest(), None);
        assert_eq!(read::<u8>([]).latest(), None);
    }
}
