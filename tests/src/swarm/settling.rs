//! Long after a day: what nodes say became of its writes must be final, and true.

use std::collections::BTreeSet;
use std::time::Duration;

use kv_net::message::WriteFate;
use kv_types::{NodeId, WriteId};

use super::work::name;
use crate::check::Violation;
use crate::history::{Fate, History, Write};
use crate::sim::host::WALL_START_MS;
use crate::sim::{Handle, SimCluster};

/// How many acknowledged writes are asked about, besides all of unknown fate.
const ACKED: usize = 20;
/// Once it can be settled, it must be within this time.
const LIMIT: Duration = Duration::from_secs(20);

/// Asks about writes when all of them can be settled.
pub(super) async fn settle(
    handle: &Handle,
    cluster: &SimCluster,
    nodes: &[NodeId],
    history: &History,
    keep: Duration,
) -> (u64, Vec<Violation>) {
    let writes = history.writes.iter();
    let unknown = writes
        .clone()
        .filter(|(_, write)| write.fate == Fate::Unknown);
    let acked = writes.filter(|(_, write)| write.lasts_from().is_some());
    let step = (acked.clone().count() / ACKED).max(1);
    let asked: Vec<(WriteId, &Write)> = unknown
        .chain(acked.step_by(step))
        .map(|(id, write)| (*id, write))
        .collect();
    let Some(latest) = asked.iter().map(|(id, _)| id.latest_dot().millis()).max() else {
        return (0, Vec::new());
    };
    let settled = Duration::from_millis(latest - WALL_START_MS) + keep;
    handle.sleep(settled.saturating_sub(handle.now())).await;
    let limit = handle.now() + LIMIT;
    let mut client = cluster.client(30_001);
    client.epoch = cluster.newest().epoch();
    let seen: BTreeSet<WriteId> = history.reads.iter().flat_map(|read| read.ids()).collect();
    let shown = history.shown();
    let mut found = Vec::new();
    for (number, (id, write)) in asked.iter().enumerate() {
        let via = nodes[number % nodes.len()];
        let fate = loop {
            let told = client.fate(cluster, via, &name(write.key), *id).await;
            match told {
                Ok(WriteFate::Unknown { .. }) | Err(_) if handle.now() < limit => {
                    handle.sleep(Duration::from_millis(500)).await;
                }
                told => break told,
            }
        };
        let shows = shown.get(&write.key).is_some_and(|ids| ids.contains(id));
        let is_true = match fate {
            Ok(WriteFate::Applied { shows: told }) => told == shows || write.expires,
            Ok(WriteFate::NotApplied) => {
                !shows && write.lasts_from().is_none() && !seen.contains(id)
            }
            Ok(WriteFate::Gone) => !shows || write.expires || write.is_delete,
            // A clock was ahead.
            Ok(WriteFate::Unknown { settles_ms }) => {
                let now_ms = WALL_START_MS + handle.now().as_millis() as u64;
                settles_ms > now_ms + 5_000
            }
            Err(_) => false,
        };
        if !is_true {
            let what = format!("{via} says {fate:?} of {id:?}, which is {write:?}");
            found.push(Violation::new("fate", what));
        }
    }
    (asked.len() as u64, found)
}
