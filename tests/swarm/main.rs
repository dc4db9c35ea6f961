//! Simulated days full of faults: fresh ones for every commit, and those that once failed.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kv_tests::swarm::{Report, Scenario, Summary, run};

/// How long clients work on each day.
const WORK: Duration = Duration::from_secs(60);
/// How many days are lived for each commit: with mere messages, and over QUIC.
const MESSAGE_DAYS: usize = 200;
const QUIC_DAYS: usize = 24;
/// How many of them are lived twice, with mere messages and over QUIC.
const TWICE: usize = 20;

/// The first of this commit's seeds.
fn first_seed() -> u64 {
    let head = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let commit = head.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    // Outside of a repository the days are the same each time.
    let commit = commit.unwrap_or_default();
    let number = commit
        .get(..8)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.unwrap_or(0) * 1_000
}

/// The days of this commit: those with mere messages, and those over QUIC.
fn days() -> (Vec<Scenario>, Vec<Scenario>) {
    let (mut messages, mut quic) = (Vec::new(), Vec::new());
    for seed in first_seed().. {
        let day = Scenario::draw(seed, WORK);
        let (kind, most) = if day.quic {
            (&mut quic, QUIC_DAYS)
        } else {
            (&mut messages, MESSAGE_DAYS)
        };
        if kind.len() < most {
            kind.push(day);
        }
        if messages.len() == MESSAGE_DAYS && quic.len() == QUIC_DAYS {
            break;
        }
    }
    (messages, quic)
}

/// The days of this commit, lived once for all tests, and what came of them.
static LIVED: LazyLock<Vec<(Scenario, Report)>> = LazyLock::new(|| {
    let (messages, quic) = days();
    // Those over QUIC take longest, so they come first.
    let days: Vec<Scenario> = quic.into_iter().chain(messages).collect();
    in_two_threads(&days, |day| (day.clone(), run(day, false)))
});

/// Does something with each, in no order.
fn in_two_threads<T: Sync, O: Send>(all: &[T], each: impl Fn(&T) -> O + Sync) -> Vec<O> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(each(one));
        }
        done
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(some);
        let mut done = some();
        done.extend(other.join().expect("the other thread does not panic"));
        done
    })
}

#[test]
fn no_day_of_this_commit_breaks_a_promise() {
    println!("seeds from {} on", first_seed());
    let mut summary = Summary::default();
    for (day, report) in LIVED.iter() {
        summary.add(day.seed, report);
    }
    println!("{summary}");
    assert!(
        summary.failures.is_empty(),
        "look closer with `kv-sim seed N --log`, make it smaller with `kv-sim shrink N --save FILE`"
    );
    assert_eq!(
        summary.unseen(),
        [""; 0],
        "what never happens proves nothing"
    );
    assert!(summary.density() >= 50.0, "too little was asked");
    assert!(summary.calm() <= 5.0, "too little went wrong");
    // Of at most five nodes.
    let node_minutes = summary.simulated_ms * 5 / 60_000;
    for work in ["flush", "compaction"] {
        assert!(summary.count(work) >= node_minutes, "too few of {work}");
    }
}

#[test]
fn a_day_repeats_itself_bit_for_bit_in_another_process() {
    let over_quic = LIVED.iter().filter(|(day, _)| day.quic).take(TWICE);
    let with_messages = LIVED.iter().filter(|(day, _)| !day.quic).take(TWICE);
    let days: Vec<_> = over_quic.chain(with_messages).collect();
    assert_eq!(days.len(), 2 * TWICE);
    in_two_threads(&days, |(day, one)| {
        assert!(one.simulated >= WORK);
        assert_eq!(
            trace_elsewhere(day.seed),
            format!("{:016x}", one.trace),
            "{day}"
        );
    });
    println!(
        "{} of {} traces are equal, half of them over QUIC",
        days.len(),
        days.len()
    );
}

/// The trace of a day that another process lives.
fn trace_elsewhere(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kv-sim"))
        .args(["seed", &seed.to_string()])
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let trace = text.split_once(", trace ").map(|(_, rest)| &rest[..16]);
    trace
        .unwrap_or_else(|| panic!("no trace of {seed}: {text}"))
        .to_owned()
}

#[test]
fn days_that_once_broke_a_promise_break_none_any_more() {
    let days = Path::new(env!("CARGO_MANIFEST_DIR")).join("swarm/days");
    let mut count = 0;
    for file in std::fs::read_dir(days).expect("the directory is there") {
        let file = file.expect("it can be listed").path();
        let text = std::fs::read_to_string(&file).expect("text");
        let day: Scenario = serde_json::from_str(&text).expect("a scenario");
        let report = run(&day, false);
        assert_eq!(report.violations, [], "{}", file.display());
        count += 1;
    }
    assert!(count > 0);
}
