//! The bounds of the Kafka port that all its connections share: how many there are, in all and of
//! one address, their memory, what they make the broker do at once, and what they make it log.

use crate::{budget::Budget, places::Places};
use rustix::process::{Resource, getrlimit};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// How much the Kafka port takes.
#[derive(Clone, Copy, Debug)]
pub struct PortOptions {
    /// Most connections of one address (of one /64 for IPv6). Loopback addresses are not limited.
    pub connections_per_address_max: usize,
    /// Bytes of requests that have not arrived whole or that wait; half of it for requests that
    /// are worked on, as much for answers that are not read.
    pub memory_bytes_max: usize,
    /// For one request, from its first byte to its last; also for the first request to begin.
    pub frame_timeout: Duration,
    /// For a connection on which nothing happens, also when it does not read its answers.
    pub idle_timeout: Duration,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            connections_per_address_max: 500,
            memory_bytes_max: 64 << 20,
            frame_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub(in crate::broker) struct Limits {
    pub(in crate::broker) options: PortOptions,
    pub(in crate::broker) places: Places,
    /// Requests that arrive or wait.
    pub(in crate::broker) unfinished: Budget,
    /// Answers that are encoded and not yet written.
    pub(in crate::broker) unread: Budget,
    /// KiB of large requests that are worked on.
    work: Arc<Semaphore>,
    work_kibibytes: u32,
    /// Requests that gather large answers over some time, worked on at once.
    pub(in crate::broker) heavy: Semaphore,
    /// Reads of the disk for fetches and look-ups at once, so that they never take all of the
    /// threads that the owners of partitions write on.
    pub(in crate::broker) disk_reads: Semaphore,
    pub(in crate::broker) warnings: Throttle,
}

impl Limits {
    pub(in crate::broker) fn new(connections_max: usize, options: PortOptions) -> Self {
        let work_kibibytes =
            u32::try_from(options.memory_bytes_max / 2 / 1024).unwrap_or(WORK_KIBIBYTES_MAX);
        let work_kibibytes = work_kibibytes.clamp(1, WORK_KIBIBYTES_MAX);
        let connections_max = connections_max.min(files_for_connections());
        Self {
            places: Places::new(connections_max, Some(options.connections_per_address_max)),
            unfinished: Budget::new(options.memory_bytes_max),
            unread: Budget::new(options.memory_bytes_max),
            work: Arc::new(Semaphore::new(usize::try_from(work_kibibytes).unwrap_or(1))),
            work_kibibytes,
            heavy: Semaphore::new(HEAVY_MAX),
            disk_reads: Semaphore::new(DISK_READS_MAX),
            warnings: Throttle::default(),
            options,
        }
    }

    /// Waits for room to work on a large request of so many bytes; held while it is worked on.
    /// Cancel safe.
    pub(in crate::broker) async fn work(&self, bytes: usize) -> OwnedSemaphorePermit {
        let kibibytes = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
        let permits = kibibytes.min(self.work_kibibytes);
        let taken = Arc::clone(&self.work).acquire_many_owned(permits).await;
        taken.expect("the semaphore is never closed")
    }

    /// Whether large requests wait for each other: no more are read meanwhile.
    pub(in crate::broker) fn is_busy(&self) -> bool {
        self.work.available_permits() == 0
    }

    /// Most bytes that one more answer should have.
    pub(in crate::broker) fn answer_bytes_max(&self) -> usize {
        (self.unread.room() / ANSWERS_MIN).max(ANSWER_BYTES_MIN)
    }
}

/// Connections that the limit of open files has room for: a quarter of it, because a log that
/// cannot open a file is worse than a connection that is refused.
fn files_for_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 4).unwrap_or(usize::MAX)
}

/// Lets one line a second through, so that nobody fills a disk with our words about him.
#[derive(Debug, Default)]
pub(in crate::broker) struct Throttle(Mutex<(Option<Instant>, u64)>);

impl Throttle {
    /// Whether a line may be written now, and how many were not written before it.
    pub(in crate::broker) fn admit(&self) -> Option<u64> {
        let mut state = self.0.lock().expect("no holder panics");
        let now = Instant::now();
        if state.0.is_some_and(|last| now < last + LINE_INTERVAL) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

/// Most KiB of work at once, whatever the options say.
const WORK_KIBIBYTES_MAX: u32 = 1 << 20;
/// An answer takes at most this part of the room that is left for answers.
const ANSWERS_MIN: usize = 4;
/// Answers may be this large however many are not read.
const ANSWER_BYTES_MIN: usize = 64 << 10;
/// Each may gather all that the coordinator holds.
const HEAVY_MAX: usize = 4;
/// Below the 512 threads of the runtime, and each may take the memory of a large read.
const DISK_READS_MAX: usize = 8;
const LINE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn limits(connections_max: usize, per_address: usize) -> Limits {
        let options =
            PortOptions { connections_per_address_max: per_address, ..PortOptions::default() };
        Limits::new(connections_max, options)
    }

    fn peer(ip: &str) -> IpAddr {
        ip.parse().unwrap()
    }

    #[test]
    fn connections_are_limited_in_all_and_for_each_address() {
        let limits = limits(5, 2);
        let mut held = Vec::new();
        let mut take = |ip| limits.places.take(peer(ip)).map(|place| held.push(place)).is_ok();
        let taken = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"].map(&mut take);
        assert_eq!(taken, [true, true, false, true]);
        assert_eq!(["127.0.0.1", "::1", "192.0.2.3"].map(&mut take), [true, true, false]);
        held.remove(0);
        assert!(limits.places.take(peer("192.0.2.1")).is_ok());
        held.clear();
        assert_eq!(limits.places.counts(), (5, 0));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let limits = limits(9, 1);
        let _held = limits.places.take(peer("2001:db8::1")).unwrap();
        assert!(limits.places.take(peer("2001:db8::ffff:1")).is_err());
        assert!(limits.places.take(peer("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn answers_get_smaller_as_fewer_are_read() {
        let limits = limits(1, 1);
        assert_eq!(limits.answer_bytes_max(), 16 << 20);
        let ticket = limits.unread.begin(tokio_util::sync::CancellationToken::new());
        ticket.set(32 << 20);
        assert_eq!(limits.answer_bytes_max(), 8 << 20);
        ticket.set(64 << 20);
        assert_eq!(limits.answer_bytes_max(), ANSWER_BYTES_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_tells_how_many_were_left_out() {
        let throttle = Throttle::default();
        assert_eq!([(); 3].map(|()| throttle.admit()), [Some(0), None, None]);
        tokio::time::advance(LINE_INTERVAL).await;
        assert_eq!([(); 2].map(|()| throttle.admit()), [Some(2), None]);
    }

    #[tokio::test]
    async fn a_request_larger_than_all_work_takes_all_of_it() {
        let limits = limits(1, 1);
        let all = limits.work(usize::MAX).await;
        assert!(limits.is_busy());
        drop(all);
        assert!(!limits.is_busy());
    }
}
