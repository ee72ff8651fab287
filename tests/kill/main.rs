//! The kill loop: everyone writes, reads and resumes while the real binary is killed (SIGKILL) at
//! random moments, during its recovery too; at the end what was acknowledged is compared with what
//! is there.
//!
//! `cargo test --test kill` runs 3 rounds; `cargo test --release --test kill -- --rounds 500
//! --seed 7` as many as you like. The seed decides what is sent and when it is killed; how the
//! machine interleaves it is not repeated.

mod compare;
mod consumer;
mod model;
mod producer;
mod random;
mod rest;
mod socket;
mod stream;
#[allow(dead_code, reason = "shared with tests/it, which uses the rest")]
#[path = "../it/support/mod.rs"]
mod support;

use compare::Evidence;
use random::Random;
use std::{
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};
use support::{TestDaemon, follow::Transport};
use tokio_util::sync::CancellationToken;

/// Rounds of a plain `cargo test`.
const ROUNDS: usize = 3;
/// A restart to a 200 of `/readyz` may take as long, on a machine that does other things as well.
const READY_MAX: Duration = Duration::from_secs(10);
/// The owner of the tasks that come by Kafka.
const KAFKA_USER: &str = "ada";
/// The owners of the tasks that come by REST.
const REST_USERS: [&str; 2] = ["rest-0", "rest-1"];

/// What every worker needs: where the daemon is (the ports stay), and when to end.
#[derive(Clone)]
struct Shared {
    http: SocketAddr,
    kafka: SocketAddr,
    /// No new writes.
    writers: CancellationToken,
    /// No more reads: all is applied.
    readers: CancellationToken,
}

struct Plan {
    rounds: usize,
    seed: u64,
}

#[allow(clippy::print_stdout, reason = "a test without a harness tells its result itself")]
fn main() -> ExitCode {
    let Some(plan) = plan() else {
        println!("kill loop: left out by the filter");
        return ExitCode::SUCCESS;
    };
    println!("kill loop: {} rounds, --seed {}", plan.rounds, plan.seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let told = runtime.expect("a runtime").block_on(run(&plan));
    println!("kill loop: {told}\ntest result: ok. 1 passed; 0 failed");
    ExitCode::SUCCESS
}

/// From the arguments; those of `cargo test`'s own harness are passed over, and a name filter that
/// is not ours leaves the loop out.
fn plan() -> Option<Plan> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = u64::from(clock.expect("after 1970").subsec_nanos());
    let mut plan = Plan { rounds: ROUNDS, seed };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).expect("a number");
        match argument.as_str() {
            "--rounds" => plan.rounds = usize::try_from(number()).expect("a number"),
            "--seed" => plan.seed = number(),
            "--list" => return None,
            "--test-threads" | "--skip" | "--format" | "--color" | "-Z" => drop(arguments.next()),
            filter if !filter.starts_with('-') && !"kill_loop".contains(filter) => return None,
            _ => (),
        }
    }
    Some(plan)
}

async fn run(plan: &Plan) -> String {
    let mut random = Random::new(plan.seed);
    let mut daemon = TestDaemon::start().await;
    let shared = Shared {
        http: daemon.http,
        kafka: daemon.kafka,
        writers: CancellationToken::new(),
        readers: CancellationToken::new(),
    };
    let crew = Crew::start(&daemon, &shared, &mut random);
    let mut starts = Vec::new();
    let mut kills = 0;
    for _ in 0..plan.rounds {
        tokio::time::sleep(random.millis(50, 1_500)).await;
        daemon.kill();
        kills += 1;
        while random.below(2) == 0 {
            daemon.launch();
            tokio::time::sleep(random.millis(0, 150)).await; // somewhere in its recovery
            daemon.kill();
            kills += 1;
        }
        let started = Instant::now();
        daemon.restart().await;
        starts.push(started.elapsed());
    }
    let slowest = starts.iter().max().copied().unwrap_or_default();
    assert!(slowest < READY_MAX, "a restart took {slowest:?}");
    let evidence = crew.finish(&daemon, &shared).await;
    let told = evidence.compare(&daemon).await;
    assert!(daemon.terminate().success(), "{}", daemon.log());
    daemon.restart().await;
    evidence.compare(&daemon).await;
    assert!(daemon.terminate().success(), "{}", daemon.log());
    starts.sort_unstable();
    let median = starts.get(starts.len() / 2).copied().unwrap_or_default();
    format!("{kills} kills; ready again after {median:.0?} (median), {slowest:.0?} (most); {told}")
}

/// Everyone who writes and reads.
struct Crew {
    producers: Vec<tokio::task::JoinHandle<producer::Ledger>>,
    rest: Vec<tokio::task::JoinHandle<rest::Model>>,
    consumer: tokio::task::JoinHandle<consumer::Committed>,
    sockets: Vec<tokio::task::JoinHandle<socket::Seen>>,
}

impl Crew {
    fn start(daemon: &TestDaemon, shared: &Shared, random: &mut Random) -> Self {
        let plain = (0..2)
            .map(|number| tokio::spawn(producer::plain(number, shared.clone(), random.fork())));
        let mut producers: Vec<_> = plain.collect();
        producers.push(tokio::spawn(producer::idempotent(shared.clone(), random.fork())));
        let rest = REST_USERS.map(|user| {
            let user = daemon.user(user);
            tokio::spawn(rest::write(user, shared.clone(), random.fork()))
        });
        let consumer = tokio::spawn(consumer::consume(shared.clone()));
        let loyal = [KAFKA_USER, REST_USERS[0], REST_USERS[1]];
        let mut sockets: Vec<_> = loyal
            .iter()
            .map(|user| {
                tokio::spawn(socket::follow(user, daemon.token(user), shared.clone(), None))
            })
            .collect();
        let hopping = Some(random.fork());
        let token = daemon.token(KAFKA_USER);
        sockets.push(tokio::spawn(socket::follow(KAFKA_USER, token, shared.clone(), hopping)));
        for (transport, user) in [
            (Transport::Socket, KAFKA_USER),
            (Transport::Events, KAFKA_USER),
            (Transport::Events, REST_USERS[0]),
            (Transport::Changes, KAFKA_USER),
        ] {
            let (token, shared) = (daemon.token(user), shared.clone());
            sockets.push(tokio::spawn(stream::follow(transport, user, token, shared)));
        }
        Self { producers, rest: rest.into(), consumer, sockets }
    }

    /// Ends the writers, waits until all is applied, then ends the readers.
    async fn finish(self, daemon: &TestDaemon, shared: &Shared) -> Evidence {
        shared.writers.cancel();
        let mut evidence = Evidence::default();
        for producer in self.producers {
            evidence.ledgers.push(producer.await.expect("a producer ends"));
        }
        for (user, writer) in REST_USERS.iter().zip(self.rest) {
            evidence.rest.insert((*user).to_owned(), writer.await.expect("a REST writer ends"));
        }
        // One partition: what is answered now is applied after all the rest.
        let last = daemon.user("last").post("/api/tasks", &serde_json::json!({"title": "x"})).await;
        assert_eq!(last.status, 201);
        shared.readers.cancel();
        evidence.committed = self.consumer.await.expect("the consumer ends");
        for socket in self.sockets {
            evidence.seen.push(socket.await.expect("a socket ends"));
        }
        evidence
    }
}
