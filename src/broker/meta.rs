//! `broker.redb`: topics and their configs, group offsets, producer ids. One owner thread commits
//! what is waiting in one transaction.

use crate::position::{Offset, Partition, TopicName, TopicPartition};

/// A group's committed offset in one partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommittedOffset {
    /// Next offset to read.
    pub offset: Offset,
    /// Leader epoch the client knew; -1 if none.
    pub leader_epoch: i32,
    /// The client's own words, bounded by `offset.metadata.max.bytes` (4096).
    pub metadata: String,
    /// Wall time of the commit.
    pub committed_at_ms: i64,
}

/// Why `broker.redb` did not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// The database failed; nothing was changed.
    #[error("broker.redb failed: {0}")]
    Database(String),
    /// The owner has ended.
    #[error("the broker stops")]
    Closed,
}

/// Handle of the owner thread. Cheap to clone. Each write is durable when its future is ready.
#[derive(Clone, Debug)]
pub struct Meta {}

impl Meta {
    /// Commits offsets of one group, all or none.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), MetaError> {
        let _ = (group, offsets);
        todo!()
    }

    /// Deletes some of a group's offsets, or all with `None`.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Result<(), MetaError> {
        let _ = (group, partitions);
        todo!()
    }

    /// Every committed offset, for the start.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn load_offsets(
        &self,
    ) -> Result<Vec<(String, TopicName, Partition, CommittedOffset)>, MetaError> {
        todo!()
    }
}
