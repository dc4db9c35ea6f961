//! After the bad day: everything is mended, must serve again, and must become equal.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use kv_net::Role;
use kv_net::message::{
    ChangeKind, MemberChangesV1, ReadOptions, ReplicaReadV1, Request, Response, WriteKind,
};
use kv_node::storage_key;
use kv_ring::{Member, MemberState, Topology};
use kv_storage::fs::Fs;
use kv_storage::sim::SimFs;
use kv_types::{BucketMode, Level, NodeId, Object, Payload, Sibling};

use super::members::{give_machines, make, plan};
use super::nemesis::{Nemesis, used};
use super::work::{Notebook, name};
use crate::check::Violation;
use crate::history::{Held, KeyNumber, Seen};
use crate::sim::client::{BUCKET, BUDGET, Client, key};
use crate::sim::cluster::data;
use crate::sim::{Handle, SimCluster};

/// A node must start within this time once its machine is whole.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A request must succeed within this time once all is healed.
const SERVE_LIMIT: Duration = Duration::from_secs(15);
/// Nothing is kept for others any more within this time: an owner that does not come back is waited for, too.
const HINT_LIMIT: Duration = Duration::from_secs(90);
/// How long replicas are watched while nobody writes.
const REST: Duration = Duration::from_secs(12);
/// Comparisons have found everything within this time.
const COMPARING_LIMIT: Duration = Duration::from_secs(60);
/// What a former owner had, and what came of a change that was called off, is deleted within this time.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(30);
/// All partitions have the owners that they are to have within this time.
const SETTLING_LIMIT: Duration = Duration::from_secs(240);
/// A small cluster that has done little must not use more of a disk, in bytes; nor if it holds large values.
const DISK_LIMIT: u64 = 8 << 20;
const LARGE_DISK_LIMIT: u64 = 64 << 20;

/// Mends a cluster and looks at what is left.
pub(super) struct Healing<'a> {
    pub handle: &'a Handle,
    pub cluster: &'a SimCluster,
    pub nemesis: &'a Nemesis,
    /// Nodes whose durable bytes were destroyed: their stores are emptied, as an operator would, so that they fetch all
    /// from the others. Those that do not start even so are taken away.
    pub damaged: BTreeSet<NodeId>,
    /// What shows of what a replica holds.
    pub mode: BucketMode,
    pub keys: Range<KeyNumber>,
    pub has_large_values: bool,
    /// Nodes that are well are not started anew.
    pub leaves_well: bool,
    /// Nobody reads: comparisons must make all replicas equal.
    pub by_itself: bool,
    /// Nothing may be on its way any more after that.
    pub may_rest: bool,
    /// A disk was put back, and with it perhaps what had been forgotten.
    pub restores: bool,
    pub found: Vec<Violation>,
}

impl Healing<'_> {
    /// Does all of it.
    pub(super) async fn heal(&mut self, notebook: &Notebook) {
        self.mend().await;
        self.handle.sleep(Duration::from_secs(5)).await;
        let mut client = self.cluster.client(30_000);
        if self.damaged.is_empty() && !self.lacks_lost() {
            self.serve(&mut client).await;
            self.settle_members().await;
        } else {
            // Until that one is given up, or replaced, what another one lacks may be missing a quorum.
            self.settle_members().await;
            self.serve(&mut client).await;
        }
        self.ownership();
        client.epoch = self.cluster.newest().epoch();
        self.hand_over().await;
        if self.by_itself {
            self.wait_for_convergence(&mut client).await;
        } else {
            self.converge(&mut client).await;
        }
        self.handle.sleep(Duration::from_secs(2)).await;
        let held = self.collect(&mut client).await;
        notebook
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .held = held;
        self.leftovers().await;
        if self.may_rest {
            self.rest().await;
        }
        self.bounds();
    }

    /// Whether so many members are lost that what they own cannot be served before others have taken it over.
    fn lacks_lost(&self) -> bool {
        let topology = self.cluster.newest();
        let members = topology.members().iter();
        let lost = members.filter(|member| member.state == MemberState::Lost);
        let lost = u8::try_from(lost.count()).unwrap_or(u8::MAX);
        let bucket = topology.bucket(BUCKET).expect("the clients' bucket");
        let quorum = bucket.properties.quorum;
        let left = quorum.n().saturating_sub(lost);
        let strict = quorum.r().max(quorum.n() - quorum.r() + 1);
        lost > 0 && left < quorum.w().max(strict)
    }

    fn wrong(&mut self, rule: &'static str, what: String) {
        self.found.push(Violation::new(rule, what));
    }

    /// The nodes that must serve.
    pub(super) fn whole(&self) -> Vec<NodeId> {
        let topology = self.cluster.newest();
        let serves = |node: &NodeId| {
            topology.member(*node).is_some()
                && !self.damaged.contains(node)
                && !self.cluster.is_retired(*node)
        };
        self.cluster.nodes().filter(serves).collect()
    }

    /// All partitions arrive where they are going, all members that leave are gone, and all that are lost are given up.
    async fn settle_members(&mut self) {
        let limit = self.handle.now() + SETTLING_LIMIT;
        let on_their_way = self.cluster.newest().unsettled().count();
        let what = "partition on its way when all is mended";
        self.nemesis.count(what, on_their_way as u64);
        loop {
            give_machines(self.cluster, self.nemesis);
            for node in self.whole() {
                self.nemesis.start(node);
            }
            let topology = self.cluster.newest();
            let in_state = |state| {
                let members = topology.members().iter();
                let members = members.filter(move |member| member.state == state);
                members.map(|member| member.node).collect::<Vec<_>>()
            };
            let lost = in_state(MemberState::Lost);
            let is_settled = topology.unsettled().next().is_none();
            if is_settled && lost.is_empty() && in_state(MemberState::Leaving).is_empty() {
                let of_others = topology.partition_count().iter().filter(|partition| {
                    let owners = |topology: &Topology| -> Vec<NodeId> {
                        let replicas = topology.replication_factor();
                        topology.replicas(*partition, replicas).nodes().collect()
                    };
                    owners(&topology) != owners(self.cluster.topology())
                });
                let what = "partition with other owners";
                self.nemesis.count(what, of_others.count() as u64);
                return;
            }
            if self.handle.now() > limit {
                // Nobody brings what only a damaged one has.
                if self.damaged.is_empty() {
                    let what = tell(self.cluster, &topology);
                    self.wrong("does-not-settle", what);
                }
                return;
            }
            let via = self
                .whole()
                .into_iter()
                .find(|node| self.cluster.node(*node).is_some());
            if let Some(via) = via {
                // What only a damaged one has nobody brings: it is given up, if there are enough others.
                let is_waited_for = |node: &&NodeId| topology.is_counted_on(**node);
                let damaged = self.damaged.iter().filter(is_waited_for).copied();
                let wanted = MemberChangesV1 {
                    lost: damaged.collect(),
                    ..MemberChangesV1::default()
                };
                if !wanted.lost.is_empty()
                    && let Some(change) = plan(&topology, wanted)
                {
                    make(self.cluster, via, change).await;
                }
                for node in lost {
                    make(self.cluster, via, ChangeKind::RemoveMember { node }).await;
                }
            }
            self.handle.sleep(Duration::from_secs(1)).await;
        }
    }

    /// Ends all faults, and starts nodes anew: every one, as an operator would who does not know which are well, or those
    /// that are not.
    async fn mend(&mut self) {
        self.cluster.network.calm();
        self.cluster.renew_all();
        for node in self.cluster.nodes() {
            let fs = self.cluster.fs(node);
            fs.set_capacity(u64::MAX);
            fs.forget_plans();
            let conditions = self.cluster.conditions(node);
            conditions.mend_disk();
            conditions.set_skew(0);
            self.cluster.resume(node);
        }
        // What clients sent last may still be on its way.
        self.handle.sleep(BUDGET * 2).await;
        let mut down = BTreeSet::new();
        // Whatever nodes that run know, before they are stopped.
        let topology = self.cluster.newest();
        for node in self.cluster.nodes() {
            let state = topology.member(node).map(|member| member.state);
            if state != Some(MemberState::Lost) {
                // Whoever gave it up did not succeed.
                self.cluster.recall(node);
            }
        }
        for node in self.cluster.nodes() {
            self.nemesis.look_at(node);
            if self.leaves_well && self.is_well(node) {
                self.nemesis.count("node left alone", 1);
                continue;
            }
            self.cluster.kill(node);
            down.insert(node);
        }
        for node in self.whole() {
            if !down.contains(&node) {
                continue;
            }
            let mut outcome = self.cluster.launch(node);
            let limit = self.handle.now() + START_LIMIT;
            loop {
                match outcome.try_recv() {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => {
                        self.wrong("does-not-start", format!("{node}: {error}"));
                        break;
                    }
                    // Who puts back a disk starts it, too.
                    Err(_) if self.cluster.node(node).is_some() => break,
                    Err(_) if self.handle.now() > limit => {
                        self.wrong(
                            "does-not-start",
                            format!("{node}: not within {START_LIMIT:?}"),
                        );
                        break;
                    }
                    Err(_) => self.handle.sleep(Duration::from_millis(50)).await,
                }
            }
        }
        // The others must be there: only they can tell how often it was started.
        let damaged = std::mem::take(&mut self.damaged);
        let members = self.cluster.newest();
        for node in damaged
            .into_iter()
            .filter(|node| members.member(*node).is_some())
        {
            self.cluster.kill(node);
            let _ = empty_store(&self.cluster.fs(node));
            if self.cluster.start(node).await.is_ok() {
                self.nemesis.count("emptied store", 1);
            } else {
                self.damaged.insert(node);
            }
        }
    }

    /// Whether a node runs and nothing is wrong with what it has on its disk.
    fn is_well(&self, node: NodeId) -> bool {
        let Some(running) = self.cluster.node(node) else {
            return false;
        };
        let metrics = running.metrics();
        let is_zero = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.is_some_and(|value| value.trim() == "0")
        };
        !self.damaged.contains(&node)
            && is_zero("kv_storage_poisoned ")
            && is_zero("kv_storage_damaged_places ")
    }

    /// Every node must take a write and show it.
    async fn serve(&mut self, client: &mut Client) {
        for via in self.whole() {
            let limit = self.handle.now() + SERVE_LIMIT;
            let probe = format!("probe of {via}");
            let mut request = client.put_request(&probe, None, WriteKind::Put);
            let mut last = loop {
                request.head.epoch = self.cluster.newest().epoch();
                let put = client
                    .send_put(self.cluster, via, request.clone(), "alive")
                    .await;
                match put {
                    Ok(_) => break None,
                    Err(refused) if self.handle.now() > limit => break Some(refused),
                    Err(_) => self.handle.sleep(Duration::from_millis(200)).await,
                }
            };
            if last.is_none() {
                last = loop {
                    client.epoch = self.cluster.newest().epoch();
                    match client.get(self.cluster, via, &probe).await {
                        Ok((values, _)) if values == ["alive"] => break None,
                        Ok((values, _)) => {
                            self.wrong("lost", format!("{via} took a probe and shows {values:?}"));
                            break None;
                        }
                        Err(refused) if self.handle.now() > limit => break Some(refused),
                        Err(_) => self.handle.sleep(Duration::from_millis(200)).await,
                    }
                };
            }
            if let Some(refused) = last {
                self.wrong(
                    "does-not-serve",
                    format!("{via}, {SERVE_LIMIT:?} after healing: {refused:?}"),
                );
            }
        }
    }

    /// What was kept for others must reach them; for one that is lost for good, its fellow owners.
    async fn hand_over(&mut self) {
        let limit = self.handle.now() + HINT_LIMIT;
        for node in self.whole() {
            let kept = || {
                let node = self.cluster.node(node)?;
                Some(node.kept_for_others()).filter(|owners| !owners.is_empty())
            };
            while kept().is_some() && self.handle.now() < limit {
                self.handle.sleep(Duration::from_millis(500)).await;
            }
            if let Some(owners) = kept() {
                let what = format!(
                    "{node} still keeps something for {owners:?}, {HINT_LIMIT:?} after healing"
                );
                self.wrong("hints", what);
            }
        }
    }

    /// All nodes must agree on who owns what, and owners must be distinct.
    fn ownership(&mut self) {
        let topologies: BTreeMap<NodeId, _> = self
            .whole()
            .into_iter()
            .filter_map(|node| Some((node, self.cluster.node(node)?.topology())))
            .collect();
        let replicas = self.cluster.topology().replication_factor();
        let owners = |topology: &Topology| -> Vec<Vec<NodeId>> {
            let partitions = topology.partition_count().iter();
            partitions
                .map(|partition| topology.replicas(partition, replicas).nodes().collect())
                .collect()
        };
        let mut views: Vec<(NodeId, Vec<Vec<NodeId>>)> = Vec::new();
        for (node, topology) in topologies {
            views.push((node, owners(&topology)));
        }
        for pair in views.windows(2) {
            if pair[0].1 != pair[1].1 {
                self.wrong(
                    "owners",
                    format!("{} and {} disagree", pair[0].0, pair[1].0),
                );
            }
        }
        if let Some((node, view)) = views.first() {
            let is_wrong = |owners: &Vec<NodeId>| {
                owners.iter().collect::<BTreeSet<_>>().len() != usize::from(replicas)
            };
            let is_settled = self.cluster.newest().unsettled().next().is_none();
            if is_settled && view.iter().any(is_wrong) {
                let what = format!("at {node} a partition has not {replicas} distinct owners");
                self.wrong("owners", what);
            }
        }
    }

    /// Reads every key as widely as possible, which repairs it. A replica whose engine is behind may refuse what it is
    /// brought, and gets it with the next read.
    async fn converge(&mut self, client: &mut Client) {
        let nodes = self.whole();
        for number in self.keys.clone() {
            let via = nodes[number as usize % nodes.len()];
            let owners = self.owners(number);
            let replicas = self.cluster.topology().replication_factor();
            let level = if owners.len() < usize::from(replicas) {
                Level::Quorum
            } else {
                Level::All
            };
            let options = ReadOptions {
                level,
                ..ReadOptions::default()
            };
            let limit = self.handle.now() + SERVE_LIMIT;
            loop {
                match client
                    .get_with(self.cluster, via, &name(number), options)
                    .await
                {
                    // What differs then is judged when all is collected.
                    Ok(_) if self.is_equal(client, number).await || self.handle.now() > limit => {
                        break;
                    }
                    Err(refused) if self.handle.now() > limit => {
                        self.wrong(
                            "does-not-serve",
                            format!("{via}, key {number} at {level:?}: {refused:?}"),
                        );
                        break;
                    }
                    Ok(_) | Err(_) => self.handle.sleep(Duration::from_millis(200)).await,
                }
            }
        }
    }

    /// Waits until all owners of all keys hold the same without anyone reading them.
    async fn wait_for_convergence(&mut self, client: &mut Client) {
        let limit = self.handle.now() + COMPARING_LIMIT;
        for number in self.keys.clone() {
            // What differs at the end is judged when all is collected.
            while !self.is_equal(client, number).await && self.handle.now() < limit {
                self.handle.sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// Whether all owners of a key hold the same.
    async fn is_equal(&self, client: &mut Client, number: KeyNumber) -> bool {
        // What a read has found is on its way.
        self.handle.sleep(Duration::from_millis(20)).await;
        is_same(&self.held_by_owners(client, number).await)
    }

    /// What each owner of a key holds, or why that is not known.
    async fn held_by_owners(
        &self,
        client: &mut Client,
        number: KeyNumber,
    ) -> Vec<(NodeId, Result<Held, String>)> {
        let mut all = Vec::new();
        for node in self.owners(number) {
            all.push((node, self.held(client, node, number).await));
        }
        all
    }

    /// The owners of a key that must serve.
    fn owners(&self, number: KeyNumber) -> Vec<NodeId> {
        let topology = self.cluster.newest();
        let key = key(&name(number));
        let (_, partition) = topology.locate(BUCKET, key.partition_key());
        let owners = topology.replicas(partition, topology.replication_factor());
        owners
            .nodes()
            .filter(|node| !self.damaged.contains(node))
            .collect()
    }

    /// What every owner of every key holds.
    async fn collect(&mut self, client: &mut Client) -> Vec<Held> {
        let mut all = Vec::new();
        let limit = self.handle.now() + SERVE_LIMIT;
        for number in self.keys.clone() {
            let mut held = self.held_by_owners(client, number).await;
            // What is forgotten is not forgotten by all in the same moment.
            while !is_same(&held) && self.handle.now() < limit {
                self.handle.sleep(Duration::from_millis(200)).await;
                held = self.held_by_owners(client, number).await;
            }
            for (node, held) in held {
                match held {
                    Ok(held) => all.push(held),
                    Err(what) => {
                        self.wrong("does-not-serve", format!("{node}, key {number}: {what}"));
                    }
                }
            }
        }
        if let Some(node) = self
            .whole()
            .first()
            .and_then(|node| self.cluster.node(*node))
        {
            let topology = node.topology();
            let of_members = topology.members().len() + topology.removed().len();
            let granted = topology.actors().len() - of_members;
            self.nemesis.count("actor granted", granted as u64);
        }
        for node in self.whole() {
            let late = self.nemesis.look_at_deletions(node);
            if late > 0 && !self.restores {
                let what = format!("at {node}, {late} values came that had been forgotten");
                self.wrong("late", what);
            }
        }
        all
    }

    async fn held(
        &self,
        client: &mut Client,
        node: NodeId,
        number: KeyNumber,
    ) -> Result<Held, String> {
        let request = Request::ReplicaRead(ReplicaReadV1 {
            head: client.head(),
            bucket: BUCKET,
            key: key(&name(number)),
            digest_only: false,
        });
        let mut others = self.whole().into_iter().filter(|other| *other != node);
        let asking = others.next().unwrap_or(node);
        let answer = self
            .cluster
            .network
            .call(Role::Node(asking), node, &request, BUDGET)
            .await;
        let bytes = match answer {
            Ok(Response::ReplicaRead(_, bytes)) => bytes,
            other => return Err(format!("{other:?}")),
        };
        let mut seen = Vec::new();
        if !bytes.is_empty() {
            let object = Object::decode(&bytes).map_err(|error| error.to_string())?;
            let shown: Vec<&Sibling> = match self.mode {
                BucketMode::Siblings => object.siblings().collect(),
                BucketMode::Lww => object.last_written().into_iter().collect(),
            };
            for sibling in shown {
                let value = match sibling.payload() {
                    Payload::Value(value) => Some(String::from_utf8_lossy(value).into_owned()),
                    Payload::Tombstone => None,
                };
                seen.push(Seen {
                    id: sibling.write_id(),
                    value,
                    minted: sibling.newest_dot().hlc,
                });
            }
        }
        Ok(Held {
            key: number,
            node,
            seen,
            bytes: bytes.to_vec(),
        })
    }

    /// Who owns a partition no more has nothing of it: a copy that is no copy would be taken for one the next time.
    async fn leftovers(&mut self) {
        let topology = self.cluster.newest();
        if topology.unsettled().next().is_some() {
            return;
        }
        let limit = self.handle.now() + LEFTOVERS_LIMIT;
        for node in self.whole() {
            let mut left = self.left_at(&topology, node);
            while !left.is_empty() && self.handle.now() < limit {
                self.handle.sleep(Duration::from_millis(500)).await;
                left = self.left_at(&topology, node);
            }
            if !left.is_empty() {
                let what = format!("{node} still has {left:?}, of which it is no owner");
                self.wrong("leftovers", what);
            }
        }
    }

    /// The keys of which a node holds something that is not its own.
    fn left_at(&self, topology: &Topology, node: NodeId) -> Vec<String> {
        let Some(running) = self.cluster.node(node) else {
            return Vec::new();
        };
        let snapshot = running.engine().snapshot();
        let mut left = Vec::new();
        for number in self.keys.clone() {
            let key = key(&name(number));
            let (hash, partition) = topology.locate(BUCKET, key.partition_key());
            let owners = topology.replicas(partition, topology.replication_factor());
            let is_lost = !topology.is_counted_on(node);
            if is_lost || owners.nodes().any(|owner| owner == node) {
                continue;
            }
            self.nemesis.count("key looked at for leftovers", 1);
            let stored = storage_key::encode(BUCKET, hash, &key);
            if !matches!(snapshot.get(&stored), Ok(None)) {
                left.push(format!("{key} in {partition}"));
            }
        }
        left
    }

    /// Replicas that are equal stay so while nobody writes, though each forgets what it may in its own time: comparisons
    /// bring nobody anything.
    async fn rest(&mut self) {
        let nodes = self.whole();
        let before = self.nemesis.brought(&nodes);
        self.handle.sleep(REST).await;
        let brought = self.nemesis.brought(&nodes) - before;
        self.nemesis.count("rest", 1);
        if brought > 0 {
            self.wrong(
                "restless",
                format!(
                    "comparisons brought {brought} objects though all were equal and nobody wrote"
                ),
            );
        }
    }

    /// Nothing grows without limit.
    fn bounds(&mut self) {
        let limit = if self.has_large_values {
            LARGE_DISK_LIMIT
        } else {
            DISK_LIMIT
        };
        for node in self.whole() {
            let bytes = used(&self.cluster.fs(node));
            if bytes > limit {
                self.wrong(
                    "too-large",
                    format!("{node} uses {bytes} bytes of its disk"),
                );
            }
        }
    }
}

/// What is on its way, and who is there.
fn tell(cluster: &SimCluster, topology: &Topology) -> String {
    let member = |member: &Member| {
        let node = member.node;
        let is_there = cluster.nodes().any(|there| there == node);
        let running = is_there.then(|| cluster.node(node)).flatten();
        let epoch = running.map(|node| node.topology().epoch());
        format!("{node} is {:?} and at {epoch:?}", member.state)
    };
    let members: Vec<String> = topology.members().iter().map(member).collect();
    let way = |partition| {
        let drains: Vec<NodeId> = topology.draining(partition).collect();
        let (now, next) = (topology.moving(partition), topology.next_move(partition));
        format!("{partition}: {now:?}, then {next:?}, drained by {drains:?}")
    };
    let ways: Vec<String> = topology.unsettled().map(way).take(5).collect();
    format!(
        "epoch {}, {members:?}, {} partitions on their way: {ways:?}",
        topology.epoch(),
        topology.unsettled().count()
    )
}

/// Whether all hold the same.
fn is_same(held: &[(NodeId, Result<Held, String>)]) -> bool {
    let mut bytes = held
        .iter()
        .map(|(_, held)| Some(&held.as_ref().ok()?.bytes));
    let Some(first) = bytes.next() else {
        return true;
    };
    first.is_some() && bytes.all(|other| other == first)
}

/// Removes the files of a node's store, and nothing else. Says whether there was one.
pub(super) fn empty_store(fs: &SimFs) -> bool {
    let store = data().join("store");
    let mut files = fs.dump().into_keys();
    let mut was_there = false;
    for path in files.by_ref().filter(|path| path.starts_with(&store)) {
        was_there |= fs.remove(&path).is_ok();
    }
    was_there
}
