//! A log file being written.

use super::header::Header;
use crate::error::{Error, IoContext};
use crate::fs::{AppendFile, Fs};
use std::path::{Path, PathBuf};

/// An open log file. After any error it must not be used again.
#[derive(Debug)]
pub(crate) struct LogFile {
    id: u64,
    path: PathBuf,
    file: Box<dyn AppendFile>,
    length: u64,
    synced: u64,
}

impl LogFile {
    /// Creates the file with its header and the frames it begins with; all are durable when this
    /// returns.
    ///
    /// The file gets its name only when it is complete and synced: whatever bears the name has a
    /// whole header and its first frames.
    pub(crate) fn create(
        fs: &dyn Fs,
        path: &Path,
        header: &Header,
        frames: &[u8],
    ) -> Result<Self, Error> {
        let temporary = path.with_added_extension("tmp");
        let mut file = fs.create(&temporary).context("create", &temporary)?;
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(frames);
        file.append(&bytes).context("append to", &temporary)?;
        file.sync().context("sync", &temporary)?;
        fs.rename(&temporary, path)
            .context("rename into place", path)?;
        let dir = path.parent().unwrap_or(path);
        fs.sync_dir(dir).context("sync directory", dir)?;
        let length = bytes.len() as u64;
        Ok(Self {
            id: header.id,
            path: path.to_path_buf(),
            file,
            length,
            synced: length,
        })
    }

    /// Hands bytes to the operating system.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.append(bytes).context("append to", &self.path)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything appended survive power loss.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        if self.synced < self.length {
            self.file.sync().context("sync", &self.path)?;
            self.synced = self.length;
        }
        Ok(())
    }

    /// Number of the file.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes from the start that survive power loss.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }
}
