//! The program `kv-storage`: looks after stores that nobody has open. All work is done by
//! [`kv_storage::tools`].

use kv_storage::Options;
use kv_storage::fs::RealFs;
use kv_storage::tools::{self, Finding, ToolError};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

const USAGE: &str = "\
kv-storage looks after a store that nobody has open. It never changes the store, but for the lock file.

  kv-storage verify DIR               read everything; one line for each damage
  kv-storage stats  DIR               what the store consists of
  kv-storage dump   DIR [--file F] [--keys]
                                      every key with its newest value, or all that is in one file
  kv-storage repair DIR --to NEWDIR   save all that can be verified into a new store

Exit code: 0 all is well, 1 damage was found, 2 the work could not be done.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = run(&arguments, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match outcome {
        Ok(code) => code,
        // Whoever reads the output has seen enough.
        Err(Failure::Tool(ToolError::Output(error)))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(Failure::Tool(error)) => {
            let _ = writeln!(io::stderr(), "kv-storage: {error}");
            ExitCode::from(2)
        }
        Err(Failure::Usage) => {
            let _ = write!(io::stderr(), "{USAGE}");
            ExitCode::from(2)
        }
    }
}

enum Failure {
    Usage,
    Tool(ToolError),
}

impl<E: Into<ToolError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Tool(error.into())
    }
}

fn run(arguments: &[&str], out: &mut dyn Write) -> Result<ExitCode, Failure> {
    match arguments {
        ["verify", dir] => verify(Path::new(dir), out),
        ["stats", dir] => {
            let damaged = tools::summarize(Arc::new(RealFs), Path::new(dir), out)?;
            Ok(code(damaged > 0))
        }
        ["dump", dir, options @ ..] => {
            let (mut file, mut keys_only) = (None, false);
            let mut options = options.iter();
            while let Some(option) = options.next() {
                match *option {
                    "--keys" => keys_only = true,
                    "--file" => file = Some(*options.next().ok_or(Failure::Usage)?),
                    _ => return Err(Failure::Usage),
                }
            }
            let damaged = tools::dump(Arc::new(RealFs), Path::new(dir), file, keys_only, out)?;
            Ok(code(damaged > 0))
        }
        ["repair", dir, "--to", target] => repair(Path::new(dir), Path::new(target), out),
        ["help" | "--help" | "-h"] => {
            out.write_all(USAGE.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure::Usage),
    }
}

fn verify(dir: &Path, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let result = tools::verify(Arc::new(RealFs), dir)?;
    write_findings(&result.findings, out)?;
    let read = format!(
        "{} tables with {} blocks, {} bytes and {} entries, {} blob files with {} values and {} bytes, and \
         {} writes in the log",
        result.tables,
        result.blocks,
        result.bytes,
        result.entries,
        result.blob_files,
        result.blob_values,
        result.blob_bytes,
        result.log_writes
    );
    if !result.leftovers.is_empty() {
        let leftovers = result.leftovers.join(", ");
        writeln!(out, "not needed, the next open removes them: {leftovers}")?;
    }
    if result.findings.is_empty() {
        writeln!(out, "all is well: read {read}")?;
    } else {
        writeln!(out, "damages: {}, in {read}", result.findings.len())?;
    }
    Ok(code(!result.findings.is_empty()))
}

fn repair(dir: &Path, target: &Path, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let report = tools::repair(Arc::new(RealFs), dir, target, &Options::default())?;
    write_findings(&report.losses, out)?;
    if report.deleted_keys_may_be_back {
        writeln!(
            out,
            "the manifest was lost, so keys that were deleted may be back: compare with a replica or a backup"
        )?;
    }
    writeln!(
        out,
        "saved {} keys in {} tables up to write {} into {}; {} is as it was",
        report.keys,
        report.tables,
        report.newest,
        target.display(),
        dir.display(),
    )?;
    if report.losses.is_empty() {
        writeln!(
            out,
            "nothing was lost: open the new store in place of the old one"
        )?;
    } else {
        writeln!(
            out,
            "losses: {}; of the keys named above the newest values may be missing, and older ones be in their \
             place; open the new store, then fetch those keys from a replica or a backup; where replicas count on what \
             this store has acknowledged, let it stay empty and fetch everything from them",
            report.losses.len()
        )?;
    }
    Ok(code(!report.losses.is_empty()))
}

fn write_findings(findings: &[Finding], out: &mut dyn Write) -> Result<(), Failure> {
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    Ok(())
}

fn code(damaged: bool) -> ExitCode {
    ExitCode::from(u8::from(damaged))
}
