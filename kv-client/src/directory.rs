//! The topology a client routes by, and every address it ever learnt.
//!
//! 1. The epoch only grows, and every topology is of the cluster of the first.
//! 2. An address is never forgotten while there is room: after the seeds died, any node that was ever
//!    seen will do.
//! 3. One refresh at a time; those who come meanwhile take its result.
//! 4. A refresh asks several nodes at once and ends in bounded time.
//! 5. Whoever is told of a newer topology along with an answer asks who told, beside all else and not often: the one it has still
//!    serves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::{FuturesUnordered, StreamExt};
use kv_net::message::TopologyV1;
use kv_net::{Request, Response};
use kv_ring::{ChainEntry, Topology};
use kv_types::Epoch;

use crate::cluster_time::ClusterTime;
use crate::connect_error::ConnectError;
use crate::transport::{Destination, SendError, SendFault, Transport};

/// The longest refresh.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);
/// While nothing is amiss, a newer topology is looked for this often at most.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// Nodes that one refresh asks.
const MOST_ASKED: usize = 8;
/// Addresses that are remembered.
const MOST_REMEMBERED: usize = 4096;

/// The current topology and the addresses of everyone who may know a newer one.
#[derive(Debug)]
pub(crate) struct Directory {
    current: ArcSwap<Topology>,
    time: ClusterTime,
    remembered: Mutex<BTreeSet<Destination>>,
    refreshing: tokio::sync::Mutex<()>,
    /// When a newer topology was looked for that a node told of along with an answer.
    looked: Mutex<Option<Duration>>,
}

impl Directory {
    /// Asks all seeds at once and takes the first topology.
    pub(crate) async fn connect(
        transport: &dyn Transport,
        seeds: Vec<Arc<str>>,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let seeds: BTreeSet<Destination> = seeds
            .into_iter()
            .map(|address| Destination {
                node: None,
                address,
            })
            .collect();
        let time = ClusterTime::default();
        match ask(transport, &time, seeds.iter(), Epoch(1), timeout).await {
            Ok(topology) => {
                let directory = Self {
                    current: ArcSwap::from(topology),
                    time,
                    remembered: Mutex::new(seeds),
                    refreshing: tokio::sync::Mutex::default(),
                    looked: Mutex::default(),
                };
                directory.remember();
                Ok(directory)
            }
            Err(refusals) => Err(connect_error(refusals, timeout)),
        }
    }

    /// The time, by the clocks of most nodes where the own one is off.
    pub(crate) fn time(&self) -> &ClusterTime {
        &self.time
    }

    pub(crate) fn current(&self) -> Arc<Topology> {
        self.current.load_full()
    }

    /// Whether a topology is newer than the current one, and it is time to look for it.
    pub(crate) fn should_look(&self, told: Epoch, now: Duration) -> bool {
        if told <= self.current.load().epoch() {
            return false;
        }
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = looked.is_none_or(|last| now.saturating_sub(last) >= BETWEEN_LOOKS);
        if is_time {
            *looked = Some(now);
        }
        is_time
    }

    /// Takes the newest topology that one node knows.
    pub(crate) async fn look(&self, transport: &dyn Transport, wanted: Epoch, at: &Destination) {
        // Nobody waits for it, not even those who refresh because they must.
        let asked = core::iter::once(at);
        let found = ask(transport, &self.time, asked, wanted, REFRESH_TIMEOUT).await;
        let _one_at_a_time = self.refreshing.lock().await;
        self.take(found);
    }

    /// Looks for a topology of at least `wanted`; whether the current one is now that new.
    ///
    /// With `wanted` of 0, anything newer than the current one is looked for.
    pub(crate) async fn refresh(
        &self,
        transport: &dyn Transport,
        wanted: Epoch,
        first: &[Destination],
        timeout: Duration,
    ) -> bool {
        let before = self.current().epoch();
        let wanted = if wanted == Epoch(0) {
            before.next()
        } else {
            wanted
        };
        let _one_at_a_time = self.refreshing.lock().await;
        if self.current().epoch() >= wanted {
            return true;
        }
        let asked = self.whom_to_ask(first, transport.random());
        let timeout = timeout.min(REFRESH_TIMEOUT);
        let found = ask(transport, &self.time, asked.iter(), wanted, timeout).await;
        self.take(found);
        self.current().epoch() >= wanted
    }

    /// Keeps what was found, if it is newer and of this cluster.
    fn take<E>(&self, found: Result<Arc<Topology>, E>) {
        let current = self.current();
        if let Ok(found) = found
            && found.epoch() > current.epoch()
            && found.cluster_id() == current.cluster_id()
        {
            tracing::info!(epoch = found.epoch().0, "topology changed");
            self.current.store(found);
            self.remember();
        }
    }

    /// Those given, then members and remembered addresses from a random place on.
    fn whom_to_ask(&self, first: &[Destination], random: u64) -> Vec<Destination> {
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut asked: Vec<Destination> = first.to_vec();
        let skip = (random % remembered.len().max(1) as u64) as usize;
        for destination in remembered
            .iter()
            .skip(skip)
            .chain(remembered.iter().take(skip))
        {
            // The address of a seed is the address of a member too, most times.
            if asked
                .iter()
                .all(|other| other.address != destination.address)
            {
                asked.push(destination.clone());
            }
        }
        asked.truncate(MOST_ASKED);
        asked
    }

    fn remember(&self) {
        let topology = self.current();
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for member in topology.members() {
            if remembered.len() >= MOST_REMEMBERED {
                break;
            }
            let address = Arc::from(member.address.as_str());
            remembered.insert(Destination {
                node: Some(member.node),
                address,
            });
        }
    }
}

/// Asks everyone at once. Ends with the first topology of at least `wanted`; when there is none, with
/// the newest of the replies once all are in or the time is over.
async fn ask(
    transport: &dyn Transport,
    time: &ClusterTime,
    whom: impl Iterator<Item = &Destination>,
    wanted: Epoch,
    timeout: Duration,
) -> Result<Arc<Topology>, Vec<(Destination, SendError)>> {
    // Whoever names an epoch is told of the one after it, and so is led through all of them.
    let request = Request::Topology(TopologyV1 { known: Epoch(0) });
    let mut replies: FuturesUnordered<_> = whom
        .map(|to| {
            let call = transport.call(to, request.clone(), timeout);
            async move { (to, call.await) }
        })
        .collect();
    let mut newest: Option<Arc<Topology>> = None;
    let mut refusals = Vec::new();
    let sent = transport.now();
    while let Some((from, reply)) = replies.next().await {
        if let Ok(Response::Topology(told, _)) = &reply {
            time.learn(told.now_ms, (sent, transport.now()), transport.wall_ms());
        }
        match read_reply(reply) {
            Ok(Some(topology)) => {
                if newest
                    .as_ref()
                    .is_none_or(|other| topology.epoch() > other.epoch())
                {
                    newest = Some(topology);
                }
                if newest
                    .as_ref()
                    .is_some_and(|newest| newest.epoch() >= wanted)
                {
                    break;
                }
            }
            Ok(None) => {}
            Err(error) => refusals.push((from.clone(), error)),
        }
    }
    newest.ok_or(refusals)
}

/// The topology of a reply; `None` when the node knows none newer.
fn read_reply(reply: Result<Response, SendError>) -> Result<Option<Arc<Topology>>, SendError> {
    let malformed = |message: String| SendError {
        fault: SendFault::Malformed,
        outcome: kv_types::Outcome::NotApplied,
        message,
    };
    match reply? {
        Response::Topology(_, entry) if entry.is_empty() => Ok(None),
        Response::Topology(_, entry) => ChainEntry::decode(&entry)
            .map(|entry| Some(Arc::clone(entry.topology())))
            .map_err(|error| malformed(format!("its topology cannot be read: {error}"))),
        Response::Error(error) => Err(malformed(error.message)),
        _ => Err(malformed(
            "it answered a question that was not asked".to_owned(),
        )),
    }
}

fn connect_error(refusals: Vec<(Destination, SendError)>, waited: Duration) -> ConnectError {
    let untrusted = refusals
        .iter()
        .any(|(_, error)| error.fault == SendFault::Untrusted);
    let tried: Vec<String> = refusals
        .iter()
        .map(|(seed, error)| format!("{seed}: {error}"))
        .collect();
    match tried.is_empty() {
        true => ConnectError::NoContext {
            reason: "the list of seeds is empty".to_owned(),
        },
        false if untrusted => ConnectError::Untrusted { tried },
        false => ConnectError::NoAnswer { waited, tried },
    }
}
