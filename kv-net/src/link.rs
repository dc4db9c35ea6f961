//! A connection that this endpoint dialled: it sends requests and gossip, and receives responses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kv_types::NodeId;
use quinn::{Connection, ConnectionError, RecvStream};

use crate::codec::Encoded;
use crate::config::EndpointConfig;
use crate::frame::{
    Frame, FrameError, HEADER_BYTES, Header, Kind, MAX_LANE_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES,
    VERSION,
};
use crate::hello::HelloV1;
use crate::method::Class;
use crate::outbox::Outbox;
use crate::pending::{Pending, Refused};
use crate::runtime::Runtime;
use crate::streams::{self, CloseCode, LaneReader, ResetOnDrop, StreamError};

/// How long a connection whose lanes have ended is kept for what is still being read.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a call over a link has no response.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// The link was lost before the request was on its way; another may be tried.
    LostBefore,
    /// The budget passed before the request was on its way.
    NotSent,
    /// As many calls wait as may.
    Busy { waiting: usize },
    /// The budget passed; the request is on its way.
    Deadline,
    /// The link was lost; the request is on its way.
    Lost { reason: String },
}

/// A live connection to a node, with its three lanes.
#[derive(Debug)]
pub(crate) struct Link {
    runtime: Runtime,
    connection: Connection,
    node: NodeId,
    pending: Arc<Pending>,
    lanes: [Arc<Outbox>; 3],
    up_since: Instant,
    /// Whether the other side has said that it will answer no more than it has.
    is_leaving: Arc<AtomicBool>,
}

impl Link {
    /// A fresh connection; [`Self::open_lane`] and [`Self::start`] make it ready.
    pub(crate) fn new(
        connection: Connection,
        node: NodeId,
        config: &EndpointConfig,
        runtime: &Runtime,
    ) -> Self {
        let outbox = || Arc::new(Outbox::new(config.max_waiting_bytes));
        Self {
            runtime: runtime.clone(),
            connection,
            node,
            pending: Arc::new(Pending::new(config.max_calls_per_peer)),
            lanes: [outbox(), outbox(), outbox()],
            up_since: runtime.now(),
            is_leaving: Arc::default(),
        }
    }

    /// Opens the lane of a class and says hello on it.
    pub(crate) async fn open_lane(
        &self,
        class: Class,
        config: &EndpointConfig,
    ) -> Result<LaneReader, ConnectionError> {
        let (send, receive) = self.connection.open_bi().await?;
        let outbox = Arc::clone(self.lane(class));
        HelloV1::OURS.send(class, &outbox);
        let send = ResetOnDrop::new(send, class.priority());
        self.runtime
            .spawn(async move { outbox.send_all(send).await });
        let runtime = self.runtime.clone();
        Ok(LaneReader::new(
            receive,
            config.partial_frame_timeout,
            runtime,
        ))
    }

    /// Begins to take responses.
    pub(crate) fn start(&self, lanes: Vec<LaneReader>) {
        let left = Arc::new(AtomicUsize::new(lanes.len()));
        for reader in lanes {
            let lane = Lane {
                runtime: self.runtime.clone(),
                connection: self.connection.clone(),
                pending: Arc::clone(&self.pending),
                is_leaving: Arc::clone(&self.is_leaving),
                left: Arc::clone(&left),
            };
            self.runtime.spawn(lane.read(reader));
        }
        self.runtime.spawn(accept_large_responses(
            self.runtime.clone(),
            self.connection.clone(),
            Arc::clone(&self.pending),
        ));
        let (pending, lanes) = (Arc::clone(&self.pending), self.lanes.clone());
        self.runtime
            .spawn(watch(self.connection.clone(), pending, lanes));
    }

    /// Who is at the other end.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Where the other end is.
    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.connection.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Whether it can still be used, as far as is known. Cheap.
    pub(crate) fn is_up(&self) -> bool {
        !self.lane(Class::Control).is_closed() && !self.is_leaving.load(Ordering::Relaxed)
    }

    /// How many datagrams have come over it.
    pub(crate) fn datagrams_heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// For how long it has been up.
    pub(crate) fn age(&self) -> Duration {
        self.runtime.now().saturating_duration_since(self.up_since)
    }

    /// Sends a request and awaits its response until `deadline`.
    pub(crate) async fn call(
        &self,
        class: Class,
        request: &Encoded,
        deadline: Instant,
    ) -> Result<Frame, LinkError> {
        if request.payload_bytes() <= MAX_LANE_PAYLOAD_BYTES {
            self.call_on_lane(class, request, deadline).await
        } else {
            self.call_on_own_stream(request, deadline).await
        }
    }

    async fn call_on_lane(
        &self,
        class: Class,
        request: &Encoded,
        deadline: Instant,
    ) -> Result<Frame, LinkError> {
        let lane = self.lane(class);
        let (id, response) = self.pending.insert().map_err(|refused| match refused {
            Refused::Lost => LinkError::LostBefore,
            Refused::Full { waiting } => LinkError::Busy { waiting },
        })?;
        let mut waiting = Waiting {
            pending: &self.pending,
            lane,
            id,
            is_sent: false,
        };
        let header = self
            .request_header(request, id, deadline)
            .ok_or(LinkError::NotSent)?;
        match self
            .runtime
            .timeout_at(deadline, lane.push(header, &request.body, &request.tail))
            .await
        {
            Err(_elapsed) => return Err(LinkError::NotSent),
            Ok(Err(_closed)) => return Err(LinkError::LostBefore),
            Ok(Ok(())) => waiting.is_sent = true,
        }
        match self.runtime.timeout_at(deadline, response).await {
            Err(_elapsed) => Err(LinkError::Deadline),
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(_lost)) => Err(self.lost()),
        }
    }

    async fn call_on_own_stream(
        &self,
        request: &Encoded,
        deadline: Instant,
    ) -> Result<Frame, LinkError> {
        let (send, mut receive) = self
            .runtime
            .timeout_at(deadline, self.connection.open_bi())
            .await
            .map_err(|_| LinkError::NotSent)?
            .map_err(|_| LinkError::LostBefore)?;
        let mut send = ResetOnDrop::for_large_frame(send);
        let header = self
            .request_header(request, 0, deadline)
            .ok_or(LinkError::NotSent)?;
        // The other side acts on whole requests only: until all is written, nothing has happened.
        match self
            .runtime
            .timeout_at(deadline, send.write_frame(header, request))
            .await
        {
            Err(_elapsed) => return Err(LinkError::NotSent),
            Ok(Err(quinn::WriteError::Stopped(_))) => {} // it has answered already
            Ok(Err(_)) => return Err(LinkError::LostBefore),
            Ok(Ok(())) => send.finish(),
        }
        match self
            .runtime
            .timeout_at(deadline, streams::read_response(&mut receive))
            .await
        {
            Err(_elapsed) => Err(LinkError::Deadline),
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(error)) => Err(match self.connection.close_reason() {
                Some(_) => self.lost(),
                None => LinkError::Lost {
                    reason: error.to_string(),
                },
            }),
        }
    }

    /// `None` when the deadline has passed, or the request cannot be that long.
    fn request_header(&self, request: &Encoded, id: u32, deadline: Instant) -> Option<Header> {
        let left = deadline.saturating_duration_since(self.runtime.now());
        if left.is_zero() || request.payload_bytes() > MAX_PAYLOAD_BYTES {
            return None;
        }
        // Rounded up: less than a millisecond is still some time.
        let left_ms = left.saturating_add(Duration::from_micros(999)).as_millis();
        Some(Header {
            len: u32::try_from(request.payload_bytes()).ok()?,
            kind: Kind::Request,
            version: VERSION,
            method: request.method,
            id,
            deadline_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
        })
    }

    /// Sends gossip without waiting; whether it is on its way.
    pub(crate) fn gossip(&self, bytes: &Bytes) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else {
            return false;
        };
        let header = Header {
            len,
            kind: Kind::Gossip,
            version: VERSION,
            method: 0,
            id: 0,
            deadline_ms: 0,
        };
        let fits = self
            .connection
            .max_datagram_size()
            .is_some_and(|max| HEADER_BYTES + bytes.len() <= max);
        if fits {
            let mut datagram = BytesMut::with_capacity(HEADER_BYTES + bytes.len());
            datagram.put_slice(&header.to_bytes());
            datagram.put_slice(bytes);
            self.connection.send_datagram(datagram.freeze()).is_ok()
        } else {
            bytes.len() <= MAX_LANE_PAYLOAD_BYTES
                && self.lane(Class::Control).try_push(header, bytes, &[])
        }
    }

    fn lane(&self, class: Class) -> &Arc<Outbox> {
        &self.lanes[usize::from(class.number())]
    }

    fn lost(&self) -> LinkError {
        let reason = match self.connection.close_reason() {
            _ if self.is_leaving.load(Ordering::Relaxed) => "it is shutting down".to_owned(),
            Some(error) => error.to_string(),
            None => "its stream ended".to_owned(),
        };
        LinkError::Lost { reason }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection
            .close(CloseCode::Shutdown.into(), b"no longer needed");
    }
}

/// A call that waits; dropped before its response came, it tells the other side.
struct Waiting<'a> {
    pending: &'a Pending,
    lane: &'a Outbox,
    id: u32,
    is_sent: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.pending.cancel(self.id) && self.is_sent {
            let header = Header {
                len: 0,
                kind: Kind::Cancel,
                version: VERSION,
                method: 0,
                id: self.id,
                deadline_ms: 0,
            };
            // Without room the other side works on until the deadline, which it knows.
            self.lane.try_push(header, &[], &[]);
        }
    }
}

/// What the reader of a lane needs.
struct Lane {
    runtime: Runtime,
    connection: Connection,
    pending: Arc<Pending>,
    is_leaving: Arc<AtomicBool>,
    /// Lanes that have not ended yet.
    left: Arc<AtomicUsize>,
}

impl Lane {
    /// Hands responses to their calls until the lane ends.
    async fn read(self, mut reader: LaneReader) {
        let error = loop {
            match reader.next_frame().await {
                Ok(frame) => match frame.header.kind {
                    Kind::Response => {
                        self.pending.complete(frame.header.id, frame);
                    }
                    Kind::Hello => {}
                    kind @ (Kind::Request | Kind::Cancel | Kind::Gossip) => {
                        break FrameError::OutOfPlace { kind }.into();
                    }
                },
                // No new calls; those that wait may still be answered on the other lanes.
                Err(StreamError::Finished) => {
                    self.is_leaving.store(true, Ordering::Relaxed);
                    if self.left.fetch_sub(1, Ordering::SeqCst) > 1 {
                        return;
                    }
                    // Large responses have streams of their own, and may be here without having been read.
                    let _ = self.runtime.timeout(LAST_WORDS, self.pending.empty()).await;
                    break StreamError::Finished;
                }
                Err(error) => break error,
            }
        };
        error.close(&self.connection);
    }
}

/// Takes responses that are too long for a lane; each has a stream of its own.
async fn accept_large_responses(runtime: Runtime, connection: Connection, pending: Arc<Pending>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let pending = Arc::clone(&pending);
        runtime.spawn(async move {
            if let Err(error) = read_large_response(&mut stream, &pending).await {
                tracing::debug!(%error, "a large response was cut short");
            }
        });
    }
}

async fn read_large_response(
    stream: &mut RecvStream,
    pending: &Pending,
) -> Result<(), StreamError> {
    let header = streams::read_header(stream, MAX_PAYLOAD_BYTES).await?;
    if header.kind != Kind::Response {
        return Err(FrameError::OutOfPlace { kind: header.kind }.into());
    }
    // Nobody waits any more: dropping the stream tells the sender to stop.
    if pending.waits_for(header.id) {
        let payload = streams::read_payload(stream, header).await?;
        pending.complete(header.id, Frame { header, payload });
    }
    Ok(())
}

/// Ends all calls when the connection is lost.
async fn watch(connection: Connection, pending: Arc<Pending>, lanes: [Arc<Outbox>; 3]) {
    let reason = connection.closed().await;
    tracing::debug!(peer = %connection.remote_address(), %reason, "connection closed");
    pending.lose();
    for lane in &lanes {
        lane.close();
    }
}
