//! Compression of blocks. A stored block is one codec byte and the encoded bytes.

use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

/// How a block is encoded. The numbers are on disk: never change them. 1 is kept for lz4, 3 for
/// zstd with a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    None = 0,
    Zstd = 2,
}

/// Largest block that is decoded, which bounds what damaged lengths can allocate.
pub(crate) const MAX_BLOCK_BYTES: usize = 1 << 30;

/// Encodes blocks at one level, reusing its context.
pub(crate) struct Encoder {
    zstd: Option<Compressor<'static>>,
}

impl Encoder {
    /// Level 0 stores blocks as they are.
    pub(crate) fn new(level: i32) -> Self {
        // Without a context (out of memory) blocks are stored uncompressed, which is always readable.
        Self {
            zstd: (level > 0).then(|| Compressor::new(level).ok()).flatten(),
        }
    }

    /// Appends codec byte and encoded bytes to `out`.
    pub(crate) fn encode(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        if let Some(packed) = self.zstd.as_mut().and_then(|zstd| zstd.compress(raw).ok()) {
            // Below a saving of one eighth, reading is not worth the decompression.
            if packed.len() < raw.len() - raw.len() / 8 {
                out.push(Codec::Zstd as u8);
                out.extend_from_slice(&packed);
                return;
            }
        }
        out.push(Codec::None as u8);
        out.extend_from_slice(raw);
    }
}

thread_local! {
    static ZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decodes a stored block of known raw length. The error says what is wrong with the bytes.
pub(crate) fn decode(stored: &[u8], raw_len: usize) -> Result<Vec<u8>, &'static str> {
    let (&codec, encoded) = stored.split_first().ok_or("block without codec byte")?;
    if raw_len > MAX_BLOCK_BYTES {
        return Err("block length over the limit");
    }
    let raw = if codec == Codec::None as u8 {
        encoded.to_vec()
    } else if codec == Codec::Zstd as u8 {
        unzstd(encoded, raw_len)?
    } else {
        return Err("unknown codec");
    };
    if raw.len() == raw_len {
        Ok(raw)
    } else {
        Err("block does not have its recorded length")
    }
}

fn unzstd(encoded: &[u8], raw_len: usize) -> Result<Vec<u8>, &'static str> {
    ZSTD.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(Decompressor::new().map_err(|_| "no memory to decompress")?),
        };
        context
            .decompress(encoded, raw_len)
            .map_err(|_| "zstd cannot decode the block")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressible_blocks_shrink_and_random_ones_are_stored_as_they_are() {
        let zeros = vec![7u8; 4096];
        let mut noise = Vec::new();
        let mut state = fastrand::Rng::with_seed(1);
        noise.resize_with(4096, || state.u8(..));
        for (raw, codec) in [(&zeros, Codec::Zstd), (&noise, Codec::None)] {
            let mut stored = Vec::new();
            Encoder::new(1).encode(raw, &mut stored);
            assert_eq!(stored[0], codec as u8);
            assert_eq!(&decode(&stored, raw.len()).unwrap(), raw);
            assert!(decode(&stored, raw.len() + 1).is_err());
        }
        assert!(decode(&[1, 0], 1).is_err(), "lz4 is not known yet");
        assert!(decode(&[], 0).is_err());
    }
}
