//! A bucket: where requests about keys begin.

use std::ops::RangeBounds;
use std::sync::Arc;

use bytes::Bytes;
use kv_types::{BucketName, Key, KeyError, NodeId, WriteId};

use crate::fate::Fate;
use crate::get::Get;
use crate::into_key::IntoKey;
use crate::put::{Delete, Put};
use crate::read::Read;
use crate::scan::Scan;
use crate::session::Session;
use crate::session_token::SessionToken;
use crate::update::{Change, Update};
use crate::view::{DigestOnly, Raw};

/// A named set of keys of one cluster. Cheap to clone; requests on clones share all connections.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub(crate) session: Arc<Session>,
    pub(crate) name: BucketName,
    pub(crate) via: Option<NodeId>,
    pub(crate) token: Option<SessionToken>,
}

impl Bucket {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &BucketName {
        &self.name
    }

    /// The same bucket, with every request sent to one node, whichever replicas the key has. The node
    /// passes on what it does not hold. For tests and tools: it gives up the client's own routing.
    #[must_use]
    pub fn via(mut self, node: NodeId) -> Self {
        self.via = Some(node);
        self
    }

    /// The same bucket within a session: each of its reads shows what the session has written and has been shown, or
    /// something newer, also at level weak. A replica that is behind is not enough then: others are asked, and if none of
    /// those that answer is new enough, the read fails. Scans are not covered: they may show something older.
    #[must_use]
    pub fn session(mut self, token: &SessionToken) -> Self {
        self.token = Some(token.clone());
        self
    }

    /// Reads a key: all its concurrent values, and the context for a write that replaces them.
    pub fn get(&self, key: impl IntoKey) -> Get<Raw> {
        Get::new(self.clone(), key.into_key())
    }

    /// Reads only length and hash of a key's values, which costs no more for large values.
    pub fn digest(&self, key: impl IntoKey) -> Get<DigestOnly> {
        Get::new(self.clone(), key.into_key())
    }

    /// Writes a key. Give it the context of the read it is based on; without one the bucket's rule
    /// for blind puts holds. On success the write is durable on as many replicas as the level says.
    pub fn put(&self, key: impl IntoKey, value: impl Into<Bytes>) -> Put {
        Put::new(self.clone(), key.into_key(), value.into())
    }

    /// The node to which a request for a key goes first if nothing speaks against it, as far as that is known.
    pub(crate) fn first_owner(&self, key: &MaybeKey) -> Option<NodeId> {
        if self.via.is_some() {
            return self.via;
        }
        let topology = self.session.topology();
        let bucket = topology.bucket_by_name(&self.name)?;
        let partition_key = key.as_ref().ok()?.partition_key();
        let (_, partition) = topology.locate(bucket.id, partition_key);
        let owners = topology.replicas(partition, bucket.properties.quorum.n());
        owners.nodes().next()
    }

    /// Deletes a key. Give it the context of the read it is based on, so that a write which that read
    /// did not see survives.
    pub fn delete(&self, key: impl IntoKey) -> Delete {
        Delete::new(self.clone(), key.into_key())
    }

    /// Asks what became of a write whose [`outcome`](crate::Error::outcome) is unknown, by its
    /// [`write_id`](Put::write_id).
    pub fn fate(&self, key: impl IntoKey, write_id: WriteId) -> Fate {
        Fate::new(self.clone(), key.into_key(), write_id)
    }

    /// Reads a key, lets `change` decide on all its siblings, and writes the decision with the
    /// context of the read: the way to write that loses nothing.
    pub fn update<F>(&self, key: impl IntoKey, change: F) -> Update<F>
    where
        F: FnMut(Read<Bytes>) -> Change<Bytes> + Send + 'static,
    {
        Update::new(self.clone(), key.into_key(), change)
    }

    /// All keys in the order of their hashes, as a stream.
    pub fn scan(&self) -> Scan<Raw> {
        Scan::new(self.clone())
    }

    /// All keys with only lengths and hashes of their values.
    pub fn scan_digests(&self) -> Scan<DigestOnly> {
        Scan::new(self.clone())
    }

    /// The rows of one partition key whose sort keys lie in a range, in their order, as a stream. `..` is all of them.
    pub fn scan_rows(
        &self,
        partition_key: impl Into<Bytes>,
        sort_keys: impl RangeBounds<Bytes>,
    ) -> Scan<Raw> {
        Scan::rows(self.clone(), partition_key.into(), &sort_keys)
    }

    /// The same with only lengths and hashes of their values.
    pub fn scan_row_digests(
        &self,
        partition_key: impl Into<Bytes>,
        sort_keys: impl RangeBounds<Bytes>,
    ) -> Scan<DigestOnly> {
        Scan::rows(self.clone(), partition_key.into(), &sort_keys)
    }
}

/// The key of a request, or why it is none; kept until the request is awaited.
pub(crate) type MaybeKey = Result<Key, KeyError>;
