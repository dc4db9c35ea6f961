//! What happened to a request, for whoever wants to know why it was answered as it was.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kv_net::message::{ExplanationV1, NotShown, StepKind, StepV1};
use kv_types::{BucketMode, Dot, NodeId, Object, Sibling};

/// The most steps that are kept; a request has some twenty.
const MAX_STEPS: usize = 1_024;

/// Where whoever asks for notes on a request finds them, also when it fails.
#[derive(Debug, Default)]
pub struct Notes(OnceLock<Arc<Journal>>);

impl Notes {
    /// Keeps these, the first ones.
    pub fn keep(&self, journal: Journal) -> Arc<Journal> {
        Arc::clone(self.0.get_or_init(|| Arc::new(journal)))
    }

    /// What was noted until now; nothing for a request that was refused before anything was known of it.
    #[must_use]
    pub fn tell(&self, now: Duration) -> Option<ExplanationV1> {
        self.0.get().map(|journal| journal.tell(now))
    }
}

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

    /// Notes what a node found in all that was held together and does not show.
    pub fn note_not_shown(
        &self,
        now: Duration,
        node: NodeId,
        merged: &Object,
        mode: BucketMode,
        now_ms: u64,
    ) {
        let last = merged.last_written().map(Sibling::write_id);
        let is_earlier =
            |sibling: &Sibling| mode == BucketMode::Lww && Some(sibling.write_id()) != last;
        let reasons = [NotShown::EarlierWrite, NotShown::Expired];
        for why in reasons {
            let is_meant = |sibling: &&Sibling| match why {
                NotShown::EarlierWrite => is_earlier(sibling),
                NotShown::Expired => !is_earlier(sibling) && sibling.is_expired(now_ms),
            };
            let hidden = merged.siblings().filter(is_meant);
            let dots: Vec<Dot> = hidden.flat_map(Sibling::dots).copied().collect();
            if !dots.is_empty() {
                self.note(now, node, None, StepKind::NotShown { dots, why });
            }
        }
    }

    /// Says what another coordinator noted, to which the request was passed on at a time, after what was noted before.
    pub fn passed_on(&self, at: Duration, forwarded_by: NodeId, explanation: ExplanationV1) {
        let later = at.saturating_sub(self.begun).as_micros();
        let later = u64::try_from(later).unwrap_or(u64::MAX);
        let theirs = explanation.steps.into_iter().map(|step| StepV1 {
            at_us: step.at_us.saturating_add(later),
            ..step
        });
        let mut told = self.told();
        let mut steps = std::mem::take(&mut told.steps);
        steps.extend(theirs);
        steps.truncate(MAX_STEPS);
        *told = ExplanationV1 {
            forwarded_by: Some(forwarded_by),
            steps,
            ..explanation
        };
    }

    /// All of it, and who was asked and has not answered.
    fn tell(&self, now: Duration) -> ExplanationV1 {
        let told = self.told().clone();
        let mut waiting = Vec::new();
        for step in &told.steps {
            if matches!(step.what, StepKind::NotShown { .. }) {
                // That is no answer to anything.
                continue;
            }
            let who = (step.node, step.stands_in_for);
            waiting.retain(|other| *other != who);
            if is_question(&step.what) {
                waiting.push(who);
            }
        }
        for (node, stands_in_for) in waiting {
            self.note(now, node, stands_in_for, StepKind::Silent);
        }
        let told = self.told();
        told.clone()
    }

    fn told(&self) -> MutexGuard<'_, ExplanationV1> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a step is followed by another at the same node, when that answers.
fn is_question(what: &StepKind) -> bool {
    match what {
        StepKind::AskedForObject | StepKind::AskedForDigest | StepKind::Sent => true,
        StepKind::Object { .. }
        | StepKind::Digest { .. }
        | StepKind::Nothing
        | StepKind::Superseded { .. }
        | StepKind::Coordinated { .. }
        | StepKind::Repaired
        | StepKind::Acknowledged
        | StepKind::Failed { .. }
        | StepKind::Taken
        | StepKind::Silent
        | StepKind::Replaced { .. }
        | StepKind::NotShown { .. } => false,
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
