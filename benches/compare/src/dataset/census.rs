//! Checking all rows of a store while they pass by in order.

use super::keys::{Key, Order, key, number_of};
use super::values::is_value_of;
use anyhow::{Result, bail};

/// Counts the rows of a scan and those that are not what was stored.
#[derive(Debug)]
pub(crate) struct Census {
    order: Order,
    value_bytes: usize,
    previous: Option<Key>,
    good: u64,
    wrong: u64,
}

impl Census {
    /// Nothing has been seen yet.
    pub(crate) fn new(order: Order, value_bytes: usize) -> Self {
        Self {
            order,
            value_bytes,
            previous: None,
            good: 0,
            wrong: 0,
        }
    }

    /// Looks at the next row: its key must be one that is stored, larger than the one before, with its own value.
    #[inline]
    pub(crate) fn see(&mut self, row_key: &[u8], value: &[u8]) {
        let is_right = number_of(row_key).is_some_and(|number| {
            row_key == key(number, self.order) && is_value_of(value, number, self.value_bytes)
        });
        let follows = self
            .previous
            .is_none_or(|previous| previous.as_slice() < row_key);
        if is_right && follows {
            self.good += 1;
            self.previous = row_key.try_into().ok();
        } else {
            self.wrong += 1;
        }
    }

    /// Rows that were right. Being in order they are all different.
    pub(crate) fn good(&self) -> u64 {
        self.good
    }

    /// Demands that exactly `expected` rows came by and all were right.
    pub(crate) fn expect(&self, expected: u64) -> Result<()> {
        if self.good != expected || self.wrong > 0 {
            bail!(
                "a full scan saw {} right rows and {} wrong ones, expected {expected}",
                self.good,
                self.wrong
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::Values;
    use super::*;

    /// Shows the rows of these numbers, in this order, to a census.
    fn census(numbers: &[u64], value_number: impl Fn(u64) -> u64) -> Census {
        let values = Values::new();
        let mut census = Census::new(Order::Ascending, 64);
        let mut value = Vec::new();
        for &number in numbers {
            values.fill(&mut value, value_number(number), 0, 64);
            census.see(&key(number, Order::Ascending), &value);
        }
        census
    }

    #[test]
    fn all_rows_in_order_are_right() {
        let census = census(&[0, 1, 2, 3], |number| number);
        assert_eq!(census.good(), 4);
        census.expect(4).unwrap();
        census.expect(5).unwrap_err();
    }

    #[test]
    fn rows_twice_or_out_of_order_are_wrong() {
        for numbers in [[0, 1, 1, 2], [0, 2, 1, 3]] {
            let census = census(&numbers, |number| number);
            assert_eq!(census.good(), 3, "{numbers:?}");
            census.expect(3).unwrap_err();
            census.expect(4).unwrap_err();
        }
    }

    #[test]
    fn value_of_another_key_is_wrong() {
        let census = census(&[0, 1, 2], |number| number / 2);
        assert_eq!(census.good(), 1);
        census.expect(3).unwrap_err();
    }

    #[test]
    fn key_of_the_wrong_place_is_wrong() {
        let mut census = Census::new(Order::Random, 8);
        census.see(&key(1, Order::Ascending), &1_u64.to_le_bytes());
        assert_eq!(census.good(), 0);
    }
}
