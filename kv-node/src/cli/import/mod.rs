//! `kv import`: writes the records of a file, many at a time; running it again skips what is equal.

mod deb822;
mod input;
mod jsonl;
mod lines;
mod record;
mod summary;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use indicatif::ProgressBar;
use kv_client::bucket::Bucket;
use kv_client::{Digest, Key, Options};

use super::args::ImportArgs;
use super::failure::Failure;
use super::output::Output;
use super::real;
use super::session::Session;
use super::time;
use input::Input;
use record::{Item, Record};
use summary::Summary;

/// Reads records in every format, for the fuzzer.
#[cfg(fuzzing)]
pub fn read_import(bytes: &[u8]) {
    let fields = || deb822::KEY_FIELDS.map(str::to_owned).to_vec();
    deb822::Stanzas::new(bytes, fields()).for_each(drop);
    jsonl::JsonLines::new(bytes, fields()).for_each(drop);
    jsonl::JsonLines::new(bytes, Vec::new()).for_each(drop);
}

const BAR: &str = "{bar:30} {percent}%  {bytes}/{total_bytes}  {msg}  {elapsed}";
const SPINNER: &str = "{spinner} {bytes}  {msg}  {elapsed}";

/// What became of one record.
enum Done {
    Written,
    Skipped,
    Equal,
}

/// A record that is over.
struct Landed {
    line: u64,
    key: Key,
    size_bytes: u64,
    result: Result<Done, Failure>,
}

/// How records are read and written.
#[derive(Clone)]
struct Writer {
    bucket: Bucket,
    r: Option<u8>,
    w: Option<u8>,
    is_verify: bool,
}

/// Imports everything that the arguments name.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    args: ImportArgs,
) -> Result<(), Failure> {
    let input = Input::open(&args)?;
    let mut options = Options::default();
    options.deadline = args.deadline;
    if let Some(level) = args.level {
        options.level = level.into();
    }
    let (_client, bucket) = session.bucket_with(&args.bucket, options).await?;
    let writer = Writer {
        bucket,
        r: args.r,
        w: args.w,
        is_verify: args.verify,
    };
    let template = if input.length.is_some() { BAR } else { SPINNER };
    let bar = output.progress(input.length, template);
    let format = input.format;
    let begin = real::now();
    let import = Import {
        writer,
        in_flight: usize::from(args.in_flight),
        max_failures: args.max_failures.max(1),
        flights: FuturesUnordered::new(),
        keys: BTreeSet::new(),
        summary: Summary::new(),
        bar,
    };
    let summary = import.run(input).await?;
    match input::nothing_to_import(format) {
        Some(failure) if summary.records == 0 => Err(failure),
        _ => summary.finish(output, begin.elapsed(), args.verify),
    }
}

/// An import under way.
struct Import {
    writer: Writer,
    in_flight: usize,
    max_failures: u64,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// Keys under way. A key that comes twice is written in the order of the input.
    keys: BTreeSet<Key>,
    summary: Summary,
    bar: ProgressBar,
}

impl Import {
    async fn run(mut self, input: Input) -> Result<Summary, Failure> {
        let mut items = input.read();
        while let Some(item) = items.recv().await {
            match item {
                Item::Good(record) => self.begin(record).await,
                Item::Bad(bad) => {
                    self.summary.records += 1;
                    self.summary
                        .fail(bad.line, None, &Failure::usage(bad.problem));
                }
                Item::Broken(error) => {
                    let failure = Failure::usage(format!("cannot read the input: {error}"));
                    self.summary.fail(0, None, &failure);
                    self.summary.stopped = true;
                }
            }
            if self.summary.errors >= self.max_failures {
                self.summary.stopped = true;
                break;
            }
        }
        while self.land().await {}
        self.bar.finish_and_clear();
        Ok(self.summary)
    }

    /// Sends a record once there is room for it and no record of the same key is under way.
    async fn begin(&mut self, record: Record) {
        self.summary.records += 1;
        self.summary.bytes += record.value.len() as u64;
        while self.flights.len() >= self.in_flight || self.keys.contains(&record.key) {
            self.land().await;
        }
        self.keys.insert(record.key.clone());
        let writer = self.writer.clone();
        self.flights.push(Box::pin(async move {
            let Record {
                line,
                key,
                value,
                expires_ms,
            } = record;
            let size_bytes = value.len() as u64;
            let result = writer.carry(&key, value, expires_ms).await;
            Landed {
                line,
                key,
                size_bytes,
                result,
            }
        }));
    }

    /// Waits for the next record that is over; `false` when none is under way.
    async fn land(&mut self) -> bool {
        let Some(Landed {
            line,
            key,
            size_bytes,
            result,
        }) = self.flights.next().await
        else {
            return false;
        };
        self.keys.remove(&key);
        match result {
            Ok(Done::Written) => self.summary.written += 1,
            Ok(Done::Skipped) => self.summary.skipped += 1,
            Ok(Done::Equal) => self.summary.equal += 1,
            Err(failure) => self.summary.fail(line, Some(key.to_string()), &failure),
        }
        self.bar.inc(size_bytes);
        let Summary {
            written,
            skipped,
            errors,
            ..
        } = &self.summary;
        self.bar.set_message(format!(
            "written {written} · skipped {skipped} · errors {errors}"
        ));
        true
    }
}

impl Writer {
    async fn carry(
        &self,
        key: &Key,
        value: bytes::Bytes,
        expires_ms: Option<u64>,
    ) -> Result<Done, Failure> {
        let lives = expires_ms.map(|expires| expires.saturating_sub(time::now_ms()));
        if lives == Some(0) {
            return Ok(Done::Skipped);
        }
        if self.is_verify {
            return self.compare(key, &value).await;
        }
        let mut digest = self.bucket.digest(key);
        if let Some(r) = self.r {
            digest = digest.r(r);
        }
        let read = digest.await?;
        let context = read.context().clone();
        if let Ok(Some(stored)) = read.one()
            && stored == Digest::of(&value)
        {
            return Ok(Done::Skipped);
        }
        // With the context: what the input says replaces all that is stored, siblings included.
        let mut put = self.bucket.put(key, value).context(context);
        if let Some(w) = self.w {
            put = put.w(w);
        }
        if let Some(lives) = lives {
            put = put.ttl(Duration::from_millis(lives));
        }
        put.await?;
        Ok(Done::Written)
    }

    async fn compare(&self, key: &Key, value: &bytes::Bytes) -> Result<Done, Failure> {
        let mut get = self.bucket.get(key);
        if let Some(r) = self.r {
            get = get.r(r);
        }
        match get.await?.one() {
            Ok(Some(stored)) if stored == value => Ok(Done::Equal),
            Ok(Some(stored)) => Err(Failure::precondition(format!(
                "it differs: {} bytes are stored, {} are in the input",
                stored.len(),
                value.len()
            ))),
            Ok(None) => Err(Failure::precondition("it is missing")),
            Err(conflict) => Err(kv_client::Error::from(conflict).into()),
        }
    }
}
