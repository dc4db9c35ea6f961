//! Finds by trial how much of the memory rows should have.
//!
//! What rows and blocks are worth cannot be told from what each lost last: a row that moves from its block to
//! the row cache often leaves a block behind that nobody else uses, and the memory of that block is what is
//! won. So several shares are tried, and what lookups cost with each is compared, as in Caffeine's window (Einziger,
//! Eytan, Friedman and Manes, "Adaptive Software Cache Management", Middleware 2018).

/// A block or value that has to be read costs so many times what a search in a block does that is in memory.
const READ_COST: u64 = 16;
/// Shares of rows that are tried, in 256ths. Rows always have something: with nothing, they could show nothing.
const SHARES: [u64; 6] = [1, 32, 64, 128, 192, 240];
/// Which of them is tried first.
const FIRST: usize = 2;
/// Costs differ if they do by this part.
const NOISE: u64 = 64;
/// The load is another one if the cost of the same share differs by this part.
const CHANGE: u64 = 8;
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
    /// What a lookup cost on average since then, in 65,536ths of a search in a block.
    fn cost_since(self, before: Self) -> u64 {
        let (rows, blocks, reads) = (
            self.rows - before.rows,
            self.blocks - before.blocks,
            self.reads - before.reads,
        );
        ((reads * READ_COST + blocks) << 16) / (rows + blocks + reads).max(1)
    }
}

/// The search for the best share. It is told when a window of reads has ended.
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
            at: FIRST,
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

    /// Ends a window, and chooses the share of the next one.
    pub(super) fn climb(&mut self, uses: Uses) {
        let before = std::mem::replace(&mut self.uses, uses);
        if !self.is_settled {
            self.is_settled = true;
            return;
        }
        let cost = uses.cost_since(before);
        let known = self.costs[self.at].replace(cost);
        if known.is_some_and(|known| known.abs_diff(cost) > known / CHANGE) {
            self.costs = [None; SHARES.len()];
            self.costs[self.at] = Some(cost);
            (self.rest, self.patience) = (0, 1);
        }
        if let Some(next) = self.next(cost) {
            self.at = next;
            self.is_settled = false;
        }
    }

    /// The share to try next, if another one: the better neighbour, or one of which nothing is known.
    fn next(&mut self, cost: u64) -> Option<usize> {
        let neighbours = [self.at.checked_add(1), self.at.checked_sub(1)]
            .into_iter()
            .flatten()
            .filter(|at| *at < SHARES.len());
        let is_worth_it =
            |at: &usize| self.costs[*at].is_none_or(|other| other + other / NOISE < cost);
        if let Some(next) = neighbours.clone().find(is_worth_it) {
            return Some(next);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        self.patience = (self.patience * 2).min(PATIENCE_MOST);
        self.rest = self.patience;
        neighbours.for_each(|at| self.costs[at] = None);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 1000;

    /// Ends windows of a load that reads for so many lookups in a thousand with each of the shares, more or
    /// less. Gives how many windows had which share.
    fn windows(climber: &mut Climber, count: u32, reads: [u64; 6]) -> [u32; 6] {
        let mut random = fastrand::Rng::with_seed(3);
        let mut spent = [0; 6];
        for _ in 0..count {
            spent[climber.at] += 1;
            let reads = reads[climber.at] * random.u64(98..103) / 100;
            let uses = Uses {
                rows: 0,
                blocks: climber.uses.blocks + (1000 - reads) * WINDOW / reads,
                reads: climber.uses.reads + WINDOW,
            };
            climber.climb(uses);
        }
        spent
    }

    #[test]
    fn most_windows_have_the_best_share_wherever_it_lies_also_after_the_load_has_changed() {
        let loads = [
            [200, 190, 180, 165, 150, 140],
            [20, 40, 60, 100, 140, 180],
            [300, 260, 220, 190, 215, 260],
            [100, 90, 115, 140, 160, 170],
        ];
        let mut climber = Climber::new();
        for reads in loads.iter().chain(&loads) {
            windows(&mut climber, 25, *reads);
            let spent = windows(&mut climber, 400, *reads);
            let best = (0..6).min_by_key(|at| reads[*at]).unwrap();
            assert!(spent[best] > 300, "{reads:?}: {spent:?}");
        }
    }

    #[test]
    fn a_share_that_means_nothing_is_not_judged() {
        let mut climber = Climber::new();
        let uses = |reads| Uses {
            rows: 5,
            blocks: 5,
            reads,
        };
        climber.climb(uses(100));
        climber.pass(uses(200));
        climber.climb(uses(300));
        assert_eq!(climber.at, FIRST, "the caches still change");
        climber.climb(uses(400));
        assert_ne!(climber.at, FIRST);
    }
}
