//! The watermarks: up to where all owners of a partition have held the same.
//!
//! Invariants:
//! 1. A watermark only rises, and is durable before anything is forgotten for it.
//! 2. It never is above this node's floor.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use kv_storage::WriteBatch;
use kv_types::{BucketId, Hlc, planted};

use crate::anti_entropy::trees::Place;
use crate::env::Env;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};

/// For so long a copy may be on its way from one owner to another, twice over.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// This node's watermarks.
#[derive(Debug)]
pub struct Watermarks {
    env: Env,
    store: Store,
    /// One raise at a time: of two at once, the lower could be the one that is stored.
    raising: tokio::sync::Mutex<()>,
    marks: RwLock<BTreeMap<Place, Hlc>>,
    /// Up to where all owners are known to have raised theirs, in this run of the node: only there it may forget. One
    /// that has not forgotten would take a new write, made where all was forgotten, for one beside the deletion.
    forgettable: RwLock<BTreeMap<Place, Hlc>>,
    /// When some have risen of late, and from where.
    risen: Mutex<BTreeMap<Place, Vec<(Duration, Hlc)>>>,
}

impl Watermarks {
    /// Those that were there before.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub async fn start(env: Env, store: Store) -> Result<Self, StoreError> {
        let (mut from, end) = storage_key::watermark_range();
        let mut marks = BTreeMap::new();
        loop {
            let end = Bound::Excluded(end.clone());
            let page = store.scan(from, end, 4_096, 1 << 20).await?;
            for item in &page.entries {
                let place = storage_key::split_watermark(&item.key).ok_or_else(damaged)?;
                let mark = item.value[..].try_into().map_err(|_| damaged())?;
                marks.insert(place, Hlc(u64::from_le_bytes(mark)));
            }
            match page.next {
                None => break,
                Some(next) => from = next.start,
            }
        }
        Ok(Self {
            env,
            store,
            raising: tokio::sync::Mutex::default(),
            marks: RwLock::new(marks),
            forgettable: RwLock::default(),
            risen: Mutex::default(),
        })
    }

    /// Up to where what was deleted in a place may be forgotten.
    #[must_use]
    pub fn forgettable(&self, place: Place) -> Hlc {
        let marks = self.forgettable.read();
        let marks = marks.unwrap_or_else(PoisonError::into_inner);
        marks.get(&place).copied().unwrap_or(Hlc::ZERO)
    }

    /// All owners of these places have raised their watermarks.
    pub fn let_forget(&self, places: &[Place], to: Hlc) {
        let marks = self.forgettable.write();
        let mut marks = marks.unwrap_or_else(PoisonError::into_inner);
        for place in places {
            let mark = marks.entry(*place).or_insert(Hlc::ZERO);
            *mark = (*mark).max(to);
        }
    }

    /// That of a place.
    #[must_use]
    pub fn of(&self, place: Place) -> Hlc {
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        marks.get(&place).copied().unwrap_or(Hlc::ZERO)
    }

    /// Where that of a place was some seconds ago. What lies above may have been sent before it rose, by an owner that has
    /// been compared since.
    #[must_use]
    pub fn long_since(&self, place: Place) -> Hlc {
        let now = self.env.now();
        let from = {
            let risen = self.risen.lock().unwrap_or_else(PoisonError::into_inner);
            let mut of_late = risen.get(&place).into_iter().flatten();
            let first = of_late.find(|(at, _)| at.saturating_add(ON_ITS_WAY) > now);
            first.map(|(_, from)| *from)
        };
        from.unwrap_or_else(|| self.of(place))
    }

    fn note_risen(&self, place: Place, from: Hlc) {
        let now = self.env.now();
        let mut risen = self.risen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_late = risen.entry(place).or_default();
        of_late.retain(|(at, _)| at.saturating_add(ON_ITS_WAY) > now);
        of_late.push((now, from));
    }

    /// Raises those of some places, durably.
    ///
    /// # Errors
    /// [`StoreError`]; they stay where they were, but may have risen after a restart.
    pub async fn raise(&self, places: &[Place], to: Hlc) -> Result<(), StoreError> {
        let _one = match planted!("raise watermarks side by side") {
            true => None,
            false => Some(self.raising.lock().await),
        };
        let mut batch = WriteBatch::new();
        // It lets space be freed.
        batch.use_reserve();
        for (bucket, partition) in places {
            if self.of((*bucket, *partition)) < to {
                let key = storage_key::watermark(*bucket, *partition);
                batch.put(&key, &to.0.to_le_bytes());
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        tracing::debug!(?places, ?to, "watermarks rise");
        for place in places {
            let from = self.of(*place);
            if from < to {
                // Before it rises, so that nobody takes what is on its way for late.
                self.note_risen(*place, from);
            }
        }
        let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        for place in places {
            let mark = marks.entry(*place).or_insert(Hlc::ZERO);
            *mark = (*mark).max(to);
        }
        Ok(())
    }

    /// Forgets those of places whose copies are not complete any more; that they are gone is stored with the record of that.
    pub fn drop_some(&self, places: &[Place]) {
        for marks in [&self.marks, &self.forgettable] {
            let mut marks = marks.write().unwrap_or_else(PoisonError::into_inner);
            for place in places {
                marks.remove(place);
            }
        }
    }

    /// Forgets those of a bucket that is deleted.
    pub fn forget(&self, bucket: BucketId) {
        for marks in [&self.marks, &self.forgettable] {
            let mut marks = marks.write().unwrap_or_else(PoisonError::into_inner);
            marks.retain(|(other, _), _| *other != bucket);
        }
    }
}

fn damaged() -> StoreError {
    StoreError::Failed("a stored watermark is damaged".to_owned())
}
