//! The feed on the embedded broker, in process.
//!
//! Bounds: a batch unfolds to at most [`DECOMPRESSED_BYTES_MAX`]; of what it unfolds to, a read
//! gives at most [`READ_ITEMS_MAX`] records. The rest is kept for the next read of that partition,
//! so that a batch of millions of tiny records is neither a list of gigabytes nor unfolded again
//! for each part of it.

use super::{EventLog, FeedBatch, FeedError, FeedItem, FeedRecord, OutboundRecord};
use crate::{
    broker::{Acks, Broker, ProduceError},
    clock::Clock,
    log::{Batches, LogReader, ReadError},
    position::{Offset, Partition, RecordPosition, TopicName, TopicPartition},
    wire::{
        batch::{BatchHeader, Codec, check_crc},
        partitioner,
        record::{self, NewRecord, Records},
    },
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use tracing::error;

/// Most bytes that one compressed batch may unfold to.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most records of one read.
pub const READ_ITEMS_MAX: usize = 10_000;
/// A read ends after the batch with which its records unfold to this much.
const READ_UNFOLDED_BYTES: usize = 8 << 20;
/// Batches that are given in part at one time. A partition beyond it has its batch unfolded again.
const PARTLY_READ_MAX: usize = 4;
/// Records of one partition are published in batches of about this size.
const PUBLISH_BATCH_BYTES: usize = 512 * 1024;

/// The embedded broker as an event log.
pub struct Embedded {
    broker: Broker,
    clock: Clock,
    partitions: u32,
    /// Turns records without a key over all partitions.
    turn: AtomicU32,
    /// Oldest first.
    partly_read: Mutex<Vec<(TopicPartition, PartlyRead)>>,
}

/// A batch of which a read has given the first records.
#[derive(Debug)]
struct PartlyRead {
    records: Records,
    /// The next offset to read.
    next: Offset,
    /// The first offset after the batch.
    to: Offset,
    leader_epoch: i32,
}

impl Embedded {
    /// The broker's logs; `partitions` is what a topic gets that this creates.
    pub fn new(broker: Broker, clock: Clock, partitions: u32) -> Self {
        Self {
            broker,
            clock,
            partitions: partitions.max(1),
            turn: AtomicU32::new(0),
            partly_read: Mutex::default(),
        }
    }

    /// The rest of the batch that the last read of this partition has begun, if it is read on.
    fn take_partly_read(&self, place: &TopicPartition, from: Offset) -> Option<PartlyRead> {
        let mut all = self.partly_read.lock().expect("no holder panics");
        let at = all.iter().position(|(of, _)| of == place)?;
        let (_, rest) = all.remove(at);
        (rest.next == from).then_some(rest)
    }

    fn keep_partly_read(&self, place: TopicPartition, rest: PartlyRead) {
        let mut all = self.partly_read.lock().expect("no holder panics");
        if all.len() >= PARTLY_READ_MAX {
            all.remove(0);
        }
        all.push((place, rest));
    }

    /// Reads and unfolds what the log has from `from` on.
    async fn read_log(
        &self,
        reader: LogReader,
        from: Offset,
        bytes_max: usize,
    ) -> Result<(FeedBatch, Option<PartlyRead>), FeedError> {
        let batches = match reader.read_tail(from, bytes_max) {
            Some(batches) => batches,
            None => {
                let from_disk = blocking(move || reader.read(from, bytes_max)).await?;
                match from_disk {
                    Ok(batches) => batches,
                    Err(error) => return unreadable(from, &error).map(|batch| (batch, None)),
                }
            }
        };
        if is_compressed(&batches) {
            blocking(move || decode(&batches, from)).await?
        } else {
            decode(&batches, from)
        }
    }

    fn reader(&self, topic: &TopicName, partition: Partition) -> Result<LogReader, FeedError> {
        self.broker.reader(topic, partition).ok_or(FeedError::Unavailable)
    }

    fn partition_for(&self, outbound: &OutboundRecord) -> Partition {
        let count = self.broker.partition_count(&outbound.topic);
        match (outbound.partition, &outbound.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partitioner::partition_of_key(key, count),
            (None, None) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                partitioner::partition_of_number(turn, count)
            }
        }
    }

    /// Publishes records of one partition, in order; returns their offsets.
    async fn publish_to(
        &self,
        topic: &TopicName,
        partition: Partition,
        records: &[NewRecord],
    ) -> Result<Vec<Offset>, FeedError> {
        let mut offsets = Vec::with_capacity(records.len());
        for batch in batches_of(records) {
            let produced = self
                .broker
                .produce(topic, partition, record::encode(batch), Acks::All)
                .await
                .map_err(|error| feed_error(&error))?;
            let mut offset = produced.base_offset;
            for _ in batch {
                offsets.push(offset);
                offset = offset.next();
            }
        }
        Ok(offsets)
    }
}

impl EventLog for Embedded {
    fn ensure_topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<u32, FeedError>> {
        Box::pin(async move {
            self.broker
                .ensure_topic(topic, self.partitions)
                .await
                .map_err(|error| feed_error(&error))
        })
    }

    fn partition_count(&self, topic: &TopicName) -> u32 {
        self.broker.partition_count(topic)
    }

    fn publish(&self, record: OutboundRecord) -> BoxFuture<'_, Result<RecordPosition, FeedError>> {
        Box::pin(async move {
            let partition = self.partition_for(&record);
            let (topic, record) = new_record(record, self.clock.now_ms());
            let offsets = self.publish_to(&topic, partition, &[record]).await?;
            let offset = offsets.first().copied().ok_or(FeedError::Unavailable)?;
            Ok(RecordPosition { topic, partition, offset })
        })
    }

    fn publish_all(
        &self,
        records: Vec<OutboundRecord>,
    ) -> BoxFuture<'_, Result<Vec<RecordPosition>, FeedError>> {
        Box::pin(async move {
            let now_ms = self.clock.now_ms();
            let mut groups: BTreeMap<_, (Vec<usize>, Vec<NewRecord>)> = BTreeMap::new();
            for (index, record) in records.into_iter().enumerate() {
                let partition = self.partition_for(&record);
                let (topic, record) = new_record(record, now_ms);
                let group = groups.entry((topic, partition)).or_default();
                group.0.push(index);
                group.1.push(record);
            }
            let mut positions = Vec::new();
            for ((topic, partition), (indices, records)) in groups {
                let offsets = self.publish_to(&topic, partition, &records).await?;
                for (index, offset) in indices.into_iter().zip(offsets) {
                    let topic = topic.clone();
                    positions.push((index, RecordPosition { topic, partition, offset }));
                }
            }
            positions.sort_unstable_by_key(|(index, _)| *index);
            Ok(positions.into_iter().map(|(_, position)| position).collect())
        })
    }

    fn read<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<FeedBatch, FeedError>> {
        Box::pin(async move {
            let reader = self.reader(topic, partition)?;
            wait_for(&reader, from).await?;
            let place = TopicPartition { topic: topic.clone(), partition };
            let (batch, rest) = match self.take_partly_read(&place, from) {
                Some(rest) => rest.give(),
                None => self.read_log(reader, from, bytes_max).await?,
            };
            if let Some(rest) = rest {
                self.keep_partly_read(place, rest);
            }
            Ok(batch)
        })
    }

    fn bounds<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
    ) -> BoxFuture<'a, Result<(Offset, Offset), FeedError>> {
        Box::pin(async move {
            let reader = self.reader(topic, partition)?;
            Ok((reader.log_start(), reader.high_watermark()))
        })
    }

    fn sync<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
    ) -> BoxFuture<'a, Result<(), FeedError>> {
        Box::pin(async move {
            self.broker.sync(topic, partition).await.map_err(|error| feed_error(&error))
        })
    }

    fn report_progress(
        &self,
        topic: &TopicName,
        partition: Partition,
        processed: Offset,
        durable: Offset,
    ) {
        self.broker.report_progress(topic, partition, processed, durable);
    }
}

/// Waits until there is a record at `from`. Cancel safe.
async fn wait_for(reader: &LogReader, from: Offset) -> Result<(), FeedError> {
    let mut high_watermark = reader.watch_high_watermark();
    loop {
        let end = *high_watermark.borrow_and_update();
        let start = reader.log_start();
        if from < start || end < from {
            return Err(FeedError::OutOfRange { asked: from, start, end });
        }
        if from < end {
            return Ok(());
        }
        // The owner of the log has ended.
        high_watermark.changed().await.map_err(|_| FeedError::Unavailable)?;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FeedError> {
    tokio::task::spawn_blocking(work).await.map_err(|failed| {
        error!(error = %failed, "reading the log ended unexpectedly");
        FeedError::Unavailable
    })
}

fn unreadable(from: Offset, error: &ReadError) -> Result<FeedBatch, FeedError> {
    match *error {
        ReadError::OutOfRange { start, end } => {
            Err(FeedError::OutOfRange { asked: from, start, end })
        }
        ReadError::Corrupt { offset, resume_at } => {
            let offset = offset.max(from);
            // Where the log cannot tell where it goes on, the next offset tells more.
            let to = resume_at.unwrap_or_default().max(offset.next());
            let detail = format!("offsets {offset} to {to} of the log are damaged");
            let item = FeedItem::Unreadable { from: offset, to, detail, bytes: None };
            Ok(FeedBatch { items: vec![item], next: to, leader_epoch: -1 })
        }
        ReadError::Io(_) => {
            let error: &dyn std::error::Error = error;
            error!(%from, error, "cannot read the log");
            Err(FeedError::Unavailable)
        }
    }
}

fn is_compressed(batches: &Batches) -> bool {
    let mut headers = batches.chunks.iter().flat_map(headers_of);
    headers.any(|(_, header)| header.codec() != Some(Codec::None))
}

/// The batches of a chunk: the place of each within it, and its header.
fn headers_of(chunk: &Bytes) -> impl Iterator<Item = (usize, BatchHeader)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = BatchHeader::parse(chunk.get(at..)?).ok()?;
        let place = at;
        at += header.size_bytes;
        Some((place, header))
    })
}

/// The records of whole batches, from `from` on, up to the bounds of one read; and the batch that
/// is given in part, if one is.
fn decode(batches: &Batches, from: Offset) -> Result<(FeedBatch, Option<PartlyRead>), FeedError> {
    let mut found = FeedBatch { items: Vec::new(), next: from, leader_epoch: -1 };
    let mut unfolded_bytes = 0;
    for chunk in &batches.chunks {
        for (place, header) in headers_of(chunk) {
            if found.items.len() >= READ_ITEMS_MAX || unfolded_bytes >= READ_UNFOLDED_BYTES {
                return Ok((found, None));
            }
            let batch = chunk.slice(place..place + header.size_bytes);
            let Some(mut opened) = open_batch(&batch, &header, &mut found)? else { continue };
            unfolded_bytes += opened.records.payload_bytes();
            if !opened.give_to(&mut found) {
                return Ok((found, Some(opened)));
            }
        }
    }
    if found.next == from {
        // The log promises whole batches that reach beyond `from`.
        error!(%from, "a read of the log has no batch");
        return Err(FeedError::Unavailable);
    }
    Ok((found, None))
}

/// Opens a batch, of which nothing is given yet. `None`: it has no records to give, and `found` is
/// past it.
fn open_batch(
    batch: &Bytes,
    header: &BatchHeader,
    found: &mut FeedBatch,
) -> Result<Option<PartlyRead>, FeedError> {
    let to = Offset::new(header.last_offset()).ok_or(FeedError::Unavailable)?.next();
    let from = found.next;
    if to <= from {
        return Ok(None);
    }
    let leader_epoch = header.leader_epoch;
    let is_intact = header.is_control() || check_crc(batch, header);
    let records = is_intact.then(|| Records::open(batch, header, DECOMPRESSED_BYTES_MAX));
    let detail = match records {
        Some(Ok(records)) if !header.is_control() => {
            return Ok(Some(PartlyRead { records, next: from, to, leader_epoch }));
        }
        _ if header.is_control() => None,
        Some(Ok(_)) | None => Some("wrong crc".to_owned()),
        Some(Err(error)) => Some(error.to_string()),
    };
    (found.next, found.leader_epoch) = (to, leader_epoch);
    found.items.extend(detail.map(|detail| FeedItem::Unreadable {
        from,
        to,
        detail,
        bytes: Some(batch.clone()),
    }));
    Ok(None)
}

impl PartlyRead {
    /// Gives the next records alone, and itself back if there are more.
    fn give(mut self) -> (FeedBatch, Option<Self>) {
        let mut found = FeedBatch { items: Vec::new(), next: self.next, leader_epoch: -1 };
        let is_done = self.give_to(&mut found);
        (found, (!is_done).then_some(self))
    }

    /// Adds records to `found` up to the bound; returns whether these were all.
    fn give_to(&mut self, found: &mut FeedBatch) -> bool {
        found.leader_epoch = self.leader_epoch;
        while found.items.len() < READ_ITEMS_MAX {
            let Some(record) = self.records.next() else {
                found.next = self.to;
                return true;
            };
            let offset = Offset::new(record.offset).filter(|offset| *offset < self.to);
            let Some(offset) = offset.filter(|offset| self.next <= *offset) else { continue };
            self.next = offset.next();
            found.next = self.next;
            found.items.push(feed_record(offset, record));
        }
        false
    }
}

fn feed_record(offset: Offset, record: record::Record) -> FeedItem {
    FeedItem::Record(FeedRecord {
        offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key,
        value: record.value,
        headers: record.headers,
    })
}

fn new_record(outbound: OutboundRecord, now_ms: i64) -> (TopicName, NewRecord) {
    let OutboundRecord { topic, timestamp_ms, key, value, headers, .. } = outbound;
    let timestamp_ms = timestamp_ms.unwrap_or(now_ms);
    (topic, NewRecord { timestamp_ms, key, value, headers })
}

/// Splits records into batches of about [`PUBLISH_BATCH_BYTES`], each of at least one.
fn batches_of(records: &[NewRecord]) -> impl Iterator<Item = &[NewRecord]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fitting = rest.iter().take_while(|record| {
            bytes = bytes.saturating_add(size_of_record(record));
            bytes <= PUBLISH_BATCH_BYTES
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, left) = rest.split_at(count);
        rest = left;
        (!batch.is_empty()).then_some(batch)
    })
}

fn size_of_record(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize =
        record.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
    length(&record.key) + length(&record.value) + headers
}

fn feed_error(error: &ProduceError) -> FeedError {
    match error {
        ProduceError::Full => FeedError::Full,
        ProduceError::MessageTooLarge { .. } => FeedError::TooLarge,
        ProduceError::UnknownTopicOrPartition
        | ProduceError::OutOfOrderSequence
        | ProduceError::InvalidProducerEpoch
        | ProduceError::Storage => FeedError::Unavailable,
    }
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
