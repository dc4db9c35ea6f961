//! What this node keeps for owners that are away.
//!
//! Invariant: it goes only when it is as it was when the owner acknowledged it.

use std::ops::Bound;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_ring::KeyHash;
use kv_storage::WriteBatch;
use kv_types::{BucketId, Key, NodeId, Object};

use super::{Replica, damaged_key};
use crate::hints::Weight;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::Store;

/// One object that is kept for an owner that is away.
#[derive(Debug, Clone)]
pub struct StandIn {
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: Key,
    /// Its place on the ring.
    pub hash: KeyHash,
    /// The object's bytes.
    pub encoded: Bytes,
    stored: Bytes,
}

/// A page of what is kept for one owner. It may be empty although there is more: much that was delivered lies before it.
#[derive(Debug, Default)]
pub struct StandInPage {
    /// The objects, in storage order.
    pub entries: Vec<StandIn>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Bytes>,
}

impl StandIn {
    fn weight(&self) -> Result<Weight, Refusal> {
        weight(&self.encoded)
    }
}

impl Replica {
    /// A page of what is kept for an owner that is away; it begins at `from`, or at the beginning. Durable.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read.
    pub async fn stand_ins(
        &self,
        owner: NodeId,
        from: Option<Bytes>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<StandInPage, Refusal> {
        let (first, end) = storage_key::stand_in_range(Some(owner));
        let start = from.unwrap_or(first);
        let end = Bound::Excluded(end);
        let page = self.store.scan(start, end, max_items, max_bytes).await?;
        let mut entries = Vec::with_capacity(page.entries.len());
        let mut newest = None;
        for item in page.entries {
            newest = newest.max(Some(item.seq));
            entries.push(stand_in(item.key, item.value)?);
        }
        if let Some(seq) = newest {
            self.store.durable(seq).await?;
        }
        Ok(StandInPage {
            entries,
            next: page.next.map(|next| next.start),
        })
    }

    /// Forgets what was kept for an owner, if it is still what the owner has acknowledged by now. Says whether it went.
    ///
    /// # Errors
    /// [`Refusal`]; it is kept.
    pub async fn discharge(&self, owner: NodeId, delivered: &StandIn) -> Result<bool, Refusal> {
        let _turn = self.turns.take(&delivered.stored).await?;
        match self.store.get(&delivered.stored).await? {
            Some(found) if found.value == delivered.encoded => {}
            _ => return Ok(false),
        }
        let mut batch = WriteBatch::new();
        // It frees space.
        batch.use_reserve();
        batch.delete(&delivered.stored);
        // If power is lost before this is durable, it is delivered once more.
        let _ = self.store.write(batch, Store::REQUEST_PATIENCE).await?;
        self.kept.discharged(owner, delivered.weight()?);
        Ok(true)
    }

    /// Counts what is kept for others, after a start.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read.
    pub async fn count_stand_ins(&self) -> Result<(), Refusal> {
        let (mut from, end) = storage_key::stand_in_range(None);
        loop {
            let end = Bound::Excluded(end.clone());
            let page = self.store.scan(from, end, 1_024, 4 << 20).await?;
            for item in &page.entries {
                let (owner, _) = storage_key::split_stand_in(&item.key).ok_or_else(damaged_key)?;
                self.kept.found(owner, weight(&item.value)?);
            }
            match page.next {
                None => return Ok(()),
                Some(next) => from = next.start,
            }
        }
    }
}

/// What an object counts for in the account of what is kept.
fn weight(encoded: &Bytes) -> Result<Weight, Refusal> {
    let object = Object::decode(encoded).map_err(|damage| {
        let message = format!("a stored object is damaged: {damage}");
        Refusal::new(ErrorCode::Storage, message)
    })?;
    Ok(Weight::of(&object, encoded.len()))
}

fn stand_in(stored: Bytes, encoded: Bytes) -> Result<StandIn, Refusal> {
    let (_, own) = storage_key::split_stand_in(&stored).ok_or_else(damaged_key)?;
    let key = storage_key::decode(&own).ok_or_else(damaged_key)?;
    let (bucket, hash) = storage_key::place(&own).ok_or_else(damaged_key)?;
    Ok(StandIn {
        bucket,
        key,
        hash,
        encoded,
        stored,
    })
}
