//! The bounds of the port: time, memory, and who pays when they are reached.

use super::{client::*, *};
use crate::wire::messages::*;
use std::time::Instant;
use tokio::{io::AsyncWriteExt, time::timeout};

const SOON: Duration = Duration::from_millis(300);

async fn serve_port(data_dir: &Path, port: PortOptions) -> Served {
    serve_with(Options { port, ..options(data_dir) }).await
}

/// The first bytes of a request that says that it has `bytes`.
fn claim(bytes: usize, sent: usize) -> Vec<u8> {
    let mut frame = u32::try_from(bytes).unwrap().to_be_bytes().to_vec();
    frame.resize(sent, 0);
    frame
}

fn large_produce(bytes: usize) -> ProduceRequest {
    produce("a", 0, -1, batch(&[&"x".repeat(bytes)]))
}

#[tokio::test]
async fn who_asks_nothing_or_never_ends_a_request_is_closed_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let port = PortOptions { frame_timeout: SOON, ..PortOptions::default() };
    let served = serve_port(dir.path(), port).await;
    let mut good = served.client().await;
    good.create("a", 1).await;
    let started = Instant::now();
    let (mut silent, mut half, mut dripping) =
        (served.client().await, served.client().await, served.client().await);
    half.stream.write_all(&claim(100, 50)).await.unwrap();
    let drip = async {
        for byte in claim(1000, 1000) {
            if dripping.stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(SOON / 20).await;
        }
        dripping.receive_frame().await
    };
    let closed = tokio::join!(silent.receive_frame(), half.receive_frame(), drip);
    assert_eq!(closed, (None, None, None));
    assert!(started.elapsed() >= SOON);
    // Who has asked may be idle for longer, and then ask again.
    assert_eq!(good.produce("a", batch(&["x"])).await, (0, 0));
    served.stop().await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_that_waits_for_records_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let port = PortOptions { idle_timeout: SOON, ..PortOptions::default() };
    let served = serve_port(dir.path(), port).await;
    let mut idle = served.client().await;
    idle.create("a", 1).await;
    let mut waiting = served.client().await;
    let asked = waiting.send(12, &fetch("a", 0, i32::MAX)).await;
    assert_eq!(idle.receive_frame().await, None);
    let mut producer = served.client().await;
    producer.produce("a", batch(&["x"])).await;
    let answer = waiting.receive::<FetchRequest>(12, asked).await;
    assert_eq!(values(answer.responses[0].partitions[0].records.clone().unwrap()), ["x"]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn the_longest_unfinished_request_is_cut_when_memory_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let port = PortOptions { memory_bytes_max: 1 << 20, ..PortOptions::default() };
    let served = serve_port(dir.path(), port).await;
    let mut first = served.client().await;
    first.create("a", 1).await;
    let (bytes, part) = (900 << 10, 600 << 10);
    first.stream.write_all(&claim(bytes, part)).await.unwrap();
    while served.broker.limits().unfinished.room() > (1 << 20) - part {
        tokio::task::yield_now().await;
    }
    // The second is whole before long, and is answered; the first has paid for it.
    let mut second = served.client().await;
    let answer = second.ask(9, large_produce(bytes)).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    assert_eq!(first.receive_frame().await, None);
    assert_eq!(served.metrics.broker_connections_cut.get(), 1);
    assert_eq!(served.broker.limits().unfinished.room(), 1 << 20);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let port = PortOptions { memory_bytes_max: 1_200_000, ..PortOptions::default() };
    let served = serve_port(dir.path(), port).await;
    let mut producer = served.client().await;
    producer.create("a", 1).await;
    producer.ask(9, large_produce(1_000_000)).await;
    let mut stuck = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect_narrow(served.address).await;
        // What the sockets hold is full after some of them.
        for _ in 0..20 {
            client.send(12, &fetch("a", 0, 0)).await;
        }
        stuck.push(client);
    }
    // The kernel takes most of an answer; what it left of some is cut when the next comes.
    while served.metrics.broker_connections_cut.get() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut reader = served.client().await;
    for _ in 0..10 {
        assert_eq!(reader.values("a", 0).await[0].len(), 1_000_000);
    }
    drop(stuck);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn no_more_of_large_requests_is_read_while_others_are_worked_on() {
    let dir = tempfile::tempdir().unwrap();
    let port = PortOptions { frame_timeout: SOON, ..PortOptions::default() };
    let served =
        serve_with(Options { port, message_bytes_max: 20 << 20, ..options(dir.path()) }).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let all_work = served.broker.limits().work(usize::MAX).await;
    let large = frame(9, 1, &large_produce(15 << 20));
    let mut writing = Box::pin(client.stream.write_all(&large));
    assert!(timeout(SOON * 2, &mut writing).await.is_err(), "it is not read");
    let held = port.memory_bytes_max - served.broker.limits().unfinished.room();
    assert!(held < 1 << 20, "{held}");
    // Small requests go on.
    let mut small = served.client().await;
    assert_eq!(small.produce("a", batch(&["x"])).await, (0, 0));
    drop(all_work);
    writing.await.unwrap();
    let answer = client.receive::<ProduceRequest>(9, 1).await;
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 1);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_large_request_that_waits_counts_and_a_small_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let room = || served.broker.limits().unfinished.room();
    let all = room();
    client.send(12, &fetch("a", 0, 60_000)).await;
    let mut large = fetch("a", 0, 60_000);
    large.topics[0].partitions = vec![fetch_partition(0, 0); 4000];
    let mut greedy = served.client().await;
    greedy.send(12, &large).await;
    while room() == all {
        tokio::task::yield_now().await;
    }
    assert!((200_000..2_000_000).contains(&(all - room())), "{}", all - room());
    drop(greedy);
    while room() < all {
        tokio::task::yield_now().await;
    }
    served.stop().await.unwrap();
}
