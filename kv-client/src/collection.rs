//! Typed keys and values over a bucket.

use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context as TaskContext, Poll};
use std::sync::Arc;

use futures::stream::{Stream, StreamExt};
use kv_types::WriteId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bucket::Bucket;
use crate::codec::{Codec, Json, Postcard};
use crate::error::Error;
use crate::fate::Fate;
use crate::get::Get;
use crate::key_codec::KeyCodec;
use crate::put::{Delete, Put};
use crate::read::Read;
use crate::resolve::{Refuse, Resolver};
use crate::scan::{Entry, Scan};
use crate::session_token::SessionToken;
use crate::update::{Change, Plan};
use crate::view::{Typed, seen_as};

/// Types that are named and not held.
type Types<K, V, C> = PhantomData<fn() -> (K, V, C)>;

/// A bucket whose keys are of type `K` and whose values are of type `V`, written with codec `C`.
///
/// The cluster does not know the types: read with the ones that wrote. Cheap to clone.
///
/// ```no_run
/// # async fn example() -> Result<(), kv_client::Error> {
/// use std::collections::BTreeSet;
///
/// let client = kv_client::Client::connect("kv://127.0.0.1:7401?context=dev").await?;
/// let carts = client
///     .collection::<(String, u64), BTreeSet<String>>("default")?
///     .resolver(kv_client::Union);
/// let key = ("ann".to_owned(), 7);
/// let cart = carts.update(&key, |cart| {
///     let mut cart = cart.unwrap_or_default();
///     cart.insert("milk".to_owned());
///     Some(cart)
/// }).await?;
/// assert!(cart.is_some_and(|cart| cart.contains("milk")));
/// # Ok(()) }
/// ```
pub struct Collection<K, V, C = Postcard> {
    bucket: Bucket,
    resolver: Arc<dyn Resolver<V>>,
    types: Types<K, V, C>,
}

impl<K, V, C> Clone for Collection<K, V, C> {
    fn clone(&self) -> Self {
        let (bucket, resolver) = (self.bucket.clone(), Arc::clone(&self.resolver));
        Self {
            bucket,
            resolver,
            types: PhantomData,
        }
    }
}

impl<K, V, C> core::fmt::Debug for Collection<K, V, C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Collection")
            .field("bucket", &self.bucket.name)
            .finish_non_exhaustive()
    }
}

impl<K, V> Collection<K, V, Postcard> {
    pub(crate) fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            resolver: Arc::new(Refuse),
            types: PhantomData,
        }
    }

    /// The same collection with values written as JSON.
    #[must_use]
    pub fn json(self) -> Collection<K, V, Json> {
        Collection {
            bucket: self.bucket,
            resolver: self.resolver,
            types: PhantomData,
        }
    }
}

impl<K, V, C> Collection<K, V, C>
where
    K: KeyCodec,
    V: Serialize + DeserializeOwned + Send + 'static,
    C: Codec,
{
    /// How conflicts are resolved in [`Self::value`] and [`Self::update`]. Default: they are errors.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolver<V> + 'static) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// The same collection within a session, as [`Bucket::session`] has it.
    #[must_use]
    pub fn session(mut self, token: &SessionToken) -> Self {
        self.bucket = self.bucket.session(token);
        self
    }

    /// The bucket beneath.
    #[must_use]
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Reads a key with all its siblings.
    pub fn get(&self, key: &K) -> Get<Typed<V, C>> {
        Get::new(self.bucket.clone(), key.to_key())
    }

    /// Reads the one value of a key; the resolver decides on conflicts.
    ///
    /// # Errors
    /// As for a get, and [`Error::Conflict`] when the resolver cannot decide.
    pub async fn value(&self, key: &K) -> Result<Option<V>, Error> {
        Ok(self.get(key).await?.resolve(&*self.resolver)?)
    }

    /// Writes a key.
    ///
    /// # Errors
    /// [`Error::Codec`] when the value cannot be encoded; the request itself fails when awaited.
    pub fn put(&self, key: &K, value: &V) -> Result<Put, Error> {
        Ok(Put::new(
            self.bucket.clone(),
            key.to_key(),
            C::encode(value)?,
        ))
    }

    /// Asks what became of a write of a key. See [`Bucket::fate`].
    pub fn fate(&self, key: &K, write_id: WriteId) -> Fate {
        Fate::new(self.bucket.clone(), key.to_key(), write_id)
    }

    /// Deletes a key.
    pub fn delete(&self, key: &K) -> Delete {
        Delete::new(self.bucket.clone(), key.to_key())
    }

    /// Reads the one value of a key (the resolver decides on conflicts), and writes what `change`
    /// makes of it with the context of the read; `None` deletes. The result is what was written.
    ///
    /// As with [`Bucket::update`], `change` may be called several times, and a concurrent write
    /// becomes a sibling.
    ///
    /// # Errors
    /// As for reads and writes, [`Error::Conflict`] when the resolver cannot decide, and
    /// [`Error::Codec`].
    pub async fn update(
        &self,
        key: &K,
        mut change: impl FnMut(Option<V>) -> Option<V> + Send,
    ) -> Result<Option<V>, Error> {
        let plan = Plan::new(self.bucket.clone(), key.to_key());
        let decide = |read: Read| {
            let was_written = !read.siblings().is_empty();
            let value = seen_as::<Typed<V, C>>(read)?.resolve(&*self.resolver)?;
            let new = change(value);
            let change = match &new {
                Some(value) => Change::Put(C::encode(value)?),
                None if was_written => Change::Delete,
                None => Change::Keep,
            };
            Ok((change, new))
        };
        let (_, new) = plan.run(decide).await?;
        Ok(new)
    }

    /// All keys with their siblings, in the order of their hashes.
    pub fn scan(&self) -> CollectionScan<K, V, C> {
        CollectionScan {
            rows: Scan::new(self.bucket.clone()),
            keys: PhantomData,
        }
    }
}

/// A scan of a collection: a stream of typed keys and what was read of each.
#[must_use = "a scan does nothing until it is polled"]
pub struct CollectionScan<K, V, C = Postcard>
where
    V: DeserializeOwned + Send + 'static,
    C: Codec,
{
    rows: Scan<Typed<V, C>>,
    keys: PhantomData<fn() -> K>,
}

impl<K, V, C> core::fmt::Debug for CollectionScan<K, V, C>
where
    V: DeserializeOwned + Send + 'static,
    C: Codec,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CollectionScan")
            .field("rows", &self.rows)
            .finish()
    }
}

impl<K, V, C> CollectionScan<K, V, C>
where
    K: KeyCodec,
    V: DeserializeOwned + Send + 'static,
    C: Codec,
{
    /// The next row; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<(K, Read<V>), Error>> {
        StreamExt::next(self).await
    }

    /// The scan of the bucket beneath, for its settings and its cursor.
    pub fn rows(&mut self) -> &mut Scan<Typed<V, C>> {
        &mut self.rows
    }
}

impl<K, V, C> Stream for CollectionScan<K, V, C>
where
    K: KeyCodec,
    V: DeserializeOwned + Send + 'static,
    C: Codec,
{
    type Item = Result<(K, Read<V>), Error>;

    fn poll_next(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().rows.poll_next_unpin(task).map(|row| {
            row.map(|row| {
                let Entry { key, read } = row?;
                Ok((K::from_key(&key).map_err(Error::decoding)?, read))
            })
        })
    }
}
