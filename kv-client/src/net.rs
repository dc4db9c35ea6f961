//! The real transport: QUIC by kv-net, the clocks and the randomness of this machine.
//!
//! The only module of the crate that may use them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use kv_net::{
    CallError, Credentials, DialError, Endpoint, EndpointConfig, Peer, Request, Response,
};
use kv_types::Outcome;

use crate::connect_error::ConnectError;
use crate::transport::{Destination, SendError, SendFault, Transport};

/// How long a name that was looked up is believed.
const NAME_LIFETIME: Duration = Duration::from_secs(30);
const MOST_NAMES: usize = 1024;

/// Calls over mutual TLS; every node has one connection, made when it is first called.
pub(crate) struct NetTransport {
    endpoint: Endpoint,
    started: Instant,
    names: Arc<Names>,
    random: Mutex<fastrand::Rng>,
}

impl NetTransport {
    /// Opens a socket. Call it inside a tokio runtime.
    pub(crate) fn open(credentials: Credentials) -> Result<Self, ConnectError> {
        let endpoint =
            Endpoint::client(credentials, EndpointConfig::client()).map_err(|error| {
                ConnectError::Socket {
                    reason: error.to_string(),
                }
            })?;
        let seed = getrandom::u64().map_err(|error| ConnectError::Socket {
            reason: format!("no randomness: {error}"),
        })?;
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        Ok(Self {
            endpoint,
            started: Instant::now(),
            names: Arc::default(),
            random,
        })
    }
}

impl Transport for NetTransport {
    fn call(
        &self,
        to: &Destination,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Result<Response, SendError>> {
        let (endpoint, names, to) = (self.endpoint.clone(), Arc::clone(&self.names), to.clone());
        Box::pin(async move {
            let until = Instant::now() + budget;
            let lookup = tokio::time::timeout(budget, names.look_up(&to.address));
            let address = match lookup.await {
                Ok(found) => found?,
                Err(_) => return Err(unknown_name(&to.address, "the name service is silent")),
            };
            let peer = Peer {
                node: to.node,
                address,
            };
            let left = until.saturating_duration_since(Instant::now());
            let result = endpoint.call(&peer, request, left).await;
            if matches!(result, Err(CallError::Connect { .. })) {
                names.forget(&to.address);
            }
            result.map_err(|error| send_error(&error))
        })
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(pause))
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }

    fn random(&self) -> u64 {
        self.random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .u64(..)
    }
}

fn send_error(error: &CallError) -> SendError {
    let fault = match error {
        CallError::Connect { reason, .. } => match reason {
            DialError::Untrusted { .. } | DialError::Rejected { .. } => SendFault::Untrusted,
            DialError::NoAnswer { .. } | DialError::Closed { .. } | DialError::Local { .. } => {
                SendFault::Unreachable
            }
        },
        CallError::NotSent { .. } | CallError::Deadline { .. } => SendFault::Silent,
        CallError::Lost { .. } => SendFault::Lost,
        CallError::BadResponse { .. } => SendFault::Malformed,
        CallError::Busy { .. } => SendFault::Busy,
        CallError::TooLarge { .. } | CallError::Closed => SendFault::Unsendable,
    };
    SendError {
        fault,
        outcome: error.outcome(),
        message: error.to_string(),
    }
}

/// Addresses of names that were looked up lately.
#[derive(Default)]
struct Names {
    known: Mutex<BTreeMap<Arc<str>, (SocketAddr, Instant)>>,
}

impl Names {
    async fn look_up(&self, name: &Arc<str>) -> Result<SocketAddr, SendError> {
        if let Ok(address) = name.parse() {
            return Ok(address);
        }
        if let Some(&(address, at)) = self.lock().get(name)
            && at.elapsed() < NAME_LIFETIME
        {
            return Ok(address);
        }
        let asked = Arc::clone(name);
        let found = tokio::task::spawn_blocking(move || {
            asked
                .to_socket_addrs()
                .map(|mut addresses| addresses.next())
        });
        let address = match found.await {
            Ok(Ok(Some(address))) => address,
            Ok(Ok(None)) => return Err(unknown_name(name, "it has no address")),
            Ok(Err(error)) => return Err(unknown_name(name, error)),
            Err(_) => return Err(unknown_name(name, "the runtime is shutting down")),
        };
        let mut known = self.lock();
        if known.len() >= MOST_NAMES {
            known.clear();
        }
        known.insert(Arc::clone(name), (address, Instant::now()));
        Ok(address)
    }

    fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, (SocketAddr, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown_name(name: &str, reason: impl core::fmt::Display) -> SendError {
    SendError {
        fault: SendFault::Unreachable,
        outcome: Outcome::NotApplied,
        message: format!("cannot look up {name}: {reason}"),
    }
}
