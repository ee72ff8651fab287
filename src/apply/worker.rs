//! The worker: batches what waits, commits it, takes checkpoints, and stops in order.

use super::{
    ApplyError, Options, Progress,
    back_off::BackOff,
    checkpoint::{Cursor, Cursors, Schedule},
    due::Reminders,
    letter::Letter,
    letters::{COMMANDS_MAX, Command},
    outbox::{Outbox, partition_of},
    outcome::Outcomes,
    plan::{self, Context, Plan},
    reader::{self, Incoming, Input, Outside},
};
use crate::{
    clock::Clock,
    feed::{EventLog, FeedError},
    hub::PublishedChange,
    metrics::Metrics,
    position::{Offset, Partition, RecordPosition, TopicName, TopicPartition},
    shutdown::Shutdown,
    store::{
        CommitDurability, LoadKeys, Processed, Store, StoreError, WriteSet, letter::LetterTrim,
    },
    task::transition::Reason,
};
use std::{collections::VecDeque, mem, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tracing::{error, info, warn};

/// Most records of one transaction.
const RECORDS_PER_COMMIT_MAX: usize = 1_000;
/// Reads that lie ready, of all partitions together.
const READS_AHEAD: usize = 2;
/// Expired events of one commit.
const EXPIRED_PER_COMMIT_MAX: usize = 500;
/// How often expiry, new partitions and the lag are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Letters about which something was done are kept so long after they were noted.
const ENDED_LETTERS_KEEP: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Trims of one checkpoint at most; each is a bounded piece of work.
const TRIMS_PER_CHECKPOINT_MAX: u32 = 4;

/// What apply works with.
pub(super) struct Parts {
    pub(super) options: Options,
    pub(super) feed: Arc<dyn EventLog>,
    pub(super) store: Arc<dyn Store>,
    /// Hands committed changes to the hub.
    pub(super) publish: Box<dyn Fn(Vec<PublishedChange>) + Send + Sync>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
}

pub(super) struct Worker {
    pub(super) parts: Parts,
    outcomes: Arc<Outcomes>,
    progress: watch::Sender<Progress>,
    pub(super) cursors: Cursors,
    schedule: Schedule,
    pub(super) reminders: Reminders,
    /// What administrators decide about letters; the sender keeps it open.
    commands: (mpsc::Sender<Command>, mpsc::Receiver<Command>),
}

/// Records of one transaction, and how far each of their partitions is after it.
#[derive(Default)]
struct Batch {
    inputs: Vec<Input>,
    ends: Vec<(Partition, Processed)>,
}

/// What runs once the start is over.
struct Running {
    outbox: Outbox,
    readers: JoinSet<()>,
    sender: mpsc::Sender<Result<Incoming, Outside>>,
    receiver: mpsc::Receiver<Result<Incoming, Outside>>,
    /// Reads that are not wholly applied.
    pending: VecDeque<Incoming>,
    /// Log ends seen when the stop began.
    stop_at: Option<Vec<(Partition, Offset)>>,
    /// Letters that were found at the start and belong to no record were let go.
    has_settled: bool,
}

enum Wake {
    Incoming(Option<Result<Incoming, Outside>>),
    Reader(Option<Result<(), tokio::task::JoinError>>),
    Checkpoint,
    Command(Option<Command>),
    Tick,
    Stop,
}

impl Worker {
    pub(super) fn new(
        parts: Parts,
        outcomes: Arc<Outcomes>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let options = &parts.options;
        let schedule = Schedule::new(options.checkpoint_records, options.checkpoint_interval);
        let commands = mpsc::channel(COMMANDS_MAX);
        for reason in Reason::ALL {
            // An alarm on a rate needs the zero before the first.
            parts.metrics.count_dead_letters(reason.as_str(), 0);
        }
        let (cursors, reminders) = (Cursors::new(), Reminders::default());
        Self { parts, outcomes, progress, cursors, schedule, reminders, commands }
    }

    /// Where decisions about letters are sent to.
    pub(super) fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.0.clone()
    }

    /// Runs until the stop, or until apply cannot go on.
    pub(super) async fn run(mut self) -> Result<(), ApplyError> {
        // However this ends, nobody waits for an outcome any longer.
        let _closing = Closing(Arc::clone(&self.outcomes));
        let outbox = Box::pin(self.start()).await?;
        let Some(outbox) = outbox else { return Ok(()) };
        let (sender, receiver) = mpsc::channel(READS_AHEAD);
        let mut running = Running {
            outbox,
            readers: JoinSet::new(),
            sender,
            receiver,
            pending: VecDeque::new(),
            stop_at: None,
            has_settled: false,
        };
        let partitions: Vec<_> = self.cursors.iter().map(|(p, c)| (*p, c.next)).collect();
        for (partition, next) in partitions {
            self.read(&mut running, partition, next);
        }
        self.tell_progress();
        Box::pin(self.work(&mut running)).await?;
        self.checkpoint(&mut running.outbox).await?;
        info!(topic = %self.parts.options.topic, "apply has stopped");
        Ok(())
    }

    /// Brings up topics, cursors and dead letters; `None` if the stop came first.
    async fn start(&mut self) -> Result<Option<Outbox>, ApplyError> {
        let topic = self.parts.options.topic.clone();
        let dlq = topic.dead_letters().ok_or_else(|| ApplyError::TopicName(topic.clone()))?;
        let started = self.parts.store.start().await?;
        let feed = Arc::clone(&self.parts.feed);
        let shutdown = self.parts.shutdown.clone();
        let names = (topic.clone(), dlq.clone());
        let mut outbox = Outbox::new(Arc::clone(&feed), names, shutdown, &started.outbound);
        let mut back_off = BackOff::new();
        let of_topic = |place: &TopicPartition| place.topic == topic;
        let known = started.processed.keys().filter(|place| of_topic(place)).count();
        loop {
            let found = self.find(&*feed, &dlq, &mut outbox).await;
            let Err(error) = found else { break };
            if back_off.is_first() {
                warn!(%topic, %error, "cannot reach the log, trying again");
            }
            if self.parts.shutdown.has_begun() {
                return Ok(None);
            }
            back_off.wait().await;
        }
        for (place, processed) in started.processed {
            if place.topic == topic {
                self.resume(&place, processed)?;
            }
        }
        outbox.started();
        self.settle_found(&mut outbox).await?;
        if known == 0 && self.parts.options.starts_at_latest {
            for cursor in self.cursors.values_mut() {
                cursor.next = cursor.log_end;
            }
        }
        if known < self.cursors.len() {
            self.mark_partitions(&mut outbox).await?;
        }
        Ok(Some(outbox))
    }

    /// Makes the start of new partitions durable before anything of them is applied: while there
    /// is one, a replay gives each change its old sequence again, and the store must know for sure
    /// that there was only one (see `Store::place`).
    async fn mark_partitions(&mut self, outbox: &mut Outbox) -> Result<(), ApplyError> {
        self.schedule.applied(0);
        self.checkpoint(outbox).await
    }

    /// Creates the topics, and sets every partition's cursor to its start.
    async fn find(
        &mut self,
        feed: &dyn EventLog,
        dlq: &TopicName,
        outbox: &mut Outbox,
    ) -> Result<(), FeedError> {
        let topic = self.parts.options.topic.clone();
        let count = feed.ensure_topic(&topic).await?;
        feed.ensure_topic(dlq).await?;
        for partition in (0..count).filter_map(partition_of) {
            let (start, end) = feed.bounds(&topic, partition).await?;
            self.cursors.insert(partition, Cursor::new(start, end));
        }
        let ends = self.cursors.iter().map(|(partition, cursor)| (*partition, cursor.log_end));
        outbox.find(ends.collect()).await
    }

    fn resume(&mut self, place: &TopicPartition, processed: Processed) -> Result<(), ApplyError> {
        let Some(cursor) = self.cursors.get_mut(&place.partition) else {
            // Topics do not shrink: the log is another one.
            return Err(outside(place, processed.next, (Offset::ZERO, Offset::ZERO)));
        };
        if processed.next < cursor.next || cursor.log_end < processed.next {
            return Err(outside(place, processed.next, (cursor.next, cursor.log_end)));
        }
        cursor.next = processed.next;
        cursor.durable = processed.next;
        cursor.leader_epoch = processed.leader_epoch;
        Ok(())
    }

    /// Of the letters found at the start, keeps those whose records are still to come and those
    /// whose events still wait.
    async fn settle_found(&mut self, outbox: &mut Outbox) -> Result<(), ApplyError> {
        let is_past = |source: &RecordPosition| {
            self.cursors.get(&source.partition).is_some_and(|cursor| source.offset < cursor.next)
        };
        let mut past: Vec<RecordPosition> =
            outbox.known().filter(|s| is_past(s)).cloned().collect();
        if past.is_empty() {
            return Ok(());
        }
        let limit = usize::try_from(plan::WAITING_MAX).unwrap_or(usize::MAX);
        let waiting = self.parts.store.waiting_before(i64::MAX, limit).await?;
        past.retain(|source| {
            !waiting.iter().any(|event| {
                event.source.1 == source.offset && event.source.0.partition == source.partition
            })
        });
        outbox.passed(&past);
        Ok(())
    }

    fn read(&self, running: &mut Running, partition: Partition, next: Offset) {
        let feed = Arc::clone(&self.parts.feed);
        let topic = self.parts.options.topic.clone();
        running.readers.spawn(reader::run(feed, topic, partition, next, running.sender.clone()));
    }

    async fn work(&mut self, running: &mut Running) -> Result<(), ApplyError> {
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.parts.shutdown.clone();
        loop {
            if self.has_reached_stop(running) {
                return Ok(());
            }
            let due = self.schedule.due();
            let Running { readers, receiver, pending, stop_at, .. } = &mut *running;
            let commands = &mut self.commands.1;
            let wake = tokio::select! {
                biased;
                // A due checkpoint and the stop must not wait for a gap in the records.
                () = shutdown.begun(), if stop_at.is_none() => Wake::Stop,
                () = until(due) => Wake::Checkpoint,
                command = commands.recv() => Wake::Command(command),
                _ = tick.tick() => Wake::Tick,
                ended = readers.join_next(), if !readers.is_empty() => {
                    Wake::Reader(ended)
                }
                incoming = next_incoming(pending, receiver) => Wake::Incoming(incoming),
            };
            match wake {
                Wake::Stop => running.stop_at = Some(self.log_ends().await?),
                Wake::Checkpoint => self.checkpoint(&mut running.outbox).await?,
                Wake::Command(command) => {
                    let command = command.expect("the worker holds a sender itself");
                    self.obey(command, &mut running.outbox).await?;
                }
                Wake::Tick => self.tick(running).await?,
                Wake::Reader(ended) => reader_ended(ended),
                Wake::Incoming(incoming) => {
                    let incoming = incoming.expect("the worker holds a sender itself");
                    running.pending.push_back(incoming.map_err(|outside| self.outside(&outside))?);
                    let batch = self.take_batch(running)?;
                    self.apply(&batch, &mut running.outbox).await?;
                }
            }
        }
    }

    fn has_reached_stop(&self, running: &Running) -> bool {
        running.stop_at.as_ref().is_some_and(|ends| {
            ends.iter().all(|(partition, end)| {
                self.cursors.get(partition).is_none_or(|cursor| *end <= cursor.next)
            })
        })
    }

    fn outside(&self, outside: &Outside) -> ApplyError {
        let topic = self.parts.options.topic.clone();
        let place = TopicPartition { topic, partition: outside.partition };
        self::outside(&place, outside.asked, (outside.start, outside.end))
    }

    async fn log_ends(&self) -> Result<Vec<(Partition, Offset)>, FeedError> {
        let mut ends = Vec::with_capacity(self.cursors.len());
        for partition in self.cursors.keys() {
            let bounds = self.parts.feed.bounds(&self.parts.options.topic, *partition).await?;
            ends.push((*partition, bounds.1));
        }
        Ok(ends)
    }

    /// All that waits, up to a transaction's bound.
    fn take_batch(&self, running: &mut Running) -> Result<Batch, ApplyError> {
        let mut batch = Batch::default();
        loop {
            while let Some(incoming) = running.pending.pop_front() {
                let room = RECORDS_PER_COMMIT_MAX - batch.inputs.len();
                if let Some(left) = batch.add(incoming, room) {
                    running.pending.push_front(left);
                    return Ok(batch);
                }
            }
            // Empty or ended: the ends of readers are seen where they are joined.
            let Ok(incoming) = running.receiver.try_recv() else { return Ok(batch) };
            running.pending.push_back(incoming.map_err(|outside| self.outside(&outside))?);
        }
    }

    /// Applies a batch. A full disk is tried again for ever, until the daemon stops.
    async fn apply(&mut self, batch: &Batch, outbox: &mut Outbox) -> Result<(), ApplyError> {
        let keys = plan::keys_of(&batch.inputs);
        let mut back_off = BackOff::new();
        while let Err(error) = self.try_apply(batch, &keys, outbox).await {
            self.endure(error, &mut back_off).await?;
        }
        let records = u64::try_from(batch.inputs.len()).expect("fits in memory");
        self.parts.metrics.apply_records.inc_by(records);
        self.schedule.applied(records);
        self.tell_progress();
        if self.schedule.is_due() {
            self.checkpoint(outbox).await?;
        }
        Ok(())
    }

    async fn try_apply(
        &mut self,
        batch: &Batch,
        keys: &LoadKeys,
        outbox: &mut Outbox,
    ) -> Result<(), ApplyError> {
        let loaded = self.parts.store.load(keys).await?;
        let mut plan = {
            let context = Context {
                first_sequence: self.parts.store.head().sequence + 1,
                now_ms: self.parts.clock.now_ms(),
                is_published: &|letter| outbox.has(letter),
            };
            plan::plan(loaded, &batch.inputs, &context)
        };
        let topic = &self.parts.options.topic;
        let place = |partition| TopicPartition { topic: topic.clone(), partition };
        plan.writes.processed = batch.ends.iter().map(|(p, end)| (place(*p), *end)).collect();
        self.commit(plan, outbox).await?;
        for (partition, processed) in &batch.ends {
            if let Some(cursor) = self.cursors.get_mut(partition) {
                cursor.moved(*processed);
                let (next, durable) = (cursor.next, cursor.durable);
                let topic = &self.parts.options.topic;
                self.parts.feed.report_progress(topic, *partition, next, durable);
            }
        }
        Ok(())
    }

    /// Publishes a plan's dead letters, commits it, and then tells about it.
    async fn commit(&mut self, plan: Plan, outbox: &mut Outbox) -> Result<(), ApplyError> {
        let Plan { mut writes, letters, published, settled, counts, is_immediate } = plan;
        outbox.publish(&letters).await?;
        let passed: Vec<_> = letters.iter().map(|letter| letter.source.clone()).collect();
        if !letters.is_empty() {
            let now_ms = self.parts.clock.now_ms();
            let placed =
                |letter: &Letter| Some((outbox.place_of(letter)?, letter.to_stored(now_ms)));
            writes.letters = letters.iter().filter_map(placed).collect();
            writes.outbound = outbox.passing(&passed);
        }
        let durability = if is_immediate {
            self.sync_log(outbox).await?;
            CommitDurability::Immediate
        } else {
            CommitDurability::Deferred
        };
        let expected = published.first().map(|change| change.sequence);
        let first = self.parts.store.commit(writes, durability).await?;
        if expected.is_some_and(|expected| expected != first) {
            error!(first, ?expected, "the store gave a change another sequence than planned");
        }
        outbox.passed(&passed);
        let metrics = &self.parts.metrics;
        let count = |length: usize| u64::try_from(length).expect("fits in memory");
        metrics.apply_changes.inc_by(count(published.len()));
        for letter in &letters {
            metrics.count_dead_letters(letter.reason.as_str(), 1);
        }
        metrics.apply_duplicates.inc_by(counts.duplicates);
        metrics.apply_refused.inc_by(counts.refused);
        metrics.apply_ignored.inc_by(counts.ignored);
        if !published.is_empty() {
            (self.parts.publish)(published);
        }
        self.outcomes.settle(settled);
        Ok(())
    }

    /// Waits after an error that ends by itself; others, and the stop, end apply.
    async fn endure(&self, error: ApplyError, back_off: &mut BackOff) -> Result<(), ApplyError> {
        if !matches!(error, ApplyError::Store(StoreError::Full(_))) {
            return Err(error);
        }
        if self.parts.shutdown.has_begun() {
            return Err(error);
        }
        if back_off.is_first() {
            let error: &dyn std::error::Error = &error;
            warn!(error, "the store is full, trying again");
        }
        back_off.wait().await;
        Ok(())
    }

    /// Notes what an administrator has decided, durably.
    async fn obey(&mut self, command: Command, outbox: &mut Outbox) -> Result<(), ApplyError> {
        // A letter that was sent again must not be lost where its state is kept.
        self.sync_log(outbox).await?;
        let Command { states, done } = command;
        let writes = WriteSet { letter_states: states, ..WriteSet::default() };
        let noted = match self.parts.store.commit(writes, CommitDurability::Immediate).await {
            Ok(_) => Ok(()),
            // Of this one decision; the store goes on.
            Err(error @ (StoreError::Full(_) | StoreError::Damaged { .. })) => Err(error),
            Err(error) => return Err(error.into()),
        };
        // Whoever stopped waiting finds the state in the store.
        drop(done.send(noted));
        self.tell_progress();
        Ok(())
    }

    /// Syncs the log up to where the store is, so that the store is never durable beyond it. Errors
    /// are tried again for ever, until the daemon stops.
    async fn sync_log(&self, outbox: &mut Outbox) -> Result<(), FeedError> {
        // Records before their letters: there is no letter of a record that is lost.
        let topic = &self.parts.options.topic;
        let records = self.cursors.keys().map(|partition| (topic.clone(), *partition));
        for (topic, partition) in records.chain(outbox.unsynced()) {
            let mut back_off = BackOff::new();
            while let Err(error) = self.parts.feed.sync(&topic, partition).await {
                if back_off.is_first() {
                    warn!(%topic, %partition, %error, "cannot sync the log, trying again");
                }
                if self.parts.shutdown.has_begun() {
                    return Err(error);
                }
                back_off.wait().await;
            }
        }
        outbox.synced();
        Ok(())
    }

    /// Makes all that is applied durable, and lets the log go of it.
    async fn checkpoint(&mut self, outbox: &mut Outbox) -> Result<(), ApplyError> {
        if self.schedule.due().is_none() {
            return Ok(());
        }
        self.sync_log(outbox).await?;
        self.trim().await?;
        let mut back_off = BackOff::new();
        loop {
            let mut writes = self.marks(outbox);
            writes.letter_trim = self.letter_trim(outbox).await;
            let committed = self.parts.store.commit(writes, CommitDurability::Immediate).await;
            let Err(error) = committed else { break };
            self.endure(error.into(), &mut back_off).await?;
        }
        self.schedule.taken();
        let topic = &self.parts.options.topic;
        for (partition, cursor) in &mut self.cursors {
            cursor.durable = cursor.next;
            self.parts.feed.report_progress(topic, *partition, cursor.next, cursor.durable);
        }
        Ok(())
    }

    /// Where everything stands, for a commit of its own.
    fn marks(&self, outbox: &Outbox) -> WriteSet {
        let topic = &self.parts.options.topic;
        let processed = self.cursors.iter().map(|(partition, cursor)| {
            let place = TopicPartition { topic: topic.clone(), partition: *partition };
            (place, Processed { next: cursor.next, leader_epoch: cursor.leader_epoch })
        });
        let processed = processed.collect();
        WriteSet { processed, outbound: outbox.marks(), ..WriteSet::default() }
    }

    /// Right before a checkpoint's commit, which makes it durable before anything is loaded: an
    /// event whose id is forgotten is forgotten in a replay, too.
    async fn trim(&self) -> Result<(), ApplyError> {
        if !self.progress.borrow().is_caught_up {
            return Ok(());
        }
        for _ in 0..TRIMS_PER_CHECKPOINT_MAX {
            match self.parts.store.trim(self.parts.clock.now_ms()).await {
                Ok(0) => break,
                Ok(_) => (),
                // Tried again after the next checkpoint.
                Err(StoreError::Full(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Which letters go; none before the log has been read again after a start, as in `trim`.
    async fn letter_trim(&self, outbox: &Outbox) -> Option<LetterTrim> {
        if !self.progress.borrow().is_caught_up {
            return None;
        }
        let keep_ms = i64::try_from(ENDED_LETTERS_KEEP.as_millis()).unwrap_or(i64::MAX);
        let ended_since_ms = self.parts.clock.now_ms().saturating_sub(keep_ms);
        Some(LetterTrim { log_starts: outbox.log_starts().await, ended_since_ms })
    }

    async fn tick(&mut self, running: &mut Running) -> Result<(), ApplyError> {
        self.look_for_partitions(running).await?;
        // While the log is down its ends stay as they were seen last.
        if let Ok(ends) = self.log_ends().await {
            for (partition, end) in ends {
                if let Some(cursor) = self.cursors.get_mut(&partition) {
                    cursor.log_end = end;
                }
            }
        }
        if self.progress.borrow().is_caught_up {
            if !mem::replace(&mut running.has_settled, true) {
                // What is left says that it is a letter, and is none.
                self.settle_found(&mut running.outbox).await?;
            }
            self.expire(&mut running.outbox).await?;
            if running.stop_at.is_none() {
                self.remind().await?;
            }
        }
        self.tell_progress();
        Ok(())
    }

    /// Partitions only grow; a new one is read from its start.
    async fn look_for_partitions(&mut self, running: &mut Running) -> Result<(), ApplyError> {
        let topic = self.parts.options.topic.clone();
        let count = self.parts.feed.partition_count(&topic);
        for partition in (0..count).filter_map(partition_of) {
            if self.cursors.contains_key(&partition) {
                continue;
            }
            // Not there yet in every sense: the next tick looks again.
            let Ok((start, end)) = self.parts.feed.bounds(&topic, partition).await else { break };
            info!(%topic, %partition, "new partition");
            self.cursors.insert(partition, Cursor::new(start, end));
            self.mark_partitions(&mut running.outbox).await?;
            self.read(running, partition, start);
        }
        Ok(())
    }

    /// Ends the wait of events whose tasks did not come. Not before the log has been read again
    /// after a start: a task that came once must not be missed the second time.
    async fn expire(&mut self, outbox: &mut Outbox) -> Result<(), ApplyError> {
        let waiting_timeout = self.parts.options.waiting_timeout.as_millis();
        let wait_ms = i64::try_from(waiting_timeout).unwrap_or(i64::MAX);
        let before_ms = self.parts.clock.now_ms().saturating_sub(wait_ms);
        let expired = self.parts.store.waiting_before(before_ms, EXPIRED_PER_COMMIT_MAX).await?;
        if expired.is_empty() {
            return Ok(());
        }
        let mut tasks: Vec<_> = expired.into_iter().map(|event| event.task_id).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let keys = LoadKeys { tasks, events: Vec::new() };
        let mut back_off = BackOff::new();
        loop {
            let expiring = self.try_expire(&keys, before_ms, outbox).await;
            let Err(error) = expiring else { return Ok(()) };
            self.endure(error, &mut back_off).await?;
        }
    }

    /// In two commits: that the wait is over, which wall time decides, is durable before anybody
    /// sees a letter of it.
    async fn try_expire(
        &mut self,
        keys: &LoadKeys,
        before_ms: i64,
        outbox: &mut Outbox,
    ) -> Result<(), ApplyError> {
        let loaded = self.parts.store.load(keys).await?;
        if let Some(plan) = plan::plan_expiry(loaded, before_ms) {
            self.commit(plan, outbox).await?;
        }
        let loaded = self.parts.store.load(keys).await?;
        self.commit(plan::plan_expired(loaded), outbox).await
    }

    fn tell_progress(&self) {
        let lag_records = self.cursors.values().map(Cursor::lag).sum();
        let is_caught_up = self.cursors.values().all(Cursor::is_caught_up);
        let metrics = &self.parts.metrics;
        metrics.apply_lag_records.set(i64::try_from(lag_records).unwrap_or(i64::MAX));
        let head = self.parts.store.head().sequence;
        let store = self.parts.store.stats();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.apply_waiting.set(gauge(store.waiting));
        metrics.apply_waiting_bytes.set(gauge(store.waiting_bytes));
        metrics.dead_letters_open.set(gauge(store.letters_open));
        self.progress.send_if_modified(|progress| {
            // Once reached, the start's log end stays reached, whatever partitions come.
            let is_caught_up = is_caught_up || progress.is_caught_up;
            let now = Progress { is_caught_up, lag_records, head };
            mem::replace(progress, now) != now
        });
    }
}

impl Batch {
    /// Takes up to `room` records of a read; returns the rest, if any.
    fn add(&mut self, mut incoming: Incoming, room: usize) -> Option<Incoming> {
        let Incoming { partition, leader_epoch, .. } = incoming;
        if incoming.inputs.len() <= room {
            self.inputs.append(&mut incoming.inputs);
            self.end(partition, Processed { next: incoming.next, leader_epoch });
            return None;
        }
        let rest = incoming.inputs.split_off(room);
        if let (Some(first_left), true) = (rest.first(), room > 0) {
            self.end(partition, Processed { next: first_left.offset(), leader_epoch });
            self.inputs.append(&mut incoming.inputs);
        }
        Some(Incoming { inputs: rest, ..incoming })
    }

    fn end(&mut self, partition: Partition, end: Processed) {
        match self.ends.iter_mut().find(|(known, _)| *known == partition) {
            Some(known) => known.1 = end,
            None => self.ends.push((partition, end)),
        }
    }
}

/// Ends all waiting for outcomes when the worker ends, also by a panic.
struct Closing(Arc<Outcomes>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What is pending first, then what the readers send. Cancel safe.
async fn next_incoming(
    pending: &mut VecDeque<Incoming>,
    receiver: &mut mpsc::Receiver<Result<Incoming, Outside>>,
) -> Option<Result<Incoming, Outside>> {
    if let Some(pending) = pending.pop_front() {
        return Some(Ok(pending));
    }
    receiver.recv().await
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn reader_ended(ended: Option<Result<(), tokio::task::JoinError>>) {
    // A reader that found itself outside the log has sent why. One that panicked would leave its
    // partition behind in silence: the worker ends with it, and the daemon with the worker.
    if let Some(Err(failed)) = ended
        && failed.is_panic()
    {
        std::panic::resume_unwind(failed.into_panic());
    }
}

fn outside(place: &TopicPartition, processed: Offset, bounds: (Offset, Offset)) -> ApplyError {
    ApplyError::OutsideLog {
        topic: place.topic.clone(),
        partition: place.partition.get(),
        processed: processed.get(),
        start: bounds.0.get(),
        end: bounds.1.get(),
    }
}
