//! Simulated days full of faults: fresh ones for every commit, and those that once failed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kv_tests::swarm::{Scenario, Summary, run};

/// How long clients work on each day.
const WORK: Duration = Duration::from_secs(60);
/// How many days are lived for each commit: with mere messages, and over QUIC.
const MESSAGE_DAYS: usize = 200;
const QUIC_DAYS: usize = 40;
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

#[test]
fn no_day_of_this_commit_breaks_a_promise() {
    let (messages, quic) = days();
    println!("first seed {}", messages[0].seed.min(quic[0].seed));
    let days: Vec<Scenario> = messages.into_iter().chain(quic).collect();
    let live = |part: usize| {
        let mut summary = Summary::default();
        for day in days.iter().skip(part).step_by(2) {
            summary.add(day.seed, &run(day, false));
        }
        summary
    };
    let summary = std::thread::scope(|scope| {
        let other = scope.spawn(|| live(1));
        let mut summary = live(0);
        summary.merge(other.join().expect("a day does not panic"));
        summary
    });
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
    let (messages, quic) = days();
    let repeat = |days: &[Scenario]| {
        for day in days {
            let one = run(day, false);
            assert!(one.simulated >= WORK);
            assert_eq!(
                trace_elsewhere(day.seed),
                format!("{:016x}", one.trace),
                "{day}"
            );
        }
        println!(
            "{} of {} traces are equal, {}",
            days.len(),
            days.len(),
            if days[0].quic {
                "over QUIC"
            } else {
                "with mere messages"
            }
        );
    };
    std::thread::scope(|scope| {
        scope.spawn(|| repeat(&quic[..TWICE]));
        repeat(&messages[..TWICE]);
    });
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
