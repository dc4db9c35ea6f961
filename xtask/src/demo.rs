//! `cargo xtask demo-data`: real records, a node killed while they are written, every byte compared.
//!
//! A cluster of its own takes the operating system's package index at W=2. After a third of it one node
//! is killed without warning, after two thirds it is started again. Then every record is read at R=2
//! through each node and compared with the source. Two quorums of two out of three share a node, so
//! nothing acknowledged may be missing, whatever the killed node has slept through.

mod source;
mod summary;
mod transfer;

use crate::arguments::{BasePort, DemoArguments, UpArguments};
use crate::cluster::{Cluster, Fault, State};
use crate::interrupt::Interrupt;
use crate::terminal::{self, Progress, shown};
use crate::workspace;
use anyhow::{Result, bail};
use source::Source;
use std::thread;
use std::time::Duration;
use summary::{Crash, Summary};
use transfer::{Report, Transfer};

/// The node that is killed.
const VICTIM: &str = "n2";
/// It dies after this many parts of [`PARTS`] of the source, and comes back after that many.
const CRASH_PART: u64 = 1;
const RETURN_PART: u64 = 2;
const PARTS: u64 = 3;
/// How often progress is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Runs the demo and prints its summary.
///
/// # Errors
/// When there are no records (exit code 2), or when one was lost or differs; the cluster's folder is
/// kept in that case.
pub(crate) fn run(asked: &DemoArguments) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let folder = workspace::target_directory()?.join("kv-demo");
    let cluster = Cluster::private(&folder, "demo");
    let _lock = cluster.lock()?;
    // An earlier demo may have been broken off, or kept its data because something was wrong.
    cluster.discard()?;
    let source = Source::prepare(asked, &folder)?;
    let wanted = UpArguments {
        base_port: Some(BasePort::Auto),
        programs: asked.programs.clone(),
        ..UpArguments::default()
    };
    let demo = Demo {
        state: cluster.bring_up(&wanted, &interrupt)?,
        cluster: &cluster,
        source: &source,
        interrupt: &interrupt,
    };
    let outcome = demo.play().and_then(|summary| {
        terminal::result(&summary.render());
        summary.verdict()
    });
    if outcome.is_err() && interrupt.check().is_ok() {
        cluster.down(false)?;
        terminal::warning(&format!("data and logs are kept in {}", shown(&folder)));
    } else {
        cluster.discard()?;
        source.discard()?;
    }
    outcome
}

/// A running demo.
struct Demo<'a> {
    cluster: &'a Cluster,
    state: State,
    source: &'a Source,
    interrupt: &'a Interrupt,
}

impl Demo<'_> {
    fn play(&self) -> Result<Summary> {
        let (import, crash) = self.import()?;
        let mut checks = Vec::new();
        for node in self.state.node_names() {
            checks.push((node.to_owned(), self.check(node)?));
        }
        Ok(Summary {
            origin: self.source.origin.clone(),
            records: self.source.records,
            bytes: self.source.bytes,
            import,
            crash,
            checks,
        })
    }

    /// Imports everything at W=2; in the middle a node is killed, and later started again.
    fn import(&self) -> Result<(Report, Crash)> {
        let mut command = self.cluster.cli(&self.state);
        command.arg("import").arg(&self.source.path);
        command.args(["--format", "deb822", "--w", "2", "--json"]);
        let mut import = Transfer::start(command, self.source)?;
        let mut progress = Progress::new("Importing");
        let killed_at = self.advance(
            &mut import,
            self.source.bytes * CRASH_PART / PARTS,
            &mut progress,
        )?;
        self.cluster.inflict(Fault::Kill, &[VICTIM.to_owned()])?;
        let returned_at = self.advance(
            &mut import,
            self.source.bytes * RETURN_PART / PARTS,
            &mut progress,
        )?;
        self.cluster.restart(&[VICTIM.to_owned()], self.interrupt)?;
        let report = self.finish(import, &mut progress)?;
        let crash = Crash {
            node: VICTIM.to_owned(),
            killed_percent: percent(killed_at, self.source.bytes),
            returned_percent: percent(returned_at, self.source.bytes),
        };
        Ok((report, crash))
    }

    /// Reads every record at R=2 through one node and compares it with the source.
    fn check(&self, node: &str) -> Result<Report> {
        let mut command = self.cluster.cli(&self.state);
        command
            .args(["--via", node, "import"])
            .arg(&self.source.path);
        command.args(["--format", "deb822", "--verify", "--r", "2", "--json"]);
        let check = Transfer::start(command, self.source)?;
        self.finish(check, &mut Progress::new(&format!("Checking {node}")))
    }

    /// Waits until the transfer has read this far into the source, and says how far it is.
    fn advance(&self, transfer: &mut Transfer, goal: u64, progress: &mut Progress) -> Result<u64> {
        loop {
            self.interrupt.check()?;
            let position = transfer.position();
            progress.show(percent(position, self.source.bytes));
            if transfer.is_over()? {
                bail!(
                    "the import was over before {VICTIM} could be killed and started again; use more --records"
                );
            }
            if position >= goal {
                progress.clear();
                return Ok(position);
            }
            thread::sleep(POLL);
        }
    }

    fn finish(&self, mut transfer: Transfer, progress: &mut Progress) -> Result<Report> {
        while !transfer.is_over()? {
            self.interrupt.check()?;
            progress.show(percent(transfer.position(), self.source.bytes));
            thread::sleep(POLL);
        }
        progress.clear();
        transfer.report()
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    // The source fits into memory, so the product is far from the limit of u64.
    part * 100 / whole.max(1)
}
