//! Point reads that do not block, and the jobs for those that must.

use super::inner::Inner;
use super::view::{Answer, Place, View};
use crate::cache::ReadMark;
use crate::env::JobClass;
use crate::error::Error;
use crate::hash::key_hash;
use crate::key::Seq;
use crate::table::Fetch;
use arc_swap::Guard;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where a lookup found a value, from the nearest to the farthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Among the rows that are kept because they are read often.
    RowCache,
    /// In a memtable, or in a table that was ingested a moment ago.
    Memtable,
    /// In a table whose block was in memory.
    BlockCache,
    /// In a table whose block had to be read; of a lookup that may block, perhaps not.
    Disk,
}

/// What a point read may leave behind in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeping {
    /// The row, if it is read often, and the block in which it was found.
    #[default]
    Rows,
    /// Only the block. A row that is kept already is found nevertheless.
    Blocks,
}

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value. It may share memory with the engine; copy it if you keep small values for long.
    pub value: Bytes,
    /// The number of the write that stored it. It is not always durable yet: see
    /// [`Db::on_durable`](crate::Db::on_durable).
    pub seq: Seq,
    /// Where it was found.
    pub source: Source,
}

/// The outcome of [`Db::get`](crate::Db::get).
#[derive(Debug)]
#[must_use]
pub enum Read {
    /// Memory held the answer.
    Ready(Result<Option<Found>, Error>),
    /// The disk must be read: run this where blocking is allowed.
    NeedsIo(ReadJob),
}

/// A read that must block. It answers for the moment at which it was made.
pub struct ReadJob {
    inner: Arc<Inner>,
    view: Arc<View>,
    key: Vec<u8>,
    hash: u64,
    at: Seq,
    mark: ReadMark,
    keeping: Keeping,
    /// Newer places have not got the key.
    place: Place,
}

impl ReadJob {
    /// Reads from disk.
    ///
    /// # Errors
    /// The file system failed, or the bytes read are damaged.
    pub fn run(self) -> Result<Option<Found>, Error> {
        check_open(&self.inner)?;
        let key = &self.key;
        let answer = self
            .view
            .get_from(key, self.hash, self.at, Fetch::Blocking, self.place)
            .inspect_err(|error| self.inner.report_damage(error))?;
        let found = offer(&self.inner, key, self.hash, self.mark, self.keeping, answer);
        Ok(found.map(from_disk))
    }
}

impl fmt::Debug for ReadJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadJob")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

pub(super) fn get(inner: &Arc<Inner>, key: &[u8], keeping: Keeping) -> Read {
    match try_get(inner, key, keeping) {
        Ok(read) => read,
        Err(error) => {
            inner.report_damage(&error);
            Read::Ready(Err(error))
        }
    }
}

fn try_get(inner: &Arc<Inner>, key: &[u8], keeping: Keeping) -> Result<Read, Error> {
    check_open(inner)?;
    let hash = key_hash(key);
    let Look { view, at, mark } = begin(inner, hash);
    if let Some(found) = cached_row(inner, key, hash, mark) {
        return Ok(Read::Ready(Ok(Some(found))));
    }
    match view.get(key, hash, at, Fetch::CacheOnly)? {
        Answer::NeedsIo(place) => Ok(Read::NeedsIo(ReadJob {
            inner: Arc::clone(inner),
            view: Guard::into_inner(view),
            key: key.to_vec(),
            hash,
            at,
            mark,
            keeping,
            place,
        })),
        answer => Ok(Read::Ready(Ok(offer(
            inner, key, hash, mark, keeping, answer,
        )))),
    }
}

/// Reads a key on the calling thread, which may block.
pub(super) fn get_blocking(inner: &Inner, key: &[u8]) -> Result<Option<Found>, Error> {
    check_open(inner)?;
    let hash = key_hash(key);
    let Look { view, at, mark } = begin(inner, hash);
    if let Some(found) = cached_row(inner, key, hash, mark) {
        return Ok(Some(found));
    }
    let answer = view
        .get(key, hash, at, Fetch::Blocking)
        .inspect_err(|error| inner.report_damage(error))?;
    Ok(offer(inner, key, hash, mark, Keeping::Rows, answer).map(from_disk))
}

/// What a lookup found that was allowed to read.
fn from_disk(found: Found) -> Found {
    let source = match found.source {
        Source::BlockCache => Source::Disk,
        nearer => nearer,
    };
    Found { source, ..found }
}

/// What a read looks at, and as of when.
struct Look {
    view: Guard<Arc<View>>,
    /// It sees writes up to this number.
    at: Seq,
    /// What the row cache goes by.
    mark: ReadMark,
}

#[inline]
fn begin(inner: &Inner, hash: u64) -> Look {
    begin_with(inner, hash, || {})
}

/// `between` is called at the moment when writes can slip in between what a read looks at and its number.
#[inline]
fn begin_with(inner: &Inner, hash: u64, between: impl FnOnce()) -> Look {
    let rows = &inner.files.rows;
    // It comes from memory while the rest is done.
    rows.prefetch(hash);
    // The epoch first: see the row cache's second invariant.
    let epoch = rows.epoch();
    // Newer writes may lie in memtables that the view does not have.
    let complete = inner.visible();
    let view = inner.view();
    between();
    // The view first, then the number: a version that a later flush or compaction drops is still in this view,
    // and everything in the view's tables is numbered below.
    let at = inner.visible();
    let mark = ReadMark {
        at: complete,
        epoch,
    };
    Look { view, at, mark }
}

fn cached_row(inner: &Inner, key: &[u8], hash: u64, mark: ReadMark) -> Option<Found> {
    let (seq, value) = inner.files.rows.get(key, hash, mark)?;
    let source = Source::RowCache;
    Some(Found { value, seq, source })
}

/// Gives the answer of a lookup that is complete, and offers it to the row cache.
fn offer(
    inner: &Inner,
    key: &[u8],
    hash: u64,
    mark: ReadMark,
    keeping: Keeping,
    answer: Answer,
) -> Option<Found> {
    if let (Answer::Table(Some(found)), Keeping::Rows) = (&answer, keeping) {
        let files = &inner.files;
        files.offer_row(key, hash, &found.value, found.seq, mark);
    }
    answer.complete()
}

pub(super) fn get_with(
    inner: &Arc<Inner>,
    key: &[u8],
    keeping: Keeping,
    done: impl FnOnce(Result<Option<Found>, Error>) + Send + 'static,
) {
    match get(inner, key, keeping) {
        Read::Ready(outcome) => done(outcome),
        Read::NeedsIo(job) => inner
            .env
            .jobs
            .submit(JobClass::Read, Box::new(move || done(job.run()))),
    }
}

pub(super) fn check_open(inner: &Inner) -> Result<(), Error> {
    if inner.closed.load(Ordering::Acquire) {
        Err(Error::Closed)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimFs;
    use crate::{Db, Durability, Env, Options, WriteBatch};
    use std::path::Path;

    fn put(db: &Db, key: &[u8], value: &[u8]) {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        let _ = db.write(batch, Durability::Process).unwrap();
    }

    #[test]
    fn a_write_into_a_memtable_that_the_view_lacks_leaves_no_old_row_behind() {
        let env = Env {
            fs: Arc::new(SimFs::new()),
            ..Env::embedded(1)
        };
        let options = Options {
            cache_bytes: 1 << 20,
            ..Options::tiny()
        };
        let db = Db::open(Path::new("/store"), options, env).unwrap();
        let inner = &db.inner;
        put(&db, b"k", b"old");
        db.flush().unwrap();
        let hash = key_hash(b"k");
        // It reads twice, because a row may only get in at its second touch.
        for newer in [None, Some(b"new")] {
            let look = begin_with(inner, hash, || {
                if let Some(newer) = newer {
                    put(&db, b"other", b"");
                    inner.seal(&mut inner.front(), 0);
                    put(&db, b"k", newer);
                }
            });
            let answer = look.view.get(b"k", hash, look.at, Fetch::Blocking).unwrap();
            offer(inner, b"k", hash, look.mark, Keeping::Rows, answer);
        }
        let found = get_blocking(inner, b"k").unwrap().unwrap();
        assert_eq!(&found.value[..], b"new");
        db.flush().unwrap();
        let found = get_blocking(inner, b"k").unwrap().unwrap();
        assert_eq!(&found.value[..], b"new");
    }
}
