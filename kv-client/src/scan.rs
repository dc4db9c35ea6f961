//! Listing a whole bucket in the order of hashes, or rows of one partition key in the order of their sort keys.

use core::marker::PhantomData;
use core::ops::{Bound, RangeBounds};
use core::pin::Pin;
use core::task::{Context as TaskContext, Poll};
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, Stream, StreamExt};
use kv_net::Request;
use kv_net::message::{ListV1, ReadOptions, RowsV1};
use kv_ring::{KeyHash, PartitionId};
use kv_types::{Key, Level};

use crate::bucket::Bucket;
use crate::cursor::{Cursor, CursorPlace};
use crate::error::Error;
use crate::read::Read;
use crate::reply::{self, Page};
use crate::route::Ranking;
use crate::session::{Call, Place};
use crate::view::{Raw, View, seen_as};

/// Partitions that are fetched while an earlier one is consumed.
const AHEAD: usize = 8;

/// One key before its view.
type Row = Result<(Key, Read<Bytes>), Error>;

/// One key of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T = Bytes> {
    /// The key.
    pub key: Key,
    /// Its siblings and its context. Deleted keys are listed for as long as the nodes remember them.
    pub read: Read<T>,
}

/// A scan of a bucket, or of rows of one partition key: a stream of entries in the order of their keys' hashes; keys of one
/// partition key come together, in the order of their sort keys.
///
/// It is no snapshot: each page shows the bucket as it is when the page is fetched. Pages of the next
/// partitions are fetched while one is consumed. After an error the stream ends; continue from
/// [`Self::cursor`].
#[must_use = "a scan does nothing until it is polled"]
pub struct Scan<W: View = Raw> {
    bucket: Bucket,
    level: Level,
    r: Option<u8>,
    timeout: Duration,
    page_items: u32,
    /// Only these.
    rows: Option<RowsV1>,
    cursor: Cursor,
    state: State,
    view: PhantomData<fn() -> W>,
}

impl<W: View> core::fmt::Debug for Scan<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { bucket, cursor, .. } = self;
        f.debug_struct("Scan")
            .field("bucket", &bucket.name)
            .field("cursor", cursor)
            .finish()
    }
}

enum State {
    /// Settings may still change.
    Ready,
    Running(Pages),
    Over,
}

/// What is being fetched, in order.
struct Pages {
    /// The partition after those being fetched; `None` after the last.
    next: Option<PartitionId>,
    fetching: FuturesOrdered<BoxFuture<'static, Result<Fetched, Error>>>,
    arrived: VecDeque<(Key, Read<Bytes>)>,
    /// The partition of what has arrived.
    partition: PartitionId,
}

struct Fetched {
    partition: PartitionId,
    page: Page,
}

impl<W: View> Scan<W> {
    pub(crate) fn new(bucket: Bucket) -> Self {
        let options = bucket.session.options();
        Self {
            level: options.level,
            r: None,
            timeout: options.page_deadline,
            page_items: options.page_items.max(1),
            rows: None,
            bucket,
            cursor: Cursor::start(),
            state: State::Ready,
            view: PhantomData,
        }
    }

    /// Rows of one partition key, in the order of their sort keys.
    pub(crate) fn rows(
        bucket: Bucket,
        partition_key: Bytes,
        range: &impl RangeBounds<Bytes>,
    ) -> Self {
        let behind = |bound: &Bytes| Bytes::from([&bound[..], &[0]].concat());
        let from = match range.start_bound() {
            Bound::Unbounded => Bytes::new(),
            Bound::Included(from) => from.clone(),
            Bound::Excluded(from) => behind(from),
        };
        let until = match range.end_bound() {
            Bound::Unbounded => None,
            Bound::Excluded(until) => Some(until.clone()),
            Bound::Included(until) => Some(behind(until)),
        };
        Self {
            rows: Some(RowsV1 {
                partition_key,
                from,
                until,
            }),
            ..Self::new(bucket)
        }
    }

    /// Continues where another scan was. Only before the first entry was taken.
    pub fn from(mut self, cursor: Cursor) -> Self {
        self.cursor = cursor;
        self
    }

    /// How much is asked of every page. Default: the client's.
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// How many replicas must answer for every page, in place of the level's number.
    pub fn r(mut self, r: u8) -> Self {
        self.r = Some(r);
        self
    }

    /// The whole time of one page, all attempts included. Default: the client's, 10 s.
    pub fn page_deadline(mut self, deadline: Duration) -> Self {
        self.timeout = deadline;
        self
    }

    /// The place after the last entry that was taken.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// How far the scan is: the partition of the last entry taken, and how many there are.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        let count = self.bucket.session.topology().partition_count().get();
        match &self.state {
            State::Ready => (0, count),
            State::Running(pages) => (u32::from(pages.partition.0), count),
            State::Over => (count, count),
        }
    }

    /// The next entry; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<Entry<W::Value>, Error>> {
        StreamExt::next(self).await
    }

    fn begin(&self) -> Result<Option<Pages>, Error> {
        let topology = self.bucket.session.topology();
        let count = topology.partition_count();
        let (partition, after) = match (&self.cursor.place, &self.rows) {
            (CursorPlace::End, _) => return Ok(None),
            // Each request finds out where the rows are.
            (CursorPlace::After(key), Some(_)) => (PartitionId(0), Some(key.clone())),
            (CursorPlace::At(_), Some(_)) => (PartitionId(0), None),
            (CursorPlace::At(hash), None) => (count.partition_of(*hash), None),
            (CursorPlace::After(key), None) => {
                let Some(bucket) = topology.bucket_by_name(&self.bucket.name) else {
                    let (bucket, epoch) = (self.bucket.name.clone(), topology.epoch());
                    let outcome = kv_types::Outcome::NotApplied;
                    return Err(Error::UnknownBucket {
                        bucket,
                        epoch,
                        outcome,
                    });
                };
                let (_, partition) = topology.locate(bucket.id, key.partition_key());
                (partition, Some(key.clone()))
            }
        };
        let next = match &self.rows {
            None => following(partition, count.get()),
            Some(_) => None,
        };
        let mut pages = Pages {
            next,
            fetching: FuturesOrdered::new(),
            arrived: VecDeque::new(),
            partition,
        };
        pages.fetching.push_back(self.fetch(partition, after)?);
        Ok(Some(pages))
    }

    /// Fetches the page of a partition that begins after a key.
    fn fetch(
        &self,
        partition: PartitionId,
        after: Option<Key>,
    ) -> Result<BoxFuture<'static, Result<Fetched, Error>>, Error> {
        let session = self.bucket.session.clone();
        let range = session.topology().partition_count().hash_range(partition);
        let options = ReadOptions {
            level: self.level,
            r: self.r,
            headers_only: W::HEADERS_ONLY,
        };
        let max_items = self.page_items;
        let rows = self.rows.clone();
        let begins_after = after.clone();
        let place = match &self.rows {
            None => Place::Hash(KeyHash(*range.start())),
            Some(rows) => Place::Key(Key::new(rows.partition_key.clone())?),
        };
        let call = Call {
            bucket: self.bucket.name.clone(),
            via: self.bucket.via,
            place,
            ranking: Ranking::Balanced,
            writes: false,
            write_id: session.new_write_id(),
            timeout: self.timeout,
            numbers: (self.r, None),
            request: Box::new(move |routed, head, _| {
                let (bucket, partition) = (routed.bucket, routed.partition.0);
                let (rows, after) = (rows.clone(), after.clone());
                Request::List(ListV1 {
                    head,
                    bucket,
                    partition,
                    rows,
                    after,
                    max_items,
                    options,
                })
            }),
            read: |response| reply::page(response, W::HEADERS_ONLY),
        };
        Ok(Box::pin(async move {
            let page = session.run(call).await?;
            if page.next_after.is_some() && page.next_after == begins_after {
                let detail = "a page of a scan ends where it begins; upgrade the nodes".to_owned();
                let code = kv_net::ErrorCode::Internal;
                let outcome = kv_types::Outcome::NotApplied;
                return Err(Error::Refused {
                    code,
                    outcome,
                    detail,
                });
            }
            Ok(Fetched { partition, page })
        }))
    }

    /// Takes what has arrived, then waits for the next page.
    fn poll_pages(&mut self, task: &mut TaskContext<'_>, pages: &mut Pages) -> Poll<Option<Row>> {
        let count = self.bucket.session.topology().partition_count().get();
        loop {
            while pages.fetching.len() < AHEAD
                && let Some(partition) = pages.next
            {
                pages.next = following(partition, count);
                match self.fetch(partition, None) {
                    Ok(fetching) => pages.fetching.push_back(fetching),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            if let Some(entry) = pages.arrived.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            match pages.fetching.poll_next_unpin(task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(Fetched { partition, page }))) => {
                    pages.partition = partition;
                    pages.arrived = page.entries.into();
                    if let Some(after) = page.next_after {
                        match self.fetch(partition, Some(after)) {
                            Ok(fetching) => pages.fetching.push_front(fetching),
                            Err(error) => return Poll::Ready(Some(Err(error))),
                        }
                    }
                }
            }
        }
    }
}

fn following(partition: PartitionId, count: u32) -> Option<PartitionId> {
    let next = u32::from(partition.0) + 1;
    (next < count).then_some(PartitionId(next as u16))
}

impl<W: View> Stream for Scan<W> {
    type Item = Result<Entry<W::Value>, Error>;

    fn poll_next(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let scan = self.get_mut();
        let mut pages = match core::mem::replace(&mut scan.state, State::Over) {
            State::Over => return Poll::Ready(None),
            State::Running(pages) => pages,
            State::Ready => match scan.begin() {
                Ok(Some(pages)) => pages,
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            },
        };
        match scan.poll_pages(task, &mut pages) {
            Poll::Pending => {
                scan.state = State::Running(pages);
                Poll::Pending
            }
            Poll::Ready(None) => {
                scan.cursor = Cursor {
                    place: CursorPlace::End,
                };
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok((key, read)))) => match seen_as::<W>(read) {
                Ok(read) => {
                    scan.cursor = Cursor {
                        place: CursorPlace::After(key.clone()),
                    };
                    scan.state = State::Running(pages);
                    Poll::Ready(Some(Ok(Entry { key, read })))
                }
                Err(error) => Poll::Ready(Some(Err(error))),
            },
        }
    }
}
