//! A dead letter and its form on the topic.
//!
//! Key and value are the record's. Our headers come first and end with [`ORIGINAL_HEADERS_HEADER`];
//! the record's own follow as they were, whatever their names. So a letter gives its record back
//! byte for byte.
//!
//! Invariant: a record of the topic counts as the letter of its source only if its bytes are those
//! of the source: whoever else can write there cannot keep a real letter from being written.

use crate::{
    feed::{FeedRecord, OutboundRecord},
    position::{Offset, Partition, RecordPosition, TopicName},
    store::letter::{LetterState, StoredLetter},
    task::{
        event::{EVENT_ID_HEADER, EventId},
        transition::Reason,
    },
};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

/// Why: [`Reason::as_str`].
pub const REASON_HEADER: &str = "taskwire-reason";
/// One clause that names the field or the cause.
pub const DETAIL_HEADER: &str = "taskwire-detail";
/// Where the record came from.
pub const SOURCE_TOPIC_HEADER: &str = "taskwire-source-topic";
/// Where the record came from.
pub const SOURCE_PARTITION_HEADER: &str = "taskwire-source-partition";
/// Where the record came from; the first of a range.
pub const SOURCE_OFFSET_HEADER: &str = "taskwire-source-offset";
/// Of a range that cannot be read: the first offset after it.
pub const SOURCE_END_HEADER: &str = "taskwire-source-end";
/// The record's timestamp, ms since 1970.
pub const SOURCE_TIMESTAMP_HEADER: &str = "taskwire-source-timestamp";
/// Set where the dead-letter topic did not take the record's bytes: read them at the source.
pub const OMITTED_HEADER: &str = "taskwire-omitted-bytes";
/// The last of our headers: how many of the record's follow.
pub const ORIGINAL_HEADERS_HEADER: &str = "taskwire-original-headers";

/// Headers of a record.
pub type Headers = Vec<(Bytes, Option<Bytes>)>;

/// A record that could not be applied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Letter {
    /// Where it came from.
    pub source: RecordPosition,
    /// The first offset after, of a range that cannot be read.
    pub end: Option<Offset>,
    /// Why.
    pub reason: Reason,
    /// One clause that names the field or the cause.
    pub detail: String,
    /// The event's own id.
    pub event_id: Option<EventId>,
    /// The record's timestamp; `None` where no record was read.
    pub timestamp_ms: Option<i64>,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value, or a raw batch.
    pub value: Option<Bytes>,
    /// The record's headers.
    pub headers: Headers,
    /// The topic did not take key, value and headers: how long the value was.
    pub omitted_bytes: Option<u64>,
}

/// What tells two letters of one source apart.
pub(super) type LetterDigest = [u8; 16];

impl Letter {
    /// A letter with the original bytes of `record`.
    pub(super) fn of_record(
        source: &RecordPosition,
        record: &FeedRecord,
        event_id: Option<&EventId>,
        why: (Reason, &str),
    ) -> Self {
        Self {
            event_id: event_id.cloned(),
            timestamp_ms: Some(record.timestamp_ms),
            key: record.key.clone(),
            headers: record.headers.clone(),
            ..Self::unreadable(source, record.value.clone(), why)
        }
    }

    /// A letter of what cannot be read as a record: `value` is what is there instead.
    pub(super) fn unreadable(
        source: &RecordPosition,
        value: Option<Bytes>,
        (reason, detail): (Reason, &str),
    ) -> Self {
        Self {
            source: source.clone(),
            end: None,
            reason,
            detail: detail.to_owned(),
            event_id: None,
            timestamp_ms: None,
            key: None,
            value,
            headers: Vec::new(),
            omitted_bytes: None,
        }
    }

    /// Whether a record with our headers and these would have more than a record may have.
    pub(super) fn has_too_many_headers(&self) -> bool {
        self.headers.len() > HEADERS_MAX - OUR_HEADERS_MAX
    }

    /// The letter without the record's bytes, for a topic that does not take them.
    pub(super) fn bare(&self) -> Self {
        let (key, value, headers) = (None, None, Vec::new());
        let omitted_bytes = Some(self.value_bytes());
        Self { key, value, headers, omitted_bytes, ..self.clone() }
    }

    fn value_bytes(&self) -> u64 {
        let bytes = self.value.as_ref().map_or(0, Bytes::len);
        self.omitted_bytes.unwrap_or(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Bytes of the record: key, value and headers.
    pub(super) fn record_bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + length(value));
        length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }

    /// The id under which the record is sent again: the event's own, or its place where it has none
    /// or where that id belongs to another event.
    pub fn redrive_id(&self) -> EventId {
        let own = self.event_id.clone().filter(|_| self.reason != Reason::EventIdReused);
        own.unwrap_or_else(|| {
            EventId::new(&self.source.to_string()).expect("a place has fewer than 512 bytes")
        })
    }

    /// What the store keeps of it.
    pub(super) fn to_stored(&self, at_ms: i64) -> StoredLetter {
        StoredLetter {
            state: LetterState::Open,
            reason: self.reason,
            detail: self.detail.clone(),
            event_id: self.event_id.clone(),
            source: self.source.clone(),
            end: self.end,
            at_ms,
            value_bytes: self.value_bytes(),
        }
    }

    /// The letter as a record of `topic`.
    pub(super) fn to_record(&self, topic: &TopicName) -> OutboundRecord {
        let mut headers = Headers::with_capacity(OUR_HEADERS_MAX + self.headers.len());
        let mut put = |name: &'static str, value: String| {
            headers.push((Bytes::from_static(name.as_bytes()), Some(value.into())));
        };
        put(REASON_HEADER, self.reason.to_string());
        put(DETAIL_HEADER, self.detail.clone());
        put(SOURCE_TOPIC_HEADER, self.source.topic.to_string());
        put(SOURCE_PARTITION_HEADER, self.source.partition.to_string());
        put(SOURCE_OFFSET_HEADER, self.source.offset.to_string());
        if let Some(end) = self.end {
            put(SOURCE_END_HEADER, end.to_string());
        }
        if let Some(timestamp_ms) = self.timestamp_ms {
            put(SOURCE_TIMESTAMP_HEADER, timestamp_ms.to_string());
        }
        let event_id = self.event_id.as_ref().map(|id| id.as_str().to_owned());
        put(EVENT_ID_HEADER, event_id.unwrap_or_else(|| self.source.to_string()));
        if let Some(bytes) = self.omitted_bytes {
            put(OMITTED_HEADER, bytes.to_string());
        }
        put(ORIGINAL_HEADERS_HEADER, self.headers.len().to_string());
        headers.extend(self.headers.iter().cloned());
        let (key, value) = (self.key.clone(), self.value.clone());
        OutboundRecord {
            topic: topic.clone(),
            partition: None,
            timestamp_ms: None,
            key,
            value,
            headers,
        }
    }

    /// The letter in a record of the dead-letter topic; `None` for a record that is none.
    pub fn parse(record: &FeedRecord) -> Option<Self> {
        let is_last = |(name, _): &&(Bytes, _)| *name == ORIGINAL_HEADERS_HEADER.as_bytes();
        let ours = record.headers.iter().take_while(|header| !is_last(header)).count();
        let (ours, originals) = record.headers.split_at(ours);
        let (last, headers) = originals.split_first()?;
        if text(last)?.parse() != Ok(headers.len()) {
            return None;
        }
        let header = |name: &str| ours.iter().find(|(known, _)| known == name.as_bytes());
        let number = |name: &str| text(header(name)?)?.parse().ok();
        let source = RecordPosition {
            topic: TopicName::new(text(header(SOURCE_TOPIC_HEADER)?)?)?,
            partition: Partition::new(text(header(SOURCE_PARTITION_HEADER)?)?.parse().ok()?)?,
            offset: Offset::new(number(SOURCE_OFFSET_HEADER)?)?,
        };
        let event_id = text(header(EVENT_ID_HEADER)?)?;
        Some(Self {
            event_id: EventId::new(event_id).filter(|_| event_id != source.to_string()),
            end: number(SOURCE_END_HEADER).and_then(Offset::new),
            reason: Reason::parse(text(header(REASON_HEADER)?)?)?,
            detail: header(DETAIL_HEADER).and_then(text).unwrap_or_default().to_owned(),
            timestamp_ms: number(SOURCE_TIMESTAMP_HEADER),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: headers.to_vec(),
            omitted_bytes: number(OMITTED_HEADER).and_then(|bytes| u64::try_from(bytes).ok()),
            source,
        })
    }

    /// Everything but the detail, whose words may change from one version to the next.
    pub(super) fn digest(&self) -> LetterDigest {
        let mut form = Form(Context::new(&SHA256));
        form.number(self.source.offset.get());
        form.number(i64::from(self.source.partition.get()));
        form.bytes(Some(self.source.topic.as_str().as_bytes()));
        form.bytes(Some(self.reason.as_str().as_bytes()));
        form.bytes(self.event_id.as_ref().map(|id| id.as_str().as_bytes()));
        form.optional(self.end.map(Offset::get));
        form.optional(self.timestamp_ms);
        form.optional(self.omitted_bytes.map(u64::cast_signed));
        form.bytes(self.key.as_deref());
        form.bytes(self.value.as_deref());
        for (name, value) in &self.headers {
            form.bytes(Some(name));
            form.bytes(value.as_deref());
        }
        *form.0.finish().as_ref().first_chunk().expect("SHA-256 has 32 bytes")
    }
}

/// Headers that a record has at most (`wire::record`).
const HEADERS_MAX: usize = 10_000;
/// Headers that a letter has of ours at most.
const OUR_HEADERS_MAX: usize = 10;

fn text((_, value): &(Bytes, Option<Bytes>)) -> Option<&str> {
    std::str::from_utf8(value.as_deref()?).ok()
}

/// Feeds a digest so that no two letters give it the same bytes.
struct Form(Context);

impl Form {
    fn number(&mut self, number: i64) {
        self.0.update(&number.to_le_bytes());
    }

    fn optional(&mut self, number: Option<i64>) {
        self.0.update(&[u8::from(number.is_some())]);
        self.number(number.unwrap_or(0));
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        self.optional(bytes.map(|bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX)));
        self.0.update(bytes.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, option, prelude::*};

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..9).prop_map(Bytes::from)
    }

    fn names() -> impl Strategy<Value = Bytes> {
        const OURS: &[&str] = &[REASON_HEADER, EVENT_ID_HEADER, ORIGINAL_HEADERS_HEADER];
        prop_oneof![
            bytes(),
            proptest::sample::select(OURS).prop_map(|name| Bytes::from_static(name.as_bytes()))
        ]
    }

    prop_compose! {
        fn letters()(
            key in option::of(bytes()),
            value in option::of(bytes()),
            headers in vec((names(), option::of(bytes())), 0..4),
            timestamp_ms in any::<i64>(),
            event_id in option::of("[a-z]{1,9}"),
        ) -> Letter {
            let source = RecordPosition {
                topic: TopicName::new("t").unwrap(),
                partition: Partition::ZERO,
                offset: Offset::new(7).unwrap(),
            };
            let record = FeedRecord { offset: source.offset, timestamp_ms, key, value, headers };
            let event_id = event_id.and_then(|id| EventId::new(&id));
            let why = (Reason::InvalidJson, "why");
            Letter::of_record(&source, &record, event_id.as_ref(), why)
        }
    }

    fn found(letter: &Letter) -> Option<Letter> {
        let topic = TopicName::new("t.dlq").unwrap();
        let OutboundRecord { key, value, headers, .. } = letter.to_record(&topic);
        let offset = Offset::ZERO;
        Letter::parse(&FeedRecord { offset, timestamp_ms: 1, key, value, headers })
    }

    proptest! {
        #[test]
        fn a_letter_gives_its_record_back_byte_for_byte(letter in letters()) {
            prop_assert_eq!(found(&letter), Some(letter.clone()));
            prop_assert_eq!(found(&letter.bare()), Some(letter.bare()));
            prop_assert_eq!(found(&letter).unwrap().digest(), letter.digest());
        }

        #[test]
        fn no_headers_panic(headers in vec((names(), option::of(bytes())), 0..9)) {
            let offset = Offset::ZERO;
            let record = FeedRecord { offset, timestamp_ms: 1, key: None, value: None, headers };
            let _ = Letter::parse(&record);
        }

        #[test]
        fn any_other_byte_is_another_letter(letter in letters(), value in option::of(bytes())) {
            let other = Letter { value, ..letter.clone() };
            prop_assert_eq!(letter == other, letter.digest() == other.digest());
        }
    }

    #[test]
    fn a_reused_event_id_is_not_sent_again() {
        let source = RecordPosition {
            topic: TopicName::new("t").unwrap(),
            partition: Partition::ZERO,
            offset: Offset::ZERO,
        };
        let mut letter = Letter::unreadable(&source, None, (Reason::TaskConflict, ""));
        assert_eq!(letter.redrive_id().as_str(), "t/0/0");
        letter.event_id = EventId::new("e");
        assert_eq!(letter.redrive_id().as_str(), "e");
        letter.reason = Reason::EventIdReused;
        assert_eq!(letter.redrive_id().as_str(), "t/0/0");
    }
}
