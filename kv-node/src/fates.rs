//! What became of a write whose client does not know.
//!
//! It was applied if a replica remembers it; then it is brought to so many that every quorum read shows it, or what replaced
//! it. That it never will be applied can only be said when nothing of it can be on its way any more, however slow networks and
//! paused processes are. So nothing here relies on time that passes: a coordinator gives a write no dot that is later than a
//! minute after its creation ([`WriteId::latest_dot`]), or else says so ([`crate::minter`]); and once all members have
//! promised to take in no such write any more ([`settled`]), nothing from up to there ([`crate::tombstones::floor`]), and to keep
//! nothing from there for others, what the owners do not hold is nowhere.
//!
//! The order matters: promises first, then whoever may keep something of the key for an owner, then the owners, then their
//! watermarks; a write may be replaced, delivered, deleted and forgotten in between, and must not look as if it had never been.

pub mod settled;

use std::sync::Arc;
use std::time::Duration;

use kv_net::message::{FateV1, PlaceV1, Request, Response, WatermarksV1, WriteFate};
use kv_ring::Topology;
use kv_types::{BucketMode, Hlc, NodeId, Object, Sibling, WriteId, planted};

use crate::coordinator::Coordinator;
use crate::coordinator::recall::Recalled;
use crate::env::{Deadline, Env};
use crate::refusal::Refusal;
use crate::tombstones::promises::Promises;

/// What depends on others may be asked again after so long.
const SOON_MS: u64 = 1_000;

/// Who finds out.
#[derive(Debug, Clone)]
pub struct Fates {
    pub(crate) env: Env,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) promises: Promises,
}

/// What is known of a write.
#[derive(Debug)]
struct Evidence<'a> {
    /// What the owners that were heard hold of its key.
    object: &'a Object,
    /// No owner is missing.
    heard_all: bool,
    /// Somebody may keep something of its key for an owner, or as one that was an owner, and remember what no owner has heard of.
    may_be_kept: bool,
    /// What all members had said before the owners were asked.
    promised: Promised,
    /// Up to here an owner may have forgotten what was deleted; `None` where one did not say.
    forgotten: Option<Hlc>,
}

/// What all members say of a time.
#[derive(Debug, Clone, Copy)]
struct Promised {
    /// They take in nothing from up to here.
    floor: Hlc,
    /// The write has no later dot.
    settles: Hlc,
    /// What was made up to here may have been lost with a disk.
    lost: Hlc,
}

impl Promised {
    fn is_enough(&self) -> bool {
        self.floor >= self.settles || planted!("settle a write before all have promised")
    }
}

impl Fates {
    /// Finds out what became of a write.
    ///
    /// # Errors
    /// [`Refusal`] when too few owners answer.
    pub async fn of(&self, asked: &FateV1, deadline: Deadline) -> Result<WriteFate, Refusal> {
        let topology = self.coordinator.topology();
        let mut promised = self.promised(&topology, asked.write_id, deadline).await;
        let Recalled {
            plan,
            object,
            heard_all,
            may_be_kept,
        } = self
            .coordinator
            .recall(asked, promised.is_enough(), deadline)
            .await?;
        if plan.topology.epoch() > topology.epoch() {
            // Those who have promised may not be all who are asked now.
            promised.floor = Hlc::ZERO;
        }
        let is_known = object.knows(asked.write_id);
        let forgotten = if is_known || !heard_all || !promised.is_enough() {
            None
        } else {
            let place = PlaceV1 {
                bucket: asked.bucket,
                partition: plan.target.partition.0,
            };
            let owners: Vec<_> = plan.replicas.nodes().collect();
            let forgotten = self.forgotten(&plan.topology, &owners, place);
            let within = deadline.left(&self.env);
            self.env.timeout(within, forgotten).await.ok().flatten()
        };
        let evidence = Evidence {
            object: &object,
            heard_all,
            may_be_kept,
            promised,
            forgotten,
        };
        let keep = self.promises.forgetting.floor.keep();
        let (mode, now_ms) = (plan.properties.mode, self.env.host.wall_ms());
        Ok(judge(asked.write_id, &evidence, mode, now_ms, keep))
    }

    /// What all members say, after they were asked to promise what settles the write.
    async fn promised(
        &self,
        topology: &Topology,
        write_id: WriteId,
        deadline: Deadline,
    ) -> Promised {
        let mut promised = Promised {
            floor: Hlc::ZERO,
            settles: write_id.latest_dot(),
            lost: Hlc::ZERO,
        };
        // Once more if a member's clock was so far ahead that it gave out later dots.
        for _ in 0..2 {
            // It is in vain before.
            if self.promises.forgetting.floor.reading() < promised.settles {
                return promised;
            }
            let asked = self.promises.all(
                topology,
                Some(promised.settles),
                Some(write_id.latest_dot()),
            );
            let third = deadline.left(&self.env) / 3;
            let Ok(Ok(told)) = self.env.timeout(third, asked).await else {
                return promised;
            };
            let floors = told.values().map(|told| told.floor);
            promised.floor = floors.min().unwrap_or(Hlc::ZERO);
            let lost = told.values().map(|told| told.lost_through);
            promised.lost = lost.max().unwrap_or(Hlc::ZERO);
            let late = told.values().map(|told| told.late_through);
            promised.settles = promised.settles.max(late.max().unwrap_or(Hlc::ZERO));
            if promised.floor >= promised.settles {
                return promised;
            }
        }
        promised
    }

    /// The highest watermark of a place's owners, if all of them say theirs.
    async fn forgotten(
        &self,
        topology: &Topology,
        owners: &[NodeId],
        place: PlaceV1,
    ) -> Option<Hlc> {
        let mut highest = Hlc::ZERO;
        for owner in owners {
            let asked = WatermarksV1 {
                epoch: topology.epoch(),
                places: vec![place],
            };
            let answer = if *owner == self.promises.forgetting.me {
                self.promises.forgetting.watermarks(&asked).ok()
            } else {
                let request = Request::Watermarks(asked);
                self.promises.ask(topology, *owner, request).await
            };
            let Some(Response::Watermarks(told)) = answer else {
                return None;
            };
            highest = highest.max(told.marks.first().copied().flatten()?);
        }
        Some(highest)
    }
}

/// What can be said.
fn judge(
    write_id: WriteId,
    evidence: &Evidence<'_>,
    mode: BucketMode,
    now_ms: u64,
    keep: Duration,
) -> WriteFate {
    let object = evidence.object;
    if object.knows(write_id) {
        let is_it =
            |sibling: &Sibling| sibling.write_id() == write_id && !sibling.is_expired(now_ms);
        let shows = match mode {
            BucketMode::Siblings => object.siblings().any(is_it),
            BucketMode::Lww => object.last_written().is_some_and(is_it),
        };
        return WriteFate::Applied { shows };
    }
    let may_come = !evidence.promised.is_enough() || evidence.may_be_kept;
    let may_come = may_come && !planted!("settle a write before all have promised");
    let settled = (!may_come && evidence.heard_all).then_some(evidence.forgotten);
    let Some(Some(forgotten)) = settled else {
        let settles_ms = evidence.promised.settles.plus(keep).millis();
        return WriteFate::Unknown {
            settles_ms: settles_ms.max(now_ms + SOON_MS),
        };
    };
    // Its dot may be earlier than its creation, by as much as clients' clocks may be ahead, and by what a disk is late.
    let earliest_ms = write_id
        .created_ms()
        .saturating_sub(2 * WriteId::HORIZON_MS);
    let is_remembered = write_id.created_ms() > object.remembers_after_ms()
        && forgotten.max(evidence.promised.lost).millis() < earliest_ms;
    if is_remembered {
        WriteFate::NotApplied
    } else {
        WriteFate::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_types::{ActorId, Clock, Dot, Payload, Write};

    const KEEP: Duration = Duration::from_secs(120);
    const CREATED_MS: u64 = 1_000_000;

    fn id(created_ms: u64) -> WriteId {
        WriteId::new(created_ms, [7; 10])
    }

    fn object(created_ms: u64) -> Object {
        let write = Write {
            write_id: id(created_ms),
            payload: Payload::Value("v".into()),
            expires_ms: None,
        };
        let mut object = Object::new();
        let dot = Dot::new(ActorId(1), Hlc::from_millis(created_ms));
        object
            .write(write, &Clock::new(), dot, Hlc::ZERO, created_ms)
            .expect("small");
        object
    }

    fn judged(object: &Object, heard_all: bool, floor: Hlc, forgotten: Option<Hlc>) -> WriteFate {
        let settles = id(CREATED_MS).latest_dot();
        let evidence = Evidence {
            object,
            heard_all,
            may_be_kept: false,
            promised: Promised {
                floor,
                settles,
                lost: Hlc::ZERO,
            },
            forgotten,
        };
        judge(id(CREATED_MS), &evidence, BucketMode::Siblings, 0, KEEP)
    }

    #[test]
    fn what_may_be_kept_for_an_owner_or_have_been_lost_is_not_denied() {
        let (settles, nothing) = (id(CREATED_MS).latest_dot(), Object::new());
        let judged = |may_be_kept, lost| {
            let evidence = Evidence {
                object: &nothing,
                heard_all: true,
                may_be_kept,
                promised: Promised {
                    floor: settles,
                    settles,
                    lost,
                },
                forgotten: Some(Hlc::ZERO),
            };
            judge(id(CREATED_MS), &evidence, BucketMode::Siblings, 0, KEEP)
        };
        assert_eq!(judged(false, Hlc::ZERO), WriteFate::NotApplied);
        assert_eq!(judged(false, settles), WriteFate::Gone);
        assert!(matches!(judged(true, Hlc::ZERO), WriteFate::Unknown { .. }));
    }

    #[test]
    fn a_write_that_is_held_was_applied_whoever_is_silent() {
        let held = object(CREATED_MS);
        let fate = judged(&held, false, Hlc::ZERO, None);
        assert_eq!(fate, WriteFate::Applied { shows: true });
        let mut replaced = held.clone();
        let next = Write {
            write_id: id(CREATED_MS + 1),
            payload: Payload::Tombstone,
            expires_ms: None,
        };
        let dot = Dot::new(ActorId(1), Hlc::from_millis(CREATED_MS + 1));
        let clock = held.clock().clone();
        replaced
            .write(next, &clock, dot, Hlc::ZERO, CREATED_MS + 1)
            .expect("small");
        let fate = judged(&replaced, false, Hlc::ZERO, None);
        assert_eq!(fate, WriteFate::Applied { shows: false });
    }

    #[test]
    fn what_may_be_on_its_way_is_unknown() {
        let other = object(CREATED_MS + 5);
        let settled = id(CREATED_MS).latest_dot();
        let unknown = WriteFate::Unknown {
            settles_ms: CREATED_MS + 180_000,
        };
        assert_eq!(judged(&other, false, settled, Some(Hlc::ZERO)), unknown);
        let before = Hlc(settled.0 - 1);
        assert_eq!(judged(&other, true, before, Some(Hlc::ZERO)), unknown);
    }

    #[test]
    fn what_is_nowhere_and_cannot_have_been_forgotten_was_never_applied() {
        let settled = id(CREATED_MS).latest_dot();
        let (nothing, other) = (Object::new(), object(CREATED_MS + 5));
        let early = Hlc::from_millis(CREATED_MS - 120_001);
        let late = Hlc::from_millis(CREATED_MS - 120_000);
        for held in [&nothing, &other] {
            let fate = judged(held, true, settled, Some(early));
            assert_eq!(fate, WriteFate::NotApplied);
            assert_eq!(judged(held, true, settled, Some(late)), WriteFate::Gone);
            let fate = judged(held, true, settled, None);
            assert!(matches!(fate, WriteFate::Unknown { .. }), "nobody said");
        }
    }

    #[test]
    fn what_may_have_been_replaced_so_long_ago_that_it_is_not_remembered_is_gone() {
        let settled = id(CREATED_MS).latest_dot();
        // A younger write than that is forgotten, so this one may be, too.
        let mut busy = object(CREATED_MS + 1);
        let later_ms = CREATED_MS + 200_000;
        for step in 0..2 {
            let next = Write {
                write_id: id(later_ms + step),
                payload: Payload::Tombstone,
                expires_ms: None,
            };
            let dot = Dot::new(ActorId(1), Hlc::from_millis(later_ms + step));
            let clock = busy.clock().clone();
            busy.write(next, &clock, dot, Hlc::ZERO, later_ms + step)
                .expect("small");
        }
        assert_eq!(busy.remembers_after_ms(), CREATED_MS + 1);
        let fate = judged(&busy, true, settled, Some(Hlc::ZERO));
        assert_eq!(fate, WriteFate::Gone);
    }
}
