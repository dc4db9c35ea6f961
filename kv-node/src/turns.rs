//! Turns at a key: writes of one key go one after another, in the order in which they came.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

/// Who is at work on which key, and who waits. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// A key stands here while someone has its turn.
    waiting: Arc<Mutex<BTreeMap<Bytes, VecDeque<oneshot::Sender<Turn>>>>>,
}

/// Too many wait for this key already. Nothing was done; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} requests already wait for this key")]
pub struct QueueFull {
    /// How many wait.
    pub waiting: usize,
}

/// The right to change one key. Dropping it passes it on to whoever waited longest.
#[derive(Debug)]
pub struct Turn {
    key: Bytes,
    turns: Turns,
}

impl Turns {
    /// The most that may wait for one key.
    pub const MAX_WAITING: usize = 64;

    /// Waits for the turn at a key. Cancelling the wait gives the place up.
    ///
    /// # Errors
    /// [`QueueFull`] at once, when [`Self::MAX_WAITING`] wait already.
    pub async fn take(&self, key: &Bytes) -> Result<Turn, QueueFull> {
        let turn = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting.get_mut(key) {
                None => {
                    waiting.insert(key.clone(), VecDeque::new());
                    return Ok(Turn {
                        key: key.clone(),
                        turns: self.clone(),
                    });
                }
                Some(queue) => {
                    queue.retain(|place| !place.is_closed());
                    if queue.len() >= Self::MAX_WAITING {
                        return Err(QueueFull {
                            waiting: queue.len(),
                        });
                    }
                    let (place, turn) = oneshot::channel();
                    queue.push_back(place);
                    turn
                }
            }
        };
        Ok(turn.await.expect("a turn in use always passes itself on"))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut waiting = self
                .turns
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let next = waiting.get_mut(&self.key).and_then(|queue| {
                queue.retain(|place| !place.is_closed());
                queue.pop_front()
            });
            if next.is_none() {
                waiting.remove(&self.key);
            }
            next
        };
        if let Some(place) = next {
            // If the waiter goes away before it takes the turn, dropping it there passes it on again.
            let _ = place.send(Self {
                key: self.key.clone(),
                turns: self.turns.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;

    fn key() -> Bytes {
        Bytes::from_static(b"k")
    }

    #[test]
    fn the_turn_passes_in_order_of_arrival() {
        let turns = Turns::default();
        let first = block_on(turns.take(&key())).expect("free");
        let key = key();
        let mut second = Box::pin(turns.take(&key));
        let mut third = Box::pin(turns.take(&key));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.now_or_never().expect("its turn").expect("free");
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn a_waiter_that_leaves_does_not_keep_the_turn() {
        let turns = Turns::default();
        let key = key();
        let first = block_on(turns.take(&key)).expect("free");
        let mut second = Box::pin(turns.take(&key));
        let mut third = Box::pin(turns.take(&key));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        // The second was given the turn, but goes away before it looks.
        drop(second);
        assert!(third.now_or_never().is_some());
        assert!(
            turns.waiting.lock().expect("not poisoned").is_empty(),
            "nothing is left behind"
        );
    }

    #[test]
    fn the_queue_of_a_key_is_bounded() {
        let turns = Turns::default();
        let key = key();
        let _first = block_on(turns.take(&key)).expect("free");
        let mut places: Vec<_> = (0..Turns::MAX_WAITING)
            .map(|_| Box::pin(turns.take(&key)))
            .collect();
        for place in &mut places {
            assert!(place.as_mut().now_or_never().is_none());
        }
        assert_eq!(
            block_on(turns.take(&key)).expect_err("full"),
            QueueFull { waiting: 64 }
        );
        places.pop();
        assert!(
            turns.take(&key).now_or_never().is_none(),
            "a place is free again"
        );
    }
}
