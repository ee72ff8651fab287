//! Lists of a user's tasks, each page on one snapshot.
//!
//! The order of creation is the order of the rows: a page reads on from its cursor. Every other
//! order has no index (docs/adr/0014-sorted-lists.md): each page looks at all of the user's tasks
//! and keeps the first few behind its cursor.

use super::{
    Shared,
    read::{self, PackedPage},
    row::TaskRow,
    sum::{self, damaged},
    tables::TASKS,
};
use crate::{
    store::{PAGE_BYTES_MAX, PAGE_ROWS_MAX, SortBy, StoreError, TaskFilter, TaskPage, TaskSort},
    task::UserId,
};
use redb::{ReadOnlyTable, ReadTransaction};
use std::collections::BTreeSet;

/// Most rows that one page in the order of creation looks at (some 2 ms without text search).
pub(super) const SCAN_ROWS_MAX: usize = 10_000;

/// Most tasks of a user that a page in another order looks at.
pub(super) const SORT_ROWS_MAX: usize = 100_000;

/// `after` that is no [`TaskPage::next`] counts as the end: it was checked where it came in, or it
/// is of another store.
pub(super) fn tasks(
    shared: &Shared,
    user_id: &UserId,
    filter: &TaskFilter,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<TaskPage, StoreError> {
    let snapshot = shared.snapshot()?;
    let Some(user) = read::user_number(&snapshot, user_id)? else {
        return Ok(TaskPage::default());
    };
    let after = after.map(|text| Place::decode(text, filter.sort));
    if after == Some(None) {
        return Ok(TaskPage::default());
    }
    let list = List { user, filter, after: after.flatten(), limit: limit.min(PAGE_ROWS_MAX) };
    match filter.sort.by {
        SortBy::CreatedAt => list.in_order(&snapshot),
        _ => list.sorted(&snapshot),
    }
}

/// One page's question.
struct List<'a> {
    user: u64,
    filter: &'a TaskFilter,
    after: Option<Place>,
    limit: usize,
}

impl List<'_> {
    fn in_order(&self, snapshot: &ReadTransaction) -> Result<TaskPage, StoreError> {
        let table = snapshot.open_table(TASKS)?;
        let last_seen = self.after.as_ref().map(|place| place.number);
        let (mut page, mut last, mut seen) = (PackedPage::default(), None, 0);
        let mut rows = match (self.filter.sort.is_descending, last_seen) {
            (_, None) => table.range((self.user, 0)..=(self.user, u64::MAX))?,
            (false, Some(number)) => {
                table.range((self.user, number.saturating_add(1))..=(self.user, u64::MAX))?
            }
            (true, Some(number)) => table.range((self.user, 0)..(self.user, number))?,
        };
        loop {
            let is_descending = self.filter.sort.is_descending;
            let entry = if is_descending { rows.next_back() } else { rows.next() };
            let Some(entry) = entry else { return Ok(to_page(page, None)) };
            let (key, row) = entry?;
            if self.is_full(&page) || seen == SCAN_ROWS_MAX {
                return Ok(to_page(page, last));
            }
            (last, seen) = (Some(Place { key: Vec::new(), number: key.value().1 }), seen + 1);
            let row = sum::open("tasks", key.value(), row.value(), TaskRow::decode)?;
            if row.passes(self.filter).ok_or_else(|| damaged("tasks", key.value()))? {
                page.push(row.json);
            }
        }
    }

    fn sorted(&self, snapshot: &ReadTransaction) -> Result<TaskPage, StoreError> {
        let table = snapshot.open_table(TASKS)?;
        let mut places = self.first_places(&table)?;
        let is_more = places.len() > self.limit;
        if is_more {
            places.pop_last();
        }
        let (mut page, mut last) = (PackedPage::default(), None);
        for ranked in places {
            if self.is_full(&page) {
                return Ok(to_page(page, last));
            }
            let key = (self.user, ranked.place.number);
            let row = table.get(key)?.ok_or_else(|| damaged("tasks", key))?;
            page.push(sum::open("tasks", key, row.value(), TaskRow::decode)?.json);
            last = Some(ranked.place);
        }
        Ok(to_page(page, last.filter(|_| is_more)))
    }

    /// The places of the page, and one more if there is one.
    fn first_places(
        &self,
        table: &ReadOnlyTable<(u64, u64), &'static [u8]>,
    ) -> Result<BTreeSet<Ranked>, StoreError> {
        let sort = self.filter.sort;
        let after = self.after.clone().map(|place| Ranked { place, sort });
        let mut places: BTreeSet<Ranked> = BTreeSet::new();
        for (seen, entry) in table.range((self.user, 0)..=(self.user, u64::MAX))?.enumerate() {
            if seen == SORT_ROWS_MAX {
                return Err(StoreError::TooManyToSort { tasks_max: SORT_ROWS_MAX });
            }
            let (key, row) = entry?;
            let row = sum::open("tasks", key.value(), row.value(), TaskRow::decode)?;
            let damage = || damaged("tasks", key.value());
            if !row.passes(self.filter).ok_or_else(damage)? {
                continue;
            }
            let field = row.sort_key(sort.by).ok_or_else(damage)?;
            let ranked = Ranked { place: Place { key: field, number: key.value().1 }, sort };
            let is_behind = after.as_ref().is_none_or(|after| *after < ranked);
            let is_kept =
                places.len() <= self.limit || places.last().is_some_and(|last| ranked < *last);
            if is_behind && is_kept {
                places.insert(ranked);
                if places.len() > self.limit + 1 {
                    places.pop_last();
                }
            }
        }
        Ok(places)
    }

    fn is_full(&self, page: &PackedPage) -> bool {
        page.rows.len() == self.limit || page.bytes.len() >= PAGE_BYTES_MAX
    }
}

fn to_page(page: PackedPage, last: Option<Place>) -> TaskPage {
    TaskPage { tasks: page.into_rows(), next: last.map(|place| place.encode()) }
}

/// Where a task is in a list: a cursor.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    /// [`TaskRow::sort_key`]
    key: Vec<u8>,
    /// The task's number.
    number: u64,
}

impl Place {
    fn encode(&self) -> Vec<u8> {
        [&self.number.to_be_bytes()[..], &self.key].concat()
    }

    fn decode(text: &[u8], sort: TaskSort) -> Option<Self> {
        let (number, key) = text.split_first_chunk()?;
        let is_whole = sort.by != SortBy::CreatedAt || key.is_empty();
        is_whole.then(|| Self { key: key.to_vec(), number: u64::from_be_bytes(*number) })
    }
}

/// A place that compares by its list's order.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Ranked {
    place: Place,
    sort: TaskSort,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (ours, theirs) = (&self.place, &other.place);
        let order = ours.key.cmp(&theirs.key).then(ours.number.cmp(&theirs.number));
        let order = if self.sort.is_descending { order.reverse() } else { order };
        // Only a task without a due date has no key; it comes last in both directions.
        ours.key.is_empty().cmp(&theirs.key.is_empty()).then(order)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
