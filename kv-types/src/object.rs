//! What a replica stores under a key: siblings, the clock of their past, and retired write ids.
//!
//! Read as sets, an object is three growing sets and their difference: every dot it has heard of
//! (the clock), the dots whose values were superseded (the clock minus the siblings' dots), and
//! which write each dot belongs to. Merging takes unions, so it is commutative, associative and
//! idempotent, and replicas that have heard of the same writes are equal to the byte.
//!
//! Invariants:
//! 1. Every dot of a sibling is covered by the clock, and belongs to one sibling only.
//! 2. A sibling leaves only because a write had read it, or because its write was superseded under
//!    another dot (a retry through a second coordinator).
//! 3. The state after a write never claims a dot that this replica may have minted and forgotten
//!    ([`Clock::mint`]).

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::bucket::BucketMode;
use crate::clock::{Clock, Dot};
use crate::hlc::Hlc;
use crate::write_id::WriteId;

mod format;
mod retired;

pub use retired::Retired;

/// What a write stores.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payload {
    /// A value, at most [`Object::MAX_VALUE_BYTES`].
    Value(Bytes),
    /// A deletion.
    Tombstone,
}

impl Payload {
    /// The value; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Value(value) => Some(value),
            Self::Tombstone => None,
        }
    }

    /// Length of the value in bytes; 0 for a tombstone.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.value().map_or(0, Bytes::len)
    }

    /// xxh3-64 of the value; that of no bytes for a tombstone.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.value()
            .map_or_else(|| xxh3_64(&[]), |value| xxh3_64(value))
    }
}

/// One write to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The client's name for it.
    pub write_id: WriteId,
    /// What it stores.
    pub payload: Payload,
    /// From when on readers see nothing of it, in milliseconds since the Unix epoch; `None` is never. The same in all
    /// repetitions of the write. A deletion has none.
    pub expires_ms: Option<u64>,
}

/// One value that no known write has superseded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    write_id: WriteId,
    /// Sorted, never empty. More than one when a retry was applied by several coordinators.
    dots: Vec<Dot>,
    payload: Payload,
    payload_hash: u64,
    expires_ms: Option<u64>,
}

impl Sibling {
    /// The write that made it.
    #[must_use]
    pub fn write_id(&self) -> WriteId {
        self.write_id
    }

    /// Its dots, sorted.
    #[must_use]
    pub fn dots(&self) -> &[Dot] {
        &self.dots
    }

    /// The dot that was minted last.
    #[must_use]
    pub fn newest_dot(&self) -> Dot {
        *self
            .dots
            .iter()
            .max_by_key(|dot| (dot.hlc, dot.actor))
            .expect("a sibling has a dot")
    }

    /// The value or tombstone.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// xxh3-64 of the value.
    #[must_use]
    pub fn payload_hash(&self) -> u64 {
        self.payload_hash
    }

    /// From when on readers see nothing of it, in milliseconds since the Unix epoch; `None` is never.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }

    /// Whether readers see nothing of it any more, by a clock that shows so many milliseconds since the Unix epoch.
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now_ms)
    }

    /// From when on readers see nothing of it; `None` is never.
    fn gone_from(&self) -> Option<Hlc> {
        match self.payload {
            Payload::Tombstone => Some(self.newest_dot().hlc),
            Payload::Value(_) => self.expires_ms.map(Hlc::from_millis),
        }
    }

    /// Siblings are kept in this order; equal ids with different payloads stay apart.
    fn order(&self) -> (WriteId, bool, u64, Option<u64>) {
        (
            self.write_id,
            self.payload == Payload::Tombstone,
            self.payload_hash,
            self.expires_ms,
        )
    }
}

/// How a coordinator must treat a write id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Not seen before: apply it.
    New,
    /// Applied before: do not apply it anew, only bring what is stored to its quorum.
    Known,
    /// Older than what the key remembers: whether it was applied cannot be told.
    TooOld,
    /// Created later than this node's clock plus [`WriteId::HORIZON_MS`]: a clock is wrong.
    FromTheFuture,
}

/// Why a write was refused. The object is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    /// The key already holds as many siblings as it may; read, resolve, put with the context.
    #[error(
        "the key holds {count} concurrent values, the limit; read it and put with that context to replace them"
    )]
    TooManySiblings {
        /// Siblings held.
        count: usize,
    },
    /// The siblings together would exceed [`Object::MAX_VALUES_BYTES`].
    #[error(
        "the concurrent values of the key would take {size} bytes together; the limit is {}",
        Object::MAX_VALUES_BYTES
    )]
    TooLarge {
        /// Their sum with the new one.
        size: usize,
    },
}

/// All that a replica knows of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object {
    clock: Clock,
    siblings: Vec<Sibling>,
    retired: Retired,
}

impl Object {
    /// The largest value, in bytes.
    pub const MAX_VALUE_BYTES: usize = 4 << 20;
    /// The largest sum of a key's values, in bytes.
    pub const MAX_VALUES_BYTES: usize = 16 << 20;
    /// The most siblings of a key.
    pub const MAX_SIBLINGS: usize = 64;

    /// The object of a key that was never written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a write that this replica coordinates.
    ///
    /// `read` is what the writer had read: siblings it covers are superseded. `dot` must be freshly
    /// minted here; `held_since` is the point since which this replica has held the key without a
    /// gap ([`Clock::mint`]); `now_ms` is the wall clock, to forget write ids that are old by it and by the writer's.
    ///
    /// # Errors
    /// [`WriteRefused`] when a limit would be crossed; the object is then unchanged.
    pub fn write(
        &mut self,
        write: Write,
        read: &Clock,
        dot: Dot,
        held_since: Hlc,
        now_ms: u64,
    ) -> Result<(), WriteRefused> {
        let expires_ms = match write.payload {
            Payload::Value(_) => write.expires_ms,
            Payload::Tombstone => None,
        };
        let mut siblings = Vec::with_capacity(self.siblings.len() + 1);
        let mut superseded = Vec::new();
        for sibling in &self.siblings {
            // A sibling whose write was superseded under another dot goes with it.
            let hidden = self.is_hidden(sibling);
            let (gone, kept): (Vec<_>, Vec<_>) = sibling
                .dots
                .iter()
                .copied()
                .partition(|d| hidden || read.covers(*d));
            superseded.extend(gone.iter().map(|d| (sibling.write_id, *d)));
            if !kept.is_empty() {
                siblings.push(Sibling {
                    dots: kept,
                    ..sibling.clone()
                });
            }
        }
        if siblings.len() >= Self::MAX_SIBLINGS {
            return Err(WriteRefused::TooManySiblings {
                count: siblings.len(),
            });
        }
        let size = siblings
            .iter()
            .map(|s| s.payload.size_bytes())
            .sum::<usize>()
            + write.payload.size_bytes();
        if size > Self::MAX_VALUES_BYTES {
            return Err(WriteRefused::TooLarge { size });
        }

        debug_assert!(!self.clock.covers(dot), "a dot is minted once");
        // By two clocks, the writer's and the coordinator's: one that is ahead makes nobody forget early.
        let by_both_ms = now_ms.min(write.write_id.created_ms());
        self.clock.mint(dot, held_since);
        self.clock.merge(read);
        siblings.push(Sibling {
            write_id: write.write_id,
            dots: vec![dot],
            payload_hash: write.payload.hash(),
            payload: write.payload,
            expires_ms,
        });
        siblings.sort_by_key(Sibling::order);
        self.siblings = siblings;
        self.retired.add(superseded);
        self.retired.forget(by_both_ms);
        self.check();
        Ok(())
    }

    /// What a write without a context supersedes, if it was created at `created_ms`: everything that is known here, but
    /// for siblings whose writes were created later; and, if it is sent once more, for those that were minted since
    /// `first_sent`.
    ///
    /// A coordinator may come to a repeated write late, when others have taken it long ago and their writers have gone
    /// on from it. If it superseded those, each would hide the other, and nothing would be left. When writes were created
    /// is told by the clocks of their writers, which may be wrong, and by whole milliseconds.
    #[must_use]
    pub fn clock_at(&self, created_ms: u64, first_sent: Option<Hlc>) -> Clock {
        let is_later = |sibling: &&Sibling| {
            sibling.write_id.created_ms() > created_ms
                || first_sent.is_some_and(|first| sibling.newest_dot().hlc >= first)
        };
        if !self.siblings.iter().any(|sibling| is_later(&sibling)) {
            return self.clock.clone();
        }
        let mut clock = Clock::new();
        let earlier = self.siblings.iter().filter(|sibling| !is_later(sibling));
        for dot in earlier.flat_map(|sibling| &sibling.dots) {
            clock.insert(*dot);
        }
        clock
    }

    /// Takes in everything that another replica knows of the key. Says whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let merged = self.merged(other);
        let changed = merged != *self;
        *self = merged;
        changed
    }

    /// The union of what two replicas know. Commutative, associative, idempotent.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut superseded = Vec::new();
        let mut siblings: Vec<Sibling> =
            Vec::with_capacity(self.siblings.len().max(other.siblings.len()));
        for (mine, theirs) in [(self, other), (other, self)] {
            for sibling in &mine.siblings {
                // A dot stays if the other side holds it too, or has never heard of it.
                let (kept, gone): (Vec<_>, Vec<_>) = sibling
                    .dots
                    .iter()
                    .copied()
                    .partition(|d| theirs.holds(*d) || !theirs.clock.covers(*d));
                superseded.extend(gone.iter().map(|d| (sibling.write_id, *d)));
                match siblings.iter_mut().find(|s| s.order() == sibling.order()) {
                    Some(same) => {
                        same.dots.extend(kept);
                        same.dots.sort_unstable();
                        same.dots.dedup();
                    }
                    None if kept.is_empty() => {}
                    None => siblings.push(Sibling {
                        dots: kept,
                        ..sibling.clone()
                    }),
                }
            }
        }
        siblings.sort_by_key(Sibling::order);
        if crate::planted!("drop a sibling when merging") && siblings.len() > 1 {
            siblings.pop();
        }
        if crate::planted!("keep superseded siblings when merging") {
            siblings.clone_from(&self.siblings);
        }
        let mut clock = self.clock.clone();
        clock.merge(&other.clock);
        let mut retired = self.retired.union(&other.retired);
        retired.add(superseded);
        let merged = Self {
            clock,
            siblings,
            retired,
        };
        merged.check();
        merged
    }

    /// How a write with this id must be treated here.
    #[must_use]
    pub fn admit(&self, write_id: WriteId, now_ms: u64) -> Admission {
        let forgotten = write_id.created_ms() <= self.retired.floor_ms()
            || write_id.created_ms().saturating_add(WriteId::HORIZON_MS) < now_ms;
        if crate::planted!("apply a repeated write anew") {
            Admission::New
        } else if self.knows(write_id) {
            Admission::Known
        } else if forgotten {
            Admission::TooOld
        } else if write_id.created_ms() > now_ms.saturating_add(WriteId::HORIZON_MS) {
            Admission::FromTheFuture
        } else {
            Admission::New
        }
    }

    /// Whether a write is remembered here, live or superseded.
    #[must_use]
    pub fn knows(&self, write_id: WriteId) -> bool {
        self.siblings.iter().any(|s| s.write_id == write_id) || self.retired.contains(write_id)
    }

    /// Creation time of the youngest write that was superseded here and is remembered no more, in milliseconds since the Unix
    /// epoch; 0 if all are. What was created later and is not [known](Self::knows) was never applied here.
    #[must_use]
    pub fn remembers_after_ms(&self) -> u64 {
        self.retired.floor_ms()
    }

    /// The concurrent values and tombstones of the key, as a reader sees them.
    pub fn siblings(&self) -> impl Iterator<Item = &Sibling> {
        self.siblings.iter().filter(|s| !self.is_hidden(s))
    }

    /// The same, and those that readers do not see, because their write was superseded under another of its dots.
    pub fn all_siblings(&self) -> impl Iterator<Item = &Sibling> {
        self.siblings.iter()
    }

    /// The one sibling that a reader sees where the last writer wins: the one whose first dot is the latest. A late
    /// repetition of a write makes it no later.
    #[must_use]
    pub fn last_written(&self) -> Option<&Sibling> {
        let first_dot = |sibling: &&Sibling| {
            let dots = sibling.dots.iter();
            dots.map(|dot| (dot.hlc, dot.actor)).min()
        };
        if crate::planted!("let the first writer win") {
            return self.siblings().min_by_key(first_dot);
        }
        self.siblings().max_by_key(first_dot)
    }

    /// From when on readers see nothing, because all was deleted or has expired; not before its latest dot. `None` while a
    /// value is there for ever, and of a key that was never written.
    #[must_use]
    pub fn gone_from(&self, mode: BucketMode) -> Option<Hlc> {
        if self.is_empty() {
            return None;
        }
        let latest = self.clock.latest();
        match mode {
            BucketMode::Siblings => self.siblings().try_fold(latest, |latest, sibling| {
                Some(latest.max(sibling.gone_from()?))
            }),
            BucketMode::Lww => {
                let gone = self.last_written().map(Sibling::gone_from);
                gone.map_or(Some(latest), |from| from.map(|from| latest.max(from)))
            }
        }
    }

    /// What is left of an object that reaches a replica late, and the siblings that are not, of those that readers see.
    ///
    /// The replica has `heard` of some dots, and once had heard of all that exist up to `through`: a sibling from before
    /// of which it knows nothing was deleted, and the deletion is forgotten. Its dots stay in the clock, so whoever
    /// takes in what is left knows that it is superseded.
    #[must_use]
    pub fn without_deleted(&self, heard: &Clock, through: Hlc) -> (Self, Vec<Sibling>) {
        let was_deleted = |dot: &Dot| dot.hlc <= through && !heard.covers(*dot);
        let (mut left, mut deleted) = (Vec::with_capacity(self.siblings.len()), Vec::new());
        for sibling in &self.siblings {
            let mut dots = sibling.dots.clone();
            dots.retain(|dot| !was_deleted(dot));
            if dots.is_empty() {
                deleted.extend((!self.is_hidden(sibling)).then(|| sibling.clone()));
            } else {
                left.push(Sibling {
                    dots,
                    ..sibling.clone()
                });
            }
        }
        let left = Self {
            siblings: left,
            ..self.clone()
        };
        (left, deleted)
    }

    /// The earliest dot of a sibling; `None` without siblings.
    #[must_use]
    pub fn oldest_dot(&self) -> Option<Hlc> {
        let dots = self.siblings.iter().flat_map(|sibling| &sibling.dots);
        dots.map(|dot| dot.hlc).min()
    }

    /// The dots under which a write is remembered here, live or superseded.
    pub fn dots_of(&self, write_id: WriteId) -> impl Iterator<Item = Dot> {
        let live = self
            .siblings
            .iter()
            .filter(move |s| s.write_id == write_id)
            .flat_map(|s| s.dots.iter().copied());
        let retired = self
            .retired
            .entries()
            .filter(move |(id, _)| *id == write_id)
            .map(|(_, dot)| *dot);
        live.chain(retired)
    }

    /// Closes the gaps in its clock up to a point ([`Clock::close_gaps`]): for a replica that knows of all dots of the key up to
    /// there that have not been superseded.
    pub fn close_gaps(&mut self, through: Hlc) {
        self.clock.close_gaps(through);
    }

    /// Every dot this object has heard of; sealed into the context of a read.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether nothing was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clock.is_empty()
    }

    /// The sum of the values' lengths, in bytes.
    #[must_use]
    pub fn values_bytes(&self) -> usize {
        self.siblings.iter().map(|s| s.payload.size_bytes()).sum()
    }

    fn holds(&self, dot: Dot) -> bool {
        self.siblings.iter().any(|s| s.dots.contains(&dot))
    }

    /// Whether a sibling's write is known to have been superseded under another of its dots.
    fn is_hidden(&self, sibling: &Sibling) -> bool {
        self.retired.contains(sibling.write_id)
    }

    fn check(&self) {
        debug_assert!(self.siblings.is_sorted_by_key(Sibling::order));
        for sibling in &self.siblings {
            debug_assert!(!sibling.dots.is_empty() && sibling.dots.is_sorted());
            debug_assert!(sibling.dots.iter().all(|d| self.clock.covers(*d)));
        }
    }
}

#[cfg(test)]
mod tests;
