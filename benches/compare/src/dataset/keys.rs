//! Keys of 20 bytes: a prefix that all share, eight bytes that decide the order, the number itself.

use super::random::mix;

/// Length of every key.
pub(crate) const KEY_BYTES: usize = 20;

/// A key.
pub(crate) type Key = [u8; KEY_BYTES];

const PREFIX: &[u8; 4] = b"usr:";

/// How keys of consecutive numbers lie in the order of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// One behind the other.
    Ascending,
    /// Anywhere.
    Random,
}

/// The key of a number.
#[inline]
pub(crate) fn key(number: u64, order: Order) -> Key {
    let place = match order {
        Order::Ascending => number,
        Order::Random => mix(number),
    };
    let mut key = [0; KEY_BYTES];
    key[..4].copy_from_slice(PREFIX);
    key[4..12].copy_from_slice(&place.to_be_bytes());
    key[12..].copy_from_slice(&number.to_be_bytes());
    key
}

/// A key that looks like the key of `number` in random order, lies next to it, and is never stored.
#[inline]
pub(crate) fn absent_key(number: u64) -> Key {
    // Numbers stay far below 2^56, so the first byte of a stored number is 0.
    let mut key = key(number, Order::Random);
    key[12] = 0x7f;
    key
}

/// The number a stored key was made from, if its form is right.
#[inline]
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    let bytes: &Key = key.try_into().ok()?;
    let (_, number) = bytes.split_last_chunk::<8>()?;
    bytes
        .starts_with(PREFIX)
        .then(|| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_their_number() {
        for order in [Order::Ascending, Order::Random] {
            for number in [0, 1, 255, 256, 2_000_000] {
                assert_eq!(number_of(&key(number, order)), Some(number));
            }
        }
        assert_eq!(number_of(b"usr:"), None);
        assert_eq!(number_of(&[0; KEY_BYTES]), None);
    }

    #[test]
    fn ascending_keys_ascend_and_random_ones_do_not() {
        let keys = |order| {
            (0..100)
                .map(|number| key(number, order))
                .collect::<Vec<_>>()
        };
        assert!(keys(Order::Ascending).is_sorted());
        assert!(!keys(Order::Random).is_sorted());
    }

    #[test]
    fn absent_keys_are_none_of_the_stored() {
        assert!(number_of(&absent_key(5)).is_some_and(|number| number > 1 << 56));
        assert!(absent_key(5) > key(5, Order::Random));
    }
}
