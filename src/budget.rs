//! Memory for what waits for its peer: requests that have not arrived whole or that wait, answers
//! that are not read; of all connections of a port together.
//!
//! Bounds: small things are free, since the limit on connections bounds them; above that, what all
//! have is at most the budget. When it is full, the connection that has waited longest is cut:
//! whoever is slowest pays, so that many slow peers cannot keep out the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio_util::sync::CancellationToken;

/// Shared handle. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    state: Arc<Mutex<State>>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    bytes: usize,
    /// By age.
    holders: BTreeMap<u64, (usize, CancellationToken)>,
}

/// What one connection holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    budget: Budget,
    age: u64,
    cut: CancellationToken,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Arc::default(), bytes_max }
    }

    /// For what begins to be large; `cut` is cancelled where it has to go.
    pub(crate) fn begin(&self, cut: CancellationToken) -> Ticket {
        let mut state = self.lock();
        let age = state.next;
        state.next += 1;
        state.holders.insert(age, (0, cut.clone()));
        drop(state);
        Ticket { budget: self.clone(), age, cut }
    }

    /// What is left of it.
    pub(crate) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.lock().bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Ticket {
    /// Notes how much is held; cuts the oldest while all have more than there may be.
    pub(crate) fn set(&self, bytes: usize) {
        let mut state = self.budget.lock();
        // One that was cut holds nothing any more.
        let Some((held, _)) = state.holders.get_mut(&self.age) else { return };
        let before = std::mem::replace(held, bytes);
        state.bytes = state.bytes - before + bytes;
        while state.bytes > self.budget.bytes_max {
            let Some((_, (held, cut))) = state.holders.pop_first() else { break };
            state.bytes -= held;
            cut.cancel();
        }
    }

    /// As [`Ticket::set`], for a peer that has just moved on: it is the youngest now.
    pub(crate) fn renew(&mut self, bytes: usize) {
        let mut state = self.budget.lock();
        if let Some(holder) = state.holders.remove(&self.age) {
            self.age = state.next;
            state.next += 1;
            state.holders.insert(self.age, holder);
        }
        drop(state);
        self.set(bytes);
    }

    /// Whether it was cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Waits until it is cut. Cancel safe.
    pub(crate) async fn cut(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        if let Some((held, _)) = state.holders.remove(&self.age) {
            state.bytes -= held;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_cut_when_the_budget_is_full() {
        let budget = Budget::new(100);
        let tickets = [
            budget.begin(CancellationToken::new()),
            budget.begin(CancellationToken::new()),
            budget.begin(CancellationToken::new()),
        ];
        tickets[1].set(60);
        tickets[0].set(30);
        assert_eq!(budget.room(), 10);
        let cut = || tickets.each_ref().map(Ticket::is_cut);
        assert_eq!(cut(), [false, false, false]);
        tickets[2].set(40);
        assert_eq!(cut(), [true, false, false]);
        tickets[0].set(1000);
        assert_eq!(cut(), [true, false, false]);
        tickets[2].set(41);
        assert_eq!(cut(), [true, true, false]);
    }

    #[test]
    fn who_moves_on_is_no_longer_the_oldest() {
        let budget = Budget::new(100);
        let (mut first, second, third) = (
            budget.begin(CancellationToken::new()),
            budget.begin(CancellationToken::new()),
            budget.begin(CancellationToken::new()),
        );
        first.set(40);
        second.set(40);
        first.renew(30);
        third.set(40);
        assert_eq!([&first, &second, &third].map(Ticket::is_cut), [false, true, false]);
        assert_eq!(budget.room(), 30);
    }

    #[test]
    fn more_than_the_whole_budget_is_cut_itself() {
        let budget = Budget::new(100);
        let ticket = budget.begin(CancellationToken::new());
        ticket.set(101);
        assert!(ticket.is_cut());
        assert_eq!(budget.room(), 100);
    }

    #[test]
    fn what_is_done_gives_its_bytes_back() {
        let budget = Budget::new(100);
        for _ in 0..10 {
            let ticket = budget.begin(CancellationToken::new());
            ticket.set(100);
            assert!(!ticket.is_cut());
        }
        assert_eq!(budget.room(), 100);
    }
}
