//! Clusters of real `kv-node` processes on loopback, each in a directory of its own.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kv_client::{Client, Target};
use kv_net::Role;
use kv_node::setup::{self, NewCluster, NewMember};
use kv_ring::ClusterMode;

use crate::namespaces::Namespaces;

/// Folders of certificates.
const CLIENT: &str = "client";
const ADMIN: &str = "admin";

const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Into so many the ring is cut, where a test asks for no other number: enough for few nodes, and soon moved.
const PARTITIONS: u32 = 256;

/// Set by `cargo xtask test`, which has built the programs already.
const BUILT: &str = "KV_TEST_PROGRAMS_BUILT";

/// The program `kv-node`, built now unless that was done already.
///
/// # Panics
/// When it cannot be built.
pub fn kv_node() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if std::env::var_os(BUILT).is_none() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args(["build", "--quiet", "--package", "kv-node", "--bins"])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo runs");
            assert!(built.success(), "kv-node does not build");
        }
        // This test lies in <target>/<profile>/deps.
        let test = std::env::current_exe().expect("this program");
        let profile = test
            .parent()
            .and_then(Path::parent)
            .expect("a target directory");
        profile.join("kv-node")
    })
}

/// Runs `kv-node` to its end.
///
/// # Panics
/// When it cannot be run.
pub fn run(args: &[&str]) -> Output {
    Command::new(kv_node())
        .args(args)
        .env_clear()
        .output()
        .expect("kv-node runs")
}

/// A free UDP port of loopback that nobody is given by chance while its node is down.
///
/// Linux gives ports from 32768 on to sockets that ask for any; these lie below, and none is given
/// twice by one process.
///
/// # Panics
/// When none is left.
fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Test programs that run side by side start far apart.
    let start = std::process::id().wrapping_mul(997);
    for _ in 0..COUNT {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).expect("below 32,000");
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT - 1);
}

/// Places for so many nodes on this machine.
fn addresses(nodes: usize) -> Vec<String> {
    let addresses = (0..nodes).map(|_| format!("127.0.0.1:{}", free_port()));
    addresses.collect()
}

/// A cluster of processes. Dropping it kills them and removes their files.
#[derive(Debug)]
pub struct ProcessCluster {
    dir: tempfile::TempDir,
    addresses: Vec<String>,
    running: Vec<Option<Child>>,
    /// What nodes are started with besides.
    arguments: Vec<String>,
    /// Where each node has a network of its own.
    namespaces: Option<Namespaces>,
}

impl ProcessCluster {
    /// Sets up `nodes` nodes with three replicas of each key, and starts them.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn start(nodes: usize) -> Self {
        Self::start_cut_into(PARTITIONS, nodes)
    }

    /// The same, with a ring that is cut into so many partitions.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn start_cut_into(partitions: u32, nodes: usize) -> Self {
        let addresses = addresses(nodes);
        let mut cluster = Self::set_up_at(addresses, partitions, None);
        for index in 0..nodes {
            cluster.start_node(index);
        }
        cluster
    }

    /// Sets up nodes without starting them.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn set_up(nodes: usize) -> Self {
        Self::set_up_at(addresses(nodes), PARTITIONS, None)
    }

    /// Starts one node in each namespace.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn start_in(namespaces: Namespaces) -> Self {
        let nodes = namespaces.count();
        let addresses = (0..nodes).map(|index| format!("{}:7400", namespaces.address(index)));
        let mut cluster = Self::set_up_at(addresses.collect(), PARTITIONS, Some(namespaces));
        for index in 0..nodes {
            cluster.start_node(index);
        }
        cluster
    }

    fn set_up_at(addresses: Vec<String>, partitions: u32, namespaces: Option<Namespaces>) -> Self {
        let nodes = addresses.len();
        let dir = tempfile::tempdir().expect("a directory");
        let authority = dir.path().join("ca");
        setup::create_authority(&authority, "test").expect("an authority");
        let mut members = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let data = dir.path().join(format!("n{}", index + 1));
            setup::init_node(&data).expect("an empty directory");
            setup::issue_node(&authority, &data, LIFETIME).expect("a certificate");
            let name = format!("n{}", index + 1);
            members.push(NewMember {
                zone: name.clone(),
                name,
                weight: 1,
                address: address.clone(),
                data,
            });
        }
        let replicas = u8::try_from(nodes.min(3)).expect("at most three");
        let spec = NewCluster {
            name: "test".to_owned(),
            mode: ClusterMode::Ap,
            replicas,
            partitions,
            members,
        };
        setup::create_cluster(&spec).expect("a possible cluster");
        for (role, folder) in [
            (Role::Client("test".to_owned()), CLIENT),
            (Role::Admin("test".to_owned()), ADMIN),
        ] {
            setup::issue_person(&authority, role, &dir.path().join(folder), LIFETIME)
                .expect("a certificate");
        }
        Self {
            dir,
            addresses,
            running: (0..nodes).map(|_| None).collect(),
            arguments: Vec::new(),
            namespaces,
        }
    }

    /// The data directory of a node.
    #[must_use]
    pub fn data(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("n{}", index + 1))
    }

    /// Any other path of the cluster's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where a node listens.
    #[must_use]
    pub fn address(&self, index: usize) -> &str {
        &self.addresses[index]
    }

    /// Has nodes started with further arguments from now on.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        let more = arguments.iter().map(|argument| (*argument).to_owned());
        self.arguments.extend(more);
    }

    /// Starts a node that does not run.
    ///
    /// # Panics
    /// When the program cannot be run.
    pub fn start_node(&mut self, index: usize) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("n{}.log", index + 1)));
        let mut command = match &self.namespaces {
            Some(namespaces) => namespaces.command(index, kv_node()),
            None => Command::new(kv_node()),
        };
        let child = command
            .args([
                "serve",
                "--gossip",
                "local",
                "--log-format",
                "human",
                "--data",
            ])
            .arg(self.data(index))
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn()
            .expect("kv-node runs");
        self.running[index] = Some(child);
    }

    /// Kills a node's process with SIGKILL.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, index: usize) {
        let mut child = self.running[index].take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }

    /// Stops a node's process where it stands, or lets it go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn set_paused(&self, index: usize, is_paused: bool) {
        let child = self.running[index].as_ref().expect("it runs");
        let signal = if is_paused { "-STOP" } else { "-CONT" };
        let told = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(told.success());
    }

    /// The networks of the nodes.
    ///
    /// # Panics
    /// When they have none of their own.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        self.namespaces.as_ref().expect("networks of their own")
    }

    /// Tells a node to stop, and waits until it has.
    ///
    /// # Panics
    /// When it does not run, or says that it failed.
    pub fn stop(&mut self, index: usize) {
        let mut child = self.running[index].take().expect("it runs");
        let pid = child.id().to_string();
        let told = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill runs");
        assert!(told.success());
        let status = child.wait().expect("it is ours");
        assert!(status.success(), "{status}: {}", self.log(index));
    }

    /// What a node has logged.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.path(&format!("n{}.log", index + 1))).unwrap_or_default()
    }

    /// A client with the given nodes as seeds.
    #[must_use]
    pub fn target(&self, seeds: &[usize]) -> Target {
        self.target_as(CLIENT, seeds)
    }

    fn target_as(&self, folder: &str, seeds: &[usize]) -> Target {
        let seeds: Vec<String> = seeds
            .iter()
            .map(|index| self.addresses[*index].clone())
            .collect();
        let tls = self.path(folder);
        Target::files(
            seeds,
            tls.join("ca.pem"),
            tls.join("cert.pem"),
            tls.join("key.pem"),
        )
    }

    /// A connected client, as soon as a node answers.
    ///
    /// # Panics
    /// When none does in 20 tries.
    pub async fn client(&self, seeds: &[usize]) -> Client {
        self.connect(CLIENT, seeds).await
    }

    /// As [`client`](Self::client), with an admin's certificate.
    ///
    /// # Panics
    /// When none does in 20 tries.
    pub async fn admin(&self, seeds: &[usize]) -> Client {
        self.connect(ADMIN, seeds).await
    }

    /// Runs the command line `kv` to its end, as an admin, with the given nodes as seeds.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn kv(&self, seeds: &[usize], args: &[&str]) -> Output {
        let seeds: Vec<&str> = seeds.iter().map(|index| self.address(*index)).collect();
        let tls = self.path(ADMIN);
        Command::new(kv_node().with_file_name("kv"))
            .args(args)
            .env_clear()
            .env("KV_SEEDS", seeds.join(","))
            .env("KV_CA", tls.join("ca.pem"))
            .env("KV_CERT", tls.join("cert.pem"))
            .env("KV_KEY", tls.join("key.pem"))
            .env("KV_CONFIG_DIR", self.path("config"))
            .output()
            .expect("kv runs")
    }

    /// Has the members changed as `kv cluster` is told, by the plan that follows.
    ///
    /// # Panics
    /// When a step is refused.
    pub fn change(&self, seeds: &[usize], wish: &[&str]) {
        self.change_with(seeds, wish, &[]);
    }

    fn change_with(&self, seeds: &[usize], wish: &[&str], flags: &[&str]) {
        self.change_at_once(seeds, wish);
        let plan = self.kv(seeds, &["cluster", "plan", "--json"]);
        let plan: serde_json::Value =
            serde_json::from_slice(&plan.stdout).unwrap_or_else(|_| panic!("{plan:?}"));
        let id = plan["plan"].as_str().expect("an id");
        self.change_at_once(seeds, &[&["commit", id], flags].concat());
    }

    /// Runs one command of `kv cluster`.
    ///
    /// # Panics
    /// When it is refused.
    pub fn change_at_once(&self, seeds: &[usize], words: &[&str]) {
        let words: Vec<&str> = std::iter::once("cluster")
            .chain(words.iter().copied())
            .collect();
        let done = self.kv(seeds, &words);
        assert!(done.status.success(), "{words:?}: {done:?}");
    }

    /// Sets up a further node with a ticket, starts it, and has it join. Gives its index.
    ///
    /// # Panics
    /// When a step is refused.
    pub fn join(&mut self, zone: &str) -> usize {
        let seeds: Vec<usize> = self.running_ones();
        let (index, member) = self.make_ready(&seeds, zone);
        self.start_node(index);
        self.change(&seeds, &["join", &member]);
        index
    }

    /// Sets up a further node with a ticket, starts it, and has it take the place of one that is gone. Gives its index.
    ///
    /// # Panics
    /// When a step is refused.
    pub fn replace(&mut self, seeds: &[usize], gone: &str, zone: &str) -> usize {
        let (index, member) = self.make_ready(seeds, zone);
        self.start_node(index);
        self.change(seeds, &["replace", gone, &member]);
        index
    }

    /// Has further nodes join, by one plan, where members are given up that may have been the last to have acknowledged writes.
    ///
    /// # Panics
    /// When a step is refused.
    pub fn join_with_loss(&mut self, seeds: &[usize], zones: &[&str]) {
        let mut last: Option<String> = None;
        for zone in zones {
            if let Some(member) = last.take() {
                self.change_at_once(seeds, &["join", &member]);
            }
            let (index, member) = self.make_ready(seeds, zone);
            self.start_node(index);
            last = Some(member);
        }
        let last = last.expect("at least one");
        self.change_with(seeds, &["join", &last], &["--accept-data-loss"]);
    }

    /// Waits until a node's process ends by itself, in good order.
    ///
    /// # Panics
    /// When it does not run, or says that it failed.
    pub fn ends(&mut self, index: usize) {
        let mut child = self.running[index].take().expect("it runs");
        let status = child.wait().expect("it is ours");
        assert!(status.success(), "{status}: {}", self.log(index));
    }

    fn running_ones(&self) -> Vec<usize> {
        let running = self.running.iter().enumerate();
        let running = running.filter(|(_, child)| child.is_some());
        running.map(|(index, _)| index).collect()
    }

    /// A further node, ready to join; gives what an operator stages for that.
    fn make_ready(&mut self, seeds: &[usize], zone: &str) -> (usize, String) {
        let index = self.addresses.len();
        self.addresses.push(format!("127.0.0.1:{}", free_port()));
        self.running.push(None);
        let ticket = self.kv(seeds, &["cluster", "ticket"]);
        let ticket = String::from_utf8_lossy(&ticket.stdout).into_owned();
        let (data, ca) = (self.data(index), self.path("ca"));
        let [data, ca] = [&data, &ca].map(|path| path.to_str().expect("a name of ours"));
        let (name, address) = (format!("n{}", index + 1), self.address(index));
        let made = run(&[
            "join",
            ticket.trim(),
            "--set-up-only",
            "--json",
            "--data",
            data,
            "--ca",
            ca,
            "--name",
            &name,
            "--zone",
            zone,
            "--address",
            address,
            "--valid",
            "1day",
        ]);
        let text: serde_json::Value =
            serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{made:?}"));
        let member = text["member"].as_str().expect("a member");
        (index, member.to_owned())
    }

    async fn connect(&self, folder: &str, seeds: &[usize]) -> Client {
        let mut last = None;
        for _ in 0..20 {
            match Client::connect(self.target_as(folder, seeds)).await {
                Ok(client) => return client,
                Err(error) => last = Some(error),
            }
        }
        panic!("no node answers: {last:?}\n{}", self.log(seeds[0]));
    }
}

impl Drop for ProcessCluster {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            // Already gone is fine: all that matters is that none is left behind.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
