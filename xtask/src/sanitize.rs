//! `cargo xtask sanitize`: the storage engine's tests under the compiler's sanitizers.
//!
//! The engine has two small modules of unsafe code: mapped log segments, and the memtable's arena. The address
//! sanitizer watches that they stay inside of their memory, the thread sanitizer that threads which meet
//! there are ordered. The latter must be asked for: it cannot see the locks inside of a standard library that
//! was built without it, and then reports races wherever one was waited for.

use crate::arguments::{SanitizeArguments, Sanitizer};
use crate::command;
use crate::terminal;
use crate::workspace::{self, cargo};
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::Instant;

/// Tests that judge compaction by simulation touch no shared memory, and would take minutes.
const LEFT_OUT: [&str; 2] = ["amplification", "million"];

/// Builds the tests of `kv-storage` with a sanitizer, the address sanitizer when none is named, and runs them.
///
/// # Errors
/// When something does not build, a test fails, or the sanitizer finds something.
pub(crate) fn run(arguments: &SanitizeArguments) -> Result<()> {
    let sanitizer = arguments.sanitizer.unwrap_or(Sanitizer::Address);
    let begin = Instant::now();
    let mut tests = test(sanitizer)?;
    tests.args(&arguments.tests);
    let line = command::line(&tests);
    let status = tests
        .status()
        .with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!(
            "{} found something: {line} ended with {status}",
            name(sanitizer)
        );
    }
    terminal::timed("Passed", name(sanitizer), begin.elapsed());
    Ok(())
}

/// What this machine is, in the compiler's words.
pub(crate) fn host() -> Result<String> {
    let version = command::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

fn name(sanitizer: Sanitizer) -> &'static str {
    match sanitizer {
        Sanitizer::Address => "the address sanitizer",
        Sanitizer::Thread => "the thread sanitizer",
    }
}

fn test(sanitizer: Sanitizer) -> Result<Command> {
    let (flags, folder) = match sanitizer {
        Sanitizer::Address => ("-Zsanitizer=address", "sanitize-address"),
        // The standard library is not instrumented, which the compiler wants to hear.
        Sanitizer::Thread => (
            "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
            "sanitize-thread",
        ),
    };
    let target = workspace::target_directory()?.join(folder);
    let mut command = cargo();
    command
        .args(["test", "--package", "kv-storage", "--lib", "--tests"])
        // Named, or cargo would build its build scripts with the sanitizer too.
        .args(["--target", &host()?])
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", flags)
        // Sanitizers are not stable; the compiler of the machine takes them with this.
        .env("RUSTC_BOOTSTRAP", "1")
        // Tests that never run a job leave it in a queue that the job's own store holds.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .arg("--");
    for left_out in LEFT_OUT {
        command.args(["--skip", left_out]);
    }
    Ok(command)
}
