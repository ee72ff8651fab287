//! The steps: every kind of thing that clients do to a daemon, and that time does.

use super::{
    daemon::{Daemon, EVENTS, LETTERS},
    story::{Batch, Fact, Story},
};
use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    cell::{Cell, RefCell},
    time::Duration,
};
use taskwire::{
    broker::Acks,
    disk::testing::Chance,
    task::event,
    wire::{
        StrBytes,
        batch::{Codec, ProducedBatch, crc32c},
        messages::{
            ApiKey, CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest,
            InitProducerIdRequest, OffsetCommitRequest, OffsetFetchRequest, RequestKind,
            ResponseKind,
            create_topics_request::CreatableTopic,
            incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
            offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
            offset_fetch_request::OffsetFetchRequestTopic,
        },
        record::{self, NewRecord},
    },
};

pub(crate) const USERS: [&str; 3] = ["ann", "bob", "cy"];
pub(crate) const GROUPS: [&str; 2] = ["mail", "audit"];
pub(crate) const OTHER: &str = "orders";
/// Makes a segment of 4 KiB take a few records only.
const PADDING_BYTES: usize = 400;
/// Longer than an event may wait for its task.
const LONG: Duration = Duration::from_secs(11 * 60);

/// Somebody who uses a daemon and remembers what it said.
pub(crate) struct Player<'a> {
    pub(crate) daemon: &'a Daemon,
    pub(crate) story: RefCell<Story>,
    pub(crate) steps: Cell<usize>,
    producer: Cell<Option<(i64, i32)>>,
    /// A daemon that fails calls may refuse.
    is_strict: bool,
}

/// One record's key is given later; this is the rest.
pub(crate) type Body = Option<Bytes>;

/// An event in the plain form.
#[allow(clippy::needless_pass_by_value, reason = "a list of them reads better")]
pub(crate) fn event(kind: &str, id: Option<&str>, data: Value) -> Body {
    let mut event = json!({ "type": kind, "data": data, "pad": "x".repeat(PADDING_BYTES) });
    if let Some(id) = id {
        event["event_id"] = id.into();
    }
    Some(event.to_string().into())
}

pub(crate) fn created(task: &str, user: &str) -> Body {
    let data = json!({ "id": task, "title": format!("do {task}"), "user_id": user });
    event("task_created", Some(&format!("create {task}")), data)
}

pub(crate) fn completed(task: &str) -> Body {
    event("task_completed", Some(&format!("complete {task}")), json!({ "id": task }))
}

pub(crate) fn titled(task: &str, title: &str) -> Body {
    event("task_updated", None, json!({ "id": task, "title": title }))
}

impl<'a> Player<'a> {
    pub(crate) fn new(daemon: &'a Daemon, story: Story) -> Self {
        let (steps, producer) = (Cell::new(0), Cell::new(None));
        Self { daemon, story: RefCell::new(story), steps, producer, is_strict: true }
    }

    /// For a daemon whose disk fails calls.
    pub(crate) fn lenient(daemon: &'a Daemon, story: Story) -> Self {
        Self { is_strict: false, ..Self::new(daemon, story) }
    }

    /// Notes a fact, and where among the disk's calls it lies.
    pub(crate) fn tell(&self, fact: Fact) {
        let mut story = self.story.borrow_mut();
        story.facts.push(fact);
        let count = u64::try_from(story.facts.len()).expect("few");
        self.daemon.world.disk.mark(count);
    }

    fn new_batch(
        &self,
        (topic, partition): (&'static str, i32),
        bodies: Vec<Body>,
        sequence: Option<(i64, i32)>,
    ) -> usize {
        let mut story = self.story.borrow_mut();
        let number = story.batches.len();
        let timestamp_ms = self.daemon.world.clock.now_ms();
        let records = bodies.into_iter().enumerate().map(|(index, value)| NewRecord {
            timestamp_ms,
            key: Some(Story::key(number, index)),
            value,
            headers: Vec::new(),
        });
        let records = records.collect();
        story.batches.push(Batch { topic, partition, records, sequence });
        number
    }

    /// Sends a batch, again if it was sent before.
    pub(crate) async fn send(&self, number: usize, acks: Acks, codec: Codec) {
        let batch = self.story.borrow().batches[number].clone();
        self.tell(Fact::Sent(number));
        let place = (batch.topic, batch.partition);
        let answer = self.daemon.produce(place, encode(&batch, codec), acks).await;
        match answer {
            Ok(produced) if acks == Acks::All => {
                self.tell(Fact::Acked(number, produced.base_offset.get()));
            }
            Ok(produced) => self.tell(Fact::Written(number, produced.base_offset.get())),
            Err(error) => assert!(!self.is_strict, "batch {number}: {error}"),
        }
    }

    pub(crate) async fn produce(&self, bodies: Vec<Body>) -> usize {
        let number = self.new_batch((EVENTS, 0), bodies, None);
        self.send(number, Acks::All, Codec::None).await;
        number
    }

    async fn produce_with(&self, bodies: Vec<Body>, acks: Acks, codec: Codec) {
        let number = self.new_batch((EVENTS, 0), bodies, None);
        self.send(number, acks, codec).await;
    }

    /// A batch with the next sequence of the idempotent producer.
    pub(crate) fn idempotent(&self, bodies: Vec<Body>) -> usize {
        let (id, sequence) = self.producer.get().expect("it has an id");
        let count = i32::try_from(bodies.len()).expect("few");
        self.producer.set(Some((id, sequence + count)));
        self.new_batch((EVENTS, 0), bodies, Some((id, sequence)))
    }

    pub(crate) async fn init_producer(&self) {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let body = RequestKind::InitProducerId(request);
        let response = self.daemon.ask(ApiKey::InitProducerId, 1, body).await;
        let ResponseKind::InitProducerId(response) = response else { panic!("{response:?}") };
        if response.error_code == 0 {
            self.producer.set(Some((response.producer_id.0, 0)));
        } else {
            assert!(!self.is_strict, "{response:?}");
            self.producer.set(Some((1_000_000, 0)));
        }
    }

    /// As a REST write: the event is published, and answered with its outcome.
    async fn write(&self, value: Body) {
        let number = self.new_batch((EVENTS, 0), vec![value.clone()], None);
        let decoded = event::decode::<&[u8]>(value.as_deref(), &[]).expect("an event");
        let mut pending = self.daemon.applied.expect_event(&decoded);
        self.send(number, Acks::All, Codec::None).await;
        if self.story.borrow().acked(number).is_none() {
            return;
        }
        if !self.is_strict && self.daemon.quiet(Some(Duration::from_millis(100))).await.is_err() {
            return;
        }
        let outcome = pending.outcome().await.expect("apply lives");
        self.tell(Fact::Answered(number, outcome));
    }

    pub(crate) async fn commit(&self, group: &'static str, offset: i64) {
        self.tell(Fact::Committing(group, offset));
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(wire_name(EVENTS))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(StrBytes::from_static_str(group).into())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let body = RequestKind::OffsetCommit(request);
        let response = self.daemon.ask(ApiKey::OffsetCommit, 2, body).await;
        let ResponseKind::OffsetCommit(response) = response else { panic!("{response:?}") };
        match response.topics[0].partitions[0].error_code {
            0 => self.tell(Fact::Committed(group, offset)),
            error => assert!(!self.is_strict, "commit got error {error}"),
        }
    }

    pub(crate) async fn committed(&self, group: &'static str) -> i64 {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(wire_name(EVENTS))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(StrBytes::from_static_str(group).into())
            .with_topics(Some(vec![topic]));
        let body = RequestKind::OffsetFetch(request);
        let response = self.daemon.ask(ApiKey::OffsetFetch, 2, body).await;
        let ResponseKind::OffsetFetch(response) = response else { panic!("{response:?}") };
        response.topics[0].partitions[0].committed_offset
    }

    async fn create_topic(&self) {
        self.tell(Fact::Changing(OTHER, true));
        let topic = CreatableTopic::default()
            .with_name(wire_name(OTHER))
            .with_num_partitions(2)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000);
        let body = RequestKind::CreateTopics(request);
        let response = self.daemon.ask(ApiKey::CreateTopics, 2, body).await;
        let ResponseKind::CreateTopics(response) = response else { panic!("{response:?}") };
        match response.topics[0].error_code {
            0 => self.tell(Fact::Changed(OTHER, true)),
            error => assert!(!self.is_strict, "creation got error {error}"),
        }
    }

    async fn delete_topic(&self) {
        self.tell(Fact::Changing(OTHER, false));
        let request = DeleteTopicsRequest::default().with_topic_names(vec![wire_name(OTHER)]);
        let body = RequestKind::DeleteTopics(request);
        let response = self.daemon.ask(ApiKey::DeleteTopics, 2, body).await;
        let ResponseKind::DeleteTopics(response) = response else { panic!("{response:?}") };
        match response.responses[0].error_code {
            0 => self.tell(Fact::Changed(OTHER, false)),
            error => assert!(!self.is_strict, "deletion got error {error}"),
        }
    }

    async fn set_segment_bytes(&self) {
        let resources = [EVENTS, LETTERS].map(|topic| {
            let config = AlterableConfig::default()
                .with_name(StrBytes::from_static_str("segment.bytes"))
                .with_value(Some(StrBytes::from_static_str("4096")));
            AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(StrBytes::from_static_str(topic))
                .with_configs(vec![config])
        });
        let request = IncrementalAlterConfigsRequest::default().with_resources(resources.to_vec());
        let body = RequestKind::IncrementalAlterConfigs(request);
        let response = self.daemon.ask(ApiKey::IncrementalAlterConfigs, 0, body).await;
        let ResponseKind::IncrementalAlterConfigs(response) = response else {
            panic!("{response:?}")
        };
        let is_set = response.responses.iter().all(|response| response.error_code == 0);
        assert!(is_set || !self.is_strict, "{response:?}");
    }

    /// Ends a step: a second passes, and apply does what it can.
    async fn next(&self) -> Result<(), String> {
        self.steps.set(self.steps.get() + 1);
        let clock = &self.daemon.world.clock;
        clock.set(clock.now_ms() + 1000);
        self.daemon.quiet((!self.is_strict).then_some(Duration::from_millis(100))).await
    }
}

fn wire_name(topic: &'static str) -> taskwire::wire::messages::TopicName {
    StrBytes::from_static_str(topic).into()
}

/// The bytes that a producer sends.
fn encode(batch: &Batch, codec: Codec) -> ProducedBatch {
    let encoded = record::encode_compressed(&batch.records, codec);
    let Some((id, sequence)) = batch.sequence else { return encoded };
    let (_, bytes) = encoded.stamp(0, -1);
    let mut bytes = bytes.to_vec();
    bytes[43..51].copy_from_slice(&id.to_be_bytes());
    bytes[51..53].copy_from_slice(&0_i16.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    ProducedBatch::check(&bytes).expect("a sound batch")
}

/// Every step, one after the other.
///
/// # Errors
/// Apply has ended.
pub(crate) async fn play(player: &Player<'_>, seed: u64) -> Result<(), String> {
    setting_up(player).await?;
    out_of_order(player).await?;
    poison(player).await?;
    rest(player).await?;
    topics(player).await?;
    waiting(player).await?;
    by_chance(player, seed).await
}

async fn setting_up(player: &Player<'_>) -> Result<(), String> {
    player.next().await?;
    player.set_segment_bytes().await;
    player.next().await?;
    for (index, user) in USERS.iter().enumerate() {
        player.produce(vec![created(&format!("t{index}"), user)]).await;
        player.next().await?;
    }
    player.commit("mail", 2).await;
    player.next().await?;
    player.init_producer().await;
    for round in 0..3 {
        let first = player.idempotent(vec![titled("t0", &format!("round {round}"))]);
        player.send(first, Acks::All, Codec::None).await;
        player.next().await?;
        player.send(first, Acks::All, Codec::None).await;
        player.next().await?;
    }
    player.daemon.checkpoint().await?;
    player.next().await?;
    // Several at once: one write, one sync.
    let many: Vec<usize> =
        (0..3).map(|n| player.idempotent(vec![created(&format!("m{n}"), "ann")])).collect();
    join_all(many.iter().map(|batch| player.send(*batch, Acks::All, Codec::None))).await;
    player.next().await?;
    join_all(many.iter().map(|batch| player.send(*batch, Acks::All, Codec::None))).await;
    player.next().await?;
    let five = (0..5).map(|n| created(&format!("z{n}"), "bob")).collect();
    player.produce_with(five, Acks::All, Codec::Gzip).await;
    player.next().await
}

async fn out_of_order(player: &Player<'_>) -> Result<(), String> {
    player.produce(vec![completed("w0"), titled("w0", "early")]).await;
    player.next().await?;
    player.produce(vec![completed("w1")]).await;
    player.next().await?;
    player.daemon.checkpoint().await?;
    player.next().await?;
    player.produce(vec![created("w0", "ann")]).await;
    player.next().await?;
    player.produce(vec![titled("w1", "later"), created("w1", "bob"), completed("w1")]).await;
    player.next().await?;
    player.produce(vec![completed("w0"), completed("w0")]).await;
    player.next().await
}

async fn poison(player: &Player<'_>) -> Result<(), String> {
    player.produce(vec![None]).await;
    player.next().await?;
    player.produce(vec![Some(Bytes::from_static(b"{not json"))]).await;
    player.next().await?;
    let nobody = json!({ "id": "n0", "title": "x" });
    player.produce(vec![event("task_created", None, nobody), titled("t1", "ok")]).await;
    player.next().await?;
    player.commit("audit", 7).await;
    player.next().await?;
    let wrong = json!({ "id": "t0", "title": "mine", "user_id": "bob" });
    player.produce(vec![event("task_updated", Some("wrong user"), wrong)]).await;
    player.next().await?;
    let conflict = json!({ "id": "t0", "title": "another", "user_id": "ann" });
    player.produce(vec![event("task_created", Some("conflict"), conflict)]).await;
    player.next().await?;
    let reused = json!({ "id": "t2", "title": "reused", "user_id": "cy" });
    player.produce(vec![event("task_updated", Some("create t1"), reused)]).await;
    player.next().await?;
    player.daemon.checkpoint().await?;
    player.next().await?;
    player.produce(vec![event("task_deleted", Some("delete m2"), json!({ "id": "m2" }))]).await;
    player.next().await?;
    player.produce(vec![titled("m2", "too late"), created("m2", "ann")]).await;
    player.next().await
}

#[allow(clippy::needless_pass_by_value, reason = "a list of them reads better")]
fn expecting(version: u64, id: &str, data: Value) -> Body {
    let event = json!({
        "type": "task_updated", "event_id": id, "expected_version": version, "data": data,
    });
    Some(event.to_string().into())
}

async fn rest(player: &Player<'_>) -> Result<(), String> {
    player.write(created("r0", "cy")).await;
    player.next().await?;
    player.write(expecting(1, "patch r0", json!({ "id": "r0", "title": "patched" }))).await;
    player.next().await?;
    player.write(expecting(1, "lost r0", json!({ "id": "r0", "title": "lost" }))).await;
    player.next().await?;
    player.commit("mail", 20).await;
    player.next().await?;
    // The request is repeated with its key: the same event again.
    player.write(created("r0", "cy")).await;
    player.next().await?;
    player.write(completed("r0")).await;
    player.next().await?;
    player.write(created("r1", "cy")).await;
    player.write(event("task_deleted", Some("delete r1"), json!({ "id": "r1" }))).await;
    player.next().await?;
    let note = json!({ "user_id": "cy", "text": "hello" });
    let ignored = json!({ "text": "nobody's" });
    player.produce(vec![event("note", None, note), event("note", None, ignored)]).await;
    player.next().await
}

async fn topics(player: &Player<'_>) -> Result<(), String> {
    player.create_topic().await;
    player.next().await?;
    for partition in [0, 1] {
        let number = player.new_batch((OTHER, partition), vec![Some("order".into())], None);
        player.send(number, Acks::All, Codec::None).await;
    }
    player.next().await?;
    player.daemon.pass(Duration::from_secs(30)).await?; // Retention; durable ends are recorded.
    player.next().await?;
    player.delete_topic().await;
    player.commit("audit", 9).await; // Behind what the coordinator forgets of the topic.
    player.next().await?;
    player.create_topic().await;
    player.next().await?;
    let number = player.new_batch((OTHER, 0), vec![Some("order again".into())], None);
    player.send(number, Acks::All, Codec::None).await;
    player.next().await?;
    player.produce_with(vec![titled("t1", "acks 1")], Acks::Leader, Codec::None).await;
    player.next().await
}

async fn waiting(player: &Player<'_>) -> Result<(), String> {
    player.produce(vec![completed("o0"), completed("o1"), titled("o0", "never")]).await;
    player.next().await?;
    player.daemon.pass(LONG).await?; // They expire.
    player.next().await?;
    player.produce(vec![created("o0", "bob")]).await;
    player.next().await?;
    player.daemon.checkpoint().await?; // Trims changes and event ids, too.
    player.next().await
}

async fn by_chance(player: &Player<'_>, seed: u64) -> Result<(), String> {
    let mut chance = Chance::new(seed);
    for round in 0..12 {
        let task = format!("t{}", chance.below(3));
        match chance.below(8) {
            0 => player.produce(vec![titled(&task, &format!("chance {round}"))]).await,
            1 => player.produce(vec![created(&format!("c{round}"), "ann"), None]).await,
            2 => {
                let body = vec![titled(&task, &format!("again {round}"))];
                let number = player.idempotent(body);
                player.send(number, Acks::All, Codec::None).await;
                player.send(number, Acks::All, Codec::None).await;
                number
            }
            3 => {
                player.commit(GROUPS[chance.below(2)], 30 + round).await;
                0
            }
            4 => {
                player.daemon.checkpoint().await?;
                0
            }
            5 => {
                let later = format!("l{round}");
                player.produce(vec![completed(&later), created(&later, "cy")]).await
            }
            6 => {
                player.write(created(&format!("w{round}"), "bob")).await;
                0
            }
            _ => player.produce(vec![event("task_deleted", None, json!({ "id": task }))]).await,
        };
        player.next().await?;
    }
    Ok(())
}

/// What a client does after a crash: it sends again what was not answered, and goes on; then all
/// that waits in vain expires.
///
/// # Errors
/// Apply has ended.
pub(crate) async fn finish(player: &Player<'_>, life: usize) -> Result<(), String> {
    player.daemon.quiet(None).await?;
    let in_flight = player.story.borrow().in_flight();
    for batch in in_flight {
        player.send(batch, Acks::All, Codec::None).await;
    }
    player.init_producer().await;
    let new = player.idempotent(vec![created(&format!("life {life}"), "ann")]);
    player.send(new, Acks::All, Codec::None).await;
    player.send(new, Acks::All, Codec::None).await;
    player.produce(vec![titled("t0", &format!("life {life}")), None]).await;
    player.write(created(&format!("rest {life}"), "bob")).await;
    player.commit("mail", 100 + i64::try_from(life).expect("few")).await;
    player.daemon.quiet(None).await?;
    player.daemon.pass(LONG).await?;
    player.daemon.checkpoint().await?;
    player.daemon.quiet(None).await
}
