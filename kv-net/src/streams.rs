//! Reading and writing frames on QUIC streams.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};

use crate::codec::Encoded;
use crate::frame::{Frame, FrameBuffer, FrameError, HEADER_BYTES, Header, Kind, MAX_PAYLOAD_BYTES};
use crate::reply::Reply;
use crate::runtime::Runtime;

/// Why a stream or a connection was ended; the number goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The endpoint is closed.
    Shutdown = 0,
    /// Nobody waits for it any more.
    Cancelled = 1,
    /// The peer sent what it must not send.
    Protocol = 2,
    /// The peer was too slow.
    TooSlow = 3,
    /// Too many connections are open.
    Overloaded = 4,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code as u32)
    }
}

/// Large frames give way to the lanes.
const LARGE_FRAME_PRIORITY: i32 = -10;

/// A sending stream that, dropped unfinished, tells its reader so.
///
/// A bare stream would *finish* when dropped, and what was cut short would look complete.
#[derive(Debug)]
pub(crate) struct ResetOnDrop {
    stream: SendStream,
    /// A finished stream must not be reset: that would take back what is still on its way.
    is_finished: bool,
}

impl ResetOnDrop {
    pub(crate) fn new(stream: SendStream, priority: i32) -> Self {
        // A stream that is already closed has no priority; the first write will tell.
        let _ = stream.set_priority(priority);
        Self {
            stream,
            is_finished: false,
        }
    }

    /// A stream for one large frame.
    pub(crate) fn for_large_frame(stream: SendStream) -> Self {
        Self::new(stream, LARGE_FRAME_PRIORITY)
    }

    pub(crate) async fn write_chunk(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.stream.write_chunk(bytes).await
    }

    /// Writes one frame and finishes the stream. Dropped before it returns, it resets the stream.
    pub(crate) async fn write_only_frame(&mut self, frame: &Reply) -> Result<(), WriteError> {
        self.write_frame(frame.header, &frame.message).await?;
        self.finish();
        Ok(())
    }

    /// Writes one frame.
    pub(crate) async fn write_frame(
        &mut self,
        header: Header,
        message: &Encoded,
    ) -> Result<(), WriteError> {
        let mut head = BytesMut::with_capacity(HEADER_BYTES + message.body.len());
        head.extend_from_slice(&header.to_bytes());
        head.extend_from_slice(&message.body);
        self.stream
            .write_all_chunks(&mut [head.freeze(), message.tail.clone()])
            .await
    }

    /// Says that nothing follows; what was written still arrives.
    pub(crate) fn finish(&mut self) {
        self.is_finished = true;
        // Fails for a stream that the peer no longer wants, which is the end of it too.
        let _ = self.stream.finish();
    }

    /// Waits until the peer has received all of a finished stream, or no longer wants the stream.
    pub(crate) async fn settled(&self) {
        let _ = self.stream.stopped().await;
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.is_finished {
            // Fails for a stream that the peer no longer wants, which knows already.
            let _ = self.stream.reset(CloseCode::Cancelled.into());
        }
    }
}

/// Why nothing more can be read from a stream.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StreamError {
    /// The peer sent what is not a frame, or not one for here: its connection is closed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream was finished between two frames: its sender says goodbye.
    #[error("the stream was finished")]
    Finished,
    /// The stream ended within a frame, was reset, or its connection was lost.
    #[error("{0}")]
    Ended(String),
    /// A frame began and its rest did not come in time.
    #[error("the rest of a frame did not come within {} s", .0.as_secs_f32())]
    TooSlow(Duration),
}

impl StreamError {
    /// Whether it is the peer's fault.
    pub(crate) fn is_fault(&self) -> bool {
        match self {
            Self::Frame(_) | Self::TooSlow(_) => true,
            Self::Finished | Self::Ended(_) => false,
        }
    }

    /// Closes the connection whose stream cannot be read on.
    pub(crate) fn close(&self, connection: &Connection) {
        if connection.close_reason().is_some() {
            return; // closing it again would hide why it was closed
        }
        let code = match self {
            Self::Frame(_) => CloseCode::Protocol,
            Self::TooSlow(_) => CloseCode::TooSlow,
            Self::Finished | Self::Ended(_) => CloseCode::Shutdown,
        };
        connection.close(code.into(), self.to_string().as_bytes());
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        Self::Ended(error.to_string())
    }
}

impl From<ReadExactError> for StreamError {
    fn from(error: ReadExactError) -> Self {
        Self::Ended(error.to_string())
    }
}

/// The receiving half of a lane.
#[derive(Debug)]
pub(crate) struct LaneReader {
    stream: RecvStream,
    buffer: FrameBuffer,
    partial_timeout: Duration,
    runtime: Runtime,
    /// When the frame that is now partial must be whole.
    whole_by: Option<Instant>,
}

impl LaneReader {
    pub(crate) fn new(stream: RecvStream, partial_timeout: Duration, runtime: Runtime) -> Self {
        Self {
            stream,
            buffer: FrameBuffer::default(),
            partial_timeout,
            runtime,
            whole_by: None,
        }
    }

    /// The next frame; waits as long as it takes for one to begin.
    pub(crate) async fn next_frame(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                self.whole_by = None;
                return Ok(frame);
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), StreamError> {
        let mut chunks: [Bytes; 16] = Default::default();
        let read = self.stream.read_chunks(&mut chunks);
        let count = if self.buffer.is_partial() {
            let whole_by = *self
                .whole_by
                .get_or_insert_with(|| self.runtime.now() + self.partial_timeout);
            let too_slow = StreamError::TooSlow(self.partial_timeout);
            self.runtime
                .timeout_at(whole_by, read)
                .await
                .map_err(|_| too_slow)??
        } else {
            read.await?
        };
        let Some(count) = count else {
            return Err(if self.buffer.is_partial() {
                StreamError::Ended("the stream was finished within a frame".to_owned())
            } else {
                StreamError::Finished
            });
        };
        for chunk in &chunks[..count] {
            self.buffer.push(chunk);
        }
        Ok(())
    }
}

/// Reads the header of the only or first frame of a stream.
pub(crate) async fn read_header(
    stream: &mut RecvStream,
    limit: usize,
) -> Result<Header, StreamError> {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).await?;
    Ok(Header::parse(&head, limit)?)
}

/// Reads the payload of a header that was checked.
pub(crate) async fn read_payload(
    stream: &mut RecvStream,
    header: Header,
) -> Result<Bytes, StreamError> {
    let len = header.payload_bytes();
    let mut payload = BytesMut::with_capacity(len);
    while payload.len() < len {
        match stream.read_chunk(len - payload.len(), true).await? {
            Some(chunk) => payload.extend_from_slice(&chunk.bytes),
            None => {
                return Err(StreamError::Ended(
                    "the stream was finished early".to_owned(),
                ));
            }
        }
    }
    Ok(payload.freeze())
}

/// Reads the response that must be the only frame of a stream.
pub(crate) async fn read_response(stream: &mut RecvStream) -> Result<Frame, StreamError> {
    let header = read_header(stream, MAX_PAYLOAD_BYTES).await?;
    if header.kind != Kind::Response {
        return Err(FrameError::OutOfPlace { kind: header.kind }.into());
    }
    let payload = read_payload(stream, header).await?;
    Ok(Frame { header, payload })
}
