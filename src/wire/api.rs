//! The table of API keys and versions, and requests and responses by it.

use super::messages::{RequestKind, ResponseKind};
use bytes::Bytes;
use std::sync::Arc;

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
}

/// Why a frame is no request that we answer.
#[derive(Debug, thiserror::Error)]
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

/// Every API that is served, by key.
pub const APIS: &[Api] = &[];

/// Decodes one frame (without its length prefix).
///
/// # Errors
/// See [`RequestError`]; never panics, never allocates more than a small multiple of the frame.
pub fn decode_request(frame: Bytes) -> Result<Request, RequestError> {
    let _ = frame;
    todo!()
}

/// Encodes a response with its length prefix and header, as chunks to be written in order. The
/// records of a Fetch response are chunks of their own, not copied.
pub fn encode_response(header: &RequestHeader, response: ResponseKind) -> Vec<Bytes> {
    let _ = (header, response);
    todo!()
}

/// The answer to [`RequestError::ApiVersions`]: v0 layout, error 35, the single entry {18, 0..4}.
pub fn encode_unsupported_api_versions(correlation_id: i32) -> Vec<Bytes> {
    let _ = correlation_id;
    todo!()
}
