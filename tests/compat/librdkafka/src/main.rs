//! librdkafka against the daemon: idempotent producers with every codec, a group of two members with
//! a rebalance, committed offsets, watermarks, and one event that becomes a task.
//!
//! Reads `BOOTSTRAP`; the script beside it looks at the task over REST.

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{CommitMode, Consumer, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use std::{collections::BTreeSet, env, time::Duration};
use tokio::time::{Instant, timeout};

const WAIT: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() {
    let bootstrap = env::var("BOOTSTRAP").expect("BOOTSTRAP names the daemon");
    create_topic(&bootstrap).await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        round_trip(&bootstrap, codec).await;
    }
    rebalance(&bootstrap).await;
    committed_offsets(&bootstrap).await;
    send_task(&bootstrap).await;
}

fn check(name: &str, holds: bool, detail: impl std::fmt::Debug) {
    if !holds {
        eprintln!("  FAILED  {name} {detail:?}");
        std::process::exit(1);
    }
    println!("  ok  {name}");
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn producer(bootstrap: &str, codec: &str) -> FutureProducer {
    config(bootstrap)
        .set("enable.idempotence", "true")
        .set("compression.type", codec)
        .set("linger.ms", "2")
        .create()
        .expect("a producer")
}

fn consumer(bootstrap: &str, group: &str) -> StreamConsumer {
    config(bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("heartbeat.interval.ms", "500")
        .create()
        .expect("a consumer")
}

async fn create_topic(bootstrap: &str) {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create().expect("an admin");
    let topic = NewTopic::new("rd-shared", 4, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("an answer");
    check("create_topics", made == [Ok("rd-shared".to_owned())], &made);
}

async fn round_trip(bootstrap: &str, codec: &str) {
    let topic = format!("rd-{codec}");
    let producer = producer(bootstrap, codec);
    let sends: Vec<_> = (0..2000)
        .map(|number| {
            let (producer, topic) = (producer.clone(), topic.clone());
            tokio::spawn(async move {
                let value = format!("value {number}");
                let record = FutureRecord::<(), _>::to(&topic).payload(&value);
                producer.send(record, WAIT).await.map(|delivery| delivery.offset)
            })
        })
        .collect();
    let mut offsets = BTreeSet::new();
    for send in sends {
        offsets.insert(send.await.expect("no panic").expect("delivered"));
    }
    check(&format!("{codec}: 2,000 offsets, dense"), offsets.iter().copied().eq(0..2000), offsets.len());
    let consumer = consumer(bootstrap, &format!("{topic}-group"));
    consumer.subscribe(&[&topic]).expect("subscribed");
    let started = Instant::now();
    let mut values = BTreeSet::new();
    let mut first = None;
    while values.len() < 2000 {
        let message = timeout(WAIT, consumer.recv()).await.expect("in time").expect("a message");
        first.get_or_insert_with(|| started.elapsed());
        values.insert(message.payload().expect("a value").to_vec());
    }
    check(&format!("{codec}: all read back, first after {first:?}"), values.len() == 2000, values.len());
}

async fn rebalance(bootstrap: &str) {
    let producer = producer(bootstrap, "none");
    let members = [consumer(bootstrap, "rd-group"), consumer(bootstrap, "rd-group")];
    for member in &members {
        member.subscribe(&["rd-shared"]).expect("subscribed");
    }
    let end = Instant::now() + Duration::from_secs(40);
    let mut sent = 0;
    let mut seen: Vec<BTreeSet<Vec<u8>>> = vec![BTreeSet::new(), BTreeSet::new()];
    while Instant::now() < end && seen.iter().any(BTreeSet::is_empty) {
        for partition in 0..4 {
            send(&producer, partition, sent).await;
            sent += 1;
        }
        for (member, seen) in members.iter().zip(&mut seen) {
            while let Ok(message) = timeout(Duration::from_millis(50), member.recv()).await {
                seen.insert(message.expect("a message").payload().expect("a value").to_vec());
            }
        }
    }
    check("two members share the partitions", seen.iter().all(|seen| !seen.is_empty()), sent);
    let [first, second] = members;
    drop(second);
    for partition in 0..4 {
        send(&producer, partition, sent).await;
        sent += 1;
    }
    let mut all: BTreeSet<Vec<u8>> = seen.into_iter().flatten().collect();
    while Instant::now() < end && all.len() < sent {
        if let Ok(message) = timeout(Duration::from_millis(500), first.recv()).await {
            all.insert(message.expect("a message").payload().expect("a value").to_vec());
        }
    }
    check("after one leaves, the other reads all", all.len() == sent, (all.len(), sent));
}

async fn send(producer: &FutureProducer, partition: i32, number: usize) {
    let value = number.to_string();
    let record = FutureRecord::<(), _>::to("rd-shared").partition(partition).payload(&value);
    producer.send(record, WAIT).await.expect("delivered");
}

async fn committed_offsets(bootstrap: &str) {
    let consumer = consumer(bootstrap, "rd-commits");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("rd-none", 0, Offset::Offset(1234)).expect("a valid offset");
    consumer.commit(&list, CommitMode::Sync).expect("committed");
    let found = consumer.committed_offsets(list, WAIT).expect("an answer");
    let offset = found.find_partition("rd-none", 0).expect("listed").offset();
    check("committed offset comes back", offset == Offset::Offset(1234), offset);
    let marks = consumer.fetch_watermarks("rd-none", 0, WAIT).expect("an answer");
    check("watermarks", marks == (0, 2000), marks);
}

async fn send_task(bootstrap: &str) {
    let event = r#"{"type":"task_created","data":{"id":"rd-1","title":"from librdkafka","user_id":"ada"}}"#;
    let record = FutureRecord::to("task-events").key("rd-1").payload(event);
    producer(bootstrap, "none").send(record, WAIT).await.expect("delivered");
}
