//! A copy of an open log up to its high watermark.

use super::*;
use crate::{disk::dir::Dir, log::verify};

#[test]
fn a_copy_has_all_below_the_high_watermark_and_nothing_above_it() {
    for appended in [0, 1, 2, 7, 40] {
        let (dir, copied) = (MemoryDir::new(), MemoryDir::new());
        let (mut log, _) = open_with(&dir, small_segments(400), crashed(0));
        for _ in 0..appended {
            put(&mut log, &Shape::default());
        }
        let reader = log.reader();
        let end = reader.high_watermark();
        // Not flushed: above the high watermark.
        log.append(vec![Shape::default().batch()], 5000).unwrap();
        reader.copy_below(end, &copied).unwrap();
        let (read, _) = read_all(&reader, 0);
        drop(log);

        let report = verify(&copied).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        assert_eq!(report.log_end, end);
        let (log, recovery) = open_with(&copied, small_segments(400), crashed(end.get()));
        assert!(recovery.torn_tail.is_none() && recovery.holes.is_empty(), "{recovery:?}");
        assert_eq!(log.reader().high_watermark(), end);
        assert_eq!(read_all(&log.reader(), 0).0, read);
    }
}

#[test]
fn a_batch_larger_than_a_chunk_is_copied_whole() {
    let (dir, copied) = (MemoryDir::new(), MemoryDir::new());
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    put(&mut log, &Shape::default());
    put(&mut log, &Shape { value_bytes: 3 << 20, ..Shape::default() });
    put(&mut log, &Shape::default());
    let reader = log.reader();
    reader.copy_below(reader.high_watermark(), &copied).unwrap();
    assert_eq!(verify(&copied).unwrap().log_end, reader.high_watermark());
}

#[test]
fn damage_in_the_open_segment_is_told_and_not_copied() {
    let (dir, copied) = (MemoryDir::new(), MemoryDir::new());
    let (mut log, _) = open_with(&dir, Options::default(), crashed(0));
    for _ in 0..3 {
        put(&mut log, &Shape::default());
    }
    let file = dir.open("00000000000000000000.log").unwrap();
    file.write_all_at(&[&[0xff; 4]], 4).unwrap();
    let reader = log.reader();
    let error = reader.copy_below(reader.high_watermark(), &copied).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
}
