//! Fragments against a look at every delete.

use super::*;
use proptest::prelude::*;

type Delete = (u8, u8, u64);

fn fragments(deletes: &[Delete]) -> Fragments {
    let parts: Vec<Fragments> = deletes
        .iter()
        .map(|(start, end, seq)| Fragments::one(&[*start], &[*end], Seq(*seq)))
        .collect();
    Fragments::merge(&parts)
}

fn naive(deletes: &[Delete], key: u8, at: u64) -> Option<Seq> {
    let covers = |(start, end, seq): &&Delete| *start <= key && key < *end && *seq <= at;
    deletes.iter().filter(covers).map(|it| Seq(it.2)).max()
}

/// Up to 12 deletes, numbered from 1.
fn deletes() -> impl Strategy<Value = Vec<Delete>> {
    let ranges = prop::collection::vec((0u8..30, 0u8..30), 0..12);
    ranges.prop_map(|ranges| {
        let numbered = ranges.into_iter().zip(1..);
        numbered.map(|((a, b), seq)| (a, b, seq)).collect()
    })
}

fn check(fragments: &Fragments) {
    let mut behind: Option<Fragment<'_>> = None;
    for fragment in fragments.iter() {
        assert!(fragment.start < fragment.end && !fragment.seqs.is_empty());
        assert!(fragment.seqs.is_sorted_by(|a, b| a > b));
        if let Some(before) = behind {
            assert!(before.end <= fragment.start);
            assert!(before.end < fragment.start || before.seqs != fragment.seqs);
        }
        behind = Some(fragment);
    }
}

proptest! {
    #[test]
    fn fragments_answer_like_a_look_at_every_delete(
        deletes in deletes(),
        split in 0usize..12,
        at in 0u64..14,
    ) {
        let whole = fragments(&deletes);
        check(&whole);
        // In two steps, some of the deletes twice.
        let (a, b) = deletes.split_at(split.min(deletes.len()));
        let twice = Fragments::merge([&fragments(a), &fragments(b), &fragments(a)]);
        prop_assert_eq!(&twice, &whole);
        prop_assert_eq!(&decode(&encode(&whole)).unwrap(), &whole);
        for key in 0..31 {
            let expected = naive(&deletes, key, at);
            prop_assert_eq!(whole.covering(&[key], Seq(at)), expected);
            let stretch = whole.stretch(&[key], Seq(at));
            prop_assert_eq!(stretch.seq, expected);
            let from = stretch.from.map_or(0, |from| from[0]);
            let until = stretch.until.map_or(31, |until| until[0]);
            prop_assert!(from <= key && key < until);
            for other in from..until {
                prop_assert_eq!(naive(&deletes, other, at), expected);
            }
        }
    }

    #[test]
    fn a_part_of_fragments_covers_the_keys_in_it(
        deletes in deletes(),
        from in prop::option::of(0u8..31),
        until in prop::option::of(0u8..31),
    ) {
        let from_key = from.map(|from| [from]);
        let until_key = until.map(|until| [until]);
        let whole = fragments(&deletes);
        let part = whole.between(
            from_key.as_ref().map(|key| &key[..]),
            until_key.as_ref().map(|key| &key[..]),
        );
        check(&part);
        for key in 0..31 {
            let is_inside = from.is_none_or(|from| from <= key) && until.is_none_or(|until| key < until);
            let expected = if is_inside { whole.covering(&[key], Seq(99)) } else { None };
            prop_assert_eq!(part.covering(&[key], Seq(99)), expected);
        }
    }

    #[test]
    fn all_keys_are_covered_if_each_of_them_is(
        deletes in deletes(),
        first in 0u8..31,
        last in 0u8..31,
        least in 0u64..12,
    ) {
        prop_assume!(first <= last);
        let whole = fragments(&deletes);
        let good = |seqs: &[Seq]| seqs[0] >= Seq(least);
        let each = (first..=last).all(|key| {
            whole.covering(&[key], Seq(99)).is_some_and(|seq| seq >= Seq(least))
        });
        prop_assert_eq!(whole.cover_all(&[first], &[last], good), each);
    }

    #[test]
    fn any_bytes_decode_to_fragments_or_nothing(bytes: Vec<u8>) {
        if let Some(fragments) = decode(&bytes) {
            check(&fragments);
            prop_assert_eq!(decode(&encode(&fragments)), Some(fragments));
        }
    }

    #[test]
    fn a_prefix_ends_behind_the_last_key_that_begins_with_it(
        prefix in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(254), Just(255)], 0..4),
        key in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(8), Just(254), Just(255)], 0..5),
    ) {
        let is_inside = key >= prefix && prefix_end(&prefix).is_none_or(|end| key < end);
        prop_assert_eq!(is_inside, key.starts_with(&prefix));
    }
}

#[test]
fn numbers_that_nobody_needs_leave_and_neighbours_become_one() {
    let whole = fragments(&[(0, 10, 1), (5, 20, 2), (5, 7, 3)]);
    assert_eq!(whole.len(), 4);
    let newest = whole.choose(|fragment| fragment.seqs[..1].to_vec());
    let found: Vec<_> = newest
        .iter()
        .map(|it| (it.start[0], it.end[0], it.seqs[0].0))
        .collect();
    assert_eq!(found, [(0, 5, 1), (5, 7, 3), (7, 20, 2)]);
    let old = whole.choose(|fragment| {
        let old = fragment.seqs.iter().filter(|seq| seq.0 == 1);
        old.copied().collect()
    });
    assert_eq!(old, Fragments::one(&[0], &[10], Seq(1)));
}

#[test]
fn a_key_in_front_of_an_end_is_named_exactly_if_there_is_one() {
    assert_eq!(last_before(&successor(b"ab")), b"ab");
    assert_eq!(last_before(b"ab"), b"ab");
}
