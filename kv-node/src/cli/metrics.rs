//! `kv metrics`: what the nodes count, as Prometheus text.

use std::time::Duration;

use futures::future::join_all;
use kv_client::Client;
use kv_client::ring::Member;
use serde::Serialize;

use super::args::MetricsArgs;
use super::failure::Failure;
use super::output::Output;
use super::real;
use super::session::{Session, by_name, member};

const NODE_DEADLINE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct MetricsJson<'a> {
    schema: u8,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Prints the metrics of one node or of all, once or again and again.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    args: MetricsArgs,
) -> Result<(), Failure> {
    let client = session.admin().await?;
    loop {
        let topology = client.topology();
        let members: Vec<Member> = match &args.node {
            Some(name) => vec![member(&topology, name)?.clone()],
            None => by_name(&topology).into_iter().cloned().collect(),
        };
        if args.watch && output.is_terminal() && !output.is_json() {
            // Cursor home, clear the screen.
            output.line("\x1b[H\x1b[2J")?;
        }
        let failed = print(&client, output, &members).await?;
        if !args.watch {
            return if failed == 0 {
                Ok(())
            } else {
                Err(Failure::silent(8))
            };
        }
        real::sleep(args.every).await;
    }
}

/// Asks all at once, prints in order; how many did not answer.
async fn print(client: &Client, output: &Output, members: &[Member]) -> Result<usize, Failure> {
    let replies = members
        .iter()
        .map(|member| client.node_metrics(member.node, NODE_DEADLINE));
    let mut failed = 0;
    for (member, reply) in members.iter().zip(join_all(replies).await) {
        match &reply {
            Ok(text) => {
                if members.len() > 1 {
                    output.line(format!("# node {}", member.name))?;
                }
                output.line(text.trim_end())?;
            }
            Err(error) => {
                failed += 1;
                output.error(&format!("{}: {error}", member.name));
            }
        }
        output.json_only(&MetricsJson {
            schema: 1,
            node: &member.name,
            metrics: reply.as_deref().ok(),
            error: reply.as_ref().err().map(ToString::to_string),
        })?;
    }
    Ok(failed)
}
