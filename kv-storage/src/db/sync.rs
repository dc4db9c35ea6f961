//! Group commit: one thread syncs the log for everyone who waits.
//!
//! Whoever needs a sync and finds none running leads the next one. It covers everything that was in
//! the log when it began. Those who come meanwhile wait; when it ends, one of them leads the next one at
//! once, while the others that it covered are woken.

use super::inner::Inner;
use super::state::Waiter;
use crate::env::JobClass;
use crate::error::Error;
use crate::key::Seq;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// How far the log is synced, and who waits for it.
#[derive(Debug)]
pub(super) struct Syncer {
    /// The newest write that survives power loss.
    durable: AtomicU64,
    /// The log is synced up to this position.
    position: AtomicU64,
    turn: Mutex<Turn>,
}

struct Turn {
    /// Somebody is syncing.
    running: bool,
    /// A job was submitted that has not begun.
    scheduled: bool,
    /// The newest write that somebody wants synced without waiting in a thread.
    wanted: Seq,
    /// A job comes by itself by then, for writes that allow a delay.
    later: Option<Duration>,
    /// Callbacks, with the numbers they wait for.
    waiters: Vec<(Seq, Waiter)>,
    /// Threads, with the numbers they wait for.
    parked: VecDeque<(Seq, Arc<Parked>)>,
    /// Why nothing will be synced any more.
    halted: Option<Error>,
    syncs: u64,
}

/// A thread that waits.
#[derive(Debug)]
struct Parked {
    thread: Thread,
    /// It was told to lead the next sync.
    leads: AtomicBool,
    woken: AtomicBool,
}

impl Parked {
    fn lead(&self) {
        self.leads.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("running", &self.running)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

impl Syncer {
    pub(super) fn new(durable: Seq, position: u64) -> Self {
        Self {
            durable: AtomicU64::new(durable.0),
            position: AtomicU64::new(position),
            turn: Mutex::new(Turn {
                running: false,
                scheduled: false,
                wanted: durable,
                later: None,
                waiters: Vec::new(),
                parked: VecDeque::new(),
                halted: None,
                syncs: 0,
            }),
        }
    }

    pub(super) fn durable(&self) -> Seq {
        Seq(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    pub(super) fn syncs(&self) -> u64 {
        self.turn().syncs
    }

    pub(super) fn is_running(&self) -> bool {
        self.turn().running
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all waiting. Later waits fail at once, unless what they wait for is durable.
    pub(super) fn halt(&self, error: &Error) {
        let mut turn = self.turn();
        turn.halted.get_or_insert_with(|| match error {
            Error::Closed => Error::Closed,
            other => Error::Poisoned {
                cause: other.to_string().into(),
            },
        });
        let waiters = std::mem::take(&mut turn.waiters);
        let parked = std::mem::take(&mut turn.parked);
        drop(turn);
        for (_, parked) in parked {
            parked.wake();
        }
        for (_, call) in waiters {
            call(Err(error.clone()));
        }
    }
}

/// Asks for a sync up to `seq` by a job, without waiting.
pub(super) fn ask(inner: &Arc<Inner>, seq: Seq) {
    let mut turn = inner.syncer.turn();
    turn.wanted = turn.wanted.max(seq);
    let submit = turn.take_job(inner.syncer.durable());
    drop(turn);
    if submit {
        submit_job(inner);
    }
}

/// Asks for a sync of everything that is in the log now, within `delay`.
pub(super) fn ask_within(inner: &Arc<Inner>, delay: Duration) {
    let by = inner.env.clock.now() + delay;
    let mut turn = inner.syncer.turn();
    if turn.later.is_some_and(|later| later <= by) || turn.halted.is_some() {
        // That job covers everything that is in the log by then.
        return;
    }
    turn.later = Some(by);
    drop(turn);
    let weak = Arc::downgrade(inner);
    let job = move || {
        if let Some(inner) = weak.upgrade() {
            inner.syncer.turn().later = None;
            let last = inner.front().last;
            ask(&inner, last);
        }
    };
    inner
        .env
        .jobs
        .submit_after(delay, JobClass::LogSync, Box::new(job));
}

/// Calls `call` when the log is synced up to `seq`, which was given to a write.
pub(super) fn notify(inner: &Arc<Inner>, seq: Seq, call: Waiter) {
    let mut turn = inner.syncer.turn();
    let outcome = if seq <= inner.syncer.durable() {
        Ok(())
    } else if let Some(halted) = &turn.halted {
        Err(halted.clone())
    } else {
        turn.wanted = turn.wanted.max(seq);
        turn.waiters.push((seq, call));
        let submit = turn.take_job(inner.syncer.durable());
        drop(turn);
        if submit {
            submit_job(inner);
        }
        return;
    };
    drop(turn);
    call(outcome);
}

/// Blocks until the log is synced up to `seq`, which was given to a write. Leads a sync if nobody does.
pub(super) fn wait(inner: &Arc<Inner>, seq: Seq) -> Result<(), Error> {
    loop {
        if seq <= inner.syncer.durable() {
            return Ok(());
        }
        let turn = inner.syncer.turn();
        if seq <= inner.syncer.durable() {
            return Ok(());
        }
        let Some(mut turn) = lead_if_idle(inner, turn)? else {
            continue;
        };
        let parked = Arc::new(Parked {
            thread: thread::current(),
            leads: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        });
        turn.parked.push_back((seq, Arc::clone(&parked)));
        drop(turn);
        while !parked.woken.load(Ordering::Acquire) {
            thread::park();
        }
        if parked.leads.load(Ordering::Relaxed) && seq <= inner.syncer.durable() {
            // A flush covered it meanwhile; others count on its sync.
            pass_on(inner);
        }
    }
}

/// Leads a sync if nobody does; otherwise gives the turn back.
fn lead_if_idle<'a>(
    inner: &Arc<Inner>,
    mut turn: MutexGuard<'a, Turn>,
) -> Result<Option<MutexGuard<'a, Turn>>, Error> {
    if let Some(halted) = &turn.halted {
        return Err(halted.clone());
    }
    if turn.running {
        return Ok(Some(turn));
    }
    turn.running = true;
    drop(turn);
    lead(inner);
    Ok(None)
}

/// Sees to it that somebody syncs for those who still wait, if nobody does.
fn pass_on(inner: &Arc<Inner>) {
    let mut turn = inner.syncer.turn();
    if turn.running {
        // Whoever syncs now passes on in the end.
        return;
    }
    let leader = turn.parked.pop_front();
    let submit = leader.is_none() && turn.take_job(inner.syncer.durable());
    drop(turn);
    if let Some((_, parked)) = leader {
        parked.lead();
    }
    if submit {
        submit_job(inner);
    }
}

/// Notes that everything up to `seq` survives power loss because it is in tables. Call without a lock.
pub(super) fn note_flushed(inner: &Arc<Inner>, seq: Seq) {
    let mut turn = inner.syncer.turn();
    inner.syncer.durable.fetch_max(seq.0, Ordering::AcqRel);
    let covered = turn.take_covered(seq);
    drop(turn);
    covered.tell();
}

/// Syncs what lies in the log although it is in tables. Call when the store takes no more writes. Blocks.
pub(super) fn sync_rest(inner: &Arc<Inner>) -> Result<(), Error> {
    let end = inner.front().wal.position();
    loop {
        if inner.syncer.position() >= end {
            return Ok(());
        }
        let others = lead_if_idle(inner, inner.syncer.turn())?;
        if others.is_some() {
            drop(others);
            wait_for_end(inner);
        }
    }
}

/// Waits until no sync runs. Call when the store is marked as closed.
pub(super) fn wait_for_end(inner: &Inner) {
    let mut state = inner.state();
    while inner.syncer.is_running() {
        state = inner.wait(state);
    }
}

/// Syncs everything that is in the log now, or waits for whoever does. Blocks.
pub(super) fn sync_all(inner: &Arc<Inner>) -> Result<(), Error> {
    let last = inner.front().last;
    wait(inner, last)
}

impl Turn {
    /// Takes out those who wait for numbers up to `last`.
    fn take_covered(&mut self, last: Seq) -> Covered {
        let (parked, rest): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(seq, _)| *seq <= last);
        self.parked = rest;
        let is_over = |waiter: &mut (Seq, Waiter)| waiter.0 <= last;
        let waiters = self.waiters.extract_if(.., is_over).collect();
        Covered { parked, waiters }
    }

    /// True if a job must be submitted now; it counts as submitted then.
    fn take_job(&mut self, durable: Seq) -> bool {
        let due =
            self.wanted > durable && !self.running && !self.scheduled && self.halted.is_none();
        self.scheduled |= due;
        due
    }
}

fn submit_job(inner: &Arc<Inner>) {
    let inner = Arc::clone(inner);
    let jobs = Arc::clone(&inner.env.jobs);
    jobs.submit(JobClass::LogSync, Box::new(move || job(&inner)));
}

/// The log job.
fn job(inner: &Arc<Inner>) {
    let mut turn = inner.syncer.turn();
    turn.scheduled = false;
    let due = turn.wanted > inner.syncer.durable() && turn.halted.is_none();
    if !due || turn.running {
        // Whoever syncs now looks again when it ends.
        return;
    }
    turn.running = true;
    drop(turn);
    lead(inner);
}

/// Tells the one who closes the store, if anybody does, that a sync ended.
fn note_end(inner: &Inner) {
    // It was marked as closed before it was looked whether a sync runs.
    if inner.closed.load(Ordering::Acquire) {
        inner.note_progress();
    }
}

/// One sync, for everything that is in the log when it begins. The caller has set `running`.
fn lead(inner: &Arc<Inner>) {
    let front = inner.front();
    let (last, position, segments) = (front.last, front.wal.position(), front.wal.to_sync());
    drop(front);
    let failed = segments
        .iter()
        .find_map(|segment| inner.sync_segment(segment).err());
    if let Some(error) = failed {
        // First, so that nobody tries again: a second sync may succeed and prove nothing.
        inner.poison(&error);
        inner.syncer.turn().running = false;
        note_end(inner);
        return;
    }
    inner.front().wal.note_synced(&segments);
    let syncer = &inner.syncer;
    let mut turn = syncer.turn();
    // After a failure elsewhere nothing may be reported any more, but this is true all the same.
    syncer.position.fetch_max(position, Ordering::AcqRel);
    syncer.durable.fetch_max(last.0, Ordering::AcqRel);
    turn.running = false;
    turn.syncs += segments.len() as u64;
    let covered = turn.take_covered(last);
    drop(turn);
    // One who is not covered leads the next sync; it goes first, because the disk is idle now.
    pass_on(inner);
    note_end(inner);
    covered.tell();
}

/// Those who need not wait any more.
struct Covered {
    parked: VecDeque<(Seq, Arc<Parked>)>,
    waiters: Vec<(Seq, Waiter)>,
}

impl Covered {
    /// Call without a lock: a callback may do what it likes, and the next sync may begin meanwhile.
    fn tell(self) {
        for (_, parked) in self.parked {
            parked.wake();
        }
        for (_, call) in self.waiters {
            call(Ok(()));
        }
    }
}
