//! Bits that flip on the way to the reader, writes that land in the wrong place, and writes that end early.

use super::SECTOR;
use super::disk::{Disk, Inode, InodeId};
use crate::hash::splitmix64;
use std::ops::Range;

/// A write whose bytes are in the cache of the operating system as they should be, but will go to the wrong
/// place on the disk.
#[derive(Debug, Clone)]
pub(super) struct Stray {
    /// Where they belong, and what stays there instead.
    inode: InodeId,
    range: Range<usize>,
    old: Vec<u8>,
    bytes: Vec<u8>,
    seed: u64,
}

impl Stray {
    /// Of the bytes that were just written to `range`, over `old` ones.
    pub(super) fn new(disk: &Disk, inode: InodeId, range: Range<usize>, old: Vec<u8>) -> Self {
        let bytes = disk.inodes.get(&inode).map(|file| &file.bytes);
        Self {
            inode,
            bytes: bytes.map_or_else(Vec::new, |bytes| bytes[range.clone()].to_vec()),
            range,
            old,
            seed: splitmix64(disk.calls),
        }
    }

    /// Lets the bytes land in the wrong place, for readers too.
    pub(super) fn land(self, disk: &mut Disk) {
        if let Some(file) = disk.inodes.get_mut(&self.inode) {
            file.bytes[self.range.clone()].copy_from_slice(&self.old);
        }
        self.hit_another(disk, true);
    }

    /// Lets the bytes land in the wrong place on the disk only, if they belong to a file that was just synced.
    pub(super) fn land_on_disk(self, disk: &mut Disk, synced: InodeId) -> Option<Self> {
        if synced != self.inode {
            return Some(self);
        }
        let file = disk.inodes.get_mut(&self.inode)?;
        file.durable[self.range.clone()].copy_from_slice(&self.old);
        self.hit_another(disk, false);
        None
    }

    /// Overwrites a place in some file, perhaps another place in the same one.
    fn hit_another(&self, disk: &mut Disk, seen_by_readers: bool) {
        let all: Vec<InodeId> = disk.names.values().copied().collect();
        let victim = all[(self.seed % all.len() as u64) as usize];
        let Some(file) = disk.inodes.get_mut(&victim) else {
            return;
        };
        let sectors = (file.bytes.len() / SECTOR) as u64 + 1;
        let at = (splitmix64(self.seed) % sectors) as usize * SECTOR + self.range.start % SECTOR;
        if seen_by_readers {
            overwrite(&mut file.bytes, at, &self.bytes);
        }
        overwrite(&mut file.durable, at, &self.bytes);
    }
}

/// Copies as much as fits in front of the end.
fn overwrite(into: &mut [u8], at: usize, bytes: &[u8]) {
    let room = into.len().saturating_sub(at).min(bytes.len());
    if room > 0 {
        into[at..at + room].copy_from_slice(&bytes[..room]);
    }
}

/// Flips one bit of what a reader gets.
pub(super) fn flip(bytes: &mut [u8], seed: u64) {
    if !bytes.is_empty() {
        let bit = splitmix64(seed) % (bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

/// What is in a range of a file before it is written.
pub(super) fn before(file: &Inode, range: &Range<usize>) -> Vec<u8> {
    let mut old: Vec<u8> = file.bytes.iter().skip(range.start).copied().collect();
    old.resize(range.len(), 0);
    old
}

/// A prefix: all of the bytes every other time.
pub(super) fn some_of(bytes: &[u8], seed: u64) -> &[u8] {
    let random = splitmix64(seed);
    if random.is_multiple_of(2) {
        bytes
    } else {
        &bytes[..(random / 2 % (bytes.len() as u64 + 1)) as usize]
    }
}
