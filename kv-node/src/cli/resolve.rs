//! `kv resolve`: one sibling replaces all, with the context of the read that showed them.

use std::time::Duration;

use kv_client::{Read, Sibling};

use super::args::ResolveArgs;
use super::failure::Failure;
use super::output::Output;
use super::put::{self, with_options};
use super::session::Session;
use super::time;
use super::value;

/// Reads the key and writes the chosen sibling over all that were read. Choosing a deletion deletes.
pub(super) async fn run(
    session: &Session,
    output: &Output,
    mut args: ResolveArgs,
) -> Result<(), Failure> {
    let key = value::key(&args.key)?;
    let (client, bucket) = session.bucket(&args.key.bucket).await?;
    let mut get = bucket.get(&key);
    if let Some(deadline) = args.write.deadline {
        get = get.deadline(deadline);
    }
    let read = get.await?;
    if !read.is_found() {
        return Err(Failure::silent(3));
    }
    if !read.is_conflict() {
        output.note(format!("{key} has one value; there is nothing to resolve"));
        return Ok(());
    }
    check_unchanged(&args, &read)?;
    args.write.context = Some(read.context().clone());
    let chosen = choose(read, args.pick)?;
    // It goes on to live for as long as it would have.
    let lives = chosen.expires_ms().map(|expires| {
        let left = expires.saturating_sub(time::now_ms()).max(1);
        Duration::from_millis(left)
    });
    let written = match chosen.into_value() {
        Some(value) => {
            let mut put = bucket.put(&key, value);
            put = put.ttl(lives.unwrap_or(Duration::ZERO));
            with_options!(put, args.write).await?
        }
        None => with_options!(bucket.delete(&key), args.write).await?,
    };
    put::report(output, &client, &key, &written)
}

/// With `--context`, the siblings must still be those that were shown with it.
fn check_unchanged(args: &ResolveArgs, read: &Read) -> Result<(), Failure> {
    match &args.write.context {
        Some(context) if context != read.context() => Err(Failure::precondition(
            "the key has changed since that context was shown; nothing was written",
        )
        .hint("look again with `kv get`")),
        _ => Ok(()),
    }
}

fn choose(read: Read, pick: Option<usize>) -> Result<Sibling<bytes::Bytes>, Failure> {
    let mut siblings = read.into_siblings();
    let count = siblings.len();
    // They are in the order of their dots, so the newest is the last.
    let number = pick.unwrap_or(count);
    if !(1..=count).contains(&number) {
        let message = format!("there is no sibling {number}; pick 1 to {count}");
        return Err(Failure::usage(message));
    }
    Ok(siblings.swap_remove(number - 1))
}
