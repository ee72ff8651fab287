//! `task_due_soon`: the store says which tasks are due, and the worker publishes a reminder of each
//! to the applied topic, where it is an event like any other.
//!
//! Once per due date: the transaction that applies a reminder takes its task's row in the store
//! away, so neither a restart nor a clock that goes back makes it again; and its event id follows
//! from task and date, so a reminder that is published twice is a duplicate.

use super::worker::Worker;
use crate::{
    feed::OutboundRecord,
    position::RecordPosition,
    store::{DueTask, StoreError},
    task::time,
};
use bytes::Bytes;
use serde_json::json;
use tracing::warn;

/// Most reminders of one look, and there is one look a second: what comes due at once, or by a
/// clock that jumps, is told of at this rate.
const REMINDERS_PER_LOOK_MAX: usize = 500;

/// The reminders that are published and not applied yet.
#[derive(Default)]
pub(super) struct Reminders {
    in_flight: Vec<RecordPosition>,
}

impl Worker {
    /// Publishes what is due, once all that was published before is applied.
    pub(super) async fn remind(&mut self) -> Result<(), StoreError> {
        let Some(due_soon) = self.parts.options.due_soon else { return Ok(()) };
        let cursors = &self.cursors;
        let is_applied = |place: &RecordPosition| {
            cursors.get(&place.partition).is_some_and(|cursor| cursor.next > place.offset)
        };
        if !self.reminders.in_flight.iter().all(is_applied) {
            return Ok(());
        }
        self.reminders.in_flight.clear();
        let ahead_ms = i64::try_from(due_soon.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.parts.clock.now_ms().saturating_add(ahead_ms);
        let due = match self.parts.store.due_before(before_ms, REMINDERS_PER_LOOK_MAX).await {
            // Damage is told of by the store; what is not damaged goes on.
            Err(StoreError::Damaged { .. }) => return Ok(()),
            due => due?,
        };
        if due.is_empty() {
            return Ok(());
        }
        let records = due.iter().map(|due| self.reminder(due)).collect();
        match self.parts.feed.publish_all(records).await {
            Ok(places) => self.reminders.in_flight = places,
            // The next look finds the same tasks due.
            Err(error) => warn!(%error, "reminders were not published; tried again"),
        }
        Ok(())
    }

    fn reminder(&self, due: &DueTask) -> OutboundRecord {
        let mut date = Vec::new();
        time::write(due.due_date, &mut date);
        let date = String::from_utf8_lossy(&date);
        let mut data = json!({"id": due.task_id.as_str(), "due_date": date});
        if let Some(task) = &due.task {
            data["title"] = task.title.as_str().into();
        }
        let event_id = format!("due-{}-{date}", due.task_id);
        let event = json!({"type": "task_due_soon", "event_id": event_id, "data": data});
        OutboundRecord {
            topic: self.parts.options.topic.clone(),
            partition: None,
            timestamp_ms: None,
            key: Some(Bytes::copy_from_slice(due.task_id.as_str().as_bytes())),
            value: Some(Bytes::from(event.to_string())),
            headers: Vec::new(),
        }
    }
}
