//! Damages bytes.

use fastrand::Rng;

/// Numbers at which lengths and counts go wrong.
const EXTREMES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// A damaged copy of `bytes`, perhaps mixed with `other` of the same kind.
#[must_use]
pub fn mutate(rng: &mut Rng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    for _ in 0..rng.usize(1..4) {
        once(rng, &mut damaged, other);
    }
    damaged
}

fn once(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = rng.usize(0..=bytes.len());
    match rng.u8(0..8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
        1 if at < bytes.len() => bytes[at] = EXTREMES[rng.usize(0..4)] as u8,
        2 => bytes.truncate(at),
        3 => {
            let more: Vec<u8> = (0..rng.usize(1..20)).map(|_| rng.u8(..)).collect();
            bytes.splice(at..at, more);
        }
        4 => {
            let end = (at + rng.usize(1..20)).min(bytes.len());
            bytes.drain(at..end);
        }
        5 => {
            let number = EXTREMES[rng.usize(0..EXTREMES.len())].to_le_bytes();
            let end = (at + [2, 4, 8][rng.usize(0..3)]).min(bytes.len());
            let length = end - at;
            bytes[at..end].copy_from_slice(&number[..length]);
        }
        6 => {
            // A long number as postcard writes it.
            let number = vec![0xff; rng.usize(1..10)].into_iter().chain([0x01]);
            let end = (at + 1).min(bytes.len());
            bytes.splice(at..end, number);
        }
        _ => {
            let from = rng.usize(0..=other.len());
            let end = (from + rng.usize(0..100)).min(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..end]);
        }
    }
}

/// Damages some of a part of `bytes`, in place.
pub fn mutate_in_place(rng: &mut Rng, bytes: &mut [u8]) {
    for _ in 0..rng.usize(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.usize(0..bytes.len());
        match rng.u8(0..5) {
            0 => bytes[at] ^= 1 << rng.u8(0..8),
            1 => bytes[at] = EXTREMES[rng.usize(0..4)] as u8,
            2 => bytes[at] = rng.u8(..),
            3 => {
                let number = EXTREMES[rng.usize(0..EXTREMES.len())].to_le_bytes();
                let end = (at + [2, 4, 8][rng.usize(0..3)]).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            _ => {
                let from = rng.usize(0..bytes.len());
                let length = rng.usize(1..20).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + length, at);
            }
        }
    }
}

/// Damages `bytes` as a script says, four bytes a step: what to do, where (two bytes), and a value. Every script is
/// one, so that a fuzzer which knows nothing of the format changes real bytes in places of its choice.
pub fn follow(script: &[u8], bytes: &mut [u8]) {
    for step in script.chunks_exact(4) {
        let [what, low, high, value] = *step else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        let at = usize::from(u16::from_le_bytes([low, high])) % bytes.len();
        let width = [1, 2, 4, 8][usize::from(what >> 6)];
        let end = (at + width).min(bytes.len());
        match what % 5 {
            0 => bytes[at] = value,
            1 => bytes[at] ^= value,
            2 => bytes[at] = bytes[at].wrapping_add(value),
            3 => {
                let number = EXTREMES[usize::from(value) % EXTREMES.len()].to_le_bytes();
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            _ => {
                let from = usize::from(value) % bytes.len();
                let length = width.min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + length, at);
            }
        }
    }
}
