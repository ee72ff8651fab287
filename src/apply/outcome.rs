//! Who waits for the outcome of which event.

use crate::{
    store::Outcome,
    task::event::{Digest, EventId},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Most outcomes that are waited for at once. Whoever comes on top is told at once that no outcome
/// comes in time.
pub(super) const WAITERS_MAX: usize = 65_536;

/// What one event came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Settled {
    pub(super) event_id: EventId,
    /// `None` where not even that much could be read of the event.
    pub(super) digest: Option<Digest>,
    pub(super) outcome: Outcome,
}

/// The waiters by event id.
#[derive(Default)]
pub(super) struct Outcomes(Mutex<Registry>);

#[derive(Default)]
struct Registry {
    waiters: HashMap<EventId, Vec<Waiter>>,
    count: usize,
    next_number: u64,
    is_closed: bool,
}

struct Waiter {
    number: u64,
    digest: Option<Digest>,
    sender: oneshot::Sender<Outcome>,
}

impl Outcomes {
    pub(super) fn expect(
        self: &Arc<Self>,
        event_id: EventId,
        digest: Option<Digest>,
    ) -> PendingOutcome {
        let mut registry = self.lock();
        if registry.is_closed || registry.count == WAITERS_MAX {
            return PendingOutcome::never();
        }
        let (sender, receiver) = oneshot::channel();
        let number = registry.next_number;
        registry.next_number += 1;
        registry.count += 1;
        let waiter = Waiter { number, digest, sender };
        registry.waiters.entry(event_id.clone()).or_default().push(waiter);
        let interest = Interest { outcomes: Arc::clone(self), event_id, number };
        PendingOutcome { state: State::Waiting { receiver, _interest: interest } }
    }

    /// Tells the waiters, if there are any.
    pub(super) fn settle(&self, all: Vec<Settled>) {
        let mut registry = self.lock();
        if registry.count == 0 {
            return;
        }
        for settled in all {
            registry.settle(&settled);
        }
    }

    /// Ends all waiting, now and later.
    pub(super) fn close(&self) {
        let mut registry = self.lock();
        registry.is_closed = true;
        registry.waiters.clear();
        registry.count = 0;
    }

    fn forget(&self, event_id: &EventId, number: u64) {
        let mut registry = self.lock();
        let Some(waiters) = registry.waiters.get_mut(event_id) else { return };
        let before = waiters.len();
        waiters.retain(|waiter| waiter.number != number);
        let removed = before - waiters.len();
        if waiters.is_empty() {
            registry.waiters.remove(event_id);
        }
        registry.count -= removed;
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // The registry is whole after every statement, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    fn settle(&mut self, settled: &Settled) {
        let Some(waiters) = self.waiters.get_mut(&settled.event_id) else { return };
        let is_meant = |waiter: &mut Waiter| {
            waiter.digest.is_none() || settled.digest.is_none() || waiter.digest == settled.digest
        };
        let told: Vec<Waiter> = waiters.extract_if(.., is_meant).collect();
        if waiters.is_empty() {
            self.waiters.remove(&settled.event_id);
        }
        self.count -= told.len();
        for waiter in told {
            // Whoever stopped waiting does not want it.
            drop(waiter.sender.send(settled.outcome.clone()));
        }
    }
}

/// An outcome that is waited for. Dropping it ends the interest.
pub struct PendingOutcome {
    state: State,
}

enum State {
    Waiting { receiver: oneshot::Receiver<Outcome>, _interest: Interest },
    Done(Option<Outcome>),
}

/// Takes the waiter away when nobody waits any more.
struct Interest {
    outcomes: Arc<Outcomes>,
    event_id: EventId,
    number: u64,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.outcomes.forget(&self.event_id, self.number);
    }
}

impl PendingOutcome {
    pub(super) const fn never() -> Self {
        Self { state: State::Done(None) }
    }

    /// Waits for the outcome; `None` if apply ends first or too many outcomes are waited for.
    /// Cancel safe, and the same again once it is known.
    pub async fn outcome(&mut self) -> Option<Outcome> {
        if let State::Waiting { receiver, .. } = &mut self.state {
            let outcome = receiver.await.ok();
            self.state = State::Done(outcome);
        }
        match &self.state {
            State::Done(outcome) => outcome.clone(),
            State::Waiting { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> EventId {
        EventId::new(text).unwrap()
    }

    fn settled(text: &str, digest: Option<Digest>) -> Settled {
        Settled { event_id: id(text), digest, outcome: Outcome::VersionMismatch }
    }

    #[tokio::test]
    async fn every_waiter_of_an_event_is_told_once() {
        let outcomes = Arc::new(Outcomes::default());
        let mut first = outcomes.expect(id("a"), None);
        let mut second = outcomes.expect(id("a"), Some([1; 16]));
        let other = outcomes.expect(id("a"), Some([2; 16]));
        outcomes.settle(vec![settled("b", None), settled("a", Some([1; 16]))]);
        assert_eq!(first.outcome().await, Some(Outcome::VersionMismatch));
        assert_eq!(second.outcome().await, Some(Outcome::VersionMismatch));
        assert_eq!(second.outcome().await, Some(Outcome::VersionMismatch));
        assert_eq!(outcomes.lock().count, 1);
        drop(other);
        assert!(outcomes.lock().waiters.is_empty());
        assert_eq!(outcomes.lock().count, 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_an_apply_that_has_ended() {
        let outcomes = Arc::new(Outcomes::default());
        let mut before = outcomes.expect(id("a"), None);
        outcomes.close();
        assert_eq!(before.outcome().await, None);
        assert_eq!(outcomes.expect(id("a"), None).outcome().await, None);
        drop(before);
        assert_eq!(outcomes.lock().count, 0);
    }
}
