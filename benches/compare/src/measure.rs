//! What is measured of a run, and how.

mod counters;
mod disk;
mod latencies;
mod metric;
mod page_cache;

pub(crate) use counters::{Counters, Memory};
pub(crate) use disk::disk_bytes;
pub(crate) use latencies::{Lap, Latencies};
pub(crate) use metric::{Measurements, Metric};
pub(crate) use page_cache::{drop_from_page_cache, forbid_read_ahead, read_into_page_cache};
