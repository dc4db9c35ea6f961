//! The first table: laid out directly, then shuffled.
//!
//! Write every node's number as often as its load says, nodes of one zone side by side, and deal the
//! sequence over the partitions in turn. A node holds at most as many slots as there are partitions,
//! so its run never comes back to a partition it is in; a zone's run comes back at most as often as
//! its cap says. (This is McNaughton's wrap-around rule for schedules, 1959.) So goals 1 to 3 hold by
//! construction, without a search.
//!
//! Dealt like this, neighbours in the sequence would share all their partitions. Random swaps that
//! keep goals 1 to 3 scatter them.

use super::{Problem, mix};

/// Swaps tried for each slot. Past four, the number of peers of a node grows no more.
const SWAPS_PER_SLOT: usize = 4;

/// The slots of all partitions, as member indexes; the order within a partition means nothing yet.
pub(super) fn lay_out(problem: &Problem) -> Vec<u16> {
    let loads = round_shares(problem);
    let (partitions, replicas) = (problem.partitions, problem.replicas);
    let mut slots = vec![0; partitions * replicas];
    let by_zone = problem.zones.iter().flatten();
    let sequence = by_zone.flat_map(|&m| core::iter::repeat_n(m, loads[usize::from(m)] as usize));
    for (position, member) in sequence.enumerate() {
        slots[position % partitions * replicas + position / partitions] = member;
    }
    scatter(problem, &mut slots);
    slots
}

/// Every share rounded down or up, so that they add up to all slots and no zone exceeds its cap.
///
/// First the sums of the zones are rounded, then the members within each: a zone at its cap has a
/// whole sum, which rounding cannot push beyond it.
fn round_shares(problem: &Problem) -> Vec<u32> {
    let mut loads: Vec<u32> = problem.shares.iter().map(|share| share.floor()).collect();
    let zone_remainder = |zone: &Vec<u16>| {
        // The members of one zone share one denominator.
        let whole = problem.shares[usize::from(zone[0])].denominator();
        let cut: u128 = zone
            .iter()
            .map(|&m| problem.shares[usize::from(m)].remainder())
            .sum();
        (cut / whole, cut % whole)
    };
    let remainders: Vec<(u128, u128)> = problem.zones.iter().map(zone_remainder).collect();

    let all = (problem.partitions * problem.replicas) as u64;
    let floors: u64 = loads.iter().copied().map(u64::from).sum();
    let in_zones: u64 = remainders.iter().map(|&(whole, _)| whole as u64).sum();
    let mut left = all - floors - in_zones;

    // Zones with a broken sum stand at the common level, so their remainders compare.
    let mut order: Vec<usize> = (0..problem.zones.len()).collect();
    order.sort_by_key(|&zone| (core::cmp::Reverse(remainders[zone].1), zone));
    for zone in order {
        let extra = u64::from(left > 0 && remainders[zone].1 > 0);
        left -= extra;
        round_up(problem, &mut loads, zone, remainders[zone].0 as u64 + extra);
    }
    debug_assert_eq!(left, 0);
    loads
}

/// Rounds the `count` members of a zone up that rounding down cut the most from.
fn round_up(problem: &Problem, loads: &mut [u32], zone: usize, count: u64) {
    let remainder = |member: u16| problem.shares[usize::from(member)].remainder();
    let mut members = problem.zones[zone].clone();
    members.sort_by_key(|&member| (core::cmp::Reverse(remainder(member)), member));
    for &member in members.iter().take(count as usize) {
        loads[usize::from(member)] += 1;
    }
}

fn scatter(problem: &Problem, slots: &mut [u16]) {
    let count = slots.len() as u64;
    for turn in 0..count * SWAPS_PER_SLOT as u64 {
        let random = mix(turn);
        // Each half, as a fraction of 2^32, times the count.
        let (a, b) = (
            ((random >> 32) * count) >> 32,
            ((random & 0xffff_ffff) * count) >> 32,
        );
        swap_if_allowed(problem, slots, a as usize, b as usize);
    }
}

fn swap_if_allowed(problem: &Problem, slots: &mut [u16], a: usize, b: usize) {
    let (leaves_a, leaves_b) = (slots[a], slots[b]);
    let fits = |slots: &[u16], slot: usize, member: u16| {
        let first = slot - slot % problem.replicas;
        let partition = first..first + problem.replicas;
        let mut same_zone = 0;
        for other in partition.filter(|&other| other != slot) {
            if slots[other] == member {
                return false;
            }
            same_zone += usize::from(problem.zone(slots[other]) == problem.zone(member));
        }
        same_zone < problem.zone_cap
    };
    let same_partition = a / problem.replicas == b / problem.replicas;
    if !same_partition && fits(slots, a, leaves_b) && fits(slots, b, leaves_a) {
        slots.swap(a, b);
    }
}
