//! What writers share: the next number, the end of the log, the active memtable, and the gate.
//!
//! Its lock is the only one that a write takes. It is held while a frame is copied into the log and
//! room is taken in the memtable, never across a call that waits for the disk. Locks are taken in the
//! order state, front, syncer.

use super::pace::Pacer;
use super::state::Task;
use crate::compaction::Debt;
use crate::error::WriteError;
use crate::key::Seq;
use crate::memtable::{Memtable, Need};
use crate::options::Options;
use crate::wal::WalWriter;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Suggested wait when a flush or a log segment must be ready first.
const SHORT_WAIT: Duration = Duration::from_millis(2);
/// Suggested wait when compaction must catch up first.
const LONG_WAIT: Duration = Duration::from_millis(20);

/// A memtable that takes no more writes and waits for its flush.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub table: Arc<Memtable>,
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
    /// Oldest first.
    pub sealed: VecDeque<Sealed>,
    pub gate: Gate,
    /// A frame waits for a segment of at least this size; 0 if none does.
    pub needed_segment: u64,
    /// A job should look at the free space.
    pub look: bool,
    /// The job that makes segments ready.
    pub segment_task: Task,
    /// Background work became due since somebody last asked.
    pub attention: bool,
    pub busy: u64,
}

impl Front {
    /// Spare log segments kept ready.
    pub(super) const SPARES: usize = 2;

    /// Says whether the store can take a write of this size now.
    pub(super) fn admit(
        &mut self,
        options: &Options,
        log_bytes: usize,
        need: Need,
        now: impl FnOnce() -> Duration,
    ) -> Result<(), WriteError> {
        let gate = &mut self.gate;
        if let Some(cause) = &gate.poison {
            let cause = Arc::clone(cause);
            return Err(WriteError::Poisoned { cause });
        }
        if gate.closed {
            return Err(WriteError::Closed);
        }
        if let Some(Short { free, needed }) = gate.short {
            // Each refused writer asks for another look, so writing resumes by itself.
            self.attention = true;
            self.look = true;
            return Err(WriteError::Full { free, needed });
        }
        if !self.active.has_room(need) && self.sealed.len() >= options.sealed_memtables_max {
            return Err(self.busy(SHORT_WAIT));
        }
        if gate.table_debt >= Debt::LIMIT {
            return Err(self.busy(LONG_WAIT));
        }
        if let Some(paid) = self.debt(options).paid() {
            let pacer = &mut self.gate.pacer;
            if let Err(delay) = pacer.admit(now(), log_bytes, paid) {
                return Err(self.busy(delay));
            }
        }
        Ok(())
    }

    /// How far flushes and compactions are behind.
    pub(super) fn debt(&self, options: &Options) -> Debt {
        let sealed = self.sealed.iter().map(|sealed| sealed.table.size_bytes());
        let bytes = sealed.sum::<usize>() + self.active.size_bytes();
        self.gate.table_debt.max(Debt::of_memory(bytes, options))
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
        let fresh = Memtable::new(options.memtable_bytes.max(entry_bytes));
        let table = std::mem::replace(&mut self.active, Arc::new(fresh));
        self.sealed.push_back(Sealed {
            table,
            last: self.last,
            floor: self.wal.end().0,
            position: self.wal.begin(),
            attachment,
        });
        self.attention = true;
    }

    /// True if a log segment should be made ready, or the free space be looked at.
    pub(super) fn wants_segment(&self) -> bool {
        if self.gate.short.is_some() {
            // Nothing can be made before somebody found that there is room again.
            return self.look;
        }
        self.look
            || self.needed_segment > 0
            || (self.wal.spares() < Self::SPARES && self.wal.is_half_used())
    }

    /// How many spare segments may be kept.
    pub(super) fn most_spares(options: &Options) -> usize {
        Self::SPARES + options.memtable_bytes / options.log_segment_bytes as usize
    }
}
