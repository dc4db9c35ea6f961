//! How a table is to be written.

use crate::compress::Compression;
use crate::options::{Options, TableOptions};

/// Block size, compression and filter of a table, chosen by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableSpec {
    pub block_bytes: usize,
    pub compression: Compression,
    pub filter_bits_per_key: u32,
    /// Past the page cache.
    pub direct_io: bool,
}

impl TableSpec {
    /// For a table below which lies older data: flushes, and compactions into upper levels.
    pub(crate) fn upper(options: &Options) -> Self {
        Self::of(options, &options.upper_tables)
    }

    /// For a table of the lowest level that has data.
    pub(crate) fn bottom(options: &Options) -> Self {
        Self::of(options, &options.bottom_tables)
    }

    fn of(all: &Options, options: &TableOptions) -> Self {
        Self {
            block_bytes: options.block_bytes,
            compression: options.compression,
            filter_bits_per_key: options.filter_bits_per_key,
            direct_io: all.direct_io,
        }
    }
}
