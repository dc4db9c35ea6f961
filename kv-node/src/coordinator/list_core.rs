//! The decision of a page: merging what replicas hold of a partition. Pure.
//!
//! A page may go only as far as the shortest of the truncated answers: beyond it, a replica that
//! stopped early may hold a deletion of what another still shows.

use std::collections::BTreeMap;

use bytes::Bytes;
use kv_types::{Hlc, Key, Object, planted};

use super::told::{self, Told};

/// One replica's page, keyed by the engine's keys, which give the order.
#[derive(Debug, Clone, Default)]
pub struct ReplicaPage {
    /// Engine key → (key, object).
    pub entries: BTreeMap<Bytes, (Key, Object)>,
    /// Up to which key this is all that the replica holds; `None` if it holds no more.
    pub end: Option<(Bytes, Key)>,
    /// The replica's watermark; zero if it does not know all that was acknowledged.
    pub through: Hlc,
}

/// The merged page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedPage {
    /// Keys with what all answering replicas know of them, in storage order.
    pub entries: Vec<(Key, Object)>,
    /// After which key the next page begins; `None` when there is no more.
    pub next_after: Option<Key>,
}

/// Merges the pages of r replicas, all asked for the same start.
#[must_use]
pub fn merge(pages: &[ReplicaPage]) -> MergedPage {
    let ends = pages.iter().filter_map(|page| page.end.as_ref());
    let end = ends.min_by(|(one, _), (other, _)| one.cmp(other));
    let mut keys: BTreeMap<&Bytes, &Key> = BTreeMap::new();
    for (stored, (key, _)) in pages.iter().flat_map(|page| &page.entries) {
        let is_past = end.is_some_and(|(end, _)| stored > end);
        if !is_past || planted!("list past a truncated page") {
            keys.insert(stored, key);
        }
    }
    let told = |stored: &Bytes| -> Vec<Told<'_>> {
        let told = pages.iter().map(|page| Told {
            object: page.entries.get(stored).map(|(_, object)| object),
            through: page.through,
        });
        told.collect()
    };
    let entries = keys
        .into_iter()
        .map(|(stored, key)| (key.clone(), told::merged(&told(stored))))
        // Of the others nothing is left.
        .filter(|(_, object)| object.oldest_dot().is_some());
    MergedPage {
        entries: entries.collect(),
        next_after: end.map(|(_, key)| key.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_types::{ActorId, Clock, Dot, Payload, Write, WriteId};

    fn entry(name: &str, object: Object) -> (Bytes, (Key, Object)) {
        let key = Key::new(name.to_owned()).expect("a short key");
        (Bytes::from(name.to_owned()), (key, object))
    }

    fn written(payload: Payload, at: u64, read: &Clock) -> Object {
        let mut object = Object::new();
        let write = Write {
            write_id: WriteId::new(at, [1; 10]),
            payload,
            expires_ms: None,
        };
        object
            .write(write, read, Dot::new(ActorId(1), Hlc(at)), Hlc::ZERO, at)
            .expect("one sibling");
        object
    }

    fn value(at: u64) -> Object {
        written(Payload::Value(Bytes::from_static(b"v")), at, &Clock::new())
    }

    fn page(entries: Vec<(Bytes, (Key, Object))>, complete: bool) -> ReplicaPage {
        let last = entries
            .last()
            .map(|(stored, (key, _))| (stored.clone(), key.clone()));
        ReplicaPage {
            end: last.filter(|_| !complete),
            entries: entries.into_iter().collect(),
            through: Hlc::ZERO,
        }
    }

    fn names(page: &MergedPage) -> Vec<String> {
        page.entries
            .iter()
            .map(|(key, _)| key.to_string())
            .collect()
    }

    #[test]
    fn a_page_stops_where_the_first_truncated_answer_stops() {
        let ahead = page(
            vec![
                entry("k1", value(1)),
                entry("k5", value(1)),
                entry("k7", value(1)),
                entry("k9", value(1)),
            ],
            false,
        );
        let behind = page(
            vec![
                entry("k1", value(1)),
                entry("k3", value(1)),
                entry("k5", value(1)),
            ],
            false,
        );
        let merged = merge(&[ahead, behind]);
        // The second replica may hold a deletion of k7.
        assert_eq!(names(&merged), ["k1", "k3", "k5"]);
        assert_eq!(merged.next_after.expect("more").to_string(), "k5");
    }

    #[test]
    fn complete_answers_end_the_partition() {
        let merged = merge(&[page(vec![entry("a", value(1))], true), page(vec![], true)]);
        assert_eq!((names(&merged).len(), merged.next_after), (1, None));
    }

    #[test]
    fn a_complete_answer_does_not_carry_the_page_past_a_truncated_one() {
        let whole = page(vec![entry("a", value(1)), entry("z", value(1))], true);
        let merged = merge(&[whole, page(vec![entry("a", value(1))], false)]);
        assert_eq!(names(&merged), ["a"]);
        assert!(merged.next_after.is_some());
    }

    #[test]
    fn an_answer_that_found_nothing_so_far_holds_the_page_back() {
        let (stored, (key, _)) = entry("k3", value(1));
        let nothing_yet = ReplicaPage {
            end: Some((stored, key)),
            ..ReplicaPage::default()
        };
        let ahead = page(vec![entry("k1", value(1)), entry("k5", value(1))], false);
        let merged = merge(&[ahead, nothing_yet.clone()]);
        assert_eq!(names(&merged), ["k1"]);
        assert_eq!(merged.next_after.expect("more").to_string(), "k3");
        let merged = merge(&[nothing_yet]);
        assert_eq!(names(&merged), [""; 0]);
        assert_eq!(merged.next_after.expect("more").to_string(), "k3");
    }

    #[test]
    fn what_an_owner_has_seen_deleted_is_not_listed() {
        let before = page(vec![entry("a", value(1)), entry("b", value(3))], true);
        let after = ReplicaPage {
            through: Hlc(2),
            ..page(vec![], true)
        };
        assert_eq!(names(&merge(&[before, after])), ["b"]);
    }

    #[test]
    fn objects_of_one_key_are_merged() {
        let old = value(1);
        let deleted = written(Payload::Tombstone, 2, old.clock());
        let merged = merge(&[
            page(vec![entry("a", old)], true),
            page(vec![entry("a", deleted)], true),
        ]);
        let (_, object) = &merged.entries[0];
        assert!(object.siblings().all(|s| s.payload().value().is_none()));
    }
}
