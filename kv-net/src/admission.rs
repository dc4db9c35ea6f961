//! Which requests are let in: by method, role, and how much is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::config::EndpointConfig;
use crate::error::ErrorCode;
use crate::frame::{Header, VERSION};
use crate::identity::Role;
use crate::method::Method;
use crate::runtime::Runtime;
use crate::stats::Counters;

/// No caller is believed to wait longer than this.
const MAX_BUDGET: Duration = Duration::from_secs(600);

/// What is under way at an endpoint, for all its peers together.
#[derive(Debug)]
pub(crate) struct Load {
    requests: AtomicUsize,
    sessions: AtomicUsize,
    /// Told whenever `requests` or `sessions` becomes zero.
    is_less: Notify,
    is_draining: AtomicBool,
    is_farewell_said: AtomicBool,
    farewell: Notify,
    /// KiB that large requests of nodes may still take. Nodes have their own, so that clients
    /// cannot keep replicas from writing to each other.
    node_kib: Semaphore,
    other_kib: Semaphore,
}

impl Load {
    pub(crate) fn new(config: &EndpointConfig) -> Self {
        let kib = (config.max_large_request_bytes / 1024).min(Semaphore::MAX_PERMITS);
        Self {
            requests: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            is_less: Notify::new(),
            is_draining: AtomicBool::new(false),
            is_farewell_said: AtomicBool::new(false),
            farewell: Notify::new(),
            node_kib: Semaphore::new(kib),
            other_kib: Semaphore::new(kib),
        }
    }

    /// Refuses further connections, and answers further requests with `ShuttingDown`.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Has every session send what is left to send and say that it is the last.
    pub(crate) fn say_farewell(&self) {
        self.is_farewell_said.store(true, Ordering::SeqCst);
        self.farewell.notify_waiters();
    }

    /// Returns once [`Self::say_farewell`] was called.
    pub(crate) async fn farewell(&self) {
        // Made before the flag is looked at, so that it is not missed.
        let said = self.farewell.notified();
        if !self.is_farewell_said.load(Ordering::SeqCst) {
            said.await;
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Returns once no request is under way.
    pub(crate) async fn no_requests(&self) {
        self.none(&self.requests).await;
    }

    /// Returns once no accepted connection is open.
    pub(crate) async fn no_sessions(&self) {
        self.none(&self.sessions).await;
    }

    async fn none(&self, count: &AtomicUsize) {
        loop {
            // Made before the count is looked at, so that no change is missed.
            let is_less = self.is_less.notified();
            if count.load(Ordering::SeqCst) == 0 {
                return;
            }
            is_less.await;
        }
    }

    fn leave(&self, count: &AtomicUsize) {
        if count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.is_less.notify_waiters();
        }
    }

    fn large(&self, role: &Role, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let room = match role {
            Role::Node(_) => &self.node_kib,
            Role::Client(_) | Role::Admin(_) => &self.other_kib,
        };
        room.try_acquire_many(u32::try_from(bytes.div_ceil(1024)).ok()?)
            .ok()
    }
}

/// Lets the requests of one accepted connection in, and counts them while they are under way.
#[derive(Debug)]
pub(crate) struct Gate {
    runtime: Runtime,
    role: Role,
    limit: usize,
    under_way: Arc<AtomicUsize>,
    load: Arc<Load>,
    counters: Arc<Counters>,
}

/// A request that was let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) method: Method,
    pub(crate) deadline: Instant,
    pub(crate) slot: Slot,
}

/// Why a request is not let in. Nothing was done.
#[derive(Debug)]
pub(crate) enum Turned {
    /// It is answered with an error.
    Away(ErrorCode, String),
    /// Nobody waits for an answer any more.
    Expired,
}

impl Gate {
    pub(crate) fn new(
        role: Role,
        runtime: Runtime,
        config: &EndpointConfig,
        load: Arc<Load>,
        counters: Arc<Counters>,
    ) -> Self {
        let limit = match role {
            Role::Node(_) => config.max_requests_per_node,
            Role::Client(_) | Role::Admin(_) => config.max_requests_per_client,
        };
        load.sessions.fetch_add(1, Ordering::SeqCst);
        Self {
            runtime,
            role,
            limit,
            under_way: Arc::default(),
            load,
            counters,
        }
    }

    /// Lets a request in, or says why not. Nothing of the body is looked at before.
    pub(crate) fn admit(&self, header: &Header) -> Result<Admitted, Turned> {
        let (number, version) = (header.method, header.version);
        let Some(method) = Method::from_number(number).filter(|_| version == VERSION) else {
            let message = format!(
                "method {number} in version {version} is not known here: upgrade this node"
            );
            return Err(Turned::Away(ErrorCode::Unsupported, message));
        };
        if !self.role.may_call(method) {
            self.counters.denied();
            let message = format!(
                "{} may not call {method:?}: use a certificate that may",
                self.role
            );
            return Err(Turned::Away(ErrorCode::Denied, message));
        }
        if self.load.is_draining() {
            let message = "this node is stopping: try another".to_owned();
            return Err(Turned::Away(ErrorCode::ShuttingDown, message));
        }
        if header.deadline_ms == 0 {
            self.counters.expired();
            return Err(Turned::Expired);
        }
        let budget = Duration::from_millis(header.deadline_ms.into()).min(MAX_BUDGET);
        let deadline = self.runtime.now() + budget;
        let Some(slot) = self.take_slot() else {
            self.counters.overloaded();
            let limit = self.limit;
            let message = format!("{limit} requests of this connection are under way: send fewer");
            return Err(Turned::Away(ErrorCode::Overloaded, message));
        };
        Ok(Admitted {
            method,
            deadline,
            slot,
        })
    }

    /// As [`Self::admit`], for a request that also needs room for its many bytes.
    pub(crate) fn admit_large(
        &self,
        header: &Header,
    ) -> Result<(Admitted, SemaphorePermit<'_>), Turned> {
        let admitted = self.admit(header)?;
        match self.load.large(&self.role, header.payload_bytes()) {
            Some(room) => Ok((admitted, room)),
            None => {
                self.counters.overloaded();
                let message = "too many large requests are under way: send fewer".to_owned();
                Err(Turned::Away(ErrorCode::Overloaded, message))
            }
        }
    }

    fn take_slot(&self) -> Option<Slot> {
        let before = self.under_way.fetch_add(1, Ordering::SeqCst);
        self.load.requests.fetch_add(1, Ordering::SeqCst);
        let slot = Slot {
            under_way: Arc::clone(&self.under_way),
            load: Arc::clone(&self.load),
        };
        (before < self.limit).then_some(slot)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.load.leave(&self.load.sessions);
    }
}

/// A place among the requests under way, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    under_way: Arc<AtomicUsize>,
    load: Arc<Load>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.load.leave(&self.load.requests);
    }
}
