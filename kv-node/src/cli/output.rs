//! Stdout and stderr: what goes where, and whether it has colours.

use std::io::{self, IsTerminal, Write};

use comfy_table::presets;
use comfy_table::{Cell, Color, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Where results, hints and progress go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    is_terminal: bool,
    has_colours: bool,
    stderr_has_colours: bool,
}

impl Output {
    /// As the process was started.
    pub(super) fn of_process(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_terminal = io::stdout().is_terminal();
        Self {
            json,
            is_terminal,
            has_colours: is_terminal && !plain && !json,
            stderr_has_colours: io::stderr().is_terminal() && !plain,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// A line for people on stdout; nothing with `--json`.
    pub(super) fn line(&self, line: impl AsRef<str>) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        writeln!(io::stdout().lock(), "{}", line.as_ref())
    }

    /// The bytes of a value on stdout; on a terminal with a line end, nothing with `--json`.
    pub(super) fn value(&self, value: &[u8]) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(value)?;
        if self.is_terminal && !value.ends_with(b"\n") {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()
    }

    /// An object on a line of its own, only with `--json`.
    pub(super) fn json_only(&self, object: &impl Serialize) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        self.json_line(object)
    }

    /// An object on a line of its own.
    pub(super) fn json_line(&self, object: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.flush()
    }

    /// A line for people on stderr; nothing with `--json`.
    pub(super) fn note(&self, line: impl AsRef<str>) {
        if !self.json {
            self.say(line.as_ref());
        }
    }

    /// What went wrong, on stderr.
    pub(super) fn error(&self, message: &str) {
        let label = self.painted_on_stderr("error:", "31;1");
        self.say(&format!("{label} {message}"));
    }

    /// What to do next, on stderr.
    pub(super) fn hint(&self, hint: &str) {
        let label = self.painted_on_stderr("hint:", "36");
        self.say(&format!("{label} {hint}"));
    }

    /// A word of alarm on stdout.
    pub(super) fn alarmed(&self, word: &str) -> String {
        painted(word, "31;1", self.has_colours)
    }

    /// A word of comfort on stdout.
    pub(super) fn pleased(&self, word: &str) -> String {
        painted(word, "32", self.has_colours)
    }

    /// A table without borders: two blanks before every column.
    pub(super) fn table(&self, header: &[&str], rows: Vec<Vec<Cell>>) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(header.to_vec())
            .add_rows(rows);
        if self.has_colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        for column in table.column_iter_mut() {
            column.set_padding((2, 0));
        }
        table.trim_fmt()
    }

    /// A cell that stands out.
    pub(super) fn alarmed_cell(&self, text: String) -> Cell {
        Cell::new(text).fg(Color::Red)
    }

    /// A progress bar on stderr; hidden off a terminal and with `--json`. Without a length it spins.
    pub(super) fn progress(&self, length: Option<u64>, template: &str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        // A template of ours that does not parse shows as the default bar.
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }

    fn painted_on_stderr(&self, text: &str, colour: &str) -> String {
        painted(text, colour, self.stderr_has_colours)
    }

    fn say(&self, line: &str) {
        // Nobody is left to be told when stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

fn painted(text: &str, colour: &str, has_colours: bool) -> String {
    if has_colours {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
