//! All tasks of a user as they are at one moment, read part by part.
//!
//! The parts come from one read transaction, which keeps redb from reusing the pages that it shows:
//! whoever holds one for long makes the file grow, so its holder bounds that time.

use super::{
    Shared,
    read::{PackedPage, user_number},
    row::{Counters, TaskRow},
    sum,
    tables::{META_COUNTERS, TASKS},
    write,
};
use crate::{
    position::Position,
    store::{StoreError, TaskSnapshot},
    task::UserId,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use redb::ReadTransaction;
use std::{io, sync::Arc};
use tokio::task::JoinHandle;

/// A user's tasks, from where the last part ended.
struct Cursor {
    shared: Arc<Shared>,
    snapshot: ReadTransaction,
    user: Option<u64>,
    /// The first task number that was not returned.
    next: u64,
}

/// The next tasks, and the cursor that has read them.
type Part = (Box<Cursor>, Result<Vec<Bytes>, StoreError>);

/// The cursor, or the read that has it.
enum Place {
    Here(Box<Cursor>),
    Reading(JoinHandle<Part>),
    /// A read has ended by a panic, which was told where it happened.
    Lost,
}

/// See [`TaskSnapshot`].
pub(super) struct Snapshot {
    position: Position,
    place: Place,
}

/// Opens a snapshot.
pub(super) fn open(shared: &Arc<Shared>, user_id: &UserId) -> Result<Snapshot, StoreError> {
    let snapshot = shared.snapshot()?;
    let counters = write::meta_row(&snapshot, META_COUNTERS, Counters::decode)?;
    // Of the transaction, and not of `Shared`, which rises later.
    let sequence = counters.next_sequence.saturating_sub(1);
    let position = shared.runs.load().position_of(sequence);
    let user = user_number(&snapshot, user_id)?;
    let cursor = Box::new(Cursor { shared: Arc::clone(shared), snapshot, user, next: 0 });
    Ok(Snapshot { position, place: Place::Here(cursor) })
}

impl Cursor {
    fn read(&mut self, rows_max: usize, bytes_max: usize) -> Result<Vec<Bytes>, StoreError> {
        let mut page = PackedPage::default();
        let Some(user) = self.user else { return Ok(page.into_rows()) };
        let table = self.snapshot.open_table(TASKS)?;
        for entry in table.range((user, self.next)..=(user, u64::MAX))? {
            let (key, row) = entry?;
            let row = sum::open("tasks", key.value(), row.value(), TaskRow::decode)?;
            if page.is_full(row.json.len(), rows_max, bytes_max) {
                break;
            }
            page.push(row.json);
            self.next = key.value().1.saturating_add(1);
        }
        Ok(page.into_rows())
    }
}

impl TaskSnapshot for Snapshot {
    fn position(&self) -> Position {
        self.position
    }

    fn next(
        &mut self,
        rows_max: usize,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(async move {
            if matches!(self.place, Place::Here(_))
                && let Place::Here(mut cursor) = std::mem::replace(&mut self.place, Place::Lost)
            {
                self.place = Place::Reading(tokio::task::spawn_blocking(move || {
                    let shared = Arc::clone(&cursor.shared);
                    let part = shared.read(|_| cursor.read(rows_max, bytes_max));
                    (cursor, part)
                }));
            }
            // It stays in its place while it is waited for, so that the wait may be given up.
            let Place::Reading(reading) = &mut self.place else { return Err(lost()) };
            let ended = reading.await;
            self.place = Place::Lost;
            let (cursor, part) = ended.map_err(|_| lost())?;
            self.place = Place::Here(cursor);
            part
        })
    }
}

fn lost() -> StoreError {
    StoreError::Database(io::Error::other("a read of a snapshot has failed").into())
}
