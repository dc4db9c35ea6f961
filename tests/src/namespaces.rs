//! Networks of the kernel's own, one for each process, with packet filters between them.
//!
//! All hang on one bridge in a further namespace, where clients live ([`Namespaces::enter`]); the network of the machine
//! is not touched. This needs root, and the programs `ip` and `nft`.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Set where nothing is missing that a test could need, so that none may be skipped.
const NO_SKIPS: &str = "KV_TEST_NO_SKIPS";

/// Says why a test is not run.
///
/// # Panics
/// Where no test may be skipped.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os(NO_SKIPS).is_none(),
        "{NO_SKIPS} is set, but {reason}"
    );
    // Not by `eprintln`, which the test harness would keep to itself.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Namespaces for some nodes, and one for clients. Dropping it removes them.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    count: usize,
}

impl Namespaces {
    /// Makes namespaces for so many nodes.
    ///
    /// # Errors
    /// Why this machine, or this user, cannot.
    pub fn create(count: usize) -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let made = Self {
            prefix: format!("kv{}-{number}", std::process::id()),
            count,
        };
        let hub = made.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "addr", "add", "10.77.0.254/24", "dev", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for index in 0..count {
            let (name, wire) = (made.name(index), format!("wire{index}"));
            let address = format!("{}/24", made.address(index));
            ip(&["netns", "add", &name])?;
            ip(&[
                "-n", &hub, "link", "add", &wire, "type", "veth", "peer", "eth0", "netns", &name,
            ])?;
            ip(&["-n", &hub, "link", "set", &wire, "master", "bridge", "up"])?;
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            made.filter(index, "add table ip kv")?;
            made.filter(
                index,
                "add chain ip kv in { type filter hook input priority 0 ; }",
            )?;
        }
        Ok(made)
    }

    /// How many nodes there is room for.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where a node is.
    #[must_use]
    pub fn address(&self, index: usize) -> Ipv4Addr {
        let last = u8::try_from(index + 1).unwrap_or(u8::MAX);
        Ipv4Addr::new(10, 77, 0, last)
    }

    /// Runs a program where a node is.
    #[must_use]
    pub fn command(&self, index: usize, program: &Path) -> Command {
        let mut command = Command::new(ip_program());
        command.args(["netns", "exec", &self.name(index)]);
        command.arg(program);
        command
    }

    /// Moves this thread to where clients are. Sockets that it opens from now on belong there.
    ///
    /// # Panics
    /// When the namespace is gone.
    pub fn enter(&self) {
        let path = Path::new("/run/netns").join(self.hub());
        let namespace = File::open(path).expect("it was made");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("it was entered by root before");
    }

    /// Lets nothing through from one node to another.
    ///
    /// # Panics
    /// When the packet filter refuses.
    pub fn block(&self, from: usize, to: usize) {
        let rule = format!("add rule ip kv in ip saddr {} drop", self.address(from));
        self.filter(to, &rule).expect("a rule");
    }

    /// Loses so many percent of what a node is sent.
    ///
    /// # Panics
    /// When the packet filter refuses.
    pub fn lose(&self, index: usize, percent: u32) {
        let rule = format!("add rule ip kv in numgen random mod 100 < {percent} drop");
        self.filter(index, &rule).expect("a rule");
    }

    /// Lets everything through again.
    ///
    /// # Panics
    /// When the packet filter refuses.
    pub fn calm(&self) {
        for index in 0..self.count {
            self.filter(index, "flush chain ip kv in").expect("a chain");
        }
    }

    fn filter(&self, index: usize, rule: &str) -> Result<(), String> {
        ip(&["netns", "exec", &self.name(index), "nft", rule])
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn name(&self, index: usize) -> String {
        format!("{}-n{}", self.prefix, index + 1)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let names = (0..self.count).map(|index| self.name(index));
        for name in names.chain([self.hub()]) {
            // It may not have come to be.
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// `ip` is not always on the path of those who may use it.
fn ip_program() -> &'static str {
    if Path::new("/usr/sbin/ip").exists() {
        "/usr/sbin/ip"
    } else {
        "ip"
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(ip_program())
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(|error| format!("`ip` cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let arguments = arguments.join(" ");
    Err(format!("`ip {arguments}` says: {}", said.trim()))
}
