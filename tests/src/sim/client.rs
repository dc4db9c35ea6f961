//! A client of simulated nodes that chooses its node.

use std::time::Duration;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_net::message::{
    DataHead, FateV1, GetReplyV1, GetV1, ListReplyV1, ListV1, PutReplyV1, PutV1, ReadOptions,
    Request, Response, RowsV1, SiblingHeadV1, WriteFate, WriteKind, WriteOptions,
};
use kv_node::adapters::QuicTransport;
use kv_node::transport::{CallFailure, Peer, Transport};
use kv_types::{BucketId, Context, Epoch, Key, Level, NodeId, Outcome, WriteId};

use super::executor::Handle;
use super::host::WALL_START_MS;
use super::network::{SimNetwork, address_of};

/// The bucket `default`.
pub const BUCKET: BucketId = BucketId(1);
/// The time of one request.
pub const BUDGET: Duration = Duration::from_secs(1);

/// A client that talks to nodes of its choice.
#[derive(Debug)]
pub struct Client {
    handle: Handle,
    number: u64,
    writes: u64,
    /// How it speaks, if not by mere messages.
    quic: Option<QuicTransport>,
    /// By how many milliseconds its clock is ahead.
    ahead_ms: i64,
    /// The epoch it claims to know.
    pub epoch: Epoch,
}

/// Why a request failed: the code, and whether it may have been applied.
pub type Refused = (ErrorCode, Outcome);

impl Client {
    /// The only client.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self::numbered(handle, 0)
    }

    /// One of several clients; no two with the same number.
    pub fn numbered(handle: Handle, number: u64) -> Self {
        Self {
            handle,
            number,
            writes: 0,
            quic: None,
            ahead_ms: 0,
            epoch: Epoch(1),
        }
    }

    /// The same, with a clock that is ahead by so much, or behind if that is negative.
    #[must_use]
    pub fn ahead_by(mut self, milliseconds: i64) -> Self {
        self.ahead_ms = milliseconds;
        self
    }

    /// The same, speaking real QUIC.
    #[must_use]
    pub fn over(mut self, quic: QuicTransport) -> Self {
        self.quic = Some(quic);
        self
    }

    async fn ask(
        &self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        request: Request,
    ) -> Result<Response, CallFailure> {
        match &self.quic {
            None => network.as_ref().call_as_client(via, request, BUDGET).await,
            Some(quic) => {
                let peer = Peer {
                    node: via,
                    address: address_of(via).to_string(),
                };
                quic.call(peer, request, BUDGET).await
            }
        }
    }

    /// Virtual time.
    pub fn now(&self) -> Duration {
        self.handle.now()
    }

    /// Lets virtual time pass.
    pub async fn sleep(&self, duration: Duration) {
        self.handle.sleep(duration).await;
    }

    /// The head of a new request.
    ///
    /// # Panics
    /// When the run is absurdly long.
    pub fn head(&mut self) -> DataHead {
        self.writes += 1;
        let created_ms =
            WALL_START_MS + u64::try_from(self.handle.now().as_millis()).expect("a short run");
        let created_ms = created_ms.saturating_add_signed(self.ahead_ms);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.writes.to_le_bytes());
        random[8..].copy_from_slice(&self.number.to_le_bytes()[..2]);
        DataHead {
            epoch: self.epoch,
            trace: self.writes,
            write_id: WriteId::new(created_ms, random),
        }
    }

    /// A write under a new id.
    pub fn put_request(&mut self, name: &str, context: Option<Context>, kind: WriteKind) -> PutV1 {
        PutV1 {
            head: self.head(),
            bucket: BUCKET,
            key: key(name),
            kind,
            context,
            options: WriteOptions {
                level: Level::Quorum,
                ..WriteOptions::default()
            },
            forwarded: false,
            since_first_ms: 0,
        }
    }

    /// Puts text without a context.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn put(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        name: &str,
        value: &str,
    ) -> Result<PutReplyV1, Refused> {
        let request = self.put_request(name, None, WriteKind::Put);
        self.send_put(network, via, request, value).await
    }

    /// Sends a write, perhaps not for the first time.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn send_put(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        request: PutV1,
        value: &str,
    ) -> Result<PutReplyV1, Refused> {
        let request = Request::Put(request, Bytes::from(value.to_owned()));
        match self.ask(network, via, request).await {
            Ok(Response::Put(reply)) => Ok(reply),
            other => Err(refused(other)),
        }
    }

    /// Reads at quorum; returns the live values as text, too.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn get(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        name: &str,
    ) -> Result<(Vec<String>, GetReplyV1), Refused> {
        let options = ReadOptions {
            level: Level::Quorum,
            ..ReadOptions::default()
        };
        self.get_with(network, via, name, options).await
    }

    /// Reads as asked; returns the live values as text, too.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn get_with(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        name: &str,
        options: ReadOptions,
    ) -> Result<(Vec<String>, GetReplyV1), Refused> {
        self.get_in_session(network, via, name, options, None).await
    }

    /// The same for a reader who has seen something of the key.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn get_in_session(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        name: &str,
        options: ReadOptions,
        seen: Option<Context>,
    ) -> Result<(Vec<String>, GetReplyV1), Refused> {
        self.read(network, via, key(name), options, seen).await
    }

    /// Reads any key as asked.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn get_key(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        key: Key,
        options: ReadOptions,
    ) -> Result<(Vec<String>, GetReplyV1), Refused> {
        self.read(network, via, key, options, None).await
    }

    /// Lists a page of a partition, or of rows in it, with the values as text.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn list(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        (partition, rows, after): (u16, Option<RowsV1>, Option<Key>),
        max_items: u32,
        options: ReadOptions,
    ) -> Result<(ListReplyV1, Vec<String>), Refused> {
        let request = ListV1 {
            head: self.head(),
            bucket: BUCKET,
            partition,
            rows,
            after,
            max_items,
            options,
        };
        match self.ask(network, via, Request::List(request)).await {
            Ok(Response::List(page, tail)) => {
                let siblings = page.entries.iter().flat_map(|entry| &entry.siblings);
                let values = values(siblings, tail);
                Ok((page, values))
            }
            other => Err(refused(other)),
        }
    }

    /// Asks what became of a write.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn fate(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        name: &str,
        write_id: WriteId,
    ) -> Result<WriteFate, Refused> {
        let request = FateV1 {
            head: self.head(),
            bucket: BUCKET,
            key: key(name),
            write_id,
        };
        match self.ask(network, via, Request::Fate(request)).await {
            Ok(Response::Fate(reply)) => Ok(reply.fate),
            other => Err(refused(other)),
        }
    }

    async fn read(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        key: Key,
        options: ReadOptions,
        seen: Option<Context>,
    ) -> Result<(Vec<String>, GetReplyV1), Refused> {
        let request = GetV1 {
            head: self.head(),
            bucket: BUCKET,
            key,
            options,
            seen,
        };
        match self.ask(network, via, Request::Get(request)).await {
            Ok(Response::Get(reply, tail)) => Ok((values(&reply.siblings, tail), reply)),
            other => Err(refused(other)),
        }
    }
}

fn refused(answer: Result<Response, CallFailure>) -> Refused {
    match answer {
        Ok(Response::Error(error)) => (error.code, error.outcome),
        Ok(other) => panic!("an unexpected answer: {other:?}"),
        Err(failure) => (ErrorCode::Timeout, failure.outcome),
    }
}

fn values<'a>(
    siblings: impl IntoIterator<Item = &'a SiblingHeadV1>,
    mut tail: Bytes,
) -> Vec<String> {
    let live = siblings.into_iter().filter(|sibling| !sibling.tombstone);
    live.map(|sibling| {
        String::from_utf8(tail.split_to(sibling.value_bytes as usize).to_vec()).expect("text")
    })
    .collect()
}

/// A key; with a slash in its name, a row of a partition key.
///
/// # Panics
/// When it is too long.
#[must_use]
pub fn key(name: &str) -> Key {
    match name.split_once('/') {
        None => Key::new(name.to_owned()),
        Some((partition, row)) => Key::with_sort(partition.to_owned(), row.to_owned()),
    }
    .expect("a short key")
}
