//! Fetch 4 to 12: record batches from several partitions, waiting on all of them.
//!
//! Answered when `min_bytes` are there, when a partition has an error, after `max_wait_ms`, or when
//! the broker stops. A wait is woken by a rise of any high watermark; nothing polls. The first
//! batch comes whole even above every limit. No fetch sessions: each answer carries session 0,
//! which clients take as "send everything every time". Transactions: none, so read_committed sees
//! what read_uncommitted does.

use crate::{
    broker::{Broker, partition::PartitionHandle, topics::PARTITIONS_MAX},
    log::{Batches, LogReader, ReadError},
    position::{Offset, Partition},
    wire::{
        ErrorCode,
        fetch::{FetchPartition, FetchResponse, FetchTopic},
        messages::{FetchRequest, TopicName, fetch_request},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::time::Duration;
use tokio::time::Instant;

pub(in crate::broker) async fn handle(
    broker: &Broker,
    _version: i16,
    request: FetchRequest,
) -> FetchResponse {
    if let Err(code) = check_session(&request).and(check_count(&request)) {
        return FetchResponse { error_code: code.code(), ..FetchResponse::default() };
    }
    let fetch = Fetch::new(broker, &request);
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + max_wait.min(WAIT_MAX);
    loop {
        // Before the read, so that a rise between read and wait is seen.
        let (targets, mut rises) = fetch.targets();
        let read = fetch.read(targets).await;
        let is_ready = read.has_error || read.bytes >= fetch.min_bytes || rises.is_empty();
        let is_due = deadline <= Instant::now() || broker.draining().is_cancelled();
        if is_ready || is_due {
            return read.response;
        }
        // Not kept while it waits, possibly for minutes: it is read again.
        let has_some = read.bytes > 0;
        drop(read);
        let risen = async {
            if has_some {
                tokio::time::sleep(READ_AGAIN).await;
            }
            rises.next().await;
        };
        tokio::select! {
            () = risen => (),
            () = broker.draining().cancelled() => (),
            () = tokio::time::sleep_until(deadline) => (),
        }
    }
}

/// Session 0 and epochs 0 and -1 ask for everything; there is no other session.
fn check_session(request: &FetchRequest) -> Result<(), ErrorCode> {
    match request.session_epoch {
        0 | -1 => Ok(()),
        _ => Err(ErrorCode::FetchSessionIdNotFound),
    }
}

/// Every rise of a high watermark looks at all partitions again, so there are not more of them than
/// there can be.
fn check_count(request: &FetchRequest) -> Result<(), ErrorCode> {
    let asked: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    if asked.max(request.topics.len()) <= PARTITIONS_MAX {
        Ok(())
    } else {
        Err(ErrorCode::InvalidRequest)
    }
}

/// What is asked for.
struct Fetch<'a> {
    broker: &'a Broker,
    topics: &'a [fetch_request::FetchTopic],
    min_bytes: usize,
    max_bytes: usize,
    is_read_committed: bool,
}

/// One partition of it.
struct Target {
    topic: usize,
    index: i32,
    from: i64,
    bytes_max: usize,
    reader: Result<LogReader, ErrorCode>,
}

/// What one pass over all partitions found.
struct Read {
    response: FetchResponse,
    bytes: usize,
    has_error: bool,
}

impl<'a> Fetch<'a> {
    fn new(broker: &'a Broker, request: &'a FetchRequest) -> Self {
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0);
        let max_bytes = max_bytes.min(RESPONSE_BYTES_MAX).min(broker.limits().answer_bytes_max());
        Self {
            broker,
            topics: &request.topics,
            // More than may be in the answer would never be there.
            min_bytes: usize::try_from(request.min_bytes)
                .unwrap_or(0)
                .min(max_bytes)
                .min(MIN_BYTES_MAX),
            max_bytes,
            is_read_committed: request.isolation_level == 1,
        }
    }

    /// Every partition, and a future per partition that ends when its high watermark rises.
    fn targets(&self) -> (Vec<Target>, FuturesUnordered<impl Future<Output = ()> + use<>>) {
        let mut targets = Vec::new();
        let rises = FuturesUnordered::new();
        for (at, asked) in self.topics.iter().enumerate() {
            let topic = self.broker.topics().find(&asked.topic);
            for partition in &asked.partitions {
                let index = Partition::new(partition.partition);
                let handle = topic.as_ref().zip(index).and_then(|(t, index)| t.partition(index));
                let reader = handle
                    .ok_or(ErrorCode::UnknownTopicOrPartition)
                    .and_then(|handle| of_epoch(handle, partition.current_leader_epoch));
                if let Ok(reader) = &reader {
                    let mut high_watermark = reader.watch_high_watermark();
                    rises.push(async move {
                        // An error means that the log is closed: worth a look, too.
                        drop(high_watermark.changed().await);
                    });
                }
                targets.push(Target {
                    topic: at,
                    index: partition.partition,
                    from: partition.fetch_offset,
                    bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                    reader,
                });
            }
        }
        (targets, rises)
    }

    /// Reads each partition, within the limits.
    async fn read(&self, targets: Vec<Target>) -> Read {
        let named = |topic: &fetch_request::FetchTopic| new_topic(topic.topic.clone());
        let mut topics: Vec<FetchTopic> = self.topics.iter().map(named).collect();
        let (mut bytes, mut has_error) = (0, false);
        for target in targets {
            let room = target.bytes_max.min(self.max_bytes.saturating_sub(bytes));
            let (partition, found) = self.read_target(&target, room, bytes == 0).await;
            bytes += found;
            has_error |= partition.error_code != 0;
            topics[target.topic].partitions.push(partition);
        }
        let response = FetchResponse { topics, ..FetchResponse::default() };
        Read { response, bytes, has_error }
    }

    /// One partition's answer, and how many bytes of records are in it.
    async fn read_target(
        &self,
        target: &Target,
        room: usize,
        is_first: bool,
    ) -> (FetchPartition, usize) {
        let reader = match &target.reader {
            Ok(reader) => reader,
            Err(code) => return (FetchPartition::error(target.index, *code), 0),
        };
        match self.read_one(reader, target.from, room, is_first).await {
            Ok(batches) => (self.filled(target.index, reader, batches.chunks), batches.bytes),
            Err(code) if code == ErrorCode::OffsetOutOfRange => {
                let partition = self.filled(target.index, reader, Vec::new());
                (FetchPartition { error_code: code.code(), ..partition }, 0)
            }
            Err(code) => (FetchPartition::error(target.index, code), 0),
        }
    }

    /// Whole batches of one partition. `is_first`: nothing was found before, so the first batch
    /// comes however large it is.
    async fn read_one(
        &self,
        reader: &LogReader,
        from: i64,
        room: usize,
        is_first: bool,
    ) -> Result<Batches, ErrorCode> {
        let from = Offset::new(from).ok_or(ErrorCode::OffsetOutOfRange)?;
        if room == 0 && !is_first {
            return Ok(Batches::default());
        }
        let found = match reader.read_tail(from, room) {
            Some(batches) => Ok(batches),
            None => {
                let _turn = self.broker.limits().disk_reads.acquire().await;
                let (reader, room) = (reader.clone(), room.min(DISK_READ_BYTES_MAX));
                let read = tokio::task::spawn_blocking(move || reader.read(from, room)).await;
                read.unwrap_or_else(|panic| Err(ReadError::Io(std::io::Error::other(panic))))
            }
        };
        match found {
            Ok(batches) if batches.bytes > room && !is_first => Ok(Batches::default()),
            Ok(batches) => Ok(batches),
            Err(error) => {
                if !matches!(error, ReadError::OutOfRange { .. })
                    && let Some(unsaid) = self.broker.limits().warnings.admit()
                {
                    tracing::warn!(%error, offset = %from, unsaid, "a fetch could not read");
                }
                Err(ErrorCode::from(&error))
            }
        }
    }

    fn filled(&self, index: i32, reader: &LogReader, records: Vec<Bytes>) -> FetchPartition {
        let high_watermark = reader.high_watermark().get();
        FetchPartition {
            index,
            error_code: 0,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: reader.log_start().get(),
            aborted_transactions: self.is_read_committed.then(Vec::new),
            records,
        }
    }
}

fn new_topic(name: TopicName) -> FetchTopic {
    FetchTopic { name, partitions: Vec::new() }
}

/// The reader, if the client knows no other leader epoch; -1 is no epoch.
fn of_epoch(handle: &PartitionHandle, known: i32) -> Result<LogReader, ErrorCode> {
    check_epoch(handle, known)?;
    Ok(handle.reader().clone())
}

/// Fences clients that know an older or newer leader epoch (KIP-320); -1 is no epoch.
pub(super) fn check_epoch(handle: &PartitionHandle, known: i32) -> Result<(), ErrorCode> {
    let current = handle.leader_epoch();
    match known {
        -1 => Ok(()),
        known if known < current => Err(ErrorCode::FencedLeaderEpoch),
        known if known > current => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// Most bytes of one response, but for a single larger batch.
const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// What nobody waits beyond, whatever is asked for: what is there is read again at each rise.
const MIN_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one read of the disk.
const DISK_READ_BYTES_MAX: usize = 4 << 20;
/// Between two reads of what is there and is not enough: at a high rate of small appends each rise
/// would read all of it again.
const READ_AGAIN: Duration = Duration::from_millis(20);
/// Longest wait, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);
