//! The connections that this endpoint dials: one per peer, made when first needed.
//!
//! Invariants
//! 1. At most one dial to a peer is under way; everyone who needs it waits for that one.
//! 2. After a failed dial the peer is left alone for the back-off; calls fail at once meanwhile.
//! 3. A dial outlives the call that began it: the next call finds its result.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use kv_types::NodeId;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;

use crate::call::{DialError, Peer};
use crate::config::EndpointConfig;
use crate::dial;
use crate::link::Link;
use crate::runtime::Runtime;
use crate::stats::Counters;

/// Gossip that waits for a dial; older messages give way to newer ones.
const MAX_WAITING_GOSSIP: usize = 8;

type Dialled = Result<Arc<Link>, DialError>;

/// A dial that is under way, and then its result.
#[derive(Debug, Default)]
struct Dial {
    result: OnceLock<Dialled>,
    ended: Notify,
}

impl Dial {
    fn end(&self, result: Dialled) {
        // A dial ends once.
        let _ = self.result.set(result);
        self.ended.notify_waiters();
    }

    async fn result(&self) -> &Dialled {
        loop {
            // Made before the result is looked for, so that it is not missed.
            let ended = self.ended.notified();
            if let Some(result) = self.result.get() {
                return result;
            }
            ended.await;
        }
    }
}

/// Why there is no connection to call over.
#[derive(Debug)]
pub(crate) enum NoLink {
    /// The dial did not end in time.
    Deadline,
    /// The dial failed, now or within the back-off.
    Failed(DialError),
}

/// All peers that were ever needed and are not forgotten.
#[derive(Debug)]
pub(crate) struct Pool {
    runtime: Runtime,
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    config: EndpointConfig,
    counters: Arc<Counters>,
    rng: Mutex<Rng>,
    slots: Mutex<BTreeMap<Name, Arc<Slot>>>,
}

/// What a connection is kept under: the node that is meant, or the address if that is all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Node(NodeId),
    Address(SocketAddr),
}

impl From<&Peer> for Name {
    fn from(peer: &Peer) -> Self {
        peer.node.map_or(Self::Address(peer.address), Self::Node)
    }
}

/// What is known of one peer.
#[derive(Debug, Default)]
struct Slot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    dial: Option<Arc<Dial>>,
    /// Failed dials since the last good one.
    failures: u32,
    last_failure: Option<Failure>,
    waiting_gossip: Vec<Bytes>,
}

#[derive(Debug)]
struct Failure {
    address: SocketAddr,
    until: Instant,
    reason: DialError,
}

impl Pool {
    pub(crate) fn new(
        runtime: Runtime,
        endpoint: quinn::Endpoint,
        client: quinn::ClientConfig,
        config: EndpointConfig,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            endpoint,
            client,
            config,
            counters,
            rng: Mutex::new(Rng::with_seed(seed())),
            slots: Mutex::default(),
        })
    }

    /// The connection to a peer, dialled if there is none.
    pub(crate) async fn link(
        self: &Arc<Self>,
        peer: &Peer,
        deadline: Instant,
    ) -> Result<Arc<Link>, NoLink> {
        let slot = self.slot(Name::from(peer));
        let dial = match self.link_or_dial(&slot, peer) {
            Ready::Link(link) => return Ok(link),
            Ready::Failed(reason) => return Err(NoLink::Failed(reason)),
            Ready::Dial(dial) => dial,
        };
        match self.runtime.timeout_at(deadline, dial.result()).await {
            Err(_elapsed) => Err(NoLink::Deadline),
            Ok(Ok(link)) => Ok(Arc::clone(link)),
            Ok(Err(reason)) => Err(NoLink::Failed(reason.clone())),
        }
    }

    /// Sends gossip if there is a connection; else begins to dial, and keeps the gossip for it.
    pub(crate) fn gossip(self: &Arc<Self>, peer: &Peer, bytes: Bytes) {
        let slot = self.slot(Name::from(peer));
        let is_sent = match self.link_or_dial(&slot, peer) {
            Ready::Link(link) => link.gossip(&bytes),
            Ready::Failed(_) => false,
            Ready::Dial(_) => {
                let mut state = slot.lock();
                match &state.link {
                    Some(link) => link.gossip(&bytes), // the dial ended in between
                    None => return state.keep_gossip(bytes, &self.counters),
                }
            }
        };
        self.counters.gossip(is_sent);
    }

    /// Uses a connection no more that failed before anything was sent over it.
    pub(crate) fn forget(&self, peer: &Peer, link: &Arc<Link>) {
        let slot = self.slot(Name::from(peer));
        let mut state = slot.lock();
        if state
            .link
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            state.link = None;
        }
    }

    fn link_or_dial(self: &Arc<Self>, slot: &Arc<Slot>, peer: &Peer) -> Ready {
        if let Some(link) = slot.live_link() {
            return Ready::Link(link);
        }
        let known = match peer.node {
            Some(_) => None,
            None => self.find_by_address(peer.address),
        };
        let mut state = slot.lock();
        if let Some(link) = &state.link {
            if link.is_up() {
                return Ready::Link(Arc::clone(link));
            }
            let lived = link.age();
            state.link = None;
            if lived < self.config.backoff_max {
                // A peer that lets us in and throws us out at once must not be dialled in a loop.
                let reason = "it closed the last connection soon after it was made".to_owned();
                let until = self.leave_alone(state.failures);
                state.fail(peer.address, DialError::Closed { reason }, until);
            }
        }
        if let Some(link) = known {
            state.link = Some(Arc::clone(&link));
            return Ready::Link(link);
        }
        if let Some(dial) = &state.dial {
            return Ready::Dial(Arc::clone(dial));
        }
        if let Some(failure) = &state.last_failure
            && failure.address == peer.address
            && self.runtime.now() < failure.until
        {
            return Ready::Failed(failure.reason.clone());
        }
        let dial = Arc::new(Dial::default());
        state.dial = Some(Arc::clone(&dial));
        self.runtime
            .spawn(Arc::clone(self).dial(Arc::clone(slot), *peer, Arc::clone(&dial)));
        Ready::Dial(dial)
    }

    async fn dial(self: Arc<Self>, slot: Arc<Slot>, peer: Peer, dial: Arc<Dial>) {
        let client = self.client.clone();
        let result = dial::dial(
            &self.endpoint,
            client,
            peer.address,
            peer.node,
            &self.config,
            &self.runtime,
        )
        .await;
        match &result {
            Ok(link) => {
                tracing::debug!(%peer, node = %link.node(), "connected");
                self.counters.dialled();
                if peer.node.is_none() {
                    self.slot(Name::Node(link.node())).adopt(link);
                }
            }
            Err(reason) => {
                tracing::debug!(%peer, %reason, "cannot connect");
                self.counters.dials_failed();
            }
        }
        self.finish_dial(&slot, &result, peer.address);
        dial.end(result);
    }

    fn finish_dial(&self, slot: &Slot, result: &Dialled, address: SocketAddr) {
        let mut state = slot.lock();
        state.dial = None;
        let gossip = std::mem::take(&mut state.waiting_gossip);
        match result {
            Ok(link) => {
                state.link = Some(Arc::clone(link));
                state.failures = 0;
                state.last_failure = None;
                for bytes in &gossip {
                    self.counters.gossip(link.gossip(bytes));
                }
            }
            Err(reason) => {
                let until = self.leave_alone(state.failures);
                state.fail(address, reason.clone(), until);
                gossip.iter().for_each(|_| self.counters.gossip_dropped());
            }
        }
    }

    /// Until when a peer is left alone that failed once more than so many times.
    fn leave_alone(&self, failures: u32) -> Instant {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        self.runtime.now() + backoff(failures.saturating_add(1), &self.config, &mut rng)
    }

    fn slot(&self, name: Name) -> Arc<Slot> {
        let mut slots = self.lock();
        if slots.len() >= self.config.max_peers && !slots.contains_key(&name) {
            slots.retain(|_, slot| slot.lock().is_in_use());
        }
        Arc::clone(slots.entry(name).or_default())
    }

    /// A live connection to an address, whoever it was dialled for.
    fn find_by_address(&self, address: SocketAddr) -> Option<Arc<Link>> {
        let slots = self.lock();
        slots
            .values()
            .find_map(|slot| slot.live_link().filter(|link| link.address() == address))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a slot can offer at once.
enum Ready {
    Link(Arc<Link>),
    Dial(Arc<Dial>),
    Failed(DialError),
}

impl Slot {
    fn live_link(&self) -> Option<Arc<Link>> {
        self.lock()
            .link
            .as_ref()
            .filter(|link| link.is_up())
            .map(Arc::clone)
    }

    /// Takes a connection that was dialled by address, unless there is a good one.
    fn adopt(&self, link: &Arc<Link>) {
        let mut state = self.lock();
        if !state.link.as_ref().is_some_and(|link| link.is_up()) {
            state.link = Some(Arc::clone(link));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes, so a poisoned state is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fail(&mut self, address: SocketAddr, reason: DialError, until: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(Failure {
            address,
            until,
            reason,
        });
    }

    fn keep_gossip(&mut self, bytes: Bytes, counters: &Counters) {
        if self.waiting_gossip.len() == MAX_WAITING_GOSSIP {
            self.waiting_gossip.remove(0);
            counters.gossip_dropped();
        }
        self.waiting_gossip.push(bytes);
    }

    fn is_in_use(&self) -> bool {
        self.dial.is_some() || self.link.as_ref().is_some_and(|link| link.is_up())
    }
}

/// The time to leave a peer alone after so many failures in a row, varied by a quarter so that many
/// peers of one restarted node do not come back in step.
fn backoff(failures: u32, config: &EndpointConfig, rng: &mut Rng) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = config
        .backoff_min
        .saturating_mul(1 << doublings)
        .min(config.backoff_max);
    full.mul_f64(0.75 + 0.5 * rng.f64())
}

/// Random bits from where the keys come from.
fn seed() -> u64 {
    let mut seed = [0; 8];
    SystemRandom::new()
        .fill(&mut seed)
        .expect("the operating system gives random bytes");
    u64::from_le_bytes(seed)
}
