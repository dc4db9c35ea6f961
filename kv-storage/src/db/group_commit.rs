//! Group commit: one thread syncs the log for everyone who waits.
//!
//! Whoever needs a sync and finds none running leads the next one. It covers everything that was in
//! the log when it began. Those who come meanwhile wait; when it ends, one of them leads the next one at
//! once, while the others that it covered are woken.
//!
//! Nothing here knows the store: what it needs of it is [`Log`]. So a model checker can run this source.

use super::lock::{
    Arc, AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, PoisonError, Thread, thread,
};
use std::collections::VecDeque;
use std::time::Duration;

/// Someone who wants to know that the log was synced up to a number.
pub(super) type Waiter<E> = Box<dyn FnOnce(Result<(), E>) + Send>;

/// What a group commit needs of the log.
pub(super) trait Log {
    /// Syncs everything that is in the log when it begins. After a failure it has called
    /// [`GroupCommit::halt`], and returns nothing.
    fn sync(&self) -> Option<Synced>;

    /// Sees to it that some other thread calls [`GroupCommit::run_job`] soon.
    fn submit(&self);
}

/// What a sync covered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Synced {
    /// The newest write that was in the log when it began.
    pub last: u64,
    /// Where the log ended then.
    pub position: u64,
    /// How many calls it took.
    pub calls: u64,
}

/// How far the log is synced, and who waits for it.
#[derive(Debug)]
pub(super) struct GroupCommit<E> {
    /// The newest write that survives power loss.
    durable: AtomicU64,
    /// The log is synced up to this position.
    position: AtomicU64,
    turn: Mutex<Turn<E>>,
    /// Signalled when a sync ended and somebody waits for just that.
    ended: Condvar,
}

struct Turn<E> {
    /// Somebody is syncing.
    running: bool,
    /// A job was submitted that has not begun.
    scheduled: bool,
    /// The newest write that somebody wants synced without waiting in a thread.
    wanted: u64,
    /// Callbacks, with the numbers they wait for.
    waiters: Vec<(u64, Waiter<E>)>,
    /// Threads, with the numbers they wait for.
    parked: VecDeque<(u64, Arc<Parked>)>,
    /// Threads that wait until no sync runs.
    closers: usize,
    /// A job comes by itself by then, for writes that allow a delay.
    later: Option<Duration>,
    /// Why nothing will be synced any more.
    halted: Option<E>,
    calls: u64,
}

impl<E> std::fmt::Debug for Turn<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("running", &self.running)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
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

/// Those who need not wait any more.
struct Covered<E> {
    parked: VecDeque<(u64, Arc<Parked>)>,
    waiters: Vec<(u64, Waiter<E>)>,
}

impl<E> Covered<E> {
    /// Call without a lock: a callback may do what it likes, and the next sync may begin meanwhile.
    fn tell(self, outcome: impl Fn() -> Result<(), E>) {
        for (_, parked) in self.parked {
            parked.wake();
        }
        for (_, call) in self.waiters {
            call(outcome());
        }
    }
}

impl<E> Turn<E> {
    /// Takes out those who wait for numbers up to `last`.
    fn take_covered(&mut self, last: u64) -> Covered<E> {
        let (parked, rest): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(seq, _)| *seq <= last);
        self.parked = rest;
        let is_over = |waiter: &mut (u64, Waiter<E>)| waiter.0 <= last;
        let waiters = self.waiters.extract_if(.., is_over).collect();
        Covered { parked, waiters }
    }

    /// True if a job must be submitted now; it counts as submitted then.
    fn take_job(&mut self, durable: u64) -> bool {
        let due =
            self.wanted > durable && !self.running && !self.scheduled && self.halted.is_none();
        self.scheduled |= due;
        due
    }
}

impl<E: Clone> GroupCommit<E> {
    pub(super) fn new(durable: u64, position: u64) -> Self {
        Self {
            durable: AtomicU64::new(durable),
            position: AtomicU64::new(position),
            turn: Mutex::new(Turn {
                running: false,
                scheduled: false,
                wanted: durable,
                waiters: Vec::new(),
                parked: VecDeque::new(),
                closers: 0,
                later: None,
                halted: None,
                calls: 0,
            }),
            ended: Condvar::new(),
        }
    }

    /// The newest write that survives power loss.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The log is synced up to this position.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// How many calls all syncs took.
    pub(super) fn calls(&self) -> u64 {
        self.turn().calls
    }

    fn turn(&self) -> MutexGuard<'_, Turn<E>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all syncing; those who wait from now on are told `later`, unless what they wait for is durable. Only the
    /// first call says what they are told. Returns the newest durable write: no sync makes a newer one durable from now
    /// on. Follow it with [`Self::halt`].
    pub(super) fn stop(&self, later: E) -> u64 {
        let mut turn = self.turn();
        turn.halted.get_or_insert(later);
        self.durable()
    }

    /// Like [`Self::stop`], and tells `now` to those who wait.
    pub(super) fn halt(&self, now: &E, later: E) {
        self.stop(later);
        let mut turn = self.turn();
        let all = turn.take_covered(u64::MAX);
        drop(turn);
        all.tell(|| Err(now.clone()));
    }

    /// Asks for a sync up to `seq` by a job, without waiting.
    pub(super) fn ask(&self, log: &impl Log, seq: u64) {
        let mut turn = self.turn();
        turn.wanted = turn.wanted.max(seq);
        let submit = turn.take_job(self.durable());
        drop(turn);
        if submit {
            log.submit();
        }
    }

    /// True if the caller must see to it that somebody asks for a sync `by` then, after [`Self::end_delay`]. Otherwise
    /// somebody does, for everything that is in the log by then.
    pub(super) fn begin_delay(&self, by: Duration) -> bool {
        let mut turn = self.turn();
        if turn.later.is_some_and(|later| later <= by) || turn.halted.is_some() {
            return false;
        }
        turn.later = Some(by);
        true
    }

    pub(super) fn end_delay(&self) {
        self.turn().later = None;
    }

    /// Calls `call` when the log is synced up to `seq`, which was given to a write.
    pub(super) fn notify(&self, log: &impl Log, seq: u64, call: Waiter<E>) {
        let mut turn = self.turn();
        let outcome = if seq <= self.durable() {
            Ok(())
        } else if let Some(halted) = &turn.halted {
            Err(halted.clone())
        } else {
            turn.wanted = turn.wanted.max(seq);
            turn.waiters.push((seq, call));
            let submit = turn.take_job(self.durable());
            drop(turn);
            if submit {
                log.submit();
            }
            return;
        };
        drop(turn);
        call(outcome);
    }

    /// Blocks until the log is synced up to `seq`, which was given to a write. Leads a sync if nobody does.
    pub(super) fn wait(&self, log: &impl Log, seq: u64) -> Result<(), E> {
        // Others count on this thread's sync.
        let mut leads = false;
        while seq > self.durable() {
            let turn = self.turn();
            if seq <= self.durable() {
                break;
            }
            let others = self.lead_if_idle(log, turn)?;
            // Whoever syncs now, or has just synced, passes the lead on.
            leads = false;
            if let Some(turn) = others {
                leads = Self::park(turn, seq);
            }
        }
        if leads {
            // A flush covered it meanwhile.
            self.pass_on(log);
        }
        Ok(())
    }

    /// Waits for a sync that others lead. True if this thread is to lead the next one.
    fn park(mut turn: MutexGuard<'_, Turn<E>>, seq: u64) -> bool {
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
        parked.leads.load(Ordering::Relaxed)
    }

    /// Blocks until the log is synced up to `end`, where it ends: nobody writes to it any more.
    pub(super) fn wait_for_position(&self, log: &impl Log, end: u64) -> Result<(), E> {
        while self.position() < end {
            let others = self.lead_if_idle(log, self.turn())?;
            if let Some(turn) = others {
                self.wait_while_running(turn);
            }
        }
        Ok(())
    }

    /// Blocks until no sync runs.
    pub(super) fn wait_for_end(&self) {
        self.wait_while_running(self.turn());
    }

    fn wait_while_running(&self, mut turn: MutexGuard<'_, Turn<E>>) {
        turn.closers += 1;
        while turn.running {
            turn = self
                .ended
                .wait(turn)
                .unwrap_or_else(PoisonError::into_inner);
        }
        turn.closers -= 1;
    }

    /// Notes that everything up to `seq` survives power loss because it is in tables. Call without a lock.
    pub(super) fn note_flushed(&self, seq: u64) {
        let mut turn = self.turn();
        self.durable.fetch_max(seq, Ordering::AcqRel);
        let covered = turn.take_covered(seq);
        drop(turn);
        covered.tell(|| Ok(()));
    }

    /// What a submitted job does.
    pub(super) fn run_job(&self, log: &impl Log) {
        let mut turn = self.turn();
        turn.scheduled = false;
        let due = turn.wanted > self.durable() && turn.halted.is_none();
        if !due || turn.running {
            // Whoever syncs now looks again when it ends.
            return;
        }
        turn.running = true;
        drop(turn);
        self.lead(log);
    }

    /// Leads a sync if nobody does; otherwise gives the turn back.
    fn lead_if_idle<'a>(
        &'a self,
        log: &impl Log,
        mut turn: MutexGuard<'a, Turn<E>>,
    ) -> Result<Option<MutexGuard<'a, Turn<E>>>, E> {
        if let Some(halted) = &turn.halted {
            return Err(halted.clone());
        }
        if turn.running {
            return Ok(Some(turn));
        }
        turn.running = true;
        drop(turn);
        self.lead(log);
        Ok(None)
    }

    /// One sync, for everything that is in the log when it begins. The caller has set `running`.
    fn lead(&self, log: &impl Log) {
        let synced = log.sync();
        let mut turn = self.turn();
        turn.running = false;
        if turn.closers > 0 {
            self.ended.notify_all();
        }
        let Some(synced) = synced else {
            // Everyone was told. Nobody tries again: a second sync may succeed and prove nothing.
            return;
        };
        turn.calls += synced.calls;
        if turn.halted.is_some() {
            // Everyone was told, and readers were shown their last.
            return;
        }
        self.position.fetch_max(synced.position, Ordering::AcqRel);
        self.durable.fetch_max(synced.last, Ordering::AcqRel);
        let covered = turn.take_covered(synced.last);
        drop(turn);
        // One who is not covered leads the next sync; it goes first, because the disk is idle now.
        self.pass_on(log);
        covered.tell(|| Ok(()));
    }

    /// Sees to it that somebody syncs for those who still wait, if nobody does.
    fn pass_on(&self, log: &impl Log) {
        let mut turn = self.turn();
        if turn.running {
            // Whoever syncs now passes on in the end.
            return;
        }
        let leader = turn.parked.pop_front();
        let submit = leader.is_none() && turn.take_job(self.durable());
        drop(turn);
        if let Some((_, parked)) = leader {
            parked.lead();
        }
        if submit {
            log.submit();
        }
    }
}
