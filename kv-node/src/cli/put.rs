//! `kv put` and `kv delete`.

use kv_client::{Client, Key, Written};
use serde::Serialize;

use super::args::{DeleteArgs, PutArgs};
use super::explain;
use super::failure::Failure;
use super::fate;
use super::output::Output;
use super::session::{Session, names};
use super::value::{self, KeyJson};

#[derive(Serialize)]
struct WrittenJson<'a> {
    schema: u8,
    #[serde(flatten)]
    key: KeyJson,
    ok: bool,
    write_id: String,
    context: String,
    acked: &'a [String],
    w: u8,
}

/// Sets level, w, deadline and context of a put or a delete; both have the same methods.
macro_rules! with_options {
    ($request:expr, $options:expr) => {{
        let $crate::cli::args::WriteArgs {
            level,
            w,
            durability,
            distinct_zones,
            deadline,
            context,
        } = $options;
        let mut request = $request.distinct_zones(distinct_zones);
        if let Some(durability) = durability {
            request = request.durability(durability.into());
        }
        if let Some(level) = level {
            request = request.level(level.into());
        }
        if let Some(w) = w {
            request = request.w(w);
        }
        if let Some(deadline) = deadline {
            request = request.deadline(deadline);
        }
        if let Some(context) = context {
            request = request.context(context);
        }
        request
    }};
}

/// Writes a key.
pub(super) async fn put(session: &Session, output: &Output, args: PutArgs) -> Result<(), Failure> {
    let key = value::key(&args.key)?;
    let value = value::argument(&args.value)?;
    let (client, bucket) = session.bucket(&args.key.bucket).await?;
    let mut put = bucket.put(&key, value);
    if let Some(ttl) = args.ttl {
        put = put.ttl(ttl);
    }
    let put = with_options!(put, args.write);
    let id = put.write_id();
    let unknown = |error| fate::explain_unknown(error, &args.key, id);
    let written = if args.explain {
        let explained = put.explain().await;
        explain::shown(output, &client.topology(), explained)?.map_err(unknown)?
    } else {
        put.await.map_err(unknown)?
    };
    report(output, &client, &key, &written)
}

/// Deletes a key. What is not there can be deleted too.
pub(super) async fn delete(
    session: &Session,
    output: &Output,
    args: DeleteArgs,
) -> Result<(), Failure> {
    let key = value::key(&args.key)?;
    let (client, bucket) = session.bucket(&args.key.bucket).await?;
    let delete = with_options!(bucket.delete(&key), args.write);
    let id = delete.write_id();
    let unknown = |error| fate::explain_unknown(error, &args.key, id);
    let written = if args.explain {
        let explained = delete.explain().await;
        explain::shown(output, &client.topology(), explained)?.map_err(unknown)?
    } else {
        delete.await.map_err(unknown)?
    };
    report(output, &client, &key, &written)
}

/// Says that a write is done, on stderr: stdout is for values.
pub(super) fn report(
    output: &Output,
    client: &Client,
    key: &Key,
    written: &Written,
) -> Result<(), Failure> {
    let acked = names(&client.topology(), &written.acked);
    output.note(format!(
        "ok  acked by {} (W={})  context {}",
        acked.join(" "),
        written.needed,
        written.context
    ));
    output.json_only(&WrittenJson {
        schema: 1,
        key: KeyJson::of(key),
        ok: true,
        write_id: written.write_id.to_string(),
        context: written.context.to_string(),
        acked: &acked,
        w: written.needed,
    })?;
    Ok(())
}

pub(super) use with_options;
