//! Threads for the engine's jobs, as a program that embeds it would have them.

use kv_storage::{Job, JobClass, Jobs};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// A thread for the log, which writers wait for, and some for everything else.
pub(super) struct JobThreads {
    log: Arc<Queue>,
    background: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl JobThreads {
    /// Starts one thread for the log and so many for flushes and compactions together.
    pub(super) fn start(background_threads: usize) -> Self {
        let (log, background) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        let mut threads = vec![spawn(&log)];
        threads.extend((0..background_threads).map(|_| spawn(&background)));
        Self {
            log,
            background,
            threads: Mutex::new(threads),
        }
    }

    /// True if no flush and no compaction runs or waits.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.background.lock();
        state.running == 0 && state.urgent.is_empty() && state.rest.is_empty()
    }

    /// Drops the jobs that wait and ends the threads after those that run.
    pub(super) fn stop(&self) {
        self.log.close();
        self.background.close();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A job that panicked has said so; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Jobs for JobThreads {
    fn submit(&self, class: JobClass, job: Job) {
        if matches!(class, JobClass::LogSync | JobClass::LogSegment) {
            self.log.push(job, false);
        } else {
            // A flush goes before all compactions: writers wait for it when memtables pile up.
            self.background.push(job, class == JobClass::Flush);
        }
    }
}

impl fmt::Debug for JobThreads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JobThreads").finish_non_exhaustive()
    }
}

fn spawn(queue: &Arc<Queue>) -> JoinHandle<()> {
    let queue = Arc::clone(queue);
    thread::spawn(move || queue.serve())
}

/// Jobs of some threads.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    urgent: VecDeque<Job>,
    rest: VecDeque<Job>,
    running: usize,
    is_closed: bool,
}

impl Queue {
    fn push(&self, job: Job, is_urgent: bool) {
        let mut state = self.lock();
        if state.is_closed {
            return; // Dropping a job is allowed.
        }
        if is_urgent {
            state.urgent.push_back(job);
        } else {
            state.rest.push_back(job);
        }
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Runs jobs until the queue is closed.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.is_closed {
            let next = state.urgent.pop_front().or_else(|| state.rest.pop_front());
            if let Some(job) = next {
                state.running += 1;
                drop(state);
                job();
                state = self.lock();
                state.running -= 1;
            } else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// A job that tells which class it was submitted as.
    fn telling(class: JobClass, sender: &Sender<JobClass>) -> Job {
        let sender = sender.clone();
        Box::new(move || sender.send(class).unwrap())
    }

    #[test]
    fn jobs_run_and_leave_the_threads_idle() {
        let jobs = JobThreads::start(2);
        let (sender, receiver) = channel();
        for class in [JobClass::Compaction, JobClass::Flush, JobClass::LogSync] {
            jobs.submit(class, telling(class, &sender));
        }
        drop(sender);
        let mut ran: Vec<JobClass> = receiver.iter().collect();
        ran.sort_unstable();
        assert_eq!(
            ran,
            [JobClass::LogSync, JobClass::Flush, JobClass::Compaction]
        );
        jobs.stop();
        assert!(jobs.is_idle());
    }

    #[test]
    fn flush_goes_before_a_compaction_that_waits_longer() {
        let (release, gate) = channel::<()>();
        let (sender, receiver) = channel();
        let jobs = JobThreads::start(1);
        jobs.submit(
            JobClass::Compaction,
            Box::new(move || assert!(gate.recv().is_err(), "nothing is sent")),
        );
        for class in [JobClass::Compaction, JobClass::Flush] {
            jobs.submit(class, telling(class, &sender));
        }
        drop((release, sender));
        assert_eq!(
            receiver.iter().collect::<Vec<_>>(),
            [JobClass::Flush, JobClass::Compaction]
        );
        jobs.stop();
    }
}
