//! The shared heart of a client: transport, topology, evidence, budgets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kv_net::message::DataHead;
use kv_net::{Request, Response};
use kv_ring::{KeyHash, PartitionId, Topology};
use kv_types::{BucketId, BucketName, Epoch, Key, NodeId, Outcome, WriteId};

use crate::connect_error::ConnectError;
use crate::directory::Directory;
use crate::error::Error;
use crate::explain::ExplainedError;
use crate::health::Health;
use crate::options::Options;
use crate::retry_budget::RetryBudget;
use crate::route::Ranking;
use crate::transport::{Destination, SendError, SendFault, Transport};

mod run;

use run::Run;

/// Which replicas a request is for.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Those of a key.
    Key(Key),
    /// Those of the partition that a hash lies in.
    Hash(KeyHash),
}

/// Where a request goes in one topology.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routed {
    pub(crate) bucket: BucketId,
    pub(crate) partition: PartitionId,
}

/// Makes a request again; the number says how many milliseconds ago it was first sent in a way that may have been applied.
type MakeRequest = Box<dyn Fn(Routed, DataHead, u32) -> Request + Send + Sync>;

/// One request, with all that is needed to send it again.
pub(crate) struct Call<T> {
    pub(crate) bucket: BucketName,
    /// The one node to send it through, in place of the client's routing.
    pub(crate) via: Option<NodeId>,
    pub(crate) place: Place,
    pub(crate) ranking: Ranking,
    pub(crate) writes: bool,
    pub(crate) write_id: WriteId,
    pub(crate) timeout: Duration,
    /// Explicit r and w; they must be possible in the bucket.
    pub(crate) numbers: (Option<u8>, Option<u8>),
    pub(crate) request: MakeRequest,
    /// Takes the reply out of a response, or says why it is none.
    pub(crate) read: fn(Response) -> Result<T, String>,
}

/// The shared heart of a client: topology, evidence and budgets.
pub(crate) struct Session {
    transport: Arc<dyn Transport>,
    directory: Directory,
    health: Arc<Mutex<Health>>,
    retries: Mutex<RetryBudget>,
    options: Options,
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session")
            .field("directory", &self.directory)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) async fn connect(
        transport: Arc<dyn Transport>,
        seeds: Vec<Arc<str>>,
        options: Options,
    ) -> Result<Self, ConnectError> {
        let directory = Directory::connect(&*transport, seeds, options.connect_timeout).await?;
        let retries = Mutex::new(RetryBudget::new(transport.now()));
        Ok(Self {
            transport,
            directory,
            health: Arc::default(),
            retries,
            options,
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.directory.current()
    }

    pub(crate) fn now(&self) -> Duration {
        self.transport.now()
    }

    /// A fresh id for a write, or for a read to be told apart by.
    pub(crate) fn new_write_id(&self) -> WriteId {
        let [a, b] = [self.transport.random(), self.transport.random()].map(u64::to_le_bytes);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&a);
        random[8..].copy_from_slice(&b[..2]);
        let (now, wall_ms) = (self.transport.now(), self.transport.wall_ms());
        WriteId::new(self.directory.time().at(now, wall_ms), random)
    }

    /// One call to one node, without retries.
    pub(crate) async fn ask_node(
        &self,
        node: NodeId,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, SendError> {
        let topology = self.topology();
        let Some(to) = destination(&topology, node) else {
            let message = format!("node {} is not a member", node.short());
            let (fault, outcome) = (SendFault::Unsendable, Outcome::NotApplied);
            return Err(SendError {
                fault,
                outcome,
                message,
            });
        };
        self.transport.call(&to, request, timeout).await
    }

    /// Sends a request until it is answered or given up.
    pub(crate) async fn run<T>(self: &Arc<Self>, call: Call<T>) -> Result<T, Error> {
        Ok(self.run_explained(call).await?)
    }

    /// As [`run`](Self::run); of a request that was to be explained, an error says why, too.
    pub(crate) async fn run_explained<T>(
        self: &Arc<Self>,
        call: Call<T>,
    ) -> Result<T, ExplainedError> {
        Run::new(self, &call).drive().await
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing in there panics between two changes, so a poisoned state is a whole one.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retries(&self) -> MutexGuard<'_, RetryBudget> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for a topology of at least `wanted`, first where it is said to be.
    pub(crate) async fn refresh(
        &self,
        wanted: Epoch,
        informant: Option<NodeId>,
        timeout: Duration,
    ) {
        let topology = self.topology();
        let first: Vec<Destination> = informant
            .and_then(|node| destination(&topology, node))
            .into_iter()
            .collect();
        self.directory
            .refresh(&*self.transport, wanted, &first, timeout)
            .await;
        self.forget_who_left();
    }

    /// A node has told of a topology along with its answer: a newer one is fetched while requests go on.
    fn told_of(self: &Arc<Self>, epoch: Epoch, by: NodeId) {
        if !self.directory.should_look(epoch, self.now()) {
            return;
        }
        let Some(to) = destination(&self.topology(), by) else {
            return;
        };
        let this = Arc::clone(self);
        self.transport.spawn(Box::pin(async move {
            this.directory.look(&*this.transport, epoch, &to).await;
            this.forget_who_left();
        }));
    }

    fn forget_who_left(&self) {
        let topology = self.topology();
        self.health().retain(|node| topology.member(node).is_some());
    }
}

fn destination(topology: &Topology, node: NodeId) -> Option<Destination> {
    let member = topology.member(node)?;
    Some(Destination {
        node: Some(node),
        address: Arc::from(member.address.as_str()),
    })
}

fn name(topology: &Topology, node: NodeId) -> String {
    topology
        .member(node)
        .map_or_else(|| node.short(), |member| member.name.clone())
}
