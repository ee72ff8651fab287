//! Plans a batch in memory: what the store knows plus records gives one write set, dead letters,
//! messages and outcomes. Pure, but for the wall time at which an event begins to wait.

use super::{
    letter::Letter,
    message::{Data, message},
    outcome::Settled,
    reader::{Decoded, Input},
    waiting,
};
use crate::{
    feed::FeedRecord,
    hub::PublishedChange,
    position::{RecordPosition, TopicPartition},
    store::{KnownEvent, LoadKeys, Loaded, NewChange, Outcome, WaitingEvent, WriteSet},
    task::{
        TaskId, UserId,
        event::{Action, EventBody, EventId, TaskEvent},
        transition::{self, Change, Reason, Rejected, TaskState},
    },
};
use bytes::Bytes;
use std::collections::{HashMap, HashSet, hash_map::Entry};

/// Most events that wait for their tasks.
pub const WAITING_MAX: u64 = 10_000;
/// Most bytes of their records, together.
pub const WAITING_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// When an event began to wait whose wait is over: that it is must be durable before its letter is
/// seen, for wall time decided it and nothing in the log tells it again.
pub(super) const EXPIRED_SINCE_MS: i64 = i64::MIN;

/// What surrounds a batch.
pub struct Context<'a> {
    /// The sequence of the first change.
    pub first_sequence: u64,
    /// Wall time, for events that begin to wait.
    pub now_ms: i64,
    /// Tells whether this very letter was published before.
    pub is_published: &'a (dyn Fn(&Letter) -> bool + Send + Sync),
}

/// What a batch does.
#[derive(Debug, Default)]
pub struct Plan {
    /// For the store; offsets are still to be added.
    pub writes: WriteSet,
    /// For the dead-letter topic.
    pub letters: Vec<Letter>,
    /// For the hub.
    pub published: Vec<PublishedChange>,
    pub(super) settled: Vec<Settled>,
    pub(super) counts: Counts,
    /// The commit must be durable before its effect is seen.
    pub(super) is_immediate: bool,
}

/// What happened how often.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) duplicates: u64,
    pub(super) refused: u64,
    pub(super) ignored: u64,
}

/// What the store must be asked for before a batch is planned.
pub fn keys_of(inputs: &[Input]) -> LoadKeys {
    let (mut tasks, mut events) = (HashSet::new(), HashSet::new());
    for input in inputs {
        let Input::Record(Decoded { event: Ok(event), .. }) = input else { continue };
        tasks.extend(event.body.task_id());
        events.extend(event.event_id.as_ref());
    }
    LoadKeys {
        tasks: tasks.into_iter().cloned().collect(),
        events: events.into_iter().cloned().collect(),
    }
}

/// Plans a batch. `loaded` is what the store knows of [`keys_of`] the batch.
pub fn plan(loaded: Loaded, inputs: &[Input], context: &Context<'_>) -> Plan {
    let mut planner = Planner::new(loaded, context);
    for input in inputs {
        planner.input(input);
    }
    planner.finish()
}

/// Decides that the wait of events that have waited since before `before_ms` is over: `loaded`
/// holds all events that wait for their tasks. `None` if that is decided already.
pub(super) fn plan_expiry(loaded: Loaded, before_ms: i64) -> Option<Plan> {
    let mut plan = Plan { is_immediate: true, ..Plan::default() };
    let mut is_new = false;
    for (task_id, events) in loaded.waiting {
        plan.writes.waiting_taken.push(task_id);
        for mut event in events {
            if event.since_ms < before_ms && event.since_ms != EXPIRED_SINCE_MS {
                event.since_ms = EXPIRED_SINCE_MS;
                is_new = true;
            }
            plan.writes.waiting_added.push(event);
        }
    }
    is_new.then_some(plan)
}

/// Plans the letters of the events of `loaded` whose wait is over; the others wait on.
pub(super) fn plan_expired(loaded: Loaded) -> Plan {
    let mut plan = Plan { is_immediate: true, ..Plan::default() };
    for (task_id, events) in loaded.waiting {
        plan.writes.waiting_taken.push(task_id);
        for event in events {
            if event.since_ms == EXPIRED_SINCE_MS {
                plan.expire(&event);
            } else {
                plan.writes.waiting_added.push(event);
            }
        }
    }
    plan
}

impl Plan {
    fn expire(&mut self, waiting: &WaitingEvent) {
        let source = source_of(waiting);
        let Some(decoded) = waiting::record_of(waiting).map(|r| decoded(&source, r)) else {
            return self.letters.push(damaged_letter(&source, waiting));
        };
        self.letters.push(expired_letter(&decoded));
        let Ok(event) = decoded.event else { return };
        let Some(event_id) = &event.event_id else { return };
        let outcome = Outcome::DeadLetter(Reason::WaitExpired);
        let known = KnownEvent { digest: event.digest, outcome: outcome.clone() };
        self.writes.events.push((event_id.clone(), known, waiting.timestamp_ms));
        let digest = Some(event.digest);
        self.settled.push(Settled { event_id: event_id.clone(), digest, outcome });
    }
}

/// Whether an event's message tells what it replaced.
const fn tells_before(event: &TaskEvent) -> bool {
    let EventBody::Existing { action, .. } = &event.body else { return false };
    matches!(action, Action::Update(_) | Action::ChangePriority(_))
}

/// The state of a batch while it is planned.
struct Planner<'a> {
    context: &'a Context<'a>,
    tasks: HashMap<TaskId, TaskState>,
    /// Owners of the tasks that the batch changes.
    changed: HashMap<TaskId, UserId>,
    /// The same in the order in which they changed first, which is the order of creation.
    changed_order: Vec<TaskId>,
    events: HashMap<EventId, KnownEvent>,
    /// Event ids to remember, with their records' timestamps.
    remembered: Vec<(EventId, i64)>,
    /// Events that wait in the store.
    waiting: HashMap<TaskId, Vec<WaitingEvent>>,
    /// Events that begin to wait in this batch, in order; taken ones are gone.
    begun: Vec<Option<WaitingEvent>>,
    begun_of: HashMap<TaskId, Vec<usize>>,
    waiting_total: u64,
    waiting_bytes: u64,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(loaded: Loaded, context: &'a Context<'a>) -> Self {
        let Loaded { tasks, events, waiting, waiting_total, waiting_bytes } = loaded;
        Self {
            context,
            tasks,
            changed: HashMap::new(),
            changed_order: Vec::new(),
            events,
            remembered: Vec::new(),
            waiting,
            begun: Vec::new(),
            begun_of: HashMap::new(),
            waiting_total,
            waiting_bytes,
            plan: Plan::default(),
        }
    }

    fn input(&mut self, input: &Input) {
        match input {
            Input::Record(decoded) => match &decoded.event {
                Ok(event) => self.event(decoded, event),
                Err(undecodable) => {
                    let why = (undecodable.reason, undecodable.detail.as_str());
                    let event_id = undecodable.event_id.as_ref();
                    self.letter(Letter::of_record(
                        &decoded.position,
                        &decoded.record,
                        event_id,
                        why,
                    ));
                    if let Some(event_id) = event_id {
                        let outcome = Outcome::DeadLetter(undecodable.reason);
                        let event_id = event_id.clone();
                        self.plan.settled.push(Settled { event_id, digest: None, outcome });
                    }
                }
            },
            Input::Unreadable { from, to, detail, bytes } => {
                let reason = if bytes.is_some() { Reason::CorruptRecord } else { Reason::Hole };
                let letter = Letter::unreadable(from, bytes.clone(), (reason, detail));
                self.letter(Letter { end: Some(*to), ..letter });
            }
        }
    }

    /// An event that comes from the log.
    fn event(&mut self, decoded: &Decoded, event: &TaskEvent) {
        if let EventBody::Existing { id, action, .. } = &event.body
            && let Action::DueSoon { due_date: Some(due_date) } = action
        {
            // Whatever it comes to: it is not made again.
            self.plan.writes.reminded.push((*due_date, id.clone()));
        }
        let known = event.event_id.as_ref().and_then(|id| self.events.get(id));
        // A refused event or a dead letter may come again, mended or not.
        let before = known
            .filter(|known| matches!(known.outcome, Outcome::Applied { .. } | Outcome::Waiting));
        match before {
            None => self.decide(decoded, event),
            Some(known) if known.digest == event.digest => {
                let outcome = known.outcome.clone();
                self.plan.counts.duplicates += 1;
                self.settle(event, outcome);
            }
            Some(_) => {
                let detail = "another event with this id was applied before";
                self.reject(decoded, event, (Reason::EventIdReused, detail));
            }
        }
    }

    /// An event that is not known yet, from the log or from its wait.
    fn decide(&mut self, decoded: &Decoded, event: &TaskEvent) {
        let at_ms = decoded.record.timestamp_ms;
        let Some(task_id) = event.body.task_id() else { return self.pass_on(decoded, event) };
        let state = self.tasks.get(task_id).unwrap_or(&TaskState::Absent);
        match transition::apply(state, event, at_ms) {
            Ok(change) => self.change(decoded, event, change),
            Err(Rejected::Duplicate) => {
                self.plan.counts.duplicates += 1;
                let outcome = Outcome::Applied { sequence: self.head() };
                self.remember(event, outcome, at_ms);
            }
            Err(Rejected::Waiting) => self.wait(decoded, event, task_id),
            Err(Rejected::VersionMismatch) => {
                self.plan.counts.refused += 1;
                self.remember(event, Outcome::VersionMismatch, at_ms);
            }
            Err(Rejected::DeadLetter(reason)) => {
                self.remember(event, Outcome::DeadLetter(reason), at_ms);
                self.reject(decoded, event, (reason, detail_of(reason)));
            }
        }
    }

    fn change(&mut self, decoded: &Decoded, event: &TaskEvent, change: Change) {
        let before = match event.body.task_id().and_then(|id| self.tasks.get(id)) {
            Some(TaskState::Present { task, .. }) if tells_before(event) => Some(task.clone()),
            _ => None,
        };
        let (task, is_deleted, is_written) = match &change {
            Change::Put(task) => (task, false, true),
            Change::Delete(task) => (task, true, true),
            Change::Notify(task) => (task, false, false),
        };
        let data = match &before {
            _ if is_deleted => Data::Deleted(task),
            Some(before) => Data::Changed { before, after: task },
            None => Data::Task(task),
        };
        self.tell(decoded, event, &task.user_id, &data);
        if !is_written {
            return;
        }
        let (task_id, user_id) = (task.id.clone(), task.user_id.clone());
        let state = self.tasks.entry(task_id.clone()).or_insert(TaskState::Absent);
        let (creation, is_new) = match state {
            TaskState::Absent => (event.digest, true),
            TaskState::Present { creation, .. } | TaskState::Deleted { creation } => {
                (*creation, false)
            }
        };
        *state = match change {
            Change::Delete(_) => TaskState::Deleted { creation },
            Change::Put(task) | Change::Notify(task) => TaskState::Present { task, creation },
        };
        if self.changed.insert(task_id.clone(), user_id).is_none() {
            self.changed_order.push(task_id.clone());
        }
        if is_new {
            self.take_waiting(&task_id);
        }
    }

    /// An event of an unknown type goes to the user it names as it is.
    fn pass_on(&mut self, decoded: &Decoded, event: &TaskEvent) {
        let EventBody::Unknown { user_id: Some(user_id), data } = &event.body else {
            self.plan.counts.ignored += 1;
            let sequence = self.head();
            return self.settle(event, Outcome::Applied { sequence });
        };
        self.tell(decoded, event, user_id, &Data::Json(data));
    }

    /// Adds a change of the batch, and remembers its event.
    fn tell(&mut self, decoded: &Decoded, event: &TaskEvent, user_id: &UserId, data: &Data<'_>) {
        let timestamp_ms = decoded.record.timestamp_ms;
        let event_type = event.event_type.as_ref();
        let message: Bytes = match &event.event_id {
            Some(id) => message(event_type, data, id.as_str(), timestamp_ms),
            None => message(event_type, data, &decoded.position.to_string(), timestamp_ms),
        };
        let sequence = self.head() + 1;
        let (user_id, message) = (user_id.clone(), message);
        self.plan.published.push(PublishedChange {
            user_id: user_id.clone(),
            sequence,
            message: message.clone(),
        });
        self.plan.writes.changes.push(NewChange { user_id, message, timestamp_ms });
        self.remember(event, Outcome::Applied { sequence }, timestamp_ms);
    }

    fn wait(&mut self, decoded: &Decoded, event: &TaskEvent, task_id: &TaskId) {
        let RecordPosition { topic, partition, offset } = decoded.position.clone();
        let source = (TopicPartition { topic, partition }, offset);
        let since_ms = self.context.now_ms;
        let waiting = waiting::waiting_event(task_id.clone(), source, &decoded.record, since_ms);
        let bytes = self.waiting_bytes.saturating_add(bytes_of(&waiting));
        let is_full = self.waiting_total >= WAITING_MAX || bytes > WAITING_BYTES_MAX;
        let why = (Reason::WaitOverflow, "too many events wait for their tasks");
        let letter = || {
            let event_id = event.event_id.as_ref();
            Letter::of_record(&decoded.position, &decoded.record, event_id, why)
        };
        if is_full || (self.context.is_published)(&letter()) {
            // Expired events made the room that a replay finds, so the decision must last.
            self.plan.is_immediate = true;
            let outcome = Outcome::DeadLetter(Reason::WaitOverflow);
            self.remember(event, outcome, decoded.record.timestamp_ms);
            return self.reject(decoded, event, why);
        }
        self.waiting_bytes = bytes;
        self.begun_of.entry(task_id.clone()).or_default().push(self.begun.len());
        self.begun.push(Some(waiting));
        self.waiting_total += 1;
        self.remember(event, Outcome::Waiting, decoded.record.timestamp_ms);
    }

    /// Applies the events that waited for a new task, in order.
    fn take_waiting(&mut self, task_id: &TaskId) {
        let mut events = Vec::new();
        if let Some(stored) = self.waiting.remove(task_id).filter(|stored| !stored.is_empty()) {
            self.plan.writes.waiting_taken.push(task_id.clone());
            events = stored;
        }
        let begun = self.begun_of.remove(task_id).unwrap_or_default();
        events.extend(begun.into_iter().filter_map(|index| self.begun[index].take()));
        for waiting in events {
            self.waiting_total = self.waiting_total.saturating_sub(1);
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes_of(&waiting));
            self.waited(&waiting);
        }
    }

    fn waited(&mut self, waiting: &WaitingEvent) {
        let source = source_of(waiting);
        let Some(record) = waiting::record_of(waiting) else {
            return self.letter(damaged_letter(&source, waiting));
        };
        let decoded = decoded(&source, record);
        let Ok(event) = &decoded.event else {
            return self.letter(damaged_letter(&source, waiting));
        };
        let letter = expired_letter(&decoded);
        if waiting.since_ms == EXPIRED_SINCE_MS || (self.context.is_published)(&letter) {
            // Its wait was over, and the commit that takes the event away did not come.
            let outcome = Outcome::DeadLetter(Reason::WaitExpired);
            self.remember(event, outcome, waiting.timestamp_ms);
            return self.letter(letter);
        }
        self.decide(&decoded, event);
    }

    fn reject(&mut self, decoded: &Decoded, event: &TaskEvent, why: (Reason, &str)) {
        let event_id = event.event_id.as_ref();
        self.settle(event, Outcome::DeadLetter(why.0));
        self.letter(Letter::of_record(&decoded.position, &decoded.record, event_id, why));
    }

    fn letter(&mut self, letter: Letter) {
        self.plan.letters.push(letter);
    }

    /// Keeps what an event with an id came to, and tells whoever waits for it.
    fn remember(&mut self, event: &TaskEvent, outcome: Outcome, timestamp_ms: i64) {
        let Some(event_id) = &event.event_id else { return };
        let known = KnownEvent { digest: event.digest, outcome: outcome.clone() };
        match self.events.entry(event_id.clone()) {
            Entry::Occupied(mut entry) => drop(entry.insert(known)),
            Entry::Vacant(entry) => drop(entry.insert(known)),
        }
        self.remembered.push((event_id.clone(), timestamp_ms));
        self.settle(event, outcome);
    }

    fn settle(&mut self, event: &TaskEvent, outcome: Outcome) {
        let Some(event_id) = event.event_id.clone() else { return };
        self.plan.settled.push(Settled { event_id, digest: Some(event.digest), outcome });
    }

    /// The sequence of the last change so far.
    fn head(&self) -> u64 {
        let planned = u64::try_from(self.plan.writes.changes.len()).expect("fits in memory");
        (self.context.first_sequence + planned).saturating_sub(1)
    }

    fn finish(self) -> Plan {
        let Self { mut tasks, mut changed, mut events, mut plan, .. } = self;
        let states = self.changed_order.into_iter().filter_map(|task_id| {
            let (user_id, state) = (changed.remove(&task_id)?, tasks.remove(&task_id)?);
            Some((task_id, user_id, state))
        });
        plan.writes.tasks = states.collect();
        // What an event came to last stands in `events`; it is written once.
        let known = self.remembered.into_iter().filter_map(|(event_id, timestamp_ms)| {
            let known = events.remove(&event_id)?;
            Some((event_id, known, timestamp_ms))
        });
        plan.writes.events = known.collect();
        plan.writes.waiting_added = self.begun.into_iter().flatten().collect();
        plan
    }
}

fn source_of(waiting: &WaitingEvent) -> RecordPosition {
    let (TopicPartition { topic, partition }, offset) = waiting.source.clone();
    RecordPosition { topic, partition, offset }
}

fn decoded(source: &RecordPosition, record: FeedRecord) -> Decoded {
    Decoded::new(source.topic.clone(), source.partition, record)
}

/// A waiting event that the store did not give back as it was: its bytes as they are.
fn damaged_letter(source: &RecordPosition, waiting: &WaitingEvent) -> Letter {
    let why = (Reason::CorruptRecord, "the waiting event was damaged in the store");
    Letter::unreadable(source, Some(waiting.record.clone().into()), why)
}

/// The letter of an event whose task did not come.
fn expired_letter(waited: &Decoded) -> Letter {
    let event_id = waited.event.as_ref().ok().and_then(|event| event.event_id.as_ref());
    let why = (Reason::WaitExpired, "its task did not come in time");
    Letter::of_record(&waited.position, &waited.record, event_id, why)
}

fn bytes_of(waiting: &WaitingEvent) -> u64 {
    u64::try_from(waiting.record.len()).expect("a length in memory fits 64 bits")
}

const fn detail_of(reason: Reason) -> &'static str {
    match reason {
        Reason::WrongUser => "user_id: not the task's owner",
        Reason::TaskConflict => "id: another task was created with it",
        Reason::TaskDeleted => "id: the task was deleted",
        _ => "",
    }
}
