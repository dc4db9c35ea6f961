//! Somebody who changes the topology while everything goes wrong, and writes down what came of it.

use std::collections::{BTreeMap, BTreeSet};
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

/// What became of the buckets that operators made, changed and dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets {
    /// What each may be by now: not there, or there with a time to live, in seconds.
    may_be: BTreeMap<BucketName, BTreeSet<Option<u32>>>,
    /// Those that somebody may still be dropping: a node that was paused does it late, whatever a bucket is by then.
    dropping: BTreeSet<BucketName>,
    acked: u64,
    not_applied: u64,
    unknown: u64,
    dropped: u64,
    set: u64,
}

/// What all operators write into.
pub(super) type Ledger = Arc<Mutex<Buckets>>;

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
            let members = self.cluster.newest();
            let via = members.members()[self.rng.usize(0..members.members().len())].node;
            let mine = format!("bucket-{}-", self.number);
            let mut buckets = members.buckets().iter();
            let old = buckets.find(|bucket| bucket.name.as_str().starts_with(&mine));
            match (self.rng.u8(0..6), old) {
                (0, Some(old)) => {
                    let change = ChangeKind::DropBucket { id: old.id };
                    ask(&self.network, &self.ledger, via, &old.name, None, change).await;
                }
                (1, Some(old)) => {
                    let ttl_s = 1_000 + count;
                    let change = ChangeKind::SetBucket {
                        id: old.id,
                        was: old.properties,
                        properties: BucketProperties {
                            ttl_s,
                            ..old.properties
                        },
                        repaired: None,
                    };
                    ask(
                        &self.network,
                        &self.ledger,
                        via,
                        &old.name,
                        Some(ttl_s),
                        change,
                    )
                    .await;
                }
                _ => {
                    let name = BucketName::new(format!("{mine}{count}")).expect("a good name");
                    create(&self.network, &self.ledger, via, name).await;
                }
            }
        }
    }
}

/// Creates a bucket at a node, and writes down what came of it.
pub(super) async fn create(network: &SimNetwork, ledger: &Ledger, via: NodeId, name: BucketName) {
    let change = ChangeKind::CreateBucket {
        name: name.clone(),
        properties: BucketProperties::majority_of(3).expect("a possible number"),
    };
    ask(network, ledger, via, &name, Some(0), change).await;
}

/// Asks a node for a change after which a bucket is what is said, and writes down what came of it.
async fn ask(
    network: &SimNetwork,
    ledger: &Ledger,
    via: NodeId,
    name: &BucketName,
    becomes: Option<u32>,
    change: ChangeKind,
) {
    let (is_drop, is_creation) = (becomes.is_none(), becomes == Some(0));
    let request = Request::Change(ChangeV1 { change });
    let role = Role::Admin("operator".to_owned());
    let answer = network.call(role, via, &request, BUDGET).await;
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let ledger = &mut *ledger;
    let may_be = ledger.may_be.entry(name.clone()).or_insert([None].into());
    match answer {
        Ok(Response::Change(_)) => {
            *may_be = [becomes].into();
            if ledger.dropping.contains(name) {
                may_be.insert(None);
            }
            ledger.acked += 1;
            ledger.dropped += u64::from(is_drop);
            ledger.set += u64::from(!is_drop && !is_creation);
        }
        Ok(Response::Error(error)) if error.outcome == Outcome::NotApplied => {
            let is_refused = is_creation && error.code == ErrorCode::BadRequest;
            assert!(!is_refused, "{}", error.message);
            ledger.not_applied += 1;
        }
        Ok(_) | Err(_) => {
            may_be.insert(becomes);
            if is_drop {
                ledger.dropping.insert(name.clone());
            }
            ledger.unknown += 1;
        }
    }
}

impl Buckets {
    /// How many changes were acknowledged, refused, and of unknown fate.
    pub(super) fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("change acknowledged", self.acked),
            ("change not applied", self.not_applied),
            ("change of unknown fate", self.unknown),
            ("bucket dropped", self.dropped),
            ("bucket set", self.set),
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
            for (name, may_be) in &self.may_be {
                let bucket = topology.bucket_by_name(name);
                let is = bucket.map(|bucket| bucket.properties.ttl_s);
                if !may_be.contains(&is) {
                    let what =
                        format!("{name} is {is:?}, and may be {may_be:?} by what was answered");
                    found.push(Violation::new("lost-change", what));
                }
            }
        }
        found
    }
}
