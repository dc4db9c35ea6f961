//! A connection that this endpoint accepted: it receives requests and gossip, and sends responses.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use kv_types::{Epoch, Outcome};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::codec::{self, Encoded};
use crate::config::EndpointConfig;
use crate::error::ErrorCode;
use crate::frame::{
    Frame, FrameError, Header, Kind, MAX_LANE_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES, VERSION,
};
use crate::handler::Handler;
use crate::identity::{Identity, Role};
use crate::link::{HELLO, close_for, hello_header, read_hello};
use crate::message::{ErrorReplyV1, Response};
use crate::method::{Class, Method};
use crate::outbox::Outbox;
use crate::stats::Counters;
use crate::streams::{self, LaneReader, ResetOnDrop, StreamError};

/// No caller is believed to wait longer than this.
const MAX_BUDGET: Duration = Duration::from_secs(600);
const MAX_HELLO_BYTES: usize = 256;

/// What all sessions of an endpoint share.
pub(crate) struct Shared {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) config: EndpointConfig,
    pub(crate) counters: Arc<Counters>,
    pub(crate) load: Arc<Load>,
}

/// What is under way for all peers together.
#[derive(Debug)]
pub(crate) struct Load {
    requests: AtomicUsize,
    is_idle: Notify,
    is_draining: std::sync::atomic::AtomicBool,
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
            is_idle: Notify::new(),
            is_draining: false.into(),
            node_kib: Semaphore::new(kib),
            other_kib: Semaphore::new(kib),
        }
    }

    /// Answers further requests with `ShuttingDown`.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Returns once nothing is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.is_idle.notified();
            if self.requests() == 0 {
                return;
            }
            idle.await;
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

/// One accepted connection.
pub(crate) struct Session {
    connection: Connection,
    identity: Identity,
    shared: Arc<Shared>,
    requests: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The requests under way that came on lanes, by id.
    running: BTreeMap<u32, AbortHandle>,
    lanes: BTreeMap<Class, Arc<Outbox>>,
}

/// A request that was let in.
struct Admitted {
    method: Method,
    deadline: Instant,
    slot: Slot,
}

/// Why a request is not let in. Nothing was done.
enum Turned {
    /// It is answered with an error.
    Away(ErrorCode, String),
    /// Nobody waits for an answer any more.
    Expired,
}

impl Session {
    pub(crate) fn new(
        connection: Connection,
        identity: Identity,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connection,
            identity,
            shared,
            requests: AtomicUsize::new(0),
            state: Mutex::default(),
        })
    }

    /// Serves the connection until it is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        let introduction = timeout(
            self.shared.config.handshake_timeout,
            self.await_control_lane(),
        );
        match introduction.await {
            Ok(Ok(())) => loop {
                tokio::select! {
                    biased;
                    stream = self.connection.accept_bi() => match stream {
                        Ok((send, receive)) => drop(tokio::spawn(Arc::clone(&self).serve_stream(send, receive))),
                        Err(_closed) => break,
                    },
                    datagram = self.connection.read_datagram() => match datagram {
                        Ok(bytes) => self.on_datagram(bytes),
                        Err(_closed) => break,
                    },
                }
            },
            Ok(Err(error)) => self.break_off(&error),
            Err(_elapsed) => {
                self.break_off(&StreamError::TooSlow(self.shared.config.handshake_timeout));
            }
        }
        self.end();
    }

    /// The dialling side opens the control lane first, and nothing else before it has our hello.
    async fn await_control_lane(self: &Arc<Self>) -> Result<(), StreamError> {
        let accepted = self.connection.accept_bi().await;
        let (send, mut receive) = accepted.map_err(|e| StreamError::Ended(e.to_string()))?;
        let header = streams::read_header(&mut receive, MAX_HELLO_BYTES).await?;
        if header.kind != Kind::Hello || header.method != Class::Control.number() {
            return Err(FrameError::OutOfPlace { kind: header.kind }.into());
        }
        self.open_lane(header, send, receive).await
    }

    async fn serve_stream(self: Arc<Self>, send: SendStream, mut receive: RecvStream) {
        let patience = self.shared.config.partial_frame_timeout;
        let header = match timeout(
            patience,
            streams::read_header(&mut receive, MAX_PAYLOAD_BYTES),
        )
        .await
        {
            Ok(Ok(header)) => header,
            Ok(Err(StreamError::Ended(_))) => return,
            Ok(Err(error)) => return self.break_off(&error),
            Err(_elapsed) => return self.break_off(&StreamError::TooSlow(patience)),
        };
        match header.kind {
            Kind::Hello => {
                if let Err(error) = self.open_lane(header, send, receive).await {
                    self.break_off(&error);
                }
            }
            Kind::Request => self.serve_large(header, send, receive).await,
            kind @ (Kind::Response | Kind::Cancel | Kind::Gossip) => {
                self.break_off(&FrameError::OutOfPlace { kind }.into());
            }
        }
    }

    async fn open_lane(
        self: &Arc<Self>,
        header: Header,
        send: SendStream,
        mut receive: RecvStream,
    ) -> Result<(), StreamError> {
        let out_of_place = || StreamError::from(FrameError::OutOfPlace { kind: Kind::Hello });
        if header.payload_bytes() > MAX_HELLO_BYTES {
            let (len, limit) = (header.len, MAX_HELLO_BYTES);
            return Err(FrameError::TooLong { len, limit }.into());
        }
        let class = Class::from_number(header.method).ok_or_else(out_of_place)?;
        let payload = streams::read_payload(&mut receive, header).await?;
        read_hello(&Frame { header, payload }).map_err(|_| out_of_place())?;

        let outbox = Arc::new(Outbox::new(self.shared.config.max_waiting_bytes));
        if self
            .lock()
            .lanes
            .insert(class, Arc::clone(&outbox))
            .is_some()
        {
            return Err(out_of_place()); // one lane per class
        }
        let hello = codec::encode_whole(&HELLO);
        outbox.try_push(hello_header(class, &hello), &hello, &[]);
        let send = ResetOnDrop::new(send, class.priority());
        let sending = Arc::clone(&outbox);
        tokio::spawn(async move { sending.send_all(send).await });
        let reader = LaneReader::new(receive, self.shared.config.partial_frame_timeout);
        tokio::spawn(Arc::clone(self).read_lane(reader, outbox));
        Ok(())
    }

    async fn read_lane(self: Arc<Self>, mut reader: LaneReader, lane: Arc<Outbox>) {
        let error = loop {
            match reader.next_frame().await {
                Ok(frame) => match frame.header.kind {
                    Kind::Request => self.on_request(frame, &lane).await,
                    Kind::Cancel => self.on_cancel(frame.header.id),
                    Kind::Gossip => self.on_gossip(frame.payload),
                    kind @ (Kind::Hello | Kind::Response) => {
                        break FrameError::OutOfPlace { kind }.into();
                    }
                },
                Err(error) => break error,
            }
        };
        self.break_off(&error);
    }

    /// Starts a request that came on a lane, or turns it away.
    async fn on_request(self: &Arc<Self>, frame: Frame, lane: &Arc<Outbox>) {
        let id = frame.header.id;
        let admitted = match self.admit(&frame.header) {
            Ok(admitted) => admitted,
            Err(Turned::Expired) => return self.shared.counters.expired(),
            // Waiting here holds up this lane only, whose peer does not read its responses.
            Err(Turned::Away(code, message)) => {
                return reply_on_lane(lane, id, &refusal(code, message)).await;
            }
        };
        let (session, lane) = (Arc::clone(self), Arc::clone(lane));
        let mut state = self.lock();
        let task = tokio::spawn(async move {
            let _running = Running {
                session: &session,
                id,
            };
            let Admitted {
                method,
                deadline,
                slot: _slot,
            } = admitted;
            if let Some(response) = session.answer(method, &frame.payload, deadline).await {
                session.reply(&lane, id, &response, deadline).await;
            }
        });
        // The task removes itself under the lock that is held here, so it cannot be gone already.
        if let Some(earlier) = state.running.insert(id, task.abort_handle()) {
            earlier.abort(); // the peer used an id twice; only the newer request can be answered
        }
    }

    fn on_cancel(&self, id: u32) {
        let running = self.lock().running.remove(&id);
        if let Some(task) = running {
            task.abort();
            self.shared.counters.cancelled();
        }
    }

    fn on_datagram(&self, bytes: Bytes) {
        match Frame::parse_only(bytes, MAX_LANE_PAYLOAD_BYTES) {
            Ok(frame) if frame.header.kind == Kind::Gossip => self.on_gossip(frame.payload),
            Ok(frame) => self.break_off(
                &FrameError::OutOfPlace {
                    kind: frame.header.kind,
                }
                .into(),
            ),
            Err(error) => self.break_off(&error.into()),
        }
    }

    fn on_gossip(&self, bytes: Bytes) {
        match self.identity.role {
            Role::Node(from) => {
                self.shared.counters.gossip_received();
                self.shared.handler.gossip(from, bytes);
            }
            Role::Client(_) | Role::Admin(_) => self.shared.counters.denied(),
        }
    }

    /// Serves a request that has a stream of its own.
    async fn serve_large(
        self: Arc<Self>,
        header: Header,
        send: SendStream,
        mut receive: RecvStream,
    ) {
        let mut send = ResetOnDrop::for_large_frame(send);
        let admitted = match self.admit_large(&header) {
            Ok(admitted) => admitted,
            Err(Turned::Expired) => return self.shared.counters.expired(),
            Err(Turned::Away(code, message)) => {
                // A short answer: it fits into the stream's window without anybody reading it.
                let message = codec::encode_response(&refusal(code, message));
                let _ = send
                    .write_only_frame(response_header(&message, header.id), &message)
                    .await;
                return;
            }
        };
        let (
            Admitted {
                method,
                deadline,
                slot: _slot,
            },
            _room,
        ) = admitted;
        let serving = async {
            // An unfinished request had no effect; its caller knows that, for it reset the stream.
            let Ok(payload) = streams::read_payload(&mut receive, header).await else {
                return;
            };
            let response = tokio::select! {
                biased;
                response = self.answer(method, &payload, deadline) => response,
                () = send.no_longer_wanted() => {
                    self.shared.counters.cancelled();
                    None
                }
            };
            drop(payload);
            let Some(response) = response else { return };
            let message = within_limits(codec::encode_response(&response));
            let head = response_header(&message, header.id);
            let _ = send.write_only_frame(head, &message).await;
        };
        let _ = timeout_at(deadline, serving).await;
    }

    /// Lets a request in, or says why not. Nothing of the body is looked at before.
    fn admit(self: &Arc<Self>, header: &Header) -> Result<Admitted, Turned> {
        let (number, version) = (header.method, header.version);
        let Some(method) = Method::from_number(number).filter(|_| version == VERSION) else {
            let message = format!(
                "method {number} in version {version} is not known here: upgrade this node"
            );
            return Err(Turned::Away(ErrorCode::Unsupported, message));
        };
        let role = &self.identity.role;
        if !role.may_call(method) {
            self.shared.counters.denied();
            let message = format!("{role} may not call {method:?}: use a certificate that may");
            return Err(Turned::Away(ErrorCode::Denied, message));
        }
        if self.shared.load.is_draining.load(Ordering::SeqCst) {
            let message = "this node is stopping: try another".to_owned();
            return Err(Turned::Away(ErrorCode::ShuttingDown, message));
        }
        if header.deadline_ms == 0 {
            return Err(Turned::Expired);
        }
        let budget = Duration::from_millis(header.deadline_ms.into()).min(MAX_BUDGET);
        let deadline = Instant::now() + budget;
        let limit = match role {
            Role::Node(_) => self.shared.config.max_requests_per_node,
            Role::Client(_) | Role::Admin(_) => self.shared.config.max_requests_per_client,
        };
        let Some(slot) = Slot::take(self, limit) else {
            self.shared.counters.overloaded();
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
    fn admit_large(
        self: &Arc<Self>,
        header: &Header,
    ) -> Result<(Admitted, SemaphorePermit<'_>), Turned> {
        let admitted = self.admit(header)?;
        match self
            .shared
            .load
            .large(&self.identity.role, header.payload_bytes())
        {
            Some(room) => Ok((admitted, room)),
            None => {
                self.shared.counters.overloaded();
                let message = "too many large requests are under way: send fewer".to_owned();
                Err(Turned::Away(ErrorCode::Overloaded, message))
            }
        }
    }

    /// Decodes a request and has it handled; nothing is answered past the deadline.
    async fn answer(&self, method: Method, payload: &Bytes, deadline: Instant) -> Option<Response> {
        let request = match codec::decode_request(method, payload) {
            Ok(request) => request,
            Err(reason) => {
                let message = format!("the request is malformed: {reason}");
                return Some(refusal(ErrorCode::BadRequest, message));
            }
        };
        self.shared.counters.requests();
        let budget = deadline.saturating_duration_since(Instant::now());
        let handling = async {
            self.shared
                .handler
                .handle(&self.identity, request, budget)
                .await
        };
        // A defect in the handling of one request must neither silence it nor touch others.
        match timeout_at(deadline, AssertUnwindSafe(handling).catch_unwind()).await {
            Ok(Ok(response)) => Some(response),
            Ok(Err(_panic)) => {
                tracing::error!(?method, peer = %self.identity.role, "the handler panicked");
                let message = "a defect in the node, whose log has more".to_owned();
                Some(error(ErrorCode::Internal, Outcome::Unknown, message))
            }
            Err(_elapsed) => {
                self.shared.counters.expired();
                None
            }
        }
    }

    /// Sends the response to a request that came on a lane, there or on a stream of its own.
    async fn reply(&self, lane: &Outbox, id: u32, response: &Response, deadline: Instant) {
        let message = within_limits(codec::encode_response(response));
        let header = response_header(&message, id);
        let sending = async {
            if message.payload_bytes() <= MAX_LANE_PAYLOAD_BYTES {
                // Fails only with the connection, and then nobody waits for the response.
                let _ = lane.push(header, &message.body, &message.tail).await;
            } else if let Ok(stream) = self.connection.open_uni().await {
                let mut stream = ResetOnDrop::for_large_frame(stream);
                let _ = stream.write_only_frame(header, &message).await;
            }
        };
        if timeout_at(deadline, sending).await.is_err() {
            self.shared.counters.expired();
        }
    }

    /// Closes a connection that cannot be read on.
    fn break_off(&self, error: &StreamError) {
        if let StreamError::Frame(_) | StreamError::TooSlow(_) = error
            && self.connection.close_reason().is_none()
        {
            self.shared.counters.broken();
            let remote = self.connection.remote_address();
            tracing::warn!(%remote, peer = %self.identity.role, %error, "closing a connection");
        }
        close_for(&self.connection, error);
    }

    /// The connection is closed: nobody waits for what is under way.
    fn end(&self) {
        let State { running, lanes } = std::mem::take(&mut *self.lock());
        for lane in lanes.values() {
            lane.close();
        }
        for task in running.values() {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the requests under way, given back when dropped.
struct Slot {
    session: Arc<Session>,
}

impl Slot {
    fn take(session: &Arc<Session>, limit: usize) -> Option<Self> {
        let before = session.requests.fetch_add(1, Ordering::SeqCst);
        session.shared.load.requests.fetch_add(1, Ordering::SeqCst);
        let slot = Self {
            session: Arc::clone(session),
        };
        (before < limit).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.session.requests.fetch_sub(1, Ordering::SeqCst);
        let load = &self.session.shared.load;
        if load.requests.fetch_sub(1, Ordering::SeqCst) == 1 {
            load.is_idle.notify_waiters();
        }
    }
}

/// A request in the table of those that can be cancelled, taken out when dropped.
struct Running<'a> {
    session: &'a Session,
    id: u32,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.session.lock().running.remove(&self.id);
    }
}

async fn reply_on_lane(lane: &Outbox, id: u32, response: &Response) {
    let message = codec::encode_response(response);
    // Fails only with the connection, and then nobody waits for the response.
    let _ = lane
        .push(response_header(&message, id), &message.body, &message.tail)
        .await;
}

fn response_header(message: &Encoded, id: u32) -> Header {
    Header {
        len: u32::try_from(message.payload_bytes()).expect("checked against the limit"),
        kind: Kind::Response,
        version: VERSION,
        method: message.method,
        id,
        deadline_ms: 0,
    }
}

/// The message, or in place of one that no frame can hold, an error that says so.
fn within_limits(message: Encoded) -> Encoded {
    let size = message.payload_bytes();
    if size <= MAX_PAYLOAD_BYTES {
        return message;
    }
    let text = format!("the answer has {size} bytes, and the limit is {MAX_PAYLOAD_BYTES}");
    codec::encode_response(&error(ErrorCode::TooLarge, Outcome::Unknown, text))
}

/// The answer to a request with which nothing was done.
fn refusal(code: ErrorCode, message: String) -> Response {
    error(code, Outcome::NotApplied, message)
}

fn error(code: ErrorCode, outcome: Outcome, message: String) -> Response {
    Response::Error(ErrorReplyV1 {
        code,
        outcome,
        message,
        needed: 0,
        got: 0,
        epoch: Epoch(0),
    })
}
