//! A cluster of simulated nodes with their disks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kv_net::message::NewMemberV1;
use kv_net::{Credentials, Endpoint, EndpointConfig};
use kv_node::adapters::{NodeHandler, QuicTransport};
use kv_node::env::Env;
use kv_node::healing::ScrubOptions;
use kv_node::hints::HintOptions;
use kv_node::node::JOINS_FILE;
use kv_node::replica::PageLimits;
use kv_node::tombstones::DeleteOptions;
use kv_node::topologies::{Topologies, USUAL_HISTORY};
use kv_node::transport::Transport;
use kv_node::{Node, NodeOptions, StartError};
use kv_ring::{
    ChainEntry, ClusterMode, GenesisSpec, HashSecret, Member, MemberState, PartitionCount, Topology,
};
use kv_storage::fs::replace_file;
use kv_storage::sim::SimFs;
use kv_types::{BucketProperties, ClusterId, Epoch, NodeId};
use tokio::sync::oneshot;

use super::client::Client;
use super::executor::{Group, Handle, OUTSIDE};
use super::host::{Conditions, SimHost, SimJobs};
use super::image::Image;
use super::network::{SimNetwork, SimTransport, address_of, address_of_client};
use super::papers::{Papers, WallTime};
use super::udp::SimRuntime;

/// Everything is read again all the time.
const SCRUB: ScrubOptions = ScrubOptions {
    bytes_per_s: 1 << 20,
    pause: Duration::from_secs(10),
};
const CLUSTER: ClusterId = ClusterId(0xc1);
/// Little, so that it is felt where much is moved.
const FETCH_BYTES_PER_S: u64 = 8 << 20;
/// Little, and not for long: so that days see the limits.
const HINTS: HintOptions = HintOptions {
    max_bytes: 128 << 10,
    owner_patience: Duration::from_secs(40),
};

/// Nodes 1 to n, each in a zone of its own. Cheap to clone; all clones are the same cluster.
#[derive(Debug, Clone)]
pub struct SimCluster {
    handle: Handle,
    /// The network between them.
    pub network: SimNetwork,
    topology: Arc<Topology>,
    /// The newest that was seen.
    newest: Arc<Mutex<Arc<Topology>>>,
    machines: Arc<Mutex<BTreeMap<NodeId, Machine>>>,
    /// Where nodes and clients speak real QUIC.
    quic: Option<Quic>,
    storage: kv_storage::Options,
    hints: HintOptions,
    deletes: DeleteOptions,
    fetch_bytes_per_s: u64,
    gossip: kv_gossip::Config,
    pages: PageLimits,
    history: usize,
}

#[derive(Debug)]
struct Machine {
    fs: SimFs,
    /// Since when it has this disk.
    disk_since: Option<Duration>,
    conditions: Arc<Conditions>,
    /// Its process, from the moment in which that begins to start.
    process: Option<Group>,
    /// The node, once it has started.
    running: Option<Arc<Node>>,
    /// What it shows and believes, over QUIC.
    credentials: Option<Credentials>,
    /// The present process's end of QUIC.
    endpoint: Option<Endpoint>,
    /// It is not to run any more.
    is_retired: bool,
}

impl Machine {
    /// One with an empty disk.
    fn new() -> Self {
        Self {
            fs: SimFs::new(),
            disk_since: None,
            conditions: Arc::default(),
            process: None,
            running: None,
            credentials: None,
            endpoint: None,
            is_retired: false,
        }
    }
}

/// What a cluster has more of that speaks real QUIC.
#[derive(Debug, Clone)]
struct Quic {
    papers: Arc<Mutex<Papers>>,
    /// Clients share a few endpoints, as the tasks of a program do.
    clients: Arc<Vec<Endpoint>>,
}

/// How many endpoints all clients share.
const CLIENT_ENDPOINTS: u16 = 2;

impl SimCluster {
    /// Machines with genesis on their disks; nothing runs yet.
    ///
    /// # Panics
    /// When the counts are not possible.
    #[must_use]
    pub fn new(handle: Handle, nodes: u128, replicas: u8, storage: kv_storage::Options) -> Self {
        Self::in_mode(ClusterMode::Ap, handle, nodes, replicas, storage)
    }

    /// The same in a mode of the caller's choice.
    ///
    /// # Panics
    /// When the counts are not possible.
    #[must_use]
    pub fn in_mode(
        mode: ClusterMode,
        handle: Handle,
        nodes: u128,
        replicas: u8,
        storage: kv_storage::Options,
    ) -> Self {
        let majorities = BucketProperties::majority_of(replicas).expect("a possible number");
        Self::with_bucket(mode, handle, nodes, majorities, storage)
    }

    /// The same with these properties of the bucket `default`.
    ///
    /// # Panics
    /// When the counts are not possible.
    #[must_use]
    pub fn with_bucket(
        mode: ClusterMode,
        handle: Handle,
        nodes: u128,
        bucket: BucketProperties,
        storage: kv_storage::Options,
    ) -> Self {
        let member = |n: u128| Member {
            node: NodeId(n),
            name: format!("n{n}"),
            zone: format!("z{n}"),
            weight: 1,
            address: address_of(NodeId(n)).to_string(),
            fingerprint: [0; 32],
            state: MemberState::Active,
        };
        let topology = Topology::genesis(GenesisSpec {
            cluster_id: CLUSTER,
            cluster_name: "sim".to_owned(),
            secret: HashSecret([3; 16]),
            partitions: PartitionCount::MIN,
            replication_factor: bucket.quorum.n(),
            mode,
            members: (1..=nodes).map(member).collect(),
            default_bucket: Some(bucket),
            buckets: Vec::new(),
        });
        let topology = Arc::new(topology.expect("a possible cluster"));
        let entry = ChainEntry::genesis(Arc::clone(&topology))
            .expect("it encodes")
            .encode();
        let mut machines = BTreeMap::new();
        for n in 1..=nodes {
            let machine = Machine::new();
            Topologies::install(
                &machine.fs,
                &data().join("topology"),
                Epoch::GENESIS,
                &entry,
            )
            .expect("an empty disk");
            machines.insert(NodeId(n), machine);
        }
        let network = SimNetwork::new(handle.clone());
        Self {
            handle,
            network,
            newest: Arc::new(Mutex::new(Arc::clone(&topology))),
            topology,
            machines: Arc::new(Mutex::new(machines)),
            quic: None,
            storage,
            hints: HINTS,
            fetch_bytes_per_s: FETCH_BYTES_PER_S,
            gossip: kv_gossip::Config::local(),
            deletes: DeleteOptions::default(),
            pages: PageLimits::default(),
            history: USUAL_HISTORY,
        }
    }

    /// The same, with other limits to what is gone through for one answer.
    #[must_use]
    pub fn with_pages(mut self, pages: PageLimits) -> Self {
        self.pages = pages;
        self
    }

    /// The same, with nodes that keep so many topologies.
    #[must_use]
    pub fn with_history(mut self, history: usize) -> Self {
        self.history = history;
        self
    }

    /// The same, with other limits to what nodes keep for others.
    #[must_use]
    pub fn with_hints(mut self, hints: HintOptions) -> Self {
        self.hints = hints;
        self
    }

    /// The same, with nodes that fetch what they lack at another pace.
    #[must_use]
    pub fn with_fetch_bytes_per_s(mut self, bytes: u64) -> Self {
        self.fetch_bytes_per_s = bytes;
        self
    }

    /// The same, with nodes that ask others for one that does not answer after this time.
    #[must_use]
    pub fn with_ping_timeout(mut self, timeout: Duration) -> Self {
        self.gossip.ping_timeout = timeout;
        self
    }

    /// The same, in which deletions are forgotten after another time.
    #[must_use]
    pub fn with_deletes(mut self, deletes: DeleteOptions) -> Self {
        self.deletes = deletes;
        self
    }

    /// The same, but all parties speak real QUIC with real certificates, over simulated datagrams.
    ///
    /// Their keys come from the operating system: seed the thread first.
    ///
    /// # Panics
    /// When the counts are not possible.
    #[must_use]
    pub fn over_quic(
        handle: Handle,
        nodes: u128,
        replicas: u8,
        storage: kv_storage::Options,
    ) -> Self {
        Self::new(handle, nodes, replicas, storage).speaking_quic()
    }

    /// The same, but all parties speak real QUIC, as [`Self::over_quic`] has them.
    ///
    /// # Panics
    /// When a key cannot be made.
    #[must_use]
    pub fn speaking_quic(self) -> Self {
        let mut cluster = self;
        let mut papers = Papers::new(cluster.handle.clone(), CLUSTER);
        for (node, machine) in cluster.machines().iter_mut() {
            machine.credentials = Some(papers.node(*node));
        }
        let credentials = papers.client();
        let endpoints = (0..CLIENT_ENDPOINTS).map(|number| {
            let config = EndpointConfig::client();
            let conditions = Arc::default();
            let address = address_of_client(number);
            cluster.endpoint(OUTSIDE, address, credentials.clone(), config, conditions)
        });
        let clients = Arc::new(endpoints.collect());
        cluster.quic = Some(Quic {
            papers: Arc::new(Mutex::new(papers)),
            clients,
        });
        cluster
    }

    fn endpoint(
        &self,
        group: Group,
        address: SocketAddr,
        credentials: Credentials,
        config: EndpointConfig,
        conditions: Arc<Conditions>,
    ) -> Endpoint {
        let socket = self.network.open_socket(address);
        let runtime = Arc::new(SimRuntime::new(self.handle.clone(), group));
        let time = Arc::new(WallTime {
            handle: self.handle.clone(),
            conditions,
        });
        let config = EndpointConfig { time, ..config };
        Endpoint::on(socket, runtime, credentials, config).expect("a socket with an address")
    }

    /// A client, which speaks as the nodes do; no two with the same number.
    #[must_use]
    pub fn client(&self, number: u64) -> Client {
        let client = Client::numbered(self.handle.clone(), number);
        match &self.quic {
            None => client,
            Some(quic) => {
                let endpoint = &quic.clients[number as usize % quic.clients.len()];
                client.over(QuicTransport::new(endpoint.clone()))
            }
        }
    }

    /// Somebody at an address of their own, with papers of their own.
    #[must_use]
    pub fn stranger(&self, address: SocketAddr, credentials: Credentials) -> Endpoint {
        let config = EndpointConfig::client();
        self.endpoint(OUTSIDE, address, credentials, config, Arc::default())
    }

    /// Gives a node other papers, which it shows from now on, and when it is started again.
    ///
    /// # Panics
    /// When they are of another node.
    pub fn set_credentials(&self, node: NodeId, credentials: &Credentials) {
        let endpoint = self.machine(node, |machine| {
            machine.credentials = Some(credentials.clone());
            machine.endpoint.clone()
        });
        if let Some(endpoint) = endpoint {
            endpoint
                .replace_credentials(credentials.clone())
                .expect("papers of the same node");
        }
    }

    /// Does something with the papers of a cluster that speaks QUIC.
    pub fn papers<T>(&self, with: impl FnOnce(&mut Papers) -> T) -> Option<T> {
        let quic = self.quic.as_ref()?;
        let mut papers = quic.papers.lock().unwrap_or_else(PoisonError::into_inner);
        Some(with(&mut papers))
    }

    /// Gives new papers to every node and client.
    ///
    /// # Panics
    /// Never: the papers are of whom they are given to.
    pub fn renew_all(&self) {
        for node in self.nodes() {
            if let Some(credentials) = self.papers(|papers| papers.node(node)) {
                self.set_credentials(node, &credentials);
            }
        }
        let Some(quic) = &self.quic else { return };
        if let Some(credentials) = self.papers(Papers::client) {
            for endpoint in quic.clients.iter() {
                endpoint
                    .replace_credentials(credentials.clone())
                    .expect("papers of the same client");
            }
        }
    }

    /// The ends of QUIC that are open now.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let machines = self.machines();
        let nodes = machines
            .values()
            .filter_map(|machine| machine.endpoint.clone());
        let clients = self
            .quic
            .iter()
            .flat_map(|quic| quic.clients.iter().cloned());
        nodes.chain(clients).collect()
    }

    /// A node's end of QUIC, if it runs and has one.
    #[must_use]
    pub fn endpoint_of(&self, node: NodeId) -> Option<Endpoint> {
        self.machine(node, |machine| machine.endpoint.clone())
    }

    /// The topology of genesis.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// The newest topology that any node has lived by, as far as it was seen.
    #[must_use]
    pub fn newest(&self) -> Arc<Topology> {
        let running: Vec<Arc<Node>> = {
            let machines = self.machines();
            let running = machines.values().map(|machine| machine.running.clone());
            running.flatten().collect()
        };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for node in running {
            let topology = node.topology();
            if topology.epoch() > newest.epoch() {
                *newest = topology;
            }
        }
        Arc::clone(&newest)
    }

    /// Puts a chain entry onto the disk of a node that does not run.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn install(&self, node: NodeId, entry: &ChainEntry) {
        Topologies::install(
            &self.fs(node),
            &data().join("topology"),
            entry.epoch(),
            &entry.encode(),
        )
        .expect("a healthy disk");
    }

    /// What a node that is to join tells of itself.
    #[must_use]
    pub fn newcomer(&self, node: NodeId) -> NewMemberV1 {
        NewMemberV1 {
            node,
            name: format!("n{}", node.0),
            zone: format!("z{}", node.0),
            weight: 1,
            address: address_of(node).to_string(),
            fingerprint: [0; 32],
        }
    }

    /// Adds a machine with an empty disk, but for the history of the topology as a running node knows it.
    ///
    /// # Panics
    /// When that node does not run.
    pub fn add_machine(&self, node: NodeId, like: NodeId) {
        let mut machine = Machine::new();
        machine.credentials = self.papers(|papers| papers.node(node));
        let known = self.node(like).expect("it runs").topology_entries();
        for (epoch, entry) in known {
            Topologies::install(&machine.fs, &data().join("topology"), epoch, &entry)
                .expect("an empty disk");
        }
        let note = b"this node was never started\n";
        replace_file(&machine.fs, &data(), JOINS_FILE, note).expect("an empty disk");
        self.machines().insert(node, machine);
    }

    /// The chain entry of genesis.
    ///
    /// # Panics
    /// Never: the topology was encoded before.
    #[must_use]
    pub fn genesis(&self) -> ChainEntry {
        ChainEntry::genesis(Arc::clone(&self.topology)).expect("it encodes")
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<NodeId, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine<T>(&self, node: NodeId, with: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machines = self.machines();
        with(machines.get_mut(&node).expect("a node of this cluster"))
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        let nodes: Vec<NodeId> = self.machines().keys().copied().collect();
        nodes.into_iter()
    }

    /// The disk of a node, as its present process sees it.
    #[must_use]
    pub fn fs(&self, node: NodeId) -> SimFs {
        self.machine(node, |machine| machine.fs.clone())
    }

    /// What a node's store has that certainly survives if its power is cut now; nothing when that is no store.
    #[must_use]
    pub fn image(&self, node: NodeId) -> Option<Image> {
        let fs = self.machines().get(&node)?.fs.clone();
        Image::of(&fs.certain(), &self.storage)
    }

    /// Puts another disk into the machine of a node that does not run.
    ///
    /// # Panics
    /// When it runs.
    pub fn put_in_disk(&self, node: NodeId, disk: SimFs) {
        let now = self.handle.now();
        self.machine(node, |machine| {
            assert!(machine.process.is_none(), "{node} runs");
            machine.fs = disk;
            machine.disk_since = Some(now);
        });
    }

    /// When the disk of a node was put into its machine, if that was after the beginning.
    #[must_use]
    pub fn disk_since(&self, node: NodeId) -> Option<Duration> {
        self.machines().get(&node)?.disk_since
    }

    /// What is wrong with a node's machine.
    #[must_use]
    pub fn conditions(&self, node: NodeId) -> Arc<Conditions> {
        self.machine(node, |machine| Arc::clone(&machine.conditions))
    }

    /// Begins to start a node. The outcome comes when it has started; nothing comes if it is killed before. Nothing
    /// happens if it runs or is about to.
    pub fn launch(&self, node: NodeId) -> oneshot::Receiver<Result<(), StartError>> {
        let (done, outcome) = oneshot::channel();
        let group = self.handle.new_group();
        let parts = self.machine(node, |machine| {
            if machine.process.is_some() || machine.is_retired {
                return None;
            }
            machine.process = Some(group);
            let credentials = machine.credentials.clone();
            Some((
                machine.fs.clone(),
                Arc::clone(&machine.conditions),
                credentials,
            ))
        });
        let Some((fs, conditions, credentials)) = parts else {
            return outcome;
        };
        let endpoint = credentials.map(|credentials| {
            let (config, conditions) = (EndpointConfig::node(), Arc::clone(&conditions));
            self.endpoint(group, address_of(node), credentials, config, conditions)
        });
        let transport: Arc<dyn Transport> = match &endpoint {
            Some(endpoint) => Arc::new(QuicTransport::new(endpoint.clone())),
            None => Arc::new(SimTransport {
                me: node,
                network: self.network.clone(),
            }),
        };
        self.machine(node, |machine| machine.endpoint.clone_from(&endpoint));
        let host = SimHost::new(self.handle.clone(), group, Arc::clone(&conditions));
        let env = Env {
            host: Arc::new(host),
            fs: Arc::new(fs),
            jobs: Arc::new(SimJobs::new(self.handle.clone(), group, conditions)),
            transport,
        };
        let options = NodeOptions {
            node,
            cluster: CLUSTER,
            data: data(),
            storage: self.storage.clone(),
            gossip: self.gossip.clone(),
            hints: self.hints,
            deletes: self.deletes,
            scrub: SCRUB,
            fetch_bytes_per_s: self.fetch_bytes_per_s,
            pages: self.pages,
            history: self.history,
        };
        let this = self.clone();
        self.handle.spawn(group, async move {
            let started = Node::start(options, env).await;
            let outcome = started.map(|started| {
                if let Some(listener) = this.network.listener() {
                    listener.started(node, started.began());
                }
                this.network.attach(node, group, &started);
                this.handle
                    .spawn(group, this.clone().supervise(node, Arc::clone(&started)));
                if let Some(endpoint) = endpoint {
                    endpoint.serve(Arc::new(NodeHandler(Arc::clone(&started))));
                }
                this.machine(node, |machine| machine.running = Some(started));
            });
            let failed = outcome.is_err();
            drop(done.send(outcome));
            if failed {
                // The process ends, with this task and whatever it has started.
                this.kill(node);
            }
        });
        outcome
    }

    /// Starts a node again that has to be, as a supervisor does.
    async fn supervise(self, node: NodeId, started: Arc<Node>) {
        started.loss().await;
        self.kill(node);
        drop(self.launch(node));
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// What the node says.
    ///
    /// # Panics
    /// When it is killed meanwhile, or runs already.
    pub async fn start(&self, node: NodeId) -> Result<(), StartError> {
        self.launch(node)
            .await
            .expect("it was down, and nobody kills it")
    }

    /// Starts all nodes.
    ///
    /// # Errors
    /// What the first node that does not start says.
    pub async fn start_all(&self) -> Result<(), StartError> {
        for node in self.nodes() {
            self.start(node).await?;
        }
        Ok(())
    }

    /// A running node; one that joins may have no machine yet.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<Arc<Node>> {
        self.machines().get(&node)?.running.clone()
    }

    /// Whether a node runs or is about to.
    #[must_use]
    pub fn has_process(&self, node: NodeId) -> bool {
        self.machine(node, |machine| machine.process.is_some())
    }

    /// Ends a node's process; what it had handed to the operating system survives.
    pub fn kill(&self, node: NodeId) {
        self.end(node, SimFs::kill);
    }

    /// Ends a node's process for good: it is not started again.
    pub fn retire(&self, node: NodeId) {
        self.machine(node, |machine| machine.is_retired = true);
        self.kill(node);
    }

    /// A retired node may be started again.
    pub fn recall(&self, node: NodeId) {
        self.machine(node, |machine| machine.is_retired = false);
    }

    /// Whether a node is retired.
    #[must_use]
    pub fn is_retired(&self, node: NodeId) -> bool {
        self.machine(node, |machine| machine.is_retired)
    }

    /// Cuts a node's power; what it had not synced may be lost or torn, as the seed draws.
    pub fn cut_power(&self, node: NodeId) {
        let seed = self.handle.seed();
        self.end(node, |fs| fs.power_loss(seed));
    }

    /// Stops a node's process, as a stop signal does.
    pub fn pause(&self, node: NodeId) {
        if let Some(group) = self.machine(node, |machine| machine.process) {
            self.handle.pause(group);
        }
    }

    /// Lets a paused process go on.
    pub fn resume(&self, node: NodeId) {
        if let Some(group) = self.machine(node, |machine| machine.process) {
            self.handle.resume(group);
        }
    }

    fn end(&self, node: NodeId, after: impl FnOnce(&SimFs) -> SimFs) {
        let Some(group) = self.machine(node, |machine| machine.process.take()) else {
            return;
        };
        self.network.detach(node);
        self.network.close_socket(address_of(node));
        self.handle.kill(group);
        let running = self.machine(node, |machine| {
            machine.fs = after(&machine.fs);
            (machine.running.take(), machine.endpoint.take())
        });
        // The last references may go here, and what they hold may ask for the machine.
        drop(running);
    }
}

impl AsRef<SimNetwork> for SimCluster {
    fn as_ref(&self) -> &SimNetwork {
        &self.network
    }
}

/// The data directory of every node, on its own disk.
#[must_use]
pub fn data() -> PathBuf {
    Path::new("/data").to_owned()
}
