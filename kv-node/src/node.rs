//! A node: the one place where its components are made and joined.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_net::message::{Request, Response};
use kv_net::{ErrorCode, Role};
use kv_ring::{ChainHash, MemberState, Removal, Topology};
use kv_storage::fs::replace_file;
use kv_storage::{Db, Events, WriteObserver};
use kv_types::{ActorId, ClusterId, Epoch, Hlc, NodeId, planted};
use tokio::sync::{Notify, watch};

use crate::anti_entropy::answers::Answers;
use crate::anti_entropy::exchange::{Counts, Exchange};
use crate::anti_entropy::pace::Pace;
use crate::anti_entropy::trees::Trees;
use crate::changes::Changes;
use crate::clock_watch::ClockWatch;
use crate::completeness::Completeness;
use crate::completeness::boots::{self, Boots, Started, Telling};
use crate::completeness::recovery::Recovery;
use crate::coordinator::Coordinator;
use crate::env::Env;
use crate::fates::Fates;
use crate::fates::settled::Settled;
use crate::healing::{self, Damages, Healing, ScrubOptions};
use crate::hints::delivery::Delivery;
use crate::hints::{HintOptions, Kept};
use crate::liveness::Liveness;
use crate::membership::Membership;
use crate::metrics::Metrics;
use crate::minter::Minter;
use crate::moves::{Gains, Heir, Losses};
use crate::reaper::Reaper;
use crate::refusal::Refusal;
use crate::replica::{PageLimits, Parts, Replica};
use crate::service::Service;
use crate::storage_key;
use crate::store::{Store, StoreError};
use crate::tombstones::answers::Forgetting;
use crate::tombstones::floor::Floor;
use crate::tombstones::promises::Promises;
use crate::tombstones::rounds::Rounds;
use crate::tombstones::watermarks::Watermarks;
use crate::tombstones::{self, DeleteOptions};
use crate::topologies::{BeforeAdoption as _, Topologies, TopologyError};
use crate::voting::Voting;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Which node this is: the id in its certificate.
    pub node: NodeId,
    /// Which cluster it belongs to: the id in its certificate.
    pub cluster: ClusterId,
    /// Its data directory.
    pub data: PathBuf,
    /// The engine's options.
    pub storage: kv_storage::Options,
    /// The timings of gossip.
    pub gossip: kv_gossip::Config,
    /// How much is kept for owners that are away.
    pub hints: HintOptions,
    /// When deletions are forgotten.
    pub deletes: DeleteOptions,
    /// How its disk is read in the background, to find damage.
    pub scrub: ScrubOptions,
    /// How many bytes a second it fetches of what it lacks or gains; 0 is no limit.
    pub fetch_bytes_per_s: u64,
    /// How much is gone through for one answer.
    pub pages: PageLimits,
    /// How many topologies are kept: whoever is further behind leaves some out.
    pub history: usize,
}

/// In the data directory of a node that has run: if its store is empty again, it was lost.
const STARTED_FILE: &str = "started";

/// In the data directory of a node that has become a member later than at genesis, until it is started first: that its store is
/// empty means nothing then.
pub const JOINS_FILE: &str = "joins";

/// How often it is looked whether this node is a member still.
const REMOVAL_PERIOD: Duration = Duration::from_millis(500);

/// Why a node did not start. Nothing was changed, but that its boot counter may have risen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory belongs to another node: point `data` at this node's own directory.
    #[error("the data directory {} belongs to node {found}, but the certificate is for node {expected}; use the directory or the certificate of the other", data.display())]
    OtherNode {
        /// The directory.
        data: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who starts.
        expected: NodeId,
    },
    /// The data directory belongs to another cluster.
    #[error("the data directory {} belongs to cluster {found}, but the certificate is for cluster {expected}; use the directory or the certificate of the other", data.display())]
    OtherCluster {
        /// The directory.
        data: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Who starts.
        expected: ClusterId,
    },
    /// The topology does not list this node.
    #[error(
        "node {node} is not a member of cluster {cluster} at epoch {epoch}; it was never added, or it was removed"
    )]
    NotMember {
        /// Who starts.
        node: NodeId,
        /// The cluster's name.
        cluster: String,
        /// The newest epoch in the data directory.
        epoch: Epoch,
    },
    /// The topology cannot be read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The engine cannot be opened.
    #[error(transparent)]
    Open(#[from] kv_storage::OpenError),
    /// The engine cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running node. Drop all references and its tasks to end it as a crash would.
#[derive(Debug)]
pub struct Node {
    env: Env,
    service: Arc<Service>,
    membership: Arc<Membership>,
    store: Store,
    boot_counter: Arc<AtomicU64>,
    loss: Arc<Notify>,
    in_flight: Arc<InFlight>,
}

impl Node {
    /// Opens the data directory and starts the background work. Requests may come at once.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong and what to do.
    pub async fn start(options: NodeOptions, env: Env) -> Result<Arc<Self>, StartError> {
        let NodeOptions {
            node,
            cluster,
            data,
            storage,
            gossip,
            hints,
            deletes,
            scrub,
            fetch_bytes_per_s,
            pages,
            history,
        } = options;
        let topologies = Arc::new(Topologies::open(
            Arc::clone(&env.fs),
            Arc::clone(&env.jobs),
            &data.join("topology"),
            history,
        )?);
        let topology = topologies.current();
        let actor = belongs(&topology, node, cluster, &data)?;

        let trees = Arc::new(Trees::new(
            topology.partition_count(),
            env.host.random() | 1,
        ));
        let observer = Arc::clone(&trees) as Arc<dyn WriteObserver>;
        let damages = Arc::new(Damages::default());
        let events = Arc::clone(&damages) as Arc<dyn Events>;
        let store = Store::open(&data.join("store"), storage, &env, observer, events)?;
        // Nobody writes user data yet, so the snapshot shows all that the trees were not told of.
        trees.begin();
        let snapshot = store.db().snapshot();
        if let Some(found) = owner(&store).await?.filter(|found| *found != node) {
            return Err(StartError::OtherNode {
                data,
                found,
                expected: node,
            });
        }
        let watch = Arc::new(ClockWatch::default());
        let started = data.join(STARTED_FILE);
        let has_stored = owner(&store).await?.is_some();
        let was_started = env.fs.open(&started).is_ok();
        let joins = data.join(JOINS_FILE);
        let is_new = env.fs.open(&joins).is_ok();
        // Of the first members, who has never stored anything has heard of nothing since genesis; of later ones, who has
        // never run owns nothing and gains nothing.
        let mut partitions = topology.partition_count().iter();
        let is_unused = is_new && !partitions.any(|it| topology.has_or_drains(node, it));
        let has_lived = was_started || (topology.epoch() > Epoch::GENESIS && !is_unused);
        let is_emptied = !has_stored && has_lived;
        let Started {
            boot,
            runs,
            is_told,
        } = boots::count_start(&env, &store, &topology, node, is_emptied, &watch).await?;
        let completeness = Arc::new(Completeness::start(store.clone(), env.host.random()).await?);
        if is_told {
            completeness.was_told();
        }
        if !was_started {
            let written = replace_file(
                &*env.fs,
                &data,
                STARTED_FILE,
                b"this node has stored data\n",
            );
            written.map_err(|source| TopologyError::Io {
                action: "write",
                path: started,
                source,
            })?;
        }

        if is_new {
            let removed = env.fs.remove(&joins);
            removed.map_err(|source| TopologyError::Io {
                action: "remove",
                path: joins,
                source,
            })?;
        }

        env.spawn(store.clone().keep_time());
        let floor = Arc::new(Floor::start(store.clone(), env.clone(), deletes.keep).await?);
        let watermarks = Arc::new(Watermarks::start(env.clone(), store.clone()).await?);
        let deletions = Arc::new(tombstones::Counts::default());
        let actor = completeness.actor(actor);
        let minter = Minter::start(
            actor,
            store.clone(),
            env.clone(),
            floor.promised(),
            Arc::clone(&watch),
        )
        .await?;
        let liveness = Arc::new(Liveness::new(node, env.now()));
        let kept = Arc::new(Kept::new(hints));
        let replica = Arc::new(Replica::new(Parts {
            env: env.clone(),
            limits: pages,
            store: store.clone(),
            minter,
            topologies: Arc::clone(&topologies),
            kept: Arc::clone(&kept),
            floor: Arc::clone(&floor),
            settled: Settled::start(store.clone()).await?,
            watermarks: Arc::clone(&watermarks),
            completeness: Arc::clone(&completeness),
            counts: Arc::clone(&deletions),
        }));
        // Before anybody can tell this node of another topology.
        let heir = Heir {
            me: node,
            trees: Arc::clone(&trees),
            replica: Arc::clone(&replica),
            completeness: Arc::clone(&completeness),
        };
        let current = topologies.current();
        let prepared = heir.prepare(&current, &current).await;
        prepared.map_err(StoreError::Failed)?;
        if current.begins_generation() && !planted!("forget that members were given up") {
            // Put here by hand, so that no step led to it.
            completeness.note_loss(replica.minter().reading()).await?;
        }
        topologies.before_adoption(Arc::new(heir));
        let member = topology.member(node);
        let leaves = member.is_some_and(|member| member.state == MemberState::Leaving);
        let _ = kept.is_done(leaves);
        let counted = replica.count_stand_ins().await;
        counted.map_err(|refusal| StoreError::Failed(refusal.message))?;
        let metrics = Arc::new(Metrics::new());
        let coordinator = Arc::new(Coordinator::new(
            env.clone(),
            node,
            Arc::clone(&topologies),
            Arc::clone(&replica),
            Arc::clone(&liveness),
            Arc::clone(&metrics),
        ));
        let membership = Membership::start(
            env.clone(),
            gossip,
            node,
            boot,
            Arc::clone(&liveness),
            Arc::clone(&topologies),
            store.clone(),
        );
        let delivery = Delivery {
            env: env.clone(),
            me: node,
            topologies: Arc::clone(&topologies),
            replica: Arc::clone(&replica),
            liveness: Arc::clone(&liveness),
            kept: Arc::clone(&kept),
        };
        env.spawn(delivery.run());
        let exchange = Arc::new(Exchange {
            env: env.clone(),
            me: node,
            topologies: Arc::clone(&topologies),
            trees: Arc::clone(&trees),
            store: store.clone(),
            replica: Arc::clone(&replica),
            liveness: Arc::clone(&liveness),
            membership: Arc::clone(&membership),
            completeness: Arc::clone(&completeness),
            counts: Counts::default(),
            pace: Pace::new(fetch_bytes_per_s),
            rests: Mutex::default(),
        });
        env.spawn(Arc::clone(&exchange).run(snapshot));
        let forgetting = Forgetting {
            me: node,
            boot,
            topologies: Arc::clone(&topologies),
            membership: Arc::clone(&membership),
            replica: Arc::clone(&replica),
            kept: Arc::clone(&kept),
            floor: Arc::clone(&floor),
            watermarks: Arc::clone(&watermarks),
            completeness: Arc::clone(&completeness),
            counts: deletions,
        };
        let promises = Promises {
            env: env.clone(),
            forgetting: forgetting.clone(),
        };
        let rounds = Rounds {
            env: env.clone(),
            forgetting: forgetting.clone(),
            promises: promises.clone(),
            exchange: Arc::clone(&exchange),
            trouble: None,
            next: None,
            has_forgotten: false,
            looked: None,
            was_set: None,
        };
        env.spawn(rounds.run());
        let healing = Healing {
            env: env.clone(),
            me: node,
            damages: Arc::clone(&damages),
            store: store.clone(),
            topologies: Arc::clone(&topologies),
            trees: Arc::clone(&trees),
            replica: Arc::clone(&replica),
            watermarks: Arc::clone(&watermarks),
            completeness: Arc::clone(&completeness),
        };
        env.spawn(healing.run());
        env.spawn(healing::scrub(env.clone(), store.clone(), scrub));
        let reaper = Reaper {
            env: env.clone(),
            topologies: Arc::clone(&topologies),
            trees: Arc::clone(&trees),
            replica: Arc::clone(&replica),
        };
        env.spawn(reaper.run());
        let answers = Answers {
            me: node,
            topologies: Arc::clone(&topologies),
            trees: Arc::clone(&trees),
            replica: Arc::clone(&replica),
            completeness: Arc::clone(&completeness),
        };
        let voting = Arc::new(Voting::new(
            node,
            Arc::clone(&topologies),
            store.clone(),
            Arc::clone(&completeness),
        ));
        let changes = Changes {
            env: env.clone(),
            me: node,
            topologies: Arc::clone(&topologies),
            coordinator: Arc::clone(&coordinator),
            membership: Arc::clone(&membership),
            voting: Arc::clone(&voting),
        };
        let recovery = Recovery {
            env: env.clone(),
            me: node,
            topologies: Arc::clone(&topologies),
            completeness: Arc::clone(&completeness),
            exchange: Arc::clone(&exchange),
            changes: changes.clone(),
            replica: Arc::clone(&replica),
            floor,
            watermarks,
            kept: Arc::clone(&kept),
            liveness: Arc::clone(&liveness),
        };
        env.spawn(recovery.run());
        let gains = Gains {
            env: env.clone(),
            me: node,
            topologies: Arc::clone(&topologies),
            completeness: Arc::clone(&completeness),
            changes: changes.clone(),
            liveness,
            partly_since: None,
        };
        env.spawn(gains.run());
        let losses = Losses {
            env: env.clone(),
            me: node,
            topologies: Arc::clone(&topologies),
            trees: Arc::clone(&trees),
            replica: Arc::clone(&replica),
            completeness: Arc::clone(&completeness),
            exchange: Arc::clone(&exchange),
            kept: Arc::clone(&kept),
            liveness: Arc::clone(&exchange.liveness),
            changes: changes.clone(),
        };
        env.spawn(losses.run());
        let fates = Fates {
            env: env.clone(),
            coordinator: Arc::clone(&coordinator),
            promises,
        };
        let boot_counter = Arc::new(AtomicU64::new(boot));
        let loss = Arc::new(Notify::new());
        let telling = Telling {
            env: env.clone(),
            me: node,
            counter: Arc::clone(&boot_counter),
            runs,
            store: store.clone(),
            topologies: Arc::clone(&topologies),
            membership: Arc::clone(&membership),
            watch: Arc::clone(&watch),
            completeness: Arc::clone(&completeness),
            loss: Arc::clone(&loss),
        };
        env.spawn(telling.run());
        let service = Arc::new(Service {
            started: env.now(),
            env: env.clone(),
            me: node,
            topologies,
            coordinator,
            replica,
            membership: Arc::clone(&membership),
            store: store.clone(),
            metrics,
            kept,
            answers,
            exchange,
            forgetting,
            fates,
            boots: Boots::new(store.clone(), Arc::clone(&membership)),
            completeness,
            damages,
            watch,
            voting,
            changes,
        });
        tracing::info!(%node, boot, epoch = %topology.epoch(), "node started");
        Ok(Arc::new(Self {
            env,
            service,
            membership,
            store,
            boot_counter,
            loss,
            in_flight: Arc::default(),
        }))
    }

    /// Answers one request of an authenticated peer, within `budget`.
    pub fn handle(
        &self,
        from: Role,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Response> {
        let Some(counted) = InFlight::enter(&self.in_flight) else {
            let refusal = Refusal::new(
                ErrorCode::ShuttingDown,
                "this node is stopping; try another",
            );
            let response = refusal.reply(self.service.topologies.current().epoch());
            return Box::pin(std::future::ready(response));
        };
        let answer = Arc::clone(&self.service).handle(from, request, budget);
        Box::pin(async move {
            let response = answer.await;
            drop(counted);
            response
        })
    }

    /// Takes in gossip of an authenticated node.
    pub fn gossip(&self, from: NodeId, bytes: Bytes) {
        self.membership.on_message(from, bytes);
    }

    /// The metrics as Prometheus text.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.service.metrics_text()
    }

    /// The boot counter, which rises with every start and while the node runs; on its disk it is this, or one more.
    #[must_use]
    pub fn boot_counter(&self) -> u64 {
        self.boot_counter.load(Ordering::Relaxed)
    }

    /// Ends when it has turned out after the start that this node's disk was rolled back, copied or emptied. That is on record
    /// by then, and the node answers nothing: stop it and start it again, and it fetches what it lacks. For one waiter.
    pub async fn loss(&self) {
        self.loss.notified().await;
    }

    /// Ends when this node learns that it is no member any more, and another one knows it, too; says how that came.
    pub async fn removal(&self) -> Removal {
        let node = self.service.me;
        loop {
            if let Some(removal) = self.topology().removed().get(&node) {
                self.service.changes.until_another_knows().await;
                return *removal;
            }
            self.env.sleep(REMOVAL_PERIOD).await;
        }
    }

    /// Its engine, to look at what is stored.
    #[must_use]
    pub fn engine(&self) -> &Db {
        self.store.db()
    }

    /// A point between what this node minted before it started and what it mints since.
    #[must_use]
    pub fn began(&self) -> Hlc {
        self.service.replica.minter().began()
    }

    /// For whom this node keeps something.
    #[must_use]
    pub fn kept_for_others(&self) -> Vec<NodeId> {
        self.service.kept.owners()
    }

    /// The topology that this node lives by.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.service.topologies.current()
    }

    /// The history of the topology, epoch by epoch, as far as it is kept here.
    #[must_use]
    pub fn topology_entries(&self) -> Vec<(Epoch, Bytes)> {
        self.service.topologies.entries()
    }

    /// The epoch of that topology, and the hash of its history.
    #[must_use]
    pub fn topology_tip(&self) -> (Epoch, ChainHash) {
        let (topology, hash) = self.service.topologies.tip();
        (topology.epoch(), hash)
    }

    /// Stops in good order: tells the others, ends what is in flight (for at most `grace`), makes
    /// everything durable.
    ///
    /// # Errors
    /// The engine's, when it cannot be closed cleanly; a later start recovers from the log.
    pub async fn stop(&self, grace: Duration) -> Result<(), kv_storage::Error> {
        self.in_flight.close();
        self.membership.leave().await;
        if self
            .env
            .timeout(grace, self.in_flight.ended())
            .await
            .is_err()
        {
            tracing::warn!("requests were still in flight after {grace:?}");
        }
        self.store.db().close()
    }
}

/// Requests being answered; closed when the node stops.
#[derive(Debug)]
struct InFlight {
    count: AtomicUsize,
    open: watch::Sender<bool>,
    ended: Notify,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            open: watch::Sender::new(true),
            ended: Notify::new(),
        }
    }
}

/// One request being answered.
struct Counted(Arc<InFlight>);

impl InFlight {
    fn enter(this: &Arc<Self>) -> Option<Counted> {
        this.count.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(Arc::clone(this));
        (*this.open.borrow()).then_some(counted)
    }

    fn close(&self) {
        self.open.send_replace(false);
    }

    async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.ended.notify_one();
        }
    }
}

/// Checks that a topology is of this cluster and lists this node; returns the node's actor.
///
/// # Errors
/// [`StartError::OtherCluster`], [`StartError::NotMember`].
pub fn belongs(
    topology: &Topology,
    node: NodeId,
    cluster: ClusterId,
    data: &Path,
) -> Result<ActorId, StartError> {
    if topology.cluster_id() != cluster {
        let found = topology.cluster_id();
        return Err(StartError::OtherCluster {
            data: data.to_owned(),
            found,
            expected: cluster,
        });
    }
    match (topology.member(node), topology.actor_of(node)) {
        (Some(_), Some(actor)) => Ok(actor),
        _ => {
            let cluster = topology.cluster_name().to_owned();
            Err(StartError::NotMember {
                node,
                cluster,
                epoch: topology.epoch(),
            })
        }
    }
}

/// Which node wrote this store first.
async fn owner(store: &Store) -> Result<Option<NodeId>, StoreError> {
    let Some(found) = store.get(&storage_key::system("node")).await? else {
        return Ok(None);
    };
    let bytes = found.value[..].try_into().map_err(|_| damaged("node id"))?;
    Ok(Some(NodeId(u128::from_le_bytes(bytes))))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Failed(format!("the stored {what} is damaged"))
}
