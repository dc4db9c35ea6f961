//! The topology that this node lives by: the newest chain entry it has made durable.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use kv_ring::{ChainEntry, ChainHash, PartitionId, Topology};
use kv_storage::fs::{Fs, read_all, replace_file};
use kv_storage::{JobClass, Jobs};
use kv_types::{Epoch, planted};

/// How many entries a node keeps. Whoever is further behind takes the newest one at once: each is a whole topology.
pub const USUAL_HISTORY: usize = 64;

/// The present topology, and the end of its history on disk.
///
/// Invariants:
/// 1. An entry is durable before anything is served under it, and epochs only rise.
/// 2. Every entry names the hash of the one before it; another history is refused. Only from a peer that does not keep
///    the entries in between, a later one of the same cluster is believed without.
pub struct Topologies {
    fs: Arc<dyn Fs>,
    /// Where files are written and synced, so that no request waits behind that.
    jobs: Arc<dyn Jobs>,
    dir: PathBuf,
    /// How many entries are kept.
    kept: usize,
    current: RwLock<Current>,
    /// One adoption at a time; readers are not kept waiting by its files.
    adopting: tokio::sync::Mutex<()>,
    before: OnceLock<Arc<dyn BeforeAdoption>>,
}

/// Who does something before another topology is in force.
pub trait BeforeAdoption: Debug + Send + Sync {
    /// Does it, given the topology that is in force still. An error, which says why not, keeps the other from being adopted.
    fn prepare<'a>(
        &'a self,
        current: &'a Topology,
        next: &'a Topology,
    ) -> BoxFuture<'a, Result<(), String>>;
}

#[derive(Debug, Clone)]
struct Current {
    topology: Arc<Topology>,
    chain_hash: ChainHash,
    /// The last entries without a gap, as their bytes came.
    entries: BTreeMap<Epoch, Bytes>,
}

/// A topology could not be read or taken over. The node goes on with the one it has.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The directory holds no genesis: create the cluster first.
    #[error("{} holds no topology; run `kv-node cluster create`, or point `data` at the node's directory", dir.display())]
    Missing {
        /// The directory looked in.
        dir: PathBuf,
    },
    /// The entry is damaged, newer than this program, or not a continuation of the history here.
    #[error("topology entry {name}: {problem}")]
    Refused {
        /// File or epoch.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It continues another history than the one here.
    #[error(
        "epoch {epoch} continues another history; this node or its peer was set up from a different genesis, or the chain is forked"
    )]
    OtherHistory {
        /// Of which epoch the entry is.
        epoch: Epoch,
    },
    /// The file system failed.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Topologies {
    /// Reads the history in `dir` (`<data>/topology`), of which `kept` entries are to stay, one at least.
    ///
    /// # Errors
    /// [`TopologyError`] when it is missing or damaged.
    pub fn open(
        fs: Arc<dyn Fs>,
        jobs: Arc<dyn Jobs>,
        dir: &Path,
        kept: usize,
    ) -> Result<Self, TopologyError> {
        let missing = || TopologyError::Missing {
            dir: dir.to_owned(),
        };
        let names = fs.list(dir).map_err(|_| missing())?;
        let mut current: Option<Current> = None;
        for name in names.iter().filter(|name| name.ends_with(".entry")) {
            let path = dir.join(name);
            let bytes = read_all(&*fs, &path).map_err(|source| TopologyError::Io {
                action: "read",
                path,
                source,
            })?;
            let bytes = Bytes::from(bytes);
            let refused = |problem: String| TopologyError::Refused {
                name: name.clone(),
                problem,
            };
            let next = decode(&bytes).and_then(|entry| successor(current.as_ref(), entry));
            current = Some(next.map_err(|unfit| refused(unfit.to_string()))?);
        }
        let current = current.ok_or_else(missing)?;
        Ok(Self {
            fs,
            jobs,
            dir: dir.to_owned(),
            kept: kept.max(1),
            current: RwLock::new(current),
            adopting: tokio::sync::Mutex::default(),
            before: OnceLock::new(),
        })
    }

    /// From now on this is done before a topology is adopted. Only the first call counts.
    pub fn before_adoption(&self, before: Arc<dyn BeforeAdoption>) {
        // There is one node for these topologies.
        let _ = self.before.set(before);
    }

    /// Writes one entry into `dir`, durably: how genesis gets into a data directory.
    ///
    /// # Errors
    /// [`TopologyError::Io`]; an entry of that epoch is left as it is.
    pub fn install(
        fs: &dyn Fs,
        dir: &Path,
        epoch: Epoch,
        entry: &[u8],
    ) -> Result<(), TopologyError> {
        let io = |action| {
            move |source| TopologyError::Io {
                action,
                path: dir.to_owned(),
                source,
            }
        };
        fs.create_dir(dir).map_err(io("create"))?;
        replace_file(fs, dir, &format!("{:010}.entry", epoch.0), entry)
            .map_err(io("write a topology entry into"))
    }

    /// The present topology, immutable; a request takes it once and keeps it.
    #[must_use]
    pub fn current(&self) -> Arc<Topology> {
        Arc::clone(&self.read().topology)
    }

    /// The present epoch, and the entry that brings whoever knows `known` forward: the next one for a node with a history of
    /// its own; the newest for whoever has none (epoch 0), or is so far behind that the next one is not kept. Empty bytes
    /// when there is nothing newer.
    #[must_use]
    pub fn entry_after(&self, known: Epoch) -> (Epoch, Bytes) {
        let current = self.read();
        let newer = || {
            current
                .entries
                .range((Bound::Excluded(known), Bound::Unbounded))
        };
        let entry = match newer().next() {
            Some((next, entry)) if *next == known.next() && known != Epoch(0) => Some(entry),
            _ => newer().next_back().map(|(_, entry)| entry),
        };
        (current.topology.epoch(), entry.cloned().unwrap_or_default())
    }

    /// The present topology, and the hash of the chain up to it.
    #[must_use]
    pub fn tip(&self) -> (Arc<Topology>, ChainHash) {
        let current = self.read();
        (Arc::clone(&current.topology), current.chain_hash)
    }

    /// The entry of an epoch, if it is kept here.
    #[must_use]
    pub fn entry_of(&self, epoch: Epoch) -> Option<Bytes> {
        self.read().entries.get(&epoch).cloned()
    }

    /// All entries that are kept here.
    #[must_use]
    pub fn entries(&self) -> Vec<(Epoch, Bytes)> {
        let entries = &self.read().entries;
        entries
            .iter()
            .map(|(epoch, entry)| (*epoch, entry.clone()))
            .collect()
    }

    /// The hash of the chain up to the present entry.
    #[must_use]
    pub fn chain_hash(&self) -> ChainHash {
        self.read().chain_hash
    }

    /// Runs `append` only if a partition has not changed since `epoch`, with no adoption in between.
    ///
    /// # Errors
    /// The present epoch, when the partition has changed; `append` was not run.
    pub fn unchanged_since<T>(
        &self,
        epoch: Epoch,
        partition: PartitionId,
        append: impl FnOnce() -> T,
    ) -> Result<T, Epoch> {
        let current = self.read();
        let is_served = planted!("serve requests from before a change of owners");
        if epoch < current.topology.changed_at(partition) && !is_served {
            return Err(current.topology.epoch());
        }
        Ok(append())
    }

    /// Keeps the present topology in force while the guard lives.
    pub async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.adopting.lock().await
    }

    /// Takes over the next entry of the chain, durably, or a later one from a peer that keeps the next one no more. Says whether
    /// it was new.
    ///
    /// # Errors
    /// [`TopologyError`]; the present topology stays.
    pub async fn adopt(&self, entry: Bytes) -> Result<bool, TopologyError> {
        let _one = self.adopting.lock().await;
        let before = self.read().clone();
        let refused = |unfit: Unfit| match unfit {
            Unfit::OtherHistory(epoch) => TopologyError::OtherHistory { epoch },
            Unfit::Damaged(_) | Unfit::Late { .. } => TopologyError::Refused {
                name: format!("after epoch {}", before.topology.epoch()),
                problem: unfit.to_string(),
            },
        };
        let next = decode(&entry).map_err(refused)?;
        if before.knows(&next) {
            return Ok(false);
        }
        let mut next = successor(Some(&before), next).map_err(refused)?;
        if let Some(first) = self.before.get() {
            let prepared = first.prepare(&before.topology, &next.topology).await;
            prepared.map_err(|problem| TopologyError::Refused {
                name: format!("of epoch {}", next.topology.epoch()),
                problem,
            })?;
        }
        let epoch = next.topology.epoch();
        while next.entries.len() > self.kept {
            let _ = next.entries.pop_first();
        }
        let oldest = next.entries.first_key_value();
        let oldest = oldest.map_or(epoch, |(oldest, _)| *oldest);
        if !planted!("adopt a topology before it is durable") {
            self.make_durable(epoch, entry, oldest).await?;
        }
        if epoch > before.topology.epoch().next() {
            tracing::info!(from = %before.topology.epoch(), to = %epoch, "topologies in between are not kept by the peer, and left out");
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(true)
    }

    /// Writes an entry, durably, and removes those before the oldest one that is kept.
    async fn make_durable(
        &self,
        epoch: Epoch,
        entry: Bytes,
        oldest: Epoch,
    ) -> Result<(), TopologyError> {
        let (done, written) = oneshot::channel();
        let (fs, dir) = (Arc::clone(&self.fs), self.dir.clone());
        let write = move || {
            let installed = Self::install(&*fs, &dir, epoch, &entry);
            if installed.is_ok() {
                remove_older(&*fs, &dir, oldest);
            }
            // Nobody waits any more if the request that brought it has ended.
            let _ = done.send(installed);
        };
        self.jobs.submit(JobClass::LogSegment, Box::new(write));
        let ends = |_| TopologyError::Io {
            action: "write a topology entry into",
            path: self.dir.clone(),
            source: std::io::Error::other("the node ends"),
        };
        written.await.map_err(ends)?
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debug for Topologies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topologies")
            .field("dir", &self.dir)
            .field("epoch", &self.read().topology.epoch())
            .finish_non_exhaustive()
    }
}

impl Current {
    /// Whether an entry is one of the history, as far as that can be said: of what is not kept any more, all are.
    fn knows(&self, entry: &ChainEntry) -> bool {
        let oldest = self.entries.first_key_value().map(|(epoch, _)| *epoch);
        let kept = self.entries.get(&entry.epoch());
        kept.is_some_and(|kept| *kept == entry.encode()) || Some(entry.epoch()) < oldest
    }
}

/// Removes the files of epochs before one. One that stays is removed with a later epoch.
fn remove_older(fs: &dyn Fs, dir: &Path, oldest: Epoch) {
    let older = |name: &String| {
        let epoch = name
            .strip_suffix(".entry")
            .and_then(|epoch| epoch.parse().ok());
        epoch.is_some_and(|epoch: u64| epoch < oldest.0)
    };
    for name in fs.list(dir).into_iter().flatten().filter(older) {
        if let Err(error) = fs.remove(&dir.join(&name)) {
            tracing::debug!(%error, name, "an old topology stays");
        }
    }
}

/// Why an entry is not the next one.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("{0}")]
    Damaged(String),
    #[error("has epoch {epoch}, expected {expected}")]
    Late { epoch: Epoch, expected: Epoch },
    #[error("continues another history; this node or its peer was set up from a different genesis")]
    OtherHistory(Epoch),
}

fn decode(entry: &[u8]) -> Result<ChainEntry, Unfit> {
    ChainEntry::decode(entry).map_err(|error| Unfit::Damaged(error.to_string()))
}

/// Checks that an entry continues the history, or is a later one of the same cluster.
fn successor(before: Option<&Current>, entry: ChainEntry) -> Result<Current, Unfit> {
    let mut entries = BTreeMap::new();
    if let Some(before) = before {
        let expected = before.topology.epoch().next();
        if entry.epoch() < expected {
            return Err(Unfit::Late {
                epoch: entry.epoch(),
                expected,
            });
        }
        let is_next = entry.epoch() == expected;
        let is_other = match is_next {
            true => entry.previous() != before.chain_hash,
            false => entry.topology().cluster_id() != before.topology.cluster_id(),
        };
        if is_other {
            return Err(Unfit::OtherHistory(entry.epoch()));
        }
        if is_next {
            entries.clone_from(&before.entries);
        }
    }
    entries.insert(entry.epoch(), entry.encode());
    Ok(Current {
        topology: Arc::clone(entry.topology()),
        chain_hash: entry.chain_hash(),
        entries,
    })
}
