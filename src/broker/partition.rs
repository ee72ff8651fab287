//! One partition: the owner worker of its log.
//!
//! The worker takes everything that waits in its inbox, judges it by the producers' windows, and
//! does one vectored write and one sync for all of it on a blocking thread, while the next round
//! gathers: group commit without a timer.
//!
//! Invariants: `acks=all` is answered after the sync, `acks=1` after the write. Offsets are given
//! in the order of the inbox. After a failed write or sync nothing is appended until restart; a
//! full disk refuses and goes on when space is back.

use super::{
    Acks, Durability, ProduceError, Produced,
    producer::{Producers, Undo, Verdict},
    space::Space,
};
use crate::{
    clock::Clock,
    disk::dir::Dir,
    log::{self, AppendError, LastStop, Log, LogReader, OpenError, Outage, Recovery},
    metrics::Metrics,
    position::{Offset, TopicPartition},
    wire::batch::ProducedBatch,
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// What a partition is opened with.
pub(super) struct Setup {
    pub(super) place: TopicPartition,
    pub(super) dir: Arc<dyn Dir>,
    pub(super) options: log::Options,
    pub(super) last_stop: LastStop,
    pub(super) outage: Outage,
    pub(super) durability: Durability,
    pub(super) space: Space,
    /// Takes writes also while the disk is full, from the reserve.
    pub(super) may_use_reserve: bool,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) common: Common,
}

/// What all partitions share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// Cancelled when an owner panics: the daemon then has to end.
    pub(super) owner_died: CancellationToken,
    /// KiB of batches that wait for their answers.
    inbox_kibibytes: Arc<Semaphore>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            owner_died: CancellationToken::new(),
            inbox_kibibytes: Arc::new(Semaphore::new(ALL_INBOXES_KIBIBYTES_MAX)),
        }
    }
}

/// Handle of one partition. Cheap to clone; the worker ends with the last one.
#[derive(Clone, Debug)]
pub struct PartitionHandle {
    inbox: mpsc::Sender<Command>,
    inbox_kibibytes: Arc<Semaphore>,
    common: Common,
    reader: LogReader,
    status: Arc<Status>,
    leader_epoch: i32,
}

/// An append whose place in the order is fixed and whose answer is still to come.
#[derive(Debug)]
pub struct Enqueued(oneshot::Receiver<Result<Produced, ProduceError>>);

impl Enqueued {
    /// Waits for the answer. Cancel safe; the batch is appended all the same.
    ///
    /// # Errors
    /// See [`ProduceError`].
    pub async fn answer(self) -> Result<Produced, ProduceError> {
        self.0.await.unwrap_or(Err(ProduceError::Storage))
    }
}

impl PartitionHandle {
    /// Puts a batch into the order of this partition. Waits while the inbox is full.
    ///
    /// # Errors
    /// `Storage` when the worker has ended.
    pub async fn enqueue(
        &self,
        batch: ProducedBatch,
        acks: Acks,
    ) -> Result<Enqueued, ProduceError> {
        let kibibytes = u32::try_from(batch.header().size_bytes >> 10).unwrap_or(u32::MAX);
        let permits = kibibytes.saturating_add(1).min(INBOX_KIBIBYTES_MAX);
        // Its own share first, so that a partition that is slow waits with what it has, and not
        // with what all have.
        let own = Arc::clone(&self.inbox_kibibytes).acquire_many_owned(permits).await;
        let own = own.map_err(|_| ProduceError::Storage)?;
        let all = Arc::clone(&self.common.inbox_kibibytes).acquire_many_owned(permits).await;
        let all = all.map_err(|_| ProduceError::Storage)?;
        let (reply, answer) = oneshot::channel();
        let append = Append { batch, acks, reply, _room: Room { _own: own, _all: all } };
        self.send(Command::Append(append)).await?;
        Ok(Enqueued(answer))
    }

    /// Syncs, so that everything appended before is durable.
    ///
    /// # Errors
    /// `Storage` or `Full`.
    pub async fn sync(&self) -> Result<(), ProduceError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Sync(reply)).await?;
        answer.await.unwrap_or(Err(ProduceError::Storage))
    }

    /// Lets retention delete, never at or above `keep_from`. Returns segments deleted.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn apply_retention(&self, keep_from: Offset) -> Result<usize, ProduceError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Retain { keep_from, reply }).await?;
        answer.await.unwrap_or(Err(ProduceError::Storage))
    }

    /// Takes new options for what comes.
    ///
    /// # Errors
    /// `Storage` when the worker has ended.
    pub async fn set_options(&self, options: log::Options) -> Result<(), ProduceError> {
        self.send(Command::SetOptions(options)).await
    }

    /// Flushes and closes the log; the worker ends. Returns the durable end.
    ///
    /// # Errors
    /// What was not closed cleanly, in one clause.
    pub async fn close(&self) -> Result<Offset, String> {
        let (reply, answer) = oneshot::channel();
        let ended = || "the owner has ended before".to_owned();
        self.send(Command::Close(reply)).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Ends the worker without a flush, for a topic that is deleted. Returns when it has ended.
    pub async fn abandon(&self) {
        // A worker that has ended already is what is asked for.
        drop(self.inbox.send(Command::Abandon).await);
        self.inbox.closed().await;
    }

    /// The read side.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// The epoch that is stamped on batches.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Why it takes no writes, if so.
    pub fn failure(&self) -> Option<String> {
        self.status.failure.lock().expect("no holder panics").clone()
    }

    /// Everything below is synced.
    pub fn durable_end(&self) -> Offset {
        Offset::new(self.status.durable_end.load(Ordering::Acquire)).unwrap_or_default()
    }

    async fn send(&self, command: Command) -> Result<(), ProduceError> {
        self.inbox.send(command).await.map_err(|_| ProduceError::Storage)
    }
}

/// What the worker tells without being asked.
#[derive(Debug, Default)]
struct Status {
    failure: Mutex<Option<String>>,
    durable_end: AtomicI64,
}

#[derive(Debug)]
enum Command {
    Append(Append),
    Sync(oneshot::Sender<Result<(), ProduceError>>),
    SyncDue,
    Retain { keep_from: Offset, reply: oneshot::Sender<Result<usize, ProduceError>> },
    SetOptions(log::Options),
    Close(oneshot::Sender<Result<Offset, String>>),
    Abandon,
}

#[derive(Debug)]
struct Append {
    batch: ProducedBatch,
    acks: Acks,
    reply: oneshot::Sender<Result<Produced, ProduceError>>,
    _room: Room,
}

/// Room in the inboxes until the answer.
#[derive(Debug)]
struct Room {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.batch.header().size_bytes,
            _ => 0,
        }
    }

    fn is_last(&self) -> bool {
        matches!(self, Self::Close(_) | Self::Abandon)
    }
}

/// An opened partition whose worker does not run yet.
pub(super) struct Opened {
    owner: Owner,
    leader_epoch: i32,
}

/// Opens the log and restores the producers. Blocks on the disk.
///
/// # Errors
/// As the log says.
pub(super) fn open(setup: Setup) -> Result<Opened, OpenError> {
    let Setup { place, dir, options, last_stop, outage, .. } = setup;
    let (log, recovery) = Log::open_after(dir, options, last_stop, outage)?;
    tell_recovery(&place, &recovery, &setup.metrics);
    log.reader().count_holes_on(&setup.metrics.log_holes);
    let producers = restore(&place, &recovery, setup.clock.now_ms());
    let status = Arc::new(Status::default());
    status.durable_end.store(log.log_end().get(), Ordering::Release);
    let leader_epoch = log.leader_epoch();
    let owner = Owner {
        place,
        log,
        producers,
        durability: setup.durability,
        clock: setup.clock,
        metrics: setup.metrics,
        common: setup.common,
        status,
        space: setup.space,
        may_use_reserve: setup.may_use_reserve,
        is_dirty: false,
    };
    Ok(Opened { owner, leader_epoch })
}

/// What a start has found, each once.
fn tell_recovery(place: &TopicPartition, recovery: &Recovery, metrics: &Metrics) {
    let (topic, partition) = (&place.topic, place.partition);
    if let Some(torn) = &recovery.torn_tail {
        metrics.log_torn_tails.inc();
        tracing::warn!(
            %topic, %partition, file = %torn.path.display(), byte = torn.position,
            offset = %torn.offset, bytes = torn.bytes, kept = ?torn.kept, "cut a torn tail"
        );
    }
    for (from, to) in &recovery.holes {
        tracing::error!(
            %topic, %partition, %from, %to, "records are damaged and cannot be read"
        );
    }
}

/// The producers as of the end of the log.
fn restore(place: &TopicPartition, recovery: &Recovery, now_ms: i64) -> Producers {
    let stored = recovery.snapshot.as_ref().map(|snapshot| Producers::decode(&snapshot.bytes));
    let mut producers = match stored {
        None => Producers::default(),
        Some(Some(producers)) => producers,
        Some(None) => {
            let (topic, partition) = (&place.topic, place.partition);
            tracing::error!(%topic, %partition, "the producer snapshot is of an unknown form");
            Producers::default()
        }
    };
    for header in &recovery.active_batches {
        producers.note(header, now_ms, &mut Undo::default());
        producers.expire(now_ms);
    }
    producers
}

impl Opened {
    /// The handle, and the worker for its keeper to run.
    pub(super) fn split(self) -> (PartitionHandle, impl Future<Output = ()> + Send + 'static) {
        let (inbox, commands) = mpsc::channel(INBOX_COMMANDS_MAX);
        let permits = usize::try_from(INBOX_KIBIBYTES_MAX).expect("u32 fits");
        let handle = PartitionHandle {
            inbox,
            inbox_kibibytes: Arc::new(Semaphore::new(permits)),
            common: self.owner.common.clone(),
            reader: self.owner.log.reader(),
            status: Arc::clone(&self.owner.status),
            leader_epoch: self.leader_epoch,
        };
        (handle, own(self.owner, commands))
    }
}

/// The worker.
async fn own(mut owner: Owner, mut inbox: mpsc::Receiver<Command>) {
    let mut sync_due: Option<Instant> = None;
    while let Some(first) = next_command(&mut inbox, sync_due).await {
        let round = gather(first, &mut inbox);
        let status = Arc::clone(&owner.status);
        let metrics = Arc::clone(&owner.metrics);
        let owner_died = owner.common.owner_died.clone();
        let ran = tokio::task::spawn_blocking(move || match owner.run(round) {
            None => Some(owner),
            Some(Ending::Abandon) => None,
            Some(Ending::Close(reply)) => {
                // A caller that has gone does not need its answer.
                drop(reply.send(owner.close()));
                None
            }
        });
        owner = match ran.await {
            Ok(Some(owner)) => owner,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the owner of a log panicked");
                fail(&status, &metrics, "its owner panicked");
                owner_died.cancel();
                return;
            }
        };
        sync_due = match (owner.is_dirty, owner.durability) {
            (true, Durability::Interval(interval)) => {
                sync_due.or_else(|| Instant::now().checked_add(interval))
            }
            _ => None,
        };
    }
}

/// The next command, or the sync that is due; `None` when every handle is gone.
async fn next_command(
    inbox: &mut mpsc::Receiver<Command>,
    sync_due: Option<Instant>,
) -> Option<Command> {
    match sync_due {
        None => inbox.recv().await,
        Some(due) => match tokio::time::timeout_at(due, inbox.recv()).await {
            Ok(command) => command,
            Err(_) => Some(Command::SyncDue),
        },
    }
}

/// What waits, within bounds: one round.
fn gather(first: Command, inbox: &mut mpsc::Receiver<Command>) -> Vec<Command> {
    let mut bytes = first.bytes();
    let mut round = vec![first];
    while bytes < ROUND_BYTES_MAX && round.len() < ROUND_COMMANDS_MAX {
        if round.last().is_some_and(Command::is_last) {
            break;
        }
        let Ok(next) = inbox.try_recv() else { break };
        bytes += next.bytes();
        round.push(next);
    }
    round
}

/// What the worker owns. Its methods block on the disk.
struct Owner {
    place: TopicPartition,
    log: Log,
    producers: Producers,
    durability: Durability,
    clock: Clock,
    metrics: Arc<Metrics>,
    common: Common,
    status: Arc<Status>,
    space: Space,
    may_use_reserve: bool,
    /// Something was written that is not synced.
    is_dirty: bool,
}

/// How the worker ends.
enum Ending {
    Close(oneshot::Sender<Result<Offset, String>>),
    Abandon,
}

/// Who waits for what of one write.
#[derive(Default)]
struct Waiters {
    after_write: Vec<Waiter>,
    after_sync: Vec<Waiter>,
}

struct Waiter {
    reply: oneshot::Sender<Result<Produced, ProduceError>>,
    base_offset: Offset,
    _room: Room,
}

impl Owner {
    /// Does one round; `Some` if it was the last.
    fn run(&mut self, round: Vec<Command>) -> Option<Ending> {
        let mut appends = Vec::new();
        for command in round {
            if let Command::Append(append) = command {
                appends.push(append);
                continue;
            }
            self.append_all(std::mem::take(&mut appends));
            if let Some(ending) = self.control(command) {
                return Some(ending);
            }
        }
        self.append_all(appends);
        self.snapshot_if_due();
        None
    }

    fn control(&mut self, command: Command) -> Option<Ending> {
        // A caller that has gone does not need its answer: every send may fail.
        match command {
            Command::Append(append) => self.append_all(vec![append]),
            Command::Sync(reply) => drop(reply.send(self.sync().map_err(Into::into))),
            // A failure is logged and noted where it happens; nobody waits for this one.
            Command::SyncDue => drop(self.sync()),
            Command::Retain { keep_from, reply } => drop(reply.send(self.retain(keep_from))),
            Command::SetOptions(options) => self.log.set_options(options),
            Command::Close(reply) => return Some(Ending::Close(reply)),
            Command::Abandon => return Some(Ending::Abandon),
        }
        None
    }

    /// One write and, by the durability, one sync for all of them.
    fn append_all(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let (mut undo, mut waiters) = (Undo::default(), Waiters::default());
        let mut batches = Vec::with_capacity(appends.len());
        let mut end = self.log.log_end();
        for append in appends {
            if let Some((batch, next)) = self.judge(append, end, &mut undo, &mut waiters) {
                batches.push(batch);
                end = next;
            }
        }
        let written = match self.write(batches, now_ms, end) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.producers.roll_back(undo);
                Err(error)
            }
        };
        self.answer(waiters.after_write, written);
        self.producers.expire(now_ms);
        let synced = match (written, self.durability) {
            (Ok(()), Durability::Commit) => self.sync(),
            (Ok(()), _) => {
                self.log.publish_unsynced();
                Ok(())
            }
            (Err(error), _) => Err(error),
        };
        self.answer(waiters.after_sync, synced);
    }

    /// Decides on one batch that would begin at `end`. Returns it with the end after it if it is to
    /// be appended; else it was answered, or waits with the original of which it is a duplicate.
    fn judge(
        &mut self,
        append: Append,
        end: Offset,
        undo: &mut Undo,
        waiters: &mut Waiters,
    ) -> Option<(ProducedBatch, Offset)> {
        let Append { batch, acks, reply, _room } = append;
        let mut header = *batch.header();
        let refused = match self.producers.check(&header) {
            Verdict::New => {
                header.base_offset = end.get();
                let count = u32::try_from(header.record_count).unwrap_or(0);
                let Some(next) = end.advance(count) else {
                    drop(reply.send(Err(ProduceError::Storage)));
                    return None;
                };
                self.producers.note(&header, self.clock.now_ms(), undo);
                waiters.of(acks).push(Waiter { reply, base_offset: end, _room });
                return Some((batch, next));
            }
            Verdict::Duplicate { base_offset } => {
                let base_offset = Offset::new(base_offset).unwrap_or_default();
                waiters.of(acks).push(Waiter { reply, base_offset, _room });
                return None;
            }
            Verdict::OutOfOrder => ProduceError::OutOfOrderSequence,
            Verdict::Fenced => ProduceError::InvalidProducerEpoch,
        };
        // A caller that has gone does not need its answer.
        drop(reply.send(Err(refused)));
        None
    }

    fn write(
        &mut self,
        batches: Vec<ProducedBatch>,
        now_ms: i64,
        end: Offset,
    ) -> Result<(), Refusal> {
        if self.status.failure.lock().expect("no holder panics").is_some() {
            return Err(Refusal::Storage);
        }
        if batches.is_empty() {
            return Ok(());
        }
        // What is left is for what is accepted already.
        if self.space.is_full() && !self.may_use_reserve {
            return Err(Refusal::Full);
        }
        let headers = batches.iter().map(ProducedBatch::header);
        let (bytes, records) = headers.fold((0, 0_i64), |(bytes, records), header| {
            (bytes + header.size_bytes, records + i64::from(header.record_count))
        });
        self.log.append(batches, now_ms).map_err(|error| self.refuse(&error))?;
        assert_eq!(self.log.log_end(), end, "the log gives dense offsets");
        self.is_dirty = true;
        self.metrics.log_appended_bytes.inc_by(u64::try_from(bytes).unwrap_or(0));
        self.metrics.log_appended_records.inc_by(u64::try_from(records).unwrap_or(0));
        Ok(())
    }

    /// Answers waiters. A duplicate whose original is durable is answered well even if this write
    /// failed.
    fn answer(&self, waiters: Vec<Waiter>, result: Result<(), Refusal>) {
        let durable_end = self.status.durable_end.load(Ordering::Acquire);
        let log_start = self.log.reader().log_start();
        for waiter in waiters {
            let base_offset = waiter.base_offset;
            let produced = Produced { base_offset, append_time_ms: -1, log_start };
            let answer = match result {
                Err(refusal) if base_offset.get() >= durable_end => Err(refusal.into()),
                _ => Ok(produced),
            };
            // A caller that has gone does not need its answer.
            drop(waiter.reply.send(answer));
        }
    }

    fn sync(&mut self) -> Result<(), Refusal> {
        if self.status.failure.lock().expect("no holder panics").is_some() {
            return Err(Refusal::Storage);
        }
        if !self.is_dirty {
            return Ok(());
        }
        let end = self.log.log_end();
        self.log.flush().map_err(|error| self.refuse(&error))?;
        self.metrics.log_syncs.inc();
        self.is_dirty = false;
        self.status.durable_end.store(end.get(), Ordering::Release);
        Ok(())
    }

    /// What a failed write means for those who wait, noted and logged.
    fn refuse(&self, error: &AppendError) -> Refusal {
        let (topic, partition) = (&self.place.topic, self.place.partition);
        match error {
            AppendError::Full { .. } => {
                tracing::warn!(%topic, %partition, %error, "the disk is full");
                Refusal::Full
            }
            AppendError::Failed { source, .. } => {
                let cause = source.as_ref().map_or_else(|| error.to_string(), ToString::to_string);
                tracing::error!(%topic, %partition, %error, cause, "no more writes until restart");
                fail(&self.status, &self.metrics, &cause);
                Refusal::Storage
            }
        }
    }

    fn retain(&mut self, keep_from: Offset) -> Result<usize, ProduceError> {
        self.producers.expire(self.clock.now_ms());
        let now_ms = self.clock.now_ms();
        self.log.apply_retention(now_ms, keep_from).map_err(|error| {
            let (topic, partition) = (&self.place.topic, self.place.partition);
            tracing::error!(%topic, %partition, %error, "retention could not delete");
            ProduceError::Storage
        })
    }

    /// Keeps the producers after each roll, so that a start need not read the whole log.
    fn snapshot_if_due(&mut self) {
        if self.log.snapshot_due()
            && let Err(error) = self.log.store_snapshot(&self.producers.encode())
        {
            // The next start reads more of the log; nothing is lost.
            let (topic, partition) = (&self.place.topic, self.place.partition);
            tracing::warn!(%topic, %partition, %error, "no producer snapshot was written");
        }
    }

    fn close(mut self) -> Result<Offset, String> {
        self.sync().map_err(|_| "the log takes no writes".to_owned())?;
        let stored = self.log.store_snapshot(&self.producers.encode());
        stored.map_err(|error| error.to_string())?;
        let end = self.log.log_end();
        self.log.close().map_err(|error| error.to_string())?;
        Ok(end)
    }
}

impl Waiters {
    fn of(&mut self, acks: Acks) -> &mut Vec<Waiter> {
        match acks {
            Acks::None | Acks::Leader => &mut self.after_write,
            Acks::All => &mut self.after_sync,
        }
    }
}

/// Why a whole round was refused.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Full,
    Storage,
}

impl From<Refusal> for ProduceError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::Storage => Self::Storage,
        }
    }
}

fn fail(status: &Status, metrics: &Metrics, cause: &str) {
    let mut failure = status.failure.lock().expect("no holder panics");
    if failure.is_none() {
        metrics.log_failed_partitions.inc();
        *failure = Some(cause.to_owned());
    }
}

/// Commands that wait; senders beyond it wait outside.
const INBOX_COMMANDS_MAX: usize = 1024;
/// Bytes of batches that wait for their answer, in KiB; senders beyond it wait outside.
const INBOX_KIBIBYTES_MAX: u32 = 32 << 10;
/// The same of all partitions together: more than one partition may have.
const ALL_INBOXES_KIBIBYTES_MAX: usize = 64 << 10;
/// Bytes of one write.
const ROUND_BYTES_MAX: usize = 16 << 20;
/// Commands of one round.
const ROUND_COMMANDS_MAX: usize = 1024;
