//! A log segment mapped into memory: a store is a copy, not a system call.
//!
//! The kernel owns the pages, so what was stored survives the death of the process exactly as if it
//! had been written with `write`, at a tenth of the cost for small records. The file's space is
//! filled with zeros once, so that no store meets a full disk or an unwritten extent, and `fdatasync`
//! of the file covers its mapped pages.

#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; it is confined to this module"
)]

use super::LogSegment;
use super::real::no_kind_of_full;
use memmap2::MmapMut;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of zeros written at once: a page. The kernel keeps what one call wrote in one piece of its cache,
/// and a store through a mapping makes that piece dirty as a whole. With calls of 1 MiB every sync wrote
/// 1 MiB, and durable puts were half as fast.
const FILL_BYTES: usize = 4096;

/// While syncs follow one another with at most so many bytes between them, stores are calls: four pages.
///
/// A sync takes the right to write from every page, so the first store to each page after it would be a fault, and the
/// next sync would take that right again. A call costs less than both: durable puts by one thread became 10 % faster.
const CALL_BYTES: usize = 4 * 4096;
/// Small syncs in a row from which on that is so. A flush makes a single one.
const OFTEN: usize = 2;

#[derive(Debug)]
pub(super) struct MappedSegment {
    file: File,
    size: u64,
    view: Mutex<View>,
    /// Bytes stored since the last sync began.
    stored: AtomicUsize,
    /// Syncs in a row that had little to do.
    small_syncs: AtomicUsize,
}

/// How stores reach the file.
#[derive(Debug)]
enum View {
    Mapped(MmapMut),
    /// It will be mapped for the next store. Mapped pages count as memory of this process.
    Resting,
    /// The file system cannot map, so stores are positioned writes.
    Unmappable,
}

impl MappedSegment {
    pub(super) fn create(path: &Path, size: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        fill(&file, size)
            .map(|()| Self::new(file, size))
            .inspect_err(|_| {
                // What is left of it would only take up space; the next open removes it too.
                let _ = std::fs::remove_file(path);
            })
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self::new(file, size))
    }

    fn new(file: File, size: u64) -> Self {
        // For the same reason, against large pieces made by read-ahead. It is advice: failing is no harm.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
        Self {
            file,
            size,
            view: Mutex::new(View::Resting),
            stored: AtomicUsize::new(0),
            small_syncs: AtomicUsize::new(0),
        }
    }
}

impl View {
    fn of(file: &File) -> Self {
        // SAFETY: The bytes of a mapping must not change under a reference to them. All references are
        // made inside `store`, under the view's mutex, and only written through. No other process maps the
        // file, because the store's lock is held, and nothing in this process shortens it. A file
        // damaged by others can end the process by a signal, as it can for every user of mappings; a
        // log survives that.
        let map = unsafe { MmapMut::map_mut(file) };
        map.map_or(Self::Unmappable, Self::Mapped)
    }
}

/// Allocates the file's blocks and writes them once.
fn fill(file: &File, size: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_BYTES];
    let mut at = 0;
    while at < size {
        let length = (size - at).min(FILL_BYTES as u64);
        file.write_all_at(&zeros[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

impl LogSegment for MappedSegment {
    fn size(&self) -> u64 {
        self.size
    }

    fn store(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if offset.saturating_add(length as u64) > self.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*view, View::Resting) {
            *view = View::of(&self.file);
        }
        let stored = self.stored.fetch_add(length, Ordering::Relaxed) + length;
        let View::Mapped(map) = &mut *view else {
            return self.file.write_all_at(&parts.concat(), offset);
        };
        if self.small_syncs.load(Ordering::Relaxed) >= OFTEN && stored <= CALL_BYTES {
            return self.file.write_all_at(&parts.concat(), offset);
        }
        let mut at = offset as usize;
        for part in parts {
            map[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }

    fn store_many(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset.saturating_add(bytes.len() as u64) > self.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // One call for many pages costs less than a fault for each. It sees the same pages as a mapping does.
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let stored = self.stored.swap(0, Ordering::Relaxed);
        if stored <= CALL_BYTES {
            self.small_syncs.fetch_add(1, Ordering::Relaxed);
        } else {
            self.small_syncs.store(0, Ordering::Relaxed);
        }
        self.file.sync_data().map_err(no_kind_of_full)
    }

    fn rest(&self) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*view, View::Mapped(_)) {
            *view = View::Resting;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_in_the_file_whether_it_is_mapped_or_not() {
        let dir = tempfile::tempdir().unwrap();
        for mapped in [true, false] {
            let path = dir.path().join(format!("{mapped}"));
            let segment = MappedSegment::create(&path, 10_000).unwrap();
            if !mapped {
                *segment.view.lock().unwrap() = View::Unmappable;
            }
            segment.store(5_000, &[b"one", b"", b"two"]).unwrap();
            assert!(segment.store(9_998, &[b"abc"]).is_err());
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(
                (bytes.len(), &bytes[4_999..5_007]),
                (10_000, &b"\0onetwo\0"[..])
            );
            segment.sync().unwrap();
            let is_mapped = || matches!(*segment.view.lock().unwrap(), View::Mapped(_));
            assert_eq!(is_mapped(), mapped);
            segment.rest();
            assert!(!is_mapped());
            assert!(MappedSegment::create(&path, 1).is_err());
            let again = MappedSegment::open(&path).unwrap();
            segment.store(5_001, &[b"N"]).unwrap();
            again.store(5_000, &[b"O"]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap()[5_000..5_003], *b"ONe");
            again.store_many(4_990, b"many").unwrap();
            segment.store(4_991, &[b"A"]).unwrap();
            assert!(again.store_many(9_998, b"abc").is_err());
            assert_eq!(std::fs::read(&path).unwrap()[4_990..4_994], *b"mAny");
            // After small syncs in a row stores are calls, up to a limit; mapped or not, all see the same bytes.
            for _ in 0..=OFTEN {
                segment.sync().unwrap();
            }
            segment.store(100, &[b"by ", b"call"]).unwrap();
            assert_eq!(segment.stored.load(Ordering::Relaxed), 7);
            for _ in 0..CALL_BYTES / 4_000 + 1 {
                segment.store(200, &[&[7; 4_000]]).unwrap();
            }
            segment.store(103, &[b"mapped"]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap()[100..109], *b"by mapped");
            segment.sync().unwrap();
            assert_eq!(segment.small_syncs.load(Ordering::Relaxed), 0);
        }
    }
}
