//! Running another program to its end: what was run and what it said belongs into every error.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};

/// Runs a command quietly and returns what it printed to stdout.
///
/// # Errors
/// When it cannot be started or ends with another code than 0; the message holds the command line and
/// everything it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        bail!("{}", complaint(command, &output));
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed something else than text", line(command)))
}

/// Runs a command that prints one JSON document.
///
/// # Errors
/// As [`output`], and when the output is no JSON.
pub(crate) fn json(command: &mut Command) -> Result<Value> {
    let text = output(command)?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} printed no JSON: {text}", line(command)))
}

/// The command as a shell would take it, for messages.
pub(crate) fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        // Quoted only where a reader would otherwise misread it; this is a message, not a script.
        let _ = if argument.is_empty() || argument.contains(char::is_whitespace) {
            write!(text, " '{argument}'")
        } else {
            write!(text, " {argument}")
        };
    }
    text
}

fn complaint(command: &Command, output: &Output) -> String {
    let mut text = format!("{} ended with {}", line(command), output.status);
    for stream in [&output.stderr, &output.stdout] {
        for said in String::from_utf8_lossy(stream).lines() {
            let _ = write!(text, "\n  {said}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn failure_names_the_command_and_repeats_what_it_said() {
        let error = output(&mut shell("echo reason >&2; exit 3")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("sh -c 'echo reason >&2; exit 3'"),
            "{text}"
        );
        assert!(text.ends_with("exit status: 3\n  reason"), "{text}");
    }

    #[test]
    fn json_is_parsed_and_garbage_is_shown() {
        let value = json(&mut shell("echo '{\"id\": 7}'")).unwrap();
        assert_eq!(value["id"], 7);
        let error = json(&mut shell("echo oops")).unwrap_err();
        assert!(error.to_string().contains("oops"), "{error}");
    }
}
