//! ApiVersions 0 to 4: what is served. No feature tags: nothing here is gated by one.

use crate::wire::{
    ErrorCode,
    api::{APIS, Api, ApiKey},
    messages::{ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion},
};

pub(in crate::broker) fn handle(version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let names = [&request.client_software_name, &request.client_software_version];
    if version >= 3 && !names.iter().all(|name| is_software_name(name)) {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    let line = |api: &Api| {
        ApiVersion::default()
            .with_api_key(number(api.key))
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    };
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(line).collect())
}

/// The number of a key on the wire.
#[allow(clippy::as_conversions, reason = "the discriminant is the number")]
const fn number(key: ApiKey) -> i16 {
    key as i16
}

/// Kafka's `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let ends = [name.bytes().next(), name.bytes().last()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && name.bytes().all(is_inner)
}
