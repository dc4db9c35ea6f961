//! Counters and sizes.

use super::inner::Inner;
use super::scrub::ScrubCursor;
use crate::key::Seq;
use crate::memtable::Memtable;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Sizes and counters of an open store. Counters start at zero at each open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The newest write.
    pub last: Seq,
    /// The newest write that survives power loss.
    pub durable: Seq,
    /// Memory in memtables, in bytes.
    pub memtable_bytes: usize,
    /// Entries in memtables, older versions and tombstones included.
    pub memtable_entries: u64,
    /// Memtables that wait for their flush.
    pub sealed_memtables: usize,
    /// Ingests that readers see and that wait to be entered in the manifest.
    pub waiting_ingests: usize,
    /// Log segments on disk.
    pub log_segments: usize,
    /// Level by level, newest first.
    pub levels: Vec<LevelStats>,
    /// Decoded blocks in memory, in bytes.
    pub cache_bytes: u64,
    /// Block lookups that found the block in memory.
    pub cache_hits: u64,
    /// Block lookups that did not.
    pub cache_misses: u64,
    /// Single rows in memory, in bytes.
    pub row_cache_bytes: u64,
    /// Point reads that found their row there.
    pub row_cache_hits: u64,
    /// Tables that lookups passed by because a filter knew that the key is not there.
    pub filter_skips: u64,
    /// Spare log segments, ready for use.
    pub spare_segments: usize,
    /// Position of the log's end: bytes that were ever written to it.
    pub log_bytes: u64,
    /// Syncs of log segments; many writes may share one.
    pub log_syncs: u64,
    /// 1 if the log had a torn end when the store was opened: writes that were under way when the power went, and that
    /// nothing had promised.
    pub torn_tails: u64,
    /// Memtables written to tables.
    pub flushes: u64,
    /// Compactions under way.
    pub compactions_in_flight: usize,
    /// Compactions finished.
    pub compactions: u64,
    /// Key and value bytes that compactions read, before compression.
    pub compaction_read_bytes: u64,
    /// Times that a compaction under way freed inputs.
    pub compaction_releases: u64,
    /// Tables that went unread, because deleted ranges covered all their keys.
    pub covered_tables: u64,
    /// Bytes of those tables.
    pub covered_bytes: u64,
    /// Table bytes that flushes wrote.
    pub flush_written_bytes: u64,
    /// Table bytes that compactions wrote.
    pub compaction_written_bytes: u64,
    /// Table bytes that compactions only gave another place.
    pub compaction_moved_bytes: u64,
    /// Table bytes written by flushes and compactions.
    pub table_written_bytes: u64,
    /// Ingests committed.
    pub ingests: u64,
    /// Table bytes that they brought.
    pub ingested_bytes: u64,
    /// Files of large values.
    pub blob_files: usize,
    /// Their bytes on disk.
    pub blob_bytes: u64,
    /// How many of these belong to values that no table needs any more. It becomes known when a compaction drops the
    /// entry, so what was overwritten a moment ago is not counted.
    pub blob_garbage_bytes: u64,
    /// Bytes of files of large values that flushes and compactions wrote.
    pub blob_written_bytes: u64,
    /// Bytes of large values that compactions wrote anew to free the space of others in the same file.
    pub blob_relocated_bytes: u64,
    /// How far flushes and compactions are behind, in thousandths of what the store bears. Writers are slowed
    /// down from 600 on and stopped at 1000.
    pub debt: u64,
    /// Damaged places that were found since the store was opened.
    pub damaged_places: usize,
    /// Damaged tables that compaction leaves alone.
    pub fenced_tables: usize,
    /// Entries that the compaction filter dropped, by the reason it gave.
    pub filter_drops: BTreeMap<u32, u64>,
    /// All writes up to this one are in tables.
    pub flushed: Seq,
    /// Flushes and compactions that failed and are tried again.
    pub background_failures: u64,
    /// Writes refused with `Busy`.
    pub busy: u64,
    /// Snapshots in use.
    pub snapshots: usize,
    /// Bytes of data blocks and large values that scrubs read.
    pub scrubbed_bytes: u64,
    /// Scrubs that came to their end.
    pub scrubs: u64,
    /// How far the scrub under way is, if there is one.
    pub scrub_at: Option<ScrubCursor>,
    /// True if writes are refused because the disk is too full.
    pub full: bool,
    /// True if the ballast is in its place.
    pub ballast: bool,
    /// True if the store takes no more writes.
    pub poisoned: bool,
}

/// Sizes of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelStats {
    /// Sorted runs.
    pub runs: usize,
    /// Table files.
    pub tables: usize,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Entries, older versions and tombstones included.
    pub entries: u64,
    /// Tombstones.
    pub deletes: u64,
}

pub(super) fn collect(inner: &Inner) -> Stats {
    let (cache_hits, cache_misses) = inner.files.cache.counts();
    let state = inner.state();
    let front = inner.front();
    let levels = state.version.levels.iter().map(|level| LevelStats {
        runs: level.runs.len(),
        tables: level.tables().count(),
        size_bytes: level.size_bytes(),
        entries: level.tables().map(|table| table.summary.entries).sum(),
        deletes: level.tables().map(|table| table.summary.deletes).sum(),
    });
    let counts = state.counts;
    let (blob_bytes, blob_garbage_bytes) = state.version.blobs.bytes();
    Stats {
        blob_files: state.version.blobs.iter().count(),
        blob_bytes,
        blob_garbage_bytes,
        blob_written_bytes: counts.blob_written_bytes,
        blob_relocated_bytes: counts.blob_relocated_bytes,
        last: front.last,
        durable: Seq(inner.commits.durable()),
        memtable_bytes: front.memtable_bytes(),
        memtable_entries: front.memtables().map(Memtable::entries).sum(),
        sealed_memtables: front.sealed_memtables(),
        waiting_ingests: front.sealed.len() - front.sealed_memtables(),
        log_segments: front.wal.segments(),
        spare_segments: front.wal.spares(),
        levels: levels.collect(),
        cache_bytes: inner.files.cache.size_bytes(),
        cache_hits,
        cache_misses,
        row_cache_bytes: inner.files.rows.size_bytes(),
        row_cache_hits: inner.files.rows.hits(),
        filter_skips: inner.files.filter_skips.sum(),
        log_bytes: front.wal.position(),
        log_syncs: inner.commits.calls(),
        flushes: counts.flushes,
        compactions_in_flight: state.roster.in_flight(),
        compactions: counts.compactions,
        compaction_read_bytes: counts.compaction_read_bytes,
        compaction_releases: counts.compaction_releases,
        covered_tables: counts.covered_tables,
        covered_bytes: counts.covered_bytes,
        flush_written_bytes: counts.flush_written_bytes,
        compaction_written_bytes: counts.compaction_written_bytes,
        torn_tails: counts.torn_tails,
        compaction_moved_bytes: counts.compaction_moved_bytes,
        table_written_bytes: counts.table_written_bytes,
        ingests: front.ingests,
        ingested_bytes: front.ingested_bytes,
        debt: front.debt(&inner.options).per_mille(),
        damaged_places: inner
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len(),
        fenced_tables: state.roster.fenced().len(),
        filter_drops: state.filter_drops.clone(),
        flushed: state.flushed,
        background_failures: counts.background_failures,
        busy: front.busy,
        snapshots: state.snapshots.values().map(|held| held.count).sum(),
        scrubbed_bytes: counts.scrubbed_bytes,
        scrubs: counts.scrubs,
        scrub_at: state.scrub_at,
        full: front.gate.short.is_some(),
        ballast: inner.has_ballast.load(Ordering::Acquire),
        poisoned: state.poison.is_some(),
    }
}
