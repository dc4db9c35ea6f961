//! What a read brings back of each value: its bytes, a typed value, or only its digest.

use core::marker::PhantomData;

use bytes::Bytes;
use kv_types::Payload;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, Postcard};
use crate::error::Error;
use crate::read::{Read, Sibling};

/// A choice of what a read brings back. The choices are the types of this module.
pub trait View: sealed::Sealed + Send + 'static {
    /// What stands for a value in the [`Read`].
    type Value: Send;
    /// Whether the values themselves are not sent.
    const HEADERS_ONLY: bool;

    /// What stands for the value with this digest and these bytes; there are none for headers.
    ///
    /// # Errors
    /// [`Error::Codec`] when the bytes are not of the wanted type.
    fn see(digest: Digest, bytes: Bytes) -> Result<Self::Value, Error>;
}

mod sealed {
    /// Keeps the choices to those of this crate.
    pub trait Sealed {}
}

/// A read of bytes as the view shows it.
pub(crate) fn seen_as<W: View>(read: Read<Bytes>) -> Result<Read<W::Value>, Error> {
    let Read {
        siblings,
        context,
        answered,
        needed,
    } = read;
    let see = |Sibling {
                   value,
                   dot,
                   write_id,
                   expires_ms,
                   size_bytes,
                   hash,
               }| {
        let value = value
            .map(|bytes| W::see(Digest { size_bytes, hash }, bytes))
            .transpose()?;
        Ok(Sibling {
            value,
            dot,
            write_id,
            expires_ms,
            size_bytes,
            hash,
        })
    };
    let siblings = siblings
        .into_iter()
        .map(see)
        .collect::<Result<_, Error>>()?;
    Ok(Read {
        siblings,
        context,
        answered,
        needed,
    })
}

/// The bytes of values.
#[derive(Debug, Clone, Copy)]
pub struct Raw;

/// Length and hash of values; the values themselves are not sent.
#[derive(Debug, Clone, Copy)]
pub struct DigestOnly;

/// Values of one type, written with one codec.
#[derive(Debug, Clone, Copy)]
pub struct Typed<V, C = Postcard>(PhantomData<fn() -> (V, C)>);

/// Length and hash of a value: enough to know whether it is equal to one at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    /// Length in bytes.
    pub size_bytes: u32,
    /// xxh3-64 of the bytes.
    pub hash: u64,
}

impl Digest {
    /// The digest of a value at hand. Lengths above `u32::MAX`, which no value has, saturate.
    #[must_use]
    pub fn of(value: &Bytes) -> Self {
        let hash = Payload::Value(value.clone()).hash();
        Self {
            size_bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
            hash,
        }
    }
}

impl sealed::Sealed for Raw {}

impl View for Raw {
    type Value = Bytes;
    const HEADERS_ONLY: bool = false;

    fn see(_: Digest, bytes: Bytes) -> Result<Bytes, Error> {
        Ok(bytes)
    }
}

impl sealed::Sealed for DigestOnly {}

impl View for DigestOnly {
    type Value = Digest;
    const HEADERS_ONLY: bool = true;

    fn see(digest: Digest, _: Bytes) -> Result<Digest, Error> {
        Ok(digest)
    }
}

impl<V, C> sealed::Sealed for Typed<V, C> {}

impl<V: DeserializeOwned + Send + 'static, C: Codec> View for Typed<V, C> {
    type Value = V;
    const HEADERS_ONLY: bool = false;

    fn see(_: Digest, bytes: Bytes) -> Result<V, Error> {
        C::decode(&bytes)
    }
}
