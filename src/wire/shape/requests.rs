//! The body of every request that is served, in the order of [`crate::wire::api::APIS`].

use super::{
    BOOLEAN, BYTES, Fields, INT8, INT16, INT32, INT32S, INT64, Kind, TEXT, TEXTS, UUID, all,
    between, since, tagged, until,
};
use crate::wire::messages::{
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    describe_configs_request::DescribeConfigsResource,
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    metadata_request::MetadataRequestTopic,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    },
    produce_request::{PartitionProduceData, TopicProduceData},
    sync_group_request::SyncGroupRequestAssignment,
};

pub(in crate::wire) const PRODUCE: Fields = &[
    all(TEXT),  // transactional id
    all(INT16), // acks
    all(INT32), // timeout
    all(array![
        TopicProduceData,
        all(TEXT),
        all(array![PartitionProduceData, all(INT32), all(BYTES)])
    ]),
];

pub(in crate::wire) const FETCH: Fields = &[
    all(INT32),      // replica id
    all(INT32),      // max wait
    all(INT32),      // min bytes
    all(INT32),      // max bytes
    all(INT8),       // isolation level
    since(7, INT32), // session id
    since(7, INT32), // session epoch
    all(array![
        FetchTopic,
        all(TEXT),
        all(array![
            FetchPartition,
            all(INT32),       // partition
            since(9, INT32),  // current leader epoch
            all(INT64),       // fetch offset
            since(12, INT32), // last fetched epoch
            since(5, INT64),  // log start offset
            all(INT32),       // partition max bytes
        ]),
    ]),
    since(7, array![ForgottenTopic, all(TEXT), all(INT32S)]),
    since(11, TEXT), // rack id
    tagged(0, TEXT), // cluster id
];

pub(in crate::wire) const LIST_OFFSETS: Fields = &[
    all(INT32),     // replica id
    since(2, INT8), // isolation level
    // Partition, current leader epoch, timestamp.
    all(array![
        ListOffsetsTopic,
        all(TEXT),
        all(array![ListOffsetsPartition, all(INT32), since(4, INT32), all(INT64)])
    ]),
];

pub(in crate::wire) const METADATA: Fields = &[
    all(array![MetadataRequestTopic, since(10, UUID), all(TEXT)]),
    since(4, BOOLEAN),       // allow auto topic creation
    between(8, 10, BOOLEAN), // include cluster authorized operations
    since(8, BOOLEAN),       // include topic authorized operations
];

pub(in crate::wire) const OFFSET_COMMIT: Fields = &[
    all(TEXT),       // group id
    all(INT32),      // generation id
    all(TEXT),       // member id
    since(7, TEXT),  // group instance id
    until(4, INT64), // retention time
    // Partition, offset, leader epoch, metadata.
    all(array![
        OffsetCommitRequestTopic,
        all(TEXT),
        all(array![
            OffsetCommitRequestPartition,
            all(INT32),
            all(INT64),
            since(6, INT32),
            all(TEXT)
        ])
    ]),
];

pub(in crate::wire) const OFFSET_FETCH: Fields = &[
    until(7, TEXT), // group id
    until(7, array![OffsetFetchRequestTopic, all(TEXT), all(INT32S)]),
    since(
        8,
        array![
            OffsetFetchRequestGroup,
            all(TEXT),
            all(array![OffsetFetchRequestTopics, all(TEXT), all(INT32S)])
        ],
    ),
    since(7, BOOLEAN), // require stable
];

pub(in crate::wire) const FIND_COORDINATOR: Fields = &[
    until(3, TEXT),  // key
    since(1, INT8),  // key type
    since(4, TEXTS), // keys
];

pub(in crate::wire) const JOIN_GROUP: Fields = &[
    all(TEXT),       // group id
    all(INT32),      // session timeout
    since(1, INT32), // rebalance timeout
    all(TEXT),       // member id
    since(5, TEXT),  // group instance id
    all(TEXT),       // protocol type
    // Name and metadata.
    all(array![JoinGroupRequestProtocol, all(TEXT), all(BYTES)]),
    since(8, TEXT), // reason
];

pub(in crate::wire) const HEARTBEAT: Fields = &[
    all(TEXT),      // group id
    all(INT32),     // generation id
    all(TEXT),      // member id
    since(3, TEXT), // group instance id
];

pub(in crate::wire) const LEAVE_GROUP: Fields = &[
    all(TEXT),      // group id
    until(2, TEXT), // member id
    // Member id, group instance id, reason.
    since(3, array![MemberIdentity, all(TEXT), all(TEXT), since(5, TEXT)]),
];

pub(in crate::wire) const SYNC_GROUP: Fields = &[
    all(TEXT),      // group id
    all(INT32),     // generation id
    all(TEXT),      // member id
    since(3, TEXT), // group instance id
    since(5, TEXT), // protocol type
    since(5, TEXT), // protocol name
    // Member id and assignment.
    all(array![SyncGroupRequestAssignment, all(TEXT), all(BYTES)]),
];

pub(in crate::wire) const DESCRIBE_GROUPS: Fields = &[
    all(TEXTS),        // groups
    since(3, BOOLEAN), // include authorized operations
];

pub(in crate::wire) const LIST_GROUPS: Fields = &[
    since(4, TEXTS), // states filter
];

pub(in crate::wire) const API_VERSIONS: Fields = &[
    since(3, TEXT), // client software name
    since(3, TEXT), // client software version
];

pub(in crate::wire) const CREATE_TOPICS: Fields = &[
    all(array![
        CreatableTopic,
        all(TEXT),  // name
        all(INT32), // partitions
        all(INT16), // replication factor
        all(array![CreatableReplicaAssignment, all(INT32), all(INT32S)]),
        all(array![CreatableTopicConfig, all(TEXT), all(TEXT)]),
    ]),
    all(INT32),   // timeout
    all(BOOLEAN), // validate only
];

pub(in crate::wire) const DELETE_TOPICS: Fields = &[
    all(TEXTS), // topic names
    all(INT32), // timeout
];

pub(in crate::wire) const INIT_PRODUCER_ID: Fields = &[
    all(TEXT),       // transactional id
    all(INT32),      // transaction timeout
    since(3, INT64), // producer id
    since(3, INT16), // producer epoch
];

pub(in crate::wire) const DESCRIBE_CONFIGS: Fields = &[
    // Resource type, name, configuration keys.
    all(array![DescribeConfigsResource, all(INT8), all(TEXT), all(TEXTS)]),
    all(BOOLEAN),      // include synonyms
    since(3, BOOLEAN), // include documentation
];

pub(in crate::wire) const CREATE_PARTITIONS: Fields = &[
    // Name, count, and for each new partition its broker ids.
    all(array![
        CreatePartitionsTopic,
        all(TEXT),
        all(INT32),
        all(array![CreatePartitionsAssignment, all(INT32S)])
    ]),
    all(INT32),   // timeout
    all(BOOLEAN), // validate only
];

pub(in crate::wire) const DELETE_GROUPS: Fields = &[
    all(TEXTS), // group names
];

pub(in crate::wire) const INCREMENTAL_ALTER_CONFIGS: Fields = &[
    // Resource type and name; config name, operation, value.
    all(array![
        AlterConfigsResource,
        all(INT8),
        all(TEXT),
        all(array![AlterableConfig, all(TEXT), all(INT8), all(TEXT)])
    ]),
    all(BOOLEAN), // validate only
];

pub(in crate::wire) const DESCRIBE_CLUSTER: Fields = &[
    all(BOOLEAN),   // include cluster authorized operations
    since(1, INT8), // endpoint type
];
