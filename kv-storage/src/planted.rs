//! Bugs that are there on purpose, in a build that is made to show that the simulator finds them.
//!
//! `--cfg kv_planted` builds them in, and the variable `KV_PLANTED` names the one that is awake. Every other build has
//! none of them, nor their names.

/// Whether the planted bug of this name is awake.
macro_rules! planted {
    ($name:literal) => {{
        #[cfg(kv_planted)]
        let awake = $crate::planted::is_awake($name);
        #[cfg(not(kv_planted))]
        let awake = false;
        awake
    }};
}
pub(crate) use planted;

/// Whether the planted bug of this name is awake.
#[cfg(kv_planted)]
#[must_use]
pub(crate) fn is_awake(name: &str) -> bool {
    static AWAKE: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("KV_PLANTED").ok());
    AWAKE.as_deref() == Some(name)
}
