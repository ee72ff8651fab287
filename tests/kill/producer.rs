//! Producers with acks=all: two that never send again, and an idempotent one that does.

use crate::{
    KAFKA_USER, Shared,
    random::Random,
    support::{
        created,
        kafka::{self, KafkaClient, NOBODY, Producer},
        with_event_id,
    },
};
use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use serde_json::{Value, json};
use std::{collections::VecDeque, time::Duration};

pub(crate) const TOPIC: &str = "task-events";
/// Batches in flight of the idempotent producer; Kafka's clients have at most 5.
const WINDOW: usize = 3;
/// Answers after which a client sends again: the broker starts or stops.
const RETRIABLE: [i16; 4] = [5, 6, 15, 56];

/// What a producer knows of the batches it sent.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Acknowledged: the first offset, and the values from there on.
    pub(crate) acknowledged: Vec<(i64, Vec<Bytes>)>,
    /// Sent once and never answered: on the topic once, or not at all.
    pub(crate) unanswered: Vec<Vec<Bytes>>,
}

/// Makes values that are unlike all others, but for events sent twice on purpose.
struct Source {
    name: String,
    count: u64,
    random: Random,
    created: Vec<Value>,
    orphans: VecDeque<String>,
}

impl Source {
    fn new(name: &str, random: Random) -> Self {
        let name = name.to_owned();
        Self { name, count: 0, random, created: Vec::new(), orphans: VecDeque::new() }
    }

    fn values(&mut self) -> Vec<Bytes> {
        (0..=self.random.below(12)).map(|_| self.value()).collect()
    }

    fn value(&mut self) -> Bytes {
        self.count += 1;
        let id = format!("k-{}-{}", self.name, self.count);
        match self.random.below(20) {
            0 | 1 => format!("poison {id}").into(),
            2..=4 => {
                // Its creation comes later: in this batch, in another, or after a kill.
                self.orphans.push_back(id.clone());
                completed(&id).to_string().into()
            }
            5..=8 if !self.orphans.is_empty() => {
                let id = self.orphans.pop_front().expect("not empty");
                self.creation(&id)
            }
            9 if !self.created.is_empty() => {
                let again = self.random.below(u64::try_from(self.created.len()).expect("small"));
                let event = &self.created[usize::try_from(again).expect("small")];
                event.to_string().into()
            }
            10 | 11 if !self.created.is_empty() => {
                let id = self.created.last().expect("not empty")["data"]["id"].clone();
                completed(id.as_str().expect("text")).to_string().into()
            }
            _ => self.creation(&id),
        }
    }

    fn creation(&mut self, id: &str) -> Bytes {
        let event = with_event_id(created(id, KAFKA_USER, &format!("title of {id}")), id);
        self.created.push(event.clone());
        event.to_string().into()
    }

    /// The creations that are still owed to completions.
    fn rest(&mut self) -> Vec<Bytes> {
        let owed: Vec<String> = self.orphans.drain(..).collect();
        owed.iter().map(|id| self.creation(id)).collect()
    }
}

fn completed(id: &str) -> Value {
    let event = json!({"type": "task_completed", "data": {"id": id, "completed": true}});
    with_event_id(event, &format!("{id}-completed"))
}

/// A connection; `None` once the writers are to end.
async fn connected(shared: &Shared) -> Option<KafkaClient> {
    while !shared.writers.is_cancelled() {
        if let Some(client) = KafkaClient::try_connect(shared.kafka).await {
            return Some(client);
        }
        pause().await;
    }
    None
}

/// Between two tries: the daemon is down.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

fn is_acknowledged(error_code: i16) -> bool {
    assert!(error_code == 0 || RETRIABLE.contains(&error_code), "error code {error_code}");
    error_code == 0
}

/// Sends each batch once, and never again.
pub(crate) async fn plain(number: u32, shared: Shared, random: Random) -> Ledger {
    let mut source = Source::new(&format!("plain{number}"), random);
    let mut ledger = Ledger::default();
    while let Some(mut client) = connected(&shared).await {
        while !shared.writers.is_cancelled() {
            let values = source.values();
            let answer = client.try_produce(TOPIC, &kafka::batch(&values, NOBODY)).await;
            match answer {
                Some(answer) if is_acknowledged(answer.error_code) => {
                    ledger.acknowledged.push((answer.base_offset, values));
                }
                _ => {
                    ledger.unanswered.push(values);
                    break;
                }
            }
            pause().await;
        }
    }
    ledger
}

/// Keeps some batches in flight, and sends those that were not answered again, as they were.
pub(crate) async fn idempotent(shared: Shared, random: Random) -> Ledger {
    let mut source = Source::new("idem", random);
    let mut ledger = Ledger::default();
    let mut producer = producer_id(&shared).await;
    let mut window: VecDeque<(Bytes, Vec<Bytes>)> = VecDeque::new();
    let mut is_over = false;
    while !(is_over && window.is_empty()) {
        let Some(mut client) = KafkaClient::try_connect(shared.kafka).await else {
            pause().await;
            continue;
        };
        loop {
            while window.len() < WINDOW && !is_over {
                is_over = shared.writers.is_cancelled();
                let values = if is_over { source.rest() } else { source.values() };
                if !values.is_empty() {
                    window.push_back((kafka::batch(&values, producer), values.clone()));
                    producer.sequence += i32::try_from(values.len()).expect("small");
                }
            }
            // Without a pause: whenever the kill comes, batches are between write and answer.
            if window.is_empty() || send_all(&mut client, &mut window, &mut ledger).await.is_none()
            {
                break;
            }
        }
    }
    ledger
}

/// Sends the whole window and takes the answers; `None` where the connection is of no more use.
async fn send_all(
    client: &mut KafkaClient,
    window: &mut VecDeque<(Bytes, Vec<Bytes>)>,
    ledger: &mut Ledger,
) -> Option<()> {
    let mut sent = Vec::new();
    for (batch, _) in window.iter() {
        sent.push(client.send(9, &kafka::produce_request(TOPIC, 0, -1, batch)).await?);
    }
    for correlation_id in sent {
        let answer = client.receive::<ProduceRequest>(9, correlation_id).await?;
        let answer = &answer.responses[0].partition_responses[0];
        if !is_acknowledged(answer.error_code) {
            return None;
        }
        let (_, values) = window.pop_front().expect("it was sent");
        ledger.acknowledged.push((answer.base_offset, values));
    }
    Some(())
}

async fn producer_id(shared: &Shared) -> Producer {
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    loop {
        if let Some(mut client) = KafkaClient::try_connect(shared.kafka).await
            && let Some(answer) = client.try_call(4, &request).await
            && is_acknowledged(answer.error_code)
        {
            let (id, epoch) = (answer.producer_id.0, answer.producer_epoch);
            return Producer { id, epoch, sequence: 0 };
        }
        pause().await;
    }
}
