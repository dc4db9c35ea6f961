//! Many days together.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::run::Report;

/// What many days came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Days.
    pub seeds: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Faults and other things worth seeing, with how often they were seen.
    pub counts: BTreeMap<String, u64>,
    /// Days on which something happened that must not, with what.
    pub failures: BTreeMap<u64, Vec<String>>,
}

/// What must have been seen in many days, or they prove little.
pub const SUBSTANCE: &[&str] = &[
    "kill",
    "kill of several",
    "power cut",
    "power cut of several",
    "node away",
    "pause",
    "split",
    "mute nodes",
    "deaf nodes",
    "ring",
    "flapping",
    "lossy network",
    "slow link",
    "disk error",
    "flipped read",
    "full disk",
    "slow disk",
    "hung disk",
    "clock skew",
    "damaged file",
    "damage found",
    "node with a copy of its disk",
    "disk put back",
    "wiped store",
    "store emptied amid faults",
    "emptied store",
    "actor granted",
    "poisoned store",
    "failed start",
    "torn tail",
    "read repair",
    "flush",
    "compaction",
    "message lost",
    "message blocked",
    "message twice",
    "read",
    "read with siblings",
    "read in a session",
    "listed key",
    "rest",
    "write acknowledged",
    "write not applied",
    "write of unknown fate",
    "weak write",
    "eventual write",
    "write acked in memory",
    "write synced once",
    "write to a number",
    "day in mode cp",
    "day of last writers",
    "day where blind writes add",
    "hint delivered",
    "look at a recovery",
    "look at a history",
    "key looked at for leftovers",
    "comparison",
    "object fetched by comparison",
    "object sent by comparison",
    "deletion forgotten",
    "deletion forgotten amid faults",
    "node left alone",
    "passing write",
    "blind write",
    "foreign context refused",
    "delete",
    "large write",
    "rivals",
    "join",
    "leave",
    "replacement",
    "other weight",
    "change of owners called off",
    "partition on its way when all is mended",
    "partition with other owners",
    "change acknowledged",
    "change of unknown fate",
    "bucket dropped",
    "bucket set",
    // On days over QUIC.
    "day over QUIC",
    "blackout",
    "expired certificate",
    "new authority",
    "strangers",
    "handshake",
    "failed handshake",
    "refused dialler",
    "retried dialler",
    "gossip over QUIC",
    "cancelled request",
    "datagram nobody took",
];

impl Summary {
    /// Adds a day.
    pub fn add(&mut self, seed: u64, report: &Report) {
        self.seeds += 1;
        self.simulated_ms += u64::try_from(report.simulated.as_millis()).unwrap_or(u64::MAX);
        for (what, times) in &report.counts {
            *self.counts.entry((*what).to_owned()).or_default() += times;
        }
        if !report.violations.is_empty() {
            let found = report.violations.iter().map(ToString::to_string).collect();
            self.failures.insert(seed, found);
        }
    }

    /// Adds others' days.
    pub fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.simulated_ms += other.simulated_ms;
        for (what, times) in other.counts {
            *self.counts.entry(what).or_default() += times;
        }
        self.failures.extend(other.failures);
    }

    /// How often something was seen.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// What should have been seen and was not.
    #[must_use]
    pub fn unseen(&self) -> Vec<&'static str> {
        SUBSTANCE
            .iter()
            .copied()
            .filter(|what| self.count(what) == 0)
            .collect()
    }

    /// Simulated seconds for each fault.
    #[must_use]
    pub fn calm(&self) -> f64 {
        let seconds = Duration::from_millis(self.simulated_ms).as_secs_f64();
        seconds / (self.count("fault").max(1) as f64)
    }

    /// Client operations for each simulated second.
    #[must_use]
    pub fn density(&self) -> f64 {
        let operations = (self.count("read") + self.count("write")) as f64;
        operations / Duration::from_millis(self.simulated_ms.max(1)).as_secs_f64()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = Duration::from_millis(self.simulated_ms).as_secs_f64() / 3_600.0;
        writeln!(
            f,
            "{} seeds, {hours:.2} simulated hours, {:.0} client operations a simulated second, {} failed",
            self.seeds,
            self.density(),
            self.failures.len()
        )?;
        for (what, times) in &self.counts {
            writeln!(f, "  {what:<24}{times:>12}")?;
        }
        for (seed, found) in &self.failures {
            writeln!(f, "seed {seed}:")?;
            for found in found {
                writeln!(f, "  {found}")?;
            }
        }
        Ok(())
    }
}
