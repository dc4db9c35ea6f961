//! Datagrams between simulated processes: what real QUIC runs on.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};

use super::executor::{Group, Handle, Sleep};
use super::network::SimNetwork;

/// What a socket holds until it is read; further datagrams are dropped, as the kernel does.
const RECEIVE_BUFFER_BYTES: usize = 208 << 10;
/// As many datagrams as the kernel splits one buffer into.
const SEGMENTS: usize = 10;

/// A datagram on its way.
#[derive(Debug, Clone)]
pub(super) struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub ecn: Option<EcnCodepoint>,
    pub bytes: Vec<u8>,
}

/// A socket of one process. It sends and receives until its process ends.
#[derive(Debug)]
pub struct SimSocket {
    address: SocketAddr,
    network: SimNetwork,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_dead: bool,
    received: VecDeque<Datagram>,
    received_bytes: usize,
    reader: Option<Waker>,
}

impl SimSocket {
    pub(super) fn new(address: SocketAddr, network: SimNetwork) -> Self {
        Self {
            address,
            network,
            state: Mutex::default(),
        }
    }

    /// Its process is gone.
    pub(super) fn die(&self) {
        let mut state = self.state();
        state.is_dead = true;
        state.received.clear();
        state.reader = None;
    }

    /// Takes a datagram, if there is room; whether there was.
    pub(super) fn take(&self, datagram: Datagram) -> bool {
        let mut state = self.state();
        let bytes = datagram.bytes.len();
        if state.is_dead || state.received_bytes + bytes > RECEIVE_BUFFER_BYTES {
            return false;
        }
        state.received_bytes += bytes;
        state.received.push_back(datagram);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.state().is_dead {
            return Ok(());
        }
        let whole = transmit.contents.len().max(1);
        let segment = transmit.segment_size.unwrap_or(whole);
        for bytes in transmit.contents.chunks(segment) {
            self.network.send_datagram(Datagram {
                from: self.address,
                to: transmit.destination,
                ecn: transmit.ecn,
                bytes: bytes.to_vec(),
            });
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some(datagram) = state.received.pop_front() else {
                break;
            };
            let len = datagram.bytes.len();
            state.received_bytes -= len;
            buffer[..len].copy_from_slice(&datagram.bytes);
            *meta = RecvMeta {
                addr: datagram.from,
                len,
                stride: len,
                ecn: datagram.ecn,
                dst_ip: Some(self.address.ip()),
            };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// The network takes everything at once.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Time and tasks of one process, for QUIC.
#[derive(Debug)]
pub struct SimRuntime {
    handle: Handle,
    group: Group,
}

impl SimRuntime {
    /// For a process.
    #[must_use]
    pub fn new(handle: Handle, group: Group) -> Self {
        Self { handle, group }
    }
}

/// The instant that stands for the start of every simulation. Only differences to it are ever seen.
static START: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(24 * 3600));

impl Runtime for SimRuntime {
    fn new_timer(&self, until: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer {
            handle: self.handle.clone(),
            sleep: self.handle.sleep_until(since_start(until)),
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn_boxed(self.group, task);
    }

    fn wrap_udp_socket(&self, _socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::other("a simulated process has no real sockets"))
    }

    fn now(&self) -> Instant {
        *START + self.handle.now()
    }
}

fn since_start(instant: Instant) -> Duration {
    instant.saturating_duration_since(*START)
}

struct Timer {
    handle: Handle,
    sleep: Sleep,
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, until: Instant) {
        self.sleep = self.handle.sleep_until(since_start(until));
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.sleep).poll(context)
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sleep.fmt(f)
    }
}
