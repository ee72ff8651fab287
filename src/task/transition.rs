//! The one place where a task changes.

use super::{
    Task,
    event::{Digest, TaskEvent},
};

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

/// Applies an event to what is known of its task. `at_ms` is the record's timestamp.
///
/// # Errors
/// Why nothing changes; unknown event types are not for this function.
pub fn apply(state: &TaskState, event: &TaskEvent, at_ms: i64) -> Result<Change, Rejected> {
    let _ = (state, event, at_ms);
    todo!()
}
