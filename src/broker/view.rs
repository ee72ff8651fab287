//! What administrators are shown of topics and groups. Read only; no copy is kept.

use super::{Broker, group::DescribedMember};
use crate::{
    log::ReadError,
    position::{Offset, Partition, TopicName, TopicPartition},
    wire::ErrorCode,
};
use bytes::{Buf, Bytes};

/// Most topics and partitions of one assignment that are shown.
const ASSIGNED_SHOWN_MAX: usize = 1_000;

/// A topic as it is now.
#[derive(Clone, Debug)]
pub struct TopicView {
    /// Its name.
    pub name: TopicName,
    /// The daemon owns it.
    pub is_reserved: bool,
    /// By index.
    pub partitions: Vec<PartitionView>,
}

/// A partition as it is now.
#[derive(Clone, Copy, Debug)]
pub struct PartitionView {
    /// First offset that is kept.
    pub log_start: Offset,
    /// High watermark: the offset of the next record.
    pub log_end: Offset,
    /// On disk.
    pub bytes: u64,
}

/// A group as it is now.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Its id.
    pub group: String,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Its members.
    pub members: Vec<MemberView>,
    /// What it has committed, with the log's end where the partition is there.
    pub offsets: Vec<(TopicPartition, Offset, Option<Offset>)>,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// Its id.
    pub member_id: String,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// What it reads; empty while the group rebalances, and for groups that are no consumers.
    pub assigned: Vec<(String, i32)>,
}

impl Broker {
    /// Every topic by name.
    pub fn topic_views(&self) -> Vec<TopicView> {
        let snapshot = self.topics().snapshot();
        let topics = snapshot.all().map(|topic| TopicView {
            name: topic.name.clone(),
            is_reserved: topic.is_reserved,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| {
                    let reader = partition.reader();
                    PartitionView {
                        log_start: reader.log_start(),
                        log_end: reader.high_watermark(),
                        bytes: reader.size_bytes(),
                    }
                })
                .collect(),
        });
        topics.collect()
    }

    /// The first `max` groups by their ids, and whether there are more.
    ///
    /// # Errors
    /// The broker stops.
    pub async fn group_views(&self, max: usize) -> Result<(Vec<GroupView>, bool), ErrorCode> {
        let mut listed = self.coordinator().list().await?;
        let has_more = listed.len() > max;
        listed.truncate(max);
        let mut groups = Vec::with_capacity(listed.len());
        for group in listed {
            let members = self.coordinator().describe(&group.group).await?.members;
            let committed = self.coordinator().fetch(&group.group, None).await?;
            let offsets = committed.into_iter().filter_map(|(at, committed)| {
                let end = self.reader(&at.topic, at.partition).map(|log| log.high_watermark());
                Some((at, committed?.offset, end))
            });
            groups.push(GroupView {
                state: group.state,
                members: members.into_iter().map(member_view).collect(),
                offsets: offsets.collect(),
                group: group.group,
            });
        }
        Ok((groups, has_more))
    }

    /// The first record at or after a time; `None` past the last, or if there is no such partition.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub async fn offset_for_time(
        &self,
        topic: &TopicName,
        partition: Partition,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, ReadError> {
        let Some(reader) = self.reader(topic, partition) else { return Ok(None) };
        let _turn = self.limits().disk_reads.acquire().await;
        let found = tokio::task::spawn_blocking(move || reader.offset_for_time(timestamp_ms)).await;
        let found = found.map_err(|panicked| ReadError::Io(std::io::Error::other(panicked)))??;
        Ok(found.map(|(offset, _)| offset))
    }
}

fn member_view(member: DescribedMember) -> MemberView {
    MemberView {
        assigned: assigned(member.assignment).unwrap_or_default(),
        member_id: member.member_id,
        client_id: member.client_id,
        client_host: member.client_host.trim_start_matches('/').to_owned(),
    }
}

/// `version: int16, topics: [topic: string, partitions: [int32]], ...`; `None` if it is cut short.
///
/// Source: Kafka, ConsumerProtocolAssignment version 0.
fn assigned(mut bytes: Bytes) -> Option<Vec<(String, i32)>> {
    let mut assigned = Vec::new();
    bytes.try_get_i16().ok()?;
    for _ in 0..bytes.try_get_i32().ok()? {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        let name = (length <= bytes.remaining()).then(|| bytes.split_to(length))?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        for _ in 0..bytes.try_get_i32().ok()? {
            let partition = bytes.try_get_i32().ok()?;
            if assigned.len() < ASSIGNED_SHOWN_MAX {
                assigned.push((name.clone(), partition));
            }
        }
    }
    Some(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_one_that_is_cut_short_is_none() {
        let whole = b"\0\0\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff";
        let expected = vec![("t".to_owned(), 0), ("t".to_owned(), 3)];
        assert_eq!(assigned(Bytes::from_static(whole)), Some(expected));
        for length in 0..whole.len() - 4 {
            assert_eq!(assigned(Bytes::from_static(&whole[..length])), None, "{length}");
        }
        assert_eq!(assigned(Bytes::from_static(b"\0\0\x7f\xff\xff\xff")), None);
        let endless = b"\0\0\0\0\0\x01\0\x01t\x7f\xff\xff\xff\0\0\0\0";
        assert_eq!(assigned(Bytes::from_static(endless)), None);
    }
}
