//! Every command and option of `kv`.

use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use kv_client::{BlindPut, BucketMode, Context, Durability, Level, RowCache, WriteId};

use super::cluster::ClusterCommand;

/// Reads, writes and looks at a kv cluster.
#[derive(Debug, Parser)]
#[command(name = "kv", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(super) struct Cli {
    /// The cluster, by the name of its context [env: KV_CONTEXT]
    #[arg(id = "cluster", long = "context", value_name = "NAME")]
    pub(super) context: Option<String>,
    /// The cluster, as kv://host:port,host:port?context=NAME
    #[arg(long, value_name = "URL")]
    pub(super) connect: Option<String>,
    /// Send every request through this node
    #[arg(long, value_name = "NODE")]
    pub(super) via: Option<String>,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 other error, 2 usage, 3 key absent, 4 siblings, 5 precondition failed,
6 not enough replicas, 7 outcome unknown, 8 cannot connect, 9 degraded (status --check)";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a key
    Put(PutArgs),
    /// Print the value of a key
    Get(GetArgs),
    /// Delete a key
    Delete(DeleteArgs),
    /// Make one value of a key's siblings
    Resolve(ResolveArgs),
    /// Tell what became of a write whose outcome is unknown
    Fate(FateArgs),
    /// Write the records of a file
    Import(ImportArgs),
    /// Print all records as JSON lines
    Export(ExportArgs),
    /// Show nodes, health and figures
    Status(StatusArgs),
    /// Print the metrics of nodes (needs an admin's certificate)
    Metrics(MetricsArgs),
    /// Show what nodes keep for others that are away
    Hints,
    /// Have nodes compare what they hold with each other, now (needs an admin's certificate)
    Repair(RepairArgs),
    /// Put and get through every node
    Probe(ProbeArgs),
    /// List buckets; create and change them (needs an admin's certificate)
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Add, remove and weigh nodes: stage, plan, commit, watch (needs an admin's certificate)
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// List, show or choose contexts
    #[command(subcommand)]
    Context(ContextCommand),
}

/// Which key is meant.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// The key; with --sort its partition key
    pub(super) key: String,
    /// The sort key
    #[arg(long, value_name = "KEY")]
    pub(super) sort: Option<String>,
    #[command(flatten)]
    pub(super) bucket: BucketArgs,
}

#[derive(Debug, Args)]
pub(super) struct BucketArgs {
    /// The bucket
    #[arg(long, default_value = DEFAULT_BUCKET)]
    pub(super) bucket: String,
}

/// Where keys are if nothing else is said.
pub(super) const DEFAULT_BUCKET: &str = "default";

/// How much is asked of a read.
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// How much to ask of the answer
    #[arg(long, value_enum)]
    pub(super) level: Option<LevelArg>,
    /// How many replicas must answer
    #[arg(long)]
    pub(super) r: Option<u8>,
    /// The whole time of a request: 500ms, 2s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) deadline: Option<Duration>,
}

/// How much is asked of a write.
#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// How much to ask before it counts as done
    #[arg(long, value_enum)]
    pub(super) level: Option<LevelArg>,
    /// How many replicas must hold it
    #[arg(long)]
    pub(super) w: Option<u8>,
    /// What of it must be on disks before it counts as done [the bucket's]
    #[arg(long, value_enum)]
    pub(super) durability: Option<DurabilityArg>,
    /// In how many zones those replicas must be, at least
    #[arg(
        long,
        value_name = "ZONES",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(super) distinct_zones: u8,
    /// The whole time of a request: 500ms, 2s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) deadline: Option<Duration>,
    /// The context of the read that this write replaces
    #[arg(long, value_name = "CONTEXT")]
    pub(super) context: Option<Context>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LevelArg {
    /// One replica
    Weak,
    /// The bucket's quorum of the key's own replicas
    Quorum,
    /// Every replica
    All,
    /// The bucket's quorum; other nodes stand in for replicas that are away
    Eventual,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Weak => Self::Weak,
            LevelArg::Quorum => Self::Quorum,
            LevelArg::All => Self::All,
            LevelArg::Eventual => Self::Eventual,
        }
    }
}

/// What requests of a bucket get that name no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BucketLevelArg {
    /// What the cluster's mode says: eventual in mode ap, quorum in mode cp
    Usual,
    /// One replica
    Weak,
    /// The bucket's quorum of the key's own replicas only
    Quorum,
    /// Every replica
    All,
    /// The bucket's quorum; other nodes stand in for replicas that are away
    Eventual,
}

impl From<BucketLevelArg> for Level {
    fn from(level: BucketLevelArg) -> Self {
        match level {
            BucketLevelArg::Usual => Self::Usual,
            BucketLevelArg::Weak => Self::Weak,
            BucketLevelArg::Quorum => Self::Quorum,
            BucketLevelArg::All => Self::All,
            BucketLevelArg::Eventual => Self::Eventual,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// The value; - reads stdin, @FILE a file, @@TEXT is @TEXT
    #[arg(allow_negative_numbers = true)]
    pub(super) value: String,
    /// After this time it is gone by itself: 90s, 1h, 720h; 0s is never [the bucket's]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) ttl: Option<Duration>,
    /// Say why it is answered so: who was sent it, who has it and since when
    #[arg(long)]
    pub(super) explain: bool,
    #[command(flatten)]
    pub(super) write: WriteArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// Print all siblings, also when there are several
    #[arg(long)]
    pub(super) all: bool,
    /// Say why it is answered so: who was asked, who answered what and when
    #[arg(long)]
    pub(super) explain: bool,
    #[command(flatten)]
    pub(super) read: ReadArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// Say why it is answered so: who was sent it, who has it and since when
    #[arg(long)]
    pub(super) explain: bool,
    #[command(flatten)]
    pub(super) write: WriteArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("choice").required(true))]
pub(super) struct ResolveArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// Keep the sibling with this number, as `kv get` shows them
    #[arg(long, value_name = "N", group = "choice")]
    pub(super) pick: Option<usize>,
    /// Keep the newest sibling by the nodes' clocks
    #[arg(long, group = "choice")]
    pub(super) latest: bool,
    #[command(flatten)]
    pub(super) write: WriteArgs,
}

#[derive(Debug, Args)]
pub(super) struct FateArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// The write, as the error that left it unknown names it
    #[arg(value_name = "WRITE")]
    pub(super) write_id: WriteId,
    /// The whole time of the request: 500ms, 2s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) deadline: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// {"key":..,"value":..} a line; with --key-field any object a line
    Jsonl,
    /// Debian control stanzas; one stanza is one value
    Deb822,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Source {
    /// The package index of this system: apt-cache dumpavail
    Apt,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true))]
pub(super) struct ImportArgs {
    /// The file; - reads stdin
    #[arg(value_name = "FILE", group = "input")]
    pub(super) file: Option<String>,
    /// Import from a program of this system
    #[arg(long, value_enum, group = "input")]
    pub(super) source: Option<Source>,
    /// What the input is [default: jsonl; with --source apt: deb822]
    #[arg(long, value_enum)]
    pub(super) format: Option<Format>,
    /// Fields whose values, joined by /, are the key [deb822: Package, Version, Architecture]
    #[arg(long, value_name = "FIELD")]
    pub(super) key_field: Vec<String>,
    /// Write nothing; compare what is stored with the input
    #[arg(long)]
    pub(super) verify: bool,
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) in_flight: u16,
    /// Stop after so many failures
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) max_failures: u64,
    #[command(flatten)]
    pub(super) bucket: BucketArgs,
    /// How much to ask of reads and writes
    #[arg(long, value_enum)]
    pub(super) level: Option<LevelArg>,
    /// How many replicas must answer a read
    #[arg(long)]
    pub(super) r: Option<u8>,
    /// How many replicas must hold a record
    #[arg(long)]
    pub(super) w: Option<u8>,
    /// The whole time of one request
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(super) deadline: Duration,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) bucket: BucketArgs,
    /// Only the rows of this partition key, in the order of their sort keys
    #[arg(long, value_name = "KEY")]
    pub(super) rows_of: Option<String>,
    /// Begin with this sort key
    #[arg(long, value_name = "KEY", requires = "rows_of")]
    pub(super) sort_from: Option<String>,
    /// End before this sort key
    #[arg(long, value_name = "KEY", requires = "rows_of")]
    pub(super) sort_until: Option<String>,
    /// Print keys without values
    #[arg(long)]
    pub(super) keys: bool,
    /// Stop after so many keys
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Continue from the cursor that an interrupted export printed
    #[arg(long, value_name = "CURSOR")]
    pub(super) from: Option<kv_client::Cursor>,
    /// How much to ask of every page
    #[arg(long, value_enum)]
    pub(super) level: Option<LevelArg>,
    /// How many replicas must answer for every page
    #[arg(long)]
    pub(super) r: Option<u8>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Say only whether the cluster is well; exit 9 when it is not
    #[arg(long)]
    pub(super) check: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum BucketCommand {
    /// List all buckets
    Ls,
    /// Create a bucket
    Create {
        /// Its name
        name: String,
        /// Replicas of each key; as many as the cluster has when left out
        #[arg(short)]
        n: Option<u8>,
        /// Replicas that a read needs; a majority when left out
        #[arg(short)]
        r: Option<u8>,
        /// Replicas that a write needs; a majority when left out
        #[arg(short)]
        w: Option<u8>,
        /// What becomes of concurrent writes; it cannot be changed later
        #[arg(long, value_enum, default_value = "siblings")]
        mode: ModeArg,
        /// What a put without a context does in mode siblings
        #[arg(long, value_enum, default_value = "overwrite")]
        blind_put: BlindPutArg,
        /// After this time values are gone by themselves: 90s, 1h, 720h; never when left out
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
        /// Whether nodes keep rows that are read often in memory one by one; off leaves the room to other buckets
        #[arg(long, value_enum, default_value = "on")]
        row_cache: RowCacheArg,
        /// What of a write must be on disks before it counts as done
        #[arg(long, value_enum, default_value = "quorum")]
        durability: DurabilityArg,
        /// What requests get that name no level
        #[arg(long, value_enum, default_value = "usual")]
        level: BucketLevelArg,
    },
    /// Change how many replicas reads and writes need, what puts without a context do, how long values live, what stays in
    /// memory, what is on disks before a write counts as done, and the level of requests that name none
    Set {
        /// Its name
        name: String,
        /// Replicas that a read needs
        #[arg(short)]
        r: Option<u8>,
        /// Replicas that a write needs
        #[arg(short)]
        w: Option<u8>,
        /// The epoch in which `kv repair --bucket` has compared all of it on all nodes, as that says in the end
        #[arg(long, value_name = "EPOCH")]
        repaired: Option<u64>,
        /// What a put without a context does in mode siblings
        #[arg(long, value_enum)]
        blind_put: Option<BlindPutArg>,
        /// After this time values that are written from now on are gone by themselves; 0s is never
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
        /// Whether nodes keep rows that are read often in memory one by one
        #[arg(long, value_enum)]
        row_cache: Option<RowCacheArg>,
        /// What of a write must be on disks before it counts as done
        #[arg(long, value_enum)]
        durability: Option<DurabilityArg>,
        /// What requests get that name no level
        #[arg(long, value_enum)]
        level: Option<BucketLevelArg>,
    },
    /// Drop a bucket with all that is in it
    Drop {
        /// Its name
        name: String,
        /// Drop it, and do not ask: nothing brings it back
        #[arg(long)]
        yes: bool,
    },
}

/// What becomes of concurrent writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeArg {
    /// All are kept until a write that has read them replaces them
    Siblings,
    /// Readers see the last one; the others are lost
    Lww,
}

impl From<ModeArg> for BucketMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Siblings => Self::Siblings,
            ModeArg::Lww => Self::Lww,
        }
    }
}

/// What a put without a context does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BlindPutArg {
    /// It replaces what is there
    Overwrite,
    /// It stands beside what is there
    Sibling,
}

impl From<BlindPutArg> for BlindPut {
    fn from(blind_put: BlindPutArg) -> Self {
        match blind_put {
            BlindPutArg::Overwrite => Self::Overwrite,
            BlindPutArg::Sibling => Self::Sibling,
        }
    }
}

/// Whether nodes keep single rows in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RowCacheArg {
    /// Those that are read often
    On,
    /// None; blocks are kept nevertheless
    Off,
}

impl From<RowCacheArg> for RowCache {
    fn from(row_cache: RowCacheArg) -> Self {
        match row_cache {
            RowCacheArg::On => Self::On,
            RowCacheArg::Off => Self::Off,
        }
    }
}

/// What of a write must be on disks before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DurabilityArg {
    /// Nothing: a loss of power at all who have it loses it
    Memory,
    /// At the replica that coordinates it
    One,
    /// At each replica that is waited for
    Quorum,
    /// At all replicas of the key
    All,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Memory => Self::Memory,
            DurabilityArg::One => Self::One,
            DurabilityArg::Quorum => Self::Quorum,
            DurabilityArg::All => Self::All,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    /// Only this bucket
    #[arg(long)]
    pub(super) bucket: Option<String>,
    /// Only this partition; `kv get KEY --explain` names that of a key
    #[arg(long)]
    pub(super) partition: Option<u16>,
    /// Only what this node owns
    #[arg(long, value_name = "NODE")]
    pub(super) node: Option<String>,
    /// The longest time that a node may take for 64 partitions
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(super) timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct MetricsArgs {
    /// Only this node
    #[arg(long, value_name = "NODE")]
    pub(super) node: Option<String>,
    /// Print again and again
    #[arg(long)]
    pub(super) watch: bool,
    /// The time between two prints
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(super) every: Duration,
}

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// How long to wait for nodes that do not serve yet
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(super) wait: Duration,
}

#[derive(Debug, Subcommand)]
pub(super) enum ContextCommand {
    /// List all contexts
    Ls,
    /// Choose the context that commands use
    Use {
        /// Its name
        name: String,
    },
    /// Print a context; the one in use when no name is given
    Show {
        /// Its name
        name: Option<String>,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no length of time; write 500ms, 2s or 1m");
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_fits_on_a_screen() {
        let help = Cli::command().render_help().to_string();
        assert!(help.lines().count() <= 40, "{help}");
    }

    #[test]
    fn the_context_of_the_cluster_and_of_the_key_are_told_apart() {
        let words = "kv --context dev put k v --context AAEC --w 2 --deadline 250ms --json";
        let cli = Cli::try_parse_from(words.split(' ')).unwrap();
        assert_eq!(cli.context.as_deref(), Some("dev"));
        assert!(cli.json);
        let Command::Put(put) = cli.command else {
            panic!("{:?}", cli.command)
        };
        assert_eq!(put.write.context.unwrap().to_string(), "AAEC");
        assert_eq!(
            (put.write.w, put.write.deadline),
            (Some(2), Some(Duration::from_millis(250)))
        );
    }

    #[test]
    fn mistakes_are_refused() {
        for words in [
            "kv",
            "kv put k",
            "kv get",
            "kv get k --deadline soon",
            "kv get k --level best",
            "kv resolve k",
            "kv resolve k --pick 1 --latest",
            "kv import",
            "kv import f --source apt",
            "kv import f --format deb822 --in-flight 0",
            "kv put k v --context !",
        ] {
            let error = Cli::try_parse_from(words.split(' ')).expect_err(words);
            assert_eq!(error.exit_code(), 2, "{words}");
        }
        for words in [
            "kv import f",
            "kv put k -",
            "kv put k -1",
            "kv import --source apt",
            "kv status --check",
        ] {
            Cli::try_parse_from(words.split(' ')).expect(words);
        }
    }
}
