//! Asking the members of a cluster for its topology, as nobody in particular.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::future::join_all;
use kv_net::message::{Request, Response, TopologyV1};
use kv_net::{Endpoint, Peer};
use kv_ring::ChainEntry;
use kv_types::Epoch;

/// How long one member may take for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The newest topology that any of the members has which answer; `None` if none does.
pub async fn newest(endpoint: &Endpoint, seeds: &[String]) -> Option<ChainEntry> {
    let asked = seeds.iter().map(|seed| async move {
        let answer = ask(endpoint, seed).await;
        answer.inspect_err(|error| tracing::debug!(%seed, %error, "a member does not answer"))
    });
    let answers = join_all(asked).await.into_iter().flatten();
    answers.max_by_key(ChainEntry::epoch)
}

async fn ask(endpoint: &Endpoint, seed: &str) -> Result<ChainEntry> {
    let mut found = seed.to_socket_addrs()?;
    let address = found.next().context("it has no address")?;
    let peer = Peer {
        node: None,
        address,
    };
    let request = Request::Topology(TopologyV1 { known: Epoch(0) });
    match endpoint.call(&peer, request, PATIENCE).await? {
        Response::Topology(_, entry) => decode(&entry),
        other => bail!("it answers {other:?}"),
    }
}

fn decode(entry: &Bytes) -> Result<ChainEntry> {
    ChainEntry::decode(entry).context("its topology is damaged, or newer than this program")
}
