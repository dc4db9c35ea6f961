//! What every request of a client gets unless it says otherwise.

use std::time::Duration;

use kv_types::Level;

/// Defaults of a client. [`Options::default`] suits most programs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The whole time of a request, all attempts included. Default 1 s. Longer rides out longer
    /// troubles; shorter fails sooner.
    pub deadline: Duration,
    /// How long one node may be silent before another is asked as well. Default 300 ms. Shorter hides
    /// a hung node better and sends more; at most the request's share of its deadline is waited.
    pub patience: Duration,
    /// How often a request is sent at most. Default 4: every replica of three once, and one more.
    pub attempts: u32,
    /// The whole time of connecting, all seeds included. Default 3 s.
    pub connect_timeout: Duration,
    /// The level of requests that name none. Default [`Level::Usual`]: what the cluster's mode says.
    pub level: Level,
    /// The time of one page of a scan. Default 10 s.
    pub page_deadline: Duration,
    /// Keys in one page of a scan. Default 512; 1 to 16,384.
    pub page_items: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(1),
            patience: Duration::from_millis(300),
            attempts: 4,
            connect_timeout: Duration::from_secs(3),
            level: Level::Usual,
            page_deadline: Duration::from_secs(10),
            page_items: 512,
        }
    }
}
