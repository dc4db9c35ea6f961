//! Handles and the footer: how the parts of a table file are found and checked.

use crate::checksum::Checksum;
use crate::coding::{Decoder, put_varint};

/// Encoded size of a [`Footer`].
pub(super) const FOOTER_BYTES: usize = 92;

const MAGIC: [u8; 8] = *b"kvlsmsst";

/// Format version of a table file. The numbers are on disk: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Version {
    /// Keys share prefixes with their predecessors. Only read.
    V1 = 1,
    /// Blocks that are searched as they lie.
    V2 = 2,
}

impl Version {
    fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

/// Where a block is, how long it is, and what its bytes must sum to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    pub offset: u64,
    /// Bytes on disk, codec byte included.
    pub stored: u32,
    /// Bytes after decoding.
    pub raw: u32,
    /// Of the bytes on disk. Kept here, in the parent, so that a block written to the wrong place is noticed.
    pub checksum: u32,
}

impl Handle {
    /// The form used inside properties, and in the index blocks of version 1.
    pub(super) fn encode_compact(&self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        put_varint(out, u64::from(self.stored));
        put_varint(out, u64::from(self.raw));
        out.extend_from_slice(&self.checksum.to_le_bytes());
    }

    pub(super) fn decode_compact(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let handle = Self {
            offset: decoder.varint()?,
            stored: decoder.varint()?.try_into().ok()?,
            raw: decoder.varint()?.try_into().ok()?,
            checksum: decoder.u32()?,
        };
        decoder.is_empty().then_some(handle)
    }

    /// The form used in the footer, 20 bytes.
    fn encode_fixed(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        for field in [self.stored, self.raw, self.checksum] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    fn decode_fixed(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            offset: decoder.u64()?,
            stored: decoder.u32()?,
            raw: decoder.u32()?,
            checksum: decoder.u32()?,
        })
    }
}

/// The last bytes of a table file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub version: Version,
    pub filter: Handle,
    pub index: Handle,
    pub properties: Handle,
    pub file: u64,
    pub store: u64,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for handle in [&self.filter, &self.index, &self.properties] {
            handle.encode_fixed(&mut out);
        }
        out.extend_from_slice(&self.file.to_le_bytes());
        out.extend_from_slice(&self.store.to_le_bytes());
        out.extend_from_slice(&(self.version as u32).to_le_bytes());
        let checksum = Checksum::new(self.store, self.file).of(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        debug_assert_eq!(out.len(), FOOTER_BYTES);
        out
    }

    /// Decodes the footer of file `file` of store `store`. The error says what is wrong.
    pub(super) fn decode(
        bytes: &[u8; FOOTER_BYTES],
        store: u64,
        file: u64,
    ) -> Result<Self, &'static str> {
        if !bytes.ends_with(&MAGIC) {
            return Err("wrong magic");
        }
        let (covered, rest) = bytes.split_at(FOOTER_BYTES - 12);
        let fields = Fields::decode(covered).ok_or("file is shorter than a footer")?;
        let checksum = Checksum::new(fields.store, fields.file).of(covered);
        if Decoder::new(rest).u32() != Some(checksum) {
            return Err("footer checksum does not match");
        }
        let version = Version::from_number(fields.version).ok_or("unknown format version")?;
        if fields.store != store {
            return Err("file belongs to another store");
        }
        if fields.file != file {
            return Err("file carries another number than its name");
        }
        let [filter, index, properties] = fields.handles;
        Ok(Self {
            version,
            filter,
            index,
            properties,
            file,
            store,
        })
    }
}

/// The store that a footer names, if the footer is whole.
pub(super) fn store_of(bytes: &[u8; FOOTER_BYTES]) -> Option<u64> {
    let (covered, rest) = bytes.split_at(FOOTER_BYTES - 12);
    let fields = Fields::decode(covered)?;
    let checksum = Checksum::new(fields.store, fields.file).of(covered);
    let is_whole = bytes.ends_with(&MAGIC) && Decoder::new(rest).u32() == Some(checksum);
    is_whole.then_some(fields.store)
}

/// A footer's fields before they are checked.
struct Fields {
    handles: [Handle; 3],
    file: u64,
    store: u64,
    version: u32,
}

impl Fields {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let mut handle = || Handle::decode_fixed(&mut decoder);
        let handles = [handle()?, handle()?, handle()?];
        Some(Self {
            handles,
            file: decoder.u64()?,
            store: decoder.u64()?,
            version: decoder.u32()?,
        })
    }
}
