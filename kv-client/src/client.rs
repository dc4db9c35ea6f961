//! The client: a connection to a cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kv_ring::Topology;
use kv_types::{BucketName, BucketNameError, Level, WriteId};

use crate::bucket::Bucket;
use crate::collection::Collection;
use crate::connect_error::ConnectError;
use crate::error::Error;
use crate::fate::Fate;
use crate::get::Get;
use crate::into_key::IntoKey;
use crate::net::NetTransport;
use crate::options::Options;
use crate::put::{Delete, Put};
use crate::read::Read;
use crate::session::Session;
use crate::target::Target;
use crate::transport::Transport;
use crate::update::{Change, Update};

/// A connection to a cluster. Cheap to clone, shared between threads; clones share everything.
///
/// It knows the whole topology and sends each request to a replica of its key. It needs one living
/// node of those it was given or ever heard of.
///
/// ```no_run
/// # async fn example() -> Result<(), kv_client::Error> {
/// use kv_client::{Change, Client};
///
/// let client = Client::connect("kv://127.0.0.1:7401,127.0.0.1:7402?context=dev").await?;
/// client.put("hello", "world").await?;
/// let value = client.get("hello").await?.one()?;
/// assert_eq!(value.as_deref(), Some(&b"world"[..]));
///
/// // Read, decide on all siblings, write with the context of the read.
/// client.update("visits", |read| {
///     let seen = read.siblings().iter().filter_map(|sibling| sibling.value()).count();
///     Change::Put(format!("{seen} concurrent values seen").into())
/// }).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) session: Arc<Session>,
}

impl Client {
    /// Connects, within 3 s: `"kv://host:port,host:port?context=name"`, [`Target::context`],
    /// [`Target::from_env`]. Call it inside a tokio runtime.
    ///
    /// All seeds are asked at once; the first that answers is enough.
    ///
    /// # Errors
    /// [`ConnectError`]; it names every seed with its error.
    pub async fn connect<T>(target: T) -> Result<Self, ConnectError>
    where
        T: TryInto<Target, Error: Into<ConnectError>>,
    {
        Self::builder().connect(target).await
    }

    /// Begins a client with other defaults.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects through a transport of the caller's, as a simulation does. Seeds are host:port.
    ///
    /// # Errors
    /// [`ConnectError`] when no seed answers in time.
    pub async fn with_transport<S: AsRef<str>>(
        transport: Arc<dyn Transport>,
        seeds: impl IntoIterator<Item = S>,
        options: Options,
    ) -> Result<Self, ConnectError> {
        let seeds = seeds
            .into_iter()
            .map(|seed| Arc::from(seed.as_ref()))
            .collect();
        let session = Session::connect(transport, seeds, options).await?;
        Ok(Self {
            session: Arc::new(session),
        })
    }

    /// Reads a key of the bucket `default`. See [`Bucket::get`].
    pub fn get(&self, key: impl IntoKey) -> Get {
        self.default_bucket().get(key)
    }

    /// Writes a key of the bucket `default`. See [`Bucket::put`].
    pub fn put(&self, key: impl IntoKey, value: impl Into<Bytes>) -> Put {
        self.default_bucket().put(key, value)
    }

    /// Asks what became of a write of a key of the bucket `default`. See [`Bucket::fate`].
    pub fn fate(&self, key: impl IntoKey, write_id: WriteId) -> Fate {
        self.default_bucket().fate(key, write_id)
    }

    /// Deletes a key of the bucket `default`. See [`Bucket::delete`].
    pub fn delete(&self, key: impl IntoKey) -> Delete {
        self.default_bucket().delete(key)
    }

    /// Reads, decides and writes a key of the bucket `default`. See [`Bucket::update`].
    pub fn update<F>(&self, key: impl IntoKey, change: F) -> Update<F>
    where
        F: FnMut(Read<Bytes>) -> Change<Bytes> + Send + 'static,
    {
        self.default_bucket().update(key, change)
    }

    /// A bucket by its name. Whether the cluster has it shows with the first request.
    ///
    /// # Errors
    /// [`Error::BucketName`] when the text cannot name a bucket.
    pub fn bucket<N>(&self, name: N) -> Result<Bucket, Error>
    where
        N: TryInto<BucketName, Error: Into<NameError>>,
    {
        let name = name.try_into().map_err(|error| error.into().0)?;
        Ok(Bucket {
            session: Arc::clone(&self.session),
            name,
            via: None,
            token: None,
        })
    }

    /// A bucket with typed keys and values.
    ///
    /// # Errors
    /// [`Error::BucketName`] when the text cannot name a bucket.
    pub fn collection<K, V>(&self, bucket: &str) -> Result<Collection<K, V>, Error> {
        Ok(Collection::new(self.bucket(bucket)?))
    }

    /// The bucket that requests use when they name none.
    #[must_use]
    pub fn default_bucket(&self) -> Bucket {
        let name = BucketName::default_bucket();
        Bucket {
            session: Arc::clone(&self.session),
            name,
            via: None,
            token: None,
        }
    }

    /// The newest topology that this client knows.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.session.topology()
    }
}

/// Why a value does not name a bucket; it lets [`Client::bucket`] take names and texts alike.
#[derive(Debug)]
pub struct NameError(BucketNameError);

impl From<BucketNameError> for NameError {
    fn from(error: BucketNameError) -> Self {
        Self(error)
    }
}

impl From<core::convert::Infallible> for NameError {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}

/// A client in the making: defaults for all its requests.
#[derive(Debug, Clone, Default)]
pub struct ClientBuilder {
    options: Options,
}

impl ClientBuilder {
    /// The whole time of a request that names none. Default 1 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = deadline;
        self
    }

    /// The level of requests that name none. Default [`Level::Usual`]: what the cluster's mode says.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.options.level = level;
        self
    }

    /// The whole time of connecting. Default 3 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// All defaults at once.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Connects. See [`Client::connect`].
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn connect<T>(self, target: T) -> Result<Client, ConnectError>
    where
        T: TryInto<Target, Error: Into<ConnectError>>,
    {
        let resolved = target.try_into().map_err(Into::into)?.resolve()?;
        let transport = Arc::new(NetTransport::open(resolved.credentials)?);
        Client::with_transport(transport, resolved.seeds, self.options).await
    }
}
