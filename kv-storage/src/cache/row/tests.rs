//! The row cache against a history of writes, step by step in random interleavings.

use super::*;
use crate::hash::key_hash;
use proptest::prelude::*;

const KEYS: usize = 3;

fn key(number: usize) -> [u8; 1] {
    [number as u8]
}

fn value(seq: u64) -> [u8; 8] {
    seq.to_le_bytes()
}

fn new_cache(bytes: u64) -> RowCache {
    RowCache::new(&Arc::new(Budget::new(bytes)))
}

/// What a task does next.
#[derive(Debug, Clone)]
enum Step {
    /// A reader takes its mark.
    Begin { key: usize },
    /// A reader that began looks its key up as of its mark, and offers what it finds.
    Fill { reader: usize },
    /// A writer takes the next number and notes its write.
    Note { key: usize },
    /// The oldest write that was noted becomes visible.
    Publish,
    /// A reader asks the cache.
    Get { key: usize },
    /// All writes so far are dropped without a write of their own (as if they had expired).
    Drop,
    /// A write to all keys is noted.
    NoteRange,
    /// Unsynced writes disappear: readers see less than before.
    Poison,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KEYS).prop_map(|key| Step::Begin { key }),
        6 => (0..8usize).prop_map(|reader| Step::Fill { reader }),
        3 => (0..KEYS).prop_map(|key| Step::Note { key }),
        3 => Just(Step::Publish),
        6 => (0..KEYS).prop_map(|key| Step::Get { key }),
        1 => Just(Step::Drop),
        1 => Just(Step::NoteRange),
        1 => Just(Step::Poison),
    ]
}

/// A store as simple as can be: all writes, in order.
#[derive(Default)]
struct Store {
    /// Key (none: all of them) and number.
    writes: Vec<(Option<usize>, u64)>,
    /// Writes up to this number are gone.
    dropped: u64,
    visible: u64,
    readers: Vec<(usize, ReadMark)>,
}

impl Store {
    fn newest(&self, key: usize, at: u64) -> Option<u64> {
        let mut writes = self.writes.iter().rev();
        let write = writes.find(|(written, seq)| written.is_none_or(|k| k == key) && *seq <= at);
        write.map(|(_, seq)| *seq).filter(|seq| *seq > self.dropped)
    }

    fn step(&mut self, cache: &RowCache, step: &Step) -> Result<bool, TestCaseError> {
        let next = self.writes.len() as u64 + 1;
        match *step {
            Step::Begin { key } => {
                let (epoch, at) = (cache.epoch(), Seq(self.visible));
                self.readers.push((key, ReadMark { at, epoch }));
            }
            Step::Fill { reader } => {
                if let Some((number, mark)) = self.readers.get(reader).copied()
                    && let Some(seq) = self.newest(number, mark.at.0)
                {
                    let key = key(number);
                    cache.offer(&key, key_hash(&key), &value(seq), Seq(seq), mark);
                }
                if self.readers.len() > 7 {
                    self.readers.remove(0);
                }
            }
            Step::Note { key: number } => {
                self.writes.push((Some(number), next));
                cache.on_write(key_hash(&key(number)), Seq(next));
            }
            Step::NoteRange => {
                self.writes.push((None, next));
                cache.on_range_write(Seq(next));
            }
            Step::Publish => self.visible = (self.visible + 1).min(self.writes.len() as u64),
            Step::Drop => {
                self.dropped = self.visible;
                cache.start_epoch();
            }
            Step::Poison => self.visible = self.visible.saturating_sub(1).max(self.dropped),
            Step::Get { key: number } => {
                let (key, at) = (key(number), Seq(self.visible));
                let epoch = cache.epoch();
                let found = cache.get(&key, key_hash(&key), ReadMark { at, epoch });
                if let Some((seq, found)) = found {
                    prop_assert_eq!(&found[..], &value(seq.0)[..]);
                    prop_assert_eq!(Some(seq.0), self.newest(number, self.visible));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_row_is_always_the_newest_that_the_reader_may_see(
        steps in prop::collection::vec(any_step(), 1..120)
    ) {
        let cache = new_cache(4096);
        let mut store = Store::default();
        for step in &steps {
            store.step(&cache, step)?;
        }
    }
}

#[test]
fn rows_are_found_in_most_interleavings_without_writes() {
    let cache = new_cache(4096);
    cache.budget.set_share(0);
    let mut store = Store::default();
    let mut steps = vec![Step::Note { key: 1 }, Step::Publish];
    for _ in 0..2 {
        steps.push(Step::Begin { key: 1 });
    }
    steps.extend([
        Step::Fill { reader: 0 },
        Step::Get { key: 1 },
        Step::Fill { reader: 1 },
    ]);
    for step in steps {
        assert!(!store.step(&cache, &step).unwrap(), "{step:?}: too early");
    }
    assert!(store.step(&cache, &Step::Get { key: 1 }).unwrap());
    assert_eq!(cache.hits(), 1);
}

#[test]
fn bytes_stay_within_the_capacity_and_touched_rows_stay() {
    let cache = new_cache(64 << 10);
    let mark = ReadMark {
        at: Seq(1),
        epoch: 0,
    };
    let hot = b"hot";
    let touch = |key: &[u8]| {
        for _ in 0..2 {
            cache.offer(key, key_hash(key), &[7; 600], Seq(1), mark);
            cache.shrink(cache.budget.excess());
        }
    };
    touch(hot);
    for number in 0..20_000u32 {
        touch(&number.to_be_bytes());
        assert!(cache.size_bytes() <= 64 << 10);
        let found = cache.get(hot, key_hash(hot), mark);
        assert!(found.is_some(), "thrown out by row {number}");
    }
    assert!(cache.size_bytes() > 48 << 10, "{}", cache.size_bytes());
}

#[test]
fn one_in_four_rows_that_come_back_soon_gets_in_at_once() {
    let cache = new_cache(64 << 10);
    cache.budget.set_share(0);
    let mark = ReadMark {
        at: Seq(1),
        epoch: 0,
    };
    let offer = |key: &[u8]| cache.offer(key, key_hash(key), &[7; 100], Seq(1), mark);
    let is_in = |key: &[u8]| cache.get(key, key_hash(key), mark).is_some();
    let mut returned = 0;
    for number in 0..40u32 {
        let key = number.to_be_bytes();
        (0..2).for_each(|_| offer(&key));
        assert!(is_in(&key));
        assert!(cache.shrink(cache.size_bytes()));
        assert!(!is_in(&key) && cache.size_bytes() == 0);
        // Others push it out of what its set remembers.
        (100..500u32).for_each(|other| offer(&other.to_be_bytes()));
        cache.shrink(cache.size_bytes());
        offer(&key);
        returned += u32::from(is_in(&key));
    }
    assert!((3..=20).contains(&returned), "{returned} of 40");
}

#[test]
fn rows_get_in_at_the_first_touch_until_they_have_their_share() {
    let cache = new_cache(1 << 20);
    cache.budget.set_share(256 << 10);
    let mark = ReadMark {
        at: Seq(1),
        epoch: 0,
    };
    for number in 0..10_000u32 {
        let key = number.to_be_bytes();
        cache.offer(&key, key_hash(&key), &[7; 100], Seq(1), mark);
    }
    let size = cache.size_bytes();
    // A few more come in because others of their set have the same tag.
    assert!((240 << 10..340 << 10).contains(&size), "{size}");
}

#[test]
fn a_cache_without_capacity_keeps_nothing() {
    let cache = new_cache(0);
    let mark = ReadMark {
        at: Seq(1),
        epoch: 0,
    };
    for _ in 0..3 {
        cache.offer(b"k", key_hash(b"k"), b"v", Seq(1), mark);
        assert!(cache.get(b"k", key_hash(b"k"), mark).is_none());
    }
    cache.on_write(1, Seq(3));
}
