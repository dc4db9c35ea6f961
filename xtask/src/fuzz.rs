//! `cargo xtask fuzz`: libFuzzer looks for bytes that harm what decodes them.
//!
//! The compiler of the machine instruments the code; no nightly one is needed. What is found is kept in
//! `fuzz/target/found`, and inputs that reached new code in `fuzz/target/corpus`, where the next run begins.

use crate::arguments::FuzzArguments;
use crate::binaries::executables;
use crate::command;
use crate::sanitize::host;
use crate::terminal;
use crate::workspace::{self, cargo};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// What libFuzzer needs to see of the code, as its own driver for Rust asks for it.
const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
];

/// Builds the targets, and runs each, or the one named, for a while.
///
/// # Errors
/// When they do not build, or something is found.
pub(crate) fn run(arguments: &FuzzArguments) -> Result<()> {
    let folder = workspace::root()?.join("fuzz");
    let mut build = cargo();
    build
        .args(["build", "--bins", "--target", &host()?])
        .arg("--message-format=json-render-diagnostics")
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(folder.join("target"))
        .env("RUSTFLAGS", FLAGS.join(" "))
        // Instrumentation is not stable; the compiler of the machine takes it with this.
        .env("RUSTC_BOOTSTRAP", "1");
    let mut targets = executables(&mut build)?;
    if let Some(name) = &arguments.target {
        targets.retain(|program| program.target == *name);
        if targets.is_empty() {
            bail!("there is no target {name}; look into fuzz/fuzz_targets");
        }
    }
    for target in targets {
        let begin = Instant::now();
        fuzz(
            &target.path,
            &target.target,
            &folder.join("target"),
            arguments,
        )?;
        terminal::timed("Fuzzed", &target.target, begin.elapsed());
    }
    Ok(())
}

fn fuzz(program: &Path, name: &str, folder: &Path, arguments: &FuzzArguments) -> Result<()> {
    let (corpus, found) = (folder.join("corpus").join(name), folder.join("found"));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(program);
    command
        .arg(&corpus)
        .arg(format!("-max_total_time={}", arguments.seconds))
        .arg(format!("-artifact_prefix={}/{name}-", found.display()))
        .args([
            "-max_len=512",
            "-malloc_limit_mb=64",
            "-print_final_stats=1",
        ])
        .env("ASAN_OPTIONS", "detect_leaks=0");
    let line = command::line(&command);
    let status = command
        .status()
        .with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!(
            "{name} found something, which is in {}: {line} ended with {status}",
            found.display()
        );
    }
    Ok(())
}
