//! The disk of one of three nodes, a small file system of its own, is filled to the last byte by somebody else.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kv_client::{Client, Error};
use kv_tests::namespaces::skip;
use kv_tests::processes::ProcessCluster;

const KEYS: usize = 150;
/// A node must take writes again within this time once its disk has room.
const RESUME_LIMIT: Duration = Duration::from_secs(15);

/// A small file system in memory. Dropping it unmounts it.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Result<Self, String> {
        std::fs::create_dir(at).map_err(|error| error.to_string())?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output()
            .map_err(|error| error.to_string())?;
        if mounted.status.success() {
            Ok(Self(at.to_owned()))
        } else {
            let said = String::from_utf8_lossy(&mounted.stderr);
            Err(said.trim().to_owned())
        }
    }

    fn hog(&self) -> PathBuf {
        self.0.join("hog")
    }

    /// Takes all that is free, and says how much that was.
    fn fill(&self) -> usize {
        let mut file = File::create(self.hog()).expect("a file system with room");
        let chunk = vec![1; 64 << 10];
        let mut taken = 0;
        while let Ok(bytes) = file.write(&chunk)
            && bytes > 0
        {
            taken += bytes;
        }
        taken
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: its files may still be open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Long enough that all of a round do not fit into the segments of the log that a node has in reserve.
fn value(round: &str, number: usize) -> String {
    format!("{round} {number} ").repeat(5_000)
}

async fn put_all(client: &Client, round: &str) {
    for number in 0..KEYS {
        let (key, value) = (format!("{round}-{number}"), value(round, number));
        let put = client.put(key.as_str(), value).w(2);
        let put = put.deadline(Duration::from_secs(5)).await;
        put.unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

async fn expect_all(client: &Client, rounds: &[&str], replicas: u8) {
    for (round, number) in rounds
        .iter()
        .flat_map(|round| (0..KEYS).map(move |n| (round, n)))
    {
        let key = format!("{round}-{number}");
        let read = client.get(key.as_str()).r(replicas);
        let read = read.deadline(Duration::from_secs(5)).await;
        let read = read.unwrap_or_else(|error| panic!("{key}: {error}"));
        let found = read.one().expect("one value");
        assert!(
            found.as_deref() == Some(value(round, number).as_bytes()),
            "{key}"
        );
    }
}

/// Puts at all three nodes until it succeeds; what the last failure was.
async fn put_at_all_three(client: &Client, limit: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let put = client.put("everywhere", "here").w(3);
        match put.deadline(Duration::from_secs(1)).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > limit => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_one_node_fails_no_request_and_is_left_by_itself() {
    let mut cluster = ProcessCluster::set_up(3);
    let disk = match Disk::mount(&cluster.path("disk"), "240m") {
        Ok(disk) => disk,
        Err(reason) => return skip(&format!("this needs the right to mount: {reason}")),
    };
    let data = disk.0.join("n1");
    let moved = Command::new("mv").arg(cluster.data(0)).arg(&data).status();
    assert!(moved.expect("mv runs").success());
    std::os::unix::fs::symlink(&data, cluster.data(0)).expect("a link");
    for index in 0..3 {
        cluster.start_node(index);
    }
    let client = cluster.client(&[0, 1, 2]).await;
    put_all(&client, "before").await;
    put_at_all_three(&client, RESUME_LIMIT)
        .await
        .expect("three nodes");

    assert!(disk.fill() > 1 << 20, "there was room");
    put_all(&client, "full").await;
    expect_all(&client, &["before", "full"], 2).await;
    let refused = put_at_all_three(&client, Duration::ZERO).await;
    assert!(refused.is_err(), "a full disk took a write");
    // Killed and started on the full disk, it serves what it has: a read of all three needs it.
    cluster.kill(0);
    cluster.start_node(0);
    let at_the_full_one = cluster.client(&[0]).await;
    expect_all(&at_the_full_one, &["before"], 3).await;

    std::fs::remove_file(disk.hog()).expect("it is ours");
    let resumed = put_at_all_three(&client, RESUME_LIMIT).await;
    assert!(resumed.is_ok(), "{resumed:?}: {}", cluster.log(0));
    put_all(&client, "after").await;
    expect_all(&client, &["before", "full", "after"], 3).await;
    drop(cluster);
    drop(disk);
}
