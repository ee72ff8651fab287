//! The one place where a task changes.

use super::{
    Task,
    event::{Action, Digest, EventBody, NewTask, TaskEvent, TaskPatch},
    time::{TIME_MAX_MS, TIME_MIN_MS},
};
use std::fmt;

/// What is known of a task id before an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TaskState {
    /// No task had this id.
    Absent,
    /// It is there.
    Present {
        /// The task.
        task: Task,
        /// Digest of its creation.
        creation: Digest,
    },
    /// It was deleted; ids are not used again.
    Deleted {
        /// Digest of its creation.
        creation: Digest,
    },
}

/// What an event does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// The task after it.
    Put(Task),
    /// The task is gone; as it was, with its version raised by one.
    Delete(Task),
    /// The task is as it was, and its owner is told (`task_due_soon`).
    Notify(Task),
}

/// Why an event changes nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rejected {
    /// Repeats what is already so: no version, no push, no dead letter.
    Duplicate,
    /// The task is not there yet: the event waits for it.
    Waiting,
    /// `If-Match` lost: a recorded outcome, no dead letter.
    VersionMismatch,
    /// Goes to the dead-letter topic.
    DeadLetter(Reason),
}

/// Why a record is a dead letter; the text form is its stable code in header `taskwire-reason`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// `null_value`
    NullValue,
    /// `invalid_json`: not JSON, not an object, or nested too deep.
    InvalidJson,
    /// `invalid_event`: JSON, but no event; the detail names the field.
    InvalidEvent,
    /// `missing_user`: a creation without `user_id`.
    MissingUser,
    /// `wrong_user`: the event's `user_id` is not the owner.
    WrongUser,
    /// `task_conflict`: same id, other creation.
    TaskConflict,
    /// `task_deleted`: an event for a deleted id.
    TaskDeleted,
    /// `event_id_reused`: same event id, other event.
    EventIdReused,
    /// `wait_expired`: its task never came.
    WaitExpired,
    /// `wait_overflow`: too many events wait.
    WaitOverflow,
    /// `corrupt_record`: the batch or its compression cannot be read.
    CorruptRecord,
    /// `hole`: records of this range are lost (damage).
    Hole,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NullValue,
        Self::InvalidJson,
        Self::InvalidEvent,
        Self::MissingUser,
        Self::WrongUser,
        Self::TaskConflict,
        Self::TaskDeleted,
        Self::EventIdReused,
        Self::WaitExpired,
        Self::WaitOverflow,
        Self::CorruptRecord,
        Self::Hole,
    ];

    /// The stable code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NullValue => "null_value",
            Self::InvalidJson => "invalid_json",
            Self::InvalidEvent => "invalid_event",
            Self::MissingUser => "missing_user",
            Self::WrongUser => "wrong_user",
            Self::TaskConflict => "task_conflict",
            Self::TaskDeleted => "task_deleted",
            Self::EventIdReused => "event_id_reused",
            Self::WaitExpired => "wait_expired",
            Self::WaitOverflow => "wait_overflow",
            Self::CorruptRecord => "corrupt_record",
            Self::Hole => "hole",
        }
    }

    /// The reason by its code.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Applies an event to what is known of its task. `at_ms` is the record's timestamp.
///
/// # Errors
/// Why nothing changes; unknown event types are not for this function (it calls them duplicates).
pub fn apply(state: &TaskState, event: &TaskEvent, at_ms: i64) -> Result<Change, Rejected> {
    // A producer may stamp its records with any number.
    let at_ms = at_ms.clamp(TIME_MIN_MS, TIME_MAX_MS);
    match &event.body {
        EventBody::Created(new) => create(state, new, event.digest, at_ms),
        EventBody::Existing { user_id, action, .. } => {
            let task = match state {
                TaskState::Absent => return Err(Rejected::Waiting),
                // A reminder may cross a deletion.
                TaskState::Deleted { .. } if matches!(action, Action::DueSoon { .. }) => {
                    return Err(Rejected::Duplicate);
                }
                TaskState::Deleted { .. } => {
                    return Err(Rejected::DeadLetter(Reason::TaskDeleted));
                }
                TaskState::Present { task, .. } => task,
            };
            if user_id.as_ref().is_some_and(|user_id| *user_id != task.user_id) {
                return Err(Rejected::DeadLetter(Reason::WrongUser));
            }
            if event.expected_version.is_some_and(|version| version != task.version) {
                return Err(Rejected::VersionMismatch);
            }
            act(task, action, at_ms)
        }
        EventBody::Unknown { .. } => Err(Rejected::Duplicate),
    }
}

fn create(
    state: &TaskState,
    new: &NewTask,
    digest: Digest,
    at_ms: i64,
) -> Result<Change, Rejected> {
    match state {
        TaskState::Absent => Ok(Change::Put(Task {
            id: new.id.clone(),
            title: new.title.clone(),
            description: new.description.clone(),
            user_id: new.user_id.clone(),
            priority: new.priority,
            due_date: new.due_date,
            labels: new.labels.clone(),
            completed: false,
            completed_at: None,
            created_at: at_ms,
            updated_at: at_ms,
            version: 1,
        })),
        TaskState::Present { creation, .. } | TaskState::Deleted { creation }
            if *creation == digest =>
        {
            Err(Rejected::Duplicate)
        }
        TaskState::Present { .. } => Err(Rejected::DeadLetter(Reason::TaskConflict)),
        TaskState::Deleted { .. } => Err(Rejected::DeadLetter(Reason::TaskDeleted)),
    }
}

fn act(task: &Task, action: &Action, at_ms: i64) -> Result<Change, Rejected> {
    let after = match action {
        Action::Complete { .. } if task.completed => return Err(Rejected::Duplicate),
        Action::Complete { completed_at } => Task {
            completed: true,
            completed_at: Some(completed_at.unwrap_or(at_ms)),
            ..task.clone()
        },
        Action::Update(patch) => patched(task, patch, at_ms),
        Action::ChangePriority(priority) => Task { priority: *priority, ..task.clone() },
        Action::Delete => return Ok(Change::Delete(raised(task.clone(), at_ms))),
        Action::DueSoon { due_date } => {
            let is_late = task.completed
                || task.due_date.is_none()
                || due_date.is_some_and(|due_date| task.due_date != Some(due_date));
            return if is_late {
                Err(Rejected::Duplicate)
            } else {
                Ok(Change::Notify(task.clone()))
            };
        }
    };
    if after == *task { Err(Rejected::Duplicate) } else { Ok(Change::Put(raised(after, at_ms))) }
}

fn patched(task: &Task, patch: &TaskPatch, at_ms: i64) -> Task {
    let mut after = task.clone();
    if let Some(title) = &patch.title {
        after.title.clone_from(title);
    }
    if let Some(description) = &patch.description {
        after.description.clone_from(description);
    }
    if let Some(priority) = patch.priority {
        after.priority = priority;
    }
    if let Some(due_date) = patch.due_date {
        after.due_date = due_date;
    }
    if let Some(labels) = &patch.labels {
        after.labels.clone_from(labels);
    }
    if let Some(completed) = patch.completed.filter(|completed| *completed != task.completed) {
        after.completed = completed;
        after.completed_at = completed.then_some(at_ms);
    }
    if after.completed && patch.completed_at.is_some() {
        after.completed_at = patch.completed_at;
    }
    after
}

/// The task with its next version.
fn raised(task: Task, at_ms: i64) -> Task {
    Task { updated_at: at_ms, version: task.version.saturating_add(1), ..task }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
