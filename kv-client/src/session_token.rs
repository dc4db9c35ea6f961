//! What a session has seen, so that it never sees anything older.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kv_ring::Topology;
use kv_types::{BucketId, BucketName, Clock, Context, ContextKey, Hlc, Key};

/// The memory of one session: requests of buckets that carry it ([`Bucket::session`](crate::Bucket::session)) see what
/// the session has written and has been shown, or something newer, at every level.
///
/// Cheap to clone; clones are one session. It remembers the last [`Self::MAX_KEYS`] keys that the session used; for one that
/// was used before those, the promise ends.
#[derive(Clone, Default)]
pub struct SessionToken {
    seen: Arc<Mutex<Seen>>,
}

/// A key of a bucket. By the bucket's id: what was seen in one that was dropped binds no later one of its name.
type Place = (BucketId, Key);

#[derive(Default)]
struct Seen {
    clocks: BTreeMap<Place, (u64, Clock)>,
    /// Which keys were used when, from the longest ago.
    used: BTreeMap<u64, Place>,
    uses: u64,
}

impl SessionToken {
    /// For how many keys it remembers what was seen.
    pub const MAX_KEYS: usize = 16_384;

    /// A session that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What an answer about a key must cover; `None` if the session has seen nothing of it.
    pub(crate) fn context(
        &self,
        topology: &Topology,
        bucket: &BucketName,
        key: &Key,
    ) -> Option<Context> {
        let id = topology.bucket_by_name(bucket)?.id;
        let seen = self.seen();
        let (_, clock) = seen.clocks.get(&(id, key.clone()))?;
        let contexts = ContextKey::new(topology.secret().context_key());
        Some(contexts.seal(id, key, clock))
    }

    /// The session has seen what an answer's context covers.
    pub(crate) fn saw(
        &self,
        topology: &Topology,
        bucket: &BucketName,
        key: &Key,
        context: &Context,
    ) {
        let Some(named) = topology.bucket_by_name(bucket) else {
            return;
        };
        let contexts = ContextKey::new(topology.secret().context_key());
        if let Ok(clock) = contexts.open(named.id, key, context, Hlc(u64::MAX)) {
            self.seen().add((named.id, key.clone()), &clock);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn add(&mut self, place: Place, clock: &Clock) {
        self.uses += 1;
        let (used, known) = self.clocks.entry(place.clone()).or_default();
        self.used.remove(used);
        *used = self.uses;
        known.merge(clock);
        self.used.insert(self.uses, place);
        if self.used.len() > SessionToken::MAX_KEYS
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.clocks.remove(&oldest);
        }
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionToken")
            .field("keys", &self.seen().clocks.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_types::{ActorId, Dot};

    fn place(n: usize) -> Place {
        let key = Key::new(format!("k{n}")).expect("short");
        (BucketId(1), key)
    }

    fn clock(at: u64) -> Clock {
        let mut clock = Clock::new();
        clock.insert(Dot::new(ActorId(1), Hlc(at)));
        clock
    }

    #[test]
    fn what_was_seen_adds_up_and_the_keys_used_longest_ago_are_forgotten() {
        let mut seen = Seen::default();
        seen.add(place(0), &clock(10));
        for n in 1..SessionToken::MAX_KEYS {
            seen.add(place(n), &clock(10));
        }
        seen.add(place(0), &clock(20));
        seen.add(place(SessionToken::MAX_KEYS), &clock(10));
        let of = |n| {
            seen.clocks
                .get(&place(n))
                .map(|(_, clock)| clock.intervals().len())
        };
        assert_eq!((of(0), of(1), of(2)), (Some(2), None, Some(1)));
        assert_eq!(seen.clocks.len(), SessionToken::MAX_KEYS);
        assert_eq!(seen.used.len(), SessionToken::MAX_KEYS);
    }
}
