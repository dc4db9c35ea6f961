//! When a request is sent again, and when it is given up: a pure state machine.
//!
//! 1. A request has one deadline; every attempt may use all that is left of it.
//! 2. An attempt that is silent beyond the patience is not cut off: the next one runs beside it, and
//!    the first answer wins. So one hung node costs the patience, and a slow cluster costs nothing.
//! 3. The last attempt has no patience, so nothing is wasted.
//! 4. The outcome of a write is the worst over all its attempts; one without an answer is unknown.

use std::time::Duration;

use kv_types::{Epoch, Outcome};

use crate::failure::{Failure, Remedy};

/// Topologies that one request may wait for.
const MOST_REFRESHES: u32 = 2;
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_MARGIN: Duration = Duration::from_millis(20);

/// The bounds of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// When it must be over.
    pub(crate) deadline: Duration,
    /// How often it may be sent.
    pub(crate) attempts: u32,
    /// How long an attempt may be silent before the next runs beside it.
    pub(crate) patience: Duration,
    /// Whether it changes something.
    pub(crate) writes: bool,
}

/// What the driver of a request does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send to the next node.
    Send,
    /// Wait for a reply, at most until then.
    Wait(Duration),
    /// Learn a topology of at least this epoch, if anyone has it.
    Refresh(Epoch),
    /// The request has failed.
    GiveUp,
}

/// The attempts of one request.
#[derive(Debug)]
pub(crate) struct Attempts {
    limits: Limits,
    /// Less time than this is not worth another attempt: a coordinator that ran out of time says so this late.
    shortest: Duration,
    sent: u32,
    open: u32,
    send_at: Option<Duration>,
    refresh: Option<Epoch>,
    refreshes: u32,
    worst: Outcome,
    /// The failure that says most, the last of those that say as much.
    telling: Option<Failure>,
    hopeless: bool,
}

impl Attempts {
    pub(crate) fn new(limits: Limits, now: Duration) -> Self {
        Self {
            limits,
            shortest: limits.deadline.saturating_sub(now) / 10,
            sent: 0,
            open: 0,
            send_at: Some(now),
            refresh: None,
            refreshes: 0,
            worst: Outcome::NotApplied,
            telling: None,
            hopeless: false,
        }
    }

    /// What to do now.
    pub(crate) fn next(&self, now: Duration) -> Step {
        if self.hopeless || now >= self.limits.deadline {
            return Step::GiveUp;
        }
        if let Some(epoch) = self.refresh {
            return Step::Refresh(epoch);
        }
        match self.send_at {
            Some(at) if at <= now => Step::Send,
            Some(at) => Step::Wait(at.min(self.limits.deadline)),
            None if self.open > 0 => Step::Wait(self.limits.deadline),
            None => Step::GiveUp,
        }
    }

    /// An attempt was sent; `patience` replaces the usual one, for a node in doubt.
    pub(crate) fn on_sent(&mut self, now: Duration, patience: Option<Duration>) {
        self.sent += 1;
        self.open += 1;
        let left = self.limits.attempts.saturating_sub(self.sent);
        self.send_at = (left > 0).then(|| {
            let share = self.remaining(now) / (left + 1);
            now + patience.unwrap_or(self.limits.patience).min(share)
        });
    }

    /// No further attempt can be sent now: none is left in the retry budget, or all are awaited.
    pub(crate) fn on_no_more(&mut self) {
        self.send_at = None;
    }

    /// An attempt failed. `jitter` is random.
    pub(crate) fn on_failure(&mut self, now: Duration, failure: Failure, jitter: u64) {
        self.open -= 1;
        if self.limits.writes {
            let earlier = match kv_types::planted!("say what became of the last attempt only") {
                true => Outcome::NotApplied,
                false => self.worst,
            };
            self.worst = earlier.max(failure.outcome());
        }
        match failure.remedy() {
            Remedy::None => self.hopeless = true,
            Remedy::Elsewhere
                if self.sent < self.limits.attempts && self.remaining(now) >= self.shortest =>
            {
                let at = now + pause(self.sent, jitter);
                self.send_at = Some(self.send_at.map_or(at, |planned| planned.min(at)));
            }
            Remedy::Elsewhere => self.send_at = None,
            Remedy::Refresh(epoch) if self.refreshes < MOST_REFRESHES => {
                self.refreshes += 1;
                // The node did nothing, so this attempt does not count.
                self.limits.attempts += 1;
                self.refresh = Some(epoch);
                self.send_at = Some(now);
            }
            Remedy::Refresh(_) => self.hopeless = true,
        }
        if self
            .telling
            .as_ref()
            .is_none_or(|other| other.weight() <= failure.weight())
        {
            self.telling = Some(failure);
        }
    }

    /// The topology was refreshed, or could not be.
    pub(crate) fn on_refreshed(&mut self) {
        self.refresh = None;
    }

    /// Whether another attempt would be a retry, which the retry budget pays for.
    pub(crate) fn next_is_retry(&self) -> bool {
        self.sent > self.refreshes
    }

    /// What an attempt sent now may take: a little less than is left, so that its end, which says
    /// whether it was sent at all, comes before the deadline.
    pub(crate) fn budget(&self, now: Duration) -> Duration {
        let remaining = self.remaining(now);
        remaining - (remaining / 32).min(LONGEST_MARGIN)
    }

    pub(crate) fn remaining(&self, now: Duration) -> Duration {
        self.limits.deadline.saturating_sub(now)
    }

    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    /// The outcome over all attempts, those without an answer included.
    pub(crate) fn outcome(&self) -> Outcome {
        if self.limits.writes && self.open > 0 {
            Outcome::Unknown
        } else {
            self.worst
        }
    }

    /// The failure that says most; none when no attempt has ended.
    pub(crate) fn into_telling(self) -> Option<Failure> {
        self.telling
    }
}

/// Up to 5, 20, 80, then 100 ms; full jitter, after Brooker, "Exponential Backoff And Jitter" (2015).
fn pause(sent: u32, jitter: u64) -> Duration {
    let factor = 4_u32.saturating_pow(sent.saturating_sub(1));
    let longest = SHORTEST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
    let share = (jitter >> 48) as u32;
    longest * share / (1 << 16)
}

#[cfg(test)]
mod tests;
