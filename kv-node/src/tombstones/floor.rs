//! The floor: up to where this node takes nothing new any more.
//!
//! Invariants:
//! 1. It only rises, and is durable before anyone is told.
//! 2. Whatever was taken in before it rose is in the log before it; so when it is durable, that is, too.
//! 3. It never rises above what this node's clock showed a while ago, so a write is refused for it only if it was under
//!    way for that long.
//! 4. It never rises over a dot of a value that this node keeps for others; but what was promised once and forgotten with a
//!    disk holds again, whatever an old copy of that disk keeps ([`Floor::restate`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use kv_storage::WriteBatch;
use kv_types::{Hlc, planted};

use crate::env::Env;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};

/// How many readings are kept of the time that tombstones are.
pub const READINGS: u32 = 8;

/// This node's floor.
#[derive(Debug)]
pub struct Floor {
    env: Env,
    store: Store,
    keep: Duration,
    at: RwLock<Hlc>,
    /// What the clock showed, and when, by a time that no one can set.
    readings: Mutex<VecDeque<(Duration, Hlc)>>,
    /// What is durable.
    promised: AtomicU64,
    /// One raise at a time.
    raising: tokio::sync::Mutex<()>,
}

impl Floor {
    /// The floor that was promised before, and no readings.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub async fn start(store: Store, env: Env, keep: Duration) -> Result<Self, StoreError> {
        let at = stored(&store).await?;
        Ok(Self {
            env,
            store,
            keep,
            at: RwLock::new(at),
            readings: Mutex::default(),
            promised: AtomicU64::new(at.0),
            raising: tokio::sync::Mutex::default(),
        })
    }

    /// Where it is, durably: what others may be told.
    #[must_use]
    pub fn promised(&self) -> Hlc {
        Hlc(self.promised.load(Ordering::Acquire))
    }

    /// How long tombstones are kept at least.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.keep
    }

    /// Notes what the clock shows now.
    pub fn note(&self, reading: Hlc) {
        let now = self.env.now();
        let mut readings = self.readings();
        readings.push_back((now, reading));
        // The last one that is old enough stays.
        while readings
            .get(1)
            .is_some_and(|(at, _)| now.saturating_sub(*at) >= self.keep)
        {
            readings.pop_front();
        }
    }

    /// What the clock showed when it was as long ago as tombstones are kept; zero soon after a start.
    #[must_use]
    pub fn reading(&self) -> Hlc {
        let now = self.env.now();
        let readings = self.readings();
        let mut old = readings.iter().rev();
        let old = old.find(|(at, _)| now.saturating_sub(*at) >= self.keep);
        old.map_or(Hlc::ZERO, |(_, reading)| *reading)
    }

    /// What the wall clock shows.
    pub(super) fn wall(&self) -> Hlc {
        self.env.wall()
    }

    /// Promises: durable on return. Gives where the floor is then, which is lower if this node cannot promise: it has not
    /// run for long enough, or keeps something older for others.
    ///
    /// # Errors
    /// [`StoreError`]; in this run of the node the promise holds all the same, but nobody may be told.
    pub async fn raise(
        &self,
        to: Hlc,
        oldest_kept: impl FnOnce() -> Option<Hlc>,
    ) -> Result<Hlc, StoreError> {
        let _one = self.raising.lock().await;
        let promised = self.promised();
        if to <= promised || to > self.reading() {
            return Ok(promised);
        }
        {
            // Whoever takes something in holds this lock, so either it is accounted for, or it comes after the promise.
            let mut at = self.at.write().unwrap_or_else(PoisonError::into_inner);
            if oldest_kept().is_some_and(|oldest| oldest <= to) {
                return Ok(promised);
            }
            *at = (*at).max(to);
        }
        if !planted!("tell a floor before it is durable") {
            self.make_durable(to).await?;
        }
        Ok(to)
    }

    /// Promises again what this node once promised and has forgotten with its disk: up to a watermark of another owner, all
    /// have promised. Durable on return.
    ///
    /// # Errors
    /// [`StoreError`]; in this run of the node the promise holds all the same.
    pub async fn restate(&self, to: Hlc) -> Result<(), StoreError> {
        let _one = self.raising.lock().await;
        if to <= self.promised() {
            return Ok(());
        }
        {
            let mut at = self.at.write().unwrap_or_else(PoisonError::into_inner);
            *at = (*at).max(to);
        }
        self.make_durable(to).await
    }

    async fn make_durable(&self, to: Hlc) -> Result<(), StoreError> {
        let mut batch = WriteBatch::new();
        // It lets space be freed.
        batch.use_reserve();
        keep_in(&mut batch, to);
        committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        self.promised.store(to.0, Ordering::Release);
        Ok(())
    }

    /// Runs `take_in` if what was minted at `dots` is above the floor, which does not rise meanwhile.
    ///
    /// # Errors
    /// Where the floor is; nothing was run.
    pub fn above<T>(&self, dots: &[Hlc], take_in: impl FnOnce() -> T) -> Result<T, Hlc> {
        let at = self.at.read().unwrap_or_else(PoisonError::into_inner);
        if dots.iter().any(|dot| *dot <= *at) {
            return Err(*at);
        }
        Ok(take_in())
    }

    fn readings(&self) -> MutexGuard<'_, VecDeque<(Duration, Hlc)>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The floor that was promised last.
pub(crate) async fn stored(store: &Store) -> Result<Hlc, StoreError> {
    match store.get(&floor_key()).await? {
        None => Ok(Hlc::ZERO),
        Some(found) => decode(&found.value),
    }
}

/// Adds a promise to a batch.
pub(crate) fn keep_in(batch: &mut WriteBatch, floor: Hlc) {
    batch.put(&floor_key(), &floor.0.to_le_bytes());
}

fn floor_key() -> Bytes {
    storage_key::system("floor")
}

fn decode(bytes: &[u8]) -> Result<Hlc, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::Failed("the stored floor is damaged".to_owned()))?;
    Ok(Hlc(u64::from_le_bytes(bytes)))
}
