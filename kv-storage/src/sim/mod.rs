//! A simulated disk: in memory, deterministic, and as unkind as a real one may be.
//!
//! [`SimFs`] keeps for every file and directory what a power cut would leave. It can cut the power, kill the
//! process, fail the n-th call, lose what a failed sync should have written, run full, flip bits, and write to
//! wrong places. Simulations of whole nodes use it too, so it is public.

mod disk;
mod loss;
mod stray;

use crate::fs::{AppendFile, FileLock, Fs, LockError, LogSegment, ReadFile};
use disk::{Disk, InodeId};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes that a disk writes, and loses, at once.
const SECTOR: usize = 512;

/// What goes wrong at a chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The call fails with an I/O error and has no effect, except that a failed sync loses the
    /// unsynced bytes for ever, although they can still be read and a later sync reports success.
    Io,
    /// The call fails with an I/O error after it has had all of its effect, if it changes something; a sync succeeds.
    LateIo,
    /// The call fails because the disk is full. Only calls that need space are touched: creating, linking and
    /// appending.
    NoSpace,
    /// Like [`NoSpace`](Self::NoSpace), but an append has appended some of its bytes, perhaps all of them.
    TornNoSpace,
    /// Power is cut during the call: it may have any part of its effect, and nothing works afterwards.
    PowerCut,
    /// Others take all the free space before the call. [`DiskFrees`](Self::DiskFrees) and
    /// [`set_capacity`](SimFs::set_capacity) end that.
    DiskFills,
    /// The disk has no size limit from this call on.
    DiskFrees,
    /// The call, if it reads a file, returns the bytes with one bit flipped, and reports success. The file
    /// is as it was.
    FlippedRead,
    /// The call, if it appends or stores, writes its bytes to some other place, perhaps in another file, and
    /// reports success.
    Misdirected,
    /// Like [`Misdirected`](Self::Misdirected), but only on the disk: once they were synced, the bytes are
    /// read as they should be until the power is cut.
    MisdirectedOnDisk,
}

/// A handle to a simulated disk, held by one simulated process.
///
/// [`power_loss`](Self::power_loss) and [`kill`](Self::kill) return the handle of the next process;
/// every call through the old one, or through a file it opened, fails from then on. Clones belong
/// to the same process. Paths may lie in any directory; directories need not be created.
#[derive(Debug, Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
    /// Which process this handle belongs to.
    process: u64,
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimFs {
    /// An empty disk without a size limit.
    pub fn new() -> Self {
        Self {
            disk: Arc::new(Mutex::new(Disk::new())),
            process: 0,
        }
    }

    /// Cuts the power. For each unsynced write and directory change the seed decides whether it is kept, lost,
    /// torn at 512-byte sectors, or replaced by garbage.
    #[must_use = "the old handle is dead; this is the disk after the restart"]
    pub fn power_loss(&self, seed: u64) -> Self {
        let mut disk = self.guard();
        loss::cut_power(&mut disk, seed);
        Self {
            disk: Arc::clone(&self.disk),
            process: disk.next_process(),
        }
    }

    /// Kills the process. The operating system goes on, so nothing written is lost, but nothing is
    /// synced either.
    #[must_use = "the old handle is dead; this is the one of the next process"]
    pub fn kill(&self) -> Self {
        let process = self.guard().next_process();
        Self {
            disk: Arc::clone(&self.disk),
            process,
        }
    }

    /// An independent copy of the disk as it is, unsynced state included, with a live handle.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(self.guard().clone())
    }

    /// An independent copy of what certainly survives if the power is cut now, on a disk on which nothing goes wrong.
    #[must_use]
    pub fn certain(&self) -> Self {
        Self::of(self.guard().certain())
    }

    /// A disk of its own, held by its next process.
    fn of(mut disk: Disk) -> Self {
        let process = disk.next_process();
        Self {
            disk: Arc::new(Mutex::new(disk)),
            process,
        }
    }

    /// Calls made so far through any handle.
    pub fn calls(&self) -> u64 {
        self.guard().calls
    }

    /// Makes call number `call` (counted from 0, see [`calls`](Self::calls)) go wrong. Several may be planned.
    pub fn plan(&self, call: u64, fault: Fault) {
        self.guard().faults.insert(call, fault);
    }

    /// Takes back all faults that were planned and have not come yet.
    pub fn forget_plans(&self) {
        self.guard().faults.clear();
    }

    /// Limits the sum of all file sizes, in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.guard().capacity = bytes;
    }

    /// Every file with its present bytes.
    pub fn dump(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.guard().dump()
    }

    /// Replaces a file's bytes, durably and outside of all rules: damage at rest.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        self.guard().overwrite(path, bytes)
    }

    /// Makes the sector that holds byte `at` of a file unreadable: whoever reads it gets an I/O error, for good.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn spoil(&self, path: &Path, at: usize) -> io::Result<()> {
        self.guard().spoil(path, at)
    }

    fn guard(&self) -> MutexGuard<'_, Disk> {
        // A panic inside the simulation leaves a consistent disk, since each call changes it in one piece.
        self.disk
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts a call and applies the fault planned for it.
    fn call(&self, kind: CallKind) -> io::Result<(MutexGuard<'_, Disk>, Option<Fault>)> {
        let mut disk = self.guard();
        let fault = disk.count_call(self.process)?;
        match (fault, kind) {
            (
                Some(Fault::Io),
                CallKind::Read | CallKind::Space | CallKind::Append | CallKind::Change,
            ) => Err(io_error()),
            (Some(Fault::LateIo), CallKind::Read) => Err(io_error()),
            (Some(Fault::LateIo), CallKind::Space | CallKind::Append | CallKind::Change) => {
                Ok((disk, fault))
            }
            (Some(Fault::NoSpace), CallKind::Space | CallKind::Append) => Err(no_space()),
            (Some(Fault::TornNoSpace), CallKind::Append) => Ok((disk, fault)),
            (Some(Fault::TornNoSpace), CallKind::Space) => Err(no_space()),
            (Some(Fault::PowerCut), CallKind::Read) => Err(dead()),
            (Some(Fault::DiskFills), _) => {
                disk.capacity = disk.used();
                Ok((disk, None))
            }
            (Some(Fault::DiskFrees), _) => {
                disk.capacity = u64::MAX;
                Ok((disk, None))
            }
            (Some(Fault::FlippedRead), CallKind::Read)
            | (
                Some(Fault::Misdirected | Fault::MisdirectedOnDisk),
                CallKind::Append | CallKind::Change,
            )
            | (Some(Fault::Io | Fault::PowerCut), _) => Ok((disk, fault)),
            (
                None
                | Some(
                    Fault::LateIo
                    | Fault::NoSpace
                    | Fault::TornNoSpace
                    | Fault::FlippedRead
                    | Fault::Misdirected
                    | Fault::MisdirectedOnDisk,
                ),
                _,
            ) => Ok((disk, None)),
        }
    }

    fn handle(&self, inode: InodeId, length: u64) -> SimFile {
        SimFile {
            fs: self.clone(),
            inode,
            length,
        }
    }
}

/// What a fault can do to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallKind {
    /// Changes nothing.
    Read,
    /// Needs disk space.
    Space,
    /// Needs disk space for bytes.
    Append,
    /// Makes earlier changes durable.
    Sync,
    /// Changes names, or bytes in place.
    Change,
}

impl Fs for SimFs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let (mut disk, fault) = self.call(CallKind::Space)?;
        let inode = disk.create(path)?;
        finish(fault)?;
        drop(disk);
        Ok(Box::new(self.handle(inode, 0)))
    }

    fn create_segment(&self, path: &Path, size: u64) -> io::Result<Arc<dyn LogSegment>> {
        let (mut disk, fault) = self.call(CallKind::Space)?;
        let inode = disk.create_segment(path, size)?;
        finish(fault)?;
        drop(disk);
        Ok(Arc::new(self.handle(inode, size)))
    }

    fn open_segment(&self, path: &Path) -> io::Result<Arc<dyn LogSegment>> {
        let (disk, _) = self.call(CallKind::Read)?;
        let inode = disk.lookup(path)?;
        let length = disk.length(inode);
        drop(disk);
        Ok(Arc::new(self.handle(inode, length)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let (disk, _) = self.call(CallKind::Read)?;
        let inode = disk.lookup(path)?;
        let length = disk.length(inode);
        drop(disk);
        Ok(Arc::new(self.handle(inode, length)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut disk, fault) = self.call(CallKind::Change)?;
        disk.rename(from, to)?;
        finish(fault)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut disk, fault) = self.call(CallKind::Space)?;
        disk.link(from, to)?;
        finish(fault)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut disk, fault) = self.call(CallKind::Change)?;
        disk.remove(path)?;
        finish(fault)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let (disk, _) = self.call(CallKind::Read)?;
        Ok(disk.list(dir))
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.call(CallKind::Read).map(|_| ())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut disk, fault) = self.call(CallKind::Sync)?;
        match fault {
            Some(Fault::PowerCut) => Err(dead()),
            Some(_) => {
                disk.fail_sync_dir(dir);
                Err(io_error())
            }
            None => {
                disk.sync_dir(dir);
                Ok(())
            }
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let (mut disk, _) = self.call(CallKind::Read).map_err(LockError::Io)?;
        if !disk.lock(path, self.process) {
            // All simulated processes share this one.
            return Err(LockError::Held {
                pid: Some(std::process::id()),
            });
        }
        drop(disk);
        Ok(Box::new(SimLock {
            fs: self.clone(),
            path: path.to_path_buf(),
        }))
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        let (disk, _) = self.call(CallKind::Read)?;
        Ok(disk.free())
    }
}

/// An open simulated file.
#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    inode: InodeId,
    length: u64,
}

impl AppendFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut disk, fault) = self.fs.call(CallKind::Append)?;
        if fault == Some(Fault::TornNoSpace) {
            let torn = stray::some_of(bytes, disk.calls);
            disk.append(self.inode, torn)?;
            return Err(no_space());
        }
        let start = disk.length(self.inode) as usize;
        disk.misdirect(fault, self.inode, start..start + bytes.len(), |disk| {
            disk.append(self.inode, bytes)
        })?;
        finish(fault)
    }

    fn sync(&mut self) -> io::Result<()> {
        let (mut disk, fault) = self.fs.call(CallKind::Sync)?;
        sync_inode(&mut disk, self.inode, fault)
    }
}

impl LogSegment for SimFile {
    fn size(&self) -> u64 {
        self.length
    }

    fn store(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        // The space is there already, so a full disk does not touch it.
        let (mut disk, fault) = self.fs.call(CallKind::Change)?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let start = offset as usize;
        disk.misdirect(fault, self.inode, start..start + length, |disk| {
            disk.store(self.inode, offset, parts)
        })?;
        finish(fault)
    }

    fn sync(&self) -> io::Result<()> {
        let (mut disk, fault) = self.fs.call(CallKind::Sync)?;
        sync_inode(&mut disk, self.inode, fault)
    }
}

impl ReadFile for SimFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let (disk, fault) = self.fs.call(CallKind::Read)?;
        disk.read(self.inode, offset, into)?;
        if fault == Some(Fault::FlippedRead) {
            stray::flip(into, disk.calls);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.guard().unlock(&self.path, self.fs.process);
    }
}

fn sync_inode(disk: &mut Disk, inode: InodeId, fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::PowerCut) => Err(dead()),
        Some(_) => {
            disk.lose_unsynced(inode);
            Err(io_error())
        }
        None => {
            disk.sync(inode);
            Ok(())
        }
    }
}

/// A call during which the power is cut has left its effect pending, but never returns success.
fn finish(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::PowerCut) => Err(dead()),
        Some(Fault::LateIo) => Err(io_error()),
        _ => Ok(()),
    }
}

fn dead() -> io::Error {
    io::Error::other("this simulated process is dead")
}

fn io_error() -> io::Error {
    io::Error::other("simulated I/O error")
}

fn no_space() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

#[cfg(test)]
mod tests;
