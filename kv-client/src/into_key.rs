//! What can be used as a key in requests.

use bytes::Bytes;
use kv_types::{Key, KeyError};

/// Anything that is a key, or bytes that may be one. A pair is a partition key and a sort key.
///
/// A request keeps the error until it is awaited, so that calls read well:
/// `bucket.get("user:42")`, `bucket.put(("cart:7", "line:1"), "2 × milk")`.
pub trait IntoKey {
    /// The key.
    ///
    /// # Errors
    /// [`KeyError`] when a part is empty or too long.
    fn into_key(self) -> Result<Key, KeyError>;
}

impl IntoKey for Key {
    fn into_key(self) -> Result<Key, KeyError> {
        Ok(self)
    }
}

impl IntoKey for &Key {
    fn into_key(self) -> Result<Key, KeyError> {
        Ok(self.clone())
    }
}

impl IntoKey for Result<Key, KeyError> {
    fn into_key(self) -> Self {
        self
    }
}

impl IntoKey for &str {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new(Bytes::copy_from_slice(self.as_bytes()))
    }
}

impl IntoKey for String {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new(self)
    }
}

impl IntoKey for &String {
    fn into_key(self) -> Result<Key, KeyError> {
        self.as_str().into_key()
    }
}

impl IntoKey for &[u8] {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new(Bytes::copy_from_slice(self))
    }
}

impl IntoKey for Vec<u8> {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new(self)
    }
}

impl IntoKey for Bytes {
    fn into_key(self) -> Result<Key, KeyError> {
        Key::new(self)
    }
}

impl<P: AsRef<[u8]>, S: AsRef<[u8]>> IntoKey for (P, S) {
    fn into_key(self) -> Result<Key, KeyError> {
        let part = Bytes::copy_from_slice;
        Key::with_sort(part(self.0.as_ref()), part(self.1.as_ref()))
    }
}
