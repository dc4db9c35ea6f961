//! The configuration of a node: flags over environment over file over defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use confique::Config as _;
use confique::meta::{FieldKind, Meta};

use crate::healing::ScrubOptions;
use crate::hints::HintOptions;
use crate::store;
use crate::tombstones::DeleteOptions;

/// Everything that an operator can set. Members, buckets and quorums are not here: they live in the
/// topology, which the nodes agree on.
#[derive(Debug, Clone, confique::Config)]
#[config(layer_attr(derive(clap::Args, Debug, Clone)))]
pub struct Config {
    /// The node's data directory, made by `kv-node init`. Everything that the node must keep is in it.
    #[config(env = "KV_NODE_DATA", layer_attr(arg(long, value_name = "DIR")))]
    pub data: PathBuf,

    /// The address to listen on (UDP). Without it, the address that the topology lists for this node.
    /// Set it where the node is reached under another address than its own.
    #[config(env = "KV_NODE_LISTEN", layer_attr(arg(long, value_name = "ADDRESS")))]
    pub listen: Option<SocketAddr>,

    /// A file to write the metrics to as Prometheus text, every ten seconds, replacing it in one
    /// step. Without it, metrics are read with `kv metrics`.
    #[config(
        env = "KV_NODE_METRICS_FILE",
        layer_attr(arg(long, value_name = "FILE"))
    )]
    pub metrics_file: Option<PathBuf>,

    /// What is logged.
    #[config(nested, layer_attr(command(flatten)))]
    pub log: Log,

    /// The storage engine.
    #[config(nested, layer_attr(command(flatten)))]
    pub storage: Storage,

    /// Failure detection.
    #[config(nested, layer_attr(command(flatten)))]
    pub gossip: Gossip,

    /// What is kept for nodes that are away.
    #[config(nested, layer_attr(command(flatten)))]
    pub hints: Hints,

    /// What is deleted.
    #[config(nested, layer_attr(command(flatten)))]
    pub deletes: Deletes,
}

/// What is logged.
#[derive(Debug, Clone, confique::Config)]
#[config(layer_attr(derive(clap::Args, Debug, Clone)))]
pub struct Log {
    /// What is logged, as `level` or `module=level,…`: error, warn, info, debug, trace. More detail
    /// costs speed.
    #[config(
        default = "info",
        env = "KV_NODE_LOG",
        layer_attr(arg(long = "log-filter", value_name = "FILTER"))
    )]
    pub filter: String,

    /// How it is written to standard error: `human`, `json`, or `auto` (human on a terminal).
    #[config(
        default = "auto",
        env = "KV_NODE_LOG_FORMAT",
        layer_attr(arg(long = "log-format", value_name = "FORMAT"))
    )]
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The storage engine.
#[derive(Debug, Clone, confique::Config)]
#[config(layer_attr(derive(clap::Args, Debug, Clone)))]
pub struct Storage {
    /// Size of the memtable in MiB (1 to 4096). Larger: fewer flushes, longer recovery after a
    /// crash. Memory use is up to twice this.
    #[config(default = 64, env = "KV_NODE_MEMTABLE_MIB", validate(
        (1..=4096).contains(memtable_mib), "must be 1 to 4096"
    ), layer_attr(arg(long, value_name = "MIB")))]
    pub memtable_mib: u32,

    /// Memory for what is kept of the store's tables in MiB (0 to 1048576). Larger: fewer reads of the disk.
    #[config(default = 256, env = "KV_NODE_CACHE_MIB", validate(
        *cache_mib <= 1_048_576, "must be at most 1048576"
    ), layer_attr(arg(long, value_name = "MIB")))]
    pub cache_mib: u32,

    /// Threads that read blocks from the disk (1 to 64).
    #[config(default = 2, env = "KV_NODE_READ_THREADS", validate(
        (1..=64).contains(read_threads), "must be 1 to 64"
    ), layer_attr(arg(long, value_name = "COUNT")))]
    pub read_threads: u32,

    /// How fast everything on the disk is read again in the background, to find what went bad, in MiB a second (0 to 4096;
    /// 0 never does).
    #[config(default = 4, env = "KV_NODE_SCRUB_MIB_S", validate(
        *scrub_mib_s <= 4096, "must be at most 4096"
    ), layer_attr(arg(long, value_name = "MIB")))]
    pub scrub_mib_s: u32,

    /// How fast this node fetches from others what it lacks or gains, and brings them what they lack, in MiB a second (0 to
    /// 65536; 0 is no limit).
    #[config(default = 64, env = "KV_NODE_FETCH_MIB_S", validate(
        *fetch_mib_s <= 65_536, "must be at most 65536"
    ), layer_attr(arg(long, value_name = "MIB")))]
    pub fetch_mib_s: u32,
}

/// Failure detection.
#[derive(Debug, Clone, confique::Config)]
#[config(layer_attr(derive(clap::Args, Debug, Clone)))]
pub struct Gossip {
    /// Timings of failure detection: `lan` for machines in one region, `wan` for regions that are more than
    /// some 200 ms apart, `local` for a cluster on one machine. All nodes of a cluster use the same.
    #[config(
        default = "lan",
        env = "KV_NODE_GOSSIP",
        layer_attr(arg(long = "gossip", value_name = "PROFILE"))
    )]
    pub profile: GossipProfile,
}

/// What is kept for nodes that are away (hinted handoff).
#[derive(Debug, Clone, confique::Config)]
#[config(layer_attr(derive(clap::Args, Debug, Clone)))]
pub struct Hints {
    /// The most that is kept, in MiB (0 to 1048576). When it is full, writes at level `eventual` that would need
    /// this node in place of another are refused here; others go on.
    #[config(default = 1024, env = "KV_NODE_HINTS_MIB", validate(
        *max_mib <= 1_048_576, "must be at most 1048576"
    ), layer_attr(arg(long = "hints-mib", value_name = "MIB")))]
    pub max_mib: u32,

    /// After so many minutes what is kept for a node that does not come back goes to the other replicas (1 to 100000).
    #[config(default = 180, env = "KV_NODE_HINTS_PATIENCE_MIN", validate(
        (1..=100_000).contains(patience_min), "must be 1 to 100000"
    ), layer_attr(arg(long = "hints-patience-min", value_name = "MINUTES")))]
    pub patience_min: u32,
}

/// What is deleted.
#[derive(Debug, Clone, confique::Config)]
#[config(layer_attr(derive(clap::Args, Debug, Clone)))]
pub struct Deletes {
    /// How many seconds a deletion is kept at least (60 to 1000000). It goes no earlier than all its replicas have it and
    /// nothing older is left anywhere, so this need not be longer than any node may be away. Clients must not repeat a
    /// write for longer.
    #[config(default = 120, env = "KV_NODE_DELETES_KEEP_S", validate(
        (60..=1_000_000).contains(keep_s), "must be 60 to 1000000"
    ), layer_attr(arg(long = "deletes-keep-s", value_name = "SECONDS")))]
    pub keep_s: u32,
}

/// Timings of failure detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GossipProfile {
    /// Machines in one region.
    Lan,
    /// Machines in regions far from each other.
    Wan,
    /// One machine.
    Local,
}

/// The flags, before they are merged with environment and file.
pub type Flags = <Config as confique::Config>::Layer;

impl Config {
    /// Merges flags, environment, file and defaults.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, an unknown key (with the nearest known one), or a value
    /// that is not possible: each names the file and the key.
    pub fn load(file: Option<&Path>, flags: Flags) -> Result<Self> {
        let mut builder = Self::builder().preloaded(flags).env();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            let table: toml::Table = toml::from_str(&text)
                .map_err(|error| anyhow!("{} is not TOML: {error}", path.display()))?;
            check_keys(&table, &Self::META, "")
                .with_context(|| format!("in {}", path.display()))?;
            let layer: Flags = toml::from_str(&text)
                .map_err(|error| anyhow!("{} cannot be used: {error}", path.display()))?;
            builder = builder.preloaded(layer);
        }
        builder.load().map_err(|error| {
            // The library's first line says little; the causes below it name key and value.
            let mut message = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                message = format!("{message}: {inner}");
                cause = inner.source();
            }
            anyhow!("{message}; `kv-node config template` lists every key")
        })
    }

    /// The engine's options.
    #[must_use]
    pub fn storage_options(&self) -> kv_storage::Options {
        let mut options = kv_storage::Options::default();
        options.memtable_bytes = self.storage.memtable_mib as usize * (1 << 20);
        options.max_batch_bytes = store::MAX_BATCH_BYTES;
        options.cache_bytes = u64::from(self.storage.cache_mib) << 20;
        options
    }

    /// How the disk is read in the background.
    #[must_use]
    pub fn scrub_options(&self) -> ScrubOptions {
        ScrubOptions {
            bytes_per_s: u64::from(self.storage.scrub_mib_s) << 20,
            ..ScrubOptions::default()
        }
    }

    /// The timings of gossip.
    #[must_use]
    pub fn gossip_config(&self) -> kv_gossip::Config {
        match self.gossip.profile {
            GossipProfile::Lan => kv_gossip::Config::lan(),
            GossipProfile::Wan => kv_gossip::Config::wan(),
            GossipProfile::Local => kv_gossip::Config::local(),
        }
    }

    /// When deletions are forgotten.
    #[must_use]
    pub fn delete_options(&self) -> DeleteOptions {
        DeleteOptions {
            keep: Duration::from_secs(u64::from(self.deletes.keep_s)),
        }
    }

    /// How much is kept for nodes that are away.
    #[must_use]
    pub fn hint_options(&self) -> HintOptions {
        HintOptions {
            max_bytes: u64::from(self.hints.max_mib) << 20,
            owner_patience: Duration::from_secs(60 * u64::from(self.hints.patience_min)),
        }
    }

    /// A commented file with every key and its default.
    #[must_use]
    pub fn template() -> String {
        confique::toml::template::<Self>(confique::toml::FormatOptions::default())
    }
}

fn check_keys(table: &toml::Table, meta: &Meta, prefix: &str) -> Result<()> {
    for (key, value) in table {
        match meta.fields.iter().find(|field| field.name == key) {
            None => {
                let nearest = meta
                    .fields
                    .iter()
                    .min_by_key(|field| strsim::levenshtein(field.name, key))
                    .map_or("", |field| field.name);
                bail!(
                    "there is no key `{prefix}{key}`; the nearest is `{prefix}{nearest}`, and `kv-node config template` lists all"
                );
            }
            Some(field) => {
                if let (FieldKind::Nested { meta }, toml::Value::Table(inner)) =
                    (&field.kind, value)
                {
                    check_keys(inner, meta, &format!("{prefix}{key}."))?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches as _};

    fn flags(args: &[&str]) -> Flags {
        let command = Flags::augment_args(Command::new("test"));
        let matches = command.get_matches_from([&["test"], args].concat());
        Flags::from_arg_matches(&matches).expect("these flags parse")
    }

    fn load(text: &str, args: &[&str]) -> Result<Config> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kv-node.toml");
        std::fs::write(&path, text).expect("a file");
        Config::load(Some(&path), flags(args))
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config = load(
            "data = \"/d\"\n[storage]\nmemtable_mib = 7\nread_threads = 3\n",
            &["--memtable-mib", "9"],
        );
        let config = config.expect("it loads");
        assert_eq!(config.storage.memtable_mib, 9);
        assert_eq!(config.storage.read_threads, 3);
        assert_eq!(config.storage.cache_mib, 256);
        assert_eq!(config.gossip.profile, GossipProfile::Lan);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let cases = [
            (
                "data = \"/d\"\nlisten_on = \"x\"\n",
                "no key `listen_on`; the nearest is `listen`",
            ),
            (
                "data = \"/d\"\n[storage]\nmemtable_mb = 1\n",
                "no key `storage.memtable_mb`; the nearest is `storage.memtable_mib`",
            ),
            (
                "data = \"/d\"\n[storage]\nmemtable_mib = 0\n",
                "must be 1 to 4096",
            ),
            ("data = \"/d\"\nlisten = \"nowhere\"\n", "listen"),
            ("data = ", "is not TOML"),
            ("[log]\nfilter = \"info\"\n", "data"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", load(text, &[]).expect_err(text));
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn the_template_is_a_valid_file_once_the_data_directory_is_given() {
        let template = Config::template();
        assert!(template.contains("memtable_mib"));
        load(&template, &["--data", "/d"]).expect("the template loads");
    }
}
