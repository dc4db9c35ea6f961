//! What each checksum of a store's files covers, by the documents in `docs/formats/`.

use std::ops::Range;

/// A checksum and what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// The bytes, in one part or two.
    pub parts: Vec<Range<usize>>,
    /// Where the checksum stands.
    pub at: usize,
    /// What it continues from.
    seed: Seed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seed {
    Nothing,
    Store,
    StoreAndFile,
}

impl Covered {
    fn one(part: Range<usize>, at: usize) -> Self {
        Self {
            parts: vec![part],
            at,
            seed: Seed::StoreAndFile,
        }
    }

    /// Makes the checksum right again.
    fn renew(&self, file: &File, bytes: &mut [u8]) {
        let mut sum = match self.seed {
            Seed::Nothing => 0,
            Seed::Store => crc32c::crc32c(&file.store.to_le_bytes()),
            Seed::StoreAndFile => {
                let store = crc32c::crc32c(&file.store.to_le_bytes());
                crc32c::crc32c_append(store, &file.number.to_le_bytes())
            }
        };
        for part in &self.parts {
            sum = crc32c::crc32c_append(sum, &bytes[part.clone()]);
        }
        bytes[self.at..self.at + 4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// A file of a store, and where its checksums are.
#[derive(Debug, Clone)]
pub struct File {
    /// The store's id.
    store: u64,
    /// The number in its name.
    number: u64,
    /// Inner ones before those that cover them.
    covered: Vec<Covered>,
}

impl File {
    /// Finds the checksums of an undamaged file. None where there are none, or the file is not of a kind that has them.
    #[must_use]
    pub fn parse(store: u64, name: &str, bytes: &[u8]) -> Self {
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        let covered = match name.rsplit_once('.') {
            Some((_, "log")) => log(bytes),
            Some((_, "sst")) => table(bytes),
            Some((_, "blob")) => blob(bytes),
            _ if name.starts_with("MANIFEST") => manifest(bytes),
            _ if name == "FORMAT" => Some(vec![Covered {
                seed: Seed::Nothing,
                ..Covered::one(0..28, 28)
            }]),
            _ => None,
        };
        let mut file = Self {
            store,
            number: digits.parse().unwrap_or(0),
            covered: covered.unwrap_or_default(),
        };
        // What was not understood is not repaired either.
        let mut copy = bytes.to_vec();
        file.repair(&mut copy);
        if copy != bytes {
            file.covered.clear();
        }
        file
    }

    /// What checksums cover.
    #[must_use]
    pub fn covered(&self) -> &[Covered] {
        &self.covered
    }

    /// Makes all checksums of a damaged file of the same length right again.
    pub fn repair(&self, bytes: &mut [u8]) {
        for covered in &self.covered {
            covered.renew(self, bytes);
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 8)?;
    usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
}

/// Header, and frames with a checksum of their own for the payload.
fn log(bytes: &[u8]) -> Option<Vec<Covered>> {
    let number = u64_at(bytes, 12)?;
    let mut found = vec![Covered::one(0..68, 68)];
    let mut at = 72;
    while let (Some(length), Some(owner)) = (u32_at(bytes, at + 8), u64_at(bytes, at + 16)) {
        let end = at + 40 + length;
        if owner != number || end > bytes.len() {
            break;
        }
        found.push(Covered {
            seed: Seed::Store,
            ..Covered::one(at + 40..end, at + 4)
        });
        found.push(Covered::one(at + 4..at + 40, at));
        at = end;
    }
    Some(found)
}

/// Header and frames.
fn manifest(bytes: &[u8]) -> Option<Vec<Covered>> {
    let mut found = vec![Covered::one(0..52, 52)];
    let mut at = 56;
    while let Some(length) = u32_at(bytes, at + 4) {
        let end = at + 32 + length;
        if end > bytes.len() {
            break;
        }
        found.push(Covered::one(at + 4..end, at));
        at = end;
    }
    Some(found)
}

/// Header, records and footer.
fn blob(bytes: &[u8]) -> Option<Vec<Covered>> {
    let footer = bytes.len().checked_sub(28)?;
    let mut found = vec![Covered::one(0..28, 28)];
    let mut at = 32;
    while at < footer {
        let end = at + 12 + u32_at(bytes, at)?;
        found.push(Covered {
            parts: vec![at..at + 8, at + 12..end],
            at: at + 8,
            seed: Seed::StoreAndFile,
        });
        at = end;
    }
    found.push(Covered::one(footer..footer + 16, footer + 16));
    Some(found)
}

/// Data blocks, under the index; index, filter and properties, under the footer.
fn table(bytes: &[u8]) -> Option<Vec<Covered>> {
    let footer = bytes.len().checked_sub(92)?;
    let mut found = Vec::new();
    let index = u64_at(bytes, footer + 20)?;
    let index_end = index + u32_at(bytes, footer + 28)?;
    // An index that is compressed hides its checksums.
    if bytes.get(index) == Some(&0) {
        found = data_blocks(bytes.get(..index_end)?, index + 1)?;
    }
    for handle in [footer, footer + 20, footer + 40] {
        let begin = u64_at(bytes, handle)?;
        let end = begin + u32_at(bytes, handle + 8)?;
        found.push(Covered::one(begin..end, handle + 16));
    }
    found.push(Covered::one(footer..footer + 80, footer + 80));
    Some(found)
}

fn data_blocks(bytes: &[u8], index: usize) -> Option<Vec<Covered>> {
    let mut at = index;
    let count = varint(bytes, &mut at)?;
    let prefix = varint(bytes, &mut at)?;
    at += prefix;
    let (mut found, mut begin) = (Vec::new(), 0);
    for _ in 0..count {
        let rest = varint(bytes, &mut at)?;
        at += rest;
        varint(bytes, &mut at)?; // sequence
        let stored = varint(bytes, &mut at)?;
        varint(bytes, &mut at)?; // after decoding
        found.push(Covered::one(begin..begin + stored, at));
        begin += stored;
        at += 4;
    }
    Some(found)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let (mut value, mut shift) = (0_usize, 0);
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}
