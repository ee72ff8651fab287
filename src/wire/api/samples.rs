//! A populated request of every key and version, built by kafka-protocol's structs.

use crate::wire::{
    StrBytes,
    api::ApiKey,
    messages::{
        create_partitions_request::*, create_topics_request::*, describe_configs_request::*,
        fetch_request::*, incremental_alter_configs_request::*, join_group_request::*,
        leave_group_request::*, list_offsets_request::*, metadata_request::*,
        offset_commit_request::*, offset_fetch_request::*, produce_request::*,
        sync_group_request::*, *,
    },
};
use bytes::Bytes;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn group() -> GroupId {
    GroupId(text("readers"))
}

fn member() -> StrBytes {
    text("member-1-7b9f")
}

fn instance(version: i16, first: i16) -> Option<StrBytes> {
    (version >= first).then(|| text("instance-1"))
}

/// A request of `key` in `version` with something in every field that the version has.
pub(super) fn request(key: ApiKey, version: i16) -> RequestKind {
    match key {
        ApiKey::Produce => produce().into(),
        ApiKey::Fetch => fetch(version).into(),
        ApiKey::ListOffsets => list_offsets(version).into(),
        ApiKey::Metadata => metadata(version).into(),
        ApiKey::OffsetCommit => offset_commit(version).into(),
        ApiKey::OffsetFetch => offset_fetch(version).into(),
        ApiKey::FindCoordinator => find_coordinator(version).into(),
        ApiKey::JoinGroup => join_group(version).into(),
        ApiKey::Heartbeat => HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(7)
            .with_member_id(member())
            .with_group_instance_id(instance(version, 3))
            .into(),
        ApiKey::LeaveGroup => leave_group(version).into(),
        ApiKey::SyncGroup => sync_group(version).into(),
        ApiKey::DescribeGroups => DescribeGroupsRequest::default()
            .with_groups(vec![group(), GroupId(text("others"))])
            .with_include_authorized_operations(version >= 3)
            .into(),
        ApiKey::ListGroups => {
            let states = if version >= 4 { vec![text("Stable"), text("Empty")] } else { vec![] };
            ListGroupsRequest::default().with_states_filter(states).into()
        }
        ApiKey::ApiVersions if version < 3 => ApiVersionsRequest::default().into(),
        ApiKey::ApiVersions => ApiVersionsRequest::default()
            .with_client_software_name(text("apache-kafka-java"))
            .with_client_software_version(text("4.1.0"))
            .into(),
        other => admin(other, version),
    }
}

fn admin(key: ApiKey, version: i16) -> RequestKind {
    match key {
        ApiKey::CreateTopics => create_topics().into(),
        ApiKey::DeleteTopics => DeleteTopicsRequest::default()
            .with_topic_names(vec![topic("a"), topic("task-events")])
            .with_timeout_ms(30_000)
            .into(),
        ApiKey::InitProducerId => init_producer_id(version).into(),
        ApiKey::DescribeConfigs => DescribeConfigsRequest::default()
            .with_resources(vec![
                DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text("task-events"))
                    .with_configuration_keys(Some(vec![text("retention.ms"), text("x")])),
                DescribeConfigsResource::default().with_configuration_keys(None),
            ])
            .with_include_synonyms(true)
            .with_include_documentation(version >= 3)
            .into(),
        ApiKey::CreatePartitions => CreatePartitionsRequest::default()
            .with_topics(vec![
                CreatePartitionsTopic::default()
                    .with_name(topic("task-events"))
                    .with_count(4)
                    .with_assignments(Some(vec![
                        CreatePartitionsAssignment::default()
                            .with_broker_ids(vec![BrokerId(1), BrokerId(2)]),
                    ])),
                CreatePartitionsTopic::default().with_assignments(None),
            ])
            .with_timeout_ms(1_000)
            .into(),
        ApiKey::DeleteGroups => {
            DeleteGroupsRequest::default().with_groups_names(vec![group()]).into()
        }
        ApiKey::IncrementalAlterConfigs => IncrementalAlterConfigsRequest::default()
            .with_resources(vec![
                AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text("task-events"))
                    .with_configs(vec![
                        AlterableConfig::default()
                            .with_name(text("retention.ms"))
                            .with_value(Some(text("1000"))),
                        AlterableConfig::default().with_config_operation(1).with_value(None),
                    ]),
            ])
            .into(),
        ApiKey::DescribeCluster => DescribeClusterRequest::default()
            .with_include_cluster_authorized_operations(true)
            .with_endpoint_type(if version >= 1 { 2 } else { 1 })
            .into(),
        other => panic!("no sample for {other:?}"),
    }
}

fn produce() -> ProduceRequest {
    ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            TopicProduceData::default().with_name(topic("task-events")).with_partition_data(vec![
                PartitionProduceData::default()
                    .with_index(3)
                    .with_records(Some(Bytes::from_static(&[0xab; 200]))),
                PartitionProduceData::default().with_records(None),
            ]),
        ])
}

fn fetch(version: i16) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(5)
        .with_current_leader_epoch(if version >= 9 { 4 } else { -1 })
        .with_fetch_offset(1 << 40)
        .with_last_fetched_epoch(if version >= 12 { 3 } else { -1 })
        .with_log_start_offset(if version >= 5 { 9 } else { -1 })
        .with_partition_max_bytes(1 << 20);
    let forgotten = ForgottenTopic::default().with_topic(topic("old")).with_partitions(vec![0, 1]);
    FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_isolation_level(1)
        .with_session_id(if version >= 7 { 77 } else { 0 })
        .with_session_epoch(if version >= 7 { 2 } else { -1 })
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(topic("task-events"))
                .with_partitions(vec![partition.clone(), partition]),
        ])
        .with_forgotten_topics_data(if version >= 7 { vec![forgotten] } else { vec![] })
        .with_rack_id(if version >= 11 { text("rack-b") } else { text("") })
        .with_cluster_id((version >= 12).then(|| text("4L6g3nShT-eMCtK--X86sw")))
}

fn list_offsets(version: i16) -> ListOffsetsRequest {
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(i8::from(version >= 2))
        .with_topics(vec![ListOffsetsTopic::default().with_name(topic("a")).with_partitions(vec![
            ListOffsetsPartition::default()
                .with_partition_index(1)
                .with_current_leader_epoch(if version >= 4 { 4 } else { -1 })
                .with_timestamp(-2),
        ])])
}

fn metadata(version: i16) -> MetadataRequest {
    MetadataRequest::default()
        .with_topics(Some(vec![
            MetadataRequestTopic::default().with_name(Some(topic("task-events"))),
            MetadataRequestTopic::default().with_name(Some(topic("b"))),
        ]))
        .with_allow_auto_topic_creation(version < 4)
        .with_include_cluster_authorized_operations((8..=10).contains(&version))
        .with_include_topic_authorized_operations(version >= 8)
}

fn offset_commit(version: i16) -> OffsetCommitRequest {
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(3)
        .with_member_id(member())
        .with_group_instance_id(instance(version, 7))
        .with_retention_time_ms(if version <= 4 { 86_400_000 } else { -1 })
        .with_topics(vec![
            OffsetCommitRequestTopic::default().with_name(topic("task-events")).with_partitions(
                vec![
                    OffsetCommitRequestPartition::default()
                        .with_partition_index(2)
                        .with_committed_offset(12_345)
                        .with_committed_leader_epoch(if version >= 6 { 5 } else { -1 })
                        .with_committed_metadata(Some(text("note"))),
                    OffsetCommitRequestPartition::default().with_committed_metadata(None),
                ],
            ),
        ])
}

fn offset_fetch(version: i16) -> OffsetFetchRequest {
    let request = OffsetFetchRequest::default().with_require_stable(version >= 7);
    if version <= 7 {
        return request.with_group_id(group()).with_topics(Some(vec![
            OffsetFetchRequestTopic::default()
                .with_name(topic("task-events"))
                .with_partition_indexes(vec![0, 1, 2]),
        ]));
    }
    request.with_groups(vec![
        OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![
            OffsetFetchRequestTopics::default()
                .with_name(topic("task-events"))
                .with_partition_indexes(vec![0, 1, 2]),
        ])),
        OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(None),
    ])
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    let request = FindCoordinatorRequest::default().with_key_type(i8::from(version >= 1));
    if version <= 3 {
        request.with_key(text("readers"))
    } else {
        request.with_coordinator_keys(vec![text("readers"), text("others")])
    }
}

fn join_group(version: i16) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(45_000)
        .with_rebalance_timeout_ms(if version >= 1 { 60_000 } else { -1 })
        .with_member_id(member())
        .with_group_instance_id(instance(version, 5))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"\0\x01\0\0\0\0")),
            JoinGroupRequestProtocol::default().with_name(text("cooperative-sticky")),
        ])
        .with_reason((version >= 8).then(|| text("rebalance")))
}

fn leave_group(version: i16) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(group());
    if version <= 2 {
        return request.with_member_id(member());
    }
    request.with_members(vec![
        MemberIdentity::default()
            .with_member_id(member())
            .with_group_instance_id(instance(version, 3))
            .with_reason((version >= 5).then(|| text("the consumer is being closed"))),
        MemberIdentity::default(),
    ])
}

fn sync_group(version: i16) -> SyncGroupRequest {
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(2)
        .with_member_id(member())
        .with_group_instance_id(instance(version, 3))
        .with_protocol_type((version >= 5).then(|| text("consumer")))
        .with_protocol_name((version >= 5).then(|| text("range")))
        .with_assignments(vec![
            SyncGroupRequestAssignment::default()
                .with_member_id(member())
                .with_assignment(Bytes::from_static(&[7; 40])),
        ])
}

fn create_topics() -> CreateTopicsRequest {
    CreateTopicsRequest::default()
        .with_topics(vec![
            CreatableTopic::default()
                .with_name(topic("task-events"))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![
                    CreatableReplicaAssignment::default()
                        .with_partition_index(0)
                        .with_broker_ids(vec![BrokerId(1)]),
                ])
                .with_configs(vec![
                    CreatableTopicConfig::default()
                        .with_name(text("cleanup.policy"))
                        .with_value(Some(text("compact"))),
                    CreatableTopicConfig::default().with_value(None),
                ]),
            CreatableTopic::default(),
        ])
        .with_timeout_ms(5_000)
        .with_validate_only(true)
}

fn init_producer_id(version: i16) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(if version >= 3 { 9_000 } else { -1 }))
        .with_producer_epoch(if version >= 3 { 2 } else { -1 })
}
