//! Requests through `decode_request`, responses through `encode_response`, against kafka-protocol.

#[path = "samples.rs"]
mod samples;

use super::*;
use crate::wire::messages::{
    self, DescribeGroupsRequest, GroupId, ProduceResponse, RequestHeader as KafkaHeader, TopicName,
    metadata_request::MetadataRequestTopic,
};
use allocation_counter::measure;
use kafka_protocol::protocol::StrBytes;
use proptest::{collection::vec, prelude::*, sample::Index};

/// A frame as kafka-protocol's client writes it.
fn encode(request: &RequestKind, key: ApiKey, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    KafkaHeader::default()
        .with_request_api_key(number(key))
        .with_request_api_version(version)
        .with_correlation_id(99)
        .with_client_id(Some(StrBytes::from_static_str("tester")))
        .encode(&mut bytes, key.request_header_version(version))
        .unwrap();
    request.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

fn frame(key: ApiKey, version: i16) -> Bytes {
    encode(&samples::request(key, version), key, version)
}

fn served() -> impl Iterator<Item = (ApiKey, i16)> {
    APIS.iter().flat_map(|api| (api.min..=api.max).map(|version| (api.key, version)))
}

/// A frame of header v1 or v2 (with an empty client id) and the body.
fn raw(key: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(number(key));
    bytes.put_i16(version);
    bytes.put_i32(1);
    bytes.put_i16(-1);
    if is_flexible(key, version) {
        bytes.put_u8(0);
    }
    bytes.put_slice(body);
    bytes.freeze()
}

/// Decodes, and checks that the memory taken stays within a multiple of the frame.
#[track_caller]
fn decode_bounded(frame: Bytes) -> Result<Request, RequestError> {
    let (bytes, mut outcome) = (u64::try_from(frame.len()).unwrap(), None);
    let taken = measure(|| outcome = Some(decode_request(frame)));
    assert!(
        taken.bytes_max <= 8 * bytes + (64 << 10),
        "{} bytes taken at most for a frame of {bytes}: {outcome:?}",
        taken.bytes_max
    );
    outcome.unwrap()
}

#[test]
fn every_request_in_every_version_is_decoded_as_it_was_encoded() {
    for (key, version) in served() {
        let request = decode_bounded(frame(key, version)).unwrap_or_else(|error| panic!("{error}"));
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
            let error = decode_bounded(whole.slice(..length)).unwrap_err();
            let expected = RequestError::Malformed { key: number(key), version };
            assert_eq!(error, expected, "{length} of {} bytes", whole.len());
        }
        let longer = Bytes::from([&whole[..], &[0]].concat());
        assert!(matches!(decode_bounded(longer), Err(RequestError::Malformed { .. })));
    }
    assert_eq!(
        decode_request(Bytes::from_static(&[0, 18, 0])).unwrap_err(),
        RequestError::Malformed { key: -1, version: -1 }
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Every key and version in each case: some 130 frames.
    #[test]
    fn damaged_requests_never_panic_and_take_little_memory(
        flips in vec((any::<Index>(), any::<u8>()), 1..6),
        tail in vec(any::<u8>(), 0..64),
    ) {
        for (key, version) in served() {
            let mut bytes = frame(key, version).to_vec();
            for (index, value) in &flips {
                let at = 8 + index.index(bytes.len() - 8);
                bytes[at] = *value;
            }
            drop(decode_bounded(bytes.clone().into()));
            bytes.extend_from_slice(&tail);
            drop(decode_bounded(bytes.into()));
            drop(decode_bounded(raw(key, version, &tail)));
        }
    }
}

#[test]
fn a_produce_of_twelve_bytes_that_asks_for_206_gigabytes_is_malformed() {
    // No transactional id, acks 1, timeout 0, 2^31 - 1 topics.
    let body = b"\xff\xff\0\x01\0\0\0\0\x7f\xff\xff\xff";
    let expected = RequestError::Malformed { key: 0, version: 3 };
    assert_eq!(decode_bounded(raw(ApiKey::Produce, 3, body)).unwrap_err(), expected);
    let compact = b"\0\0\x01\0\0\0\0\xff\xff\xff\xff\x0f";
    let expected = RequestError::Malformed { key: 0, version: 9 };
    assert_eq!(decode_bounded(raw(ApiKey::Produce, 9, compact)).unwrap_err(), expected);
}

#[test]
fn crowded_arrays_are_bounded_by_count_and_by_memory() {
    for count in [1_000, 10_000, 100_000, 300_000] {
        // Names of no bytes: 1 byte in the frame, 32 in memory. Names of 9: 10 bytes.
        for (name, is_taken) in [("", count <= 1_000), ("group-099", count <= 100_000)] {
            let groups = vec![GroupId(StrBytes::from_static_str(name)); count];
            let request = DescribeGroupsRequest::default().with_groups(groups).into();
            let outcome = decode_bounded(encode(&request, ApiKey::DescribeGroups, 5));
            assert_eq!(outcome.is_ok(), is_taken, "{count} groups {name:?}");
        }
        let topics = vec![messages::fetch_request::FetchTopic::default(); count];
        let request = messages::FetchRequest::default().with_topics(topics).into();
        drop(decode_bounded(encode(&request, ApiKey::Fetch, 12)));
    }
}

#[test]
fn a_metadata_request_for_every_topic_of_a_large_cluster_is_taken() {
    let name = |index| TopicName(StrBytes::from(format!("topic-{index}")));
    let topics = (0..20_000).map(|i| MetadataRequestTopic::default().with_name(Some(name(i))));
    let request: RequestKind =
        messages::MetadataRequest::default().with_topics(Some(topics.collect())).into();
    for version in 0..=12 {
        let decoded = decode_bounded(encode(&request, ApiKey::Metadata, version)).unwrap();
        assert_eq!(decoded.body, request);
    }
}

#[test]
fn unknown_tagged_fields_are_passed_over_up_to_their_bound() {
    // DeleteGroups v2: no groups, then so many tagged fields of no bytes.
    let body = |count: u8| {
        let mut body = vec![1, count];
        body.extend((0..count).flat_map(|tag| [tag, 0]));
        raw(ApiKey::DeleteGroups, 2, &body)
    };
    assert!(decode_bounded(body(64)).is_ok());
    assert!(decode_bounded(body(65)).is_err());
}

#[test]
fn a_known_tagged_field_must_have_the_size_that_it_says() {
    // Fetch v12 without topics; tag 0 is the cluster id, here "ab".
    let body = |size: u8| {
        let mut body = vec![0; 25];
        body.extend([1, 1, 1, 1, 0, size, 3, b'a', b'b']);
        raw(ApiKey::Fetch, 12, &body)
    };
    let RequestKind::Fetch(fetch) = decode_bounded(body(3)).unwrap().body else { panic!() };
    assert_eq!(fetch.cluster_id.as_deref(), Some("ab"));
    for size in [0, 1, 2, 4, 200] {
        assert!(decode_bounded(body(size)).is_err(), "size {size}");
    }
}

#[test]
fn a_version_is_checked_before_the_body() {
    // franz-go's first request: ApiVersions 5, in a layout that is not known here.
    let frame = raw(ApiKey::ApiVersions, 5, b"\x08franz-go\xff\xff\xff");
    assert_eq!(
        decode_request(frame).unwrap_err(),
        RequestError::ApiVersions { version: 5, correlation_id: 1 }
    );
    for (key, version) in [(0, 2), (0, 12), (1, 3), (8, 9), (999, 0), (-1, 0), (18, -1)] {
        let bytes: Vec<u8> = [i16::to_be_bytes(key), i16::to_be_bytes(version)].concat();
        let outcome = decode_request([&bytes[..], b"\0\0\0\x07\xff"].concat().into());
        let expected = match key {
            18 => RequestError::ApiVersions { version, correlation_id: 7 },
            _ => RequestError::Unsupported { key, version },
        };
        assert_eq!(outcome.unwrap_err(), expected);
    }
}

#[test]
fn text_that_is_not_utf_8_is_malformed() {
    let outcome = decode_request(raw(ApiKey::DeleteGroups, 0, b"\0\0\0\x01\0\x02\xc3\x28"));
    assert_eq!(outcome.unwrap_err(), RequestError::Malformed { key: 42, version: 0 });
    let client_id = b"\0\x2a\0\0\0\0\0\x01\0\x02\xc3\x28\0\0\0\0";
    assert!(decode_request(Bytes::from_static(client_id)).is_err());
}

#[test]
fn record_batches_are_slices_of_the_frame() {
    let frame = frame(ApiKey::Produce, 9);
    let range = frame.as_ptr_range();
    let RequestKind::Produce(produce) = decode_request(frame).unwrap().body else { panic!() };
    let records = produce.topic_data[0].partition_data[0].records.as_ref().unwrap();
    assert!(range.contains(&records.as_ptr()));
}

fn header(key: ApiKey, version: i16) -> RequestHeader {
    RequestHeader { key, version, correlation_id: 0x0102_0304, client_id: None }
}

fn api_versions(version: i16) -> Vec<u8> {
    let response = ApiVersionsResponse::default()
        .with_api_keys(vec![ApiVersion::default().with_api_key(18).with_max_version(4)]);
    let response = ResponseKind::from(response);
    encode_response(&header(ApiKey::ApiVersions, version), response).unwrap().concat()
}

/// By hand from the protocol guide. The response header has no tagged fields even in flexible
/// versions, and the features, being empty, are no tagged fields of the body.
#[test]
fn api_versions_responses_are_laid_out_as_kafka_has_them() {
    let v0 = b"\0\0\0\x10\x01\x02\x03\x04\0\0\0\0\0\x01\0\x12\0\0\0\x04";
    assert_eq!(api_versions(0), v0);
    let v1 = b"\0\0\0\x14\x01\x02\x03\x04\0\0\0\0\0\x01\0\x12\0\0\0\x04\0\0\0\0";
    assert_eq!(api_versions(1), v1);
    let v3 = b"\0\0\0\x13\x01\x02\x03\x04\0\0\x02\0\x12\0\0\0\x04\0\0\0\0\0\0";
    assert_eq!(api_versions(3), v3);
    assert_eq!(api_versions(4), v3);
}

#[test]
fn an_unknown_api_versions_version_is_answered_in_v0_layout() {
    let expected = b"\0\0\0\x10\x01\x02\x03\x04\0\x23\0\0\0\x01\0\x12\0\0\0\x04";
    assert_eq!(encode_unsupported_api_versions(0x0102_0304).concat(), expected);
}

#[test]
fn a_flexible_response_has_tagged_fields_in_its_header() {
    let response = ResponseKind::from(ProduceResponse::default());
    let v9 = encode_response(&header(ApiKey::Produce, 9), response.clone()).unwrap().concat();
    assert_eq!(v9, b"\0\0\0\x0b\x01\x02\x03\x04\0\x01\0\0\0\0\0");
    let v8 = encode_response(&header(ApiKey::Produce, 8), response).unwrap().concat();
    assert_eq!(v8, b"\0\0\0\x0c\x01\x02\x03\x04\0\0\0\0\0\0\0\0");
}

#[test]
fn a_field_that_the_version_does_not_have_is_an_error_of_the_handler() {
    let response = ResponseKind::from(messages::ListGroupsResponse::default().with_groups(vec![
        messages::list_groups_response::ListedGroup::default()
            .with_group_state(StrBytes::from_static_str("Stable")),
    ]));
    let header = header(ApiKey::ListGroups, 0);
    drop(encode_response(&header, response));
    let response = ResponseKind::from(
        messages::FindCoordinatorResponse::default()
            .with_coordinators(vec![messages::find_coordinator_response::Coordinator::default()]),
    );
    let error = encode_response(&self::header(ApiKey::FindCoordinator, 0), response).unwrap_err();
    assert_eq!((error.key, error.version), (ApiKey::FindCoordinator, 0));
}
