//! What the kernel counts for this process.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

/// Counters that only grow. Each run has a process of its own, so they belong to it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Bytes this process made dirty in files, or wrote past the page cache.
    pub(crate) written_bytes: u64,
    /// Bytes read from a device for it.
    pub(crate) read_bytes: u64,
    /// Processor time of all its threads.
    pub(crate) cpu: Duration,
}

impl Counters {
    /// The counters as they stand.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn now() -> Result<Self> {
        let path = "/proc/self/io";
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Ok(Self {
            written_bytes: field(&text, "write_bytes:")?,
            read_bytes: field(&text, "read_bytes:")?,
            cpu: Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec as u32),
        })
    }

    /// How much they grew since they were read into `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            written_bytes: self.written_bytes - earlier.written_bytes,
            read_bytes: self.read_bytes - earlier.read_bytes,
            cpu: self.cpu - earlier.cpu,
        }
    }

    /// Processor time for each of so many operations, in microseconds.
    pub(crate) fn cpu_micros(&self, operations: u64) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / operations as f64
    }
}

/// Memory of this process that is in RAM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    /// The most there was at any time, in MiB, mapped files included.
    pub(crate) peak_mib: f64,
    /// What no file backs, now, in MiB.
    pub(crate) anonymous_mib: f64,
}

impl Memory {
    /// As the kernel counts it now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn now() -> Result<Self> {
        let path = "/proc/self/status";
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let mib = |name| field(&text, name).map(|kib| kib as f64 / 1024.0);
        Ok(Self {
            peak_mib: mib("VmHWM:")?,
            anonymous_mib: mib("RssAnon:")?,
        })
    }
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .with_context(|| format!("the kernel does not say {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_at_the_start_of_a_line() {
        let text = "rchar: 5\nread_bytes: 4096\ncancelled_write_bytes: 7\nwrite_bytes: 8\nVmHWM:\t 12 kB\n";
        assert_eq!(field(text, "read_bytes:").unwrap(), 4096);
        assert_eq!(field(text, "write_bytes:").unwrap(), 8);
        assert_eq!(field(text, "VmHWM:").unwrap(), 12);
        assert!(field(text, "missing:").is_err());
    }

    #[test]
    fn counters_of_this_process_can_be_read() {
        let before = Counters::now().unwrap();
        let used = Counters::now().unwrap().since(&before);
        assert!(used.cpu < Duration::from_secs(60));
        assert!(Memory::now().unwrap().peak_mib > 0.0);
    }
}
