//! What the program prints: results to stdout, everything else to stderr, in cargo's style.

use std::io::{self, Write};

/// Width of cargo's right-aligned verb column.
const VERB_WIDTH: usize = 12;

/// A result: the only thing that goes to stdout.
pub(crate) fn result(text: &str) {
    // A reader that closed its end (`| head`) is no reason to fail.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// A step that is over.
pub(crate) fn status(verb: &str, text: &str) {
    // Nobody is left to tell when stderr itself is gone.
    let _ = writeln!(io::stderr().lock(), "{verb:>VERB_WIDTH$} {text}");
}
