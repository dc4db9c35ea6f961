//! Values and keys: from the command line, and as text.

use std::fs;

use kv_client::ring::Topology;
use kv_client::{Dot, Key, Sibling};
use serde::Serialize;

use super::args::KeyArgs;
use super::base64;
use super::failure::Failure;
use super::real;
use super::time;

/// More than any value may have; a file is not read further.
const MOST_BYTES: usize = 16 << 20;
const PREVIEW_CHARS: usize = 60;

/// The key that the arguments name.
pub(super) fn key(args: &KeyArgs) -> Result<Key, Failure> {
    let sort = args.sort.clone().unwrap_or_default();
    Key::with_sort(args.key.clone(), sort).map_err(|error| kv_client::Error::from(error).into())
}

/// The value that an argument names: itself, stdin (`-`), a file (`@file`); `@@` is a literal `@`.
pub(super) fn argument(argument: &str) -> Result<Vec<u8>, Failure> {
    let unreadable = |name: &str, error| {
        Failure::usage(format!(
            "cannot read {name}: {error}; correct the path or its permissions"
        ))
    };
    match argument.strip_prefix('@') {
        None if argument == "-" => {
            real::read_stdin(MOST_BYTES).map_err(|error| unreadable("stdin", error))
        }
        None => Ok(argument.as_bytes().to_vec()),
        Some(text) if text.starts_with('@') => Ok(text.as_bytes().to_vec()),
        Some(file) => fs::read(file).map_err(|error| unreadable(file, error)),
    }
}

/// Bytes in JSON: as text where they are UTF-8, else in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BytesJson {
    Utf8(String),
    Base64(String),
}

impl BytesJson {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match core::str::from_utf8(bytes) {
            Ok(text) => Self::Utf8(text.to_owned()),
            Err(_) => Self::Base64(base64::encode(bytes)),
        }
    }
}

/// A key in JSON: `key` or `key_base64`, and `sort` or `sort_base64` where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct KeyJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort_base64: Option<String>,
}

impl KeyJson {
    pub(super) fn of(key: &Key) -> Self {
        let (partition, partition_base64) = split(key.partition_key());
        let (sort, sort_base64) = match key.sort_key() {
            [] => (None, None),
            sort => split(sort),
        };
        Self {
            key: partition,
            key_base64: partition_base64,
            sort,
            sort_base64,
        }
    }
}

/// The text of bytes, or else their base64.
pub(super) fn split(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match BytesJson::of(bytes) {
        BytesJson::Utf8(text) => (Some(text), None),
        BytesJson::Base64(text) => (None, Some(text)),
    }
}

/// One sibling in JSON.
#[derive(Debug, Serialize)]
pub(super) struct SiblingJson {
    dot: String,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    value: Option<BytesJson>,
}

impl SiblingJson {
    pub(super) fn of(sibling: &Sibling<bytes::Bytes>, topology: &Topology) -> Self {
        Self {
            dot: dot(sibling.dot(), topology),
            time: time::moment(sibling.dot().hlc.millis()),
            deleted: sibling.is_deletion().then_some(true),
            expires: sibling.expires_ms().map(time::moment),
            value: sibling.value().map(|value| BytesJson::of(value)),
        }
    }
}

/// Who minted it and when: `n2:1763839203118.0`.
pub(super) fn dot(dot: Dot, topology: &Topology) -> String {
    let node = topology
        .actors()
        .get(&dot.actor)
        .and_then(|&node| topology.member(node));
    let name = node.map_or_else(|| dot.actor.to_string(), |member| member.name.clone());
    format!("{name}:{}.{}", dot.hlc.millis(), dot.hlc.0 & 0xffff)
}

/// The beginning of a value on one line of a terminal.
pub(super) fn preview(bytes: &[u8]) -> String {
    let Ok(text) = core::str::from_utf8(bytes) else {
        let begin = &bytes[..bytes.len().min(24)];
        let more = if begin.len() < bytes.len() { "…" } else { "" };
        return format!("base64 {}{more}", base64::encode(begin));
    };
    let mut shown: String = text.chars().take(PREVIEW_CHARS).flat_map(escape).collect();
    if text.chars().nth(PREVIEW_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters could move the cursor or ring the bell.
fn escape(letter: char) -> impl Iterator<Item = char> {
    let plain = (!letter.is_control()).then_some(letter);
    let escaped = letter.is_control().then(|| letter.escape_default());
    plain.into_iter().chain(escaped.into_iter().flatten())
}

/// A count of bytes in binary units: `1.9 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A count with thousands set apart: `63,077`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_arguments_and_files() {
        assert_eq!(argument("plain").unwrap(), b"plain");
        assert_eq!(argument("@@handle").unwrap(), b"@handle");
        assert_eq!(argument("").unwrap(), b"");
        let failure = argument("@/nonexistent/file").unwrap_err();
        assert_eq!(failure.exit(), 2);
    }

    #[test]
    fn previews_stay_on_one_line() {
        assert_eq!(preview(b"two\nlines\x1b[2J"), "two\\nlines\\u{1b}[2J");
        assert_eq!(
            preview("é".repeat(61).as_bytes()),
            format!("{}…", "é".repeat(60))
        );
        assert_eq!(preview(b"\xff\x00"), "base64 /wA=");
    }

    #[test]
    fn keys_and_values_that_are_not_text_are_base64() {
        let key = Key::with_sort("user", &b"\xff"[..]).unwrap();
        let json = serde_json::to_string(&KeyJson::of(&key)).unwrap();
        assert_eq!(json, r#"{"key":"user","sort_base64":"/w=="}"#);
        let json = serde_json::to_string(&BytesJson::of(b"v")).unwrap();
        assert_eq!(json, r#"{"utf8":"v"}"#);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [size(0), size(1023), size(2048)],
            ["0 B", "1023 B", "2.0 KiB"]
        );
        assert_eq!([size(1 << 20), size(u64::MAX)], ["1.0 MiB", "16384.0 PiB"]);
        assert_eq!(
            [count(0), count(999), count(63_077)],
            ["0", "999", "63,077"]
        );
        assert_eq!(count(1_234_567), "1,234,567");
    }
}
