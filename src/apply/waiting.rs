//! The form in which a waiting event's record is kept: as it came.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | form, 1 |
//! | 4 + n | key: length (-1: none), bytes |
//! | 4 + n | value, likewise |
//! | 4 | headers |
//! | per header | name and value, each as the key |

use crate::{
    feed::FeedRecord,
    position::{Offset, TopicPartition},
    store::WaitingEvent,
    task::TaskId,
};
use bytes::{Buf, BufMut, Bytes};

const FORM: u8 = 1;
/// Room for the lengths of a record without headers.
const LENGTHS_BYTES: usize = 16;

/// The record of an event that begins to wait.
pub(super) fn waiting_event(
    task_id: TaskId,
    source: (TopicPartition, Offset),
    record: &FeedRecord,
    since_ms: i64,
) -> WaitingEvent {
    let timestamp_ms = record.timestamp_ms;
    WaitingEvent { task_id, source, since_ms, timestamp_ms, record: encode(record) }
}

/// The record of a waiting event; `None` if it is not as [`waiting_event`] wrote it.
pub(super) fn record_of(waiting: &WaitingEvent) -> Option<FeedRecord> {
    let mut rest = Bytes::copy_from_slice(&waiting.record);
    if rest.try_get_u8().ok()? != FORM {
        return None;
    }
    let (key, value) = (take(&mut rest)?, take(&mut rest)?);
    let count = rest.try_get_u32().ok()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        headers.push((take(&mut rest)??, take(&mut rest)?));
    }
    let (offset, timestamp_ms) = (waiting.source.1, waiting.timestamp_ms);
    rest.is_empty().then_some(FeedRecord { offset, timestamp_ms, key, value, headers })
}

fn encode(record: &FeedRecord) -> Vec<u8> {
    let value_bytes = record.value.as_ref().map_or(0, Bytes::len);
    let mut out = Vec::with_capacity(value_bytes + LENGTHS_BYTES);
    out.put_u8(FORM);
    put(&mut out, record.key.as_deref());
    put(&mut out, record.value.as_deref());
    out.put_u32(u32::try_from(record.headers.len()).expect("a record has fewer than 2^32 headers"));
    for (name, value) in &record.headers {
        put(&mut out, Some(name));
        put(&mut out, value.as_deref());
    }
    out
}

fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return out.put_i32(-1) };
    out.put_i32(i32::try_from(bytes.len()).expect("a record is smaller than 2 GiB"));
    out.put_slice(bytes);
}

/// Bytes behind their length; the outer `None` is damage.
fn take(rest: &mut Bytes) -> Option<Option<Bytes>> {
    let length = rest.try_get_i32().ok()?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    (length <= rest.len()).then(|| Some(rest.split_to(length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Partition, TopicName};
    use proptest::prelude::*;

    fn place() -> (TopicPartition, Offset) {
        let topic = TopicName::new("t").unwrap();
        (TopicPartition { topic, partition: Partition::ZERO }, Offset::ZERO)
    }

    fn optional() -> impl Strategy<Value = Option<Bytes>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from))
    }

    proptest! {
        #[test]
        fn a_record_survives_its_wait(
            key in optional(),
            value in optional(),
            headers in proptest::collection::vec(("[a-z]{0,4}", optional()), 0..4),
        ) {
            let headers = headers.into_iter().map(|(name, value)| (name.into(), value)).collect();
            let record =
                FeedRecord { offset: Offset::ZERO, timestamp_ms: 7, key, value, headers };
            let waiting = waiting_event(TaskId::new("t").unwrap(), place(), &record, 9);
            let found = record_of(&waiting).unwrap();
            prop_assert_eq!(
                (found.timestamp_ms, found.key, found.value, found.headers),
                (record.timestamp_ms, record.key, record.value, record.headers)
            );
        }

        #[test]
        fn no_bytes_panic(record in proptest::collection::vec(any::<u8>(), 0..40)) {
            let waiting = WaitingEvent {
                task_id: TaskId::new("t").unwrap(),
                source: place(),
                since_ms: 0,
                timestamp_ms: 0,
                record,
            };
            let _ = record_of(&waiting);
        }
    }
}
