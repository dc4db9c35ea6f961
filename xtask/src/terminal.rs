//! What the tasks print: results to stdout, everything else to stderr, in cargo's own style.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// Width of cargo's right-aligned verb column.
const VERB_WIDTH: usize = 12;
/// Column in which a duration starts, after the verb and a blank.
const TEXT_WIDTH: usize = 72;

/// One step, as cargo prints it: a green, right-aligned verb and what it is about.
pub(crate) fn status(verb: &str, text: &str) {
    to_stderr(&format!("{} {text}\n", styled(verb, GREEN)));
}

/// A step that is over, and how long it took.
pub(crate) fn timed(verb: &str, text: &str, took: Duration) {
    let seconds = seconds(took);
    status(verb, &format!("{text:<TEXT_WIDTH$} {seconds:>7}"));
}

/// Something the user should know although the task goes on.
pub(crate) fn warning(text: &str) {
    to_stderr(&format!("{} {text}\n", label("warning:", YELLOW)));
}

/// The last words of a task that failed.
pub(crate) fn error(text: &str) {
    to_stderr(&format!("{} {text}\n", label("error:", RED)));
}

/// A result: the only thing that goes to stdout, so it can be piped.
pub(crate) fn result(text: &str) {
    // A reader that closed its end (`| head`) is no reason to fail: the task itself has succeeded.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Text for stderr as it is, for progress lines and relayed output.
pub(crate) fn to_stderr(text: &str) {
    // Nobody is left to tell when stderr itself is gone.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// The progress of one step: redrawn in place on a terminal, a few lines elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    verb: String,
    shown_percent: Option<u64>,
}

impl Progress {
    /// Distance between two lines where lines cannot be redrawn.
    const STEP_PERCENT: u64 = 20;

    /// Nothing is shown yet.
    pub(crate) fn new(verb: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            shown_percent: None,
        }
    }

    /// Shows how far the step is, if it has moved on enough to be worth it.
    pub(crate) fn show(&mut self, percent: u64) {
        let is_terminal = io::stderr().is_terminal();
        let step = if is_terminal { 1 } else { Self::STEP_PERCENT };
        let rounded = percent - percent % step;
        if self.shown_percent >= Some(rounded) {
            return;
        }
        self.shown_percent = Some(rounded);
        let line = format!("{} {rounded} %", styled(&self.verb, GREEN));
        if is_terminal {
            to_stderr(&format!("{ERASE_LINE}{line}"));
        } else {
            to_stderr(&format!("{line}\n"));
        }
    }

    /// Makes room for other lines; the next step forward draws again.
    pub(crate) fn clear(&self) {
        if io::stderr().is_terminal() {
            to_stderr(ERASE_LINE);
        }
    }
}

/// A duration as `0.29s` below ten seconds, `14.2s` below a minute, else `3m 04s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 9.995 {
        format!("{seconds:.2}s")
    } else if seconds < 59.95 {
        format!("{seconds:.1}s")
    } else {
        let whole = seconds.round() as u64;
        format!("{}m {:02}s", whole / 60, whole % 60)
    }
}

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A path as short as it can be said from the current directory.
pub(crate) fn shown(path: &Path) -> String {
    let here = env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok())
        .unwrap_or(path)
        .display()
        .to_string()
}

const GREEN: &str = "\x1b[1;32m";
const YELLOW: &str = "\x1b[1;33m";
const RED: &str = "\x1b[1;31m";
const ERASE_LINE: &str = "\r\x1b[K";
const PLAIN: &str = "\x1b[0m";

/// The verb column: padded first, because the colour codes count as characters.
fn styled(verb: &str, colour: &str) -> String {
    label(&format!("{verb:>VERB_WIDTH$}"), colour)
}

fn label(text: &str, colour: &str) -> String {
    if stderr_has_colour() {
        format!("{colour}{text}{PLAIN}")
    } else {
        text.to_owned()
    }
}

fn stderr_has_colour() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_figures() {
        let cases = [
            (0.0, "0.00s"),
            (0.294, "0.29s"),
            (9.994, "9.99s"),
            (9.996, "10.0s"),
            (14.23, "14.2s"),
            (59.96, "1m 00s"),
            (184.2, "3m 04s"),
        ];
        for (input, expected) in cases {
            assert_eq!(
                seconds(Duration::from_secs_f64(input)),
                expected,
                "for {input}"
            );
        }
    }

    #[test]
    fn thousands_are_grouped() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, expected) in cases {
            assert_eq!(grouped(number), expected);
        }
    }
}
