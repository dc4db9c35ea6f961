//! What happened to a request, for whoever wants to know why it was answered as it was.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kv_net::message::{ExplanationV1, StepKind, StepV1};
use kv_types::{Dot, NodeId, Object};

/// The most steps that are kept; a request has some twenty.
const MAX_STEPS: usize = 1_024;

/// The notes on one request.
#[derive(Debug)]
pub struct Journal {
    begun: Duration,
    told: Mutex<ExplanationV1>,
}

impl Journal {
    /// Begins with what is known before anything happens.
    #[must_use]
    pub fn new(begun: Duration, explanation: ExplanationV1) -> Self {
        Self {
            begun,
            told: Mutex::new(explanation),
        }
    }

    /// Notes what happened at a node, which stands in for an owner perhaps.
    pub fn note(&self, now: Duration, node: NodeId, stands_in_for: Option<NodeId>, what: StepKind) {
        let at = now.saturating_sub(self.begun).as_micros();
        let mut told = self.told();
        if told.steps.len() < MAX_STEPS {
            told.steps.push(StepV1 {
                at_us: u64::try_from(at).unwrap_or(u64::MAX),
                node,
                stands_in_for,
                what,
            });
        }
    }

    /// Notes which of the values that nodes hold are superseded in what all of them hold together.
    pub fn note_superseded(&self, now: Duration, merged: &Object) {
        let shown = |dot: &Dot| {
            merged
                .siblings()
                .any(|sibling| sibling.dots().contains(dot))
        };
        let steps = self.told().steps.clone();
        for step in steps {
            let StepKind::Object { dots, .. } = step.what else {
                continue;
            };
            let dots: Vec<Dot> = dots.into_iter().filter(|dot| !shown(dot)).collect();
            if !dots.is_empty() {
                let what = StepKind::Superseded { dots };
                self.note(now, step.node, step.stands_in_for, what);
            }
        }
    }

    /// Says what another coordinator noted, to which the request was passed on.
    pub fn pass_on(&self, forwarded_by: NodeId, explanation: ExplanationV1) {
        *self.told() = ExplanationV1 {
            forwarded_by: Some(forwarded_by),
            ..explanation
        };
    }

    /// All of it.
    #[must_use]
    pub fn tell(&self) -> ExplanationV1 {
        self.told().clone()
    }

    /// Changes what was known at the beginning.
    pub fn amend(&self, amend: impl FnOnce(&mut ExplanationV1)) {
        amend(&mut self.told());
    }

    fn told(&self) -> MutexGuard<'_, ExplanationV1> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a replica holds, as a step.
#[must_use]
pub fn held(
    object: &Object,
    bytes: usize,
    source: Option<kv_net::message::ReadSource>,
) -> StepKind {
    let dots = object.siblings().flat_map(|sibling| sibling.dots());
    StepKind::Object {
        dots: dots.copied().collect(),
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        source,
    }
}
