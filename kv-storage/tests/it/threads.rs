//! Many threads on one store, with jobs on threads of the test's own.

use crate::support::{TickingClock, contents, dir, open};
use kv_storage::sim::SimFs;
use kv_storage::{
    Db, Durability, Env, Hooks, Job, JobClass, Jobs, Options, WriteBatch, WriteError,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

const WRITERS: u8 = 4;
const PUTS: u32 = 400;

/// Hands jobs to whoever receives them.
struct Queue(Mutex<Sender<Job>>);

impl Jobs for Queue {
    fn submit(&self, _class: JobClass, job: Job) {
        // After the workers have left, jobs are dropped.
        let _ = self.0.lock().unwrap().send(job);
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = jobs.lock().unwrap().recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

fn key(writer: u8, number: u32) -> Vec<u8> {
    let mut key = vec![writer];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Half of a writer's puts block, the other half use tickets with callbacks.
fn write(db: &Db, writer: u8, told: &Arc<AtomicU64>) {
    for number in 0..PUTS {
        let mut batch = WriteBatch::new();
        batch.put(&key(writer, number), &[writer; 90]);
        batch.put(&[b'n', writer], &number.to_be_bytes());
        if number % 2 == 0 {
            db.blocking().write(batch, Durability::Sync).unwrap();
            told.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let commit = loop {
            match db.write(batch.clone(), Durability::Sync) {
                Ok(commit) => break commit,
                Err(WriteError::Busy(_)) => std::thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        };
        let told = told.clone();
        commit.on_durable(move |outcome| {
            outcome.unwrap();
            told.fetch_add(1, Ordering::SeqCst);
        });
    }
}

/// Each batch sets a counter and a key: a reader who sees the counter finds the key, in the store
/// and in a snapshot.
fn read(db: &Db, writer: u8) {
    let mut last = 0;
    while last < PUTS - 1 {
        let Some(found) = db.blocking().get(&[b'n', writer]).unwrap() else {
            continue;
        };
        let number = u32::from_be_bytes(found.value[..].try_into().unwrap());
        assert!(number >= last, "a reader went back in time");
        last = number;
        assert!(
            db.blocking().get(&key(writer, number)).unwrap().is_some(),
            "half a batch"
        );
        let snapshot = db.snapshot();
        let seen = snapshot.get(&[b'n', writer]).unwrap().unwrap();
        let count = snapshot.iter(key(writer, 0)..key(writer + 1, 0)).count();
        assert_eq!(
            count as u32,
            u32::from_be_bytes(seen.value[..].try_into().unwrap()) + 1
        );
    }
}

#[test]
fn writers_readers_and_jobs_on_many_threads_agree() {
    let fs = SimFs::new();
    let told = Arc::new(AtomicU64::new(0));
    let (sender, jobs) = channel();
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| work(&jobs));
        }
        let env = Env {
            fs: Arc::new(fs.clone()),
            jobs: Arc::new(Queue(Mutex::new(sender))),
            clock: Arc::new(TickingClock::default()),
            seed: 1,
            hooks: Hooks::default(),
        };
        let db = Db::open(dir(), Options::tiny(), env).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn({
                    let (db, told) = (db.clone(), told.clone());
                    move || write(&db, writer, &told)
                });
                scope.spawn({
                    let db = db.clone();
                    move || read(&db, writer)
                });
            }
        });
        assert_eq!(
            contents(&db).unwrap().len(),
            (PUTS as usize + 1) * usize::from(WRITERS)
        );
        // Closing meets running flushes and compactions, and leaves no ticket without an answer.
        db.close().unwrap();
        while told.load(Ordering::SeqCst) < u64::from(PUTS) * u64::from(WRITERS) {
            std::thread::yield_now();
        }
        assert_eq!(
            told.load(Ordering::SeqCst),
            u64::from(PUTS) * u64::from(WRITERS)
        );
    });
    let db = open(&fs).unwrap();
    assert_eq!(
        contents(&db).unwrap().len(),
        (PUTS as usize + 1) * usize::from(WRITERS)
    );
}
