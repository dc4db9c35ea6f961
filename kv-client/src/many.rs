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
/// atomic, and no order holds between the requests; of two puts of one key either may be the later one. Requests to one node
/// share its connection; those that wait for a slow node hold others back only once as many wait as are under way at once. Dropping its future
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
        let requests = self.requests.into_iter().enumerate();
        let requests = requests.map(|(place, request)| {
            let answer = request.into_future();
            async move { (place, answer.await) }
        });
        let answers = stream::iter(requests).buffer_unordered(self.at_once);
        Box::pin(async move {
            let mut answers: Vec<(usize, R::Output)> = answers.collect().await;
            answers.sort_unstable_by_key(|(place, _)| *place);
            answers.into_iter().map(|(_, answer)| answer).collect()
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn one_that_waits_holds_back_no_other_and_answers_come_in_the_order_of_the_requests() {
        let (tell, told) = oneshot::channel();
        // Sent first, and answered only after the last one.
        let slow = told
            .map(|answer| answer.expect("the last one tells"))
            .boxed();
        let quick = (1..9).map(|number| async move { number }.boxed());
        let last = async move {
            tell.send(0).expect("the first one waits");
            9
        };
        let requests = [slow].into_iter().chain(quick).chain([last.boxed()]);
        let answers = Many::new(requests).at_once(2).await;
        assert_eq!(answers, (0..10).collect::<Vec<_>>());
    }
}
