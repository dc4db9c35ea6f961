//! Chains of moves: cheapest augmenting paths through the whole table.
//!
//! Where nobody who must gain a slot can take one from somebody who must give, a chain can: `a` gives
//! a slot to `b`, who is full but gives another one to `c`. A path runs from what there is too much of
//! (empty slots, members over their share) to what there is too little of, through
//!
//! - a member, which gives up a slot of a partition (free if the slot was its own before, else −1,
//!   because a move is taken back);
//! - the gap this leaves: in a full zone only members of that zone can fill it, else any zone with room;
//! - a member, which fills the gap (1, or free if it was in the partition before);
//! - the pool of roundings: a member at its share rounded up stands in for one rounded down.
//!
//! Costs can be negative, but no cycle of them can, so labels are corrected until nothing changes.
//! The cheapest path never gets cheaper from one search to the next, so a search may stop at a path
//! that costs no more than the last one.

use super::draft::{Draft, EMPTY};

/// The cost of what has not been reached.
const UNREACHED: i32 = i32::MAX;

/// Sends along cheapest paths until nothing is missing, or the cheapest costs more than `limit`.
///
/// The caller knows that no path costs less than `floor`.
pub(super) fn send_all(draft: &mut Draft<'_>, mut floor: i32, limit: Option<i32>) {
    if draft.is_complete() {
        return;
    }
    let mut search = Search::new(draft);
    while let Some((end, cost)) = search.run(draft, floor) {
        if limit.is_some_and(|limit| cost > limit) {
            return;
        }
        floor = cost;
        search.apply(draft, end);
    }
}

/// A point that paths lead through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    Member(u16),
    /// The pool of roundings.
    Pool,
    /// A gap of a partition that any zone with room may fill.
    Gap {
        partition: usize,
    },
    /// A gap of a partition in the full zone of the member that holds this slot.
    ZoneGap {
        slot: usize,
    },
}

/// The labels of one search, numbered: members, the pool, gaps by partition, zone gaps by slot.
struct Search {
    members: usize,
    partitions: usize,
    cost: Vec<i32>,
    from: Vec<Option<Point>>,
    queued: Vec<bool>,
    queue: std::collections::VecDeque<Point>,
    /// The slots that each member holds.
    held: Vec<Vec<usize>>,
}

impl Search {
    fn new(draft: &Draft<'_>) -> Self {
        let (members, partitions) = (draft.problem.members(), draft.problem.partitions);
        let points = members + 1 + partitions + draft.slots.len();
        let mut held = vec![Vec::new(); members];
        for (slot, &member) in draft.slots.iter().enumerate() {
            if member != EMPTY {
                held[usize::from(member)].push(slot);
            }
        }
        Self {
            members,
            partitions,
            cost: vec![UNREACHED; points],
            from: vec![None; points],
            queued: vec![false; points],
            queue: std::collections::VecDeque::new(),
            held,
        }
    }

    /// The end of a cheapest path and its cost. It stops early at one that costs `floor` or less.
    fn run(&mut self, draft: &Draft<'_>, floor: i32) -> Option<(Point, i32)> {
        self.cost.fill(UNREACHED);
        self.from.fill(None);
        self.queued.fill(false);
        self.queue.clear();
        self.start(draft);
        while let Some(point) = self.queue.pop_front() {
            let number = self.number(point);
            self.queued[number] = false;
            if self.cost[number] <= floor && self.is_end(draft, point) {
                return Some((point, self.cost[number]));
            }
            self.expand(draft, point, self.cost[number]);
        }
        let members = (0..self.members).map(|member| Point::Member(member as u16));
        let ends = members
            .chain([Point::Pool])
            .filter(|&point| self.is_end(draft, point));
        let reached = ends.map(|point| (point, self.cost[self.number(point)]));
        reached
            .filter(|&(_, cost)| cost != UNREACHED)
            .min_by_key(|&(_, cost)| cost)
    }

    /// Labels everything there is too much of.
    fn start(&mut self, draft: &Draft<'_>) {
        for partition in 0..self.partitions {
            if draft.members_of(partition).contains(&EMPTY) {
                self.reach(Point::Gap { partition }, 0, None);
            }
        }
        for member in 0..self.members as u16 {
            if draft.is_over(member) {
                self.reach(Point::Member(member), 0, None);
            }
        }
        if draft.slack < 0 {
            self.reach(Point::Pool, 0, None);
        }
    }

    fn is_end(&self, draft: &Draft<'_>, point: Point) -> bool {
        match point {
            Point::Member(member) => draft.is_short(member),
            Point::Pool => draft.slack > 0,
            Point::Gap { .. } | Point::ZoneGap { .. } => false,
        }
    }

    fn expand(&mut self, draft: &Draft<'_>, point: Point, cost: i32) {
        match point {
            Point::Member(member) => self.leave_slots(draft, member, cost),
            Point::Pool => {
                for member in 0..self.members as u16 {
                    if draft.can_round_down(member) {
                        self.reach(Point::Member(member), cost, Some(point));
                    }
                }
            }
            Point::Gap { partition } => {
                for zone in 0..draft.problem.zones.len() {
                    if draft.in_zone(partition, zone as u16) < draft.problem.zone_cap {
                        self.fill_from_zone(draft, point, partition, zone, cost);
                    }
                }
            }
            Point::ZoneGap { slot } => {
                let partition = slot / draft.problem.replicas;
                let zone = draft.problem.zone(draft.slots[slot]);
                self.fill_from_zone(draft, point, partition, zone.into(), cost);
                self.reach(Point::Gap { partition }, cost, Some(point));
            }
        }
    }

    /// The member gives up any of its slots, or its rounding.
    fn leave_slots(&mut self, draft: &Draft<'_>, member: u16, cost: i32) {
        let from = Some(Point::Member(member));
        if draft.can_round_up(member) {
            self.reach(Point::Pool, cost, from);
        }
        let zone = draft.problem.zone(member);
        for index in 0..self.held[usize::from(member)].len() {
            let slot = self.held[usize::from(member)][index];
            let partition = slot / draft.problem.replicas;
            let cost = cost - i32::from(!draft.was_in(partition, member));
            let gap = if draft.in_zone(partition, zone) < draft.problem.zone_cap {
                Point::Gap { partition }
            } else {
                Point::ZoneGap { slot }
            };
            self.reach(gap, cost, from);
        }
    }

    fn fill_from_zone(
        &mut self,
        draft: &Draft<'_>,
        gap: Point,
        partition: usize,
        zone: usize,
        cost: i32,
    ) {
        for &member in &draft.problem.zones[zone] {
            // The dearer of the two costs rules most members out before the closer look.
            if self.cost[usize::from(member)] <= cost
                || draft.members_of(partition).contains(&member)
            {
                continue;
            }
            let cost = cost + i32::from(!draft.was_in(partition, member));
            self.reach(Point::Member(member), cost, Some(gap));
        }
    }

    fn reach(&mut self, point: Point, cost: i32, from: Option<Point>) {
        let number = self.number(point);
        if cost < self.cost[number] {
            self.cost[number] = cost;
            self.from[number] = from;
            if !core::mem::replace(&mut self.queued[number], true) {
                self.queue.push_back(point);
            }
        }
    }

    /// Changes the draft along the path that ends here.
    fn apply(&mut self, draft: &mut Draft<'_>, end: Point) {
        let (mut taken, mut put) = (Vec::new(), Vec::new());
        let mut point = end;
        while let Some(from) = self.from[self.number(point)] {
            match (from, point) {
                (Point::Member(member), Point::Gap { partition }) => {
                    taken.push((partition, member))
                }
                (Point::Member(member), Point::ZoneGap { slot }) => {
                    taken.push((slot / draft.problem.replicas, member));
                }
                (Point::Gap { partition }, Point::Member(member)) => put.push((partition, member)),
                (Point::ZoneGap { slot }, Point::Member(member)) => {
                    put.push((slot / draft.problem.replicas, member));
                }
                // The pool moves no slot, nor does a zone's gap that becomes the partition's.
                _ => {}
            }
            point = from;
        }
        for (partition, member) in taken {
            let slot = draft
                .partition(partition)
                .find(|&slot| draft.slots[slot] == member);
            let slot = slot.expect("a path takes slots from their holders");
            draft.take(slot);
            self.held[usize::from(member)].retain(|&held| held != slot);
        }
        for (partition, member) in put {
            let slot = draft
                .partition(partition)
                .find(|&slot| draft.slots[slot] == EMPTY);
            let slot = slot.expect("a path fills only gaps that it made or found");
            draft.put(slot, member);
            self.held[usize::from(member)].push(slot);
        }
    }

    fn number(&self, point: Point) -> usize {
        match point {
            Point::Member(member) => member.into(),
            Point::Pool => self.members,
            Point::Gap { partition } => self.members + 1 + partition,
            Point::ZoneGap { slot } => self.members + 1 + self.partitions + slot,
        }
    }
}
