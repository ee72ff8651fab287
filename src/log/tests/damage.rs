//! What a reading of a damaged directory tells, and what a person can do about it.

use super::{
    super::{Damage, Decision, Finding, Outage, RepairError, Report, repair, verify},
    *,
};
use crate::{disk::dir::Dir, disk::testing::Fault};
use std::{collections::BTreeMap, io::ErrorKind};

/// A closed log of `count` batches, few in each segment.
fn written(count: i64, segment_bytes: u64) -> MemoryDir {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, small_segments(segment_bytes), crashed(0));
    for i in 0..count {
        put(&mut log, &Shape { timestamp_ms: 1000 + i, ..Shape::default() });
        if log.snapshot_due() {
            log.store_snapshot(b"producers").unwrap();
        }
    }
    log.close().unwrap();
    dir
}

fn logs(dir: &MemoryDir) -> Vec<String> {
    dir.contents().into_keys().filter(|name| name.ends_with(".log")).collect()
}

/// Changes the bytes of one file.
fn harm(dir: &MemoryDir, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = dir.contents()[name].clone();
    change(&mut bytes);
    dir.put(name, bytes);
}

fn report(dir: &MemoryDir) -> Report {
    let before = dir.contents();
    let report = verify(dir).expect("it reads");
    assert_eq!(dir.contents(), before, "a reading changes nothing");
    report
}

/// The one damage that there is.
#[track_caller]
fn damage(dir: &MemoryDir) -> Damage {
    let report = report(dir);
    let damages: Vec<_> = report.damages().cloned().collect();
    assert_eq!(damages.len(), 1, "{report:?}");
    damages[0].clone()
}

fn batch_bytes() -> usize {
    Shape::default().bytes().len()
}

#[test]
fn a_sound_log_is_read_whole() {
    let dir = written(12, 300);
    let report = report(&dir);
    assert!(report.is_sound() && report.findings.is_empty(), "{report:?}");
    let bytes: usize = logs(&dir).iter().map(|name| dir.contents()[name].len()).sum();
    assert_eq!((report.batches, report.records), (12, 12));
    assert_eq!((report.log_start, report.log_end), (at(0), at(12)));
    assert_eq!(usize::try_from(report.bytes).unwrap(), bytes);
    assert_eq!(usize::try_from(report.segments).unwrap(), logs(&dir).len());
}

#[test]
fn every_flipped_byte_is_found() {
    let dir = written(7, 300);
    for (name, bytes) in dir.contents() {
        for (position, mask) in (0..bytes.len()).flat_map(|p| [(p, 1), (p, 0x80)]) {
            let dir = dir.copy();
            harm(&dir, &name, |bytes| bytes[position] ^= mask);
            let report = report(&dir);
            let context = format!("{name} {position} {mask:#x} {report:?}");
            assert!(!report.findings.is_empty(), "{context}");
            let is_told = if name.ends_with(".log") {
                !report.is_sound() || matches!(report.findings[..], [Finding::TornTail { .. }, ..])
            } else {
                // Epochs that are lost are not checked against; the rest is still all there.
                report
                    .findings
                    .iter()
                    .any(|found| matches!(found, Finding::SmallFile { file } if *file == name))
            };
            assert!(is_told, "{context}");
            let lost: i64 = report.damages().map(|d| d.to.get() - d.from.get()).sum();
            assert!(lost <= 1 && report.batches >= 6, "{context}");
        }
    }
}

#[test]
fn records_that_only_change_places_are_found_by_the_seal() {
    let dir = written(6, 300);
    let name = logs(&dir)[0].clone();
    let size = batch_bytes();
    // The records of the first batch and of the second, each behind the other's first 16 bytes.
    harm(&dir, &name, |bytes| {
        let (first, second) = bytes.split_at_mut(size);
        first[16..].swap_with_slice(&mut second[16..size]);
    });
    let report = report(&dir);
    assert_eq!(report.findings, [Finding::Altered { file: name }]);
    assert!(!report.is_sound());
}

#[test]
fn a_batch_that_was_sent_with_bad_records_is_told_and_is_no_damage() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    let mut bytes = Shape::default().bytes();
    bytes[61] = 0x7f; // the record's length
    let crc = crc32c(&bytes[21..]).to_be_bytes();
    bytes[17..21].copy_from_slice(&crc);
    log.append(vec![ProducedBatch::check(&bytes).unwrap()], 1).unwrap();
    log.close().unwrap();
    let report = report(&dir);
    assert!(matches!(report.findings[..], [Finding::Records { position: 0, .. }]), "{report:?}");
    assert!(report.is_sound());
}

#[test]
fn a_torn_tail_a_lost_segment_and_leftovers_are_told() {
    let dir = written(12, 300);
    let names = logs(&dir);
    Dir::remove(&dir, &names[1]).unwrap();
    harm(&dir, names.last().unwrap(), |bytes| bytes.extend([1; 30]));
    dir.put("notes.txt", Vec::new());
    let report = report(&dir);
    let text: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let has = |words: &str| text.iter().any(|line| line.contains(words));
    assert!(has("the segment is missing"), "{text:?}");
    assert!(has("torn tail of 30 bytes"), "{text:?}");
    assert!(has("notes.txt is left over"), "{text:?}");
    assert!(has(&names[1].replace(".log", ".seal")), "{text:?}");
}

/// A log with one batch damaged, as it is after a start that found it.
fn damaged(position: usize) -> MemoryDir {
    let dir = written(12, 300);
    let name = logs(&dir)[1].clone();
    harm(&dir, &name, |bytes| bytes[position] ^= 0x40);
    Dir::remove(&dir, &name.replace(".log", ".seal")).unwrap();
    let (log, recovery) = open_with(&dir, small_segments(300), crashed(12));
    assert_eq!(recovery.holes.len(), 1);
    log.close().unwrap();
    dir
}

#[test]
fn an_accepted_hole_stays_a_hole_and_is_no_damage() {
    let dir = damaged(70);
    let found = damage(&dir);
    let damaged_bytes = {
        let (file, bytes) = found.place.clone().unwrap();
        let range = usize::try_from(bytes.start).unwrap()..usize::try_from(bytes.end).unwrap();
        (format!("{file}.damaged-{}", bytes.start), dir.contents()[&file][range].to_vec())
    };
    repair(&dir, &found, Decision::Accept).unwrap();
    assert!(report(&dir).is_sound());
    assert!(damage(&dir).is_accepted);
    assert_eq!(dir.contents()[&damaged_bytes.0], damaged_bytes.1, "kept beside");
    let (log, recovery) = open_with(&dir, small_segments(300), crashed(12));
    assert_eq!(recovery.holes, []);
    assert_eq!(recovery.accepted_holes, [(found.from, found.to)]);
    let (bases, holes) = read_all(&log.reader(), 0);
    assert_eq!((bases.len(), holes.len()), (11, 1));
}

#[test]
fn a_cut_gives_no_offset_again() {
    for position in [0, 70] {
        let dir = damaged(position);
        let found = damage(&dir);
        let before: usize = dir.contents().values().map(Vec::len).sum();
        repair(&dir, &found, Decision::CutFrom).unwrap();
        let after: usize = dir.contents().values().map(Vec::len).sum();
        assert!(after + 2000 > before, "nothing is thrown away");
        assert!(report(&dir).is_sound(), "{:?}", report(&dir));
        let (mut log, recovery) = open_with(&dir, small_segments(300), crashed(0));
        assert_eq!(recovery.holes, []);
        let (bases, _) = read_all(&log.reader(), 0);
        assert_eq!(bases, (0..found.from.get()).collect::<Vec<_>>());
        assert_eq!(put(&mut log, &Shape::default()), 12);
        log.close().unwrap();
        assert_eq!(read_all(&open_with(&dir, small_segments(300), clean()).0.reader(), 12).0, [12]);
    }
}

#[test]
fn a_backup_fills_a_hole() {
    let backup = written(12, 300);
    let whole = backup.contents();
    let lost_segment = written(12, 300);
    Dir::remove(&lost_segment, &logs(&lost_segment)[1]).unwrap();
    for dir in [damaged(0), damaged(70), damaged(9), lost_segment] {
        repair(&dir, &damage(&dir), Decision::Take(&backup)).unwrap();
        assert!(report(&dir).is_sound());
        let logs_of = |contents: BTreeMap<String, Vec<u8>>| -> Vec<u8> {
            let logs = contents.into_iter().filter(|(name, _)| name.ends_with(".log"));
            logs.flat_map(|(_, bytes)| bytes).collect()
        };
        assert_eq!(logs_of(dir.contents()), logs_of(whole.clone()), "byte for byte");
        let (log, recovery) = open_with(&dir, small_segments(300), crashed(12));
        assert!(recovery.holes.is_empty() && recovery.accepted_holes.is_empty());
        assert_eq!(read_all(&log.reader(), 0).0.len(), 12);
    }
}

#[test]
fn a_backup_without_the_records_changes_nothing() {
    let dir = damaged(70);
    let found = damage(&dir);
    let before = dir.contents();
    let older = written(i64::from(u8::try_from(found.from.get()).unwrap()), 300);
    let refused = repair(&dir, &found, Decision::Take(&older));
    assert!(matches!(refused, Err(RepairError::NotInBackup(at)) if at == found.from));
    let refused = repair(&dir, &found, Decision::Take(&dir.copy()));
    assert!(matches!(refused, Err(RepairError::NotInBackup(_))), "it has the same damage");
    assert_eq!(dir.contents(), before);
    let healthy = written(12, 300);
    let refused = repair(&healthy, &found, Decision::Accept);
    assert!(matches!(refused, Err(RepairError::NoDamage(_))));
}

#[test]
fn a_repair_that_fails_at_any_call_can_be_made_again() {
    let backup = written(12, 300);
    for decision in [Decision::Accept, Decision::CutFrom, Decision::Take(&backup)] {
        for call in 0.. {
            let dir = damaged(70);
            let found = damage(&dir);
            let disk = faulty(&dir);
            disk.fail_at(call, Fault::Error(ErrorKind::StorageFull));
            if repair(&disk, &found, decision).is_ok() {
                assert!(call > 3, "{call} calls");
                break;
            }
            let context = format!("{decision:?}, call {call}");
            let (log, _) = open_with(&dir, small_segments(300), crashed(12));
            let (bases, _) = read_all(&log.reader(), 0);
            let is_cut = matches!(decision, Decision::CutFrom);
            assert!(is_cut || bases.len() >= 11, "{context}: {bases:?}");
            assert_eq!(log.log_end(), at(12), "{context}");
            log.close().unwrap();
            let again = report(&dir);
            if let Some(left) = again.damages().find(|damage| !damage.is_accepted) {
                repair(&dir, left, decision).unwrap_or_else(|error| panic!("{context}: {error}"));
            }
            assert!(report(&dir).is_sound(), "{context}");
        }
    }
}

/// Opens a log whose process was killed while the machine went on.
fn killed(dir: &MemoryDir, options: Options) -> (Log, Recovery) {
    let last_stop = LastStop { leader_epoch: EPOCH + 1, ..crashed(0) };
    Log::open_after(Arc::new(dir.clone()), options, last_stop, Outage::Process).unwrap()
}

#[test]
fn after_a_kill_no_flipped_byte_is_taken_for_a_torn_tail() {
    for records in [1, 7] {
        let dir = MemoryDir::new();
        let (mut log, _) = open_with(&dir, small_segments(1 << 20), crashed(0));
        for _ in 0..3 {
            put(&mut log, &Shape { records, ..Shape::default() });
        }
        let end = log.log_end().get();
        drop(log);
        let name = logs(&dir)[0].clone();
        for position in 0..dir.contents()[&name].len() {
            for mask in [1, 0x80, 0xff] {
                let dir = dir.copy();
                harm(&dir, &name, |bytes| bytes[position] ^= mask);
                let (mut log, recovery) = killed(&dir, Options::default());
                let context = format!("{records} {position} {mask:#x} {recovery:?}");
                assert!(recovery.torn_tail.is_none(), "{context}");
                assert_eq!(recovery.holes.len(), 1, "{context}");
                assert!(read_all(&log.reader(), 0).0.len() == 2, "{context}");
                let next = put(&mut log, &Shape::default());
                assert!(next >= end && next < end + 4096 * 1000, "{context}: {next}");
            }
        }
    }
}

#[test]
fn after_a_kill_the_beginning_of_a_write_is_a_torn_tail() {
    let dir = written(3, 1 << 20);
    let name = logs(&dir)[0].clone();
    let whole = dir.contents()[&name].clone();
    for cut in 1..batch_bytes() {
        let dir = dir.copy();
        dir.put(&name, whole[..whole.len() - cut].to_vec());
        let (mut log, recovery) = killed(&dir, Options::default());
        let left = batch_bytes() - cut;
        let torn = recovery.torn_tail.map(|torn| torn.bytes);
        assert_eq!(torn, Some(u64::try_from(left).unwrap()), "{cut}");
        assert_eq!(recovery.holes, [], "{cut}");
        assert_eq!(put(&mut log, &Shape::default()), 2, "{cut}");
    }
}

#[test]
fn a_damaged_tail_above_a_floor_within_its_batch_gives_no_offset_again() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    put(&mut log, &Shape { records: 10, ..Shape::default() });
    drop(log);
    let name = logs(&dir)[0].clone();
    harm(&dir, &name, |bytes| bytes[70] ^= 1);
    let (mut log, recovery) = open_with(&dir, Options::default(), crashed(4));
    assert_eq!(recovery.holes, [(at(0), at(10))]);
    assert_eq!(put(&mut log, &Shape::default()), 10);
}

#[test]
fn segments_lost_at_the_beginning_or_the_end_are_told() {
    let dir = written(12, 300);
    let names = logs(&dir);
    Dir::remove(&dir, &names[0]).unwrap();
    Dir::remove(&dir, names.last().unwrap()).unwrap();
    assert_eq!(report(&dir).damages().count(), 1, "the end is known by the seal alone");
    let (mut log, recovery) = open_with(&dir, small_segments(300), crashed(0));
    let last: i64 = names.last().unwrap().trim_end_matches(".log").parse().unwrap();
    let second: i64 = names[1].trim_end_matches(".log").parse().unwrap();
    assert_eq!(recovery.holes, [(at(0), at(second)), (at(last), at(12))]);
    assert_eq!(log.reader().log_start(), at(0));
    let (bases, holes) = read_all(&log.reader(), 0);
    assert_eq!(holes, [(0, Some(second)), (last, Some(12))]);
    assert_eq!(bases, (second..last).collect::<Vec<_>>());
    assert_eq!(put(&mut log, &Shape::default()), 12);
}

#[test]
fn what_retention_deleted_is_not_missed() {
    for is_full in [false, true] {
        let dir = written(12, 300);
        let disk = faulty(&dir);
        let options = Options { retention_bytes: Some(0), ..small_segments(300) };
        let (mut log, _) = Log::open(Arc::new(disk.clone()), options, clean()).unwrap();
        disk.set_full(is_full);
        // Deletes all but the last, even where its own note finds no space.
        let deleted = log.apply_retention(9000, at(12));
        disk.set_full(false);
        assert_eq!(deleted.is_ok(), !is_full, "{deleted:?}");
        assert_eq!(logs(&dir).len(), 1);
        let start = log.reader().log_start();
        assert!(start > at(0));
        if is_full {
            assert!(log.apply_retention(9000, at(12)).is_ok(), "noted with the next round");
        }
        drop(log);
        let (log, recovery) = open_with(&dir, small_segments(300), crashed(12));
        assert_eq!(recovery.holes, []);
        assert_eq!(log.reader().log_start(), start);
        assert!(report(&dir).is_sound());
    }
}

#[test]
fn cut_bytes_are_kept_and_not_too_many_of_them() {
    let dir = written(2, 1 << 20);
    let name = logs(&dir)[0].clone();
    for round in 0..20_u8 {
        harm(&dir, &name, |bytes| bytes.extend([round; 10]));
        let (log, recovery) = open_with(&dir, Options::default(), crashed(0));
        let kept = recovery.torn_tail.unwrap().kept.unwrap();
        let kept = kept.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            dir.contents()[&kept],
            [round; 10],
            "also at a place where some were cut before"
        );
        drop(log);
        let cuts = dir.contents().keys().filter(|name| name.contains(".cut-")).count();
        assert_eq!(cuts, 8.min(usize::from(round) + 1));
    }
    assert!(report(&dir).findings.is_empty());
}
