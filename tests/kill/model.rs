//! What the events of the topic come to, by the documentation and not by the daemon's code: only the
//! few types that the producers of this test send.

use crate::rest::Known;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One message that a socket must be told: type, task, version.
pub(crate) type Told = (String, String, u64);

/// The topic's records, applied in order.
#[derive(Default)]
pub(crate) struct Topic {
    pub(crate) tasks: BTreeMap<String, Known>,
    pub(crate) told: Vec<Told>,
    /// Offsets of the records that no one can read.
    pub(crate) poison: Vec<i64>,
    /// Events that came again.
    pub(crate) duplicates: usize,
    event_ids: BTreeSet<String>,
    waiting: BTreeSet<String>,
}

impl Topic {
    /// Takes the next record. What comes by REST has ids of its own and is passed over.
    pub(crate) fn take(&mut self, offset: i64, value: &Bytes) {
        let Ok(event) = serde_json::from_slice::<Value>(value) else {
            self.poison.push(offset);
            return;
        };
        let Some(id) = event["data"]["id"].as_str().filter(|id| id.starts_with("k-")) else {
            return;
        };
        if !self.event_ids.insert(event["event_id"].as_str().expect("an id").to_owned()) {
            self.duplicates += 1;
            return;
        }
        match event["type"].as_str() {
            Some("task_created") => {
                let title = event["data"]["title"].as_str().expect("a title").to_owned();
                let task = Known { title, completed: false, version: 1 };
                self.tasks.insert(id.to_owned(), task);
                self.told.push(("task_created".to_owned(), id.to_owned(), 1));
                if self.waiting.remove(id) {
                    self.complete(id);
                }
            }
            Some("task_completed") if self.tasks.contains_key(id) => self.complete(id),
            Some("task_completed") => drop(self.waiting.insert(id.to_owned())),
            other => panic!("not sent here: {other:?}"),
        }
    }

    fn complete(&mut self, id: &str) {
        let task = self.tasks.get_mut(id).expect("it is there");
        task.completed = true;
        task.version += 1;
        self.told.push(("task_completed".to_owned(), id.to_owned(), task.version));
    }
}
