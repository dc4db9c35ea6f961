//! What this member knows of one node.

use core::time::Duration;

use kv_types::{Epoch, NodeId};

use crate::flapping::Flapping;
use crate::heartbeat::Pulse;
use crate::message::{Claim, Profile, Rumor};
use crate::standing::{Incarnation, Standing, State};
use crate::suspicion::Suspicion;
use crate::time::Time;

/// One node as seen from here.
#[derive(Debug, Clone)]
pub struct Member {
    node: NodeId,
    standing: Standing,
    contact: Contact,
    epoch: Epoch,
    since: Time,
    pulse: Pulse,
    /// The heartbeat that an ack must exceed to disprove the present accusation.
    accused_at: u64,
    /// The running suspicion, in state `Suspect` only.
    suspicion: Option<Suspicion>,
    flapping: Flapping,
    /// When this node was last told that it is accused, so that it is not told with every message.
    pub(crate) told_at: Option<Time>,
}

/// Where a node is reached: the one of its latest boot holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Contact {
    boot: u64,
    address: String,
}

impl Member {
    /// A node heard of for the first time, with a profile. It must not be in state `Suspect`: a
    /// suspicion starts with [`Self::suspect`].
    pub(crate) fn new(
        node: NodeId,
        standing: Standing,
        profile: &Profile,
        accused_at: u64,
        now: Time,
    ) -> Self {
        debug_assert_ne!(standing.state, State::Suspect);
        Self {
            node,
            standing,
            contact: Contact {
                boot: profile.boot,
                address: profile.address.clone(),
            },
            epoch: profile.epoch,
            since: now,
            pulse: Pulse::default(),
            accused_at,
            suspicion: None,
            flapping: Flapping::default(),
            told_at: None,
        }
    }

    /// Takes in the parts of a profile that are newer than what is known.
    pub(crate) fn learn_profile(&mut self, profile: &Profile) {
        let contact = Contact {
            boot: profile.boot,
            address: profile.address.clone(),
        };
        if contact > self.contact {
            self.contact = contact;
        }
        self.learn_epoch(profile.epoch);
    }

    pub(crate) fn learn_epoch(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Takes in what a message or a rumor of the present incarnation says about the heartbeat.
    pub(crate) fn learn_pulse(&mut self, incarnation: Incarnation, learn: impl FnOnce(&mut Pulse)) {
        if incarnation == self.standing.incarnation {
            learn(&mut self.pulse);
        }
    }

    /// Adopts a greater belief; a suspicion is set aside if this ends it.
    ///
    /// A belief in state `Suspect` comes through [`Self::suspect`].
    pub(crate) fn adopt(&mut self, standing: Standing, accused_at: u64, now: Time) {
        debug_assert!(
            standing > self.standing,
            "a belief gives way only to a greater one"
        );
        if standing.incarnation > self.standing.incarnation {
            self.pulse = Pulse::default();
        }
        if standing.state != self.standing.state {
            self.since = now;
        }
        if standing.state != State::Suspect {
            self.suspicion = None;
        }
        // One return at most for each absence, however it went on: a goodbye ends it without one,
        // so a node that is restarted in good order does not flap.
        if self.standing.state.is_accusation() && standing.state == State::Alive {
            self.flapping.count_return(now);
        }
        self.standing = standing;
        self.accused_at = accused_at;
    }

    /// Adopts a greater belief in state `Suspect`, under the suspicion that is to run.
    pub(crate) fn suspect(
        &mut self,
        standing: Standing,
        accused_at: u64,
        suspicion: Suspicion,
        now: Time,
    ) {
        debug_assert_eq!(standing.state, State::Suspect);
        self.adopt(standing, accused_at, now);
        self.suspicion = Some(suspicion);
    }

    pub(crate) fn suspicion(&self) -> Option<&Suspicion> {
        self.suspicion.as_ref()
    }

    pub(crate) fn suspicion_mut(&mut self) -> Option<&mut Suspicion> {
        self.suspicion.as_mut()
    }

    /// What this member would claim about the node, without its profile.
    pub(crate) fn rumor(&self) -> Rumor {
        let Standing {
            incarnation,
            cleared,
            state,
        } = self.standing;
        let accused_at = self.accused_at;
        let claim = match (state, &self.suspicion) {
            (State::Alive, _) => Claim::Alive { cleared },
            (State::Suspect, Some(suspicion)) => Claim::Suspect {
                cleared,
                accused_at,
                accuser: suspicion.accuser(),
            },
            (State::Suspect, None) => Claim::Suspect {
                cleared,
                accused_at,
                accuser: self.node,
            },
            (State::Dead, _) => Claim::Dead {
                cleared,
                accused_at,
            },
            (State::Left, _) => Claim::Left,
        };
        Rumor {
            node: self.node,
            incarnation,
            claim,
            profile: None,
        }
    }

    /// The same with the profile.
    pub(crate) fn record(&self, now: Time, period: Duration) -> Rumor {
        let profile = Profile {
            address: self.contact.address.clone(),
            boot: self.contact.boot,
            heartbeat: self.pulse.newest(),
            age: self.pulse.age(now, period),
            epoch: self.epoch,
        };
        Rumor {
            profile: Some(profile),
            ..self.rumor()
        }
    }

    /// What to tell others when this changes: claims of life go with the profile.
    pub(crate) fn news(&self, now: Time, period: Duration) -> Rumor {
        match self.standing.state {
            State::Alive => self.record(now, period),
            State::Suspect | State::Dead | State::Left => self.rumor(),
        }
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    pub(crate) fn accused_at(&self) -> u64 {
        self.accused_at
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Where it is reached, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.contact.address
    }

    /// How often it has been started, as far as known.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.contact.boot
    }

    /// What it is believed to be doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.standing.state
    }

    /// The whole belief, with its place in the order of beliefs.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Its incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.standing.incarnation
    }

    /// The newest heartbeat heard of: the age of its process, in probe periods, when it last worked.
    #[must_use]
    pub fn heartbeat(&self) -> u64 {
        self.pulse.newest()
    }

    /// The newest topology epoch it was heard to have.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Until when it is damped, on this member's clock: it has come back from suspicion or death too
    /// often of late. `None` if its last return did not lead to that.
    ///
    /// It changes only with [`Event::Alive`](crate::Event::Alive). A damped member is a member like
    /// any other and a replica like any other; where there is a choice, it should not coordinate
    /// requests, nor be the one that a full value is read from. All members may be damped at once,
    /// as this is one member's view: then none is worse than another.
    #[must_use]
    pub fn damped_until(&self) -> Option<Time> {
        self.flapping.damped_until()
    }

    /// Since when it is in its present state, on this member's clock.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }
}
