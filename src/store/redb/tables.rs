//! The tables of `tasks.redb`, format 2 (docs/disk-format.md, docs/adr/0002-store-tables.md).
//!
//! Keys are redb's plain `u64`, `&str`, `&[u8]` and tuples of them, values our own versioned bytes
//! (`row.rs`) with a checksum (`sum.rs`): redb 5 changes how it encodes options and strings within values.

use redb::TableDefinition;

/// The format that this code writes.
pub const FORMAT: u32 = 2;

/// Format, epoch, clean mark, counters: one small page.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// Run -> its first sequence.
pub(super) const RUNS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("runs");
/// User id -> user number.
pub(super) const USERS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("users");
/// Task id -> place of the task, or tombstone. The id itself is the key: ids that grow with time
/// (UUIDv7) then lie together, and dirty few pages.
pub(super) const TASK_IDS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("task_ids");
/// (User number, task number) -> task: a user's tasks lie together in the order of creation.
pub(super) const TASKS: TableDefinition<'static, (u64, u64), &[u8]> = TableDefinition::new("tasks");
/// Sequence -> change, appended.
pub(super) const CHANGES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("changes");
/// (User number, sequence). Rows below the first kept change are leftovers, swept later.
pub(super) const USER_CHANGES: TableDefinition<'static, (u64, u64), ()> =
    TableDefinition::new("user_changes");
/// Event id (`row::event_key`) -> what it came to.
pub(super) const EVENTS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("events");
/// (Task id, waiting number) -> event that waits.
pub(super) const WAITING: TableDefinition<'static, (&str, u64), &[u8]> =
    TableDefinition::new("waiting");
/// (Since, waiting number) -> task id, for expiry in order.
pub(super) const WAITING_SINCE: TableDefinition<'static, (i64, u64), &str> =
    TableDefinition::new("waiting_since");
/// (Topic, partition) -> processed offset.
pub(super) const PROCESSED: TableDefinition<'static, (&str, i32), &[u8]> =
    TableDefinition::new("processed");
/// (Topic, partition) -> next offset of an outbound topic.
pub(super) const OUTBOUND: TableDefinition<'static, (&str, i32), &[u8]> =
    TableDefinition::new("outbound");

/// Row of [`META`]: format, `u32`; the only row without a checksum, so that every version reads it.
pub(super) const META_FORMAT: &str = "format";
/// Row of [`META`]: epoch, `u64`.
pub(super) const META_EPOCH: &str = "epoch";
/// Row of [`META`]: 1 after a clean stop, 0 from start on.
pub(super) const META_CLEAN: &str = "clean";
/// Row of [`META`]: `row::Counters`.
pub(super) const META_COUNTERS: &str = "counters";
