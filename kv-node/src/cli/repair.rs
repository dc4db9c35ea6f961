//! `kv repair`: has nodes compare what they hold with the other owners, now.

use std::ops::RangeInclusive;
use std::time::Duration;

use comfy_table::Cell;
use kv_client::Client;
use kv_client::cluster::Comparison;
use kv_client::ring::{Member, Topology};
use kv_types::BucketId;
use serde::Serialize;

use super::args::RepairArgs;
use super::bucket::find;
use super::failure::Failure;
use super::output::Output;
use super::session::{Session, by_name, member};
use super::value::count;

/// Partitions that a node compares in one request: each shows as progress.
const PARTITIONS_AT_ONCE: u32 = 64;
const BAR: &str = "{msg} [{bar:30}] {percent}% {elapsed}";

#[derive(Serialize)]
struct NodeJson<'a> {
    schema: u8,
    node: &'a str,
    compared: u64,
    not_compared: u64,
    fetched: u64,
    sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Asks one node after the other, so that the cluster goes on serving.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    args: RepairArgs,
) -> Result<(), Failure> {
    let client = session.admin().await?;
    let topology = client.topology();
    let bucket = match &args.bucket {
        Some(name) => Some(find(&topology, name)?.id),
        None => None,
    };
    let parts = parts(&topology, args.partition)?;
    let members: Vec<Member> = match &args.node {
        Some(name) => vec![member(&topology, name)?.clone()],
        None => by_name(&topology).into_iter().cloned().collect(),
    };
    let steps = members.len() as u64 * parts.len() as u64;
    let bar = output.progress(Some(steps), BAR);
    let mut rows = Vec::new();
    let (mut left_out, mut failed) = (0, 0);
    for member in &members {
        bar.set_message(member.name.clone());
        let mut json = NodeJson {
            schema: 1,
            node: &member.name,
            compared: 0,
            not_compared: 0,
            fetched: 0,
            sent: 0,
            error: None,
        };
        for part in &parts {
            match compare(&client, member, bucket, part, args.timeout).await {
                Ok(compared) => {
                    json.compared += u64::from(compared.settled);
                    json.not_compared += u64::from(compared.shared - compared.settled);
                    json.fetched += compared.fetched;
                    json.sent += compared.sent;
                }
                Err(error) => {
                    json.error = Some(error);
                    break;
                }
            }
            bar.inc(1);
        }
        if let Some(error) = &json.error {
            failed += 1;
            bar.suspend(|| output.error(&format!("{}: {error}", member.name)));
        }
        left_out += json.not_compared;
        rows.push(vec![
            Cell::new(&member.name),
            Cell::new(count(json.compared)),
            Cell::new(count(json.not_compared)),
            Cell::new(count(json.fetched)),
            Cell::new(count(json.sent)),
        ]);
        output.json_only(&json)?;
    }
    bar.finish_and_clear();
    let header = [
        "node",
        "compared",
        "not compared",
        "objects fetched",
        "sent",
    ];
    output.line(output.table(&header, rows))?;
    if failed == 0 && left_out == 0 {
        if let (Some(name), None, None) = (&args.bucket, &args.partition, &args.node) {
            let epoch = topology.epoch().0;
            output.note(format!(
                "all of bucket {name} was compared in epoch {epoch}: `kv bucket set {name} … --repaired {epoch}`"
            ));
        }
        return Ok(());
    }
    output.hint("what was not compared has an owner that is away, or was just started; see `kv status`, then repair again");
    Err(Failure::silent(8))
}

async fn compare(
    client: &Client,
    member: &Member,
    bucket: Option<BucketId>,
    partitions: &RangeInclusive<u16>,
    timeout: Duration,
) -> Result<Comparison, String> {
    let compared = client.compare_node(member.node, bucket, partitions.clone(), timeout);
    compared.await.map_err(|error| error.to_string())
}

/// The partitions in parts that are compared one after the other.
fn parts(topology: &Topology, only: Option<u16>) -> Result<Vec<RangeInclusive<u16>>, Failure> {
    let partitions = topology.partition_count().get();
    if let Some(only) = only {
        if u32::from(only) >= partitions {
            let most = partitions - 1;
            let message = format!("there is no partition {only}; the last one is {most}");
            return Err(Failure::usage(message));
        }
        return Ok(vec![only..=only]);
    }
    let at = |partition: u32| u16::try_from(partition).unwrap_or(u16::MAX);
    let starts = (0..partitions).step_by(PARTITIONS_AT_ONCE as usize);
    Ok(starts
        .map(|first| at(first)..=at(first + PARTITIONS_AT_ONCE - 1))
        .collect())
}
