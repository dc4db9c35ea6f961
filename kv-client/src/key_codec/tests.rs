use core::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn round_trips<K: KeyCodec + PartialEq + Debug>(value: &K) {
    let key = value.to_key().expect("within the limits");
    assert_eq!(K::from_key(&key).as_ref(), Ok(value));
}

/// Strings and bytes in which the escaped bytes are frequent.
fn tricky_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 0..8)
}

fn tricky_string() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![Just('\0'), Just('\u{1}'), Just('ÿ'), any::<char>()],
        0..8,
    )
    .prop_map(String::from_iter)
}

/// The sort keys of rows of one partition key have the order of the values.
fn keeps_order<T: Ord + Debug>(a: &T, b: &T, key: impl Fn(&T) -> Key) -> Result<(), TestCaseError> {
    prop_assert_eq!(
        key(a).sort_key().cmp(key(b).sort_key()),
        a.cmp(b),
        "{:?} {:?}",
        a,
        b
    );
    Ok(())
}

proptest! {
    #[test]
    fn integers_keep_their_order(a: i64, b: i64, c: u16, d: u16, near in -3_i64..3) {
        let key = |value: &(i64, u16)| (0_u8, value.0, value.1).to_key().unwrap();
        keeps_order(&(a, c), &(b, d), key)?;
        keeps_order(&(a, c), &(a.wrapping_add(near), d), key)?;
        round_trips(&(0_u8, a, c));
    }

    #[test]
    fn strings_keep_their_order_with_elements_after_them(
        a in tricky_string(), b in tricky_string(), c: i8, d: i8,
    ) {
        let key = |value: &(String, i8)| (true, value.0.clone(), value.1).to_key().unwrap();
        keeps_order(&(a.clone(), c), &(b, d), key)?;
        keeps_order(&(a.clone(), c), &(a, d), key)?;
    }

    #[test]
    fn bytes_keep_their_order_and_survive(
        a in tricky_bytes(), b in tricky_bytes(), c in tricky_bytes(), d in tricky_bytes(),
    ) {
        let key = |value: &(Vec<u8>, Vec<u8>)| {
            (1_u8, value.0.clone(), value.1.clone()).to_key().unwrap()
        };
        keeps_order(&(a.clone(), c.clone()), &(b.clone(), d), key)?;
        round_trips(&(7_u32, a, b, c));
    }

    #[test]
    fn any_bytes_give_a_value_or_an_error(
        partition in vec(any::<u8>(), 1..40), sort in vec(any::<u8>(), 0..40),
    ) {
        let key = Key::with_sort(partition, sort).unwrap();
        if let Ok(value) = <(u16, String, i32)>::from_key(&key) {
            prop_assert_eq!(value.to_key().unwrap(), key.clone(), "one value has one encoding");
        }
        if let Ok(value) = <(String, Vec<u8>, Bytes, bool)>::from_key(&key) {
            prop_assert_eq!(value.to_key().unwrap(), key.clone());
        }
        let _ = u64::from_key(&key);
    }
}

#[test]
fn single_strings_and_bytes_are_keys_as_they_are() {
    assert_eq!("user:42".to_owned().to_key(), Key::new("user:42"));
    assert_eq!(vec![0, 1].to_key(), Key::new(vec![0, 1]));
    round_trips(&Bytes::from_static(b"\0"));
    assert_eq!(String::new().to_key(), Err(KeyError::Empty));
}

#[test]
fn encodings_are_golden() {
    let key = ("ann".to_owned(), "a\0b".to_owned(), -2_i16, 7_u32)
        .to_key()
        .unwrap();
    assert_eq!(key.partition_key(), b"ann");
    assert_eq!(hex::encode(key.sort_key()), "6100ff6200017ffe00000007");
    let key = 1_u64.to_key().unwrap();
    assert_eq!(hex::encode(key.partition_key()), "0000000000000001");
    round_trips(&i128::MIN);
    round_trips(&(u128::MAX, i8::MIN));
}

#[test]
fn keys_of_other_types_are_refused() {
    let key = Key::with_sort("user", "1").unwrap();
    assert!(String::from_key(&key).is_err(), "a sort key is left over");
    assert!(u32::from_key(&Key::new("user!").unwrap()).is_err());
    assert!(bool::from_key(&Key::new(vec![2]).unwrap()).is_err());
    let text = u64::from_key(&Key::new("abc").unwrap())
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "the key `abc` is not of the collection's key type; it was written with another one"
    );
}
