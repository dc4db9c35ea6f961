//! The next table: the previous one, repaired with the fewest moves.
//!
//! As a flow: every partition sends N units through its zones (at most the cap each) to nodes (at most
//! one each), which pass on what their shares allow. A unit on an edge of the previous table is free;
//! any other costs 1. The cheapest flow is the table with the fewest moves.
//!
//! The previous table, less what is not allowed any more, is a cheapest flow for the amounts it sends,
//! because nothing in it could be undone at a gain. From there, sending each missing unit along a path
//! that is cheapest at that moment keeps it so (successive shortest paths; Ahuja, Magnanti and Orlin,
//! "Network Flows", 1993, section 9.7). Cheapest paths cost 0, then 1, then more:
//!
//! 1. cost 0: only where a zone's cap has shrunk, another choice of who leaves;
//! 2. cost 1: a slot goes straight from one who must give to one who must gain. These are nearly all,
//!    so they are found by simple scans that also choose well among equals;
//! 3. the rest are chains of moves, found by search.

use super::draft::{Draft, EMPTY};
use super::{augment, mix};

/// Of how many possible slots the scan chooses the one that suits the prefixes best.
const CHOICES: usize = 8;

/// Repairs a draft into a complete table: its slots, as member indexes.
pub(super) fn repair(mut draft: Draft<'_>) -> Vec<u16> {
    if drop_beyond_zone_cap(&mut draft) {
        augment::send_all(&mut draft, Some(0));
    }
    fill_empty_slots(&mut draft);
    hand_over(&mut draft, Draft::is_short);
    hand_over(&mut draft, Draft::wants);
    augment::send_all(&mut draft, None);
    restore_positions(&mut draft);
    draft.slots
}

/// Empties slots where a zone holds more of a partition than its cap; whether there were any.
fn drop_beyond_zone_cap(draft: &mut Draft<'_>) -> bool {
    let mut dropped = false;
    for slot in (0..draft.slots.len()).rev() {
        let member = draft.slots[slot];
        if member == EMPTY {
            continue;
        }
        let partition = slot / draft.problem.replicas;
        if draft.in_zone(partition, draft.problem.zone(member)) > draft.problem.zone_cap {
            draft.take(slot);
            dropped = true;
        }
    }
    dropped
}

/// Gives empty slots to members that want one and fit.
fn fill_empty_slots(draft: &mut Draft<'_>) {
    let members = 0..draft.problem.members() as u16;
    let mut wanting: Vec<u16> = members.filter(|&member| draft.wants(member)).collect();
    for slot in 0..draft.slots.len() {
        if draft.slots[slot] != EMPTY {
            continue;
        }
        let position = slot % draft.problem.replicas;
        let rank = |&&member: &&u16| {
            let tie = mix((slot as u64) << 16 | u64::from(member));
            (draft.counts.cost_of_adding(member, position), tie)
        };
        let fitting = wanting.iter().filter(|&&member| draft.fits(slot, member));
        if let Some(&member) = fitting.min_by_key(rank) {
            draft.put(slot, member);
            // The slack is shared: one taker can end the wishes of all.
            if !draft.wants(member) || draft.slack == 0 {
                wanting.retain(|&member| draft.wants(member));
            }
        }
    }
}

/// Moves slots from members that can spare one to those that `gains` names, one each in turn.
fn hand_over<'a>(draft: &mut Draft<'a>, gains: impl Fn(&Draft<'a>, u16) -> bool) {
    let members = 0..draft.problem.members() as u16;
    let mut scans: Vec<Scan> = members
        .filter(|&m| gains(draft, m))
        .map(Scan::new)
        .collect();
    while !scans.is_empty() {
        scans.retain_mut(|scan| {
            if !gains(draft, scan.member) {
                return false;
            }
            let Some(slot) = scan.next_slot(draft) else {
                return false;
            };
            draft.take(slot);
            draft.put(slot, scan.member);
            true
        });
    }
}

/// A member's walk over the partitions in an order of its own, in search of slots to take.
struct Scan {
    member: u16,
    next: usize,
    stride: usize,
}

impl Scan {
    fn new(member: u16) -> Self {
        let random = mix(member.into()) as usize;
        // An odd stride meets every partition, because their number is a power of two.
        Self {
            member,
            next: random >> 20,
            stride: random | 1,
        }
    }

    /// The best of the next few slots that the member could take from one who can spare it.
    fn next_slot(&mut self, draft: &Draft<'_>) -> Option<usize> {
        let mut best = None;
        let mut seen = 0;
        for _ in 0..draft.problem.partitions {
            let partition = self.next & (draft.problem.partitions - 1);
            self.next = self.next.wrapping_add(self.stride);
            for slot in draft.partition(partition) {
                if self.may_take(draft, partition, slot) {
                    let cost = self.cost(draft, slot);
                    best = best.into_iter().chain([(cost, slot)]).min();
                    seen += 1;
                }
            }
            if seen >= CHOICES {
                break;
            }
        }
        best.map(|(_, slot)| slot)
    }

    fn may_take(&self, draft: &Draft<'_>, partition: usize, slot: usize) -> bool {
        let holder = draft.slots[slot];
        let spares = holder != EMPTY && draft.spares(holder) && draft.was_in(partition, holder);
        spares && draft.fits(slot, self.member)
    }

    fn cost(&self, draft: &Draft<'_>, slot: usize) -> i64 {
        let position = slot % draft.problem.replicas;
        draft.counts.cost_of_adding(self.member, position)
            + draft.counts.cost_of_removing(draft.slots[slot], position)
    }
}

/// Puts members that stayed back where they were; chains may have moved them within a partition.
fn restore_positions(draft: &mut Draft<'_>) {
    for partition in 0..draft.problem.partitions {
        for slot in draft.partition(partition) {
            let before = draft.before[slot];
            let now = draft
                .partition(partition)
                .find(|&now| draft.slots[now] == before);
            if let Some(now) = now.filter(|&now| before != EMPTY && now != slot) {
                draft.slots.swap(slot, now);
            }
        }
    }
}
