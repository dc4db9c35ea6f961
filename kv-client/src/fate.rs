//! What became of a write.

use std::future::IntoFuture;
use std::time::Duration;

use futures::future::BoxFuture;
use kv_net::message::FateV1;
use kv_net::{Request, Response};
use kv_types::WriteId;

use crate::bucket::{Bucket, MaybeKey};
use crate::error::Error;
use crate::route::Ranking;
use crate::session::{Call, Place};

pub use kv_net::message::WriteFate;

/// A question what became of a write; await it to send it.
///
/// Asking changes nothing, but that a write which few replicas have is brought to enough of them, before it is said to be
/// applied. That a write was *not* applied can be said only some minutes after it was made (its horizon of a minute, and for as
/// long as the nodes keep deletions), and only if all nodes answer; until then it is [`WriteFate::Unknown`].
#[derive(Debug, Clone)]
#[must_use = "a request is sent when it is awaited"]
pub struct Fate {
    bucket: Bucket,
    key: MaybeKey,
    write_id: WriteId,
    timeout: Duration,
}

impl Fate {
    pub(crate) fn new(bucket: Bucket, key: MaybeKey, write_id: WriteId) -> Self {
        let timeout = bucket.session.options().deadline;
        Self {
            bucket,
            key,
            write_id,
            timeout,
        }
    }

    /// The whole time of the request, all attempts included. Default: the client's, 1 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.timeout = deadline;
        self
    }

    async fn send(self) -> Result<WriteFate, Error> {
        let Self {
            bucket,
            key,
            write_id,
            timeout,
        } = self;
        let key = key?;
        let call = Call {
            bucket: bucket.name,
            via: bucket.via,
            place: Place::Key(key.clone()),
            ranking: Ranking::Slots,
            writes: false,
            write_id: bucket.session.new_write_id(),
            timeout,
            numbers: (None, None),
            request: Box::new(move |routed, head, _| {
                Request::Fate(FateV1 {
                    head,
                    bucket: routed.bucket,
                    key: key.clone(),
                    write_id,
                })
            }),
            read: |response| match response {
                Response::Fate(reply) => Ok(reply.fate),
                _ => Err("it does not say what became of the write".to_owned()),
            },
        };
        bucket.session.run(call).await
    }
}

impl IntoFuture for Fate {
    type Output = Result<WriteFate, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
