//! Copying, checksums, codecs and the comparison's own work, on one core.

use super::{Limit, Unit, bytes_per_second};
use crate::dataset::{KEY_BYTES, Order, Random, Values, is_value_of, key};
use crate::measure::{Lap, Latencies};
use anyhow::Result;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Blocks that take turns, so that none stays in the nearest cache.
const BLOCKS: usize = 64;
const BLOCK_BYTES: usize = 4096;
/// Level of zstd that the engines use.
const ZSTD_LEVEL: i32 = 1;

/// Measures them all.
///
/// # Errors
/// A codec fails.
pub(super) fn measure(time: Duration, enter: &mut dyn FnMut(Limit)) -> Result<()> {
    let time = time / 4;
    let values = Values::new();
    enter(own_puts(&values, time)?);
    enter(own_gets(time)?);
    let text = values.text();
    let mut copy = vec![0; text.len()];
    for (name, bytes) in [
        ("copy of 8 MiB", text.len()),
        ("copy of 4 KiB (in cache)", BLOCK_BYTES),
    ] {
        enter(bytes_per_second(name, bytes, time, || {
            copy[..bytes].copy_from_slice(black_box(&text[..bytes]));
            black_box(&mut copy);
        }));
    }
    for (name, bytes) in [("crc32c of 128 B", 128), ("crc32c of 4 KiB", BLOCK_BYTES)] {
        enter(bytes_per_second(name, bytes, time, || {
            black_box(crc32c::crc32c(black_box(&text[..bytes])));
        }));
    }
    for value_bytes in [100, 1024] {
        codecs(&values, value_bytes, time, enter)?;
    }
    Ok(())
}

/// What a fill does besides calling an engine: no fill can be faster than this.
fn own_puts(values: &Values, time: Duration) -> Result<Limit> {
    let mut value = Vec::new();
    own_work(
        "the comparison's own part of a put, 100 B",
        time,
        |number| {
            values.fill(&mut value, number, 0, 100);
            black_box((key(number, Order::Random), &value));
        },
    )
}

/// What a row of gets does besides calling an engine.
fn own_gets(time: Duration) -> Result<Limit> {
    let mut random = Random::new(1);
    let value = [0; 100];
    own_work("the comparison's own part of a get", time, |_| {
        let number = random.below(1 << 20);
        black_box(key(number, Order::Random));
        black_box(is_value_of(black_box(&value), number, 100));
    })
}

/// Times every operation as rows do.
fn own_work(name: &str, time: Duration, mut work: impl FnMut(u64)) -> Result<Limit> {
    let mut latencies = Latencies::new()?;
    let begin = Instant::now();
    let mut lap = Lap::start();
    while lap.last() - begin < time {
        work(latencies.operations());
        latencies.record(lap.end());
    }
    Ok(Limit {
        name: name.to_owned(),
        rate: latencies.operations() as f64 / begin.elapsed().as_secs_f64(),
        unit: Unit::Operations,
        micros: None,
    })
}

/// zstd and LZ4 on blocks of rows as an engine would cut them.
fn codecs(
    values: &Values,
    value_bytes: usize,
    time: Duration,
    enter: &mut dyn FnMut(Limit),
) -> Result<()> {
    let blocks = blocks(values, value_bytes);
    let raw_bytes = blocks.iter().map(Vec::len).sum::<usize>() / BLOCKS;
    let name = |what: &str| format!("{what}, 4 KiB block of {value_bytes} B values");
    let mut output = vec![0; 2 * raw_bytes + 4096];
    let mut turn = (0..BLOCKS).cycle();
    let mut next = || turn.next().unwrap_or(0);

    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let compressed = blocks
        .iter()
        .map(|block| compressor.compress(block))
        .collect::<Result<Vec<_>, _>>()?;
    enter(bytes_per_second(
        &name("zstd 1 compress"),
        raw_bytes,
        time,
        || {
            black_box(compressor.compress(&blocks[next()]).is_ok());
        },
    ));
    enter(bytes_per_second(
        &name("zstd 1 decompress"),
        raw_bytes,
        time,
        || {
            let read = decompressor.decompress_to_buffer(&compressed[next()], &mut output[..]);
            black_box(read.is_ok());
        },
    ));

    let compressed: Vec<Vec<u8>> = blocks
        .iter()
        .map(|block| lz4_flex::compress(block))
        .collect();
    enter(bytes_per_second(
        &name("LZ4 compress"),
        raw_bytes,
        time,
        || {
            black_box(lz4_flex::compress_into(&blocks[next()], &mut output).is_ok());
        },
    ));
    enter(bytes_per_second(
        &name("LZ4 decompress"),
        raw_bytes,
        time,
        || {
            black_box(lz4_flex::decompress_into(&compressed[next()], &mut output).is_ok());
        },
    ));
    Ok(())
}

/// Blocks of keys without their common prefix, and values.
fn blocks(values: &Values, value_bytes: usize) -> Vec<Vec<u8>> {
    let mut value = Vec::new();
    let mut numbers = 0..;
    (0..BLOCKS)
        .map(|_| {
            let mut block = Vec::with_capacity(BLOCK_BYTES + value_bytes + KEY_BYTES);
            for number in numbers.by_ref() {
                block.extend_from_slice(&key(number, Order::Ascending)[12..]);
                values.fill(&mut value, number, 0, value_bytes);
                block.extend_from_slice(&value);
                if block.len() >= BLOCK_BYTES {
                    break;
                }
            }
            block
        })
        .collect()
}
