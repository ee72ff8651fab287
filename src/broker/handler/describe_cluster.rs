//! DescribeCluster 0 to 1: the one broker.

use super::{message, metadata::CLUSTER_OPERATIONS, text};
use crate::{
    broker::{Broker, NODE_ID, Peer},
    wire::{
        ErrorCode,
        messages::{
            BrokerId, DescribeClusterRequest, DescribeClusterResponse,
            describe_cluster_response::DescribeClusterBroker,
        },
    },
};

pub(in crate::broker) fn handle(
    broker: &Broker,
    peer: &Peer,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let (host, port) = broker.peer_address(peer);
    let node = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE_ID))
        .with_host(text(host))
        .with_port(i32::from(port));
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(text(broker.cluster_id()))
        .with_controller_id(BrokerId(NODE_ID))
        .with_brokers(vec![node]);
    if request.endpoint_type != BROKERS {
        response.error_code = ErrorCode::InvalidRequest.code();
        response.error_message = message("this port serves brokers, not controllers");
        response.brokers.clear();
    }
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

const BROKERS: i8 = 1;
