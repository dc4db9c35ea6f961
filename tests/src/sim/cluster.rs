//! A cluster of simulated nodes with their disks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kv_node::env::Env;
use kv_node::topologies::Topologies;
use kv_node::{Node, NodeOptions, StartError};
use kv_ring::{ChainEntry, ClusterMode, GenesisSpec, HashSecret, Member, PartitionCount, Topology};
use kv_storage::sim::SimFs;
use kv_types::{ClusterId, Epoch, NodeId};

use super::executor::{Group, Handle};
use super::host::{SimHost, SimJobs};
use super::network::{SimNetwork, SimTransport};

const CLUSTER: ClusterId = ClusterId(0xc1);

/// Nodes 1 to n, each in a zone of its own.
#[derive(Debug)]
pub struct SimCluster {
    handle: Handle,
    /// The network between them.
    pub network: SimNetwork,
    topology: Arc<Topology>,
    machines: BTreeMap<NodeId, Machine>,
    storage: kv_storage::Options,
}

#[derive(Debug)]
struct Machine {
    fs: SimFs,
    running: Option<(Group, Arc<Node>)>,
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
            machines.insert(NodeId(n), Machine { fs, running: None });
        }
        let network = SimNetwork::new(handle.clone());
        Self {
            handle,
            network,
            topology,
            machines,
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
        let fs = &self.machines[&node].fs;
        Topologies::install(fs, &data().join("topology"), entry.epoch(), &entry.encode())
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

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.machines.keys().copied()
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// What the node says.
    pub async fn start(&mut self, node: NodeId) -> Result<(), StartError> {
        let group = self.handle.new_group();
        let machine = self
            .machines
            .get_mut(&node)
            .expect("a node of this cluster");
        let env = Env {
            host: Arc::new(SimHost::new(self.handle.clone(), group)),
            fs: Arc::new(machine.fs.clone()),
            jobs: Arc::new(SimJobs::new(self.handle.clone(), group)),
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
        let started = Node::start(options, env).await?;
        self.network.attach(node, group, &started);
        machine.running = Some((group, started));
        Ok(())
    }

    /// Starts all nodes.
    ///
    /// # Errors
    /// What the first node that does not start says.
    pub async fn start_all(&mut self) -> Result<(), StartError> {
        let nodes: Vec<NodeId> = self.nodes().collect();
        for node in nodes {
            self.start(node).await?;
        }
        Ok(())
    }

    /// A running node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<Arc<Node>> {
        self.machines
            .get(&node)?
            .running
            .as_ref()
            .map(|(_, node)| Arc::clone(node))
    }

    /// Ends a node's process; what it had handed to the operating system survives.
    pub fn kill(&mut self, node: NodeId) {
        self.end(node, SimFs::kill);
    }

    /// Cuts a node's power; what it had not synced may be lost or torn, as the seed draws.
    pub fn cut_power(&mut self, node: NodeId) {
        let seed = self.handle.seed();
        self.end(node, |fs| fs.power_loss(seed));
    }

    fn end(&mut self, node: NodeId, after: impl FnOnce(&SimFs) -> SimFs) {
        let machine = self
            .machines
            .get_mut(&node)
            .expect("a node of this cluster");
        if let Some((group, running)) = machine.running.take() {
            self.network.detach(node);
            self.handle.kill(group);
            machine.fs = after(&machine.fs);
            drop(running);
        }
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
