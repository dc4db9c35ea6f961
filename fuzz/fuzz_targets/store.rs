//! What lies on disks: log segments, manifests, tables, blob files.
//!
//! The first byte chooses a file of a real store, the second one a checksum in it, and the rest is a script that changes
//! what the checksum covers. Then the checksum is made right, and the whole store is read and verified.

#![no_main]

use std::sync::LazyLock;

use kv_tests::damage::store::{self, Sample};
use libfuzzer_sys::fuzz_target;

static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(store::samples);

fuzz_target!(|input: &[u8]| {
    let Some((chosen, script)) = input.split_first() else {
        return;
    };
    let sample = &SAMPLES[usize::from(*chosen) % SAMPLES.len()];
    let _ = sample.read(&sample.damage_by(script));
});
