//! Crashes, damage, full and failing disks.

use super::{
    super::{AppendError, epochs::Epochs, recovery, segment::Growth},
    *,
};
use crate::disk::{
    dir::Dir,
    testing::{Fault, Unsynced},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, io::ErrorKind};

/// A log of `count` small batches with few in each segment, closed; its directory and the whole
/// batches as stamped.
fn written(count: i64, segment_bytes: u64) -> (MemoryDir, Vec<Vec<u8>>) {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, small_segments(segment_bytes), crashed(0));
    for i in 0..count {
        // No producer id may look like an offset: behind a gap that ends in the next batch's
        // header, its eight bytes would be taken for the base offset, which no CRC covers.
        let producer_id = 1_000_000 + i;
        put(&mut log, &Shape { timestamp_ms: 1000 + i, producer_id, ..Shape::default() });
    }
    let batches = (0..count).map(|i| log.reader().read(at(i), 0).unwrap().chunks.concat());
    let batches = batches.collect();
    log.close().unwrap();
    (dir, batches)
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap()
}

fn last_log(contents: &BTreeMap<String, Vec<u8>>) -> (String, Vec<u8>) {
    let (name, bytes) = contents.iter().rfind(|(name, _)| name.ends_with(".log")).unwrap();
    (name.clone(), bytes.clone())
}

/// Reads all there is, and asserts that each batch served is as it was written.
fn served(log: &Log, batches: &[Vec<u8>]) -> Vec<i64> {
    let start = log.reader().log_start().get();
    let (bases, _) = read_all(&log.reader(), start);
    for base in &bases {
        let read = log.reader().read(at(*base), 0).unwrap().chunks.concat();
        let written = usize::try_from(*base).ok().and_then(|base| batches.get(base));
        assert!(written.is_none_or(|written| *written == read), "batch {base} was altered");
    }
    bases
}

#[test]
fn every_truncation_of_the_last_segment_recovers_to_a_batch_boundary() {
    let (dir, batches) = written(5, 1 << 20);
    let (name, bytes) = last_log(&dir.contents());
    for length in 0..=bytes.len() {
        let dir = dir.copy();
        dir.put(&name, bytes[..length].to_vec());
        let (mut log, recovery) = open_with(&dir, Options::default(), crashed(0));
        let whole = length / batches[0].len();
        let torn = length % batches[0].len();
        let expected: Vec<i64> = (0..5).take(whole).collect();
        assert_eq!(served(&log, &batches), expected, "cut to {length}");
        assert_eq!(recovery.torn_tail.is_some(), torn > 0);
        if let Some(tail) = recovery.torn_tail {
            let position = whole * batches[0].len();
            assert_eq!((tail.position, tail.bytes), (count(position), count(torn)));
            assert_eq!(tail.offset.get(), i64::try_from(expected.len()).unwrap());
            let kept = &dir.contents()[&format!("{name}.cut-{position}")];
            assert_eq!(*kept, bytes[position..length], "the cut bytes are kept");
            assert_eq!(dir.contents()[&name], bytes[..position]);
        }
        let next = put(&mut log, &Shape::default());
        assert_eq!(next, i64::try_from(expected.len()).unwrap());
        // With a durable floor the same is damage: nothing is cut, no offset is given again.
        let dir = dir.copy();
        dir.put(&name, bytes[..length].to_vec());
        let (mut log, recovery) = open_with(&dir, Options::default(), crashed(5));
        assert!(recovery.torn_tail.is_none());
        assert_eq!(dir.contents()[&name], bytes[..length]);
        let hole = (at(i64::try_from(expected.len()).unwrap()), at(5));
        assert_eq!(recovery.holes, if whole == 5 { vec![] } else { vec![hole] });
        assert_eq!(served(&log, &batches), expected);
        assert_eq!(put(&mut log, &Shape::default()), 5);
    }
}

#[test]
fn a_flipped_byte_costs_at_most_its_batch_and_is_never_served() {
    let (dir, batches) = written(12, 300);
    let contents = dir.contents();
    let (last, _) = last_log(&contents);
    assert!(contents.len() > 8, "several segments, seals and the epochs");
    for (name, bytes) in &contents {
        for (position, mask) in (0..bytes.len()).flat_map(|p| [(p, 1), (p, 0x80)]) {
            for last_stop in [crashed(0), crashed(12), clean()] {
                let floor = last_stop.durable_floor.get();
                let was_clean = last_stop.was_clean;
                let dir = dir.copy();
                let mut flipped = bytes.clone();
                flipped[position] ^= mask;
                dir.put(name, flipped);
                // The epoch rises at an unclean start.
                let last_stop =
                    LastStop { leader_epoch: EPOCH + i32::from(!was_clean), ..last_stop };
                let (mut log, recovery) = open_with(&dir, small_segments(300), last_stop);
                let bases = served(&log, &batches);
                let context = format!("{name} {position} {mask:#x} {last_stop:?} {bases:?}");
                assert!(bases.len() >= 11, "{context}");
                assert!(name.ends_with(".log") || bases.len() == 12, "{context}");
                assert!(floor == 0 || recovery.torn_tail.is_none(), "{context}");
                if bases.len() == 11 && *name == last && !was_clean {
                    let is_told = recovery.torn_tail.is_some() || !recovery.holes.is_empty();
                    assert!(is_told, "{context}");
                }
                let next = put(&mut log, &Shape::default());
                let is_torn = recovery.torn_tail.is_some();
                // A damaged count may claim more offsets, as many as the bytes could hold.
                assert!((12..25).contains(&next) || next == 11 && is_torn, "{context}");
                let tail = log.reader().read(at(next), 0).expect("what is new can be read");
                assert_eq!(headers(&tail)[0].base_offset, next, "{context}");
            }
        }
    }
}

#[test]
fn a_whole_last_batch_with_a_wrong_offset_or_epoch_is_damage_and_not_torn() {
    for position in [7, 15] {
        let (dir, batches) = written(3, 1 << 20);
        let (name, mut bytes) = last_log(&dir.contents());
        let last = bytes.len() - batches[2].len();
        bytes[last + position] ^= 1;
        dir.put(&name, bytes.clone());
        let (mut log, recovery) = open_with(&dir, Options::default(), crashed(0));
        assert!(recovery.torn_tail.is_none());
        assert_eq!(recovery.holes, [(at(2), at(3))]);
        assert_eq!(put(&mut log, &Shape::default()), 3);
        assert_eq!(read_all(&log.reader(), 0), (vec![0, 1, 3], vec![(2, Some(3))]));
        assert_eq!(dir.contents()[&name], bytes);
        // It is remembered, whatever becomes of the seal.
        for last_stop in [clean(), crashed(0)] {
            let (_, recovery) = open_with(&dir, Options::default(), last_stop);
            assert_eq!(recovery.holes, [(at(2), at(3))]);
        }
        let seal = name.replace(".log", ".seal");
        dir.remove(&seal).unwrap();
        let (_, recovery) = open_with(&dir, Options::default(), crashed(0));
        assert_eq!(recovery.holes, [(at(2), at(3))]);
    }
}

/// `harm` gets the directory of a log of three batches and the name of its file.
#[track_caller]
fn check_clean_start(harm: impl Fn(&MemoryDir, &str, &[u8]), expected: &[i64]) {
    let (dir, _) = written(3, 1 << 20);
    let (name, bytes) = last_log(&dir.contents());
    harm(&dir, &name, &bytes);
    let (mut log, recovery) = open_with(&dir, Options::default(), clean());
    assert!(recovery.torn_tail.is_none());
    assert_eq!(put(&mut log, &Shape::default()), *expected.last().unwrap());
    let read = read_all(&log.reader(), 0);
    assert_eq!(read.0, expected);
    drop(log);
    let (log, _) = open_with(&dir, Options::default(), crashed(0));
    assert_eq!(read_all(&log.reader(), 0), read, "a crash changes nothing");
}

#[test]
fn what_is_appended_after_a_clean_start_outlives_a_crash_whatever_the_seal_says() {
    let sealed_with = |end: i64| {
        move |dir: &MemoryDir, name: &str, bytes: &[u8]| {
            let file = dir.open(name).unwrap();
            let epochs = Epochs::load(dir).unwrap();
            let range = (0, i64::MAX);
            let growth = recovery::rescan(&*file, count(bytes.len()), range, &epochs).unwrap();
            Growth { end, ..growth }.write_seal(dir).unwrap();
        }
    };
    check_clean_start(sealed_with(3), &[0, 1, 2, 3]);
    check_clean_start(sealed_with(2), &[0, 1, 2, 3]);
    check_clean_start(sealed_with(5), &[0, 1, 2, 5]);
}

#[test]
fn what_is_lost_after_a_clean_stop_is_a_hole_and_its_offsets_are_not_given_again() {
    for lost in [1, 50, 90, 130] {
        let harm = |dir: &MemoryDir, name: &str, bytes: &[u8]| {
            dir.put(name, bytes[..bytes.len() - lost].to_vec());
        };
        let whole = (252 - lost) / 84;
        let left = (0..3).take(whole).chain([3]);
        check_clean_start(harm, &left.collect::<Vec<i64>>());
    }
}

#[test]
fn damage_in_the_middle_is_a_hole_and_the_rest_is_served() {
    let (dir, batches) = written(6, 1 << 20);
    let (name, mut bytes) = last_log(&dir.contents());
    let size = batches[0].len();
    bytes[size * 2 + 5..size * 3 + 20].fill(0xee);
    dir.put(&name, bytes);
    let (mut log, recovery) = open_with(&dir, Options::default(), crashed(0));
    assert_eq!(recovery.holes, [(at(2), at(4))]);
    assert_eq!(put(&mut log, &Shape::default()), 6);
    assert_eq!(read_all(&log.reader(), 0), (vec![0, 1, 4, 5, 6], vec![(2, Some(4))]));
    assert_eq!(log.reader().offset_for_time(1002).unwrap(), Some((at(4), 1004)));
    assert_eq!(recovery.active_batches.len(), 4);
}

#[test]
fn a_wild_offset_after_damage_does_not_make_the_log_jump() {
    let (dir, batches) = written(3, 1 << 20);
    let (name, mut bytes) = last_log(&dir.contents());
    let size = batches[0].len();
    bytes[size + 70] ^= 1;
    bytes[size * 2] = 1;
    dir.put(&name, bytes.clone());
    for last_stop in [clean(), crashed(0), crashed(3)] {
        let dir = dir.copy();
        let (mut log, recovery) = open_with(&dir, Options::default(), last_stop);
        assert!(recovery.torn_tail.is_none());
        assert_eq!(dir.contents()[&name], bytes);
        assert_eq!(served(&log, &batches), [0]);
        // Past both batches, if only by what the second says of its own records.
        assert!((3..40).contains(&put(&mut log, &Shape::default())));
    }
}

#[test]
fn damage_under_a_running_log_is_found_by_the_read() {
    for segment_bytes in [300, 1 << 20] {
        let dir = MemoryDir::new();
        let options = Options { tail_bytes: 0, ..small_segments(segment_bytes) };
        let (mut log, _) = open_with(&dir, options, crashed(0));
        for _ in 0..7 {
            put(&mut log, &Shape::default());
        }
        let (name, mut bytes) =
            dir.contents().into_iter().find(|(n, _)| n.ends_with(".log")).unwrap();
        let size = Shape::default().bytes().len();
        bytes[size + 70] ^= 4;
        dir.put(&name, bytes);
        let (bases, damaged) = read_all(&log.reader(), 0);
        assert_eq!((bases, damaged), (vec![0, 2, 3, 4, 5, 6], vec![(1, Some(2))]));
        let (name, mut bytes) = last_log(&dir.contents());
        *bytes.last_mut().unwrap() ^= 4;
        dir.put(&name, bytes);
        let damaged = read_all(&log.reader(), 2).1;
        assert_eq!(damaged, [(6, Some(7))], "the end is where reading goes on");
        put(&mut log, &Shape::default());
        assert_eq!(read_all(&log.reader(), 2), (vec![2, 3, 4, 5, 7], vec![(6, Some(7))]));
    }
}

#[test]
fn a_batch_within_a_value_is_not_taken_for_one_of_ours() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    for _ in 0..3 {
        put(&mut log, &Shape { value_bytes: 400, ..Shape::default() });
    }
    drop(log);
    let (name, mut bytes) = last_log(&dir.contents());
    let size = bytes.len() / 3;
    // In the second batch, a sound batch with offset 1; and the outer length is lost.
    let (_, inner) = Shape::default().batch().stamp(1, EPOCH);
    bytes[size + 100..size + 100 + inner.len()].copy_from_slice(&inner);
    bytes[size + 8..size + 12].fill(0xff);
    dir.put(&name, bytes);
    let (log, recovery) = open_with(&dir, Options::default(), crashed(3));
    assert_eq!(recovery.holes, [(at(1), at(2))]);
    assert_eq!(read_all(&log.reader(), 0), (vec![0, 2], vec![(1, Some(2))]));
}

#[test]
fn seals_and_epochs_can_be_deleted() {
    let (dir, batches) = written(12, 300);
    for name in dir.contents().keys().filter(|name| !name.ends_with(".log")) {
        Dir::remove(&dir, name).unwrap();
    }
    for last_stop in [clean(), crashed(12)] {
        let (log, recovery) = open_with(&dir, small_segments(300), last_stop);
        assert!(recovery.holes.is_empty() && recovery.torn_tail.is_none());
        assert_eq!(served(&log, &batches).len(), 12);
    }
    assert!(dir.contents().keys().any(|name| name.ends_with(".seal")), "they are made again");
    let (log, _) = open_with(&dir, small_segments(300), clean());
    for name in dir.contents().keys().filter(|name| !name.ends_with(".log")) {
        Dir::remove(&dir, name).unwrap();
    }
    assert_eq!(served(&log, &batches).len(), 12, "also under a running log");
}

#[test]
fn a_lost_segment_is_a_hole() {
    let (dir, _) = written(12, 300);
    let logs: Vec<String> = dir.contents().into_keys().filter(|n| n.ends_with(".log")).collect();
    Dir::remove(&dir, &logs[1]).unwrap();
    let (log, recovery) = open_with(&dir, small_segments(300), crashed(12));
    assert_eq!(recovery.holes.len(), 1);
    let (from, to) = recovery.holes[0];
    let (bases, damaged) = read_all(&log.reader(), 0);
    assert_eq!(damaged, [(from.get(), Some(to.get()))]);
    assert_eq!(bases.len(), 12 - usize::try_from(to.get() - from.get()).unwrap());
}

#[test]
fn a_full_disk_leaves_the_log_unchanged_and_writes_go_on_with_space() {
    let dir = MemoryDir::new();
    let faulty = faulty(&dir);
    let (mut log, _) =
        Log::open(Arc::new(faulty.clone()), small_segments(400), crashed(0)).unwrap();
    let pair = || vec![Shape::default().batch(), Shape::default().batch()];
    for round in 0..6_i64 {
        let before = dir.contents();
        faulty.set_full(true);
        for _ in 0..2 {
            assert!(matches!(log.append(pair(), 1), Err(AppendError::Full { .. })));
            let logs = |contents: BTreeMap<String, Vec<u8>>| {
                contents.into_iter().filter(|(n, _)| n.ends_with(".log")).collect::<Vec<_>>()
            };
            assert_eq!(logs(dir.contents()), logs(before.clone()), "round {round}");
            assert_eq!(log.log_end().get(), round * 2);
            log.flush().expect("a flush needs no space");
        }
        faulty.set_full(false);
        assert_eq!(log.append(pair(), 1).unwrap()[0].base_offset.get(), round * 2);
        log.flush().unwrap();
        assert_eq!(
            read_all(&log.reader(), 0).0.len(),
            usize::try_from(log.log_end().get()).unwrap()
        );
    }
}

#[test]
fn a_roll_that_fails_half_way_does_not_cut_off_what_follows() {
    for (calls, fault) in [
        (1, Fault::Error(ErrorKind::StorageFull)), // create
        (2, Fault::Error(ErrorKind::StorageFull)), // sync of the directory
        (1, Fault::Error(ErrorKind::Other)),
        (2, Fault::Error(ErrorKind::Other)),
    ] {
        let dir = MemoryDir::new();
        let faulty = faulty(&dir);
        let (mut log, _) =
            Log::open(Arc::new(faulty.clone()), small_segments(250), crashed(0)).unwrap();
        put(&mut log, &Shape::default());
        log.append(vec![Shape::default().batch()], 1).unwrap();
        faulty.fail_at(faulty.calls() + calls, fault);
        let large = Shape { value_bytes: 200, ..Shape::default() };
        let is_full = match log.append(vec![large.batch()], 1) {
            Err(AppendError::Full { .. }) => true,
            Err(AppendError::Failed { .. }) => false,
            Ok(appended) => panic!("{appended:?}"),
        };
        assert_eq!(is_full, fault == Fault::Error(ErrorKind::StorageFull));
        assert_eq!(dir.contents().keys().filter(|name| name.ends_with(".log")).count(), 1);
        if is_full {
            assert_eq!(put(&mut log, &Shape::default()), 2, "in the old segment");
        }
        drop(log);
        // Even if the new segment's name came back.
        dir.put("00000000000000000002.log", Vec::new());
        let (log, recovery) = open_with(&dir, small_segments(250), crashed(0));
        assert!(recovery.holes.is_empty() && recovery.torn_tail.is_none());
        assert_eq!(log.log_end(), at(if is_full { 3 } else { 2 }));
        assert!(read_all(&log.reader(), 0).1.is_empty());
    }
}

#[test]
fn a_snapshot_above_the_recovered_end_is_not_found_later() {
    let (dir, _) = written(2, 1 << 20);
    let (mut log, _) = open_with(&dir, Options::default(), clean());
    log.append(vec![Shape::default().batch()], 1).unwrap();
    log.store_snapshot(b"of three").unwrap();
    Dir::sync(&dir).unwrap();
    let dir = dir.power_cut(Unsynced::Dropped);
    let (mut log, recovery) = open_with(&dir, Options::default(), crashed(2));
    assert_eq!((log.log_end(), recovery.snapshot), (at(2), None));
    put(&mut log, &Shape { producer_id: 9, ..Shape::default() });
    let (_, recovery) = open_with(&dir, Options::default(), crashed(2));
    assert_eq!(recovery.snapshot, None, "offset 2 is another batch now");
    assert_eq!(recovery.active_batches.last().unwrap().producer_id, 9);
}

#[test]
fn a_tail_of_countless_likely_batches_is_kept_and_soon_done_with() {
    // Headers that ask for a long CRC each: looked through up to a bound, and then not cut.
    let (dir, batches) = written(1, 1 << 20);
    let (name, mut bytes) = last_log(&dir.contents());
    let mut tail = vec![0xff; 2 << 20];
    for (at, place) in tail.chunks_exact_mut(64).take(1 << 14).enumerate() {
        let mut fake = Shape::default().bytes();
        fake.truncate(64);
        fake[7] = 1;
        fake[15] = 5;
        let length = i32::try_from((2 << 20) - at * 64 - 12).unwrap();
        fake[8..12].copy_from_slice(&length.to_be_bytes());
        place.copy_from_slice(&fake);
    }
    bytes.extend(tail);
    dir.put(&name, bytes.clone());
    let (mut log, recovery) = open_with(&dir, Options::default(), crashed(0));
    assert!(recovery.torn_tail.is_none());
    assert_eq!(recovery.holes, [(at(1), at(2))]);
    assert_eq!(dir.contents()[&name], bytes);
    assert_eq!(served(&log, &batches), [0]);
    assert_eq!(put(&mut log, &Shape::default()), 2);
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let dir = MemoryDir::new();
    let faulty = faulty(&dir);
    let (mut log, _) = Log::open(Arc::new(faulty.clone()), Options::default(), crashed(0)).unwrap();
    put(&mut log, &Shape::default());
    for fault in [ErrorKind::Other, ErrorKind::StorageFull] {
        log.append(vec![Shape::default().batch()], 1).unwrap_or_default();
        faulty.fail_next(Fault::Error(fault));
        assert!(matches!(log.flush(), Err(AppendError::Failed { .. })));
    }
    let syncs = faulty.file_syncs();
    for _ in 0..2 {
        assert!(matches!(log.flush(), Err(AppendError::Failed { source: None, .. })));
        let refused = log.append(vec![Shape::default().batch()], 1);
        assert!(matches!(refused, Err(AppendError::Failed { source: None, .. })));
    }
    assert_eq!(faulty.file_syncs(), syncs);
    let reader = log.reader();
    assert_eq!(reader.high_watermark(), at(1), "what was not synced stays unseen");
    assert_eq!(headers(&reader.read(at(0), 100).unwrap()).len(), 1, "reads go on");
    assert!(log.has_failed());
    assert!(matches!(log.close(), Err(AppendError::Failed { .. })));
}

#[test]
fn after_a_failed_sync_the_next_open_writes_the_segment_anew() {
    let dir = MemoryDir::new();
    let faulty = faulty(&dir);
    let (mut log, _) = Log::open(Arc::new(faulty.clone()), Options::default(), crashed(0)).unwrap();
    put(&mut log, &Shape::default());
    log.append(vec![Shape::default().batch()], 1).unwrap();
    faulty.fail_next(Fault::Error(ErrorKind::Other));
    log.flush().unwrap_err();
    drop(log);
    assert!(dir.contents().contains_key("sync-failed"));
    let (log, _) = open_with(&dir, Options::default(), crashed(0));
    assert_eq!(log.log_end(), at(2), "within one boot it is still read");
    drop(log);
    assert!(!dir.contents().contains_key("sync-failed"), "done once");
    let (log, recovery) =
        open_with(&dir.power_cut(Unsynced::Dropped), Options::default(), crashed(2));
    assert_eq!((log.log_end(), recovery.holes), (at(2), Vec::new()));
}

#[test]
fn a_failed_write_ends_writing() {
    let dir = MemoryDir::new();
    let faulty = faulty(&dir);
    let (mut log, _) = Log::open(Arc::new(faulty.clone()), Options::default(), crashed(0)).unwrap();
    put(&mut log, &Shape::default());
    faulty.fail_next(Fault::ShortWrite { bytes: 30, kind: ErrorKind::Other });
    let failed = log.append(vec![Shape::default().batch()], 1);
    assert!(matches!(failed, Err(AppendError::Failed { source: Some(_), .. })));
    drop(log);
    let (log, recovery) = open_with(&dir, Options::default(), crashed(0));
    assert_eq!(recovery.torn_tail.map(|tail| (tail.offset.get(), tail.bytes)), Some((1, 30)));
    assert_eq!(log.log_end(), at(1));
}

/// One life of a log on `dir`: appends, rolls, snapshots, retention, until something fails.
/// Returns the offset below which all was flushed, and the end of what was appended.
fn live(dir: &FaultyDir, last_stop: LastStop, acknowledged: i64) -> (i64, i64) {
    let options = Options { segment_bytes: 350, ..Options::default() };
    let mut flushed = acknowledged;
    let Ok((mut log, _)) = Log::open(Arc::new(dir.clone()), options, last_stop) else {
        return (flushed, flushed);
    };
    assert!(log.log_end().get() >= flushed, "an acknowledged batch was lost");
    for i in 0..16 {
        let group =
            vec![Shape::default().batch(), Shape { records: 2, ..Shape::default() }.batch()];
        if log.append(group, i).is_err() || log.flush().is_err() {
            return (flushed, log.log_end().get());
        }
        flushed = log.log_end().get();
        if log.snapshot_due() {
            // A snapshot that cannot be written only costs time.
            drop(log.store_snapshot(&flushed.to_be_bytes()));
        }
    }
    let end = log.log_end().get();
    drop(log.close());
    (flushed, end)
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_that_was_flushed() {
    let counted = faulty(&MemoryDir::new());
    live(&counted, crashed(0), 0);
    assert!(counted.calls() > 60, "{} calls", counted.calls());
    for call in 0..counted.calls() {
        for unsynced in [
            Unsynced::Dropped,
            Unsynced::Torn { bytes_kept: 100 },
            Unsynced::Torn { bytes_kept: usize::MAX },
        ] {
            let disk = MemoryDir::new();
            let first = faulty(&disk);
            first.fail_at(call, Fault::PowerOff);
            let (flushed, end) = live(&first, crashed(0), 0);
            let disk = disk.power_cut(unsynced);
            // A second life, cut short too, and what a third finds.
            let second = faulty(&disk);
            second.fail_at(call / 2, Fault::PowerOff);
            let last_stop = LastStop { leader_epoch: EPOCH + 1, ..crashed(flushed) };
            let (flushed, _) = live(&second, last_stop, flushed);
            let disk = disk.power_cut(unsynced);
            let last_stop = LastStop { leader_epoch: EPOCH + 2, ..crashed(flushed) };
            let (log, recovery) = open_with(&disk, Options::default(), last_stop);
            let context = format!("call {call}, {unsynced:?}, {recovery:?}, end {end}");
            assert!(recovery.holes.is_empty(), "{context}");
            assert!(log.log_end().get() >= flushed, "{context}");
            let (bases, damaged) = read_all(&log.reader(), 0);
            assert!(damaged.is_empty(), "{context}");
            assert_eq!(bases.first().copied().unwrap_or(0), 0, "{context}");
            if let Some(snapshot) = recovery.snapshot {
                assert_eq!(&snapshot.bytes[..], snapshot.offset.get().to_be_bytes());
            }
        }
    }
}

/// Something that happened to the bytes of a file.
#[derive(Clone, Debug)]
enum Harm {
    Overwrite(usize, Vec<u8>),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    // Cutting or repeating exactly one batch's length can put the records of one batch behind the
    // offset of its neighbour; nothing in the format tells that (see docs/disk-format.md).
    let lengths = || 1_usize..70;
    let bytes = || prop::collection::vec(any::<u8>(), 1..150);
    prop_oneof![
        (any::<usize>(), bytes()).prop_map(|(at, bytes)| Harm::Overwrite(at, bytes)),
        (any::<usize>(), lengths()).prop_map(|(at, length)| Harm::Remove(at, length)),
        (any::<usize>(), bytes()).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        (any::<usize>(), lengths()).prop_map(|(at, length)| Harm::Repeat(at, length)),
    ]
}

impl Harm {
    fn come_to(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let range = |at: usize, count: usize| {
            let at = at % (length + 1);
            at..length.min(at + count)
        };
        match self {
            Self::Overwrite(at, new) => {
                let range = range(*at, new.len());
                let count = range.len();
                bytes[range].copy_from_slice(&new[..count]);
            }
            Self::Remove(at, count) => drop(bytes.drain(range(*at, *count))),
            Self::Insert(at, new) => {
                let at = range(*at, 0).start;
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Repeat(at, count) => {
                let range = range(*at, *count);
                let (at, again) = (range.start, bytes[range].to_vec());
                bytes.splice(at..at, again);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_to_the_files_no_damaged_batch_is_served(
        harms in prop::collection::vec((any::<usize>(), harm()), 1..4),
        was_clean in any::<bool>(),
    ) {
        let (dir, batches) = written(12, 400);
        let names: Vec<String> = dir.contents().into_keys().collect();
        for (file, harm) in &harms {
            let name = &names[file % names.len()];
            let mut bytes = dir.contents()[name].clone();
            harm.come_to(&mut bytes);
            dir.put(name, bytes);
        }
        let last_stop = LastStop { was_clean, ..crashed(12) };
        let (mut log, _) = open_with(&dir, small_segments(400), last_stop);
        let first = served(&log, &batches);
        prop_assert!(first.is_sorted());
        let next = put(&mut log, &Shape::default());
        prop_assert!(next >= 12, "offset {} was given before", next);
        prop_assert_eq!(served(&log, &batches).last().copied(), Some(next));
        // A second start finds the same.
        let last_stop = LastStop { leader_epoch: EPOCH + 1, ..crashed(next + 1) };
        let (log, _) = open_with(&dir, small_segments(400), last_stop);
        let mut second = served(&log, &batches);
        prop_assert_eq!(second.pop(), Some(next));
        prop_assert!(second.len() >= first.len(), "{:?} then {:?}", first, second);
    }
}
