//! `kv fate`: what became of a write whose outcome is unknown.

use kv_client::{Error, Outcome, WriteFate, WriteId};
use serde::Serialize;

use super::args::{DEFAULT_BUCKET, FateArgs, KeyArgs};
use super::failure::Failure;
use super::output::Output;
use super::session::Session;
use super::time;
use super::value::{self, KeyJson};

#[derive(Serialize)]
struct FateJson {
    schema: u8,
    #[serde(flatten)]
    key: KeyJson,
    write_id: String,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shows: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settles: Option<String>,
}

/// Asks, and prints one word; what it means goes to stderr.
pub(super) async fn run(session: &Session, output: &Output, args: FateArgs) -> Result<(), Failure> {
    let key = value::key(&args.key)?;
    let (_, bucket) = session.bucket(&args.key.bucket).await?;
    let mut asked = bucket.fate(&key, args.write_id);
    if let Some(deadline) = args.deadline {
        asked = asked.deadline(deadline);
    }
    let fate = asked.await?;
    let (word, meaning) = match fate {
        WriteFate::Applied { shows: true } => ("applied", "it is what readers see"),
        WriteFate::Applied { shows: false } => ("applied", "it has been replaced since"),
        WriteFate::NotApplied => ("not-applied", "it never was, and never will be"),
        WriteFate::Gone => (
            "gone",
            "it does not show and never will again; whether it ever did is not remembered",
        ),
        WriteFate::Unknown { .. } => ("unknown", "it was not found, and may still turn up"),
    };
    let (mut shows, mut settles) = (None, None);
    match fate {
        WriteFate::Applied { shows: is_shown } => shows = Some(is_shown),
        WriteFate::Unknown { settles_ms } => settles = Some(time::moment(settles_ms)),
        WriteFate::NotApplied | WriteFate::Gone => {}
    }
    if output.is_json() {
        output.json_line(&FateJson {
            schema: 1,
            key: KeyJson::of(&key),
            write_id: args.write_id.to_string(),
            fate: word,
            shows,
            settles: settles.clone(),
        })?;
    } else {
        output.line(word)?;
        output.note(meaning);
    }
    let Some(settles) = settles else {
        return Ok(());
    };
    output.hint(&format!(
        "ask again after {settles}, when all nodes are up; or repeat the write, which is safe if it may stand beside the first one"
    ));
    Err(Failure::silent(7))
}

/// What to do about a write that failed, if nobody knows what became of it.
pub(super) fn explain_unknown(error: Error, key: &KeyArgs, write_id: WriteId) -> Failure {
    let is_unknown = error.outcome() == Outcome::Unknown;
    let failure = Failure::from(error);
    if !is_unknown {
        return failure;
    }
    let mut command = format!("kv fate {} {write_id}", quoted(&key.key));
    if let Some(sort) = &key.sort {
        command.push_str(&format!(" --sort {}", quoted(sort)));
    }
    if key.bucket.bucket != DEFAULT_BUCKET {
        command.push_str(&format!(" --bucket {}", quoted(&key.bucket.bucket)));
    }
    failure.hint(format!("what became of it tells: {command}"))
}

/// A word as shells take it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:@%+,".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        for (word, expected) in [
            ("user:1", "user:1"),
            ("a b", "'a b'"),
            ("", "''"),
            ("$x", "'$x'"),
            ("it's", r"'it'\''s'"),
            ("-x", "'-x'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
