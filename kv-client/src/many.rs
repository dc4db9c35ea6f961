//! Many keys at once.

use std::future::IntoFuture;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};

use crate::bucket::Bucket;
use crate::get::Get;
use crate::into_key::IntoKey;
use crate::put::Put;

/// One request for each of many keys; await it to send them, each to a replica of its key.
///
/// It gives the results in the order of the keys, one for each: some may have failed while others are done. It is not
/// atomic, and no order holds between the requests; of two puts of one key either may be the later one. Dropping its future
/// gives up the wait for those that are not answered.
#[derive(Debug, Clone)]
#[must_use = "requests are sent when they are awaited"]
pub struct Many<R> {
    requests: Vec<R>,
    at_once: usize,
}

/// Requests that are under way at once, if nothing else was said.
const AT_ONCE: usize = 64;

impl<R> Many<R> {
    fn new(requests: impl Iterator<Item = R>) -> Self {
        Self {
            requests: requests.collect(),
            at_once: AT_ONCE,
        }
    }

    /// How many requests are under way at once, at least 1. Default 64.
    pub fn at_once(mut self, at_once: usize) -> Self {
        self.at_once = at_once.max(1);
        self
    }

    /// Sets up each request: its level, its deadline, its context.
    pub fn each(mut self, set_up: impl FnMut(R) -> R) -> Self {
        self.requests = self.requests.into_iter().map(set_up).collect();
        self
    }
}

impl<R> IntoFuture for Many<R>
where
    R: IntoFuture + Send + 'static,
    R::IntoFuture: Send,
    R::Output: Send,
{
    type Output = Vec<R::Output>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let requests = self.requests.into_iter().map(IntoFuture::into_future);
        Box::pin(stream::iter(requests).buffered(self.at_once).collect())
    }
}

impl Bucket {
    /// Reads many keys, each as [`get`](Self::get) does.
    pub fn get_many<K: IntoKey>(&self, keys: impl IntoIterator<Item = K>) -> Many<Get> {
        Many::new(keys.into_iter().map(|key| self.get(key)))
    }

    /// Writes many keys, each as [`put`](Self::put) does.
    pub fn put_many<K: IntoKey, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Many<Put> {
        Many::new(pairs.into_iter().map(|(key, value)| self.put(key, value)))
    }
}
