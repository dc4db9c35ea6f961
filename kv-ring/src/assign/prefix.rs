//! How evenly the slots of each member spread over the slot positions.
//!
//! A bucket with n' < N replicas lives in the first n' slots. A member with load L should hold
//! L·n'/N of them; how far it is from that is its deviation (times N, to stay in integers), and the
//! sum of the squares of all deviations is what a good order keeps small.

use super::Problem;

/// For every member, how many of its slots are among the first 1, 2, … N positions.
#[derive(Debug, Clone)]
pub(super) struct PrefixCounts {
    replicas: usize,
    counts: Vec<u32>,
}

impl PrefixCounts {
    pub(super) fn of(problem: &Problem, slots: &[u16]) -> Self {
        let replicas = problem.replicas;
        let mut counts = Self {
            replicas,
            counts: vec![0; problem.members() * replicas],
        };
        for (position, &member) in slots.iter().enumerate() {
            if usize::from(member) < problem.members() {
                counts.add(member, position % replicas);
            }
        }
        counts
    }

    /// The member gains a slot at a position.
    pub(super) fn add(&mut self, member: u16, position: usize) {
        let row = self.row(member);
        self.counts[row][position..]
            .iter_mut()
            .for_each(|count| *count += 1);
    }

    /// The member loses a slot at a position.
    pub(super) fn remove(&mut self, member: u16, position: usize) {
        let row = self.row(member);
        self.counts[row][position..]
            .iter_mut()
            .for_each(|count| *count -= 1);
    }

    /// All slots of the member.
    pub(super) fn load(&self, member: u16) -> u32 {
        self.counts[self.row(member)][self.replicas - 1]
    }

    /// By how much the sum of squares grows when the member gains a slot at a position.
    pub(super) fn cost_of_adding(&self, member: u16, position: usize) -> i64 {
        self.cost_of_change(member, position, 1)
    }

    /// By how much the sum of squares grows when the member loses a slot at a position.
    pub(super) fn cost_of_removing(&self, member: u16, position: usize) -> i64 {
        self.cost_of_change(member, position, -1)
    }

    /// By how much the sum of squares shrinks, halved, when the member at `first` swaps positions
    /// with the one at `second`, in one partition.
    ///
    /// Over the prefixes between them the one loses a slot (N in deviation) and the other gains one:
    /// x² + y² − (x − N)² − (y + N)² = 2N·(x − y − N), of which the constant factor N is left out.
    pub(super) fn gain_of_swap(&self, first: (u16, usize), second: (u16, usize)) -> i64 {
        let between = first.1..second.1;
        let gain = |prefix| {
            self.deviation(first.0, prefix)
                - self.deviation(second.0, prefix)
                - self.replicas as i64
        };
        between.map(gain).sum()
    }

    fn cost_of_change(&self, member: u16, position: usize, change: i64) -> i64 {
        let replicas = self.replicas as i64;
        let cost = |prefix: usize| {
            let before = self.deviation(member, prefix);
            let here = if position <= prefix { change } else { 0 };
            let after = before + replicas * here - (prefix as i64 + 1) * change;
            after * after - before * before
        };
        (0..self.replicas - 1).map(cost).sum()
    }

    /// N times what the member holds too much of the first `prefix` + 1 positions.
    fn deviation(&self, member: u16, prefix: usize) -> i64 {
        let row = &self.counts[self.row(member)];
        let held = i64::from(row[prefix]) * self.replicas as i64;
        held - (prefix as i64 + 1) * i64::from(row[self.replicas - 1])
    }

    fn row(&self, member: u16) -> core::ops::Range<usize> {
        let first = usize::from(member) * self.replicas;
        first..first + self.replicas
    }
}
