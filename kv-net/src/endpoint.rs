//! The endpoint: what a node or a client talks to its peers through.

use core::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kv_types::{NodeId, planted};
use quinn::AsyncUdpSocket;

use crate::accept;
use crate::admission::Load;
use crate::call::{BindError, CallError, DialError, Peer};
use crate::codec;
use crate::config::EndpointConfig;
use crate::credentials::Credentials;
use crate::frame::MAX_CLIENT_PAYLOAD_BYTES;
use crate::handler::Handler;
use crate::link::{Link, LinkError};
use crate::message::{Request, Response};
use crate::method::Class;
use crate::pool::{NoLink, Pool};
use crate::runtime::Runtime;
use crate::session::Shared;
use crate::stats::{Counters, EndpointStats};
use crate::streams::CloseCode;
use crate::tls::Current;
use crate::transport;

/// A peer from which nothing has come for so long after a request was sent is taken for gone.
const MUTE_AFTER: Duration = Duration::from_millis(500);

/// How long the last packets of a closed endpoint may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// One UDP socket with all its connections, dialled and accepted. Cheap to clone, and shared
/// between threads.
///
/// Dropping the last clone closes it without grace. A connection serves requests in one direction
/// only, from the side that dialled it, so two nodes that call each other have two connections.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    endpoint: quinn::Endpoint,
    current: Arc<Current>,
    config: EndpointConfig,
    counters: Arc<Counters>,
    load: Arc<Load>,
    pool: Arc<Pool>,
    is_closed: AtomicBool,
}

impl Endpoint {
    /// Opens an endpoint that listens and dials. [`Self::serve`] begins to accept connections.
    ///
    /// # Errors
    /// [`BindError`], which names the address.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn bind(
        listen: SocketAddr,
        credentials: Credentials,
        config: EndpointConfig,
    ) -> Result<Self, BindError> {
        let identity = credentials.identity();
        if identity.node_id().is_none() {
            return Err(BindError::NotNode {
                role: identity.role.clone(),
            });
        }
        let socket = UdpSocket::bind(listen).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address: listen },
            _ => BindError::Address {
                address: listen,
                source,
            },
        })?;
        Self::on_tokio(socket, credentials, config, true).map_err(BindError::Socket)
    }

    /// Opens an endpoint that only dials, on a port that the system chooses.
    ///
    /// # Errors
    /// [`BindError`] when the system gives no socket.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn client(credentials: Credentials, config: EndpointConfig) -> Result<Self, BindError> {
        let socket = transport::ephemeral_socket().map_err(BindError::Socket)?;
        Self::on_tokio(socket, credentials, config, false).map_err(BindError::Socket)
    }

    fn on_tokio(
        socket: UdpSocket,
        credentials: Credentials,
        config: EndpointConfig,
        listens: bool,
    ) -> io::Result<Self> {
        let runtime: Arc<dyn quinn::Runtime> = Arc::new(quinn::TokioRuntime);
        let socket = runtime.wrap_udp_socket(socket)?;
        Self::open(socket, runtime, credentials, config, listens)
    }

    /// Opens an endpoint on a socket, time and tasks of the caller's making: how a simulator runs it.
    ///
    /// With a node's credentials it listens, too.
    ///
    /// # Errors
    /// What the socket says when it is asked for its address.
    pub fn on(
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn quinn::Runtime>,
        credentials: Credentials,
        config: EndpointConfig,
    ) -> io::Result<Self> {
        let listens = credentials.identity().node_id().is_some();
        Self::open(socket, runtime, credentials, config, listens)
    }

    fn open(
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn quinn::Runtime>,
        credentials: Credentials,
        config: EndpointConfig,
        listens: bool,
    ) -> io::Result<Self> {
        let runtime = Runtime::new(runtime);
        let quic = transport::endpoint(&credentials);
        let current = Current::new(credentials);
        let server = listens.then(|| transport::server(&current, &config));
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(quic, server, socket, runtime.inner())?;
        let counters = Arc::new(Counters::default());
        let client = transport::client(&current, &config);
        let pool = Pool::new(
            runtime.clone(),
            endpoint.clone(),
            client,
            config.clone(),
            Arc::clone(&counters),
        );
        let load = Arc::new(Load::new(&config));
        let is_closed = AtomicBool::new(false);
        let inner = Inner {
            runtime,
            endpoint,
            current,
            config,
            counters,
            load,
            pool,
            is_closed,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Accepts connections from now on, and hands their requests and gossip to `handler`.
    ///
    /// Call it once, on an endpoint made by [`Self::bind`].
    pub fn serve(&self, handler: Arc<dyn Handler>) {
        let shared = Shared {
            runtime: self.inner.runtime.clone(),
            handler,
            config: self.inner.config.clone(),
            counters: Arc::clone(&self.inner.counters),
            load: Arc::clone(&self.inner.load),
        };
        let endpoint = self.inner.endpoint.clone();
        self.inner
            .runtime
            .spawn(accept::accept(endpoint, Arc::new(shared)));
    }

    /// Sends a request in its method's usual class and awaits the response.
    ///
    /// A response may be [`Response::Error`]; the errors here are of the way there and back.
    /// Dropping the future cancels the call: the peer stops working on it if it can still be told.
    ///
    /// # Errors
    /// [`CallError`], whose outcome says whether the request may have had an effect.
    pub async fn call(
        &self,
        to: &Peer,
        request: Request,
        budget: Duration,
    ) -> Result<Response, CallError> {
        let class = request.method().class();
        self.call_in(class, to, request, budget).await
    }

    /// As [`Self::call`], in a class of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_in(
        &self,
        class: Class,
        to: &Peer,
        request: Request,
        budget: Duration,
    ) -> Result<Response, CallError> {
        self.inner.counters.calls();
        let result = self.try_call(class, to, &request, budget).await;
        if result.is_err() {
            self.inner.counters.calls_failed();
        }
        result
    }

    async fn try_call(
        &self,
        class: Class,
        to: &Peer,
        request: &Request,
        budget: Duration,
    ) -> Result<Response, CallError> {
        let deadline = self.inner.runtime.now() + budget;
        let method = request.method();
        let encoded = codec::encode_request(request);
        let size = encoded.payload_bytes();
        if size > MAX_CLIENT_PAYLOAD_BYTES {
            let limit = self.credentials().identity().role.longest_request();
            if size > limit {
                return Err(CallError::TooLarge { size, limit });
            }
        }
        let peer = *to;
        let mut is_retry = false;
        let frame = loop {
            let link = self.link(to, deadline, budget).await?;
            let (begun, heard) = (self.inner.runtime.now(), link.datagrams_heard());
            match link.call(class, &encoded, deadline).await {
                Ok(frame) => break frame,
                // Even a busy peer acknowledges datagrams. This one is gone, or knows nothing of the connection and
                // cannot say so: the next request finds out by dialling.
                Err(LinkError::Deadline)
                    if link.datagrams_heard() == heard
                        && self.inner.runtime.now() - begun >= MUTE_AFTER =>
                {
                    self.inner.pool.forget(to, &link);
                    return Err(call_error(LinkError::Deadline, peer, budget));
                }
                // Nothing was sent, so a fresh connection may be tried; once, for a peer that
                // closes every connection must not be dialled in a loop.
                Err(LinkError::Lost { .. })
                    if !is_retry && planted!("repeat a request that may have arrived") =>
                {
                    self.inner.pool.forget(to, &link);
                    is_retry = true;
                }
                Err(LinkError::LostBefore) if !is_retry => {
                    self.inner.pool.forget(to, &link);
                    is_retry = true;
                }
                Err(error) => return Err(call_error(error, peer, budget)),
            }
        };
        codec::decode_response(method, frame.header.method, &frame.payload)
            .map_err(|reason| CallError::BadResponse { peer, reason })
    }

    /// Asks who is at an address, by its certificate; how a seed of unknown id is met.
    ///
    /// # Errors
    /// [`CallError`] when nobody of this cluster can be reached there.
    pub async fn identify(
        &self,
        address: SocketAddr,
        budget: Duration,
    ) -> Result<NodeId, CallError> {
        let peer = Peer {
            node: None,
            address,
        };
        let deadline = self.inner.runtime.now() + budget;
        let link = self.link(&peer, deadline, budget).await?;
        Ok(link.node())
    }

    async fn link(
        &self,
        to: &Peer,
        deadline: Instant,
        budget: Duration,
    ) -> Result<Arc<Link>, CallError> {
        if self.inner.is_closed.load(Ordering::SeqCst) {
            return Err(CallError::Closed);
        }
        self.inner
            .pool
            .link(to, deadline)
            .await
            .map_err(|error| match error {
                NoLink::Deadline => CallError::NotSent { peer: *to, budget },
                NoLink::Failed(reason) => CallError::Connect { peer: *to, reason },
            })
    }

    /// Sends bytes of the gossip protocol without waiting and without knowing whether they arrive.
    ///
    /// They travel as a datagram if they fit into one, else on the control lane; beyond 64 KiB they
    /// are dropped. Without a connection one is dialled, and the newest few messages wait for it.
    pub fn gossip(&self, to: &Peer, bytes: Bytes) {
        if !self.inner.is_closed.load(Ordering::SeqCst) {
            self.inner.pool.gossip(to, bytes);
        }
    }

    /// Shows and trusts other credentials in every later handshake; live connections stay.
    ///
    /// # Errors
    /// [`OtherIdentity`] when the new certificate is not of the same cluster and role; then nothing
    /// is changed.
    pub fn replace_credentials(&self, credentials: Credentials) -> Result<(), OtherIdentity> {
        let current = self.inner.current.credentials();
        if credentials.identity() != current.identity() {
            return Err(OtherIdentity {
                current: current.identity().to_string(),
                new: credentials.identity().to_string(),
            });
        }
        self.inner.current.replace(credentials);
        Ok(())
    }

    /// The credentials in use.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.inner.current.credentials()
    }

    /// The address it listens on, with the port that the system chose if 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.endpoint.local_addr()
    }

    /// Its figures since it was opened.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        let connections = self.inner.endpoint.open_connections() as u64;
        self.inner
            .counters
            .read(connections, self.inner.load.requests() as u64)
    }

    /// Closes it: further connections are refused and further requests answered `ShuttingDown`,
    /// those under way have `grace` to end and their responses are delivered, then every connection
    /// is closed. Calls of our own go on during the grace.
    pub async fn close(&self, grace: Duration) {
        let (load, runtime) = (&self.inner.load, &self.inner.runtime);
        load.drain();
        let _ = runtime.timeout(grace, load.no_requests()).await;
        load.say_farewell();
        let _ = runtime
            .timeout(FAREWELL.min(grace), load.no_sessions())
            .await;
        self.inner.is_closed.store(true, Ordering::SeqCst);
        self.inner
            .endpoint
            .close(CloseCode::Shutdown.into(), b"the endpoint is closed");
        let _ = runtime
            .timeout(FAREWELL, self.inner.endpoint.wait_idle())
            .await;
    }
}

fn call_error(error: LinkError, peer: Peer, budget: Duration) -> CallError {
    match error {
        LinkError::LostBefore => {
            let reason = "the connection was lost before the request was sent".to_owned();
            CallError::Connect {
                peer,
                reason: DialError::Closed { reason },
            }
        }
        LinkError::NotSent => CallError::NotSent { peer, budget },
        LinkError::Busy { waiting } => CallError::Busy { peer, waiting },
        LinkError::Deadline => CallError::Deadline { peer, budget },
        LinkError::Lost { reason } => CallError::Lost { peer, reason },
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.endpoint
            .close(CloseCode::Shutdown.into(), b"the endpoint is closed");
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.local_addr().ok();
        f.debug_struct("Endpoint")
            .field("address", &address)
            .finish_non_exhaustive()
    }
}

/// Credentials were offered that speak for someone else. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the new certificate is of {new}, and this endpoint is {current}: restart to change that")]
pub struct OtherIdentity {
    current: String,
    new: String,
}
