//! The tables: Markdown made from the results on disk.

mod costs;
mod goals;
pub(crate) mod number;
mod rates;
mod results;
mod table;
mod versions;

use crate::engine::EngineName;
use crate::limits;
use crate::machine::Machine;
use crate::scale::Scale;
use crate::suite::Ledger;
use anyhow::Result;
use results::Results;
use std::fmt::Write as _;
use std::path::Path;

/// Renders everything that is known in a folder.
///
/// # Errors
/// There are no results, or they cannot be read.
pub(crate) fn render(folder: &Path, is_quick: bool) -> Result<String> {
    let machine = Machine::load(folder)?;
    let ledger = Ledger::open(folder)?;
    let results = Results::of(ledger.records());
    let mut text = introduction(&machine, &results, is_quick);
    for (heading, part) in [
        ("Rates", rates::render(&results)),
        ("Other goals", goals::render(&results)),
        ("Latency and cost", costs::render(&results)),
        (
            "Limits of the machine",
            limits::render(&limits::load(folder)?),
        ),
    ] {
        if let Some(part) = part {
            let _ = write!(text, "\n### {heading}\n\n{part}");
        }
    }
    Ok(text)
}

fn introduction(machine: &Machine, results: &Results<'_>, is_quick: bool) -> String {
    let budget = Scale::new(is_quick).budget;
    let flag = if is_quick { " --quick" } else { "" };
    let mut text = String::new();
    if is_quick {
        text.push_str(
            "**A quick run: a quarter of the data with a quarter of the memory, one pass. \
             It shows that everything works; it judges nothing.**\n\n",
        );
    }
    let versions: Vec<String> = EngineName::ALL.map(versions::of).into();
    let _ = writeln!(text, "- Machine: {machine}.");
    let _ = writeln!(text, "- Command: `cargo xtask bench engine{flag}`.");
    let _ = writeln!(text, "- Engines: {}.", versions.join(", "));
    let _ = writeln!(
        text,
        "- Budget of each: {} MiB of caches, {} MiB memtable, {} B blocks, filters of {} bits a key, \
         zstd level {}, {} background threads.",
        budget.cache_bytes >> 20,
        budget.memtable_bytes >> 20,
        budget.block_bytes,
        budget.filter_bits_per_key,
        budget.zstd_level,
        budget.background_threads
    );
    if !results.is_empty() {
        let _ = writeln!(text, "- Source: {}.", results.revisions());
        let _ = writeln!(text, "- {}", results.quietness());
    }
    for failure in results.failures() {
        let _ = writeln!(text, "- **Failed:** {failure}");
    }
    text
}
