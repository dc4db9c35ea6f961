//! After healing, all replicas of a key hold the same, byte for byte.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Held, History, KeyNumber};

/// Which keys differ.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut by_key: BTreeMap<KeyNumber, Vec<&Held>> = BTreeMap::new();
    for held in &history.held {
        by_key.entry(held.key).or_default().push(held);
    }
    let judge = |(key, held): (KeyNumber, Vec<&Held>)| {
        let differs = held
            .windows(2)
            .find(|pair| pair[0].bytes != pair[1].bytes)?;
        let what = format!(
            "key {key} differs between {} and {}: {:?} and {:?}",
            differs[0].node, differs[1].node, differs[0].seen, differs[1].seen
        );
        Some(Violation::new("diverged", what))
    };
    by_key.into_iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::Story;

    #[test]
    fn replicas_are_equal_key_by_key() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.hold(1, &[1]);
        story.hold(2, &[1]);
        assert!(story.rules(check).is_empty());
        story.hold(3, &[]);
        assert_eq!(story.rules(check), ["diverged"]);
    }

    #[test]
    fn equal_siblings_with_other_clocks_are_not_equal() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.hold(1, &[1]);
        story.hold(2, &[1]);
        story.history.held[1].bytes.push(0);
        assert_eq!(story.rules(check), ["diverged"]);
    }
}
