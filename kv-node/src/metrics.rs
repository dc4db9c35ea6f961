//! What a node counts, and how it shows it: percentiles for people, Prometheus text for scrapers.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram as Percentiles;
use kv_ring::Topology;
use kv_types::Outcome;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::anti_entropy::exchange::Counts;
use crate::clock_watch::ClockWatch;
use crate::completeness::Completeness;
use crate::healing::Damages;
use crate::hints::Kept;
use crate::membership::Membership;
use crate::refusal::Refusal;
use crate::replica::Replica;
use crate::replica::read_stages::ReadStages;
use crate::store::Store;
use crate::tombstones::{self, Overdue};
use crate::topologies::Topologies;

/// Of how many partitions it is shown for how long their deletions wait: a cluster may have thousands.
const MOST_PLACES: usize = 32;

/// What clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Operation {
    /// Reads of a key.
    Get,
    /// Writes of a key, deletions among them.
    Put,
    /// Pages of a partition.
    List,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Get, Self::Put, Self::List];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    bucket: String,
    partition: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    operation: Operation,
    code: String,
    outcome: &'static str,
}

/// The figures of one operation; its handles are resolved once.
struct Figures {
    done: Counter,
    seconds: Histogram,
    micros: Mutex<Percentiles<u64>>,
}

/// A node's figures since its start.
pub struct Metrics {
    /// Held while the text is made: its figures are set first.
    telling: Mutex<()>,
    registry: Registry,
    figures: [Figures; 3],
    failures: Family<FailureLabels, Counter>,
    failed: Counter,
    read_repairs: Counter,
    read_hedges: Counter,
    storage: StorageGauges,
    gossip_bytes: Gauge,
    epoch: Gauge,
    members_up: Gauge,
    hints: HintGauges,
    repair: RepairGauges,
    deletions: DeletionGauges,
    incomplete: Gauge,
    topology_fork: Gauge,
    cut_out: Gauge,
    clock_behind_ms: Gauge,
}

#[derive(Default)]
struct DeletionGauges {
    forgotten: Gauge,
    late: Gauge,
    overdue: Gauge,
    overdue_places: Family<PlaceLabels, Gauge>,
}

#[derive(Default)]
struct RepairGauges {
    rounds: Gauge,
    fetched: Gauge,
    sent: Gauge,
}

/// Where figures come from that are read when they are asked for.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The engine.
    pub store: &'a Store,
    /// The members.
    pub membership: &'a Membership,
    /// The topology.
    pub topologies: &'a Topologies,
    /// What is kept for others.
    pub kept: &'a Kept,
    /// What comparing with peers came to.
    pub repairs: &'a Counts,
    /// What forgetting deletions came to.
    pub deletions: &'a tombstones::Counts,
    /// What of the node's copies counts.
    pub completeness: &'a Completeness,
    /// What was damaged.
    pub damages: &'a Damages,
    /// The copies.
    pub replica: &'a Replica,
    /// How its clock goes.
    pub watch: &'a ClockWatch,
}

#[derive(Default)]
struct HintGauges {
    objects: Gauge,
    bytes: Gauge,
    delivered: Gauge,
    refused: Gauge,
}

#[derive(Default)]
struct StorageGauges {
    entries: Gauge,
    disk_bytes: Gauge,
    free_bytes: Gauge,
    torn_tails: Gauge,
    flushes: Gauge,
    compactions: Gauge,
    damaged_places: Gauge,
    poisoned: Gauge,
    reads: Family<StageLabels, Gauge>,
    row_cache_bytes: Gauge,
    block_cache_bytes: Gauge,
    block_cache_hits: Gauge,
    block_cache_misses: Gauge,
    filter_skips: Gauge,
}

/// Largest latency kept apart, in microseconds: a minute.
const MAX_MICROS: u64 = 60_000_000;

impl Metrics {
    /// Registers everything.
    ///
    /// # Panics
    /// Never: the bounds of the percentiles are constants that the library accepts.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kv");
        let figures = Operation::ALL.map(|operation| {
            let name = format!("{operation:?}").to_lowercase();
            let figures = Figures {
                done: Counter::default(),
                seconds: Histogram::new([
                    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0,
                ]),
                micros: Mutex::new(
                    Percentiles::new_with_bounds(1, MAX_MICROS, 2).expect("constant bounds"),
                ),
            };
            let help = format!("Client {name} requests coordinated here");
            registry.register(format!("{name}_requests"), help, figures.done.clone());
            let help = format!("Time to answer client {name} requests");
            registry.register_with_unit(
                format!("{name}_duration"),
                help,
                Unit::Seconds,
                figures.seconds.clone(),
            );
            figures
        });
        let metrics = Self {
            telling: Mutex::default(),
            figures,
            failures: Family::default(),
            failed: Counter::default(),
            read_repairs: Counter::default(),
            read_hedges: Counter::default(),
            storage: StorageGauges::default(),
            gossip_bytes: Gauge::default(),
            epoch: Gauge::default(),
            members_up: Gauge::default(),
            hints: HintGauges::default(),
            repair: RepairGauges::default(),
            deletions: DeletionGauges::default(),
            incomplete: Gauge::default(),
            topology_fork: Gauge::default(),
            cut_out: Gauge::default(),
            clock_behind_ms: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "failed_requests",
            "Client requests that were not done, by reason",
            metrics.failures.clone(),
        );
        registry.register(
            "storage_entries",
            "Entries in the engine, as it estimates",
            metrics.storage.entries.clone(),
        );
        registry.register(
            "storage_disk_bytes",
            "Bytes of the engine's files",
            metrics.storage.disk_bytes.clone(),
        );
        registry.register(
            "storage_free_bytes",
            "Bytes free on the engine's disk",
            metrics.storage.free_bytes.clone(),
        );
        registry.register(
            "storage_torn_tails",
            "1 if the log ended in torn writes, which nobody was promised, when the node was started",
            metrics.storage.torn_tails.clone(),
        );
        registry.register(
            "read_repairs",
            "Replicas that were sent what a read coordinated here had found them to miss",
            metrics.read_repairs.clone(),
        );
        registry.register(
            "read_hedges",
            "Replicas that reads coordinated here asked beyond those they need, because an answer was late",
            metrics.read_hedges.clone(),
        );
        registry.register(
            "storage_flushes",
            "Flushes of the engine since the start",
            metrics.storage.flushes.clone(),
        );
        registry.register(
            "storage_compactions",
            "Compactions of the engine that ended since the start",
            metrics.storage.compactions.clone(),
        );
        registry.register(
            "storage_damaged_places",
            "Places on the engine's disk that were found to be damaged since the start",
            metrics.storage.damaged_places.clone(),
        );
        registry.register(
            "storage_poisoned",
            "1 if a failed disk ended all writing until a restart",
            metrics.storage.poisoned.clone(),
        );
        registry.register(
            "replica_reads",
            "Reads of copies held here since the start, by where they were found",
            metrics.storage.reads.clone(),
        );
        registry.register(
            "storage_row_cache_bytes",
            "Bytes of single rows that are kept in memory",
            metrics.storage.row_cache_bytes.clone(),
        );
        registry.register(
            "storage_block_cache_bytes",
            "Bytes of blocks of tables that are kept in memory",
            metrics.storage.block_cache_bytes.clone(),
        );
        registry.register(
            "storage_block_cache_hits",
            "Lookups that found their block in memory, since the start",
            metrics.storage.block_cache_hits.clone(),
        );
        registry.register(
            "storage_block_cache_misses",
            "Lookups that had to read their block from the disk, since the start",
            metrics.storage.block_cache_misses.clone(),
        );
        registry.register(
            "storage_filter_skips",
            "Tables that lookups passed by since the start, because a bloom filter knew that the key is not there",
            metrics.storage.filter_skips.clone(),
        );
        registry.register(
            "gossip_sent_bytes",
            "Bytes of gossip sent since the start",
            metrics.gossip_bytes.clone(),
        );
        registry.register(
            "topology_epoch",
            "Newest topology epoch known here",
            metrics.epoch.clone(),
        );
        registry.register(
            "members_up",
            "Members that answer, as seen from here",
            metrics.members_up.clone(),
        );
        registry.register(
            "anti_entropy_rounds",
            "Comparisons with peers that ended since the start",
            metrics.repair.rounds.clone(),
        );
        registry.register(
            "anti_entropy_fetched",
            "Objects that comparisons fetched from peers since the start",
            metrics.repair.fetched.clone(),
        );
        registry.register(
            "anti_entropy_sent",
            "Objects that comparisons brought to peers since the start",
            metrics.repair.sent.clone(),
        );
        registry.register(
            "deletions_forgotten",
            "Deletions that every replica had and that were forgotten here since the start",
            metrics.deletions.forgotten.clone(),
        );
        registry.register(
            "deletions_overdue_seconds",
            "Age, beyond the least, of the oldest deletion that cannot be forgotten yet",
            metrics.deletions.overdue.clone(),
        );
        registry.register(
            "partition_deletions_overdue_seconds",
            "The same for each of the 32 partitions where deletions wait longest",
            metrics.deletions.overdue_places.clone(),
        );
        registry.register(
            "late_values",
            "Values that arrived after they were deleted and the deletion forgotten, since the start",
            metrics.deletions.late.clone(),
        );
        registry.register(
            "incomplete_partitions",
            "Partitions of which a lost part has not been fetched from the other owners yet",
            metrics.incomplete.clone(),
        );
        registry.register(
            "topology_fork",
            "1 while a peer with another history of the topology was heard within a minute: nothing is changed in it meanwhile",
            metrics.topology_fork.clone(),
        );
        registry.register(
            "damage_cut_out",
            "Ranges of keys that were cut out of the store since the start because they could not be read",
            metrics.cut_out.clone(),
        );
        registry.register(
            "clock_behind_ms",
            "Milliseconds by which the clock is behind the median of all members, negative if it is ahead",
            metrics.clock_behind_ms.clone(),
        );
        registry.register(
            "hint_objects",
            "Objects kept for nodes that are away",
            metrics.hints.objects.clone(),
        );
        registry.register(
            "hint_bytes",
            "Bytes of the objects kept for nodes that are away",
            metrics.hints.bytes.clone(),
        );
        registry.register(
            "hints_delivered",
            "Objects kept for other nodes that reached them since the start",
            metrics.hints.delivered.clone(),
        );
        registry.register(
            "hints_refused",
            "Objects for other nodes that were not taken since the start, for want of room",
            metrics.hints.refused.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// Takes in a replica that a read found to be behind.
    pub fn read_repair(&self) {
        self.read_repairs.inc();
    }

    /// Takes in a replica that a read asks because others are late.
    pub fn read_hedge(&self) {
        self.read_hedges.inc();
    }

    /// Takes in a client request that was answered.
    pub fn record(&self, operation: Operation, took: Duration, refused: Option<&Refusal>) {
        let figures = self.of(operation);
        figures.done.inc();
        figures.seconds.observe(took.as_secs_f64());
        let micros = u64::try_from(took.as_micros())
            .unwrap_or(MAX_MICROS)
            .clamp(1, MAX_MICROS);
        figures
            .micros
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .saturating_record(micros);
        if let Some(refusal) = refused {
            let outcome = match refusal.outcome {
                Outcome::NotApplied => "not_applied",
                Outcome::Unknown => "unknown",
            };
            self.failed.inc();
            let code = format!("{:?}", refusal.code);
            self.failures
                .get_or_create(&FailureLabels {
                    operation,
                    code,
                    outcome,
                })
                .inc();
        }
    }

    /// Requests of one kind since the start.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.of(operation).done.get()
    }

    /// Requests that failed since the start.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.failed.get()
    }

    /// Median and 99th percentile since the start, in microseconds.
    #[must_use]
    pub fn percentiles(&self, operation: Operation) -> (u32, u32) {
        let micros = self
            .of(operation)
            .micros
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| u32::try_from(micros.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        (at(0.5), at(0.99))
    }

    fn set_overdue(&self, overdue: &[Overdue], topology: &Topology) {
        let seconds = |overdue: &Overdue| i64::try_from(overdue.by_ms / 1_000).unwrap_or(i64::MAX);
        self.deletions
            .overdue
            .set(overdue.first().map_or(0, seconds));
        let places = &self.deletions.overdue_places;
        places.clear();
        for overdue in overdue.iter().take(MOST_PLACES) {
            let (bucket, partition) = overdue.place;
            let Some(bucket) = topology.bucket(bucket) else {
                continue;
            };
            let labels = PlaceLabels {
                bucket: bucket.name.to_string(),
                partition: partition.0,
            };
            places.get_or_create(&labels).set(seconds(overdue));
        }
    }

    /// Everything as Prometheus text.
    #[must_use]
    pub fn text(&self, sources: &Sources<'_>) -> String {
        let Sources {
            store,
            membership,
            topologies,
            kept,
            repairs,
            deletions,
            completeness,
            damages,
            replica,
            watch,
        } = sources;
        let _telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let pending = kept.total();
        let count = |counter: &AtomicU64| gauge(counter.load(Ordering::Relaxed));
        self.repair.rounds.set(count(&repairs.rounds));
        self.repair.fetched.set(count(&repairs.fetched));
        self.repair.sent.set(count(&repairs.sent));
        self.deletions.forgotten.set(count(&deletions.forgotten));
        self.deletions.late.set(count(&deletions.late));
        self.set_overdue(&deletions.overdue(), &topologies.current());
        let missing = u64::try_from(completeness.missing()).unwrap_or(u64::MAX);
        self.incomplete.set(gauge(missing));
        let fork = u64::from(membership.has_met_fork());
        self.topology_fork.set(gauge(fork));
        self.cut_out.set(gauge(damages.cut_out()));
        self.clock_behind_ms.set(watch.behind_ms());
        self.hints.objects.set(gauge(pending.objects));
        self.hints.bytes.set(gauge(pending.bytes));
        self.hints.delivered.set(gauge(kept.delivered()));
        self.hints.refused.set(gauge(kept.refused()));
        let usage = store.usage();
        self.storage.entries.set(gauge(usage.entries));
        self.storage.disk_bytes.set(gauge(usage.disk_bytes));
        self.storage.free_bytes.set(gauge(usage.free_bytes));
        self.storage.torn_tails.set(gauge(usage.torn_tails));
        self.storage.flushes.set(gauge(usage.flushes));
        self.storage.compactions.set(gauge(usage.compactions));
        self.storage.damaged_places.set(gauge(usage.damaged_places));
        self.storage.poisoned.set(i64::from(usage.poisoned));
        self.storage
            .row_cache_bytes
            .set(gauge(usage.row_cache_bytes));
        self.storage
            .block_cache_bytes
            .set(gauge(usage.block_cache_bytes));
        self.storage
            .block_cache_hits
            .set(gauge(usage.block_cache_hits));
        self.storage
            .block_cache_misses
            .set(gauge(usage.block_cache_misses));
        self.storage.filter_skips.set(gauge(usage.filter_skips));
        for (stage, count) in ReadStages::NAMES.into_iter().zip(replica.reads().counts()) {
            let reads = self.storage.reads.get_or_create(&StageLabels { stage });
            reads.set(gauge(count));
        }
        self.gossip_bytes.set(gauge(membership.stats().bytes_sent));
        self.epoch.set(gauge(topologies.current().epoch().0));
        let up = membership
            .views()
            .iter()
            .filter(|view| view.state == kv_net::message::MemberState::Up)
            .count();
        self.members_up.set(gauge(up as u64));
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            let _ = writeln!(text, "# metrics could not be written");
        }
        text
    }

    fn of(&self, operation: Operation) -> &Figures {
        let [get, put, list] = &self.figures;
        match operation {
            Operation::Get => get,
            Operation::Put => put,
            Operation::List => list,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
