//! The state of a simulated disk: what the running system sees, and what a power cut would leave.

use super::stray::{self, Stray};
use super::{Fault, SECTOR, dead, no_space};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(super) type InodeId = u64;

/// A file's bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What readers see.
    pub bytes: Vec<u8>,
    /// What survives for certain: the bytes at the last good sync.
    pub durable: Vec<u8>,
    /// Ranges in front of the end of `durable` that were stored in place since.
    pub stored: Vec<Range<usize>>,
    /// Ranges that a failed sync dropped: readable until the power is cut, but never written.
    pub lost: Vec<Range<usize>>,
    /// Sectors that cannot be read any more.
    pub unreadable: BTreeSet<usize>,
}

/// A change of names that is not yet durable.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    /// A name for a new file, or a further one for an old file.
    Create {
        path: PathBuf,
        inode: InodeId,
    },
    Remove {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: InodeId,
    },
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, InodeId>) {
        match self {
            Self::Create { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    /// Whether it says what a name leads to from now on.
    fn decides(&self, name: &Path) -> bool {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => path == name,
            Self::Rename { from, to, .. } => from == name || to == name,
        }
    }

    /// What a newer change leaves in doubt of this one: nothing about the names that it decides.
    fn without(self, newer: &Self) -> Option<Self> {
        match self {
            Self::Create { ref path, .. } | Self::Remove { ref path } => {
                (!newer.decides(path)).then_some(self)
            }
            Self::Rename { from, to, inode } => match (newer.decides(&from), newer.decides(&to)) {
                (false, false) => Some(Self::Rename { from, to, inode }),
                (true, false) => Some(Self::Create { path: to, inode }),
                (false, true) => Some(Self::Remove { path: from }),
                (true, true) => None,
            },
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => path.parent(),
            Self::Rename { to, .. } => to.parent(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub inodes: BTreeMap<InodeId, Inode>,
    /// The names that running processes see.
    pub names: BTreeMap<PathBuf, InodeId>,
    /// The names that survive for certain.
    pub durable_names: BTreeMap<PathBuf, InodeId>,
    pub pending_names: Vec<NameChange>,
    /// Older changes of directories whose sync failed. A later sync succeeds without them.
    pub doubtful_names: Vec<NameChange>,
    pub capacity: u64,
    pub calls: u64,
    pub faults: BTreeMap<u64, Fault>,
    /// Writes that will miss their place once they reach the disk.
    pub strays: Vec<Stray>,
    next_inode: InodeId,
    process: u64,
    power_is_cut: bool,
    locks: BTreeMap<PathBuf, u64>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            doubtful_names: Vec::new(),
            capacity: u64::MAX,
            calls: 0,
            faults: BTreeMap::new(),
            strays: Vec::new(),
            next_inode: 1,
            process: 0,
            power_is_cut: false,
            locks: BTreeMap::new(),
        }
    }

    /// What survives a loss of power for certain, on a disk that nothing goes wrong on.
    pub(super) fn certain(&self) -> Self {
        let survives = |inode: &InodeId| {
            let durable = self.inodes.get(inode)?.durable.clone();
            let file = Inode {
                bytes: durable.clone(),
                durable,
                ..Inode::default()
            };
            Some((*inode, file))
        };
        Self {
            inodes: self.durable_names.values().filter_map(survives).collect(),
            names: self.durable_names.clone(),
            durable_names: self.durable_names.clone(),
            next_inode: self.next_inode,
            ..Self::new()
        }
    }

    /// Ends the running process and returns the number of the next one.
    pub(super) fn next_process(&mut self) -> u64 {
        self.process += 1;
        // The next process makes the directory's blocks dirty again, so its syncs cover them.
        let later = std::mem::take(&mut self.pending_names);
        self.pending_names = std::mem::take(&mut self.doubtful_names);
        self.pending_names.extend(later);
        self.power_is_cut = false;
        self.locks.clear();
        self.process
    }

    /// Counts a call of `process` and says which fault is planned for it.
    pub(super) fn count_call(&mut self, process: u64) -> io::Result<Option<Fault>> {
        if process != self.process || self.power_is_cut {
            return Err(dead());
        }
        let fault = self.faults.remove(&self.calls);
        self.calls += 1;
        self.power_is_cut = fault == Some(Fault::PowerCut);
        Ok(fault)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<InodeId> {
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.change_names(NameChange::Create {
            path: path.to_path_buf(),
            inode,
        });
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.lookup(from)?;
        self.change_names(NameChange::Rename {
            from: from.to_path_buf(),
            to: to.to_path_buf(),
            inode,
        });
        Ok(())
    }

    /// Gives a file a second name.
    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.lookup(from)?;
        if self.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change_names(NameChange::Create {
            path: to.to_path_buf(),
            inode,
        });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.lookup(path)?;
        self.change_names(NameChange::Remove {
            path: path.to_path_buf(),
        });
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn list(&self, dir: &Path) -> Vec<String> {
        let inside = self.names.keys().filter(|path| path.parent() == Some(dir));
        inside
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect()
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending_names)
            .into_iter()
            .partition(|change| change.directory() == Some(dir));
        let takes_names = now
            .iter()
            .any(|change| !matches!(change, NameChange::Create { .. }));
        for change in now {
            let doubtful = std::mem::take(&mut self.doubtful_names);
            self.doubtful_names = doubtful
                .into_iter()
                .filter_map(|older| older.without(&change))
                .collect();
            change.apply(&mut self.durable_names);
        }
        self.pending_names = later;
        if takes_names {
            self.drop_unreachable();
        }
    }

    /// Later syncs of this process prove nothing about what is pending now.
    pub(super) fn fail_sync_dir(&mut self, dir: &Path) {
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending_names)
            .into_iter()
            .partition(|change| change.directory() == Some(dir));
        self.doubtful_names.extend(now);
        self.pending_names = later;
    }

    /// Forgets inodes that no name, durable or pending, leads to. Open handles to removed files
    /// keep working only as long as the removal is pending, which is enough for an engine that
    /// closes files before it removes them.
    fn drop_unreachable(&mut self) {
        let mut reachable: Vec<InodeId> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .collect();
        for change in self.doubtful_names.iter().chain(&self.pending_names) {
            if let NameChange::Create { inode, .. } | NameChange::Rename { inode, .. } = change {
                reachable.push(*inode);
            }
        }
        reachable.sort_unstable();
        self.inodes
            .retain(|inode, _| reachable.binary_search(inode).is_ok());
    }

    /// Creates a file of `size` zero bytes.
    pub(super) fn create_segment(&mut self, path: &Path, size: u64) -> io::Result<InodeId> {
        if size > self.free() {
            return Err(no_space());
        }
        let inode = self.create(path)?;
        self.append(
            inode,
            &vec![0; usize::try_from(size).map_err(|_| out_of_range())?],
        )?;
        Ok(inode)
    }

    /// Writes as `write` does, and lets the bytes miss their place if `fault` says so.
    pub(super) fn misdirect(
        &mut self,
        fault: Option<Fault>,
        inode: InodeId,
        range: Range<usize>,
        write: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let misses = matches!(fault, Some(Fault::Misdirected | Fault::MisdirectedOnDisk));
        let file = self.inodes.get(&inode).filter(|_| misses);
        let old = file.map(|file| stray::before(file, &range));
        write(self)?;
        if let Some(old) = old {
            let stray = Stray::new(self, inode, range, old);
            if fault == Some(Fault::Misdirected) {
                stray.land(self);
            } else {
                self.strays.push(stray);
            }
        }
        Ok(())
    }

    pub(super) fn append(&mut self, inode: InodeId, bytes: &[u8]) -> io::Result<()> {
        let room = usize::try_from(self.free()).unwrap_or(usize::MAX);
        let file = self.inodes.get_mut(&inode).ok_or_else(dead)?;
        let fits = &bytes[..bytes.len().min(room)];
        file.bytes.extend_from_slice(fits);
        if fits.len() < bytes.len() {
            Err(no_space())
        } else {
            Ok(())
        }
    }

    pub(super) fn read(&self, inode: InodeId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let file = self.inodes.get(&inode).ok_or_else(dead)?;
        let start =
            usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let wanted = start
            .checked_add(into.len())
            .and_then(|end| file.bytes.get(start..end));
        let wanted = wanted.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let sectors = start / SECTOR..(start + wanted.len()).div_ceil(SECTOR);
        if !wanted.is_empty() && file.unreadable.range(sectors).next().is_some() {
            return Err(rustix::io::Errno::IO.into());
        }
        into.copy_from_slice(wanted);
        Ok(())
    }

    pub(super) fn length(&self, inode: InodeId) -> u64 {
        self.inodes
            .get(&inode)
            .map_or(0, |file| file.bytes.len() as u64)
    }

    /// Stores parts in place; the file's size stays.
    pub(super) fn store(&mut self, inode: InodeId, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let file = self.inodes.get_mut(&inode).ok_or_else(dead)?;
        let start = usize::try_from(offset).map_err(|_| out_of_range())?;
        let mut at = start;
        for part in parts {
            let end = at.checked_add(part.len()).ok_or_else(out_of_range)?;
            let target = file.bytes.get_mut(at..end).ok_or_else(out_of_range)?;
            target.copy_from_slice(part);
            at = end;
        }
        match file.stored.last_mut() {
            Some(last) if last.end == start => last.end = at,
            _ => file.stored.push(start..at),
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: InodeId) {
        if let Some(file) = self.inodes.get_mut(&inode) {
            let synced = file.durable.len();
            file.durable.extend_from_slice(&file.bytes[synced..]);
            // What an earlier failed sync dropped is not written, unless it was stored again since.
            for range in &file.lost {
                let range = range.start.max(synced)..range.end.max(synced);
                file.durable[range].fill(0);
            }
            for range in file.stored.drain(..) {
                file.durable[range.clone()].copy_from_slice(&file.bytes[range]);
            }
        }
        let strays = std::mem::take(&mut self.strays).into_iter();
        self.strays = strays
            .filter_map(|stray| stray.land_on_disk(self, inode))
            .collect();
    }

    pub(super) fn lose_unsynced(&mut self, inode: InodeId) {
        if let Some(file) = self.inodes.get_mut(&inode) {
            file.lost.push(file.durable.len()..file.bytes.len());
            file.stored.clear();
        }
    }

    pub(super) fn lock(&mut self, path: &Path, process: u64) -> bool {
        if self.locks.contains_key(path) {
            return false;
        }
        self.locks.insert(path.to_path_buf(), process);
        true
    }

    pub(super) fn unlock(&mut self, path: &Path, process: u64) {
        if self.locks.get(path) == Some(&process) {
            self.locks.remove(path);
        }
    }

    pub(super) fn free(&self) -> u64 {
        if self.capacity == u64::MAX {
            return u64::MAX;
        }
        self.capacity.saturating_sub(self.used())
    }

    /// Only named files count, each once; a removed file's space is free at once.
    pub(super) fn used(&self) -> u64 {
        let named: BTreeSet<InodeId> = self.names.values().copied().collect();
        named.into_iter().map(|inode| self.length(inode)).sum()
    }

    pub(super) fn dump(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let bytes = |inode| {
            self.inodes
                .get(inode)
                .map(|file: &Inode| file.bytes.clone())
                .unwrap_or_default()
        };
        self.names
            .iter()
            .map(|(path, inode)| (path.clone(), bytes(inode)))
            .collect()
    }

    /// Makes the sector with byte `at` of a file unreadable for good.
    pub(super) fn spoil(&mut self, path: &Path, at: usize) -> io::Result<()> {
        let inode = self.lookup(path)?;
        let file = self.inodes.get_mut(&inode).ok_or_else(dead)?;
        file.unreadable.insert(at / SECTOR);
        Ok(())
    }

    pub(super) fn overwrite(&mut self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let inode = self.lookup(path)?;
        self.inodes.insert(
            inode,
            Inode {
                durable: bytes.clone(),
                bytes,
                ..Inode::default()
            },
        );
        Ok(())
    }
}

fn out_of_range() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}
