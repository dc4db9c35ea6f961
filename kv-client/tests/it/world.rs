//! Virtual time: a clock that jumps to the next timer when nothing else can be done.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;

/// The clock and the timers of one simulated run.
#[derive(Clone, Default)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    now: Duration,
    timers: BTreeMap<(Duration, u64), Waker>,
    last_timer: u64,
    /// What goes on beside the future that is run.
    spawned: Vec<BoxFuture<'static, ()>>,
    /// Whether any of it was not polled yet.
    has_new: bool,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    pub(crate) fn now(&self) -> Duration {
        self.state().now
    }

    /// Lets time pass without doing anything.
    pub(crate) fn skip(&self, pause: Duration) {
        self.state().now += pause;
    }

    pub(crate) async fn sleep(&self, pause: Duration) {
        let until = self.now() + pause;
        std::future::poll_fn(|task| {
            let mut state = self.state();
            if state.now >= until {
                return Poll::Ready(());
            }
            state.last_timer += 1;
            let key = (until, state.last_timer);
            state.timers.insert(key, task.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn spawn(&self, work: BoxFuture<'static, ()>) {
        let mut state = self.state();
        state.spawned.push(work);
        state.has_new = true;
    }

    /// Runs a future to its end. Panics when it waits for what never comes.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        self.run_for(future, usize::MAX)
            .unwrap_or_else(|| unreachable!("polls are not limited"))
    }

    /// Polls a future at most so many times; `None` when it was not ready by then, and is dropped.
    pub(crate) fn run_for<F: Future>(&self, future: F, polls: usize) -> Option<F::Output> {
        let mut future = pin!(future);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        for _ in 0..polls {
            while !flag.0.swap(false, Ordering::SeqCst) && !self.state().has_new {
                self.jump();
            }
            self.state().has_new = false;
            let mut task = Context::from_waker(&waker);
            let mut beside = core::mem::take(&mut self.state().spawned);
            beside.retain_mut(|work| work.as_mut().poll(&mut task).is_pending());
            self.state().spawned.append(&mut beside);
            if let Poll::Ready(output) = future.as_mut().poll(&mut task) {
                return Some(output);
            }
        }
        None
    }

    /// Goes to the next timer and wakes who waits for it.
    fn jump(&self) {
        let mut state = self.state();
        let Some(((at, _), waker)) = state.timers.pop_first() else {
            panic!("nothing is left that could wake the future");
        };
        state.now = state.now.max(at);
        drop(state);
        waker.wake();
    }
}
