//! Decides what to compact next: lazy leveling as a pure function.
//!
//! The rules, most urgent first:
//! 1. Level 0 with its trigger's number of runs is merged into one run of the middle; or into the
//!    bottom if that is small, or untouched by these keys.
//! 2. A middle with too many runs gets the neighbours merged that cost the fewest bytes for each run
//!    less (the binomial schedule of Mathieu et al., "Bigtable Merge Compaction", comes out of that).
//! 3. If what lies above the bottom could replace too much of it, the key range where the rewritten
//!    bytes free most is merged into the bottom.
//! 4. Tombstones: a table that consists of them for a large part is merged into the bottom; in the
//!    bottom it is rewritten once no snapshot needs them. The same goes for a table with deleted ranges, if
//!    what they hide is worth it.
//! 5. Tables with expired entries are merged into the bottom.
//! 6. Tables that point into blob files that are garbage for a large part are merged into the bottom, which
//!    writes what is left in these files anew: the one first that frees most for what is written.
//! 7. A run that cost readers more than merging it away would cost is merged with the next older one
//!    (rent or buy: at most twice the cost of the best decision in hindsight).
//! 8. With nothing else to do, and bytes to spend, everything is merged into one run.
//!
//! No two compactions under way meet in a run and a key range, and only one takes from level 0.

use super::choice::{Choice, Place, Reason};
use super::stack::{Layer, Slice, Stack};
use crate::key::Seq;
use crate::options::Options;
use crate::version::{BlobUses, Placed, Version};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Level 0 gives at most this many times its trigger at once, so that one compaction stays bounded. It is
/// several times, because whoever is behind catches up by rewriting the bottom less often.
const LEVEL0_MOST: usize = 4;
/// Level 0 goes straight to the bottom if it brings at least this share of the bytes rewritten there.
/// Below that, a stop in the middle costs less: there it waits until more has come together.
const DIRECT_PERCENT: u64 = 40;
/// A run of the middle that is at most this share of what is merged above it is merged along.
const ABSORB_PERCENT: u64 = 50;
/// Tables of at least this share of the usual size move to the bottom unchanged; smaller ones are
/// merged, so that the bottom does not fill with small files.
const MOVE_PERCENT: u64 = 25;
/// A partial compaction into the bottom stops growing at this many tables of the usual size.
const SLICE_TABLES: u64 = 12;
/// Share of tombstones among its entries from which a table is due.
const TOMBSTONE_PERCENT: u64 = 50;
/// Share of the bytes rewritten that deleted ranges must hide to be merged into the bottom for that.
const COVERED_PERCENT: u64 = 40;
/// Garbage in blob files is collected where that frees at least this share of the table bytes that must be
/// rewritten for it. So garbage that is not collected is at most this share of all tables: next to nothing,
/// where values are large, and less than it would cost, where they are few.
const COLLECT_PERCENT: u64 = 50;

/// What a pick must know besides the version.
#[derive(Debug, Clone)]
pub(crate) struct Situation<'a> {
    /// Compactions under way.
    pub in_flight: &'a [Arc<Choice>],
    /// Tables that cannot be read: they are never picked, and nothing moves past them.
    pub fenced: &'a BTreeSet<u64>,
    /// Blob files with values that cannot be read: nothing is picked for their sake.
    pub fenced_blobs: &'a BTreeSet<u64>,
    pub oldest_snapshot: Option<Seq>,
    /// Bytes that may be rewritten only to make reads cheaper; 0 while writes go on.
    pub idle_bytes: u64,
    /// Entries that end at or before this are expired.
    pub expired: Option<u64>,
}

/// The most urgent compaction that may begin beside those under way. `level0_only` leaves out all
/// others: for the last free place.
pub(crate) fn pick<R>(
    version: &Version<R>,
    options: &Options,
    situation: &Situation<'_>,
    level0_only: bool,
) -> Option<Choice> {
    let picker = Picker {
        stack: Stack::of(version),
        blobs: &version.blobs,
        options,
        situation,
    };
    if level0_only {
        return picker.relieve();
    }
    picker
        .relieve()
        .or_else(|| picker.found_bottom())
        .or_else(|| picker.thin())
        .or_else(|| picker.sink())
        .or_else(|| picker.bury_tombstones())
        .or_else(|| picker.bury_ranges())
        .or_else(|| picker.expire())
        .or_else(|| picker.collect())
        .or_else(|| picker.repay_reads())
        .or_else(|| picker.settle())
}

struct Picker<'a, R> {
    stack: Stack<'a, R>,
    blobs: &'a BlobUses,
    options: &'a Options,
    situation: &'a Situation<'a>,
}

impl<'a, R> Picker<'a, R> {
    /// Rule 1.
    fn relieve(&self) -> Option<Choice> {
        if self.level0_is_busy() {
            return None;
        }
        let (top, end) = self.level0_group()?;
        if end < self.stack.level0 {
            // Something older in level 0 is damaged and must stay there, so the result stays above it.
            let slice = self.stack.columns(top, end - 1)?;
            return self.allowed(&slice, Reason::Level0, false);
        }
        self.move_down(top)
            .or_else(|| self.level0_to_bottom(top))
            .or_else(|| self.level0_to_middle(top))
    }

    /// The oldest group of neighbours in level 0 that can be taken, as a range of layers.
    fn level0_group(&self) -> Option<(usize, usize)> {
        let trigger = self.options.level0_trigger;
        let mut end = self.stack.level0;
        while end >= trigger {
            let free = self.stack.layers[..end]
                .iter()
                .rev()
                .take_while(|layer| !self.is_fenced(layer.tables))
                .count();
            if free >= trigger {
                return Some((end - free.min(trigger * LEVEL0_MOST), end));
            }
            end = end.saturating_sub(free + 1);
        }
        None
    }

    /// Level 0 from `top` on to the bottom without rewriting, as an ascending fill allows it.
    fn move_down(&self, top: usize) -> Option<Choice> {
        let slice = self.stack.columns(top, self.stack.level0 - 1)?;
        let down = self.down_to_bottom(top)?;
        let is_fit = |table: &Arc<Placed<R>>| {
            let size = table.summary.size_bytes * 100;
            has_no_tombstones(table) && size >= self.options.table_bytes * MOVE_PERCENT
        };
        let passes = down.parts.len() == slice.parts.len()
            && slice.is_disjoint()
            && slice.tables().all(is_fit);
        self.allowed(&down, Reason::Level0, true).filter(|_| passes)
    }

    fn level0_to_bottom(&self, top: usize) -> Option<Choice> {
        let slice = self.down_to_bottom(top)?;
        let upper = slice.upper_bytes();
        let lower = slice.size_bytes() - upper;
        if upper * 100 < lower * DIRECT_PERCENT {
            return None;
        }
        self.allowed(&slice, Reason::Level0, false)
    }

    /// What lies in and below level 0 from `top` on, in the key range of level 0.
    fn down_to_bottom(&self, top: usize) -> Option<Slice<'a, R>> {
        let mut slice = self.stack.columns(top, self.stack.level0 - 1)?;
        slice.descend(&self.stack, self.stack.level0);
        Some(slice)
    }

    fn level0_to_middle(&self, top: usize) -> Option<Choice> {
        let mut slice = self.stack.columns(top, self.stack.level0 - 1)?;
        slice.to = self.new_middle_run(top);
        let is_taken = self.is_taken(slice.to);
        // An older result of this size or less would soon be merged with this one anyway.
        let mut best = None;
        let mut end = self.stack.level0;
        while let Some(layer) = self.stack.layers[..self.stack.bottom()].get(end) {
            let above: u64 = self.stack.layers[top..end]
                .iter()
                .map(Layer::size_bytes)
                .sum();
            let must_go_along = is_taken && end == self.stack.level0;
            if layer.size_bytes() * 100 > above * ABSORB_PERCENT && !must_go_along {
                break;
            }
            let more = self.stack.columns(top, end)?;
            best = self.allowed(&more, Reason::Level0, false).or(best);
            end += 1;
        }
        if best.is_some() || is_taken {
            return best;
        }
        self.allowed(&slice, Reason::Level0, false)
    }

    /// Where level 0 from layer `top` on goes as a run of its own. Level 0 numbers its runs by their
    /// tables, so this number is above those of all runs that were made from older tables.
    fn new_middle_run(&self, top: usize) -> Place {
        Place {
            level: 1,
            run: self.stack.layers[top].place.run,
        }
    }

    /// Whether a run of that number is there already: what a compaction of the same tables has written before it was
    /// interrupted. What is left of them overlaps it, so it goes along.
    fn is_taken(&self, new: Place) -> bool {
        let newest = self.stack.middle().first();
        newest.is_some_and(|layer| layer.place.level == new.level && layer.place.run >= new.run)
    }

    fn level0_is_busy(&self) -> bool {
        let in_flight = self.situation.in_flight;
        in_flight.iter().any(|choice| choice.relieves_level0())
    }

    /// Without a bottom, the oldest run becomes it.
    fn found_bottom(&self) -> Option<Choice> {
        let bottom = self.stack.bottom();
        let oldest = self.stack.middle().last()?;
        if !self.stack.layers[bottom].tables.is_empty() {
            return None;
        }
        let slice = self.stack.slice(bottom - 1, oldest.tables, bottom)?;
        self.allowed(&slice, Reason::Space, true)
    }

    /// Rule 2.
    fn thin(&self) -> Option<Choice> {
        let (first, bottom) = (self.stack.level0, self.stack.bottom());
        if bottom - first <= self.options.middle_runs_max {
            return None;
        }
        let mut best: Option<(u64, Choice)> = None;
        for top in first..bottom - 1 {
            let mut bytes = self.stack.layers[top].size_bytes();
            for end in top + 1..bottom {
                bytes += self.stack.layers[end].size_bytes();
                let cost = bytes / (end - top) as u64;
                if best.as_ref().is_none_or(|(least, _)| cost < *least)
                    && let Some(slice) = self.stack.columns(top, end)
                    && let Some(choice) = self.allowed(&slice, Reason::Runs, false)
                {
                    best = Some((cost, choice));
                }
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// Rule 3.
    fn sink(&self) -> Option<Choice> {
        let bottom = self.stack.layers[self.stack.bottom()];
        let middle = self.stack.middle();
        let deletes = middle
            .iter()
            .flat_map(|layer| layer.tables)
            .map(|table| table.summary.deletes)
            .sum();
        let replaceable =
            middle.iter().map(Layer::size_bytes).sum::<u64>() + self.deleted_bytes(deletes);
        let allowance = u64::from(self.options.space_percent.saturating_sub(100));
        if replaceable * 100 <= bottom.size_bytes().saturating_mul(allowance) {
            return None;
        }
        self.most_worthwhile(Reason::Space)
    }

    /// The slice into the bottom that frees most for the bytes it rewrites.
    fn most_worthwhile(&self, reason: Reason) -> Option<Choice> {
        let bottom = self.stack.bottom();
        let mut best: Option<(u64, Choice)> = None;
        for top in self.stack.level0..bottom {
            let tables = self.stack.layers[top].tables;
            for from in 0..tables.len() {
                // Wide slices lose less at their edges, but all of it is rewritten at once.
                for seed in widths(&tables[from..]) {
                    let Some(slice) = self.stack.slice(top, seed, bottom) else {
                        break;
                    };
                    let size = slice.size_bytes();
                    let frees = slice.upper_bytes() + self.deleted_bytes(slice.upper_deletes());
                    let worth = per_mille(frees, size);
                    let better = best.as_ref().is_none_or(|(most, _)| worth > *most);
                    if better && let Some(choice) = self.merge_or_move(&slice, reason) {
                        best = Some((worth, choice));
                    }
                    if size > self.options.table_bytes * SLICE_TABLES {
                        break;
                    }
                }
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// Bytes of the bottom that so many tombstones make superfluous, at most.
    fn deleted_bytes(&self, deletes: u64) -> u64 {
        let bottom = self.stack.layers[self.stack.bottom()];
        let entries: u64 = bottom
            .tables
            .iter()
            .map(|table| table.summary.entries)
            .sum();
        let each = bottom.size_bytes() / entries.max(1);
        deletes.saturating_mul(each).min(bottom.size_bytes())
    }

    /// Rule 4, for tombstones of single keys.
    fn bury_tombstones(&self) -> Option<Choice> {
        let is_dense = |table: &Placed<R>| {
            let summary = &table.summary;
            self.is_unneeded(table)
                && summary.deletes * 100 >= summary.entries.max(1) * TOMBSTONE_PERCENT
        };
        self.first_table(Reason::Tombstones, is_dense)
    }

    /// True if no snapshot keeps what the table's tombstones hide.
    fn is_unneeded(&self, table: &Placed<R>) -> bool {
        let oldest = self.situation.oldest_snapshot;
        oldest.is_none_or(|oldest| table.summary.newest <= oldest)
    }

    /// Rule 4, for deleted ranges.
    fn bury_ranges(&self) -> Option<Choice> {
        let bottom = self.stack.bottom();
        let first = if self.level0_is_busy() {
            self.stack.level0
        } else {
            0
        };
        for (top, layer) in self.stack.layers.iter().enumerate().skip(first) {
            for (at, table) in layer.tables.iter().enumerate() {
                if table.summary.ranges == 0 || !self.is_unneeded(table) {
                    continue;
                }
                let slice = self.stack.slice(top, &layer.tables[at..=at], bottom)?;
                let hidden = table.summary.covered_bytes.saturating_mul(100);
                // In the bottom they hide nothing any more, and need not be there.
                let is_worth_it = top == bottom || hidden >= slice.size_bytes() * COVERED_PERCENT;
                if is_worth_it && let Some(choice) = self.allowed(&slice, Reason::Tombstones, false)
                {
                    return Some(choice);
                }
            }
        }
        None
    }

    /// Rule 5.
    fn expire(&self) -> Option<Choice> {
        let expired = self.situation.expired?;
        let is_due = |table: &Placed<R>| {
            // While a snapshot may need one of them, the filter is not asked.
            let unneeded = self.situation.oldest_snapshot.is_none();
            unneeded && table.summary.expires.is_some_and(|at| at <= expired)
        };
        self.first_table(Reason::Expiry, is_due)
    }

    /// The first table below level 0 with a property, with all that must go to the bottom with it.
    fn first_table(&self, reason: Reason, wanted: impl Fn(&Placed<R>) -> bool) -> Option<Choice> {
        for top in self.stack.level0..=self.stack.bottom() {
            let tables = self.stack.layers[top].tables;
            for (at, _) in tables.iter().enumerate().filter(|(_, table)| wanted(table)) {
                let slice = self
                    .stack
                    .slice(top, &tables[at..=at], self.stack.bottom())?;
                let choice = self.allowed(&slice, reason, false);
                if choice.is_some() {
                    return choice;
                }
            }
        }
        None
    }

    /// Rule 6.
    fn collect(&self) -> Option<Choice> {
        let percent = self.options.blob_garbage_percent;
        let collected = self.blobs.collectable(percent, self.situation.fenced_blobs);
        if collected.is_empty() {
            return None;
        }
        let mut best: Option<(u64, Choice)> = None;
        for top in self.stack.level0..=self.stack.bottom() {
            let tables = self.stack.layers[top].tables;
            for at in 0..tables.len() {
                let bottom = self.stack.bottom();
                let Some(slice) = self.stack.slice(top, &tables[at..=at], bottom) else {
                    continue;
                };
                let (frees, moves) = self.collected_bytes(&slice, &collected);
                let size = slice.size_bytes();
                let worth = per_mille(frees, size + moves);
                let gains = moves > 0 && frees * 100 >= size * COLLECT_PERCENT;
                if gains
                    && best.as_ref().is_none_or(|(most, _)| worth > *most)
                    && let Some(choice) = self.allowed(&slice, Reason::Garbage, false)
                {
                    best = Some((worth, choice));
                }
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// The slice's part in the garbage of these blob files, and the bytes in them that it points to. A file goes
    /// when its last byte was moved; each byte moved counts for its share of the garbage.
    fn collected_bytes(&self, slice: &Slice<'a, R>, collected: &BTreeSet<u64>) -> (u64, u64) {
        let mut sums = (0, 0);
        let references = slice
            .tables()
            .flat_map(|table| table.summary.references.iter())
            .filter(|reference| collected.contains(&reference.file));
        for reference in references {
            let Some(blob) = self.blobs.get(reference.file) else {
                continue;
            };
            let share = u128::from(blob.garbage_bytes()) * u128::from(reference.bytes);
            let share = share / u128::from(blob.live_bytes.max(1));
            sums.0 += u64::try_from(share).unwrap_or(u64::MAX);
            sums.1 += reference.bytes;
        }
        sums
    }

    /// Rule 7.
    fn repay_reads(&self) -> Option<Choice> {
        (0..self.stack.bottom())
            .filter(|top| self.is_overpaid(*top))
            .find_map(|top| {
                // From level 0 all older runs of it go along, or older data would stay above newer.
                let end = (top + 1).max(self.stack.level0);
                let slice = self.stack.columns(top, end)?;
                let may_begin = top >= self.stack.level0 || !self.level0_is_busy();
                self.allowed(&slice, Reason::Reads, false)
                    .filter(|_| may_begin)
            })
    }

    /// True if readers lost more on a run than it costs to merge it with the next older one.
    fn is_overpaid(&self, top: usize) -> bool {
        let lost: u64 = self.stack.layers[top]
            .tables
            .iter()
            .map(|table| table.reads.lost_bytes())
            .sum();
        let end = (top + 1).max(self.stack.level0).min(self.stack.bottom());
        let cost: u64 = self.stack.layers[top..=end]
            .iter()
            .map(Layer::size_bytes)
            .sum();
        lost > 0 && lost >= cost
    }

    /// Rule 8.
    fn settle(&self) -> Option<Choice> {
        let budget = self.situation.idle_bytes;
        let (level0, bottom) = (self.stack.level0, self.stack.bottom());
        if budget == 0 || bottom == 0 || !self.situation.in_flight.is_empty() {
            return None;
        }
        let affordable = |slice: &Slice<'a, R>| slice.size_bytes() <= budget;
        // Level 0 goes along only in small compactions: it is needed again when writes come back.
        let small = 2 * SLICE_TABLES * self.options.table_bytes;
        let all = self.stack.columns(0, bottom).filter(affordable);
        if let Some(all) = all.filter(|all| level0 == 0 || all.size_bytes() <= small) {
            return self.merge_or_move(&all, Reason::Idle);
        }
        if level0 > 1 {
            let new = self.new_middle_run(0);
            let mut slice = self.stack.columns(0, level0 - 1)?;
            slice.to = new;
            if self.is_taken(new) {
                slice = self.stack.columns(0, level0)?;
            }
            let slice = Some(slice).filter(affordable)?;
            return self.allowed(&slice, Reason::Idle, false);
        }
        if bottom == level0 {
            return None;
        }
        let middle = self.stack.columns(level0, bottom).filter(affordable);
        if let Some(middle) = middle {
            return self.merge_or_move(&middle, Reason::Idle);
        }
        let newer = self.stack.columns(level0, bottom - 1).filter(affordable)?;
        let shrinks = newer.parts.len() > 1;
        self.allowed(&newer, Reason::Idle, false)
            .filter(|_| shrinks)
    }

    /// A move if nothing overlaps and the tables are fit for the bottom.
    fn merge_or_move(&self, slice: &Slice<'a, R>, reason: Reason) -> Option<Choice> {
        let is_fit = |(place, tables): &(Place, &[Arc<Placed<R>>])| {
            *place == slice.to
                || tables.iter().all(|table| {
                    has_no_tombstones(table)
                        && table.summary.size_bytes * 100 >= self.options.table_bytes * MOVE_PERCENT
                })
        };
        let is_move = slice.parts.iter().all(is_fit) && slice.is_disjoint();
        self.allowed(slice, reason, is_move)
    }

    /// The slice as a choice, if nothing under way and no fence stands against it.
    fn allowed(&self, slice: &Slice<'a, R>, reason: Reason, is_move: bool) -> Option<Choice> {
        if slice.parts.iter().any(|(_, tables)| self.is_fenced(tables)) {
            return None;
        }
        let choice = slice.choice(reason, is_move);
        let collides = |other: &Arc<Choice>| choice.collides_with(other);
        (!self.situation.in_flight.iter().any(collides)).then_some(choice)
    }

    fn is_fenced(&self, tables: &[Arc<Placed<R>>]) -> bool {
        !self.situation.fenced.is_empty()
            && tables
                .iter()
                .any(|table| self.situation.fenced.contains(&table.summary.file))
    }
}

fn has_no_tombstones<R>(table: &Placed<R>) -> bool {
    table.summary.deletes == 0 && table.summary.ranges == 0
}

/// The first table, the first two, four, eight, and so on.
fn widths<T>(tables: &[T]) -> impl Iterator<Item = &[T]> {
    let widths = std::iter::successors(Some(1), |width| Some(width * 2));
    widths
        .take_while(|width| *width <= tables.len())
        .map(|width| &tables[..width])
}

fn per_mille(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1000) / whole.max(1)
}

#[cfg(test)]
mod tests;
