//! An event log and a store in memory, with a fuse that stops both at any step, as a kill would.

use crate::{
    feed::{
        EventLog, FeedBatch, FeedError, FeedItem, FeedRecord, OutboundRecord, partition_of_key,
    },
    position::{Offset, Partition, Position, RecordPosition, TopicName, TopicPartition},
    store::{
        ChangePage, CommitDurability, DueTask, KnownEvent, LoadKeys, Loaded, NewChange, Placement,
        Processed, Store, StoreError, StoreStart, StoreStats, TaskFilter, TaskPage, WaitingEvent,
        WriteSet,
        letter::{LetterFilter, LetterPage, StoredLetter},
    },
    task::{TaskId, UserId, event::EventId, transition::TaskState},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};
use tokio::sync::{Notify, watch};

pub(super) fn topic() -> TopicName {
    TopicName::new("task-events").unwrap()
}

pub(super) fn dlq() -> TopicName {
    TopicName::new("task-events.dlq").unwrap()
}

pub(super) fn offset(raw: usize) -> Offset {
    Offset::new(i64::try_from(raw).unwrap()).unwrap()
}

/// Counts steps down; at zero whoever takes the step never comes back.
#[derive(Clone)]
pub(super) struct Fuse {
    left: Arc<AtomicI64>,
    blown: Arc<Notify>,
}

impl Fuse {
    pub(super) fn new(steps: i64) -> Self {
        Self { left: Arc::new(AtomicI64::new(steps)), blown: Arc::default() }
    }

    /// One step before and one after every effect, so that a kill hits both sides of it.
    async fn step(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
    }

    pub(super) async fn blown(&self) {
        self.blown.notified().await;
    }

    /// Blows after so many more steps.
    pub(super) fn set(&self, steps: i64) {
        self.left.store(steps, Ordering::Relaxed);
    }

    pub(super) fn mend(&self) {
        self.set(i64::MAX);
    }
}

/// Records of one read: few, so that a test has many batches.
const READ_RECORDS: usize = 3;

pub(super) struct MemoryLog {
    partitions: Mutex<BTreeMap<(TopicName, Partition), Vec<FeedItem>>>,
    changed: watch::Sender<u64>,
    counts: Mutex<HashMap<TopicName, u32>>,
    fuse: Fuse,
    /// Answers to the next publishes; an error comes after the first record was taken.
    pub(super) publish_errors: Mutex<Vec<FeedError>>,
    pub(super) log_start: AtomicI64,
    /// Of the dead-letter topic.
    pub(super) dlq_start: AtomicI64,
    /// The longest value that the applied topic takes.
    pub(super) value_bytes_max: AtomicI64,
    /// Records of each publish of several.
    pub(super) groups: Mutex<Vec<usize>>,
    pub(super) syncs: AtomicI64,
    /// Log ends up to which topics were synced; the last partition counts.
    pub(super) synced: Mutex<HashMap<TopicName, Offset>>,
    /// Processed and durable, as told last.
    pub(super) progress: Mutex<HashMap<Partition, (Offset, Offset)>>,
}

impl MemoryLog {
    pub(super) fn new(partitions: u32, fuse: Fuse) -> Arc<Self> {
        Arc::new(Self {
            partitions: Mutex::default(),
            changed: watch::Sender::new(0),
            counts: Mutex::new(HashMap::from([(topic(), partitions), (dlq(), 1)])),
            fuse,
            publish_errors: Mutex::default(),
            log_start: AtomicI64::new(0),
            dlq_start: AtomicI64::new(0),
            value_bytes_max: AtomicI64::new(i64::MAX),
            groups: Mutex::default(),
            syncs: AtomicI64::new(0),
            synced: Mutex::default(),
            progress: Mutex::default(),
        })
    }

    pub(super) fn grow(&self, partitions: u32) {
        self.counts.lock().unwrap().insert(topic(), partitions);
    }

    pub(super) fn produce(&self, partition: i32, value: Option<&str>, timestamp_ms: i64) {
        self.produce_record(partition, |offset| FeedRecord {
            offset,
            timestamp_ms,
            key: Some(Bytes::from_static(b"k")),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            headers: vec![(Bytes::from_static(b"h"), Some(Bytes::from_static(b"v")))],
        });
    }

    pub(super) fn produce_record(&self, partition: i32, record: impl Fn(Offset) -> FeedRecord) {
        let partition = Partition::new(partition).unwrap();
        self.append(&topic(), partition, |offset| FeedItem::Record(record(offset)));
    }

    /// Adds a range of one offset that cannot be read.
    pub(super) fn damage(&self, bytes: Option<&Bytes>) {
        self.append(&topic(), Partition::ZERO, |offset| FeedItem::Unreadable {
            from: offset,
            to: offset.next(),
            detail: "wrong crc".to_owned(),
            bytes: bytes.cloned(),
        });
    }

    fn append(
        &self,
        topic: &TopicName,
        partition: Partition,
        item: impl Fn(Offset) -> FeedItem,
    ) -> Offset {
        let mut partitions = self.partitions.lock().unwrap();
        let log = partitions.entry((topic.clone(), partition)).or_default();
        let offset = offset(log.len());
        log.push(item(offset));
        self.changed.send_modify(|version| *version += 1);
        offset
    }

    /// Puts another record in the place of one of the first partition.
    pub(super) fn replace(&self, topic: &TopicName, at: usize, record: OutboundRecord) {
        let OutboundRecord { key, value, headers, .. } = record;
        let record = FeedRecord { offset: offset(at), timestamp_ms: 0, key, value, headers };
        let place = (topic.clone(), Partition::ZERO);
        self.partitions.lock().unwrap().get_mut(&place).unwrap()[at] = FeedItem::Record(record);
    }

    pub(super) fn records(&self, topic: &TopicName) -> Vec<FeedRecord> {
        let partitions = self.partitions.lock().unwrap();
        let items = partitions.iter().filter(|((name, _), _)| name == topic).flat_map(|(_, l)| l);
        items
            .filter_map(|item| match item {
                FeedItem::Record(record) => Some(record.clone()),
                FeedItem::Unreadable { .. } => None,
            })
            .collect()
    }

    fn end(&self, topic: &TopicName, partition: Partition) -> Offset {
        let partitions = self.partitions.lock().unwrap();
        offset(partitions.get(&(topic.clone(), partition)).map_or(0, Vec::len))
    }

    fn start(&self, topic: &TopicName) -> Offset {
        let is_ours = *topic == self::topic();
        let start = if is_ours { &self.log_start } else { &self.dlq_start };
        Offset::new(start.load(Ordering::Relaxed)).unwrap()
    }

    fn fits(&self, record: &OutboundRecord) -> bool {
        let bytes = i64::try_from(record.value.as_ref().map_or(0, Bytes::len)).unwrap();
        record.topic != topic() || bytes <= self.value_bytes_max.load(Ordering::Relaxed)
    }

    fn take(&self, record: OutboundRecord) -> RecordPosition {
        let OutboundRecord { topic, timestamp_ms, key, value, headers, .. } = record;
        let count = self.partition_count(&topic);
        let partition = partition_of_key(key.as_deref().unwrap_or_default(), count);
        let offset = self.append(&topic, partition, |offset| {
            FeedItem::Record(FeedRecord {
                offset,
                timestamp_ms: timestamp_ms.unwrap_or(0),
                key: key.clone(),
                value: value.clone(),
                headers: headers.clone(),
            })
        });
        RecordPosition { topic, partition, offset }
    }
}

impl EventLog for MemoryLog {
    fn ensure_topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<u32, FeedError>> {
        Box::pin(async move { Ok(self.partition_count(topic)) })
    }

    fn partition_count(&self, topic: &TopicName) -> u32 {
        self.counts.lock().unwrap().get(topic).copied().unwrap_or(0)
    }

    fn publish(&self, record: OutboundRecord) -> BoxFuture<'_, Result<RecordPosition, FeedError>> {
        Box::pin(async move {
            if self.fits(&record) { Ok(self.take(record)) } else { Err(FeedError::TooLarge) }
        })
    }

    fn publish_all(
        &self,
        records: Vec<OutboundRecord>,
    ) -> BoxFuture<'_, Result<Vec<RecordPosition>, FeedError>> {
        Box::pin(async move {
            self.fuse.step().await;
            self.groups.lock().unwrap().push(records.len());
            let error = self.publish_errors.lock().unwrap().pop();
            if !records.iter().all(|record| self.fits(record)) {
                return Err(FeedError::TooLarge);
            }
            let mut records = records.into_iter();
            if let Some(error) = error {
                if !matches!(error, FeedError::TooLarge) {
                    self.take(records.next().unwrap());
                }
                return Err(error);
            }
            let places = records.map(|record| self.take(record)).collect();
            self.fuse.step().await;
            Ok(places)
        })
    }

    fn read<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
        from: Offset,
        _bytes_max: usize,
    ) -> BoxFuture<'a, Result<FeedBatch, FeedError>> {
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            loop {
                changed.mark_unchanged();
                let (start, end) = (self.start(topic), self.end(topic, partition));
                if from < start || end < from {
                    return Err(FeedError::OutOfRange { asked: from, start, end });
                }
                if from < end {
                    break;
                }
                changed.changed().await.unwrap();
            }
            let partitions = self.partitions.lock().unwrap();
            let log = &partitions[&(topic.clone(), partition)];
            let first = usize::try_from(from.get()).unwrap();
            let items: Vec<_> = log[first..].iter().take(READ_RECORDS).cloned().collect();
            let next = offset(first + items.len());
            Ok(FeedBatch { items, next, leader_epoch: 0 })
        })
    }

    fn bounds<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
    ) -> BoxFuture<'a, Result<(Offset, Offset), FeedError>> {
        Box::pin(async move { Ok((self.start(topic), self.end(topic, partition))) })
    }

    fn sync<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
    ) -> BoxFuture<'a, Result<(), FeedError>> {
        Box::pin(async move {
            self.fuse.step().await;
            self.synced.lock().unwrap().insert(topic.clone(), self.end(topic, partition));
            self.syncs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    fn report_progress(
        &self,
        _topic: &TopicName,
        partition: Partition,
        processed: Offset,
        durable: Offset,
    ) {
        self.progress.lock().unwrap().insert(partition, (processed, durable));
    }
}

/// All that a store keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) tasks: BTreeMap<TaskId, TaskState>,
    pub(super) changes: Vec<NewChange>,
    pub(super) events: BTreeMap<EventId, KnownEvent>,
    pub(super) waiting: Vec<WaitingEvent>,
    pub(super) processed: HashMap<TopicPartition, Processed>,
    pub(super) outbound: HashMap<TopicPartition, Offset>,
    pub(super) letters: BTreeMap<RecordPosition, StoredLetter>,
}

pub(super) struct MemoryStore {
    visible: Mutex<State>,
    durable: Mutex<State>,
    fuse: Fuse,
    /// So many commits find the disk full.
    pub(super) full: AtomicI64,
    /// Whether a trim forgets every event id.
    pub(super) forgets_ids: AtomicBool,
}

impl MemoryStore {
    pub(super) fn new(fuse: Fuse) -> Arc<Self> {
        let (visible, durable) = Default::default();
        Arc::new(Self {
            visible,
            durable,
            fuse,
            full: AtomicI64::new(0),
            forgets_ids: AtomicBool::new(false),
        })
    }

    pub(super) fn state(&self) -> State {
        self.visible.lock().unwrap().clone()
    }

    /// What a kill leaves: the last checkpoint.
    pub(super) fn crash(&self) {
        let durable = self.durable.lock().unwrap().clone();
        *self.visible.lock().unwrap() = durable;
    }
}

impl State {
    fn write(&mut self, writes: WriteSet) {
        for (id, user_id, state) in writes.tasks {
            assert_ne!(state, TaskState::Absent);
            if let TaskState::Present { task, .. } = &state {
                assert_eq!((&task.id, &task.user_id), (&id, &user_id));
            }
            self.tasks.insert(id, state);
        }
        self.changes.extend(writes.changes);
        for (id, known, _) in writes.events {
            self.events.insert(id, known);
        }
        self.waiting.retain(|event| !writes.waiting_taken.contains(&event.task_id));
        self.waiting.extend(writes.waiting_added);
        self.processed.extend(writes.processed);
        self.outbound.extend(writes.outbound);
        for (place, letter) in writes.letters {
            self.letters.entry(place).or_insert(letter);
        }
        for (place, state) in writes.letter_states {
            if let Some(letter) = self.letters.get_mut(&place) {
                letter.state = letter.state.then(state);
            }
        }
        if let Some(trim) = writes.letter_trim {
            self.letters.retain(|place, letter| {
                let key = (place.topic.as_str(), place.partition.get(), place.offset.get());
                !trim.takes(key, Some(letter))
            });
        }
    }

    fn waiting_bytes(&self) -> u64 {
        self.waiting.iter().map(|event| u64::try_from(event.record.len()).unwrap()).sum()
    }
}

impl Store for MemoryStore {
    fn start(&self) -> BoxFuture<'_, Result<StoreStart, StoreError>> {
        let State { processed, outbound, .. } = self.state();
        Box::pin(async move { Ok(StoreStart { processed, outbound, was_clean: false }) })
    }

    fn load<'a>(&'a self, keys: &'a LoadKeys) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        Box::pin(async move {
            self.fuse.step().await;
            let state = self.visible.lock().unwrap();
            let mut loaded = Loaded {
                waiting_total: u64::try_from(state.waiting.len()).unwrap(),
                waiting_bytes: state.waiting_bytes(),
                ..Loaded::default()
            };
            for id in &keys.tasks {
                if let Some(known) = state.tasks.get(id) {
                    loaded.tasks.insert(id.clone(), known.clone());
                }
                let of_task = state.waiting.iter().filter(|event| event.task_id == *id);
                loaded.waiting.insert(id.clone(), of_task.cloned().collect());
            }
            for id in &keys.events {
                if let Some(known) = state.events.get(id) {
                    loaded.events.insert(id.clone(), known.clone());
                }
            }
            Ok(loaded)
        })
    }

    fn commit(
        &self,
        writes: WriteSet,
        durability: CommitDurability,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            self.fuse.step().await;
            if self.full.fetch_sub(1, Ordering::Relaxed) > 0 {
                return Err(StoreError::Full(io::Error::other("full").into()));
            }
            let first = {
                let mut visible = self.visible.lock().unwrap();
                let first = u64::try_from(visible.changes.len()).unwrap() + 1;
                visible.write(writes);
                if durability == CommitDurability::Immediate {
                    *self.durable.lock().unwrap() = visible.clone();
                }
                first
            };
            self.fuse.step().await;
            Ok(first)
        })
    }

    fn waiting_before(
        &self,
        before_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<WaitingEvent>, StoreError>> {
        let state = self.state();
        let found = state.waiting.into_iter().filter(|event| event.since_ms < before_ms);
        let found = found.take(limit).collect();
        Box::pin(async move { Ok(found) })
    }

    fn due_before(
        &self,
        _before_ms: i64,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DueTask>, StoreError>> {
        Box::pin(async move { Ok(Vec::new()) })
    }

    fn letter<'a>(
        &'a self,
        place: &'a RecordPosition,
    ) -> BoxFuture<'a, Result<Option<StoredLetter>, StoreError>> {
        let letter = self.visible.lock().unwrap().letters.get(place).cloned();
        Box::pin(async move { Ok(letter) })
    }

    fn letters<'a>(
        &'a self,
        topic: &'a TopicName,
        filter: &'a LetterFilter,
        after: Option<&'a RecordPosition>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<LetterPage, StoreError>> {
        let mut letters: Vec<_> = self.state().letters.into_iter().collect();
        letters.retain(|(place, letter)| {
            place.topic == *topic && after.is_none_or(|after| after < place) && filter.takes(letter)
        });
        Box::pin(async move { Ok(LetterPage { letters, ..LetterPage::default() }) })
    }

    fn trim(&self, _now_ms: i64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            if self.forgets_ids.load(Ordering::Relaxed) {
                self.visible.lock().unwrap().events.clear();
            }
            Ok(0)
        })
    }

    fn task<'a>(
        &'a self,
        _user_id: &'a UserId,
        _task_id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        unimplemented!("apply does not read tasks one by one")
    }

    fn tasks<'a>(
        &'a self,
        _user_id: &'a UserId,
        _filter: &'a TaskFilter,
        _after: Option<&'a [u8]>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<TaskPage, StoreError>> {
        unimplemented!("apply does not list tasks")
    }

    fn changes<'a>(
        &'a self,
        _user_id: &'a UserId,
        _sequence: u64,
        _limit: usize,
        _bytes_max: usize,
    ) -> BoxFuture<'a, Result<ChangePage, StoreError>> {
        unimplemented!("apply does not read changes")
    }

    fn outcome<'a>(
        &'a self,
        _event_id: &'a EventId,
    ) -> BoxFuture<'a, Result<Option<KnownEvent>, StoreError>> {
        unimplemented!("apply does not read outcomes")
    }

    fn head(&self) -> Position {
        let changes = self.visible.lock().unwrap().changes.len();
        Position { epoch: 1, run: 1, sequence: u64::try_from(changes).unwrap() }
    }

    fn earliest(&self) -> Position {
        Position { epoch: 1, run: 1, sequence: 0 }
    }

    fn position_of(&self, sequence: u64) -> Position {
        Position { epoch: 1, run: 1, sequence }
    }

    fn place(&self, position: Position) -> Placement {
        Placement::After(position.sequence)
    }

    fn stats(&self) -> StoreStats {
        let waiting = u64::try_from(self.visible.lock().unwrap().waiting.len()).unwrap();
        StoreStats { waiting, ..StoreStats::default() }
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { Ok(()) })
    }
}
