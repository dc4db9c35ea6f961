//! What the figures were measured on.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

/// A machine, as far as it decides figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    file_system: String,
    /// The day of the last run (UTC).
    day: String,
}

impl Machine {
    /// This machine, with the file system that holds `folder`.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let processor = field(&read("/proc/cpuinfo")?, "model name")
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let memory = field(&read("/proc/meminfo")?, "MemTotal").unwrap_or_default();
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let release = read("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            processor,
            cores: thread::available_parallelism()?.get(),
            memory_gib: (memory_kib + (1 << 19)) >> 20,
            kernel: version(&release).to_owned(),
            file_system: file_system(&read("/proc/self/mounts")?, &folder.canonicalize()?),
            day: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        })
    }

    /// Keeps it beside the results.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        Ok(fs::write(file(folder), serde_json::to_string(self)?)?)
    }

    /// The machine that the results in a folder were measured on.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let text = fs::read_to_string(file(folder)).context("there are no results yet")?;
        Ok(serde_json::from_str(&text)?)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} cores of {}, {} GiB of memory, {}, Linux {}; {}",
            self.cores, self.processor, self.memory_gib, self.file_system, self.kernel, self.day
        )
    }
}

/// The machine's load average over the last minute.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn load_average() -> Result<f64> {
    let text = read("/proc/loadavg")?;
    let first = text.split_ascii_whitespace().next();
    first
        .and_then(|number| number.parse().ok())
        .context("the kernel tells no load average")
}

/// Tells this program from one built from other sources.
///
/// # Errors
/// The program's file cannot be read.
pub(crate) fn build_fingerprint() -> Result<String> {
    let program = fs::read(std::env::current_exe()?)?;
    Ok(format!("{:08x}", crc32c::crc32c(&program)))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("machine.json")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The numbers of a kernel's release, without what its packager added.
fn version(release: &str) -> &str {
    let is_of_version = |letter: char| letter == '.' || letter.is_ascii_digit();
    release
        .split(|letter| !is_of_version(letter))
        .next()
        .unwrap_or(release)
}

/// The value of the first `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (left, right) = line.split_once(':')?;
        (left.trim() == name).then(|| right.trim().to_owned())
    })
}

/// The type of the file system with the longest mount point above `folder`.
fn file_system(mounts: &str, folder: &Path) -> String {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map_or_else(
            || "unknown file system".to_owned(),
            |(_, kind)| kind.to_owned(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_mounts_are_read() {
        let text = "model\t\t: 1\nmodel name\t: Fast 9000\n";
        assert_eq!(field(text, "model name").unwrap(), "Fast 9000");
        assert_eq!(field(text, "missing"), None);
        let mounts = "a / ext4 rw 0 0\nb /data xfs rw 0 0\nc /dat tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/data/x")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/home")), "ext4");
        assert_eq!(version("6.1.0-37-amd64\n"), "6.1.0");
    }

    #[test]
    fn machine_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Machine::load(folder.path()).is_err());
        let machine = Machine::of(folder.path()).unwrap();
        machine.save(folder.path()).unwrap();
        assert_eq!(Machine::load(folder.path()).unwrap(), machine);
        assert!(load_average().unwrap() >= 0.0);
    }
}
