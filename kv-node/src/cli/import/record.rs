//! One record of an import: a key and a value, or what is wrong with its place in the input.

use std::io;

use bytes::Bytes;
use kv_client::Key;

/// A key and its value, and where they stand in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The line, counted from 1, on which it begins.
    pub(super) line: u64,
    pub(super) key: Key,
    pub(super) value: Bytes,
    /// When it expires, in milliseconds since the Unix epoch.
    pub(super) expires_ms: Option<u64>,
}

/// What is wrong with one record; those after it can still be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadRecord {
    pub(super) line: u64,
    pub(super) problem: String,
}

/// One step through the input.
#[derive(Debug)]
pub(super) enum Item {
    Good(Record),
    Bad(BadRecord),
    /// The input itself cannot be read; nothing follows.
    Broken(io::Error),
}

/// No line or stanza of a record is longer: no value could be.
pub(super) const MOST_BYTES: usize = 16 << 20;
