//! A table in the making: which slots are filled, and who has too many or too few.

use super::prefix::PrefixCounts;
use super::{Problem, Table};

/// A slot that nobody holds.
pub(super) const EMPTY: u16 = u16::MAX;

/// The slots of a table under repair, with what is needed to judge the next step.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) problem: &'a Problem,
    /// Member indexes, `replicas` for each partition, or [`EMPTY`].
    pub(super) slots: Vec<u16>,
    /// The slots of the previous table, its nodes that are no members left out.
    pub(super) before: Vec<u16>,
    pub(super) counts: PrefixCounts,
    /// Slots that no share counts on yet (positive), or that members hold beyond their least but
    /// within their share (negative) and must give up: all slots minus every load, each brought
    /// within its share rounded down and up.
    pub(super) slack: i64,
}

impl<'a> Draft<'a> {
    /// The previous table, with the slots of those who are no members empty.
    pub(super) fn from_previous(problem: &'a Problem, previous: &Table) -> Self {
        let index_now = |node| {
            problem
                .nodes
                .binary_search(node)
                .map_or(EMPTY, |index| index as u16)
        };
        let renumbered: Vec<u16> = previous.nodes().iter().map(index_now).collect();
        let width = usize::from(previous.replicas());
        let mut before = Vec::with_capacity(problem.partitions * problem.replicas);
        for slots in previous.all_slots().chunks_exact(width) {
            let kept = slots.iter().map(|&index| renumbered[usize::from(index)]);
            let padded = kept.chain(core::iter::repeat(EMPTY)).take(problem.replicas);
            before.extend(padded);
        }
        let slots = before.clone();
        let counts = PrefixCounts::of(problem, &slots);
        let mut draft = Self {
            problem,
            slots,
            before,
            counts,
            slack: 0,
        };
        draft.slack = (problem.partitions * problem.replicas) as i64
            - (0..problem.members())
                .map(|m| draft.within_share(m as u16))
                .sum::<i64>();
        draft
    }

    /// Fills an empty slot.
    pub(super) fn put(&mut self, slot: usize, member: u16) {
        debug_assert_eq!(self.slots[slot], EMPTY);
        self.slots[slot] = member;
        let before = self.within_share(member);
        self.counts.add(member, slot % self.problem.replicas);
        self.slack += before - self.within_share(member);
    }

    /// Empties a slot; who held it.
    pub(super) fn take(&mut self, slot: usize) -> u16 {
        let member = core::mem::replace(&mut self.slots[slot], EMPTY);
        debug_assert_ne!(member, EMPTY);
        let before = self.within_share(member);
        self.counts.remove(member, slot % self.problem.replicas);
        self.slack += before - self.within_share(member);
        member
    }

    pub(super) fn load(&self, member: u16) -> u32 {
        self.counts.load(member)
    }

    pub(super) fn least(&self, member: u16) -> u32 {
        self.problem.shares[usize::from(member)].floor()
    }

    pub(super) fn most(&self, member: u16) -> u32 {
        self.problem.shares[usize::from(member)].ceil()
    }

    /// Whether the member must gain a slot.
    pub(super) fn is_short(&self, member: u16) -> bool {
        self.load(member) < self.least(member)
    }

    /// Whether the member must lose a slot.
    pub(super) fn is_over(&self, member: u16) -> bool {
        self.load(member) > self.most(member)
    }

    /// Whether one more slot at the member brings the table nearer to its goal.
    pub(super) fn wants(&self, member: u16) -> bool {
        self.is_short(member) || (self.slack > 0 && self.load(member) < self.most(member))
    }

    /// Whether one slot less at the member brings the table nearer to its goal.
    pub(super) fn spares(&self, member: u16) -> bool {
        self.is_over(member) || (self.slack < 0 && self.load(member) > self.least(member))
    }

    /// Whether the part of the member's load that is within its share could be one more.
    pub(super) fn can_round_up(&self, member: u16) -> bool {
        self.within_share(member) < self.most(member).into()
    }

    /// Whether the part of the member's load that is within its share could be one less.
    pub(super) fn can_round_down(&self, member: u16) -> bool {
        self.within_share(member) > self.least(member).into()
    }

    /// Whether every slot is filled and every load within its share.
    pub(super) fn is_complete(&self) -> bool {
        let at_ease = |member| !self.is_short(member) && !self.is_over(member);
        self.slack == 0 && (0..self.problem.members() as u16).all(at_ease)
    }

    /// The slots of a partition, as a range of indexes into `slots`.
    pub(super) fn partition(&self, partition: usize) -> core::ops::Range<usize> {
        let first = partition * self.problem.replicas;
        first..first + self.problem.replicas
    }

    /// The members of a partition.
    pub(super) fn members_of(&self, partition: usize) -> &[u16] {
        &self.slots[self.partition(partition)]
    }

    /// Whether the member held a slot of the partition in the previous table.
    pub(super) fn was_in(&self, partition: usize, member: u16) -> bool {
        self.before[self.partition(partition)].contains(&member)
    }

    /// How many of a partition's slots are in a zone.
    pub(super) fn in_zone(&self, partition: usize, zone: u16) -> usize {
        let held = self
            .members_of(partition)
            .iter()
            .filter(|&&member| member != EMPTY);
        held.filter(|&&member| self.problem.zone(member) == zone)
            .count()
    }

    /// Whether the member could take the slot, if its holder left it.
    pub(super) fn fits(&self, slot: usize, member: u16) -> bool {
        let zone = self.problem.zone(member);
        let mut same_zone = 0;
        for other in self.partition(slot / self.problem.replicas) {
            let holder = self.slots[other];
            if holder == member {
                return false;
            }
            let counts = holder != EMPTY && other != slot && self.problem.zone(holder) == zone;
            same_zone += usize::from(counts);
        }
        same_zone < self.problem.zone_cap
    }

    fn within_share(&self, member: u16) -> i64 {
        self.load(member)
            .clamp(self.least(member), self.most(member))
            .into()
    }
}
