//! `kv-node join`: makes a new node ready, and runs it once it is a member.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use kv_net::{Credentials, Endpoint, EndpointConfig};
use kv_node::config::Config;
use kv_node::setup;
use kv_node::setup::issuing;
use kv_node::setup::joining::{
    Joining, Ticket, become_member, check_certificate, has_certificate, signing_request,
};
use kv_node::setup::members::newest;
use kv_node::setup::token::Token as _;
use kv_node::setup::wording::{check_address, check_name};
use kv_types::NodeId;
use serde_json::json;

use super::{ServeArgs, serve};

/// How long to wait until the members are asked again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// What `kv cluster ticket` has printed.
    ticket: String,
    #[command(flatten)]
    serving: ServeArgs,
    /// The node's name, for people.
    #[arg(long = "name", id = "node_name")]
    name: String,
    /// What the node shares its failures with: a rack, a room, a region.
    #[arg(long)]
    zone: String,
    /// Its capacity relative to the other nodes.
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// Where the others reach it, as `host:port`; without it, where it listens.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// The authority's directory, if it is on this machine: the certificate is issued at once.
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// How long the certificate is valid that is issued with --ca.
    #[arg(long, default_value = "90days", value_parser = humantime::parse_duration, value_name = "DURATION")]
    valid: Duration,
    /// Make everything ready, and do not run: `kv-node serve` does.
    #[arg(long)]
    set_up_only: bool,
    /// Print JSON.
    #[arg(long, requires = "set_up_only")]
    json: bool,
}

/// Makes ready, tells the operator what to do, and serves.
///
/// # Errors
/// Whatever is missing or wrong; the same command can be given again.
#[expect(clippy::print_stdout, reason = "what an operator is to do next")]
pub(super) fn run(args: JoinArgs) -> Result<()> {
    let ticket = Ticket::from_word(&args.ticket)?;
    let config = args.serving.load()?;
    let listen = || config.listen.map(|listen| listen.to_string());
    let address = args.address.or_else(listen).context(
        "give --address HOST:PORT, where the other nodes reach this one, or --listen, where it listens",
    )?;
    check_name("name", &args.name)?;
    check_name("zone", &args.zone)?;
    check_address(&address)?;
    ensure!(
        !ticket.seeds.contains(&address),
        "{address} is another member's address; give --address HOST:PORT, where the others reach this node"
    );
    let joining = Joining {
        name: args.name,
        zone: args.zone,
        weight: args.weight,
        address,
        seeds: ticket.seeds.clone(),
    };
    let node = joining.prepare(&config.data)?;
    let data = config.data.display();
    match &args.ca {
        // Another one has another fingerprint, and this one may be staged already.
        _ if has_certificate(&config.data) => {}
        Some(ca) => _ = setup::issue_node(ca, &config.data, args.valid)?,
        None if fetch(&config, &ticket)? => {}
        None => {
            println!(
                "node {node} in {data} has no certificate yet. Where the authority is:\n\n  kv-node cert sign --ca CA_DIR {}\n\nthen here, with what that prints:\n\n  kv-node cert install --data {data} CERTIFICATE\n",
                signing_request(&config.data)?.to_word()?
            );
            bail!("this node has no certificate; when it has one, give the same command again");
        }
    }
    check_certificate(&config.data, &ticket)?;
    let member = joining.member(&config.data)?;
    if args.json {
        let made = json!({ "schema": 1, "node_id": node.to_string(), "member": member });
        println!("{made}");
        return Ok(());
    }
    println!(
        "node {node} in {data} is ready. With an admin's certificate:\n\n  kv cluster join {member}\n  kv cluster plan\n"
    );
    if args.set_up_only {
        println!("then: kv-node serve --data {data}");
        return Ok(());
    }
    println!("this node waits, and serves as soon as the plan is committed");
    serve::run(config)
}

/// Has the certificate signed over the wire, if the ticket says by whom. Says whether there is one then.
#[expect(clippy::print_stderr, reason = "why the operator has more to do")]
fn fetch(config: &Config, ticket: &Ticket) -> Result<bool> {
    let Some(issuer) = &ticket.issuer else {
        return Ok(false);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let fetched = runtime.block_on(issuing::fetch(&config.data, ticket, issuer));
    if let Err(error) = &fetched {
        eprintln!("{error:#}");
    }
    Ok(fetched.is_ok())
}

#[expect(
    clippy::disallowed_methods,
    reason = "there is no node yet whose time it could be"
)]
async fn pause() {
    tokio::time::sleep(PAUSE).await;
}

/// Waits until the members list this node, if it is one that joins.
///
/// # Errors
/// When it was removed, or the members are of another cluster.
pub(super) async fn wait(config: &Config, node: NodeId, credentials: &Credentials) -> Result<()> {
    let Some(joining) = Joining::load(&config.data)? else {
        return Ok(());
    };
    ensure!(
        credentials.not_after() > setup::now(),
        "this node's certificate has expired: issue a new one, and stage the join again with what `kv-node join` prints then"
    );
    let endpoint = Endpoint::client(credentials.clone(), EndpointConfig::client())?;
    let mut seeds = joining.seeds;
    let mut told = None;
    loop {
        match newest(&endpoint, &seeds).await {
            Some(entry) => {
                let topology = entry.topology();
                let cluster = credentials.identity().cluster;
                ensure!(
                    topology.cluster_id() == cluster,
                    "the members at {} are of cluster {}, the certificate is for {cluster}",
                    seeds.join(", "),
                    topology.cluster_id()
                );
                if let Some(removal) = topology.removed().get(&node) {
                    bail!(
                        "node {node} was removed from the cluster at epoch {}, and an id is used only once: empty {} and join anew",
                        removal.epoch,
                        config.data.display()
                    );
                }
                if let Some(member) = topology.member(node) {
                    ensure!(
                        member.fingerprint == credentials.fingerprint(),
                        "the cluster lists another certificate for this node; stage the join again with what `kv-node join` prints"
                    );
                    become_member(&config.data, &entry)?;
                    tracing::info!(%node, epoch = %entry.epoch(), "this node is a member");
                    return Ok(());
                }
                let members = topology.members().iter();
                seeds = members.map(|member| member.address.clone()).collect();
                if told != Some(entry.epoch()) {
                    told = Some(entry.epoch());
                    tracing::info!(
                        epoch = %entry.epoch(),
                        "waiting: the cluster does not list this node yet; commit a plan in which it joins"
                    );
                }
            }
            None => {
                tracing::warn!(members = %seeds.join(", "), "no member answers; trying again");
            }
        }
        pause().await;
    }
}
