//! Logs of several segments, cut and damaged in every place.

use super::*;
use crate::batch::WriteBatch;
use crate::fs::Fs;
use crate::sim::SimFs;
use crate::wal::{LiveSegment, Payload, Spare, WalWriter};
use std::path::Path;

const STORE: u64 = 3;
const SIZE: u64 = 400;

/// A log of several segments, and what is known of each batch: its first number, end, and whether the log
/// was synced right after it.
struct Sample {
    files: Vec<SegmentFile>,
    ends: Vec<(u64, u64)>,
    synced: u64,
    end: (u64, u64),
}

fn path(id: u64) -> PathBuf {
    Path::new("/d").join(format!("{id}"))
}

fn sample(batches: u64, sync_at: u64) -> Sample {
    let fs = SimFs::new();
    let segment = |id| LiveSegment {
        id,
        segment: fs.create_segment(&path(id), SIZE).unwrap(),
    };
    let header = SegmentHeader {
        id: 1,
        store: STORE,
        previous: 0,
        previous_length: 0,
        first: Seq(1),
        start: 0,
        promise: 0,
    };
    let present = segment(1);
    present.segment.store(0, &[&header.encode()]).unwrap();
    let mut wal = WalWriter::new("/d".into(), &header, present);
    let mut ends = Vec::new();
    let mut synced = 0;
    let mut next_id = 2;
    for number in 1..=batches {
        let mut batch = WriteBatch::new();
        batch.put(&number.to_be_bytes(), &[number as u8; 20]);
        let payload = Payload::of(STORE, &batch);
        while wal.store(&payload, Seq(number), synced).is_err() {
            let LiveSegment { id, segment } = segment(next_id);
            assert!(wal.add_spare(Spare { id, segment }).is_none());
            next_id += 1;
        }
        ends.push((number, wal.position()));
        if number == sync_at {
            synced = wal.position();
        }
    }
    let files = fs.dump().into_iter().map(|(path, bytes)| SegmentFile {
        id: path.file_name().unwrap().to_str().unwrap().parse().unwrap(),
        path,
        bytes: bytes.into(),
    });
    Sample {
        files: files.collect(),
        ends,
        synced,
        end: wal.end(),
    }
}

fn read(files: &[SegmentFile], end: Option<(u64, u64)>) -> Result<(Vec<u64>, u64), Error> {
    let mut numbers = Vec::new();
    let log = read_log(files, STORE, 1, end, |segment, bytes, _| {
        for batch in segment.batches(bytes) {
            numbers.push(batch?.first.0);
        }
        Ok(())
    })?;
    Ok((numbers, log.promised))
}

fn damaged(sample: &Sample, file: usize, change: impl FnOnce(&mut Vec<u8>)) -> Vec<SegmentFile> {
    let mut files = sample.files.clone();
    let mut bytes = files[file].bytes.to_vec();
    change(&mut bytes);
    files[file].bytes = bytes.into();
    files
}

#[test]
fn a_log_over_several_segments_is_read_whole() {
    let sample = sample(20, 9);
    assert!(sample.files.len() >= 4);
    let (numbers, promised) = read(&sample.files, None).unwrap();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    assert_eq!(promised, sample.synced);
    let (_, promised) = read(&sample.files, Some(sample.end)).unwrap();
    assert_eq!(promised, sample.ends[19].1);
}

#[test]
fn damage_in_front_of_a_promise_is_corruption_and_behind_it_the_log_is_cut() {
    let sample = sample(20, 9);
    let (mut cut, mut refused) = (0, 0);
    for file in 0..sample.files.len() {
        for at in 0..SIZE as usize {
            let files = damaged(&sample, file, |bytes| bytes[at] ^= 0x10);
            match read(&files, None) {
                Ok((numbers, _)) => {
                    let count = numbers.len() as u64;
                    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
                    assert!(count >= 9, "file {file} byte {at}: a synced write is gone");
                    cut += usize::from(count < 20);
                }
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            // A closed log must be there whole.
            if let Ok((numbers, _)) = read(&files, Some(sample.end)) {
                assert_eq!(numbers.len(), 20, "file {file} byte {at}");
            }
        }
    }
    assert!(cut > 300 && refused > 300, "{cut} cut, {refused} refused");
}

#[test]
fn a_missing_or_shortened_segment_is_noticed_where_it_was_synced() {
    let sample = sample(20, 9);
    for missing in 0..sample.files.len() {
        let mut files = sample.files.clone();
        files.remove(missing);
        assert!(missing == 0 || read(&files, Some(sample.end)).is_err());
        if let Ok((numbers, _)) = read(&files, None) {
            assert!(missing == 0 || numbers.len() >= 9, "segment {missing}");
        }
        for length in 0..SIZE as usize {
            let files = damaged(&sample, missing, |bytes| bytes.truncate(length));
            if let Ok((numbers, _)) = read(&files, None) {
                assert!(numbers.len() >= 9, "segment {missing} cut to {length}");
            }
        }
    }
}

#[test]
fn segments_given_up_by_an_earlier_cut_do_not_come_back() {
    let sample = sample(20, 9);
    // A later start cut the log inside segment 3 and went on in segment 90.
    let log = read_log(&sample.files, STORE, 1, None, |_, _, _| Ok(())).unwrap();
    let third = &log.segments[2];
    let cut_at = third.frames[0].payload.end as u64;
    let header = SegmentHeader {
        id: 90,
        store: STORE,
        previous: 3,
        previous_length: cut_at,
        first: third.frames[0].first.next(),
        start: third.start() + cut_at,
        promise: sample.synced,
    };
    let mut files = sample.files.clone();
    let mut bytes = header.encode().to_vec();
    bytes.resize(SIZE as usize, 0);
    files.push(SegmentFile {
        id: 90,
        path: path(90),
        bytes: bytes.into(),
    });
    let (numbers, _) = read(&files, None).unwrap();
    assert_eq!(numbers, (1..=third.frames[0].first.0).collect::<Vec<_>>());
}

#[test]
fn frames_of_an_earlier_use_of_a_segment_are_nothing() {
    let sample = sample(20, 9);
    // The newest segment carries old frames behind its own, as a recycled one does.
    let newest = sample.files.len() - 1;
    let old = sample.files[0].bytes.clone();
    let (_, length) = sample.end;
    let files = damaged(&sample, newest, |bytes| {
        bytes[length as usize..].copy_from_slice(&old[length as usize..]);
    });
    assert_eq!(read(&files, None).unwrap().0.len(), 20);
    // And a spare is all old frames.
    let mut files = sample.files.clone();
    files.push(SegmentFile {
        id: 91,
        path: path(91),
        bytes: old,
    });
    assert_eq!(read(&files, None).unwrap().0.len(), 20);
}

#[test]
fn a_segment_at_the_end_is_given_up_only_if_no_frame_was_ever_stored_in_it() {
    let sample = sample(40, 1);
    let ids = |files: &[SegmentFile]| -> Vec<u64> {
        let log = read_log(files, STORE, 1, None, |_, _, _| Ok(())).unwrap();
        log.segments.iter().map(UsedSegment::id).collect()
    };
    let whole = ids(&sample.files);
    let last = *whole.last().unwrap();
    let with_last = |change: &dyn Fn(&mut [u8])| {
        let mut files = sample.files.clone();
        let file = files.iter_mut().find(|file| file.id == last).unwrap();
        let mut bytes = file.bytes.to_vec();
        change(&mut bytes);
        file.bytes = bytes.into();
        files
    };
    let bare = with_last(&|bytes| bytes[HEADER_BYTES..].fill(0));
    assert_eq!(ids(&bare), whole[..whole.len() - 1]);
    // Its first frame is torn, and whole ones follow: they were stored, so its name is durable.
    let torn = with_last(&|bytes| bytes[HEADER_BYTES + 50] ^= 1);
    assert_eq!(ids(&torn), whole);
}
