//! One day from beginning to end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use kv_node::replica::PageLimits;
use kv_node::tombstones::DeleteOptions;
use kv_types::{Durability, Level, NodeId};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::util::SubscriberInitExt;

use super::fault::Fault;
use super::healing::Healing;
use super::members::Registrar;
use super::nemesis::{Counts, Nemesis, STRANGER_LET_IN};
use super::operator::{Ledger, Operator};
use super::scenario::Scenario;
use super::settling;
use super::witness::Witness;
use super::work::{Notebook, Worker};
use crate::check::{self, Violation};
use crate::history::{Fate, History};
use crate::sim::executor::OUTSIDE;
use crate::sim::{Executor, Handle, SimCluster};

/// On days that forget deletions, how long they are kept: for longer than a client repeats a write.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(4);

/// What came of one day.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Whatever must never happen.
    pub violations: Vec<Violation>,
    /// A hash over everything that happened.
    pub trace: u64,
    /// How much time passed in the simulated world.
    pub simulated: Duration,
    /// Faults and other things worth seeing, with how often they were seen.
    pub counts: Counts,
    /// What clients did and saw.
    pub history: History,
}

/// Lets a day happen. With `log`, says what goes wrong as it does.
///
/// # Panics
/// When the system gives no thread.
#[must_use]
pub fn run(scenario: &Scenario, log: bool) -> Report {
    if !scenario.quic {
        return run_here(scenario, log);
    }
    // A thread of its own: its random bits are its own from the first one on.
    std::thread::scope(|scope| {
        let day = scope.spawn(|| {
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            crate::sim::entropy::seed(scenario.seed);
            run_here(scenario, log)
        });
        day.join().expect("panics are caught within")
    })
}

fn run_here(scenario: &Scenario, log: bool) -> Report {
    let mut executor = Executor::new(scenario.seed);
    let handle = executor.handle();
    let _telling = log.then(|| tell(&handle));
    let day = {
        let (scenario, handle) = (scenario.clone(), handle.clone());
        async move { live(&scenario, &handle, log).await }
    };
    watch_panics();
    PANIC.take();
    // A panic is a finding like any other.
    let outcome = catch_unwind(AssertUnwindSafe(|| executor.run(day)));
    let mut report = outcome.unwrap_or_else(|panic| Report {
        violations: vec![Violation::new("panic", message(&*panic))],
        ..Report::default()
    });
    // Where a request's handler panics, a node goes on; the day must not.
    if let Some(panic) = PANIC.take()
        && report.violations.iter().all(|found| found.rule != "panic")
    {
        report.violations.push(Violation::new("panic", panic));
    }
    report.trace = handle.trace();
    report.simulated = handle.now();
    // What is left may refer to what was torn apart by a panic.
    if report.violations.iter().any(|found| found.rule == "panic") {
        std::mem::forget(executor);
    }
    report
}

/// Prints what nodes log in this thread, with the time of their world; `RUST_LOG` says how much.
fn tell(handle: &Handle) -> tracing::subscriber::DefaultGuard {
    struct Virtual(Handle);
    impl FormatTime for Virtual {
        fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
            write!(writer, "{:>12.3?}", self.0.now())
        }
    }
    let wanted = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(wanted.unwrap_or_else(|_| EnvFilter::new("kv_node=info")))
        .with_ansi(false)
        .with_timer(Virtual(handle.clone()))
        .set_default()
}

thread_local! {
    /// The last panic of this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes every panic, and shows it as before.
fn watch_panics() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let show = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANIC.set(Some(panic.to_string()));
            show(panic);
        }));
    });
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

async fn live(scenario: &Scenario, handle: &Handle, log: bool) -> Report {
    let nodes = u128::from(scenario.nodes);
    let cluster = SimCluster::with_bucket(
        scenario.cluster_mode(),
        handle.clone(),
        nodes,
        scenario.bucket(),
        scenario.storage(),
    );
    let cluster = match scenario.quic {
        true => cluster.speaking_quic(),
        false => cluster,
    };
    let cluster = match scenario.forgets {
        true => cluster.with_deletes(DeleteOptions {
            keep: FORGOTTEN_AFTER,
        }),
        false => cluster,
    };
    let cluster = cluster.with_history(scenario.history);
    let cluster = cluster.with_ping_timeout(Duration::from_millis(scenario.ping_ms));
    let cluster = cluster.with_pages(PageLimits {
        copies: scenario.page_copies,
        visited: 4 * scenario.page_copies,
        ..PageLimits::default()
    });
    let mut found = Vec::new();
    if let Err(error) = cluster.start_all().await {
        found.push(Violation::new("does-not-start", error.to_string()));
        return Report {
            violations: found,
            ..Report::default()
        };
    }
    let notebook: Notebook = Arc::new(Mutex::new(History {
        forgets_after: scenario.forgets.then_some(FORGOTTEN_AFTER),
        loses_until: scenario.loses_until(),
        last_writer_wins: scenario.last_writer_wins,
        ..History::default()
    }));
    let until = Duration::from_millis(scenario.work_ms);
    let mode = scenario.bucket().mode;
    let witness = Witness::new(scenario, handle, &cluster);
    for number in &scenario.clients {
        let worker = Worker::new(scenario, *number, handle, &cluster, &notebook, &witness);
        handle.spawn(OUTSIDE, worker.work(until));
    }
    let ledger = Ledger::default();
    for number in 0..scenario.operators {
        let operator = Operator::new(scenario, number, handle, &cluster, &ledger);
        handle.spawn(OUTSIDE, operator.work(until));
    }
    let nemesis = Nemesis::new(
        scenario,
        handle.clone(),
        cluster.clone(),
        Arc::clone(&ledger),
        log,
    );
    let registrar = Registrar::new(scenario, handle, &cluster, &nemesis);
    if scenario.newcomers > 0 {
        handle.spawn(OUTSIDE, registrar.work(until));
    }
    nemesis.torment(&scenario.events, until).await;

    let damaged: BTreeSet<NodeId> = scenario
        .events
        .iter()
        .filter_map(|event| match event.fault {
            Fault::Damage { node, .. } => Some(NodeId(u128::from(node))),
            _ => None,
        })
        .collect();
    let mut healing = Healing {
        handle,
        cluster: &cluster,
        nemesis: &nemesis,
        damaged,
        mode,
        keys: scenario.key_numbers(),
        has_large_values: scenario.mix.large > 0,
        leaves_well: !scenario.quic && scenario.seed % 3 == 1,
        by_itself: scenario.seed.is_multiple_of(2),
        restores: scenario.restores(),
        may_rest: scenario.seed.is_multiple_of(4) && scenario.keeps_bytes(),
        found,
    };
    healing.heal(&notebook).await;
    let (whole, is_whole) = (healing.whole(), healing.damaged.is_empty());
    let mut violations = healing.found;
    violations.extend(witness.found());
    for (what, times) in witness.looks() {
        nemesis.count(what, times);
    }
    let created = std::mem::take(&mut *ledger.lock().unwrap_or_else(PoisonError::into_inner));
    violations.extend(created.judge(handle, &cluster, &whole).await);
    for (what, times) in created.counts() {
        nemesis.count(what, times);
    }
    if nemesis.counts().contains_key(STRANGER_LET_IN) {
        let what = "somebody with a foreign certificate was let in".to_owned();
        violations.push(Violation::new("stranger", what));
    }
    let mut history = std::mem::take(&mut *notebook.lock().unwrap_or_else(PoisonError::into_inner));
    if nemesis
        .counts()
        .get("damage cut out")
        .is_some_and(|times| *times > 0)
    {
        history.loses_until = Some(Duration::MAX);
    }
    violations.extend(check::all(&history, scenario.quorum));
    let is_long = scenario.forgets && !scenario.quic && scenario.seed % 4 == 3;
    if is_long && is_whole {
        let asked = settling::settle(handle, &cluster, &whole, &history, FORGOTTEN_AFTER).await;
        let (asked, wrong) = asked;
        nemesis.count("write settled", asked);
        violations.extend(wrong);
    }
    for (what, is_so) in [
        ("day in mode cp", scenario.cp),
        ("day of last writers", scenario.last_writer_wins),
        ("day where blind writes add", scenario.blind_adds),
        ("day of wrong clients' clocks", scenario.clients_off_ms > 0),
    ] {
        nemesis.count(what, u64::from(is_so));
    }
    note_end(handle, &cluster);
    Report {
        violations,
        trace: 0,
        simulated: Duration::ZERO,
        counts: counts(&nemesis, &cluster, &history),
        history,
    }
}

/// Adds all files to the trace, and how often they were used.
fn note_end(handle: &Handle, cluster: &SimCluster) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    for node in cluster.nodes() {
        let fs = cluster.fs(node);
        let mut hasher = DefaultHasher::new();
        fs.dump().hash(&mut hasher);
        handle.note(hasher.finish());
        handle.note(fs.calls());
    }
}

fn counts(nemesis: &Nemesis, cluster: &SimCluster, history: &History) -> Counts {
    let endpoints = cluster.endpoints();
    nemesis.count("day over QUIC", u64::from(!endpoints.is_empty()));
    for endpoint in endpoints {
        nemesis.count_endpoint(&endpoint);
    }
    let network = cluster.network.counts();
    for (what, times) in [
        ("message", network.sent),
        ("message lost", network.lost),
        ("message blocked", network.blocked),
        ("message twice", network.duplicated),
        ("datagram nobody took", network.untaken),
        (
            "read",
            history.reads.iter().filter(|read| !read.is_listed).count() as u64,
        ),
        ("write", history.writes.len() as u64),
    ] {
        nemesis.count(what, times);
    }
    for write in history.writes.values() {
        let fate = match write.fate {
            Fate::Acked(_) => "write acknowledged",
            Fate::NotApplied => "write not applied",
            Fate::Unknown => "write of unknown fate",
        };
        nemesis.count(fate, 1);
        nemesis.count("delete", u64::from(write.is_delete));
        nemesis.count("passing write", u64::from(write.expires));
        let is_refused = write.is_astray && write.fate == Fate::NotApplied;
        nemesis.count("foreign context refused", u64::from(is_refused));
        nemesis.count("blind write", u64::from(write.is_blind));
        nemesis.count("weak write", u64::from(write.level == Level::Weak));
        nemesis.count("eventual write", u64::from(write.level == Level::Eventual));
        nemesis.count("write to a number", u64::from(write.number.is_some()));
        let acked = |durability| write.durability == durability && write.acked_at().is_some();
        nemesis.count(
            "write acked in memory",
            u64::from(acked(Durability::Memory)),
        );
        nemesis.count("write synced once", u64::from(acked(Durability::One)));
    }
    let large = history
        .writes
        .iter()
        .filter(|(id, write)| write.acked_at().is_some() && History::is_large(**id));
    nemesis.count("large write", large.count() as u64);
    let in_sessions = history.reads.iter().filter(|read| read.in_session);
    nemesis.count("read in a session", in_sessions.count() as u64);
    let listed = history.reads.iter().filter(|read| read.is_listed);
    nemesis.count("listed key", listed.count() as u64);
    let siblings = history.reads.iter().filter(|read| read.seen.len() > 1);
    nemesis.count("read with siblings", siblings.count() as u64);
    nemesis.counts()
}
