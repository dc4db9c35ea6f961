//! Threads for the engine's blocking work, by class, so that a log sync never waits for a compaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use kv_storage::{Job, JobClass, Jobs};

/// One queue with its threads for each class of job. The threads end when this is dropped.
#[derive(Debug)]
pub struct JobThreads {
    log_sync: Sender<Job>,
    log_segment: Sender<Job>,
    read: Sender<Job>,
    flush: Sender<Job>,
    compaction: Sender<Job>,
}

impl JobThreads {
    /// Starts the threads: one each for log syncs, log segments and flushes, two for compactions, so that a
    /// large one does not keep level 0 waiting, and `readers` for reads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(readers: usize) -> std::io::Result<Self> {
        Ok(Self {
            log_sync: queue("log-sync", 1)?,
            log_segment: queue("log-segment", 1)?,
            read: queue("read", readers.max(1))?,
            flush: queue("flush", 1)?,
            compaction: queue("compaction", 2)?,
        })
    }
}

impl Jobs for JobThreads {
    fn submit(&self, class: JobClass, job: Job) {
        let queue = match class {
            JobClass::LogSync => &self.log_sync,
            JobClass::LogSegment => &self.log_segment,
            JobClass::Read => &self.read,
            JobClass::Flush => &self.flush,
            JobClass::Compaction => &self.compaction,
        };
        // A queue without threads means that the process is ending; unrun jobs are safe to drop.
        drop(queue.send(job));
    }
}

fn queue(name: &str, threads: usize) -> std::io::Result<Sender<Job>> {
    let (submit, jobs) = channel();
    let jobs = Arc::new(Mutex::new(jobs));
    for index in 0..threads {
        let jobs = Arc::clone(&jobs);
        thread::Builder::new()
            .name(format!("{name}-{index}"))
            .spawn(move || run(&jobs))?;
    }
    Ok(submit)
}

fn run(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // Holding the lock while waiting hands each job to exactly one thread.
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            // A thread that died of a panic would leave its queue unserved and every commit waiting.
            Ok(job) => {
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!(
                        "the storage engine panicked; the node ends, and recovers when started"
                    );
                    std::process::abort();
                }
            }
            Err(_) => return,
        }
    }
}
