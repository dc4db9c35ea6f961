//! A table or blob file that is being written: appended in large pieces, synced once.

use super::{AppendFile, Fs};
use crate::error::{Error, IoContext};
use std::path::{Path, PathBuf};

/// File bytes collected before they are handed to the operating system.
const WRITE_BYTES: usize = 256 << 10;

/// Collects what is appended to a file.
pub(crate) struct BufferedFile {
    path: PathBuf,
    file: Box<dyn AppendFile>,
    /// Not yet appended.
    buffer: Vec<u8>,
    /// Where `buffer` will begin in the file.
    written: u64,
}

impl BufferedFile {
    /// Creates a file, past the page cache if it is to be `direct`.
    pub(crate) fn create(fs: &dyn Fs, path: &Path, direct: bool) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_path_buf(),
            file: fs.create_table(path, direct).context("create", path)?,
            buffer: Vec::with_capacity(WRITE_BYTES + (WRITE_BYTES >> 3)),
            written: 0,
        })
    }

    /// Bytes so far.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Where bytes are appended. What is there already may change until [`write_full`](Self::write_full).
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Hands the bytes to the operating system if there are enough of them.
    pub(crate) fn write_full(&mut self) -> Result<(), Error> {
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Writes what is left and syncs the file. Its directory entry is not synced yet. Returns the file's size in
    /// bytes.
    pub(crate) fn finish(mut self) -> Result<u64, Error> {
        self.write()?;
        self.file.sync().context("sync", &self.path)?;
        Ok(self.written)
    }

    fn write(&mut self) -> Result<(), Error> {
        self.file
            .append(&self.buffer)
            .context("append to", &self.path)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
