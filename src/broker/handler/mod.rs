//! One file per API, named as Kafka names it. A handler takes the decoded request and gives the
//! response; the connection encodes it.
//!
//! Produce and what it waits for are the connection's (`produce`): several may be on their way at
//! once. Everything else is answered before the next request is looked at.

pub(in crate::broker) mod api_versions;
pub(in crate::broker) mod create_partitions;
pub(in crate::broker) mod create_topics;
pub(in crate::broker) mod delete_topics;
pub(in crate::broker) mod describe_cluster;
pub(in crate::broker) mod describe_configs;
pub(in crate::broker) mod fetch;
pub(in crate::broker) mod groups;
pub(in crate::broker) mod incremental_alter_configs;
pub(in crate::broker) mod init_producer_id;
pub(in crate::broker) mod list_offsets;
pub(in crate::broker) mod metadata;
pub(in crate::broker) mod produce;

use super::{Broker, NODE_ID, Peer};
use crate::wire::{
    RequestHeader, Response, StrBytes,
    messages::{RequestKind, ResponseKind},
};

/// Answers one request; `None` if no part of the broker serves its key.
pub(in crate::broker) async fn answer(
    broker: &Broker,
    peer: &Peer,
    header: &RequestHeader,
    body: RequestKind,
) -> Option<Response> {
    let version = header.version;
    let response = match body {
        RequestKind::Fetch(request) => {
            return Some(Box::pin(fetch::handle(broker, version, request)).await.into());
        }
        RequestKind::ApiVersions(request) => {
            ResponseKind::ApiVersions(api_versions::handle(version, &request))
        }
        RequestKind::Metadata(request) => {
            ResponseKind::Metadata(metadata::handle(broker, peer, version, request).await)
        }
        RequestKind::ListOffsets(request) => {
            ResponseKind::ListOffsets(list_offsets::handle(broker, version, request).await)
        }
        RequestKind::InitProducerId(request) => {
            ResponseKind::InitProducerId(init_producer_id::handle(broker, request).await)
        }
        RequestKind::CreateTopics(request) => {
            ResponseKind::CreateTopics(create_topics::handle(broker, version, request).await)
        }
        RequestKind::DeleteTopics(request) => {
            ResponseKind::DeleteTopics(delete_topics::handle(broker, version, request).await)
        }
        RequestKind::CreatePartitions(request) => {
            ResponseKind::CreatePartitions(create_partitions::handle(broker, request).await)
        }
        RequestKind::DescribeConfigs(request) => {
            ResponseKind::DescribeConfigs(describe_configs::handle(broker, request))
        }
        RequestKind::IncrementalAlterConfigs(request) => ResponseKind::IncrementalAlterConfigs(
            incremental_alter_configs::handle(broker, request).await,
        ),
        RequestKind::DescribeCluster(request) => {
            ResponseKind::DescribeCluster(describe_cluster::handle(broker, peer, &request))
        }
        other => of_group(broker, peer, header, other).await?,
    };
    Some(response.into())
}

/// Answers a request of the group APIs.
async fn of_group(
    broker: &Broker,
    peer: &Peer,
    header: &RequestHeader,
    body: RequestKind,
) -> Option<ResponseKind> {
    let (host, port) = broker.peer_address(peer);
    let context = groups::Context {
        coordinator: broker.coordinator(),
        node: groups::Node { id: NODE_ID, host, port },
        partition_count: &|topic| broker.partition_count(topic),
    };
    Box::pin(groups::dispatch_with(&context, peer, header, body)).await
}

/// Text of a response.
#[allow(clippy::needless_pass_by_value, reason = "owned and borrowed text alike")]
fn text(text: impl ToString) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

/// Text of a response that may be null.
#[allow(clippy::needless_pass_by_value, reason = "owned and borrowed text alike")]
fn message(error: impl ToString) -> Option<StrBytes> {
    Some(text(error))
}
