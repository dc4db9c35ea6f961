//! Handles and the footer: how the parts of a table file are found and checked.

use crate::checksum::Checksum;
use crate::coding::{Decoder, put_varint};

/// Encoded size of a [`Footer`].
pub(super) const FOOTER_BYTES: usize = 92;

const MAGIC: [u8; 8] = *b"kvlsmsst";

/// Format version of table files.
const VERSION: u32 = 1;

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
    /// The form used inside index blocks.
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
        out.extend_from_slice(&VERSION.to_le_bytes());
        let checksum = Checksum::new(self.store, self.file).of(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        debug_assert_eq!(out.len(), FOOTER_BYTES);
        out
    }

    /// Decodes the footer of file `file` of store `store`. The error says what is wrong.
    pub(super) fn decode(bytes: &[u8], store: u64, file: u64) -> Result<Self, &'static str> {
        let covered = bytes
            .get(..FOOTER_BYTES - 12)
            .ok_or("file is shorter than a footer")?;
        let mut decoder = Decoder::new(bytes);
        let mut handle =
            || Handle::decode_fixed(&mut decoder).ok_or("file is shorter than a footer");
        let (filter, index, properties) = (handle()?, handle()?, handle()?);
        let mut field = || decoder.u64().ok_or("file is shorter than a footer");
        let footer = Self {
            filter,
            index,
            properties,
            file: field()?,
            store: field()?,
        };
        let version = decoder.u32();
        let checksum = decoder.u32();
        if decoder.array() != Some(MAGIC) {
            return Err("wrong magic");
        }
        if checksum != Some(Checksum::new(footer.store, footer.file).of(covered)) {
            return Err("footer checksum does not match");
        }
        if version != Some(VERSION) {
            return Err("unknown format version");
        }
        if footer.store != store {
            return Err("file belongs to another store");
        }
        if footer.file != file {
            return Err("file carries another number than its name");
        }
        Ok(footer)
    }
}
