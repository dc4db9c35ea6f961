//! Sequences with a bound, checked while they are decoded.
//!
//! A frame of 64 KiB could otherwise become many MiB of structures: empty strings of a list take one
//! byte on the wire and 24 in memory.

use core::fmt;
use core::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Nodes that one answer can name.
pub(crate) const MAX_NODES: usize = 64;
/// Siblings of one key.
pub(crate) const MAX_SIBLINGS: usize = 1024;
/// Keys of one page.
pub const MAX_PAGE: usize = 16_384;
/// Nodes of a tree in one question.
pub(crate) const MAX_TREE_NODES: usize = 1024;
/// Partitions in one change.
pub(crate) const MAX_PARTITIONS: usize = 1 << 12;
/// Members in one view.
pub(crate) const MAX_MEMBERS: usize = 16_384;

/// Decodes a sequence of at most `MAX` elements.
pub(crate) fn vec<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    // A sequence of elements without bytes could claim any length.
    const { assert!(size_of::<T>() > 0) };
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

struct Bounded<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::with_capacity(sequence.size_hint().unwrap_or(0).min(MAX).min(64));
        while let Some(element) = sequence.next_element()? {
            if elements.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}
