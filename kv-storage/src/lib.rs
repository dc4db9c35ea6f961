//! A log-structured storage engine: bytes in, bytes out.
//!
//! [`Db`] is an ordered map from keys to values that survives crashes. It knows nothing of nodes,
//! versions or networks, and anyone can use it as an embedded store:
//!
//! ```
//! use kv_storage::{Db, Durability, Env, Options, WriteBatch};
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path();
//! let db = Db::open(path, Options::default(), Env::embedded(42))?;
//! db.blocking().put(b"apple", b"red")?; // on return, it survives power loss
//! let mut batch = WriteBatch::new(); // all or nothing
//! batch.put(b"pear", b"green");
//! batch.delete(b"apple");
//! db.blocking().write(batch, Durability::Sync)?;
//! assert_eq!(db.blocking().get(b"apple")?, None);
//! let snapshot = db.snapshot(); // later writes do not change it
//! for entry in snapshot.iter::<&[u8]>(..).rev() {
//!     let entry = entry?;
//!     println!("{:?} = {:?}", entry.key, entry.value);
//! }
//! db.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//! 1. A write whose [`Commit`] reported success with [`Durability::Sync`] survives power loss; with
//!    [`Durability::Process`] it survives the death of the process, and power loss takes only a
//!    suffix of such writes, never one from the middle.
//! 2. A batch is applied whole or not at all, for readers and after a crash.
//! 3. What cannot be verified is not returned: damaged bytes give [`Error::Corrupt`] with file, offset
//!    and the range of keys that cannot be answered. A damaged table does not keep the store from opening,
//!    and everything outside of that range goes on; [`Events`] tells of the damage.
//! 4. After a failed sync of the log, the manifest or the directory the store takes no more writes, because nobody
//!    knows what is on disk; it goes on serving durable data. A table whose sync failed is written anew. A full disk is
//!    no such failure: writes are refused until there is room again, and then go on by themselves.
//! 5. It starts no thread, never sleeps, and reads no clock but the one in [`Env`]. Whatever may
//!    block is a job handed to [`Jobs`]; only [`Db::open`], [`Db::flush`], [`Db::close`],
//!    [`Db::checkpoint`], [`Db::blocking`], [`Ingest::push`], [`Ingest::commit`], [`ReadJob::run`], [`Commit::wait`]
//!    and snapshot reads block. With the same calls, seed and jobs run inline, it writes the same bytes.
//!
//! # Life of a put and of a get
//! A put (`db/write.rs`) takes one short lock (`db/front.rs`), in which it gets its number, is copied into the
//! mapped log (`wal/`), and takes room in the memtable (`memtable/`); it is written there without the lock, and
//! becomes visible in order (`db/publisher.rs`). Whoever needs it durable leads or joins a sync of the
//! log (`db/group_commit.rs`). A full memtable is sealed; a flush job
//! (`db/flush.rs`) writes it as a table (`table/`) into level 0, records that in the manifest
//! (`version/`), and lets its log segment go. Large values go to blob files beside it (`blob/`), and pointers
//! into the table. Compaction jobs (`db/compact.rs`, decided by `compaction/pick.rs`) merge tables downward in
//! steps; they copy pointers, and move values only out of blob files that are mostly garbage
//! (`compaction/separation.rs`).
//!
//! A get (`db/read.rs`) hashes its key once. It asks the row cache (`cache/row.rs`), then looks through
//! one immutable view (`db/view.rs`): memtables and new ingests from new to old, then tables from new to old. A table
//! (`table/reader.rs`) asks its filter, finds the block in its index, and the entry in the block by
//! fingerprint. If a block is not in the cache (`cache/block.rs`), or the value lies in a blob file, the caller
//! gets a job that reads it. A scan (`db/scan.rs`) merges cursors over the same view (`merge/`), with
//! read-ahead, and reads large values one by one as it lends them. A page of a scan ends with its work, however little
//! it found, so that rows that were deleted and not compacted yet hold up no reader.
//!
//! A deleted range (`ranges/`) hides older versions of its keys: each source of a read is asked for its ranges
//! too (`merge/cover.rs` for scans), and compaction drops what they hide (`compaction/retain.rs`,
//! `compaction/covered.rs`).
//!
//! An ingest (`db/ingest.rs`) writes sorted rows straight to tables. Its commit is one frame of the log that names
//! them (`ingested.rs`); they wait among the sealed memtables (`db/layer.rs`), where readers find them, until the
//! flush job enters them in level 0. Their rows are stored without a number: the manifest knows it.
//!
//! Recovery (`db/recovery.rs`) replays the log; formats are in `docs/formats/`.
//!
//! Whoever derives something from the contents, as a tree of hashes, keeps it in step by a [`WriteObserver`], which
//! is told of each write in the order of the log, also when it is replayed, and a [`FlushAttachment`], which
//! stores the derived state together with the tables that it belongs to (`hooks.rs`).
//!
//! # Looking after a store
//! [`Db::checkpoint`] makes a copy by hard links, [`Db::scrub`] reads everything in the background. [`tools`],
//! and the program `kv-storage` over it, verify, show and repair a store that nobody has open. On a full
//! disk, `db/ballast.rs` and `db/edits.rs` keep the store whole; `table/reader/damage.rs` and `merge/ahead.rs`
//! fence damage, of a large value to its key.

mod batch;
mod blob;
mod cache;
mod checksum;
mod coding;
mod compaction;
mod compress;
mod db;
mod env;
mod error;
mod files;
pub mod fs;
#[cfg(test)]
mod golden;
mod hash;
mod hooks;
mod ingested;
mod key;
mod log;
mod memtable;
mod merge;
mod options;
mod planted;
mod prefetch;
mod range;
mod ranges;
pub mod sim;
mod table;
pub mod tools;
mod version;
mod wal;

pub use batch::WriteBatch;
pub use compress::Compression;
pub use db::{
    Blocking, BlockingError, Commit, CutReport, Db, Durability, Entry, Found, Ingest, IngestError,
    Iter, Keeping, LevelStats, Read, ReadJob, ScanPage, ScanRequest, ScrubCursor, ScrubReport,
    Snapshot, Source, Stats,
};
pub use env::{Clock, Env, InlineJobs, Job, JobClass, Jobs, MonotonicClock};
pub use error::{Error, OpenError, WriteError};
pub use hooks::{
    Attachment, CompactionFilter, Damage, Events, Filtered, FlushAttachment, Hooks,
    MAX_ATTACHMENT_BYTES, MAX_NOTE_BYTES, Observed, Verdict, WriteKind, WriteObserver,
};
pub use key::Seq;
pub use options::{MAX_KEY_BYTES, Options, TableOptions};
pub use range::KeyRange;
