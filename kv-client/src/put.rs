//! Writing and deleting one key.

use std::future::IntoFuture;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_net::message::{PutV1, WriteKind, WriteOptions};
use kv_net::{Request, Response};
use kv_types::{Context, Durability, Key, Level, NodeId, Object, WriteId};

use crate::bucket::{Bucket, MaybeKey};
use crate::error::Error;
use crate::explain::{ExplainedError, Explanation};
use crate::get::unexplained;
use crate::route::Ranking;
use crate::session::{Call, Place, Session};

/// A write that was acknowledged: it survives the loss of power on every node of [`Self::acked`], unless less was asked for
/// ([`Durability`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What to write with next, so that this write and all that it replaced are replaced.
    pub context: Context,
    /// The nodes that had acknowledged when the reply was sent; more may follow.
    pub acked: Vec<NodeId>,
    /// How many had to.
    pub needed: u8,
    /// The client's name of the write, the same in all attempts.
    pub write_id: WriteId,
}

/// The id of a write, from the moment on in which somebody wants to know it.
#[derive(Debug, Default)]
struct Name(OnceLock<WriteId>);

impl Name {
    fn of(&self, session: &Session) -> WriteId {
        *self.0.get_or_init(|| session.new_write_id())
    }
}

impl Clone for Name {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// What puts and deletes have in common.
#[derive(Debug, Clone)]
pub(crate) struct WriteRequest {
    bucket: Bucket,
    key: MaybeKey,
    kind: WriteKind,
    value: Bytes,
    pub(crate) context: Option<Context>,
    pub(crate) level: Level,
    pub(crate) w: Option<u8>,
    ttl: Option<Duration>,
    durability: Option<Durability>,
    distinct_zones: u8,
    name: Name,
    pub(crate) timeout: Duration,
}

impl WriteRequest {
    pub(crate) fn new(bucket: Bucket, key: MaybeKey, kind: WriteKind, value: Bytes) -> Self {
        let options = bucket.session.options();
        let (level, timeout) = (options.level, options.deadline);
        Self {
            bucket,
            key,
            kind,
            value,
            context: None,
            level,
            w: None,
            ttl: None,
            durability: None,
            distinct_zones: 0,
            name: Name::default(),
            timeout,
        }
    }

    pub(crate) async fn explain(self) -> Result<(Written, Explanation), ExplainedError> {
        let (written, explanation) = self.run(true).await?;
        Ok((written, explanation.ok_or_else(unexplained)?))
    }

    pub(crate) async fn send(self) -> Result<Written, Error> {
        Ok(self.run(false).await?.0)
    }

    async fn run(
        self,
        is_explained: bool,
    ) -> Result<(Written, Option<Explanation>), ExplainedError> {
        let Self {
            bucket,
            key,
            kind,
            value,
            context,
            level,
            w,
            ttl,
            durability,
            distinct_zones,
            name,
            timeout,
        } = self;
        let write_id = name.of(&bucket.session);
        let key: Key = key.map_err(Error::from)?;
        check_size("the value", value.len(), Object::MAX_VALUE_BYTES)?;
        let context_bytes = context
            .as_ref()
            .map_or(0, |context| context.as_bytes().len());
        check_size("the context", context_bytes, Context::LONGEST_BYTES)?;
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let options = WriteOptions {
            level,
            w,
            ttl_ms,
            durability,
            distinct_zones,
        };
        let place = Place::Key(key.clone());
        let (session, name, token, written_key) = (
            Arc::clone(&bucket.session),
            bucket.name.clone(),
            bucket.token.clone(),
            key.clone(),
        );
        let call = Call {
            bucket: bucket.name,
            via: bucket.via,
            place,
            ranking: Ranking::Slots,
            writes: true,
            write_id,
            timeout,
            numbers: (None, w),
            request: Box::new(move |routed, head, since_first_ms| {
                let (bucket, key, context) = (routed.bucket, key.clone(), context.clone());
                let put = PutV1 {
                    head,
                    bucket,
                    key,
                    kind,
                    context,
                    options,
                    forwarded: false,
                    since_first_ms,
                };
                if is_explained {
                    Request::ExplainPut(put, value.clone())
                } else {
                    Request::Put(put, value.clone())
                }
            }),
            read: |response| match response {
                Response::Put(reply) => Ok((reply, None)),
                Response::ExplainPut(told) => {
                    let reply = told.answer.map_err(|error| error.message)?;
                    Ok((reply, Some(told.explanation)))
                }
                _ => Err("it is no reply to a put".to_owned()),
            },
        };
        let (reply, explanation) = bucket.session.run_explained(call).await?;
        let (context, acked, needed) = (reply.context, reply.acked, reply.needed);
        if let Some(token) = token {
            token.saw(&session.topology(), &name, &written_key, &context);
        }
        let written = Written {
            context,
            acked,
            needed,
            write_id,
        };
        Ok((written, explanation))
    }
}

fn check_size(what: &str, size: usize, limit: usize) -> Result<(), Error> {
    if size <= limit {
        return Ok(());
    }
    let detail = format!("{what} has {size} bytes, and the limit is {limit}");
    Err(Error::TooLarge {
        outcome: kv_types::Outcome::NotApplied,
        detail,
    })
}

macro_rules! write_request {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// All attempts carry one [write id](Self::write_id), so that a retry makes no second sibling; a clone is another write.
        /// Dropping the future gives up the wait; the write may then be applied or not, which [`Bucket::fate`] tells.
        #[derive(Debug, Clone)]
        #[must_use = "a request is sent when it is awaited"]
        pub struct $name(WriteRequest);

        impl $name {
            /// The context of the read that this write is based on: it replaces what that read saw,
            /// and stands beside what it did not see. It is bound to the key.
            pub fn context(mut self, context: Context) -> Self {
                self.0.context = Some(context);
                self
            }

            /// The name of the write, to ask what became of it where the answer does not say: [`Bucket::fate`]. It gets one now, if
            /// it had none, and must be sent within a minute then.
            #[must_use]
            pub fn write_id(&self) -> WriteId {
                self.0.name.of(&self.0.bucket.session)
            }

            /// How much is asked before it counts as done. Default: the client's.
            pub fn level(mut self, level: Level) -> Self {
                self.0.level = level;
                self
            }

            /// How many replicas must hold it, in place of the level's number: 1 to n.
            pub fn w(mut self, w: u8) -> Self {
                self.0.w = Some(w);
                self
            }

            /// What of it must be on disks before it is acknowledged. Default: what the bucket says.
            ///
            /// With [`Durability::Memory`] and [`Durability::One`] a loss of power may take what was acknowledged, or hide it
            /// from quorum reads until it is repaired.
            pub fn durability(mut self, durability: Durability) -> Self {
                self.0.durability = Some(durability);
                self
            }

            /// In how many zones those must be who acknowledge it, at least; no more than n, and than there are.
            pub fn distinct_zones(mut self, zones: u8) -> Self {
                self.0.distinct_zones = zones;
                self
            }

            /// Sends it, and has its coordinator say why it answers so. It costs a little more than a plain write.
            ///
            /// # Errors
            /// Those of a plain write, with what the coordinator did.
            pub async fn explain(self) -> Result<(Written, Explanation), ExplainedError> {
                self.0.explain().await
            }

            /// The whole time of the request, all attempts included. Default: the client's, 1 s.
            pub fn deadline(mut self, deadline: Duration) -> Self {
                self.0.timeout = deadline;
                self
            }
        }

        impl IntoFuture for $name {
            type Output = Result<Written, Error>;
            type IntoFuture = BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.0.send())
            }
        }
    };
}

write_request! {
    /// A write of one key; await it to send it.
    Put
}

write_request! {
    /// A deletion of one key; await it to send it. Deleting what is not there succeeds.
    Delete
}

impl Put {
    pub(crate) fn new(bucket: Bucket, key: MaybeKey, value: Bytes) -> Self {
        Self(WriteRequest::new(bucket, key, WriteKind::Put, value))
    }

    /// After this time readers see nothing of the value, as if it had been deleted; counted from now, in milliseconds.
    /// Zero is never. Default: the bucket's.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.0.ttl = Some(ttl);
        self
    }
}

impl Delete {
    pub(crate) fn new(bucket: Bucket, key: MaybeKey) -> Self {
        Self(WriteRequest::new(
            bucket,
            key,
            WriteKind::Delete,
            Bytes::new(),
        ))
    }
}
