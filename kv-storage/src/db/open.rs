//! Opening and closing a store.

use super::ballast;
use super::front::{Front, Gate};
use super::group_commit::GroupCommit;
use super::inner::Inner;
use super::layer::Layer;
use super::publisher::Publisher;
use super::recovery::{Continued, Replay, Replayed};
use super::state::{Counts, State, Task};
use super::store_format::{self, Identity};
use super::sync;
use super::sync_gate::SyncGate;
use super::view::View;
use crate::compaction::{Debt, Roster};
use crate::env::Env;
use crate::error::{Error, IoContext, OpenError};
use crate::files::{CURRENT, FORMAT, LOCK, Numbered};
use crate::fs::{self, FileLock, Fs, LockError};
use crate::hash::splitmix64;
use crate::key::Seq;
use crate::memtable::MemoryPool;
use crate::options::Options;
use crate::table::{Damaged, Table, TableFiles, TableSummary};
use crate::version::{Catalog, Edit, Manifest, Version, read_current};
use crate::wal::{SegmentFile, WalWriter};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A new store begins with a log segment of at most this size, so that a small store stays small.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;

/// Size of the log segment that a store begins with on a full disk.
const LEAST_SEGMENT_BYTES: u64 = 4096;

/// Opens a store: identity, manifest, tables, log, then a new segment and a fresh manifest, then cleaning up.
///
/// Up to the fresh manifest nothing is removed, so a crash at any point leaves what a repeated open needs.
pub(super) fn open(dir: &Path, options: Options, env: Env) -> Result<Arc<Inner>, OpenError> {
    options.check()?;
    let fs = Arc::clone(&env.fs);
    fs.create_dir(dir).context("create directory", dir)?;
    let lock = take_lock(&*fs, dir)?;
    let Identity { store, format } = match store_format::read(&*fs, dir)? {
        Some(identity) => identity,
        None => create_identity(&*fs, dir, env.seed)?,
    };
    let names = fs.list(dir).context("list", dir)?;
    let numbered: Vec<Numbered> = names
        .iter()
        .filter_map(|name| Numbered::parse(name))
        .collect();

    let catalog = read_catalog(&*fs, dir, store, &names)?;
    let files = Arc::new(TableFiles::new(Arc::clone(&fs), options.cache_bytes, store));
    let version = open_tables(&files, dir, &catalog.version)?;

    let mut has_ballast = ballast::find(&*fs, dir, &names, &options);
    let segment = catalog.next_file.max(first_unused_number(&names));
    let logs: Vec<u64> = numbered
        .iter()
        .filter_map(|file| log_number(*file))
        .collect();
    let pool = Arc::new(MemoryPool::new(options.memtable_bytes));
    let replay = Replay {
        fs: &*fs,
        dir,
        store,
        files: &files,
        floor: catalog.log_floor,
        flushed: catalog.flushed,
        log_end: catalog.log_end,
        options: &options,
        hooks: &env.hooks,
        pool: &pool,
    };
    if format < store_format::NEWEST {
        // Older software must not meet the files that are written from now on.
        store_format::write(&*fs, dir, store)?;
    }
    // In a store without a manifest, log files are leftovers without frames.
    let logs = if catalog.log_floor == 0 {
        &[][..]
    } else {
        &logs
    };
    if let Some(observer) = &env.hooks.observer {
        observer.begins(catalog.flushed, catalog.attachment.as_deref());
    }
    let replayed = replay.run(logs).inspect_err(|error| {
        // It cannot be tried again, because the observer was told, but the next open finds room.
        if error.is_no_space() && has_ballast {
            ballast::remove(&*fs, dir);
        }
    })?;
    let begin = |segment, segment_bytes| {
        let continued = replay.go_on(&replayed, segment, segment_bytes)?;
        begin_manifest(&replay, replayed.last, continued, &version, &catalog)
    };
    let segment_bytes = options.log_segment_bytes.min(FIRST_SEGMENT_BYTES);
    let begun = match begin(segment, segment_bytes) {
        Err(error) if error.is_no_space() => {
            // What was made is in nobody's way but the space's: CURRENT still names the old manifest.
            let _ = fs.remove(&Numbered::Log(segment).path(dir));
            Manifest::remove_unfinished(&*fs, dir, segment + 1);
            has_ballast = has_ballast && !ballast::remove(&*fs, dir);
            begin(segment + 2, LEAST_SEGMENT_BYTES)
        }
        outcome => outcome,
    };
    let Begun {
        log,
        manifest,
        log_floor,
    } = begun?;
    let used = Used {
        tables: version
            .tables()
            .chain(replayed.ingested())
            .map(|table| table.summary.file)
            .collect(),
        blobs: version.blobs.iter().map(|blob| blob.summary.file).collect(),
        segments: log.segments.into_iter().collect(),
        log_floor,
        manifest: manifest.id(),
    };
    remove_leftovers(&*fs, dir, &names, &used, catalog.misses_files(&names));

    let parts = Parts {
        version,
        replayed,
        pool,
        wal: log.wal,
        manifest,
        log_floor,
        flushed: catalog.flushed,
        attachment: catalog.attachment,
        has_ballast,
        store,
    };
    let inner = Arc::new(assemble(dir, options, env, files, lock, parts));
    let view = inner.view();
    let queued = view.sealed.iter().filter_map(Layer::tables);
    let queued = queued.flat_map(|run| &run.tables);
    for table in view.version.tables().chain(queued) {
        let damaged = table.reader.damaged();
        if let Some(error) = damaged.error() {
            inner.tell_damage(error, matches!(damaged, Damaged::Outline(_)));
        }
    }
    drop(view);
    Ok(inner)
}

/// What an open begins to write.
struct Begun {
    log: Continued,
    manifest: Manifest,
    log_floor: u64,
}

/// Starts the manifest, numbered one above the newest log segment.
fn begin_manifest(
    replay: &Replay<'_>,
    last: Seq,
    log: Continued,
    version: &Version,
    catalog: &Catalog,
) -> Result<Begun, Error> {
    let segment = log.wal.end().0;
    let log_floor = if last == replay.flushed {
        segment
    } else {
        replay.floor
    };
    let id = segment + 1;
    let state = Edit {
        log_floor: Some(log_floor),
        next_file: Some(id + 1),
        flushed: Some(replay.flushed),
        attachment: catalog.attachment.clone(),
        ..version.snapshot()
    };
    Ok(Begun {
        manifest: Manifest::create(replay.fs, replay.dir, replay.store, id, &state)?,
        log,
        log_floor,
    })
}

/// Makes everything durable that was accepted, and gives the directory free.
pub(super) fn close(inner: &Arc<Inner>) -> Result<(), Error> {
    let last = {
        let mut state = inner.state();
        let mut front = inner.front();
        if state.closed {
            return Ok(());
        }
        (state.closed, front.gate.closed) = (true, true);
        inner.closed.store(true, Ordering::Release);
        front.last
    };
    // Writers that were accepted before are still copying into memory.
    inner.publisher.wait_for(last.0);
    // New work no longer begins; what runs now must end before another process may have the directory.
    let mut state = inner.state();
    while state.poison.is_none() && state.manifest.is_none()
        || state.flush_task == Task::Running
        || state.roster.is_running()
        || state.ingests_at_work > 0
        || inner.front().segment_task == Task::Running
    {
        state = inner.wait(state);
    }
    drop(state);
    let outcome = sync::wait(inner, last)
        .and_then(|()| sync::sync_rest(inner))
        .and_then(|()| note_log_end(inner));
    match &outcome {
        Ok(()) => sync::halt(inner, &Error::Closed),
        Err(Error::Poisoned { .. }) => {}
        Err(error) => inner.poison(error),
    }
    // A sync that somebody else leads still uses the files.
    inner.commits.wait_for_end();
    inner.files.empty_trash();
    *inner.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    outcome
}

/// Notes in the manifest where the log ends: damage found later cannot be taken for a torn tail.
fn note_log_end(inner: &Arc<Inner>) -> Result<(), Error> {
    let end = inner.front().wal.end();
    let edit = Edit {
        log_end: Some(end),
        ..Edit::default()
    };
    let mut state = inner.state();
    if let Some(cause) = &state.poison {
        let cause = Arc::clone(cause);
        return Err(Error::Poisoned { cause });
    }
    let Some(mut manifest) = state.manifest.take() else {
        return Ok(());
    };
    let whole = Edit {
        log_floor: Some(state.log_floor),
        flushed: Some(state.flushed),
        attachment: state.attachment.clone(),
        log_end: Some(end),
        ..state.version.snapshot()
    };
    drop(state);
    match inner.write_edit(&mut manifest, &edit, || whole.clone()) {
        Err(error) if error.is_no_space() => {
            // The log is synced. The next open finds its end as after a kill.
            tracing::warn!(%error, "could not note where the log ends");
            Ok(())
        }
        outcome => outcome,
    }
}

pub(crate) fn take_lock(fs: &dyn Fs, dir: &Path) -> Result<Box<dyn FileLock>, OpenError> {
    let path = dir.join(LOCK);
    fs.lock(&path).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked {
            dir: dir.to_path_buf(),
            pid,
        },
        LockError::Io(source) => Error::Io {
            action: "lock",
            path,
            source: Arc::new(source),
        }
        .into(),
    })
}

/// Gives a new store its id. A directory that has a `CURRENT` is no new store.
fn create_identity(fs: &dyn Fs, dir: &Path, seed: u64) -> Result<Identity, Error> {
    if read_current(fs, dir)?.is_some() {
        return Err(Error::corrupt(
            &dir.join(FORMAT),
            0,
            "the store's format file is missing",
        ));
    }
    let store = splitmix64(seed);
    store_format::write(fs, dir, store).inspect_err(|_| {
        // Perhaps its name is not durable, and no later sync would prove that it is. The next open writes it anew.
        let _ = fs.remove(&dir.join(FORMAT));
    })?;
    Ok(Identity {
        store,
        format: store_format::NEWEST,
    })
}

fn read_catalog(fs: &dyn Fs, dir: &Path, store: u64, names: &[String]) -> Result<Catalog, Error> {
    if let Some(id) = read_current(fs, dir)? {
        let catalog = Manifest::read(fs, dir, store, id)?;
        catalog.check_tail(&Numbered::Manifest(id).path(dir), names)?;
        return Ok(catalog);
    }
    // The first open was interrupted, or CURRENT was lost. In the first case no data can be here yet.
    for file in names.iter().filter_map(|name| Numbered::parse(name)) {
        if holds_data(fs, dir, store, file)? {
            return Err(Error::corrupt(
                &dir.join(CURRENT),
                0,
                "CURRENT is missing although the store has data",
            ));
        }
    }
    Ok(Catalog::empty())
}

/// True if a file shows that the store got further than its first open.
pub(crate) fn holds_data(
    fs: &dyn Fs,
    dir: &Path,
    store: u64,
    file: Numbered,
) -> Result<bool, Error> {
    Ok(match file {
        Numbered::Table(_) | Numbered::Blob(_) => true,
        Numbered::Manifest(_) => false,
        Numbered::Log(id) => {
            let path = file.path(dir);
            let bytes = fs::read_all(fs, &path).context("read", &path)?;
            let bytes = bytes.into();
            SegmentFile { id, path, bytes }.holds_frames(store)
        }
    })
}

fn open_tables(
    files: &Arc<TableFiles>,
    dir: &Path,
    version: &Version<()>,
) -> Result<Version, Error> {
    let open = |summary: &TableSummary| {
        let path = Numbered::Table(summary.file).path(dir);
        Table::open_damaged(files, &path, summary).map(Arc::new)
    };
    Version::empty().apply(&version.snapshot(), open)
}

/// A number above those of all files, unfinished ones included.
fn first_unused_number(names: &[String]) -> u64 {
    let finished = |name: &String| Numbered::parse(name.strip_suffix(".tmp").unwrap_or(name));
    names
        .iter()
        .filter_map(finished)
        .map(|file| file.number() + 1)
        .max()
        .unwrap_or(1)
}

fn log_number(file: Numbered) -> Option<u64> {
    match file {
        Numbered::Log(id) => Some(id),
        Numbered::Table(_) | Numbered::Blob(_) | Numbered::Manifest(_) => None,
    }
}

/// The files that the opened store needs.
struct Used {
    tables: BTreeSet<u64>,
    blobs: BTreeSet<u64>,
    segments: BTreeSet<u64>,
    log_floor: u64,
    manifest: u64,
}

/// Removes what an interrupted run left behind. Failures only leave it for the next open.
fn remove_leftovers(fs: &dyn Fs, dir: &Path, names: &[String], used: &Used, keeps_data: bool) {
    for name in names {
        let is_leftover = match Numbered::parse(name) {
            Some(Numbered::Table(id)) => !keeps_data && !used.tables.contains(&id),
            Some(Numbered::Blob(id)) => !keeps_data && !used.blobs.contains(&id),
            // Also spares, and segments behind the place where the log was cut.
            Some(Numbered::Log(id)) => id < used.log_floor || !used.segments.contains(&id),
            Some(Numbered::Manifest(id)) => id != used.manifest,
            None => name.strip_suffix(".tmp").is_some_and(|name| {
                name == CURRENT || name == FORMAT || Numbered::parse(name).is_some()
            }),
        };
        if is_leftover {
            let path = dir.join(name);
            if let Err(error) = fs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "could not remove a leftover file");
            }
        }
    }
}

/// What an open found and made.
struct Parts {
    version: Version,
    replayed: Replayed,
    pool: Arc<MemoryPool>,
    wal: WalWriter,
    manifest: Manifest,
    log_floor: u64,
    flushed: Seq,
    attachment: Option<Vec<u8>>,
    has_ballast: bool,
    store: u64,
}

fn assemble(
    dir: &Path,
    options: Options,
    env: Env,
    files: Arc<TableFiles>,
    lock: Box<dyn FileLock>,
    parts: Parts,
) -> Inner {
    let Parts {
        version,
        replayed,
        pool,
        mut wal,
        manifest,
        log_floor,
        flushed,
        attachment,
        has_ballast,
        store,
    } = parts;
    let Replayed {
        sealed,
        active,
        last,
        durable,
        promised,
        is_torn,
        ..
    } = replayed;
    // Segments below the floor were removed.
    wal.release_below(log_floor);
    let version = Arc::new(version);
    let front = Front {
        last,
        wal,
        active: Arc::new(active),
        pool,
        sealed,
        gate: Gate {
            table_debt: Debt::of_tables(&version, 0, &BTreeSet::new(), &options),
            ..Gate::default()
        },
        needed_segment: 0,
        look: options.min_free_bytes > 0 || (options.ballast_bytes > 0 && !has_ballast),
        ticked: Seq::ZERO,
        has_surplus: false,
        segment_task: Task::Idle,
        attention: false,
        busy: 0,
        ingests: 0,
        ingested_bytes: 0,
    };
    let mut state = State {
        version: Arc::clone(&version),
        next_file: manifest.id() + 1,
        manifest: Some(manifest),
        doubtful: Vec::new(),
        log_floor,
        flushed,
        flush_task: Task::Idle,
        roster: Roster::default(),
        retry_at: Duration::ZERO,
        snapshots: BTreeMap::new(),
        attachment,
        filter_drops: BTreeMap::new(),
        poison: None,
        closed: false,
        ingests_at_work: 0,
        counts: Counts {
            torn_tails: u64::from(is_torn),
            ..Counts::default()
        },
        scrub_at: None,
    };
    state.set_version(Arc::clone(&version));
    let view = View::of(&front, version);
    Inner {
        dir: PathBuf::from(dir),
        options,
        env,
        store,
        files,
        state: Mutex::new(state),
        progress: Condvar::new(),
        steps: AtomicU64::new(0),
        front: Mutex::new(front),
        publisher: Publisher::new(last.0),
        commits: GroupCommit::new(durable.0, promised),
        log_syncs: SyncGate::default(),
        dir_syncs: SyncGate::default(),
        view: ArcSwap::from_pointee(view),
        ceiling: AtomicU64::new(u64::MAX),
        closed: AtomicBool::new(false),
        told: Mutex::default(),
        has_ballast: AtomicBool::new(has_ballast),
        lock: Mutex::new(Some(lock)),
    }
}
