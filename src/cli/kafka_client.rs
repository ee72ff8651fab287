//! A small Kafka client for the verbs that speak to any broker, embedded or of a cluster.
//!
//! One request at a time on each connection. Partitions are asked at their leader and groups at
//! their coordinator, at the addresses that the brokers advertise.

use crate::wire::{
    ApiKey, EncodeError, ResponseError, StrBytes,
    client::{self, ClientApi},
    frame::{self, FrameError},
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, BrokerId, DescribeGroupsRequest, FetchRequest,
        FindCoordinatorRequest, GroupId, ListGroupsRequest, ListOffsetsRequest, MetadataRequest,
        MetadataResponse, OffsetFetchRequest, ProduceRequest, RequestKind, ResponseKind, TopicName,
        describe_groups_response::DescribedGroup,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    io,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Longest wait for a connection, for an answer, and for a topic to be made on first use.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a topic or coordinator that is being made.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Longest answer: a fetch of [`FETCH_BYTES_MAX`] and its first batch, which may be larger.
const RESPONSE_BYTES_MAX: usize = 128 << 20;
/// Bytes that one fetch asks for, in all and from each partition.
const FETCH_BYTES_MAX: i32 = 4 << 20;
/// Most brokers that are connected to.
const CONNECTIONS_MAX: usize = 64;

/// Why a broker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens at the address that a broker names for itself or another.
    #[error("cannot connect to {address}, the address that {bootstrap} advertises")]
    Advertised {
        /// Where.
        address: String,
        /// Who says so.
        bootstrap: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("lost the connection to {address}")]
    Io {
        /// To whom.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from {address} within {} s", WAIT_MAX.as_secs())]
    Timeout {
        /// From whom.
        address: String,
    },
    /// The peer closed the connection instead of an answer.
    #[error("{address} closed the connection: is it a Kafka listener without TLS and login?")]
    Closed {
        /// The peer.
        address: String,
    },
    /// The peer does not speak Kafka.
    #[error("{address} does not answer as a Kafka broker")]
    NotKafka {
        /// The peer.
        address: String,
        /// What is wrong with its frame.
        #[source]
        source: Option<FrameError>,
    },
    /// The broker does not speak our version.
    #[error("{address} does not support {key:?} version {version}")]
    Version {
        /// The peer.
        address: String,
        /// The API.
        key: ApiKey,
        /// Our version of it.
        version: i16,
    },
    /// A request that cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The broker refused.
    #[error("{what}: the broker answers {code} ({})", .code.code())]
    Refused {
        /// What was asked for.
        what: String,
        /// Its answer.
        code: ResponseError,
    },
    /// No such partition.
    #[error("topic {topic} has no partition {partition}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The partition's leader is down.
    #[error("partition {partition} of topic {topic} has no leader")]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// More brokers than we connect to.
    #[error("more than {CONNECTIONS_MAX} brokers to connect to")]
    TooManyBrokers,
}

/// Why a verb that speaks Kafka was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbError {
    /// The arguments make no sense together (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// The broker.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output is gone.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// A batch that was read does not hold records.
    #[error("cannot read the records at offset {offset} of {topic}/{partition}: {reason}")]
    Records {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the batch should begin.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
}

/// A topic as Metadata tells it.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Whether the cluster keeps it for itself.
    pub is_internal: bool,
    /// Leader of each partition, by index.
    pub leaders: BTreeMap<i32, Result<BrokerId, ResponseError>>,
}

/// What to do with a topic that is not there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Missing {
    Create,
    Leave,
}

/// Committed offsets of a group by topic and partition.
pub type CommittedOffsets = BTreeMap<(String, i32), i64>;

/// A connection to a bootstrap server, and to each broker that it names once that is needed.
#[derive(Debug)]
pub struct KafkaClient {
    bootstrap: String,
    connections: HashMap<String, Connection>,
    /// Addresses of the brokers by node, as last heard.
    brokers: HashMap<BrokerId, String>,
}

impl KafkaClient {
    /// Connects to `bootstrap` (`host:port`) and checks that a Kafka broker is there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn connect(bootstrap: &str) -> Result<Self, ClientError> {
        let connection = Connection::open(bootstrap).await?;
        Ok(Self {
            bootstrap: bootstrap.to_owned(),
            connections: HashMap::from([(bootstrap.to_owned(), connection)]),
            brokers: HashMap::new(),
        })
    }

    /// Every topic.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn topics(&mut self) -> Result<Vec<Topic>, ClientError> {
        let topics = self.metadata(None, Missing::Leave).await?.topics;
        let mut topics: Vec<Topic> = topics
            .into_iter()
            .filter(|topic| topic.error_code == 0)
            .filter_map(|topic| to_topic(&topic))
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic.
    ///
    /// # Errors
    /// `Refused` with `UnknownTopicOrPartition` if there is none; see [`ClientError`].
    pub async fn topic(&mut self, name: &str) -> Result<Topic, ClientError> {
        self.topic_now(name, Missing::Leave).await
    }

    /// One topic; asks the broker to make it, and waits until it is there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn topic_or_new(&mut self, name: &str) -> Result<Topic, ClientError> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let outcome = self.topic_now(name, Missing::Create).await;
            if !is_worth_a_retry(&outcome, deadline) {
                return outcome;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn topic_now(&mut self, name: &str, missing: Missing) -> Result<Topic, ClientError> {
        let response = self.metadata(Some(&[name]), missing).await?;
        let topic = response.topics.first().ok_or_else(|| self.not_kafka())?;
        check(topic.error_code, || format!("topic {name}"))?;
        to_topic(topic).ok_or_else(|| self.not_kafka())
    }

    async fn metadata(
        &mut self,
        topics: Option<&[&str]>,
        missing: Missing,
    ) -> Result<MetadataResponse, ClientError> {
        let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(topics.map(|names| names.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(missing == Missing::Create);
        let response = self.ask_bootstrap(&client::METADATA, request.into()).await?;
        let ResponseKind::Metadata(response) = response else {
            return Err(self.not_kafka());
        };
        let address = |host: &StrBytes, port| to_address(host, port);
        self.brokers = response
            .brokers
            .iter()
            .map(|broker| (broker.node_id, address(&broker.host, broker.port)))
            .collect();
        Ok(response)
    }

    /// Sends one batch with acks=all. Returns its base offset.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn produce(
        &mut self,
        topic: &Topic,
        partition: i32,
        batch: Bytes,
    ) -> Result<i64, ClientError> {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(millis(WAIT_MAX))
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(topic_name(&topic.name))
                    .with_partition_data(vec![data]),
            ]);
        let leader = self.leader(topic, partition)?;
        let response = self.ask(&leader, &client::PRODUCE, request.into()).await?;
        let ResponseKind::Produce(response) = response else {
            return Err(not_kafka(&leader));
        };
        let answer = response
            .responses
            .first()
            .and_then(|topic| topic.partition_responses.first())
            .ok_or_else(|| not_kafka(&leader))?;
        check(answer.error_code, || format!("produce to {}/{partition}", topic.name))?;
        Ok(answer.base_offset)
    }

    /// Reads partitions of one leader from the given offsets, waiting up to `wait` for a record.
    ///
    /// # Errors
    /// See [`ClientError`]; errors of a partition are in its data.
    pub async fn fetch(
        &mut self,
        leader: &str,
        topic: &str,
        from: &[(i32, i64)],
        wait: Duration,
    ) -> Result<Vec<PartitionData>, ClientError> {
        let partition = |(partition, offset): &(i32, i64)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(FETCH_BYTES_MAX)
        };
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(millis(wait))
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES_MAX)
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(topic_name(topic))
                    .with_partitions(from.iter().map(partition).collect()),
            ]);
        match self.ask(leader, &client::FETCH, request.into()).await? {
            ResponseKind::Fetch(response) => {
                Ok(response.responses.into_iter().flat_map(|topic| topic.partitions).collect())
            }
            _ => Err(not_kafka(leader)),
        }
    }

    /// The offset of each partition at `timestamp` (-1 the end, -2 the start). A partition whose
    /// leader does not know is left out.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn offsets(
        &mut self,
        topic: &Topic,
        timestamp: i64,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in self.by_leader(topic, topic.leaders.keys().copied()) {
            let partition = |index: &i32| {
                ListOffsetsPartition::default()
                    .with_partition_index(*index)
                    .with_timestamp(timestamp)
            };
            let request =
                ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
                    ListOffsetsTopic::default()
                        .with_name(topic_name(&topic.name))
                        .with_partitions(partitions.iter().map(partition).collect()),
                ]);
            let response = self.ask(&leader, &client::LIST_OFFSETS, request.into()).await?;
            let ResponseKind::ListOffsets(response) = response else {
                return Err(not_kafka(&leader));
            };
            let answers = response.topics.into_iter().flat_map(|topic| topic.partitions);
            let good = answers.filter(|answer| answer.error_code == 0);
            offsets.extend(good.map(|answer| (answer.partition_index, answer.offset)));
        }
        Ok(offsets)
    }

    /// The names of all groups, of every broker.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn groups(&mut self) -> Result<Vec<String>, ClientError> {
        self.metadata(Some(&[]), Missing::Leave).await?;
        let mut brokers: Vec<String> = self.brokers.values().cloned().collect();
        if brokers.is_empty() {
            brokers.push(self.bootstrap.clone());
        }
        let mut groups = Vec::new();
        for broker in brokers {
            let request = ListGroupsRequest::default().into();
            let response = self.ask(&broker, &client::LIST_GROUPS, request).await?;
            let ResponseKind::ListGroups(response) = response else {
                return Err(not_kafka(&broker));
            };
            check(response.error_code, || "list groups".to_owned())?;
            groups.extend(response.groups.into_iter().map(|group| group.group_id.to_string()));
        }
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    /// A group's state and members, and its committed offsets.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn group(
        &mut self,
        group: &str,
    ) -> Result<(DescribedGroup, CommittedOffsets), ClientError> {
        let coordinator = self.coordinator(group).await?;
        let id = GroupId(StrBytes::from(group.to_owned()));
        let request = DescribeGroupsRequest::default().with_groups(vec![id.clone()]).into();
        let response = self.ask(&coordinator, &client::DESCRIBE_GROUPS, request).await?;
        let ResponseKind::DescribeGroups(mut response) = response else {
            return Err(not_kafka(&coordinator));
        };
        let described = response.groups.pop().ok_or_else(|| not_kafka(&coordinator))?;
        check(described.error_code, || format!("describe group {group}"))?;
        let request = OffsetFetchRequest::default().with_group_id(id).with_topics(None).into();
        let response = self.ask(&coordinator, &client::OFFSET_FETCH, request).await?;
        let ResponseKind::OffsetFetch(response) = response else {
            return Err(not_kafka(&coordinator));
        };
        check(response.error_code, || format!("offsets of group {group}"))?;
        let mut committed = CommittedOffsets::new();
        for topic in response.topics {
            for partition in topic.partitions.iter().filter(|answer| answer.error_code == 0) {
                let place = (topic.name.to_string(), partition.partition_index);
                committed.insert(place, partition.committed_offset);
            }
        }
        Ok((described, committed))
    }

    /// A new cluster makes its offsets topic when it is first asked for a coordinator.
    async fn coordinator(&mut self, group: &str) -> Result<String, ClientError> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let outcome = self.coordinator_now(group).await;
            if !is_worth_a_retry(&outcome, deadline) {
                return outcome;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn coordinator_now(&mut self, group: &str) -> Result<String, ClientError> {
        let key = StrBytes::from(group.to_owned());
        let request = FindCoordinatorRequest::default().with_key(key).into();
        let response = self.ask_bootstrap(&client::FIND_COORDINATOR, request).await?;
        let ResponseKind::FindCoordinator(response) = response else {
            return Err(self.not_kafka());
        };
        check(response.error_code, || format!("find the coordinator of group {group}"))?;
        Ok(to_address(&response.host, response.port))
    }

    /// Partitions with a leader, by its address. Those without are left out.
    pub fn by_leader(
        &self,
        topic: &Topic,
        partitions: impl IntoIterator<Item = i32>,
    ) -> BTreeMap<String, Vec<i32>> {
        let mut by_leader = BTreeMap::<String, Vec<i32>>::new();
        for partition in partitions {
            if let Ok(leader) = self.leader(topic, partition) {
                by_leader.entry(leader).or_default().push(partition);
            }
        }
        by_leader
    }

    /// The address of a partition's leader.
    ///
    /// # Errors
    /// `NoPartition`, `NoLeader`, or what the broker says of the partition.
    pub fn leader(&self, topic: &Topic, partition: i32) -> Result<String, ClientError> {
        let name = || topic.name.clone();
        match topic.leaders.get(&partition) {
            None => Err(ClientError::NoPartition { topic: name(), partition }),
            Some(Err(code)) => {
                let what = format!("partition {}/{partition}", topic.name);
                Err(ClientError::Refused { what, code: *code })
            }
            Some(Ok(node)) => self
                .brokers
                .get(node)
                .cloned()
                .ok_or(ClientError::NoLeader { topic: name(), partition }),
        }
    }

    async fn ask_bootstrap(
        &mut self,
        api: &ClientApi,
        request: RequestKind,
    ) -> Result<ResponseKind, ClientError> {
        let bootstrap = self.bootstrap.clone();
        self.ask(&bootstrap, api, request).await
    }

    async fn ask(
        &mut self,
        address: &str,
        api: &ClientApi,
        request: RequestKind,
    ) -> Result<ResponseKind, ClientError> {
        if !self.connections.contains_key(address) {
            if self.connections.len() >= CONNECTIONS_MAX {
                return Err(ClientError::TooManyBrokers);
            }
            let connection = Connection::open(address).await.map_err(|error| match error {
                ClientError::Connect { address, source } => {
                    let bootstrap = self.bootstrap.clone();
                    ClientError::Advertised { address, bootstrap, source }
                }
                other => other,
            })?;
            self.connections.insert(address.to_owned(), connection);
        }
        let connection = self.connections.get_mut(address).expect("it was put there");
        connection.ask(api, &request).await
    }

    fn not_kafka(&self) -> ClientError {
        not_kafka(&self.bootstrap)
    }
}

fn not_kafka(address: &str) -> ClientError {
    ClientError::NotKafka { address: address.to_owned(), source: None }
}

/// One TCP connection. After an error it is of no more use.
#[derive(Debug)]
struct Connection {
    address: String,
    stream: TcpStream,
    buffer: BytesMut,
    correlation_id: i32,
    /// Lowest and highest version by key.
    versions: HashMap<i16, (i16, i16)>,
}

impl Connection {
    async fn open(address: &str) -> Result<Self, ClientError> {
        let connect = |source| ClientError::Connect { address: address.to_owned(), source };
        let stream = in_time(address, TcpStream::connect(address)).await?.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let mut connection = Self {
            address: address.to_owned(),
            stream,
            buffer: BytesMut::new(),
            correlation_id: 0,
            versions: HashMap::new(),
        };
        connection.versions = connection.ask_versions().await?;
        Ok(connection)
    }

    async fn ask_versions(&mut self) -> Result<HashMap<i16, (i16, i16)>, ClientError> {
        let api = &client::API_VERSIONS;
        self.versions.insert(api.number(), (api.version, api.version));
        let response = self.ask(api, &ApiVersionsRequest::default().into()).await?;
        let ResponseKind::ApiVersions(ApiVersionsResponse { error_code, api_keys, .. }) = response
        else {
            return Err(not_kafka(&self.address));
        };
        check(error_code, || "ask for versions".to_owned())?;
        Ok(api_keys
            .into_iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect())
    }

    async fn ask(
        &mut self,
        api: &ClientApi,
        request: &RequestKind,
    ) -> Result<ResponseKind, ClientError> {
        let is_supported = self
            .versions
            .get(&api.number())
            .is_some_and(|(min, max)| (*min..=*max).contains(&api.version));
        if !is_supported {
            let address = self.address.clone();
            return Err(ClientError::Version { address, key: api.key, version: api.version });
        }
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let bytes = api.encode_request(self.correlation_id, request)?;
        let address = self.address.clone();
        let frame = in_time(&address, self.exchange(&bytes)).await??;
        api.decode_response(self.correlation_id, frame).ok_or_else(|| not_kafka(&address))
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Bytes, ClientError> {
        let address = || self.address.clone();
        let lost = |source| ClientError::Io { address: address(), source };
        self.stream.write_all(request).await.map_err(lost)?;
        loop {
            match frame::try_decode(&mut self.buffer, RESPONSE_BYTES_MAX) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => (),
                Err(error) => {
                    return Err(ClientError::NotKafka { address: address(), source: Some(error) });
                }
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(lost)? == 0 {
                return Err(ClientError::Closed { address: address() });
            }
        }
    }
}

async fn in_time<T>(address: &str, work: impl Future<Output = T>) -> Result<T, ClientError> {
    timeout(WAIT_MAX, work).await.map_err(|_| ClientError::Timeout { address: address.to_owned() })
}

fn to_topic(topic: &MetadataResponseTopic) -> Option<Topic> {
    let leaders = topic.partitions.iter().map(|partition| {
        // An error of a partition that has a leader is about its replicas.
        let leader = match ResponseError::try_from_code(partition.error_code) {
            Some(code) if partition.leader_id.0 < 0 => Err(code),
            _ => Ok(partition.leader_id),
        };
        (partition.partition_index, leader)
    });
    Some(Topic {
        name: topic.name.as_ref()?.to_string(),
        is_internal: topic.is_internal,
        leaders: leaders.collect(),
    })
}

/// `host:port`, an IPv6 address in brackets.
fn to_address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from(name.to_owned()))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Whether the broker is not ready yet, and time is left.
fn is_worth_a_retry<T>(outcome: &Result<T, ClientError>, deadline: Instant) -> bool {
    matches!(outcome, Err(ClientError::Refused { code, .. }) if code.is_retriable())
        && Instant::now() < deadline
}

/// An error unless the code is 0.
fn check(code: i16, what: impl FnOnce() -> String) -> Result<(), ClientError> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(code) => Err(ClientError::Refused { what: what(), code }),
    }
}

#[cfg(test)]
mod tests;
