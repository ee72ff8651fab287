//! Damage that shows while the store is open: told once, counted, and never a panic.

use crate::{redb_file, store::StoreError};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};
use tracing::error;

/// Damaged rows that are remembered; more are told again each time, and not counted.
const ROWS_MAX: usize = 1_000;

/// The damaged rows that reads have met.
#[derive(Debug, Default)]
pub(super) struct Damages(Mutex<BTreeSet<(&'static str, u32)>>);

impl Damages {
    /// Passes a result on, and tells of a damaged row when it is met first.
    pub(super) fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(failure @ StoreError::Damaged { table, row }) = &result {
            let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !rows.contains(&(*table, *row)) {
                error!(table, row = format!("{row:08x}"), "{failure}");
                if rows.len() < ROWS_MAX {
                    rows.insert((*table, *row));
                }
            }
        }
        result
    }

    /// How many were met.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Does some work on redb's pages; a panic of redb, which trusts them, is damage of the file.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    redb_file::guarded(work)
        .unwrap_or_else(|panicked| Err(StoreError::DamagedFile(panicked.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_row_counts_once_and_a_panic_is_damage_of_the_file() {
        let damages = Damages::default();
        for row in [7, 7, 8] {
            let result: Result<(), _> = damages.note(Err(StoreError::Damaged { table: "t", row }));
            result.unwrap_err();
        }
        damages.note(Ok(())).unwrap();
        assert_eq!(damages.count(), 2);
        let panicked: Result<(), _> = guarded(|| panic!("as redb would"));
        assert!(matches!(panicked, Err(StoreError::DamagedFile(_))));
    }
}
