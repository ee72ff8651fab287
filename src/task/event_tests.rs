//! Tests of [`super`]: every form, every type, every refusal.

use super::*;
use proptest::prelude::*;

fn plain(value: &str) -> Result<TaskEvent, Undecodable> {
    decode::<&[u8]>(Some(value.as_bytes()), &[])
}

fn with_headers(
    value: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<TaskEvent, Undecodable> {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes()))).collect();
    decode(Some(value.as_bytes()), &headers)
}

#[track_caller]
fn check_refused(value: &str, reason: Reason, detail: &str) {
    let refused = plain(value).expect_err(value);
    assert_eq!((refused.reason, refused.detail.as_str()), (reason, detail), "{value}");
}

const CREATED: &str = r#"{"type":"task_created","event_id":"e1","data":{"id":"t1","title":"Buy",
    "user_id":"u1","priority":"high","due_date":"2026-01-01T10:00:00.123456"}}"#;

fn creation() -> NewTask {
    NewTask {
        id: TaskId::new("t1").unwrap(),
        title: "Buy".to_owned(),
        description: None,
        user_id: UserId::new("u1").unwrap(),
        priority: Priority::High,
        due_date: Some(1_767_261_600_123),
        labels: Vec::new(),
    }
}

#[test]
fn a_plain_event_is_decoded() {
    let event = plain(CREATED).unwrap();
    assert_eq!(event.event_id.unwrap().as_str(), "e1");
    assert_eq!(event.event_type, "task_created");
    assert_eq!(event.expected_version, None);
    assert_eq!(event.body, EventBody::Created(creation()));
}

#[test]
fn event_type_is_taken_too_and_integers_are_ids() {
    let event = plain(
        r#"{"event_type":"task_completed","event_id":7,"data":{"id":1000000000000000000000000000000,
            "user_id":42,"title":"ignored","completed":true,
            "completed_at":"1970-01-01T00:00:01Z"}}"#,
    )
    .unwrap();
    assert_eq!(event.event_id.unwrap().as_str(), "7");
    let expected = EventBody::Existing {
        id: TaskId::new("1000000000000000000000000000000").unwrap(),
        user_id: UserId::new("42"),
        action: Action::Complete { completed_at: Some(1_000) },
    };
    assert_eq!(event.body, expected);
}

#[test]
fn a_structured_cloud_event_is_known_by_header_or_specversion() {
    let value = r#"{"specversion":"1.0","type":"task_deleted","source":"/shop","id":"9",
        "event_id":"not this","data":{"id":"t1"}}"#;
    let content_type = [("Content-Type", "application/cloudevents+json; charset=utf-8")];
    for event in [plain(value), with_headers(value, &content_type)] {
        let event = event.unwrap();
        assert_eq!(event.event_id.unwrap().as_str(), "/shop 9");
        assert!(matches!(event.body, EventBody::Existing { action: Action::Delete, .. }));
    }
    let refused = with_headers(r#"{"type":"task_deleted"}"#, &content_type).unwrap_err();
    assert_eq!(refused.detail, "specversion: missing");
    for (value, detail) in [
        (r#"{"specversion":"0.3","type":"x"}"#, "specversion: must be a CloudEvents version 1.x"),
        (r#"{"specversion":"1.0","type":"x","id":"1"}"#, "source: missing"),
        (r#"{"specversion":"1.0","type":"x","source":"/"}"#, "id: missing"),
        (r#"{"specversion":"1.0","source":"/","id":"1"}"#, "type: missing"),
        (r#"{"specversion":"1.0","source":"a b","id":"1"}"#, "source: must be a URI reference"),
    ] {
        check_refused(value, Reason::InvalidEvent, detail);
    }
}

#[test]
fn a_binary_cloud_event_has_its_attributes_in_headers() {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_type", "task_priority_changed"),
        ("ce_source", "/shop"),
        ("ce_id", "9"),
        ("content-type", "application/json"),
    ];
    let event = with_headers(r#" {"id":"t1","priority":"low"} "#, &headers).unwrap();
    assert_eq!(event.event_id.unwrap().as_str(), "/shop 9");
    let action = Action::ChangePriority(Priority::Low);
    let expected = EventBody::Existing { id: TaskId::new("t1").unwrap(), user_id: None, action };
    assert_eq!(event.body, expected);
    assert_eq!(with_headers("{}", &headers[..2]).unwrap_err().detail, "ce_id: missing");
    assert_eq!(with_headers("x", &headers).unwrap_err().reason, Reason::InvalidJson);
}

#[test]
fn a_redriven_letter_keeps_the_id_in_its_header() {
    let header = [(EVENT_ID_HEADER, "task-events/0/17")];
    let event = with_headers(CREATED, &header).unwrap();
    assert_eq!(event.event_id.unwrap().as_str(), "task-events/0/17");
    let refused = with_headers("nonsense", &header).unwrap_err();
    assert_eq!(refused.event_id.unwrap().as_str(), "task-events/0/17");
}

#[test]
fn every_refusal_names_its_field() {
    use Reason::{InvalidEvent, InvalidJson, MissingUser, NullValue};
    let refused = decode::<&[u8]>(None, &[]).unwrap_err();
    assert_eq!(refused.reason, NullValue);
    check_refused("", InvalidJson, "not valid JSON");
    check_refused("nonsense", InvalidJson, "not valid JSON");
    check_refused("[1]", InvalidJson, "not a JSON object");
    check_refused(&"[".repeat(100_000), InvalidJson, "nested deeper than 64 levels");
    check_refused("{}", InvalidEvent, "type: missing");
    check_refused(r#"{"type":null}"#, InvalidEvent, "type: missing");
    check_refused(r#"{"type":7}"#, InvalidEvent, "type: must be a string");
    check_refused(r#"{"type":""}"#, InvalidEvent, "type: must be a name of 1 to 255 bytes");
    check_refused(r#"{"type":"task_deleted"}"#, InvalidEvent, "data: missing");
    let not_object = "data: must be an object";
    check_refused(r#"{"type":"task_deleted","data":"t1"}"#, InvalidEvent, not_object);
    check_refused(r#"{"type":"task_deleted","data":{}}"#, InvalidEvent, "id: missing");
    let id = "id: must be a string or an integer";
    check_refused(r#"{"type":"task_deleted","data":{"id":1.5}}"#, InvalidEvent, id);
    let event_id = "event_id: must not be empty";
    check_refused(r#"{"type":"x","event_id":""}"#, InvalidEvent, event_id);
    let version = "expected_version: must be a version";
    check_refused(r#"{"type":"x","expected_version":-1}"#, InvalidEvent, version);
    let user = r#"{"type":"task_created","data":{"id":"t","title":"a"}}"#;
    check_refused(user, MissingUser, "user_id: missing");
    let title = r#"{"type":"task_created","data":{"id":"t","user_id":"u"}}"#;
    check_refused(title, InvalidEvent, "title: missing");
    let priority = r#"{"type":"task_priority_changed","data":{"id":"t"}}"#;
    check_refused(priority, InvalidEvent, "priority: missing");
    let long = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
    check_refused(&long, InvalidEvent, "value: longer than 1048588 bytes");
}

#[test]
fn a_refused_event_still_tells_its_id() {
    let refused = plain(r#"{"type":"task_deleted","event_id":"e9","data":{}}"#).unwrap_err();
    assert_eq!(refused.event_id.unwrap().as_str(), "e9");
}

#[test]
fn an_unknown_type_is_passed_on_as_written() {
    let event = plain(r#"{"type":"price","data":{"user_id":5, "p": 1e400 }}"#).unwrap();
    let expected = EventBody::Unknown {
        user_id: UserId::new("5"),
        data: br#"{"user_id":5, "p": 1e400 }"#.to_vec(),
    };
    assert_eq!((event.event_type.as_ref(), event.body), ("price", expected));
    for nobody in [r#"{"type":"x"}"#, r#"{"type":"x","data":[1]}"#, r#"{"type":"x","data":{}}"#] {
        let body = plain(nobody).unwrap().body;
        assert!(matches!(body, EventBody::Unknown { user_id: None, .. }), "{nobody}");
    }
}

#[test]
fn completed_false_opens_the_task_again() {
    let event = plain(r#"{"type":"task_completed","data":{"id":"t","completed":false}}"#).unwrap();
    let EventBody::Existing { action: Action::Update(patch), .. } = event.body else {
        panic!("an update")
    };
    assert_eq!(patch, TaskPatch { completed: Some(false), ..TaskPatch::default() });
}

#[test]
fn the_digest_is_of_what_the_event_says_and_not_of_its_form() {
    let digest = |value: &str| plain(value).unwrap().digest;
    let same = r#"{"data":{"user_id":"u1","title":"\u0042uy","id":"t1","description":null,
        "due_date":"2026-01-01T12:00:00.123+02:00","priority":"high","completed":false},
        "type":"task_created","event_id":"e2"}"#;
    assert_eq!(digest(CREATED), digest(same));
    assert_ne!(digest(CREATED), digest(&CREATED.replace("Buy", "Bu")));
    let (deleted, due) = (
        r#"{"type":"task_deleted","event_id":"e","data":{"id":"t"}}"#,
        r#"{"type":"task_due_soon","event_id":"e","data":{"id":"t"}}"#,
    );
    assert_ne!(digest(deleted), digest(due));
}

#[test]
fn what_is_encoded_is_decoded_to_the_same() {
    let id = TaskId::new("t1").unwrap();
    let existing =
        |action| EventBody::Existing { id: id.clone(), user_id: UserId::new("u1"), action };
    let patch = TaskPatch {
        title: Some("a\"b".to_owned()),
        description: Some(None),
        priority: Some(Priority::Urgent),
        due_date: Some(Some(5)),
        labels: Some(vec!["x".to_owned()]),
        completed: Some(true),
        completed_at: Some(8),
    };
    for body in [
        EventBody::Created(creation()),
        existing(Action::Complete { completed_at: None }),
        existing(Action::Complete { completed_at: Some(7) }),
        existing(Action::Update(patch)),
        existing(Action::Update(TaskPatch::default())),
        existing(Action::ChangePriority(Priority::Low)),
        existing(Action::Delete),
        existing(Action::DueSoon { due_date: Some(9) }),
    ] {
        let event = TaskEvent::new(EventId::new("e").unwrap(), Some(3), body);
        let json = event.to_json();
        let decoded = decode::<&[u8]>(Some(&json), &[]).unwrap();
        assert_eq!(decoded.event_type, event.event_type);
        assert_eq!(decoded.event_id, event.event_id);
        assert_eq!(decoded.digest, event.digest);
        assert_eq!(decoded.expected_version, Some(3));
        assert_eq!(decoded.body, event.body);
    }
}

#[test]
fn of_a_member_that_comes_twice_the_last_one_counts() {
    let event = plain(r#"{"type":"x","type":"task_deleted","data":{"id":"a","id":"b"}}"#).unwrap();
    assert_eq!(event.body.task_id().map(TaskId::as_str), Some("b"));
}

proptest! {
    #[test]
    fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<&[u8]>(Some(&value), &[]);
    }

    #[test]
    fn no_damage_to_an_event_panics(at in 0..CREATED.len(), byte in any::<u8>()) {
        let mut value = CREATED.as_bytes().to_vec();
        value[at] = byte;
        let _ = decode::<&[u8]>(Some(&value), &[]);
        let _ = decode::<&[u8]>(Some(&value[..at]), &[]);
    }
}
