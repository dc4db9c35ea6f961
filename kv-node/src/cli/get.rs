//! `kv get`: one value on stdout, or nothing; siblings are shown, never chosen from.

use kv_client::ring::Topology;
use kv_client::{Key, Read};
use serde::Serialize;

use super::args::{GetArgs, ReadArgs};
use super::explain;
use super::failure::Failure;
use super::output::Output;
use super::session::{Session, names};
use super::time;
use super::value::{self, KeyJson, SiblingJson};

#[derive(Serialize)]
struct ReadJson {
    schema: u8,
    #[serde(flatten)]
    key: KeyJson,
    found: bool,
    context: String,
    values: Vec<SiblingJson>,
    answered: Vec<String>,
    r: u8,
}

/// Reads a key and prints what it found.
pub(super) async fn run(session: &Session, output: &Output, args: GetArgs) -> Result<(), Failure> {
    let key = value::key(&args.key)?;
    let (client, bucket) = session.bucket(&args.key.bucket).await?;
    let ReadArgs { level, r, deadline } = args.read;
    let mut get = bucket.get(&key);
    if let Some(level) = level {
        get = get.level(level.into());
    }
    if let Some(r) = r {
        get = get.r(r);
    }
    if let Some(deadline) = deadline {
        get = get.deadline(deadline);
    }
    let read = if args.explain {
        let explained = get.explain().await;
        explain::shown(output, &client.topology(), explained)??
    } else {
        get.await?
    };
    let topology = client.topology();
    output.json_only(&ReadJson {
        schema: 1,
        key: KeyJson::of(&key),
        found: read.is_found(),
        context: read.context().to_string(),
        values: read
            .siblings()
            .iter()
            .map(|s| SiblingJson::of(s, &topology))
            .collect(),
        answered: names(&topology, read.answered()),
        r: read.needed(),
    })?;
    if args.all {
        for line in listing(&read, &topology) {
            output.line(line)?;
        }
    }
    finish(output, &key, read, &topology, args.all)
}

/// Prints the one value, or says why there is none.
fn finish(
    output: &Output,
    key: &Key,
    read: Read,
    topology: &Topology,
    all: bool,
) -> Result<(), Failure> {
    if !read.is_found() {
        return Err(Failure::silent(3));
    }
    if all {
        return Ok(());
    }
    if read.is_conflict() {
        show_conflict(output, key, &read, topology);
        return Err(Failure::silent(4));
    }
    if let Ok(Some(value)) = read.one() {
        output.value(&value)?;
    }
    Ok(())
}

/// Siblings on stderr, with what to do about them.
pub(super) fn show_conflict(output: &Output, key: &Key, read: &Read, topology: &Topology) {
    let count = read.siblings().len();
    output.note(format!(
        "conflict: {count} concurrent values for {key}   (exit 4)"
    ));
    for line in listing(read, topology) {
        output.note(line);
    }
    let context = read.context();
    output.note(format!("context  {context}"));
    let shown = quoted(key);
    output.note(format!(
        "choose   kv resolve {shown} --pick 1 | --latest    or    kv put {shown} VALUE --context {context}"
    ));
}

/// One line for each sibling: number, dot, time, length, beginning.
fn listing(read: &Read, topology: &Topology) -> Vec<String> {
    let line = |(number, sibling): (usize, &kv_client::Sibling<bytes::Bytes>)| {
        let dot = value::dot(sibling.dot(), topology);
        let name = dot.split(':').next().unwrap_or_default();
        let moment = time::moment(sibling.dot().hlc.millis());
        match sibling.value() {
            Some(value) => {
                let (size, preview) = (value::size(value.len() as u64), value::preview(value));
                format!("  #{number}  {name}  {moment}  {size}  {preview}")
            }
            None => format!("  #{number}  {name}  {moment}  (deleted)"),
        }
    };
    (1..).zip(read.siblings()).map(line).collect()
}

/// The key as it can be given to a shell.
fn quoted(key: &Key) -> String {
    let quote = |part: &[u8]| {
        let text = String::from_utf8_lossy(part).into_owned();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&b);
        match text.bytes().all(plain) {
            true => text,
            false => format!("'{}'", text.replace('\'', r"'\''")),
        }
    };
    let partition = quote(key.partition_key());
    if key.sort_key().is_empty() {
        return partition;
    }
    format!("{partition} --sort {}", quote(key.sort_key()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted_for_the_shell() {
        assert_eq!(quoted(&Key::new("cart:7").unwrap()), "cart:7");
        assert_eq!(quoted(&Key::new("it's $5").unwrap()), r"'it'\''s $5'");
        assert_eq!(
            quoted(&Key::with_sort("a", "b c").unwrap()),
            "a --sort 'b c'"
        );
    }
}
