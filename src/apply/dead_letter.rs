//! Dead letters: their form on the topic, and publishing each once.
//!
//! A letter is published durably before the commit that passes its record. The store keeps how far
//! the dead-letter topic was read or written at each commit; what lies beyond is read at start, and
//! a record whose letter is there gets no second one.

use super::back_off::BackOff;
use crate::{
    feed::{EventLog, FeedError, FeedItem, FeedRecord, OutboundRecord},
    position::{Offset, Partition, RecordPosition, TopicName, TopicPartition},
    shutdown::Shutdown,
    task::{
        event::{EVENT_ID_HEADER, EventId},
        transition::Reason,
    },
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use tracing::{info, warn};

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
/// Set where the dead-letter topic did not take the record's bytes: read them at the source.
pub const OMITTED_HEADER: &str = "taskwire-omitted-bytes";

const OUR_HEADERS: [&str; 8] = [
    REASON_HEADER,
    DETAIL_HEADER,
    SOURCE_TOPIC_HEADER,
    SOURCE_PARTITION_HEADER,
    SOURCE_OFFSET_HEADER,
    SOURCE_END_HEADER,
    OMITTED_HEADER,
    EVENT_ID_HEADER,
];

/// Letters found beyond the store's mark that are remembered; of more, some may come twice.
const KNOWN_MAX: usize = 1_000_000;
const READ_BYTES_MAX: usize = 256 * 1024;

/// A record that could not be applied.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where it came from.
    pub source: RecordPosition,
    /// The first offset after, of a range that cannot be read.
    pub(super) end: Option<Offset>,
    /// Why.
    pub reason: Reason,
    pub(super) detail: String,
    /// The event's own id.
    pub(super) event_id: Option<EventId>,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Letter {
    /// A letter with the original bytes of `record`.
    pub(super) fn of_record(
        source: &RecordPosition,
        record: &FeedRecord,
        event_id: Option<&EventId>,
        (reason, detail): (Reason, &str),
    ) -> Self {
        Self {
            source: source.clone(),
            end: None,
            reason,
            detail: detail.to_owned(),
            event_id: event_id.cloned(),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        }
    }

    fn to_record(&self, topic: &TopicName, is_bare: bool) -> OutboundRecord {
        let mut headers: Vec<(String, Bytes)> = Vec::with_capacity(OUR_HEADERS.len());
        let mut put = |name: &str, value: String| headers.push((name.to_owned(), value.into()));
        put(REASON_HEADER, self.reason.to_string());
        put(DETAIL_HEADER, self.detail.clone());
        put(SOURCE_TOPIC_HEADER, self.source.topic.to_string());
        put(SOURCE_PARTITION_HEADER, self.source.partition.to_string());
        put(SOURCE_OFFSET_HEADER, self.source.offset.to_string());
        if let Some(end) = self.end {
            put(SOURCE_END_HEADER, end.to_string());
        }
        let event_id = self.event_id.as_ref().map(|id| id.as_str().to_owned());
        put(EVENT_ID_HEADER, event_id.unwrap_or_else(|| self.source.to_string()));
        let (mut key, mut value) = (self.key.clone(), self.value.clone());
        if is_bare {
            let omitted = value.take().map_or(0, |value| value.len());
            put(OMITTED_HEADER, omitted.to_string());
            key = None;
        } else {
            headers.extend(self.original_headers());
        }
        OutboundRecord { topic: topic.clone(), partition: None, key, value, headers }
    }

    /// The record's headers, but for ours on a letter that was sent back to the topic.
    fn original_headers(&self) -> impl Iterator<Item = (String, Bytes)> {
        let is_ours = |name: &str| OUR_HEADERS.contains(&name);
        self.headers.iter().filter_map(move |(name, value)| {
            let name = String::from_utf8_lossy(name).into_owned();
            (!is_ours(&name)).then(|| (name, value.clone().unwrap_or_default()))
        })
    }
}

/// Publishes letters and knows which are there already.
pub(super) struct Outbox {
    feed: Arc<dyn EventLog>,
    /// The applied topic.
    source: TopicName,
    topic: TopicName,
    shutdown: Shutdown,
    /// Letters that are published, and whose record no commit has passed.
    known: HashMap<RecordPosition, Known>,
    /// The places of [`Outbox::known`], but for those that the next commit passes.
    unsettled: BTreeSet<(Partition, Offset)>,
    /// As far as each partition of the topic is known.
    ends: BTreeMap<Partition, Offset>,
}

struct Known {
    reason: Reason,
    place: (Partition, Offset),
}

impl Outbox {
    /// `ends`: what the store has noted of the topic.
    pub(super) fn new(
        feed: Arc<dyn EventLog>,
        (source, topic): (TopicName, TopicName),
        shutdown: Shutdown,
        outbound: &HashMap<TopicPartition, Offset>,
    ) -> Self {
        let of_topic = outbound.iter().filter(|(place, _)| place.topic == topic);
        let ends = of_topic.map(|(place, offset)| (place.partition, *offset)).collect();
        let (known, unsettled) = (HashMap::new(), BTreeSet::new());
        Self { feed, source, topic, shutdown, known, unsettled, ends }
    }

    /// Why the record at `source` became a letter that no commit has passed.
    pub(super) fn reason_of(&self, source: &RecordPosition) -> Option<Reason> {
        self.known.get(source).map(|known| known.reason)
    }

    /// The letters that no commit has passed.
    pub(super) fn known(&self) -> impl Iterator<Item = (&RecordPosition, Reason)> {
        self.known.iter().map(|(source, known)| (source, known.reason))
    }

    /// Reads what is in the topic beyond what is known of it.
    pub(super) async fn scan(&mut self) -> Result<(), FeedError> {
        let count = self.feed.partition_count(&self.topic);
        for partition in (0..count).filter_map(partition_of) {
            let (start, end) = self.feed.bounds(&self.topic, partition).await?;
            let known_to = self.ends.get(&partition).copied().unwrap_or(start);
            let mut next = known_to.clamp(start, end);
            while next < end {
                let read = self.feed.read(&self.topic, partition, next, READ_BYTES_MAX).await?;
                for item in read.items {
                    if let FeedItem::Record(record) = item {
                        self.note_found(partition, &record);
                    }
                }
                next = read.next;
            }
            self.ends.insert(partition, next);
        }
        Ok(())
    }

    fn note_found(&mut self, partition: Partition, record: &FeedRecord) {
        let Some((source, reason)) = source_of(record) else { return };
        if source.topic == self.source && self.known.len() < KNOWN_MAX {
            self.note(source, reason, (partition, record.offset));
        }
    }

    fn note(&mut self, source: RecordPosition, reason: Reason, place: (Partition, Offset)) {
        self.unsettled.insert(place);
        self.known.insert(source, Known { reason, place });
    }

    /// Publishes the letters that are not there yet, durably. Tries again for ever, until the
    /// daemon stops.
    pub(super) async fn publish(&mut self, letters: &[Letter]) -> Result<(), FeedError> {
        let mut attempt = Attempt::default();
        let mut back_off = BackOff::new();
        loop {
            let missing = |letter: &&Letter| !self.known.contains_key(&letter.source);
            let left: Vec<&Letter> =
                letters.iter().filter(missing).take(attempt.letters_max()).collect();
            if left.is_empty() {
                return Ok(());
            }
            let Err(error) = self.publish_once(&left, &attempt).await else {
                attempt.is_bare = false;
                continue;
            };
            if matches!(error, FeedError::TooLarge) && attempt.shrink() {
                continue;
            }
            if back_off.is_first() {
                warn!(topic = %self.topic, %error, "cannot publish dead letters, trying again");
            }
            if self.shutdown.has_begun() {
                return Err(error);
            }
            back_off.wait().await;
        }
    }

    async fn publish_once(
        &mut self,
        letters: &[&Letter],
        attempt: &Attempt,
    ) -> Result<(), FeedError> {
        let to_record = |letter: &&Letter| letter.to_record(&self.topic, attempt.is_bare);
        let records = letters.iter().map(to_record).collect();
        match self.feed.publish_all(records).await {
            Ok(places) => {
                for (letter, place) in letters.iter().zip(places) {
                    let next = place.offset.next();
                    let end = self.ends.entry(place.partition).or_insert(next);
                    *end = next.max(*end);
                    let place = (place.partition, place.offset);
                    self.note(letter.source.clone(), letter.reason, place);
                }
                Ok(())
            }
            Err(error) => {
                // Some of them may be there; without a look they would come twice.
                let found = self.scan().await;
                found.and(Err(error))
            }
        }
    }

    /// The marks for the store once a commit passes the records of `letters`.
    pub(super) fn passing(&mut self, letters: &[RecordPosition]) -> Vec<(TopicPartition, Offset)> {
        for source in letters {
            if let Some(known) = self.known.get(source) {
                self.unsettled.remove(&known.place);
            }
        }
        self.marks()
    }

    /// Up to where no letter needs to be known any more, per partition.
    pub(super) fn marks(&self) -> Vec<(TopicPartition, Offset)> {
        let mark = |(partition, end): (&Partition, &Offset)| {
            let from = (*partition, Offset::ZERO);
            let first = self.unsettled.range(from..(*partition, *end)).next();
            let offset = first.map_or(*end, |(_, offset)| *offset);
            (TopicPartition { topic: self.topic.clone(), partition: *partition }, offset)
        };
        self.ends.iter().map(mark).collect()
    }

    /// Forgets letters whose records a commit has passed.
    pub(super) fn passed(&mut self, letters: &[RecordPosition]) {
        for source in letters {
            if let Some(known) = self.known.remove(source) {
                self.unsettled.remove(&known.place);
            }
        }
    }

    /// Says what was found at start.
    pub(super) fn log_known(&self) {
        if !self.known.is_empty() {
            let letters = self.known.len();
            info!(topic = %self.topic, letters, "dead letters beyond the last checkpoint");
        }
    }
}

/// How letters are sent after the topic has found them too large.
#[derive(Default)]
struct Attempt {
    is_one_by_one: bool,
    /// Without key, value and headers of the record.
    is_bare: bool,
}

impl Attempt {
    const fn letters_max(&self) -> usize {
        if self.is_one_by_one { 1 } else { usize::MAX }
    }

    /// Sends less the next time; false if there is no less.
    const fn shrink(&mut self) -> bool {
        let could_shrink = !self.is_bare;
        self.is_bare = self.is_one_by_one;
        self.is_one_by_one = true;
        could_shrink
    }
}

/// Source and reason of a letter; `None` for a record that is none.
fn source_of(letter: &FeedRecord) -> Option<(RecordPosition, Reason)> {
    let header = |name: &str| {
        let found = letter.headers.iter().find(|(known, _)| known == name.as_bytes());
        std::str::from_utf8(found?.1.as_deref()?).ok()
    };
    let source = RecordPosition {
        topic: TopicName::new(header(SOURCE_TOPIC_HEADER)?)?,
        partition: Partition::new(header(SOURCE_PARTITION_HEADER)?.parse().ok()?)?,
        offset: Offset::new(header(SOURCE_OFFSET_HEADER)?.parse().ok()?)?,
    };
    Some((source, Reason::parse(header(REASON_HEADER)?)?))
}

/// The partition of an index.
pub fn partition_of(index: u32) -> Option<Partition> {
    Partition::new(i32::try_from(index).ok()?)
}
