//! A set of writes of one key, each by its place among them in the order in which they began.

/// The set; a bit for each place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(Vec<u64>);

impl Places {
    /// Puts a place into it.
    pub fn insert(&mut self, place: usize) {
        let word = place / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (place % 64);
    }

    /// Whether a place is in it.
    #[must_use]
    pub fn contains(&self, place: usize) -> bool {
        let word = self.0.get(place / 64).copied().unwrap_or(0);
        word >> (place % 64) & 1 == 1
    }

    /// Puts all places of another into it.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// The first place in it that is not in another.
    #[must_use]
    pub fn first_outside(&self, other: &Self) -> Option<usize> {
        let theirs = other.0.iter().copied().chain(std::iter::repeat(0));
        let mut words = self.0.iter().zip(theirs).enumerate();
        words.find_map(|(index, (mine, theirs))| {
            let left = mine & !theirs;
            (left != 0).then(|| index * 64 + left.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(places: &[usize]) -> Places {
        let mut set = Places::default();
        for place in places {
            set.insert(*place);
        }
        set
    }

    #[test]
    fn the_first_outside_is_found_in_any_word_of_either() {
        let set = of(&[3, 70, 200]);
        assert_eq!(set.first_outside(&of(&[])), Some(3));
        assert_eq!(set.first_outside(&of(&[3])), Some(70));
        assert_eq!(set.first_outside(&of(&[3, 70, 199])), Some(200));
        assert_eq!(set.first_outside(&of(&[3, 70, 200, 900])), None);
        assert_eq!(of(&[]).first_outside(&set), None);
    }

    #[test]
    fn adding_keeps_both() {
        let mut set = of(&[1, 64]);
        set.add(&of(&[500]));
        assert_eq!(set, of(&[1, 64, 500]));
        set.add(&of(&[2]));
        assert_eq!(set, of(&[1, 2, 64, 500]));
        assert!(set.contains(500) && !set.contains(501) && !set.contains(5_000));
    }
}
