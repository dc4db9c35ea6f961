//! Which runs of a node its disk knows of, and which run told another member what it remembers.
//!
//! A boot counter alone does not tell a disk that was put back from the one it was copied from: it rises on both, and the older
//! one may overtake what a member remembers of the newer one before the two meet. So each run has a random number. A node keeps
//! all of its runs, with the counters at which they began; a member remembers one run, and the highest counter that it told. What
//! it remembers of a run that the node's disk does not know, or beyond that run's end on the disk, the disk has lost.
//!
//! A member does not forget a run before the one that comes after it has named it, so that two processes which run from copies
//! of one disk cannot tell over each other.

use kv_net::message::RememberV1;
use serde::{Deserialize, Serialize};

/// So many runs are kept.
const MOST: usize = 1_000;

/// The runs that a node's disk knows of. Stored in postcard; `docs/formats/storage-key.md`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Runs {
    /// Counters below are from before a loss that is on record.
    made_up_below: u64,
    /// The runs, in order, with the first counter of each.
    runs: Vec<(u64, u64)>,
    /// A member remembers what this disk does not know, and that is not on record yet.
    lacks: bool,
}

impl Runs {
    /// None, for all that was told below a counter is made up for.
    pub(crate) fn after_loss(counter: u64) -> Self {
        Self {
            made_up_below: counter,
            ..Self::default()
        }
    }

    /// The same, with the note that something is lost.
    pub(crate) fn with_lack(&self) -> Self {
        Self {
            lacks: true,
            ..self.clone()
        }
    }

    /// Whether something is lost that is not on record.
    pub(crate) fn lack_something(&self) -> bool {
        self.lacks
    }

    /// A run begins, with a counter above all before.
    pub(crate) fn begin(&mut self, run: u64, counter: u64) {
        self.runs.push((run, counter));
        if self.runs.len() > MOST {
            // Whoever remembers it will have this node compare everything once more: that is least likely of the shortest.
            let spans = self.runs.windows(2).map(|two| two[1].1 - two[0].1);
            let shortest = spans.enumerate().min_by_key(|(_, span)| *span);
            self.runs.remove(shortest.map_or(0, |(at, _)| at));
        }
    }

    /// The number of the last run, 0 before the first.
    pub(crate) fn current(&self) -> u64 {
        self.runs.last().map_or(0, |(run, _)| *run)
    }

    /// Whether this disk, whose counter is so high now, knows of all that a member was told.
    pub(crate) fn know_of(&self, told: Told, counter: u64) -> bool {
        if told.run == 0 || told.counter < self.made_up_below {
            return true;
        }
        let Some(at) = self.runs.iter().position(|(run, _)| *run == told.run) else {
            return false;
        };
        match self.runs.get(at + 1) {
            Some((_, next)) => told.counter < *next,
            None => told.counter <= counter,
        }
    }
}

/// What a member remembers of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// The run that told it last; 0: none has.
    pub(crate) run: u64,
    /// The highest counter that it told.
    pub(crate) counter: u64,
}

impl Told {
    /// Takes in what a node tells of itself. Says whether that is new.
    pub(crate) fn take_in(&mut self, said: &RememberV1) -> bool {
        let is_next = self.run == 0
            || self.run == said.run
            || (self.run, self.counter) == (said.after, said.heard);
        if said.run == 0 || said.boot <= self.counter || !is_next {
            return false;
        }
        *self = Self {
            run: said.run,
            counter: said.boot,
        };
        true
    }

    /// As it is stored: both, little-endian.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.run.to_le_bytes());
        bytes[8..].copy_from_slice(&self.counter.to_le_bytes());
        bytes
    }

    /// Of what is stored; `None` if it is no such thing.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (run, counter) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            run: u64::from_le_bytes(*run),
            counter: u64::from_le_bytes(counter.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_run_told_beyond_its_end_on_the_disk_is_lost() {
        let mut runs = Runs::default();
        runs.begin(7, 1);
        let told = |run, counter| Told { run, counter };
        assert!(runs.know_of(Told::default(), 3), "nothing");
        assert!(runs.know_of(told(7, 3), 3));
        assert!(!runs.know_of(told(7, 4), 3));
        runs.begin(8, 4);
        assert!(runs.know_of(told(7, 3), 9));
        assert!(!runs.know_of(told(7, 4), 9), "of a disk that was copied");
        assert!(!runs.know_of(told(9, 4), 9), "nor this");
        let mut runs = Runs::after_loss(10);
        runs.begin(10, 10);
        assert!(runs.know_of(told(9, 4), 10), "made up for");
        assert!(!runs.know_of(told(9, 10), 20));
    }

    #[test]
    fn the_shortest_runs_are_let_go() {
        let mut runs = Runs::default();
        let (long, count) = (3, u64::try_from(MOST).expect("a small number") + 5);
        let first = |run: u64| run + if run > long { 10 } else { 0 };
        for run in 1..=count {
            runs.begin(run, first(run));
        }
        assert_eq!(runs.runs.len(), MOST);
        let told = |run, counter| Told { run, counter };
        let now = first(count);
        assert!(runs.know_of(told(long, first(long) + 9), now));
        assert!(!runs.know_of(told(1, first(1)), now), "nobody knows");
        assert!(runs.know_of(told(count, now), now));
    }

    #[test]
    fn what_is_stored_is_read() {
        let told = Told {
            run: 0x0102_0304_0506_0708,
            counter: 300,
        };
        let bytes = told.to_bytes();
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1, 44, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Told::from_bytes(&bytes), Some(told));
        assert_eq!(Told::from_bytes(&bytes[..15]), None);
        assert_eq!(Told::from_bytes(&[0; 17]), None);
    }

    /// What happens to a node whose disk is copied and put back, and to those who remember it.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// It is started again.
        Start,
        /// Its counter rises.
        Rise,
        /// It talks to a member.
        Talk(usize),
        /// Its disk is copied.
        Copy,
        /// It is stopped, its disk put back, and it is started.
        PutBack,
    }

    /// A disk, and which starts and rises of the counter there have been on it or were made up for.
    #[derive(Debug, Clone, Default)]
    struct Disk {
        counter: u64,
        runs: Runs,
        seen: BTreeSet<u64>,
    }

    impl Disk {
        fn start(&mut self, event: u64) {
            self.rise(event);
            self.runs.begin(event, self.counter);
        }

        fn rise(&mut self, event: u64) {
            self.counter += 1;
            self.seen.insert(event);
        }
    }

    const MEMBERS: usize = 3;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Start),
            3 => Just(Step::Rise),
            4 => (0..MEMBERS).prop_map(Step::Talk),
            1 => Just(Step::Copy),
            1 => Just(Step::PutBack),
        ]
    }

    proptest! {
        /// A member shows a loss exactly if it was told a counter that the disk, as it is now, has never reached, and the loss has
        /// not been made up for since.
        #[test]
        fn a_member_shows_exactly_what_a_disk_lacks(steps in prop::collection::vec(step(), 1..80)) {
            let mut disk = Disk::default();
            let mut copy = disk.clone();
            let mut members = [(Told::default(), 0); MEMBERS];
            let mut event = 1;
            disk.start(event);
            for step in steps {
                event += 1;
                match step {
                    Step::Start => disk.start(event),
                    Step::Rise => disk.rise(event),
                    Step::Copy => copy = disk.clone(),
                    Step::PutBack => {
                        disk = copy.clone();
                        disk.start(event);
                    }
                    Step::Talk(to) => {
                        let (told, when) = members[to];
                        let knows = disk.runs.know_of(told, disk.counter);
                        let has_seen = when == 0 || disk.seen.contains(&when);
                        prop_assert_eq!(knows, has_seen, "{:?} at {} of {:?}", told, when, disk);
                        if !knows {
                            // It makes up for everything, and takes a counter above all that anybody remembers.
                            let most = members.iter().map(|(told, _)| told.counter).max();
                            disk.counter = most.unwrap_or_default().max(disk.counter);
                            disk.runs = Runs::after_loss(disk.counter + 1);
                            disk.seen.extend(0..event);
                            disk.start(event);
                        }
                        let said = RememberV1 {
                            boot: disk.counter,
                            run: disk.runs.current(),
                            after: told.run,
                            heard: told.counter,
                        };
                        if members[to].0.take_in(&said) {
                            members[to].1 = *disk.seen.last().expect("it was started");
                        }
                        prop_assert_eq!(members[to].0.run, disk.runs.current());
                    }
                }
            }
        }

        /// What a run told is not forgotten for one that has not heard of it.
        #[test]
        fn a_run_is_told_over_by_the_next_one_only(
            run in 1_u64..4, after in 0_u64..4, heard in 8_u64..12, boot in 0_u64..20
        ) {
            let before = Told { run: 2, counter: 10 };
            let mut told = before;
            let is_new = told.take_in(&RememberV1 { boot, run, after, heard });
            prop_assert_eq!(is_new, told != before);
            prop_assert_eq!(is_new, boot > 10 && (run == 2 || (after, heard) == (2, 10)));
        }
    }
}
