//! Measures how writing tables disturbs the syncs of a log: 1 GiB in files of 32 MiB, plainly buffered,
//! buffered with early write-back, and by direct I/O, while another thread appends 1 KiB and syncs.
//!
//! `cargo run --release -p kv-storage --example table_output [directory]`

use kv_storage::fs::{AppendFile, Fs, RealFs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TABLE_BYTES: usize = 32 << 20;
const TABLES: usize = 32;

fn create(form: &str, path: &Path) -> Box<dyn AppendFile> {
    let created = match form {
        "plain" => RealFs.create(path),
        "early write-back" => RealFs.create_table(path, false),
        _ => RealFs.create_table(path, true),
    };
    created.expect("the directory can be written")
}

/// Writes all tables; seconds by the wall clock.
#[expect(clippy::disallowed_methods, reason = "an example measures")]
fn write_tables(form: &str, dir: &Path) -> f64 {
    let bytes: Vec<u8> = (0..256 << 10)
        .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let start = Instant::now();
    for number in 0..TABLES {
        let mut file = create(form, &dir.join(format!("{number}.sst")));
        for _ in 0..TABLE_BYTES / bytes.len() {
            file.append(&bytes).expect("there is room");
        }
        file.sync().expect("the disk works");
    }
    start.elapsed().as_secs_f64()
}

/// Appends and syncs until told to stop; how long each sync took, ascending.
#[expect(clippy::disallowed_methods, reason = "an example measures")]
fn sync_log(dir: &Path, stop: &AtomicBool) -> Vec<Duration> {
    let mut file = RealFs
        .create(&dir.join("log"))
        .expect("the directory can be written");
    let mut taken = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        file.append(&[1; 1024]).expect("there is room");
        file.sync().expect("the disk works");
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    taken
}

#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example prints and waits"
)]
fn main() {
    let base = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    for round in 1..=3 {
        for form in ["none", "plain", "early write-back", "direct"] {
            let dir = base.join(format!("kv-table-output-{}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("a directory can be made");
            let stop = AtomicBool::new(false);
            let (seconds, taken) = std::thread::scope(|scope| {
                let log = scope.spawn(|| sync_log(&dir, &stop));
                let seconds = if form == "none" {
                    std::thread::sleep(Duration::from_secs(1));
                    f64::INFINITY
                } else {
                    write_tables(form, &dir)
                };
                stop.store(true, Ordering::Relaxed);
                (seconds, log.join().expect("the log thread ends"))
            });
            let at =
                |share: f64| taken[((taken.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            println!(
                "round {round}, {form:<16} {:6.0} MB/s; {:5} syncs, ms: p50 {:6.3} p99 {:7.3} p99.9 {:7.3} max {:7.3}",
                (TABLES * TABLE_BYTES) as f64 / 1e6 / seconds,
                taken.len(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
            std::fs::remove_dir_all(&dir).expect("the directory can be removed");
        }
    }
}
