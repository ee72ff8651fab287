//! When a session has to do something by itself, whatever it goes over.

use super::limits::SocketLimits;
use crate::hub::message::CloseCode;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time between two looks at the wall clock for the token's expiry.
const EXPIRY_CHECK_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before a token's expiry its client is warned; a tenth of its life, if that is shorter.
const WARNING: Duration = Duration::from_secs(60);

/// What is due, beside an end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Due {
    /// A ping, or whatever shows that we are there.
    pub(super) ping: bool,
    /// The token expires soon.
    pub(super) warning: bool,
}

/// How long a write may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct WriteLimit {
    pub(super) at: Instant,
    /// The token has expired by then, and all the time for its close is used: only a reset is left.
    pub(super) is_expiry: bool,
}

/// When the pump has to do something by itself.
pub(super) struct Timers {
    limits: SocketLimits,
    ping_at: Instant,
    /// Set while a ping is unanswered.
    pong_by: Option<Instant>,
    expires_at_ms: Option<i64>,
    expiry_check_at: Option<Instant>,
    /// Set until the client was warned of the expiry.
    warning_at_ms: Option<i64>,
    warning_check_at: Option<Instant>,
    /// Set once the daemon stops.
    pub(super) close_at: Option<Instant>,
}

impl Timers {
    pub(super) fn new(
        limits: SocketLimits,
        expires_at_ms: Option<i64>,
        now: Instant,
        now_ms: i64,
    ) -> Self {
        let mut timers = Self {
            ping_at: now + limits.ping_interval,
            limits,
            pong_by: None,
            expires_at_ms: None,
            expiry_check_at: None,
            warning_at_ms: None,
            warning_check_at: None,
            close_at: None,
        };
        timers.take_expiry(expires_at_ms, now, now_ms);
        timers
    }

    /// The token that counts from now on expires then.
    pub(super) fn take_expiry(&mut self, expires_at_ms: Option<i64>, now: Instant, now_ms: i64) {
        self.expires_at_ms = expires_at_ms;
        self.warning_at_ms = expires_at_ms.map(|at| {
            let life = at.saturating_sub(now_ms).max(0);
            let most = i64::try_from(WARNING.as_millis()).unwrap_or(i64::MAX);
            at.saturating_sub(most.min(life / 10))
        });
        self.arm_expiry(now, now_ms);
    }

    fn arm_expiry(&mut self, now: Instant, now_ms: i64) {
        let check_at = |at_ms: i64| {
            let left =
                Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0));
            now + left.min(EXPIRY_CHECK_MAX)
        };
        self.expiry_check_at = self.expires_at_ms.map(check_at);
        self.warning_check_at = self.warning_at_ms.map(check_at);
    }

    pub(super) fn next(&self) -> Instant {
        [self.pong_by, self.expiry_check_at, self.warning_check_at, self.close_at]
            .into_iter()
            .flatten()
            .fold(self.ping_at, Instant::min)
    }

    /// How long a write that begins now may take: no token is outlived by more than its close.
    pub(super) fn write_limit(&self, now: Instant) -> WriteLimit {
        let latest = now + self.limits.write_timeout;
        let expiry = self.expiry_check_at.map(|at| at + self.limits.close_timeout);
        match expiry.filter(|expiry| *expiry < latest) {
            Some(at) => WriteLimit { at, is_expiry: true },
            None => WriteLimit { at: latest, is_expiry: false },
        }
    }

    /// A frame came in.
    pub(super) fn heard(&mut self) {
        self.pong_by = None;
    }

    /// A write was taken; while it was blocked, nothing was read, so the pong may be waiting.
    pub(super) fn wrote(&mut self, now: Instant) {
        if self.pong_by.is_some_and(|by| by <= now) {
            self.pong_by = Some(now + self.limits.pong_timeout);
        }
    }

    /// What is due.
    ///
    /// # Errors
    /// How the session ends.
    pub(super) fn fired(&mut self, now: Instant, now_ms: i64) -> Result<Due, CloseCode> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.close_at) {
            return Err(CloseCode::GoingAway);
        }
        // Whatever is due, and a ping is soon: the wall clock may have been set on, or the machine
        // have slept, which the other clock does not tell.
        if self.expires_at_ms.is_some_and(|at| at <= now_ms) {
            return Err(CloseCode::Token);
        }
        let warning = self.warning_at_ms.take_if(|at| *at <= now_ms).is_some();
        self.arm_expiry(now, now_ms);
        if is_due(self.pong_by) {
            return Err(CloseCode::NoPong);
        }
        if self.ping_at > now {
            return Ok(Due { ping: false, warning });
        }
        self.ping_at = now + self.limits.ping_interval;
        self.pong_by.get_or_insert(now + self.limits.pong_timeout);
        Ok(Due { ping: true, warning })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const PING_INTERVAL: Duration = Duration::from_secs(30);
    const PONG_TIMEOUT: Duration = Duration::from_secs(20);

    const NOTHING: Due = Due { ping: false, warning: false };
    const PING: Due = Due { ping: true, warning: false };

    fn timers_of(expires_at_ms: Option<i64>, now: Instant, now_ms: i64) -> Timers {
        let limits = crate::http::tests::support::limits().socket;
        Timers::new(limits, expires_at_ms, now, now_ms)
    }

    #[test]
    fn a_peer_that_does_not_answer_a_ping_is_closed() {
        let start = Instant::now();
        let mut timers = timers_of(None, start, 0);
        assert_eq!(timers.next(), start + PING_INTERVAL);
        assert_eq!(timers.fired(start + PING_INTERVAL - S, 0), Ok(NOTHING));
        let pinged = start + PING_INTERVAL;
        assert_eq!(timers.fired(pinged, 0), Ok(PING));
        assert_eq!(timers.next(), pinged + PONG_TIMEOUT);
        timers.heard();
        assert_eq!(timers.fired(pinged + PONG_TIMEOUT, 0), Ok(NOTHING));
        let pinged = pinged + PING_INTERVAL;
        assert_eq!(timers.fired(pinged, 0), Ok(PING));
        assert_eq!(timers.fired(pinged + PONG_TIMEOUT, 0), Err(CloseCode::NoPong));
    }

    #[test]
    fn the_pong_timer_stands_while_our_write_is_blocked() {
        let start = Instant::now();
        let mut timers = timers_of(None, start, 0);
        let pinged = start + PING_INTERVAL;
        assert_eq!(timers.fired(pinged, 0), Ok(PING));
        let taken = pinged + PONG_TIMEOUT + S;
        timers.wrote(taken);
        assert_eq!(timers.fired(taken, 0), Ok(NOTHING), "not closed by the time that we waited");
        assert_eq!(timers.fired(taken + PONG_TIMEOUT, 0), Err(CloseCode::NoPong));
    }

    #[test]
    fn expiry_goes_by_the_wall_clock() {
        let start = Instant::now();
        let mut timers = timers_of(Some(2_000), start, 1_000);
        timers.warning_at_ms = None;
        timers.arm_expiry(start, 1_000);
        assert_eq!(timers.next(), start + S);
        assert_eq!(timers.fired(start + S, 1_500), Ok(NOTHING), "the wall clock was set back");
        assert_eq!(timers.fired(start + 2 * S, 2_000), Err(CloseCode::Token));
        let mut timers = timers_of(Some(3_600_000), start, 0);
        let pinged = start + PING_INTERVAL;
        assert_eq!(timers.fired(pinged, 3_600_000), Err(CloseCode::Token), "it was set on");
        let far = timers_of(Some(i64::MAX), start, i64::MIN);
        assert_eq!(far.expiry_check_at, Some(start + EXPIRY_CHECK_MAX));
    }

    #[test]
    fn no_write_outlives_the_token_by_more_than_the_close() {
        let start = Instant::now();
        assert_eq!(timers_of(None, start, 0).write_limit(start).at, start + 60 * S);
        assert_eq!(timers_of(Some(2_000), start, 1_000).write_limit(start).at, start + 6 * S);
        assert_eq!(timers_of(Some(90_000), start, 0).write_limit(start).at, start + 60 * S);
    }

    #[test]
    fn a_client_is_warned_once_before_its_token_expires() {
        let start = Instant::now();
        for (life_ms, lead_ms) in [(3_600_000, 60_000), (10_000, 1_000)] {
            let mut timers = timers_of(Some(life_ms), start, 0);
            timers.ping_at = start + 10_000 * S;
            let at_ms = life_ms - lead_ms;
            let at = start + Duration::from_millis(u64::try_from(at_ms).unwrap());
            assert_eq!(timers.next(), at);
            assert_eq!(timers.fired(at, at_ms - 1), Ok(NOTHING), "the wall clock was set back");
            assert_eq!(timers.fired(at, at_ms), Ok(Due { ping: false, warning: true }));
            assert_eq!(timers.fired(at, at_ms), Ok(NOTHING), "once");
            timers.take_expiry(Some(2 * life_ms), at, at_ms);
            assert_eq!(timers.fired(at, life_ms), Ok(NOTHING), "another token lives longer");
            assert!(timers.warning_check_at.is_some());
        }
    }
}
