//! `kv probe`: a put and a get through every node, the proof that a cluster serves.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use kv_client::Client;
use kv_client::ring::Member;
use serde::Serialize;

use super::args::ProbeArgs;
use super::failure::Failure;
use super::output::Output;
use super::real;
use super::session::Session;

/// The time of one attempt to connect, and of one request.
const ATTEMPT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Serialize)]
struct FindingJson<'a> {
    schema: u8,
    node: &'a str,
    ok: bool,
    ready_ms: Option<u64>,
    error: Option<String>,
}

/// Tries every node until it serves or the time is over, and prints each as soon as that is known.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    args: ProbeArgs,
) -> Result<(), Failure> {
    let begin = real::now();
    let until = begin + args.wait;
    let client = connect(session, until).await?;
    let topology = client.topology();
    let mut probes: FuturesUnordered<_> = topology
        .members()
        .iter()
        .map(|member| {
            let client = client.clone();
            async move { (member, probe(&client, member, until).await, begin.elapsed()) }
        })
        .collect();
    let mut failed = 0;
    while let Some((member, result, took)) = probes.next().await {
        let ready_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(()) => output.line(format!("{}  ok  {ready_ms} ms", member.name))?,
            Err(failure) => {
                failed += 1;
                output.line(format!("{}  failed  {}", member.name, failure.message()))?;
            }
        }
        output.json_only(&FindingJson {
            schema: 1,
            node: &member.name,
            ok: result.is_ok(),
            ready_ms: result.is_ok().then_some(ready_ms),
            error: result.err().map(|failure| failure.message().to_owned()),
        })?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::silent(9)),
    }
}

async fn connect(session: &Session, until: Instant) -> Result<Client, Failure> {
    loop {
        match session.client_within(ATTEMPT).await {
            Ok(client) => return Ok(client),
            Err(failure) if real::now() >= until || !failure.is_retryable() => return Err(failure),
            Err(_) => real::sleep(PAUSE).await,
        }
    }
}

async fn probe(client: &Client, member: &Member, until: Instant) -> Result<(), Failure> {
    loop {
        match put_and_get(client, member).await {
            Err(_) if real::now() < until => real::sleep(PAUSE).await,
            result => return result,
        }
    }
}

/// Writes a key of its own through the node, reads it back through it, and deletes it.
async fn put_and_get(client: &Client, member: &Member) -> Result<(), Failure> {
    let bucket = client.default_bucket().via(member.node);
    let key = format!(".kv-probe/{}", member.name);
    let value = Bytes::from(format!("probe of {} at {:?}", member.name, real::now()));
    let written = bucket.put(&key, value.clone()).deadline(ATTEMPT).await?;
    let read = bucket.get(&key).deadline(ATTEMPT).await?;
    if !read
        .siblings()
        .iter()
        .any(|sibling| sibling.value() == Some(&value))
    {
        return Err(Failure::other(
            "the value that was put is not the one that was got",
        ));
    }
    bucket
        .delete(&key)
        .context(written.context)
        .deadline(ATTEMPT)
        .await?;
    Ok(())
}
