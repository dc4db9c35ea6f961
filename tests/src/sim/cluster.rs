//! A cluster of simulated nodes with their disks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kv_node::env::Env;
use kv_node::topologies::Topologies;
use kv_node::{Node, NodeOptions, StartError};
use kv_ring::{ChainEntry, ClusterMode, GenesisSpec, HashSecret, Member, PartitionCount, Topology};
use kv_storage::sim::SimFs;
use kv_types::{ClusterId, Epoch, NodeId};
use tokio::sync::oneshot;

use super::executor::{Group, Handle};
use super::host::{Conditions, SimHost, SimJobs};
use super::network::{SimNetwork, SimTransport};

const CLUSTER: ClusterId = ClusterId(0xc1);

/// Nodes 1 to n, each in a zone of its own. Cheap to clone; all clones are the same cluster.
#[derive(Debug, Clone)]
pub struct SimCluster {
    handle: Handle,
    /// The network between them.
    pub network: SimNetwork,
    topology: Arc<Topology>,
    machines: Arc<Mutex<BTreeMap<NodeId, Machine>>>,
    storage: kv_storage::Options,
}

#[derive(Debug)]
struct Machine {
    fs: SimFs,
    conditions: Arc<Conditions>,
    /// Its process, from the moment in which that begins to start.
    process: Option<Group>,
    /// The node, once it has started.
    running: Option<Arc<Node>>,
}

impl SimCluster {
    /// Machines with genesis on their disks; nothing runs yet.
    ///
    /// # Panics
    /// When the counts are not possible.
    #[must_use]
    pub fn new(handle: Handle, nodes: u128, replicas: u8, storage: kv_storage::Options) -> Self {
        let member = |n: u128| Member {
            node: NodeId(n),
            name: format!("n{n}"),
            zone: format!("z{n}"),
            weight: 1,
            address: format!("10.0.0.{n}:7400"),
            fingerprint: [0; 32],
        };
        let topology = Topology::genesis(GenesisSpec {
            cluster_id: CLUSTER,
            cluster_name: "sim".to_owned(),
            secret: HashSecret([3; 16]),
            partitions: PartitionCount::MIN,
            replication_factor: replicas,
            mode: ClusterMode::Ap,
            members: (1..=nodes).map(member).collect(),
            default_bucket: None,
            buckets: Vec::new(),
        });
        let topology = Arc::new(topology.expect("a possible cluster"));
        let entry = ChainEntry::genesis(Arc::clone(&topology))
            .expect("it encodes")
            .encode();
        let mut machines = BTreeMap::new();
        for n in 1..=nodes {
            let fs = SimFs::new();
            Topologies::install(&fs, &data().join("topology"), Epoch::GENESIS, &entry)
                .expect("an empty disk");
            let machine = Machine {
                fs,
                conditions: Arc::default(),
                process: None,
                running: None,
            };
            machines.insert(NodeId(n), machine);
        }
        let network = SimNetwork::new(handle.clone());
        Self {
            handle,
            network,
            topology,
            machines: Arc::new(Mutex::new(machines)),
            storage,
        }
    }

    /// The topology of genesis.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
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
            if machine.process.is_some() {
                return None;
            }
            machine.process = Some(group);
            Some((machine.fs.clone(), Arc::clone(&machine.conditions)))
        });
        let Some((fs, conditions)) = parts else {
            return outcome;
        };
        let host = SimHost::new(self.handle.clone(), group, Arc::clone(&conditions));
        let env = Env {
            host: Arc::new(host),
            fs: Arc::new(fs),
            jobs: Arc::new(SimJobs::new(self.handle.clone(), group, conditions)),
            transport: Arc::new(SimTransport {
                me: node,
                network: self.network.clone(),
            }),
        };
        let options = NodeOptions {
            node,
            cluster: CLUSTER,
            data: data(),
            storage: self.storage.clone(),
            gossip: kv_gossip::Config::local(),
        };
        let this = self.clone();
        self.handle.spawn(group, async move {
            let started = Node::start(options, env).await;
            let outcome = started.map(|started| {
                this.network.attach(node, group, &started);
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

    /// A running node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<Arc<Node>> {
        self.machine(node, |machine| machine.running.clone())
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
        self.handle.kill(group);
        let running = self.machine(node, |machine| {
            machine.fs = after(&machine.fs);
            machine.running.take()
        });
        // Its last reference may go here, and what it holds may ask for the machine.
        drop(running);
    }
}

impl AsRef<SimNetwork> for SimCluster {
    fn as_ref(&self) -> &SimNetwork {
        &self.network
    }
}

fn data() -> PathBuf {
    Path::new("/data").to_owned()
}
