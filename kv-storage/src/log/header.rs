//! The header of a log file.

use crate::checksum::Checksum;
use crate::coding::Decoder;
use crate::key::Seq;

/// Encoded size of a [`Header`].
pub(crate) const HEADER_BYTES: usize = 56;

/// Format version of log and manifest files.
const VERSION: u32 = 1;

/// Which of the two kinds of log a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogKind {
    Wal,
    Manifest,
}

impl LogKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Wal => *b"kvlsmlog",
            Self::Manifest => *b"kvlsmman",
        }
    }
}

/// Says what a log file is, and where its predecessor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: LogKind,
    /// Number of this file, as in its name.
    pub id: u64,
    pub store: u64,
    /// The segment before this one; 0 if there is none.
    pub previous: u64,
    /// Valid length of the previous segment in bytes.
    pub previous_length: u64,
    /// Sequence number of the first frame.
    pub first: Seq,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&self.kind.magic());
        out.extend_from_slice(&VERSION.to_le_bytes());
        for field in [
            self.id,
            self.store,
            self.previous,
            self.previous_length,
            self.first.0,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let checksum = Checksum::new(self.store, self.id).of(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.try_into()
            .expect("8 + 4 + 5 * 8 + 4 bytes were written")
    }

    /// Decodes the header of file `id` of store `store`. The error says what is wrong.
    pub(crate) fn decode(
        bytes: &[u8],
        kind: LogKind,
        store: u64,
        id: u64,
    ) -> Result<Self, &'static str> {
        let covered = bytes
            .get(..HEADER_BYTES - 4)
            .ok_or("file ends inside its header")?;
        let mut decoder = Decoder::new(bytes);
        let magic: [u8; 8] = decoder.array().ok_or("no magic")?;
        let version = decoder.u32().ok_or("no version")?;
        let ids = decoder.u64().zip(decoder.u64());
        let (found_id, found_store) = ids.ok_or("file ends inside its header")?;
        let mut field = || decoder.number().ok_or("number over the limit");
        let header = Self {
            kind,
            id: found_id,
            store: found_store,
            previous: field()?,
            previous_length: field()?,
            first: Seq(field()?),
        };
        if decoder.u32() != Some(Checksum::new(header.store, header.id).of(covered)) {
            return Err("header checksum does not match");
        }
        if magic != kind.magic() {
            return Err("wrong magic");
        }
        if version != VERSION {
            return Err("unknown format version");
        }
        if header.store != store {
            return Err("file belongs to another store");
        }
        if header.id != id {
            return Err("file carries another number than its name");
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    const HEADER: Header = Header {
        kind: LogKind::Wal,
        id: 7,
        store: 0x1122,
        previous: 5,
        previous_length: 600,
        first: Seq(43),
    };

    #[test]
    fn the_header_has_the_documented_bytes() {
        assert_eq!(hex::encode(HEADER.encode()), golden("log.md", "header-v1"));
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_refused() {
        let good = HEADER.encode();
        assert_eq!(Header::decode(&good, LogKind::Wal, 0x1122, 7), Ok(HEADER));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Header::decode(&bad, LogKind::Wal, 0x1122, 7).is_err(),
                "bit {bit}"
            );
        }
        assert!(Header::decode(&good, LogKind::Manifest, 0x1122, 7).is_err());
        assert!(Header::decode(&good, LogKind::Wal, 0x1123, 7).is_err());
        assert!(Header::decode(&good, LogKind::Wal, 0x1122, 8).is_err());
    }
}
