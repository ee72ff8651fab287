//! How far the daemon's own group is, as apply reports it: shared with the coordinator, which shows
//! it as committed offsets, and with retention, which keeps what is not durably processed.

use crate::position::{Offset, TopicPartition};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// One partition's progress.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Processed {
    /// Next offset that apply reads.
    pub processed: Offset,
    /// Everything below is durable in the store.
    pub durable: Offset,
}

/// Shared handle. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<HashMap<TopicPartition, Processed>>>);

impl Progress {
    /// Takes a report.
    pub fn report(&self, place: TopicPartition, processed: Offset, durable: Offset) {
        let mut all = self.0.lock().expect("no holder panics");
        all.insert(place, Processed { processed, durable });
    }

    /// The last report of one partition.
    pub fn of(&self, place: &TopicPartition) -> Option<Processed> {
        self.0.lock().expect("no holder panics").get(place).copied()
    }

    /// Every partition that was reported, by name.
    pub fn all(&self) -> Vec<(TopicPartition, Processed)> {
        let all = self.0.lock().expect("no holder panics");
        let mut all: Vec<_> = all.iter().map(|(place, at)| (place.clone(), *at)).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}
