//! A histogram of durations that can be read back, and that many threads count on without a lock.

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Upper bounds in microseconds; each is inclusive, and the last bucket has none.
const BOUNDS_US: [u64; 15] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000,
];

/// Durations, counted by their length. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Durations(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        self.0.counts[at].fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Each bucket: its upper bound in seconds (`None`: the rest), and how many are in it alone.
    pub fn buckets(&self) -> Vec<(Option<f64>, u64)> {
        let bounds = BOUNDS_US.iter().map(|us| Some(Duration::from_micros(*us).as_secs_f64()));
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        bounds.chain([None]).zip(counts).collect()
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let buckets = self.buckets();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(self.0.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        let buckets: Vec<(f64, u64)> =
            buckets.into_iter().map(|(bound, count)| (bound.unwrap_or(f64::MAX), count)).collect();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        for us in [0, 50, 51, 5_000_000, 5_000_001] {
            durations.observe(Duration::from_micros(us));
        }
        let counts: Vec<u64> = durations.buckets().iter().map(|(_, count)| *count).collect();
        assert_eq!((counts[0], counts[1], counts[14], counts[15]), (2, 1, 1, 1));
        assert_eq!(durations.buckets()[15].0, None);
    }
}
