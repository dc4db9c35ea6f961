//! The bytes of an object: version, header, values. See `docs/formats/object.md`.
//!
//! The header holds all that merging and digests need, so neither touches a value.

use bytes::Bytes;

use super::{Object, Payload, Retired, Sibling};
use crate::clock::{Clock, Dot};
use crate::hlc::Hlc;
use crate::id::ActorId;
use crate::wire::{DecodeError, Reader, put_near, put_varint};
use crate::write_id::WriteId;

const VERSION: u8 = 1;
const FLAG_TOMBSTONE: u8 = 1;
const FLAG_EXPIRES: u8 = 2;
/// Its only dot is the one at which the clock ends, and is not written down again.
const FLAG_LATEST: u8 = 4;
/// Version and header length.
const PREFIX_BYTES: usize = 5;
/// Smallest encodings, against which counts are checked before memory is reserved.
const MIN_DOT_BYTES: usize = 9;
const MIN_SIBLING_BYTES: usize = 1 + 1 + 10 + 1 + 8;

impl Object {
    /// The object as bytes. Equal objects have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut header = Vec::with_capacity(128);
        self.clock.encode_into(&mut header);
        put_varint(&mut header, self.siblings.len() as u64);
        let latest = self.clock.latest_dot();
        for sibling in &self.siblings {
            sibling.encode_into(latest, &mut header);
        }
        if self.retired != Retired::default() {
            let newest_ms = self.clock.latest().millis();
            put_near(&mut header, newest_ms, self.retired.floor_ms());
            for (write_id, dot) in self.retired.entries() {
                header.extend_from_slice(&write_id.to_bytes());
                encode_dot(*dot, &mut header);
            }
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
        let latest = clock.latest_dot();
        let count = reader.count(MIN_SIBLING_BYTES)?;
        let mut siblings: Vec<Sibling> = Vec::with_capacity(count);
        for _ in 0..count {
            let at = reader.at();
            let sibling = Sibling::decode_from(&mut reader, latest, encoded, &mut values_at)?;
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
        let retired = decode_retired(&mut reader, clock.latest().millis())?;
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
    /// `latest` is the dot at which the object's clock ends.
    fn encode_into(&self, latest: Option<Dot>, out: &mut Vec<u8>) {
        let is_latest = latest.is_some_and(|latest| self.dots == [latest]);
        let (is_value, expires_ms) = match self.payload {
            Payload::Value(_) => (true, self.expires_ms),
            Payload::Tombstone => (false, None),
        };
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(
            flag(!is_value, FLAG_TOMBSTONE)
                | flag(expires_ms.is_some(), FLAG_EXPIRES)
                | flag(is_latest, FLAG_LATEST),
        );
        if !is_latest {
            put_varint(out, self.dots.len() as u64);
            for dot in &self.dots {
                encode_dot(*dot, out);
            }
        }
        let newest_ms = self.newest_dot().hlc.millis();
        put_near(out, newest_ms, self.write_id.created_ms());
        out.extend_from_slice(&self.write_id.random());
        if let Some(expires_ms) = expires_ms {
            put_near(out, newest_ms, expires_ms);
        }
        put_varint(out, self.payload.size_bytes() as u64);
        out.extend_from_slice(&self.payload_hash.to_le_bytes());
    }

    /// Reads one sibling's header, and its value from `values_at` on, which moves behind it.
    fn decode_from(
        reader: &mut Reader<'_>,
        latest: Option<Dot>,
        encoded: &Bytes,
        values_at: &mut usize,
    ) -> Result<Self, DecodeError> {
        let at = reader.at();
        let invalid = |what| DecodeError::Invalid { what, at };
        let flags = reader.u8()?;
        if flags & !(FLAG_TOMBSTONE | FLAG_EXPIRES | FLAG_LATEST) != 0 {
            return Err(invalid("sibling flags"));
        }
        let dots = match flags & FLAG_LATEST {
            0 => decode_dots(reader, latest)?,
            _ => vec![latest.ok_or(invalid("sibling flags"))?],
        };
        let newest = dots.iter().map(|dot| dot.hlc).max();
        let newest_ms = newest.ok_or(invalid("dots"))?.millis();
        let created_ms = reader.near(newest_ms)?;
        let write_id = WriteId::new(created_ms, reader.array()?);
        if write_id.created_ms() != created_ms {
            return Err(invalid("write id"));
        }
        let expires_ms = match flags & FLAG_EXPIRES {
            0 => None,
            _ => Some(reader.near(newest_ms)?),
        };
        let size = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let payload_hash = reader.u64()?;
        let payload = match (flags & FLAG_TOMBSTONE, size, expires_ms) {
            (0, _, _) => Payload::Value(take_value(encoded, values_at, size)?),
            (_, 0, None) => Payload::Tombstone,
            _ => return Err(invalid("tombstone")),
        };
        if payload.hash() != payload_hash {
            return Err(invalid("value hash"));
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

/// Dots that are written down, because they are not only the one at which the clock ends.
fn decode_dots(reader: &mut Reader<'_>, latest: Option<Dot>) -> Result<Vec<Dot>, DecodeError> {
    let at = reader.at();
    let count = reader.count(MIN_DOT_BYTES)?;
    let mut dots = Vec::with_capacity(count);
    for _ in 0..count {
        dots.push(decode_dot(reader)?);
    }
    let is_shortest = latest.is_none_or(|latest| dots != [latest]);
    if dots.is_empty() || !dots.is_sorted_by(|a, b| a < b) || !is_shortest {
        return Err(DecodeError::Invalid { what: "dots", at });
    }
    Ok(dots)
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

/// What stands behind the siblings: nothing, if nothing was forgotten and nothing is remembered.
fn decode_retired(reader: &mut Reader<'_>, newest_ms: u64) -> Result<Retired, DecodeError> {
    if reader.remaining() == 0 {
        return Ok(Retired::default());
    }
    let begin = reader.at();
    let floor_ms = reader.near(newest_ms)?;
    let mut entries = Vec::new();
    while reader.remaining() > 0 {
        let at = reader.at();
        let entry = (WriteId::from_bytes(reader.array()?), decode_dot(reader)?);
        let sorted = entries.last().is_none_or(|last| *last < entry);
        if !sorted || entry.0.created_ms() <= floor_ms {
            return Err(DecodeError::Invalid {
                what: "retired write",
                at,
            });
        }
        entries.push(entry);
    }
    let retired = Retired::from_parts(floor_ms, entries);
    if retired == Retired::default() {
        return Err(DecodeError::Invalid {
            what: "retired floor",
            at: begin,
        });
    }
    Ok(retired)
}
