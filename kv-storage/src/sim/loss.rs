//! What a power cut leaves of unsynced changes. Every outcome here is one that a real file system may show.

use super::SECTOR;
use super::disk::{Disk, Inode};
use crate::hash::splitmix64;

/// Replaces the disk's present state by one that may be found after a power cut.
pub(super) fn cut_power(disk: &mut Disk, seed: u64) {
    let mut random = Random(seed);
    let mut names = std::mem::take(&mut disk.durable_names);
    // A journalling file system keeps a prefix of the changes; others keep any of them.
    let mut pending = std::mem::take(&mut disk.doubtful_names);
    pending.append(&mut disk.pending_names);
    let mode = random.below(4);
    let prefix = random.below(pending.len() as u64 + 1);
    for (index, change) in pending.iter().enumerate() {
        let kept = match mode {
            0 => false,
            1 => true,
            2 => (index as u64) < prefix,
            _ => random.below(2) == 0,
        };
        if kept {
            change.apply(&mut names);
        }
    }
    for file in disk.inodes.values_mut() {
        lose_bytes(file, &mut random);
    }
    disk.durable_names.clone_from(&names);
    disk.names = names;
}

/// Decides about the bytes since the last sync. Synced bytes stay as they are.
fn lose_bytes(file: &mut Inode, random: &mut Random) {
    let synced = file.durable.len();
    let unsynced = file.bytes.len() - synced;
    for range in std::mem::take(&mut file.lost) {
        let range = range.start.max(synced)..range.end.max(synced);
        file.bytes[range].fill(0);
    }
    lose_stores(file, random);
    match random.below(5) {
        _ if unsynced == 0 => {}
        0 => file.bytes.truncate(synced),
        1 => {}
        2 => file
            .bytes
            .truncate(synced + random.below(unsynced as u64 + 1) as usize),
        3 => tear_sectors(&mut file.bytes[synced..], synced, random),
        _ => {
            let kept = random.below(unsynced as u64 + 1) as usize;
            file.bytes.truncate(synced + kept);
            let garbage = random.below(2 * SECTOR as u64);
            file.bytes
                .extend((0..garbage).map(|_| random.below(256) as u8));
        }
    }
    file.durable.clone_from(&file.bytes);
}

/// Stores in place reach the disk sector by sector, in any order: of each sector the old bytes may be
/// there, the new ones, a mixture, or garbage where the two differ. Bytes that are the same in the old and
/// the new sector are safe.
fn lose_stores(file: &mut Inode, random: &mut Random) {
    let synced = file.durable.len();
    let newer = file.bytes[..synced].to_vec();
    file.bytes[..synced].copy_from_slice(&file.durable);
    let mode = random.below(4);
    for range in std::mem::take(&mut file.stored) {
        let mut at = range.start;
        while at < range.end.min(synced) {
            let end = (at + SECTOR - at % SECTOR).min(range.end).min(synced);
            let sector = &mut file.bytes[at..end];
            match (mode, random.below(4)) {
                (0, _) | (2, 0) => {}
                (1, _) | (2, 1 | 2) => sector.copy_from_slice(&newer[at..end]),
                (_, 0) => sector.fill_with(|| random.below(256) as u8),
                (_, _) => {
                    let kept = random.below(sector.len() as u64 + 1) as usize;
                    sector[..kept].copy_from_slice(&newer[at..at + kept]);
                }
            }
            // Writing what is there already changes nothing, however it ends.
            for (index, byte) in (at..end).zip(sector) {
                if file.durable[index] == newer[index] {
                    *byte = newer[index];
                }
            }
            at = end;
        }
    }
}

/// The length was written, but of the sectors each was written, is still zero, or holds something old.
fn tear_sectors(bytes: &mut [u8], offset: usize, random: &mut Random) {
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
        match random.below(4) {
            0 => bytes[at..end].fill(0),
            1 => bytes[at..end].fill_with(|| random.below(256) as u8),
            _ => {}
        }
        at = end;
    }
}

/// A stream of numbers decided by a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        let number = splitmix64(splitmix64(self.0));
        ((u128::from(number) * u128::from(limit)) >> 64) as u64
    }
}
