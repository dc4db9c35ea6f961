//! A connection that this endpoint accepted: it receives requests and gossip, and sends responses.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::AbortHandle;
use kv_types::Outcome;
use quinn::{Connection, RecvStream, SendStream};

use crate::admission::{Admitted, Gate, Load, Turned};
use crate::codec;
use crate::config::EndpointConfig;
use crate::error::ErrorCode;
use crate::frame::{Frame, FrameError, Header, Kind, MAX_LANE_PAYLOAD_BYTES};
use crate::handler::Handler;
use crate::hello::{HelloV1, MAX_HELLO_BYTES};
use crate::identity::{Identity, Role};
use crate::message::Response;
use crate::method::{Class, Method};
use crate::outbox::Outbox;
use crate::reply::{self, Reply};
use crate::runtime::Runtime;
use crate::stats::Counters;
use crate::streams::{self, LaneReader, ResetOnDrop, StreamError};

/// What all sessions of an endpoint share.
pub(crate) struct Shared {
    pub(crate) runtime: Runtime,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) config: EndpointConfig,
    pub(crate) counters: Arc<Counters>,
    pub(crate) load: Arc<Load>,
}

/// One accepted connection.
pub(crate) struct Session {
    connection: Connection,
    identity: Identity,
    shared: Arc<Shared>,
    gate: Gate,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The requests under way that came on lanes, by id.
    running: BTreeMap<u32, AbortHandle>,
    lanes: BTreeMap<Class, Arc<Outbox>>,
}

impl Session {
    pub(crate) fn new(connection: Connection, identity: Identity, shared: Arc<Shared>) -> Self {
        let (load, counters) = (Arc::clone(&shared.load), Arc::clone(&shared.counters));
        let (role, runtime) = (identity.role.clone(), shared.runtime.clone());
        let gate = Gate::new(role, runtime, &shared.config, load, counters);
        Self {
            connection,
            identity,
            shared,
            gate,
            state: Mutex::default(),
        }
    }

    /// Serves the connection until it is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        let patience = self.shared.config.handshake_timeout;
        match self
            .runtime()
            .timeout(patience, self.await_control_lane())
            .await
        {
            Ok(Ok(())) => self.serve_until_closed().await,
            Ok(Err(error)) => self.break_off(&error),
            Err(_elapsed) => self.break_off(&StreamError::TooSlow(patience)),
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

    async fn serve_until_closed(self: &Arc<Self>) {
        let mut has_said_farewell = false;
        loop {
            tokio::select! {
                biased;
                stream = self.connection.accept_bi() => {
                    let Ok((send, receive)) = stream else { return };
                    self.runtime()
                        .spawn(Arc::clone(self).serve_stream(send, receive));
                }
                datagram = self.connection.read_datagram() => {
                    let Ok(bytes) = datagram else { return };
                    self.on_datagram(bytes);
                }
                () = self.shared.load.farewell(), if !has_said_farewell => {
                    has_said_farewell = true;
                    self.lock().lanes.values().for_each(|lane| lane.finish());
                }
            }
        }
    }

    async fn serve_stream(self: Arc<Self>, send: SendStream, mut receive: RecvStream) {
        let patience = self.shared.config.partial_frame_timeout;
        let reading = streams::read_header(&mut receive, self.identity.role.longest_request());
        let header = match self.runtime().timeout(patience, reading).await {
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
        HelloV1::read(&payload).map_err(|_| out_of_place())?;

        let lane = Arc::new(Outbox::new(self.shared.config.max_waiting_bytes));
        HelloV1::OURS.send(class, &lane);
        let earlier = self.lock().lanes.insert(class, Arc::clone(&lane));
        if earlier.is_some() {
            return Err(out_of_place()); // one lane per class
        }
        let send = ResetOnDrop::new(send, class.priority());
        let sending = Arc::clone(&lane);
        let runtime = self.runtime();
        runtime.spawn(async move { sending.send_all(send).await });
        let patience = self.shared.config.partial_frame_timeout;
        let reader = LaneReader::new(receive, patience, runtime.clone());
        runtime.spawn(Arc::clone(self).read_lane(reader, lane));
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
        let Admitted {
            method,
            deadline,
            slot,
        } = match self.gate.admit(&frame.header) {
            Ok(admitted) => admitted,
            Err(Turned::Expired) => return,
            Err(Turned::Away(code, message)) => {
                let Reply { header, message } = Reply::new(id, &reply::refusal(code, message));
                // Waiting here holds up this lane only, whose peer does not read its responses. It
                // fails only with the connection, and then nobody waits for the response.
                let _ = lane.push(header, &message.body, &message.tail).await;
                return;
            }
        };
        let (session, lane) = (Arc::clone(self), Arc::clone(lane));
        let mut state = self.lock();
        let task = self.runtime().spawn_abortable(async move {
            let (_slot, _running) = (
                slot,
                Running {
                    session: &session,
                    id,
                },
            );
            if let Some(response) = session.answer(method, &frame.payload, deadline).await {
                session
                    .reply(&lane, Reply::new(id, &response), deadline)
                    .await;
            }
        });
        // The task removes itself under the lock that is held here, so it cannot be gone already.
        if let Some(earlier) = state.running.insert(id, task) {
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
        let error = match Frame::parse_only(bytes, MAX_LANE_PAYLOAD_BYTES) {
            Ok(Frame { header, payload }) => match header.kind {
                Kind::Gossip => return self.on_gossip(payload),
                kind => FrameError::OutOfPlace { kind },
            },
            Err(error) => error,
        };
        self.break_off(&error.into());
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
    async fn serve_large(self: Arc<Self>, header: Header, send: SendStream, receive: RecvStream) {
        let mut send = ResetOnDrop::for_large_frame(send);
        match self.gate.admit_large(&header) {
            Ok((
                Admitted {
                    method,
                    deadline,
                    slot: _slot,
                },
                _room,
            )) => {
                let serving = self.answer_large(method, deadline, header, &mut send, receive);
                if self.runtime().timeout_at(deadline, serving).await.is_err() {
                    self.shared.counters.expired();
                }
            }
            Err(Turned::Expired) => {}
            Err(Turned::Away(code, message)) => {
                let reply = Reply::new(header.id, &reply::refusal(code, message));
                // Short enough for the stream's window, so this waits for nobody.
                let _ = send.write_only_frame(&reply).await;
            }
        }
    }

    async fn answer_large(
        &self,
        method: Method,
        deadline: Instant,
        header: Header,
        send: &mut ResetOnDrop,
        mut receive: RecvStream,
    ) {
        // An unfinished request had no effect; its caller knows that, for it reset the stream.
        let Ok(payload) = streams::read_payload(&mut receive, header).await else {
            return;
        };
        let response = tokio::select! {
            biased;
            response = self.answer(method, &payload, deadline) => response,
            () = send.settled() => {
                self.shared.counters.cancelled();
                None
            }
        };
        drop(payload);
        let Some(response) = response else { return };
        // Fails when nobody waits for the response any more.
        if send
            .write_only_frame(&Reply::new(header.id, &response))
            .await
            .is_ok()
        {
            send.settled().await;
        }
    }

    /// Decodes a request and has it handled; nothing is answered past the deadline.
    async fn answer(&self, method: Method, payload: &Bytes, deadline: Instant) -> Option<Response> {
        let request = match codec::decode_request(method, payload) {
            Ok(request) => request,
            Err(reason) => {
                let message = format!("the request is malformed: {reason}");
                return Some(reply::refusal(ErrorCode::BadRequest, message));
            }
        };
        self.shared.counters.requests();
        let runtime = self.runtime();
        let budget = deadline.saturating_duration_since(runtime.now());
        let (handler, peer) = (&self.shared.handler, &self.identity);
        let handling = async { handler.handle(peer, request, budget).await };
        // A defect in the handling of one request must neither silence it nor touch others.
        match runtime
            .timeout_at(deadline, AssertUnwindSafe(handling).catch_unwind())
            .await
        {
            Ok(Ok(response)) => Some(response),
            Ok(Err(_panic)) => {
                tracing::error!(?method, peer = %peer.role, "the handler panicked");
                let message = "a defect in the node, whose log has more".to_owned();
                Some(reply::error(ErrorCode::Internal, Outcome::Unknown, message))
            }
            Err(_elapsed) => {
                self.shared.counters.expired();
                None
            }
        }
    }

    /// Sends the response to a request that came on a lane, there or on a stream of its own.
    async fn reply(&self, lane: &Outbox, reply: Reply, deadline: Instant) {
        let sending = async {
            let message = &reply.message;
            if message.payload_bytes() <= MAX_LANE_PAYLOAD_BYTES {
                // Fails only with the connection, and then nobody waits for the response.
                let _ = lane.push(reply.header, &message.body, &message.tail).await;
            } else if let Ok(stream) = self.connection.open_uni().await {
                let mut stream = ResetOnDrop::for_large_frame(stream);
                if stream.write_only_frame(&reply).await.is_ok() {
                    stream.settled().await;
                }
            }
        };
        if self.runtime().timeout_at(deadline, sending).await.is_err() {
            self.shared.counters.expired();
        }
    }

    /// Closes a connection that cannot be read on.
    fn break_off(&self, error: &StreamError) {
        if error.is_fault() && self.connection.close_reason().is_none() {
            self.shared.counters.broken();
            let remote = self.connection.remote_address();
            tracing::warn!(%remote, peer = %self.identity.role, %error, "closing a connection");
        }
        error.close(&self.connection);
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

    fn runtime(&self) -> &Runtime {
        &self.shared.runtime
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
