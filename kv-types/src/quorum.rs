//! Quorums: how many of a key's replicas must answer a read or a write.

use serde::{Deserialize, Serialize};

/// Replicas of a key (`n`) and how many must answer a read (`r`) and a write (`w`).
///
/// Checked when it is made: 1 ≤ r ≤ n and 1 ≤ w ≤ n ≤ 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawQuorum", into = "RawQuorum")]
pub struct Quorum {
    n: u8,
    r: u8,
    w: u8,
}

#[derive(Serialize, Deserialize)]
struct RawQuorum(u8, u8, u8);

impl Quorum {
    /// The most replicas a key can have.
    pub const MAX_N: u8 = 16;

    /// Checks and makes a quorum.
    ///
    /// # Errors
    /// [`QuorumError`] when `n` is 0 or above 16, or when `r` or `w` is 0 or above `n`.
    pub fn new(n: u8, r: u8, w: u8) -> Result<Self, QuorumError> {
        if n == 0 || n > Self::MAX_N {
            return Err(QuorumError::Replicas { n });
        }
        if r == 0 || r > n {
            return Err(QuorumError::Read { r, n });
        }
        if w == 0 || w > n {
            return Err(QuorumError::Write { w, n });
        }
        Ok(Self { n, r, w })
    }

    /// Replicas of a key.
    #[must_use]
    pub fn n(self) -> u8 {
        self.n
    }

    /// Answers that a read needs.
    #[must_use]
    pub fn r(self) -> u8 {
        self.r
    }

    /// Acknowledgements that a write needs.
    #[must_use]
    pub fn w(self) -> u8 {
        self.w
    }

    /// Whether every read quorum meets every write quorum: r + w > n.
    #[must_use]
    pub fn is_strict(self) -> bool {
        u16::from(self.r) + u16::from(self.w) > u16::from(self.n)
    }

    /// This quorum with an explicit `r`, `w` or both in place of its own.
    ///
    /// # Errors
    /// [`QuorumError`] as for [`Self::new`].
    pub fn with(self, r: Option<u8>, w: Option<u8>) -> Result<Self, QuorumError> {
        Self::new(self.n, r.unwrap_or(self.r), w.unwrap_or(self.w))
    }
}

/// Numbers that cannot be a quorum. Nothing was sent or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// The replica count is out of range.
    #[error("n={n} replicas is not possible; n is 1 to {}", Quorum::MAX_N)]
    Replicas {
        /// The count asked for.
        n: u8,
    },
    /// A read can wait for 1 to n answers.
    #[error("r={r} is not possible with n={n} replicas; r is 1 to {n}")]
    Read {
        /// The answers asked for.
        r: u8,
        /// The replicas of the bucket.
        n: u8,
    },
    /// A write can wait for 1 to n acknowledgements.
    #[error("w={w} is not possible with n={n} replicas; w is 1 to {n}")]
    Write {
        /// The acknowledgements asked for.
        w: u8,
        /// The replicas of the bucket.
        n: u8,
    },
}

impl TryFrom<RawQuorum> for Quorum {
    type Error = QuorumError;

    fn try_from(RawQuorum(n, r, w): RawQuorum) -> Result<Self, QuorumError> {
        Self::new(n, r, w)
    }
}

impl From<Quorum> for RawQuorum {
    fn from(quorum: Quorum) -> Self {
        Self(quorum.n, quorum.r, quorum.w)
    }
}

/// How much a request asks of its answer; `docs/CONSISTENCY.md` says what each level promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Level {
    /// One replica answers.
    Weak = 0,
    /// The bucket's quorum, of the key's own replicas only.
    Quorum = 1,
    /// Every replica answers.
    All = 2,
    /// The bucket's quorum; for replicas that are away, other nodes stand in (a sloppy quorum).
    Eventual = 3,
    /// What the bucket says, or else the cluster's mode: [`Self::Eventual`] in mode ap, [`Self::Quorum`] in mode cp.
    #[default]
    Usual = 4,
}

impl Level {
    /// The quorum of this level in a bucket with quorum `bucket`.
    #[must_use]
    pub fn quorum(self, bucket: Quorum) -> Quorum {
        let n = bucket.n;
        match self {
            Self::Weak => Quorum { n, r: 1, w: 1 },
            Self::Quorum | Self::Eventual | Self::Usual => bucket,
            Self::All => Quorum { n, r: n, w: n },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_numbers_are_refused_with_the_numbers() {
        assert_eq!(Quorum::new(0, 1, 1), Err(QuorumError::Replicas { n: 0 }));
        assert_eq!(Quorum::new(17, 1, 1), Err(QuorumError::Replicas { n: 17 }));
        assert_eq!(Quorum::new(3, 4, 1), Err(QuorumError::Read { r: 4, n: 3 }));
        assert_eq!(Quorum::new(3, 1, 0), Err(QuorumError::Write { w: 0, n: 3 }));
        let refused = Quorum::new(3, 4, 1).expect_err("r > n");
        assert_eq!(
            refused.to_string(),
            "r=4 is not possible with n=3 replicas; r is 1 to 3"
        );
    }

    #[test]
    fn strict_means_that_quorums_meet() {
        for (n, r, w, strict) in [
            (3, 2, 2, true),
            (3, 1, 3, true),
            (3, 3, 1, true),
            (3, 1, 2, false),
            (5, 3, 3, true),
        ] {
            assert_eq!(Quorum::new(n, r, w).expect("possible").is_strict(), strict);
        }
    }
}
