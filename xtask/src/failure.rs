//! How a task fails: what is printed, and which exit code the shell sees.

use crate::terminal;
use std::fmt;
use std::process::ExitCode;

/// Something the user must do first: a flag that makes no sense, a missing package list.
pub(crate) const USAGE: u8 = 2;
/// The code shells give a program that ended by Ctrl-C (128 + SIGINT).
pub(crate) const INTERRUPTED: u8 = 130;

/// An error that asks for an exit code of its own; every other error exits with 1.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// An error with this exit code.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A request that cannot be carried out as it was written.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::new(USAGE, message).into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints an error with its causes and returns the exit code it asks for.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // The alternate form prints the causes behind the error, separated by colons, on one line.
    terminal::error(&format!("{error:#}"));
    ExitCode::from(exit_code(error))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    error
        .downcast_ref::<Failure>()
        .map_or(1, |failure| failure.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn exit_code_survives_added_context() {
        let error = Err::<(), _>(Failure::usage("no lists"))
            .context("demo")
            .unwrap_err();
        assert_eq!(exit_code(&error), USAGE);
        assert_eq!(format!("{error:#}"), "demo: no lists");
        assert_eq!(exit_code(&anyhow::anyhow!("plain")), 1);
    }
}
