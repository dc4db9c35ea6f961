//! Ways to make one value of several.

use core::hash::{BuildHasher, Hash};
use std::collections::{BTreeSet, HashSet};

use crate::read::{Conflict, Read};

/// Makes one value of the siblings of a key. It is asked only when there is a conflict.
///
/// A function from all live values to one is a resolver; deletions among the siblings then yield to
/// the values. Resolve such that the order of siblings does not matter, or two clients that resolve at
/// the same time make a new conflict.
pub trait Resolver<T>: Send + Sync {
    /// One value, or `None` to leave the key deleted.
    ///
    /// # Errors
    /// [`Conflict`] when this resolver cannot decide; it hands the read back.
    fn resolve(&self, read: Read<T>) -> Result<Option<T>, Conflict<T>>;
}

impl<T, F: Fn(Vec<T>) -> T + Send + Sync> Resolver<T> for F {
    fn resolve(&self, read: Read<T>) -> Result<Option<T>, Conflict<T>> {
        Ok(merge_live(read, self))
    }
}

/// Decides nothing: a conflict stays one. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refuse;

impl<T> Resolver<T> for Refuse {
    fn resolve(&self, read: Read<T>) -> Result<Option<T>, Conflict<T>> {
        read.one()
    }
}

/// Takes the newest by the nodes' clocks and drops the others, deletions alike: last writer wins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latest;

impl<T> Resolver<T> for Latest {
    fn resolve(&self, read: Read<T>) -> Result<Option<T>, Conflict<T>> {
        Ok(read.latest())
    }
}

/// The union of sets: nothing that anyone added is lost. What was removed on one side only comes back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Union;

impl<E: Ord + Send + Sync> Resolver<BTreeSet<E>> for Union {
    fn resolve(
        &self,
        read: Read<BTreeSet<E>>,
    ) -> Result<Option<BTreeSet<E>>, Conflict<BTreeSet<E>>> {
        Ok(merge_live(read, |sets| {
            sets.into_iter().flatten().collect()
        }))
    }
}

impl<E, S> Resolver<HashSet<E, S>> for Union
where
    E: Eq + Hash + Send + Sync,
    S: BuildHasher + Default + Send + Sync,
{
    fn resolve(
        &self,
        read: Read<HashSet<E, S>>,
    ) -> Result<Option<HashSet<E, S>>, Conflict<HashSet<E, S>>> {
        Ok(merge_live(read, |sets| {
            sets.into_iter().flatten().collect()
        }))
    }
}

/// Merges the values; `None` when all siblings are deletions.
fn merge_live<T>(read: Read<T>, merge: impl Fn(Vec<T>) -> T) -> Option<T> {
    let live = read.into_siblings().into_iter();
    let live: Vec<T> = live.filter_map(crate::read::Sibling::into_value).collect();
    (!live.is_empty()).then(|| merge(live))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::tests::read;

    #[test]
    fn sets_are_united() {
        let siblings = [
            Some(BTreeSet::from([1, 2])),
            None,
            Some(BTreeSet::from([2, 3])),
        ];
        let resolved = read(siblings).resolve(&Union).unwrap();
        assert_eq!(resolved, Some(BTreeSet::from([1, 2, 3])));
        let siblings = [Some(HashSet::<u8>::from([1])), Some(HashSet::from([3]))];
        assert_eq!(
            read(siblings).resolve(&Union).unwrap(),
            Some(HashSet::from([1, 3]))
        );
    }

    #[test]
    fn functions_resolve() {
        let largest = |values: Vec<u32>| values.into_iter().max().unwrap_or_default();
        assert_eq!(
            read([Some(4), Some(9), None]).resolve(&largest).unwrap(),
            Some(9)
        );
        assert_eq!(read([None, None]).resolve(&largest).unwrap(), None);
    }

    #[test]
    fn the_latest_wins_or_nobody_does() {
        assert_eq!(read([Some(1), Some(2)]).resolve(&Latest).unwrap(), Some(2));
        assert!(read([Some(1), Some(2)]).resolve(&Refuse).is_err());
        assert_eq!(read([Some(1)]).resolve(&Refuse).unwrap(), Some(1));
    }
}
