//! Partitions: the ring of 64-bit hashes cut into equal arcs, a power of two of them.

use core::fmt;
use core::ops::RangeInclusive;

use crate::hash::KeyHash;

/// The number of one partition, counted clockwise from hash 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The number as an index into a table of partitions.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// Into how many partitions the ring is cut: a power of two from 2^8 to 2^16.
///
/// Chosen at genesis. More partitions balance more nodes and cost 6 bytes each (at three replicas)
/// in every topology; 4096 serve about a thousand nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionCount {
    bits: u8,
}

impl PartitionCount {
    /// The fewest: 256.
    pub const MIN: Self = Self { bits: 8 };
    /// The most: 65,536.
    pub const MAX: Self = Self { bits: 16 };

    /// Checks a count.
    ///
    /// # Errors
    /// [`PartitionCountError`] when it is not a power of two from 256 to 65,536.
    pub fn new(count: u32) -> Result<Self, PartitionCountError> {
        let in_range = (Self::MIN.get()..=Self::MAX.get()).contains(&count);
        if !in_range || !count.is_power_of_two() {
            return Err(PartitionCountError { count });
        }
        Ok(Self {
            bits: count.trailing_zeros() as u8,
        })
    }

    /// The count of 2^bits partitions.
    ///
    /// # Errors
    /// [`PartitionCountError`] when `bits` is not 8 to 16.
    pub fn from_bits(bits: u8) -> Result<Self, PartitionCountError> {
        Self::new(1u32.checked_shl(bits.into()).unwrap_or(0))
    }

    /// The count.
    #[must_use]
    pub const fn get(self) -> u32 {
        1 << self.bits
    }

    /// How many of a hash's top bits name the partition.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// The partition that a hash lies in.
    #[must_use]
    pub fn partition_of(self, hash: KeyHash) -> PartitionId {
        PartitionId((hash.0 >> (64 - self.bits)) as u16)
    }

    /// The hashes of one partition.
    #[must_use]
    pub fn hash_range(self, partition: PartitionId) -> RangeInclusive<u64> {
        let shift = 64 - self.bits;
        let first = u64::from(partition.0) << shift;
        first..=first | ((1 << shift) - 1)
    }

    /// All partitions, clockwise.
    pub fn iter(self) -> impl ExactSizeIterator<Item = PartitionId> {
        (0..self.get() as usize).map(|index| PartitionId(index as u16))
    }

    /// The partition after this one, clockwise.
    #[must_use]
    pub fn after(self, partition: PartitionId) -> PartitionId {
        PartitionId(((u32::from(partition.0) + 1) & (self.get() - 1)) as u16)
    }
}

impl Default for PartitionCount {
    /// 4096 partitions.
    fn default() -> Self {
        Self { bits: 12 }
    }
}

/// A number that cannot be a partition count. Nothing was changed; choose another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} partitions are not possible; the count is a power of two from 256 to 65536")]
pub struct PartitionCountError {
    count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_in_range_are_counts() {
        for count in [0, 1, 128, 255, 257, 4095, 65_537, 131_072, u32::MAX] {
            assert_eq!(
                PartitionCount::new(count),
                Err(PartitionCountError { count })
            );
        }
        for bits in 8..=16 {
            let count = PartitionCount::from_bits(bits).expect("in range");
            assert_eq!(count.get(), 1 << bits);
        }
        assert!(PartitionCount::from_bits(7).is_err());
        assert!(PartitionCount::from_bits(40).is_err());
        assert_eq!(PartitionCount::default().get(), 4096);
    }

    #[test]
    fn ranges_are_adjacent_and_cover_the_ring() {
        for count in [
            PartitionCount::MIN,
            PartitionCount::default(),
            PartitionCount::MAX,
        ] {
            let mut next = Some(0u64);
            for partition in count.iter() {
                let range = count.hash_range(partition);
                assert_eq!(Some(*range.start()), next);
                assert_eq!(count.partition_of(KeyHash(*range.start())), partition);
                assert_eq!(count.partition_of(KeyHash(*range.end())), partition);
                next = range.end().checked_add(1);
            }
            assert_eq!(next, None);
        }
    }

    #[test]
    fn the_last_partition_is_followed_by_the_first() {
        let count = PartitionCount::MAX;
        assert_eq!(count.after(PartitionId(u16::MAX)), PartitionId(0));
        assert_eq!(PartitionCount::MIN.after(PartitionId(255)), PartitionId(0));
    }
}
