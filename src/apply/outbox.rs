//! Publishes each dead letter once.
//!
//! A letter is published durably before the commit that passes its record. The store keeps how far
//! the dead-letter topic was read or written at each commit; what lies beyond is read at start, and
//! a record whose very letter is there gets no second one.

use super::{
    back_off::BackOff,
    letter::{Letter, LetterDigest},
};
use crate::{
    feed::{EventLog, FeedError, FeedItem, FeedRecord},
    position::{Offset, Partition, RecordPosition, TopicName, TopicPartition},
    shutdown::Shutdown,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use tracing::{info, warn};

/// Letters found beyond the store's mark that are remembered; of more, some may come twice.
const KNOWN_MAX: usize = 1_000_000;
const READ_BYTES_MAX: usize = 256 * 1024;

/// Publishes letters and knows which are there already.
pub(super) struct Outbox {
    feed: Arc<dyn EventLog>,
    /// The applied topic.
    source: TopicName,
    topic: TopicName,
    shutdown: Shutdown,
    /// Letters that are published, and whose record no commit has passed. Several may say that they
    /// are of one source, where others can write to the topic.
    known: HashMap<RecordPosition, Vec<Known>>,
    /// The places of [`Outbox::known`], but for those that the next commit passes.
    unsettled: BTreeSet<(Partition, Offset)>,
    /// As far as each partition of the topic is known.
    ends: BTreeMap<Partition, Offset>,
    /// At start, the log ends of the applied topic: no letter found then is of a later record.
    source_ends: BTreeMap<Partition, Offset>,
    /// Published since the topic was synced last, or unknown.
    is_unsynced: bool,
}

struct Known {
    digest: LetterDigest,
    place: (Partition, Offset),
    /// Without the record's bytes.
    is_bare: bool,
}

impl Known {
    /// Whether it is this very letter.
    fn is(&self, letter: &Letter) -> bool {
        self.digest == if self.is_bare { letter.bare().digest() } else { letter.digest() }
    }
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
        let (source_ends, is_unsynced) = (BTreeMap::new(), true);
        Self { feed, source, topic, shutdown, known, unsettled, ends, source_ends, is_unsynced }
    }

    /// Whether this very letter is there, and no commit has passed its record.
    pub(super) fn has(&self, letter: &Letter) -> bool {
        self.place_of(letter).is_some()
    }

    /// The sources of the letters that no commit has passed.
    pub(super) fn known(&self) -> impl Iterator<Item = &RecordPosition> {
        self.known.keys()
    }

    /// Where it is.
    pub(super) fn place_of(&self, letter: &Letter) -> Option<RecordPosition> {
        let known = self.known.get(&letter.source)?;
        let (partition, offset) = known.iter().find(|known| known.is(letter))?.place;
        Some(RecordPosition { topic: self.topic.clone(), partition, offset })
    }

    /// Where the topic's partitions start; one that cannot be asked now is left out.
    pub(super) async fn log_starts(&self) -> Vec<(TopicPartition, Offset)> {
        let mut starts = Vec::new();
        let count = self.feed.partition_count(&self.topic);
        for partition in (0..count).filter_map(partition_of) {
            if let Ok((start, _)) = self.feed.bounds(&self.topic, partition).await {
                starts.push((TopicPartition { topic: self.topic.clone(), partition }, start));
            }
        }
        starts
    }

    /// The first look at the topic; `source_ends` are the log ends of the applied topic.
    pub(super) async fn find(
        &mut self,
        source_ends: BTreeMap<Partition, Offset>,
    ) -> Result<(), FeedError> {
        self.source_ends = source_ends;
        self.scan().await
    }

    /// Reads what is in the topic beyond what is known of it.
    async fn scan(&mut self) -> Result<(), FeedError> {
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
        let Some(letter) = Letter::parse(record) else { return };
        let end = self.source_ends.get(&letter.source.partition);
        let is_plausible = end.is_none_or(|end| letter.source.offset < *end);
        if letter.source.topic == self.source && is_plausible && self.unsettled.len() < KNOWN_MAX {
            self.note(&letter, (partition, record.offset));
        }
    }

    fn note(&mut self, letter: &Letter, place: (Partition, Offset)) {
        let is_bare = letter.omitted_bytes.is_some();
        let known = Known { digest: letter.digest(), place, is_bare };
        // A look that failed half way is taken again.
        if self.unsettled.insert(place) {
            self.known.entry(letter.source.clone()).or_default().push(known);
        }
    }

    /// Publishes the letters that are not there yet, durably. Tries again for ever, until the
    /// daemon stops.
    pub(super) async fn publish(&mut self, letters: &[Letter]) -> Result<(), FeedError> {
        let mut attempt = Attempt::default();
        let mut back_off = BackOff::new();
        loop {
            let missing = |letter: &&Letter| !self.has(letter);
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
        let form = |letter: &&Letter| {
            let is_bare = attempt.is_bare || letter.has_too_many_headers();
            if is_bare { letter.bare() } else { (*letter).clone() }
        };
        let letters: Vec<Letter> = letters.iter().map(form).collect();
        let records = letters.iter().map(|letter| letter.to_record(&self.topic)).collect();
        self.is_unsynced = true;
        match self.feed.publish_all(records).await {
            Ok(places) => {
                for (letter, place) in letters.iter().zip(places) {
                    let next = place.offset.next();
                    let end = self.ends.entry(place.partition).or_insert(next);
                    *end = next.max(*end);
                    self.note(letter, (place.partition, place.offset));
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

    /// Where letters may lie that are not durable. They are synced before every commit that is
    /// durable itself: the store must not have passed a record whose letter can be lost.
    pub(super) fn unsynced(&self) -> Vec<(TopicName, Partition)> {
        let count = if self.is_unsynced { self.feed.partition_count(&self.topic) } else { 0 };
        let place = |partition| (self.topic.clone(), partition);
        (0..count).filter_map(partition_of).map(place).collect()
    }

    /// Notes that they were synced.
    pub(super) const fn synced(&mut self) {
        self.is_unsynced = false;
    }

    /// The marks for the store once a commit passes the records of `letters`.
    pub(super) fn passing(&mut self, letters: &[RecordPosition]) -> Vec<(TopicPartition, Offset)> {
        for source in letters {
            for known in self.known.get(source).into_iter().flatten() {
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
            for known in self.known.remove(source).into_iter().flatten() {
                self.unsettled.remove(&known.place);
            }
        }
    }

    /// Ends the start: says what was found.
    pub(super) fn started(&mut self) {
        self.source_ends.clear();
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

/// The partition of an index.
pub fn partition_of(index: u32) -> Option<Partition> {
    Partition::new(i32::try_from(index).ok()?)
}
