//! The commands of `kv-node`.

mod issuer;
mod join;
mod recover;
mod serve;
mod set_up;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kv_node::config::{Config, Flags};
use kv_node::setup::NewMember;

/// A node of a kv cluster: replicated, leaderless, mutual-TLS QUIC only.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node until it is told to stop (SIGTERM or Ctrl-C).
    Serve(Box<ServeArgs>),
    /// Make a new node ready to join a cluster, and run it once it is a member.
    Join(Box<join::JoinArgs>),
    /// Make a node's id and key in an empty data directory.
    Init(InitArgs),
    /// Make the certificate authority of a new cluster.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Issue certificates.
    #[command(subcommand)]
    Cert(CertCommand),
    /// Create a cluster from initialised nodes.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Show or check the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file; `kv-node config template` prints one.
    #[arg(long, value_name = "FILE", env = "KV_NODE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make an authority; its key stays with you, never on a node.
    Create {
        /// The cluster's name, for people.
        #[arg(long)]
        name: String,
        /// Where to write `ca.pem` and `ca-key.pem`.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Issuing {
    /// The authority's directory.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// How long the certificate is valid.
    #[arg(long, default_value = "90days", value_parser = humantime::parse_duration, value_name = "DURATION")]
    valid: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// For a node, into its data directory.
    Node {
        #[command(flatten)]
        issuing: Issuing,
        /// The node's data directory, made by `kv-node init`.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// For a node on another machine: prints what `kv-node cert install` takes there.
    Sign {
        #[command(flatten)]
        issuing: Issuing,
        /// What `kv-node join` has printed.
        request: String,
    },
    /// Sign over the wire for new nodes, until each of the tickets that it prints was used.
    Issuer(issuer::IssuerArgs),
    /// Put a certificate into a node's data directory that `kv-node cert sign` has printed.
    Install {
        /// The node's data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// What `kv-node cert sign` has printed.
        certificate: String,
    },
    /// For a client: reads and writes of data.
    Client(PersonArgs),
    /// For an admin: what clients may, and metrics.
    Admin(PersonArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PersonArgs {
    #[command(flatten)]
    issuing: Issuing,
    /// The name in the certificate; it appears in logs.
    #[arg(long)]
    name: String,
    /// Where to write `ca.pem`, `cert.pem` and `key.pem`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Write the genesis of a cluster into the data directory of every member.
    Create(CreateArgs),
    /// Where a majority of the voters will never be back: have some of those who are left vote from now on.
    Recover(RecoverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The data directory of a node that is left and is stopped: of those that are left, one with the newest topology.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The name of a member that will never be back; once for each.
    #[arg(
        long = "lost",
        value_name = "NAME",
        required_unless_present = "without_vote"
    )]
    lost: Vec<String>,
    /// The name of a member that stays, but cannot vote since it has lost a part of its disk; once for each.
    #[arg(long, value_name = "NAME")]
    without_vote: Vec<String>,
    /// Do it. What the lost have decided and nobody else knows is dropped; without this, it is only said what would be done.
    #[arg(long)]
    accept_loss: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The cluster's name, for people.
    #[arg(long)]
    name: String,
    /// What requests get that name no level: `ap` goes on through other nodes while replicas are away, `cp` refuses.
    #[arg(long, default_value = "ap")]
    mode: Mode,
    /// Replicas of each key.
    #[arg(long, default_value_t = 3)]
    replicas: u8,
    /// Into how many partitions the ring is cut: a power of two from 256 to 65536.
    #[arg(long, default_value_t = 4096)]
    partitions: u32,
    /// A member, as `name=n1,zone=a,address=127.0.0.1:7401,data=DIR[,weight=1]`; once for each.
    #[arg(long = "member", value_parser = set_up::parse_member, required = true)]
    members: Vec<NewMember>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Ap,
    Cp,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print a commented configuration file with every key.
    Template,
    /// Check a configuration and print what would be used.
    Check(Box<ServeArgs>),
}

/// Runs a command.
///
/// # Errors
/// Whatever went wrong, for [`complain`].
#[expect(clippy::print_stdout, reason = "this is what these commands are for")]
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve(args) => serve::run(args.load()?),
        Command::Join(args) => join::run(*args),
        Command::Init(args) => set_up::init(&args),
        Command::Ca(command) => set_up::ca(command),
        Command::Cert(command) => set_up::cert(command),
        Command::Cluster(ClusterCommand::Create(args)) => set_up::create(args),
        Command::Cluster(ClusterCommand::Recover(args)) => recover::run(&args),
        Command::Config(ConfigCommand::Template) => {
            print!("{}", Config::template());
            Ok(())
        }
        Command::Config(ConfigCommand::Check(args)) => {
            println!("{:#?}", args.load()?);
            Ok(())
        }
    }
}

impl ServeArgs {
    fn load(self) -> Result<Config> {
        Config::load(self.config.as_deref(), self.flags)
    }
}

/// Says on standard error what went wrong.
#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
