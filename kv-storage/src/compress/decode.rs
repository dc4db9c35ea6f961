//! Decodes blocks.

use super::Codec;
use super::dictionary::Dictionary;
use std::cell::RefCell;
use zstd::zstd_safe::{self, DCtx};

/// Largest block that is decoded.
const MAX_BLOCK_BYTES: usize = 1 << 30;

/// What the bytes of an LZ4 block can become at most.
const LZ4_RATIO: usize = 255;
/// What a block of a zstd frame can become at most, and takes at least.
const ZSTD_BLOCK_BYTES: usize = 128 << 10;
const ZSTD_BLOCK_LEAST: usize = 4;

thread_local! {
    /// The zstd context of this thread: making one costs more than a block.
    static ZSTD: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// Decodes a stored block of known raw length, into `memory` unless it is stored plain. The error says
/// what is wrong with the bytes.
pub(crate) fn decode<'a>(
    stored: &'a [u8],
    raw_len: usize,
    dictionary: Option<&Dictionary>,
    memory: &'a mut Vec<u8>,
) -> Result<&'a [u8], &'static str> {
    let (&codec, encoded) = stored.split_first().ok_or("block without codec byte")?;
    if raw_len > MAX_BLOCK_BYTES {
        return Err("block length over the limit");
    }
    let codec = Codec::from_byte(codec).ok_or("unknown codec")?;
    if raw_len > longest(codec, encoded) {
        return Err("block length over what its bytes can become");
    }
    let raw = match codec {
        Codec::None => encoded,
        Codec::Lz4 => unlz4(encoded, raw_len, memory)?,
        Codec::Zstd => unzstd(raw_len, memory, |context, raw| {
            context.decompress(raw, encoded)
        })?,
        Codec::ZstdDictionary => {
            let dictionary = dictionary.ok_or("block needs a dictionary that the table has not")?;
            unzstd(raw_len, memory, |context, raw| {
                context.decompress_using_ddict(raw, encoded, dictionary.decoder())
            })?
        }
    };
    if raw.len() == raw_len {
        Ok(raw)
    } else {
        Err("block does not have its recorded length")
    }
}

/// What encoded bytes can become at most: so much may be allocated for them, whatever length a damaged handle says.
fn longest(codec: Codec, encoded: &[u8]) -> usize {
    match codec {
        Codec::None => encoded.len(),
        Codec::Lz4 => encoded.len().saturating_mul(LZ4_RATIO),
        Codec::Zstd | Codec::ZstdDictionary => {
            let blocks = encoded.len() / ZSTD_BLOCK_LEAST + 1;
            let said = zstd_safe::get_frame_content_size(encoded).ok().flatten();
            let said = said.map_or(usize::MAX, |said| {
                usize::try_from(said).unwrap_or(usize::MAX)
            });
            said.min(blocks.saturating_mul(ZSTD_BLOCK_BYTES))
        }
    }
}

fn unlz4<'a>(
    encoded: &[u8],
    raw_len: usize,
    memory: &'a mut Vec<u8>,
) -> Result<&'a [u8], &'static str> {
    memory.resize(raw_len, 0);
    let length = lz4_flex::block::decompress_into(encoded, memory)
        .map_err(|_| "lz4 cannot decode the block")?;
    Ok(&memory[..length])
}

fn unzstd(
    raw_len: usize,
    memory: &mut Vec<u8>,
    decompress: impl FnOnce(&mut DCtx<'static>, &mut Vec<u8>) -> zstd_safe::SafeResult,
) -> Result<&[u8], &'static str> {
    ZSTD.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(DCtx::try_create().ok_or("no memory to decompress")?),
        };
        memory.clear();
        memory.reserve(raw_len);
        decompress(context, memory).map_err(|_| "zstd cannot decode the block")?;
        Ok(&memory[..])
    })
}
