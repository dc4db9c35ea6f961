//! A million damaged inputs for everything that decodes what others sent: an error or a value, never a panic, never
//! more memory than is due.

mod allocations;
mod corpus;
mod mutation;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use corpus::Sample;
use fastrand::Rng;

/// Damaged inputs in all.
const INPUTS: usize = 2_000_000;
/// Inputs are short, so nothing that they make a decoder allocate at once may be longer.
const LONGEST_ALLOCATION: usize = 1 << 20;

#[test]
fn two_million_damaged_inputs_are_refused_or_read_and_do_no_harm() {
    let samples = corpus::samples();
    let mut rng = Rng::with_seed(0x6b76);
    // Each decoder gets the same number, however many samples it has.
    let mut by_decoder: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in &samples {
        let name = sample.decoder();
        assert!(sample.decode(&sample.bytes), "{name}: a real one is read");
        by_decoder.entry(name).or_default().push(sample);
    }
    let each = INPUTS.div_ceil(by_decoder.len());
    let mut read_in_all = 0;
    for (decoder, samples) in by_decoder {
        let mut read = 0;
        for _ in 0..each {
            let sample = samples[rng.usize(0..samples.len())];
            let other = samples[rng.usize(0..samples.len())];
            let mut input = mutation::mutate(&mut rng, &sample.bytes, &other.bytes);
            if rng.u8(0..4) > 0 {
                sample.repair(&mut input);
            }
            let input = Bytes::from(input);
            let (outcome, longest) = allocations::longest_during(|| {
                catch_unwind(AssertUnwindSafe(|| sample.decode(&input)))
            });
            let shown = || input.escape_ascii();
            let outcome = outcome.unwrap_or_else(|_| panic!("{decoder} panics at {}", shown()));
            assert!(
                longest <= LONGEST_ALLOCATION,
                "{decoder} allocates {longest} bytes for {}",
                shown()
            );
            read += usize::from(outcome);
        }
        read_in_all += read;
        let percent = read * 100 / each;
        println!(
            "{decoder}: {} samples, {each} inputs, {percent} % read",
            samples.len()
        );
    }
    println!("{} % of all were read", read_in_all * 100 / INPUTS);
}
