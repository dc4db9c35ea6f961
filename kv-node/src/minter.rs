//! Where this node's dots come from: a hybrid clock that never repeats a point, not even after a
//! crash.
//!
//! Invariants:
//! 1. A point is given out only below a mark that is already durable, so a restarted node, which
//!    begins above the mark, can never mint a dot twice.
//! 2. A point that is later than asked for is on record before it is given out.
//! 3. `held_since` lies above everything minted before this start: what was written before may have
//!    been lost with the log's unsynced tail, so intervals are not extended over it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_storage::WriteBatch;
use kv_types::{ActorId, Dot, Hlc, HybridClock, planted};

use crate::clock_watch::ClockWatch;
use crate::env::Env;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};

/// How far above the present the durable mark is set. At most the clock skew that other nodes
/// tolerate, because a restarted node begins there.
const LEASE: Duration = HybridClock::MAX_SKEW;

/// How far above the last point the mark is set at least.
const STEP: Duration = Duration::from_millis(10);

/// Mints dots for one actor.
#[derive(Debug)]
pub struct Minter {
    /// `None` while this node has none: it may have minted dots under the last one that it no longer knows.
    actor: RwLock<Option<ActorId>>,
    watch: Arc<ClockWatch>,
    held_since: AtomicU64,
    /// Above everything minted before this start.
    began: Hlc,
    /// The latest point that was given out though an earlier one was asked for.
    late_through: AtomicU64,
    env: Env,
    store: Store,
    state: Mutex<State>,
    /// Raised by one request at a time; the others wait for its sync.
    raising: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    clock: HybridClock,
    durable_mark: Hlc,
}

impl Minter {
    /// Starts above everything that this store's node minted before, and above its `floor`.
    ///
    /// # Errors
    /// [`StoreError`] when the mark cannot be read or raised.
    pub async fn start(
        actor: Option<ActorId>,
        store: Store,
        env: Env,
        floor: Hlc,
        watch: Arc<ClockWatch>,
    ) -> Result<Self, StoreError> {
        let mark = match store.get(&mark_key()).await? {
            Some(_) if planted!("forget the clock's mark") => Hlc::ZERO,
            Some(found) => decode_mark(&found.value)?,
            None => Hlc::ZERO,
        };
        let mut clock = HybridClock::starting_above(mark.max(floor));
        let began = clock.tick(env.wall());
        let held_since = if planted!("extend intervals over a crash") {
            Hlc::ZERO
        } else {
            began
        };
        let state = Mutex::new(State {
            clock,
            durable_mark: mark,
        });
        Ok(Self {
            actor: RwLock::new(actor),
            watch,
            held_since: AtomicU64::new(held_since.0),
            began,
            // What was given out before is on no record, but below.
            late_through: AtomicU64::new(began.0),
            env,
            store,
            state,
            raising: tokio::sync::Mutex::default(),
        })
    }

    /// The actor whose dots these are, if this node has one.
    #[must_use]
    pub fn actor(&self) -> Option<ActorId> {
        *self.actor.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time by which values expire, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn right_ms(&self) -> u64 {
        let own_ms = self.env.host.wall_ms();
        match planted!("expire values by a node's own clock") {
            true => own_ms,
            false => self.watch.right_ms(own_ms),
        }
    }

    /// Refuses where nothing can be minted.
    ///
    /// # Errors
    /// [`Refusal`]: this node has no actor, or its clock is wrong.
    pub fn check(&self) -> Result<ActorId, Refusal> {
        self.watch.check()?;
        self.actor().ok_or_else(without_actor)
    }

    /// Mints under another actor, one that nobody had before.
    pub(crate) fn set_actor(&self, actor: ActorId) {
        *self.actor.write().unwrap_or_else(PoisonError::into_inner) = Some(actor);
    }

    /// A point above everything that was minted before this start, and below everything that is minted after it.
    #[must_use]
    pub fn began(&self) -> Hlc {
        self.began
    }

    /// Since when this node has held its keys without a gap.
    #[must_use]
    pub fn held_since(&self) -> Hlc {
        Hlc(self.held_since.load(Ordering::Acquire))
    }

    /// This node may have lost keys a moment ago: what it has minted so far it may not know any more.
    pub(crate) fn hold_anew(&self) {
        let now = self.state().clock.last().next();
        self.held_since.fetch_max(now.0, Ordering::AcqRel);
    }

    /// A dot that was never given out before, and is later than all that were.
    ///
    /// # Errors
    /// [`Refusal`] when the durable mark cannot be raised, this node has no actor or its clock is wrong; no dot was given
    /// out.
    pub async fn mint(&self) -> Result<Dot, Refusal> {
        let actor = self.check()?;
        let mut raised = false;
        loop {
            {
                let mut state = self.state();
                let mark = state.durable_mark;
                // After raising the mark this point may lie a little behind the wall clock, so that a
                // disk slower than the lease still lets writes through.
                let wall = if raised {
                    self.env.wall().min(mark)
                } else {
                    self.env.wall()
                };
                let hlc = state.clock.tick(wall);
                if hlc <= mark {
                    return Ok(Dot::new(actor, hlc));
                }
            }
            self.raise_mark().await?;
            raised = true;
        }
    }

    /// As [`Self::mint`]. Where the clock is beyond a point, it is noted that the dot is later than that.
    ///
    /// # Errors
    /// As [`Self::mint`].
    pub async fn mint_by(&self, point: Hlc) -> Result<Dot, Refusal> {
        let dot = self.mint().await?;
        if dot.hlc > point {
            self.late_through.fetch_max(dot.hlc.0, Ordering::AcqRel);
        }
        Ok(dot)
    }

    /// No dot that was minted [by](Self::mint_by) a point is later than both that point and this one.
    #[must_use]
    pub fn late_through(&self) -> Hlc {
        Hlc(self.late_through.load(Ordering::Acquire))
    }

    /// Learns of a dot minted elsewhere, so that what is minted here next comes after it.
    pub fn observe(&self, seen: Hlc) {
        self.state().clock.observe(seen, self.env.wall());
    }

    /// The present point: what is minted here from now on is later, once the clock has [risen](Self::rise_to) to it.
    #[must_use]
    pub fn reading(&self) -> Hlc {
        self.state().clock.last().max(self.env.wall())
    }

    /// Refuses where this node's clock is known to be wrong.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub(crate) fn check_clock(&self) -> Result<(), Refusal> {
        self.watch.check()
    }

    /// Mints nothing at or below a former [reading](Self::reading) any more, whatever the wall clock does.
    pub fn rise_to(&self, reading: Hlc) {
        self.state().clock.rise_to(reading);
    }

    /// The latest point that an honest context can carry.
    #[must_use]
    pub fn latest_plausible(&self) -> Hlc {
        self.state()
            .clock
            .last()
            .max(self.env.wall())
            .plus(HybridClock::MAX_SKEW)
    }

    async fn raise_mark(&self) -> Result<(), StoreError> {
        let _one = self.raising.lock().await;
        let mark = {
            let state = self.state();
            if state.clock.last() < state.durable_mark {
                return Ok(()); // Someone else has raised it meanwhile.
            }
            // A clock that runs ahead of the wall gains little with every restart.
            self.env
                .wall()
                .plus(LEASE)
                .max(state.clock.last().plus(STEP))
        };
        let mut batch = WriteBatch::new();
        batch.put(&mark_key(), &mark.0.to_le_bytes());
        committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        self.state().durable_mark = mark;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without_actor() -> Refusal {
    let message = "this node has lost a part of its disk and waits for the voters to grant it a new actor; nothing was changed; try another node";
    Refusal::new(ErrorCode::Incomplete, message)
}

fn mark_key() -> Bytes {
    storage_key::system("clock-mark")
}

fn decode_mark(bytes: &[u8]) -> Result<Hlc, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::Failed("the stored clock mark is damaged".to_owned()))?;
    Ok(Hlc(u64::from_le_bytes(bytes)))
}
