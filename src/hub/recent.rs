//! What one user's sessions share: the user's recent changes, encoded once, and a signal.
//!
//! Invariant: of the user's published changes, all above `floor` are in `recent`, in order. At or
//! below it a session reads the store.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// With at most so many sessions, changes that all of them have seen are dropped at once; with
/// more, looking through their cursors costs more than the shared memory, which is bounded anyway.
const TRACKED_SESSIONS_MAX: usize = 16;

/// Bounds of [`Recent`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) changes: usize,
    pub(super) bytes: usize,
}

/// One user with at least one session.
pub(super) struct Listener {
    recent: Mutex<Recent>,
    /// Wakes all sessions of the user.
    pub(super) changed: Notify,
}

impl Listener {
    /// Without sessions yet. `floor`: the highest sequence that may be published or being
    /// published.
    pub(super) fn new(floor: u64) -> Self {
        let recent = Recent {
            changes: VecDeque::new(),
            bytes: 0,
            floor,
            cursors: Vec::new(),
            sessions: 0,
            is_touched: false,
            touched_at: Instant::now(),
        };
        Self { recent: Mutex::new(recent), changed: Notify::new() }
    }

    /// Held for a few lines and never over an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session finds in memory.
pub(super) enum Found {
    /// The next messages, and the sequence of the last.
    Messages(Vec<Bytes>, u64),
    /// Nothing new.
    CaughtUp,
    /// It is too far behind: the store has what comes next.
    Older,
}

/// Recent changes of one user and the cursors of its sessions.
pub(super) struct Recent {
    changes: VecDeque<(u64, Bytes)>,
    bytes: usize,
    floor: u64,
    /// By session slot; `None` is free.
    cursors: Vec<Option<u64>>,
    sessions: usize,
    /// Whether the batch being published has touched it.
    is_touched: bool,
    /// When the last batch touched it.
    touched_at: Instant,
}

impl Recent {
    pub(super) const fn sessions(&self) -> usize {
        self.sessions
    }

    /// Adds a session; returns its slot.
    pub(super) fn add_session(&mut self, cursor: u64) -> usize {
        self.sessions += 1;
        if let Some(free) = self.cursors.iter().position(Option::is_none) {
            self.cursors[free] = Some(cursor);
            return free;
        }
        self.cursors.push(Some(cursor));
        self.cursors.len() - 1
    }

    /// Frees the slot; returns how many sessions are left.
    pub(super) fn remove_session(&mut self, slot: usize) -> usize {
        self.cursors[slot] = None;
        while self.cursors.last().is_some_and(Option::is_none) {
            self.cursors.pop();
        }
        self.sessions -= 1;
        self.drop_seen();
        self.sessions
    }

    /// Appends a published change, unless it is at or below the floor. Returns whether this is the
    /// first touch since [`Recent::settle`].
    pub(super) fn push(
        &mut self,
        sequence: u64,
        bounds: Bounds,
        encode: impl FnOnce() -> Bytes,
    ) -> bool {
        if sequence > self.floor {
            let message = encode();
            self.bytes += message.len();
            self.changes.push_back((sequence, message));
            while self.changes.len() > bounds.changes || self.bytes > bounds.bytes {
                self.pop();
            }
        }
        let was_touched = std::mem::replace(&mut self.is_touched, true);
        if !was_touched {
            self.touched_at = Instant::now();
        }
        !was_touched
    }

    /// The batch being published is complete.
    pub(super) const fn settle(&mut self) {
        self.is_touched = false;
    }

    /// Since the last publication; nothing unless `sequence` is the last one published.
    pub(super) fn waited(&self, sequence: u64) -> Option<Duration> {
        let is_last = self.changes.back().is_some_and(|(last, _)| *last == sequence);
        is_last.then(|| self.touched_at.elapsed())
    }

    /// Where a session is; `None` if it has ended.
    pub(super) fn cursor(&self, slot: usize) -> Option<u64> {
        self.cursors.get(slot).copied().flatten()
    }

    /// What comes after a cursor: at least one message if there is one, else up to `bytes_max`.
    pub(super) fn after(&self, cursor: u64, bytes_max: usize) -> Found {
        if cursor < self.floor {
            return Found::Older;
        }
        let first = self.changes.partition_point(|(sequence, _)| *sequence <= cursor);
        let (mut messages, mut bytes, mut last) = (Vec::new(), 0, cursor);
        for (sequence, message) in self.changes.range(first..) {
            bytes += message.len();
            if bytes > bytes_max && !messages.is_empty() {
                break;
            }
            messages.push(message.clone());
            last = *sequence;
        }
        if messages.is_empty() { Found::CaughtUp } else { Found::Messages(messages, last) }
    }

    /// Moves a session's cursor.
    pub(super) fn seen(&mut self, slot: usize, cursor: u64) {
        self.cursors[slot] = Some(cursor);
        self.drop_seen();
    }

    /// Drops what every session has seen.
    fn drop_seen(&mut self) {
        if self.cursors.len() > TRACKED_SESSIONS_MAX {
            return;
        }
        let Some(seen) = self.cursors.iter().flatten().min().copied() else {
            return;
        };
        while self.changes.front().is_some_and(|(sequence, _)| *sequence <= seen) {
            self.pop();
        }
        if self.changes.is_empty() {
            // Idle users are many: no buffer for the next burst.
            self.changes = VecDeque::new();
        }
    }

    fn pop(&mut self) {
        if let Some((sequence, message)) = self.changes.pop_front() {
            self.floor = sequence;
            self.bytes -= message.len();
        }
    }

    #[cfg(test)]
    pub(super) const fn held_bytes(&self) -> usize {
        self.bytes
    }
}
