//! Flush: writes the oldest sealed memtable to a table in level 0, then lets its log go. Ingested tables wait in the
//! same queue; they are there already, and only enter level 0.

use super::front::Sealed;
use super::inner::Inner;
use super::layer::Layer;
use super::state::Task;
use super::{ballast, covered, segments};
use crate::blob::{BlobBuilder, BlobSpec, BlobSummary};
use crate::compaction::{Finished, Place, Retention, Rewrite, Separation, TableSink};
use crate::error::Error;
use crate::files::Numbered;
use crate::key::Seq;
use crate::memtable::Memtable;
use crate::merge::{Direction, Merge, Start};
use crate::ranges::Fragments;
use crate::table::{Table, TableBuilder, TableSpec, TableSummary};
use crate::version::{Edit, NewTable};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

/// The flush job.
pub(super) fn job(inner: &Arc<Inner>) {
    {
        let mut state = inner.state();
        if state.flush_task == Task::Scheduled {
            state.flush_task = Task::Idle;
        }
    }
    // The failure was noted; it is tried again later.
    let _ = flush_oldest(inner).and_then(|()| covered::drop_tables(inner));
    inner.schedule();
}

/// Flushes all that was written before the call. Blocks, and does the work itself where no job does it.
pub(super) fn flush_all(inner: &Arc<Inner>) -> Result<(), Error> {
    let target = {
        let mut front = inner.front();
        if let Some(cause) = &front.gate.poison {
            // The store may be about to be told, too.
            let cause = Arc::clone(cause);
            return Err(Error::Poisoned { cause });
        }
        if !front.gate.closed && !front.active.is_empty() {
            inner.seal(&mut front, 0);
        }
        front.last
    };
    loop {
        let state = inner.state();
        if let Some(halt) = state.halted() {
            return Err(halt);
        }
        let oldest = inner.front().sealed.front().map(|sealed| sealed.last);
        if oldest.is_none_or(|last| last > target) {
            break;
        }
        if state.flush_task == Task::Running {
            drop(inner.wait(state));
        } else {
            drop(state);
            flush_oldest(inner)?;
        }
    }
    inner.schedule();
    Ok(())
}

/// Flushes one memtable, or installs the tables of one ingest, unless another thread does or there is none.
pub(super) fn flush_oldest(inner: &Arc<Inner>) -> Result<(), Error> {
    let sealed = {
        let mut state = inner.state();
        let Some(sealed) = inner.front().sealed.front().cloned() else {
            return Ok(());
        };
        if state.halted().is_some() || state.flush_task == Task::Running {
            return Ok(());
        }
        state.flush_task = Task::Running;
        sealed
    };
    // Writers may still be copying into it.
    inner.publisher.wait_for(sealed.last.0);
    // Only now: a snapshot that is taken from here on sees all of it, but one of before may see less.
    let snapshots: Vec<Seq> = inner.state().snapshots.keys().copied().collect();
    let prepared = match prepare(inner, &sealed, &snapshots) {
        Err(error) if error.is_no_space() && ballast::give_back(inner) => {
            prepare(inner, &sealed, &snapshots)
        }
        outcome => outcome,
    };
    let outcome = prepared.and_then(|run| {
        sync_floor(inner, &sealed)?;
        install(inner, &sealed, run)
    });
    {
        let mut state = inner.state();
        state.flush_task = Task::Idle;
        if let Err(error) = &outcome
            && state.halted().is_none()
        {
            inner.note_failure(&mut state, "flush", error);
        }
    }
    inner.note_progress();
    if outcome.is_ok() {
        // It is in tables now, whether the log was synced or not. Only now, because those who are told may flush.
        inner.commits.note_flushed(sealed.last.0);
    }
    inner.files.empty_trash();
    outcome
}

/// The manifest will name `floor` as the oldest needed log segment, so its header must be durable. What lies in
/// front of it in the log is in tables then, and is never synced for their sake: often it never gets to the disk.
fn sync_floor(inner: &Inner, sealed: &Sealed) -> Result<(), Error> {
    if inner.commits.position() >= sealed.position {
        return Ok(());
    }
    let floor = inner.front().wal.segment(sealed.floor);
    match floor {
        Some(segment) => inner.sync_segments(&[segment]),
        None => Ok(()),
    }
}

/// A run for level 0.
struct NewRun {
    /// `None`: each table is a run of its own number.
    number: Option<u64>,
    tables: OpenTables,
}

fn prepare(inner: &Arc<Inner>, sealed: &Sealed, snapshots: &[Seq]) -> Result<NewRun, Error> {
    match &sealed.layer {
        Layer::Memtable(table) => Ok(NewRun {
            number: None,
            tables: write_tables(inner, table, snapshots)?,
        }),
        Layer::Tables(run) => {
            let tables = run.tables.iter().map(|table| {
                let opened = Opened {
                    table: table.summary.clone(),
                    reader: Arc::clone(&table.reader),
                    blobs: Vec::new(),
                };
                (opened.table.file, opened)
            });
            Ok(NewRun {
                // The files were numbered when the ingest began, perhaps before those of older runs. Flushes come
                // one at a time, so a number of this moment is in order.
                number: Some(inner.state().allocate_file()),
                tables: tables.collect(),
            })
        }
    }
}

fn write_tables(
    inner: &Arc<Inner>,
    table: &Arc<Memtable>,
    snapshots: &[Seq],
) -> Result<OpenTables, Error> {
    let mut merge = Merge::new(Direction::Forward);
    merge.add_memtable(table, Start::Edge);
    let mut sink = NewFiles::new(inner, TableSpec::upper(&inner.options));
    let ranges = Fragments::merge(table.ranges().iter().map(|part| &**part));
    let mut rewrite = Rewrite::flush(
        merge,
        Retention::new(snapshots.to_vec(), &ranges),
        Separation::new(&inner.options, BTreeSet::new()),
        inner.env.hooks.filter.as_ref(),
    );
    let outcome = rewrite
        .step(u64::MAX, &mut sink)
        .map(|_| rewrite.take_finished(rewrite.finished().len()));
    outcome
        .and_then(|tables| open_tables(inner, tables))
        .inspect_err(|_| sink.discard())
}

fn install(inner: &Arc<Inner>, sealed: &Sealed, run: NewRun) -> Result<(), Error> {
    let NewRun { number, mut tables } = run;
    let bytes: u64 = tables.values().map(|opened| opened.table.size_bytes).sum();
    let blob_bytes = blob_bytes(&tables);
    measure_ranges(
        inner,
        &mut tables,
        Place {
            level: 0,
            run: u64::MAX,
        },
    );
    let entries: u64 = tables.values().map(|opened| opened.table.entries).sum();
    let covered: u64 = tables
        .values()
        .map(|opened| opened.table.covered_bytes)
        .sum();
    let mut released = Vec::new();
    inner.install(
        |state| {
            let added = tables.values().map(|opened| {
                // Flushes come in order, so the file number orders the runs.
                NewTable {
                    level: 0,
                    run: number.unwrap_or(opened.table.file),
                    table: opened.table.clone(),
                }
            });
            let edit = Edit {
                added: added.collect(),
                blobs: blobs_of(&tables),
                log_floor: Some(sealed.floor),
                flushed: Some(sealed.last),
                attachment: sealed.attachment.clone(),
                ..Edit::default()
            };
            let Ok(version) = state.version.apply(&edit, |new| {
                Ok::<_, Infallible>(take_table(&mut tables, new))
            });
            (edit, Arc::new(version))
        },
        |state, front| {
            front.sealed.pop_front();
            state.attachment.clone_from(&sealed.attachment);
            match sealed.layer {
                Layer::Memtable(_) => {
                    state.counts.flushes += 1;
                    state.counts.table_written_bytes += bytes;
                    state.counts.flush_written_bytes += bytes;
                    state.counts.blob_written_bytes += blob_bytes;
                }
                // Counted when they were committed.
                Layer::Tables(_) => {}
            }
            let hidden = state.version.blob_bytes_of(entries);
            state.roster.note_flushed(bytes + covered + hidden);
            released = front.wal.release_below(sealed.floor);
        },
    )?;
    segments::recycle(inner, released);
    segments::trim(inner);
    segments::look_at_space(inner, 0);
    Ok(())
}

/// Notes how much the deleted ranges of new tables hide in what is older than their run.
pub(super) fn measure_ranges(inner: &Inner, tables: &mut OpenTables, place: Place) {
    let version = Arc::clone(&inner.state().version);
    for opened in tables.values_mut().filter(|it| it.table.ranges > 0) {
        opened.table.covered_bytes = version.covered_bytes(opened.reader.ranges(), place);
    }
}

/// A new table that is open.
pub(super) struct Opened {
    pub table: TableSummary,
    pub reader: Arc<Table>,
    /// Blob files that it is the first to point into.
    pub blobs: Vec<BlobSummary>,
}

/// Open tables by file number.
pub(super) type OpenTables = BTreeMap<u64, Opened>;

/// The blob files that come with new tables.
pub(super) fn blobs_of(tables: &OpenTables) -> Vec<BlobSummary> {
    let blobs = tables.values().flat_map(|opened| &opened.blobs);
    blobs.copied().collect()
}

/// Bytes of the blob files that come with new tables.
pub(super) fn blob_bytes(tables: &OpenTables) -> u64 {
    blobs_of(tables).iter().map(|blob| blob.size_bytes).sum()
}

/// The reader of a table that was opened for this edit.
pub(super) fn take_table(tables: &mut OpenTables, new: &TableSummary) -> Arc<Table> {
    tables
        .remove(&new.file)
        .map(|opened| opened.reader)
        .expect("each added table was opened before")
}

/// Makes new tables, and the blob files that come with them, durable by name and opens them.
pub(super) fn open_tables(inner: &Inner, tables: Vec<Finished>) -> Result<OpenTables, Error> {
    inner.sync_dir()?;
    let open = |finished: Finished| {
        let Finished { table, blobs } = finished;
        let path = Numbered::Table(table.file).path(&inner.dir);
        let reader = Arc::new(Table::open(&inner.files, &path, &table)?);
        let opened = Opened {
            table,
            reader,
            blobs,
        };
        Ok((opened.table.file, opened))
    };
    tables.into_iter().map(open).collect()
}

/// Gives numbers and files to new tables and blob files, and remembers them in case the work is given up.
pub(super) struct NewFiles {
    inner: Arc<Inner>,
    spec: TableSpec,
    created: Vec<Numbered>,
}

impl NewFiles {
    pub(super) fn new(inner: &Arc<Inner>, spec: TableSpec) -> Self {
        Self {
            inner: Arc::clone(inner),
            spec,
            created: Vec::new(),
        }
    }

    /// Leaves the files to the next open.
    pub(super) fn forget(&mut self) {
        self.created.clear();
    }

    /// Those files are in the version now.
    pub(super) fn keep(&mut self, tables: &OpenTables) {
        self.created.retain(|file| {
            !tables.values().any(|opened| {
                let mut blobs = opened.blobs.iter().map(|blob| Numbered::Blob(blob.file));
                Numbered::Table(opened.table.file) == *file || blobs.any(|blob| blob == *file)
            })
        });
    }

    /// Removes all files made so far that are not kept.
    pub(super) fn discard(&mut self) {
        for file in self.created.drain(..) {
            self.inner.files.discard(file.path(&self.inner.dir));
        }
    }
}

impl TableSink for NewFiles {
    fn create(&mut self) -> Result<TableBuilder, Error> {
        let inner = &self.inner;
        let file = inner.state().allocate_file();
        self.created.push(Numbered::Table(file));
        let path = Numbered::Table(file).path(&inner.dir);
        TableBuilder::create(&*inner.env.fs, &path, inner.store, file, self.spec)
    }

    fn create_blob(&mut self) -> Result<BlobBuilder, Error> {
        let inner = &self.inner;
        let file = inner.state().allocate_file();
        self.created.push(Numbered::Blob(file));
        let path = Numbered::Blob(file).path(&inner.dir);
        let spec = BlobSpec::of(&inner.options);
        BlobBuilder::create(&*inner.env.fs, &path, inner.store, file, spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimFs;
    use crate::{
        Db, Durability, Env, Hooks, Observed, Options, Snapshot, WriteBatch, WriteObserver,
    };
    use std::path::Path;
    use std::sync::{Mutex, OnceLock};
    use std::thread;

    /// Takes a snapshot at the last moment before a write is visible, when a flush already waits for that write.
    #[derive(Default)]
    struct Late {
        db: OnceLock<Db>,
        taken: Mutex<Option<Snapshot>>,
    }

    impl WriteObserver for Late {
        fn wrote(&self, write: &Observed<'_>) {
            if write.seq == Seq(2) {
                let db = self.db.get().unwrap();
                while db.inner.state().flush_task != Task::Running {
                    thread::yield_now();
                }
                *self.taken.lock().unwrap() = Some(db.snapshot());
            }
        }
    }

    fn put(db: &Db, value: &[u8]) {
        let mut batch = WriteBatch::new();
        batch.put(b"k", value);
        let _ = db.write(batch, Durability::Process).unwrap();
    }

    #[test]
    fn a_snapshot_taken_while_a_flush_waits_for_a_writer_keeps_what_it_sees() {
        let late = Arc::new(Late::default());
        let env = Env {
            fs: Arc::new(SimFs::new()),
            hooks: Hooks {
                observer: Some(late.clone()),
                ..Hooks::default()
            },
            ..Env::embedded(1)
        };
        let db = Db::open(Path::new("/store"), Options::tiny(), env).unwrap();
        assert!(late.db.set(db.clone()).is_ok());
        put(&db, b"old");
        thread::scope(|scope| {
            scope.spawn(|| put(&db, b"new"));
            // Whoever flushes first would flush the old write alone.
            while db.inner.front().last != Seq(2) {
                thread::yield_now();
            }
            db.flush().unwrap();
        });
        let snapshot = late.taken.lock().unwrap().take().unwrap();
        assert_eq!(snapshot.seq(), Seq(1));
        let seen: Vec<_> = snapshot.iter::<&[u8]>(..).map(Result::unwrap).collect();
        assert_eq!(seen.len(), 1);
        assert_eq!(&seen[0].value[..], b"old");
    }
}
