//! The domain: a user's task, the events that change it, and the one function that applies them.
//!
//! Pure: no I/O, no async, no clock (times come from records), no Kafka, no HTTP.

pub mod event;
pub mod field;
mod json;
pub mod time;
pub mod transition;

pub use json::{JsonError, items as json_items, write_items as write_json_items};

use serde::Deserialize;
use std::{borrow::Cow, fmt, sync::Arc};

/// Longest task id and user id in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Longest title in characters; the shortest is 1.
pub const TITLE_CHARS_MAX: usize = 500;
/// Longest description in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 10_000;
/// Most labels of a task.
pub const LABELS_MAX: usize = 32;
/// Longest label in characters; the shortest is 1.
pub const LABEL_CHARS_MAX: usize = 64;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id: 1 to [`ID_BYTES_MAX`] bytes, no control characters.
            pub fn new(text: &str) -> Option<Self> {
                let fits = (1..=ID_BYTES_MAX).contains(&text.len());
                (fits && !text.chars().any(char::is_control)).then(|| Self(Arc::from(text)))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// A task's id, chosen by whoever creates it. Cheap to clone.
    TaskId
}
id_type! {
    /// A user's id: the `sub` of a token. Cheap to clone.
    UserId
}

/// How urgent a task is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// `low`
    Low,
    /// `medium`
    #[default]
    Medium,
    /// `high`
    High,
    /// `urgent`
    Urgent,
}

impl Priority {
    /// The priority by its name in JSON.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "low" => Some(Self::Low),
            "medium" => Some(Self::Medium),
            "high" => Some(Self::High),
            "urgent" => Some(Self::Urgent),
            _ => None,
        }
    }

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

/// A user's to-do. Times are milliseconds since 1970 (RFC 3339 UTC in JSON).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// 1 to [`TITLE_CHARS_MAX`] characters.
    pub title: String,
    /// Up to [`DESCRIPTION_CHARS_MAX`] characters.
    pub description: Option<String>,
    /// Its owner; never changes.
    pub user_id: UserId,
    /// How urgent it is.
    pub priority: Priority,
    /// When it is due.
    pub due_date: Option<i64>,
    /// Up to [`LABELS_MAX`] labels, in the order given, each once.
    pub labels: Vec<String>,
    /// Whether it is done.
    pub completed: bool,
    /// When it was done; only while `completed`.
    pub completed_at: Option<i64>,
    /// The timestamp of the record that created it.
    pub created_at: i64,
    /// The timestamp of the record that changed it last.
    pub updated_at: i64,
    /// From 1, one more with each change.
    pub version: u64,
}

impl Task {
    /// The task as REST and WebSocket show it: one JSON object, keys in declaration order.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(JSON_BYTES_USUAL + self.title.len());
        self.write_json(&mut out);
        out
    }

    /// Appends what [`Task::to_json`] returns.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        json::write_string(self.id.as_str(), out);
        out.extend_from_slice(b",\"title\":");
        json::write_string(&self.title, out);
        out.extend_from_slice(b",\"description\":");
        write_or_null(self.description.as_deref(), out, json::write_string);
        out.extend_from_slice(b",\"user_id\":");
        json::write_string(self.user_id.as_str(), out);
        out.extend_from_slice(b",\"priority\":\"");
        out.extend_from_slice(self.priority.as_str().as_bytes());
        out.extend_from_slice(b"\",\"due_date\":");
        write_or_null(self.due_date, out, write_time);
        out.extend_from_slice(b",\"labels\":");
        write_labels(&self.labels, out);
        out.extend_from_slice(b",\"completed\":");
        out.extend_from_slice(if self.completed { b"true" } else { b"false" });
        out.extend_from_slice(b",\"completed_at\":");
        write_or_null(self.completed_at, out, write_time);
        out.extend_from_slice(b",\"created_at\":");
        write_time(self.created_at, out);
        out.extend_from_slice(b",\"updated_at\":");
        write_time(self.updated_at, out);
        out.extend_from_slice(b",\"version\":");
        write_number(self.version, out);
        out.push(b'}');
    }

    /// Appends a JSON object of the fields in which `after`, the task after a change, differs: as
    /// they were before. What every change moves (`updated_at`, `version`) is left out.
    pub fn write_changed(&self, after: &Self, out: &mut Vec<u8>) {
        let start = out.len();
        let name = |out: &mut Vec<u8>, name: &str| {
            out.extend_from_slice(if out.len() == start { b"{\"" } else { b",\"" });
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
        };
        if self.title != after.title {
            name(out, "title");
            json::write_string(&self.title, out);
        }
        if self.description != after.description {
            name(out, "description");
            write_or_null(self.description.as_deref(), out, json::write_string);
        }
        if self.priority != after.priority {
            name(out, "priority");
            json::write_string(self.priority.as_str(), out);
        }
        if self.due_date != after.due_date {
            name(out, "due_date");
            write_or_null(self.due_date, out, write_time);
        }
        if self.labels != after.labels {
            name(out, "labels");
            write_labels(&self.labels, out);
        }
        if self.completed != after.completed {
            name(out, "completed");
            out.extend_from_slice(if self.completed { b"true" } else { b"false" });
        }
        if self.completed_at != after.completed_at {
            name(out, "completed_at");
            write_or_null(self.completed_at, out, write_time);
        }
        out.extend_from_slice(if out.len() == start { b"{}" } else { b"}" });
    }

    /// The task that [`Task::to_json`] wrote.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let row: Row<'_> = serde_json::from_slice(json).ok()?;
        let instant = |text: Option<&str>| text.map_or(Some(None), |t| time::parse(t).map(Some));
        Some(Self {
            id: TaskId::new(&row.id)?,
            title: row.title.into_owned(),
            description: row.description.map(Cow::into_owned),
            user_id: UserId::new(&row.user_id)?,
            priority: Priority::parse(row.priority)?,
            due_date: instant(row.due_date)?,
            labels: row.labels,
            completed: row.completed,
            completed_at: instant(row.completed_at)?,
            created_at: time::parse(row.created_at)?,
            updated_at: time::parse(row.updated_at)?,
            version: row.version,
        })
    }
}

/// A task's JSON as it lies in memory.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    title: Cow<'a, str>,
    #[serde(borrow)]
    description: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    priority: &'a str,
    due_date: Option<&'a str>,
    labels: Vec<String>,
    completed: bool,
    completed_at: Option<&'a str>,
    created_at: &'a str,
    updated_at: &'a str,
    version: u64,
}

/// A usual task's JSON, title apart.
const JSON_BYTES_USUAL: usize = 384;

pub(crate) fn write_or_null<T>(value: Option<T>, out: &mut Vec<u8>, write: fn(T, &mut Vec<u8>)) {
    match value {
        Some(value) => write(value, out),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_time(ms: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    time::write(ms, out);
    out.push(b'"');
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &number).expect("a number is written to memory");
}

fn write_labels(labels: &[String], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, label) in labels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_string(label, out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn task() -> Task {
        Task {
            id: TaskId::new("t-1").unwrap(),
            title: "a \"b\"".to_owned(),
            description: None,
            user_id: UserId::new("u").unwrap(),
            priority: Priority::High,
            due_date: Some(0),
            labels: vec!["x".to_owned(), "\u{e4}\n".to_owned()],
            completed: false,
            completed_at: None,
            created_at: 1,
            updated_at: 2,
            version: 3,
        }
    }

    #[test]
    fn a_task_is_one_object_in_a_fixed_form() {
        let expected = concat!(
            r#"{"id":"t-1","title":"a \"b\"","description":null,"user_id":"u","#,
            r#""priority":"high","due_date":"1970-01-01T00:00:00.000Z","labels":["x","#,
            "\"\u{e4}\\n\"],",
            r#""completed":false,"completed_at":null,"created_at":"1970-01-01T00:00:00.001Z","#,
            r#""updated_at":"1970-01-01T00:00:00.002Z","version":3}"#,
        );
        assert_eq!(String::from_utf8(task().to_json()).unwrap(), expected);
    }

    #[test]
    fn what_changed_is_told_as_it_was() {
        let after = Task {
            title: "t".into(),
            description: Some("d".into()),
            priority: Priority::Low,
            due_date: None,
            labels: vec![],
            completed: true,
            completed_at: Some(5),
            updated_at: 9,
            version: 4,
            ..task()
        };
        let told = |before: &Task, after: &Task| {
            let mut out = b"before:".to_vec();
            before.write_changed(after, &mut out);
            String::from_utf8(out).unwrap()
        };
        let expected = concat!(
            r#"before:{"title":"a \"b\"","description":null,"priority":"high","#,
            r#""due_date":"1970-01-01T00:00:00.000Z","labels":["x","#,
            "\"\u{e4}\\n\"],",
            r#""completed":false,"completed_at":null}"#,
        );
        assert_eq!(told(&task(), &after), expected);
        assert_eq!(told(&task(), &task()), "before:{}");
        let other = Task { priority: Priority::Low, ..task() };
        assert_eq!(told(&task(), &other), r#"before:{"priority":"high"}"#);
    }

    #[test]
    fn what_we_did_not_write_is_no_task() {
        for bad in ["", "{}", "null", "[]", r#"{"id":""}"#] {
            assert_eq!(Task::from_json(bad.as_bytes()), None, "{bad}");
        }
        let whole = task().to_json();
        assert_eq!(Task::from_json(&whole[..whole.len() - 1]), None);
    }

    proptest! {
        #[test]
        fn a_task_survives_its_json(
            title in ".{1,20}",
            description in proptest::option::of(".{0,20}"),
            due_date in proptest::option::of(time::TIME_MIN_MS..=time::TIME_MAX_MS),
            labels in proptest::collection::vec(".{1,5}", 0..3),
            version in any::<u64>(),
        ) {
            let completed_at = due_date;
            let completed = due_date.is_some();
            let task = Task {
                title, description, due_date, labels, version, completed, completed_at, ..task()
            };
            prop_assert_eq!(Task::from_json(&task.to_json()), Some(task));
        }
    }
}
