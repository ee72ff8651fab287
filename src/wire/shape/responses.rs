//! The bodies of responses that our own client reads, each in the one version that it asks for (see
//! [`crate::wire::client`]).

use super::{BOOLEAN, BYTES, Fields, INT16, INT32, INT32S, INT64, Kind, TEXT, all};
use crate::wire::messages::{
    api_versions_response::ApiVersion,
    describe_groups_response::{DescribedGroup, DescribedGroupMember},
    fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData},
    list_groups_response::ListedGroup,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic},
    produce_response::{PartitionProduceResponse, TopicProduceResponse},
};

/// Version 0.
pub(in crate::wire) const API_VERSIONS: Fields = &[
    all(INT16), // error code
    all(array![ApiVersion, all(INT16), all(INT16), all(INT16)]),
];

/// Version 4.
pub(in crate::wire) const METADATA: Fields = &[
    all(INT32), // throttle time
    // Node id, host, port, rack.
    all(array![MetadataResponseBroker, all(INT32), all(TEXT), all(INT32), all(TEXT)]),
    all(TEXT),  // cluster id
    all(INT32), // controller id
    all(array![
        MetadataResponseTopic,
        all(INT16),   // error code
        all(TEXT),    // name
        all(BOOLEAN), // is internal
        // Error code, index, leader id, replicas, in-sync replicas.
        all(array![
            MetadataResponsePartition,
            all(INT16),
            all(INT32),
            all(INT32),
            all(INT32S),
            all(INT32S)
        ]),
    ]),
];

/// Version 3.
pub(in crate::wire) const PRODUCE: Fields = &[
    // Index, error code, base offset, append time.
    all(array![
        TopicProduceResponse,
        all(TEXT),
        all(array![PartitionProduceResponse, all(INT32), all(INT16), all(INT64), all(INT64)])
    ]),
    all(INT32), // throttle time
];

/// Version 4.
pub(in crate::wire) const FETCH: Fields = &[
    all(INT32), // throttle time
    all(array![
        FetchableTopicResponse,
        all(TEXT),
        all(array![
            PartitionData,
            all(INT32), // index
            all(INT16), // error code
            all(INT64), // high watermark
            all(INT64), // last stable offset
            all(array![AbortedTransaction, all(INT64), all(INT64)]),
            all(BYTES), // records
        ]),
    ]),
];

/// Version 1.
pub(in crate::wire) const LIST_OFFSETS: Fields = &[
    // Index, error code, timestamp, offset.
    all(array![
        ListOffsetsTopicResponse,
        all(TEXT),
        all(array![ListOffsetsPartitionResponse, all(INT32), all(INT16), all(INT64), all(INT64)])
    ]),
];

/// Version 0.
pub(in crate::wire) const FIND_COORDINATOR: Fields = &[
    all(INT16), // error code
    all(INT32), // node id
    all(TEXT),  // host
    all(INT32), // port
];

/// Version 0.
pub(in crate::wire) const LIST_GROUPS: Fields = &[
    all(INT16), // error code
    all(array![ListedGroup, all(TEXT), all(TEXT)]),
];

/// Version 0.
pub(in crate::wire) const DESCRIBE_GROUPS: Fields = &[all(array![
    DescribedGroup,
    all(INT16), // error code
    all(TEXT),  // group id
    all(TEXT),  // state
    all(TEXT),  // protocol type
    all(TEXT),  // protocol
    // Member id, client id, client host, metadata, assignment.
    all(array![DescribedGroupMember, all(TEXT), all(TEXT), all(TEXT), all(BYTES), all(BYTES)]),
])];

/// Version 2.
pub(in crate::wire) const OFFSET_FETCH: Fields = &[
    // Index, committed offset, metadata, error code.
    all(array![
        OffsetFetchResponseTopic,
        all(TEXT),
        all(array![OffsetFetchResponsePartition, all(INT32), all(INT64), all(TEXT), all(INT16)])
    ]),
    all(INT16), // error code
];
