//! How often each member has been started, and in which runs, as the others remember it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use kv_net::message::{RememberReplyV1, RememberV1, Request, Response, TopologyV1};
use kv_ring::{ChainEntry, Member, Topology};
use kv_storage::WriteBatch;
use kv_types::{Epoch, Hlc, HybridClock, NodeId, planted};
use tokio::sync::Notify;

use super::runs::{Runs, Told};
use super::{Completeness, Record};
use crate::clock_watch::{ClockWatch, offset_ms};
use crate::env::Env;
use crate::fates::settled;
use crate::membership::Membership;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};
use crate::tombstones::floor;
use crate::topologies::Topologies;
use crate::transport::Peer;

/// How long a node that starts waits for what others remember of it.
const PATIENCE_AT_START: Duration = Duration::from_millis(500);
/// How often a node asks that has nothing on its disk, and so must be told how often it was started.
const TRIES_WITHOUT_DISK: u32 = 20;
/// For so many of these times the counter of another process that runs rises once at least.
const PERIODS_WATCHED: u32 = 3;
/// Of what is lost, one member may have been told so much more than those that answer.
const ONE_ROUND: u64 = 1;
/// After which time a node that met nobody asks again.
const PERIOD_AT_START: Duration = Duration::from_millis(200);
/// How long a peer may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least time between two rises of the counter: what a disk copied no longer ago than this lacks may go unnoticed.
const PERIOD: Duration = Duration::from_secs(5);
/// In a large cluster it is longer, so that no more than one member is told within this.
const PERIOD_FOR_EACH: Duration = Duration::from_millis(100);

/// A start of this node, as it is on its disk.
#[derive(Debug)]
pub(crate) struct Started {
    /// The boot counter.
    pub(crate) boot: u64,
    /// The runs, this one among them.
    pub(crate) runs: Runs,
    /// Whether another member has said what it remembers.
    pub(crate) is_told: bool,
}

/// Counts a start of this node, durably. Where the others remember what its disk does not know of, or it says that it has held
/// data and holds none, the loss is put on record in the same write.
///
/// # Errors
/// [`StoreError`]; the counter may have risen.
pub(crate) async fn count_start(
    env: &Env,
    store: &Store,
    topology: &Topology,
    me: NodeId,
    is_emptied: bool,
    watch: &ClockWatch,
) -> Result<Started, StoreError> {
    let last = stored_counter(store).await?;
    let mut runs = stored_runs(store).await?;
    let ask = || ask_all(env, topology, me, PATIENCE_AT_START, |_| None);
    let mut remembered = ask().await;
    let mut tries = 1;
    while is_emptied && remembered.is_empty() && tries < TRIES_WITHOUT_DISK {
        tries += 1;
        env.sleep(PATIENCE_AT_START).await;
        remembered = ask().await;
    }
    while is_first_of_later_member(topology, me, last, is_emptied)
        && remembered.is_empty()
        && !planted!("begin without knowing what the others forget by")
    {
        if tries.is_multiple_of(TRIES_WITHOUT_DISK) {
            tracing::warn!(
                "this node is new in the cluster and no other member answers yet; it serves once one has told it what is forgotten"
            );
        }
        tries += 1;
        env.sleep(PATIENCE_AT_START).await;
        remembered = ask().await;
    }
    ask_newcomers(env, topology, me, &mut remembered).await;
    watch.note(offsets(&remembered));
    let latest = latest(&remembered);
    let is_known = |answer: &Answer| is_known(&answer.reply, &runs, last);
    let has_lost = is_emptied || runs.lack_something() || !remembered.iter().all(is_known);
    let mut boot = latest.max(last) + 1;
    if has_lost {
        boot += ONE_ROUND;
        runs = Runs::after_loss(boot);
    }
    runs.begin(env.host.random().max(1), boot);
    let mut batch = WriteBatch::new();
    // A node on a full disk starts, and serves what it has.
    batch.use_reserve();
    batch.put(&counter_key(), &boot.to_le_bytes());
    keep_runs(&runs, &mut batch)?;
    batch.put(&storage_key::system("node"), &me.0.to_le_bytes());
    if has_lost {
        tracing::warn!(
            last,
            latest,
            "this node's disk was rolled back, copied or emptied: the others remember what it does not know of; it answers no reads until it has compared everything with the other owners"
        );
        let record = put_on_record(&mut batch, env, store, (topology, me), &remembered).await?;
        record.keep_in(&mut batch)?;
    } else if last == 0 {
        // Below the others' floors it would take in what they put aside.
        promise_as_others(&mut batch, store, &remembered).await?;
    }
    committed(store.write(batch, Store::START_PATIENCE).await?).await?;
    Ok(Started {
        boot,
        runs,
        is_told: !remembered.is_empty(),
    })
}

/// Whether a node runs for the first time that was not among the first members. Those have to be asked for their promises, so nothing
/// was forgotten without them; of it, the others have forgotten deletions before it came, and what it takes in from before that,
/// not knowing, they put aside: with a slow clock it could acknowledge such writes.
fn is_first_of_later_member(topology: &Topology, me: NodeId, last: u64, is_emptied: bool) -> bool {
    let mut others = topology.members().iter().map(|member| member.node);
    let has_others = others.any(|node| node != me && topology.is_counted_on(node));
    last == 0 && !is_emptied && topology.epoch() > Epoch::GENESIS && has_others
}

/// What is to be put on record where what is stored is not all, with the rest of the batch. What the node knew of the others' copies does not hold any more, and
/// what it has promised them may be as much as the most that one of them has.
async fn put_on_record(
    batch: &mut WriteBatch,
    env: &Env,
    store: &Store,
    (topology, me): (&Topology, NodeId),
    remembered: &[Answer],
) -> Result<Record, StoreError> {
    let now = env.wall().plus(HybridClock::MAX_SKEW);
    batch.delete_prefix(&storage_key::watermarks());
    promise_as_others(batch, store, remembered).await?;
    Ok(Record::of_loss(topology, me, now))
}

/// Promises as much as the most that one of the others has, and no less than before.
async fn promise_as_others(
    batch: &mut WriteBatch,
    store: &Store,
    remembered: &[Answer],
) -> Result<(), StoreError> {
    let floors = remembered.iter().map(|answer| answer.reply.floor);
    let floor = floors.fold(floor::stored(store).await?, Hlc::max);
    floor::keep_in(batch, floor);
    let settled = remembered.iter().map(|answer| answer.reply.settled);
    let settled = settled.fold(settled::stored(store).await?, Hlc::max);
    settled::keep_in(batch, settled);
    Ok(())
}

/// What another member said.
struct Answer {
    from: NodeId,
    reply: RememberReplyV1,
    /// By how much its clock is ahead.
    offset_ms: Option<i64>,
}

/// The latest counter that anyone remembers.
fn latest(answers: &[Answer]) -> u64 {
    let boots = answers.iter().map(|answer| answer.reply.boot);
    boots.max().unwrap_or(0)
}

/// By how much the others' clocks are ahead.
fn offsets(answers: &[Answer]) -> Vec<i64> {
    let offsets = answers.iter().filter_map(|answer| answer.offset_ms);
    offsets.collect()
}

/// Whether a disk, with these runs and this counter, knows of all that another member has heard of them.
fn is_known(reply: &RememberReplyV1, runs: &Runs, counter: u64) -> bool {
    let told = Told {
        run: reply.run,
        counter: reply.told,
    };
    if planted!("look at counters only, not at runs") {
        return reply.boot <= counter;
    }
    reply.boot <= counter && runs.know_of(told, counter)
}

/// Asks all other members what they remember of this node; by what each answers, `tell` says what to tell it, if
/// anything. Who does not answer in time is left out.
async fn ask_all(
    env: &Env,
    topology: &Topology,
    me: NodeId,
    patience: Duration,
    tell: impl Fn(&RememberReplyV1) -> Option<RememberV1>,
) -> Vec<Answer> {
    ask_some(env, topology, |member| member.node != me, patience, tell).await
}

/// The same of some members.
async fn ask_some(
    env: &Env,
    topology: &Topology,
    is_asked: impl Fn(&Member) -> bool,
    patience: Duration,
    tell: impl Fn(&RememberReplyV1) -> Option<RememberV1>,
) -> Vec<Answer> {
    let tell = &tell;
    let others = topology.members().iter().filter(|member| is_asked(member));
    let asks = others.map(|member| {
        let from = member.node;
        let call = move |said: RememberV1, patience| {
            let peer = Peer {
                node: from,
                address: member.address.clone(),
            };
            env.transport.call(peer, Request::Remember(said), patience)
        };
        let sent = env.now();
        let answer = call(RememberV1::default(), patience);
        async move {
            let Ok(Response::Remember(reply)) = answer.await else {
                return None;
            };
            let way = env.now().saturating_sub(sent);
            let offset_ms = offset_ms(reply.wall_ms, env.host.wall_ms(), way);
            if let Some(said) = tell(&reply) {
                // What it remembers now it says when it is asked again.
                let _ = call(said, patience.saturating_sub(way)).await;
            }
            Some(Answer {
                from,
                reply,
                offset_ms,
            })
        }
    });
    join_all(asks).await.into_iter().flatten().collect()
}

/// Asks those, too, who became members since a topology, as those that have answered know: they may alone remember what a disk from
/// before them lacks. Gives the topology by which they are members, if there is a newer one.
async fn ask_newcomers(
    env: &Env,
    topology: &Topology,
    me: NodeId,
    answers: &mut Vec<Answer>,
) -> Option<Arc<Topology>> {
    if planted!("be told by those only whom an old disk knows") {
        return None;
    }
    let newer = newer_topology(env, topology, answers).await?;
    let came = |member: &Member| member.node != me && topology.member(member.node).is_none();
    answers.extend(ask_some(env, &newer, came, PATIENCE_AT_START, |_| None).await);
    Some(newer)
}

/// The newest topology of the same cluster that those know of who have answered, if it is newer than this node's.
async fn newer_topology(
    env: &Env,
    topology: &Topology,
    answers: &[Answer],
) -> Option<Arc<Topology>> {
    let ask = |node: NodeId, known: Epoch| {
        let address = topology.member(node)?.address.clone();
        let request = Request::Topology(TopologyV1 { known });
        let answer = env
            .transport
            .call(Peer { node, address }, request, PATIENCE_AT_START);
        Some(async move { (node, answer.await) })
    };
    // How far they are; only one need send all of it.
    let epochs = answers
        .iter()
        .filter_map(|answer| ask(answer.from, Epoch(u64::MAX)));
    let epochs = join_all(epochs).await.into_iter();
    let mut further: Vec<(Epoch, NodeId)> = epochs
        .filter_map(|(node, answer)| match answer {
            Ok(Response::Topology(reply, _)) => Some((reply.epoch, node)),
            _ => None,
        })
        .filter(|(epoch, _)| *epoch > topology.epoch())
        .collect();
    further.sort_unstable();
    while let Some((_, node)) = further.pop() {
        let Ok(Response::Topology(_, entry)) = ask(node, Epoch(0))?.await.1 else {
            continue;
        };
        let entry = ChainEntry::decode(&entry).ok();
        let newer = entry.map(|entry| Arc::clone(entry.topology()));
        let is_ours = |it: &Arc<Topology>| it.cluster_id() == topology.cluster_id();
        if let Some(newer) = newer.filter(is_ours) {
            return Some(newer);
        }
    }
    None
}

/// The least time between two rises of the counter in a cluster.
fn period(topology: &Topology) -> Duration {
    let members = u32::try_from(topology.members().len()).unwrap_or(u32::MAX);
    PERIOD.max(PERIOD_FOR_EACH.saturating_mul(members))
}

async fn stored_counter(store: &Store) -> Result<u64, StoreError> {
    match store.get(&counter_key()).await? {
        None => Ok(0),
        Some(found) => decode(&found.value),
    }
}

async fn stored_runs(store: &Store) -> Result<Runs, StoreError> {
    match store.get(&runs_key()).await? {
        None => Ok(Runs::default()),
        Some(found) => postcard::from_bytes(&found.value)
            .map_err(|_| StoreError::Failed("the stored runs of this node are damaged".to_owned())),
    }
}

fn keep_runs(runs: &Runs, batch: &mut WriteBatch) -> Result<(), StoreError> {
    let bytes = postcard::to_stdvec(runs).map_err(|error| {
        StoreError::Failed(format!("the runs of this node cannot be stored: {error}"))
    })?;
    batch.put(&runs_key(), &bytes);
    Ok(())
}

/// What this node remembers of the others.
#[derive(Debug)]
pub struct Boots {
    store: Store,
    membership: Arc<Membership>,
    /// What the others told, durable.
    remembered: tokio::sync::Mutex<BTreeMap<NodeId, Told>>,
}

impl Boots {
    /// What is stored.
    #[must_use]
    pub fn new(store: Store, membership: Arc<Membership>) -> Self {
        Self {
            store,
            membership,
            remembered: tokio::sync::Mutex::default(),
        }
    }

    /// Takes in what a member says of itself, durably, and gives what it told before, and the highest counter of it that was
    /// heard of.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be stored.
    pub(crate) async fn remember(
        &self,
        from: NodeId,
        said: &RememberV1,
    ) -> Result<(Told, u64), Refusal> {
        let mut remembered = self.remembered.lock().await;
        let before = match remembered.get(&from) {
            Some(told) => *told,
            None => match self.store.get(&storage_key::boot_of(from)).await? {
                None => Told::default(),
                Some(found) => Told::from_bytes(&found.value).ok_or_else(|| {
                    let what = "what is stored of another member's starts is damaged";
                    StoreError::Failed(what.to_owned())
                })?,
            },
        };
        let mut now = before;
        if now.take_in(said) {
            let mut batch = WriteBatch::new();
            batch.use_reserve();
            batch.put(&storage_key::boot_of(from), &now.to_bytes());
            committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        }
        remembered.insert(from, now);
        let heard = self.membership.boot_of(from).unwrap_or(0);
        Ok((before, heard.max(before.counter)))
    }
}

/// The task that tells the others, for as long as the node runs.
#[derive(Debug)]
pub struct Telling {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    /// The counter, durable.
    pub(crate) counter: Arc<AtomicU64>,
    /// The runs, durable.
    pub(crate) runs: Runs,
    pub(crate) store: Store,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) watch: Arc<ClockWatch>,
    pub(crate) completeness: Arc<Completeness>,
    /// Told when the node must be started again to make up for a loss.
    pub(crate) loss: Arc<Notify>,
}

/// What a node has heard of itself that was told nothing yet.
enum Met {
    /// Nothing: no other member answers.
    Nobody,
    /// Nobody remembers it as later than it is, neither the first one that answered nor who became a member since.
    NoLaterSelf,
    /// Somebody does, who is a member by this topology, if it is newer than its own.
    LaterSelf(Option<Arc<Topology>>),
}

impl Telling {
    /// Raises the counter and tells it, again and again.
    pub async fn run(self) {
        let mut is_first = true;
        loop {
            if self.membership.is_rolled_back() {
                // Gossip told it. What the others remember must not be overtaken.
                self.note_lack().await;
                self.watch_later_self(&[]).await;
                return;
            }
            let mut topology = self.topologies.current();
            let mut patience = PATIENCE;
            if !self.completeness.is_told() {
                match self.meet(&topology).await {
                    Met::Nobody => {
                        self.env.sleep(PERIOD_AT_START).await;
                        continue;
                    }
                    Met::NoLaterSelf => self.completeness.was_told(),
                    Met::LaterSelf(newest) => {
                        topology = newest.unwrap_or(topology);
                        patience = PATIENCE_AT_START;
                    }
                }
            }
            let counter = self.counter.load(Ordering::Relaxed);
            let runs = &self.runs;
            let tell = |reply: &RememberReplyV1| {
                if !is_known(reply, runs, counter) {
                    // At once: the rest of the answers may take seconds.
                    self.membership.meet_later_self(reply.boot);
                    return None;
                }
                Some(RememberV1 {
                    boot: counter,
                    run: runs.current(),
                    after: reply.run,
                    heard: reply.told,
                })
            };
            let (env, me) = (&self.env, self.me);
            let answers = ask_all(env, &topology, me, patience, tell).await;
            self.watch.note(offsets(&answers));
            let is_known = |answer: &Answer| is_known(&answer.reply, runs, counter);
            if !answers.iter().all(is_known) {
                self.note_lack().await;
                let latest = latest(&answers).max(counter);
                // Another process of this node that runs is mostly met later than in the first round; else that one will be told
                // of this one.
                if !is_first || !self.put_loss_on_record(&topology, latest, &answers).await {
                    self.watch_later_self(&answers).await;
                }
                return;
            }
            // Where all members start at once, nobody could be asked at the start.
            is_first &= answers.is_empty();
            if answers.is_empty() && !self.completeness.is_told() {
                self.env.sleep(PERIOD_AT_START).await;
                continue;
            }
            self.env.sleep(period(&topology)).await;
            if let Err(error) = self.raise_to(counter + 1).await {
                tracing::debug!(%error, "the boot counter does not rise");
            }
        }
    }

    /// Asks until the first one answers, and then also those that it knows of and this node does not: who became a member while it was
    /// away may alone remember what its disk lacks.
    async fn meet(&self, topology: &Topology) -> Met {
        let (env, me) = (&self.env, self.me);
        let counter = self.counter.load(Ordering::Relaxed);
        let others = topology.members().iter().map(|member| member.node);
        let asks = others.filter(|node| *node != me).map(|node| {
            let is_asked = move |member: &Member| member.node == node;
            ask_some(env, topology, is_asked, PATIENCE_AT_START, |_| None)
        });
        let mut asks: FuturesUnordered<_> = asks.collect();
        while let Some(mut answers) = asks.next().await {
            if answers.is_empty() {
                continue;
            }
            let newer = ask_newcomers(env, topology, me, &mut answers).await;
            let is_known = |answer: &Answer| is_known(&answer.reply, &self.runs, counter);
            return match answers.iter().all(is_known) {
                true => Met::NoLaterSelf,
                false => Met::LaterSelf(newer),
            };
        }
        Met::Nobody
    }

    /// Notes durably that this disk lacks something, lest it count for whole should the node be started again before that is on
    /// record.
    async fn note_lack(&self) {
        let mut batch = WriteBatch::new();
        batch.use_reserve();
        let noted = async {
            keep_runs(&self.runs.with_lack(), &mut batch)?;
            committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "that this node's disk lacks something cannot be noted");
        }
    }

    /// Waits until the others remember nothing else than some time ago, but for what this disk knows. While another process runs as
    /// this node, that never happens; else there was one, or those who remember the most could not be asked before.
    async fn watch_later_self(&self, answers: &[Answer]) {
        let counter = self.counter.load(Ordering::Relaxed);
        let memory = |answer: &Answer| (answer.reply.run, answer.reply.told, answer.reply.boot);
        let mut most = latest(answers).max(counter);
        let mut before: BTreeMap<_, _> = answers.iter().map(|it| (it.from, memory(it))).collect();
        loop {
            let topology = self.topologies.current();
            self.env.sleep(period(&topology) * PERIODS_WATCHED).await;
            let (env, me) = (&self.env, self.me);
            let answers = ask_all(env, &topology, me, PATIENCE, |_| None).await;
            most = most.max(latest(&answers));
            let is_still = |answer: &Answer| {
                is_known(&answer.reply, &self.runs, counter)
                    || before.get(&answer.from) == Some(&memory(answer))
            };
            let nobody_runs = !answers.is_empty() && answers.iter().all(is_still);
            if nobody_runs && self.put_loss_on_record(&topology, most, &answers).await {
                return;
            }
            before.extend(answers.iter().map(|it| (it.from, memory(it))));
        }
    }

    /// What the others remember is what the disk lacks: puts that on record, and has the node end. Says whether it could.
    async fn put_loss_on_record(
        &self,
        topology: &Topology,
        latest: u64,
        answers: &[Answer],
    ) -> bool {
        let mut batch = WriteBatch::new();
        batch.use_reserve();
        batch.put(&counter_key(), &(latest + 1).to_le_bytes());
        let noted = async {
            keep_runs(&Runs::after_loss(latest + 1 + ONE_ROUND), &mut batch)?;
            let of = (topology, self.me);
            let record = put_on_record(&mut batch, &self.env, &self.store, of, answers).await?;
            self.completeness.lose_everything(record, batch).await
        };
        let noted = noted.await;
        match &noted {
            Ok(()) => self.loss.notify_one(),
            Err(error) => {
                tracing::error!(%error, "what this node's disk lacks cannot be put on record yet");
            }
        }
        noted.is_ok()
    }

    async fn raise_to(&self, counter: u64) -> Result<(), StoreError> {
        let mut batch = WriteBatch::new();
        batch.use_reserve();
        batch.put(&counter_key(), &counter.to_le_bytes());
        committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        self.counter.store(counter, Ordering::Relaxed);
        Ok(())
    }
}

fn counter_key() -> Bytes {
    storage_key::system("boot")
}

fn runs_key() -> Bytes {
    storage_key::system("runs")
}

fn decode(bytes: &[u8]) -> Result<u64, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::Failed("a stored boot counter is damaged".to_owned()))?;
    Ok(u64::from_le_bytes(bytes))
}
