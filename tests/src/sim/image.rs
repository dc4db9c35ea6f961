//! What stands in a node's store that nothing runs on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kv_net::message::BallotV1;
use kv_node::storage_key;
use kv_ring::PartitionId;
use kv_storage::sim::SimFs;
use kv_storage::{Db, Entry, Env, Options};
use kv_types::{ActorId, BucketId, Epoch, Hlc, NodeId, Object};

use super::cluster::data;

/// A store that was opened only to be read.
#[derive(Debug)]
pub struct Image(Db);

/// What a voter has on its disk: of which epoch, what it has promised, and what it has accepted.
type Vote = (Epoch, Option<BallotV1>, Option<(BallotV1, Vec<u8>)>);

/// What is on record of a loss: whether there was one, the actor since, the partitions, and what is hidden.
type Loss = (bool, Option<(ActorId, Epoch)>, BTreeSet<u16>, Hlc, Hlc);

/// Something in it cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl Image {
    /// The store on a disk; nothing when there is none, or it cannot be opened.
    #[must_use]
    pub fn of(fs: &SimFs, options: &Options) -> Option<Self> {
        let env = Env {
            fs: Arc::new(fs.clone()),
            ..Env::embedded(1)
        };
        let store: &Path = &data().join("store");
        Db::open(store, options.clone(), env).ok().map(Self)
    }

    /// What is stored under a key of the engine.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn value(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        let found = self.0.blocking().get(key).map_err(|_| Unreadable)?;
        Ok(found.map(|found| found.value))
    }

    /// The object under a key of the engine, empty if there is none.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn object(&self, key: &[u8]) -> Result<Object, Unreadable> {
        match self.value(key)? {
            None => Ok(Object::new()),
            Some(bytes) => Object::decode(&bytes).map_err(|_| Unreadable),
        }
    }

    /// All objects from a key up to another.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn objects(
        &self,
        (start, end): (Bytes, Option<Bytes>),
    ) -> Result<Vec<(Bytes, Object)>, Unreadable> {
        let mut all = Vec::new();
        for entry in self.0.snapshot().iter(start..) {
            let Entry { key, value, .. } = entry.map_err(|_| Unreadable)?;
            if end.as_ref().is_some_and(|end| key >= *end) {
                break;
            }
            let object = Object::decode(&value).map_err(|_| Unreadable)?;
            all.push((key, object));
        }
        Ok(all)
    }

    /// What is kept for others: for whom, under which key of the engine, and what.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn stand_ins(&self) -> Result<Vec<(NodeId, Bytes, Object)>, Unreadable> {
        let (start, end) = storage_key::stand_in_range(None);
        let all = self.objects((start, Some(end)))?;
        let split = |(key, object): (Bytes, Object)| {
            let (owner, stored) = storage_key::split_stand_in(&key)?;
            Some((owner, stored, object))
        };
        Ok(all.into_iter().filter_map(split).collect())
    }

    /// What the node has promised to take nothing from.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn floor(&self) -> Result<Hlc, Unreadable> {
        self.point(&storage_key::system("floor"))
    }

    /// The watermark of a partition of a bucket.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn watermark(&self, bucket: BucketId, partition: PartitionId) -> Result<Hlc, Unreadable> {
        self.point(&storage_key::watermark(bucket, partition))
    }

    fn point(&self, key: &[u8]) -> Result<Hlc, Unreadable> {
        let Some(bytes) = self.value(key)? else {
            return Ok(Hlc::ZERO);
        };
        let bytes = bytes[..].try_into().map_err(|_| Unreadable)?;
        Ok(Hlc(u64::from_le_bytes(bytes)))
    }

    /// The partitions whose copies may lack what the node has acknowledged.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn incomplete(&self) -> Result<BTreeSet<u16>, Unreadable> {
        let Some(bytes) = self.value(&storage_key::system("completeness"))? else {
            return Ok(BTreeSet::new());
        };
        let loss: Loss = postcard::from_bytes(&bytes).map_err(|_| Unreadable)?;
        Ok(loss.2)
    }

    /// How the node has voted last.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn vote(&self) -> Result<Option<Vote>, Unreadable> {
        let stored = self.value(&storage_key::system("vote"))?;
        let vote = stored.map(|bytes| postcard::from_bytes(&bytes));
        vote.transpose().map_err(|_| Unreadable)
    }
}
