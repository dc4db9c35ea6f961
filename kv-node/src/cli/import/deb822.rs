//! Debian control stanzas (deb822): blank lines between records, `Field: value` lines within.

use std::io::BufRead;

use bytes::Bytes;
use kv_client::Key;

use super::lines::Lines;
use super::record::{BadRecord, Item, MOST_BYTES, Record};

/// What names a binary package of one version for one architecture.
pub(super) const KEY_FIELDS: [&str; 3] = ["Package", "Version", "Architecture"];

/// Reads stanzas. A value is the stanza byte for byte, the end of its last line included.
#[derive(Debug)]
pub(super) struct Stanzas<R> {
    lines: Lines<R>,
    key_fields: Vec<String>,
    is_broken: bool,
}

impl<R: BufRead> Stanzas<R> {
    pub(super) fn new(input: R, key_fields: Vec<String>) -> Self {
        Self {
            lines: Lines::new(input),
            key_fields,
            is_broken: false,
        }
    }
}

impl<R: BufRead> Iterator for Stanzas<R> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.is_broken {
            return None;
        }
        let (mut stanza, mut first_line) = (Vec::new(), 0);
        loop {
            let begin = stanza.len();
            match self.lines.read(&mut stanza) {
                Ok(true) if !stanza[begin..].trim_ascii().is_empty() => {
                    if begin == 0 {
                        first_line = self.lines.number();
                    }
                    if stanza.len() > MOST_BYTES {
                        self.is_broken = true;
                        let problem = format!("the stanza is longer than {MOST_BYTES} bytes");
                        return Some(Item::Bad(BadRecord {
                            line: first_line,
                            problem,
                        }));
                    }
                }
                Ok(more) => {
                    stanza.truncate(begin);
                    if !stanza.is_empty() {
                        return Some(record(&self.key_fields, first_line, stanza));
                    }
                    if !more {
                        return None;
                    }
                }
                Err(error) => {
                    self.is_broken = true;
                    return Some(Item::Broken(error));
                }
            }
        }
    }
}

fn record(key_fields: &[String], line: u64, stanza: Vec<u8>) -> Item {
    let bad = |problem| Item::Bad(BadRecord { line, problem });
    let mut parts = Vec::with_capacity(key_fields.len());
    for name in key_fields {
        match field(&stanza, name) {
            Some(value) => parts.push(value),
            None => return bad(format!("the stanza has no field {name}")),
        }
    }
    match Key::new(parts.join(&b'/')) {
        Ok(key) => Item::Good(Record {
            line,
            key,
            value: Bytes::from(stanza),
            expires_ms: None,
        }),
        Err(error) => bad(error.to_string()),
    }
}

/// The first line of a field's value. Names are compared without regard to case.
fn field<'a>(stanza: &'a [u8], name: &str) -> Option<&'a [u8]> {
    stanza.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (found, value) = line.split_at(colon);
        found
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| value[1..].trim_ascii())
    })
}
