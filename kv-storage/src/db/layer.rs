//! What is written and waits to become a run of level 0: memtables, and tables that were ingested.

use crate::memtable::Memtable;
use crate::table::Table;
use crate::version::Run;
use std::sync::Arc;

/// One step of the store's history above its tables.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    /// A memtable that takes no more writes.
    Memtable(Arc<Memtable>),
    /// The sorted tables of one ingest.
    Tables(Arc<Run<Arc<Table>>>),
}

impl Layer {
    /// The memtable, if it is one.
    pub(super) fn memtable(&self) -> Option<&Memtable> {
        match self {
            Self::Memtable(table) => Some(table),
            Self::Tables(_) => None,
        }
    }

    /// The ingested tables, if it holds some.
    pub(super) fn tables(&self) -> Option<&Run<Arc<Table>>> {
        match self {
            Self::Memtable(_) => None,
            Self::Tables(run) => Some(run),
        }
    }
}
