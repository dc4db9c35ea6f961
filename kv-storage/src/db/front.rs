//! What writers share: the next number, the end of the log, the active memtable, and the gate.
//!
//! Its lock is the only one that a write takes. It is held while a frame is copied into the log and
//! room is taken in the memtable, never across a call that waits for the disk. Locks are taken in the
//! order state, front, group commit.

use super::layer::Layer;
use super::pace::Pacer;
use super::state::Task;
use crate::batch::WriteBatch;
use crate::compaction::Debt;
use crate::error::WriteError;
use crate::key::Seq;
use crate::memtable::{MemoryPool, Memtable};
use crate::options::Options;
use crate::wal::WalWriter;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Suggested wait when a flush or a log segment must be ready first.
const SHORT_WAIT: Duration = Duration::from_millis(2);
/// Suggested wait when compaction must catch up first.
const LONG_WAIT: Duration = Duration::from_millis(20);

/// What takes no more writes and waits to become a run of level 0.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub layer: Layer,
    /// Its newest write.
    pub last: Seq,
    /// The oldest log segment that may hold a write after that one.
    pub floor: u64,
    /// Position behind that segment's header.
    pub position: u64,
    /// What the caller wants to be stored with its flush.
    pub attachment: Option<Vec<u8>>,
}

/// A disk that is too full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Short {
    /// Free bytes.
    pub free: u64,
    /// Free bytes without which writes are refused.
    pub needed: u64,
}

/// What keeps writers out or slows them down. Background work keeps it up to date.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub poison: Option<Arc<str>>,
    pub closed: bool,
    /// How far compactions are behind.
    pub table_debt: Debt,
    /// The disk was too full when last looked.
    pub short: Option<Short>,
    pub pacer: Pacer,
}

#[derive(Debug)]
pub(super) struct Front {
    /// The newest number given to a write.
    pub last: Seq,
    pub wal: WalWriter,
    pub active: Arc<Memtable>,
    /// Memory for memtables.
    pub pool: Arc<MemoryPool>,
    /// Oldest first.
    pub sealed: VecDeque<Sealed>,
    pub gate: Gate,
    /// A frame waits for a segment of at least this size; 0 if none does.
    pub needed_segment: u64,
    /// A job should look at the free space.
    pub look: bool,
    /// The newest write at the last tick.
    pub ticked: Seq,
    /// A job should give spare log segments back.
    pub has_surplus: bool,
    /// The job that makes segments ready.
    pub segment_task: Task,
    /// Background work became due since somebody last asked.
    pub attention: bool,
    pub busy: u64,
    /// Ingests committed.
    pub ingests: u64,
    /// Bytes of their tables.
    pub ingested_bytes: u64,
}

impl Front {
    /// Spare log segments kept ready.
    pub(super) const SPARES: usize = 4;

    /// Ingests that may wait for a flush, which only enters them in the manifest.
    const INGESTS_MOST: usize = 8;

    /// Says whether the store can take a write of this size now.
    pub(super) fn admit(
        &mut self,
        options: &Options,
        batch: &WriteBatch,
        now: impl FnOnce() -> Duration,
    ) -> Result<(), WriteError> {
        let need = batch.need();
        self.admit_any(batch.uses_reserve())?;
        if !self.active.has_room(need) && self.sealed_memtables() >= options.sealed_memtables_max {
            return Err(self.busy(SHORT_WAIT));
        }
        if self.gate.table_debt >= Debt::LIMIT {
            return Err(self.busy(LONG_WAIT));
        }
        if let Some(paid) = self.debt(options).paid() {
            let pacer = &mut self.gate.pacer;
            if let Err(delay) = pacer.admit(now(), batch.size_bytes(), paid) {
                return Err(self.busy(delay));
            }
        }
        Ok(())
    }

    /// Says whether the store takes writes at all now.
    fn admit_any(&mut self, uses_reserve: bool) -> Result<(), WriteError> {
        let gate = &mut self.gate;
        if let Some(cause) = &gate.poison {
            let cause = Arc::clone(cause);
            return Err(WriteError::Poisoned { cause });
        }
        if gate.closed {
            return Err(WriteError::Closed);
        }
        if let Some(Short { free, needed }) = gate.short
            && !uses_reserve
        {
            // Each refused writer asks for another look, so writing resumes by itself.
            self.attention = true;
            self.look = true;
            return Err(WriteError::Full { free, needed });
        }
        Ok(())
    }

    /// Says whether an ingest may begin.
    pub(super) fn admit_ingest(&mut self) -> Result<(), WriteError> {
        self.admit_any(false)?;
        if self.gate.table_debt >= Debt::LIMIT {
            return Err(self.busy(LONG_WAIT));
        }
        Ok(())
    }

    /// Says whether there is room for an ingest among what waits for a flush. It needs none in memory, and it is
    /// not paced: its rows are in tables already.
    pub(super) fn admit_tables(&mut self, options: &Options) -> Result<(), WriteError> {
        self.admit_any(false)?;
        let memtables = self.sealed_memtables() + usize::from(!self.active.is_empty());
        let ingests = self.sealed.len() - self.sealed_memtables();
        if memtables > options.sealed_memtables_max || ingests >= Self::INGESTS_MOST {
            return Err(self.busy(SHORT_WAIT));
        }
        Ok(())
    }

    /// Sealed memtables; ingests wait with them and are not counted.
    pub(super) fn sealed_memtables(&self) -> usize {
        let memtables = self
            .sealed
            .iter()
            .filter_map(|sealed| sealed.layer.memtable());
        memtables.count()
    }

    /// How far flushes and compactions are behind.
    pub(super) fn debt(&self, options: &Options) -> Debt {
        self.gate
            .table_debt
            .max(Debt::of_memory(self.memtable_bytes(), options))
    }

    /// Memory in memtables.
    pub(super) fn memtable_bytes(&self) -> usize {
        self.memtables().map(Memtable::size_bytes).sum()
    }

    /// All memtables, the active one included.
    pub(super) fn memtables(&self) -> impl Iterator<Item = &Memtable> {
        let sealed = self
            .sealed
            .iter()
            .filter_map(|sealed| sealed.layer.memtable());
        sealed.chain([&*self.active])
    }

    pub(super) fn wait_for_segment(&mut self, needed: u64) -> WriteError {
        self.needed_segment = self.needed_segment.max(needed);
        self.busy(SHORT_WAIT)
    }

    fn busy(&mut self, delay: Duration) -> WriteError {
        self.attention = true;
        self.busy += 1;
        WriteError::Busy(delay)
    }

    /// Seals the active memtable and starts one with room for `entry_bytes`. The caller publishes the new view.
    pub(super) fn seal(
        &mut self,
        options: &Options,
        entry_bytes: usize,
        attachment: Option<Vec<u8>>,
    ) {
        let fresh = Memtable::new(&self.pool, options.memtable_bytes.max(entry_bytes));
        let table = std::mem::replace(&mut self.active, Arc::new(fresh));
        self.queue(Layer::Memtable(table), attachment);
    }

    /// Adds what ends with the newest write to what waits for a flush. The caller publishes the new view.
    pub(super) fn queue(&mut self, layer: Layer, attachment: Option<Vec<u8>>) {
        self.sealed.push_back(Sealed {
            layer,
            last: self.last,
            floor: self.wal.end().0,
            position: self.wal.begin(),
            attachment,
        });
        self.attention = true;
    }

    /// Sets the attachment of what was queued last.
    pub(super) fn set_attachment(&mut self, attachment: Option<Vec<u8>>) {
        if let Some(newest) = self.sealed.back_mut() {
            newest.attachment = attachment;
        }
    }

    /// Notes that about a second has passed. Spare segments that made up for writers at full speed go when nothing
    /// was written since the last time.
    pub(super) fn tick(&mut self) {
        let is_quiet = self.ticked == self.last;
        self.ticked = self.last;
        self.has_surplus |= is_quiet && self.wal.spares() > Self::SPARES;
    }

    /// True if a log segment should be made ready or given back, or the free space be looked at.
    pub(super) fn wants_segment(&self) -> bool {
        if self.gate.short.is_some() {
            // Nothing can be made before somebody found that there is room again.
            return self.look;
        }
        self.look
            || self.has_surplus
            || self.needed_segment > 0
            || (self.wal.spares() < Self::SPARES && self.wal.is_half_used())
    }

    /// How many spare segments may be kept.
    pub(super) fn most_spares(options: &Options) -> usize {
        Self::SPARES + options.memtable_bytes / options.log_segment_bytes as usize
    }
}
