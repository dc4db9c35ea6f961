//! The simulated disk keeps what was synced, and may lose the rest.

use super::*;
use std::collections::BTreeSet;

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

fn write(fs: &SimFs, name: &str, bytes: &[u8]) -> Box<dyn AppendFile> {
    let mut file = fs.create(&path(name)).unwrap();
    file.append(bytes).unwrap();
    file
}

#[test]
fn synced_files_survive_and_unsynced_ones_come_back_in_many_ways() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let fs = SimFs::new();
        write(&fs, "kept", b"kept").sync().unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        write(&fs, "young", &[9; 1500]).sync().unwrap();
        let mut grown = write(&fs, "grown", &[1; 600]);
        grown.sync().unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        grown.append(&[2; 1300]).unwrap();
        fs.remove(&path("young")).unwrap();

        let dump = fs.power_loss(seed).dump();
        assert_eq!(dump[&path("kept")], b"kept");
        assert_eq!(dump[&path("grown")][..600], [1; 600]);
        outcomes.insert((
            dump[&path("grown")].clone(),
            dump.contains_key(&path("young")),
        ));
    }
    assert!(
        outcomes.len() > 50,
        "only {} different outcomes",
        outcomes.len()
    );
    assert!(outcomes.contains(&(vec![1; 600], true)), "everything lost");
}

#[test]
fn what_is_certain_is_what_was_synced_and_nothing_else() {
    let fs = SimFs::new();
    let mut grown = write(&fs, "grown", &[1; 600]);
    grown.sync().unwrap();
    write(&fs, "gone", b"gone").sync().unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    grown.append(&[2; 100]).unwrap();
    fs.remove(&path("gone")).unwrap();
    write(&fs, "nameless", b"its name is not synced")
        .sync()
        .unwrap();
    fs.plan(fs.calls(), Fault::Io);

    let certain = fs.certain();
    let expected = [
        (path("grown"), vec![1; 600]),
        (path("gone"), b"gone".to_vec()),
    ];
    assert_eq!(certain.dump(), expected.into());
    write(&certain, "new", b"no fault was planned for this disk");
    assert!(fs.create(&path("failing")).is_err(), "nor taken from that");
    assert_eq!(fs.dump()[&path("grown")].len(), 700);
}

#[test]
fn the_same_seed_loses_the_same_bytes() {
    let build = |seed| {
        let fs = SimFs::new();
        write(&fs, "a", &[5; 5000]);
        write(&fs, "b", &[6; 5000]);
        fs.power_loss(seed).dump()
    };
    for seed in 0..20 {
        assert_eq!(build(seed), build(seed));
    }
}

#[test]
fn the_old_handle_is_dead_and_does_not_touch_the_new_disk() {
    let old = SimFs::new();
    let mut file = write(&old, "a", b"1");
    let lock = old.lock(&path("LOCK")).unwrap();
    let new = old.kill();
    let before = new.dump();
    assert!(file.append(b"2").is_err() && file.sync().is_err());
    assert!(old.create(&path("b")).is_err() && old.remove(&path("a")).is_err());
    let _lock = new.lock(&path("LOCK")).unwrap();
    drop(lock);
    assert!(
        new.lock(&path("LOCK")).is_err(),
        "the dead process released the new owner's lock"
    );
    assert_eq!(new.dump(), before);
    assert_eq!(before[&path("a")], b"1", "a killed process loses nothing");
}

#[test]
fn a_failed_sync_loses_the_bytes_although_the_next_one_succeeds() {
    let fs = SimFs::new();
    let mut file = write(&fs, "a", b"gone");
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.plan(fs.calls(), Fault::Io);
    assert!(file.sync().is_err());
    assert_eq!(fs.dump()[&path("a")], b"gone");
    file.append(b"kept").unwrap();
    file.sync().unwrap();
    for seed in 0..20 {
        assert_eq!(
            fs.fork().power_loss(seed).dump()[&path("a")],
            b"\0\0\0\0kept"
        );
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_recovers_when_files_are_removed() {
    let fs = SimFs::new();
    fs.set_capacity(10);
    write(&fs, "a", b"12345678");
    let mut file = fs.create(&path("b")).unwrap();
    assert_eq!(
        file.append(b"abc").unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(fs.dump()[&path("b")], b"ab");
    fs.remove(&path("a")).unwrap();
    assert_eq!(fs.free_space(Path::new("/d")).unwrap(), 8);
    file.append(b"c").unwrap();
}

#[test]
fn nothing_works_after_a_power_cut_at_the_planned_call() {
    let fs = SimFs::new();
    let mut file = write(&fs, "a", b"1");
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.plan(fs.calls(), Fault::PowerCut);
    assert!(file.append(b"2").is_err());
    assert!(file.append(b"3").is_err() && fs.list(Path::new("/d")).is_err());
    let sizes: BTreeSet<usize> = (0..40)
        .map(|seed| fs.fork().power_loss(seed).dump()[&path("a")].len())
        .collect();
    assert!(
        sizes.contains(&0) && sizes.contains(&2),
        "the last append is lost or kept: {sizes:?}"
    );
}

#[test]
fn stores_in_place_survive_a_kill_and_are_torn_by_sector_when_the_power_goes() {
    let fs = SimFs::new();
    let segment = fs.create_segment(&path("s"), 4096).unwrap();
    segment.store(0, &[&[1; 700]]).unwrap();
    segment.sync().unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    segment.store(700, &[&[2; 1000], &[3; 1000]]).unwrap();
    assert!(segment.store(4090, &[&[0; 7]]).is_err());
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let bytes = fs.fork().power_loss(seed).dump()[&path("s")].clone();
        assert_eq!(
            (bytes.len(), &bytes[..700]),
            (4096, &[1; 700][..]),
            "synced bytes stay"
        );
        assert_eq!(bytes[2700..], [0; 1396], "nobody stored there");
        outcomes.insert(bytes);
    }
    assert!(outcomes.len() > 30, "{}", outcomes.len());
    assert!(outcomes.iter().any(|bytes| bytes[700..2700] == [0; 2000]));
    let killed = fs.kill();
    assert_eq!(killed.dump()[&path("s")][700..1700], [2; 1000]);
    // A failed sync drops the bytes for ever, unless they are stored again.
    let segment = killed.open_segment(&path("s")).unwrap();
    killed.plan(killed.calls(), Fault::Io);
    assert!(segment.sync().is_err());
    segment.store(700, &[&[2; 10]]).unwrap();
    segment.sync().unwrap();
    let bytes = killed.power_loss(1).dump()[&path("s")].clone();
    assert_eq!(bytes[700..720], [[2; 10], [0; 10]].concat());
}

#[test]
fn a_second_name_leads_to_the_same_bytes_and_is_durable_after_a_directory_sync() {
    let fs = SimFs::new();
    let mut file = write(&fs, "a", b"1");
    file.sync().unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.link(&path("a"), &path("b")).unwrap();
    assert!(fs.link(&path("a"), &path("b")).is_err());
    assert!(fs.link(&path("c"), &path("e")).is_err());
    let kept = (0..20).filter(|seed| fs.fork().power_loss(*seed).dump().contains_key(&path("b")));
    assert!(
        (1..20).contains(&kept.count()),
        "a link is pending at first"
    );
    fs.sync_dir(Path::new("/d")).unwrap();
    file.append(b"2").unwrap();
    assert_eq!(fs.dump()[&path("b")], b"12");
    file.sync().unwrap();
    fs.set_capacity(100);
    assert_eq!(fs.free_space(Path::new("/d")).unwrap(), 98, "counted once");
    fs.remove(&path("a")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(fs.power_loss(1).dump()[&path("b")], b"12");
}

#[test]
fn a_flipped_read_differs_in_one_bit_once() {
    let fs = SimFs::new();
    write(&fs, "a", &[0; 100]);
    let file = fs.open(&path("a")).unwrap();
    fs.plan(fs.calls(), Fault::FlippedRead);
    let mut bytes = [0; 100];
    file.read_at(0, &mut bytes).unwrap();
    let flipped: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(flipped, 1);
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 100]);
}

#[test]
fn a_misdirected_write_is_missing_in_its_place_and_is_found_in_another() {
    let mut hits = BTreeSet::new();
    for (fault, seed) in
        (0..30).flat_map(|seed| [(Fault::Misdirected, seed), (Fault::MisdirectedOnDisk, seed)])
    {
        let fs = SimFs::new();
        write(&fs, "other", &[1; 3000]).sync().unwrap();
        let mut file = write(&fs, "a", &[2; 700]);
        fs.sync_dir(Path::new("/d")).unwrap();
        (0..seed).for_each(|_| drop(fs.list(Path::new("/d"))));
        fs.plan(fs.calls(), fault);
        file.append(&[3; 100]).unwrap();
        let right = [vec![2; 700], vec![3; 100]].concat();
        let wrong = [vec![2; 700], vec![0; 100]].concat();
        file.sync().unwrap();
        if fault == Fault::MisdirectedOnDisk {
            assert_eq!(fs.dump()[&path("a")], right);
            assert_eq!(fs.dump()[&path("other")], [1; 3000]);
        }
        let dump = fs.power_loss(seed).dump();
        if dump[&path("other")] != [1; 3000] {
            assert_eq!(dump[&path("a")], wrong);
            assert!(dump[&path("other")].contains(&3));
            hits.insert(fault == Fault::Misdirected);
        }
    }
    assert_eq!(hits.len(), 2);
}

#[test]
fn a_disk_fills_and_gets_room_again_at_planned_calls() {
    let fs = SimFs::new();
    let mut file = write(&fs, "a", b"1");
    fs.plan(fs.calls(), Fault::DiskFills);
    fs.plan(fs.calls() + 2, Fault::DiskFrees);
    assert!(file.append(b"2").is_err());
    assert!(file.append(b"2").is_err());
    file.append(b"2").unwrap();
}

#[test]
fn a_failed_sync_leaves_names_in_doubt_until_a_newer_change_decides_them() {
    let fs = SimFs::new();
    write(&fs, "a.tmp", b"old").sync().unwrap();
    fs.rename(&path("a.tmp"), &path("a")).unwrap();
    write(&fs, "b", b"lost?").sync().unwrap();
    fs.plan(fs.calls(), Fault::Io);
    fs.sync_dir(Path::new("/d")).unwrap_err();
    write(&fs, "a.tmp", b"new").sync().unwrap();
    fs.rename(&path("a.tmp"), &path("a")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    let dumps: Vec<_> = (0..40)
        .map(|seed| fs.fork().power_loss(seed).dump())
        .collect();
    assert!(dumps.iter().all(|dump| dump[&path("a")] == b"new"));
    assert!(!dumps.iter().any(|dump| dump.contains_key(&path("a.tmp"))));
    let with_b = dumps.iter().filter(|dump| dump.contains_key(&path("b")));
    assert!((1..40).contains(&with_b.count()), "still in doubt");
}
