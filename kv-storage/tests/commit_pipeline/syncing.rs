//! The group commit: writers that wait, callbacks, flushes, closing, and a sync that fails.

use crate::SCHEDULES;
use crate::group_commit::{GroupCommit, Log, Synced};
use shuttle::rand::Rng;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes of each write in the log.
const SIZE: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    Failed,
    Closed,
}

/// What the group commit works on.
struct Store {
    commits: GroupCommit<Halt>,
    disk: Mutex<Disk>,
    /// Submitted jobs, each a thread.
    jobs: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Disk {
    /// The newest write in the log.
    last: u64,
    /// The newest write that was synced, and the newest one in tables.
    synced: u64,
    flushed: u64,
    /// Somebody syncs.
    is_busy: bool,
    syncs: u64,
    /// This sync fails.
    fails_at: Option<u64>,
    has_failed: bool,
    /// Something else failed: from then on readers see only this much, and what is flushed.
    shown: Option<u64>,
    /// The newest write of which somebody was told that it is durable.
    acked: u64,
    /// No more writes are accepted.
    is_closed: bool,
    /// The files belong to somebody else.
    is_left: bool,
    told: u64,
    untold: u64,
}

impl Disk {
    fn survivors(&self) -> u64 {
        self.synced.max(self.flushed)
    }
}

impl Log for Arc<Store> {
    fn sync(&self) -> Option<Synced> {
        let mut disk = self.disk.lock().unwrap();
        assert!(!disk.is_left, "synced after the end");
        assert!(!disk.has_failed, "synced after a failure");
        assert!(!disk.is_busy, "two syncs at once");
        disk.is_busy = true;
        disk.syncs += 1;
        let (last, number) = (disk.last, disk.syncs);
        drop(disk);
        thread::yield_now();
        let mut disk = self.disk.lock().unwrap();
        assert!(!disk.is_left, "the files were left during a sync");
        disk.is_busy = false;
        if disk.fails_at == Some(number) {
            disk.has_failed = true;
            drop(disk);
            self.commits.halt(&Halt::Failed, Halt::Failed);
            return None;
        }
        disk.synced = disk.synced.max(last);
        Some(Synced {
            last,
            position: last * SIZE,
            calls: 1,
        })
    }

    fn submit(&self) {
        let store = Self::clone(self);
        let job = thread::spawn(move || store.commits.run_job(&store));
        self.jobs.lock().unwrap().push(job);
    }
}

impl Store {
    /// Adds a write to the log, unless the store is closed.
    fn append(&self) -> Option<u64> {
        let mut disk = self.disk.lock().unwrap();
        if disk.is_closed {
            return None;
        }
        disk.last += 1;
        Some(disk.last)
    }

    fn check(&self, seq: u64, outcome: Result<(), Halt>) {
        let mut disk = self.disk.lock().unwrap();
        match outcome {
            Ok(()) => {
                assert!(seq <= disk.survivors(), "{seq} may be lost: {disk:?}");
                disk.acked = disk.acked.max(seq);
            }
            Err(Halt::Failed) => assert!(disk.has_failed || disk.shown.is_some()),
            Err(Halt::Closed) => panic!("closing syncs what was accepted before: {disk:?}"),
        }
    }
}

/// Writes and waits.
fn write_and_wait(store: &Arc<Store>) {
    if let Some(seq) = store.append() {
        store.check(seq, store.commits.wait(store, seq));
    }
}

fn write_and_wait_twice(store: &Arc<Store>) {
    write_and_wait(store);
    write_and_wait(store);
}

/// Writes and wants to be called.
fn write_with_callback(store: &Arc<Store>) {
    for _ in 0..2 {
        let Some(seq) = store.append() else { return };
        store.commits.ask(store, seq);
        store.disk.lock().unwrap().untold += 1;
        let (told, number) = (Arc::clone(store), seq);
        let call = move |outcome| {
            told.check(number, outcome);
            told.disk.lock().unwrap().told += 1;
        };
        store.commits.notify(store, seq, Box::new(call));
    }
}

/// Writes what may be synced later, when a timer comes.
fn write_for_later(store: &Arc<Store>) {
    let Some(_) = store.append() else { return };
    if store.commits.begin_delay(Duration::ZERO) {
        thread::yield_now();
        store.commits.end_delay();
        let last = store.disk.lock().unwrap().last;
        store.commits.ask(store, last);
    }
}

/// Puts what was written so far into tables.
fn flush(store: &Arc<Store>) {
    let mut disk = store.disk.lock().unwrap();
    if disk.is_closed || disk.has_failed {
        return;
    }
    disk.flushed = disk.last;
    let flushed = disk.flushed;
    drop(disk);
    store.commits.note_flushed(flushed);
}

/// Something else than a sync of the log failed.
fn poison(store: &Arc<Store>) {
    let mut disk = store.disk.lock().unwrap();
    disk.shown = Some(store.commits.stop(Halt::Failed));
    drop(disk);
    store.commits.halt(&Halt::Failed, Halt::Failed);
}

/// Closes the store as it is done, while others are at work.
fn close(store: &Arc<Store>) {
    let mut disk = store.disk.lock().unwrap();
    disk.is_closed = true;
    let last = disk.last;
    drop(disk);
    let outcome = store
        .commits
        .wait(store, last)
        .and_then(|()| store.commits.wait_for_position(store, last * SIZE));
    store.check(last, outcome);
    if outcome.is_ok() {
        store.commits.halt(&Halt::Closed, Halt::Closed);
    }
    store.commits.wait_for_end();
    store.disk.lock().unwrap().is_left = true;
}

fn store(fails_at: Option<u64>) -> Arc<Store> {
    let disk = Disk {
        fails_at,
        ..Disk::default()
    };
    Arc::new(Store {
        commits: GroupCommit::new(0, 0),
        disk: Mutex::new(disk),
        jobs: Mutex::default(),
    })
}

fn run(fails: bool, roles: &[fn(&Arc<Store>)]) {
    let fails_at = fails.then(|| shuttle::rand::thread_rng().gen_range(1..4));
    let store = store(fails_at);
    let spawn = |role: &fn(&Arc<Store>)| {
        let (role, store) = (*role, Arc::clone(&store));
        thread::spawn(move || role(&store))
    };
    let threads: Vec<_> = roles.iter().map(spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    loop {
        let Some(job) = store.jobs.lock().unwrap().pop() else {
            break;
        };
        job.join().unwrap();
    }
    let disk = store.disk.lock().unwrap();
    assert_eq!(disk.told, disk.untold, "every callback is called once");
    assert!(store.commits.durable() <= disk.survivors(), "{disk:?}");
    let shown = disk.shown.map_or(u64::MAX, |it| it.max(disk.flushed));
    assert!(disk.acked <= shown, "acknowledged unseen: {disk:?}");
    assert!(store.commits.position() <= disk.synced * SIZE, "{disk:?}");
    assert!(store.commits.calls() + u64::from(disk.has_failed) == disk.syncs);
}

fn check(fails: bool, roles: &'static [fn(&Arc<Store>)]) {
    shuttle::check_random(move || run(fails, roles), SCHEDULES);
    shuttle::check_pct(move || run(fails, roles), SCHEDULES, 3);
}

#[test]
fn everyone_who_waits_is_told_and_what_they_wrote_is_durable() {
    check(
        false,
        &[
            write_and_wait_twice,
            write_and_wait_twice,
            write_with_callback,
            flush,
        ],
    );
}

#[test]
fn one_told_to_lead_that_a_flush_covers_passes_the_lead_on() {
    check(
        false,
        &[write_and_wait, write_and_wait, write_and_wait, flush],
    );
}

#[test]
fn a_sync_that_a_timer_asks_for_is_made_beside_others() {
    check(
        false,
        &[write_and_wait_twice, write_for_later, flush, flush],
    );
}

#[test]
fn a_sync_that_fails_ends_all_waiting_and_is_not_tried_again() {
    check(
        true,
        &[
            write_and_wait_twice,
            write_and_wait_twice,
            write_with_callback,
            flush,
        ],
    );
}

#[test]
fn what_is_acknowledged_is_shown_after_another_failure() {
    check(
        false,
        &[
            write_and_wait_twice,
            write_and_wait_twice,
            write_with_callback,
            poison,
        ],
    );
}

#[test]
fn closing_waits_for_the_last_sync_and_no_other_follows() {
    check(
        false,
        &[
            write_and_wait_twice,
            write_with_callback,
            write_for_later,
            close,
        ],
    );
    check(
        true,
        &[write_and_wait_twice, write_and_wait_twice, flush, close],
    );
}
