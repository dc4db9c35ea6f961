//! What peers send: frames, requests, responses, gossip, objects, contexts, the topology's chain.
//!
//! The first two bytes choose a real message, the rest is a script that changes it.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use kv_tests::damage::messages::{self, Sample};
use kv_tests::damage::mutation;
use libfuzzer_sys::fuzz_target;

static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(messages::samples);

fuzz_target!(|input: &[u8]| {
    let Some((&[low, high], script)) = input.split_first_chunk() else {
        return;
    };
    let chosen = usize::from(u16::from_le_bytes([low, high])) % SAMPLES.len();
    let sample = &SAMPLES[chosen];
    let mut bytes = sample.bytes.to_vec();
    mutation::follow(script, &mut bytes);
    sample.repair(&mut bytes);
    let _ = sample.decode(&Bytes::from(bytes));
});
