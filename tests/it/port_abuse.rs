//! Port 9092 of the real binary under slow, greedy and senseless peers: a real producer goes on,
//! memory is bounded, and the daemon lives.

use crate::support::{TestDaemon, eventually, kafka};
use bytes::Bytes;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// Produces one small batch after the other; gives the time of each, sorted.
async fn produced(daemon: &TestDaemon, topic: &str, count: usize) -> Vec<Duration> {
    let mut client = daemon.kafka_client().await;
    client.make_topic(topic).await;
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        client.produce(topic, &[Bytes::from(vec![b'x'; 500])]).await;
        times.push(began.elapsed());
    }
    times.sort();
    times
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

/// How a slow peer behaves.
#[derive(Clone, Copy)]
enum Slow {
    Silent,
    Half,
    Dripping,
}

/// Holds a connection until the daemon ends it.
async fn slow_peer(daemon: std::net::SocketAddr, how: Slow) {
    let mut stream = TcpStream::connect(daemon).await.expect("it listens");
    let frame = [&1_000_000_u32.to_be_bytes()[..], &[0; 20_000]].concat();
    match how {
        Slow::Silent => (),
        Slow::Half => drop(stream.write_all(&frame).await), // it may be cut already
        Slow::Dripping => {
            for byte in frame {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await); // a reset is an end, too
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_slow_peers_delay_no_producer_and_end_in_time() {
    let daemon = TestDaemon::start_with(&["--kafka-frame-timeout", "3s"]).await;
    let calm = produced(&daemon, "calm", 300).await;
    let before = resident_kb(daemon.pid());
    let mut slow = JoinSet::new();
    for how in [Slow::Silent, Slow::Half, Slow::Dripping].into_iter().cycle().take(200) {
        slow.spawn(slow_peer(daemon.kafka, how));
    }
    let open = eventually("the slow peers are connected", async || {
        Some(sockets(daemon.pid())).filter(|open| *open >= 200)
    });
    open.await;
    let among = produced(&daemon, "among", 300).await;
    let grown = resident_kb(daemon.pid()).saturating_sub(before);
    assert!(grown < 30_000, "{grown} KB for 200 slow peers");
    // Bounds of a shared machine: the slow ones must not show as a wait.
    let allowed = p99(&calm) * 3 + Duration::from_millis(50);
    assert!(p99(&among) < allowed, "calm {:?}, among {:?}", p99(&calm), p99(&among));
    let ended = timeout(Duration::from_secs(20), slow.join_all()).await;
    assert!(ended.is_ok(), "slow peers are still connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_ninety_mebibytes_and_floods_of_large_halves_take_bounded_memory() {
    let daemon = TestDaemon::start().await;
    let mut good = daemon.kafka_client().await;
    good.make_topic("good").await;
    let before = resident_kb(daemon.pid());
    for _ in 0..20 {
        let claim = (90_u32 << 20).to_be_bytes();
        let answer = daemon.kafka_client().await.raw(&claim).await;
        assert_eq!(answer.as_deref(), Some(&[][..]), "a claim above the bound");
    }
    // As large as they may be, all but the last byte: four hundred times the budget is sent.
    let mut floods = JoinSet::new();
    for _ in 0..40 {
        let address = daemon.kafka;
        floods.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let part = vec![0; 1 << 20];
            drop(stream.write_all(&(16_u32 << 20).to_be_bytes()).await);
            for _ in 0..15 {
                if stream.write_all(&part).await.is_err() {
                    return;
                }
            }
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await); // a reset is an end, too
        });
    }
    let mut most = 0;
    for _ in 0..200 {
        good.produce("good", &[Bytes::from("x")]).await;
        most = most.max(resident_kb(daemon.pid()).saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(most < 160_000, "{most} KB at a budget of 64 MiB");
    floods.abort_all();
}

/// Every key, with bytes that make no sense, on new connections: random, cut, and flipped frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senseless_requests_of_every_key_never_end_the_daemon() {
    let daemon = TestDaemon::start().await;
    let mut good = daemon.kafka_client().await;
    good.make_topic("good").await;
    let before = resident_kb(daemon.pid());
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..6 {
        for key in 0..80_i16 {
            let version = i16::try_from(random() % 14).expect("small");
            let length = usize::try_from(random() % 300).expect("small");
            // Small numbers make counts and lengths that are believed.
            let body = (0..length).map(|_| {
                let byte = random();
                if byte & 0x700 == 0 { byte.to_le_bytes()[0] } else { byte.to_le_bytes()[0] & 3 }
            });
            let mut frame = vec![0; 4];
            frame.extend(key.to_be_bytes());
            frame.extend(version.to_be_bytes());
            frame.extend([0, 0, 0, 1, 0xff, 0xff]);
            frame.extend(body);
            let length = u32::try_from(frame.len() - 4).expect("small");
            frame[..4].copy_from_slice(&length.to_be_bytes());
            let mut stream = TcpStream::connect(daemon.kafka).await.expect("it listens");
            drop(stream.write_all(&frame).await); // it may be closed in the middle
            drop(stream.shutdown().await);
            let mut answer = Vec::new();
            let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "round {round} key {key} version {version}: no end");
        }
        good.produce("good", &[Bytes::from("x")]).await;
    }
    let grown = resident_kb(daemon.pid()).saturating_sub(before);
    assert!(grown < 60_000, "{grown} KB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_nobody_is_accepted_and_nothing_spins() {
    let daemon = TestDaemon::start().await;
    let mut good = daemon.kafka_client().await;
    good.make_topic("good").await;
    good.produce("good", &[Bytes::from("x")]).await;
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid")).expect("not zero");
    let in_use = u64::try_from(descriptors(daemon.pid())).expect("few");
    let none_left = Rlimit { current: Some(in_use), maximum: Some(20_000) };
    let usual = prlimit(Some(pid), Resource::Nofile, none_left).expect("our own child");
    let mut refused = Vec::new();
    for _ in 0..20 {
        // The kernel takes the connection; nobody accepts it.
        refused.push(TcpStream::connect(daemon.kafka).await.expect("a backlog"));
    }
    let (began, lines) = (cpu_ticks(daemon.pid()), daemon.log().lines().count());
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        good.produce("good", &[Bytes::from("x")]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = daemon.log();
    assert!(log.contains("cannot accept connections"), "{log}");
    let (spent, said) = (cpu_ticks(daemon.pid()) - began, log.lines().count() - lines);
    assert!(spent < 100, "{spent} ticks of 10 ms in 2 s");
    assert!(said < 10, "{said} lines");
    prlimit(Some(pid), Resource::Nofile, usual).expect("our own child");
    produced(&daemon, "after", 1).await;
}

#[tokio::test]
async fn a_byte_behind_a_large_request_does_not_keep_its_memory() {
    let daemon = TestDaemon::start().await;
    let mut good = daemon.kafka_client().await;
    good.make_topic("good").await;
    let large = [Bytes::from(vec![b'x'; 900_000])];
    for _ in 0..8 {
        good.produce("good", &large).await;
    }
    let before = resident_kb(daemon.pid());
    let mut open = Vec::new();
    for _ in 0..60 {
        let mut client = daemon.kafka_client().await;
        client.produce_and_begin_another("good", &large).await;
        open.push(client);
    }
    let grown = resident_kb(daemon.pid()).saturating_sub(before);

    assert!(grown < 30_000, "{grown} KB for 60 bytes");
}

#[tokio::test]
async fn greedy_fetches_whose_answers_nobody_reads_take_bounded_memory() {
    let daemon = TestDaemon::start().await;
    let mut good = daemon.kafka_client().await;
    good.make_topic("good").await;
    for _ in 0..12 {
        good.produce("good", &[Bytes::from(vec![b'x'; 1_000_000])]).await;
    }
    let before = resident_kb(daemon.pid());
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let mut client = daemon.kafka_client().await;
        client.begin_greedy_fetch("good").await;
        waiting.push(client);
    }
    let mut most = 0;
    for _ in 0..20 {
        good.produce("good", &[Bytes::from("x")]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(resident_kb(daemon.pid()).saturating_sub(before));
    }

    assert!(most < 330_000, "{most} KB for 200 fetches of 12 MB");
}

#[tokio::test]
async fn a_batch_of_a_million_tiny_records_does_not_fill_the_memory() {
    let daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    let before = resident_kb(daemon.pid());
    let count = 900_000;
    let bomb = kafka::tiny_records(count);
    assert!(bomb.len() < 1_000_000, "{}", bomb.len());
    let answer = client.try_produce("task-events", &bomb).await.expect("an answer");
    assert_eq!(answer.error_code, 0);
    let mut most = 0;
    let began = Instant::now();
    // Until apply has made dead letters of some; all of them would take minutes.
    while began.elapsed() < Duration::from_secs(60) {
        most = most.max(resident_kb(daemon.pid()).saturating_sub(before));
        let (_, dead_letters, _) = client.fetch("task-events.dlq", 0, 0).await;
        if dead_letters > 20_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(most < 250_000, "{most} KB for a batch of {count} records");
}

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

fn sockets(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let target = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    open.filter_map(target).filter(|path| path.to_string_lossy().starts_with("socket")).count()
}

/// User and system time, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit(')').next().expect("a name");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |at: usize| fields[at].parse::<u64>().expect("a number");
    field(11) + field(12)
}
