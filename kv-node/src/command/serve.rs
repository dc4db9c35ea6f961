//! `kv-node serve`: wires the real parts, runs, stops in good order.

use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kv_net::{Credentials, Endpoint, EndpointConfig, Role};
use kv_node::adapters::{JobThreads, NodeHandler, QuicTransport, TokioHost};
use kv_node::config::{Config, LogFormat};
use kv_node::env::Env;
use kv_node::node::belongs;
use kv_node::replica::PageLimits;
use kv_node::topologies::{Topologies, USUAL_HISTORY};
use kv_node::{Node, NodeOptions, setup};
use kv_ring::Removal;
use kv_storage::InlineJobs;
use kv_storage::fs::RealFs;
use kv_types::{ClusterId, NodeId};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::join;

/// How long requests in flight may take when the node stops.
const GRACE: Duration = Duration::from_secs(10);
const METRICS_PERIOD: Duration = Duration::from_secs(10);

pub(super) fn run(config: Config) -> Result<()> {
    start_logging(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(config));
    // What is not awaited, such as a start that was broken off, is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(config: Config) -> Result<()> {
    let node_id = setup::node_of(&config.data)?;
    let credentials = Credentials::load(&setup::credentials_dir(&config.data))?;
    let identity = credentials.identity().clone();
    match identity.role {
        Role::Node(certified) => ensure!(
            certified == node_id,
            "the certificate in {} is for node {certified}, but the directory belongs to node {node_id}; issue one with `kv-node cert node`",
            config.data.display()
        ),
        Role::Client(_) | Role::Admin(_) => {
            bail!(
                "the certificate in {} is for {}, not for a node; issue one with `kv-node cert node`",
                config.data.display(),
                identity.role
            )
        }
    }
    let mut told = Told::listen()?;
    tokio::select! {
        is_member = join::wait(&config, node_id, &credentials) => is_member?,
        () = told.stop() => {
            tracing::info!("stopped before this node was a member; it goes on waiting when it is started again");
            return Ok(());
        }
    }
    let listen = listen_address(&config, node_id, identity.cluster)?;
    let endpoint = Endpoint::bind(listen, credentials, EndpointConfig::node())?;
    let env = Env {
        host: Arc::new(TokioHost::starting_now()),
        fs: Arc::new(RealFs),
        jobs: Arc::new(JobThreads::start(config.storage.read_threads as usize)?),
        transport: Arc::new(QuicTransport::new(endpoint.clone())),
    };
    let options = NodeOptions {
        node: node_id,
        cluster: identity.cluster,
        data: config.data.clone(),
        storage: config.storage_options(),
        gossip: config.gossip_config(),
        hints: config.hint_options(),
        deletes: config.delete_options(),
        scrub: config.scrub_options(),
        fetch_bytes_per_s: u64::from(config.storage.fetch_mib_s) << 20,
        pages: PageLimits::default(),
        history: USUAL_HISTORY,
    };
    // A task of its own: opening a store that is large, or on a slow disk, keeps a thread.
    let (tell, starting) = oneshot::channel();
    let env2 = env.clone();
    env.spawn(async move {
        // Nobody hears it who was told to stop meanwhile.
        let _ = tell.send(Node::start(options, env2).await);
    });
    let node = tokio::select! {
        started = starting => started??,
        () = told.stop() => {
            tracing::info!("stopped before anything was served");
            return Ok(());
        }
    };
    endpoint.serve(Arc::new(NodeHandler(Arc::clone(&node))));
    tracing::info!(%listen, data = %config.data.display(), "serving");
    if let Some(path) = config.metrics_file.clone() {
        let (node, env2) = (Arc::clone(&node), env.clone());
        env.spawn(async move { write_metrics(&node, &env2, &path).await });
    }

    let end = tokio::select! {
        () = told.stop() => End::Told,
        () = node.loss() => End::HasLost,
        removal = node.removal() => End::Removed(removal),
    };
    tracing::info!("stopping: finishing what is in flight");
    // A terminal and a supervisor may both tell it, at once.
    let mut told_again = Told::listen()?;
    tokio::select! {
        stopped = node.stop(GRACE) => stopped.context("the engine was not closed cleanly; the next start recovers from its log")?,
        () = told_again.stop() => bail!("told twice to stop; the next start recovers from the log"),
    }
    endpoint.close(Duration::from_secs(1)).await;
    tracing::info!("stopped");
    match end {
        End::Told => Ok(()),
        End::Removed(Removal {
            epoch,
            may_lose: false,
        }) => {
            tracing::info!(%epoch, "this node has left the cluster: others have all that it had, and its data directory may be deleted");
            Ok(())
        }
        End::Removed(Removal { epoch, .. }) => bail!(
            "this node was given up at epoch {epoch} and is no member any more. What only it had is in {}; to let it join anew, empty that directory",
            config.data.display()
        ),
        End::HasLost => bail!(
            "the other members remember a later start of this node: its disk was rolled back, copied or emptied. That is on record now, and this node took no part any more; start it again, and it fetches what it lacks from the others"
        ),
    }
}

/// Why a node stops.
enum End {
    Told,
    HasLost,
    Removed(Removal),
}

/// Where to listen: as configured, or where the topology says that this node is.
fn listen_address(config: &Config, node: NodeId, cluster: ClusterId) -> Result<SocketAddr> {
    let dir = setup::topology_dir(&config.data);
    let (fs, jobs) = (Arc::new(RealFs), Arc::new(InlineJobs));
    let topology = Topologies::open(fs, jobs, &dir, USUAL_HISTORY)?.current();
    belongs(&topology, node, cluster, &config.data)?;
    if let Some(listen) = config.listen {
        return Ok(listen);
    }
    let address = topology
        .member(node)
        .map(|member| member.address.as_str())
        .unwrap_or_default();
    let mut found = address
        .to_socket_addrs()
        .with_context(|| format!("the address {address} cannot be resolved"))?;
    found
        .next()
        .with_context(|| format!("the address {address} has no host"))
}

/// What tells the process to stop: SIGTERM, and SIGINT as a terminal sends it.
struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    /// From here on such a signal no longer ends the process by itself.
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Ends when the process is told to stop, each time once.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn write_metrics(node: &Node, env: &Env, path: &Path) {
    let draft = path.with_extension("draft");
    loop {
        let written =
            std::fs::write(&draft, node.metrics()).and_then(|()| std::fs::rename(&draft, path));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "the metrics file could not be written");
        }
        env.sleep(METRICS_PERIOD).await;
    }
}

fn start_logging(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter).with_context(|| {
        format!(
            "log.filter `{}` is not a filter such as `info` or `kv_node=debug,info`",
            config.log.filter
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    match config.log.format {
        LogFormat::Human => builder.with_ansi(terminal).init(),
        LogFormat::Auto if terminal => builder.init(),
        LogFormat::Auto | LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
