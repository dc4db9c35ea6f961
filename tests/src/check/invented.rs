//! Only what was written shows: the right value under the right key, and never a write that was answered with "not
//! applied". Nor is a write done that came with the context of another key.

use super::Violation;
use crate::history::{Fate, History, KeyNumber, Seen};

/// What was invented.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let read = history.reads.iter().map(|read| (read.key, &read.seen));
    let held = history.held.iter().map(|held| (held.key, &held.seen));
    let shown = read.chain(held);
    let astray = history.writes.iter().filter(|(_, write)| write.is_astray);
    let accepted = astray
        .filter(|(_, write)| write.acked_at().is_some())
        .map(|(id, write)| {
            let what = format!(
                "{id:?} of key {} was done with the context of another key",
                write.key
            );
            Violation::new("astray", what)
        });
    shown
        .flat_map(|(key, seen)| seen.iter().map(move |seen| (key, seen)))
        .filter_map(|(key, seen)| judge(history, key, seen))
        .chain(accepted)
        .collect()
}

fn judge(history: &History, key: KeyNumber, seen: &Seen) -> Option<Violation> {
    let id = seen.id;
    let violation =
        |rule, what: &str| Some(Violation::new(rule, format!("{id:?} of key {key} {what}")));
    let Some(write) = history.writes.get(&id) else {
        return violation("invented", "was never written");
    };
    if write.key != key {
        return violation("invented", "belongs to another key");
    }
    if write.is_astray {
        return violation("astray", "shows, written with the context of another key");
    }
    let expected = (!write.is_delete).then(|| History::value_of(id));
    if seen.value != expected {
        return violation("invented", "shows another value than was written");
    }
    if write.fate == Fate::NotApplied {
        return violation(
            "not-applied",
            "shows, but was answered with \"not applied\"",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{Story, id};

    #[test]
    fn the_context_of_another_key_is_refused() {
        let mut story = Story::new();
        let astray = story.put(1, 0, &[]);
        astray.not_applied();
        astray.is_astray = true;
        assert_eq!(check(&story.history), []);
        let astray = story.put(2, 20, &[]);
        astray.acked(30);
        astray.is_astray = true;
        assert_eq!(story.rules(check), ["astray"]);
    }

    #[test]
    fn what_was_written_may_show_and_nothing_else() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.delete(2, 20, &[1]).acked(30);
        story.put(3, 20, &[1]).unknown();
        story.read(40, 50, &[2, 3]);
        assert_eq!(check(&story.history), []);

        story.read(40, 50, &[9]);
        assert_eq!(story.rules(check), ["invented"], "never written");
    }

    #[test]
    fn a_value_of_another_write_or_key_is_invented() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 0, &[]).acked(10);
        story.read(20, 30, &[1]);
        story.last_read().seen[0].value = Some(History::value_of(id(2)));
        assert_eq!(story.rules(check), ["invented"]);
        story.last_read().seen[0].value = None;
        assert_eq!(story.rules(check), ["invented"], "a put shows as a delete");
        story.last_read().seen[0].value = Some(History::value_of(id(1)));
        story.last_read().key = 7;
        assert_eq!(story.rules(check), ["invented"], "under another key");
    }

    #[test]
    fn what_was_not_applied_never_shows() {
        let mut story = Story::new();
        story.put(1, 0, &[]).not_applied();
        story.read(20, 30, &[]);
        assert_eq!(check(&story.history), []);
        story.hold(1, &[1]);
        assert_eq!(story.rules(check), ["not-applied"]);
    }
}
