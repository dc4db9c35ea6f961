//! Reading one key.

use core::marker::PhantomData;
use std::future::IntoFuture;
use std::time::Duration;

use futures::future::BoxFuture;
use kv_net::Request;
use kv_net::message::{GetV1, ReadOptions};
use kv_types::Level;

use crate::bucket::{Bucket, MaybeKey};
use crate::error::Error;
use crate::read::Read;
use crate::reply;
use crate::route::Ranking;
use crate::session::{Call, Place};
use crate::view::{Raw, View, seen_as};

/// A read of one key; await it to send it.
///
/// Dropping its future gives up the wait and changes nothing.
#[derive(Debug, Clone)]
#[must_use = "a request is sent when it is awaited"]
pub struct Get<W: View = Raw> {
    bucket: Bucket,
    key: MaybeKey,
    pub(crate) level: Level,
    pub(crate) r: Option<u8>,
    pub(crate) timeout: Duration,
    view: PhantomData<fn() -> W>,
}

impl<W: View> Get<W> {
    pub(crate) fn new(bucket: Bucket, key: MaybeKey) -> Self {
        let options = bucket.session.options();
        let (level, timeout) = (options.level, options.deadline);
        Self {
            bucket,
            key,
            level,
            r: None,
            timeout,
            view: PhantomData,
        }
    }

    /// How much is asked of the answer. Default: the client's.
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// How many replicas must answer, in place of the level's number: 1 to n.
    pub fn r(mut self, r: u8) -> Self {
        self.r = Some(r);
        self
    }

    /// The whole time of the request, all attempts included. Default: the client's, 1 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.timeout = deadline;
        self
    }

    async fn send(self) -> Result<Read<W::Value>, Error> {
        let Self {
            bucket,
            key,
            level,
            r,
            timeout,
            view: _,
        } = self;
        let key = key?;
        let options = ReadOptions {
            level,
            r,
            headers_only: W::HEADERS_ONLY,
        };
        let place = Place::Key(key.clone());
        let call = Call {
            bucket: bucket.name,
            via: bucket.via,
            place,
            ranking: Ranking::Balanced,
            writes: false,
            write_id: bucket.session.new_write_id(),
            timeout,
            numbers: (r, None),
            request: Box::new(move |routed, head| {
                let (bucket, key) = (routed.bucket, key.clone());
                Request::Get(GetV1 {
                    head,
                    bucket,
                    key,
                    options,
                })
            }),
            read: |response| reply::get(response, W::HEADERS_ONLY),
        };
        seen_as::<W>(bucket.session.run(call).await?)
    }
}

impl<W: View> IntoFuture for Get<W> {
    type Output = Result<Read<W::Value>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
