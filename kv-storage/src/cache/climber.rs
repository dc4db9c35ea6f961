//! Finds by trial how much of the memory rows should have.
//!
//! What rows and blocks are worth cannot be told from what each lost last: a row that moves from its block to
//! the row cache often leaves a block behind that nobody else uses, and the memory of that block is what is
//! won. So several shares are tried, and what lookups cost with each is compared, as in Caffeine's window (Einziger,
//! Eytan, Friedman and Manes, "Adaptive Software Cache Management", Middleware 2018). A trial moves much memory, so
//! rows get a larger share only if a byte of theirs is used far more than one of the blocks.

/// A block or value that has to be read costs so many times what a search in a block does that is in memory.
pub(super) const READ_COST: u64 = 16;
/// Shares of rows that are tried, in 256ths. Rows always have something: with nothing, they could show nothing.
const SHARES: [u64; 4] = [2, 128, 192, 240];
/// Costs differ if they do by this part.
const NOISE: u64 = 64;
/// The load is another one if the cost of the same share differs by this part.
const CHANGE: u64 = 8;
/// Rows try a larger share if a byte of theirs is used so many times as often as one of blocks.
const DENSER: u128 = 2;
/// A share that is the best of its neighbours stays for at most so many windows before they are tried again.
const PATIENCE_MOST: u32 = 64;

/// Lookups so far, by where they ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Uses {
    /// In the row cache.
    pub rows: u64,
    /// In a block that was in memory.
    pub blocks: u64,
    /// In a block or a blob file that was read.
    pub reads: u64,
}

impl Uses {
    /// True if a byte of rows is used far more often than one of blocks.
    fn favours_rows(self, memory: Memory) -> bool {
        let rows = u128::from(self.rows) * u128::from(memory.blocks);
        let blocks = u128::from(self.blocks) * u128::from(memory.rows);
        rows > blocks * DENSER
    }

    /// Threads may come with their sums in another order than they took them.
    fn since(self, before: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(before.rows),
            blocks: self.blocks.saturating_sub(before.blocks),
            reads: self.reads.saturating_sub(before.reads),
        }
    }

    /// What a lookup costs on average, in 65,536ths of a search in a block.
    fn cost(self) -> u64 {
        ((self.reads * READ_COST + self.blocks) << 16) / self.lookups().max(1)
    }

    fn lookups(self) -> u64 {
        self.rows + self.blocks + self.reads
    }
}

/// Bytes in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub rows: u64,
    pub blocks: u64,
}

/// The search for the best share. It is told when a window has ended.
#[derive(Debug)]
pub(super) struct Climber {
    /// Uses at the end of the last window.
    uses: Uses,
    /// Which of the shares is tried.
    at: usize,
    /// In the first window with a share the caches still change.
    is_settled: bool,
    /// What lookups cost with each share, as far as it is known of this load.
    costs: [Option<u64>; SHARES.len()],
    /// Windows until the neighbours of the best share are tried again, and how many that were the last time.
    rest: u32,
    patience: u32,
}

impl Climber {
    pub(super) fn new() -> Self {
        Self {
            uses: Uses::default(),
            at: 0,
            is_settled: false,
            costs: [None; SHARES.len()],
            rest: 0,
            patience: 1,
        }
    }

    /// The share to use, as a part of `total`.
    pub(super) fn share(&self, total: u64) -> u64 {
        total / 256 * SHARES[self.at]
    }

    /// Ends a window in which there was room for everything, so that the share meant nothing.
    pub(super) fn pass(&mut self, uses: Uses) {
        self.uses = uses;
        self.is_settled = false;
    }

    /// Ends a window, and chooses the share of the next one. `memory` is what was in use in the window.
    pub(super) fn climb(&mut self, uses: Uses, memory: Memory) {
        if uses.lookups() <= self.uses.lookups() {
            // Another thread has ended a later window.
            return;
        }
        let window = uses.since(std::mem::replace(&mut self.uses, uses));
        if !self.is_settled {
            self.is_settled = true;
            return;
        }
        let cost = window.cost();
        let known = self.costs[self.at].replace(cost);
        if known.is_some_and(|known| known.abs_diff(cost) > known / CHANGE) {
            self.costs = [None; SHARES.len()];
            self.costs[self.at] = Some(cost);
            (self.rest, self.patience) = (0, 1);
        }
        if let Some(next) = self.next(cost, window.favours_rows(memory)) {
            self.at = next;
            self.is_settled = false;
        }
    }

    /// The share to try next, if another one: the better neighbour, or one of which nothing is known.
    fn next(&mut self, cost: u64, favours_rows: bool) -> Option<usize> {
        let larger = Some(self.at + 1).filter(|at| favours_rows && *at < SHARES.len());
        let neighbours = [larger, self.at.checked_sub(1)];
        let is_worth_it = |at: &usize| {
            let other = self.costs[*at];
            other.is_none_or(|other| other + other / NOISE < cost)
        };
        let next = neighbours.into_iter().flatten().find(is_worth_it);
        if next.is_none() && self.rest == 0 {
            self.patience = (self.patience * 2).min(PATIENCE_MOST);
            self.rest = self.patience;
            for at in neighbours.into_iter().flatten() {
                self.costs[at] = None;
            }
        } else {
            self.rest = self.rest.saturating_sub(1);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 1000;
    /// With as many hits, rows are ten times as dense.
    const MEMORY: Memory = Memory {
        rows: 100,
        blocks: 1000,
    };

    /// Ends windows of a load that reads for so many lookups in a thousand with each of the shares, more or
    /// less. Gives how many windows had which share.
    fn windows(climber: &mut Climber, count: u32, reads: [u64; 4]) -> [u32; 4] {
        let mut random = fastrand::Rng::with_seed(3);
        let mut spent = [0; 4];
        for _ in 0..count {
            spent[climber.at] += 1;
            let reads = reads[climber.at] * random.u64(98..103) / 100;
            let found = (1000 - reads) * WINDOW / reads;
            let uses = Uses {
                rows: climber.uses.rows + found / 2,
                blocks: climber.uses.blocks + found / 2,
                reads: climber.uses.reads + WINDOW,
            };
            climber.climb(uses, MEMORY);
        }
        spent
    }

    #[test]
    fn most_windows_have_the_best_share_wherever_it_lies_also_after_the_load_has_changed() {
        let loads = [
            [200, 190, 165, 140],
            [20, 60, 140, 180],
            [300, 220, 190, 215],
            [120, 90, 115, 160],
        ];
        let mut climber = Climber::new();
        for reads in loads.iter().chain(&loads) {
            windows(&mut climber, 25, *reads);
            let spent = windows(&mut climber, 400, *reads);
            let best = (0..4).min_by_key(|at| reads[*at]).unwrap();
            assert!(spent[best] > 300, "{reads:?}: {spent:?}");
        }
    }

    #[test]
    fn a_share_that_means_nothing_is_not_judged() {
        let mut climber = Climber::new();
        let uses = |count| Uses {
            rows: count,
            blocks: count,
            reads: count,
        };
        climber.climb(uses(100), MEMORY);
        climber.pass(uses(200));
        climber.climb(uses(300), MEMORY);
        assert_eq!(climber.at, 0, "the caches still change");
        climber.climb(uses(400), MEMORY);
        assert_eq!(climber.at, 1);
    }

    #[test]
    fn windows_may_end_out_of_order() {
        let mut climber = Climber::new();
        let uses = |reads| Uses {
            rows: 1000 - reads / 2,
            blocks: reads,
            reads,
        };
        let mut latest = 0;
        for reads in [200, 300, 100, 400, 390, 500] {
            climber.climb(uses(reads), MEMORY);
            latest = latest.max(reads);
            assert_eq!(climber.uses.reads, latest);
        }
    }

    #[test]
    fn rows_that_are_used_as_little_as_blocks_do_not_try_for_more() {
        let mut climber = Climber::new();
        for count in 1..100 {
            let uses = Uses {
                rows: count * 100,
                blocks: count * 800,
                reads: count * 500,
            };
            climber.climb(uses, MEMORY);
            assert_eq!(climber.at, 0);
        }
    }
}
