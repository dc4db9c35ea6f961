//! Configurations as users write them.

#![no_main]

use kv_tests::damage::text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = text::read_config(input);
});
