//! FindCoordinator 0-4: this broker, for every group and every transactional id. Other key types
//! (share groups) are refused.

use super::{Node, text};
use crate::wire::{
    ErrorCode,
    messages::{
        BrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
};

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
/// From here on a request asks for many keys.
const VERSION_BATCHED: i16 = 4;

pub(super) fn handle(
    node: &Node,
    version: i16,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let is_known = matches!(request.key_type, KEY_TYPE_GROUP | KEY_TYPE_TRANSACTION);
    let error = if is_known { ErrorCode::None } else { ErrorCode::InvalidRequest };
    let (id, host, port) =
        if is_known { (node.id, node.host.as_str(), i32::from(node.port)) } else { (-1, "", -1) };
    if version < VERSION_BATCHED {
        return FindCoordinatorResponse::default()
            .with_error_code(error.code())
            .with_node_id(BrokerId(id))
            .with_host(text(host))
            .with_port(port);
    }
    let coordinators = request.coordinator_keys.iter().map(|key| {
        Coordinator::default()
            .with_key(key.clone())
            .with_error_code(error.code())
            .with_node_id(BrokerId(id))
            .with_host(text(host))
            .with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}
