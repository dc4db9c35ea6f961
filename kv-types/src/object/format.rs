//! The bytes of an object: version, header, values. See `docs/formats/object.md`.
//!
//! The header holds all that merging and digests need, so neither touches a value.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Object, Payload, Retired, Sibling};
use crate::clock::{Clock, Dot};
use crate::hlc::Hlc;
use crate::id::ActorId;
use crate::wire::{DecodeError, Reader, put_varint};
use crate::write_id::WriteId;

const VERSION: u8 = 1;
const FLAG_TOMBSTONE: u8 = 1;
const FLAG_EXPIRES: u8 = 2;
/// Version and header length.
const PREFIX_BYTES: usize = 5;
/// Smallest encodings, against which counts are checked before memory is reserved.
const MIN_DOT_BYTES: usize = 9;
const MIN_SIBLING_BYTES: usize = 16 + 1 + MIN_DOT_BYTES + 1 + 1 + 8;
const RETIRED_ENTRY_BYTES: usize = 16 + MIN_DOT_BYTES;

impl Object {
    /// The object as bytes. Equal objects have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut header = Vec::with_capacity(128);
        self.clock.encode_into(&mut header);
        put_varint(&mut header, self.siblings.len() as u64);
        for sibling in &self.siblings {
            sibling.encode_into(&mut header);
        }
        put_varint(&mut header, self.retired.floor_ms());
        put_varint(&mut header, self.retired.entries().len() as u64);
        for (write_id, dot) in self.retired.entries() {
            header.extend_from_slice(&write_id.to_bytes());
            encode_dot(*dot, &mut header);
        }

        let header_bytes =
            u32::try_from(header.len()).expect("limits on siblings bound the header");
        let mut out = Vec::with_capacity(PREFIX_BYTES + header.len() + self.values_bytes());
        out.push(VERSION);
        out.extend_from_slice(&header_bytes.to_le_bytes());
        out.append(&mut header);
        for value in self.siblings.iter().filter_map(|s| s.payload.value()) {
            out.extend_from_slice(value);
        }
        out.into()
    }

    /// The part of an encoded object that identifies its state: all but the values, whose hashes it
    /// contains. Digests are taken over it.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes do not hold a header of a known version.
    pub fn header_of(encoded: &[u8]) -> Result<&[u8], DecodeError> {
        let mut reader = Reader::new(encoded);
        read_version(&mut reader)?;
        let header_bytes = reader.u32()? as usize;
        reader.take(header_bytes)
    }

    /// The object in these bytes; values are slices of them, not copies. Value hashes are checked.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are damaged or of a newer version.
    pub fn decode(encoded: &Bytes) -> Result<Self, DecodeError> {
        let header = Self::header_of(encoded)?;
        let mut reader = Reader::new(header);
        let clock = Clock::decode_from(&mut reader)?;
        let mut values_at = PREFIX_BYTES + header.len();
        let count = reader.count(MIN_SIBLING_BYTES)?;
        let mut siblings: Vec<Sibling> = Vec::with_capacity(count);
        for _ in 0..count {
            let at = reader.at();
            let sibling = Sibling::decode_from(&mut reader, encoded, &mut values_at)?;
            let sorted = siblings
                .last()
                .is_none_or(|last| last.order() < sibling.order());
            if !sorted || !sibling.dots.iter().all(|d| clock.covers(*d)) {
                return Err(DecodeError::Invalid {
                    what: "sibling",
                    at,
                });
            }
            siblings.push(sibling);
        }
        let retired = decode_retired(&mut reader)?;
        reader.finish()?;
        match encoded.len() - values_at {
            0 => Ok(Self {
                clock,
                siblings,
                retired,
            }),
            count => Err(DecodeError::Trailing { count }),
        }
    }
}

impl Sibling {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.write_id.to_bytes());
        put_varint(out, self.dots.len() as u64);
        for dot in &self.dots {
            encode_dot(*dot, out);
        }
        out.push(match (&self.payload, self.expires_ms) {
            (Payload::Value(_), None) => 0,
            (Payload::Value(_), Some(_)) => FLAG_EXPIRES,
            (Payload::Tombstone, _) => FLAG_TOMBSTONE,
        });
        if let (Payload::Value(_), Some(expires_ms)) = (&self.payload, self.expires_ms) {
            put_varint(out, expires_ms);
        }
        put_varint(out, self.payload.size_bytes() as u64);
        out.extend_from_slice(&self.payload_hash.to_le_bytes());
    }

    /// Reads one sibling's header, and its value from `values_at` on, which moves behind it.
    fn decode_from(
        reader: &mut Reader<'_>,
        encoded: &Bytes,
        values_at: &mut usize,
    ) -> Result<Self, DecodeError> {
        let write_id = WriteId::from_bytes(reader.array()?);
        let at = reader.at();
        let count = reader.count(MIN_DOT_BYTES)?;
        let mut dots = Vec::with_capacity(count);
        for _ in 0..count {
            dots.push(decode_dot(reader)?);
        }
        if dots.is_empty() || !dots.is_sorted_by(|a, b| a < b) {
            return Err(DecodeError::Invalid { what: "dots", at });
        }
        let at = reader.at();
        let flags = reader.u8()?;
        let expires_ms = match flags {
            FLAG_EXPIRES => Some(reader.varint()?),
            _ => None,
        };
        let size = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let payload_hash = reader.u64()?;
        let payload = match flags {
            0 | FLAG_EXPIRES => Payload::Value(take_value(encoded, values_at, size)?),
            FLAG_TOMBSTONE if size == 0 => Payload::Tombstone,
            _ => {
                return Err(DecodeError::Invalid {
                    what: "sibling flags",
                    at,
                });
            }
        };
        if payload.hash() != payload_hash {
            return Err(DecodeError::Invalid {
                what: "value hash",
                at,
            });
        }
        Ok(Self {
            write_id,
            dots,
            payload,
            payload_hash,
            expires_ms,
        })
    }
}

fn take_value(encoded: &Bytes, at: &mut usize, size: usize) -> Result<Bytes, DecodeError> {
    let start = *at;
    let end = start.checked_add(size).filter(|end| *end <= encoded.len());
    let end = end.ok_or(DecodeError::Truncated { at: start })?;
    *at = end;
    Ok(encoded.slice(start..end))
}

fn read_version(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match reader.u8()? {
        VERSION => Ok(()),
        0 => Err(DecodeError::Invalid {
            what: "format version",
            at: 0,
        }),
        version => Err(DecodeError::Version {
            version,
            known: VERSION,
        }),
    }
}

fn encode_dot(dot: Dot, out: &mut Vec<u8>) {
    put_varint(out, u64::from(dot.actor.0));
    out.extend_from_slice(&dot.hlc.0.to_le_bytes());
}

fn decode_dot(reader: &mut Reader<'_>) -> Result<Dot, DecodeError> {
    let invalid = DecodeError::Invalid {
        what: "actor",
        at: reader.at(),
    };
    let actor = ActorId(u32::try_from(reader.varint()?).map_err(|_| invalid)?);
    Ok(Dot::new(actor, Hlc(reader.u64()?)))
}

fn decode_retired(reader: &mut Reader<'_>) -> Result<Retired, DecodeError> {
    let floor_ms = reader.varint()?;
    let count = reader.count(RETIRED_ENTRY_BYTES)?;
    let mut entries = BTreeSet::new();
    for _ in 0..count {
        let at = reader.at();
        let entry = (WriteId::from_bytes(reader.array()?), decode_dot(reader)?);
        let sorted = entries.last().is_none_or(|last| *last < entry);
        if !sorted || entry.0.created_ms() <= floor_ms {
            return Err(DecodeError::Invalid {
                what: "retired write",
                at,
            });
        }
        entries.insert(entry);
    }
    Ok(Retired::from_parts(floor_ms, entries))
}
