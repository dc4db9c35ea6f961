//! YCSB's choice of keys: a few are asked for most of the time.

use super::random::{Random, mix};

/// YCSB's constant: how uneven the choice is.
const THETA: f64 = 0.99;

/// Draws numbers below a limit, zipfian and scattered over the range
/// (Gray et al., "Quickly Generating Billion-Record Synthetic Databases", 1994, as YCSB does it).
#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    numbers: u64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// Prepares the draw; takes time in proportion to `numbers`.
    pub(crate) fn new(numbers: u64) -> Self {
        let zeta: f64 = (1..=numbers).map(|rank| (rank as f64).powf(-THETA)).sum();
        let zeta_of_two = 1.0 + 0.5_f64.powf(THETA);
        let eta = (1.0 - (2.0 / numbers as f64).powf(1.0 - THETA)) / (1.0 - zeta_of_two / zeta);
        Self {
            numbers,
            alpha: 1.0 / (1.0 - THETA),
            zeta,
            eta,
        }
    }

    /// A number below the limit; which ones are frequent is scattered.
    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        mix(self.rank(random)) % self.numbers
    }

    /// A rank: 0 is the most frequent.
    #[inline]
    fn rank(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(THETA) {
            1
        } else {
            (self.numbers as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_numbers_take_most_draws_and_none_is_out_of_range() {
        let (numbers, draws) = (10_000, 100_000);
        let zipf = Zipf::new(numbers);
        let mut random = Random::new(5);
        let mut counts = vec![0_u32; numbers as usize];
        for _ in 0..draws {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        counts.sort_unstable_by(|left, right| right.cmp(left));
        let top: u32 = counts[..100].iter().sum();
        assert!(counts[0] > draws / 20, "the first has {}", counts[0]);
        assert!(top > draws * 2 / 5 && top < draws * 7 / 10, "{top}");
    }
}
