//! Header, record heads and footer of a blob file.

use crate::checksum::Checksum;
use crate::coding::Decoder;
use crate::fs::Fs;
use std::path::Path;

/// Encoded size of the header.
pub(super) const HEADER_BYTES: usize = 32;
/// Bytes in front of each stored value.
pub(super) const HEAD_BYTES: usize = 12;
/// Encoded size of the footer.
pub(super) const FOOTER_BYTES: usize = 28;

const MAGIC: [u8; 8] = *b"kvlsmblb";
const END_MAGIC: [u8; 8] = *b"kvlsmble";
const VERSION: u32 = 1;

/// Magic, version, file number, store id, checksum.
pub(super) fn encode_header(store: u64, file: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&file.to_le_bytes());
    out.extend_from_slice(&store.to_le_bytes());
    let checksum = Checksum::new(store, file).of(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    debug_assert_eq!(out.len(), HEADER_BYTES);
    out
}

/// The store and file number that a header names. The error says what is wrong.
fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Result<(u64, u64), &'static str> {
    let mut decoder = Decoder::new(bytes);
    let magic: Option<[u8; 8]> = decoder.array();
    if magic != Some(MAGIC) {
        return Err("wrong magic");
    }
    let fields = (decoder.u32(), decoder.u64(), decoder.u64(), decoder.u32());
    let (Some(version), Some(file), Some(store), Some(checksum)) = fields else {
        return Err("file is shorter than a header");
    };
    if Checksum::new(store, file).of(&bytes[..HEADER_BYTES - 4]) != checksum {
        return Err("header checksum does not match");
    }
    if version != VERSION {
        return Err("unknown format version");
    }
    Ok((store, file))
}

/// Checks the header of file `file` of store `store`. The error says what is wrong.
pub(super) fn check_header(
    bytes: &[u8; HEADER_BYTES],
    store: u64,
    file: u64,
) -> Result<(), &'static str> {
    match decode_header(bytes)? {
        (found, _) if found != store => Err("file belongs to another store"),
        (_, found) if found != file => Err("file carries another number than its name"),
        _ => Ok(()),
    }
}

/// The store that a blob file belongs to, by its header.
pub(crate) fn store_of(fs: &dyn Fs, path: &Path) -> Option<u64> {
    let mut header = [0; HEADER_BYTES];
    fs.open(path).ok()?.read_at(0, &mut header).ok()?;
    decode_header(&header).ok().map(|(store, _)| store)
}

/// What stands in front of a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes on disk behind the head, codec byte included.
    pub stored: u32,
    /// Bytes after decoding.
    pub raw: u32,
    pub checksum: u32,
}

impl Head {
    /// The head of a value as it is stored.
    pub(super) fn of(checksum: Checksum, stored: &[u8], raw: u32) -> Self {
        let length = u32::try_from(stored.len()).expect("values are far below 4 GiB");
        Self {
            stored: length,
            raw,
            checksum: checksum.of_parts(&[&length.to_le_bytes(), &raw.to_le_bytes(), stored]),
        }
    }

    pub(super) fn encode(self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..4].copy_from_slice(&self.stored.to_le_bytes());
        out[4..8].copy_from_slice(&self.raw.to_le_bytes());
        out[8..].copy_from_slice(&self.checksum.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            stored: word(0),
            raw: word(4),
            checksum: word(8),
        }
    }
}

/// The last bytes of a blob file: what lies between header and footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub values: u64,
    /// Bytes of all records, heads included.
    pub value_bytes: u64,
}

impl Footer {
    pub(super) fn encode(self, checksum: Checksum) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&self.values.to_le_bytes());
        out.extend_from_slice(&self.value_bytes.to_le_bytes());
        let sum = checksum.of(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(&END_MAGIC);
        debug_assert_eq!(out.len(), FOOTER_BYTES);
        out
    }

    /// The error says what is wrong.
    pub(super) fn decode(
        bytes: &[u8; FOOTER_BYTES],
        checksum: Checksum,
    ) -> Result<Self, &'static str> {
        if !bytes.ends_with(&END_MAGIC) {
            return Err("wrong magic at the end");
        }
        let mut decoder = Decoder::new(bytes);
        let fields = (decoder.u64(), decoder.u64(), decoder.u32());
        let (Some(values), Some(value_bytes), Some(sum)) = fields else {
            return Err("file is shorter than a footer");
        };
        if checksum.of(&bytes[..16]) != sum {
            return Err("footer checksum does not match");
        }
        Ok(Self {
            values,
            value_bytes,
        })
    }
}
