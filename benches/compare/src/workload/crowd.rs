//! Threads that do the same thing for a while.

use crate::measure::{Counters, Latencies, Measurements, Metric};
use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often the main thread looks whether a thread has failed.
const LOOK: Duration = Duration::from_millis(20);

/// Says when the time is over.
#[derive(Debug, Default)]
pub(super) struct Bell(AtomicBool);

impl Bell {
    /// True once the threads are to end.
    #[inline]
    pub(super) fn has_rung(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a crowd did.
#[derive(Debug)]
pub(super) struct Measured {
    /// All operations of all threads.
    pub(super) latencies: Latencies,
    /// Wall time.
    pub(super) elapsed: Duration,
    /// What the process used meanwhile.
    pub(super) used: Counters,
}

impl Measured {
    /// Notes rate, latencies, processor time and device reads for each operation.
    pub(super) fn note(&self, into: &mut Measurements) {
        let operations = self.latencies.operations();
        self.latencies.note(self.elapsed, into);
        into.note(Metric::CpuMicros, self.used.cpu_micros(operations));
        into.note(
            Metric::ReadKib,
            self.used.read_bytes as f64 / 1024.0 / operations as f64,
        );
    }
}

/// Runs `work` in so many threads for this long. Each gets its number, looks at the bell between
/// operations and records each of them.
///
/// # Errors
/// The first error of a thread, as soon as it happens; the others end then, too.
pub(super) fn run(
    threads: usize,
    time: Duration,
    work: impl Fn(usize, &Bell, &mut Latencies) -> Result<()> + Sync,
) -> Result<Measured> {
    let bell = Bell::default();
    let (before, begin) = (Counters::now()?, Instant::now());
    let outcomes = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                let (bell, work) = (&bell, &work);
                scope.spawn(move || {
                    let mut latencies = Latencies::new()?;
                    work(number, bell, &mut latencies).map(|()| latencies)
                })
            })
            .collect();
        // A thread that has ended before the bell has failed.
        while begin.elapsed() < time && !threads.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(LOOK.min(time));
        }
        bell.0.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join())
            .collect::<Vec<_>>()
    });
    let elapsed = begin.elapsed();
    let used = Counters::now()?.since(&before);
    let mut latencies = Latencies::new()?;
    for outcome in outcomes {
        let Ok(outcome) = outcome else {
            bail!("a thread panicked");
        };
        latencies.add(&outcome?)?;
    }
    (latencies.operations() > 0)
        .then_some(())
        .context("no operation ended in time")?;
    Ok(Measured {
        latencies,
        elapsed,
        used,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Lap;

    #[test]
    fn operations_of_all_threads_are_counted() {
        let measured = run(2, Duration::from_millis(1), |number, _, latencies| {
            let mut lap = Lap::start();
            for _ in 0..=number {
                latencies.record(lap.end());
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(measured.latencies.operations(), 3);
    }

    #[test]
    fn failure_of_one_thread_ends_all() {
        let begin = Instant::now();
        let outcome = run(2, Duration::from_secs(60), |number, bell, _| {
            if number == 1 {
                bail!("broken");
            }
            while !bell.has_rung() {
                thread::yield_now();
            }
            Ok(())
        });
        assert_eq!(outcome.unwrap_err().to_string(), "broken");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
