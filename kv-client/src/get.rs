//! Reading one key.

use core::marker::PhantomData;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kv_net::message::{GetV1, ReadOptions};
use kv_net::{ErrorCode, Request};
use kv_types::{Level, Outcome};

use crate::bucket::{Bucket, MaybeKey};
use crate::error::Error;
use crate::explain::{ExplainedError, Explanation};
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

    /// Sends it, and has its coordinator say why it answers so. It costs a little more than a plain read.
    ///
    /// # Errors
    /// Those of a plain read, with what the coordinator did.
    pub async fn explain(self) -> Result<(Read<W::Value>, Explanation), ExplainedError> {
        let (read, explanation) = self.send(true).await?;
        Ok((read, explanation.ok_or_else(unexplained)?))
    }

    async fn send(
        self,
        is_explained: bool,
    ) -> Result<(Read<W::Value>, Option<Explanation>), ExplainedError> {
        let Self {
            bucket,
            key,
            level,
            r,
            timeout,
            view: _,
        } = self;
        let key = key.map_err(Error::from)?;
        let options = ReadOptions {
            level,
            r,
            headers_only: W::HEADERS_ONLY,
        };
        let place = Place::Key(key.clone());
        let (session, name, token) = (
            Arc::clone(&bucket.session),
            bucket.name.clone(),
            bucket.token.clone(),
        );
        let (asked_session, asked_name, asked_token, asked_key) = (
            Arc::clone(&session),
            name.clone(),
            token.clone(),
            key.clone(),
        );
        let call = Call {
            bucket: bucket.name,
            via: bucket.via,
            place,
            ranking: Ranking::Balanced,
            writes: false,
            write_id: bucket.session.new_write_id(),
            timeout,
            numbers: (r, None),
            request: Box::new(move |routed, head, _| {
                let (bucket, key) = (routed.bucket, asked_key.clone());
                let topology = asked_session.topology();
                let seen = asked_token.as_ref();
                let seen = seen.and_then(|token| token.context(&topology, &asked_name, &key));
                let get = GetV1 {
                    head,
                    bucket,
                    key,
                    options,
                    seen,
                };
                if is_explained {
                    Request::ExplainGet(get)
                } else {
                    Request::Get(get)
                }
            }),
            read: |response| reply::get(response, W::HEADERS_ONLY),
        };
        let (read, explanation) = bucket.session.run_explained(call).await?;
        if let Some(token) = token {
            token.saw(&session.topology(), &name, &key, read.context());
        }
        Ok((seen_as::<W>(read)?, explanation))
    }
}

impl<W: View> IntoFuture for Get<W> {
    type Output = Result<Read<W::Value>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.send(false).await?.0) })
    }
}

/// A node that was asked to explain did not.
pub(crate) fn unexplained() -> Error {
    Error::Refused {
        code: ErrorCode::Unsupported,
        outcome: Outcome::Unknown,
        detail: "the answer came without an explanation".to_owned(),
    }
}
