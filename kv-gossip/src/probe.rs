//! One probe cycle: a direct ping, pings by others, a verdict.

use kv_types::NodeId;

use crate::standing::Incarnation;

/// The probe in flight.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) seq: u32,
    pub(crate) target: NodeId,
    /// That of the target when it was pinged: its silence says nothing about a later one.
    pub(crate) incarnation: Incarnation,
    answer: Option<Answer>,
    relays_asked: u32,
    relays_answered: u32,
}

/// What the target said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Well,
    Stalled,
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The target answered and is well.
    Alive,
    /// The target answered that it is unfit: suspect it, but nothing is wrong here.
    Stalled,
    /// No answer. Of the members asked to help, `missing` did not answer either: a sign that the
    /// fault may be on this side.
    Silent { missing: u32 },
}

impl Probe {
    pub(crate) fn new(seq: u32, target: NodeId, incarnation: Incarnation) -> Self {
        Self {
            seq,
            target,
            incarnation,
            answer: None,
            relays_asked: 0,
            relays_answered: 0,
        }
    }

    /// The target's ack arrived, directly or through a relay.
    pub(crate) fn acked(&mut self, stalled: bool) {
        let answer = if stalled {
            Answer::Stalled
        } else {
            Answer::Well
        };
        // An ack that says well was sent after the ping, so it is not undone by a second one.
        if self.answer != Some(Answer::Well) {
            self.answer = Some(answer);
        }
    }

    /// Others were asked to ping the target.
    pub(crate) fn asked(&mut self, relays: usize) {
        self.relays_asked = u32::try_from(relays).unwrap_or(u32::MAX);
    }

    /// One of them answered, whatever the answer.
    pub(crate) fn relay_answered(&mut self) {
        self.relays_answered += 1;
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.answer {
            Some(Answer::Well) => Verdict::Alive,
            Some(Answer::Stalled) => Verdict::Stalled,
            // Where nobody could be asked, the missing ack itself is the sign.
            None if self.relays_asked == 0 => Verdict::Silent { missing: 1 },
            None => Verdict::Silent {
                missing: self.relays_asked.saturating_sub(self.relays_answered),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe::new(1, NodeId(2), Incarnation(3))
    }

    #[test]
    fn a_probe_is_judged_by_what_the_target_says() {
        let mut well = probe();
        well.acked(false);
        well.acked(true);
        assert_eq!(well.verdict(), Verdict::Alive);
        let mut stalled = probe();
        stalled.acked(true);
        assert_eq!(stalled.verdict(), Verdict::Stalled);
    }

    #[test]
    fn helpers_that_answer_show_that_the_fault_is_not_here() {
        assert_eq!(probe().verdict(), Verdict::Silent { missing: 1 });
        let mut helped = probe();
        helped.asked(3);
        assert_eq!(helped.verdict(), Verdict::Silent { missing: 3 });
        for _ in 0..3 {
            helped.relay_answered();
        }
        assert_eq!(helped.verdict(), Verdict::Silent { missing: 0 });
    }
}
