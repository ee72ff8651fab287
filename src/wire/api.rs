//! The table of API keys and versions, and requests and responses by it.

use super::{
    ErrorCode,
    fetch::FetchResponse,
    messages::{ApiVersionsResponse, RequestKind, ResponseKind, api_versions_response::ApiVersion},
    reader::Reader,
    shape::{self, Fields, requests},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use std::sync::Arc;

pub use super::shape::DECODED_BYTES_PER_BODY_BYTE as DECODED_BYTES_PER_BYTE;
pub use kafka_protocol::messages::ApiKey;

/// One line of the table: a key and the versions that are served.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// The key.
    pub key: ApiKey,
    /// Lowest version that is advertised.
    pub advertised_min: i16,
    /// Lowest version that is answered.
    pub min: i16,
    /// Highest version.
    pub max: i16,
    /// What its request body looks like.
    body: Fields,
}

impl Api {
    /// The line of a key by its number; `None` if it is not served.
    pub fn of(key: i16) -> Option<&'static Self> {
        APIS.iter().find(|api| number(api.key) == key)
    }
}

/// What every request starts with (header v1 or v2).
#[derive(Clone, Debug)]
pub struct RequestHeader {
    /// The key.
    pub key: ApiKey,
    /// The version of the body.
    pub version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Arc<str>>,
}

/// One decoded request.
#[derive(Debug)]
pub struct Request {
    /// Its header.
    pub header: RequestHeader,
    /// Its body. Record batches inside are slices of the frame.
    pub body: RequestKind,
    /// What the frame and the decoded arrays take in memory.
    pub memory_bytes: usize,
}

/// Why a frame is no request that we answer.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// ApiVersions in a version that we do not know: answered in v0 with error 35.
    #[error("unsupported ApiVersions version {version}")]
    ApiVersions {
        /// The version asked for.
        version: i16,
        /// Comes back in the response.
        correlation_id: i32,
    },
    /// A key or version that is not in the table: the connection is closed.
    #[error("unsupported request, key {key} version {version}")]
    Unsupported {
        /// The key's number.
        key: i16,
        /// The version.
        version: i16,
    },
    /// The bytes do not have the shape of the request: the connection is closed.
    #[error("malformed request, key {key} version {version}")]
    Malformed {
        /// The key's number, -1 if not even that was there.
        key: i16,
        /// The version.
        version: i16,
    },
}

/// A response that kafka-protocol refused to encode: a field is set that its version does not have.
/// A handler's mistake, never the peer's; the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode the response, key {key:?} version {version}: {reason}")]
pub struct EncodeError {
    /// The key.
    pub key: ApiKey,
    /// The version.
    pub version: i16,
    /// What the encoder says.
    pub reason: String,
}

/// A response to be encoded.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one lives for a moment, and is moved once")]
pub enum Response {
    /// Encoded by kafka-protocol.
    Kafka(ResponseKind),
    /// A Fetch response whose records are not copied.
    Fetch(FetchResponse),
}

impl From<ResponseKind> for Response {
    fn from(response: ResponseKind) -> Self {
        Self::Kafka(response)
    }
}

impl From<FetchResponse> for Response {
    fn from(response: FetchResponse) -> Self {
        Self::Fetch(response)
    }
}

/// Every API that is served, by key.
///
/// Produce is advertised from 0 because older librdkafka switches compression off otherwise; its
/// versions 0 to 2 carry record formats that are not taken, and close the connection.
pub const APIS: &[Api] = &[
    Api { advertised_min: 0, ..api(ApiKey::Produce, 3, 11, requests::PRODUCE) },
    api(ApiKey::Fetch, 4, 12, requests::FETCH),
    api(ApiKey::ListOffsets, 1, 7, requests::LIST_OFFSETS),
    api(ApiKey::Metadata, 0, 12, requests::METADATA),
    api(ApiKey::OffsetCommit, 2, 8, requests::OFFSET_COMMIT),
    api(ApiKey::OffsetFetch, 1, 8, requests::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, 0, 4, requests::FIND_COORDINATOR),
    api(ApiKey::JoinGroup, 0, 9, requests::JOIN_GROUP),
    api(ApiKey::Heartbeat, 0, 4, requests::HEARTBEAT),
    api(ApiKey::LeaveGroup, 0, 5, requests::LEAVE_GROUP),
    api(ApiKey::SyncGroup, 0, 5, requests::SYNC_GROUP),
    api(ApiKey::DescribeGroups, 0, 5, requests::DESCRIBE_GROUPS),
    api(ApiKey::ListGroups, 0, 4, requests::LIST_GROUPS),
    api(ApiKey::ApiVersions, 0, 4, requests::API_VERSIONS),
    api(ApiKey::CreateTopics, 2, 7, requests::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1, 5, requests::DELETE_TOPICS),
    api(ApiKey::InitProducerId, 0, 4, requests::INIT_PRODUCER_ID),
    api(ApiKey::DescribeConfigs, 1, 4, requests::DESCRIBE_CONFIGS),
    api(ApiKey::CreatePartitions, 0, 3, requests::CREATE_PARTITIONS),
    api(ApiKey::DeleteGroups, 0, 2, requests::DELETE_GROUPS),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, requests::INCREMENTAL_ALTER_CONFIGS),
    api(ApiKey::DescribeCluster, 0, 1, requests::DESCRIBE_CLUSTER),
];

/// A line that answers what it advertises.
const fn api(key: ApiKey, min: i16, max: i16, body: Fields) -> Api {
    Api { key, advertised_min: min, min, max, body }
}

/// The number of a key on the wire.
#[allow(clippy::as_conversions, reason = "the discriminant is the number")]
pub(super) const fn number(key: ApiKey) -> i16 {
    key as i16
}

/// Decodes one frame (without its length prefix).
///
/// # Errors
/// See [`RequestError`]; never panics, never allocates more than a small multiple of the frame.
pub fn decode_request(frame: Bytes) -> Result<Request, RequestError> {
    let mut reader = Reader::new(&frame);
    let (api, header) = decode_header(&mut reader)?;
    let RequestHeader { key, version, .. } = header;
    let malformed = RequestError::Malformed { key: number(key), version };
    let header_bytes = frame.len() - reader.len();
    let mut body = frame;
    body.advance(header_bytes);
    let frame_bytes = header_bytes + body.len();
    let Some(decoded_bytes) =
        shape::decoded_bytes(&body, api.body, version, is_flexible(key, version))
    else {
        return Err(malformed);
    };
    match RequestKind::decode(key, &mut body, version) {
        // The walk consumed the body exactly, and so must the decoder.
        Ok(decoded) if body.is_empty() => {
            Ok(Request { header, body: decoded, memory_bytes: frame_bytes + decoded_bytes })
        }
        _ => Err(malformed),
    }
}

/// Reads the request header, v1 or v2 by key and version.
fn decode_header(reader: &mut Reader<'_>) -> Result<(&'static Api, RequestHeader), RequestError> {
    let (Some(key), Some(version), Some(correlation_id)) =
        (reader.i16(), reader.i16(), reader.i32())
    else {
        return Err(RequestError::Malformed { key: -1, version: -1 });
    };
    // Before anything of a layout that we do not know is looked at.
    let api = Api::of(key).ok_or(RequestError::Unsupported { key, version })?;
    if !(api.min..=api.max).contains(&version) {
        return Err(match api.key {
            ApiKey::ApiVersions => RequestError::ApiVersions { version, correlation_id },
            _ => RequestError::Unsupported { key, version },
        });
    }
    let client_id = decode_client_id(reader, is_flexible(api.key, version))
        .ok_or(RequestError::Malformed { key, version })?
        .map(Arc::from);
    Ok((api, RequestHeader { key: api.key, version, correlation_id, client_id }))
}

/// Whether this version has compact lengths and tagged fields: that of request header v2.
fn is_flexible(key: ApiKey, version: i16) -> bool {
    key.request_header_version(version) >= 2
}

/// The client id; passes over the tagged fields after it. The outer `None`: malformed.
fn decode_client_id<'a>(reader: &mut Reader<'a>, is_flexible: bool) -> Option<Option<&'a str>> {
    let client_id = match reader.i16()? {
        -1 => None,
        length => {
            let bytes = reader.take(usize::try_from(length).ok()?)?;
            Some(str::from_utf8(bytes).ok()?)
        }
    };
    if is_flexible {
        shape::skip_tagged_fields(reader)?;
    }
    Some(client_id)
}

/// Encodes a response with its length prefix and header, as chunks to be written in order. The
/// records of a [`FetchResponse`] are chunks of their own, not copied.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode_response(
    header: &RequestHeader,
    response: impl Into<Response>,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut bytes = response_head(header);
    match response.into() {
        Response::Fetch(response) => Ok(response.encode(header.version, bytes)),
        Response::Kafka(response) => {
            response.encode(&mut bytes, header.version).map_err(|error| EncodeError {
                key: header.key,
                version: header.version,
                reason: format!("{error:#}"),
            })?;
            set_length(&mut bytes, 0);
            Ok(vec![bytes.freeze()])
        }
    }
}

/// Room for the length prefix, then the response header: v1 has (no) tagged fields. The header of
/// an ApiVersions response is always v0.
fn response_head(header: &RequestHeader) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(256);
    bytes.put_i32(0);
    bytes.put_i32(header.correlation_id);
    if header.key.response_header_version(header.version) >= 1 {
        bytes.put_u8(0);
    }
    bytes
}

/// Writes the length prefix at the front of `bytes`, which `more` bytes will follow.
pub(super) fn set_length(bytes: &mut BytesMut, more: usize) {
    let length = i32::try_from(bytes.len() - 4 + more).expect("a response is below 2 GiB");
    bytes[0..4].copy_from_slice(&length.to_be_bytes());
}

/// The answer to [`RequestError::ApiVersions`]: v0 layout, error 35, the single entry {18, 0..4}.
pub fn encode_unsupported_api_versions(correlation_id: i32) -> Vec<Bytes> {
    let api = Api::of(number(ApiKey::ApiVersions)).expect("ApiVersions is in the table");
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![
            ApiVersion::default()
                .with_api_key(number(api.key))
                .with_min_version(api.advertised_min)
                .with_max_version(api.max),
        ]);
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    bytes.put_i32(correlation_id);
    response.encode(&mut bytes, 0).expect("v0 has the fields that are set");
    set_length(&mut bytes, 0);
    vec![bytes.freeze()]
}

#[cfg(test)]
mod tests;
