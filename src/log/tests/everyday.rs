//! Append, read, roll, retention, reopen.

use super::*;
use crate::disk::dir::Dir;
use proptest::prelude::*;

/// One step of the property test.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(usize, usize)>),
    Flush,
    CleanReopen,
    Kill,
    PowerCut,
}

fn step() -> impl Strategy<Value = Step> {
    let group = prop::collection::vec((1_usize..5, 0_usize..3000), 1..4);
    prop_oneof![
        5 => group.prop_map(Step::Append),
        3 => Just(Step::Flush),
        1 => Just(Step::CleanReopen),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
    ]
}

/// The model: base offset, end and bytes of each batch.
type Model = Vec<(i64, i64, Vec<u8>)>;

fn check_against(model: &Model, high: i64, reader: &LogReader) {
    assert_eq!(reader.high_watermark().get(), high);
    for from in 0..high {
        let (base, end, bytes) =
            model.iter().find(|(_, end, _)| from < *end).expect("in the model");
        for bytes_max in [0, 5000] {
            let read = reader.read(at(from), bytes_max).expect("sound");
            let chunk = read.chunks.concat();
            assert_eq!(&chunk[8..12], &bytes[8..12]);
            assert_eq!(&chunk[16..bytes.len()], &bytes[16..], "batch {base}..{end}");
            let headers = headers(&read);
            assert_eq!(headers[0].base_offset, *base);
            assert_eq!(headers[0].leader_epoch, EPOCH);
            assert!(headers.last().unwrap().last_offset() < high);
            assert!(bytes_max > 0 || headers.len() == 1);
            if let Some(tail) = reader.read_tail(at(from), bytes_max) {
                assert!(tail.chunks.concat().starts_with(&chunk[..bytes.len()]));
                super::headers(&tail);
            }
        }
    }
    assert!(reader.read(at(high), 100).expect("empty").chunks.is_empty());
    assert!(matches!(reader.read(at(high + 1), 100), Err(ReadError::OutOfRange { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_log_is_the_batches_that_were_appended(
        steps in prop::collection::vec(step(), 1..25),
        segment_bytes in 500_u64..20_000,
        tail_bytes in prop_oneof![Just(0_usize), Just(10_000)],
    ) {
        let options = Options { segment_bytes, tail_bytes, ..Options::default() };
        let mut dir = MemoryDir::new();
        let (mut log, _) = open_with(&dir, options.clone(), crashed(0));
        let (mut model, mut high) = (Model::new(), 0);
        for step in steps {
            let is_reopened = matches!(step, Step::CleanReopen | Step::Kill | Step::PowerCut);
            match step {
                Step::Append(group) => {
                    let shapes: Vec<Shape> = group
                        .into_iter()
                        .map(|(records, value_bytes)| Shape {
                            records, value_bytes, ..Shape::default()
                        })
                        .collect();
                    let batches = shapes.iter().map(Shape::batch).collect();
                    let appended = log.append(batches, 5000).unwrap();
                    for (appended, shape) in appended.iter().zip(&shapes) {
                        let (base, end) = (appended.base_offset.get(), appended.end.get());
                        prop_assert_eq!(base, model.last().map_or(0, |(_, end, _)| *end));
                        model.push((base, end, shape.bytes()));
                    }
                }
                Step::Flush => {
                    log.flush().unwrap();
                    high = log.log_end().get();
                }
                Step::CleanReopen => {
                    log.close().unwrap();
                    let (reopened, recovery) = open_with(&dir, options.clone(), clean());
                    prop_assert!(recovery.torn_tail.is_none() && recovery.holes.is_empty());
                    log = reopened;
                }
                Step::Kill => {
                    let (reopened, recovery) = open_with(&dir, options.clone(), crashed(high));
                    prop_assert!(recovery.torn_tail.is_none() && recovery.holes.is_empty());
                    log = reopened;
                }
                Step::PowerCut => {
                    dir = dir.power_cut(crate::disk::testing::Unsynced::Dropped);
                    let (reopened, recovery) = open_with(&dir, options.clone(), crashed(high));
                    prop_assert!(recovery.holes.is_empty());
                    let end = reopened.log_end().get();
                    prop_assert!(end >= high);
                    model.retain(|(_, batch_end, _)| *batch_end <= end);
                    log = reopened;
                }
            }
            let end = model.last().map_or(0, |(_, end, _)| *end);
            if is_reopened {
                high = end; // What recovery found was synced by it.
            }
            prop_assert_eq!(log.log_end().get(), end);
            check_against(&model, high, &log.reader());
        }
    }
}

#[test]
fn nothing_above_the_high_watermark_is_read() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    let reader = log.reader();
    let watch = reader.watch_high_watermark();
    log.append(vec![Shape::default().batch()], 1).unwrap();
    assert!(reader.read(at(0), 100).unwrap().chunks.is_empty());
    assert!(reader.read_tail(at(0), 100).unwrap().chunks.is_empty());
    assert!(matches!(reader.read(at(1), 100), Err(ReadError::OutOfRange { .. })));
    assert!(!watch.has_changed().unwrap());
    log.flush().unwrap();
    assert_eq!(*watch.borrow(), at(1));
    assert_eq!(headers(&reader.read(at(0), 100).unwrap()).len(), 1);
    assert_eq!(headers(&reader.read_tail(at(0), 100).unwrap()).len(), 1);
}

#[test]
fn a_real_directory_holds_a_log() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("task-events-0");
    let open = |last_stop| {
        let dir = crate::disk::dir::RealDir::open(&path).unwrap();
        Log::open(Arc::new(dir), small_segments(100_000), last_stop).unwrap()
    };
    let (mut log, _) = open(crashed(0));
    // More slices than one system call takes.
    let group = || (0..1500).map(|_| Shape::default().batch()).collect::<Vec<_>>();
    for round in 0..3 {
        assert_eq!(log.append(group(), 1).unwrap()[1499].end.get(), (round + 1) * 1500);
        log.flush().unwrap();
    }
    log.close().unwrap();
    for last_stop in [clean(), crashed(0)] {
        let (log, recovery) = open(last_stop);
        assert!(recovery.torn_tail.is_none() && recovery.holes.is_empty());
        assert_eq!(read_all(&log.reader(), 0).0.len(), 4500);
        assert!(path.join("00000000000000001500.log").is_file());
    }
}

#[test]
fn the_tail_in_memory_is_bounded() {
    let options = Options { tail_bytes: 1000, ..Options::default() };
    let (mut log, _) = open_with(&MemoryDir::new(), options.clone(), crashed(0));
    for _ in 0..10 {
        put(&mut log, &Shape { value_bytes: 100, ..Shape::default() });
    }
    let reader = log.reader();
    let kept = |from: i64| reader.read_tail(at(from), usize::MAX).map(|read| headers(&read).len());
    assert_eq!((kept(6), kept(7), kept(10)), (None, Some(3), Some(0)));
    assert_eq!(reader.read_tail(at(7), 0).map(|read| headers(&read).len()), Some(1));
    log.set_options(Options { tail_bytes: 400, ..options });
    assert_eq!((kept(8), kept(9)), (None, Some(1)));
}

#[test]
fn two_snapshots_are_kept() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    for _ in 0..4 {
        put(&mut log, &Shape::default());
        log.store_snapshot(b"x").unwrap();
    }
    let names = dir.contents().into_keys().filter(|name| name.ends_with(".producers"));
    let expected = ["00000000000000000003.producers", "00000000000000000004.producers"];
    assert_eq!(names.collect::<Vec<_>>(), expected);
}

#[test]
fn an_unsynced_end_is_published_on_demand() {
    let dir = MemoryDir::new();
    let faulty = faulty(&dir);
    let (mut log, _) = Log::open(Arc::new(faulty.clone()), Options::default(), crashed(0)).unwrap();
    log.append(vec![Shape::default().batch()], 1).unwrap();
    let syncs = faulty.file_syncs();
    log.publish_unsynced();
    assert_eq!((log.reader().high_watermark(), faulty.file_syncs()), (at(1), syncs));
    log.flush().unwrap();
    assert_eq!(faulty.file_syncs(), syncs + 1);
    log.flush().unwrap();
    assert_eq!(faulty.file_syncs(), syncs + 1, "nothing to sync");
}

#[test]
fn a_log_that_is_gone_whole_is_a_hole_up_to_the_durable_floor() {
    let (mut log, recovery) = open_with(&MemoryDir::new(), Options::default(), crashed(40));
    assert_eq!(recovery.holes, [(at(0), at(40))]);
    assert_eq!(put(&mut log, &Shape::default()), 40);
    assert_eq!(read_all(&log.reader(), 0), (vec![40], vec![(0, Some(40))]));
}

#[test]
fn segments_roll_by_size_and_by_age() {
    let dir = MemoryDir::new();
    let options = Options { segment_bytes: 200, segment_ms: 100, ..Options::default() };
    let (mut log, _) = open_with(&dir, options, crashed(0));
    let logs = || dir.contents().keys().filter(|name| name.ends_with(".log")).count();
    for (now_ms, expected) in [(0, 1), (10, 1), (20, 2), (119, 2), (120, 3), (220, 4)] {
        log.append(vec![Shape::default().batch()], now_ms).unwrap();
        assert_eq!(logs(), expected, "at {now_ms} ms");
    }
}

#[test]
fn retention_takes_old_segments_and_their_files() {
    let dir = MemoryDir::new();
    let options = Options { segment_bytes: 100, retention_ms: Some(50), ..Options::default() };
    let (mut log, _) = open_with(&dir, options, crashed(0));
    let reader = log.reader();
    for now_ms in [0, 10, 20, 30] {
        log.append(vec![Shape::default().batch()], now_ms).unwrap();
        log.flush().unwrap();
    }
    let size = reader.size_bytes();
    assert_eq!(log.apply_retention(61, at(1)).unwrap(), 1, "the second is not to go");
    assert_eq!(reader.log_start(), at(1));
    assert!(matches!(reader.read(at(0), 100), Err(ReadError::OutOfRange { .. })));
    assert_eq!(reader.size_bytes(), size / 4 * 3);
    assert_eq!(log.apply_retention(75, at(4)).unwrap(), 2);
    assert_eq!(log.apply_retention(1000, at(4)).unwrap(), 1, "the active one was rolled");
    assert_eq!(reader.log_start(), at(4));
    assert_eq!(dir.contents().keys().filter(|name| name.ends_with(".log")).count(), 1);
    assert!(!dir.contents().keys().any(|name| name.ends_with(".seal")));
    assert_eq!(put(&mut log, &Shape::default()), 4);
    drop(log);
    let (log, _) = open_with(&dir, Options::default(), crashed(0));
    assert_eq!((log.reader().log_start(), log.log_end()), (at(4), at(5)));
}

#[test]
fn a_raised_log_start_stays_raised() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, small_segments(100), crashed(0));
    for _ in 0..4 {
        put(&mut log, &Shape::default());
    }
    assert_eq!(log.delete_before(at(2)).unwrap(), at(2));
    assert_eq!(log.delete_before(at(1)).unwrap(), at(2));
    assert_eq!(log.apply_retention(0, at(4)).unwrap(), 2);
    assert_eq!(log.delete_before(at(99)).unwrap(), at(4));
    drop(log);
    let (log, _) = open_with(&dir, Options::default(), crashed(0));
    assert_eq!((log.reader().log_start(), log.log_end()), (at(4), at(4)));
}

#[test]
fn segments_below_a_log_start_go_also_when_it_was_raised_before() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, small_segments(100), crashed(0));
    for _ in 0..4 {
        put(&mut log, &Shape::default());
    }
    log.delete_before(at(2)).unwrap();
    drop(log); // As a crash does it between the raised log start and the removal of files.
    let (mut log, _) = open_with(&dir, small_segments(100), crashed(0));
    assert_eq!(log.apply_retention(0, at(4)).unwrap(), 2);
    let left = dir.contents().keys().filter(|name| name.ends_with(".log")).count();
    assert_eq!((left, log.reader().log_start()), (2, at(2)));
    assert_eq!(log.apply_retention(0, at(4)).unwrap(), 0, "they are not counted again");
}

#[test]
fn a_read_that_the_disk_refused_is_told_of_until_it_lies_below_the_log_start() {
    let dir = MemoryDir::new();
    let (mut log, _) =
        open_with(&dir, Options { tail_bytes: 0, ..small_segments(100) }, crashed(0));
    for _ in 0..4 {
        put(&mut log, &Shape::default());
    }
    dir.remove("00000000000000000000.log").unwrap();
    let reader = log.reader();
    assert!(matches!(reader.read(at(0), 1), Err(ReadError::Io(_))));
    assert!(reader.refused().is_some());
    log.delete_before(at(2)).unwrap();
    assert_eq!(reader.refused(), None, "nobody reads there again");
}

#[test]
fn a_log_start_beyond_what_a_power_cut_left_takes_no_new_record_along() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    for _ in 0..4 {
        put(&mut log, &Shape::default());
    }
    assert_eq!(log.delete_before(at(4)).unwrap(), at(4));
    drop(log);
    dir.put("00000000000000000000.log", Vec::new()); // written, and never synced
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    assert_eq!(put(&mut log, &Shape::default()), 4, "no offset is given twice");
    drop(log);
    let (log, _) = open_with(&dir, Options::default(), crashed(0));
    assert_eq!(headers(&log.reader().read(at(4), 1).unwrap()).len(), 1);
}

#[test]
fn a_time_finds_the_first_record_at_or_after_it() {
    for segment_bytes in [300, 1 << 20] {
        let dir = MemoryDir::new();
        let (mut log, _) = open_with(&dir, small_segments(segment_bytes), crashed(0));
        // Records 0..40 at 1000.. in steps of 10 ms a batch of 4; the times of one batch go back.
        for i in 0..10 {
            let timestamp_ms = if i == 5 { 900 } else { 1000 + i * 10 };
            let shape = Shape { records: 4, timestamp_ms, ..Shape::default() };
            put(&mut log, &shape);
        }
        let reader = log.reader();
        let check = |timestamp_ms: i64, expected: Option<(i64, i64)>| {
            let found = reader.offset_for_time(timestamp_ms).unwrap();
            assert_eq!(found.map(|(o, t)| (o.get(), t)), expected, "{timestamp_ms}");
        };
        check(0, Some((0, 1000)));
        check(1002, Some((2, 1002)));
        check(1004, Some((4, 1010)));
        check(1043, Some((19, 1043)));
        check(1044, Some((24, 1060)));
        check(1093, Some((39, 1093)));
        check(1094, None);
        log.delete_before(at(6)).unwrap();
        check(0, Some((6, 1012)));
    }
}

#[test]
fn a_clean_start_reads_no_batch_but_those_at_the_end() {
    let dir = MemoryDir::new();
    let (mut log, _) = open_with(&dir, small_segments(10_000), crashed(0));
    for _ in 0..200 {
        put(&mut log, &Shape::default());
    }
    log.store_snapshot(b"producers").unwrap();
    log.close().unwrap();
    // Damage that a scan would find.
    let contents = dir.contents();
    let mut logs: Vec<_> = contents.iter().filter(|(name, _)| name.ends_with(".log")).collect();
    let (last, bytes) = logs.pop().expect("segments");
    let untouched = &bytes[4096..];
    assert!(untouched.len() > 1000 && !logs.is_empty(), "several, the last with two index entries");
    dir.put(last, [&[0; 4096], untouched].concat());
    for (name, bytes) in logs {
        dir.put(name, vec![0; bytes.len()]);
    }
    let (log, recovery) = open_with(&dir, small_segments(10_000), clean());
    assert_eq!(log.log_end(), at(200));
    assert!(recovery.torn_tail.is_none() && recovery.holes.is_empty());
    for (name, bytes) in contents {
        dir.put(&name, bytes);
    }
    assert_eq!(read_all(&log.reader(), 0).0.len(), 200);
}

#[test]
fn producer_state_is_the_snapshot_and_the_batches_after_it() {
    let dir = MemoryDir::new();
    let options = small_segments(400);
    let (mut log, _) = open_with(&dir, options.clone(), crashed(0));
    let idempotent = Shape { producer_id: 7, ..Shape::default() };
    for i in 0..20 {
        let plain = Shape::default();
        put(&mut log, if i % 2 == 0 { &idempotent } else { &plain });
        if i == 9 {
            assert!(log.snapshot_due());
            log.store_snapshot(b"ten").unwrap();
            assert!(!log.snapshot_due());
        }
    }
    let bases = |recovery: &Recovery| {
        recovery.active_batches.iter().map(|header| header.base_offset).collect::<Vec<_>>()
    };
    drop(log);
    let (log, recovery) = open_with(&dir, options.clone(), crashed(0));
    let snapshot = recovery.snapshot.clone().unwrap();
    assert_eq!((snapshot.offset, &snapshot.bytes[..]), (at(10), &b"ten"[..]));
    assert_eq!(bases(&recovery), [10, 12, 14, 16, 18]);
    assert!(log.snapshot_due());
    let name = dir.contents().keys().find(|name| name.ends_with(".producers")).unwrap().clone();
    let mut bytes = dir.contents()[&name].clone();
    *bytes.last_mut().unwrap() ^= 1;
    dir.put(&name, bytes);
    let (_, recovery) = open_with(&dir, options, crashed(0));
    assert_eq!(recovery.snapshot, None, "a damaged snapshot is as good as none");
    assert_eq!(bases(&recovery), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
}
