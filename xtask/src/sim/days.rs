//! The days that were lived with one state of the code.

use crate::command;
use crate::terminal::grouped;
use crate::workspace;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What decides about days: the code under test, and the simulator.
const CODE: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "kv-types",
    "kv-ring",
    "kv-storage",
    "kv-gossip",
    "kv-net",
    "kv-node",
    "tests/Cargo.toml",
    "tests/src",
];

/// Where it stands in the project what its days came to so far.
const CARRIED: &str = "docs/reliability-report.json";

/// What many days came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Days.
    pub(crate) seeds: u64,
    /// Simulated milliseconds.
    pub(crate) simulated_ms: u64,
    /// How often things were seen.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Failed days, with what happened.
    pub(crate) failures: BTreeMap<u64, Vec<String>>,
}

impl Summary {
    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.simulated_ms += other.simulated_ms;
        for (what, times) in other.counts {
            *self.counts.entry(what).or_default() += times;
        }
        self.failures.extend(other.failures);
    }

    fn hours(&self) -> f64 {
        self.simulated_ms as f64 / 3_600_000.0
    }

    fn density(&self) -> u64 {
        let operations = ["read", "write"].map(|what| self.counts.get(what).copied().unwrap_or(0));
        operations.iter().sum::<u64>() * 1_000 / self.simulated_ms.max(1)
    }

    /// All of it in one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} days, {:.1} simulated hours, {} faults, {} client operations a simulated second, {} failed",
            grouped(self.seeds),
            self.hours(),
            grouped(self.counts.get("fault").copied().unwrap_or(0)),
            self.density(),
            self.failures.len()
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line())?;
        for (what, times) in &self.counts {
            write!(f, "\n  {what:<24}{:>16}", grouped(*times))?;
        }
        for (seed, found) in &self.failures {
            write!(f, "\n  day {seed}: {}", found.join("; "))?;
        }
        Ok(())
    }
}

/// What was lived with a state of the code, wherever that was; it stands beside the report.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    code: String,
    next_seed: u64,
    summary: Summary,
}

/// Files of ranges of days, in a folder for this state of the code.
#[derive(Debug)]
pub(crate) struct Days {
    folder: PathBuf,
    code: String,
}

impl Days {
    /// Those of the present code.
    ///
    /// # Errors
    /// When git cannot say what the code is, or the folder cannot be made.
    pub(crate) fn open() -> Result<Self> {
        let root = workspace::root()?;
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(arguments).arg("--").args(CODE).current_dir(&root);
            command::output(&mut git)
        };
        // Changes that are not committed are a state of the code, too.
        let state = git(&["ls-tree", "HEAD"])? + &git(&["diff", "HEAD"])?;
        let code = format!("{:016x}", fnv(state.as_bytes()));
        let folder = workspace::target_directory()?.join("sim").join(&code);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let days = Self { folder, code };
        days.take_over(&root.join(CARRIED))?;
        Ok(days)
    }

    /// Goes on from what was committed, where less was lived here with this code.
    fn take_over(&self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let carried: Carried = serde_json::from_slice(&text)
            .with_context(|| format!("{} holds no summary", path.display()))?;
        if carried.code == self.code && carried.next_seed > self.next_seed()? {
            for (.., own) in self.files()? {
                fs::remove_file(&own)
                    .with_context(|| format!("cannot remove {}", own.display()))?;
            }
            self.save(1, carried.next_seed - 1, &carried.summary)?;
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<(u64, u64, PathBuf)>> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            let range = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.split_once('-'));
            let range =
                range.and_then(|(first, count)| Some((first.parse().ok()?, count.parse().ok()?)));
            if let Some((first, count)) = range {
                files.push((first, count, path));
            }
        }
        Ok(files)
    }

    /// The first seed that was not lived yet.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn next_seed(&self) -> Result<u64> {
        let ends = self
            .files()?
            .into_iter()
            .map(|(first, count, _)| first + count);
        Ok(ends.max().unwrap_or(1))
    }

    /// Keeps what a range of days came to.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self, first: u64, count: u64, summary: &Summary) -> Result<()> {
        let path = self.folder.join(format!("{first}-{count}.json"));
        let unfinished = path.with_extension("tmp");
        fs::write(&unfinished, serde_json::to_vec(summary)?)
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes all days together into one file of a project, from which a run elsewhere goes on, and says where it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_summary(&self, root: &Path, summary: &Summary) -> Result<PathBuf> {
        let path = root.join(CARRIED);
        let carried = Carried {
            code: self.code.clone(),
            next_seed: self.next_seed()?,
            summary: summary.clone(),
        };
        let mut text = serde_json::to_string_pretty(&carried)?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// All days together.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn summary(&self) -> Result<Summary> {
        let mut all = Summary::default();
        for (.., path) in self.files()? {
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let summary = serde_json::from_slice(&text)
                .with_context(|| format!("{} holds no summary", path.display()))?;
            all.merge(summary);
        }
        Ok(all)
    }

    /// The report for docs/.
    ///
    /// # Errors
    /// When git cannot say what the code is.
    pub(crate) fn document(&self, summary: &Summary) -> Result<String> {
        let commit = command::output(Command::new("git").args(["rev-parse", "--short", "HEAD"]))?;
        let mut text = String::from(
            "# Reliability report\n\nWhole clusters on simulated days: 60 seconds of clients at work while things go wrong, then healing, then \
             judgement. `cargo xtask sim --hours H` lives days on all processors and writes this page; it goes on where an \
             earlier run with the same code ended, also in another clone, from `reliability-report.json`. What days are made of and what is judged stands in \
             [ARCHITECTURE.md](ARCHITECTURE.md); which bugs they would have found, `cargo xtask mutants` shows.\n\n",
        );
        let _ = writeln!(
            text,
            "* Code: commit {}, state {}.",
            commit.trim(),
            self.code
        );
        let _ = writeln!(text, "* {}.\n\n| seen | times |\n|---|---|", summary.line());
        for (what, times) in &summary.counts {
            let _ = writeln!(text, "| {what} | {} |", grouped(*times));
        }
        for (seed, found) in &summary.failures {
            let _ = writeln!(text, "\nDay {seed} failed: {}", found.join("; "));
        }
        Ok(text)
    }
}

/// FNV-1a: names a state, and guards against nothing.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_add_up_and_the_next_one_follows() {
        let folder = std::env::temp_dir().join(format!("kv-days-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let days = Days {
            folder: folder.clone(),
            code: "code".to_owned(),
        };
        assert_eq!(days.next_seed().expect("readable"), 1);
        let summary = |reads| Summary {
            seeds: 20,
            simulated_ms: 1_200_000,
            counts: BTreeMap::from([("read".to_owned(), reads)]),
            failures: BTreeMap::new(),
        };
        days.save(1, 20, &summary(60_000)).expect("writable");
        days.save(21, 20, &summary(120_000)).expect("writable");
        assert_eq!(days.next_seed().expect("readable"), 41);
        let all = days.summary().expect("readable");
        assert_eq!((all.seeds, all.density()), (40, 75));
        fs::remove_dir_all(folder).expect("it is ours");
    }

    #[test]
    fn another_clone_goes_on_where_one_ended_if_the_code_is_the_same() {
        let root = std::env::temp_dir().join(format!("kv-clones-{}", std::process::id()));
        let clone = |name: &str, code: &str| {
            let folder = root.join(name);
            fs::create_dir_all(&folder).expect("a temporary folder");
            Days {
                folder,
                code: code.to_owned(),
            }
        };
        fs::create_dir_all(root.join("docs")).expect("a temporary folder");
        let lived = Summary {
            seeds: 40,
            ..Summary::default()
        };
        let one = clone("one", "code");
        one.save(1, 40, &lived).expect("writable");
        let carried = one.write_summary(&root, &lived).expect("writable");
        let other = clone("other", "code");
        other.take_over(&carried).expect("readable");
        assert_eq!(other.next_seed().expect("readable"), 41);
        assert_eq!(other.summary().expect("readable"), lived);
        // Nothing counts twice, and the longer record counts.
        other.save(41, 20, &Summary::default()).expect("writable");
        other.take_over(&carried).expect("readable");
        assert_eq!(other.summary().expect("readable").seeds, 40);
        let behind = clone("behind", "code");
        behind.save(1, 20, &Summary::default()).expect("writable");
        behind.take_over(&carried).expect("readable");
        assert_eq!(behind.summary().expect("readable"), lived);
        let newer = clone("newer", "newer code");
        newer.take_over(&carried).expect("readable");
        assert_eq!(newer.next_seed().expect("readable"), 1);
        fs::remove_dir_all(root).expect("it is ours");
    }
}
