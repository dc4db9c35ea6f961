//! Merges memtables and runs into one ordered stream of versions.

mod ahead;
mod cover;
mod live;
mod run;

pub(crate) use live::LiveCursor;

use crate::error::Error;
use crate::key::{KeyVersion, Kind, Seq, head};
use crate::memtable::{MemCursor, Memtable};
use crate::table::{Fetch, Table};
use crate::version::{Placed, Run, Version};
use ahead::Ahead;
use bytes::Bytes;
use cover::{Cover, Covered, Ranges};
use run::{RunCursor, Tables};
use std::ops::Bound;
use std::sync::Arc;

/// Which way a stream goes. Backwards, a key's oldest version comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// Where a stream begins: at the first version on the far side of this one, seen in the stream's direction.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// At the outermost entry.
    Edge,
    /// Forward: at or after it. Backward: before it.
    At(KeyVersion<'a>),
}

/// One ordered input.
#[derive(Debug)]
enum Source {
    Mem(MemCursor),
    Run(Box<RunCursor>),
}

impl Source {
    #[inline]
    fn version(&self) -> Option<KeyVersion<'_>> {
        match self {
            Self::Mem(cursor) => cursor.entry().map(|entry| entry.version()),
            Self::Run(cursor) => cursor.version(),
        }
    }

    fn content(&self) -> Option<(Kind, &[u8])> {
        match self {
            Self::Mem(cursor) => cursor.entry().map(|entry| (entry.kind, entry.value)),
            Self::Run(cursor) => cursor.content(),
        }
    }

    fn value_bytes(&self) -> Bytes {
        match self {
            Self::Mem(cursor) => cursor
                .entry()
                .map(|entry| Bytes::copy_from_slice(entry.value))
                .unwrap_or_default(),
            Self::Run(cursor) => cursor.value_bytes(),
        }
    }

    fn advance(&mut self) -> Result<(), Error> {
        match self {
            Self::Mem(cursor) => {
                cursor.advance();
                Ok(())
            }
            Self::Run(cursor) => cursor.advance(),
        }
    }

    /// True if it stands at a version that a stream meets before it comes to `end`, or without an end.
    fn is_in_front_of(&self, end: Option<&[u8]>, direction: Direction) -> bool {
        let is_before = |key: &[u8]| {
            end.is_none_or(|end| match direction {
                Direction::Forward => *key < *end,
                Direction::Backward => *key >= *end,
            })
        };
        self.version().is_some_and(|version| is_before(version.key))
    }

    /// Moves on to the first version that is not in front of `end`; to none without an end.
    fn skip_to(&mut self, end: Option<&[u8]>, direction: Direction) -> Result<(), Error> {
        // Often one step is enough, and it is cheaper than a search.
        self.advance()?;
        if !self.is_in_front_of(end, direction) {
            return Ok(());
        }
        match (self, end) {
            (Self::Mem(cursor), Some(end)) => cursor.seek(KeyVersion::before_all(end)),
            (Self::Mem(cursor), None) => cursor.end(),
            (Self::Run(cursor), Some(end)) => cursor.seek(KeyVersion::before_all(end))?,
            (Self::Run(cursor), None) => cursor.end(),
        }
        Ok(())
    }
}

/// A source that stands at a version.
#[derive(Debug, Clone, Copy)]
struct Ranked {
    /// The first bytes of its key: most comparisons need no more.
    head: u64,
    source: usize,
}

/// All inputs; stands at the next version of all, or at none.
///
/// The sources are kept in order of their versions. After a step, the source that moved is put back
/// in its place, beginning at the front: where most rows come from one source, as in a store whose
/// bottom level holds nearly everything, that is one comparison a row, and with a single source none.
#[derive(Debug)]
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// The age of each source: of two, the one with the higher age has only older data of any key.
    ages: Vec<usize>,
    /// How many ages were given out.
    age: usize,
    /// The next one last.
    order: Vec<Ranked>,
    /// Deleted ranges, by source. For those who read answers; a rewrite has its own view of them.
    covers: Vec<Cover>,
    direction: Direction,
    /// Damage that was met; without it every error ends the merge at once.
    ahead: Option<Ahead>,
}

impl Merge {
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            sources: Vec::new(),
            ages: Vec::new(),
            age: 0,
            order: Vec::new(),
            covers: Vec::new(),
            direction,
            ahead: None,
        }
    }

    /// A merge that ends where damaged keys begin, and gives all keys in front of them; see
    /// [`end`](Self::end). It will be read up to `far`.
    pub(crate) fn up_to_damage(direction: Direction, far: Bound<&[u8]>) -> Self {
        Self {
            ahead: Some(Ahead::new(direction, far)),
            ..Self::new(direction)
        }
    }

    /// Ends the merge if it stands where known damage begins. Call it when all sources were added.
    #[inline]
    pub(crate) fn stop_at_damage(&mut self) {
        if let Some(ahead) = &self.ahead
            && ahead.is_known()
            && let Some(version) = self.version()
            && ahead.has_reached(version.key)
        {
            self.order.clear();
        }
    }

    /// Call it when there is no further version.
    ///
    /// # Errors
    /// The damage, if that is why there is none.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        match self.ahead.as_mut().and_then(Ahead::take) {
            Some(damage) => Err(damage),
            None => Ok(()),
        }
    }

    /// Adds a memtable that is older than all sources added before.
    pub(crate) fn add_memtable(&mut self, table: &Arc<Memtable>, start: Start<'_>) {
        let forward = self.direction == Direction::Forward;
        let from = match (start, self.direction) {
            (Start::Edge, _) => Bound::Unbounded,
            (Start::At(version), Direction::Forward) => Bound::Included(version),
            (Start::At(version), Direction::Backward) => Bound::Excluded(version),
        };
        for cursor in table.cursors(from, forward) {
            self.add(Source::Mem(cursor));
        }
        let parts = table.ranges().into_iter().map(Ranges::Part);
        let age = self.age;
        self.covers.extend(parts.map(|part| Cover::new(part, age)));
        self.age += 1;
    }

    /// Adds all runs of a version, which is older than all sources added before. A table that lies as a whole on the far side of `end`, seen in the
    /// stream's direction, is not opened; what an opened one holds there still comes.
    pub(crate) fn add_version(
        &mut self,
        version: &Arc<Version>,
        start: Start<'_>,
        end: Bound<&[u8]>,
        fetch: Fetch,
    ) -> Result<(), Error> {
        for (level, runs) in version.levels.iter().enumerate() {
            for run in 0..runs.runs.len() {
                let tables = || Tables::Run {
                    version: Arc::clone(version),
                    level,
                    run,
                };
                self.add_run(tables(), start, end, fetch)?;
                if runs.runs[run].has_ranges {
                    let ranges = Ranges::Run(tables());
                    self.covers.push(Cover::new(ranges, self.age));
                }
                self.age += 1;
            }
        }
        Ok(())
    }

    /// Adds the tables of an ingest, which are older than all sources added before.
    pub(crate) fn add_ingested(
        &mut self,
        run: &Arc<Run<Arc<Table>>>,
        start: Start<'_>,
        end: Bound<&[u8]>,
        fetch: Fetch,
    ) -> Result<(), Error> {
        debug_assert!(!run.has_ranges, "only rows are ingested");
        self.add_run(Tables::Ingested(Arc::clone(run)), start, end, fetch)?;
        self.age += 1;
        Ok(())
    }

    /// Adds sorted tables that do not overlap, without their deleted ranges.
    pub(crate) fn add_tables(
        &mut self,
        tables: Vec<Arc<Placed<Arc<Table>>>>,
        start: Start<'_>,
        fetch: Fetch,
    ) -> Result<(), Error> {
        self.add_run(Tables::Chosen(tables), start, Bound::Unbounded, fetch)
    }

    fn add_run(
        &mut self,
        tables: Tables,
        start: Start<'_>,
        end: Bound<&[u8]>,
        fetch: Fetch,
    ) -> Result<(), Error> {
        match (
            RunCursor::new(tables, self.direction, start, end, fetch),
            &mut self.ahead,
        ) {
            (Ok(Some(cursor)), _) => self.add(Source::Run(Box::new(cursor))),
            (Ok(None), _) => {}
            (Err(error), Some(ahead)) => ahead.note(error)?,
            (Err(error), None) => return Err(error),
        }
        Ok(())
    }

    fn add(&mut self, source: Source) {
        let number = self.sources.len();
        if let Some(version) = source.version() {
            let ranked = Ranked {
                head: head(version.key),
                source: number,
            };
            self.sources.push(source);
            self.ages.push(self.age);
            self.order.push(ranked);
            // It goes to the front of the order, and from there to its place.
            self.place_last();
        }
    }

    #[inline]
    fn current(&self) -> Option<&Source> {
        self.order.last().map(|next| &self.sources[next.source])
    }

    #[inline]
    pub(crate) fn version(&self) -> Option<KeyVersion<'_>> {
        self.current()?.version()
    }

    /// Kind and value of the present version.
    pub(crate) fn content(&self) -> Option<(Kind, &[u8])> {
        self.current()?.content()
    }

    /// The table that the present version lies in; none if that is a memtable. Of a version of kind blob it
    /// reads the value.
    pub(crate) fn table(&self) -> Option<&Arc<Table>> {
        match self.current()? {
            Source::Mem(_) => None,
            Source::Run(cursor) => cursor.table(),
        }
    }

    /// True if `key` lies where the merge will not be read; see [`up_to_damage`](Self::up_to_damage).
    fn is_beyond(&self, key: &[u8]) -> bool {
        self.ahead
            .as_ref()
            .is_some_and(|ahead| ahead.is_beyond(key))
    }

    /// The present value, for keeping.
    pub(crate) fn value_bytes(&self) -> Bytes {
        self.current().map(Source::value_bytes).unwrap_or_default()
    }

    pub(crate) fn advance(&mut self) -> Result<(), Error> {
        let Some(next) = self.order.last_mut() else {
            return Ok(());
        };
        let source = &mut self.sources[next.source];
        if let Err(error) = source.advance() {
            return self.go_without(error);
        }
        match source.version() {
            Some(version) => {
                next.head = head(version.key);
                self.place_last();
            }
            None => {
                self.order.pop();
            }
        }
        self.stop_at_damage();
        Ok(())
    }

    /// True if a deleted range that can be seen at `at` hides the version `seq` of `key`. Then cursors of older
    /// sources are moved to the end of the range. Keys must be asked about in the merge's direction.
    #[inline]
    pub(crate) fn hides(&mut self, key: &[u8], seq: Seq, at: Seq) -> Result<bool, Error> {
        if self.covers.is_empty() {
            return Ok(false);
        }
        self.look_for_cover(key, seq, at)
    }

    fn look_for_cover(&mut self, key: &[u8], seq: Seq, at: Seq) -> Result<bool, Error> {
        let direction = self.direction;
        let covering = |cover| Cover::covering(cover, key, at, direction);
        let covers = self.covers.iter_mut().filter_map(covering);
        let newest = covers.max_by_key(|covered| covered.seq);
        let Some(Covered {
            seq: deleted,
            age,
            end,
        }) = newest.filter(|it| it.seq > seq)
        else {
            return Ok(false);
        };
        debug_assert!(deleted <= at);
        let end = end.map(<[u8]>::to_vec);
        self.skip_older(age, end.as_deref())?;
        Ok(true)
    }

    /// Moves the cursors of sources that are older than `age` to the first version at `end` (backward: before
    /// it), if they have not come so far.
    fn skip_older(&mut self, age: usize, end: Option<&[u8]>) -> Result<(), Error> {
        let mut moved = Vec::new();
        for at in (0..self.order.len()).rev() {
            let number = self.order[at].source;
            if self.ages[number] > age && self.sources[number].is_in_front_of(end, self.direction) {
                self.order.remove(at);
                moved.push(number);
            }
        }
        for number in moved {
            match self.sources[number].skip_to(end, self.direction) {
                Ok(()) => self.put_back(number),
                Err(error) => match &mut self.ahead {
                    Some(ahead) => ahead.note(error)?,
                    None => return Err(error),
                },
            }
        }
        self.stop_at_damage();
        Ok(())
    }

    /// Gives a source that moved its place in the order, if it stands at a version.
    fn put_back(&mut self, number: usize) {
        if let Some(version) = self.sources[number].version() {
            let head = head(version.key);
            self.order.push(Ranked {
                head,
                source: number,
            });
            self.place_last();
        }
    }

    /// Goes on without the source that failed, if that is allowed.
    #[cold]
    fn go_without(&mut self, error: Error) -> Result<(), Error> {
        self.order.pop();
        let outcome = match &mut self.ahead {
            Some(ahead) => ahead.note(error),
            None => Err(error),
        };
        if outcome.is_err() {
            self.order.clear();
        }
        self.stop_at_damage();
        outcome
    }

    /// Moves the last of the order to its place.
    fn place_last(&mut self) {
        let mut at = self.order.len() - 1;
        while at > 0 && self.comes_first(self.order[at - 1], self.order[at]) {
            self.order.swap(at - 1, at);
            at -= 1;
        }
    }

    /// True if `a` stands at a version that the stream reaches before that of `b`.
    #[inline]
    fn comes_first(&self, a: Ranked, b: Ranked) -> bool {
        let order = a.head.cmp(&b.head).then_with(|| {
            let version = |ranked: Ranked| self.sources[ranked.source].version();
            version(a).cmp(&version(b))
        });
        match self.direction {
            Direction::Forward => order.is_lt(),
            Direction::Backward => order.is_gt(),
        }
    }
}
