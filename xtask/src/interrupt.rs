//! Ctrl-C, taken as a wish to stop in order: what was started is stopped before the task ends.

use crate::failure::{Failure, INTERRUPTED};
use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the user has asked the task to stop. Cloning shares the wish.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on SIGINT and SIGTERM are noted here instead of ending the process at once; a second
    /// one ends it, so that a task which hangs while it cleans up can still be stopped.
    pub(crate) fn watch() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first signal must find the flag unset when it asks whether to
            // shut down, and set it afterwards.
            flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .context("cannot watch for Ctrl-C")?;
        }
        Ok(Self { asked })
    }

    /// Fails once the user has asked to stop; long waits call it in every round.
    pub(crate) fn check(&self) -> Result<()> {
        if self.asked.load(Ordering::Relaxed) {
            return Err(Failure::new(INTERRUPTED, "interrupted").into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_fails_once_asked() {
        let interrupt = Interrupt {
            asked: Arc::new(AtomicBool::new(false)),
        };
        assert!(interrupt.check().is_ok());
        interrupt.clone().asked.store(true, Ordering::Relaxed);
        assert!(interrupt.check().is_err());
    }
}
