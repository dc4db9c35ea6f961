//! The opaque token that carries "what I have read" from a read to the write that follows it.

use core::fmt;
use core::hash::Hasher;
use core::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::clock::Clock;
use crate::hlc::Hlc;
use crate::id::BucketId;
use crate::key::Key;
use crate::wire::Reader;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;

/// What a reader had seen of one key, sealed for that key: opaque to clients.
///
/// The seal guards against mistakes (another key's context, damaged bytes), not against a client that
/// means harm: clients know the cluster's hash secret, because they route by it.
///
/// As text (`Display`, `FromStr`) it is base64 for URLs, without padding.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Context(Bytes);

impl Context {
    /// The longest context that a write may leave its key with, in bytes.
    pub const MAX_BYTES: usize = 1024;
    /// The longest context that is opened, in bytes: far more than merging ever makes.
    pub const LONGEST_BYTES: usize = 32 * Self::MAX_BYTES;

    /// A context from bytes that a reply carried; they are checked when it is opened.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// The cluster's key for sealing contexts; every node derives the same one from the genesis secret.
#[derive(Clone)]
pub struct ContextKey([u8; 16]);

impl ContextKey {
    /// The key from its 16 secret bytes.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// Seals a clock for one key.
    ///
    /// It may be longer than [`Context::MAX_BYTES`] where replicas with rich histories were merged:
    /// a key stays readable. Only writes are held to the limit, by [`Self::check_size`].
    #[must_use]
    pub fn seal(&self, bucket: BucketId, key: &Key, clock: &Clock) -> Context {
        let mut bytes = vec![VERSION];
        clock.encode_into(&mut bytes);
        let mac = self.mac(bucket, key, &bytes);
        bytes.extend_from_slice(&mac);
        Context(bytes.into())
    }

    /// Whether a write may leave its key with this clock.
    ///
    /// # Errors
    /// [`ContextError::TooLong`] when its context would exceed [`Context::MAX_BYTES`].
    pub fn check_size(clock: &Clock) -> Result<(), ContextError> {
        let mut bytes = Vec::new();
        clock.encode_into(&mut bytes);
        match 1 + bytes.len() + MAC_BYTES {
            size if size > Context::MAX_BYTES => Err(ContextError::TooLong { size }),
            _ => Ok(()),
        }
    }

    /// Opens a context that was sealed for this key.
    ///
    /// `latest` is the latest point that a dot may carry: the local clock plus the allowed skew. A
    /// context above it would silently supersede writes that have yet to be made.
    ///
    /// # Errors
    /// [`ContextError`] when the bytes are damaged, sealed for another key or by another cluster,
    /// or lie in the future.
    pub fn open(
        &self,
        bucket: BucketId,
        key: &Key,
        context: &Context,
        latest: Hlc,
    ) -> Result<Clock, ContextError> {
        let bytes = &context.0;
        if bytes.len() > Context::LONGEST_BYTES {
            return Err(ContextError::TooLong { size: bytes.len() });
        }
        let (body, mac) = bytes
            .len()
            .checked_sub(MAC_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(ContextError::Damaged)?;
        if self.mac(bucket, key, body) != *mac && !crate::planted!("accept another key's context") {
            return Err(ContextError::OtherKey);
        }
        let mut reader = Reader::new(body);
        if reader.u8() != Ok(VERSION) {
            return Err(ContextError::Damaged);
        }
        let clock = Clock::decode_from(&mut reader).map_err(|_| ContextError::Damaged)?;
        reader.finish().map_err(|_| ContextError::Damaged)?;
        if clock.latest() > latest {
            return Err(ContextError::Future {
                ahead_ms: clock.latest().millis().saturating_sub(latest.millis()),
            });
        }
        Ok(clock)
    }

    /// SipHash-2-4 with 128 bits of output over bucket, both key parts with their lengths, and body.
    fn mac(&self, bucket: BucketId, key: &Key, body: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&bucket.0.to_le_bytes());
        for part in [key.partition_key(), key.sort_key()] {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.write(body);
        hasher.finish128().as_bytes()
    }
}

impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextKey(secret)")
    }
}

/// Why a context cannot be used. Nothing was written; read the key again and use the new context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// The text or bytes are not a context.
    #[error("the context is damaged; read the key again and use the context of that read")]
    Damaged,
    /// It belongs to another key or bucket, or another cluster sealed it.
    #[error(
        "the context belongs to another key or cluster; read this key and use the context of that read"
    )]
    OtherKey,
    /// It covers writes later than this node's clock.
    #[error(
        "the context lies {ahead_ms} ms in the future of this node; check the clocks of the nodes"
    )]
    Future {
        /// How far, in milliseconds.
        ahead_ms: u64,
    },
    /// The key has too rich a history: too many restarts of its replicas lie between its writes.
    #[error(
        "the key's context would have {size} bytes; the limit is {}; copy the value to a new key",
        Context::MAX_BYTES
    )]
    TooLong {
        /// Its length in bytes.
        size: usize,
    },
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.0.len().div_ceil(3) * 4);
        for chunk in self.0.chunks(3) {
            let mut group = [0; 4];
            group[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(group);
            for place in 0..=chunk.len() {
                let index = bits >> (18 - 6 * place) & 0x3f;
                text.push(char::from(ALPHABET[index as usize]));
            }
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

impl FromStr for Context {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
        for group in text.as_bytes().chunks(4) {
            let mut bits = 0_u32;
            for (place, letter) in group.iter().enumerate() {
                let index = ALPHABET
                    .iter()
                    .position(|a| a == letter)
                    .ok_or(ContextError::Damaged)?;
                bits |= (index as u32) << (18 - 6 * place);
            }
            let [_, decoded @ ..] = bits.to_be_bytes();
            let count = group
                .len()
                .checked_sub(1)
                .filter(|count| *count > 0)
                .ok_or(ContextError::Damaged)?;
            if decoded[count..].iter().any(|spare| *spare != 0) {
                return Err(ContextError::Damaged);
            }
            bytes.extend_from_slice(&decoded[..count]);
        }
        Ok(Self(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Dot;
    use crate::id::ActorId;
    use proptest::prelude::*;

    const BUCKET: BucketId = BucketId(1);

    fn sealer() -> ContextKey {
        ContextKey::new([7; 16])
    }

    fn key(name: &str) -> Key {
        Key::new(name.to_owned()).expect("a short key")
    }

    fn clock() -> Clock {
        let mut clock = Clock::new();
        clock.insert(Dot::new(ActorId(3), Hlc::from_millis(1000)));
        clock
    }

    #[test]
    fn a_context_opens_for_its_own_key_only() {
        let context = sealer().seal(BUCKET, &key("a"), &clock());
        let latest = Hlc::from_millis(2000);
        assert_eq!(
            sealer().open(BUCKET, &key("a"), &context, latest),
            Ok(clock())
        );
        let other = Err(ContextError::OtherKey);
        assert_eq!(sealer().open(BUCKET, &key("b"), &context, latest), other);
        assert_eq!(
            sealer().open(BucketId(2), &key("a"), &context, latest),
            other
        );
        assert_eq!(
            ContextKey::new([8; 16]).open(BUCKET, &key("a"), &context, latest),
            other
        );
    }

    #[test]
    fn moving_bytes_between_partition_and_sort_key_breaks_the_seal() {
        let one = Key::with_sort("ab", "c").expect("short");
        let other = Key::with_sort("a", "bc").expect("short");
        let context = sealer().seal(BUCKET, &one, &clock());
        let opened = sealer().open(BUCKET, &other, &context, Hlc(u64::MAX));
        assert_eq!(opened, Err(ContextError::OtherKey));
    }

    #[test]
    fn a_context_from_the_future_is_refused() {
        let context = sealer().seal(BUCKET, &key("a"), &clock());
        let opened = sealer().open(BUCKET, &key("a"), &context, Hlc::from_millis(400));
        assert_eq!(opened, Err(ContextError::Future { ahead_ms: 600 }));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let context = sealer().seal(BUCKET, &key("a"), &clock());
        for bit in 0..context.0.len() * 8 {
            let mut bytes = context.0.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let damaged = Context(bytes.into());
            assert!(
                sealer()
                    .open(BUCKET, &key("a"), &damaged, Hlc(u64::MAX))
                    .is_err()
            );
        }
    }

    #[test]
    fn a_clock_that_does_not_fit_is_refused_for_writes_only() {
        let mut clock = Clock::new();
        for at in 0..200 {
            clock.insert(Dot::new(ActorId(1), Hlc(at * 10)));
        }
        let refused = ContextKey::check_size(&clock);
        assert!(matches!(refused, Err(ContextError::TooLong { size }) if size > 1024));
        // What merging made too long can still be read and replaced.
        let context = sealer().seal(BUCKET, &key("a"), &clock);
        assert_eq!(
            sealer().open(BUCKET, &key("a"), &context, Hlc(u64::MAX)),
            Ok(clock)
        );
    }

    #[test]
    fn the_bytes_of_a_context_are_fixed() {
        let context = sealer().seal(BUCKET, &key("a"), &clock());
        assert_eq!(hex::encode(context.as_bytes()), GOLDEN);
    }

    /// Version, one interval (actor 3, millisecond 1000, counter 0, one point long), then the MAC.
    const GOLDEN: &str = "010103e80300000000000000558dcd6d8b69d485d54c85aa68714e52";

    proptest! {
        #[test]
        fn a_context_survives_its_text(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let context = Context(bytes.into());
            prop_assert_eq!(context.to_string().parse(), Ok(context));
        }

        #[test]
        fn any_text_is_a_context_with_that_text_or_an_error(text in "[A-Za-z0-9_+=-]{0,40}") {
            if let Ok(context) = text.parse::<Context>() {
                prop_assert_eq!(context.to_string(), text);
            }
        }
    }
}
