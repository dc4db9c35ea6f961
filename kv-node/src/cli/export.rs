//! `kv export`: all records of a bucket as JSON lines, which `kv import` takes.

use std::ops::Bound;

use bytes::Bytes;
use indicatif::ProgressBar;
use kv_client::ring::Topology;
use kv_client::scan::Scan;
use kv_client::view::View;
use kv_client::{Cursor, Entry, Key, Read};
use serde::Serialize;

use super::args::ExportArgs;
use super::failure::Failure;
use super::output::Output;
use super::session::Session;
use super::time;
use super::value::{self, KeyJson, SiblingJson};

const BAR: &str = "{bar:30} {percent}%  {msg}  {elapsed}";

/// A record with one value.
#[derive(Serialize)]
struct RecordJson {
    schema: u8,
    #[serde(flatten)]
    key: KeyJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// When it expires; it is imported with the rest of its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

/// A record with several: nothing is chosen, and `kv import` refuses it.
#[derive(Serialize)]
struct ConflictJson {
    schema: u8,
    #[serde(flatten)]
    key: KeyJson,
    values: Vec<SiblingJson>,
    context: String,
}

/// How many keys were printed, and how many of them have siblings.
#[derive(Default)]
struct Counts {
    keys: u64,
    conflicts: u64,
}

/// Prints a bucket, or rows of a partition key. Deleted keys are left out.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    args: ExportArgs,
) -> Result<(), Failure> {
    let (client, bucket) = session.bucket(&args.bucket).await?;
    let bar = output.progress(Some(1), BAR);
    let counts = if args.keys {
        let scan = match &args.rows_of {
            None => bucket.scan_digests(),
            Some(key) => bucket.scan_row_digests(key.clone(), sort_keys(&args)),
        };
        let scan = configured(scan, &args);
        print_all(scan, output, &args, &bar, |key, _| {
            let (schema, key) = (1, KeyJson::of(&key));
            output.json_line(&RecordJson {
                schema,
                key,
                value: None,
                value_base64: None,
                expires: None,
            })
        })
        .await
    } else {
        let scan = match &args.rows_of {
            None => bucket.scan(),
            Some(key) => bucket.scan_rows(key.clone(), sort_keys(&args)),
        };
        let scan = configured(scan, &args);
        let topology = client.topology();
        print_all(scan, output, &args, &bar, |key, read| {
            print(output, &key, read, &topology)
        })
        .await
    };
    bar.finish_and_clear();
    let counts = counts?;
    let (keys, conflicts) = (value::count(counts.keys), value::count(counts.conflicts));
    output.note(format!("{keys} keys"));
    if counts.conflicts > 0 && !args.keys {
        output.error(&format!(
            "{conflicts} keys have siblings, printed as `values`"
        ));
        output.hint("look at each with `kv get KEY`, then `kv resolve KEY`");
        return Err(Failure::silent(4));
    }
    Ok(())
}

/// The sort keys of the rows that are asked for.
fn sort_keys(args: &ExportArgs) -> (Bound<Bytes>, Bound<Bytes>) {
    let own = |text: &Option<String>| text.clone().map(Bytes::from);
    let from = own(&args.sort_from).map_or(Bound::Unbounded, Bound::Included);
    let until = own(&args.sort_until).map_or(Bound::Unbounded, Bound::Excluded);
    (from, until)
}

fn configured<W: View>(mut scan: Scan<W>, args: &ExportArgs) -> Scan<W> {
    if let Some(cursor) = &args.from {
        scan = scan.from(cursor.clone());
    }
    if let Some(level) = args.level {
        scan = scan.level(level.into());
    }
    if let Some(r) = args.r {
        scan = scan.r(r);
    }
    scan
}

async fn print_all<W: View>(
    mut scan: Scan<W>,
    output: &Output,
    args: &ExportArgs,
    bar: &ProgressBar,
    mut print: impl FnMut(Key, Read<W::Value>) -> std::io::Result<()>,
) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    while args.limit.is_none_or(|limit| counts.keys < limit) {
        let cursor: Cursor = scan.cursor().clone();
        let Entry { key, read } = match scan.next().await {
            None => return Ok(counts),
            Some(Ok(entry)) => entry,
            Some(Err(error)) => {
                return Err(Failure::from(error).hint(format!(
                    "continue with the same options and `--from {cursor}`"
                )));
            }
        };
        let (at, of) = scan.progress();
        bar.set_length(of.into());
        bar.set_position(at.into());
        bar.set_message(format!("{} keys", counts.keys));
        if read.is_found() {
            counts.keys += 1;
            counts.conflicts += u64::from(read.is_conflict());
            print(key, read)?;
        }
    }
    if !scan.cursor().is_end() {
        output.hint(&format!(
            "continue with the same options and `--from {}`",
            scan.cursor()
        ));
    }
    Ok(counts)
}

fn print(
    output: &Output,
    key: &Key,
    read: Read<Bytes>,
    topology: &Topology,
) -> std::io::Result<()> {
    let expires = read
        .siblings()
        .first()
        .and_then(kv_client::Sibling::expires_ms);
    match read.one() {
        Ok(found) => {
            let (value, value_base64) = value::split(&found.unwrap_or_default());
            let key = KeyJson::of(key);
            output.json_line(&RecordJson {
                schema: 1,
                key,
                value,
                value_base64,
                expires: expires.map(time::moment),
            })
        }
        Err(conflict) => {
            let read = conflict.into_read();
            let values = read
                .siblings()
                .iter()
                .map(|s| SiblingJson::of(s, topology))
                .collect();
            let context = read.context().to_string();
            output.json_line(&ConflictJson {
                schema: 1,
                key: KeyJson::of(key),
                values,
                context,
            })
        }
    }
}
