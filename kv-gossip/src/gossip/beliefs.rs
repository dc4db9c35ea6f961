//! Merging rumors, accusing, clearing, refuting.

use kv_types::NodeId;

use super::Gossip;
use crate::heartbeat::Pulse;
use crate::io::Event;
use crate::member::Member;
use crate::message::{Claim, Rumor};
use crate::standing::{Incarnation, Standing, State};
use crate::suspicion::Suspicion;
use crate::timers::Timer;

/// How many members wait to be probed out of turn.
const DOUBTED_LIMIT: usize = 16;

impl Gossip {
    /// Takes in a rumor; `is_view` says that the sender merely believes it, as opposed to news.
    pub(super) fn on_rumor(&mut self, sender: NodeId, rumor: Rumor, is_view: bool) {
        if rumor.node == self.me {
            return self.on_rumor_about_me(&rumor);
        }
        // The sender is behind in the topology.
        if self.removed.contains_key(&rumor.node) {
            return;
        }
        let Some(known) = self.members.get(rumor.node).map(Member::standing) else {
            return self.meet(sender, &rumor, is_view);
        };
        let standing = rumor.standing();
        if standing <= known {
            self.learn_details(&rumor);
            return self.count_confirmation(rumor);
        }
        if standing.state.is_accusation() {
            if self.disprove(&rumor) {
                return;
            }
            // Two halves of a healed partition believe each other's members dead. Were that
            // adopted, all would be dead for a moment; so the accused is asked instead.
            if is_view && known.state == State::Alive {
                return self.doubt(rumor);
            }
        }
        self.adopt(&rumor);
        self.learn_details(&rumor);
        self.spread_about(rumor.node);
    }

    /// This member has found out itself that `node` does not answer.
    pub(super) fn accuse(&mut self, node: NodeId) {
        let Some(member) = self.members.get(node) else {
            return;
        };
        let Standing {
            incarnation,
            cleared,
            state,
        } = member.standing();
        let accused_at = match state {
            State::Alive => member.pulse().not_before(self.now, self.config.period()),
            State::Suspect => member.accused_at(),
            State::Dead | State::Left => return,
        };
        let claim = Claim::Suspect {
            cleared,
            accused_at,
            accuser: self.me,
        };
        let rumor = Rumor {
            node,
            incarnation,
            claim,
            profile: None,
        };
        if state == State::Suspect {
            return self.count_confirmation(rumor);
        }
        self.stats.suspicions += 1;
        self.adopt(&rumor);
        self.rumors_add(rumor);
    }

    /// An ack of `node` arrived, stating a heartbeat of an incarnation: evidence of life, and the
    /// only kind there is.
    pub(super) fn witness(&mut self, node: NodeId, incarnation: Incarnation, heartbeat: u64) {
        let (now, period) = (self.now, self.config.period());
        let disproved = self.members.update(node, |member| {
            member.learn_pulse(incarnation, |pulse| {
                pulse.hear(now, heartbeat, period);
                pulse.ack(heartbeat);
            });
            let Standing { cleared, state, .. } = member.standing();
            state.is_accusation() && member.pulse().acked() > member.accused_at().max(cleared)
        });
        if disproved == Some(true) {
            self.clear(node);
        }
    }

    /// The timer of a suspicion ended: the suspect is dead, unless the suspicion is over or changed.
    pub(super) fn end_suspicion(&mut self, node: NodeId, token: u64) {
        let Some(member) = self.members.get(node) else {
            return;
        };
        if member.suspicion().map(|suspicion| suspicion.token) != Some(token) {
            return;
        }
        if self.now < self.grace_until {
            self.timers
                .set(self.grace_until, Timer::SuspicionEnd { node, token });
            return;
        }
        let Standing {
            incarnation,
            cleared,
            ..
        } = member.standing();
        let claim = Claim::Dead {
            cleared,
            accused_at: member.accused_at(),
        };
        let rumor = Rumor {
            node,
            incarnation,
            claim,
            profile: None,
        };
        self.stats.deaths += 1;
        self.adopt(&rumor);
        self.rumors_add(rumor);
    }

    /// Answers the accusations heard so far by a higher incarnation, if this member is fit to.
    pub(super) fn refute(&mut self) {
        if self.leaving || self.own.is_stalled(self.now) {
            return;
        }
        let Some(accused) = self.accused.take() else {
            return;
        };
        let alive = Standing::alive(accused.next());
        let now = self.now;
        self.members.update(self.me, |me| me.adopt(alive, 0, now));
        self.beat();
        self.stats.refutations += 1;
        self.spread_about(self.me);
    }

    fn on_rumor_about_me(&mut self, rumor: &Rumor) {
        let (mine, boot) = (self.members.me().standing(), self.members.me().boot());
        let stated_boot = rumor.profile.as_ref().map_or(boot, |profile| profile.boot);
        if stated_boot > self.remembered_boot {
            self.remembered_boot = stated_boot;
            self.emit(Event::OlderBoot {
                remembered: stated_boot,
            });
        }
        let theirs = rumor.standing();
        // What an earlier process of this node said must not be taken for the word of this one.
        let earlier_life = stated_boot < boot && theirs.incarnation >= mine.incarnation;
        if self.leaving || (theirs <= mine && !earlier_life) {
            return;
        }
        let same_incarnation = theirs.incarnation == mine.incarnation;
        if same_incarnation && theirs.state == State::Alive && !earlier_life {
            // Somebody cleared this member of an accusation.
            let now = self.now;
            self.members.update(self.me, |me| me.adopt(theirs, 0, now));
            return;
        }
        if same_incarnation && theirs.state.is_accusation() {
            self.health.worsen(1);
        }
        self.accused = self.accused.max(Some(theirs.incarnation));
        self.refute();
    }

    /// Takes in a node heard of for the first time.
    fn meet(&mut self, sender: NodeId, rumor: &Rumor, is_view: bool) {
        let Some(profile) = &rumor.profile else {
            // Neither dropped nor guessed: who spreads rumors about a node knows where it is.
            return self.sync_out_of_turn(sender);
        };
        if self.members.len() >= self.config.members_limit {
            self.stats.members_refused += 1;
            return;
        }
        let standing = rumor.standing();
        let is_suspect = standing.state == State::Suspect;
        let first = if is_suspect {
            standing.but(State::Alive)
        } else {
            standing
        };
        let member = Member::new(
            rumor.node,
            first,
            profile,
            rumor.claim.accused_at(),
            self.now,
        );
        self.members.insert(member, &mut self.rng);
        if is_suspect {
            self.adopt(rumor);
        } else {
            self.emit_state(rumor.node);
        }
        self.learn_details(rumor);
        // A newcomer that is shown a view need not tell everybody what everybody knows.
        let is_settled = self.now >= self.started + self.config.sync_every();
        let is_news =
            !is_view || rumor.node == sender || (is_settled && !standing.state.is_accusation());
        if is_news {
            self.spread_about(rumor.node);
        }
    }

    /// Adopts a greater belief about a known member, and says so.
    fn adopt(&mut self, rumor: &Rumor) {
        let now = self.now;
        let (node, standing, accused_at) = (rumor.node, rumor.standing(), rumor.claim.accused_at());
        let Some(before) = self.state_of(node) else {
            return;
        };
        if let Claim::Suspect { accuser, .. } = rumor.claim {
            let live = self.members.live_count();
            self.suspicions_count += 1;
            let token = self.suspicions_count;
            let suspicion = Suspicion::new(&self.config, live, accuser, now, token);
            self.timers
                .set(suspicion.deadline(), Timer::SuspicionEnd { node, token });
            self.members.update(node, |member| {
                member.suspect(standing, accused_at, suspicion, now);
            });
        } else {
            self.members
                .update(node, |member| member.adopt(standing, accused_at, now));
        }
        self.doubted.remove(&node);
        if before != standing.state {
            self.emit_state(node);
        }
        if standing.state == State::Suspect && self.members.observers_of(node).contains(&self.me) {
            self.check_suspects();
        }
    }

    /// Takes in what a rumor says beside the standing.
    fn learn_details(&mut self, rumor: &Rumor) {
        let Some(profile) = &rumor.profile else {
            return;
        };
        let (now, period) = (self.now, self.config.period());
        self.members.update(rumor.node, |member| {
            member.learn_profile(profile);
            let learn =
                |pulse: &mut Pulse| pulse.learn(now, profile.heartbeat, profile.age, period);
            member.learn_pulse(rumor.incarnation, learn);
        });
    }

    /// Another accusation of a member that is suspected already shortens the suspicion, if one of
    /// its observers makes it.
    fn count_confirmation(&mut self, rumor: Rumor) {
        let Claim::Suspect { accuser, .. } = rumor.claim else {
            return;
        };
        let (node, standing) = (rumor.node, rumor.standing());
        let suspicion = self.members.get(node).and_then(Member::suspicion);
        // Most have been heard before: looking that up is cheaper than the observers.
        let is_wanted = suspicion.is_some_and(|suspicion| suspicion.wants(accuser));
        if !is_wanted || !self.members.observers_of(node).contains(&accuser) {
            return;
        }
        self.suspicions_count += 1;
        let token = self.suspicions_count;
        let deadline = self.members.update(node, |member| {
            let agrees = member.standing() == standing;
            let suspicion = member.suspicion_mut().filter(|_| agrees)?;
            suspicion.confirm(accuser).then(|| {
                suspicion.token = token;
                suspicion.deadline()
            })
        });
        if let Some(Some(deadline)) = deadline {
            self.timers
                .set(deadline, Timer::SuspicionEnd { node, token });
            self.rumors_add(rumor);
        }
    }

    /// Rejects an accusation that an ack of later date disproves; true if so.
    fn disprove(&mut self, rumor: &Rumor) -> bool {
        let Some(member) = self.members.get(rumor.node) else {
            return false;
        };
        let theirs = rumor.standing();
        let disproved = theirs.incarnation == member.incarnation()
            && member.pulse().acked() > rumor.claim.accused_at().max(theirs.cleared);
        if disproved {
            self.clear(rumor.node);
        }
        disproved
    }

    /// Declares a member alive by the newest ack, and tells.
    fn clear(&mut self, node: NodeId) {
        let Some(member) = self.members.get(node) else {
            return;
        };
        let standing = member.standing().cleared_at(member.pulse().acked());
        let claim = Claim::Alive {
            cleared: standing.cleared,
        };
        let rumor = Rumor {
            node,
            incarnation: standing.incarnation,
            claim,
            profile: None,
        };
        self.stats.clearances += 1;
        self.adopt(&rumor);
        self.spread_about(node);
    }

    /// Asks a member that a peer's view accuses: directly, and by the next probe.
    fn doubt(&mut self, rumor: Rumor) {
        let node = rumor.node;
        if self.doubted.len() < DOUBTED_LIMIT {
            self.doubted.insert(node);
        }
        self.tell(node, rumor);
    }

    fn emit_state(&mut self, node: NodeId) {
        if let Some(state) = self.state_of(node) {
            self.emit(match state {
                State::Alive => Event::Alive { node },
                State::Suspect => Event::Suspect { node },
                State::Dead => Event::Dead { node },
                State::Left => Event::Left { node },
            });
        }
    }
}
