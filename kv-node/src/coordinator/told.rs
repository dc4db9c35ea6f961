//! What owners tell of a key, merged without what some of them know to be deleted. Pure.
//!
//! An owner's answer carries its watermark of that moment: up to there it once knew all that there was. What lies below
//! and is unknown to it was deleted, and the deletion is forgotten there. An answer that was given before the deletion
//! came to another owner may still be on its way, and must not show that once more.

use std::borrow::Cow;

use kv_types::{Clock, Hlc, Object, planted};

/// What an owner tells of a key.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// What it holds.
    pub object: Option<&'a Object>,
    /// Its watermark; zero if it does not know all that was acknowledged.
    pub through: Hlc,
}

/// What is left of an object, after what those who told of the key know to be deleted.
#[must_use]
pub fn left_of<'a>(object: &'a Object, told: &[Told<'_>]) -> Cow<'a, Object> {
    let mut left = Cow::Borrowed(object);
    if planted!("show what an owner knows to be deleted") {
        return left;
    }
    let nothing = Clock::new();
    for one in told {
        let is_old = |object: &Object| object.oldest_dot().is_some_and(|dot| dot <= one.through);
        if is_old(&left) {
            let heard = one.object.map_or(&nothing, Object::clock);
            left = Cow::Owned(left.without_deleted(heard, one.through).0);
        }
    }
    left
}

/// All that they know together.
#[must_use]
pub fn merged(told: &[Told<'_>]) -> Object {
    let mut merged = Object::new();
    for object in told.iter().filter_map(|one| one.object) {
        merged.merge(&left_of(object, told));
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kv_types::{ActorId, Dot, Payload, Write, WriteId};

    const DELETED: u64 = 10;
    const THROUGH: Hlc = Hlc(20);

    fn written(dot: u64, read: &Clock) -> Object {
        let mut object = Object::new();
        let write = Write {
            write_id: WriteId::new(dot, [1; 10]),
            payload: Payload::Value(Bytes::from_static(b"v")),
            expires_ms: None,
        };
        let dot = Dot::new(ActorId(1), Hlc(dot));
        object
            .write(write, read, dot, Hlc::ZERO, 1)
            .expect("one sibling");
        object
    }

    fn told(object: Option<&Object>, through: Hlc) -> Told<'_> {
        Told { object, through }
    }

    fn dots(object: &Object) -> Vec<u64> {
        let dots = object.siblings().flat_map(|sibling| sibling.dots());
        dots.map(|dot| dot.hlc.0).collect()
    }

    #[test]
    fn what_another_owner_has_seen_deleted_is_not_shown() {
        let old = written(DELETED, &Clock::new());
        for (first, second) in [
            (told(Some(&old), Hlc::ZERO), told(None, THROUGH)),
            (told(None, THROUGH), told(Some(&old), Hlc::ZERO)),
        ] {
            assert_eq!(dots(&merged(&[first, second])), [0; 0]);
        }
    }

    #[test]
    fn what_was_written_since_is_shown_without_it() {
        let old = written(DELETED, &Clock::new());
        let new = written(THROUGH.0 + 1, &Clock::new());
        let told = [told(Some(&old), Hlc::ZERO), told(Some(&new), THROUGH)];
        assert_eq!(dots(&merged(&told)), [THROUGH.0 + 1]);
    }

    #[test]
    fn what_lies_above_the_watermark_or_is_known_there_is_shown() {
        let object = written(DELETED, &Clock::new());
        let young = written(THROUGH.0 + 1, &Clock::new());
        let known = told(Some(&object), THROUGH);
        for told in [
            [told(Some(&object), Hlc::ZERO), known],
            [told(Some(&object), Hlc::ZERO), told(None, Hlc(DELETED - 1))],
        ] {
            assert_eq!(dots(&merged(&told)), [DELETED]);
        }
        let told = [told(Some(&young), Hlc::ZERO), told(None, THROUGH)];
        assert_eq!(dots(&merged(&told)), [THROUGH.0 + 1]);
    }

    #[test]
    fn what_was_written_is_remembered_though_it_is_not_shown() {
        let old = written(DELETED, &Clock::new());
        let told = [told(Some(&old), Hlc::ZERO), told(None, THROUGH)];
        assert!(
            merged(&told)
                .clock()
                .covers_all_above(old.clock(), Hlc::ZERO)
        );
    }
}
