use std::io::Cursor;

use super::deb822::{KEY_FIELDS, Stanzas};
use super::jsonl::JsonLines;
use super::record::Item;

const SAMPLE: &str = "\n\nPackage: alpha\nversion: 1.0-1\nArchitecture: amd64\nDepends: beta (>= 2),\n gamma\nDescription: the first\n with Package: inside\n\n \t\nPackage: beta\nVersion: 2:2.1\nArchitecture:all\n\nPackage: broken\nArchitecture: all\n\nPackage: delta\nVersion: 3\nArchitecture: arm64";

fn stanzas(text: &str) -> Vec<Item> {
    Stanzas::new(Cursor::new(text), KEY_FIELDS.map(str::to_owned).to_vec()).collect()
}

fn lines(text: &str, key_fields: &[&str]) -> Vec<Item> {
    let key_fields = key_fields.iter().map(|&field| field.to_owned()).collect();
    JsonLines::new(Cursor::new(text.to_owned()), key_fields).collect()
}

/// Line, key and value of a good record; line and problem of a bad one.
fn shown(items: &[Item]) -> Vec<(u64, String, String)> {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    items
        .iter()
        .map(|item| match item {
            Item::Good(record) => (record.line, record.key.to_string(), text(&record.value)),
            Item::Bad(bad) => (bad.line, "bad".to_owned(), bad.problem.clone()),
            Item::Broken(error) => (0, "broken".to_owned(), error.to_string()),
        })
        .collect()
}

#[test]
fn stanzas_are_records_byte_for_byte() {
    let items = stanzas(SAMPLE);
    let shown = shown(&items);
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert_eq!((shown[0].0, shown[0].1.as_str()), (3, "alpha/1.0-1/amd64"));
    assert_eq!((shown[1].0, shown[1].1.as_str()), (12, "beta/2:2.1/all"));
    assert_eq!(
        shown[2],
        (
            16,
            "bad".to_owned(),
            "the stanza has no field Version".to_owned()
        )
    );
    assert_eq!(shown[3].1, "delta/3/arm64");
    let values: Vec<&[u8]> = items
        .iter()
        .filter_map(|item| match item {
            Item::Good(record) => Some(&record.value[..]),
            Item::Bad(_) | Item::Broken(_) => None,
        })
        .collect();
    for value in &values {
        let text = core::str::from_utf8(value).unwrap();
        assert!(SAMPLE.contains(text));
        assert!(text.starts_with("Package:") && !text.contains("\n\n"));
    }
    assert!(values[0].ends_with(b" with Package: inside\n"));
    assert!(
        values[2].ends_with(b"arm64"),
        "the input ended without a line end"
    );
}

#[test]
fn inputs_without_stanzas_are_empty() {
    for text in ["", "\n", "\n \n\t\n"] {
        assert!(stanzas(text).is_empty());
    }
    assert!(super::input::nothing_to_import(crate::cli::args::Format::Deb822).is_some());
    assert!(super::input::nothing_to_import(crate::cli::args::Format::Jsonl).is_none());
}

#[test]
fn stanzas_of_any_bytes_are_taken() {
    let bytes = b"Package: x\nVersion: 1\nArchitecture: \xff\nBlob: \x00\xfe\n".to_vec();
    let fields = KEY_FIELDS.map(str::to_owned).to_vec();
    let items: Vec<Item> = Stanzas::new(Cursor::new(bytes.clone()), fields).collect();
    let [Item::Good(record)] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!(record.key.partition_key(), b"x/1/\xff");
    assert_eq!(record.value, bytes);
}

#[test]
fn lines_hold_keys_and_values_as_text_or_base64() {
    let text = r#"
{"key":"a","value":"1"}

{"key_base64":"/w==","sort":"s","value_base64":"AP8=","schema":1}
{"key":"b","sort_base64":"/g==","value":""}
"#;
    assert_eq!(
        shown(&lines(text, &[])),
        [
            (2, "a".to_owned(), "1".to_owned()),
            (4, "\\xff/s".to_owned(), "\\x00\\xff".to_owned()),
            (5, "b/\\xfe".to_owned(), String::new()),
        ]
    );
}

#[test]
fn lines_with_mistakes_are_named_and_the_rest_is_read() {
    let text = r#"{"key":"a"}
[1]
{"key":"a","key_base64":"YQ==","value":""}
{"key":"","value":""}
{"key":"a","value":7}
{"key":"a","value_base64":"a"}
{"key":"a","values":[]}
{"key":"good","value":"v"}"#;
    let shown = shown(&lines(text, &[]));
    let problems = [
        "neither `value`",
        "no JSON object",
        "both",
        "empty",
        "`value_base64`",
        "no base64",
        "siblings",
    ];
    for (index, problem) in problems.into_iter().enumerate() {
        assert_eq!(shown[index].0, index as u64 + 1);
        assert!(
            shown[index].2.contains(problem),
            "{problem}: {:?}",
            shown[index]
        );
    }
    assert_eq!(shown[7].1, "good");
}

#[test]
fn objects_can_name_their_own_key() {
    let text = "{\"id\": 7, \"kind\":\"x\", \"more\":[1, 2]}\n{\"id\":8}\n";
    assert_eq!(
        shown(&lines(text, &["kind", "id"])),
        [
            (
                1,
                "x/7".to_owned(),
                r#"{\"id\": 7, \"kind\":\"x\", \"more\":[1, 2]}"#.to_owned()
            ),
            (2, "bad".to_owned(), "it has no field `kind`".to_owned()),
        ]
    );
}

#[test]
fn damaged_input_gives_records_or_says_what_is_wrong_and_the_lines_after_it_are_read() {
    let json = "{\"key\":\"a\",\"value\":\"1\"}\n{\"key_base64\":\"AAE=\",\"sort\":\"s\",\"value_base64\":\"/w==\"}\n{\"key\":\"c\",\"values\":[]}\n";
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..100_000 {
        let text = if rng.bool() { json } else { SAMPLE };
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(0..bytes.len());
            match rng.u8(0..4) {
                0 => bytes[at] ^= 1 << rng.u8(0..8),
                1 => bytes[at] = b"\n\"\\{}:, \t\0="[rng.usize(0..11)],
                2 => bytes.truncate(at + 1),
                _ => {
                    let end = (at + rng.usize(1..30)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
        // A good line behind the damage, which no damage in front of it may hide.
        bytes.extend_from_slice(b"\n{\"key\":\"last\",\"value\":\"\"}\n");
        let lines: Vec<Item> = JsonLines::new(Cursor::new(&bytes), Vec::new()).collect();
        let Some(Item::Good(last)) = lines.last() else {
            panic!("{}", bytes.escape_ascii());
        };
        assert_eq!(last.key.to_string(), "last", "{}", bytes.escape_ascii());
        let key_fields = KEY_FIELDS.map(str::to_owned).to_vec();
        let read: Vec<Item> = Stanzas::new(Cursor::new(&bytes), key_fields).collect();
        assert!(read.len() <= bytes.len());
    }
}
