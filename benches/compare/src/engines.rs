//! The adapters, one a file.

#[cfg(feature = "fjall")]
mod fjall;
mod kv;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use crate::engine::{EngineName, Open};
use anyhow::{Context, Result};

/// How a store of this engine is opened.
///
/// # Errors
/// The engine was left out of this build.
pub(crate) fn opener(engine: EngineName) -> Result<Open> {
    let open: Option<Open> = match engine {
        EngineName::Kv => Some(kv::open),
        #[cfg(feature = "rocksdb")]
        EngineName::RocksDb => Some(rocksdb::open),
        #[cfg(feature = "fjall")]
        EngineName::Fjall => Some(fjall::open),
        #[cfg(feature = "redb")]
        EngineName::Redb => Some(redb::open),
        #[cfg(feature = "lmdb")]
        EngineName::Lmdb => Some(lmdb::open),
        #[cfg(not(all(
            feature = "rocksdb",
            feature = "fjall",
            feature = "redb",
            feature = "lmdb"
        )))]
        _ => None,
    };
    open.with_context(|| format!("this program was built without {engine}"))
}
