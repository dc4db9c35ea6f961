//! `kv bucket`: the buckets of the cluster, and changes of them.

use std::time::Duration;

use comfy_table::Cell;
use kv_client::cluster::ChangeKind;
use kv_client::ring::{Bucket, Topology};
use kv_client::{
    BlindPut, BucketMode, BucketName, BucketProperties, Client, Durability, Epoch, Level, Quorum,
    RowCache,
};
use serde::Serialize;

use super::args::BucketCommand;
use super::decide;
use super::failure::Failure;
use super::output::Output;
use super::session::Session;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct BucketJson<'a> {
    schema: u8,
    bucket: &'a str,
    id: u32,
    n: u8,
    r: u8,
    w: u8,
    mode: &'a str,
    blind_put: &'a str,
    ttl_s: u32,
    row_cache: &'a str,
    durability: &'a str,
    level: &'a str,
}

#[derive(Serialize)]
struct ChangedJson<'a> {
    schema: u8,
    bucket: &'a str,
    epoch: u64,
}

/// Lists buckets, or has the cluster change them.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    command: BucketCommand,
) -> Result<(), Failure> {
    match command {
        BucketCommand::Ls => {
            let client = session.client_within(CONNECT_TIMEOUT).await?;
            list(&client.topology(), output)
        }
        BucketCommand::Create {
            name,
            n,
            r,
            w,
            mode,
            blind_put,
            ttl,
            row_cache,
            durability,
            level,
        } => {
            let client = session.admin().await?;
            let n = n.unwrap_or(client.topology().replication_factor());
            let majority = BucketProperties::majority_of(n).map_err(impossible)?;
            let change = ChangeKind::CreateBucket {
                name: BucketName::new(name.as_str()).map_err(impossible)?,
                properties: BucketProperties {
                    mode: mode.into(),
                    blind_put: blind_put.into(),
                    ttl_s: ttl.map_or(Ok(0), whole_seconds)?,
                    row_cache: row_cache.into(),
                    durability: durability.into(),
                    level: level.into(),
                    ..asked(majority, r, w)?
                },
            };
            make(&client, output, &name, change, "created").await
        }
        BucketCommand::Set {
            name,
            r,
            w,
            repaired,
            blind_put,
            ttl,
            row_cache,
            durability,
            level,
        } => {
            let client = session.admin().await?;
            let topology = client.topology();
            let bucket = find(&topology, &name)?;
            let change = ChangeKind::SetBucket {
                id: bucket.id,
                was: bucket.properties,
                properties: BucketProperties {
                    blind_put: blind_put.map_or(bucket.properties.blind_put, Into::into),
                    ttl_s: ttl.map_or(Ok(bucket.properties.ttl_s), whole_seconds)?,
                    row_cache: row_cache.map_or(bucket.properties.row_cache, Into::into),
                    durability: durability.map_or(bucket.properties.durability, Into::into),
                    level: level.map_or(bucket.properties.level, Into::into),
                    ..asked(bucket.properties, r, w)?
                },
                repaired: repaired.map(Epoch),
            };
            let numbers = bucket.properties.quorum.with(r, w).map_err(impossible)?;
            if !numbers.is_strict() {
                let (n, r, w) = (numbers.n(), numbers.r(), numbers.w());
                output.hint(&format!(
                    "with n={n}, r={r} and w={w} reads may miss what was written before"
                ));
            }
            make(&client, output, &name, change, "changed").await
        }
        BucketCommand::Drop { name, yes } => {
            let client = session.admin().await?;
            let topology = client.topology();
            let bucket = find(&topology, &name)?;
            if !yes {
                return Err(Failure::usage(format!(
                    "bucket {name} would go with all that is in it, on all nodes; nothing was done"
                ))
                .hint("repeat the command with --yes if that is meant"));
            }
            let change = ChangeKind::DropBucket { id: bucket.id };
            make(&client, output, &name, change, "dropped").await
        }
    }
}

fn list(topology: &Topology, output: &Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for bucket in topology.buckets() {
        let quorum = bucket.properties.quorum;
        let mode = match bucket.properties.mode {
            BucketMode::Siblings => "siblings",
            BucketMode::Lww => "lww",
        };
        let blind_put = match bucket.properties.blind_put {
            BlindPut::Overwrite => "overwrite",
            BlindPut::Sibling => "sibling",
        };
        let row_cache = match bucket.properties.row_cache {
            RowCache::On => "on",
            RowCache::Off => "off",
        };
        let durability = match bucket.properties.durability {
            Durability::Memory => "memory",
            Durability::One => "one",
            Durability::Quorum => "quorum",
            Durability::All => "all",
        };
        let level = match bucket.properties.level {
            Level::Usual => "usual",
            Level::Weak => "weak",
            Level::Quorum => "quorum",
            Level::All => "all",
            Level::Eventual => "eventual",
        };
        output.json_only(&BucketJson {
            schema: 1,
            bucket: bucket.name.as_str(),
            id: bucket.id.0,
            n: quorum.n(),
            r: quorum.r(),
            w: quorum.w(),
            mode,
            blind_put,
            ttl_s: bucket.properties.ttl_s,
            row_cache,
            durability,
            level,
        })?;
        let numbers = [quorum.n(), quorum.r(), quorum.w()];
        let mut row = vec![Cell::new(bucket.name.as_str())];
        row.extend(numbers.map(Cell::new));
        row.extend([mode, blind_put].map(Cell::new));
        row.push(Cell::new(lifetime(bucket.properties.ttl_s)));
        row.push(Cell::new(row_cache));
        row.push(Cell::new(durability));
        row.push(Cell::new(level));
        rows.push(row);
    }
    let titles = [
        "bucket",
        "n",
        "r",
        "w",
        "mode",
        "blind put",
        "ttl",
        "row cache",
        "durability",
        "level",
    ];
    output.line(output.table(&titles, rows))?;
    Ok(())
}

/// How long values live, for people.
fn lifetime(ttl_s: u32) -> String {
    match ttl_s {
        0 => "-".to_owned(),
        s if s.is_multiple_of(86_400) => format!("{}d", s / 86_400),
        s if s.is_multiple_of(3_600) => format!("{}h", s / 3_600),
        s if s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

fn whole_seconds(ttl: Duration) -> Result<u32, Failure> {
    if ttl.subsec_nanos() > 0 {
        return Err(Failure::usage("a bucket's ttl is whole seconds"));
    }
    u32::try_from(ttl.as_secs())
        .map_err(|_| Failure::usage("the ttl is too long; the longest is 136 years"))
}

async fn make(
    client: &Client,
    output: &Output,
    name: &str,
    change: ChangeKind,
    done: &str,
) -> Result<(), Failure> {
    let topology = client.topology();
    let members = topology.members().iter().map(|member| member.node);
    let hint = "it may still come into force; `kv bucket ls` shows whether it did";
    let epoch = decide::change(client, members, change, hint).await?;
    output.json_only(&ChangedJson {
        schema: 1,
        bucket: name,
        epoch: epoch.0,
    })?;
    output.line(format!("{done} bucket {name} at epoch {}", epoch.0))?;
    Ok(())
}

/// A bucket by its name.
pub(super) fn find<'a>(topology: &'a Topology, name: &str) -> Result<&'a Bucket, Failure> {
    let named = topology
        .buckets()
        .iter()
        .find(|bucket| bucket.name.as_str() == name);
    named.ok_or_else(|| {
        Failure::usage(format!("there is no bucket {name}")).hint("`kv bucket ls` lists them")
    })
}

fn asked(
    properties: BucketProperties,
    r: Option<u8>,
    w: Option<u8>,
) -> Result<BucketProperties, Failure> {
    let quorum: Quorum = properties.quorum.with(r, w).map_err(impossible)?;
    Ok(BucketProperties {
        quorum,
        ..properties
    })
}

fn impossible(error: impl ToString) -> Failure {
    Failure::usage(error.to_string())
}
