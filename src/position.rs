//! The words that log, broker, feed, store and hub share for places: in a topic, and in the order
//! of changes.
//!
//! Invariant: a value of these types that exists is valid; parsing happens at the edge.

use std::{fmt, str::FromStr, sync::Arc};

/// A topic's name: 1 to 249 of `[a-zA-Z0-9._-]`, neither `.` nor `..`. Cheap to clone.
///
/// Source: Apache Kafka, `Topic.validate`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicName(Arc<str>);

/// Longest topic name in bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

impl TopicName {
    /// The name, if Kafka would take it.
    pub fn new(name: &str) -> Option<Self> {
        let is_legal =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let fits = (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len());
        (fits && name != "." && name != ".." && name.bytes().all(is_legal))
            .then(|| Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic of this one's dead letters; `None` if its name would be too long.
    pub fn dead_letters(&self) -> Option<Self> {
        Self::new(&format!("{self}.dlq"))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition's index within its topic, from 0.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Partition(i32);

impl Partition {
    /// The first partition.
    pub const ZERO: Self = Self(0);

    /// The index, unless negative.
    pub const fn new(raw: i32) -> Option<Self> {
        if raw < 0 { None } else { Some(Self(raw)) }
    }

    /// The index as the wire carries it.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Position of a record in one partition's log: dense, from 0, never negative.
///
/// The wire's marks (-1 latest, -2 earliest) are no offsets; they are parsed at the edge.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of a new log.
    pub const ZERO: Self = Self(0);

    /// The offset, unless negative.
    pub const fn new(raw: i64) -> Option<Self> {
        if raw < 0 { None } else { Some(Self(raw)) }
    }

    /// The offset as the wire carries it.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset `count` records further on; `None` past the last possible offset.
    pub fn advance(self, count: u32) -> Option<Self> {
        self.0.checked_add(i64::from(count)).map(Self)
    }

    /// The offset after this one, saturating at the last possible one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: Partition,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// The place of one record.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordPosition {
    /// Its topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
}

impl fmt::Display for RecordPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// A place in the store's order of changes, the same order for all users; opaque to clients.
///
/// `epoch` names the store's life (new after rebuild or restore), `run` rises at each unclean
/// start, `sequence` is gapless from 1 (0 is the place before the first change).
/// Text form: `<epoch, hex>.<run>.<sequence>`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Position {
    /// The store's life.
    pub epoch: u64,
    /// The run that assigned the sequence.
    pub run: u32,
    /// The change's number; a cursor at it has seen this change and all before it.
    pub sequence: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}.{}", self.epoch, self.run, self.sequence)
    }
}

/// Text that is no [`Position`].
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a position")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().filter(|part| is_plain(part)).ok_or(NotAPosition);
        Ok(Self {
            epoch: u64::from_str_radix(part()?, 16).map_err(|_| NotAPosition)?,
            run: part()?.parse().map_err(|_| NotAPosition)?,
            sequence: part()?.parse().map_err(|_| NotAPosition)?,
        })
    }
}

/// Digits only: `parse` alone would take a sign.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_kafkas() {
        for good in ["a", "task-events", "task-events.dlq", "A_b.9", &"x".repeat(249)] {
            assert!(TopicName::new(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "\u{e4}", &"x".repeat(250)] {
            assert!(TopicName::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_position_survives_its_text_form() {
        let position = Position { epoch: 0xdead_beef, run: 3, sequence: 42 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "1", "1.2", "1.2.", "1.2.-3", "+1.2.3", "g.1.1", "1.2.3.4", "1..3"] {
            assert_eq!(bad.parse::<Position>(), Err(NotAPosition), "{bad}");
        }
    }

    #[test]
    fn offsets_never_wrap() {
        let last = Offset::new(i64::MAX).expect("not negative");
        assert_eq!(last.advance(1), None);
        assert_eq!(last.next(), last);
        assert_eq!(Offset::new(-1), None);
    }
}
