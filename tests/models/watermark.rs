//! Every interleaving of a hand-over with the rounds by which deletions are forgotten: is a write that was acknowledged ever taken
//! for deleted, and does a deletion stay one?
//!
//! One key. Its value was written, and in one world deleted. A replica that the last write did not reach holds what was before.
//! Nodes learn of epochs in any order; owners compare; the joiner pulls; whoever lost its slot drains; and whenever the rules
//! allow it, the watermark of the partition rises over all that was written, whereupon owners forget what is deleted, and take
//! what they do not know for deleted. The epochs are the crate's own, and so is the answer whether a partition is settled
//! ([`Topology::is_settled`](kv_ring::Topology::is_settled)).

use std::collections::{HashSet, VecDeque};

use kv_types::{BucketId, Quorum};

use crate::epochs::{Epochs, JOINER, MAX_NODES, Set, index, node};

/// What a node holds of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Copy {
    #[default]
    Nothing,
    Value,
    Tombstone,
}

/// The rules that are followed, where they are not the crate's.
#[derive(Clone, Copy, Default)]
struct Rules {
    /// The watermark rises while owners are joint or somebody drains.
    unsettled: bool,
    /// The joiner has its sources' watermark before it has what they hold.
    early_watermark: bool,
    /// A node says that it has drained when one of the owners holds what it held.
    drained_to_one: bool,
    /// A joiner keeps what it holds from an earlier attempt.
    keeps_leftovers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct State {
    committed: u8,
    adopted: [u8; MAX_NODES],
    copies: [Copy; MAX_NODES],
    /// Whose watermark has risen over the write, or the deletion.
    risen: Set,
    /// The epoch whose owners were found equal, so that their watermarks may rise.
    round: Option<u8>,
    pulled: Set,
    attempt: u8,
    /// Something was taken for deleted.
    put_aside: bool,
}

struct Model {
    epochs: Epochs,
    rules: Rules,
    is_deleted: bool,
    /// Who has the last write at first; the others have what was before.
    reached: Set,
}

impl Model {
    fn start(&self) -> State {
        let mut state = State::default();
        for owner in 0..JOINER {
            state.copies[owner] = match (has(self.reached, owner), self.is_deleted) {
                (true, true) => Copy::Tombstone,
                (true, false) | (false, true) => Copy::Value,
                (false, false) => Copy::Nothing,
            };
        }
        state
    }

    fn owners(&self, epoch: u8) -> Vec<usize> {
        self.epochs
            .replicas(epoch)
            .old()
            .iter()
            .map(|owner| index(*owner))
            .collect()
    }

    /// A node hears of what another one holds.
    fn take_in(&self, state: &mut State, at: usize, copy: Copy) {
        let knows_better = has(state.risen, at) && state.copies[at] == Copy::Nothing;
        match (state.copies[at], copy) {
            (_, Copy::Value) if knows_better => state.put_aside = true,
            (_, Copy::Tombstone) if knows_better => {}
            (Copy::Nothing, copy) | (Copy::Value, copy @ Copy::Tombstone) => {
                state.copies[at] = copy;
            }
            _ => {}
        }
    }

    fn adopt(&self, state: &mut State, node: usize, epoch: u8) {
        state.adopted[node] = epoch;
        let joins = node == JOINER && self.epochs.is_joint(epoch);
        if joins && !self.rules.keeps_leftovers {
            state.copies[node] = Copy::Nothing;
        }
        if joins {
            // What it knows of an earlier time as an owner or joiner counts for nothing.
            state.risen &= !(1 << node);
        }
    }

    fn next_states(&self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        self.commit(state, &mut next);
        for node in 0..MAX_NODES {
            for epoch in self.epochs.up_to(state.committed) {
                if self.epochs.is_later(epoch, state.adopted[node]) {
                    let mut after = *state;
                    self.adopt(&mut after, node, epoch);
                    next.push(after);
                }
            }
            self.compare(state, node, &mut next);
            self.pull(state, node, &mut next);
            self.drain(state, node, &mut next);
            self.rise(state, node, &mut next);
        }
        self.round(state, &mut next);
        next
    }

    fn commit(&self, state: &State, next: &mut Vec<State>) {
        let now = state.committed;
        for epoch in self.epochs.next(now) {
            let before = self.epochs.replicas(now);
            let finishes = before.new_owners() == Some(self.epochs.replicas(epoch).old());
            let sources = || {
                let sources = self
                    .epochs
                    .at(now)
                    .sources(BucketId(1), self.epochs.partition);
                u32::from(sources.expect("the slot holds the bucket").needed)
            };
            if finishes && (state.attempt != now || state.pulled.count_ones() < sources()) {
                continue;
            }
            let leaver = self.epochs.at(now).draining(self.epochs.partition).next();
            let drains = self.epochs.at(epoch).draining(self.epochs.partition).next();
            if let (Some(leaver), None) = (leaver, drains)
                && !self.has_drained(state, index(leaver))
            {
                continue;
            }
            let mut after = *state;
            after.committed = epoch;
            if finishes && has(after.risen, self.owners(now)[0]) {
                // It owns its sources' watermark from now on.
                after.risen |= 1 << JOINER;
            }
            next.push(after);
        }
    }

    /// Whether the owners hold what one that lost its slot does.
    fn has_drained(&self, state: &State, leaver: usize) -> bool {
        let knows = |owner: &usize| match state.copies[leaver] {
            Copy::Nothing => true,
            Copy::Value => state.copies[*owner] != Copy::Nothing || has(state.risen, *owner),
            Copy::Tombstone => state.copies[*owner] == Copy::Tombstone || has(state.risen, *owner),
        };
        let owners = self.owners(state.adopted[leaver]);
        match self.rules.drained_to_one {
            true => owners.iter().any(knows),
            false => owners.iter().all(knows),
        }
    }

    /// Owners bring each other what they hold, as both know the owners.
    fn compare(&self, state: &State, to: usize, next: &mut Vec<State>) {
        for from in self.owners(state.adopted[to]) {
            let both = from != to && self.owners(state.adopted[to]).contains(&to);
            if both && state.adopted[from] == state.adopted[to] {
                let mut after = *state;
                self.take_in(&mut after, to, state.copies[from]);
                next.push(after);
            }
        }
    }

    fn pull(&self, state: &State, joiner: usize, next: &mut Vec<State>) {
        let joint = state.adopted[JOINER];
        if joiner != JOINER || !self.epochs.is_joint(joint) {
            return;
        }
        for source in self.owners(joint) {
            if self.epochs.is_later(joint, state.adopted[source]) {
                continue;
            }
            let mut after = *state;
            if after.attempt != joint {
                (after.attempt, after.pulled) = (joint, 0);
            }
            if self.rules.early_watermark && has(state.risen, source) {
                after.risen |= 1 << joiner;
            }
            after.pulled |= 1 << source;
            self.take_in(&mut after, joiner, state.copies[source]);
            next.push(after);
        }
    }

    fn drain(&self, state: &State, leaver: usize, next: &mut Vec<State>) {
        let known = self.epochs.at(state.adopted[leaver]);
        if !known
            .draining(self.epochs.partition)
            .any(|drains| drains == node(leaver))
        {
            return;
        }
        for owner in self.owners(state.adopted[leaver]) {
            let mut after = *state;
            self.take_in(&mut after, owner, state.copies[leaver]);
            next.push(after);
        }
    }

    /// All owners were compared, and hold the same.
    fn round(&self, state: &State, next: &mut Vec<State>) {
        let epoch = state.committed;
        let owners = self.owners(epoch);
        let settled = self.epochs.at(epoch).is_settled(self.epochs.partition);
        let all_know = owners.iter().all(|owner| state.adopted[*owner] == epoch);
        let first = state.copies[owners[0]];
        let equal = owners.iter().all(|owner| state.copies[*owner] == first);
        if (settled || self.rules.unsettled) && all_know && equal {
            next.push(State {
                round: Some(epoch),
                ..*state
            });
        }
    }

    /// A watermark rises by a round of the owners that the node knows, and what is deleted is forgotten when all have risen.
    fn rise(&self, state: &State, owner: usize, next: &mut Vec<State>) {
        let Some(round) = state.round else { return };
        let owners = self.owners(round);
        let changed = |epoch: u8| self.epochs.at(epoch).changed_at(self.epochs.partition);
        let knows = changed(state.adopted[owner]) == changed(round);
        if !owners.contains(&owner) || !knows {
            return;
        }
        if !has(state.risen, owner) {
            let mut after = *state;
            after.risen |= 1 << owner;
            next.push(after);
        }
        let all_risen = owners.iter().all(|owner| has(state.risen, *owner));
        if all_risen && state.copies[owner] == Copy::Tombstone {
            let mut after = *state;
            after.copies[owner] = Copy::Nothing;
            next.push(after);
        }
    }

    /// What must not be.
    fn is_wrong(&self, state: &State) -> bool {
        if !self.is_deleted {
            return state.put_aside;
        }
        // The value shows where the deletion is remembered by nobody.
        let remembered = state.copies.contains(&Copy::Tombstone);
        let owners = self.owners(state.committed);
        let shows = |owner: &usize| state.copies[*owner] == Copy::Value;
        !remembered && owners.iter().any(shows)
    }

    fn check(&self) -> Result<usize, State> {
        let start = self.start();
        let mut seen = HashSet::from([start]);
        let mut queue = VecDeque::from([start]);
        while let Some(state) = queue.pop_front() {
            if self.is_wrong(&state) {
                return Err(state);
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

/// Whether any world goes wrong: what was last written may have reached any of the old owners.
fn search(rules: Rules) -> Result<usize, State> {
    let mut states = 0;
    for is_deleted in [false, true] {
        for reached in 1..1 << JOINER {
            let quorum = Quorum::new(3, 2, 2).expect("possible");
            let model = Model {
                epochs: Epochs::new(quorum, false).with_drains(),
                rules,
                is_deleted,
                reached,
            };
            states += model.check()?;
        }
    }
    Ok(states)
}

#[test]
fn no_write_is_taken_for_deleted_and_what_is_deleted_stays_so() {
    let states = search(Rules::default()).expect("sound");
    assert!(states > 10_000, "only {states} states were visited");
}

#[test]
fn each_weaker_rule_takes_a_write_for_deleted_or_brings_back_what_is() {
    let sound = Rules::default;
    for (name, rules) in [
        (
            "a watermark rises while somebody drains",
            Rules {
                unsettled: true,
                ..sound()
            },
        ),
        (
            "the joiner has the watermark first",
            Rules {
                early_watermark: true,
                ..sound()
            },
        ),
        (
            "drained to one owner",
            Rules {
                drained_to_one: true,
                ..sound()
            },
        ),
        (
            "a joiner keeps what it holds",
            Rules {
                keeps_leftovers: true,
                ..sound()
            },
        ),
    ] {
        assert!(search(rules).is_err(), "{name}");
    }
}
