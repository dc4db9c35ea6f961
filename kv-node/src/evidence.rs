//! What this node's own requests say about its peers, long before gossip does: who keeps them waiting.
//!
//! A peer whose oldest unanswered request is older than four times what it took for nearly all others, and than 20 ms, is
//! slow; so is one that has let a request run out of time, until it answers one. Slow peers are asked last.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kv_types::NodeId;

/// A peer is never slow for less.
const LEAST: Duration = Duration::from_millis(20);
/// How many times longer than usual.
const FACTOR: u32 = 4;

/// What is known of all peers.
#[derive(Debug, Default)]
pub struct Evidence {
    peers: Mutex<BTreeMap<NodeId, Requests>>,
}

/// The requests to one peer.
#[derive(Debug, Default)]
struct Requests {
    next: u64,
    /// When each unanswered one began.
    open: BTreeMap<u64, Duration>,
    usual: Usual<99>,
    often: Usual<19>,
    has_missed: bool,
}

impl Requests {
    /// An answer is not waited for longer.
    fn limit(&self) -> Duration {
        (self.usual.get() * FACTOR).max(LEAST)
    }
}

/// The time within which all answers but one in some `OVER` came lately.
///
/// A frugal estimate (Ma, Muthukrishnan and Sandler, 2013): an answer that took longer moves it up by a step, one that did
/// not moves it down by an `OVER`th of one.
#[derive(Debug, Default)]
struct Usual<const OVER: u64> {
    /// In nanoseconds, so that small steps count; zero before the first answer.
    nanos: u64,
}

impl<const OVER: u64> Usual<OVER> {
    fn add(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let step = (self.nanos / 8).max(1_000);
        if took > self.nanos {
            self.nanos = self.nanos.saturating_add(step);
        } else {
            self.nanos = self.nanos.saturating_sub(step / OVER).max(1);
        }
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    peer: NodeId,
    number: u64,
}

impl Evidence {
    /// A request goes out.
    pub fn sent(&self, peer: NodeId, now: Duration) -> Sent {
        let mut peers = self.peers();
        let requests = peers.entry(peer).or_default();
        let number = requests.next;
        requests.next += 1;
        requests.open.insert(number, now);
        Sent { peer, number }
    }

    /// It was answered, whatever the answer, or ended without one.
    pub fn ended(&self, sent: Sent, was_answered: bool, now: Duration) {
        let mut peers = self.peers();
        let requests = peers.entry(sent.peer).or_default();
        let Some(begun) = requests.open.remove(&sent.number) else {
            return;
        };
        requests.has_missed = !was_answered;
        if was_answered {
            let took = now.saturating_sub(begun);
            requests.usual.add(took);
            requests.often.add(took);
        }
    }

    /// It is waited for no longer, which says something only if that took unusually long.
    pub fn given_up(&self, sent: Sent, now: Duration) {
        let mut peers = self.peers();
        let requests = peers.entry(sent.peer).or_default();
        if let Some(begun) = requests.open.remove(&sent.number) {
            requests.has_missed |= now.saturating_sub(begun) > requests.limit();
        }
    }

    /// Within what time all but one in twenty answers of a peer came lately; `None` before the first.
    #[must_use]
    pub fn p95(&self, peer: NodeId) -> Option<Duration> {
        let often = self.peers().get(&peer)?.often.get();
        Some(often).filter(|often| !often.is_zero())
    }

    /// Whether requests should go to others first.
    #[must_use]
    pub fn is_slow(&self, peer: NodeId, now: Duration) -> bool {
        let peers = self.peers();
        let Some(requests) = peers.get(&peer) else {
            return false;
        };
        let oldest = requests.open.first_key_value().map(|(_, begun)| *begun);
        let limit = requests.limit();
        requests.has_missed || oldest.is_some_and(|begun| now.saturating_sub(begun) > limit)
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Requests>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_that_keeps_a_request_waiting_is_slow_until_it_answers() {
        let evidence = Evidence::default();
        assert!(!evidence.is_slow(PEER, ms(0)));
        let sent = evidence.sent(PEER, ms(100));
        assert!(!evidence.is_slow(PEER, ms(120)));
        assert!(evidence.is_slow(PEER, ms(121)));
        evidence.ended(sent, true, ms(130));
        assert!(!evidence.is_slow(PEER, ms(131)));
    }

    #[test]
    fn one_that_is_given_up_after_long_is_slow() {
        let evidence = Evidence::default();
        let sent = evidence.sent(PEER, ms(0));
        evidence.given_up(sent, ms(10));
        assert!(!evidence.is_slow(PEER, ms(10)));
        let sent = evidence.sent(PEER, ms(20));
        evidence.given_up(sent, ms(50));
        assert!(evidence.is_slow(PEER, ms(60)));
    }

    #[test]
    fn one_that_let_a_request_run_out_of_time_is_slow_until_it_answers_another() {
        let evidence = Evidence::default();
        let sent = evidence.sent(PEER, ms(0));
        evidence.ended(sent, false, ms(1_000));
        assert!(evidence.is_slow(PEER, ms(1_000)));
        let sent = evidence.sent(PEER, ms(2_000));
        evidence.given_up(sent, ms(2_001));
        assert!(evidence.is_slow(PEER, ms(2_001)), "that says nothing");
        let sent = evidence.sent(PEER, ms(3_000));
        evidence.ended(sent, true, ms(3_001));
        assert!(!evidence.is_slow(PEER, ms(3_002)));
    }

    #[test]
    fn nearly_all_answers_come_within_the_p95_and_most_take_not_much_less() {
        let evidence = Evidence::default();
        assert_eq!(evidence.p95(PEER), None);
        for n in 0..4_000 {
            let sent = evidence.sent(PEER, ms(n * 50));
            evidence.ended(sent, true, ms(n * 50 + n % 20));
        }
        let p95 = evidence.p95(PEER).expect("it has answered");
        assert!((ms(14)..ms(24)).contains(&p95), "{p95:?}");
    }

    #[test]
    fn one_that_always_takes_long_may_take_longer() {
        let evidence = Evidence::default();
        for n in 0..2_000 {
            let sent = evidence.sent(PEER, ms(n * 50));
            evidence.ended(sent, true, ms(n * 50 + if n % 50 == 0 { 40 } else { 10 }));
        }
        let now = ms(1_000_000);
        evidence.sent(PEER, now);
        assert!(!evidence.is_slow(PEER, now + ms(100)));
        assert!(evidence.is_slow(PEER, now + ms(400)));
    }
}
