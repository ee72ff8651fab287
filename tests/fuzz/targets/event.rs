//! A record of the topic: decoded, applied, and written again as we write it.

use allocation_counter::measure;
use std::{cell::RefCell, sync::LazyLock};
use taskwire::task::{
    event::{self, EventBody, TaskEvent},
    transition::{self, Change, TaskState},
};

/// A task that most events of the corpus are about.
static PRESENT: LazyLock<TaskState> = LazyLock::new(|| {
    let event = br#"{"type":"task_created","data":{"id":"t","title":"x","user_id":"ada"}}"#;
    let event = event::decode::<&[u8]>(Some(event), &[]).expect("an event");
    match transition::apply(&TaskState::Absent, &event, 0) {
        Ok(Change::Put(task)) => TaskState::Present { task, creation: event.digest },
        other => panic!("no task: {other:?}"),
    }
});

/// `data`: lines `name: value` of headers, an empty line, the value.
pub(super) fn run(data: &[u8]) {
    let (headers, value) = split(data);
    let decoded = RefCell::new(None);
    let taken = measure(|| {
        *decoded.borrow_mut() = Some(event::decode(Some(value), &headers));
    });
    let bound = 64 * data.len() + (64 << 10);
    assert!(taken.bytes_max <= u64::try_from(bound).expect("a number"), "{taken:?}");
    let Some(Ok(event)) = decoded.into_inner() else { return };
    for state in [&TaskState::Absent, &*PRESENT] {
        drop(transition::apply(state, &event, i64::MAX));
        if let Ok(Change::Put(task)) = transition::apply(state, &event, 1_700_000_000_000) {
            let json = task.to_json();
            let again = taskwire::task::Task::from_json(&json).expect("our own JSON");
            assert_eq!(again.to_json(), json);
        }
    }
    if !matches!(event.body, EventBody::Unknown { .. }) {
        check_written(&event);
    }
}

fn check_written(event: &TaskEvent) {
    let json = event.to_json();
    let again = event::decode::<&[u8]>(Some(&json), &[]).expect("our own JSON");
    assert_eq!(again.body, event.body);
    assert_eq!(again.digest, event.digest);
    assert_eq!(again.event_id, event.event_id);
    assert_eq!(again.expected_version, event.expected_version);
}

type Headers<'a> = Vec<(&'a [u8], Option<&'a [u8]>)>;

fn split(data: &[u8]) -> (Headers<'_>, &[u8]) {
    let mut headers = Vec::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            return (headers, rest);
        }
        let Some(colon) = line.windows(2).position(|pair| pair == b": ") else { break };
        headers.push((&line[..colon], Some(&line[colon + 2..])));
    }
    (Vec::new(), data)
}
