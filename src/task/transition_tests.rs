//! Tests of [`super`]: the table of state x event, and what holds for every order of events.

use super::*;
use crate::task::{Priority, TaskId, UserId, event::EventId};
use proptest::prelude::*;

const AT: i64 = 1_000;

fn new_task(title: &str) -> NewTask {
    NewTask {
        id: TaskId::new("t").unwrap(),
        title: title.to_owned(),
        description: None,
        user_id: UserId::new("u").unwrap(),
        priority: Priority::Medium,
        due_date: Some(5_000),
        labels: Vec::new(),
    }
}

fn event(body: EventBody) -> TaskEvent {
    TaskEvent::new(EventId::new("e").unwrap(), None, body)
}

fn created(title: &str) -> TaskEvent {
    event(EventBody::Created(new_task(title)))
}

fn existing(action: Action) -> TaskEvent {
    let id = TaskId::new("t").unwrap();
    event(EventBody::Existing { id, user_id: UserId::new("u"), action })
}

fn update(patch: TaskPatch) -> TaskEvent {
    existing(Action::Update(patch))
}

fn complete() -> TaskEvent {
    existing(Action::Complete { completed_at: None })
}

/// The state after a change of `state`.
fn after(state: &TaskState, event: &TaskEvent, at_ms: i64) -> TaskState {
    let creation = match state {
        TaskState::Absent => event.digest,
        TaskState::Present { creation, .. } | TaskState::Deleted { creation } => *creation,
    };
    match apply(state, event, at_ms) {
        Ok(Change::Put(task)) => TaskState::Present { task, creation },
        Ok(Change::Delete(_)) => TaskState::Deleted { creation },
        Ok(Change::Notify(_)) | Err(_) => state.clone(),
    }
}

fn present() -> TaskState {
    after(&TaskState::Absent, &created("a"), AT)
}

fn deleted() -> TaskState {
    after(&present(), &existing(Action::Delete), AT)
}

fn task_of(state: &TaskState) -> Task {
    let TaskState::Present { task, .. } = state else { panic!("a task: {state:?}") };
    task.clone()
}

#[track_caller]
fn check_rejected(state: &TaskState, event: &TaskEvent, expected: Rejected) {
    assert_eq!(apply(state, event, AT), Err(expected), "{state:?} {event:?}");
}

#[test]
fn a_creation_makes_version_one() {
    let task = task_of(&present());
    assert_eq!((task.version, task.created_at, task.updated_at), (1, AT, AT));
    assert_eq!((task.completed, task.completed_at), (false, None));
}

#[test]
fn a_creation_again_is_a_duplicate_and_another_one_a_conflict() {
    check_rejected(&present(), &created("a"), Rejected::Duplicate);
    check_rejected(&deleted(), &created("a"), Rejected::Duplicate);
    check_rejected(&present(), &created("b"), Rejected::DeadLetter(Reason::TaskConflict));
    check_rejected(&deleted(), &created("b"), Rejected::DeadLetter(Reason::TaskDeleted));
}

#[test]
fn every_action_waits_for_its_task_and_is_too_late_after_it() {
    for action in [
        Action::Complete { completed_at: None },
        Action::Update(TaskPatch::default()),
        Action::ChangePriority(Priority::Low),
        Action::Delete,
    ] {
        let event = existing(action);
        check_rejected(&TaskState::Absent, &event, Rejected::Waiting);
        check_rejected(&deleted(), &event, Rejected::DeadLetter(Reason::TaskDeleted));
    }
}

#[test]
fn only_the_owner_is_served() {
    let id = TaskId::new("t").unwrap();
    let action = Action::Delete;
    let by = |user_id| {
        let (id, action) = (id.clone(), action.clone());
        event(EventBody::Existing { id, user_id, action })
    };
    let wrong = Rejected::DeadLetter(Reason::WrongUser);
    check_rejected(&present(), &by(UserId::new("other")), wrong);
    assert!(apply(&present(), &by(None), AT).is_ok());
}

#[test]
fn a_lost_if_match_is_refused() {
    let mut event = complete();
    event.expected_version = Some(2);
    check_rejected(&present(), &event, Rejected::VersionMismatch);
    event.expected_version = Some(1);
    assert!(apply(&present(), &event, AT).is_ok());
}

#[test]
fn completing_notes_when() {
    let done = task_of(&after(&present(), &complete(), 2_000));
    let expected = (true, Some(2_000), 2_000, 2);
    assert_eq!((done.completed, done.completed_at, done.updated_at, done.version), expected);
    let said = existing(Action::Complete { completed_at: Some(7) });
    assert_eq!(task_of(&after(&present(), &said, 2_000)).completed_at, Some(7));
}

#[test]
fn what_changes_nothing_is_a_duplicate() {
    let done = after(&present(), &complete(), AT);
    check_rejected(&done, &complete(), Rejected::Duplicate);
    check_rejected(&present(), &update(TaskPatch::default()), Rejected::Duplicate);
    let same = TaskPatch {
        title: Some("a".to_owned()),
        due_date: Some(Some(5_000)),
        completed: Some(false),
        ..TaskPatch::default()
    };
    check_rejected(&present(), &update(same), Rejected::Duplicate);
    let medium = existing(Action::ChangePriority(Priority::Medium));
    check_rejected(&present(), &medium, Rejected::Duplicate);
}

#[test]
fn an_update_sets_and_clears() {
    let patch = TaskPatch {
        title: Some("b".to_owned()),
        description: Some(Some("d".to_owned())),
        priority: Some(Priority::Urgent),
        due_date: Some(None),
        labels: Some(vec!["l".to_owned()]),
        completed: Some(true),
        completed_at: None,
    };
    let state = after(&present(), &update(patch), 2_000);
    let task = task_of(&state);
    assert_eq!((task.title.as_str(), task.description.as_deref()), ("b", Some("d")));
    assert_eq!((task.priority, task.due_date), (Priority::Urgent, None));
    assert_eq!((task.completed_at, task.version), (Some(2_000), 2));
    let open =
        TaskPatch { completed: Some(false), description: Some(None), ..TaskPatch::default() };
    let task = task_of(&after(&state, &update(open), 3_000));
    assert_eq!((task.completed, task.completed_at, task.description), (false, None, None));
}

#[test]
fn a_time_of_completion_is_only_of_a_task_that_is_done() {
    let at = |completed, time| {
        update(TaskPatch { completed, completed_at: Some(time), ..TaskPatch::default() })
    };
    check_rejected(&present(), &at(None, 7), Rejected::Duplicate);
    let done = after(&present(), &at(Some(true), 7), 2_000);
    assert_eq!(task_of(&done).completed_at, Some(7));
    let moved = after(&done, &at(None, 8), 3_000);
    assert_eq!(task_of(&moved).completed_at, Some(8));
    assert_eq!(task_of(&after(&moved, &at(Some(false), 9), 4_000)).completed_at, None);
}

#[test]
fn a_reminder_leaves_the_task_as_it_is_and_may_come_too_late() {
    let due = |due_date| existing(Action::DueSoon { due_date });
    for event in [due(None), due(Some(5_000))] {
        assert_eq!(apply(&present(), &event, AT), Ok(Change::Notify(task_of(&present()))));
    }
    check_rejected(&present(), &due(Some(6_000)), Rejected::Duplicate);
    check_rejected(&after(&present(), &complete(), AT), &due(None), Rejected::Duplicate);
    let undated = update(TaskPatch { due_date: Some(None), ..TaskPatch::default() });
    check_rejected(&after(&present(), &undated, AT), &due(None), Rejected::Duplicate);
}

#[test]
fn a_reminder_that_crosses_a_deletion_is_no_dead_letter() {
    let deleted = TaskState::Deleted { creation: [0; 16] };
    let event = existing(Action::DueSoon { due_date: Some(5_000) });
    check_rejected(&TaskState::Absent, &event, Rejected::Waiting);
    check_rejected(&deleted, &event, Rejected::Duplicate);
}

#[test]
fn a_deletion_raises_the_version() {
    let Ok(Change::Delete(task)) = apply(&present(), &existing(Action::Delete), 2_000) else {
        panic!("a deletion")
    };
    assert_eq!((task.version, task.updated_at), (2, 2_000));
}

#[test]
fn any_timestamp_can_be_written() {
    for at_ms in [i64::MIN, -1, i64::MAX] {
        let task = task_of(&after(&TaskState::Absent, &created("a"), at_ms));
        assert_eq!(Task::from_json(&task.to_json()), Some(task));
    }
}

#[test]
fn every_reason_has_its_code() {
    for reason in Reason::ALL {
        assert_eq!(Reason::parse(reason.as_str()), Some(reason));
    }
    assert_eq!(Reason::parse("other"), None);
}

fn any_event() -> impl Strategy<Value = TaskEvent> {
    let title = prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
    prop_oneof![
        title.clone().prop_map(|title| created(&title)),
        Just(complete()),
        (title, proptest::option::of(any::<bool>())).prop_map(|(title, completed)| {
            update(TaskPatch { title: Some(title), completed, ..TaskPatch::default() })
        }),
        Just(existing(Action::ChangePriority(Priority::High))),
        Just(existing(Action::Delete)),
        Just(existing(Action::DueSoon { due_date: None })),
    ]
}

proptest! {
    #[test]
    fn every_change_is_one_version_and_an_event_sent_twice_is_one_change(
        events in proptest::collection::vec(any_event(), 0..12)
    ) {
        let mut state = TaskState::Absent;
        for event in events {
            let next = after(&state, &event, AT);
            match (&state, &next) {
                (TaskState::Present { task: old, .. }, TaskState::Present { task: new, .. }) => {
                    prop_assert_eq!(new.version, old.version + u64::from(old != new));
                    prop_assert_eq!(&new.user_id, &old.user_id);
                }
                (TaskState::Deleted { .. }, next) => prop_assert_eq!(next, &state),
                _ => (),
            }
            prop_assert_eq!(after(&next, &event, AT + 1), next.clone());
            state = next;
        }
    }
}
