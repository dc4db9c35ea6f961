//! `kv-node cert issuer`: signs over the wire for new nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use kv_node::setup::issuing::{Issuer, IssuerSpec};
use kv_node::setup::joining::Ticket;
use kv_node::setup::token::Token as _;
use kv_node::setup::wording::check_address;

/// How long the last node may take to hear that it has its certificate.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct IssuerArgs {
    /// What `kv cluster ticket` has printed.
    ticket: String,
    /// The authority's directory.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where new nodes reach this, as `host:port`; without it, where it listens.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// How many tickets to print, each good for one node.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    tickets: u16,
    /// How long to wait for the nodes.
    #[arg(long = "for", default_value = "1h", value_parser = humantime::parse_duration, value_name = "DURATION")]
    open: Duration,
    /// How long the certificates are valid.
    #[arg(long, default_value = "90days", value_parser = humantime::parse_duration, value_name = "DURATION")]
    valid: Duration,
}

/// Prints the tickets, and signs until all were used.
///
/// # Errors
/// When it cannot listen, or some tickets were not used in time.
#[expect(clippy::print_stdout, reason = "the result of a command")]
#[expect(clippy::print_stderr, reason = "beside the result of a command")]
#[expect(
    clippy::disallowed_methods,
    reason = "a command of an operator runs in the real world"
)]
pub(super) fn run(args: &IssuerArgs) -> Result<()> {
    let ticket = Ticket::from_word(&args.ticket)?;
    if let Some(address) = &args.address {
        check_address(address)?;
    }
    ensure!(args.tickets > 0, "give --tickets 1 or more");
    ensure!(
        args.address.is_some() || !args.listen.ip().is_unspecified(),
        "{} is every address of this machine; give --address HOST:PORT, where new nodes reach it",
        args.listen
    );
    let spec = IssuerSpec {
        listen: args.listen,
        address: args.address.clone(),
        tickets: usize::from(args.tickets),
        open: args.open,
        lifetime: args.valid,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (issuer, mut told) = Issuer::open(&args.ca, &ticket, &spec)?;
        for ticket in issuer.tickets() {
            println!("{}", ticket.to_word()?);
        }
        eprintln!(
            "each is a secret and good for one node; on the new machine: kv-node join TICKET --data DIR --name NAME --zone ZONE --listen ADDRESS\nwaiting for {} until {} from now; Ctrl-C ends it",
            nodes(spec.tickets),
            humantime::format_duration(args.open)
        );
        let mut left = spec.tickets;
        let all = async {
            while left > 0 {
                let Some(node) = told.recv().await else {
                    return;
                };
                left -= 1;
                eprintln!("signed for node {node}; {} to come", nodes(left));
            }
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            () = issuer.serve() => {}
            waited = tokio::time::timeout(args.open, all) => if waited.is_err() {
                bail!("{} did not come in time; those tickets are good for nothing now", nodes(left));
            }
        }
        Ok(())
    })
}

fn nodes(count: usize) -> String {
    match count {
        1 => "1 node".to_owned(),
        _ => format!("{count} nodes"),
    }
}
