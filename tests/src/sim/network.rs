//! Messages between simulated processes.
//!
//! A call is two messages, each with a delay drawn from the seed. A message to or from a process that
//! is dead or cut off vanishes, and the caller hears nothing until its budget is spent, just as with
//! datagrams; so does one that is lost. Gossip and requests between nodes may arrive twice. Requests and responses go through the
//! real encoding.
//!
//! Where nodes speak real QUIC ([`super::udp`]), the same network carries their datagrams, under the same faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use kv_net::codec::{self, Encoded};
use kv_net::message::{Request, Response};
use kv_net::{Method, Role};
use kv_node::Node;
use kv_node::transport::{CallFailure, Peer, Transport};
use kv_types::{Hlc, NodeId, Outcome};
use tokio::sync::oneshot;

use super::executor::{Group, Handle, OUTSIDE};
use super::udp::{Datagram, SimSocket};

/// The network that all processes share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SimNetwork {
    handle: Handle,
    state: Arc<Mutex<State>>,
}

/// Stands for all clients where a link is named.
pub const CLIENTS: NodeId = NodeId(0);

/// One direction between two ends.
pub type Link = (NodeId, NodeId);

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeId, (Group, Weak<Node>)>,
    sockets: BTreeMap<SocketAddr, Arc<SimSocket>>,
    cut_off: BTreeSet<NodeId>,
    /// How many faults block a link now.
    blocked: BTreeMap<Link, u32>,
    /// Extra delays of links, in microseconds.
    slow: BTreeMap<Link, u64>,
    loss_permille: u64,
    duplicate_permille: u64,
    counts: Counts,
    recorded: Option<Vec<Recorded>>,
    overheard: Option<Overheard>,
}

/// Whoever is told of messages between nodes in the moment in which they are sent.
pub trait Overhear: fmt::Debug + Send + Sync {
    /// A node has started, and has done nothing else yet; it minted what is below a point before.
    fn started(&self, node: NodeId, began: Hlc);

    /// Somebody asks a node.
    fn request(&self, from: NodeId, to: NodeId, request: &Request);

    /// A node answers a request.
    fn response(&self, from: NodeId, to: NodeId, request: &Request, response: &Response);
}

/// Somebody who listens as long as they are there.
type Overheard = Weak<dyn Overhear>;

/// The bytes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// A request.
    Request(Method, Bytes),
    /// A response to a request, with the number in its frame.
    Response(Method, u16, Bytes),
    /// Gossip.
    Gossip(Bytes),
}

/// What happened to messages so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent, whatever became of them.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because a link was blocked.
    pub blocked: u64,
    /// Requests and gossip that arrived twice.
    pub duplicated: u64,
    /// Datagrams that nobody took: too long for the path, nobody there, or no room.
    pub untaken: u64,
}

/// The longest one-way delay, in microseconds.
const MAX_DELAY_MICROS: u64 = 2_000;

/// The longest datagram that gets through, in bytes: an Ethernet frame's.
const MAX_DATAGRAM_BYTES: usize = 1_472;

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

    /// Opens a socket; one that had the address before is dead.
    #[must_use]
    pub fn open_socket(&self, address: SocketAddr) -> Arc<SimSocket> {
        let socket = Arc::new(SimSocket::new(address, self.clone()));
        let earlier = self.state().sockets.insert(address, Arc::clone(&socket));
        if let Some(earlier) = earlier {
            earlier.die();
        }
        socket
    }

    /// Closes a socket, because its process is dead.
    pub fn close_socket(&self, address: SocketAddr) {
        let closed = self.state().sockets.remove(&address);
        if let Some(closed) = closed {
            closed.die();
        }
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

    /// Blocks links, once more than before.
    pub fn block(&self, links: &[Link]) {
        let mut state = self.state();
        for link in links {
            *state.blocked.entry(*link).or_default() += 1;
        }
    }

    /// Takes back one [`block`](Self::block) of these links.
    pub fn unblock(&self, links: &[Link]) {
        let mut state = self.state();
        for link in links {
            if let Some(count) = state.blocked.get_mut(link) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Adds to the delay of a link.
    pub fn slow_down(&self, link: Link, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        *self.state().slow.entry(link).or_default() += micros;
    }

    /// Takes back one [`slow_down`](Self::slow_down).
    pub fn speed_up(&self, link: Link, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        if let Some(slow) = self.state().slow.get_mut(&link) {
            *slow = slow.saturating_sub(micros);
        }
    }

    /// How many of 1,000 messages are lost, and how many requests arrive twice.
    pub fn set_chances(&self, loss_permille: u64, duplicate_permille: u64) {
        let mut state = self.state();
        state.loss_permille = loss_permille;
        state.duplicate_permille = duplicate_permille;
    }

    /// Ends all faults of the network.
    pub fn calm(&self) {
        let mut state = self.state();
        state.cut_off.clear();
        state.blocked.clear();
        state.slow.clear();
        state.loss_permille = 0;
        state.duplicate_permille = 0;
    }

    /// Tells somebody of all messages between nodes from now on.
    pub fn tell(&self, who: Overheard) {
        self.state().overheard = Some(who);
    }

    /// Who listens.
    pub(super) fn listener(&self) -> Option<Arc<dyn Overhear>> {
        self.state().overheard.as_ref()?.upgrade()
    }

    /// Keeps the bytes of all messages from now on.
    pub fn record(&self) {
        self.state().recorded = Some(Vec::new());
    }

    /// The messages since [`record`](Self::record).
    #[must_use]
    pub fn take_recorded(&self) -> Vec<Recorded> {
        self.state().recorded.take().unwrap_or_default()
    }

    fn keep(&self, message: impl FnOnce() -> Recorded) {
        if let Some(recorded) = &mut self.state().recorded {
            recorded.push(message());
        }
    }

    /// What happened to messages so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
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
        if let Some(listener) = self.listener() {
            listener.request(end_of(&from), to, request);
        }
        let bytes = payload(&codec::encode_request(request));
        self.note(end_of(&from), to, &bytes);
        self.keep(|| Recorded::Request(method, bytes.clone()));
        Box::pin(async move {
            let lost = |reason: &str| CallFailure {
                outcome: Outcome::Unknown,
                reason: reason.to_owned(),
            };
            let request = codec::decode_request(method, &bytes).expect("what was encoded decodes");
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
        let end = end_of(&from);
        self.deliver(end, to).await?;
        // Streams bring each request once; for all but writes of clients and changes of admins it must not matter. One of
        // them that came twice could be refused and applied, and no answer would be true.
        let comes_once = matches!(
            request.method(),
            Method::Put | Method::ExplainPut | Method::Change
        );
        if !comes_once && self.is_duplicated() {
            let (this, from, request) = (self.clone(), from.clone(), request.clone());
            self.handle.spawn(OUTSIDE, async move {
                if this.deliver(end, to).await.is_some() {
                    let _ = this.arrive(from, to, request, budget, None).await;
                }
            });
        }
        let method = request.method();
        let listener = self.listener().map(|listener| (listener, request.clone()));
        let response = self.arrive(from, to, request, budget, listener).await?;
        self.deliver(to, end).await?;
        let sent = codec::encode_response(&response);
        let bytes = payload(&sent);
        self.note(to, end, &bytes);
        self.keep(|| Recorded::Response(method, sent.method, bytes.clone()));
        Some(codec::decode_response(method, sent.method, &bytes).expect("what was encoded decodes"))
    }

    /// A request reaches its node, if that runs.
    async fn arrive(
        &self,
        from: Role,
        to: NodeId,
        request: Request,
        budget: Duration,
        listener: Option<(Arc<dyn Overhear>, Request)>,
    ) -> Option<Response> {
        let end = end_of(&from);
        let (group, node) = {
            let state = self.state();
            let (group, node) = state.nodes.get(&to)?;
            (*group, node.upgrade()?)
        };
        let (done, answer) = oneshot::channel();
        // The node works in its own process, so that its death ends this too.
        self.handle.spawn(group, async move {
            let handling = node.handle(from, request, budget);
            drop(node);
            let response = handling.await;
            // Whoever asked may be paused, and hear it long after.
            if let Some((listener, request)) = listener {
                listener.response(to, end, &request, &response);
            }
            drop(done.send(response));
        });
        answer.await.ok()
    }

    fn is_duplicated(&self) -> bool {
        let chance = self.state().duplicate_permille;
        let is_duplicated = chance > 0 && self.handle.below(1_000) < chance;
        self.state().counts.duplicated += u64::from(is_duplicated);
        is_duplicated
    }

    /// One message's way; `None` when it is lost.
    async fn deliver(&self, from: NodeId, to: NodeId) -> Option<()> {
        let way = self.set_off(from, to);
        self.handle.sleep(way.takes).await;
        self.arrives(&way).then_some(())
    }

    /// A message or datagram is sent.
    fn set_off(&self, from: NodeId, to: NodeId) -> Way {
        let (slow, loss) = {
            let mut state = self.state();
            state.counts.sent += 1;
            let slow = state.slow.get(&(from, to)).copied().unwrap_or(0);
            (slow, state.loss_permille)
        };
        let micros = 50 + self.handle.below(MAX_DELAY_MICROS) + slow;
        Way {
            from,
            to,
            takes: Duration::from_micros(micros),
            is_lost: loss > 0 && self.handle.below(1_000) < loss,
        }
    }

    /// Whether it arrives, now that its time has passed.
    fn arrives(&self, way: &Way) -> bool {
        let (from, to) = (way.from, way.to);
        let mut state = self.state();
        if way.is_lost {
            state.counts.lost += 1;
            return false;
        }
        let cut = state.cut_off.contains(&from)
            || state.cut_off.contains(&to)
            || state
                .blocked
                .get(&(from, to))
                .is_some_and(|count| *count > 0);
        state.counts.blocked += u64::from(cut);
        !cut
    }

    /// Sends a datagram, which may be lost, overtaken or doubled.
    pub(super) fn send_datagram(&self, datagram: Datagram) {
        let (from, to) = (owner(datagram.from), owner(datagram.to));
        self.note(from, to, &datagram.bytes);
        for _ in 0..=u8::from(self.is_duplicated()) {
            let (this, datagram, way) = (self.clone(), datagram.clone(), self.set_off(from, to));
            self.handle.after(OUTSIDE, way.takes, move || {
                if this.arrives(&way) {
                    this.hand_over(datagram);
                }
            });
        }
    }

    fn hand_over(&self, datagram: Datagram) {
        let socket = self.state().sockets.get(&datagram.to).cloned();
        let is_taken = datagram.bytes.len() <= MAX_DATAGRAM_BYTES
            && socket.is_some_and(|socket| socket.take(datagram));
        self.state().counts.untaken += u64::from(!is_taken);
    }

    /// Adds a message to the trace.
    fn note(&self, from: NodeId, to: NodeId, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        (from.0, to.0, bytes).hash(&mut hasher);
        self.handle.note(hasher.finish());
    }

    fn gossip(&self, from: NodeId, to: NodeId, bytes: &Bytes) {
        self.note(from, to, bytes);
        self.keep(|| Recorded::Gossip(bytes.clone()));
        for _ in 0..=u8::from(self.is_duplicated()) {
            let (this, bytes) = (self.clone(), bytes.clone());
            self.handle.spawn(OUTSIDE, async move {
                if this.deliver(from, to).await.is_none() {
                    return;
                }
                let Some((group, node)) = this.state().nodes.get(&to).cloned() else {
                    return;
                };
                this.handle.spawn(group, async move {
                    if let Some(node) = node.upgrade() {
                        node.gossip(from, bytes);
                    }
                });
            });
        }
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

/// How a message gets from one end to the other.
#[derive(Debug)]
struct Way {
    from: NodeId,
    to: NodeId,
    takes: Duration,
    is_lost: bool,
}

/// Where a node's socket is.
#[must_use]
pub fn address_of(node: NodeId) -> SocketAddr {
    let number = u8::try_from(node.0).unwrap_or(u8::MAX);
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, number), 7400))
}

/// Where a client's socket is.
#[must_use]
pub fn address_of_client(number: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 1, 1), 10_000 + number))
}

/// Whose socket is at an address.
fn owner(address: SocketAddr) -> NodeId {
    match address.ip() {
        IpAddr::V4(ip) if ip.octets()[..3] == [10, 0, 0] => NodeId(ip.octets()[3].into()),
        IpAddr::V4(_) | IpAddr::V6(_) => CLIENTS,
    }
}

fn end_of(role: &Role) -> NodeId {
    match role {
        Role::Node(node) => *node,
        Role::Client(_) | Role::Admin(_) => CLIENTS,
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
        self.network.gossip(self.me, to.node, &bytes);
    }
}
