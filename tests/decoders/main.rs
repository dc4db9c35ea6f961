//! Millions of damaged inputs for everything that decodes: an error or a value, never a panic, never more memory than
//! is due.

mod allocations;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use fastrand::Rng;
use kv_tests::damage::messages::{self, Sample};
use kv_tests::damage::mutation;
use kv_tests::damage::store::{self, Outcome};
use kv_tests::damage::text;

/// Damaged messages in all.
const MESSAGES: usize = 2_000_000;
/// Damaged stores in all.
const STORES: usize = 250_000;
/// Damaged configurations.
const CONFIGURATIONS: usize = 50_000;
/// Inputs are short, so nothing that they make a decoder allocate at once may be longer.
const LONGEST_ALLOCATION: usize = 1 << 20;

/// Runs `decode` on an input; what it says, if it neither panics nor takes too much memory.
fn harmlessly<T>(decoder: &str, input: &[u8], decode: impl FnOnce() -> T) -> T {
    let (outcome, longest) = allocations::longest_during(|| catch_unwind(AssertUnwindSafe(decode)));
    let shown = || input.escape_ascii();
    let outcome = outcome.unwrap_or_else(|_| panic!("{decoder} panics at {}", shown()));
    assert!(
        longest <= LONGEST_ALLOCATION,
        "{decoder} allocates {longest} bytes for {}",
        shown()
    );
    outcome
}

#[test]
fn two_million_damaged_messages_are_refused_or_read_and_do_no_harm() {
    let samples = messages::samples();
    let mut rng = Rng::with_seed(0x6b76);
    // Each decoder gets the same number, however many samples it has.
    let mut by_decoder: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in &samples {
        let name = sample.decoder();
        assert!(sample.decode(&sample.bytes), "{name}: a real one is read");
        by_decoder.entry(name).or_default().push(sample);
    }
    let each = MESSAGES.div_ceil(by_decoder.len());
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
            read += usize::from(harmlessly(decoder, &input, || sample.decode(&input)));
        }
        read_in_all += read;
        let percent = read * 100 / each;
        println!(
            "{decoder}: {} samples, {each} inputs, {percent} % read",
            samples.len()
        );
    }
    let percent = read_in_all * 100 / MESSAGES;
    println!("{percent} % of all were read");
    assert!(percent >= 20, "too few get behind versions and lengths");
}

#[test]
fn a_quarter_million_damaged_stores_are_refused_or_read_and_do_no_harm() {
    let samples = store::samples();
    let mut rng = Rng::with_seed(0x6b76);
    let mut passed_in_all = 0;
    for kind in store::KINDS {
        let samples: Vec<_> = samples
            .iter()
            .filter(|sample| sample.kind == kind)
            .collect();
        let each = STORES / store::KINDS.len();
        let (mut read, mut within) = (0, 0);
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..each {
            let sample = samples[rng.usize(0..samples.len())];
            let other = samples[rng.usize(0..samples.len())];
            let input = loop {
                let input = sample.damage(&mut rng, other);
                if input != sample.bytes {
                    break input;
                }
            };
            match harmlessly(kind, &input, || sample.read(&input)) {
                Outcome::Read => read += 1,
                Outcome::RefusedWithin(why) => {
                    within += 1;
                    *reasons.entry(why).or_default() += 1;
                }
                Outcome::Refused => {}
            }
        }
        passed_in_all += read + within;
        println!(
            "{kind}: {} files, {each} inputs, {} % read, {} % refused within checksums for {} reasons",
            samples.len(),
            read * 100 / each,
            within * 100 / each,
            reasons.len()
        );
    }
    let percent = passed_in_all * 100 / STORES;
    println!("{percent} % of all passed checksums and versions");
    assert!(percent >= 30, "too few get behind the checksums");
}

#[test]
fn fifty_thousand_damaged_configurations_are_refused_or_read_and_do_no_harm() {
    let whole = text::config();
    text::read_config(whole.as_bytes()).expect("a real one is read");
    let mut rng = Rng::with_seed(0x6b76);
    let mut read = 0;
    for _ in 0..CONFIGURATIONS {
        let input = mutation::mutate(&mut rng, whole.as_bytes(), whole.as_bytes());
        let outcome = harmlessly("configuration", &input, || text::read_config(&input));
        match outcome {
            Ok(_) => read += 1,
            Err(said) => assert!(!said.trim().is_empty()),
        }
    }
    println!(
        "configuration: {CONFIGURATIONS} inputs, {} % read",
        read * 100 / CONFIGURATIONS
    );
}
