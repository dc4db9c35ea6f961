//! The sending half of a lane: many tasks append frames to one buffer, one task sends it.
//!
//! While one buffer is being sent the next one fills, so frames coalesce by themselves: no timer,
//! and under load one system call and one packet carry many frames.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{Notify, Semaphore, TryAcquireError};

use crate::frame::{HEADER_BYTES, Header};
use crate::streams::ResetOnDrop;

/// A buffer that grew beyond this is not kept.
const KEEP_BYTES: usize = 256 << 10;

/// The stream is gone; nothing more is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// Frames that wait to be sent on one lane.
#[derive(Debug)]
pub(crate) struct Outbox {
    buffer: Mutex<BytesMut>,
    filled: Notify,
    /// One permit per byte that may still be appended; closed with the stream.
    room: Semaphore,
    is_finishing: AtomicBool,
}

impl Outbox {
    /// At most `limit` bytes wait; a single frame must fit.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: Mutex::default(),
            filled: Notify::new(),
            room: Semaphore::new(limit),
            is_finishing: AtomicBool::new(false),
        }
    }

    /// Appends a frame, once there is room. Dropped before it returns, it has appended nothing.
    pub(crate) async fn push(
        &self,
        header: Header,
        body: &[u8],
        tail: &[u8],
    ) -> Result<(), Closed> {
        match self.room.try_acquire_many(permits(body, tail)) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err(Closed),
            Err(TryAcquireError::NoPermits) => {
                let permit = self.room.acquire_many(permits(body, tail)).await;
                permit.map_err(|_| Closed)?.forget();
            }
        }
        self.append(header, body, tail);
        Ok(())
    }

    /// Appends a frame if there is room now; whether it did.
    pub(crate) fn try_push(&self, header: Header, body: &[u8], tail: &[u8]) -> bool {
        match self.room.try_acquire_many(permits(body, tail)) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed | TryAcquireError::NoPermits) => return false,
        }
        self.append(header, body, tail);
        true
    }

    /// Sends what is appended until the stream fails or is finished; then the outbox is closed.
    pub(crate) async fn send_all(&self, mut stream: ResetOnDrop) {
        loop {
            let Some(batch) = self.take() else {
                if self.is_finishing.load(Ordering::SeqCst) {
                    stream.finish();
                    break;
                }
                if self.room.is_closed() {
                    break;
                }
                self.filled.notified().await;
                continue;
            };
            let bytes = batch.len();
            if stream.write_chunk(batch).await.is_err() {
                break;
            }
            self.room.add_permits(bytes);
        }
        self.close();
    }

    /// Sends what is appended, then finishes the stream: the peer knows that nothing follows.
    pub(crate) fn finish(&self) {
        self.is_finishing.store(true, Ordering::SeqCst);
        self.filled.notify_one();
    }

    /// Refuses frames from now on, and lets [`Self::send_all`] end.
    pub(crate) fn close(&self) {
        self.room.close();
        self.lock().clear();
        self.filled.notify_one();
    }

    /// Whether [`Self::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    fn append(&self, header: Header, body: &[u8], tail: &[u8]) {
        let mut buffer = self.lock();
        let was_empty = buffer.is_empty();
        buffer.reserve(HEADER_BYTES + body.len() + tail.len());
        buffer.put_slice(&header.to_bytes());
        buffer.put_slice(body);
        buffer.put_slice(tail);
        drop(buffer);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn take(&self) -> Option<Bytes> {
        let mut buffer = self.lock();
        if buffer.is_empty() {
            return None;
        }
        let batch = buffer.split().freeze();
        if buffer.capacity() > KEEP_BYTES {
            *buffer = BytesMut::new();
        }
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, BytesMut> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn permits(body: &[u8], tail: &[u8]) -> u32 {
    u32::try_from(HEADER_BYTES + body.len() + tail.len()).expect("a lane's frame is short")
}
