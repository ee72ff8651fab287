//! The owner of every group: takes commands, keeps the timers, carries out effects.

use super::{
    Command, CommitResult, Committer, Facts, FetchedOffsets, LeaveResults, ListedGroup, NewOffset,
    OffsetStore, Options, Reply, answer,
    lane::{self, Job, Lane, Offsets, Pending, Write},
    reserved,
};
use crate::{
    broker::{
        group::{
            Description, Effect, Group, Identity, JoinRefused, JoinReply, JoinRequest, State,
            SyncReply, SyncRequest, Ticket,
        },
        meta::{CommittedOffset, MetaError},
    },
    clock::{Clock, TimestampMs},
    position::{TopicName, TopicPartition},
    wire::ErrorCode,
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

struct Entry {
    group: Group,
    offsets: Offsets,
    lane: Lane,
    /// When its timer fires; the same is in `Worker::timers`.
    timer: Option<Duration>,
    /// What `Worker::bytes` counts of it.
    bytes: usize,
    /// Wall time since when it has no members; `None` while it has.
    empty_since_ms: Option<TimestampMs>,
}

/// A group and what became of its write.
type Written = (Arc<str>, Result<(), MetaError>);

enum Waiter {
    Join(Reply<JoinReply>),
    Sync(Reply<SyncReply>),
}

pub(super) struct Worker<S> {
    options: Options,
    store: S,
    clock: Clock,
    facts: Facts,
    started: Instant,
    next_retention: Duration,
    groups: BTreeMap<Arc<str>, Entry>,
    timers: BTreeSet<(Duration, Arc<str>)>,
    waiters: HashMap<Ticket, Waiter>,
    last_ticket: u64,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
    pending: Pending,
    /// Of members, in all groups.
    bytes: usize,
    /// Of committed offsets, in all groups.
    offset_bytes: usize,
}

enum Event {
    Command(Option<Command>),
    Written(Option<Written>),
    Timer,
}

impl<S: OffsetStore> Worker<S> {
    pub(super) fn new(options: Options, store: S, clock: Clock, facts: Facts) -> Self {
        Self {
            next_retention: options.retention_check,
            options,
            store,
            clock,
            facts,
            started: Instant::now(),
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            waiters: HashMap::new(),
            last_ticket: 0,
            writes: FuturesUnordered::new(),
            pending: Pending::default(),
            bytes: 0,
            offset_bytes: 0,
        }
    }

    /// Takes over the offsets of an earlier run. Each group counts as empty since its newest sign
    /// of life, however often the daemon starts.
    pub(super) fn load(&mut self, offsets: Vec<(String, TopicPartition, CommittedOffset)>) {
        let mut gone: BTreeMap<Arc<str>, Vec<TopicPartition>> = BTreeMap::new();
        for (group, at, committed) in offsets {
            if group == self.options.reserved_group {
                continue;
            }
            let group: Arc<str> = Arc::from(group);
            if !(self.facts.has_partition)(&at) {
                gone.entry(group).or_default().push(at);
                continue;
            }
            let entry = self.entry(group);
            let seen_ms = committed.committed_at_ms.saturating_add(SIGN_OF_LIFE_MS);
            let before = if entry.offsets.is_empty() { None } else { entry.empty_since_ms };
            entry.empty_since_ms = before.max(Some(seen_ms));
            entry.offsets.insert(at, committed);
        }
        self.offset_bytes = self.groups.values().map(|entry| entry.offsets.bytes()).sum();
        for (group, partitions) in gone {
            info!(%group, offsets = partitions.len(), "offsets of deleted topics are dropped");
            self.write(&group, Write::Forget(partitions));
        }
    }

    /// Runs until the last handle is dropped, and then until the writes are done.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            let timer = self.started + self.next_timer();
            let event = tokio::select! {
                command = inbox.recv() => Event::Command(command),
                written = self.writes.next(), if !self.writes.is_empty() => Event::Written(written),
                () = sleep_until(timer) => Event::Timer,
            };
            match event {
                Event::Command(Some(command)) => self.obey(command),
                Event::Command(None) => break,
                Event::Written(written) => self.finish_write(written),
                Event::Timer => self.expire(),
            }
        }
        while let Some(written) = self.writes.next().await {
            self.finish_write(Some(written));
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Join(group, request, reply) => self.join(&group, request, reply),
            Command::Sync(group, request, reply) => self.sync(&group, request, reply),
            Command::Heartbeat(group, member, reply) => {
                answer(reply, self.heartbeat(&group, &member));
            }
            Command::Leave(group, leavers, reply) => {
                answer(reply, Ok(self.leave(&group, &leavers)));
            }
            Command::Commit(group, committer, offsets, reply) => {
                self.commit(&group, &committer, (offsets, reply));
            }
            Command::Fetch(group, partitions, reply) => {
                answer(reply, self.fetch(&group, partitions));
            }
            Command::Describe(group, reply) => answer(reply, self.describe(&group)),
            Command::List(reply) => answer(reply, self.list()),
            Command::Delete(group, reply) => self.delete(&group, reply),
            Command::Forget(topic) => self.forget(&topic),
        }
    }

    fn join(&mut self, group: &Arc<str>, request: JoinRequest, reply: Reply<JoinReply>) {
        if let Err(error) = self.admit_join(group, &request) {
            let member_id = Arc::from(request.identity.member_id.as_str());
            answer(reply, Err(JoinRefused { error, member_id }));
            return;
        }
        let now = self.now();
        let ticket = self.ticket(Waiter::Join(reply));
        let entry = self.entry(group.clone());
        let effects = entry.group.join(ticket, request, now);
        self.carry_out(effects);
        self.after_event(group);
    }

    /// What can be said without the group: bounds, and that only a new member founds a group.
    fn admit_join(&mut self, group: &Arc<str>, request: &JoinRequest) -> Result<(), ErrorCode> {
        let asked: usize = request.protocols.iter().map(|p| p.metadata.len()).sum();
        if self.bytes.saturating_add(asked) > self.options.bytes_max {
            warn!(%group, bytes = self.bytes, "groups hold too much, join refused");
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        if self.groups.contains_key(group) {
            return Ok(());
        }
        if !request.identity.member_id.is_empty() {
            return Err(ErrorCode::UnknownMemberId);
        }
        if self.has_room_for_group() { Ok(()) } else { Err(ErrorCode::GroupMaxSizeReached) }
    }

    fn sync(&mut self, group: &Arc<str>, request: SyncRequest, reply: Reply<SyncReply>) {
        if !self.groups.contains_key(group) {
            answer(reply, Err(ErrorCode::UnknownMemberId));
            return;
        }
        let asked: usize = request.assignments.iter().map(|(_, bytes)| bytes.len()).sum();
        if self.bytes.saturating_add(asked) > self.options.bytes_max {
            warn!(%group, bytes = self.bytes, "groups hold too much, assignment refused");
            // As for an assignment that is too large for its group.
            answer(reply, Err(ErrorCode::UnknownServerError));
            return;
        }
        let now = self.now();
        let ticket = self.ticket(Waiter::Sync(reply));
        let effects = self.entry(group.clone()).group.sync(ticket, request, now);
        self.carry_out(effects);
        self.after_event(group);
    }

    fn heartbeat(&mut self, group: &Arc<str>, member: &Committer) -> Result<(), ErrorCode> {
        let now = self.now();
        let entry = self.groups.get_mut(group).ok_or(ErrorCode::UnknownMemberId)?;
        // No look at the timer: a heartbeat only moves deadlines away, and an early timer finds
        // nothing to do.
        entry.group.heartbeat(&member.identity, member.generation, now)
    }

    fn leave(&mut self, group: &Arc<str>, leavers: &[Identity]) -> LeaveResults {
        let now = self.now();
        let Some(entry) = self.groups.get_mut(group) else {
            return leavers.iter().map(|_| Err(ErrorCode::UnknownMemberId)).collect();
        };
        let (results, effects) = entry.group.leave(leavers, now);
        self.carry_out(effects);
        self.after_event(group);
        results
    }

    fn commit(
        &mut self,
        group: &Arc<str>,
        committer: &Committer,
        (offsets, reply): (Vec<(TopicPartition, NewOffset)>, Reply<CommitResult>),
    ) {
        let bytes = offsets.iter().map(|(at, new)| lane::cost(at, &new.metadata)).sum();
        if let Err(error) = self.admit_commit(group, committer, bytes) {
            answer(reply, Err(error));
            return;
        }
        let committed_at_ms = self.clock.now_ms();
        let stamped = offsets.into_iter().map(|(at, new)| {
            let NewOffset { offset, leader_epoch, metadata } = new;
            (at, CommittedOffset { offset, leader_epoch, metadata, committed_at_ms })
        });
        // Of a topic that went a moment ago: as if it had come a moment before.
        let offsets = stamped.filter(|(at, _)| (self.facts.has_partition)(at)).collect();
        self.write_commit(group, offsets, reply);
    }

    fn write_commit(
        &mut self,
        group: &Arc<str>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
        reply: Reply<CommitResult>,
    ) {
        self.pending.commits += 1;
        self.pending.bytes += lane::cost_of(&offsets);
        self.write(group, Write::Commit(offsets, reply));
    }

    fn admit_commit(
        &mut self,
        group: &Arc<str>,
        committer: &Committer,
        bytes: usize,
    ) -> Result<(), ErrorCode> {
        let pending = &self.pending;
        let bytes = pending.bytes.saturating_add(bytes);
        if pending.commits >= self.options.commits_pending_max
            || bytes > self.options.commit_bytes_pending_max
        {
            warn!(%group, pending = pending.commits, "too many commits wait, one refused");
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if self.offset_bytes.saturating_add(bytes) > self.options.offset_bytes_max {
            warn!(%group, bytes = self.offset_bytes, "offsets hold too much, a commit refused");
            return Err(ErrorCode::PolicyViolation);
        }
        let now = self.now();
        if let Some(entry) = self.groups.get_mut(group) {
            let generation = committer.generation;
            return entry.group.check_commit(&committer.identity, generation, now);
        }
        if committer.generation >= 0 {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.has_room_for_group() { Ok(()) } else { Err(ErrorCode::PolicyViolation) }
    }

    fn fetch(&self, group: &str, partitions: Option<Vec<TopicPartition>>) -> FetchedOffsets {
        if group == self.options.reserved_group {
            return reserved::fetch(
                partitions,
                &self.facts.progress.snapshot(),
                self.clock.now_ms(),
            );
        }
        let offsets = self.groups.get(group).map(|entry| &entry.offsets);
        match partitions {
            Some(partitions) => {
                let committed = |at: &TopicPartition| offsets.and_then(|all| all.get(at)).cloned();
                partitions.into_iter().map(|at| (at.clone(), committed(&at))).collect()
            }
            None => {
                let all = offsets.into_iter().flat_map(Offsets::iter);
                all.map(|(at, committed)| (at.clone(), Some(committed.clone()))).collect()
            }
        }
    }

    fn describe(&self, group: &str) -> Description {
        if group == self.options.reserved_group {
            return reserved::describe(group, &self.facts.progress.snapshot());
        }
        self.groups.get(group).map_or_else(
            || Description {
                state: State::Dead,
                protocol_type: String::new(),
                protocol: String::new(),
                members: Vec::new(),
            },
            |entry| entry.group.describe(),
        )
    }

    fn list(&self) -> Vec<ListedGroup> {
        let others = self.groups.iter().map(|(id, entry)| ListedGroup {
            group: id.as_ref().to_owned(),
            protocol_type: entry.group.protocol_type().map(|t| t.to_string()).unwrap_or_default(),
            state: entry.group.state().name(),
        });
        let mut all: Vec<_> =
            others.chain([reserved::list(&self.options.reserved_group)]).collect();
        all.sort_by(|a, b| a.group.cmp(&b.group));
        all
    }

    fn delete(&mut self, group: &Arc<str>, reply: Reply<CommitResult>) {
        match self.groups.get(group).map(|entry| entry.group.state()) {
            None => answer(reply, Err(ErrorCode::GroupIdNotFound)),
            Some(State::Empty) => self.write(group, Write::DeleteAll(reply)),
            Some(_) => answer(reply, Err(ErrorCode::NonEmptyGroup)),
        }
    }

    fn forget(&mut self, topic: &TopicName) {
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(entry) = self.groups.get(&id) else { continue };
            let has_some = entry.offsets.iter().any(|(at, _)| at.topic == *topic);
            // What waits for the disk may be of this topic, too.
            if has_some || !entry.lane.is_empty() {
                self.write(&id, Write::ForgetTopic(topic.clone()));
            }
        }
    }

    fn write(&mut self, group: &Arc<str>, write: Write) {
        self.entry(group.clone()).lane.push(write);
        self.begin_write(group);
    }

    fn begin_write(&mut self, group: &Arc<str>) {
        let Some(entry) = self.groups.get_mut(group) else { return };
        let Some(job) = entry.lane.next_job(&entry.offsets) else { return };
        let (store, group) = (self.store.clone(), group.clone());
        self.writes.push(Box::pin(async move {
            let result = match job {
                Job::Commit(offsets) => store.commit(group.clone(), offsets).await,
                Job::Delete(partitions) => store.delete(group.clone(), partitions).await,
            };
            (group, result)
        }));
    }

    fn finish_write(&mut self, written: Option<Written>) {
        let Some((group, result)) = written else { return };
        let result = result.map_err(|error| {
            warn!(%group, %error, "offsets not written");
            // Retriable for clients: the broker that comes back may have a disk again.
            ErrorCode::CoordinatorNotAvailable
        });
        let Some(entry) = self.groups.get_mut(&group) else { return };
        let before = entry.offsets.bytes();
        let done = entry.lane.finish(result, &mut entry.offsets);
        self.offset_bytes = self.offset_bytes - before + entry.offsets.bytes();
        self.pending.commits -= done.commits;
        self.pending.bytes -= done.bytes;
        self.begin_write(&group);
        self.drop_if_unused(&group);
    }

    /// Fires every timer that is due.
    fn expire(&mut self) {
        let now = self.now();
        while let Some((at, group)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(entry) = self.groups.get_mut(&group) else { continue };
            entry.timer = None;
            let effects = entry.group.expire(now);
            self.carry_out(effects);
            self.after_event(&group);
        }
        if self.next_retention <= now {
            self.next_retention = now.saturating_add(self.options.retention_check);
            self.expire_offsets();
        }
    }

    /// Drops the offsets of groups that have been empty for longer than the retention time.
    fn expire_offsets(&mut self) {
        let retention_ms =
            i64::try_from(self.options.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = self.clock.now_ms().saturating_sub(retention_ms);
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            self.drop_if_unused(&id);
            let Some(entry) = self.groups.get(&id) else { continue };
            // A write under way could be for the very partition.
            if !entry.lane.is_empty() {
                continue;
            }
            if !entry.group.is_deserted() {
                self.note_life(&id);
                continue;
            }
            if entry.empty_since_ms.is_none_or(|since| since >= oldest_ms) {
                continue;
            }
            let old = entry.offsets.iter().filter(|(_, old)| old.committed_at_ms < oldest_ms);
            let partitions: Vec<TopicPartition> = old.map(|(at, _)| at.clone()).collect();
            if !partitions.is_empty() {
                info!(group = %id, offsets = partitions.len(), "offsets expired");
                self.write(&id, Write::Forget(partitions));
            }
        }
    }

    /// Leaves a durable sign that a group lives whose members had nothing to commit for long: its
    /// newest offset again, with the time of now. A later start counts from it.
    fn note_life(&mut self, group: &Arc<str>) {
        let Some(entry) = self.groups.get(group) else { return };
        let newest = entry.offsets.iter().max_by_key(|(_, offset)| offset.committed_at_ms);
        let Some((at, offset)) = newest else { return };
        let committed_at_ms = self.clock.now_ms();
        if offset.committed_at_ms > committed_at_ms.saturating_sub(SIGN_OF_LIFE_MS) {
            return;
        }
        let again = (at.clone(), CommittedOffset { committed_at_ms, ..offset.clone() });
        // Nobody waits: a failure is logged with the write, and the next check tries again.
        let (reply, _) = oneshot::channel();
        self.write_commit(group, vec![again], reply);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Join(ticket, reply) => {
                    if let Some(Waiter::Join(waiter)) = self.waiters.remove(&ticket) {
                        answer(waiter, reply);
                    }
                }
                Effect::Sync(ticket, reply) => {
                    if let Some(Waiter::Sync(waiter)) = self.waiters.remove(&ticket) {
                        answer(waiter, reply);
                    }
                }
            }
        }
    }

    /// Follows what an event did to a group: its timer, its bytes, since when it is empty.
    fn after_event(&mut self, group: &Arc<str>) {
        let now_ms = self.clock.now_ms();
        let Some(entry) = self.groups.get_mut(group) else { return };
        let deadline = entry.group.next_deadline();
        if entry.timer != deadline {
            if let Some(old) = entry.timer {
                self.timers.remove(&(old, group.clone()));
            }
            self.timers.extend(deadline.map(|at| (at, group.clone())));
            entry.timer = deadline;
        }
        self.bytes = self.bytes - entry.bytes + entry.group.bytes();
        entry.bytes = entry.group.bytes();
        if entry.group.state() != State::Empty {
            entry.empty_since_ms = None;
        } else if entry.empty_since_ms.is_none() {
            entry.empty_since_ms = Some(now_ms);
        }
    }

    fn entry(&mut self, group: Arc<str>) -> &mut Entry {
        let (limits, now_ms) = (self.options.group, self.clock.now_ms());
        self.groups.entry(group).or_insert_with(|| Entry {
            group: Group::new(limits),
            offsets: Offsets::default(),
            lane: Lane::default(),
            timer: None,
            bytes: 0,
            empty_since_ms: Some(now_ms),
        })
    }

    fn has_room_for_group(&mut self) -> bool {
        if self.groups.len() >= self.options.groups_max {
            // Ids that were given out and not used yet count for nothing: who comes back with one
            // is told to begin anew. Timers of a group that is gone find nothing.
            let mut freed = 0;
            self.groups.retain(|_, entry| {
                let is_kept = entry.is_of_use();
                freed += if is_kept { 0 } else { entry.bytes };
                is_kept
            });
            self.bytes -= freed;
        }
        let has_room = self.groups.len() < self.options.groups_max;
        if !has_room {
            warn!(groups = self.groups.len(), "too many groups, a new one refused");
        }
        has_room
    }

    fn drop_if_unused(&mut self, group: &Arc<str>) {
        if self.groups.get(group).is_some_and(Entry::is_unused) {
            self.groups.remove(group);
        }
    }

    fn ticket(&mut self, waiter: Waiter) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.waiters.insert(ticket, waiter);
        ticket
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn next_timer(&self) -> Duration {
        let group = self.timers.first().map(|(at, _)| *at);
        group.map_or(self.next_retention, |at| at.min(self.next_retention))
    }
}

impl Entry {
    /// Nobody is in it and it keeps nothing. It has no timer then.
    fn is_unused(&self) -> bool {
        self.group.is_deserted() && !self.is_of_use()
    }

    /// It has members, or keeps something.
    fn is_of_use(&self) -> bool {
        self.group.has_members() || !self.offsets.is_empty() || !self.lane.is_empty()
    }
}

/// How often a group that has members and commits nothing leaves a sign of life. Its offsets may
/// be kept for that much longer.
const SIGN_OF_LIFE_MS: i64 = 60 * 60 * 1000;
