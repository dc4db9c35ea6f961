//! A cluster as a client sees it: nodes that answer from one shared map, as the test tells them to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use kv_client::transport::{Destination, SendError, SendFault, Transport};
use kv_client::{Client, ErrorCode, Options};
use kv_net::message::{
    ErrorReplyV1, GetReplyV1, ListEntryV1, ListReplyV1, PutReplyV1, SiblingHeadV1, TopologyReplyV1,
    WriteKind,
};
use kv_net::{Request, Response};
use kv_ring::topology::{ClusterMode, GenesisSpec, Member, MemberState};
use kv_ring::{ChainEntry, ChainHash, HashSecret, PartitionCount, Topology};
use kv_types::{
    ActorId, ClusterId, Context, Dot, Epoch, Hlc, Key, NodeId, Outcome, Payload, WriteId,
};

use crate::world::World;

/// How long a healthy node takes to answer.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(1);

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers.
    Well,
    /// It answers after so many milliseconds.
    Slow(u64),
    /// It never answers.
    Hung,
    /// It never answers, and the network layer knows that nothing was sent.
    Unconnected,
    /// No connection can be made.
    Dead,
    /// The connection breaks, after the request was executed.
    Breaks,
    /// It refuses data requests.
    Refuses(ErrorCode, Outcome),
}

/// One request that a node got.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Duration,
    pub(crate) node: NodeId,
    pub(crate) kind: &'static str,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) write_id: Option<WriteId>,
    /// How long ago a write was first sent, it says.
    pub(crate) since_first_ms: Option<u32>,
}

/// The siblings of one key, each with the write that made it; `None` is a deletion.
type Stored = Vec<(WriteId, Option<Bytes>)>;

struct State {
    topology: Arc<Topology>,
    /// Those of earlier epochs.
    topologies: Vec<Arc<Topology>>,
    /// Requests of earlier epochs are refused.
    least_epoch: Epoch,
    moods: BTreeMap<NodeId, Mood>,
    data: BTreeMap<Key, Stored>,
    seen: Vec<Seen>,
    random: fastrand::Rng,
    /// Makes the next so many puts fail with this.
    refuse_puts: (u32, ErrorCode),
    /// How far the nodes' clocks are ahead of the client's.
    ahead_ms: u64,
}

/// What the client's clock shows.
fn wall_ms(world: &World) -> u64 {
    1_700_000_000_000 + world.now().as_millis() as u64
}

/// Nodes `n1`, `n2`, … with three replicas of everything.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) world: World,
    state: Arc<Mutex<State>>,
}

pub(crate) fn node(number: u128) -> NodeId {
    NodeId(number)
}

fn address(number: u128) -> String {
    format!("10.0.0.{number}:7401")
}

fn topology(addresses: Vec<String>) -> Topology {
    let members = (1..).zip(addresses).map(|(number, address)| Member {
        node: node(number),
        name: format!("n{number}"),
        zone: "a".to_owned(),
        weight: 1,
        address,
        fingerprint: [number as u8; 32],
        state: MemberState::Active,
    });
    Topology::genesis(GenesisSpec {
        cluster_id: ClusterId(1),
        cluster_name: "test".to_owned(),
        secret: HashSecret([7; 16]),
        partitions: PartitionCount::MIN,
        replication_factor: 3,
        mode: ClusterMode::Ap,
        members: members.collect(),
        default_bucket: None,
        buckets: Vec::new(),
    })
    .expect("a possible cluster")
}

impl Cluster {
    pub(crate) fn of(nodes: u128) -> Self {
        Self::seeded(nodes, 1)
    }

    pub(crate) fn seeded(nodes: u128, seed: u64) -> Self {
        Self::at((1..=nodes).map(address).collect(), seed)
    }

    /// Nodes that say they are at these addresses.
    pub(crate) fn at(addresses: Vec<String>, seed: u64) -> Self {
        let nodes = addresses.len() as u128;
        let state = State {
            topology: Arc::new(topology(addresses)),
            topologies: Vec::new(),
            least_epoch: Epoch::GENESIS,
            moods: (1..=nodes)
                .map(|number| (node(number), Mood::Well))
                .collect(),
            data: BTreeMap::new(),
            seen: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            refuse_puts: (0, ErrorCode::Internal),
            ahead_ms: 0,
        };
        Self {
            world: World::default(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(crate) async fn try_client(
        &self,
        seeds: &[u128],
        options: Options,
    ) -> Result<Client, kv_client::ConnectError> {
        let seeds = seeds.iter().map(|&number| address(number));
        Client::with_transport(Arc::new(self.clone()), seeds, options).await
    }

    /// A client that has every node as a seed.
    pub(crate) fn client(&self) -> Client {
        let nodes = self.state().moods.len() as u128;
        let seeds: Vec<u128> = (1..=nodes).collect();
        let client = self.world.run(self.try_client(&seeds, Options::default()));
        self.state().seen.clear();
        client.expect("all nodes are well")
    }

    pub(crate) fn set(&self, number: NodeId, mood: Mood) {
        self.state().moods.insert(number, mood);
    }

    pub(crate) fn set_all(&self, mood: Mood) {
        self.state().moods.values_mut().for_each(|m| *m = mood);
    }

    pub(crate) fn refuse_puts(&self, count: u32, code: ErrorCode) {
        self.state().refuse_puts = (count, code);
    }

    /// Lets the nodes' clocks be ahead of the client's.
    pub(crate) fn be_ahead(&self, milliseconds: u64) {
        self.state().ahead_ms = milliseconds;
    }

    /// Everything that nodes got since this was last asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        core::mem::take(&mut self.state().seen)
    }

    /// Stores siblings without asking anyone.
    pub(crate) fn store(&self, key: &str, siblings: &[Option<&str>]) {
        self.store_key(Key::new(key.to_owned()).expect("a short key"), siblings);
    }

    /// The same for any key.
    pub(crate) fn store_key(&self, key: Key, siblings: &[Option<&str>]) {
        let mut state = self.state();
        let siblings = siblings.iter().enumerate().map(|(index, value)| {
            let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
            (WriteId::new(index as u64 + 1, [0; 10]), value)
        });
        state.data.insert(key, siblings.collect());
    }

    /// The live values of a key.
    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        let state = self.state();
        let siblings = state
            .data
            .get(&Key::new(key.to_owned()).expect("a short key"));
        let values = siblings
            .into_iter()
            .flatten()
            .filter_map(|(_, value)| value.clone());
        values
            .map(|value| String::from_utf8_lossy(&value).into_owned())
            .collect()
    }

    /// The replicas of a key of the default bucket, in slot order.
    pub(crate) fn replicas(&self, key: &str) -> Vec<NodeId> {
        let topology = Arc::clone(&self.state().topology);
        let bucket = &topology.buckets()[0];
        let (_, partition) = topology.locate(bucket.id, key.as_bytes());
        topology.replicas(partition, 3).nodes().collect()
    }

    /// All nodes move to an epoch in which every partition counts as changed, and refuse requests of earlier ones.
    pub(crate) fn advance_epoch(&self) -> Epoch {
        let epoch = self.advance_epoch_quietly();
        self.state().least_epoch = epoch;
        epoch
    }

    /// The same, but they serve requests of earlier ones, too.
    pub(crate) fn advance_epoch_quietly(&self) -> Epoch {
        let mut state = self.state();
        let epoch = state.topology.epoch().next();
        let mut next = Topology::clone(&state.topology);
        for partition in state.topology.partition_count().iter() {
            let owners = state.topology.partition_state(partition);
            next = next
                .with_partition_state(partition, &owners, epoch)
                .expect("the same owners");
        }
        let before = core::mem::replace(&mut state.topology, Arc::new(next));
        state.topologies.push(before);
        epoch
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    async fn serve(
        self,
        to: Destination,
        request: Request,
        budget: Duration,
    ) -> Result<Response, SendError> {
        let (node, mood) = self.receive(&to, &request);
        let fail = |fault, outcome| {
            Err(SendError {
                fault,
                outcome,
                message: format!("{fault:?} at {to}"),
            })
        };
        let delay = match mood {
            Mood::Hung | Mood::Unconnected => budget,
            Mood::Slow(ms) => Duration::from_millis(ms).min(budget),
            Mood::Well | Mood::Dead | Mood::Breaks | Mood::Refuses(..) => ROUND_TRIP.min(budget),
        };
        self.world.sleep(delay).await;
        match mood {
            Mood::Dead => fail(SendFault::Unreachable, Outcome::NotApplied),
            Mood::Unconnected => fail(SendFault::Silent, Outcome::NotApplied),
            _ if delay >= budget => fail(SendFault::Silent, Outcome::Unknown),
            Mood::Breaks => {
                self.execute(node, request);
                fail(SendFault::Lost, Outcome::Unknown)
            }
            Mood::Refuses(code, outcome) if !matches!(request, Request::Topology(_)) => {
                Ok(self.refusal(code, outcome))
            }
            Mood::Well | Mood::Slow(_) | Mood::Refuses(..) | Mood::Hung => {
                Ok(self.execute(node, request))
            }
        }
    }

    fn receive(&self, to: &Destination, request: &Request) -> (NodeId, Mood) {
        let mut state = self.state();
        let members = state.topology.members().iter();
        let member = members
            .clone()
            .find(|member| *member.address == *to.address);
        let node = member.map_or(NodeId(0), |member| member.node);
        let (kind, head) = match request {
            Request::Get(get) => ("get", Some(&get.head)),
            Request::Put(put, _) => ("put", Some(&put.head)),
            Request::List(list) => ("list", Some(&list.head)),
            Request::Topology(_) => ("topology", None),
            _ => ("other", None),
        };
        let seen = Seen {
            at: self.world.now(),
            node,
            kind,
            epoch: head.map(|head| head.epoch),
            write_id: head.map(|head| head.write_id),
            since_first_ms: match &request {
                Request::Put(put, _) => Some(put.since_first_ms),
                _ => None,
            },
        };
        state.seen.push(seen);
        (node, state.moods.get(&node).copied().unwrap_or(Mood::Dead))
    }

    fn refusal(&self, code: ErrorCode, outcome: Outcome) -> Response {
        let epoch = self.state().topology.epoch();
        let message = format!("refused with {code:?}");
        Response::Error(ErrorReplyV1 {
            code,
            outcome,
            message,
            needed: 2,
            got: 1,
            epoch,
        })
    }

    /// What a node that is well answers.
    pub(crate) fn execute(&self, node: NodeId, request: Request) -> Response {
        let (epoch, least) = {
            let state = self.state();
            (state.topology.epoch(), state.least_epoch)
        };
        let now_ms = wall_ms(&self.world) + self.state().ahead_ms;
        match request {
            Request::Topology(request) if request.known >= epoch => {
                Response::Topology(TopologyReplyV1 { epoch, now_ms }, Bytes::new())
            }
            Request::Topology(request) => {
                let mut topology = Arc::clone(&self.state().topology);
                if request.known > Epoch(0) {
                    // Nodes lead those who name an epoch through all of them.
                    let state = self.state();
                    let next = |topology: &&Arc<Topology>| topology.epoch() == request.known.next();
                    topology = state
                        .topologies
                        .iter()
                        .find(next)
                        .cloned()
                        .unwrap_or(topology);
                }
                let previous = match topology.epoch() {
                    Epoch::GENESIS => ChainHash::BEFORE_GENESIS,
                    _ => ChainHash([1; 16]),
                };
                let entry = ChainEntry::snapshot(topology, previous).expect("a whole topology");
                Response::Topology(TopologyReplyV1 { epoch, now_ms }, entry.encode())
            }
            Request::Get(get) if get.head.epoch < least => self.stale(),
            Request::Put(put, _) if put.head.epoch < least => self.stale(),
            Request::List(list) if list.head.epoch < least => self.stale(),
            Request::Get(get) => self.get(node, &get.key, get.options.headers_only),
            Request::Put(put, value) => {
                let value = (put.kind == WriteKind::Put).then_some(value);
                self.put(node, put.key, put.head.write_id, put.context, value)
            }
            Request::List(list) => self.list(&list),
            _ => self.refusal(ErrorCode::Unsupported, Outcome::NotApplied),
        }
    }

    fn stale(&self) -> Response {
        self.refusal(ErrorCode::StaleEpoch, Outcome::NotApplied)
    }

    fn get(&self, node: NodeId, key: &Key, headers_only: bool) -> Response {
        let state = self.state();
        let stored = state.data.get(key).cloned().unwrap_or_default();
        let (siblings, tail) = heads(&stored, headers_only);
        let context = context(&stored);
        let reply = GetReplyV1 {
            siblings,
            context,
            answered: vec![node],
            needed: 2,
            epoch: state.topology.epoch(),
        };
        Response::Get(reply, tail)
    }

    fn put(
        &self,
        node: NodeId,
        key: Key,
        write_id: WriteId,
        given: Option<Context>,
        value: Option<Bytes>,
    ) -> Response {
        let mut state = self.state();
        if state.refuse_puts.0 > 0 {
            state.refuse_puts.0 -= 1;
            let code = state.refuse_puts.1;
            drop(state);
            return self.refusal(code, Outcome::NotApplied);
        }
        let epoch = state.topology.epoch();
        let stored = state.data.entry(key).or_default();
        if stored.iter().all(|(id, _)| *id != write_id) {
            let read = given.map(|context| context.as_bytes().clone());
            stored.retain(|(id, _)| {
                let covered = |read: &Bytes| read.chunks(16).any(|chunk| chunk == id.to_bytes());
                !read.as_ref().is_none_or(covered)
            });
            stored.push((write_id, value));
        }
        Response::Put(PutReplyV1 {
            context: context(stored),
            acked: vec![node],
            needed: 2,
            epoch,
        })
    }

    /// Keys of the partition in order, in pages of at most two.
    fn list(&self, list: &kv_net::message::ListV1) -> Response {
        let state = self.state();
        let topology = &state.topology;
        let place = |key: &Key| {
            let (hash, partition) = topology.locate(list.bucket, key.partition_key());
            (partition.0, hash, key.clone())
        };
        let mut keys: Vec<_> = state.data.keys().map(place).collect();
        keys.retain(|(partition, ..)| *partition == list.partition);
        if let Some(rows) = &list.rows {
            let is_in = |sort: &[u8]| {
                sort >= &rows.from[..] && rows.until.as_ref().is_none_or(|until| sort < until)
            };
            keys.retain(|(.., key)| {
                key.partition_key() == rows.partition_key && is_in(key.sort_key())
            });
        }
        keys.sort();
        if let Some(after) = &list.after {
            let after = place(after);
            keys.retain(|key| *key > after);
        }
        let page = keys.len().min(2).min(list.max_items as usize);
        let next_after = (keys.len() > page).then(|| keys[page - 1].2.clone());
        let (mut entries, mut tail) = (Vec::new(), BytesMut::new());
        for (_, _, key) in keys.into_iter().take(page) {
            let stored = &state.data[&key];
            let (siblings, values) = heads(stored, list.options.headers_only);
            tail.extend_from_slice(&values);
            entries.push(ListEntryV1 {
                key,
                siblings,
                context: context(stored),
            });
        }
        Response::List(
            ListReplyV1 {
                entries,
                next_after,
                epoch: topology.epoch(),
            },
            tail.freeze(),
        )
    }
}

fn heads(stored: &Stored, headers_only: bool) -> (Vec<SiblingHeadV1>, Bytes) {
    let mut tail = BytesMut::new();
    let head = |(write_id, value): &(WriteId, Option<Bytes>)| {
        let bytes = value.clone().unwrap_or_default();
        if !headers_only {
            tail.extend_from_slice(&bytes);
        }
        SiblingHeadV1 {
            write_id: *write_id,
            dot: Dot::new(ActorId(1), Hlc::from_millis(write_id.created_ms())),
            tombstone: value.is_none(),
            value_bytes: bytes.len() as u32,
            value_hash: Payload::Value(bytes).hash(),
            expires_ms: None,
        }
    };
    let heads = stored.iter().map(head).collect();
    (heads, tail.freeze())
}

/// Stands for the sealed clock: the ids of the writes that it covers.
fn context(stored: &Stored) -> Context {
    let ids: Vec<u8> = stored.iter().flat_map(|(id, _)| id.to_bytes()).collect();
    Context::from_bytes(ids.into())
}

impl Transport for Cluster {
    fn call(
        &self,
        to: &Destination,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Result<Response, SendError>> {
        Box::pin(self.clone().serve(to.clone(), request, budget))
    }

    fn now(&self) -> Duration {
        self.world.now()
    }

    fn wall_ms(&self) -> u64 {
        wall_ms(&self.world)
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        let world = self.world.clone();
        Box::pin(async move { world.sleep(pause).await })
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.world.spawn(work);
    }

    fn random(&self) -> u64 {
        self.state().random.u64(..)
    }
}
