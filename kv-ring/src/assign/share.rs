//! Shares: how many slots each member ought to hold, as exact fractions.
//!
//! Weighted water-filling. All members rise to one level (slots per unit of weight) except where a
//! limit holds them back: a node holds at most one slot of each partition, and a zone at most its cap
//! of each. What the limited ones leave over raises the level of the rest.

/// A number of slots as a fraction; what a member's load is rounded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    numerator: u128,
    denominator: u128,
}

impl Share {
    /// The share in whole slots, rounded down.
    #[must_use]
    pub fn floor(self) -> u32 {
        // A share is at most the number of partitions, which is at most 2^16.
        (self.numerator / self.denominator) as u32
    }

    /// The share in whole slots, rounded up.
    #[must_use]
    pub fn ceil(self) -> u32 {
        self.numerator.div_ceil(self.denominator) as u32
    }

    /// The share as a floating-point number, for people to read.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    pub(super) fn denominator(self) -> u128 {
        self.denominator
    }

    /// What rounding down cuts off, in parts of the denominator.
    pub(super) fn remainder(self) -> u128 {
        self.numerator % self.denominator
    }
}

/// Slots per unit of weight.
#[derive(Debug, Clone, Copy)]
struct Level {
    slots: u128,
    weight: u128,
}

impl Level {
    fn share(self, weight: u32, limit: usize) -> Share {
        let numerator = (u128::from(weight) * self.slots).min(limit as u128 * self.weight);
        Share {
            numerator,
            denominator: self.weight,
        }
    }
}

/// The share of each member. `weights` are in order of members, `zones` list the members of each.
pub(super) fn fill(
    weights: &[u32],
    zones: &[Vec<u16>],
    partitions: usize,
    replicas: usize,
    zone_cap: usize,
) -> Vec<Share> {
    let weights_of = |zone: &Vec<u16>| zone.iter().map(|&m| weights[usize::from(m)]).collect();
    let zone_weights: Vec<Vec<u32>> = zones.iter().map(weights_of).collect();
    let levels = zone_levels(&zone_weights, partitions, replicas, zone_cap);

    let mut shares = vec![
        Share {
            numerator: 0,
            denominator: 1
        };
        weights.len()
    ];
    for (zone, level) in zones.iter().zip(levels) {
        for &member in zone {
            let member = usize::from(member);
            shares[member] = level.share(weights[member], partitions);
        }
    }
    shares
}

/// The level of each zone: its own where the zone's cap holds it back, else the common one.
fn zone_levels(
    zone_weights: &[Vec<u32>],
    partitions: usize,
    replicas: usize,
    zone_cap: usize,
) -> Vec<Level> {
    let zone_limit = zone_cap * partitions;
    let mut held_back: Vec<Option<Level>> = vec![None; zone_weights.len()];
    loop {
        let left = replicas * partitions - held_back.iter().flatten().count() * zone_limit;
        let open = zone_weights
            .iter()
            .zip(&held_back)
            .filter(|(_, held)| held.is_none());
        let open: Vec<u32> = open.flat_map(|(weights, _)| weights).copied().collect();
        if open.is_empty() {
            return held_back.into_iter().flatten().collect();
        }
        let common = solve(&open, left, partitions);
        // Holding a zone back raises the level of the others, so one held back stays so.
        let mut changed = false;
        for (weights, held) in zone_weights.iter().zip(&mut held_back) {
            if held.is_none() && exceeds(weights, common, partitions, zone_limit) {
                *held = Some(solve(weights, zone_limit, partitions));
                changed = true;
            }
        }
        if !changed {
            return held_back
                .into_iter()
                .map(|held| held.unwrap_or(common))
                .collect();
        }
    }
}

/// The level at which members of these weights hold `total` slots, at most `limit` each.
fn solve(weights: &[u32], total: usize, limit: usize) -> Level {
    let mut heaviest_first = weights.to_vec();
    heaviest_first.sort_unstable_by(|a, b| b.cmp(a));
    let mut weight: u128 = weights.iter().copied().map(u128::from).sum();
    let mut slots = total as u128;
    for &heaviest in &heaviest_first {
        if u128::from(heaviest) * slots <= limit as u128 * weight {
            return Level { slots, weight };
        }
        slots -= limit as u128;
        weight -= u128::from(heaviest);
    }
    // Everyone is at the limit: any level that lifts the lightest to it will do.
    let lightest = heaviest_first.last().copied().unwrap_or(1);
    Level {
        slots: limit as u128,
        weight: lightest.into(),
    }
}

fn exceeds(weights: &[u32], level: Level, limit: usize, zone_limit: usize) -> bool {
    let held: u128 = weights
        .iter()
        .map(|&weight| level.share(weight, limit).numerator)
        .sum();
    held > zone_limit as u128 * level.weight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(weights: &[u32], zones: &[Vec<u16>], replicas: usize, cap: usize) -> Vec<u32> {
        fill(weights, zones, 64, replicas, cap)
            .iter()
            .map(|share| share.floor())
            .collect()
    }

    #[test]
    fn shares_follow_weights() {
        assert_eq!(
            rounded(&[1, 1, 2, 2], &[vec![0, 1, 2, 3]], 3, 3),
            [32, 32, 64, 64]
        );
    }

    #[test]
    fn a_heavy_node_holds_no_more_than_one_slot_of_each_partition() {
        assert_eq!(
            rounded(&[1, 1, 100, 2], &[vec![0, 1, 2, 3]], 3, 3),
            [32, 32, 64, 64]
        );
        assert_eq!(rounded(&[9, 1, 5], &[vec![0, 1, 2]], 3, 3), [64, 64, 64]);
    }

    #[test]
    fn a_heavy_zone_holds_no_more_than_its_cap_of_each_partition() {
        let zones = [vec![0, 1, 2], vec![3], vec![4, 5]];
        assert_eq!(rounded(&[1; 6], &zones, 3, 1), [21, 21, 21, 64, 32, 32]);
    }

    #[test]
    fn shares_add_up_to_all_slots() {
        let zones = [vec![0, 1], vec![2, 3], vec![4, 5, 6]];
        let shares = fill(&[3, 1, 7, 7, 1, 1, 90], &zones, 4096, 3, 1);
        let sum: f64 = shares.iter().map(|share| share.as_f64()).sum();
        assert!((sum - 3.0 * 4096.0).abs() < 1e-6, "{sum}");
    }
}
