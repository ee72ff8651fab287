//! Whole requests and responses, in every version that is served.

use super::*;
use crate::{
    broker::coordinator::{ReservedProgress, tests::in_memory},
    wire::messages::{
        self, ApiKey, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId,
        HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
        OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{
            OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
        },
        sync_group_request::SyncGroupRequestAssignment,
    },
};
use bytes::{Bytes, BytesMut};
use std::net::{Ipv4Addr, SocketAddr};

const PARTITIONS: u32 = 2;

struct Client {
    coordinator: Coordinator,
}

impl Client {
    fn new() -> Self {
        Self { coordinator: in_memory(ReservedProgress::default()) }
    }

    /// Sends a request and sees that the answer can be encoded in that version.
    async fn send(&self, key: ApiKey, version: i16, body: RequestKind) -> ResponseKind {
        let context = Context {
            coordinator: &self.coordinator,
            node: Node { id: 1, host: "broker".to_owned(), port: 9092 },
            partition_count: &|topic| if topic.as_str() == "t" { PARTITIONS } else { 0 },
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
        let client_id = Some(Arc::from("client"));
        let peer = Peer { address, local: address, client_id: client_id.clone() };
        let header = RequestHeader { key, version, correlation_id: 7, client_id };
        let response = dispatch_with(&context, &peer, &header, body).await.expect("a group's API");
        let encoded = response.encode(&mut BytesMut::new(), version);
        assert!(encoded.is_ok(), "{key:?} {version}: {encoded:?}");
        response
    }

    async fn join(&self, version: i16, member_id: &str) -> messages::JoinGroupResponse {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"topics"));
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(60_000)
            .with_member_id(text(member_id))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        self.send_join(version, request).await
    }

    async fn send_join(
        &self,
        version: i16,
        request: JoinGroupRequest,
    ) -> messages::JoinGroupResponse {
        match self.send(ApiKey::JoinGroup, version, RequestKind::JoinGroup(request)).await {
            ResponseKind::JoinGroup(response) => response,
            other => panic!("{other:?}"),
        }
    }

    async fn commit(&self, request: OffsetCommitRequest) -> Vec<(i32, i16)> {
        let body = RequestKind::OffsetCommit(request);
        let ResponseKind::OffsetCommit(response) = self.send(ApiKey::OffsetCommit, 8, body).await
        else {
            panic!("another response");
        };
        let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        partitions.map(|partition| (partition.partition_index, partition.error_code)).collect()
    }
}

fn group() -> GroupId {
    GroupId(text("g"))
}

fn topic(name: &str) -> messages::TopicName {
    messages::TopicName(text(name))
}

fn to_commit(name: &str, partitions: Vec<OffsetCommitRequestPartition>) -> OffsetCommitRequest {
    let asked =
        OffsetCommitRequestTopic::default().with_name(topic(name)).with_partitions(partitions);
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![asked])
}

fn partition(index: i32, offset: i64) -> OffsetCommitRequestPartition {
    OffsetCommitRequestPartition::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("mine")))
}

#[tokio::test]
async fn member_lives_through_every_version() {
    for version in 0..=9 {
        let client = Client::new();
        let mut joined = client.join(version, "").await;
        if version >= 4 {
            assert_eq!(joined.error_code, ErrorCode::MemberIdRequired.code());
            joined = client.join(version, &joined.member_id).await;
        }
        assert_eq!((joined.error_code, joined.generation_id), (0, 1), "version {version}");
        assert_eq!((joined.members.len(), &joined.leader), (1, &joined.member_id));
        assert!(joined.member_id.starts_with("client-"));
        let id = joined.member_id.clone();
        let assigned = SyncGroupRequestAssignment::default()
            .with_member_id(id.clone())
            .with_assignment(Bytes::from_static(b"all"));
        let sync = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(1)
            .with_member_id(id.clone())
            .with_assignments(vec![assigned]);
        let sync_version = version.min(5);
        let body = RequestKind::SyncGroup(sync);
        match client.send(ApiKey::SyncGroup, sync_version, body).await {
            ResponseKind::SyncGroup(synced) => assert_eq!(synced.assignment, "all"),
            other => panic!("{other:?}"),
        }
        let heartbeat = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(1)
            .with_member_id(id.clone());
        let body = RequestKind::Heartbeat(heartbeat);
        match client.send(ApiKey::Heartbeat, version.min(4), body).await {
            ResponseKind::Heartbeat(response) => assert_eq!(response.error_code, 0),
            other => panic!("{other:?}"),
        }
        let leave = LeaveGroupRequest::default().with_group_id(group());
        let leave = if sync_version >= 3 {
            leave.with_members(vec![MemberIdentity::default().with_member_id(id)])
        } else {
            leave.with_member_id(id)
        };
        let body = RequestKind::LeaveGroup(leave);
        match client.send(ApiKey::LeaveGroup, sync_version, body).await {
            ResponseKind::LeaveGroup(response) => {
                assert_eq!(response.error_code, 0);
                assert!(response.members.iter().all(|member| member.error_code == 0));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn bad_joins_are_refused_in_every_version() {
    for version in 0..=9 {
        let client = Client::new();
        let good = || JoinGroupRequest::default().with_group_id(group());
        let cases = [
            (good().with_session_timeout_ms(5_999), ErrorCode::InvalidSessionTimeout),
            (good().with_session_timeout_ms(1_800_001), ErrorCode::InvalidSessionTimeout),
            (good().with_session_timeout_ms(-1), ErrorCode::InvalidSessionTimeout),
            (good().with_session_timeout_ms(6_000), ErrorCode::InconsistentGroupProtocol),
            (JoinGroupRequest::default(), ErrorCode::InvalidGroupId),
        ];
        for (request, expected) in cases {
            let response = client.send_join(version, request).await;
            assert_eq!(response.error_code, expected.code(), "version {version}");
        }
    }
}

#[tokio::test]
async fn partitions_are_committed_one_by_one_and_fetched_in_every_version() {
    let client = Client::new();
    let long = OffsetCommitRequestPartition::default()
        .with_committed_metadata(Some(text(&"x".repeat(4097))));
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let results = client
        .commit(to_commit("t", vec![partition(0, 5), partition(2, 5), partition(-1, 5), long]))
        .await;
    let too_large = ErrorCode::OffsetMetadataTooLarge.code();
    assert_eq!(results, [(0, 0), (2, unknown), (-1, unknown), (0, too_large)]);
    assert_eq!(client.commit(to_commit("none", vec![partition(0, 5)])).await, [(0, unknown)]);
    for version in 1..=8 {
        let plain = OffsetFetchRequestTopic::default()
            .with_name(topic("t"))
            .with_partition_indexes(vec![1, 0]);
        let batched = OffsetFetchRequestTopics::default()
            .with_name(topic("t"))
            .with_partition_indexes(vec![1, 0]);
        let of_group = OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(Some(vec![batched]));
        let request = if version >= 8 {
            OffsetFetchRequest::default().with_groups(vec![of_group.clone(), of_group])
        } else {
            OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![plain]))
        };
        let body = RequestKind::OffsetFetch(request);
        let ResponseKind::OffsetFetch(response) =
            client.send(ApiKey::OffsetFetch, version, body).await
        else {
            panic!("another response");
        };
        let plain = response.topics.iter().flat_map(|topic| &topic.partitions);
        let plain = plain.map(|p| (p.partition_index, p.committed_offset));
        let groups = response.groups.iter().flat_map(|group| &group.topics);
        let batched = groups.flat_map(|topic| &topic.partitions);
        let batched = batched.map(|p| (p.partition_index, p.committed_offset));
        let found: Vec<_> = plain.chain(batched).collect();
        assert_eq!(found, [(1, -1), (0, 5)], "version {version}");
    }
}

#[tokio::test]
async fn every_offset_is_fetched_with_null() {
    let client = Client::new();
    client.commit(to_commit("t", vec![partition(0, 5), partition(1, 6)])).await;
    let request = OffsetFetchRequest::default().with_group_id(group()).with_topics(None);
    let body = RequestKind::OffsetFetch(request);
    let ResponseKind::OffsetFetch(response) = client.send(ApiKey::OffsetFetch, 7, body).await
    else {
        panic!("another response");
    };
    assert_eq!(response.topics[0].name, topic("t"));
    let offsets: Vec<_> =
        response.topics[0].partitions.iter().map(|p| p.committed_offset).collect();
    assert_eq!(offsets, [5, 6]);
}

#[tokio::test]
async fn groups_are_described_listed_and_deleted_in_every_version() {
    let client = Client::new();
    client.commit(to_commit("t", vec![partition(0, 5)])).await;
    for version in 0..=5 {
        let request = DescribeGroupsRequest::default()
            .with_groups(vec![group(), GroupId(text("none")), group(), GroupId(text("taskwire"))])
            .with_include_authorized_operations(version >= 3);
        let body = RequestKind::DescribeGroups(request);
        let ResponseKind::DescribeGroups(response) =
            client.send(ApiKey::DescribeGroups, version, body).await
        else {
            panic!("another response");
        };
        let states: Vec<_> = response.groups.iter().map(|group| &*group.group_state).collect();
        assert_eq!(states, ["Empty", "Dead", "Stable"], "version {version}");
    }
    for (version, filter, expected) in
        [(0, None, 2), (3, None, 2), (4, None, 2), (4, Some("stable"), 1), (4, Some("Dead"), 0)]
    {
        let filter = filter.into_iter().map(text).collect();
        let body = RequestKind::ListGroups(ListGroupsRequest::default().with_states_filter(filter));
        let ResponseKind::ListGroups(response) =
            client.send(ApiKey::ListGroups, version, body).await
        else {
            panic!("another response");
        };
        assert_eq!(response.groups.len(), expected, "version {version}");
    }
    let asked = vec![group(), group(), GroupId(text("taskwire"))];
    let body = RequestKind::DeleteGroups(DeleteGroupsRequest::default().with_groups_names(asked));
    let ResponseKind::DeleteGroups(response) = client.send(ApiKey::DeleteGroups, 2, body).await
    else {
        panic!("another response");
    };
    let codes: Vec<_> = response.results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, 69, 30]);
}

#[tokio::test]
async fn coordinator_of_every_group_is_this_broker() {
    let client = Client::new();
    for version in 0..=4 {
        for (key_type, expected) in [(0, 0), (1, 0), (2, 42)] {
            let request = FindCoordinatorRequest::default().with_key_type(key_type);
            let request = if version >= 4 {
                request.with_coordinator_keys(vec![text("g"), text("h")])
            } else {
                request.with_key(text("g"))
            };
            let body = RequestKind::FindCoordinator(request);
            let ResponseKind::FindCoordinator(response) =
                client.send(ApiKey::FindCoordinator, version, body).await
            else {
                panic!("another response");
            };
            let batched = response.coordinators.iter().map(|found| found.error_code);
            let mut codes: Vec<_> = batched.collect();
            if version < 4 {
                codes = vec![response.error_code; 2];
            }
            assert_eq!(codes, [expected; 2], "version {version}, key type {key_type}");
        }
    }
}
