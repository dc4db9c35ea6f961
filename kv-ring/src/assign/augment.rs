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
//! Work goes in phases. Each labels every point with the cost of a cheapest path to it, and among those
//! the number of steps; then it sends along as many cheapest paths as it finds by following the labels
//! (Dinic's method, 1970, on costs). Labels can be corrected downwards, because costs can be negative,
//! but no cycle of them can.

use std::collections::{BTreeMap, VecDeque};

use super::draft::{Draft, EMPTY};

/// Sends along cheapest paths until nothing is missing, or the cheapest costs more than `limit`.
pub(super) fn send_all(draft: &mut Draft<'_>, limit: Option<i32>) {
    if draft.is_complete() {
        return;
    }
    let mut search = Search::new(draft);
    while let Some(cost) = search.label_all(draft) {
        if limit.is_some_and(|limit| cost > limit) {
            return;
        }
        search.send_phase(draft, cost);
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

impl Point {
    /// The partition whose slots a path through this point changes.
    fn partition(self, replicas: usize) -> Option<usize> {
        match self {
            Self::Member(_) | Self::Pool => None,
            Self::Gap { partition } => Some(partition),
            Self::ZoneGap { slot } => Some(slot / replicas),
        }
    }
}

/// The cheapest way to a point, and among those the shortest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Label {
    cost: i32,
    steps: u32,
}

impl Label {
    const START: Self = Self { cost: 0, steps: 0 };
    const UNREACHED: Self = Self {
        cost: i32::MAX,
        steps: 0,
    };

    fn after(self, cost: i32) -> Self {
        Self {
            cost: self.cost + cost,
            steps: self.steps + 1,
        }
    }
}

/// Points to be labelled from, the cheapest first.
#[derive(Default)]
struct Queue {
    by_cost: BTreeMap<i32, VecDeque<Point>>,
}

impl Queue {
    fn push(&mut self, point: Point, cost: i32) {
        self.by_cost.entry(cost).or_default().push_back(point);
    }

    fn pop(&mut self) -> Option<Point> {
        let mut cheapest = self.by_cost.first_entry()?;
        match cheapest.get_mut().pop_front() {
            Some(point) => Some(point),
            None => {
                cheapest.remove();
                self.pop()
            }
        }
    }
}

/// The points and their labels, numbered: members, the pool, gaps by partition, zone gaps by slot.
struct Search {
    members: usize,
    partitions: usize,
    labels: Vec<Label>,
    /// Points waiting to be labelled from; in the second half of a phase, points that lead nowhere.
    marked: Vec<bool>,
    /// Partitions that a path of this phase has changed: their labels hold no more.
    changed: Vec<bool>,
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
        let labels = vec![Label::UNREACHED; points];
        let (marked, changed) = (vec![false; points], vec![false; partitions]);
        Self {
            members,
            partitions,
            labels,
            marked,
            changed,
            held,
        }
    }

    /// Labels every point; the cost of the cheapest path to an end, if there is any.
    fn label_all(&mut self, draft: &Draft<'_>) -> Option<i32> {
        self.labels.fill(Label::UNREACHED);
        self.marked.fill(false);
        let mut queue = Queue::default();
        for start in self.starts(draft) {
            self.label(start, Label::START, &mut queue);
        }
        let mut steps = Vec::new();
        while let Some(point) = queue.pop() {
            let number = self.number(point);
            if !core::mem::replace(&mut self.marked[number], false) {
                // It was labelled better after it was queued, and has had its turn.
                continue;
            }
            let label = self.labels[number];
            // A step to a member costs nothing at best: those with such labels need no closer look.
            let known = |member| self.labels[usize::from(member)] <= label.after(0);
            self.steps_from(draft, point, known, &mut steps);
            for (next, cost) in steps.drain(..) {
                self.label(next, label.after(cost), &mut queue);
            }
        }
        let ends = self.accounts().filter(|&point| is_end(draft, point));
        let costs = ends.map(|point| self.label_of(point).cost);
        costs.min().filter(|&cost| cost != Label::UNREACHED.cost)
    }

    fn label(&mut self, point: Point, label: Label, queue: &mut Queue) {
        let number = self.number(point);
        if label < self.labels[number] {
            // From a cheapest flow nothing can be gained; going on would never end.
            assert!(
                label.cost >= 0,
                "a path costs {}: the draft is no cheapest flow",
                label.cost
            );
            self.labels[number] = label;
            self.marked[number] = true;
            queue.push(point, label.cost);
        }
    }

    /// Sends along paths of this cost, each through partitions that no other one has changed.
    fn send_phase(&mut self, draft: &mut Draft<'_>, cost: i32) {
        self.marked.fill(false);
        self.changed.fill(false);
        for start in self.starts(draft) {
            let mut path = Vec::new();
            while is_start(draft, start) && self.follow(draft, start, cost, &mut path) {
                self.apply(draft, &path);
                path.clear();
            }
        }
    }

    /// Extends a path from a point to an end of this cost, as the labels lead; whether it got there.
    ///
    /// Labels count steps, so the recursion is no deeper than the shortest path is long.
    fn follow(
        &mut self,
        draft: &Draft<'_>,
        point: Point,
        cost: i32,
        path: &mut Vec<Point>,
    ) -> bool {
        path.push(point);
        let label = self.label_of(point);
        if label.cost == cost && is_end(draft, point) {
            return true;
        }
        let mut steps = Vec::new();
        let farther = |member| self.labels[usize::from(member)] <= label;
        self.steps_from(draft, point, farther, &mut steps);
        for (next, cost_of_step) in steps {
            let partition = next.partition(draft.problem.replicas);
            let open = !self.marked[self.number(next)]
                && !partition.is_some_and(|partition| self.changed[partition]);
            let leads_on = self.label_of(next) == label.after(cost_of_step);
            if open && leads_on && self.follow(draft, next, cost, path) {
                return true;
            }
        }
        let number = self.number(point);
        self.marked[number] = true;
        path.pop();
        false
    }

    /// The points that can follow a point, and at which cost. Members that `skip` names are left out.
    fn steps_from(
        &self,
        draft: &Draft<'_>,
        point: Point,
        skip: impl Fn(u16) -> bool,
        steps: &mut Vec<(Point, i32)>,
    ) {
        let mut fill = |partition, zone: usize| {
            for &member in draft.problem.zones[zone]
                .iter()
                .filter(|&&member| !skip(member))
            {
                if !draft.members_of(partition).contains(&member) {
                    let cost = i32::from(!draft.was_in(partition, member));
                    steps.push((Point::Member(member), cost));
                }
            }
        };
        match point {
            Point::Member(member) => self.steps_from_member(draft, member, steps),
            Point::Pool => {
                let rounded_up = (0..self.members as u16).filter(|&m| draft.can_round_down(m));
                steps.extend(rounded_up.map(|member| (Point::Member(member), 0)));
            }
            Point::Gap { partition } => {
                for zone in 0..draft.problem.zones.len() {
                    if draft.in_zone(partition, zone as u16) < draft.problem.zone_cap {
                        fill(partition, zone);
                    }
                }
            }
            Point::ZoneGap { slot } => {
                let partition = slot / draft.problem.replicas;
                fill(partition, draft.problem.zone(draft.slots[slot]).into());
                steps.push((Point::Gap { partition }, 0));
            }
        }
    }

    /// The member gives up its rounding, or any of its slots.
    fn steps_from_member(&self, draft: &Draft<'_>, member: u16, steps: &mut Vec<(Point, i32)>) {
        if draft.can_round_up(member) {
            steps.push((Point::Pool, 0));
        }
        let zone = draft.problem.zone(member);
        for &slot in &self.held[usize::from(member)] {
            let partition = slot / draft.problem.replicas;
            let cost = -i32::from(!draft.was_in(partition, member));
            let zone_has_room = draft.in_zone(partition, zone) < draft.problem.zone_cap;
            let gap = if zone_has_room {
                Point::Gap { partition }
            } else {
                Point::ZoneGap { slot }
            };
            steps.push((gap, cost));
        }
    }

    /// Changes the draft along a path.
    fn apply(&mut self, draft: &mut Draft<'_>, path: &[Point]) {
        let replicas = draft.problem.replicas;
        let slot_of = |draft: &Draft<'_>, partition, holder| {
            let slot = draft
                .partition(partition)
                .find(|&slot| draft.slots[slot] == holder);
            slot.expect("a path takes slots from their holders and fills the gaps that this leaves")
        };
        for step in path.windows(2) {
            if let (Point::Member(member), Some(partition)) = (step[0], step[1].partition(replicas))
            {
                let slot = slot_of(draft, partition, member);
                draft.take(slot);
                self.held[usize::from(member)].retain(|&held| held != slot);
            }
        }
        for step in path.windows(2) {
            if let (Some(partition), Point::Member(member)) = (step[0].partition(replicas), step[1])
            {
                let slot = slot_of(draft, partition, EMPTY);
                draft.put(slot, member);
                self.held[usize::from(member)].push(slot);
                self.changed[partition] = true;
            }
        }
    }

    /// Everything there is too much of.
    fn starts(&self, draft: &Draft<'_>) -> Vec<Point> {
        let gaps = (0..self.partitions).map(|partition| Point::Gap { partition });
        self.accounts()
            .chain(gaps)
            .filter(|&point| is_start(draft, point))
            .collect()
    }

    /// The points whose balance can be wrong: members and the pool.
    fn accounts(&self) -> impl Iterator<Item = Point> + use<> {
        (0..self.members as u16)
            .map(Point::Member)
            .chain([Point::Pool])
    }

    fn label_of(&self, point: Point) -> Label {
        self.labels[self.number(point)]
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

/// Whether there is too much here.
fn is_start(draft: &Draft<'_>, point: Point) -> bool {
    match point {
        Point::Member(member) => draft.is_over(member),
        Point::Pool => draft.slack < 0,
        Point::Gap { partition } => draft.members_of(partition).contains(&EMPTY),
        Point::ZoneGap { .. } => false,
    }
}

/// Whether there is too little here.
fn is_end(draft: &Draft<'_>, point: Point) -> bool {
    match point {
        Point::Member(member) => draft.is_short(member),
        Point::Pool => draft.slack > 0,
        Point::Gap { .. } | Point::ZoneGap { .. } => false,
    }
}
