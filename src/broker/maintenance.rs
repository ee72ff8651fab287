//! What the broker does by the clock: retention, and noting how far each log is durable.

use super::{meta::Meta, topics::Topics};
use crate::{
    metrics::Metrics,
    position::{Offset, TopicPartition},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the daemon's own group has durably processed: below it, retention may delete from the
/// daemon's own topics. Shared; a partition that was never reported keeps everything.
#[derive(Clone, Debug, Default)]
pub(super) struct KeepFrom(Arc<Mutex<HashMap<TopicPartition, Offset>>>);

impl KeepFrom {
    pub(super) fn set(&self, place: TopicPartition, durable: Offset) {
        self.0.lock().expect("no holder panics").insert(place, durable);
    }

    fn of(&self, place: &TopicPartition) -> Offset {
        self.0.lock().expect("no holder panics").get(place).copied().unwrap_or_default()
    }
}

/// What it works on. No handle of the broker itself: that one's last clone ends this.
pub(super) struct Parts {
    pub(super) topics: Topics,
    pub(super) keep_from: KeepFrom,
    pub(super) meta: Meta,
    pub(super) metrics: Arc<Metrics>,
}

/// Runs until `ending`.
pub(super) async fn run(parts: Parts, ending: CancellationToken) {
    let mut recorded = HashMap::new();
    loop {
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(EVERY) => (),
        }
        parts.apply_retention().await;
        parts.record_ends(&mut recorded).await;
        parts.count_holes();
    }
}

impl Parts {
    async fn apply_retention(&self) {
        let snapshot = self.topics.snapshot();
        for topic in snapshot.all() {
            for (place, handle) in topic.places() {
                let keep_from =
                    if topic.is_reserved { self.keep_from.of(&place) } else { LAST_OFFSET };
                match handle.apply_retention(keep_from).await {
                    Ok(0) => (),
                    Ok(segments) => {
                        tracing::info!(%place, segments, "retention deleted segments");
                    }
                    // Logged by the owner; the next round tries again.
                    Err(error) => tracing::debug!(%place, %error, "retention was not applied"),
                }
            }
        }
    }

    /// Counts holes anew: those that retention has deleted are none any more.
    fn count_holes(&self) {
        let snapshot = self.topics.snapshot();
        let places = snapshot.all().flat_map(|topic| topic.places());
        let holes: usize = places.map(|(_, handle)| handle.reader().holes().len()).sum();
        self.metrics.log_holes.set(i64::try_from(holes).unwrap_or(i64::MAX));
    }

    /// Notes durable ends that have moved: a bad tail below one is damage, not a torn write. By
    /// topic id, since a new topic of an old name begins anew.
    async fn record_ends(&self, recorded: &mut HashMap<(Uuid, TopicPartition), Offset>) {
        let snapshot = self.topics.snapshot();
        let mut ends = HashMap::new();
        for topic in snapshot.all() {
            let of_topic = topic.places().map(|(place, handle)| (place, handle.durable_end()));
            ends.extend(of_topic.map(|(place, end)| ((topic.id, place), end)));
        }
        let moved = ends.iter().filter(|(key, end)| recorded.get(key) != Some(end));
        let moved: Vec<_> = moved.map(|((id, place), end)| (*id, place.clone(), *end)).collect();
        if moved.is_empty() {
            return;
        }
        match self.meta.record_ends(moved).await {
            Ok(()) => *recorded = ends,
            Err(error) => tracing::warn!(%error, "durable ends were not recorded"),
        }
    }
}

/// How often; Kafka's `log.retention.check.interval.ms` is 5 minutes.
const EVERY: Duration = Duration::from_secs(30);
const LAST_OFFSET: Offset = match Offset::new(i64::MAX) {
    Some(offset) => offset,
    None => unreachable!(),
};
