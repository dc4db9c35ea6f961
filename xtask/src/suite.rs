//! `cargo xtask test`: the whole test suite, and a ledger that says where its time goes.

mod ledger;

use crate::arguments::TestArguments;
use crate::binaries::{Executable, executables};
use crate::command;
use crate::terminal;
use crate::workspace::cargo;
use anyhow::{Context, Result, bail};
use ledger::Ledger;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Builds and runs the tests of every package, also after a failure, and prints the ledger.
///
/// # Errors
/// When something does not build or a test fails.
pub(crate) fn run(arguments: &TestArguments) -> Result<()> {
    let begin = Instant::now();
    // Building apart keeps compile time out of the ledger, and its JSON says which package a test
    // program belongs to.
    let programs = executables(test(&arguments.cargo).args(build_arguments(&arguments.cargo)))?;
    terminal::timed("Built", "all tests", begin.elapsed());
    let outcome = run_tests(&arguments.cargo, &programs);
    terminal::timed("Total", "build and tests", begin.elapsed());
    outcome
}

fn run_tests(passed_on: &[String], programs: &[Executable]) -> Result<()> {
    let mut tests = test(passed_on);
    // Building the tests has built the programs as well; tests of processes need not do it again.
    tests
        .arg("--no-fail-fast")
        .args(passed_on)
        .env("KV_TEST_PROGRAMS_BUILT", "1");
    let mut ledger = Ledger::new(programs);
    // Cargo names each program on stderr and the program reports on stdout; one pipe keeps their order.
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let errors = writer.try_clone().context("cannot make a pipe")?;
    let line = command::line(&tests);
    let mut child = tests
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    // The command holds the pipe's other end, and the pipe ends only when that is closed.
    drop(tests);
    relay(BufReader::new(reader), &mut ledger)?;
    let status = child.wait()?;
    terminal::result(&ledger.render());
    if !status.success() {
        bail!("tests failed: {line} ended with {status}");
    }
    Ok(())
}

/// Shows every line as it comes and enters it into the ledger.
fn relay(mut lines: impl BufRead, ledger: &mut Ledger) -> Result<()> {
    let mut bytes = Vec::new();
    while lines.read_until(b'\n', &mut bytes)? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        terminal::result(&line);
        ledger.enter(line.trim_end(), Instant::now());
        bytes.clear();
    }
    ledger.close(Instant::now());
    Ok(())
}

fn test(passed_on: &[String]) -> Command {
    let mut command = cargo();
    command.arg("test");
    if !names_packages(passed_on) {
        command.arg("--workspace");
    }
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    command
}

/// Arguments of cargo itself; those behind `--` are for the test programs.
fn build_arguments(passed_on: &[String]) -> Vec<&str> {
    let of_cargo = passed_on
        .iter()
        .map(String::as_str)
        .take_while(|&word| word != "--");
    of_cargo
        .chain(["--no-run", "--message-format=json-render-diagnostics"])
        .collect()
}

fn names_packages(passed_on: &[String]) -> bool {
    passed_on
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word.starts_with("-p") || word.starts_with("--package"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn chosen_packages_replace_the_workspace() {
        assert!(names_packages(&words("-p kv-ring")));
        assert!(names_packages(&words("--package=kv-ring plan")));
        assert!(!names_packages(&words("plan -- -p")));
        assert!(!names_packages(&[]));
    }

    #[test]
    fn arguments_of_test_programs_are_kept_from_the_build() {
        assert_eq!(
            build_arguments(&words("-p kv-ring -- --nocapture")),
            [
                "-p",
                "kv-ring",
                "--no-run",
                "--message-format=json-render-diagnostics"
            ]
        );
    }
}
