//! The order of slots in the partitions of a first table.
//!
//! Who holds a partition is decided; which of them is first, second, third is free. The order makes
//! every prefix serve buckets with fewer replicas: the zones of a prefix are as many as they can be,
//! and then the members' loads in it are even. A local search swaps two slots of one partition while
//! that lowers the sum of squares. Swaps that neither lower nor raise it are made for some rounds too:
//! they carry a surplus from member to member until it meets a want, which no single swap could join.

use super::prefix::PrefixCounts;
use super::{Problem, mix};

/// Rounds in which a swap need not lower the sum of squares.
const FREE_ROUNDS: usize = 8;
/// All rounds; the strict ones settle in two or three.
const MAX_ROUNDS: usize = 16;

/// Puts the slots of every partition in a good order.
pub(super) fn balance_prefixes(problem: &Problem, mut slots: Vec<u16>) -> Vec<u16> {
    for (partition, slots) in slots.chunks_exact_mut(problem.replicas).enumerate() {
        alternate_zones(problem, partition, slots);
    }
    let mut counts = PrefixCounts::of(problem, &slots);
    for round in 0..MAX_ROUNDS {
        let least_gain = if round < FREE_ROUNDS { 0 } else { 1 };
        let mut improved = false;
        for slots in slots.chunks_exact_mut(problem.replicas) {
            improved |= improve(problem, &mut counts, slots, least_gain);
        }
        if !improved {
            break;
        }
    }
    slots
}

/// Orders the members of one partition so that each prefix has as many zones as possible.
fn alternate_zones(problem: &Problem, partition: usize, slots: &mut [u16]) {
    for position in 0..slots.len() {
        let (placed, rest) = slots.split_at_mut(position);
        let rank = |&member: &u16| {
            let zone = problem.zone(member);
            let used = placed
                .iter()
                .filter(|&&other| problem.zone(other) == zone)
                .count();
            (used, mix((partition as u64) << 16 | u64::from(member)))
        };
        let best = (0..rest.len())
            .min_by_key(|&index| rank(&rest[index]))
            .unwrap_or(0);
        rest.swap(0, best);
    }
}

/// Makes the swaps in one partition that gain at least so much; whether there were any.
fn improve(
    problem: &Problem,
    counts: &mut PrefixCounts,
    slots: &mut [u16],
    least_gain: i64,
) -> bool {
    let mut improved = false;
    for first in 0..slots.len() {
        for second in first + 1..slots.len() {
            let (a, b) = (slots[first], slots[second]);
            let gains = counts.gain_of_swap((a, first), (b, second)) >= least_gain;
            if gains && keeps_zones_apart(problem, slots, first, second) {
                counts.remove(a, first);
                counts.remove(b, second);
                slots.swap(first, second);
                counts.add(a, second);
                counts.add(b, first);
                improved = true;
            }
        }
    }
    improved
}

/// Whether the prefixes have no fewer zones after a swap.
fn keeps_zones_apart(problem: &Problem, slots: &[u16], first: usize, second: usize) -> bool {
    let zones_in_prefixes = |order: &dyn Fn(usize) -> u16| -> usize {
        let zone = |position| problem.zone(order(position));
        // A position that brings a new zone counts once for every prefix it is in.
        let is_new = |&position: &usize| (0..position).all(|before| zone(before) != zone(position));
        (0..slots.len())
            .filter(is_new)
            .map(|position| slots.len() - position)
            .sum()
    };
    let swapped = |position| match position {
        _ if position == first => slots[second],
        _ if position == second => slots[first],
        _ => slots[position],
    };
    zones_in_prefixes(&swapped) >= zones_in_prefixes(&|position| slots[position])
}
