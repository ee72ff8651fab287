//! Values as bytes. Each begins with the version of its form; integers are little endian. The
//! checksum that follows them in the file is `sum.rs`'s.
//!
//! Invariant: decoding never panics; bytes that no version of ours wrote are `None`.

use crate::{
    position::{Offset, Partition, TopicName, TopicPartition},
    store::{KnownEvent, Outcome, Processed, SortBy, TaskFilter, WaitingEvent},
    task::{
        Priority, Task, TaskId,
        event::{Digest, EventId},
        time,
        transition::Reason,
    },
};
use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use std::borrow::Cow;

/// The version that every row of format 2 begins with.
pub(super) const VERSION: u8 = 2;
/// Event ids shorter than this are their own key; longer ones are cut and end in a digest.
const EVENT_KEY_BYTES: usize = 96;
const EVENT_KEY_DIGEST_BYTES: usize = 16;

/// The key of an event id. The id itself where it is short: ids that grow with time then lie
/// together, where a hash would dirty a page an event. Cut keys are exactly [`EVENT_KEY_BYTES`]
/// long and whole ones shorter, so that the two never meet.
pub(super) fn event_key(id: &EventId) -> Vec<u8> {
    let id = id.as_str().as_bytes();
    if id.len() < EVENT_KEY_BYTES {
        return id.to_vec();
    }
    let mut key = id[..EVENT_KEY_BYTES - EVENT_KEY_DIGEST_BYTES].to_vec();
    key.extend_from_slice(&digest(&SHA256, id).as_ref()[..EVENT_KEY_DIGEST_BYTES]);
    key
}

/// Reads a row from its front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader after the version, if that is ours.
    fn new(row: &'a [u8]) -> Option<Self> {
        Self::of_form(row, VERSION)
    }

    /// A reader after the number of a form of its own.
    pub(super) fn of_form(row: &'a [u8], form: u8) -> Option<Self> {
        let mut reader = Self(row);
        (reader.array::<1>()? == [form]).then_some(reader)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
}

/// Next numbers and counts, written with every commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Counters {
    /// Of the next change.
    pub(super) next_sequence: u64,
    /// Of the next new user.
    pub(super) next_user: u64,
    /// Of the next new task, of any user.
    pub(super) next_task: u64,
    /// Of the next event id.
    pub(super) next_event: u64,
    /// Of the next waiting event.
    pub(super) next_waiting: u64,
    /// Rows of `tasks`.
    pub(super) tasks: u64,
    /// Rows of `changes`.
    pub(super) changes: u64,
    /// Rows of `events`.
    pub(super) events: u64,
    /// Rows of `waiting`.
    pub(super) waiting: u64,
    /// Open letters; `None` in a row that an older version wrote, until they are counted.
    pub(super) letters_open: Option<u64>,
    /// Bytes of the records that wait; counted when the store is opened, and not kept on disk.
    pub(super) waiting_bytes: u64,
}

impl Counters {
    /// Of an empty store.
    pub(super) const EMPTY: Self = Self {
        next_sequence: 1,
        next_user: 1,
        next_task: 1,
        next_event: 1,
        next_waiting: 1,
        tasks: 0,
        changes: 0,
        events: 0,
        waiting: 0,
        letters_open: Some(0),
        waiting_bytes: 0,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION];
        for number in [
            self.next_sequence,
            self.next_user,
            self.next_task,
            self.next_event,
            self.next_waiting,
            self.tasks,
            self.changes,
            self.events,
            self.waiting,
        ] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        if let Some(open) = self.letters_open {
            row.extend_from_slice(&open.to_le_bytes());
        }
        row
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(row)?;
        Some(Self {
            next_sequence: reader.u64()?,
            next_user: reader.u64()?,
            next_task: reader.u64()?,
            next_event: reader.u64()?,
            next_waiting: reader.u64()?,
            tasks: reader.u64()?,
            changes: reader.u64()?,
            events: reader.u64()?,
            waiting: reader.u64()?,
            letters_open: reader.u64(),
            waiting_bytes: 0,
        })
    }
}

/// A value of `task_ids`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TaskPlace {
    /// Key of the row in `tasks`.
    At(u64, u64),
    /// Deleted; digest of its creation.
    Tombstone(Digest),
}

impl TaskPlace {
    const AT: u8 = 0;
    const TOMBSTONE: u8 = 1;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION];
        match self {
            Self::At(user, number) => {
                row.push(Self::AT);
                row.extend_from_slice(&user.to_le_bytes());
                row.extend_from_slice(&number.to_le_bytes());
            }
            Self::Tombstone(creation) => {
                row.push(Self::TOMBSTONE);
                row.extend_from_slice(creation);
            }
        }
        row
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(row)?;
        match reader.u8()? {
            Self::AT => Some(Self::At(reader.u64()?, reader.u64()?)),
            Self::TOMBSTONE => Some(Self::Tombstone(reader.array()?)),
            _ => None,
        }
    }
}

/// A value of `tasks`: what filters look at, and the task as [`Task::to_json`] wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskRow<'a> {
    /// As the task has it, for filters.
    pub(super) completed: bool,
    priority: u8,
    /// As the task has it, for filters.
    pub(super) due_date: Option<i64>,
    /// Digest of the creation.
    pub(super) creation: Digest,
    /// As [`Task::to_json`] wrote it.
    pub(super) json: &'a [u8],
}

impl<'a> TaskRow<'a> {
    const COMPLETED: u8 = 1;
    const HAS_DUE_DATE: u8 = 2;

    pub(super) fn encode(task: &Task, creation: &Digest) -> Vec<u8> {
        let json = task.to_json();
        let mut flags = 0;
        if task.completed {
            flags |= Self::COMPLETED;
        }
        if task.due_date.is_some() {
            flags |= Self::HAS_DUE_DATE;
        }
        let mut row = Vec::with_capacity(json.len() + 36);
        row.extend_from_slice(&[VERSION, flags, priority_code(task.priority)]);
        row.extend_from_slice(&task.due_date.unwrap_or(0).to_le_bytes());
        row.extend_from_slice(creation);
        row.extend_from_slice(&json);
        row
    }

    pub(super) fn decode(row: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(row)?;
        let flags = reader.u8()?;
        let priority = reader.u8()?;
        let due_date = reader.i64()?;
        Some(Self {
            completed: flags & Self::COMPLETED != 0,
            priority,
            due_date: (flags & Self::HAS_DUE_DATE != 0).then_some(due_date),
            creation: reader.array()?,
            json: reader.0,
        })
    }

    /// Whether what filters look at is what the task says.
    pub(super) fn agrees_with(&self, task: &Task) -> bool {
        (self.completed, self.due_date) == (task.completed, task.due_date)
            && self.priority == priority_code(task.priority)
    }

    /// Whether the filter takes it. `None`: damaged.
    pub(super) fn passes(&self, filter: &TaskFilter) -> Option<bool> {
        let passes = filter.completed.is_none_or(|completed| completed == self.completed)
            && filter.priority.is_none_or(|priority| priority_code(priority) == self.priority)
            && filter.due_before.is_none_or(|at| self.due_date.is_some_and(|due| due < at))
            && filter.due_after.is_none_or(|at| self.due_date.is_some_and(|due| due >= at));
        if !passes || !filter.reads_text() {
            return Some(passes);
        }
        let task = Task::from_json(self.json)?;
        let has_label = |label: &String| task.labels.contains(label);
        Some(
            filter.label.as_ref().is_none_or(has_label)
                && filter.q.as_ref().is_none_or(|text| {
                    let text = text.to_lowercase();
                    let holds = |field: &str| field.to_lowercase().contains(&text);
                    holds(&task.title) || task.description.as_deref().is_some_and(holds)
                }),
        )
    }

    /// What it is sorted by: bytes that compare as the field does. `None`: damaged.
    pub(super) fn sort_key(&self, by: SortBy) -> Option<Vec<u8>> {
        Some(match by {
            SortBy::CreatedAt => Vec::new(),
            SortBy::DueDate => self.due_date.map(ordered).unwrap_or_default(),
            SortBy::Priority => vec![self.priority],
            SortBy::UpdatedAt => ordered(time::parse(SortFields::read(self.json)?.updated_at)?),
            SortBy::Title => {
                let lower = SortFields::read(self.json)?.title.to_lowercase();
                lower.chars().take(SORT_TITLE_CHARS).collect::<String>().into_bytes()
            }
        })
    }
}

/// Characters of a title by which it is sorted, in lower case; they are in the cursor.
const SORT_TITLE_CHARS: usize = 64;

/// What sorting reads of a task's JSON.
#[derive(Deserialize)]
struct SortFields<'a> {
    #[serde(borrow)]
    title: Cow<'a, str>,
    updated_at: &'a str,
}

impl<'a> SortFields<'a> {
    fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// Bytes that compare as the number does.
fn ordered(number: i64) -> Vec<u8> {
    (number ^ i64::MIN).to_be_bytes().to_vec()
}

const fn priority_code(priority: Priority) -> u8 {
    match priority {
        Priority::Low => 0,
        Priority::Medium => 1,
        Priority::High => 2,
        Priority::Urgent => 3,
    }
}

/// A value of `changes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChangeRow<'a> {
    /// Whose it is: an index row that is wrong shows it to nobody else.
    pub(super) user: u64,
    /// The record's timestamp.
    pub(super) timestamp_ms: i64,
    /// The message.
    pub(super) message: &'a [u8],
}

impl<'a> ChangeRow<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(self.message.len() + 21);
        row.push(VERSION);
        row.extend_from_slice(&self.user.to_le_bytes());
        row.extend_from_slice(&self.timestamp_ms.to_le_bytes());
        row.extend_from_slice(self.message);
        row
    }

    pub(super) fn decode(row: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(row)?;
        Some(Self { user: reader.u64()?, timestamp_ms: reader.i64()?, message: reader.0 })
    }
}

/// A value of `events`.
#[derive(Clone, Debug)]
pub(super) struct EventRow {
    /// Its number in the order in which ids were first seen.
    pub(super) number: u64,
    /// The record's timestamp.
    pub(super) timestamp_ms: i64,
    /// What is known.
    pub(super) known: KnownEvent,
}

impl EventRow {
    const APPLIED: u8 = 0;
    const VERSION_MISMATCH: u8 = 1;
    const WAITING: u8 = 2;
    const DEAD_LETTER: u8 = 3;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(46);
        row.push(VERSION);
        row.extend_from_slice(&self.number.to_le_bytes());
        row.extend_from_slice(&self.timestamp_ms.to_le_bytes());
        row.extend_from_slice(&self.known.digest);
        match &self.known.outcome {
            Outcome::Applied { sequence } => {
                row.push(Self::APPLIED);
                row.extend_from_slice(&sequence.to_le_bytes());
            }
            Outcome::VersionMismatch => row.push(Self::VERSION_MISMATCH),
            Outcome::Waiting => row.push(Self::WAITING),
            Outcome::DeadLetter(reason) => {
                row.extend_from_slice(&[Self::DEAD_LETTER, reason_code(*reason)]);
            }
        }
        row
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(row)?;
        let (number, timestamp_ms) = (reader.u64()?, reader.i64()?);
        let digest = reader.array()?;
        let outcome = match reader.u8()? {
            Self::APPLIED => Outcome::Applied { sequence: reader.u64()? },
            Self::VERSION_MISMATCH => Outcome::VersionMismatch,
            Self::WAITING => Outcome::Waiting,
            Self::DEAD_LETTER => Outcome::DeadLetter(reason_of(reader.u8()?)?),
            _ => return None,
        };
        Some(Self { number, timestamp_ms, known: KnownEvent { digest, outcome } })
    }
}

/// Reasons by their code on disk; a code is never used for another reason.
const REASONS: [Reason; 12] = [
    Reason::NullValue,
    Reason::InvalidJson,
    Reason::InvalidEvent,
    Reason::MissingUser,
    Reason::WrongUser,
    Reason::TaskConflict,
    Reason::TaskDeleted,
    Reason::EventIdReused,
    Reason::WaitExpired,
    Reason::WaitOverflow,
    Reason::CorruptRecord,
    Reason::Hole,
];

pub(super) const fn reason_code(reason: Reason) -> u8 {
    match reason {
        Reason::NullValue => 0,
        Reason::InvalidJson => 1,
        Reason::InvalidEvent => 2,
        Reason::MissingUser => 3,
        Reason::WrongUser => 4,
        Reason::TaskConflict => 5,
        Reason::TaskDeleted => 6,
        Reason::EventIdReused => 7,
        Reason::WaitExpired => 8,
        Reason::WaitOverflow => 9,
        Reason::CorruptRecord => 10,
        Reason::Hole => 11,
    }
}

pub(super) fn reason_of(code: u8) -> Option<Reason> {
    REASONS.get(usize::from(code)).copied()
}

/// A value of `waiting`; the task id is in the key.
pub(super) fn encode_waiting(event: &WaitingEvent) -> Vec<u8> {
    let (place, offset) = &event.source;
    let topic = place.topic.as_str().as_bytes();
    let mut row = Vec::with_capacity(event.record.len() + topic.len() + 37);
    row.push(VERSION);
    row.extend_from_slice(&event.since_ms.to_le_bytes());
    row.extend_from_slice(&event.timestamp_ms.to_le_bytes());
    row.extend_from_slice(&offset.get().to_le_bytes());
    row.extend_from_slice(&place.partition.get().to_le_bytes());
    row.push(u8::try_from(topic.len()).expect("a topic's name has at most 249 bytes"));
    row.extend_from_slice(topic);
    row.extend_from_slice(&event.record);
    row
}

pub(super) fn decode_waiting(task_id: &str, row: &[u8]) -> Option<WaitingEvent> {
    let mut reader = Reader::new(row)?;
    let (since_ms, timestamp_ms) = (reader.i64()?, reader.i64()?);
    let offset = Offset::new(reader.i64()?)?;
    let partition = Partition::new(reader.i32()?)?;
    let topic_bytes = usize::from(reader.u8()?);
    let topic = TopicName::new(str::from_utf8(reader.bytes(topic_bytes)?).ok()?)?;
    Some(WaitingEvent {
        task_id: TaskId::new(task_id)?,
        source: (TopicPartition { topic, partition }, offset),
        since_ms,
        timestamp_ms,
        record: reader.0.to_vec(),
    })
}

/// A value of `processed`.
pub(super) fn encode_processed(processed: Processed) -> Vec<u8> {
    let mut row = vec![VERSION];
    row.extend_from_slice(&processed.next.get().to_le_bytes());
    row.extend_from_slice(&processed.leader_epoch.to_le_bytes());
    row
}

pub(super) fn decode_processed(row: &[u8]) -> Option<Processed> {
    let mut reader = Reader::new(row)?;
    Some(Processed { next: Offset::new(reader.i64()?)?, leader_epoch: reader.i32()? })
}

/// A value of `outbound`.
pub(super) fn encode_offset(offset: Offset) -> Vec<u8> {
    let mut row = vec![VERSION];
    row.extend_from_slice(&offset.get().to_le_bytes());
    row
}

pub(super) fn decode_offset(row: &[u8]) -> Option<Offset> {
    Offset::new(Reader::new(row)?.i64()?)
}

/// The format's number; not versioned itself.
pub(super) fn decode_format(row: &[u8]) -> Option<u32> {
    Reader(row).u32()
}

/// A value that is one number: a user's number, a run's first sequence, the epoch.
pub(super) fn encode_number(number: u64) -> Vec<u8> {
    let mut row = vec![VERSION];
    row.extend_from_slice(&number.to_le_bytes());
    row
}

pub(super) fn decode_number(row: &[u8]) -> Option<u64> {
    Reader::new(row)?.u64()
}

/// The mark of a clean stop.
pub(super) fn encode_clean(is_clean: bool) -> Vec<u8> {
    vec![VERSION, u8::from(is_clean)]
}

pub(super) fn decode_clean(row: &[u8]) -> Option<bool> {
    Reader::new(row)?.u8().map(|mark| mark == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_code() {
        for (code, reason) in REASONS.iter().enumerate() {
            assert_eq!(usize::from(reason_code(*reason)), code);
        }
        assert_eq!(reason_of(12), None);
    }

    #[test]
    fn long_event_ids_keep_their_order_and_never_meet_short_ones() {
        let id = |text: &str| EventId::new(text).expect("within its bounds");
        let (short, long) = ("a".repeat(EVENT_KEY_BYTES - 1), "a".repeat(EVENT_KEY_BYTES));
        assert_eq!(event_key(&id(&short)), short.as_bytes());
        let cut = event_key(&id(&long));
        assert_eq!(cut.len(), EVENT_KEY_BYTES);
        assert_ne!(cut, event_key(&id(&(long + "b"))));
        assert!(cut < event_key(&id(&"b".repeat(200))));
    }

    #[test]
    fn cut_rows_are_damaged_and_never_panic() {
        let known = KnownEvent { digest: [7; 16], outcome: Outcome::Applied { sequence: 9 } };
        let row = EventRow { number: 3, timestamp_ms: -4, known: known.clone() }.encode();
        assert_eq!(EventRow::decode(&row).expect("whole").known, known);
        for len in 0..row.len() {
            assert!(EventRow::decode(&row[..len]).is_none(), "{len} bytes");
        }
        let row = Counters::EMPTY.encode();
        assert_eq!(Counters::decode(&row), Some(Counters::EMPTY));
        assert_eq!(Counters::decode(&row[1..]), None);
    }
}
