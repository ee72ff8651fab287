//! Trimming: changes from their front, event ids and index rows by a sweep through their tables.
//!
//! Removing each event id as it ages would dirty a page an id, as many as adding it did. A sweep
//! begins only when a share of the rows is due, so that one dirty page loses many of them, and the
//! events need no second table that keeps their order.

use super::{
    row::{ChangeRow, EventRow},
    sum,
    tables::{CHANGES, EVENTS, USER_CHANGES},
    write::Writer,
};
use crate::store::{CommitDurability, StoreError};
use redb::{ReadableTable, WriteTransaction};
use std::{sync::atomic::Ordering, time::Duration};

/// Most changes that one call removes, and fewest rows that one step of a sweep looks at.
const TRIM_ROWS_MAX: u64 = 10_000;
/// Most rows that one step of a sweep looks at (some 20 ms).
const SWEEP_ROWS_MAX: u64 = 200_000;
/// A sweep begins when one in so many rows may be due.
const SWEEP_SHARE: u64 = 8;
/// A step looks at so many rows for each row added since the last: more than `SWEEP_SHARE`, so that
/// a sweep ends before the next is due.
const SWEEP_ROWS_PER_NEW: u64 = 2 * SWEEP_SHARE;

/// How far the sweeps have come; they begin anew when the store is opened.
#[derive(Default)]
pub(super) struct Sweeps {
    events: Sweep<Vec<u8>>,
    index: Sweep<(u64, u64)>,
    /// Where the walk through the letters goes on after; `None` at their beginning.
    pub(super) letters: Option<super::letters::Place>,
}

/// A walk through one table in the order of its keys.
struct Sweep<K> {
    /// The last key looked at, while the sweep is under way.
    after: Option<Option<K>>,
    /// Rows ever added when the last sweep began.
    began_at: Option<u64>,
    /// Rows ever added at the last step.
    stepped_at: u64,
}

impl<K> Default for Sweep<K> {
    fn default() -> Self {
        Self { after: None, began_at: None, stepped_at: 0 }
    }
}

impl<K: Clone> Sweep<K> {
    /// Where to go on and for how many rows; `None` while too little is due.
    fn step(&mut self, added: u64, rows: u64) -> Option<(Option<K>, usize)> {
        if self.after.is_none() {
            let due = self.began_at.is_none_or(|at| added - at > rows / SWEEP_SHARE);
            if !due {
                return None;
            }
            self.began_at = Some(added);
            self.after = Some(None);
        }
        let new = added.saturating_sub(self.stepped_at);
        self.stepped_at = added;
        let rows = new.saturating_mul(SWEEP_ROWS_PER_NEW).clamp(TRIM_ROWS_MAX, SWEEP_ROWS_MAX);
        Some((self.after.clone()?, usize::try_from(rows).unwrap_or(usize::MAX)))
    }

    /// Keeps the last key looked at; `None` ends the sweep.
    fn stepped(&mut self, last: Option<K>) {
        self.after = last.map(Some);
    }
}

/// What is kept.
#[derive(Clone, Copy)]
struct Window {
    /// Timestamps from here on are, up to `until_ms`: a producer may stamp a record with any time,
    /// and one that is later than that tells nothing of its age.
    since_ms: i64,
    until_ms: i64,
    /// Numbers from here on are.
    from: u64,
}

impl Window {
    fn new((age, count): (Duration, u64), now_ms: i64, next: u64) -> Self {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Self {
            since_ms: now_ms.saturating_sub(age_ms),
            until_ms: now_ms.saturating_add(age_ms),
            from: next.saturating_sub(count),
        }
    }

    const fn keeps(self, number: u64, timestamp_ms: i64) -> bool {
        number >= self.from || (self.since_ms <= timestamp_ms && timestamp_ms <= self.until_ms)
    }
}

impl Writer {
    /// Removes what no window keeps, within a bounded number of rows. Not durable by itself.
    pub(super) fn trim(&mut self, now_ms: i64) -> Result<u64, StoreError> {
        let mut counters = self.counters;
        let changes = Window::new(self.options.changes_keep, now_ms, counters.next_sequence);
        let events = Window::new(self.options.dedup_window, now_ms, counters.next_event);
        let transaction = self.begin(CommitDurability::Deferred)?;
        let earliest = cut_of_changes(&transaction, changes)?;
        let mut removed = 0;
        if let Some(earliest) = earliest {
            // Before the rows are gone, for readers that look for them.
            self.shared.earliest.fetch_max(earliest, Ordering::AcqRel);
            let gone = remove_changes(&transaction, earliest)?;
            counters.changes = counters.changes.saturating_sub(gone);
            removed += gone;
        }
        removed += self.sweep_index(&transaction)?;
        let gone = self.sweep_events(&transaction, events)?;
        counters.events = counters.events.saturating_sub(gone);
        removed += gone;
        if removed == 0 {
            transaction.abort()?;
            return Ok(0);
        }
        self.finish(transaction, counters)?;
        Ok(removed)
    }

    fn sweep_index(&mut self, transaction: &WriteTransaction) -> Result<u64, StoreError> {
        let earliest = self.shared.earliest();
        let sweep = &mut self.sweeps.index;
        // Rows come and go in the order of sequences: as many are due as changes were trimmed.
        let Some((after, rows)) = sweep.step(earliest, self.counters.changes) else {
            return Ok(0);
        };
        let mut table = transaction.open_table(USER_CHANGES)?;
        let first = after.map_or((0, 0), |(user, sequence)| (user, sequence.saturating_add(1)));
        let last = match table.range(first..)?.take(rows).last() {
            Some(entry) => entry?.0.value(),
            None => {
                sweep.stepped(None);
                return Ok(0);
            }
        };
        let mut removed = 0;
        table.retain_in(first..=last, |(_, sequence), ()| {
            let stays = sequence > earliest;
            removed += u64::from(!stays);
            stays
        })?;
        sweep.stepped(Some(last));
        Ok(removed)
    }

    fn sweep_events(
        &mut self,
        transaction: &WriteTransaction,
        window: Window,
    ) -> Result<u64, StoreError> {
        let (_, count) = self.options.dedup_window;
        if self.counters.events <= count {
            return Ok(0);
        }
        let sweep = &mut self.sweeps.events;
        let Some((after, rows)) = sweep.step(self.counters.next_event, self.counters.events) else {
            return Ok(0);
        };
        let mut table = transaction.open_table(EVENTS)?;
        // The least key after the last one looked at.
        let first = after.map_or_else(Vec::new, |mut key| {
            key.push(0);
            key
        });
        let last = match table.range(&first[..]..)?.take(rows).last() {
            Some(entry) => entry?.0.value().to_vec(),
            None => {
                sweep.stepped(None);
                return Ok(0);
            }
        };
        let mut removed = 0;
        table.retain_in(&first[..]..=&last[..], |key, row| {
            // A damaged row stays, for whoever asks for it to find.
            let stays = sum::open("events", key, row, EventRow::decode)
                .map_or(true, |row| window.keeps(row.number, row.timestamp_ms));
            removed += u64::from(!stays);
            stays
        })?;
        sweep.stepped(Some(last));
        Ok(removed)
    }
}

/// The last sequence that goes; `None` if none does.
fn cut_of_changes(
    transaction: &WriteTransaction,
    window: Window,
) -> Result<Option<u64>, StoreError> {
    let table = transaction.open_table(CHANGES)?;
    let mut cut = None;
    for entry in table.iter()?.take(usize::try_from(TRIM_ROWS_MAX).unwrap_or(usize::MAX)) {
        let (sequence, row) = entry?;
        // A damaged row has no age: it goes by its number.
        let timestamp_ms = sum::open("changes", sequence.value(), row.value(), ChangeRow::decode)
            .map_or(i64::MIN, |row| row.timestamp_ms);
        if window.keeps(sequence.value(), timestamp_ms) {
            break;
        }
        cut = Some(sequence.value());
    }
    Ok(cut)
}

fn remove_changes(transaction: &WriteTransaction, earliest: u64) -> Result<u64, StoreError> {
    let mut removed = 0;
    transaction.open_table(CHANGES)?.retain_in(..=earliest, |_, _| {
        removed += 1;
        false
    })?;
    Ok(removed)
}
