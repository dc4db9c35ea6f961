//! Somebody who changes the topology while everything goes wrong, and writes down what came of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use kv_net::message::{ChangeKind, ChangeV1, Request, Response};
use kv_net::{ErrorCode, Role};
use kv_types::{BucketName, BucketProperties, NodeId, Outcome};

use super::scenario::Scenario;
use crate::check::Violation;
use crate::sim::network::SimNetwork;
use crate::sim::{Handle, SimCluster};

/// The time of one change.
const BUDGET: Duration = Duration::from_secs(4);
/// After healing, all nodes must live by the newest topology within this time.
const SPREAD_LIMIT: Duration = Duration::from_secs(15);

/// What became of the creations of buckets.
#[derive(Debug, Clone, Default)]
pub(super) struct Created {
    acked: BTreeSet<BucketName>,
    not_applied: BTreeSet<BucketName>,
    unknown: u64,
}

/// What all operators write into.
pub(super) type Ledger = Arc<Mutex<Created>>;

/// One operator at work. No two of a day have the same number.
pub(super) struct Operator {
    number: u64,
    network: SimNetwork,
    handle: Handle,
    rng: Rng,
    cluster: SimCluster,
    ledger: Ledger,
}

impl Operator {
    pub(super) fn new(
        scenario: &Scenario,
        number: u64,
        handle: &Handle,
        cluster: &SimCluster,
        ledger: &Ledger,
    ) -> Self {
        Self {
            number,
            network: cluster.network.clone(),
            handle: handle.clone(),
            rng: Rng::with_seed(scenario.seed ^ 0x6f70_0000 ^ number),
            cluster: cluster.clone(),
            ledger: Arc::clone(ledger),
        }
    }

    /// Creates buckets at nodes of its choice until `until`.
    pub(super) async fn work(mut self, until: Duration) {
        for count in 0_u32.. {
            let rest = Duration::from_millis(self.rng.u64(500..6_000));
            self.handle.sleep(rest).await;
            if self.handle.now() >= until {
                return;
            }
            let name = format!("bucket-{}-{count}", self.number);
            let name = BucketName::new(name).expect("a good name");
            let members = self.cluster.newest();
            let via = members.members()[self.rng.usize(0..members.members().len())].node;
            create(&self.network, &self.ledger, via, name).await;
        }
    }
}

/// Creates a bucket at a node, and writes down what came of it.
pub(super) async fn create(network: &SimNetwork, ledger: &Ledger, via: NodeId, name: BucketName) {
    let change = ChangeKind::CreateBucket {
        name: name.clone(),
        properties: BucketProperties::majority_of(3).expect("a possible number"),
    };
    let request = Request::Change(ChangeV1 { change });
    let role = Role::Admin("operator".to_owned());
    let answer = network.call(role, via, &request, BUDGET).await;
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    match answer {
        Ok(Response::Change(_)) => _ = ledger.acked.insert(name),
        Ok(Response::Error(error)) if error.outcome == Outcome::NotApplied => {
            assert_ne!(error.code, ErrorCode::BadRequest, "{}", error.message);
            ledger.not_applied.insert(name);
        }
        Ok(_) | Err(_) => ledger.unknown += 1,
    }
}

impl Created {
    /// How many were acknowledged, refused, and of unknown fate.
    pub(super) fn counts(&self) -> [(&'static str, u64); 3] {
        [
            ("change acknowledged", self.acked.len() as u64),
            ("change not applied", self.not_applied.len() as u64),
            ("change of unknown fate", self.unknown),
        ]
    }

    /// What is wrong with the topologies that the nodes live by after healing.
    pub(super) async fn judge(
        &self,
        handle: &Handle,
        cluster: &SimCluster,
        nodes: &[NodeId],
    ) -> Vec<Violation> {
        let tips = || -> BTreeSet<_> {
            let running = nodes.iter().filter_map(|node| cluster.node(*node));
            running.map(|node| node.topology_tip()).collect()
        };
        let limit = handle.now() + SPREAD_LIMIT;
        while tips().len() > 1 && handle.now() < limit {
            handle.sleep(Duration::from_millis(100)).await;
        }
        let mut found = Vec::new();
        let tips = tips();
        if tips.len() > 1 {
            let what = format!("{SPREAD_LIMIT:?} after healing nodes live by {tips:?}");
            found.push(Violation::new("topologies", what));
        }
        for node in nodes.iter().filter_map(|node| cluster.node(*node)) {
            let topology = node.topology();
            let names: BTreeSet<_> = topology
                .buckets()
                .iter()
                .map(|bucket| &bucket.name)
                .collect();
            for name in self.acked.iter().filter(|name| !names.contains(name)) {
                let what = format!("the creation of {name} was acknowledged, and is gone");
                found.push(Violation::new("lost-change", what));
            }
            for name in self.not_applied.iter().filter(|name| names.contains(name)) {
                let what = format!("the creation of {name} was \"not applied\", and is there");
                found.push(Violation::new("not-applied", what));
            }
        }
        found
    }
}
