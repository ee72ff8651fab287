//! What bad bytes get: an answer or a closed connection, and nobody else notices.

use crate::support::{TestDaemon, created, kafka, resident_kb};
use bytes::{BufMut, Bytes, BytesMut};

#[tokio::test]
async fn garbage_on_the_kafka_port_closes_that_connection_only() {
    let daemon = TestDaemon::start().await;
    let mut good = daemon.kafka_client().await;
    good.make_topic("limits").await;
    good.produce("limits", &[Bytes::from("before")]).await;
    let frame = |body: &[u8]| {
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(body.len()).expect("short"));
        frame.put_slice(body);
        frame.to_vec()
    };
    for (name, bytes) in [
        ("negative length", (-1_i32).to_be_bytes().to_vec()),
        ("huge length", i32::MAX.to_be_bytes().to_vec()),
        ("unknown key", frame(&[0x7f, 0x7f, 0, 0, 0, 0, 0, 1, 0xff, 0xff])),
        ("unknown version", frame(&[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff])),
        (
            "a count that asks for gigabytes",
            frame(&[
                0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff, 0xff,
                0xff, 0x07,
            ]),
        ),
        ("noise", vec![0x55; 4096]),
    ] {
        let answer = daemon.kafka_client().await.raw(&bytes).await;
        assert_eq!(answer.as_deref(), Some(&[][..]), "{name}");
    }
    let http = daemon.kafka_client().await.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let http = String::from_utf8(http.expect("closed")).expect("text");
    assert!(http.starts_with("HTTP/1.1 400 "), "{http}");
    good.produce("limits", &[Bytes::from("after")]).await;
    assert_eq!(good.fetch_all("limits").await.len(), 2);
}

#[tokio::test]
async fn bad_batches_are_refused_and_never_stored() {
    let daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    client.make_topic("bad").await;
    client.produce("bad", &[Bytes::from("good")]).await;
    let good = kafka::plain_batch(&["a", "b"]);
    let damaged = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        Bytes::from(bytes)
    };
    for (name, batch) in [
        ("wrong crc", damaged(good.len() - 1, 0x7f)),
        ("wrong magic", damaged(16, 1)),
        ("wrong count", damaged(60, 9)),
        ("truncated", good.slice(..good.len() - 3)),
        ("two batches in one", [good.as_ref(), good.as_ref()].concat().into()),
        ("empty", Bytes::new()),
    ] {
        let answer = client.try_produce("bad", &batch).await.expect("an answer");
        assert_ne!(answer.error_code, 0, "{name}");
    }
    let answer = client.try_produce_to("bad", 99, -1, &good).await.expect("an answer");
    assert_eq!(answer.error_code, 3, "unknown partition");
    let answer = client.try_produce_to("bad", 0, 5, &good).await.expect("an answer");
    assert_eq!(answer.error_code, 21, "invalid acks");
    let large = "x".repeat(2 << 20);
    let answer = client.try_produce("bad", &kafka::plain_batch(&[&large])).await;
    assert_eq!(answer.expect("an answer").error_code, 10, "too large");
    assert_eq!(client.fetch_all("bad").await.len(), 1);
}

#[tokio::test]
async fn a_frame_costs_no_memory_before_it_comes() {
    let daemon = TestDaemon::start().await;
    let before = resident_kb(daemon.pid());
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut stream = tokio::net::TcpStream::connect(daemon.kafka).await.expect("it listens");
        let prefix = (15_i32 << 20).to_be_bytes();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &prefix).await.expect("written");
        waiting.push(stream);
    }
    daemon.produce(&[created("t", "ada", "x")]).await;
    let grown = resident_kb(daemon.pid()).saturating_sub(before);
    assert!(grown < 20_000, "{grown} KB for 50 prefixes");
}
