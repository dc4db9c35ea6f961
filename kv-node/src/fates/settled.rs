//! Writes that are settled: somebody may have been told that they never will be applied.
//!
//! Invariants:
//! 1. What is settled only rises, and is durable before anyone is told.
//! 2. A write whose minute ended at or before that is taken in from no coordinator any more, whatever wall clocks say.
//!
//! A floor does not do for that: it is a point of hybrid time, which may be far ahead of all wall clocks, and would refuse every
//! new write for as long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use kv_storage::WriteBatch;
use kv_types::Hlc;

use crate::storage_key;
use crate::store::{Store, StoreError, committed};

/// Up to where this node's writes are settled.
#[derive(Debug)]
pub struct Settled {
    store: Store,
    through: RwLock<Hlc>,
    /// What is durable.
    promised: AtomicU64,
    /// One change at a time.
    rising: tokio::sync::Mutex<()>,
}

impl Settled {
    /// What was settled before.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub async fn start(store: Store) -> Result<Self, StoreError> {
        let through = stored(&store).await?;
        Ok(Self {
            store,
            through: RwLock::new(through),
            promised: AtomicU64::new(through.0),
            rising: tokio::sync::Mutex::default(),
        })
    }

    /// Up to where, durably.
    #[must_use]
    pub fn promised(&self) -> Hlc {
        Hlc(self.promised.load(Ordering::Acquire))
    }

    /// Settles writes by the latest dot that they may have in time. Durable on return.
    ///
    /// # Errors
    /// [`StoreError`]; in this run of the node they are settled all the same, but nobody may be told.
    pub async fn settle(&self, latest_dot: Hlc) -> Result<(), StoreError> {
        let _one = self.rising.lock().await;
        if latest_dot <= self.promised() {
            return Ok(());
        }
        {
            // Whoever takes something in holds this lock.
            let mut through = self.through.write().unwrap_or_else(PoisonError::into_inner);
            *through = (*through).max(latest_dot);
        }
        let mut batch = WriteBatch::new();
        keep_in(&mut batch, latest_dot);
        committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        self.promised.store(latest_dot.0, Ordering::Release);
        Ok(())
    }

    /// Runs `take_in` if the write with this latest dot, if it is one, is not settled, which it does not become meanwhile.
    pub fn unless_settled<T>(
        &self,
        latest_dot: Option<Hlc>,
        take_in: impl FnOnce() -> T,
    ) -> Option<T> {
        let through = self.through.read().unwrap_or_else(PoisonError::into_inner);
        let is_settled = latest_dot.is_some_and(|latest| latest <= *through);
        (!is_settled).then(take_in)
    }
}

/// What was settled last.
pub(crate) async fn stored(store: &Store) -> Result<Hlc, StoreError> {
    let Some(found) = store.get(&settled_key()).await? else {
        return Ok(Hlc::ZERO);
    };
    let bytes = found.value[..]
        .try_into()
        .map_err(|_| StoreError::Failed("what is stored as settled is damaged".to_owned()))?;
    Ok(Hlc(u64::from_le_bytes(bytes)))
}

/// Adds it to a batch.
pub(crate) fn keep_in(batch: &mut WriteBatch, through: Hlc) {
    batch.put(&settled_key(), &through.0.to_le_bytes());
}

fn settled_key() -> Bytes {
    storage_key::system("settled")
}
