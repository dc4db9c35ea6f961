//! Encodes blocks.

use super::dictionary::Trained;
use super::{Codec, Compression};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use std::cell::RefCell;
use zstd::zstd_safe::{self, CCtx};

thread_local! {
    /// The zstd context of this thread: making one costs more than a block.
    static ZSTD: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
}

/// Appends codec byte and bytes of a block that stays as it is.
pub(crate) fn store_plain(raw: &[u8], out: &mut Vec<u8>) {
    out.push(Codec::None as u8);
    out.extend_from_slice(raw);
}

/// Encodes the blocks of a table, reusing its memory and the thread's contexts.
pub(crate) struct Encoder {
    compression: Compression,
    dictionary: Option<Trained>,
    lz4: CompressTable,
    packed: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(compression: Compression) -> Self {
        Self {
            compression,
            dictionary: None,
            lz4: CompressTable::default(),
            packed: Vec::new(),
        }
    }

    /// Compresses with a dictionary from now on.
    pub(crate) fn set_dictionary(&mut self, dictionary: Trained) {
        self.dictionary = Some(dictionary);
    }

    /// Appends codec byte and encoded bytes to `out`.
    pub(crate) fn encode(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let codec = self.pack(raw);
        // Below a saving of 12 %, reading is not worth the decompression.
        if codec != Codec::None && self.packed.len() < raw.len() - raw.len() * 12 / 100 {
            out.push(codec as u8);
            out.extend_from_slice(&self.packed);
        } else {
            store_plain(raw, out);
        }
    }

    /// Compresses into `packed`, and says how. What cannot be compressed (out of memory) is stored plain,
    /// which is always readable.
    fn pack(&mut self, raw: &[u8]) -> Codec {
        match (self.compression, &self.dictionary) {
            (Compression::None, _) => Codec::None,
            (Compression::Lz4, _) => self.pack_lz4(raw),
            (Compression::ZstdDictionary(_), Some(dictionary)) => {
                let packed = with_zstd(raw.len(), &mut self.packed, |context, packed| {
                    context.compress_using_cdict(packed, raw, dictionary.encoder())
                });
                packed.map_or(Codec::None, |()| Codec::ZstdDictionary)
            }
            (Compression::Zstd(level) | Compression::ZstdDictionary(level), _) => {
                let packed = with_zstd(raw.len(), &mut self.packed, |context, packed| {
                    context.compress(packed, raw, level)
                });
                packed.map_or(Codec::None, |()| Codec::Zstd)
            }
        }
    }

    fn pack_lz4(&mut self, raw: &[u8]) -> Codec {
        self.packed.resize(get_maximum_output_size(raw.len()), 0);
        match compress_into_with_table(raw, &mut self.packed, &mut self.lz4) {
            Ok(length) => {
                self.packed.truncate(length);
                Codec::Lz4
            }
            Err(_) => Codec::None,
        }
    }
}

/// Runs a compression into an empty `packed` that is large enough. `None` if it fails.
fn with_zstd(
    raw_len: usize,
    packed: &mut Vec<u8>,
    compress: impl FnOnce(&mut CCtx<'static>, &mut Vec<u8>) -> zstd_safe::SafeResult,
) -> Option<()> {
    ZSTD.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(CCtx::try_create()?),
        };
        packed.clear();
        packed.reserve(zstd_safe::compress_bound(raw_len));
        compress(context, packed).ok().map(|_| ())
    })
}
