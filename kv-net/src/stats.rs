//! What an endpoint counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Figures of an endpoint since it was opened.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct EndpointStats {
            /// Connections open now, of both directions.
            pub connections: u64,
            /// Requests of peers under way now.
            pub requests_in_flight: u64,
            /// Why the last peer that dialled us was refused; `None` when none was.
            pub last_refusal: Option<Arc<str>>,
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters behind [`EndpointStats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            last_refusal: Mutex<Option<Arc<str>>>,
            $($name: AtomicU64,)*
        }

        impl Counters {
            $(pub(crate) fn $name(&self) {
                self.$name.fetch_add(1, Ordering::Relaxed);
            })*

            pub(crate) fn read(&self, connections: u64, requests_in_flight: u64) -> EndpointStats {
                EndpointStats {
                    connections,
                    requests_in_flight,
                    last_refusal: self.last_refusal().clone(),
                    $($name: self.$name.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

counters! {
    /// Connections that were dialled and came up.
    dialled,
    /// Attempts to connect that failed.
    dials_failed,
    /// Connections that were accepted.
    accepted,
    /// Diallers that were refused: bad certificate, too many, too slow.
    refused,
    /// Diallers that were asked to prove their address first, for many handshakes were under way.
    retried,
    /// Connections closed because the peer broke the protocol or was too slow.
    broken,
    /// Calls begun.
    calls,
    /// Calls that ended without a response.
    calls_failed,
    /// Requests handed to the handler.
    requests,
    /// Requests answered with `Overloaded`.
    overloaded,
    /// Requests answered with `Denied`.
    denied,
    /// Requests whose deadline passed before they were answered; they were dropped.
    expired,
    /// Requests that their caller cancelled.
    cancelled,
    /// Gossip messages sent.
    gossip_sent,
    /// Gossip messages dropped because no connection was up or its buffers were full.
    gossip_dropped,
    /// Gossip messages received.
    gossip_received,
}

impl Counters {
    pub(crate) fn refuse(&self, reason: &str) {
        self.refused();
        *self.last_refusal() = Some(reason.into());
    }

    pub(crate) fn gossip(&self, is_sent: bool) {
        if is_sent {
            self.gossip_sent();
        } else {
            self.gossip_dropped();
        }
    }

    fn last_refusal(&self) -> std::sync::MutexGuard<'_, Option<Arc<str>>> {
        self.last_refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
