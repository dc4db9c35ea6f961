//! Reading a node's log.

use super::Cluster;
use super::state::State;
use crate::arguments::LogsArguments;
use crate::terminal;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How far back the end of a log is read at most.
const WINDOW: u64 = 4 << 20;
/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);

impl Cluster {
    /// Prints the end of a node's log, and with `follow` what is added until Ctrl-C.
    ///
    /// # Errors
    /// When there is no such node or its log cannot be read.
    pub(super) fn print_log(&self, asked: &LogsArguments) -> Result<()> {
        let state = State::existing(&self.layout)?;
        let node = &state.nodes[state.index_of(&asked.node)?];
        let path = self.layout.log(&node.name);
        let printed = size(&path)?;
        for line in last_lines(&path, asked.lines, 0)? {
            terminal::result(&format!("{line}\n"));
        }
        if asked.follow {
            follow(&path, printed)?;
        }
        Ok(())
    }
}

/// The last lines of a log, none from before `begin`.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn last_lines(path: &Path, count: usize, begin: u64) -> Result<Vec<String>> {
    let length = size(path)?;
    let from = begin.max(length.saturating_sub(WINDOW));
    let text = read_from(path, from)?;
    Ok(tail(text.trim_end(), count))
}

fn tail(text: &str, count: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(count);
    lines[skipped..]
        .iter()
        .map(|&line| line.to_owned())
        .collect()
}

fn follow(path: &Path, mut printed: u64) -> Result<()> {
    loop {
        let length = size(path)?;
        if length < printed {
            // The cluster was wiped and made anew.
            printed = 0;
        }
        if length > printed {
            let text = read_from(path, printed)?;
            printed += text.len() as u64;
            terminal::result(&text);
        }
        thread::sleep(POLL);
    }
}

fn size(path: &Path) -> Result<u64> {
    let metadata = path
        .metadata()
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(metadata.len())
}

fn read_from(path: &Path, offset: u64) -> Result<String> {
    let read = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = read().with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_takes_whole_lines_from_the_end() {
        assert_eq!(tail("a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(tail("a\nb", 20), ["a", "b"]);
        assert_eq!(tail("", 20), [""; 0]);
    }
}
