//! The decision of a read: whom to ask, whose answers agree, what to reply, what to repair. Pure.
//!
//! One replica is asked for the object, the others for its digest. Where digests differ the objects
//! behind them are fetched and merged, so that a reply contains what each of its r replicas holds.

use std::collections::{BTreeMap, BTreeSet};

use kv_ring::ReplicaSet;
use kv_types::{Epoch, Hlc, NodeId, Object, planted};

use super::told::{self, Told, left_of};

/// What a replica is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// The object.
    Object,
    /// Its digest.
    Digest,
}

/// What a replica answered to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetAnswer {
    /// What it holds.
    Held {
        /// Under which epoch of the partition.
        epoch: Epoch,
        /// Its watermark; zero if it does not know all that was acknowledged.
        through: Hlc,
        /// What it is.
        holding: Holding,
    },
    /// It knows a newer topology of the partition.
    Stale(Epoch),
    /// It refused, or no answer came.
    Failed,
}

/// What a replica holds of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Nothing.
    Nothing,
    /// An object with this digest.
    Digest(u64),
    /// This object.
    Object {
        /// Its digest.
        digest: u64,
        /// The object.
        object: Box<Object>,
    },
}

impl Holding {
    fn digest(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Digest(digest) | Self::Object { digest, .. } => Some(*digest),
        }
    }
}

/// What is to be done after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetStep {
    /// Ask these; empty: wait for more.
    Ask(Vec<(NodeId, Want)>),
    /// Enough replicas have answered with known contents.
    Reply(GetReply),
    /// Too many failed.
    Fail,
    /// The partition changed owners: answers so far are of another epoch.
    Restart(Epoch),
}

/// The result of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetReply {
    /// All that the answering replicas know.
    pub object: Object,
    /// Who they are.
    pub answered: Vec<NodeId>,
    /// Those of them that hold less than `object`.
    pub repair: Vec<NodeId>,
    /// The latest of their watermarks: what lies below and is not in `object` was deleted.
    pub through: Hlc,
}

/// Collects answers of one read, once per node, all under one epoch of the partition.
#[derive(Debug)]
pub struct GetCore {
    replicas: ReplicaSet,
    needed: u8,
    partition_epoch: Epoch,
    /// Replicas not asked yet, best first.
    unasked: Vec<NodeId>,
    /// Asked for an object, not answered yet.
    objects_underway: BTreeSet<NodeId>,
    held: BTreeMap<NodeId, (Hlc, Holding)>,
    failed: BTreeSet<NodeId>,
}

impl GetCore {
    /// A read that needs `needed` of `replicas`; `candidates` are those worth asking, best first.
    #[must_use]
    pub fn new(
        replicas: ReplicaSet,
        needed: u8,
        partition_epoch: Epoch,
        candidates: Vec<NodeId>,
    ) -> Self {
        Self {
            replicas,
            needed,
            partition_epoch,
            unasked: candidates,
            objects_underway: BTreeSet::new(),
            held: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Whom to ask first: as few as can meet the need, the best one for the object.
    pub fn start(&mut self) -> Vec<(NodeId, Want)> {
        let enough = (1..=self.unasked.len())
            .find(|count| {
                let asked = &self.unasked[..*count];
                self.replicas
                    .is_met(|node| asked.contains(&node), self.needed)
            })
            .unwrap_or(self.unasked.len());
        let asked: Vec<NodeId> = self.unasked.drain(..enough).collect();
        self.objects_underway.extend(asked.first());
        asked
            .into_iter()
            .enumerate()
            .map(|(rank, node)| {
                (
                    node,
                    if rank == 0 {
                        Want::Object
                    } else {
                        Want::Digest
                    },
                )
            })
            .collect()
    }

    /// Whether there is anyone who was not asked yet.
    #[must_use]
    pub fn can_ask_more(&self) -> bool {
        !self.unasked.is_empty()
    }

    /// Answers are late: asks the best of those who were not asked yet.
    pub fn on_late(&mut self) -> Vec<(NodeId, Want)> {
        let next = 1.min(self.unasked.len());
        let asked = self.unasked.drain(..next).collect();
        self.ask_for_objects(asked)
    }

    /// Takes in an answer.
    pub fn on_answer(&mut self, from: NodeId, answer: GetAnswer) -> GetStep {
        match answer {
            GetAnswer::Held {
                epoch,
                through,
                holding,
            } if epoch == self.partition_epoch => {
                self.objects_underway.remove(&from);
                self.held.insert(from, (through, holding));
                self.next_step()
            }
            GetAnswer::Held { epoch, .. } | GetAnswer::Stale(epoch)
                if epoch > self.partition_epoch =>
            {
                GetStep::Restart(epoch)
            }
            GetAnswer::Held { .. } | GetAnswer::Stale(_) | GetAnswer::Failed => {
                // A digest whose object cannot be had is no answer either.
                self.objects_underway.remove(&from);
                self.held.remove(&from);
                self.failed.insert(from);
                self.replace_failed()
            }
        }
    }

    fn replace_failed(&mut self) -> GetStep {
        if !self
            .replicas
            .is_met(|node| !self.failed.contains(&node), self.needed)
        {
            return GetStep::Fail;
        }
        let object_at_hand = self.objects().next().is_some();
        match self.next_step() {
            GetStep::Ask(mut asks) if !self.unasked.is_empty() => {
                let node = self.unasked.remove(0);
                if object_at_hand {
                    asks.push((node, Want::Digest));
                } else {
                    asks.append(&mut self.ask_for_objects(vec![node]));
                }
                GetStep::Ask(asks)
            }
            step => step,
        }
    }

    fn next_step(&mut self) -> GetStep {
        let known = |node: NodeId| {
            let held = self.held.get(&node);
            held.is_some_and(|(_, holding)| self.is_known(holding))
        };
        let mut needed = self.needed;
        if planted!("let a read ask one replica too few") {
            needed = needed.max(2) - 1;
        }
        if planted!("answer a read once two replicas agree") {
            needed = needed.min(2);
        }
        if self.replicas.is_met(known, needed) {
            return GetStep::Reply(self.reply());
        }
        // While the first object is on its way, a digest may yet turn out to be that object's.
        if !self.objects_underway.is_empty() && self.objects().next().is_none() {
            return GetStep::Ask(Vec::new());
        }
        let unknown = self
            .held
            .iter()
            .filter(|(node, (_, holding))| {
                !self.is_known(holding) && !self.objects_underway.contains(node)
            })
            .map(|(node, _)| *node)
            .collect();
        GetStep::Ask(self.ask_for_objects(unknown))
    }

    fn ask_for_objects(&mut self, nodes: Vec<NodeId>) -> Vec<(NodeId, Want)> {
        self.objects_underway.extend(&nodes);
        nodes.into_iter().map(|node| (node, Want::Object)).collect()
    }

    /// Whether the contents behind an answer are at hand.
    fn is_known(&self, holding: &Holding) -> bool {
        match holding {
            Holding::Nothing | Holding::Object { .. } => true,
            Holding::Digest(wanted) => self.objects().any(|(digest, _)| digest == *wanted),
        }
    }

    fn objects(&self) -> impl Iterator<Item = (u64, &Object)> {
        self.held.values().filter_map(|(_, holding)| match holding {
            Holding::Object { digest, object } => Some((*digest, &**object)),
            Holding::Nothing | Holding::Digest(_) => None,
        })
    }

    fn object_of(&self, holding: &Holding) -> Option<&Object> {
        let wanted = holding.digest()?;
        let mut objects = self.objects();
        objects.find_map(|(digest, object)| (digest == wanted).then_some(object))
    }

    fn reply(&self) -> GetReply {
        // Whoever is to gain the partition may not know yet what was deleted. The old owners have all that was acknowledged.
        let old = self.replicas.old().iter();
        let told_by_old: Vec<Told<'_>> = old
            .filter_map(|node| self.held.get(node))
            .filter(|(_, holding)| self.is_known(holding))
            .map(|(through, holding)| Told {
                object: self.object_of(holding),
                through: *through,
            })
            .collect();
        let merged = told::merged(&told_by_old);
        let through = told_by_old.iter().map(|one| one.through).max();
        let through = through.unwrap_or(Hlc::ZERO);
        let is_forgotten = merged.oldest_dot().is_none() && merged.clock().latest() <= through;
        let mut answered = Vec::new();
        let mut repair = Vec::new();
        for (node, (_, holding)) in &self.held {
            if !self.is_known(holding) {
                continue;
            }
            answered.push(*node);
            let is_up_to_date = match self.object_of(holding) {
                _ if is_forgotten => true,
                None => merged.is_empty(),
                Some(object) => *left_of(object, &told_by_old) == merged,
            };
            if !is_up_to_date {
                repair.push(*node);
            }
        }
        GetReply {
            object: merged,
            answered,
            repair,
            through,
        }
    }

    /// How many answers count towards the need.
    #[must_use]
    pub fn count(&self) -> u8 {
        self.replicas.count(|node| self.held.contains_key(&node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kv_types::{ActorId, Clock, Dot, Payload, Write, WriteId};

    const EPOCH: Epoch = Epoch(5);

    fn node(n: u128) -> NodeId {
        NodeId(n)
    }

    fn core(needed: u8) -> GetCore {
        let nodes = [node(1), node(2), node(3)];
        GetCore::new(ReplicaSet::stable(nodes), needed, EPOCH, nodes.to_vec())
    }

    /// An object with one write by each of these actors, none having read another.
    fn object(actors: &[u32]) -> Object {
        let mut object = Object::new();
        for actor in actors {
            let write = Write {
                write_id: WriteId::new(1, [*actor as u8; 10]),
                payload: Payload::Value(Bytes::from_static(b"v")),
                expires_ms: None,
            };
            let dot = Dot::new(ActorId(*actor), Hlc(10));
            object
                .write(write, &Clock::new(), dot, Hlc::ZERO, 1)
                .expect("few siblings");
        }
        object
    }

    fn digest(object: &Object) -> u64 {
        xxh(&object.encode())
    }

    fn xxh(bytes: &[u8]) -> u64 {
        bytes.iter().fold(7, |sum: u64, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        })
    }

    fn holds(holding: Holding) -> GetAnswer {
        held_through(Hlc::ZERO, holding)
    }

    fn held_through(through: Hlc, holding: Holding) -> GetAnswer {
        GetAnswer::Held {
            epoch: EPOCH,
            through,
            holding,
        }
    }

    fn full(object: &Object) -> GetAnswer {
        let encoded = object.encode();
        let holding = Holding::Object {
            digest: xxh(&encoded),
            object: Box::new(object.clone()),
        };
        holds(holding)
    }

    #[test]
    fn what_only_a_joining_owner_holds_is_not_shown() {
        let nodes = [1, 2, 3, 4].map(node);
        let replicas = ReplicaSet::joint(nodes[..3].to_vec(), [nodes[0], nodes[1], nodes[3]]);
        let mut core = GetCore::new(replicas, 2, EPOCH, nodes.to_vec());
        let (current, deleted_long_ago) = (object(&[1]), object(&[2]));
        assert!(matches!(
            core.on_answer(node(4), full(&deleted_long_ago)),
            GetStep::Ask(_)
        ));
        assert!(matches!(
            core.on_answer(node(1), full(&current)),
            GetStep::Ask(_)
        ));
        let GetStep::Reply(reply) = core.on_answer(node(2), full(&current)) else {
            panic!("two old owners and two new ones have answered");
        };
        assert_eq!(reply.object, current);
        assert_eq!(reply.repair, [node(4)]);
    }

    #[test]
    fn what_a_joining_owner_holds_as_the_old_ones_do_is_shown() {
        let nodes = [4, 1, 2, 3].map(node);
        let replicas = ReplicaSet::joint(nodes[1..].to_vec(), [nodes[1], nodes[2], nodes[0]]);
        let mut core = GetCore::new(replicas, 2, EPOCH, nodes.to_vec());
        let current = object(&[1]);
        core.on_answer(node(4), full(&current));
        core.on_answer(node(1), only_digest(&current));
        let GetStep::Reply(reply) = core.on_answer(node(2), only_digest(&current)) else {
            panic!("the object is at hand");
        };
        assert_eq!(reply.object, current);
    }

    fn only_digest(object: &Object) -> GetAnswer {
        holds(Holding::Digest(digest(object)))
    }

    fn reply(step: GetStep) -> GetReply {
        match step {
            GetStep::Reply(reply) => reply,
            other => panic!("expected a reply, got {other:?}"),
        }
    }

    #[test]
    fn equal_digests_answer_without_a_second_round() {
        let mut core = core(2);
        assert_eq!(
            core.start(),
            [(node(1), Want::Object), (node(2), Want::Digest)]
        );
        let held = object(&[1]);
        assert_eq!(
            core.on_answer(node(2), only_digest(&held)),
            GetStep::Ask(vec![])
        );
        let reply = reply(core.on_answer(node(1), full(&held)));
        assert_eq!(
            reply,
            GetReply {
                object: held,
                answered: vec![node(1), node(2)],
                repair: vec![],
                through: Hlc::ZERO,
            }
        );
    }

    #[test]
    fn a_differing_digest_is_fetched_merged_and_repaired() {
        let mut core = core(2);
        core.start();
        let (old, new) = (object(&[1]), object(&[1, 2]));
        assert_eq!(core.on_answer(node(1), full(&old)), GetStep::Ask(vec![]));
        assert_eq!(
            core.on_answer(node(2), only_digest(&new)),
            GetStep::Ask(vec![(node(2), Want::Object)])
        );
        let reply = reply(core.on_answer(node(2), full(&new)));
        assert_eq!(
            reply,
            GetReply {
                object: new,
                answered: vec![node(1), node(2)],
                repair: vec![node(1)],
                through: Hlc::ZERO,
            }
        );
    }

    #[test]
    fn concurrent_writes_on_two_replicas_are_both_shown_and_both_replicas_repaired() {
        let mut core = core(2);
        core.start();
        core.on_answer(node(1), full(&object(&[1])));
        core.on_answer(node(2), only_digest(&object(&[2])));
        let reply = reply(core.on_answer(node(2), full(&object(&[2]))));
        assert_eq!(reply.object, object(&[1, 2]));
        assert_eq!(reply.repair, [node(1), node(2)]);
    }

    #[test]
    fn a_replica_that_holds_nothing_is_repaired() {
        let mut core = core(2);
        core.start();
        let held = object(&[1]);
        core.on_answer(node(2), holds(Holding::Nothing));
        let reply = reply(core.on_answer(node(1), full(&held)));
        assert_eq!((reply.object, reply.repair), (held, vec![node(2)]));
    }

    #[test]
    fn what_an_owner_has_seen_deleted_is_neither_shown_nor_brought_anywhere() {
        let mut core = core(2);
        core.start();
        core.on_answer(node(1), full(&object(&[1])));
        let forgotten = held_through(Hlc(10), Holding::Nothing);
        let reply = reply(core.on_answer(node(2), forgotten));
        assert_eq!(reply.object.siblings().count(), 0);
        assert_eq!((reply.repair, reply.through), (vec![], Hlc(10)));
    }

    #[test]
    fn a_key_that_nobody_holds_is_absent() {
        let mut core = core(2);
        core.start();
        core.on_answer(node(1), holds(Holding::Nothing));
        let reply = reply(core.on_answer(node(2), holds(Holding::Nothing)));
        assert!(reply.object.is_empty() && reply.repair.is_empty());
    }

    #[test]
    fn a_failed_replica_is_replaced_by_the_next() {
        let mut core = core(2);
        core.start();
        let held = object(&[1]);
        assert_eq!(
            core.on_answer(node(1), GetAnswer::Failed),
            GetStep::Ask(vec![(node(3), Want::Object)])
        );
        core.on_answer(node(2), only_digest(&held));
        let reply = reply(core.on_answer(node(3), full(&held)));
        assert_eq!(reply.answered, [node(2), node(3)]);
    }

    #[test]
    fn a_digest_whose_object_cannot_be_fetched_is_no_answer() {
        let mut core = core(2);
        core.start();
        core.on_answer(node(1), full(&object(&[1])));
        core.on_answer(node(2), only_digest(&object(&[1, 2])));
        assert_eq!(
            core.on_answer(node(2), GetAnswer::Failed),
            GetStep::Ask(vec![(node(3), Want::Digest)])
        );
        assert_eq!(core.on_answer(node(3), GetAnswer::Failed), GetStep::Fail);
    }

    #[test]
    fn late_answers_make_it_ask_the_rest() {
        let mut core = core(2);
        core.start();
        assert_eq!(core.on_late(), [(node(3), Want::Object)]);
        core.on_answer(node(3), full(&object(&[1])));
        let reply = reply(core.on_answer(node(2), only_digest(&object(&[1]))));
        assert_eq!(reply.answered, [node(2), node(3)]);
    }

    #[test]
    fn a_digest_is_fetched_when_the_object_was_lost_with_its_replica() {
        let mut core = core(1);
        assert_eq!(core.start(), [(node(1), Want::Object)]);
        assert_eq!(
            core.on_answer(node(1), GetAnswer::Failed),
            GetStep::Ask(vec![(node(2), Want::Object)])
        );
        let reply = reply(core.on_answer(node(2), full(&object(&[1]))));
        assert_eq!(reply.answered, [node(2)]);
    }

    #[test]
    fn answers_of_a_newer_epoch_end_the_read() {
        let mut core = core(2);
        core.start();
        assert_eq!(
            core.on_answer(node(1), GetAnswer::Stale(Epoch(6))),
            GetStep::Restart(Epoch(6))
        );
        let newer = GetAnswer::Held {
            epoch: Epoch(7),
            through: Hlc::ZERO,
            holding: Holding::Nothing,
        };
        assert_eq!(core.on_answer(node(2), newer), GetStep::Restart(Epoch(7)));
    }
}
