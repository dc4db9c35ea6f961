//! The calls of one connection that wait for their responses.
//!
//! An id is an index and a generation: a response that arrives after its call gave up never reaches
//! the call that has the index now.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kv_types::planted;
use tokio::sync::{Notify, oneshot};

use crate::frame::Frame;

const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

/// Why a connection takes no more calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many calls wait as may.
    Full {
        /// How many.
        waiting: usize,
    },
    /// The connection is lost.
    Lost,
}

/// The waiting calls. All methods lock for a few instructions only.
#[derive(Debug)]
pub(crate) struct Pending {
    limit: usize,
    state: Mutex<State>,
    /// Told whenever the last one that waited is gone.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    lost: bool,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    waiter: Option<oneshot::Sender<Frame>>,
}

impl Pending {
    /// At most `limit` calls, and never more than an id can name.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.min(INDEX_MASK as usize),
            state: Mutex::default(),
            emptied: Notify::new(),
        }
    }

    /// Begins to wait: the id for the request, and where its response will come. The receiver ends
    /// without a response when the connection is lost.
    pub(crate) fn insert(&self) -> Result<(u32, oneshot::Receiver<Frame>), Refused> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        if state.lost {
            return Err(Refused::Lost);
        }
        let waiting = state.slots.len() - state.free.len();
        if waiting >= self.limit {
            return Err(Refused::Full { waiting });
        }
        let index = match state.free.pop() {
            Some(index) => index,
            None => {
                state.slots.push(Slot {
                    generation: 0,
                    waiter: None,
                });
                u32::try_from(state.slots.len() - 1).expect("below the limit, which fits")
            }
        };
        let slot = &mut state.slots[index as usize];
        slot.waiter = Some(sender);
        Ok((slot.generation << INDEX_BITS | index, receiver))
    }

    /// Hands a response to its call; whether one waited.
    pub(crate) fn complete(&self, id: u32, frame: Frame) -> bool {
        self.remove(id)
            .is_some_and(|waiter| waiter.send(frame).is_ok())
    }

    /// Stops waiting; whether the response had not come yet.
    pub(crate) fn cancel(&self, id: u32) -> bool {
        self.remove(id).is_some()
    }

    /// Whether a call waits for `id`.
    pub(crate) fn waits_for(&self, id: u32) -> bool {
        let state = self.lock();
        let slot = state.slots.get((id & INDEX_MASK) as usize);
        slot.is_some_and(|slot| slot.generation == id >> INDEX_BITS && slot.waiter.is_some())
    }

    /// Ends every waiting call without a response, and takes no more.
    pub(crate) fn lose(&self) {
        let mut state = self.lock();
        state.lost = true;
        state.free.clear();
        state.slots.clear();
        self.emptied.notify_waiters();
    }

    /// Returns once no call waits.
    pub(crate) async fn empty(&self) {
        loop {
            // Made before it is looked, so that no change is missed.
            let emptied = self.emptied.notified();
            let is_empty = {
                let state = self.lock();
                state.lost || state.free.len() == state.slots.len()
            };
            if is_empty {
                return;
            }
            emptied.await;
        }
    }

    fn remove(&self, id: u32) -> Option<oneshot::Sender<Frame>> {
        let index = id & INDEX_MASK;
        let mut state = self.lock();
        let slot = state.slots.get_mut(index as usize)?;
        let is_late = slot.generation != id >> INDEX_BITS;
        if is_late && !planted!("hand a late response to another call") {
            return None;
        }
        let waiter = slot.waiter.take()?;
        slot.generation = (slot.generation + 1) & (u32::MAX >> INDEX_BITS);
        state.free.push(index);
        if state.free.len() == state.slots.len() {
            self.emptied.notify_waiters();
        }
        Some(waiter)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Header, Kind, VERSION};
    use bytes::Bytes;

    fn response(id: u32) -> Frame {
        let header = Header {
            len: 0,
            kind: Kind::Response,
            version: VERSION,
            method: 1,
            id,
            deadline_ms: 0,
        };
        Frame {
            header,
            payload: Bytes::new(),
        }
    }

    #[test]
    fn a_late_response_does_not_reach_the_next_call_with_the_same_index() {
        let pending = Pending::new(8);
        let (first, _receiver) = pending.insert().expect("room");
        assert!(pending.cancel(first));
        let (second, mut receiver) = pending.insert().expect("room");
        assert_ne!(first, second);
        assert!(!pending.complete(first, response(first)));
        assert!(receiver.try_recv().is_err());
        assert!(pending.complete(second, response(second)));
        assert_eq!(receiver.try_recv().expect("its own").header.id, second);
        assert!(
            !pending.complete(second, response(second)),
            "one response only"
        );
    }

    #[test]
    fn the_limit_holds_and_room_comes_back() {
        let pending = Pending::new(2);
        let (one, _a) = pending.insert().expect("room");
        let (_two, _b) = pending.insert().expect("room");
        assert_eq!(
            pending.insert().expect_err("full"),
            Refused::Full { waiting: 2 }
        );
        assert!(pending.cancel(one));
        assert!(pending.insert().is_ok());
    }

    #[test]
    fn losing_the_connection_ends_every_call() {
        let pending = Pending::new(8);
        let (id, mut receiver) = pending.insert().expect("room");
        assert!(pending.waits_for(id));
        pending.lose();
        assert_eq!(
            receiver.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
        assert_eq!(pending.insert().expect_err("lost"), Refused::Lost);
        assert!(!pending.complete(id, response(id)) && !pending.waits_for(id));
    }
}
