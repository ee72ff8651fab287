//! Events of the applied topic, decoded from a record's value and headers, and encoded for it.

use super::{Priority, TaskId, UserId};

/// Longest event id (and CloudEvents source) in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 512;
/// Deepest nesting of JSON that is parsed.
pub const JSON_DEPTH_MAX: usize = 64;

/// What names an event, wherever it is sent again: (`ce_source`, `ce_id`) joined, or `event_id`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId(String);

impl EventId {
    /// The id: 1 to [`EVENT_ID_BYTES_MAX`] bytes.
    pub fn new(text: &str) -> Option<Self> {
        (1..=EVENT_ID_BYTES_MAX).contains(&text.len()).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 128 bits that tell two events (or creations) of one id apart: SHA-256 of a canonical form, cut.
pub type Digest = [u8; 16];

/// One decoded event.
#[derive(Clone, Debug)]
pub struct TaskEvent {
    /// Its own id; `None` when only the position names it.
    pub event_id: Option<EventId>,
    /// Digest of type and data, for `event_id_reused`. The event id and transport are left out.
    pub digest: Digest,
    /// The `type` as written.
    pub event_type: String,
    /// A REST write's `If-Match`: the version the task must have.
    pub expected_version: Option<u64>,
    /// What happened.
    pub body: EventBody,
}

/// A creation's fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewTask {
    /// See [`super::Task`].
    pub id: TaskId,
    /// See [`super::Task`].
    pub title: String,
    /// See [`super::Task`].
    pub description: Option<String>,
    /// See [`super::Task`].
    pub user_id: UserId,
    /// See [`super::Task`].
    pub priority: Priority,
    /// See [`super::Task`].
    pub due_date: Option<i64>,
    /// See [`super::Task`].
    pub labels: Vec<String>,
}

/// The fields that an update names; `Some(None)` clears a field.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TaskPatch {
    /// A new title.
    pub title: Option<String>,
    /// A new description.
    pub description: Option<Option<String>>,
    /// A new priority.
    pub priority: Option<Priority>,
    /// A new due date.
    pub due_date: Option<Option<i64>>,
    /// New labels.
    pub labels: Option<Vec<String>>,
    /// Done or not.
    pub completed: Option<bool>,
}

/// What an event says.
#[derive(Clone, Debug)]
pub enum EventBody {
    /// `task_created`
    Created(NewTask),
    /// Any event about a task that should be there already.
    Existing {
        /// The task.
        id: TaskId,
        /// The owner, where the event names one; it must be the task's.
        user_id: Option<UserId>,
        /// What to do with it.
        action: Action,
    },
    /// A type that we do not know: passed on to `user_id` as it is, or only counted.
    Unknown {
        /// The user to pass it on to.
        user_id: Option<UserId>,
        /// `data` as written (JSON text).
        data: Vec<u8>,
    },
}

/// A change of an existing task.
#[derive(Clone, Debug)]
pub enum Action {
    /// `task_completed`
    Complete {
        /// When, if the event says so; else the record's timestamp.
        completed_at: Option<i64>,
    },
    /// `task_updated`
    Update(TaskPatch),
    /// `task_priority_changed`
    ChangePriority(Priority),
    /// `task_deleted`
    Delete,
    /// `task_due_soon`: pushed, but the task's version stays.
    DueSoon,
}
