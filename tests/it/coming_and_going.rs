//! Members come, go, are lost and replaced at random, and what is on its way is called off, while nodes are killed and cut off and
//! clients write and read: no acknowledged write is lost, nothing superseded comes back, and no read at `quorum` is old.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use kv_net::Role;
use kv_net::message::{
    ChangeKind, ChangeV1, MemberChangesV1, ReadOptions, ReplicaReadV1, Request, Response, WriteKind,
};
use kv_node::tombstones::DeleteOptions;
use kv_ring::{MemberChanges, MemberState, Topology};
use kv_tests::check;
use kv_tests::history::{Fate, Held, History, Read, Seen, Write};
use kv_tests::sim::executor::OUTSIDE;
use kv_tests::sim::{Executor, Handle, SimCluster};
use kv_types::{Durability, Level, NodeId, Object, Outcome, Payload, Quorum};

use crate::client::{BUCKET, BUDGET, key, options};

/// How long clients and operators work.
const WORK: Duration = Duration::from_secs(90);
const FIRST_MEMBERS: u128 = 4;
const MOST_MEMBERS: u128 = 9;
const CLIENTS: u64 = 4;
const KEYS: u32 = 24;
const SEEDS: std::ops::Range<u64> = 0..12;
/// All is where it belongs, once nothing goes wrong any more, within this time.
const LIMIT: Duration = Duration::from_secs(240);

type Notebook = Arc<Mutex<History>>;

/// One history of a cluster.
struct World {
    cluster: SimCluster,
    handle: Handle,
    notes: Notebook,
    rng: Rng,
    /// The machines that are not to run any more.
    gone: Vec<NodeId>,
    steps: BTreeMap<&'static str, u32>,
}

fn name(number: u32) -> String {
    format!("k{number}")
}

/// The newest topology that a running node has.
fn newest(cluster: &SimCluster) -> Arc<Topology> {
    let nodes = cluster.nodes().filter_map(|node| cluster.node(node));
    let topologies = nodes.map(|node| node.topology());
    let newest = topologies.max_by_key(|topology| topology.epoch());
    newest.unwrap_or_else(|| Arc::clone(cluster.topology()))
}

/// Reads a key and writes it with the context, over and over.
async fn work(cluster: SimCluster, handle: Handle, notes: Notebook, number: u64) {
    let mut rng = Rng::with_seed(handle.seed() ^ number);
    let mut client = cluster.client(number);
    let noted = |note: &mut dyn FnMut(&mut History)| {
        note(&mut notes.lock().unwrap_or_else(PoisonError::into_inner));
    };
    while handle.now() < WORK {
        handle.sleep(Duration::from_millis(rng.u64(0..120))).await;
        let members: Vec<NodeId> = newest(&cluster).members().iter().map(|m| m.node).collect();
        let via = |rng: &mut Rng| members[rng.usize(0..members.len())];
        // Clients learn of epochs sooner or later.
        if rng.bool() {
            client.epoch = newest(&cluster).epoch();
        }
        let of = rng.u32(0..KEYS);
        let begun = handle.now();
        let options = ReadOptions {
            level: Level::Quorum,
            ..ReadOptions::default()
        };
        let at = via(&mut rng);
        let Ok((values, reply)) = client.get_with(&cluster, at, &name(of), options).await else {
            continue;
        };
        let mut values = values.into_iter();
        let seen: Vec<Seen> = reply
            .siblings
            .iter()
            .map(|head| Seen {
                id: head.write_id,
                value: if head.tombstone { None } else { values.next() },
                minted: head.dot.hlc,
            })
            .collect();
        let read = Read {
            key: of,
            client: number as u32,
            level: Level::Quorum,
            number: None,
            begun,
            ended: handle.now(),
            in_session: false,
            is_listed: false,
            seen,
        };
        let shown = read.ids();
        noted(&mut |notes| notes.reads.push(read.clone()));
        let is_delete = rng.u8(0..6) == 0;
        let kind = if is_delete {
            WriteKind::Delete
        } else {
            WriteKind::Put
        };
        let request = client.put_request(&name(of), Some(reply.context), kind);
        let id = request.head.write_id;
        let value = if is_delete {
            String::new()
        } else {
            History::value_of(id)
        };
        let write = Write {
            key: of,
            client: number as u32,
            level: Level::Quorum,
            number: None,
            durability: Durability::Quorum,
            is_delete,
            expires: false,
            is_astray: false,
            is_told_later: false,
            is_blind: false,
            read: shown,
            begun: handle.now(),
            attempts: 1,
            fate: Fate::Unknown,
            minted: None,
        };
        noted(&mut |notes| _ = notes.writes.insert(id, write.clone()));
        let sent = client
            .send_put(&cluster, via(&mut rng), request, &value)
            .await;
        let fate = match sent {
            Ok(_) => Fate::Acked(handle.now()),
            Err((_, Outcome::NotApplied)) => Fate::NotApplied,
            Err((_, Outcome::Unknown)) => Fate::Unknown,
        };
        noted(&mut |notes| {
            if let Some(write) = notes.writes.get_mut(&id) {
                write.fate = fate;
            }
        });
    }
}

impl World {
    /// The members that run.
    fn running(&self) -> Vec<NodeId> {
        let topology = newest(&self.cluster);
        let members = topology.members().iter().map(|member| member.node);
        let runs = |node: &NodeId| self.cluster.node(*node).is_some();
        members.filter(runs).collect()
    }

    fn any(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        self.rng.choice(nodes).copied()
    }

    fn count(&mut self, what: &'static str) {
        *self.steps.entry(what).or_default() += 1;
    }

    async fn change(&self, via: NodeId, change: ChangeKind) -> bool {
        let request = Request::Change(ChangeV1 { change });
        let role = Role::Admin("operator".to_owned());
        let answer = self
            .cluster
            .network
            .call(role, via, &request, BUDGET * 3)
            .await;
        matches!(answer, Ok(Response::Change(_)))
    }

    /// Commits what would follow from changes as a node sees it.
    async fn commit(&self, via: NodeId, wanted: MemberChangesV1) -> bool {
        let Some(node) = self.cluster.node(via) else {
            return false;
        };
        let changes = MemberChanges {
            joins: wanted.joins.iter().map(kv_node::changes::member).collect(),
            leaves: wanted.leaves.clone(),
            lost: wanted.lost.clone(),
            weights: wanted.weights.clone(),
            zones: wanted.zones.clone(),
        };
        match node.topology().plan_members(&changes) {
            Ok(plan) => {
                let plan = plan.id.0;
                let change = ChangeKind::Members {
                    changes: wanted,
                    plan,
                };
                self.change(via, change).await
            }
            Err(_) => false,
        }
    }

    /// An operator does something.
    async fn operate(&mut self) {
        let running = self.running();
        let Some(via) = self.any(&running) else {
            return;
        };
        let topology = newest(&self.cluster);
        let active: Vec<NodeId> = topology
            .members()
            .iter()
            .filter(|member| member.state == MemberState::Active)
            .map(|member| member.node)
            .collect();
        let last = self.cluster.nodes().last().map_or(0, |node| node.0);
        let mut wanted = MemberChangesV1::default();
        let what = match self.rng.u8(0..10) {
            0..4 if last < MOST_MEMBERS => {
                wanted.joins = vec![self.cluster.newcomer(NodeId(last + 1))];
                "join"
            }
            4 | 5 if active.len() > 3 => {
                wanted.leaves = self.any(&active).into_iter().collect();
                "leave"
            }
            // Between two convergences one disk at most is lost.
            6 if self.gone.is_empty()
                && active.len() > 3
                && topology.unsettled().next().is_none() =>
            {
                let Some(lost) = self.any(&active).filter(|lost| *lost != via) else {
                    return;
                };
                self.cluster.kill(lost);
                self.gone.push(lost);
                wanted.lost = vec![lost];
                if last < MOST_MEMBERS {
                    wanted.joins = vec![self.cluster.newcomer(NodeId(last + 1))];
                }
                "lose"
            }
            7 => {
                let weight = self.rng.u32(1..4);
                wanted.weights = self
                    .any(&active)
                    .map(|node| (node, weight))
                    .into_iter()
                    .collect();
                "weigh"
            }
            8 => {
                if self.change(via, ChangeKind::AbortMoves).await {
                    self.count("abort");
                }
                return;
            }
            _ => return,
        };
        let joins = !wanted.joins.is_empty();
        let is_made = self.commit(via, wanted).await;
        if joins {
            // Its papers are made before anybody knows whether it is a member.
            if self.cluster.node(via).is_some() {
                self.cluster.add_machine(NodeId(last + 1), via);
            }
        }
        if is_made {
            self.count(what);
        }
    }

    /// Something goes wrong for a while.
    async fn harm(&mut self) {
        let nodes: Vec<NodeId> = self
            .cluster
            .nodes()
            .filter(|node| !self.gone.contains(node))
            .collect();
        let Some(node) = self.any(&nodes) else { return };
        let lasts = Duration::from_millis(self.rng.u64(200..4_000));
        match self.rng.u8(0..4) {
            0 => self.cluster.kill(node),
            1 => self.cluster.cut_power(node),
            2 => {
                self.cluster.network.cut_off(node, true);
                self.handle.sleep(lasts).await;
                self.cluster.network.cut_off(node, false);
            }
            _ => {
                let links: Vec<_> = nodes.iter().map(|other| (node, *other)).collect();
                self.cluster.network.block(&links);
                self.handle.sleep(lasts).await;
                self.cluster.network.unblock(&links);
            }
        }
        self.handle.sleep(lasts).await;
        self.start_all().await;
    }

    /// Starts whoever should run: a node that is no member yet, or no more, refuses.
    async fn start_all(&self) {
        for node in self.cluster.nodes() {
            if !self.gone.contains(&node) && !self.cluster.has_process(node) {
                let _ = self.cluster.start(node).await;
            }
        }
    }

    async fn live(&mut self) {
        for number in 0..CLIENTS {
            let (cluster, handle) = (self.cluster.clone(), self.handle.clone());
            let task = work(cluster, handle, Arc::clone(&self.notes), number + 1);
            self.handle.spawn(OUTSIDE, task);
        }
        while self.handle.now() < WORK {
            let rest = Duration::from_millis(self.rng.u64(300..3_000));
            self.handle.sleep(rest).await;
            if self.rng.bool() {
                self.operate().await;
                self.start_all().await;
            } else {
                self.harm().await;
            }
        }
        self.cluster.network.calm();
        self.handle.sleep(BUDGET * 2).await;
        self.start_all().await;
        let limit = self.handle.now() + LIMIT;
        loop {
            let topology = newest(&self.cluster);
            let losts = topology
                .members()
                .iter()
                .filter(|member| member.state == MemberState::Lost);
            let losts: Vec<NodeId> = losts.map(|member| member.node).collect();
            // It was killed, and its loss not decided on.
            let active = |node: &NodeId| {
                topology
                    .member(*node)
                    .is_some_and(|member| member.state == MemberState::Active)
            };
            let lost: Vec<NodeId> = self.gone.iter().copied().filter(active).collect();
            if !lost.is_empty() {
                let wanted = MemberChangesV1 {
                    lost,
                    ..MemberChangesV1::default()
                };
                self.commit(self.running()[0], wanted).await;
            }
            for node in losts {
                let via = self.running()[0];
                self.change(via, ChangeKind::RemoveMember { node }).await;
            }
            let leaves = |member: &kv_ring::Member| member.state != MemberState::Active;
            let is_settled = topology.unsettled().next().is_none();
            if is_settled && !topology.members().iter().any(leaves) {
                break;
            }
            let is_late = self.handle.now() >= limit;
            assert!(!is_late, "{}", self.tell(&topology));
            self.start_all().await;
            self.handle.sleep(Duration::from_secs(1)).await;
        }
        // Comparisons have made all equal.
        self.handle.sleep(Duration::from_secs(60)).await;
        self.collect().await;
    }

    /// What is on its way, and who is there.
    fn tell(&self, topology: &Topology) -> String {
        let member = |member: &kv_ring::Member| {
            let node = self.cluster.node(member.node);
            let epoch = node.map(|node| node.topology().epoch());
            format!("{:?} {:?} at {epoch:?}", member, member.state)
        };
        let members: Vec<String> = topology.members().iter().map(member).collect();
        let way = |partition| {
            let (now, next) = (topology.moving(partition), topology.next_move(partition));
            let drains: Vec<u128> = topology.draining(partition).map(|node| node.0).collect();
            let ends = |step: Option<kv_ring::assign::SlotMove>| {
                step.map(|step| (step.from.map(|from| from.0), step.to.0))
            };
            format!(
                "{partition}: {:?}, then {:?}, drained by {drains:?}",
                ends(now),
                ends(next)
            )
        };
        let ways: Vec<String> = topology.unsettled().map(way).take(10).collect();
        format!(
            "epoch {}, gone {:?}, {members:#?}, {ways:#?}",
            topology.epoch(),
            self.gone
        )
    }

    /// Notes what every owner holds.
    async fn collect(&mut self) {
        let topology = newest(&self.cluster);
        let mut client = self.cluster.client(1_000);
        client.epoch = topology.epoch();
        let mut all = Vec::new();
        for number in 0..KEYS {
            let (_, partition) = topology.locate(BUCKET, key(&name(number)).partition_key());
            for node in topology.replicas(partition, 3).nodes() {
                let request = Request::ReplicaRead(ReplicaReadV1 {
                    head: client.head(),
                    bucket: BUCKET,
                    key: key(&name(number)),
                    digest_only: false,
                });
                let from = topology.members().iter().map(|member| member.node);
                let from = from.filter(|other| *other != node).min().expect("several");
                let answer = self
                    .cluster
                    .network
                    .call(Role::Node(from), node, &request, BUDGET);
                let bytes = match answer.await {
                    Ok(Response::ReplicaRead(_, bytes)) => bytes,
                    other => panic!("{node} and key {number}: {other:?}"),
                };
                let object = match bytes.is_empty() {
                    true => Object::new(),
                    false => Object::decode(&bytes).expect("an object"),
                };
                let seen = object.siblings().map(|sibling| Seen {
                    id: sibling.write_id(),
                    value: match sibling.payload() {
                        Payload::Value(value) => Some(String::from_utf8_lossy(value).into_owned()),
                        Payload::Tombstone => None,
                    },
                    minted: sibling.newest_dot().hlc,
                });
                all.push(Held {
                    key: number,
                    node,
                    seen: seen.collect(),
                    bytes: bytes.to_vec(),
                });
            }
        }
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .held = all;
    }
}

/// How long deletions are kept in these histories.
const KEEP: Duration = Duration::from_secs(4);

fn live(seed: u64) -> (History, BTreeMap<&'static str, u32>) {
    let mut executor = Executor::new(seed);
    let handle = executor.handle();
    executor.run(async move {
        let cluster = SimCluster::new(handle.clone(), FIRST_MEMBERS, 3, options());
        let cluster = cluster.with_deletes(DeleteOptions { keep: KEEP });
        cluster.start_all().await.expect("the nodes start");
        let notes = Notebook::default();
        let mut world = World {
            cluster,
            handle,
            notes: Arc::clone(&notes),
            rng: Rng::with_seed(seed),
            gone: Vec::new(),
            steps: BTreeMap::new(),
        };
        world.live().await;
        let mut history = notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        history.forgets_after = Some(KEEP);
        (history, world.steps)
    })
}

#[test]
fn members_come_and_go_at_random_beside_faults() {
    let mut steps: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut acked, mut reads) = (0, 0);
    for seed in SEEDS {
        let (history, of_seed) = live(seed);
        let quorum = Quorum::new(3, 2, 2).expect("possible");
        let found = check::all(&history, quorum);
        for found in &found {
            println!("seed {seed}: {found}");
        }
        assert!(found.is_empty(), "seed {seed}");
        acked += history
            .writes
            .values()
            .filter(|write| write.acked_at().is_some())
            .count();
        reads += history.reads.len();
        for (what, times) in of_seed {
            *steps.entry(what).or_default() += times;
        }
    }
    println!("{acked} writes acknowledged, {reads} reads, {steps:?}");
    for what in ["join", "leave", "lose", "weigh", "abort"] {
        assert!(
            steps.get(what).is_some_and(|times| *times > 2),
            "{what}: {steps:?}"
        );
    }
    assert!(acked > 2_000 && reads > 4_000, "{acked} and {reads}");
}
