//! A store on whose disk a test acts in the middle of the engine's work, and threads beside it.

use crate::meddling::{Meddling, Moment};
use crate::support::{ManualJobs, dir, env_with, put};
use kv_storage::sim::SimFs;
use kv_storage::{Db, Durability, Env, Options};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long another thread has to come to the point where a broken engine would let it go on.
pub(crate) const CHANCE: Duration = Duration::from_millis(300);

pub(crate) type Step = Box<dyn FnMut(Moment, &Path) -> io::Result<()> + Send>;

/// A store whose disk calls a step that the test sets. While a step runs, none is set, unless it sets another one.
pub(crate) struct Stage {
    pub(crate) fs: SimFs,
    pub(crate) jobs: Arc<ManualJobs>,
    pub(crate) db: Db,
    pub(crate) step: Arc<Mutex<Option<Step>>>,
}

impl Stage {
    pub(crate) fn new(options: Options) -> Self {
        let fs = SimFs::new();
        let step: Arc<Mutex<Option<Step>>> = Arc::default();
        let set = step.clone();
        let meddling = Meddling::new(&fs, move |moment, path| {
            let Some(mut call) = set.lock().unwrap().take() else {
                return Ok(());
            };
            let outcome = call(moment, path);
            set.lock().unwrap().get_or_insert(call);
            outcome
        });
        let jobs = Arc::new(ManualJobs::default());
        let env = Env {
            fs: Arc::new(meddling),
            ..env_with(&fs, jobs.clone())
        };
        let db = Db::open(dir(), options, env).unwrap();
        jobs.run_all();
        Self { fs, jobs, db, step }
    }

    pub(crate) fn set(&self, step: impl FnMut(Moment, &Path) -> io::Result<()> + Send + 'static) {
        *self.step.lock().unwrap() = Some(Box::new(step));
    }

    /// Writes until the log goes on in a new segment.
    pub(crate) fn fill_segment(&self) {
        let segments = self.db.stats().log_segments;
        while self.db.stats().log_segments == segments {
            if self
                .db
                .write(put(b"filler", [1; 700]), Durability::Process)
                .is_err()
            {
                self.jobs.run_all();
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what runs beside may outlive the scope that starts it"
)]
/// Runs something beside the thread that calls; tells when it has ended.
pub(crate) fn beside(work: impl FnOnce() + Send + 'static) -> (JoinHandle<()>, mpsc::Receiver<()>) {
    let (ended, end) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        let _ = ended.send(());
    });
    (thread, end)
}
