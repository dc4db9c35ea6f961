//! The manifest: a log of edits, and `CURRENT`, which names the manifest in use. Bytes in
//! `docs/formats/manifest.md`.
//!
//! The first frame of a manifest holds the whole state, each later one an edit. An edit is true
//! once its frame is synced.

use super::{Edit, NewTable, Version};
use crate::checksum::Checksum;
use crate::error::{Error, IoContext};
use crate::files::{CURRENT, Numbered};
use crate::fs::{self, Fs};
use crate::key::Seq;
use crate::log::{HEADER_BYTES, Header, LogBytes, LogFile, LogKind, encode_frame};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;

/// A manifest this many times larger than its first frame is replaced by a fresh one ...
const ROLL_FACTOR: u64 = 10;
/// ... but not before this size in bytes: some 250 edits, which an open reads within a millisecond.
const ROLL_BYTES: u64 = 64 << 10;

/// What a manifest says.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub version: Version<()>,
    pub log_floor: u64,
    pub next_file: u64,
    pub flushed: Seq,
    /// Newest log segment and its length, if the store was closed.
    pub log_end: Option<(u64, u64)>,
    /// Bytes of the caller that belong to the state `flushed`.
    pub attachment: Option<Vec<u8>>,
    /// Where the edits end, if more bytes follow: an edit that a crash tore, or that was damaged later.
    pub tail: Option<u64>,
}

impl Catalog {
    /// Of a store that was never opened before.
    pub(crate) fn empty() -> Self {
        Self {
            version: Version::empty(),
            log_floor: 0,
            next_file: 1,
            flushed: Seq::ZERO,
            log_end: None,
            attachment: None,
            tail: None,
        }
    }

    /// Whether a file that the state needs is not among these.
    pub(crate) fn misses_files(&self, names: &[String]) -> bool {
        let needed = self.needed();
        let there: BTreeSet<Numbered> = names
            .iter()
            .filter_map(|name| Numbered::parse(name))
            .collect();
        !needed.is_subset(&there)
    }

    /// Tells a torn last edit from a damaged one. Files that an edit replaces are removed only when it is durable; so
    /// if one of them is gone, the edit was whole, and what it said is lost.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where that edit began.
    pub(crate) fn check_tail(&self, manifest: &Path, names: &[String]) -> Result<(), Error> {
        match self.tail {
            Some(tail) if self.misses_files(names) => {
                let what = "the last edit is damaged: files that it replaced are gone";
                Err(Error::corrupt(manifest, tail, what))
            }
            _ => Ok(()),
        }
    }

    fn needed(&self) -> BTreeSet<Numbered> {
        let tables = self.version.tables().map(|table| table.summary.file);
        let blobs = self.version.blobs.iter().map(|blob| blob.summary.file);
        let log = (self.log_floor > 0).then_some(Numbered::Log(self.log_floor));
        tables
            .map(Numbered::Table)
            .chain(blobs.map(Numbered::Blob))
            .chain(log)
            .collect()
    }

    fn apply(&mut self, edit: &Edit) {
        let version = std::mem::replace(&mut self.version, Version::empty());
        let Ok(version) = version.apply_unchecked(edit, |_| Ok::<(), Infallible>(()));
        self.version = version;
        self.log_floor = edit.log_floor.unwrap_or(self.log_floor);
        self.next_file = edit.next_file.unwrap_or(self.next_file);
        if let Some(flushed) = edit.flushed {
            self.flushed = flushed;
            self.attachment.clone_from(&edit.attachment);
        }
        self.log_end = edit.log_end.or(self.log_end);
    }
}

/// The manifest being written. After any error but a full disk it must not be used again.
#[derive(Debug)]
pub(crate) struct Manifest {
    file: LogFile,
    checksum: Checksum,
    next: Seq,
    snapshot_bytes: u64,
    /// An edit met a full disk: a part of its frame may be in the file.
    in_doubt: bool,
}

impl Manifest {
    /// Creates manifest `id` with the whole state as its first frame, and makes it the current one, durably.
    pub(crate) fn create(
        fs: &dyn Fs,
        dir: &Path,
        store: u64,
        id: u64,
        state: &Edit,
    ) -> Result<Self, Error> {
        let header = Header {
            kind: LogKind::Manifest,
            id,
            store,
            previous: 0,
            previous_length: 0,
            first: Seq(1),
        };
        let checksum = Checksum::new(store, id);
        let mut frame = Vec::new();
        encode_frame(
            &mut frame,
            checksum,
            id,
            Seq(1),
            HEADER_BYTES as u64,
            |out| state.encode(out),
        );
        let file = LogFile::create(fs, &Numbered::Manifest(id).path(dir), &header, &frame)?;
        let manifest = Self {
            snapshot_bytes: file.length(),
            file,
            checksum,
            next: Seq(2),
            in_doubt: false,
        };
        write_current(fs, dir, id).context("replace", &dir.join(CURRENT))?;
        Ok(manifest)
    }

    /// Makes an edit true: it survives power loss when this returns.
    ///
    /// If the disk was full, the edit is in doubt: all of its frame may be found by the next open, or a part,
    /// which is a torn tail. Nothing can be appended behind it: a fresh manifest must follow.
    pub(crate) fn append(&mut self, edit: &Edit) -> Result<(), Error> {
        let mut frame = Vec::new();
        encode_frame(
            &mut frame,
            self.checksum,
            self.file.id(),
            self.next,
            self.file.synced(),
            |out| edit.encode(out),
        );
        assert!(!self.in_doubt, "a torn frame would hide the ones behind it");
        self.file
            .append(&frame)
            .inspect_err(|error| self.in_doubt = error.is_no_space())?;
        self.file.sync()?;
        self.next = self.next.next();
        Ok(())
    }

    /// True if a fresh one must be started: it is oversized, or ends in doubt.
    pub(crate) fn must_be_replaced(&self) -> bool {
        self.in_doubt || self.file.length() > ROLL_BYTES.max(ROLL_FACTOR * self.snapshot_bytes)
    }

    /// Removes what a [`create`](Self::create) left that met a full disk.
    pub(crate) fn remove_unfinished(fs: &dyn Fs, dir: &Path, id: u64) {
        let path = Numbered::Manifest(id).path(dir);
        for path in [path.with_added_extension("tmp"), path] {
            // Most often it is not there. Otherwise the next open removes it.
            let _ = fs.remove(&path);
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.file.id()
    }

    /// Reads manifest `id` back.
    pub(crate) fn read(fs: &dyn Fs, dir: &Path, store: u64, id: u64) -> Result<Catalog, Error> {
        let path = Numbered::Manifest(id).path(dir);
        let bytes = match fs::read_all(fs, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let what = "the file is missing although CURRENT names it";
                return Err(Error::corrupt(&path, 0, what));
            }
            outcome => outcome.context("read", &path)?,
        };
        let log = LogBytes::new(&path, store, id, bytes.into());
        log.header(LogKind::Manifest, store)?;
        let frames = log.frames()?;
        let mut catalog = Catalog::empty();
        for (frame, expected) in frames.iter().zip(1..) {
            let damaged = |what| log.corrupt(frame.offset, what);
            if frame.sequence != Seq(expected) {
                return Err(damaged("edit out of sequence"));
            }
            let edit = Edit::decode(&log.payload(frame))
                .ok_or_else(|| damaged("malformed or unknown edit"))?;
            catalog.apply(&edit);
            if !catalog.version.is_ordered() {
                return Err(damaged("tables of a run overlap"));
            }
            let is_known = |new: &NewTable| catalog.version.blobs.knows(&new.table.references);
            if !edit.added.iter().all(is_known) {
                return Err(damaged("a table points into an unknown blob file"));
            }
        }
        catalog.tail = log.tail(&frames).map(|tail| tail as u64);
        // A manifest gets its name only after its first frame was synced.
        if frames.is_empty() {
            return Err(log.corrupt(0, "manifest without a first frame"));
        }
        Ok(catalog)
    }
}

/// `CURRENT` is one line: the manifest's name and the CRC-32C of that name in hex.
fn write_current(fs: &dyn Fs, dir: &Path, id: u64) -> std::io::Result<()> {
    fs::replace_file(fs, dir, CURRENT, current_line(id).as_bytes())
}

fn current_line(id: u64) -> String {
    let name = Numbered::Manifest(id).name();
    format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()))
}

/// The number of the current manifest; `None` if there is no `CURRENT` file.
pub(crate) fn read_current(fs: &dyn Fs, dir: &Path) -> Result<Option<u64>, Error> {
    let path = dir.join(CURRENT);
    let bytes = match fs::read_all(fs, &path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("read", &path),
    };
    let id = std::str::from_utf8(&bytes).ok().and_then(|line| {
        let Numbered::Manifest(id) = Numbered::parse(line.split(' ').next()?)? else {
            return None;
        };
        (current_line(id) == line).then_some(id)
    });
    id.map(Some)
        .ok_or_else(|| Error::corrupt(&path, 0, "not a manifest's name and checksum"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::sim::SimFs;

    #[test]
    fn current_has_the_documented_bytes() {
        assert_eq!(current_line(7), "MANIFEST-0000000007 ce7768a2\n");
    }

    #[test]
    fn a_manifest_has_the_documented_bytes_and_is_read_back() {
        let fs = SimFs::new();
        let dir = Path::new("/d");
        let state = Edit {
            log_floor: Some(2),
            next_file: Some(4),
            ..Edit::default()
        };
        let mut manifest = Manifest::create(&fs, dir, 0x1122, 3, &state).unwrap();
        manifest
            .append(&Edit {
                flushed: Some(Seq(9)),
                ..Edit::default()
            })
            .unwrap();
        let bytes = fs.dump()[&Numbered::Manifest(3).path(dir)].clone();
        assert_eq!(hex::encode(bytes), golden("manifest.md", "manifest"));
        let catalog =
            Manifest::read(&fs, dir, 0x1122, read_current(&fs, dir).unwrap().unwrap()).unwrap();
        assert_eq!(
            (catalog.log_floor, catalog.next_file, catalog.flushed),
            (2, 4, Seq(9))
        );
    }
}
