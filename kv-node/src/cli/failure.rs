//! How a command ends that did not do what it was told: a message, a hint, an exit code.

use std::io;
use std::process::ExitCode;

use kv_client::{ConnectError, Error, Outcome};
use serde::Serialize;

use super::output::Output;

/// Why a command failed, and what to do next.
#[derive(Debug)]
pub(super) struct Failure {
    exit: u8,
    code: &'static str,
    outcome: Outcome,
    message: String,
    hint: Option<String>,
    is_retryable: bool,
    /// Everything was said already.
    is_silent: bool,
}

#[derive(Serialize)]
struct FailureJson<'a> {
    schema: u8,
    error: &'a str,
    exit: u8,
    outcome: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Failure {
    pub(super) fn new(exit: u8, code: &'static str, message: impl Into<String>) -> Self {
        let (message, outcome) = (message.into(), Outcome::NotApplied);
        Self {
            exit,
            code,
            outcome,
            message,
            hint: None,
            is_retryable: false,
            is_silent: false,
        }
    }

    /// The command or its input makes no sense.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(2, "usage", message)
    }

    /// What the command relied on is not so.
    pub(super) fn precondition(message: impl Into<String>) -> Self {
        Self::new(5, "precondition", message)
    }

    /// An error without an exit code of its own.
    pub(super) fn other(message: impl Into<String>) -> Self {
        Self::new(1, "other", message)
    }

    /// Ends with an exit code; stdout and stderr have said why.
    pub(super) fn silent(exit: u8) -> Self {
        Self {
            is_silent: true,
            ..Self::new(exit, "", "")
        }
    }

    /// What to do next, on a line of its own.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn exit(&self) -> u8 {
        self.exit
    }

    /// Whether the same may succeed later.
    pub(super) fn is_retryable(&self) -> bool {
        self.is_retryable
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Says it on stderr, with `--json` as an object on stdout too, and gives the exit code.
    pub(super) fn report(&self, output: &Output) -> ExitCode {
        if !self.is_silent {
            output.error(&self.message);
            if let Some(hint) = &self.hint {
                output.hint(hint);
            }
            let json = FailureJson {
                schema: 1,
                error: self.code,
                exit: self.exit,
                outcome: outcome_name(self.outcome),
                message: &self.message,
                hint: self.hint.as_deref(),
            };
            // Nobody is left to be told when stdout is closed.
            let _ = output.json_only(&json);
        }
        ExitCode::from(self.exit)
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NotApplied => "not-applied",
        Outcome::Unknown => "unknown",
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Self::new(error.exit_code(), error.code(), error.to_string());
        failure.outcome = error.outcome();
        failure.is_retryable = error.is_retryable();
        failure
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::from(Error::from(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The reader of a pipe has seen enough.
            io::ErrorKind::BrokenPipe => Self::silent(0),
            _ => Self::other(format!("cannot write the output: {error}")),
        }
    }
}
