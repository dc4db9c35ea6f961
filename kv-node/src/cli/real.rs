//! Real time and threads of the command line.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// The moment.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line runs in real time"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Waits.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line runs in real time"
)]
pub(super) async fn sleep(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// Runs what may block on a thread of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "reading a pipe blocks; the client must go on"
)]
pub(super) fn on_a_thread(work: impl FnOnce() + Send + 'static) {
    drop(tokio::task::spawn_blocking(work));
}

/// Reads all of stdin, at most `limit` bytes and one more.
pub(super) fn read_stdin(limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
