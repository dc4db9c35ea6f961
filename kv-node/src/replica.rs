//! What this node holds: the only code that writes user data.
//!
//! Invariants:
//! 1. Changes of one key happen one after another ([`Turns`]); each reads the engine, never a cache.
//! 2. A turn ends once the change has its place in the log; acknowledging waits until the log is
//!    durable up to there. A merge that changes nothing waits just the same, because what it found
//!    may not be durable yet.
//! 3. Nothing is appended for a partition that changed owners since the request's topology: the
//!    check and the append are one critical section with the adoption of a topology.
//! 4. Nothing is told to anyone, digest included, before it is durable.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_ring::{HashSecret, KeyHash, PartitionId};
use kv_storage::{Commit, Seq, WriteBatch};
use kv_types::{
    Admission, BucketId, Clock, ContextKey, DecodeError, Dot, Epoch, Key, Object, Write,
    WriteRefused, planted,
};

use crate::env::{Deadline, Env};
use crate::minter::Minter;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};
use crate::topologies::Topologies;
use crate::turns::Turns;

/// One key, and the topology under which a request reached it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// Its place on the ring.
    pub hash: KeyHash,
    /// Its partition.
    pub partition: PartitionId,
    /// The epoch of the request: the append is refused if the partition has changed since.
    pub epoch: Epoch,
}

impl Target {
    fn stored(&self) -> Bytes {
        storage_key::encode(self.bucket, self.hash, &self.key)
    }
}

/// A write to be coordinated here.
#[derive(Debug, Clone)]
pub struct NewWrite {
    /// The write.
    pub write: Write,
    /// What the writer had read; `None` takes what this replica holds as read.
    pub read: Option<Clock>,
}

/// A coordinated write that has its place in the log.
#[derive(Debug)]
pub struct Appended {
    /// The whole resulting object.
    pub object: Object,
    /// Its bytes.
    pub encoded: Bytes,
    /// What the writer knows now: what it had read, and its own write. Never the siblings beside it,
    /// which it has not seen and so must not supersede with its next write.
    pub known: Clock,
    durable: Durable,
}

/// When something becomes durable.
#[derive(Debug)]
enum Durable {
    Commit(Commit),
    Seq(Seq),
}

/// What a replica holds of a key; durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The object's bytes.
    pub encoded: Bytes,
    /// Its keyed digest.
    pub digest: u64,
}

/// A page of what a replica holds; durable.
#[derive(Debug, Clone, Default)]
pub struct HeldPage {
    /// The objects in storage order.
    pub entries: Vec<(Key, Bytes)>,
    /// Whether the partition ends with this page.
    pub complete: bool,
}

/// This node's copies.
#[derive(Debug)]
pub struct Replica {
    env: Env,
    store: Store,
    minter: Minter,
    topologies: Arc<Topologies>,
    turns: Turns,
    secret: HashSecret,
}

impl Replica {
    /// The copies in `store`.
    #[must_use]
    pub fn new(env: Env, store: Store, minter: Minter, topologies: Arc<Topologies>) -> Self {
        let secret = *topologies.current().secret();
        Self {
            env,
            store,
            minter,
            topologies,
            turns: Turns::default(),
            secret,
        }
    }

    /// The node's source of dots.
    #[must_use]
    pub fn minter(&self) -> &Minter {
        &self.minter
    }

    /// Applies a write under a new dot. A write that was applied before is not applied again: its
    /// object is returned as it stands. After the deadline nothing is applied: the client has gone on.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed, but for a failed disk.
    pub async fn coordinate(
        &self,
        target: &Target,
        new: NewWrite,
        deadline: Deadline,
    ) -> Result<Appended, Refusal> {
        let stored = target.stored();
        let _turn = self.turns.take(&stored).await?;
        let (mut object, seq) = self.load(&stored).await?;
        let now_ms = self.env.host.wall_ms();
        match (object.admit(new.write.write_id, now_ms), seq) {
            (Admission::Known, Some(seq)) => {
                let encoded = object.encode();
                let known = writer_knows(new.read, object.dots_of(new.write.write_id));
                return Ok(Appended {
                    object,
                    encoded,
                    known,
                    durable: Durable::Seq(seq),
                });
            }
            (Admission::New | Admission::Known, _) => {}
            (Admission::TooOld | Admission::FromTheFuture, _) => {
                return Err(stale_write_id(new.write.write_id.created_ms(), now_ms));
            }
        }
        let created_ms = new.write.write_id.created_ms();
        let mut read = new.read.unwrap_or_else(|| object.clock_at(created_ms));
        if planted!("let a write supersede what its writer never saw") {
            read = object.clock().clone();
        }
        let dot = self.minter.mint().await?;
        let known = writer_knows(Some(read.clone()), [dot]);
        let is_deletion = new.write.payload.value().is_none();
        object
            .write(new.write, &read, dot, self.minter.held_since(), now_ms)
            .map_err(|refused| match refused {
                WriteRefused::TooManySiblings { .. } => {
                    Refusal::new(ErrorCode::TooManySiblings, refused.to_string())
                }
                WriteRefused::TooLarge { .. } => {
                    Refusal::new(ErrorCode::TooLarge, refused.to_string())
                }
            })?;
        // A deletion is always taken, so that a key with too rich a history can be got rid of.
        if !is_deletion {
            ContextKey::check_size(object.clock()).map_err(|error| {
                let refusal = Refusal::from(error);
                Refusal {
                    message: format!("{}: {}", target.key, refusal.message),
                    ..refusal
                }
            })?;
        }
        let encoded = object.encode();
        let deadline = Some(deadline);
        let commit = self
            .append(target, stored, encoded.clone(), deadline)
            .await?;
        Ok(Appended {
            object,
            encoded,
            known,
            durable: Durable::Commit(commit),
        })
    }

    /// Waits until a coordinated write is durable here.
    ///
    /// # Errors
    /// [`Refusal`] with an unknown outcome when the disk failed.
    pub async fn durable(&self, appended: Appended) -> Result<(), Refusal> {
        let synced = match appended.durable {
            Durable::Commit(commit) => committed(commit).await,
            Durable::Seq(seq) => self.store.durable(seq).await,
        };
        synced.map_err(|error| Refusal::from(error).unknown())
    }

    /// Takes in an object from another replica. On return it is durable here.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed, but for a failed disk.
    pub async fn merge(&self, target: &Target, incoming: &Object) -> Result<(), Refusal> {
        self.minter.observe(incoming.clock().latest());
        let stored = target.stored();
        let turn = self.turns.take(&stored).await?;
        let (mut object, seq) = self.load(&stored).await?;
        let changed = object.merge(incoming);
        match seq {
            Some(seq) if !changed => {
                drop(turn);
                self.store.durable(seq).await?;
            }
            _ => {
                let commit = self.append(target, stored, object.encode(), None).await?;
                drop(turn);
                if planted!("let a replica acknowledge before its log is synced") {
                    return Ok(());
                }
                committed(commit).await?;
            }
        }
        Ok(())
    }

    /// What is held of a key; `None` when nothing is.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read.
    pub async fn read(&self, target: &Target) -> Result<Option<Held>, Refusal> {
        let Some(found) = self.store.get(&target.stored()).await? else {
            return Ok(None);
        };
        self.store.durable(found.seq).await?;
        let digest = self
            .digest(&found.value)
            .map_err(|damage| damaged(&target.key, damage))?;
        Ok(Some(Held {
            encoded: found.value,
            digest,
        }))
    }

    /// A page of what is held of a partition, after a key.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read.
    pub async fn list(
        &self,
        bucket: BucketId,
        partition: PartitionId,
        after: Option<&Key>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<HeldPage, Refusal> {
        let topology = self.topologies.current();
        let hashes = topology.partition_count().hash_range(partition);
        let (first, end) = storage_key::partition_range(bucket, &hashes);
        let partition_start = first.clone();
        let start = match after {
            None => first,
            Some(key) => {
                let (hash, _) = topology.locate(bucket, key.partition_key());
                // The smallest key behind: the same with a zero byte more in its sort key.
                [&storage_key::encode(bucket, hash, key)[..], &[0]]
                    .concat()
                    .into()
            }
        };
        // A key of an earlier partition begins at this one's start.
        let start = start.max(partition_start);
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.store.scan(start, end, max_items, max_bytes).await?;
        let mut entries = Vec::with_capacity(page.entries.len());
        let mut newest = None;
        for item in page.entries {
            newest = newest.max(Some(item.seq));
            let key = storage_key::decode(&item.key)
                .ok_or_else(|| Refusal::new(ErrorCode::Storage, "a stored key is damaged"))?;
            entries.push((key, item.value));
        }
        if let Some(seq) = newest {
            self.store.durable(seq).await?;
        }
        Ok(HeldPage {
            entries,
            complete: page.next.is_none(),
        })
    }

    /// The keyed digest of an encoded object: equal exactly when the objects are.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not an object.
    pub fn digest(&self, encoded: &[u8]) -> Result<u64, DecodeError> {
        Ok(self.secret.digest(Object::header_of(encoded)?))
    }

    async fn load(&self, stored: &[u8]) -> Result<(Object, Option<Seq>), Refusal> {
        let Some(found) = self.store.get(stored).await? else {
            return Ok((Object::new(), None));
        };
        let object = Object::decode(&found.value).map_err(|damage| {
            Refusal::new(
                ErrorCode::Storage,
                format!("a stored object is damaged: {damage}"),
            )
        })?;
        Ok((object, Some(found.seq)))
    }

    async fn append(
        &self,
        target: &Target,
        stored: Bytes,
        encoded: Bytes,
        deadline: Option<Deadline>,
    ) -> Result<Commit, Refusal> {
        let mut batch = WriteBatch::new();
        batch.put(&stored, &encoded);
        let mut waited = Duration::ZERO;
        loop {
            if deadline.is_some_and(|deadline| deadline.left(&self.env).is_zero()) {
                let message = "the deadline passed before the write could begin; try again";
                return Err(Refusal::new(ErrorCode::Timeout, message));
            }
            let appended = self
                .topologies
                .unchanged_since(target.epoch, target.partition, || {
                    self.store.try_write(batch.clone())
                })
                .map_err(Refusal::stale)?;
            match appended {
                Err(StoreError::Busy) if waited < Store::REQUEST_PATIENCE => {
                    let pause = Duration::from_millis(5);
                    self.env.sleep(pause).await;
                    waited += pause;
                }
                done => return Ok(done?),
            }
        }
    }
}

/// What a writer knows after its write, for the context of its next one.
fn writer_knows(read: Option<Clock>, own: impl IntoIterator<Item = Dot>) -> Clock {
    let mut known = read.unwrap_or_default();
    for dot in own {
        known.insert(dot);
    }
    known
}

fn stale_write_id(created_ms: u64, now_ms: u64) -> Refusal {
    let message = format!(
        "the write was created {} ms before this node's clock and may have been applied before; \
         read the key to see, check this machine's clock, then write anew",
        i128::from(now_ms) - i128::from(created_ms)
    );
    Refusal::new(ErrorCode::StaleWriteId, message)
}

fn damaged(key: &Key, damage: DecodeError) -> Refusal {
    Refusal::new(
        ErrorCode::Storage,
        format!("the stored object of {key} is damaged: {damage}"),
    )
}
