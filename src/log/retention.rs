//! Which segments may go. Pure: facts in, a number out.

use super::Options;

/// What retention knows of one sealed segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentFacts {
    /// Offset after its last record.
    pub(super) end: i64,
    /// Bytes of its file.
    pub(super) bytes: u64,
    /// When the broker last appended to it.
    pub(super) last_append_ms: i64,
}

/// What must be kept whatever its age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) now_ms: i64,
    /// No segment with a record at or above this goes.
    pub(super) keep_from: i64,
    /// Segments wholly below this go without regard to the options.
    pub(super) log_start: i64,
    /// Bytes of the active segment, which never goes.
    pub(super) active_bytes: u64,
}

/// How many of the oldest segments may go. `sealed` is in order of offsets.
pub(super) fn deletable(sealed: &[SegmentFacts], options: &Options, bounds: &Bounds) -> usize {
    let mut total = sealed.iter().fold(bounds.active_bytes, |sum, s| sum.saturating_add(s.bytes));
    let mut count = 0;
    for segment in sealed {
        let is_free = segment.end <= bounds.keep_from;
        let left = total.saturating_sub(segment.bytes);
        // As Kafka: a segment goes only if the rest still fills the size that is to be kept.
        let is_surplus = options.retention_bytes.is_some_and(|kept| left >= kept);
        let is_below_start = segment.end <= bounds.log_start;
        if !is_free || !(is_below_start || is_surplus || is_old(segment, options, bounds.now_ms)) {
            break;
        }
        total = left;
        count += 1;
    }
    count
}

/// Whether a segment is older than the options keep it.
pub(super) fn is_old(segment: &SegmentFacts, options: &Options, now_ms: i64) -> bool {
    options.retention_ms.is_some_and(|kept| now_ms.saturating_sub(segment.last_append_ms) > kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: [SegmentFacts; 3] = [
        SegmentFacts { end: 10, bytes: 100, last_append_ms: 1000 },
        SegmentFacts { end: 20, bytes: 100, last_append_ms: 2000 },
        SegmentFacts { end: 30, bytes: 100, last_append_ms: 3000 },
    ];

    #[track_caller]
    fn check(ms: Option<i64>, bytes: Option<u64>, bounds: Bounds, expected: usize) {
        let options = Options { retention_ms: ms, retention_bytes: bytes, ..Options::default() };
        assert_eq!(deletable(&TEN, &options, &bounds), expected, "{ms:?} {bytes:?} {bounds:?}");
    }

    #[test]
    fn segments_go_by_age_and_size_but_never_what_must_be_kept() {
        let all = Bounds { now_ms: 3500, keep_from: 100, log_start: 0, active_bytes: 50 };
        check(None, None, all, 0);
        check(Some(1000), None, all, 2);
        check(Some(0), None, all, 3);
        check(Some(0), None, Bounds { keep_from: 20, ..all }, 2);
        check(Some(0), None, Bounds { keep_from: 19, ..all }, 1);
        check(None, Some(250), all, 1);
        check(None, Some(251), all, 0);
        check(None, Some(0), all, 3);
        check(None, None, Bounds { log_start: 20, ..all }, 2);
        check(None, None, Bounds { log_start: 20, keep_from: 10, ..all }, 1);
        check(Some(1000), None, Bounds { now_ms: 0, ..all }, 0);
    }
}
