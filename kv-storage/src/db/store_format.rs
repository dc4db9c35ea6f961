//! `FORMAT`: the store's format number and identity. Bytes in `docs/formats/manifest.md`.

use crate::coding::Decoder;
use crate::error::{Error, IoContext, OpenError};
use crate::files::FORMAT;
use crate::fs::{self, Fs};
use std::path::Path;

/// The newest store format that this code reads and writes. It only ever rises.
pub(crate) const NEWEST: u32 = 3;

/// What `FORMAT` says of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub store: u64,
    pub format: u32,
}

const MAGIC: [u8; 8] = *b"kvlsmfmt";

/// Magic u64, format u32, features u64, store id u64, CRC-32C u32.
fn encode(format: u32, store: u64) -> Vec<u8> {
    let mut out = Vec::from(MAGIC);
    out.extend_from_slice(&format.to_le_bytes());
    // No optional features exist yet.
    out.extend_from_slice(&0u64.to_le_bytes());
    out.extend_from_slice(&store.to_le_bytes());
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The store's id and format, or `None` if the directory has no `FORMAT` yet.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Identity>, OpenError> {
    let path = dir.join(FORMAT);
    let bytes = match fs::read_all(fs, &path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err::<_, _>(error)
                .context("read", &path)
                .map_err(OpenError::from);
        }
    };
    let damaged = || Error::corrupt(&path, 0, "damaged format file");
    let mut decoder = Decoder::new(&bytes);
    let fields = (decoder.array(), decoder.u32(), decoder.u64(), decoder.u64());
    let checksum = decoder.u32();
    let (Some(MAGIC), Some(format), Some(features), Some(store)) = fields else {
        return Err(damaged().into());
    };
    if checksum != Some(crc32c::crc32c(&bytes[..bytes.len().min(28)])) {
        return Err(damaged().into());
    }
    // An unknown feature bit means the same as a newer format: this code would misread something.
    if format > NEWEST || features != 0 {
        let found = format.max(NEWEST + 1);
        return Err(OpenError::NewerFormat {
            dir: dir.to_path_buf(),
            found,
            supported: NEWEST,
        });
    }
    if !decoder.is_empty() || format == 0 {
        return Err(damaged().into());
    }
    Ok(Some(Identity { store, format }))
}

/// Writes `FORMAT` durably, for a new store or to raise an older format: from then on older software
/// refuses the store. Call it before anything is written that older software would misread.
pub(crate) fn write(fs: &dyn Fs, dir: &Path, store: u64) -> Result<(), Error> {
    fs::replace_file(fs, dir, FORMAT, &encode(NEWEST, store)).context("replace", &dir.join(FORMAT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::sim::SimFs;

    #[test]
    fn the_format_file_has_the_documented_bytes() {
        assert_eq!(
            hex::encode(encode(NEWEST, 0x1122)),
            golden("manifest.md", "format")
        );
    }

    #[test]
    fn a_newer_format_is_refused_by_number_and_damage_is_noticed() {
        let fs = SimFs::new();
        let dir = Path::new("/d");
        assert!(read(&fs, dir).unwrap().is_none());
        write(&fs, dir, 7).unwrap();
        let identity = |format| Some(Identity { store: 7, format });
        assert_eq!(read(&fs, dir).unwrap(), identity(NEWEST));
        fs.overwrite(&dir.join(FORMAT), encode(1, 7)).unwrap();
        assert_eq!(read(&fs, dir).unwrap(), identity(1));
        fs.overwrite(&dir.join(FORMAT), encode(NEWEST + 1, 7))
            .unwrap();
        let error = read(&fs, dir).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::NewerFormat {
                    found: 4,
                    supported: NEWEST,
                    ..
                }
            ),
            "{error}"
        );
        let good = encode(NEWEST, 7);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs.overwrite(&dir.join(FORMAT), bad).unwrap();
            assert!(read(&fs, dir).is_err(), "bit {bit}");
        }
    }
}
