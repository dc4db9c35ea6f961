//! Tools for a store that nobody has open: verify it, look into it, and save what is left of it.
//!
//! None of them changes a byte of the store, but for the lock file, which names the process that holds it. They
//! take the lock, so that nobody else changes it meanwhile either; the program `kv-storage` is a thin layer over them.

mod closed;
mod dump;
mod finding;
mod log;
mod repair;
mod salvage;
mod summary;
mod verify;

pub use dump::dump;
pub use finding::Finding;
pub use repair::{RepairReport, repair};
pub use summary::summarize;
pub use verify::{Verification, verify};

use crate::error::{Error, OpenError};
use std::io;
use std::path::PathBuf;

/// A tool could not do its work. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The directory is none in which a store was opened.
    #[error("{} holds no store; name a directory in which a store was opened", dir.display())]
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory for the result has files in it.
    #[error("{} is not empty; name a new directory, so that nothing is overwritten", dir.display())]
    TargetNotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// `FORMAT` is lost, and no other file says which store this is.
    #[error("FORMAT of {} is lost, and no table or manifest names the store; restore FORMAT from a backup", dir.display())]
    UnknownStore {
        /// The directory.
        dir: PathBuf,
    },
    /// A file that was asked for is not there, or of no known kind.
    #[error("{} is no file of this store that can be shown; name a file ending in .sst, .blob or .log, or a MANIFEST", file.display())]
    NoSuchFile {
        /// The file.
        file: PathBuf,
    },
    /// Somebody has the store open, or it was written by newer software.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file system failed.
    #[error(transparent)]
    Storage(#[from] Error),
    /// The result could not be shown.
    #[error("could not write the output: {0}")]
    Output(#[from] io::Error),
}
