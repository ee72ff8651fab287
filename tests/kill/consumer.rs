//! A consumer group of one: joins, reads from its committed offset, commits, and joins again after
//! each lost connection.

use crate::{
    Shared,
    producer::TOPIC,
    support::kafka::{self, KafkaClient},
};
use kafka_protocol::{
    messages::{
        GroupId, JoinGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use std::time::Duration;

/// What the group committed.
#[derive(Default)]
pub(crate) struct Committed {
    /// The last offset that a commit was answered for.
    pub(crate) acknowledged: i64,
    /// An offset whose commit was not answered: it may count, or not.
    pub(crate) unanswered: Option<i64>,
    /// How often it joined.
    pub(crate) joins: usize,
}

pub(crate) async fn consume(shared: Shared) -> Committed {
    let mut committed = Committed::default();
    while !shared.readers.is_cancelled() {
        if let Some(client) = KafkaClient::try_connect(shared.kafka).await {
            let _ended = member(client, &shared, &mut committed).await;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    committed
}

/// One membership, until the connection or the run ends.
async fn member(mut client: KafkaClient, shared: &Shared, committed: &mut Committed) -> Option<()> {
    let (generation, id) = join(&mut client).await?;
    committed.joins += 1;
    let mut next = fetch_committed(&mut client).await?;
    committed.check(next);
    (committed.acknowledged, committed.unanswered) = (next, None);
    while !shared.readers.is_cancelled() {
        let (error, _, records) = client.try_fetch(TOPIC, next, 100).await?;
        if error != 0 {
            assert_eq!(error, 3, "only until the topic is there");
            return None;
        }
        for record in &records {
            assert_eq!(record.offset, next, "records without a gap");
            next += 1;
        }
        if !records.is_empty() {
            committed.unanswered = Some(next);
            commit(&mut client, generation, &id, next).await?;
            (committed.acknowledged, committed.unanswered) = (next, None);
        }
    }
    Some(())
}

impl Committed {
    /// Whether the broker may name this offset as the committed one.
    pub(crate) fn check(&self, found: i64) {
        let is_right = found == self.acknowledged || Some(found) == self.unanswered;
        let (acknowledged, unanswered) = (self.acknowledged, self.unanswered);
        assert!(is_right, "committed {found}, acknowledged {acknowledged}, sent {unanswered:?}");
    }
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str("kill"))
}

/// Joins as the only member; the generation and the member id.
async fn join(client: &mut KafkaClient) -> Option<(i32, StrBytes)> {
    let name = StrBytes::from_static_str("range");
    let protocol =
        JoinGroupRequestProtocol::default().with_name(name.clone()).with_metadata("x".into());
    let request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let joined = client.try_call(3, &request).await?;
    if joined.error_code != 0 {
        assert!([14, 15, 16].contains(&joined.error_code), "join: {}", joined.error_code);
        return None;
    }
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment("x".into());
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    let synced = client.try_call(3, &request).await?;
    assert_eq!(synced.error_code, 0, "sync");
    Some((joined.generation_id, joined.member_id))
}

/// The committed offset; 0 for none.
pub(crate) async fn fetch_committed(client: &mut KafkaClient) -> Option<i64> {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(kafka::topic_name(TOPIC))
        .with_partition_indexes(vec![0]);
    let request =
        OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]));
    let answer = client.try_call(5, &request).await?;
    if answer.error_code != 0 {
        assert!([14, 15, 16].contains(&answer.error_code), "fetch: {}", answer.error_code);
        return None;
    }
    Some(answer.topics[0].partitions[0].committed_offset.max(0))
}

async fn commit(client: &mut KafkaClient, generation: i32, id: &StrBytes, next: i64) -> Option<()> {
    let partition =
        OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(next);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(kafka::topic_name(TOPIC))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(id.clone())
        .with_topics(vec![topic]);
    let answer = client.try_call(5, &request).await?;
    let error = answer.topics[0].partitions[0].error_code;
    assert_eq!(error, 0, "a commit by the only member");
    Some(())
}
