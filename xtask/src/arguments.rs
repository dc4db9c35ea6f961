//! The command line of the tasks.

use crate::cluster::DEFAULT_NAME;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Developer tasks of kv.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// One developer task.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a cluster of real processes on this machine
    Cluster(ClusterArguments),
    /// Run every test of the workspace and print a ledger by package
    Test(TestArguments),
    /// Import 63,000 real records while a node is killed, and compare every byte afterwards
    DemoData(DemoArguments),
    /// Measure kv beside others of its kind
    Bench(BenchArguments),
    /// Run the storage engine's tests under a sanitizer
    Sanitize(SanitizeArguments),
    /// Let libFuzzer look for bytes that harm what decodes them
    Fuzz(FuzzArguments),
    /// Live simulated days full of faults, one or for hours, and write docs/reliability-report.md
    Sim(SimArguments),
    /// Show that simulated days find bugs that are planted in the code
    Mutants(MutantsArguments),
}

/// `cargo xtask sim ..`
#[derive(Debug, Args)]
pub(crate) struct SimArguments {
    /// The day of this seed
    #[arg(long, conflicts_with_all = ["hours", "report"])]
    pub(crate) seed: Option<u64>,
    /// Tell what goes wrong as it does
    #[arg(long, requires = "seed")]
    pub(crate) log: bool,
    /// Tell all that happened to this key
    #[arg(long, requires = "seed")]
    pub(crate) key: Option<u32>,
    /// Days for so many real hours, on all processors; goes on where an earlier run of the same code ended
    #[arg(long)]
    pub(crate) hours: Option<f64>,
    /// Live nothing: print what was lived with this code, and write the report
    #[arg(long, conflicts_with = "hours")]
    pub(crate) report: bool,
}

/// `cargo xtask mutants ..`
#[derive(Debug, Args)]
pub(crate) struct MutantsArguments {
    /// Only bugs whose name contains this
    pub(crate) name: Option<String>,
    /// How many days a bug has to show
    #[arg(long, default_value_t = 200)]
    pub(crate) days: u64,
    /// The first of them
    #[arg(long, default_value_t = 5_000)]
    pub(crate) first: u64,
}

/// `cargo xtask cluster ..`
#[derive(Debug, Args)]
#[command(flatten_help = true, subcommand_negates_reqs = true)]
pub(crate) struct ClusterArguments {
    /// Which cluster: its folder in target/kv and its context
    #[arg(long, global = true, default_value = DEFAULT_NAME, value_parser = cluster_name)]
    pub(crate) name: String,
    /// What to do with it; `up` when left out.
    #[command(subcommand)]
    pub(crate) action: Option<Action>,
    /// Options of `up`, for when the word is left out.
    #[command(flatten)]
    pub(crate) up: UpArguments,
}

/// What to do with a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Build, create and start the cluster; print it again when it already runs (the default)
    Up(UpArguments),
    /// Print the cluster's table and how to reach it
    Info,
    /// Print a node's log
    Logs(LogsArguments),
    /// End nodes at once, as a crash would (SIGKILL)
    Kill(NodesArguments),
    /// Freeze nodes: alive, but silent (SIGSTOP)
    Pause(NodesArguments),
    /// Let paused nodes go on (SIGCONT)
    Resume(NodesArguments),
    /// Stop nodes if they run, start them again, and wait until they serve
    Restart(NodesArguments),
    /// Make a new node, have it join, and wait until it owns its share
    Add(AddArguments),
    /// Have a node leave, or make up for one that does not run, and delete it
    Remove(RemoveArguments),
    /// Stop all nodes in order (SIGTERM)
    Down(DownArguments),
    /// Print what other programs need to know: addresses, certificates, pids
    Env(EnvArguments),
}

/// How a cluster is built and started. What is left out is taken from the cluster that exists.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UpArguments {
    /// Number of nodes, 1 to 64 [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nodes: Option<u16>,
    /// Number of zones the nodes are spread over, 1 to 26 [default: one per replica]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=26))]
    pub(crate) zones: Option<u16>,
    /// Copies of every record [default: 3, or one per node if there are fewer]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) replicas: Option<u16>,
    /// Port of n1, the others follow; `auto` looks for free ones and keeps them [default: 7401]
    #[arg(long, value_name = "PORT|auto", value_parser = base_port)]
    pub(crate) base_port: Option<BasePort>,
    /// Where the programs come from.
    #[command(flatten)]
    pub(crate) programs: ProgramArguments,
}

/// Which `kv-node` and `kv` are run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProgramArguments {
    /// Build with optimisations and without debug assertions
    #[arg(long)]
    pub(crate) release: bool,
    /// Take kv-node and kv from this folder and build nothing
    #[arg(long, value_name = "FOLDER", conflicts_with = "release")]
    pub(crate) binaries: Option<PathBuf>,
}

/// Where the ports of a cluster begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BasePort {
    /// At this port.
    Fixed(u16),
    /// At the first place where all are free.
    Auto,
}

/// The nodes an action is for.
#[derive(Debug, Args)]
pub(crate) struct NodesArguments {
    /// Names of nodes, such as n2
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

/// `cargo xtask cluster add ..`
#[derive(Debug, Default, Args)]
pub(crate) struct AddArguments {
    /// Name of the new node, such as n5 [default: the next number]
    #[arg(value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// The zone of the new node [default: the one with the fewest nodes]
    #[arg(long)]
    pub(crate) zone: Option<String>,
}

/// `cargo xtask cluster remove ..`
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Name of the node, such as n4
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
}

/// `cargo xtask cluster logs ..`
#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// Name of the node, such as n2
    pub(crate) node: String,
    /// Go on printing what the node writes, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last lines to print
    #[arg(long, default_value_t = 200)]
    pub(crate) lines: usize,
}

/// `cargo xtask cluster down ..`
#[derive(Debug, Args)]
pub(crate) struct DownArguments {
    /// Delete the cluster's data, certificates, logs and context as well
    #[arg(long)]
    pub(crate) wipe: bool,
}

/// `cargo xtask cluster env ..`
#[derive(Debug, Args)]
pub(crate) struct EnvArguments {
    /// One JSON document, instead of lines for `eval` in a shell
    #[arg(long)]
    pub(crate) json: bool,
}

/// `cargo xtask demo-data ..`
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Import only the first so many records [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) records: Option<u64>,
    /// A file of deb822 stanzas, instead of this machine's package index
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Where the programs come from.
    #[command(flatten)]
    pub(crate) programs: ProgramArguments,
}

/// `cargo xtask bench ..`
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// What is measured.
    #[command(subcommand)]
    pub(crate) subject: BenchSubject,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchSubject {
    /// kv-storage beside RocksDB, fjall, redb and LMDB; writes the tables of docs/performance.md
    Engine(EngineBenchArguments),
}

/// `cargo xtask bench engine ..`
#[derive(Debug, Default, Args)]
pub(crate) struct EngineBenchArguments {
    /// A quarter of the data with a quarter of the memory, one pass: judges nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only rows whose name contains one of these words, separated by commas
    #[arg(long, value_name = "PATTERN")]
    pub(crate) rows: Option<String>,
    /// Only these engines (kv, rocksdb, fjall, redb, lmdb), separated by commas; writes no document
    #[arg(long, value_name = "ENGINES")]
    pub(crate) engines: Option<String>,
    /// Passes over all rows [default: 3, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) passes: Option<u32>,
    /// Measure only what the machine allows
    #[arg(long, conflicts_with_all = ["rows", "engines", "passes"])]
    pub(crate) limits: bool,
    /// Measure nothing: render the tables of what was measured before
    #[arg(long, conflicts_with_all = ["rows", "engines", "passes", "limits"])]
    pub(crate) report: bool,
    /// Measure nothing: run this row once under perf and print where its time goes
    #[arg(long, value_name = "ROW", conflicts_with_all = ["rows", "passes", "limits", "report"])]
    pub(crate) profile: Option<String>,
}

/// `cargo xtask sanitize ..`
#[derive(Debug, Args)]
pub(crate) struct SanitizeArguments {
    /// Which one; the address sanitizer when none is named
    #[arg(value_enum)]
    pub(crate) sanitizer: Option<Sanitizer>,
    /// Further arguments for the tests, such as part of a test's name
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) tests: Vec<String>,
}

/// `cargo xtask fuzz ..`
#[derive(Debug, Args)]
pub(crate) struct FuzzArguments {
    /// Which target; all when none is named
    pub(crate) target: Option<String>,
    /// For how many seconds each
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
}

/// What watches the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sanitizer {
    /// Accesses outside of memory, or after it was given back
    Address,
    /// Accesses of several threads that nothing orders; needs a standard library built with it
    Thread,
}

/// `cargo xtask test ..`
#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// Further arguments for `cargo test`, such as `-p kv-ring` or part of a test's name
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) cargo: Vec<String>,
}

/// A cluster's name becomes a folder and a context, so it is kept plain.
fn cluster_name(text: &str) -> Result<String, String> {
    let is_plain =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let starts_well = text.starts_with(|letter: char| letter.is_ascii_lowercase());
    if starts_well && text.len() <= 32 && text.chars().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(
            "a name has 1 to 32 small letters, digits and hyphens and begins with a letter"
                .to_owned(),
        )
    }
}

fn base_port(text: &str) -> Result<BasePort, String> {
    if text == "auto" {
        return Ok(BasePort::Auto);
    }
    match text.parse() {
        Ok(port) if port >= 1024 => Ok(BasePort::Fixed(port)),
        _ => Err("a base port is a number from 1024 to 65535, or auto".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Task, clap::Error> {
        let words = std::iter::once("cargo xtask").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map(|arguments| arguments.task)
    }

    fn cluster(line: &str) -> ClusterArguments {
        match parse(line).unwrap() {
            Task::Cluster(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn up_may_be_left_out_with_its_options() {
        let short = cluster("cluster --nodes 5 --zones 3 --base-port auto");
        assert!(short.action.is_none());
        assert_eq!(short.up.nodes, Some(5));
        assert_eq!(short.up.base_port, Some(BasePort::Auto));
        let long = cluster("cluster up --nodes 5");
        assert!(matches!(long.action, Some(Action::Up(up)) if up.nodes == Some(5)));
    }

    #[test]
    fn name_may_stand_before_and_after_the_action() {
        assert_eq!(cluster("cluster kill n2 --name two").name, "two");
        assert_eq!(cluster("cluster --name two kill n2").name, "two");
        assert_eq!(cluster("cluster kill n2").name, "dev");
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            "cluster --nodes 0",
            "cluster --nodes 65",
            "cluster --name ../etc",
            "cluster --name",
            "cluster --base-port 80",
            "cluster --base-port 70000",
            "cluster --release --binaries x",
            "cluster kill",
            "bench",
            "bench engine --passes 0",
            "bench engine --report --rows fill",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn arguments_of_cargo_test_are_passed_on_as_they_are() {
        let Task::Test(test) = parse("test -- -p kv-ring plan -- --nocapture").unwrap() else {
            panic!("not test");
        };
        assert_eq!(test.cargo, ["-p", "kv-ring", "plan", "--", "--nocapture"]);
    }
}
