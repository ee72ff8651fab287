//! One record to many sockets, and many records to few of them.

use super::{
    client::{Kafka, upgrade},
    daemon::{Daemon, own_cpu_s},
    percentiles,
};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};

/// A reader that hears nothing for so long has all there is.
const QUIET: Duration = Duration::from_secs(5);
const IN_FLIGHT: usize = 100;

/// Who listens, and how much is sent.
pub(crate) struct Shape {
    pub(crate) sockets: usize,
    /// Sockets and records are spread over so many users, in turn.
    pub(crate) users: usize,
    pub(crate) records: usize,
    /// Records a second; 0: as fast as they are acknowledged.
    pub(crate) rate: u32,
}

type Sent = Arc<Mutex<Vec<Instant>>>;

/// Sends the records one by one, and tells what their deliveries took and cost.
pub(crate) async fn fanout(shape: Shape) -> Value {
    let Shape { sockets, users, records, rate } = shape;
    let daemon = Daemon::start().await;
    let sent: Sent = Arc::new(Mutex::new(Vec::with_capacity(records)));
    let mut readers = JoinSet::new();
    for number in 0..sockets {
        let user = number % users;
        let stream = open(&daemon, user).await;
        readers.spawn(read(stream, Arc::clone(&sent), (user..records).step_by(users).collect()));
    }
    let expected: usize =
        (0..sockets).map(|number| (number % users..records).step_by(users).count()).sum();
    let (cpu, own, started) = (daemon.usage().cpu_s, own_cpu_s(), Instant::now());
    produce(&daemon, &sent, users, rate).await;
    // All stay open until the end: a close would be measured with the rest.
    let (mut times, mut open) = (Vec::with_capacity(expected), Vec::with_capacity(sockets));
    while let Some(read) = readers.join_next().await {
        let (found, stream) = read.expect("a reader");
        times.extend(found);
        open.push(stream);
    }
    let deliveries = times.len();
    json!({
        "sockets": sockets, "users": users, "records": records, "rate": rate,
        "deliveries": deliveries, "expected": expected,
        "daemon_cpu_us_per_delivery":
            (daemon.usage().cpu_s - cpu) * 1e6 / deliveries.max(1) as f64,
        "harness_cpu_s": own_cpu_s() - own, "span_s": started.elapsed().as_secs_f64(),
        "delivery": percentiles(times),
    })
}

async fn produce(daemon: &Daemon, sent: &Sent, users: usize, rate: u32) {
    let records = sent.lock().expect("no holder panics").capacity();
    let mut kafka = Kafka::connect(daemon.kafka).await;
    let mut ticks = (rate > 0).then(|| interval(Duration::from_secs(1) / rate));
    for id in 0..records {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        sent.lock().expect("no holder panics").push(Instant::now());
        kafka.send("task-events", vec![event(id, id % users)], 1).await;
        kafka.settle(IN_FLIGHT - 1).await;
    }
    kafka.settle(0).await;
}

fn event(id: usize, user: usize) -> Bytes {
    format!(
        r#"{{"type":"task_created","data":{{"id":{id},"title":"fan {id}","user_id":"user-{user}"}}}}"#
    )
    .into()
}

/// An open socket whose handshake has been read.
async fn open(daemon: &Daemon, user: usize) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.http).await.expect("it listens");
    let token = daemon.token(&format!("user-{user}"));
    let request = upgrade(daemon.http, &format!("token={token}"));
    stream.write_all(request.as_bytes()).await.expect("taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "an upgrade");
    stream
}

/// How long each of the records was on its way to this socket. Frames are told apart by their
/// lengths alone: reading must cost less than what is measured.
async fn read(
    mut stream: TcpStream,
    sent: Sent,
    records: Vec<usize>,
) -> (Vec<Duration>, TcpStream) {
    let (mut times, mut buffer) = (Vec::with_capacity(records.len()), BytesMut::new());
    while times.len() < records.len() {
        // The first may be long in coming: other sockets are opened, and other users written to.
        let patience = if times.is_empty() { QUIET * 20 } else { QUIET };
        match timeout(patience, stream.read_buf(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => (),
            _ => break,
        }
        let arrived = Instant::now();
        let sent = sent.lock().expect("no holder panics");
        while let Some(is_text) = take_frame(&mut buffer) {
            if is_text {
                times.push(arrived - sent[records[times.len()]]);
            }
        }
    }
    (times, stream)
}

/// Takes a whole frame from the front, and says whether it is text (RFC 6455, 5.2).
fn take_frame(buffer: &mut BytesMut) -> Option<bool> {
    let (first, short) = (*buffer.first()?, *buffer.get(1)?);
    let (head, length) = match short {
        126 => {
            let length = buffer.get(2..4)?;
            (4, usize::from(u16::from_be_bytes([length[0], length[1]])))
        }
        127 => unreachable!("no message is so long here"),
        short => (2, usize::from(short)),
    };
    if buffer.len() < head + length {
        return None;
    }
    buffer.advance(head + length);
    Some(first == 0x81)
}
