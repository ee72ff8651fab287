//! What a reading of a damaged directory tells, and what a person can do about it.

use super::{
    super::{
        Damage, Decision, Finding, RepairError, Report, dir::Dir, repair, testing::Fault, verify,
    },
    *,
};
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
