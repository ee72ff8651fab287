//! The verbs against a broker double: one topic in memory, answers by kafka-protocol's structs.

use super::*;
use crate::{
    cli::{
        groups::{self, GroupsArgs},
        records::{self, RecordsArgs},
        send::{self, SendArgs},
        topics::{self, TopicsArgs},
    },
    wire::{
        Request, Response,
        api::APIS,
        batch::ProducedBatch,
        decode_request, encode_response,
        fetch::{self, FetchResponse},
        messages::{
            ApiVersionsResponse, DescribeGroupsResponse, FindCoordinatorResponse,
            ListGroupsResponse, ListOffsetsResponse, OffsetFetchResponse, ProduceResponse,
            api_versions_response::ApiVersion,
            describe_groups_response::DescribedGroupMember,
            list_groups_response::ListedGroup,
            list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
            metadata_response::{MetadataResponseBroker, MetadataResponsePartition},
            offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic},
            produce_response::{PartitionProduceResponse, TopicProduceResponse},
        },
        record::{NewRecord, encode},
    },
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

/// Batches of topic `task-events`, one partition.
#[derive(Clone, Default)]
struct Double {
    log: Arc<Mutex<Vec<(i64, i64, Bytes)>>>,
    /// Metadata requests that are answered "no leader yet".
    not_ready: Arc<Mutex<u32>>,
    /// What the broker advertises, if not its own address.
    advertised_port: Option<i32>,
}

impl Double {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let double = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(double.clone().serve(stream, address));
            }
        });
        address.to_string()
    }

    async fn serve(self, mut stream: TcpStream, address: SocketAddr) {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(frame) = frame::try_decode(&mut buffer, 1 << 20).unwrap() {
                let request = decode_request(frame).unwrap();
                let header = request.header.clone();
                let response = self.answer(request, address);
                let chunks = encode_response(&header, response).unwrap();
                stream.write_all(&chunks.concat()).await.unwrap();
            }
            if stream.read_buf(&mut buffer).await.unwrap() == 0 {
                return;
            }
        }
    }

    fn end(&self) -> i64 {
        self.log.lock().unwrap().last().map_or(0, |(_, end, _)| *end)
    }

    fn append(&self, batch: ProducedBatch) -> i64 {
        let base = self.end();
        let (header, bytes) = batch.stamp(base, 0);
        self.log.lock().unwrap().push((base, header.last_offset() + 1, bytes));
        base
    }

    fn answer(&self, request: Request, address: SocketAddr) -> Response {
        let kind: ResponseKind = match request.body {
            RequestKind::ApiVersions(_) => api_versions().into(),
            RequestKind::Metadata(request) => self.metadata(request, address).into(),
            RequestKind::Produce(request) => self.produce(request).into(),
            RequestKind::ListOffsets(request) => self.list_offsets(&request).into(),
            RequestKind::Fetch(request) => return self.fetch(&request).into(),
            RequestKind::FindCoordinator(_) => FindCoordinatorResponse::default()
                .with_node_id(BrokerId(1))
                .with_host(StrBytes::from(address.ip().to_string()))
                .with_port(i32::from(address.port()))
                .into(),
            RequestKind::ListGroups(_) => ListGroupsResponse::default()
                .with_groups(vec![ListedGroup::default().with_group_id(group_id())])
                .into(),
            RequestKind::DescribeGroups(_) => DescribeGroupsResponse::default()
                .with_groups(vec![
                    DescribedGroup::default()
                        .with_group_id(group_id())
                        .with_group_state(StrBytes::from_static_str("Stable"))
                        .with_members(vec![
                            DescribedGroupMember::default()
                                .with_member_id(StrBytes::from_static_str("m-1"))
                                .with_client_id(StrBytes::from_static_str("app"))
                                .with_client_host(StrBytes::from_static_str("/127.0.0.1")),
                        ]),
                ])
                .into(),
            RequestKind::OffsetFetch(_) => OffsetFetchResponse::default()
                .with_topics(vec![
                    OffsetFetchResponseTopic::default()
                        .with_name(topic_name("task-events"))
                        .with_partitions(vec![
                            OffsetFetchResponsePartition::default().with_committed_offset(1),
                        ]),
                ])
                .into(),
            other => panic!("not asked for: {other:?}"),
        };
        kind.into()
    }

    fn metadata(&self, request: MetadataRequest, address: SocketAddr) -> MetadataResponse {
        let mut not_ready = self.not_ready.lock().unwrap();
        let names = request.topics.map_or_else(
            || vec![topic_name("task-events")],
            |topics| topics.into_iter().filter_map(|topic| topic.name).collect(),
        );
        let topic = |name: TopicName| {
            let code = if name.as_str() != "task-events" {
                3
            } else if *not_ready > 0 && request.allow_auto_topic_creation {
                *not_ready -= 1;
                5
            } else {
                0
            };
            let partition = MetadataResponsePartition::default().with_leader_id(BrokerId(1));
            MetadataResponseTopic::default()
                .with_error_code(code)
                .with_name(Some(name))
                .with_partitions(if code == 0 { vec![partition] } else { vec![] })
        };
        let port = self.advertised_port.unwrap_or(i32::from(address.port()));
        MetadataResponse::default()
            .with_topics(names.into_iter().map(topic).collect())
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(1))
                    .with_host(StrBytes::from_static_str("127.0.0.1"))
                    .with_port(port),
            ])
    }

    fn produce(&self, mut request: ProduceRequest) -> ProduceResponse {
        let mut topic = request.topic_data.remove(0);
        let data = topic.partition_data.remove(0);
        assert_eq!((request.acks, data.index), (-1, 0));
        let base = self.append(ProducedBatch::check(&data.records.unwrap()).unwrap());
        let answer = PartitionProduceResponse::default().with_base_offset(base);
        ProduceResponse::default().with_responses(vec![
            TopicProduceResponse::default()
                .with_name(topic.name)
                .with_partition_responses(vec![answer]),
        ])
    }

    fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let asked = &request.topics[0];
        let offset = if asked.partitions[0].timestamp == -2 { 0 } else { self.end() };
        ListOffsetsResponse::default().with_topics(vec![
            ListOffsetsTopicResponse::default()
                .with_name(asked.name.clone())
                .with_partitions(vec![ListOffsetsPartitionResponse::default().with_offset(offset)]),
        ])
    }

    /// One batch at a time, and a piece of the next one as Kafka may send.
    fn fetch(&self, request: &FetchRequest) -> FetchResponse {
        let from = request.topics[0].partitions[0].fetch_offset;
        let log = self.log.lock().unwrap();
        let mut batches = log.iter().filter(|(_, end, _)| *end > from).map(|(.., bytes)| bytes);
        let records = batches.next().cloned().into_iter();
        let piece = batches.next().map(|bytes| bytes.slice(..70));
        let partition = fetch::FetchPartition {
            error_code: 0,
            records: records.chain(piece).collect(),
            ..fetch::FetchPartition::error(0, crate::wire::ErrorCode::None)
        };
        let name = request.topics[0].topic.clone();
        FetchResponse {
            topics: vec![fetch::FetchTopic { name, partitions: vec![partition] }],
            ..FetchResponse::default()
        }
    }
}

fn group_id() -> GroupId {
    GroupId(StrBytes::from_static_str("readers"))
}

fn api_versions() -> ApiVersionsResponse {
    let line = |api: &crate::wire::api::Api| {
        ApiVersion::default()
            .with_api_key(client_number(api.key))
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    };
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(line).collect())
}

#[allow(clippy::as_conversions, reason = "the discriminant is the number")]
fn client_number(key: ApiKey) -> i16 {
    key as i16
}

fn send_args(bootstrap: &str, id: &str) -> SendArgs {
    SendArgs {
        event_type: "task_created".to_owned(),
        fields: vec![format!("id={id}"), "title=Buy milk".to_owned()],
        user: Some("alice".to_owned()),
        bootstrap: bootstrap.to_owned(),
        topic: "task-events".to_owned(),
        json: true,
    }
}

fn records_args(bootstrap: &str) -> RecordsArgs {
    RecordsArgs {
        topic: "task-events".to_owned(),
        partition: None,
        from: records::StartAt::Earliest,
        limit: None,
        follow: false,
        bootstrap: bootstrap.to_owned(),
        json: false,
    }
}

async fn records_of(args: RecordsArgs) -> String {
    let mut out = Vec::new();
    records::run(args, &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn an_event_is_sent_and_printed_back_from_a_broker() {
    let double = Double { not_ready: Arc::new(Mutex::new(2)), ..Double::default() };
    let bootstrap = double.start().await;
    for (offset, id) in ["t-1", "t-2"].into_iter().enumerate() {
        let mut out = Vec::new();
        send::run(send_args(&bootstrap, id), &mut out).await.unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&sent["offset"], &sent["task_id"]), (&offset.into(), &id.into()));
    }
    let mut args = records_args(&bootstrap);
    let text = records_of(args.clone()).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].starts_with("task-events/0 1 20"), "{text}");
    assert!(lines[1].contains(" t-2 {") && lines[1].contains("\"user_id\":\"alice\""), "{text}");
    (args.json, args.from) = (true, records::StartAt::Offset(1));
    let record: serde_json::Value = serde_json::from_str(&records_of(args).await).unwrap();
    assert_eq!((&record["offset"], &record["key"]), (&1.into(), &"t-2".into()));
    let value: serde_json::Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
    assert_eq!(value["data"]["title"], "Buy milk");
}

#[tokio::test]
async fn records_begin_and_end_where_they_are_asked_to() {
    let double = Double::default();
    let bootstrap = double.start().await;
    let value = |value: &'static [u8]| NewRecord {
        value: Some(Bytes::from_static(value)),
        headers: vec![("h".into(), Some(Bytes::from_static(b"\x1b[31m")))],
        ..NewRecord::default()
    };
    double.append(encode(&[value(b"a"), value(b"b"), value(b"c")]));
    double.append(encode(&[value(b"\xff\x1b[2J")]));
    let args = |from, limit| RecordsArgs { from, limit, ..records_args(&bootstrap) };
    let offsets = |text: String| -> Vec<String> {
        text.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    let from = records::StartAt::Offset(1);
    assert_eq!(offsets(records_of(args(from, None)).await), ["1", "2", "3"]);
    assert_eq!(offsets(records_of(args(from, Some(1))).await), ["1"]);
    assert_eq!(records_of(args(records::StartAt::Latest, None)).await, "");
    let followed = RecordsArgs { follow: true, ..args(from, Some(3)) };
    let text = records_of(followed).await;
    assert!(!text.contains('\x1b'), "a terminal would obey: {text:?}");
    assert!(text.contains("[h: \\u{1b}[31m]"), "{text}");
    let json =
        records_of(RecordsArgs { json: true, ..args(records::StartAt::Offset(3), None) }).await;
    assert!(json.contains("\"value_hex\":\"ff1b5b324a\""), "{json}");
}

#[tokio::test]
async fn topics_and_groups_are_listed_with_their_offsets() {
    let double = Double::default();
    let bootstrap = double.start().await;
    double.append(encode(&[NewRecord::default(), NewRecord::default(), NewRecord::default()]));
    let mut out = Vec::new();
    let args = TopicsArgs { topics: vec![], bootstrap: bootstrap.clone(), json: false };
    topics::run(args, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells, ["task-events", "0", "0", "3", "3"]);

    let mut out = Vec::new();
    let args = GroupsArgs { groups: vec![], bootstrap: bootstrap.clone(), json: false };
    groups::run(args, &mut out).await.unwrap();
    let expected = "readers (Stable, members: 1)\n  member m-1 of app at /127.0.0.1\n  \
                    task-events/0 committed 1 end 3 lag 2\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);

    let mut out = Vec::new();
    let args = GroupsArgs { groups: vec!["readers".to_owned()], bootstrap, json: true };
    groups::run(args, &mut out).await.unwrap();
    let group: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(group["offsets"][0]["lag"], 2);
    assert_eq!(group["members"][0]["client_id"], "app");
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let double = Double::default();
    let bootstrap = double.start().await;
    let args = RecordsArgs { topic: "nope".to_owned(), ..records_args(&bootstrap) };
    let error = records::run(args, &mut Vec::new()).await.unwrap_err().to_string();
    assert_eq!(error, "topic nope: the broker answers UnknownTopicOrPartition (3)");
    let args = RecordsArgs { partition: Some(7), ..records_args(&bootstrap) };
    let error = records::run(args, &mut Vec::new()).await.unwrap_err().to_string();
    assert_eq!(error, "topic task-events has no partition 7");
}

/// A port that nobody listens on.
async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn addresses_that_do_not_answer_as_kafka_are_told() {
    let address = closed_port().await;
    let error = KafkaClient::connect(&address.to_string()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot connect to {address}"));

    let port = i32::from(closed_port().await.port());
    let double = Double { advertised_port: Some(port), ..Double::default() };
    let bootstrap = double.start().await;
    let error = records::run(records_args(&bootstrap), &mut Vec::new()).await.unwrap_err();
    let expected =
        format!("cannot connect to 127.0.0.1:{port}, the address that {bootstrap} advertises");
    assert_eq!(error.to_string(), expected);

    // HTTP, and an answer that claims 2^31 - 1 versions.
    let lie = &b"\0\0\0\x0a\0\0\0\x01\0\0\x7f\xff\xff\xff"[..];
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], lie] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
            drop(stream.read(&mut [0; 1]).await);
        });
        let error = KafkaClient::connect(&address).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{address} does not answer as a Kafka broker"));
    }
}
