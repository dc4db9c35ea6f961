//! Golden bytes for tests: the `hex` blocks of docs/formats are the one place where they are written down.

use std::path::Path;

/// The bytes of the block "```hex `name`" in a file of docs/formats.
pub(crate) fn golden(file: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/formats")
        .join(file);
    let text = std::fs::read_to_string(&path).expect("the format document exists");
    let fence = format!("```hex {name}");
    let block = text
        .lines()
        .skip_while(|line| *line != fence)
        .skip(1)
        .take_while(|line| *line != "```");
    let hex: String = block
        .flat_map(|line| line.split('#').next())
        .flat_map(str::split_whitespace)
        .collect();
    assert!(!hex.is_empty(), "{file} has no block {name}");
    hex
}
