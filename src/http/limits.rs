//! How many connections there may be, and how often a user or an address may ask.
//!
//! Requests are counted by token buckets (GCRA: a bucket is the time at which it is full again).
//! Buckets are kept in tables of fixed size, [`KEYS_MAX`] each, so that no number of keys costs
//! memory. Where a table has no room for another key, the fullest of a few buckets is forgotten:
//! the limit is looser then for whoever asked least, and nobody is refused for another's requests.
//!
//! Limits per address do not hold for loopback: whoever is there has the machine, and a proxy there
//! is not one client.

use crate::{
    places::{Places, Site},
    task::UserId,
};
use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Buckets of a table.
const KEYS_MAX: usize = 16_384;

/// A key can have one of this many places, so that finding it takes no longer when all are taken.
const WAYS: usize = 8;

const SETS: usize = KEYS_MAX / WAYS;

/// Bounds of port 8000.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request body in bytes.
    pub body_bytes_max: usize,
    /// Time for the headers of a request; an idle connection is closed after it too.
    pub header_timeout: Duration,
    /// Time for the whole body of a request.
    pub body_timeout: Duration,
    /// Time that a peer may let its answer wait, beyond what a very slow line needs.
    pub answer_timeout: Duration,
    /// Most connections in all, WebSockets among them.
    pub connections_max: usize,
    /// Most connections of one address that is not loopback.
    pub connections_per_address_max: Option<usize>,
    /// Requests of one user.
    pub rate_per_user: Option<Rate>,
    /// Requests from one address that is not loopback.
    pub rate_per_address: Option<Rate>,
    /// Refused tokens from one address that is not loopback.
    pub auth_failures_per_address: Option<Rate>,
    /// Bounds of a WebSocket.
    pub socket: SocketLimits,
}

/// Bounds of one WebSocket.
#[derive(Clone, Debug)]
pub struct SocketLimits {
    /// Frames from the client, pings among them.
    pub rate: Option<Rate>,
    /// Time between two pings of ours.
    pub ping_interval: Duration,
    /// Time for any frame to come after a ping.
    pub pong_timeout: Duration,
    /// Time for a write to be taken by the peer.
    pub write_timeout: Duration,
    /// Time for a close frame to go out and its answer to come in; the connection is reset then.
    pub close_timeout: Duration,
    /// Most changes, of all users, that a session may be behind once it had caught up.
    pub lag_max: Option<u64>,
}

/// A token bucket's size, and how fast it fills.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Time in which one token comes.
    interval_ns: u64,
    /// Tokens of a full bucket.
    burst: u32,
}

/// The time since the table's start at which a bucket is full again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at_ns: u64,
}

/// A bucket was empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Exceeded {
    /// What of: the name of the policy in `RateLimit` headers.
    pub(super) policy: &'static str,
    /// Tokens of a full bucket.
    pub(super) burst: u32,
    /// Seconds in which an empty bucket fills, at least 1.
    pub(super) window_s: u64,
    /// Seconds until there is a token, at least 1.
    pub(super) retry_after_s: u64,
}

impl Rate {
    /// `count` tokens each `period` and `burst` of them at once; `None` where any of them is zero.
    pub fn new(count: u32, period: Duration, burst: u32) -> Option<Self> {
        let period_ns = u64::try_from(period.as_nanos()).ok()?;
        let interval_ns = period_ns.checked_div(u64::from(count)).filter(|ns| *ns > 0)?;
        (burst > 0).then_some(Self { interval_ns, burst })
    }

    /// Takes a token; else the time in ns until there is one.
    pub(super) fn take(self, bucket: &mut Bucket, now_ns: u64) -> Result<(), u64> {
        let full_at_ns = bucket.full_at_ns.max(now_ns).saturating_add(self.interval_ns);
        let room_ns = self.interval_ns.saturating_mul(u64::from(self.burst));
        match (full_at_ns - now_ns).checked_sub(room_ns) {
            None | Some(0) => {
                *bucket = Bucket { full_at_ns };
                Ok(())
            }
            Some(wait_ns) => Err(wait_ns),
        }
    }

    fn exceeded(self, policy: &'static str, wait_ns: u64) -> Exceeded {
        let fill_ns = self.interval_ns.saturating_mul(u64::from(self.burst));
        Exceeded {
            policy,
            burst: self.burst,
            window_s: whole_seconds(fill_ns),
            retry_after_s: whole_seconds(wait_ns),
        }
    }
}

/// Rounded up, and at least one.
fn whole_seconds(ns: u64) -> u64 {
    ns.div_ceil(1_000_000_000).max(1)
}

/// Buckets by the hash of their key.
type Set = [(u64, Bucket); WAYS];

/// A table of buckets of one rate.
struct Buckets {
    policy: &'static str,
    rate: Rate,
    start: Instant,
    hasher: RandomState,
    sets: Box<[Mutex<Set>]>,
}

impl Buckets {
    fn new(policy: &'static str, rate: Rate) -> Self {
        let sets = (0..SETS).map(|_| Mutex::default()).collect();
        Self { policy, rate, start: Instant::now(), hasher: RandomState::new(), sets }
    }

    fn take(&self, key: &impl Hash) -> Result<(), Exceeded> {
        let elapsed = self.start.elapsed().as_nanos();
        self.take_at(key, u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn take_at(&self, key: &impl Hash, now_ns: u64) -> Result<(), Exceeded> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % (1 << 32)).unwrap_or(0) % self.sets.len();
        let mut set = self.sets[index].lock().unwrap_or_else(PoisonError::into_inner);
        // Two keys of one hash would share a bucket; there is no way to look for such keys.
        let at = set.iter().position(|(known, _)| *known == hash).unwrap_or_else(|| {
            let fullest = (0..WAYS).min_by_key(|at| set[*at].1.full_at_ns).unwrap_or(0);
            set[fullest] = (hash, Bucket::default());
            fullest
        });
        let taken = self.rate.take(&mut set[at].1, now_ns);
        taken.map_err(|wait_ns| self.rate.exceeded(self.policy, wait_ns))
    }
}

/// What has been used of the limits. One for all listeners.
pub(super) struct Usage {
    pub(super) places: Places,
    users: Option<Buckets>,
    sites: Option<Buckets>,
    failures: Option<Buckets>,
}

impl Usage {
    /// Nothing is used.
    pub(super) fn new(limits: &Limits) -> Self {
        let buckets = |policy, rate: Option<Rate>| rate.map(|rate| Buckets::new(policy, rate));
        Self {
            places: Places::new(limits.connections_max, limits.connections_per_address_max),
            users: buckets("user", limits.rate_per_user),
            sites: buckets("address", limits.rate_per_address),
            failures: buckets("auth-failures", limits.auth_failures_per_address),
        }
    }

    /// Counts a request of a user.
    pub(super) fn count_user(&self, user_id: &UserId) -> Result<(), Exceeded> {
        self.users.as_ref().map_or(Ok(()), |users| users.take(user_id))
    }

    /// Counts a request from an address.
    pub(super) fn count_address(&self, address: IpAddr) -> Result<(), Exceeded> {
        count_site(self.sites.as_ref(), address)
    }

    /// Counts a refused token.
    pub(super) fn count_failure(&self, address: IpAddr) -> Result<(), Exceeded> {
        count_site(self.failures.as_ref(), address)
    }
}

fn count_site(buckets: Option<&Buckets>, address: IpAddr) -> Result<(), Exceeded> {
    match (buckets, Site::of(address)) {
        (Some(buckets), Some(site)) => buckets.take(&site),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Usage")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const S: u64 = 1_000_000_000;

    fn ten_a_second(burst: u32) -> Rate {
        Rate::new(10, Duration::from_secs(1), burst).unwrap()
    }

    fn usage(change: impl FnOnce(&mut Limits)) -> Usage {
        let mut limits = crate::http::tests::support::limits();
        change(&mut limits);
        Usage::new(&limits)
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = ten_a_second(3);
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(rate.take(&mut bucket, S), Ok(()));
        }
        assert_eq!(rate.take(&mut bucket, S), Err(S / 10));
        assert_eq!(rate.take(&mut bucket, S + S / 20), Err(S / 20), "a refusal costs nothing");
        assert_eq!(rate.take(&mut bucket, S + S / 10), Ok(()));
        assert_eq!(rate.take(&mut bucket, S + S / 10), Err(S / 10));
        for _ in 0..3 {
            assert_eq!(rate.take(&mut bucket, 9 * S), Ok(()), "never more than the burst");
        }
        assert_eq!(rate.take(&mut bucket, 9 * S), Err(S / 10));
        assert_eq!(rate.take(&mut Bucket { full_at_ns: u64::MAX }, 0), Err(u64::MAX - 3 * S / 10));
        let none = [(0, 1, 1), (1, 0, 1), (1, 1, 0)];
        for (count, seconds, burst) in none {
            assert_eq!(Rate::new(count, Duration::from_secs(seconds), burst), None);
        }
    }

    #[test]
    fn what_is_exceeded_is_told_in_whole_seconds() {
        let a_minute = Rate::new(60, Duration::from_secs(60), 30).unwrap();
        let buckets = Buckets::new("user", a_minute);
        for _ in 0..30 {
            buckets.take_at(&"ada", 0).unwrap();
        }
        let exceeded = Exceeded { policy: "user", burst: 30, window_s: 30, retry_after_s: 1 };
        assert_eq!(buckets.take_at(&"ada", 0), Err(exceeded));
        assert_eq!(buckets.take_at(&"ada", S - 1), Err(exceeded), "a fraction is rounded up");
        assert_eq!(buckets.take_at(&"bob", 0), Ok(()));
        assert_eq!(buckets.take_at(&"ada", S), Ok(()));
    }

    #[test]
    fn a_table_full_of_fresh_keys_takes_more_and_forgets_those_who_asked_least() {
        let buckets = Buckets::new("address", ten_a_second(5));
        let greedy = "greedy".to_owned();
        for _ in 0..5 {
            buckets.take_at(&greedy, 0).unwrap();
        }
        for key in 0..10 * KEYS_MAX {
            assert_eq!(buckets.take_at(&key.to_string(), 0), Ok(()), "nobody pays for others");
        }
        assert!(buckets.take_at(&greedy, 0).is_err(), "who asked most is remembered");
        assert_eq!(buckets.sets.len() * WAYS, KEYS_MAX, "and the table has not grown");
    }

    #[test]
    fn loopback_has_no_rate_per_address() {
        let usage = usage(|limits| {
            limits.rate_per_address = Some(ten_a_second(1));
            limits.auth_failures_per_address = Some(ten_a_second(1));
        });
        for _ in 0..100 {
            usage.count_address(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
            usage.count_failure(IpAddr::V6(Ipv6Addr::LOCALHOST)).unwrap();
        }
        usage.count_address(v4(1)).unwrap();
        assert_eq!(usage.count_address(v4(1)).unwrap_err().policy, "address");
        usage.count_failure(v4(1)).unwrap();
        assert_eq!(usage.count_failure(v4(1)).unwrap_err().policy, "auth-failures");
        usage.count_address(v4(2)).unwrap();
    }
}
