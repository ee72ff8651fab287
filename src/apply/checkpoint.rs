//! When a checkpoint is due, and where each partition stands.

use crate::{
    position::{Offset, Partition},
    store::Processed,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Where apply is in one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// Next offset to process.
    pub(super) next: Offset,
    pub(super) leader_epoch: i32,
    /// As far as the store's last checkpoint.
    pub(super) durable: Offset,
    /// Log end as last seen.
    pub(super) log_end: Offset,
    /// Log end seen at start.
    pub(super) catch_up_to: Offset,
}

impl Cursor {
    /// A partition that was not processed yet, from its log start on.
    pub(super) const fn new(start: Offset, end: Offset) -> Self {
        Self { next: start, leader_epoch: -1, durable: start, log_end: end, catch_up_to: end }
    }

    /// Notes a commit.
    pub(super) fn moved(&mut self, processed: Processed) {
        self.next = processed.next;
        self.log_end = self.log_end.max(processed.next);
        if processed.leader_epoch >= 0 {
            self.leader_epoch = processed.leader_epoch;
        }
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.catch_up_to <= self.next
    }

    pub(super) fn lag(&self) -> u64 {
        u64::try_from(self.log_end.get().saturating_sub(self.next.get())).unwrap_or(0)
    }
}

/// The partitions by index.
pub(super) type Cursors = BTreeMap<Partition, Cursor>;

/// Counts what was applied since the last checkpoint.
#[derive(Debug)]
pub(super) struct Schedule {
    records_max: u64,
    interval: Duration,
    records: u64,
    /// Of the first batch since the last checkpoint.
    since: Option<Instant>,
}

impl Schedule {
    pub(super) const fn new(records_max: u64, interval: Duration) -> Self {
        Self { records_max, interval, records: 0, since: None }
    }

    pub(super) fn applied(&mut self, records: u64) {
        self.records = self.records.saturating_add(records);
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) fn taken(&mut self) {
        self.records = 0;
        self.since = None;
    }

    /// When the next one is due; `None` while there is nothing to make durable.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.since?;
        if self.records >= self.records_max { Some(since) } else { Some(since + self.interval) }
    }

    pub(super) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_is_due_by_count_or_by_time_if_anything_was_applied() {
        let mut schedule = Schedule::new(10, Duration::from_secs(5));
        assert_eq!(schedule.due(), None);
        schedule.applied(9);
        assert!(!schedule.is_due());
        schedule.applied(1);
        assert!(schedule.is_due());
        schedule.taken();
        assert_eq!(schedule.due(), None);
        schedule.applied(1);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(schedule.is_due());
    }
}
