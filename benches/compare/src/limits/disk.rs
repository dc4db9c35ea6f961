//! The device and the page cache.

use super::{Limit, Unit};
use crate::dataset::Random;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of a log segment.
const LOG_BYTES: u64 = 64 << 20;
/// Size of the file that is written in one go and then read at random.
const DATA_BYTES: u64 = 1 << 30;
const MIB: usize = 1 << 20;
/// What direct I/O wants buffers and offsets aligned to.
const ALIGNMENT: usize = 4096;

/// Measures them all with files in this folder.
///
/// # Errors
/// A file cannot be written or read.
pub(super) fn measure(folder: &Path, time: Duration, enter: &mut dyn FnMut(Limit)) -> Result<()> {
    let log = folder.join("log");
    enter(durable_appends(
        "append 1 KiB + fdatasync, growing file",
        &log,
        1024,
        false,
        time,
    )?);
    enter(durable_appends(
        "append 1 KiB + fdatasync, recycled file",
        &log,
        1024,
        true,
        time,
    )?);
    enter(durable_appends(
        "append 64 KiB + fdatasync, recycled file",
        &log,
        64 << 10,
        true,
        time,
    )?);
    fs::remove_file(&log)?;

    let data = folder.join("data");
    enter(sequential_write(
        "sequential write, buffered + fdatasync",
        &data,
        OFlags::empty(),
    )?);
    enter(sequential_write(
        "sequential write, direct",
        &data,
        OFlags::DIRECT,
    )?);
    enter(random_reads(
        "random read 4 KiB, direct",
        &data,
        OFlags::DIRECT,
        time,
    )?);
    let mut buffer = vec![0; MIB];
    let file = File::open(&data)?;
    for offset in (0..DATA_BYTES).step_by(MIB) {
        file.read_exact_at(&mut buffer, offset)?;
    }
    enter(random_reads(
        "random read 4 KiB, page cache",
        &data,
        OFlags::empty(),
        time,
    )?);
    Ok(())
}

/// Appends records one by one and syncs each; a recycled file has been written whole before.
fn durable_appends(
    name: &str,
    path: &Path,
    bytes: usize,
    is_recycled: bool,
    time: Duration,
) -> Result<Limit> {
    let file = File::create(path)?;
    if is_recycled {
        let zeros = vec![0; MIB];
        for offset in (0..LOG_BYTES).step_by(MIB) {
            file.write_all_at(&zeros, offset)?;
        }
    }
    file.sync_all()?;
    let record = vec![0x5a; bytes];
    let mut timing = Timing::start()?;
    let mut offset = 0;
    while timing.begin.elapsed() < time && offset + bytes as u64 <= LOG_BYTES {
        timing.time(|| {
            file.write_all_at(&record, offset)?;
            file.sync_data()
        })?;
        offset += bytes as u64;
    }
    Ok(timing.limit(name))
}

/// Writes a large file from its start in steps of 1 MiB.
fn sequential_write(name: &str, path: &Path, flags: OFlags) -> Result<Limit> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    let file = open(OpenOptions::new().create(true).write(true), path, flags)?;
    let buffer = Aligned::new(MIB);
    let begin = Instant::now();
    for offset in (0..DATA_BYTES).step_by(MIB) {
        file.write_all_at(buffer.bytes(), offset)?;
    }
    file.sync_data()?;
    Ok(Limit {
        name: name.to_owned(),
        rate: DATA_BYTES as f64 / begin.elapsed().as_secs_f64(),
        unit: Unit::Bytes,
        micros: None,
    })
}

/// Reads blocks of 4 KiB at random offsets, one after the other.
fn random_reads(name: &str, path: &Path, flags: OFlags, time: Duration) -> Result<Limit> {
    let file = open(OpenOptions::new().read(true), path, flags)?;
    let mut buffer = Aligned::new(ALIGNMENT);
    let mut random = Random::new(1);
    let mut timing = Timing::start()?;
    while timing.begin.elapsed() < time {
        let offset = random.below(DATA_BYTES / ALIGNMENT as u64) * ALIGNMENT as u64;
        timing.time(|| file.read_exact_at(buffer.bytes_mut(), offset))?;
    }
    Ok(timing.limit(name))
}

fn open(options: &mut OpenOptions, path: &Path, flags: OFlags) -> Result<File> {
    options
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Times operations one by one.
struct Timing {
    begin: Instant,
    nanos: Histogram<u64>,
}

impl Timing {
    fn start() -> Result<Self> {
        Ok(Self {
            nanos: Histogram::new(3)?,
            begin: Instant::now(),
        })
    }

    fn time(&mut self, work: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
        let begin = Instant::now();
        work()?;
        self.nanos.record(begin.elapsed().as_nanos() as u64)?;
        Ok(())
    }

    fn limit(&self, name: &str) -> Limit {
        let micros = |quantile| self.nanos.value_at_quantile(quantile) as f64 / 1e3;
        Limit {
            name: name.to_owned(),
            rate: self.nanos.len() as f64 / self.begin.elapsed().as_secs_f64(),
            unit: Unit::Operations,
            micros: Some((micros(0.5), micros(0.99))),
        }
    }
}

/// A buffer that direct I/O takes.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let memory = vec![0x5a; length + ALIGNMENT];
        // The vector is never resized, so its start stays where it is.
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self {
            memory,
            start,
            length,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_as_long_as_asked() {
        let mut buffer = Aligned::new(1000);
        assert_eq!(buffer.bytes().len(), 1000);
        assert_eq!(buffer.bytes_mut().as_ptr().align_offset(ALIGNMENT), 0);
    }

    #[test]
    fn durable_appends_are_timed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let limit = durable_appends("x", &path, 1024, false, Duration::from_millis(20)).unwrap();
        assert!(limit.rate > 0.0 && limit.micros.is_some());
    }
}
