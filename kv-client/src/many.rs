//! Many keys at once.

use std::collections::BTreeMap;
use std::future::IntoFuture;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use kv_types::NodeId;

use crate::bucket::Bucket;
use crate::get::Get;
use crate::into_key::IntoKey;
use crate::put::Put;

/// One request for each of many keys, grouped by the owners of the keys; await it to send them, each to a replica of its key.
///
/// It gives the results in the order of the keys, one for each: some may have failed while others are done. It is not
/// atomic, and no order holds between the requests; of two puts of one key either may be the later one. Requests to one node
/// share its connection, and so its packets. Each group has as many requests under way as were asked for, so a slow node holds back no
/// puts but of keys of which it is the first owner; gets go to any replica. Dropping its future gives up the wait for those that
/// are not answered.
#[derive(Debug, Clone)]
#[must_use = "requests are sent when they are awaited"]
pub struct Many<R> {
    /// With the first owner of each key, if it is known.
    requests: Vec<(Option<NodeId>, R)>,
    at_once: usize,
}

/// Requests that are under way at once for each owner, if nothing else was said.
const AT_ONCE: usize = 64;

impl<R> Many<R> {
    fn new(requests: impl Iterator<Item = (Option<NodeId>, R)>) -> Self {
        Self {
            requests: requests.collect(),
            at_once: AT_ONCE,
        }
    }

    /// How many requests are under way at once for each owner of keys, at least 1. Default 64.
    pub fn at_once(mut self, at_once: usize) -> Self {
        self.at_once = at_once.max(1);
        self
    }

    /// Sets up each request: its level, its deadline, its context.
    pub fn each(mut self, mut set_up: impl FnMut(R) -> R) -> Self {
        let requests = self.requests.into_iter();
        self.requests = requests
            .map(|(owner, request)| (owner, set_up(request)))
            .collect();
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
        let mut groups: BTreeMap<Option<NodeId>, Vec<_>> = BTreeMap::new();
        for (place, (owner, request)) in self.requests.into_iter().enumerate() {
            let answer = request.into_future();
            let group = groups.entry(owner).or_default();
            group.push(async move { (place, answer.await) });
        }
        let groups = groups.into_values();
        let answers = stream::select_all(
            groups.map(|group| stream::iter(group).buffer_unordered(self.at_once)),
        );
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
        Many::new(keys.into_iter().map(|key| {
            let key = key.into_key();
            (self.first_owner(&key), Get::new(self.clone(), key))
        }))
    }

    /// Writes many keys, each as [`put`](Self::put) does.
    pub fn put_many<K: IntoKey, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Many<Put> {
        Many::new(pairs.into_iter().map(|(key, value)| {
            let key = key.into_key();
            let owner = self.first_owner(&key);
            (owner, Put::new(self.clone(), key, value.into()))
        }))
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
        let requests = requests.map(|request| (None, request));
        let answers = Many::new(requests).at_once(2).await;
        assert_eq!(answers, (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn one_that_waits_holds_back_no_other_group() {
        let (tell, told) = oneshot::channel();
        let slow = told
            .map(|answer| answer.expect("the other one tells"))
            .boxed();
        let other = async move {
            tell.send(0).expect("the first one waits");
            1
        };
        let owners = [1, 2].map(|node| Some(NodeId(node)));
        let requests = owners.into_iter().zip([slow, other.boxed()]);
        let answers = Many::new(requests).at_once(1).await;
        assert_eq!(answers, [0, 1]);
    }
}
