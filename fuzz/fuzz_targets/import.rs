//! Lines and stanzas that are imported.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    kv_node::cli::read_import(input);
});
