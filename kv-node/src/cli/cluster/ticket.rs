//! The ticket of a cluster: what a new node needs to find it and to believe it.

use serde::Serialize;

use super::CONNECT_TIMEOUT;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::session::{Session, by_name};
use crate::setup::joining::Ticket;
use crate::setup::token::Token as _;

/// How many members are named at most.
const MOST_SEEDS: usize = 5;

#[derive(Serialize)]
struct TicketJson<'a> {
    schema: u8,
    ticket: &'a str,
}

/// Prints it.
pub(super) async fn run(session: &Session, output: &Output) -> Result<(), Failure> {
    let authorities = session.authorities()?;
    let client = session.client_within(CONNECT_TIMEOUT).await?;
    let topology = client.topology();
    let seeds = by_name(&topology).into_iter().take(MOST_SEEDS);
    let authority = authorities.last().copied();
    let ticket = Ticket {
        cluster: topology.cluster_id(),
        authority: authority.ok_or_else(|| Failure::other("the context believes no authority"))?,
        seeds: seeds.map(|member| member.address.clone()).collect(),
        issuer: None,
    };
    let ticket = ticket
        .to_word()
        .map_err(|error| Failure::other(error.to_string()))?;
    output.line(&ticket)?;
    output.json_only(&TicketJson {
        schema: 1,
        ticket: &ticket,
    })?;
    if !output.is_json() {
        output.hint(
            "on the new machine: kv-node join TICKET --data DIR --name NAME --zone ZONE --listen ADDRESS",
        );
    }
    Ok(())
}
