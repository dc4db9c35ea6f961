//! `cargo xtask sim` and `cargo xtask mutants`: simulated days full of faults, for hours, and on code that is broken on
//! purpose.

mod days;

use crate::arguments::{MutantsArguments, ProgramArguments, SimArguments};
use crate::binaries::{Binaries, executables};
use crate::command;
use crate::terminal;
use crate::workspace::{self, cargo};
use anyhow::{Context, Result, bail};
use days::{Days, Summary};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Days that a process lives before it tells.
const RANGE: u64 = 20;
/// Of this many failing days a range tells the rest does not matter.
const MOST_FAILURES: &str = "5";
/// Has glibc keep what a day gave back for the next one: a tenth of the time goes into pages that are cleared otherwise.
const KEEP_MEMORY: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "2147483648"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// Lives one day, or many.
///
/// # Errors
/// When the simulator does not build, or a day breaks a promise.
pub(crate) fn run(arguments: &SimArguments) -> Result<()> {
    if let Some(hours) = arguments.hours {
        return live(&build(&[], None)?, Duration::from_secs_f64(hours * 3_600.0));
    }
    if arguments.report {
        return report(&Days::open()?);
    }
    let Some(seed) = arguments.seed else {
        bail!("say which day with --seed N, or for how long with --hours H");
    };
    let mut sim = Command::new(build(&[], None)?);
    sim.arg("seed").arg(seed.to_string());
    if arguments.log {
        sim.arg("--log");
    }
    if let Some(key) = arguments.key {
        sim.args(["--key", &key.to_string()]);
    }
    let commit = command::output(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
    terminal::result(&format!("commit {}\n", commit.unwrap_or_default().trim()));
    let status = sim.status().context("cannot run kv-sim")?;
    if !status.success() {
        bail!(
            "day {seed} broke a promise; make it smaller with `kv-sim shrink {seed} --save FILE`"
        );
    }
    Ok(())
}

/// Builds the simulator and says where it is.
fn build(flags: &[&str], target: Option<&Path>) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--package", "kv-tests", "--bin", "kv-sim"]);
    build.arg("--message-format=json-render-diagnostics");
    if !flags.is_empty() {
        build.env("RUSTFLAGS", flags.join(" "));
    }
    if let Some(target) = target {
        build.arg("--target-dir").arg(target);
    }
    let built = executables(&mut build)?;
    let found = built.into_iter().find(|program| program.target == "kv-sim");
    Ok(found.context("cargo built no program kv-sim")?.path)
}

/// Lives days on all processors until the time is over. Goes on where an earlier run of the same code ended.
fn live(sim: &Path, time: Duration) -> Result<()> {
    let days = Days::open()?;
    let begin = Instant::now();
    let next = AtomicU64::new(days.next_seed()?);
    let failed = AtomicBool::new(false);
    let errors: Mutex<Vec<anyhow::Error>> = Mutex::default();
    let work = || {
        while begin.elapsed() < time {
            let first = next.fetch_add(RANGE, Ordering::Relaxed);
            let lived = live_range(sim, first, RANGE, None).and_then(|summary| {
                days.save(first, RANGE, &summary)?;
                Ok(summary)
            });
            match lived {
                Ok(summary) => {
                    for (seed, found) in &summary.failures {
                        failed.store(true, Ordering::Relaxed);
                        terminal::warning(&format!("day {seed}: {}", found.join("; ")));
                    }
                    if let Ok(all) = days.summary() {
                        terminal::status("Lived", &all.line());
                    }
                }
                Err(error) => {
                    errors.lock().expect("no panic").push(error);
                    return;
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    if let Some(error) = errors.into_inner().expect("no panic").pop() {
        return Err(error);
    }
    report(&days)?;
    if failed.into_inner() {
        bail!("days broke promises; look at one with `cargo xtask sim --seed N --log`");
    }
    Ok(())
}

/// Lives a range of days in a process of its own.
fn live_range(sim: &Path, first: u64, count: u64, planted: Option<&str>) -> Result<Summary> {
    let most = if planted.is_some() {
        "1"
    } else {
        MOST_FAILURES
    };
    let mut range = Command::new(sim);
    range
        .arg("range")
        .args([first.to_string(), count.to_string()]);
    range.args(["--failures", most]).stdin(Stdio::null());
    range.envs(KEEP_MEMORY);
    if let Some(planted) = planted {
        // What breaks may say so at length.
        range.env("KV_PLANTED", planted).stderr(Stdio::null());
    }
    // Ending with an error means only that a day failed; the summary says which.
    let output = range.output().context("cannot run kv-sim")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "{} ended with {} and told nothing",
            command::line(&range),
            output.status
        )
    })
}

/// Prints what was lived so far with this code, and writes it to docs/reliability-report.md.
fn report(days: &Days) -> Result<()> {
    let summary = days.summary()?;
    terminal::result(&format!("{summary}\n"));
    let root = workspace::root()?;
    let carried = days.write_summary(&root, &summary)?;
    terminal::status("Wrote", &terminal::shown(&carried));
    let path = root.join("docs/reliability-report.md");
    std::fs::write(&path, days.document(&summary)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    terminal::status("Wrote", &terminal::shown(&path));
    Ok(())
}

/// Looks whether an ordinary build of the node holds none of the bugs.
fn absent<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let node = Binaries::get(&ProgramArguments::default())?.node;
    let bytes = std::fs::read(&node).with_context(|| format!("cannot read {}", node.display()))?;
    let holds = |name: &&str| {
        bytes
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    };
    match names.into_iter().find(holds) {
        Some(name) => bail!("{} holds the planted bug \"{name}\"", node.display()),
        None => Ok(()),
    }
}

/// Where each program of tests is, and its folder, in a build that holds the bugs.
fn build_tests(target: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut build = cargo();
    build.args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    build.args([
        "--package",
        "kv-ring",
        "--package",
        "kv-node",
        "--package",
        "kv-client",
        "--package",
        "kv-tests",
    ]);
    build.args([
        "--lib", "--test", "it", "--test", "models", "--test", "swarm",
    ]);
    build.arg("--target-dir").arg(target);
    build.env("RUSTFLAGS", "--cfg kv_planted");
    let root = workspace::root()?;
    let built = executables(&mut build)?.into_iter();
    let folder = |package: &str| {
        root.join(
            package
                .strip_prefix("kv-tests")
                .map_or(package, |_| "tests"),
        )
    };
    Ok(built
        .map(|program| (folder(&program.package), program.path))
        .collect())
}

/// The first test that fails where a bug is awake; `None` if none does. Days are for the others.
fn failing(programs: &[(PathBuf, PathBuf)], name: &str) -> Result<Option<String>> {
    for (folder, program) in programs {
        let mut tests = Command::new(program);
        tests.args(["--skip", "no_day_of", "--skip", "a_day_repeats"]);
        tests.env("KV_PLANTED", name).env("RUST_BACKTRACE", "0");
        tests
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let told = tests
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let failed = told.lines().find_map(|line| {
            line.strip_prefix("test ")?
                .strip_suffix(" ... FAILED")
                .map(str::to_owned)
        });
        if failed.is_some() {
            return Ok(failed);
        }
    }
    Ok(None)
}

/// Shows that each planted bug is found within the days of one test run, or by other tests.
///
/// # Errors
/// When the simulator does not build, a bug survives, or something is found where no bug is awake.
pub(crate) fn mutants(arguments: &MutantsArguments) -> Result<()> {
    let target = workspace::target_directory()?.join("planted");
    let sim = build(&["--cfg kv_planted"], Some(&target))?;
    let listed = command::output(Command::new(&sim).arg("planted"))?;
    let of_tests = command::output(Command::new(&sim).args(["planted", "--by-tests"]))?;
    let is_wanted = |name: &&str| {
        let wanted = arguments.name.as_deref();
        wanted.is_none_or(|wanted| name.contains(wanted))
    };
    let (mut survived, mut most) = (Vec::new(), 0);
    let by_tests: Vec<&str> = of_tests.lines().filter(is_wanted).collect();
    if !by_tests.is_empty() {
        let programs = build_tests(&target)?;
        for name in by_tests {
            let begin = Instant::now();
            match failing(&programs, name)? {
                Some(test) => {
                    terminal::timed("Caught", &format!("{name}: by {test}"), begin.elapsed());
                }
                None => {
                    terminal::warning(&format!("{name}: survived all tests"));
                    survived.push(name);
                }
            }
        }
    }
    for name in listed.lines().filter(is_wanted) {
        let begin = Instant::now();
        let summary = live_range(&sim, arguments.first, arguments.days, Some(name))?;
        match summary
            .failures
            .values()
            .next()
            .and_then(|found| found.first())
        {
            Some(found) => {
                most = most.max(summary.seeds);
                let found: String = found.chars().take(100).collect();
                let text = format!("{name}: after {} days, {found}", summary.seeds);
                terminal::timed("Caught", &text, begin.elapsed());
            }
            None => {
                terminal::warning(&format!("{name}: survived {} days", summary.seeds));
                survived.push(name);
            }
        }
    }
    absent(listed.lines().chain(of_tests.lines()))?;
    let asleep = live_range(&sim, arguments.first, most, None)?;
    if let Some((seed, found)) = asleep.failures.iter().next() {
        bail!(
            "day {seed} fails though no bug is awake: {}",
            found.join("; ")
        );
    }
    terminal::status("Silent", &format!("{most} days where no bug is awake"));
    if !survived.is_empty() {
        bail!("not found: {}", survived.join(", "));
    }
    Ok(())
}
