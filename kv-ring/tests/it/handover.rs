//! Every interleaving of a partition's hand-over: does an acknowledged write show in every later read?
//!
//! One key, one write, one read, old owners O, new owners M, three epochs: O stable, joint, M stable.
//! Nodes learn of epochs in any order and at any time; requests come from coordinators of any epoch
//! and reach their nodes one by one, or never; joiners pull from old owners; leavers delete once they
//! know of the last epoch. The rules are the crate's own ([`ReplicaSet`] and [`fence`]); each weaker
//! one must be caught, which shows that the search would find a hole.

use std::collections::{HashSet, VecDeque};

use kv_ring::{Fence, ReplicaSet, fence};
use kv_types::{Epoch, NodeId};

/// Nodes, as bits.
type Set = u8;

const JOINT: u8 = 1;
const LAST: u8 = 2;
const MAX_NODES: usize = 5;

/// A hand-over and the rules it follows.
#[derive(Clone, Copy)]
struct Rules {
    old: Set,
    new: Set,
    write: u8,
    read: u8,
    /// Old owners that a joiner must have pulled from.
    sources: u32,
    /// Whether replicas refuse requests from before the partition's last change.
    fenced: bool,
    /// Whether a source must have adopted the joint epoch before it is pulled from.
    sealed: bool,
    /// Whether reads, too, need a quorum on both sides.
    joint_reads: bool,
}

const SOUND: Rules = Rules {
    old: 0b0111,
    new: 0b1011,
    write: 2,
    read: 2,
    sources: 2,
    fenced: true,
    sealed: true,
    joint_reads: true,
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
    committed: u8,
    /// The epoch that each node has adopted.
    adopted: [u8; MAX_NODES],
    /// Who holds the written value.
    holders: Set,
    /// Whom each joiner has pulled from.
    pulled: [Set; MAX_NODES],
    write: Request,
    read: Request,
}

impl Rules {
    /// The replicas as a coordinator or node of an epoch knows them.
    fn replicas(&self, epoch: u8, is_read: bool) -> ReplicaSet {
        match epoch {
            0 => ReplicaSet::stable(nodes(self.old)),
            JOINT if is_read && !self.joint_reads => ReplicaSet::stable(nodes(self.old)),
            JOINT => ReplicaSet::joint(nodes(self.old), nodes(self.new)),
            _ => ReplicaSet::stable(nodes(self.new)),
        }
    }

    fn serves(&self, request_epoch: u8, own_epoch: u8) -> bool {
        // Every epoch here changes the partition. A node that is behind adopts, and then serves.
        let [request, own] = [request_epoch, own_epoch].map(|epoch| Epoch(u64::from(epoch) + 1));
        !self.fenced || fence(request, own, own) != Fence::StaleRequest
    }

    fn next_states(&self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        self.commit(state, &mut next);
        for node in nodes(self.old | self.new).map(|NodeId(id)| id as usize) {
            self.adopt_or_delete(state, node, &mut next);
            self.pull(state, node, &mut next);
            self.answer_write(state, node, &mut next);
            self.answer_read(state, node, &mut next);
        }
        for epoch in 0..=state.committed {
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
        }
        next
    }

    fn commit(&self, state: &State, next: &mut Vec<State>) {
        let synced = |joiner: usize| state.pulled[joiner].count_ones() >= self.sources;
        let joiners = nodes(self.new & !self.old).map(|NodeId(id)| id as usize);
        let may_commit = match state.committed {
            0 => true,
            JOINT => joiners.into_iter().all(synced),
            _ => false,
        };
        if may_commit {
            next.push(State {
                committed: state.committed + 1,
                ..*state
            });
        }
    }

    fn adopt_or_delete(&self, state: &State, node: usize, next: &mut Vec<State>) {
        for epoch in state.adopted[node] + 1..=state.committed {
            let mut after = *state;
            after.adopted[node] = epoch;
            next.push(after);
        }
        let leaves = has(self.old & !self.new, node);
        if leaves && state.adopted[node] == LAST && has(state.holders, node) {
            next.push(State {
                holders: state.holders & !(1 << node),
                ..*state
            });
        }
    }

    fn pull(&self, state: &State, joiner: usize, next: &mut Vec<State>) {
        if !has(self.new & !self.old, joiner) || state.committed != JOINT {
            return;
        }
        for NodeId(source) in nodes(self.old & !state.pulled[joiner]) {
            let source = source as usize;
            if state.adopted[source] >= JOINT || !self.sealed {
                let mut after = *state;
                after.adopted[joiner] = after.adopted[joiner].max(JOINT);
                after.pulled[joiner] |= 1 << source;
                after.holders |= (state.holders >> source & 1) << joiner;
                next.push(after);
            }
        }
    }

    fn answer_write(&self, state: &State, node: usize, next: &mut Vec<State>) {
        let Some(mut after) = self.answer(state, node, state.write, false) else {
            return;
        };
        after.holders |= 1 << node;
        after.write.answered |= 1 << node;
        let replicas = self.replicas(after.write.epoch, false);
        after.write.done = replicas.is_met(member_of(after.write.answered), self.write);
        next.push(after);
    }

    fn answer_read(&self, state: &State, node: usize, next: &mut Vec<State>) {
        let Some(mut after) = self.answer(state, node, state.read, true) else {
            return;
        };
        after.read.answered |= 1 << node;
        after.read.saw_value |= has(state.holders, node);
        let replicas = self.replicas(after.read.epoch, true);
        after.read.done = replicas.is_met(member_of(after.read.answered), self.read);
        next.push(after);
    }

    /// The state in which a node has taken a request, if it is sent to the node and served there.
    fn answer(&self, state: &State, node: usize, request: Request, is_read: bool) -> Option<State> {
        let id = NodeId(node as u128);
        let waits = request.begun && !request.done && !has(request.answered, node);
        let asked = waits && self.replicas(request.epoch, is_read).contains(id);
        (asked && self.serves(request.epoch, state.adopted[node])).then(|| {
            let mut after = *state;
            after.adopted[node] = after.adopted[node].max(request.epoch);
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

fn nodes(set: Set) -> impl Iterator<Item = NodeId> {
    (0..MAX_NODES)
        .filter(move |&node| has(set, node))
        .map(|node| NodeId(node as u128))
}

fn has(set: Set, node: usize) -> bool {
    set >> node & 1 == 1
}

fn member_of(set: Set) -> impl Fn(NodeId) -> bool {
    move |NodeId(id)| has(set, id as usize)
}

#[test]
fn a_handover_by_the_rules_loses_no_write() {
    let states = SOUND.check().expect("sound");
    assert!(states > 10_000, "only {states} states were visited");
}

#[test]
fn it_loses_none_with_other_strict_quorums_either() {
    for (read, write) in [(1, 3), (3, 1)] {
        Rules {
            read,
            write,
            sources: 3,
            ..SOUND
        }
        .check()
        .expect("sound");
    }
}

#[test]
fn it_loses_none_when_a_leaver_is_replaced_in_another_slot_order() {
    Rules {
        new: 0b1110,
        ..SOUND
    }
    .check()
    .expect("sound");
}

#[test]
fn without_the_fence_a_write_is_lost() {
    Rules {
        fenced: false,
        ..SOUND
    }
    .check()
    .expect_err("unsound");
}

#[test]
fn with_one_source_too_few_a_write_is_lost() {
    Rules {
        sources: 1,
        ..SOUND
    }
    .check()
    .expect_err("unsound");
    Rules {
        read: 1,
        write: 3,
        sources: 1,
        ..SOUND
    }
    .check()
    .expect_err("unsound");
    Rules {
        read: 3,
        write: 1,
        sources: 2,
        ..SOUND
    }
    .check()
    .expect_err("unsound");
}

#[test]
fn with_sources_that_still_serve_the_old_epoch_a_write_is_lost() {
    Rules {
        sealed: false,
        ..SOUND
    }
    .check()
    .expect_err("unsound");
}

#[test]
fn with_reads_from_the_old_side_only_a_write_is_lost() {
    Rules {
        joint_reads: false,
        ..SOUND
    }
    .check()
    .expect_err("unsound");
}
