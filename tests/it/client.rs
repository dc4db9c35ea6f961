//! A client of simulated nodes that chooses its node, and clusters to use it on.

use std::time::Duration;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_net::message::{
    DataHead, GetReplyV1, GetV1, PutReplyV1, PutV1, ReadOptions, Request, Response, WriteKind,
    WriteOptions,
};
use kv_storage::Options;
use kv_tests::sim::host::WALL_START_MS;
use kv_tests::sim::network::SimNetwork;
use kv_tests::sim::{Executor, Handle, SimCluster};
use kv_types::{BucketId, Context, Epoch, Key, Level, NodeId, Outcome, WriteId};

/// The bucket `default`.
pub(crate) const BUCKET: BucketId = BucketId(1);
/// The time of one request.
pub(crate) const BUDGET: Duration = Duration::from_secs(1);

/// A client that talks to nodes of its choice.
pub(crate) struct Client {
    handle: Handle,
    number: u64,
    writes: u64,
    /// The epoch it claims to know.
    pub(crate) epoch: Epoch,
}

pub(crate) type Refused = (ErrorCode, Outcome);

impl Client {
    pub(crate) fn new(handle: Handle) -> Self {
        Self::numbered(handle, 0)
    }

    /// One of several clients; no two with the same number.
    pub(crate) fn numbered(handle: Handle, number: u64) -> Self {
        Self {
            handle,
            number,
            writes: 0,
            epoch: Epoch(1),
        }
    }

    /// Virtual time.
    pub(crate) fn now(&self) -> Duration {
        self.handle.now()
    }

    /// Lets virtual time pass.
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.handle.sleep(duration).await;
    }

    pub(crate) fn head(&mut self) -> DataHead {
        self.writes += 1;
        let created_ms =
            WALL_START_MS + u64::try_from(self.handle.now().as_millis()).expect("a short run");
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.writes.to_le_bytes());
        random[8..].copy_from_slice(&self.number.to_le_bytes()[..2]);
        DataHead {
            epoch: self.epoch,
            trace: self.writes,
            write_id: WriteId::new(created_ms, random),
        }
    }

    pub(crate) fn put_request(
        &mut self,
        name: &str,
        context: Option<Context>,
        kind: WriteKind,
    ) -> PutV1 {
        PutV1 {
            head: self.head(),
            bucket: BUCKET,
            key: key(name),
            kind,
            context,
            options: WriteOptions::default(),
            forwarded: false,
        }
    }

    pub(crate) async fn put(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        name: &str,
        value: &str,
    ) -> Result<PutReplyV1, Refused> {
        let request = self.put_request(name, None, WriteKind::Put);
        self.send_put(network, via, request, value).await
    }

    pub(crate) async fn send_put(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        request: PutV1,
        value: &str,
    ) -> Result<PutReplyV1, Refused> {
        let request = Request::Put(request, Bytes::from(value.to_owned()));
        match network.as_ref().call_as_client(via, request, BUDGET).await {
            Ok(Response::Put(reply)) => Ok(reply),
            other => Err(refused(other)),
        }
    }

    pub(crate) async fn get(
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

    pub(crate) async fn get_with(
        &mut self,
        network: &impl AsRef<SimNetwork>,
        via: NodeId,
        name: &str,
        options: ReadOptions,
    ) -> Result<(Vec<String>, GetReplyV1), Refused> {
        let request = GetV1 {
            head: self.head(),
            bucket: BUCKET,
            key: key(name),
            options,
        };
        match network
            .as_ref()
            .call_as_client(via, Request::Get(request), BUDGET)
            .await
        {
            Ok(Response::Get(reply, tail)) => Ok((values(&reply, tail), reply)),
            other => Err(refused(other)),
        }
    }
}

fn refused(answer: Result<Response, kv_node::transport::CallFailure>) -> Refused {
    match answer {
        Ok(Response::Error(error)) => (error.code, error.outcome),
        Ok(other) => panic!("an unexpected answer: {other:?}"),
        Err(failure) => (ErrorCode::Timeout, failure.outcome),
    }
}

fn values(reply: &GetReplyV1, mut tail: Bytes) -> Vec<String> {
    let live = reply.siblings.iter().filter(|sibling| !sibling.tombstone);
    live.map(|sibling| {
        String::from_utf8(tail.split_to(sibling.value_bytes as usize).to_vec()).expect("text")
    })
    .collect()
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name.to_owned()).expect("a short key")
}

/// Runs a scenario on a fresh cluster of three.
pub(crate) fn with_cluster<T: Send + 'static, F>(
    seed: u64,
    scenario: impl FnOnce(SimCluster, Client, Handle) -> F + Send + 'static,
) -> T
where
    F: Future<Output = T> + Send + 'static,
{
    let mut executor = Executor::new(seed);
    let handle = executor.handle();
    let inner = handle.clone();
    executor.run(async move {
        // Small memtables, so that tables and compactions take part; the largest values fit.
        let mut options = Options::tiny();
        options.max_batch_bytes = Options::default().max_batch_bytes;
        let cluster = SimCluster::new(inner.clone(), 3, 3, options);
        cluster.start_all().await.expect("the nodes start");
        let client = Client::new(inner.clone());
        scenario(cluster, client, inner).await
    })
}
