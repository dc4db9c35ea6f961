//! Every interleaving of a partition's hand-over: does an acknowledged write show in every later read?
//!
//! One key, one write, one read. The epochs are the crate's own: a node joins, or takes over from one that leaves, and
//! [`Topology::changed_by`] begins, finishes and calls off the move, which may be tried a second time. Nodes learn of epochs in
//! any order and at any time; requests come from coordinators of any epoch and reach their nodes one by one, or never; the
//! joiner pulls from old owners; whoever lost its slot deletes once it knows that. Who must answer, who refuses, and how many
//! sources are needed, the crate says, too ([`ReplicaSet`], [`fence`], [`Topology::sources`]). Each weaker rule must be caught,
//! which shows that the search would find a hole.

use std::collections::{HashSet, VecDeque};

use kv_ring::{Fence, ReplicaSet, fence};
use kv_types::{BucketId, NodeId, Quorum};

use crate::epochs::{Epochs, JOINER, MAX_NODES, Set, index};

/// The rules that are followed, where they are not the crate's.
#[derive(Clone, Copy)]
struct Rules {
    write: u8,
    read: u8,
    /// Old owners that a joiner pulls from, instead of as many as are needed.
    sources: Option<u8>,
    /// Whether replicas refuse requests from before the partition's last change.
    fenced: bool,
    /// Whether a source must have adopted the joint epoch before it is pulled from.
    sealed: bool,
    /// Whether reads, too, need a quorum on both sides.
    joint_reads: bool,
    /// Whether answers of several epochs count together.
    one_tally: bool,
    /// Whether what was pulled in an earlier attempt counts.
    resumes: bool,
    /// Whether the joiner gets rid of what it holds from before when it pulls first, instead of when it learns of the attempt.
    drops_late: bool,
    /// Whether a node that has pulled nothing yet may finish the move.
    hasty: bool,
}

const SOUND: Rules = Rules {
    write: 2,
    read: 2,
    sources: None,
    fenced: true,
    sealed: true,
    joint_reads: true,
    one_tally: false,
    resumes: false,
    drops_late: false,
    hasty: false,
};

/// One request: whether it has begun and ended, its epoch, who has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Request {
    begun: bool,
    done: bool,
    epoch: u8,
    answered: Set,
    saw_value: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct State {
    /// The last epoch that is decided.
    committed: u8,
    /// The epoch that each node has adopted.
    adopted: [u8; MAX_NODES],
    /// Who holds the written value.
    holders: Set,
    /// Whom the joiner has pulled from, and in which attempt.
    pulled: Set,
    attempt: u8,
    write: Request,
    read: Request,
}

struct Model {
    epochs: Epochs,
    rules: Rules,
}

impl Model {
    fn new(rules: Rules, leaves: bool) -> Self {
        let quorum = Quorum::new(3, rules.read, rules.write).expect("possible");
        Self {
            epochs: Epochs::new(quorum, leaves),
            rules,
        }
    }

    fn replicas(&self, epoch: u8, is_read: bool) -> ReplicaSet {
        let replicas = self.epochs.replicas(epoch);
        match is_read && !self.rules.joint_reads {
            true => ReplicaSet::stable(replicas.old().to_vec()),
            false => replicas,
        }
    }

    fn serves(&self, request: u8, own: u8) -> bool {
        let [request, own] = [request, own].map(|epoch| self.epochs.at(epoch));
        let changed = own.changed_at(self.epochs.partition);
        // A node that is behind adopts, and then serves.
        !self.rules.fenced || fence(request.epoch(), own.epoch(), changed) != Fence::StaleRequest
    }

    fn needed(&self, joint: u8) -> u32 {
        let bucket = BucketId(1);
        let sources = self.epochs.at(joint).sources(bucket, self.epochs.partition);
        let needed = sources.expect("the slot holds the bucket").needed;
        self.rules.sources.unwrap_or(needed).into()
    }

    fn next_states(&self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        self.commit(state, &mut next);
        for node in 0..MAX_NODES {
            self.adopt_or_delete(state, node, &mut next);
            self.pull(state, node, &mut next);
            self.answer_write(state, node, &mut next);
            self.answer_read(state, node, &mut next);
        }
        for epoch in self.epochs.up_to(state.committed) {
            let begun = Request {
                begun: true,
                epoch,
                ..Request::default()
            };
            if !state.write.begun {
                next.push(State {
                    write: begun,
                    ..*state
                });
            } else if state.write.done && !state.read.begun {
                next.push(State {
                    read: begun,
                    ..*state
                });
            }
            if self.rules.one_tally
                && state.read.begun
                && self.epochs.is_later(epoch, state.read.epoch)
            {
                // It goes on under the newer epoch, and keeps what it has counted.
                let mut after = *state;
                after.read.epoch = epoch;
                next.push(after);
            }
        }
        next
    }

    fn commit(&self, state: &State, next: &mut Vec<State>) {
        for epoch in self.epochs.next(state.committed) {
            let before = self.epochs.replicas(state.committed);
            let finishes = before.new_owners() == Some(self.epochs.replicas(epoch).old());
            let is_synced = || {
                state.attempt == state.committed
                    && state.pulled.count_ones() >= self.needed(state.committed)
            };
            if !finishes || self.rules.hasty || is_synced() {
                next.push(State {
                    committed: epoch,
                    ..*state
                });
            }
        }
    }

    fn adopt_or_delete(&self, state: &State, node: usize, next: &mut Vec<State>) {
        let own = state.adopted[node];
        for epoch in self.epochs.up_to(state.committed) {
            if self.epochs.is_later(epoch, own) {
                let mut after = *state;
                self.adopt(&mut after, node, epoch);
                next.push(after);
            }
        }
        let owns = self
            .epochs
            .replicas(own)
            .contains(crate::epochs::node(node));
        if !owns && has(state.holders, node) {
            next.push(State {
                holders: state.holders & !(1 << node),
                ..*state
            });
        }
    }

    /// A node learns of an epoch, which is on its disk before it does anything else.
    fn adopt(&self, state: &mut State, node: usize, epoch: u8) {
        if !self.epochs.is_later(epoch, state.adopted[node]) {
            return;
        }
        state.adopted[node] = epoch;
        if node == JOINER && self.epochs.is_joint(epoch) && !self.rules.drops_late {
            state.holders &= !(1 << node);
        }
    }

    fn pull(&self, state: &State, joiner: usize, next: &mut Vec<State>) {
        if joiner != JOINER || !self.epochs.is_joint(state.committed) {
            return;
        }
        let is_new = state.attempt != state.committed;
        let pulled = match is_new && !self.rules.resumes {
            true => 0,
            false => state.pulled,
        };
        let sources = self.epochs.replicas(state.committed);
        for source in sources.old().iter().map(|source| index(*source)) {
            let is_sealed = !self.epochs.is_later(state.committed, state.adopted[source]);
            if has(pulled, source) || !is_sealed && self.rules.sealed {
                continue;
            }
            let mut after = *state;
            after.attempt = state.committed;
            self.adopt(&mut after, joiner, state.committed);
            if is_new && self.rules.drops_late {
                after.holders &= !(1 << joiner);
            }
            after.pulled = pulled | 1 << source;
            after.holders |= (state.holders >> source & 1) << joiner;
            next.push(after);
        }
    }

    fn answer_write(&self, state: &State, node: usize, next: &mut Vec<State>) {
        let Some(mut after) = self.answer(state, node, state.write, false) else {
            return;
        };
        after.holders |= 1 << node;
        after.write.answered |= 1 << node;
        let replicas = self.replicas(after.write.epoch, false);
        after.write.done = replicas.is_met(member_of(after.write.answered), self.rules.write);
        next.push(after);
    }

    fn answer_read(&self, state: &State, node: usize, next: &mut Vec<State>) {
        let Some(mut after) = self.answer(state, node, state.read, true) else {
            return;
        };
        after.read.answered |= 1 << node;
        after.read.saw_value |= has(state.holders, node);
        let replicas = self.replicas(after.read.epoch, true);
        after.read.done = replicas.is_met(member_of(after.read.answered), self.rules.read);
        next.push(after);
    }

    /// The state in which a node has taken a request, if it is sent to the node and served there.
    fn answer(&self, state: &State, node: usize, request: Request, is_read: bool) -> Option<State> {
        let waits = request.begun && !request.done && !has(request.answered, node);
        let asked = waits
            && self
                .replicas(request.epoch, is_read)
                .contains(crate::epochs::node(node));
        (asked && self.serves(request.epoch, state.adopted[node])).then(|| {
            let mut after = *state;
            self.adopt(&mut after, node, request.epoch);
            after
        })
    }

    /// Visits every state that can be reached; how many, or the first in which a read missed the write.
    fn check(&self) -> Result<usize, State> {
        let start = State::default();
        let mut seen = HashSet::from([start]);
        let mut queue = VecDeque::from([start]);
        while let Some(state) = queue.pop_front() {
            if state.read.done {
                if !state.read.saw_value {
                    return Err(state);
                }
                continue;
            }
            for next in self.next_states(&state) {
                if seen.insert(next) {
                    queue.push_back(next);
                }
            }
        }
        Ok(seen.len())
    }
}

fn has(set: Set, node: usize) -> bool {
    set >> node & 1 == 1
}

fn member_of(set: Set) -> impl Fn(NodeId) -> bool {
    move |node| has(set, index(node))
}

fn lost(rules: Rules) -> State {
    Model::new(rules, false).check().expect_err("unsound")
}

#[test]
fn a_handover_by_the_rules_loses_no_write_also_when_it_is_called_off_and_tried_again() {
    for leaves in [false, true] {
        let states = Model::new(SOUND, leaves).check().expect("sound");
        assert!(states > 50_000, "only {states} states were visited");
    }
}

#[test]
fn it_loses_none_with_other_strict_quorums_either() {
    for (read, write) in [(1, 3), (3, 1)] {
        let rules = Rules {
            read,
            write,
            ..SOUND
        };
        Model::new(rules, false).check().expect("sound");
    }
}

#[test]
fn each_weaker_rule_loses_a_write() {
    let one_source = Some(1);
    for (name, rules) in [
        (
            "no fence",
            Rules {
                fenced: false,
                ..SOUND
            },
        ),
        (
            "one source",
            Rules {
                sources: one_source,
                ..SOUND
            },
        ),
        (
            "one source, read one",
            Rules {
                read: 1,
                write: 3,
                sources: one_source,
                ..SOUND
            },
        ),
        (
            "two sources, write one",
            Rules {
                read: 3,
                write: 1,
                sources: Some(2),
                ..SOUND
            },
        ),
        (
            "sources that serve the old epoch",
            Rules {
                sealed: false,
                ..SOUND
            },
        ),
        (
            "reads from the old side only",
            Rules {
                joint_reads: false,
                ..SOUND
            },
        ),
        (
            "a tally over several epochs",
            Rules {
                one_tally: true,
                ..SOUND
            },
        ),
        (
            "what an earlier attempt pulled counts",
            Rules {
                resumes: true,
                ..SOUND
            },
        ),
        (
            "what is held from before is dropped late",
            Rules {
                drops_late: true,
                ..SOUND
            },
        ),
        (
            "finished before all is pulled",
            Rules {
                hasty: true,
                ..SOUND
            },
        ),
    ] {
        let state = lost(rules);
        assert!(state.write.done, "{name}: {state:?}");
    }
}
