//! Requests through `decode_request`, responses through `encode_response`, against kafka-protocol.

#[path = "samples.rs"]
mod samples;

use super::*;
use crate::wire::messages::{RequestHeader as KafkaHeader, api_versions_response};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;

/// A frame as kafka-protocol's client writes it.
fn frame(key: ApiKey, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    KafkaHeader::default()
        .with_request_api_key(number(key))
        .with_request_api_version(version)
        .with_correlation_id(99)
        .with_client_id(Some(StrBytes::from_static_str("tester")))
        .encode(&mut bytes, key.request_header_version(version))
        .unwrap();
    samples::request(key, version).encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

fn served() -> impl Iterator<Item = (ApiKey, i16)> {
    APIS.iter().flat_map(|api| (api.min..=api.max).map(|version| (api.key, version)))
}

#[test]
fn every_request_in_every_version_is_decoded_as_it_was_encoded() {
    for (key, version) in served() {
        let request = decode_request(frame(key, version)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(request.body, samples::request(key, version), "{key:?} {version}");
        assert_eq!(
            (request.header.key, request.header.version, request.header.correlation_id),
            (key, version, 99)
        );
        assert_eq!(request.header.client_id.as_deref(), Some("tester"));
    }
}

#[test]
fn every_truncation_and_every_added_byte_is_malformed() {
    for (key, version) in served() {
        let whole = frame(key, version);
        for length in 8..whole.len() {
            let error = decode_request(whole.slice(..length)).unwrap_err();
            let expected = RequestError::Malformed { key: number(key), version };
            assert_eq!(error, expected, "{length} of {} bytes", whole.len());
        }
        let longer = Bytes::from([&whole[..], &[0]].concat());
        assert!(matches!(decode_request(longer), Err(RequestError::Malformed { .. })));
    }
    assert_eq!(
        decode_request(Bytes::from_static(&[0, 18, 0])).unwrap_err(),
        RequestError::Malformed { key: -1, version: -1 }
    );
}
