//! The client's side of the protocol: requests out, responses in, for our own command line.
//!
//! Each API is spoken in one version, old enough for every broker since Kafka 1.0 and new enough
//! for Kafka 4. A response is walked against its shape before it is decoded, as a request is: what
//! listens at an address that a user typed is not trusted.

use super::{
    api::{ApiKey, EncodeError, number, set_length},
    messages::{RequestHeader, RequestKind, ResponseKind},
    reader::Reader,
    shape::{self, Fields, responses},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, StrBytes};

/// What this client calls itself.
const CLIENT_ID: &str = "taskwire-cli";

/// An API as our client speaks it.
#[derive(Clone, Copy, Debug)]
pub struct ClientApi {
    /// The key.
    pub key: ApiKey,
    /// The version of request and response.
    pub version: i16,
    /// What the response looks like.
    response: Fields,
}

/// ApiVersions.
pub const API_VERSIONS: ClientApi = api(ApiKey::ApiVersions, 0, responses::API_VERSIONS);
/// Metadata.
pub const METADATA: ClientApi = api(ApiKey::Metadata, 4, responses::METADATA);
/// Produce.
pub const PRODUCE: ClientApi = api(ApiKey::Produce, 3, responses::PRODUCE);
/// Fetch.
pub const FETCH: ClientApi = api(ApiKey::Fetch, 4, responses::FETCH);
/// ListOffsets.
pub const LIST_OFFSETS: ClientApi = api(ApiKey::ListOffsets, 1, responses::LIST_OFFSETS);
/// FindCoordinator.
pub const FIND_COORDINATOR: ClientApi =
    api(ApiKey::FindCoordinator, 0, responses::FIND_COORDINATOR);
/// ListGroups.
pub const LIST_GROUPS: ClientApi = api(ApiKey::ListGroups, 0, responses::LIST_GROUPS);
/// DescribeGroups.
pub const DESCRIBE_GROUPS: ClientApi = api(ApiKey::DescribeGroups, 0, responses::DESCRIBE_GROUPS);
/// OffsetFetch.
pub const OFFSET_FETCH: ClientApi = api(ApiKey::OffsetFetch, 2, responses::OFFSET_FETCH);

const fn api(key: ApiKey, version: i16, response: Fields) -> ClientApi {
    ClientApi { key, version, response }
}

impl ClientApi {
    /// The number of its key.
    pub fn number(&self) -> i16 {
        number(self.key)
    }

    /// One request with its length prefix.
    ///
    /// # Errors
    /// A field is set that the version does not have.
    pub fn encode_request(
        &self,
        correlation_id: i32,
        body: &RequestKind,
    ) -> Result<Bytes, EncodeError> {
        let failed = |reason| EncodeError { key: self.key, version: self.version, reason };
        let mut bytes = BytesMut::new();
        bytes.put_i32(0);
        RequestHeader::default()
            .with_request_api_key(number(self.key))
            .with_request_api_version(self.version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)))
            .encode(&mut bytes, self.key.request_header_version(self.version))
            .map_err(|error| failed(format!("{error:#}")))?;
        body.encode(&mut bytes, self.version).map_err(|error| failed(format!("{error:#}")))?;
        set_length(&mut bytes, 0);
        Ok(bytes.freeze())
    }

    /// Decodes the frame that answers the request of that id; `None` if it does not.
    pub fn decode_response(&self, correlation_id: i32, frame: Bytes) -> Option<ResponseKind> {
        let mut body = frame;
        if Reader::new(&body).i32()? != correlation_id {
            return None;
        }
        body.advance(size_of_val(&correlation_id));
        // None of these versions is flexible.
        shape::decoded_bytes(&body, self.response, self.version, false)?;
        ResponseKind::decode(self.key, &mut body, self.version).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocation_counter::measure;
    use proptest::{collection::vec, prelude::*};

    const APIS: [ClientApi; 9] = [
        API_VERSIONS,
        METADATA,
        PRODUCE,
        FETCH,
        LIST_OFFSETS,
        FIND_COORDINATOR,
        LIST_GROUPS,
        DESCRIBE_GROUPS,
        OFFSET_FETCH,
    ];

    #[test]
    fn no_version_is_flexible() {
        for api in APIS {
            assert_eq!(api.key.response_header_version(api.version), 0, "{api:?}");
            assert_eq!(api.key.request_header_version(api.version), 1, "{api:?}");
        }
    }

    #[test]
    fn a_response_to_another_request_is_refused() {
        let frame = Bytes::from_static(b"\0\0\0\x07\0\0\0\0\0\0");
        assert!(API_VERSIONS.decode_response(7, frame.clone()).is_some());
        assert!(API_VERSIONS.decode_response(8, frame).is_none());
    }

    proptest! {
        /// Small numbers, so that counts and lengths are often believable.
        #[test]
        fn whatever_answers_takes_little_memory(bytes in vec(0..5_u8, 0..200)) {
            let frame = Bytes::from([&[0; 4], &bytes[..]].concat());
            for api in APIS {
                let taken = measure(|| drop(api.decode_response(0, frame.clone())));
                prop_assert!(taken.bytes_max < 64 << 10, "{:?}: {}", api, taken.bytes_max);
            }
        }
    }
}
