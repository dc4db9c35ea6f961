//! Dictionaries: what the blocks of a table have in common, stored once.

use std::fmt;
use zstd::zstd_safe::{self, CCtx, CDict, DDict};

/// Largest dictionary, in bytes.
const DICTIONARY_BYTES: usize = 16 << 10;

/// Prepared for decoding.
pub(crate) struct Dictionary(DDict<'static>);

impl Dictionary {
    /// `None` if the bytes are no dictionary.
    pub(crate) fn load(bytes: &[u8]) -> Option<Self> {
        DDict::try_create(bytes).map(Self)
    }

    pub(super) fn decoder(&self) -> &DDict<'static> {
        &self.0
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dictionary").finish_non_exhaustive()
    }
}

/// A dictionary made from samples, prepared for encoding.
pub(crate) struct Trained {
    pub bytes: Vec<u8>,
    encoder: CDict<'static>,
}

impl Trained {
    /// Trains on sample blocks (laid end to end, with their sizes). `None` if that fails, as it does on
    /// too few samples, or saves no more than a tenth of what they take without.
    pub(crate) fn train(samples: &[u8], sizes: &[usize], level: i32) -> Option<Self> {
        let mut bytes = Vec::with_capacity(DICTIONARY_BYTES);
        zstd_safe::train_from_buffer(&mut bytes, samples, sizes).ok()?;
        let encoder = CDict::try_create(&bytes, level)?;
        let trained = Self { bytes, encoder };
        trained.gains(samples, sizes, level)?.then_some(trained)
    }

    /// Compares on every eighth sample; the dictionary has seen them, so it must gain clearly.
    fn gains(&self, samples: &[u8], sizes: &[usize], level: i32) -> Option<bool> {
        let mut context = CCtx::try_create()?;
        let mut packed = Vec::new();
        let (mut at, mut with, mut without) = (0, 0, 0);
        for (number, size) in sizes.iter().enumerate() {
            let sample = &samples[at..at + size];
            at += size;
            if number % 8 == 0 {
                packed.clear();
                packed.reserve(zstd_safe::compress_bound(*size));
                without += context.compress(&mut packed, sample, level).ok()?;
                packed.clear();
                with += context
                    .compress_using_cdict(&mut packed, sample, &self.encoder)
                    .ok()?;
            }
        }
        Some(with < without - without / 10)
    }

    pub(super) fn encoder(&self) -> &CDict<'static> {
        &self.encoder
    }
}
