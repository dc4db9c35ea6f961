//! A process that outlives the command which started it, named so that no other is ever signalled.
//!
//! A pid alone is reused by the kernel. [`ProcessId`] adds the boot and the start time, and signals go
//! through a pidfd: it is opened first and the start time is compared afterwards, so the process that
//! was checked is the process that gets the signal.

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// One process of one boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pid: u32,
    /// When it started, in clock ticks since boot.
    start_ticks: u64,
    /// Ticks restart at every boot, so they name a process only together with it.
    boot: String,
}

/// What a process is doing, as far as signals are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs or waits for something.
    Running,
    /// It was stopped by SIGSTOP.
    Paused,
    /// It has ended, or another process has its pid now.
    Gone,
}

impl ProcessId {
    /// Names the process that has this pid now.
    ///
    /// # Errors
    /// When there is none, or `/proc` cannot be read.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let stat = Stat::parse(&text).with_context(|| format!("{path} has an unknown form"))?;
        Ok(Self {
            pid,
            start_ticks: stat.start_ticks,
            boot: boot()?,
        })
    }

    /// The number to show; never signal by it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What the process does now.
    pub(crate) fn life(&self) -> Life {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .ok()
            .and_then(|text| Stat::parse(&text));
        match stat {
            Some(stat) if stat.start_ticks == self.start_ticks && self.is_of_this_boot() => {
                stat.life()
            }
            _ => Life::Gone,
        }
    }

    /// Sends a signal; `false` when the process had already gone.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because the process belongs to another user.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            bail!("{} is no pid", self.pid);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(refused(self.pid, error)),
        };
        // Only now: the handle is bound to one process, and this says whether it is the right one.
        if self.life() == Life::Gone {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(refused(self.pid, error)),
        }
    }

    /// Waits until the process has ended; `false` when it has not after `limit`.
    pub(crate) fn wait_gone(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        while self.life() != Life::Gone {
            if begin.elapsed() >= limit {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    fn is_of_this_boot(&self) -> bool {
        boot().is_ok_and(|boot| boot == self.boot)
    }
}

fn refused(pid: u32, error: Errno) -> anyhow::Error {
    anyhow::Error::new(io::Error::from(error)).context(format!("cannot signal pid {pid}"))
}

fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

/// The two fields of `/proc/PID/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    start_ticks: u64,
}

impl Stat {
    /// Reads the line; the name in parentheses may itself hold blanks and parentheses, so fields are
    /// counted from the last one.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // proc(5) counts from 1: the state is field 3, the start time field 22.
        let start_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self { state, start_ticks })
    }

    fn life(&self) -> Life {
        match self.state {
            // A zombie has ended; nobody has asked for its exit status yet.
            'Z' | 'X' | 'x' => Life::Gone,
            'T' => Life::Paused,
            _ => Life::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const SAMPLE: &str = "20411 (kv-node) S 1 20411 20411 0 -1 4194560 1300 0 0 0 12 3 0 0 20 0 9 0 \
                          884311 250880000 4100 18446744073709551615 1 1 0 0 0 0 0 4096 17475 0 0 0 17 1";

    fn sleeper() -> std::process::Child {
        Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    #[test]
    fn stat_is_read_from_the_last_parenthesis() {
        let expected = Stat {
            state: 'S',
            start_ticks: 884_311,
        };
        assert_eq!(Stat::parse(SAMPLE), Some(expected));
        let odd_name = SAMPLE.replace("(kv-node)", "(a) R 1) (b)");
        assert_eq!(
            Stat::parse(&odd_name).map(|stat| stat.start_ticks),
            Some(884_311)
        );
    }

    #[test]
    fn damaged_stat_is_none() {
        for text in ["", "1 (x", "1 (x)", "1 (x) S 1 2 3"] {
            assert_eq!(Stat::parse(text), None, "for {text:?}");
        }
    }

    #[test]
    fn zombie_counts_as_gone() {
        let stat = Stat::parse(&SAMPLE.replace(") S ", ") Z ")).unwrap();
        assert_eq!(stat.life(), Life::Gone);
    }

    #[test]
    fn signals_reach_the_process_and_pausing_is_seen() {
        let mut child = sleeper();
        let process = ProcessId::of(child.id()).unwrap();
        assert_eq!(process.life(), Life::Running);
        assert!(process.signal(Signal::STOP).unwrap());
        while process.life() != Life::Paused {
            thread::sleep(POLL);
        }
        assert!(process.signal(Signal::KILL).unwrap());
        assert!(process.wait_gone(Duration::from_secs(10)));
        assert!(
            !process.signal(Signal::KILL).unwrap(),
            "a zombie is not signalled"
        );
        child.wait().unwrap();
    }

    #[test]
    fn recycled_pid_is_never_signalled() {
        let mut child = sleeper();
        let now = ProcessId::of(child.id()).unwrap();
        let earlier = ProcessId {
            start_ticks: now.start_ticks - 1,
            ..now.clone()
        };
        let last_boot = ProcessId {
            boot: "another".to_owned(),
            ..now.clone()
        };
        for stale in [earlier, last_boot] {
            assert_eq!(stale.life(), Life::Gone);
            assert!(!stale.signal(Signal::KILL).unwrap());
        }
        assert_eq!(now.life(), Life::Running);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
