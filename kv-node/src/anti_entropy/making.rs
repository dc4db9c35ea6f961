//! Makes trees from what the engine holds: all of them after a start, single ones when they have become too coarse.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use kv_ring::Topology;
use kv_storage::{ScanRequest, Seq, Snapshot};
use kv_types::{BucketId, Object};

use super::tree::Change;
use super::trees::{Place, Trees};
use crate::env::Env;
use crate::storage_key;
use crate::store::{Store, StoreError};

/// Rows and bytes that are read at once.
const ROWS: usize = 1_024;
const BYTES: usize = 1 << 20;
/// How long a snapshot may lag behind the last write that the trees were told of.
const LAG: Duration = Duration::from_millis(1);

/// Makes all trees from a snapshot taken right after [`Trees::begin`], or that shows what [`Trees::begin_again`] names.
///
/// # Errors
/// [`StoreError`] when the store cannot be read; the trees that are missing stay so.
pub async fn make_all(
    trees: &Trees,
    store: &Store,
    topology: &Topology,
    snapshot: Snapshot,
) -> Result<(), StoreError> {
    let first = BucketId(storage_key::SYSTEM_BUCKET.0 + 1).0.to_be_bytes();
    let range = (Bytes::copy_from_slice(&first), Bound::Unbounded);
    make(trees, store, topology, &snapshot, range).await?;
    if !trees.end(snapshot.seq()) {
        let what = "what they are made from was cut out meanwhile".to_owned();
        return Err(StoreError::Failed(what));
    }
    Ok(())
}

/// A snapshot that shows a write, and so all before it.
pub async fn snapshot_after(store: &Store, env: &Env, reached: Seq) -> Snapshot {
    loop {
        let snapshot = store.db().snapshot();
        if snapshot.seq() >= reached {
            return snapshot;
        }
        env.sleep(LAG).await;
    }
}

/// Makes one tree anew.
///
/// # Errors
/// [`StoreError`] when the store cannot be read; the tree stays as it is.
pub async fn make_one(
    trees: &Trees,
    store: &Store,
    env: &Env,
    topology: &Topology,
    place: Place,
) -> Result<(), StoreError> {
    let reached = trees.begin_one(place);
    let snapshot = snapshot_after(store, env, reached).await;
    let (bucket, partition) = place;
    let hashes = topology.partition_count().hash_range(partition);
    let (start, end) = storage_key::partition_range(bucket, &hashes);
    let end = end.map_or(Bound::Unbounded, Bound::Excluded);
    make(trees, store, topology, &snapshot, (start, end)).await?;
    trees.end_one(place, snapshot.seq());
    Ok(())
}

/// Reads a range in which the rows of a place stand together, and plants a tree for each place met.
async fn make(
    trees: &Trees,
    store: &Store,
    topology: &Topology,
    snapshot: &Snapshot,
    (start, end): (Bytes, Bound<Bytes>),
) -> Result<(), StoreError> {
    let (partitions, secret) = (topology.partition_count(), topology.secret());
    let mut request = Some(ScanRequest {
        start,
        end,
        reverse: false,
        max_items: ROWS,
        max_bytes: BYTES,
        max_visited: ScanRequest::DEFAULT_MAX_VISITED,
    });
    let mut current: Option<Place> = None;
    let mut items = Vec::new();
    while let Some(next) = request {
        let page = store.scan_at(snapshot, next).await?;
        for row in page.entries {
            let (bucket, hash) =
                storage_key::place(&row.key).ok_or_else(|| damaged("a stored key"))?;
            let place = (bucket, partitions.partition_of(hash));
            if current != Some(place) {
                if let Some(done) = current.replace(place) {
                    trees.plant(done, snapshot.seq(), &items);
                }
                items.clear();
            }
            let header = Object::header_of(&row.value).map_err(|_| damaged("a stored object"))?;
            items.push(Change {
                position: hash.0 << partitions.bits(),
                was: 0,
                is: secret.item(&row.key, secret.digest(header)),
            });
        }
        request = page.next;
    }
    if let Some(done) = current {
        trees.plant(done, snapshot.seq(), &items);
    }
    Ok(())
}

fn damaged(what: &str) -> StoreError {
    StoreError::Failed(format!("{what} is damaged"))
}
