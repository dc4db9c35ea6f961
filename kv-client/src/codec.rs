//! How typed values become bytes.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// A way to write values as bytes. Values written with one codec are read with the same one.
pub trait Codec: Send + Sync + 'static {
    /// The bytes of a value.
    ///
    /// # Errors
    /// [`Error::Codec`] when the value cannot be expressed.
    fn encode<V: Serialize>(value: &V) -> Result<Bytes, Error>;

    /// The value of bytes.
    ///
    /// # Errors
    /// [`Error::Codec`] when the bytes are not exactly one value of this type.
    fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, Error>;
}

/// Compact and fast; the default. It stores no field names, so that a type may not change once values
/// of it are stored. Bytes left over are an error: they belong to another type.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

impl Codec for Postcard {
    fn encode<V: Serialize>(value: &V) -> Result<Bytes, Error> {
        postcard::to_stdvec(value)
            .map(Bytes::from)
            .map_err(Error::encoding)
    }

    fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, Error> {
        match postcard::take_from_bytes(bytes).map_err(Error::decoding)? {
            (value, []) => Ok(value),
            (_, rest) => Err(Error::decoding(format!(
                "{} bytes are left over",
                rest.len()
            ))),
        }
    }
}

/// Readable, and lenient when types gain optional fields.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Codec for Json {
    fn encode<V: Serialize>(value: &V) -> Result<Bytes, Error> {
        serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(Error::encoding)
    }

    fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, Error> {
        serde_json::from_slice(bytes).map_err(Error::decoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_both_codecs() {
        let value = (7_u32, "milk".to_owned(), vec![Some(1.5), None]);
        let bytes = Postcard::encode(&value).expect("can be encoded");
        assert_eq!(
            Postcard::decode::<(u32, String, Vec<Option<f64>>)>(&bytes).unwrap(),
            value
        );
        let bytes = Json::encode(&value).expect("can be encoded");
        assert_eq!(
            Json::decode::<(u32, String, Vec<Option<f64>>)>(&bytes).unwrap(),
            value
        );
    }

    #[test]
    fn bytes_of_another_type_are_refused() {
        let bytes = Postcard::encode(&(1_u8, 2_u8)).expect("can be encoded");
        let error = Postcard::decode::<u8>(&bytes).unwrap_err();
        assert_eq!(error.code(), "codec");
        assert!(
            error.to_string().contains("1 bytes are left over"),
            "{error}"
        );
        assert!(Postcard::decode::<u64>(&[]).is_err());
        assert!(Json::decode::<u8>(b"{}").is_err());
    }
}
