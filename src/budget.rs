//! Memory for what is under way, of all connections of a port together: frames and requests that
//! have not arrived whole, answers that are not taken.
//!
//! Bounds: small ones are free, since the limit on connections bounds them; above that, what all
//! have is at most the budget. When it is full, the connection that has held its part longest is
//! cut: whoever is slowest pays, so that many slow peers cannot keep out the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
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
    frames: BTreeMap<u64, (usize, CancellationToken)>,
}

/// What one of them holds; given back when dropped.
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

    /// For a frame or an answer that begins to be large; `cut` is cancelled where it has to go.
    pub(crate) fn begin(&self, cut: CancellationToken) -> Ticket {
        let mut state = self.state.lock().expect("no holder panics");
        let age = state.next;
        state.next += 1;
        state.frames.insert(age, (0, cut.clone()));
        drop(state);
        Ticket { budget: self.clone(), age, cut }
    }
}

impl Ticket {
    /// Notes how much it is; cuts the oldest while that is more than there may be.
    pub(crate) fn set(&self, bytes: usize) {
        let mut state = self.budget.state.lock().expect("no holder panics");
        // One that was cut holds nothing any more.
        let Some((held, _)) = state.frames.get_mut(&self.age) else { return };
        let before = std::mem::replace(held, bytes);
        state.bytes = state.bytes - before + bytes;
        while state.bytes > self.budget.bytes_max {
            let Some((_, (held, cut))) = state.frames.pop_first() else { break };
            state.bytes -= held;
            cut.cancel();
        }
    }

    /// Waits until it is cut. Cancel safe.
    pub(crate) async fn cut(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock().expect("no holder panics");
        if let Some((held, _)) = state.frames.remove(&self.age) {
            state.bytes -= held;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_frame_is_cut_when_the_budget_is_full() {
        let budget = Budget::new(100);
        let tickets = [(); 3].map(|()| budget.begin(CancellationToken::new()));
        tickets[1].set(60);
        tickets[0].set(30);
        let cut = || tickets.each_ref().map(|ticket| ticket.cut.is_cancelled());
        assert_eq!(cut(), [false, false, false]);
        tickets[2].set(40);
        assert_eq!(cut(), [true, false, false]);
        tickets[0].set(1000);
        assert_eq!(cut(), [true, false, false]);
        tickets[2].set(41);
        assert_eq!(cut(), [true, true, false]);
    }

    #[test]
    fn a_finished_frame_gives_its_bytes_back() {
        let budget = Budget::new(100);
        for _ in 0..10 {
            let ticket = budget.begin(CancellationToken::new());
            ticket.set(100);
            assert!(!ticket.cut.is_cancelled());
        }
        assert_eq!(budget.state.lock().unwrap().bytes, 0);
    }
}
