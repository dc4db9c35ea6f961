//! Lines of JSON: a key and a value each, as `kv export` prints them, or objects that hold their key.

use std::io::BufRead;

use bytes::Bytes;
use kv_client::Key;
use serde_json::{Map, Value};

use super::lines::Lines;
use super::record::{BadRecord, Item, Record};
use crate::cli::{base64, time};

/// Reads lines. With key fields, a value is the whole line without its end.
#[derive(Debug)]
pub(super) struct JsonLines<R> {
    lines: Lines<R>,
    key_fields: Vec<String>,
    is_broken: bool,
}

impl<R: BufRead> JsonLines<R> {
    pub(super) fn new(input: R, key_fields: Vec<String>) -> Self {
        Self {
            lines: Lines::new(input),
            key_fields,
            is_broken: false,
        }
    }
}

impl<R: BufRead> Iterator for JsonLines<R> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while !self.is_broken {
            let mut line = Vec::new();
            match self.lines.read(&mut line) {
                Ok(true) if line.trim_ascii().is_empty() => {}
                Ok(true) => {
                    let number = self.lines.number();
                    return Some(match record(&self.key_fields, line.trim_ascii_end()) {
                        Ok((key, value, expires_ms)) => Item::Good(Record {
                            line: number,
                            key,
                            value,
                            expires_ms,
                        }),
                        Err(problem) => Item::Bad(BadRecord {
                            line: number,
                            problem,
                        }),
                    });
                }
                Ok(false) => return None,
                Err(error) => {
                    self.is_broken = true;
                    return Some(Item::Broken(error));
                }
            }
        }
        None
    }
}

fn record(key_fields: &[String], line: &[u8]) -> Result<(Key, Bytes, Option<u64>), String> {
    let object: Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| format!("it is no JSON object: {error}"))?;
    if !key_fields.is_empty() {
        let parts = key_fields.iter().map(|name| key_part(&object, name));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let key = Key::new(parts.join("/")).map_err(|error| error.to_string())?;
        return Ok((key, Bytes::copy_from_slice(line), None));
    }
    if object.contains_key("values") {
        return Err(
            "the key had siblings when it was exported; resolve it there, \
                    or give it one `value` here"
                .to_owned(),
        );
    }
    let partition = bytes(&object, "key")?.ok_or("it has neither `key` nor `key_base64`")?;
    let sort = bytes(&object, "sort")?.unwrap_or_default();
    let value = bytes(&object, "value")?.ok_or("it has neither `value` nor `value_base64`")?;
    let key = Key::with_sort(partition, sort).map_err(|error| error.to_string())?;
    Ok((key, Bytes::from(value), expiry(&object)?))
}

/// When a record expires that was exported.
fn expiry(object: &Map<String, Value>) -> Result<Option<u64>, String> {
    let Some(expires) = object.get("expires") else {
        return Ok(None);
    };
    let moment = expires.as_str().and_then(time::milliseconds);
    let moment = moment.ok_or("`expires` is no moment such as 2026-11-22T19:20:03.118Z")?;
    Ok(Some(moment))
}

fn key_part(object: &Map<String, Value>, name: &str) -> Result<String, String> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(format!("`{name}` is neither text nor number")),
        None => Err(format!("it has no field `{name}`")),
    }
}

/// The bytes of `name`, or of `name_base64`; `None` when it has neither.
fn bytes(object: &Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    let base64_name = format!("{name}_base64");
    match (object.get(name), object.get(&base64_name)) {
        (None, None) => Ok(None),
        (Some(Value::String(text)), None) => Ok(Some(text.clone().into_bytes())),
        (Some(_), None) => Err(format!(
            "`{name}` is no text; for other bytes there is `{base64_name}`"
        )),
        (None, Some(Value::String(text))) => base64::decode(text)
            .map(Some)
            .ok_or_else(|| format!("`{base64_name}` is no base64")),
        (None, Some(_)) => Err(format!("`{base64_name}` is no text")),
        (Some(_), Some(_)) => Err(format!("it has both `{name}` and `{base64_name}`")),
    }
}
