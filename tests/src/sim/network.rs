//! Messages between simulated processes.
//!
//! A call is two messages, each with a delay drawn from the seed. A message to or from a process that
//! is dead or cut off vanishes, and the caller hears nothing until its budget is spent, just as with
//! datagrams. Requests and responses go through the real encoding.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use kv_net::Role;
use kv_net::codec::{self, Encoded};
use kv_net::message::{Request, Response};
use kv_node::Node;
use kv_node::transport::{CallFailure, Peer, Transport};
use kv_types::{NodeId, Outcome};
use tokio::sync::oneshot;

use super::executor::{Group, Handle};

/// The network that all processes share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SimNetwork {
    handle: Handle,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeId, (Group, Weak<Node>)>,
    cut_off: BTreeSet<NodeId>,
    messages: u64,
}

/// The longest one-way delay, in microseconds.
const MAX_DELAY_MICROS: u64 = 2_000;

impl SimNetwork {
    /// A network without processes.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self {
            handle,
            state: Arc::default(),
        }
    }

    /// Makes a node reachable.
    pub fn attach(&self, node: NodeId, group: Group, to: &Arc<Node>) {
        self.state().nodes.insert(node, (group, Arc::downgrade(to)));
    }

    /// Makes a node unreachable, because its process is dead.
    pub fn detach(&self, node: NodeId) {
        self.state().nodes.remove(&node);
    }

    /// Cuts a node off from everyone, or joins it again.
    pub fn cut_off(&self, node: NodeId, cut: bool) {
        let mut state = self.state();
        if cut {
            state.cut_off.insert(node);
        } else {
            state.cut_off.remove(&node);
        }
    }

    /// Lets virtual time pass.
    pub async fn pause(&self, duration: Duration) {
        self.handle.sleep(duration).await;
    }

    /// Messages sent so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.state().messages
    }

    /// Calls a node as a client.
    ///
    /// # Errors
    /// When no answer comes within `budget`.
    pub async fn call_as_client(
        &self,
        to: NodeId,
        request: Request,
        budget: Duration,
    ) -> Result<Response, CallFailure> {
        self.call(Role::Client("test".to_owned()), to, &request, budget)
            .await
    }

    /// Calls a node as `from`.
    pub fn call(
        &self,
        from: Role,
        to: NodeId,
        request: &Request,
        budget: Duration,
    ) -> BoxFuture<'static, Result<Response, CallFailure>> {
        let this = self.clone();
        let method = request.method();
        let sent = codec::encode_request(request);
        Box::pin(async move {
            let lost = |reason: &str| CallFailure {
                outcome: Outcome::Unknown,
                reason: reason.to_owned(),
            };
            let request =
                codec::decode_request(method, &payload(&sent)).expect("what was encoded decodes");
            let called = this.exchange(from, to, request, budget);
            match select(Box::pin(called), this.handle.sleep(budget)).await {
                Either::Left((Some(response), _)) => Ok(response),
                Either::Left((None, rest)) => {
                    rest.await;
                    Err(lost("no answer"))
                }
                Either::Right(_) => Err(lost("no answer in time")),
            }
        })
    }

    async fn exchange(
        &self,
        from: Role,
        to: NodeId,
        request: Request,
        budget: Duration,
    ) -> Option<Response> {
        self.deliver(&from, to).await?;
        let (group, node) = {
            let state = self.state();
            let (group, node) = state.nodes.get(&to)?;
            (*group, node.upgrade()?)
        };
        let method = request.method();
        let (done, answer) = oneshot::channel();
        let handling = node.handle(from.clone(), request, budget);
        drop(node);
        self.handle
            .spawn(group, async move { drop(done.send(handling.await)) });
        let response = answer.await.ok()?;
        self.deliver(&from, to).await?;
        let sent = codec::encode_response(&response);
        Some(
            codec::decode_response(method, sent.method, &payload(&sent))
                .expect("what was encoded decodes"),
        )
    }

    /// One message's way; `None` when it is lost.
    async fn deliver(&self, one_end: &Role, other_end: NodeId) -> Option<()> {
        self.state().messages += 1;
        self.handle
            .sleep(Duration::from_micros(
                50 + self.handle.below(MAX_DELAY_MICROS),
            ))
            .await;
        let state = self.state();
        let end = match one_end {
            Role::Node(node) => Some(*node),
            Role::Client(_) | Role::Admin(_) => None,
        };
        let cut = end.is_some_and(|node| state.cut_off.contains(&node))
            || state.cut_off.contains(&other_end);
        (!cut).then_some(())
    }

    fn gossip(&self, from: NodeId, to: NodeId, bytes: Bytes) {
        let this = self.clone();
        self.handle.spawn(super::executor::OUTSIDE, async move {
            if this.deliver(&Role::Node(from), to).await.is_none() {
                return;
            }
            let node = this
                .state()
                .nodes
                .get(&to)
                .and_then(|(_, node)| node.upgrade());
            if let Some(node) = node {
                node.gossip(from, bytes);
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<Self> for SimNetwork {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// The bytes as they would arrive.
fn payload(sent: &Encoded) -> Bytes {
    [&sent.body[..], &sent.tail].concat().into()
}

/// One node's access to the network.
#[derive(Debug, Clone)]
pub struct SimTransport {
    /// Whose.
    pub me: NodeId,
    /// The network.
    pub network: SimNetwork,
}

impl Transport for SimTransport {
    fn call(
        &self,
        to: Peer,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Result<Response, CallFailure>> {
        self.network
            .call(Role::Node(self.me), to.node, &request, budget)
    }

    fn gossip(&self, to: Peer, bytes: Bytes) {
        self.network.gossip(self.me, to.node, bytes);
    }
}
