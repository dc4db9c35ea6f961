//! Clusters to use a client on.

use kv_storage::Options;
pub(crate) use kv_tests::sim::client::{BUCKET, BUDGET, Client, key};
use kv_tests::sim::{Executor, Handle, SimCluster};
use kv_types::NodeId;

/// Small memtables, so that tables and compactions take part; the largest values fit.
pub(crate) fn options() -> Options {
    let mut options = Options::tiny();
    options.max_batch_bytes = kv_node::store::MAX_BATCH_BYTES;
    options
}

/// A figure of a node that runs, by the beginning of its line.
pub(crate) fn metric(cluster: &SimCluster, node: NodeId, name: &str) -> u64 {
    let metrics = cluster.node(node).expect("it runs").metrics();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    value
        .and_then(|value| value.trim().parse().ok())
        .expect(name)
}

/// Runs a scenario on a cluster that is yet to be started.
pub(crate) fn with<F>(
    seed: u64,
    make: impl FnOnce(Handle) -> SimCluster,
    scenario: impl FnOnce(SimCluster, Client, Handle) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut executor = Executor::new(seed);
    let handle = executor.handle();
    let cluster = make(handle.clone());
    executor.run(async move {
        cluster.start_all().await.expect("the nodes start");
        scenario(cluster, Client::new(handle.clone()), handle).await;
    });
}

/// Runs a scenario on a fresh cluster of three.
pub(crate) fn with_cluster<T: Send + 'static, F>(
    seed: u64,
    scenario: impl FnOnce(SimCluster, Client, Handle) -> F + Send + 'static,
) -> T
where
    F: Future<Output = T> + Send + 'static,
{
    let mut executor = Executor::new(seed);
    let handle = executor.handle();
    let inner = handle.clone();
    executor.run(async move {
        let cluster = SimCluster::new(inner.clone(), 3, 3, options());
        cluster.start_all().await.expect("the nodes start");
        let client = Client::new(inner.clone());
        scenario(cluster, client, inner).await
    })
}
