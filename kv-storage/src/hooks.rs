//! What a caller may hook into: compaction, flushes, and news about single entries and files.
//!
//! All hooks are called from jobs, by writers in their turn, or under the engine's lock, so they must be quick and
//! must not call the store.

use crate::batch::Operations;
use crate::key::{OperationKind, Seq};
use crate::range::KeyRange;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The hooks of one open store. None of them is needed.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Decides about entries that compaction meets.
    pub filter: Option<Arc<dyn CompactionFilter>>,
    /// Bytes to be stored with each flush.
    pub attach: Option<Arc<dyn FlushAttachment>>,
    /// Is told of every write, in their order.
    pub observer: Option<Arc<dyn WriteObserver>>,
    /// Is told what happened to entries and files.
    pub events: Option<Arc<dyn Events>>,
}

impl Hooks {
    /// The bytes that belong to the state after the write `seq`.
    pub(crate) fn attachment(&self, seq: Seq) -> Option<Vec<u8>> {
        let bytes = self.attach.as_ref()?.attachment(seq);
        if bytes.len() > MAX_ATTACHMENT_BYTES {
            tracing::error!(
                bytes = bytes.len(),
                limit = MAX_ATTACHMENT_BYTES,
                "a flush attachment is over its limit and is not stored"
            );
            return None;
        }
        Some(bytes)
    }

    /// Tells the observer of a batch whose first operation is numbered `first`.
    #[inline]
    pub(crate) fn observe(&self, first: Seq, operations: Operations<'_>) {
        if let Some(observer) = &self.observer {
            for (seq, operation) in (first.0..).zip(operations) {
                observer.wrote(&Observed {
                    seq: Seq(seq),
                    kind: match operation.kind {
                        OperationKind::Put => WriteKind::Put,
                        OperationKind::Delete => WriteKind::Delete,
                        OperationKind::DeleteRange => WriteKind::DeleteRange,
                    },
                    key: operation.key,
                    value: operation.value,
                    note: operation.note,
                });
            }
        }
    }

    /// Tells the observer of an ingest.
    pub(crate) fn observe_ingest(&self, seq: Seq, note: &[u8]) {
        if let Some(observer) = &self.observer {
            observer.wrote(&Observed {
                seq,
                kind: WriteKind::Ingest,
                key: &[],
                value: &[],
                note,
            });
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("filter", &self.filter.is_some())
            .field("attach", &self.attach.is_some())
            .field("observer", &self.observer.is_some())
            .field("events", &self.events.is_some())
            .finish()
    }
}

/// What becomes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It goes, and older versions of its key do not come back. The reason is the filter's own, for counters
    /// and [`Events::filtered`].
    Drop(u32),
    /// It gets these bytes as its value, and keeps its number. With more than 512 MiB it stays as it is.
    Rewrite(Vec<u8>),
}

/// Decides which entries compaction keeps: expiry, for example.
///
/// It must not panic: the compaction or flush that asked would count as under way for ever, and closing would wait
/// for it.
///
/// It is asked about puts only, and only about the newest version of a key that a compaction meets, if
/// no snapshot can see that version or an older one. An entry may be met never, once, or often, and a newer
/// version that the compaction does not see may hide it already: so the verdict must follow from the
/// arguments and from time alone.
///
/// With a filter, a compaction reads each large value that it meets from its blob file, one read for each,
/// where without one it only copies pointers ([`Options::blob_value_bytes`](crate::Options::blob_value_bytes)). It
/// is not asked about a large value that is damaged: that stays.
pub trait CompactionFilter: Send + Sync {
    /// The verdict on an entry.
    fn decide(&self, key: &[u8], seq: Seq, value: &[u8]) -> Verdict;

    /// When the entry should be met again, by any measure of time that only grows; `None` is never. A
    /// table with an entry for which [`now`](Self::now) has reached this is compacted soon. A flush asks too.
    fn expires(&self, key: &[u8], value: &[u8]) -> Option<u64> {
        let _ = (key, value);
        None
    }

    /// The present time in that measure; `None` if nothing expires.
    fn now(&self) -> Option<u64> {
        None
    }
}

/// Longest attachment in bytes.
pub const MAX_ATTACHMENT_BYTES: usize = 1 << 20;

/// Supplies bytes that become durable together with a flush, in one step.
pub trait FlushAttachment: Send + Sync {
    /// The bytes that belong to the store's contents after exactly the writes up to `seq`; at most
    /// [`MAX_ATTACHMENT_BYTES`].
    ///
    /// Called when a memtable is sealed, under the engine's lock: no later write has begun. Also during
    /// recovery, for memtables that the log fills. [`Db::attachment`](crate::Db::attachment) returns
    /// them once that memtable is in a table.
    fn attachment(&self, seq: Seq) -> Vec<u8>;
}

/// Bytes that were stored with a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// All writes up to this one are in tables, and the bytes belong to the state after them.
    pub seq: Seq,
    /// What [`FlushAttachment::attachment`] returned.
    pub bytes: Vec<u8>,
}

/// Longest note in bytes.
pub const MAX_NOTE_BYTES: usize = 255;

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteKind {
    /// The key was given the value.
    Put,
    /// The key was deleted.
    Delete,
    /// All keys from the key on and before the value were deleted.
    DeleteRange,
    /// Many rows came in at once by [`Db::ingest`](crate::Db::ingest). They are not told; key and value are empty.
    Ingest,
}

/// One operation of a write, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observed<'a> {
    /// Its number.
    pub seq: Seq,
    /// What it did.
    pub kind: WriteKind,
    /// The key, or the first key of a deleted range.
    pub key: &'a [u8],
    /// The value that the key was given; empty for a delete; for a deleted range the first key behind it.
    pub value: &'a [u8],
    /// What the writer noted with [`put_noted`](crate::WriteBatch::put_noted); empty if nothing. Notes are kept
    /// in the log only, so no reader meets them.
    pub note: &'a [u8],
}

/// Keeps something that is derived from the contents in step with the log, such as a tree of hashes.
///
/// It is told of each operation once, in the order of their numbers and never of two at a time, before
/// readers can see the operation. When a store is opened, that begins with what is in the log only. So together with
/// [`FlushAttachment`] nothing is lost and nothing met twice: what [`begins`](Self::begins) hands over, and all
/// that was observed since, make the present state, and [`attachment(seq)`](FlushAttachment::attachment) is
/// called when exactly the operations up to `seq` have been observed.
///
/// Writers wait for it, so it must be quick. It must not call the store, and must not panic: later writes would
/// wait for ever. Give each open an observer of its own; one whose open failed has seen a part of the log.
pub trait WriteObserver: Send + Sync {
    /// The first call of an open: all writes up to `flushed` are in tables and will not be observed. `attachment`
    /// is what was stored with them; if there is none although `flushed` is not 0, the derived state must be made
    /// from the contents.
    fn begins(&self, flushed: Seq, attachment: Option<&[u8]>) {
        let _ = (flushed, attachment);
    }

    /// An operation becomes visible.
    ///
    /// It may not be durable yet. If it is lost by a crash, the next open does not observe it; so nothing that
    /// outlives the process may be derived from it otherwise than by an attachment.
    fn wrote(&self, write: &Observed<'_>);
}

/// An entry that the filter changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    /// Its key.
    pub key: Vec<u8>,
    /// The number of the write that stored it.
    pub seq: Seq,
    /// The reason of [`Verdict::Drop`]; `None` if it was rewritten.
    pub dropped: Option<u32>,
}

/// Damage that was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where the damaged structure begins, in bytes from the start of the file.
    pub offset: u64,
    /// Which check failed.
    pub what: &'static str,
    /// Keys outside of this range are not touched by the damage.
    pub range: KeyRange,
    /// True if reads in the range may fail; false if the damage only makes them slower.
    pub hides_data: bool,
}

/// Is told what happened. Called without a lock, mostly from jobs; of entries, after it became durable.
pub trait Events: Send + Sync {
    /// The filter's verdicts about these entries, in the order of their keys, are in force.
    fn filtered(&self, entries: &[Filtered]) {
        let _ = entries;
    }

    /// Bytes on disk are damaged: fetch the range again from elsewhere. Reads outside of it go on; compaction
    /// leaves the table alone from now on, and of a blob file the damaged value. Told once for each damaged place and open, by whatever meets it
    /// first: opening, a read (on its own thread), a compaction, a scrub.
    fn damaged(&self, damage: &Damage) {
        let _ = damage;
    }
}
