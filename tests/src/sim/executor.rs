//! A single-threaded executor with virtual time.
//!
//! Time stands still while tasks are ready and jumps to the next timer when none is. Which of the
//! ready tasks runs next is drawn from the seed, so that different seeds explore different orders;
//! timers that fall on the same instant fire in the order in which they were set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use fastrand::Rng;
use futures::future::BoxFuture;

/// Tasks and timers that live and die together: one process of the simulated world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// The world outside of all simulated processes; it is never killed.
pub const OUTSIDE: Group = Group(0);

type Action = Box<dyn FnOnce() + Send>;

enum Timer {
    Wake(Waker),
    Run(Action),
}

/// What a paused process would have done meanwhile.
#[derive(Default)]
struct Held {
    tasks: Vec<u64>,
    actions: Vec<Action>,
}

struct State {
    now: Duration,
    next_id: u64,
    spawned: Vec<(u64, Group, BoxFuture<'static, ()>)>,
    /// Woken tasks; each at most once.
    ready: Vec<u64>,
    timers: BTreeMap<(Duration, u64), (Group, Timer)>,
    dead: BTreeSet<Group>,
    /// Groups whose tasks are still to be dropped.
    killed: Vec<Group>,
    paused: BTreeMap<Group, Held>,
    rng: Rng,
    /// A hash over everything that happened: equal runs have equal traces.
    trace: u64,
    steps: u64,
}

/// A way into the executor from anywhere in the simulated world. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    state: Arc<Mutex<State>>,
}

/// Runs everything.
pub struct Executor {
    handle: Handle,
    tasks: HashMap<u64, Task>,
}

struct Task {
    group: Group,
    work: BoxFuture<'static, ()>,
    waker: Arc<TaskWaker>,
}

impl Executor {
    /// An executor at time zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: Duration::ZERO,
            next_id: 0,
            spawned: Vec::new(),
            ready: Vec::new(),
            timers: BTreeMap::new(),
            dead: BTreeSet::new(),
            killed: Vec::new(),
            paused: BTreeMap::new(),
            rng: Rng::with_seed(seed),
            trace: 0xcbf2_9ce4_8422_2325,
            steps: 0,
        };
        Self {
            handle: Handle {
                state: Arc::new(Mutex::new(state)),
            },
            tasks: HashMap::new(),
        }
    }

    /// The way in.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `work` ends, and returns what it gives.
    ///
    /// # Panics
    /// When everything waits for something that can never happen.
    pub fn run<T: Send + 'static>(&mut self, work: impl Future<Output = T> + Send + 'static) -> T {
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        self.handle.spawn(OUTSIDE, async move {
            let value = work.await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            end.store(true, Ordering::Release);
        });
        while !ended.load(Ordering::Acquire) {
            assert!(
                self.step(),
                "the simulated world is stuck at {:?}",
                self.handle.now()
            );
        }
        let value = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.expect("it has just ended")
    }

    /// Runs one task, or moves time to the next timer. False when there is nothing left to do.
    fn step(&mut self) -> bool {
        let mut state = self
            .handle
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let killed = std::mem::take(&mut state.killed);
        for (id, group, work) in std::mem::take(&mut state.spawned) {
            let waker = TaskWaker {
                id,
                is_woken: AtomicBool::new(true),
                state: Arc::clone(&self.handle.state),
            };
            let task = Task {
                group,
                work,
                waker: Arc::new(waker),
            };
            self.tasks.insert(id, task);
            state.ready.push(id);
        }
        if !killed.is_empty() {
            drop(state);
            // Dropped outside of the lock: destructors may wake or spawn.
            self.bury(&killed);
            return true;
        }
        let ready = state.ready.len();
        if ready == 0 {
            drop(state);
            return self.fire();
        }
        let index = state.rng.usize(0..ready);
        let id = state.ready.swap_remove(index);
        let Some(task) = self.tasks.get(&id) else {
            return true;
        };
        if let Some(held) = state.paused.get_mut(&task.group) {
            held.tasks.push(id);
            return true;
        }
        state.note(id);
        state.steps += 1;
        drop(state);
        self.poll(id);
        true
    }

    /// Drops the tasks of killed groups, in the order in which they were spawned.
    fn bury(&mut self, killed: &[Group]) {
        let dead = self
            .tasks
            .iter()
            .filter(|(_, task)| killed.contains(&task.group));
        let mut ids: Vec<u64> = dead.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for id in ids {
            self.tasks.remove(&id);
        }
    }

    fn poll(&mut self, id: u64) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        task.waker.is_woken.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&task.waker));
        let mut context = Context::from_waker(&waker);
        if task.work.as_mut().poll(&mut context).is_ready() {
            self.tasks.remove(&id);
        }
    }

    fn fire(&mut self) -> bool {
        let timer = {
            let mut state = self.handle.state();
            let Some(((at, id), (group, timer))) = state.timers.pop_first() else {
                return false;
            };
            state.now = state.now.max(at);
            state.note(id);
            match timer {
                Timer::Run(action) if state.paused.contains_key(&group) => {
                    let held = state.paused.get_mut(&group).expect("it was just seen");
                    held.actions.push(action);
                    return true;
                }
                timer => timer,
            }
        };
        match timer {
            Timer::Wake(waker) => waker.wake(),
            Timer::Run(action) => action(),
        }
        true
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("now", &self.handle.now())
            .field("tasks", &self.tasks.len())
            .finish()
    }
}

impl State {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note(&mut self, event: u64) {
        for part in [event, self.now.as_nanos() as u64] {
            self.trace = (self.trace ^ part)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(23);
        }
    }
}

impl Handle {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// A hash over everything that happened so far.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    /// Adds something to the trace.
    pub fn note(&self, event: u64) {
        self.state().note(event);
    }

    /// A random number below `bound`.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        self.state().rng.u64(0..bound)
    }

    /// A seed for a random source of its own.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.state().rng.u64(..)
    }

    /// Starts a task in a group.
    pub fn spawn(&self, group: Group, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(group, Box::pin(task));
    }

    /// Starts a task in a group.
    pub fn spawn_boxed(&self, group: Group, task: BoxFuture<'static, ()>) {
        let mut state = self.state();
        if state.dead.contains(&group) {
            drop(state);
            return;
        }
        let id = state.id();
        state.spawned.push((id, group, task));
    }

    /// Runs an action after a delay, unless its group is dead by then.
    pub fn after(&self, group: Group, delay: Duration, action: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.dead.contains(&group) {
            drop(state);
            return;
        }
        let at = state.now + delay;
        let id = state.id();
        state
            .timers
            .insert((at, id), (group, Timer::Run(Box::new(action))));
    }

    /// Ends after a delay.
    #[must_use]
    pub fn sleep(&self, delay: Duration) -> Sleep {
        self.sleep_until(self.now() + delay)
    }

    /// Ends at a point of virtual time.
    #[must_use]
    pub fn sleep_until(&self, at: Duration) -> Sleep {
        Sleep {
            handle: self.clone(),
            at,
            timer: None,
        }
    }

    /// A group for a new process.
    #[must_use]
    pub fn new_group(&self) -> Group {
        Group(self.state().id())
    }

    /// Ends all tasks and timers of a group, as when its process is killed.
    pub fn kill(&self, group: Group) {
        let mut state = self.state();
        state.dead.insert(group);
        state.killed.push(group);
        let held = state.paused.remove(&group);
        let timers = std::mem::take(&mut state.timers);
        let (ended, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = timers
            .into_iter()
            .partition(|(_, (other, _))| *other == group);
        state.timers = rest;
        drop(state);
        drop((ended, held));
    }

    /// Stops a group, as a stop signal does: none of its tasks or timers runs until it is resumed.
    pub fn pause(&self, group: Group) {
        let mut state = self.state();
        if !state.dead.contains(&group) {
            state.paused.entry(group).or_default();
        }
    }

    /// Lets a paused group go on, with everything that it missed at once.
    pub fn resume(&self, group: Group) {
        let mut state = self.state();
        let Some(held) = state.paused.remove(&group) else {
            return;
        };
        state.ready.extend(held.tasks);
        let now = state.now;
        for action in held.actions {
            let id = state.id();
            state.timers.insert((now, id), (group, Timer::Run(action)));
        }
    }

    /// How many times tasks were run so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Ends at a point of virtual time.
#[derive(Debug)]
pub struct Sleep {
    handle: Handle,
    at: Duration,
    timer: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let handle = self.handle.clone();
        let mut state = handle.state();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        let key = match self.timer {
            Some(key) => key,
            None => (self.at, state.id()),
        };
        self.timer = Some(key);
        // Timers of tasks are in no group: a task that was dropped takes its timer with it.
        state
            .timers
            .insert(key, (OUTSIDE, Timer::Wake(context.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.handle.state().timers.remove(&key);
        }
    }
}

struct TaskWaker {
    id: u64,
    /// It is among the ready ones, or held while its group is paused.
    is_woken: AtomicBool,
    state: Arc<Mutex<State>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.ready.push(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_jumps_to_the_next_timer() {
        let mut executor = Executor::new(1);
        let handle = executor.handle();
        let begun = handle.clone();
        executor.run(async move { begun.sleep(Duration::from_secs(3600)).await });
        assert_eq!(handle.now(), Duration::from_secs(3600));
    }

    #[test]
    fn a_killed_group_does_nothing_more() {
        let mut executor = Executor::new(1);
        let handle = executor.handle();
        let group = handle.new_group();
        let ran = Arc::new(Mutex::new(0));
        let (count, inner) = (Arc::clone(&ran), handle.clone());
        handle.spawn(group, async move {
            loop {
                inner.sleep(Duration::from_secs(1)).await;
                *count.lock().expect("not poisoned") += 1;
            }
        });
        let outside = handle.clone();
        executor.run(async move {
            outside.sleep(Duration::from_millis(2500)).await;
            outside.kill(group);
            outside.sleep(Duration::from_secs(10)).await;
        });
        assert_eq!(*ran.lock().expect("not poisoned"), 2);
    }

    #[test]
    fn a_paused_group_stands_still_and_then_goes_on() {
        let mut executor = Executor::new(1);
        let handle = executor.handle();
        let group = handle.new_group();
        let ran = Arc::new(Mutex::new(Vec::new()));
        let (seen, inner) = (Arc::clone(&ran), handle.clone());
        handle.spawn(group, async move {
            loop {
                inner.sleep(Duration::from_secs(1)).await;
                seen.lock()
                    .expect("not poisoned")
                    .push(inner.now().as_secs());
            }
        });
        let outside = handle.clone();
        executor.run(async move {
            outside.sleep(Duration::from_millis(1500)).await;
            outside.pause(group);
            outside.sleep(Duration::from_secs(10)).await;
            outside.resume(group);
            outside.sleep(Duration::from_secs(2)).await;
        });
        assert_eq!(*ran.lock().expect("not poisoned"), [1, 11, 12]);
    }

    #[test]
    fn equal_seeds_give_equal_traces_and_other_seeds_others() {
        let trace = |seed| {
            let mut executor = Executor::new(seed);
            let handle = executor.handle();
            for n in 0..20 {
                let inner = handle.clone();
                handle.spawn(OUTSIDE, async move {
                    for _ in 0..5 {
                        inner
                            .sleep(Duration::from_millis(inner.below(10) + n))
                            .await;
                    }
                });
            }
            let outside = handle.clone();
            executor.run(async move { outside.sleep(Duration::from_secs(1)).await });
            handle.trace()
        };
        assert_eq!(trace(7), trace(7));
        assert_ne!(trace(7), trace(8));
    }
}
