//! The domain: a user's task, the events that change it, and the one function that applies them.
//!
//! Pure: no I/O, no async, no clock (times come from records), no Kafka, no HTTP.

pub mod event;
pub mod transition;

use std::{fmt, sync::Arc};

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
        todo!()
    }

    /// The task that [`Task::to_json`] wrote.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let _ = json;
        todo!()
    }
}
