//! Tests of apply through its door, on a log and a store in memory.

use super::{
    double::{Fuse, MemoryLog, MemoryStore, State, dlq, offset, topic},
    *,
};
use crate::{
    hub::PublishedChange,
    position::{Offset, Partition, TopicPartition},
    shutdown,
    store::{Outcome, Processed},
    task::transition::{Reason, TaskState},
};
use proptest::prelude::*;
use std::sync::{Mutex, atomic::Ordering};
use tokio::task::JoinHandle;

const WAIT_MS: i64 = 600_000;

/// A log, a store, and what the hub was told.
pub(super) struct World {
    pub(super) log: Arc<MemoryLog>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) fuse: Fuse,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) published: Arc<Mutex<Vec<PublishedChange>>>,
    pub(super) starts_at_latest: bool,
}

/// A worker that runs.
pub(super) struct Run {
    pub(super) applied: Applied,
    pub(super) worker: JoinHandle<Result<(), ApplyError>>,
    pub(super) trigger: shutdown::Trigger,
}

impl Run {
    pub(super) async fn stop(self) -> Result<(), ApplyError> {
        self.trigger.fire();
        self.worker.await.unwrap()
    }

    pub(super) async fn caught_up(&self) {
        let mut progress = self.applied.progress();
        progress.wait_for(|progress| progress.is_caught_up).await.unwrap();
    }
}

impl World {
    pub(super) fn new(partitions: u32) -> Self {
        Self::with_fuse(partitions, i64::MAX)
    }

    fn with_fuse(partitions: u32, steps: i64) -> Self {
        let fuse = Fuse::new(steps);
        Self {
            log: MemoryLog::new(partitions, fuse.clone()),
            store: MemoryStore::new(fuse.clone()),
            fuse,
            clock: Clock::manual(1_000_000),
            metrics: Arc::default(),
            published: Arc::default(),
            starts_at_latest: false,
        }
    }

    pub(super) fn start(&self) -> Run {
        let (trigger, shutdown) = shutdown::pair();
        let published = Arc::clone(&self.published);
        let options = Options {
            topic: topic(),
            starts_at_latest: self.starts_at_latest,
            waiting_timeout: Duration::from_millis(WAIT_MS.cast_unsigned()),
            due_soon: None,
            checkpoint_records: 4,
            checkpoint_interval: Duration::from_secs(5),
        };
        let (applied, worker) = run(Parts {
            options,
            feed: self.log.clone(),
            store: self.store.clone(),
            publish: Box::new(move |changes| published.lock().unwrap().extend(changes)),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
            shutdown,
        });
        Run { applied, worker, trigger }
    }

    /// Applies all that is in the log.
    pub(super) async fn drain(&self) -> State {
        self.start().stop().await.unwrap();
        self.store.state()
    }

    pub(super) fn send(&self, value: &str) {
        let at = self.log.records(&topic()).len();
        self.log.produce(0, Some(value), i64::try_from(at).unwrap());
    }

    /// Source offset and reason of every dead letter.
    pub(super) fn letters(&self) -> Vec<(i64, String)> {
        let letters = self.log.records(&dlq());
        let header = |letter: &crate::feed::FeedRecord, name: &str| {
            let found = letter.headers.iter().find(|(known, _)| known == name).unwrap();
            String::from_utf8(found.1.as_ref().unwrap().to_vec()).unwrap()
        };
        letters
            .iter()
            .map(|letter| {
                let offset = header(letter, letter::SOURCE_OFFSET_HEADER).parse().unwrap();
                (offset, header(letter, letter::REASON_HEADER))
            })
            .collect()
    }
}

pub(super) fn messages(state: &State) -> Vec<String> {
    let text = |change: &crate::store::NewChange| {
        let mut whole = change.message.to_vec();
        whole.push(b'}');
        let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        format!("{} {}", json["type"].as_str().unwrap(), json["event_id"].as_str().unwrap())
    };
    state.changes.iter().map(text).collect()
}

fn task(state: &State, id: &str) -> crate::task::Task {
    match &state.tasks[&crate::task::TaskId::new(id).unwrap()] {
        TaskState::Present { task, .. } => task.clone(),
        other => panic!("no task: {other:?}"),
    }
}

pub(super) fn created(event_id: &str, id: &str, title: &str) -> String {
    format!(
        r#"{{"type":"task_created","event_id":"{event_id}",
            "data":{{"id":"{id}","title":"{title}","user_id":"u"}}}}"#
    )
}

pub(super) fn event(event_type: &str, event_id: &str, data: &str) -> String {
    format!(r#"{{"type":"{event_type}","event_id":"{event_id}","data":{data}}}"#)
}

#[tokio::test(start_paused = true)]
async fn events_become_tasks_changes_and_messages() {
    let world = World::new(1);
    world.send(&created("e0", "t", "a"));
    world.send(&event("task_completed", "e1", r#"{"id":"t","completed":true}"#));
    world.send(r#"{"type":"task_deleted","data":{"id":"t"}}"#);
    world.send(
        r#"{"type":"price","data":{"user_id":"v",
        "p":1}}"#,
    );
    world.send(r#"{"type":"price","data":{"p":1}}"#);
    let state = world.drain().await;
    let expected = [
        "task_created e0",
        "task_completed e1",
        "task_deleted task-events/0/2",
        "price task-events/0/3",
    ];
    assert_eq!(messages(&state), expected);
    let deleted = concat!(
        r#"{"type":"task_deleted","data":{"id":"t","user_id":"u","version":3},"#,
        r#""event_id":"task-events/0/2","time":"1970-01-01T00:00:00.002Z""#,
    );
    assert_eq!(state.changes[2].message, deleted);
    assert!(!state.changes[3].message.contains(&b'\n'));
    assert_eq!(world.metrics.apply_ignored.get(), 1);
    let published = world.published.lock().unwrap();
    let sequences: Vec<_> = published.iter().map(|change| change.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    assert_eq!(published[0].user_id.as_str(), "u");
    assert_eq!(state.processed.values().next().map(|p| p.next), Some(offset(5)));
    let told = world.log.progress.lock().unwrap()[&Partition::ZERO];
    assert_eq!(told, (offset(5), offset(5)));
    assert!(world.log.syncs.load(Ordering::Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_completion_before_its_creation_is_applied_after_it() {
    for records_apart in [0, 10] {
        let world = World::new(1);
        world.send(&event("task_completed", "e1", r#"{"id":"t"}"#));
        world.send(&event("task_updated", "e2", r#"{"id":"t","title":"b"}"#));
        for _ in 0..records_apart {
            world.send(r#"{"type":"other"}"#);
        }
        world.send(&event("task_completed", "e1", r#"{"id":"t"}"#));
        world.send(&created("e0", "t", "a"));
        world.send(&event("task_updated", "e2", r#"{"id":"t","title":"b"}"#));
        let state = world.drain().await;
        let expected = ["task_created e0", "task_completed e1", "task_updated e2"];
        assert_eq!(messages(&state), expected);
        let task = task(&state, "t");
        assert_eq!((task.title.as_str(), task.completed, task.version), ("b", true, 3));
        assert_eq!(task.completed_at, Some(0));
        assert_eq!((state.waiting.len(), world.letters()), (0, vec![]));
        assert_eq!(world.metrics.apply_duplicates.get(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_too_long_is_a_dead_letter_and_a_younger_one_waits_on() {
    let world = World::new(1);
    world.send(&event("task_completed", "e1", r#"{"id":"t"}"#));
    let run = world.start();
    run.caught_up().await;
    world.clock.set(1_000_000 + WAIT_MS);
    world.send(&event("task_updated", "e2", r#"{"id":"t","title":"b"}"#));
    let mut outcome = run.applied.expect(EventId::new("e1").unwrap());
    wait_until(|| world.store.state().waiting.len() == 2).await;
    assert_eq!(world.letters(), []);
    world.clock.set(1_000_000 + WAIT_MS + 1);
    assert_eq!(outcome.outcome().await, Some(Outcome::DeadLetter(Reason::WaitExpired)));
    assert_eq!(world.letters(), [(0, "wait_expired".to_owned())]);
    world.store.crash();
    assert_eq!(world.store.state().waiting.len(), 1);
    // A dead letter that is sent again is no duplicate of itself.
    world.send(&created("e0", "t", "a"));
    world.send(&event("task_completed", "e1", r#"{"id":"t"}"#));
    run.stop().await.unwrap();
    let expected = ["task_created e0", "task_updated e2", "task_completed e1"];
    assert_eq!(messages(&world.store.state()), expected);
}

#[tokio::test(start_paused = true)]
async fn too_many_waiting_events_are_dead_letters() {
    let world = World::new(1);
    for number in 0..=WAITING_MAX {
        let value = format!(r#"{{"type":"task_deleted","data":{{"id":{number}}}}}"#);
        world.log.produce(0, Some(&value), 0);
    }
    let state = world.drain().await;
    let last = i64::try_from(WAITING_MAX).unwrap();
    assert_eq!(world.letters(), [(last, "wait_overflow".to_owned())]);
    assert_eq!(state.waiting.len(), usize::try_from(last).unwrap());
}

#[tokio::test(start_paused = true)]
async fn poison_never_stops_the_partition() {
    let world = World::new(1);
    let deep = "[".repeat(100_000);
    let poison: [(Option<&str>, &str); 8] = [
        (None, "null_value"),
        (Some(""), "invalid_json"),
        (Some("nonsense"), "invalid_json"),
        (Some(&deep), "invalid_json"),
        (Some("[1]"), "invalid_json"),
        (Some("{}"), "invalid_event"),
        (Some(r#"{"type":"task_created","data":{"id":1,"title":"a"}}"#), "missing_user"),
        (Some(r#"{"type":"task_updated","data":{"id":{}}}"#), "invalid_event"),
    ];
    for (value, _) in poison {
        world.log.produce(0, value, 7);
    }
    world.log.damage(Some(&bytes::Bytes::from_static(b"raw")));
    world.log.damage(None);
    world.send(&created("e", "1000000000000000000000000000000", "a"));
    let state = world.drain().await;
    assert_eq!(state.tasks.len(), 1);
    let reasons = poison.iter().map(|(_, reason)| *reason).chain(["corrupt_record", "hole"]);
    let expected: Vec<_> =
        reasons.enumerate().map(|(at, r)| (i64::try_from(at).unwrap(), r.to_owned())).collect();
    assert_eq!(sorted(world.letters()), expected);
    let letters = world.log.records(&dlq());
    let nonsense = letters.iter().find(|l| l.value.as_deref() == Some(b"nonsense")).unwrap();
    assert_eq!(nonsense.key.as_deref(), Some(b"k".as_slice()));
    assert!(nonsense.headers.contains(&("h".into(), Some("v".into()))));
    assert!(
        nonsense.headers.contains(&("taskwire-event-id".into(), Some("task-events/0/2".into())))
    );
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_dead_letters_with_their_reasons() {
    let world = World::new(1);
    world.send(&created("e0", "t", "a"));
    world.send(&created("e1", "t", "b"));
    world.send(&created("e0", "x", "x"));
    world.send(&event("task_updated", "e2", r#"{"id":"t","title":"b","user_id":"v"}"#));
    world.send(&event("task_deleted", "e3", r#"{"id":"t"}"#));
    world.send(&event("task_updated", "e4", r#"{"id":"t","title":"b"}"#));
    world.send(&created("e5", "t", "a"));
    let state = world.drain().await;
    assert_eq!(messages(&state), ["task_created e0", "task_deleted e3"]);
    let expected =
        [(1, "task_conflict"), (2, "event_id_reused"), (3, "wrong_user"), (5, "task_deleted")];
    assert_eq!(sorted(world.letters()), expected.map(|(at, reason)| (at, reason.to_owned())));
    let reused = &state.events[&EventId::new("e0").unwrap()];
    assert_eq!(reused.outcome, Outcome::Applied { sequence: 1 });
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_the_outcome() {
    let world = World::new(1);
    world.send(&created("e0", "t", "a"));
    let run = world.start();
    run.caught_up().await;
    let id = |text| EventId::new(text).unwrap();
    let mut refused = run.applied.expect(id("e1"));
    let mut applied = run.applied.expect(id("e2"));
    let mut same = run.applied.expect(id("e3"));
    let mut never = run.applied.expect(id("e4"));
    let data = r#"{"id":"t","completed":true}"#;
    world.send(&format!(
        r#"{{"type":"task_completed","event_id":"e1","expected_version":9,"data":{data}}}"#
    ));
    world.send(&event("task_completed", "e2", data));
    world.send(&event("task_completed", "e3", data));
    assert_eq!(refused.outcome().await, Some(Outcome::VersionMismatch));
    assert_eq!(applied.outcome().await, Some(Outcome::Applied { sequence: 2 }));
    assert_eq!(same.outcome().await, Some(Outcome::Applied { sequence: 2 }));
    assert_eq!(world.letters(), []);
    run.stop().await.unwrap();
    assert_eq!(never.outcome().await, None);
}

#[tokio::test(start_paused = true)]
async fn of_two_events_with_one_id_each_hears_its_own_outcome() {
    let world = World::new(1);
    let run = world.start();
    let decode =
        |value: &str| crate::task::event::decode::<&[u8]>(Some(value.as_bytes()), &[]).unwrap();
    let (first, second) = (created("e", "t", "a"), created("e", "t", "b"));
    let mut second_outcome = run.applied.expect_event(&decode(&second));
    let mut first_outcome = run.applied.expect_event(&decode(&first));
    world.send(&first);
    world.send(&second);
    assert_eq!(first_outcome.outcome().await, Some(Outcome::Applied { sequence: 1 }));
    let reused = Outcome::DeadLetter(Reason::EventIdReused);
    assert_eq!(second_outcome.outcome().await, Some(reused));
    run.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_store_and_a_failing_log_are_tried_again() {
    let world = World::new(1);
    world.store.full.store(3, Ordering::Relaxed);
    let errors = vec![FeedError::TooLarge, FeedError::TooLarge, FeedError::Full];
    *world.log.publish_errors.lock().unwrap() = errors;
    world.send("nonsense");
    world.send("rubbish");
    world.send(&created("e", "t", "a"));
    let run = world.start();
    run.caught_up().await;
    run.stop().await.unwrap();
    assert_eq!(messages(&world.store.state()), ["task_created e"]);
    // The first went out before the error; the second was too large until it was bare.
    let json = "invalid_json".to_owned();
    assert_eq!(sorted(world.letters()), [(0, json.clone()), (1, json)]);
    let letters = world.log.records(&dlq());
    assert_eq!(letters[1].value, None);
    assert!(letters[1].headers.contains(&("taskwire-omitted-bytes".into(), Some("7".into()))));
}

#[tokio::test(start_paused = true)]
async fn a_store_outside_the_log_ends_apply() {
    for (processed, log_start) in [(3, 0), (0, 1)] {
        let world = World::new(1);
        world.send(r#"{"type":"other"}"#);
        world.log.log_start.store(log_start, Ordering::Relaxed);
        let place = TopicPartition { topic: topic(), partition: Partition::ZERO };
        let at = Processed { next: offset(processed), leader_epoch: 0 };
        let writes = crate::store::WriteSet { processed: vec![(place, at)], ..Default::default() };
        world.store.commit(writes, crate::store::CommitDurability::Immediate).await.unwrap();
        let ended = world.start().worker.await.unwrap();
        assert!(matches!(ended, Err(ApplyError::OutsideLog { .. })), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_store_starts_where_it_is_told() {
    for (starts_at_latest, expected) in [(false, 2), (true, 1)] {
        let world = World { starts_at_latest, ..World::new(1) };
        world.send(&created("e0", "t0", "a"));
        let run = world.start();
        run.caught_up().await;
        world.store.crash();
        if starts_at_latest {
            assert_eq!(world.store.state().processed.values().next().unwrap().next, offset(1));
        }
        run.worker.abort();
        world.send(&created("e1", "t1", "a"));
        assert_eq!(world.drain().await.tasks.len(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_are_merged_and_may_grow() {
    let world = World::new(2);
    for number in 0..40 {
        let value = created(&format!("e{number}"), &format!("t{number}"), "a");
        world.log.produce(number % 2, Some(&value), 0);
    }
    let run = world.start();
    run.caught_up().await;
    world.log.produce(2, Some(&created("x", "x", "a")), 0);
    world.log.grow(3);
    wait_until(|| world.store.state().tasks.len() == 41).await;
    run.stop().await.unwrap();
    assert_eq!(world.store.state().processed.len(), 3);
    let ends: Vec<Offset> = world.store.state().processed.values().map(|p| p.next).collect();
    assert_eq!(ends.iter().map(|end| end.get()).sum::<i64>(), 41);
}

/// Events that touch every path, in one partition.
fn history() -> Vec<Option<String>> {
    let mut events = vec![
        Some(event("task_completed", "w1", r#"{"id":"t"}"#)),
        Some("nonsense".to_owned()),
        Some(created("e0", "t", "a")),
        None,
        Some(created("e0", "t", "a")),
        Some(event("task_updated", "e1", r#"{"id":"t","title":"b"}"#)),
        Some(event("task_updated", "w2", r#"{"id":"v","title":"b","user_id":"other"}"#)),
        Some(event("task_priority_changed", "e2", r#"{"id":"t","priority":"low"}"#)),
        Some(created("e3", "t", "other")),
        Some(created("e4", "v", "a")),
        Some(event("task_deleted", "e5", r#"{"id":"t"}"#)),
        Some(event("task_deleted", "e6", r#"{"id":"t"}"#)),
        Some(event("task_deleted", "w3", r#"{"id":"never"}"#)),
        Some(r#"{"type":"price","data":{"user_id":"u"}}"#.to_owned()),
        Some("{}".to_owned()),
    ];
    events.extend((0..9).map(|n| Some(created(&format!("c{n}"), &format!("c{n}"), "a"))));
    events
}

fn fill(world: &World, events: &[Option<String>]) {
    for (at, value) in events.iter().enumerate() {
        world.log.produce(0, value.as_deref(), i64::try_from(at).unwrap());
    }
}

#[track_caller]
fn check_same(killed: &World, whole: &World, step: i64) {
    let (state, expected) = (killed.store.state(), whole.store.state());
    assert_eq!(state.tasks, expected.tasks, "killed at step {step}");
    assert_eq!(state.changes, expected.changes, "killed at step {step}");
    assert_eq!(state.events, expected.events, "killed at step {step}");
    assert_eq!(state.waiting, expected.waiting, "killed at step {step}");
    assert_eq!(state.processed, expected.processed, "killed at step {step}");
    assert_eq!(sorted(killed.letters()), sorted(whole.letters()), "killed at step {step}");
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_step_changes_nothing_in_the_end() {
    let whole = World::new(1);
    fill(&whole, &history());
    whole.drain().await;
    let mut kills = 0;
    for step in 0.. {
        let world = World::with_fuse(1, step);
        fill(&world, &history());
        let mut run = world.start();
        run.trigger.fire();
        tokio::select! {
            ended = &mut run.worker => {
                ended.unwrap().unwrap();
                break;
            }
            () = world.fuse.blown() => run.worker.abort(),
        }
        kills += 1;
        // The second life is killed too, and finds letters of the first.
        world.store.crash();
        world.fuse.set(step / 2);
        let mut second = world.start();
        second.trigger.fire();
        tokio::select! {
            // It had fewer steps left to take.
            ended = &mut second.worker => ended.unwrap().unwrap(),
            () = world.fuse.blown() => second.worker.abort(),
        }
        world.store.crash();
        world.fuse.mend();
        world.drain().await;
        check_same(&world, &whole, step);
    }
    assert!(kills > 20, "{kills} kills");
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_is_killed_happens_once() {
    let mut kills = 0;
    for step in 0.. {
        let world = World::new(1);
        world.send(&event("task_completed", "w", r#"{"id":"t"}"#));
        world.drain().await;
        world.clock.set(1_000_000 + 2 * WAIT_MS);
        world.fuse.set(step);
        let mut run = world.start();
        let mut outcome = run.applied.expect(EventId::new("w").unwrap());
        let is_killed = tokio::select! {
            told = outcome.outcome() => {
                assert_eq!(told, Some(Outcome::DeadLetter(Reason::WaitExpired)));
                false
            }
            () = world.fuse.blown() => true,
        };
        run.worker.abort();
        drop((&mut run.worker).await);
        world.fuse.mend();
        world.store.crash();
        let waiting = world.store.state().waiting;
        let is_decided = waiting.iter().all(|event| event.since_ms == plan::EXPIRED_SINCE_MS);
        assert!(is_decided || world.letters().is_empty(), "step {step}: seen before it lasts");
        world.send(&created("e", "t", "a"));
        let state = world.drain().await;
        // Killed before the end of its wait was durable, the event found its task after all.
        let (letters, changes) = if is_decided {
            (vec![(0, "wait_expired".to_owned())], vec!["task_created e"])
        } else {
            (vec![], vec!["task_created e", "task_completed w"])
        };
        assert_eq!(world.letters(), letters, "step {step}");
        assert_eq!(messages(&state), changes, "step {step}");
        assert_eq!(state.waiting.len(), 0, "step {step}");
        if !is_killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 4, "{kills} kills");
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_still_forgotten_after_a_kill() {
    let world = World::new(1);
    world.store.forgets_ids.store(true, Ordering::Relaxed);
    let pushed = event("news", "n", r#"{"user_id":"u"}"#);
    // As many as a checkpoint takes, which then trims.
    for value in [&pushed, "1", "2", "3"] {
        world.send(value);
    }
    let mut run = world.start();
    let durable = || world.log.progress.lock().unwrap().get(&Partition::ZERO).copied();
    wait_until(|| durable().is_some_and(|(_, durable)| durable == offset(4))).await;
    // Its id is forgotten, so it is told a second time.
    world.send(&pushed);
    wait_until(|| world.published.lock().unwrap().len() == 2).await;
    let told = messages(&world.store.state());
    run.worker.abort();
    drop((&mut run.worker).await);
    world.store.crash();
    assert_eq!(messages(&world.drain().await), told, "the replay gives each sequence back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn events_sent_again_in_any_order_change_nothing(
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        // Only events with ids, and that are applied: dead letters may well come again.
        let events: Vec<_> = (0..6)
            .flat_map(|n| {
                let id = format!("t{}", n % 3);
                let update = format!(r#"{{"id":"{id}","title":"title {n}"}}"#);
                let create = created(&format!("c{}", n % 3), &id, "a");
                [Some(create), Some(event("task_updated", &format!("u{n}"), &update))]
            })
            .collect();
        let (whole, world) = (World::new(1), World::new(1));
        fill(&whole, &events);
        fill(&world, &events);
        for index in again {
            world.log.produce(0, index.get(&events).as_deref(), 99);
        }
        runtime.block_on(async {
            let (expected, state) = (whole.drain().await, world.drain().await);
            assert_eq!(state.tasks, expected.tasks);
            assert_eq!(state.changes, expected.changes);
            assert_eq!(state.events, expected.events);
            assert_eq!(world.letters(), []);
        });
    }
}

fn sorted(mut letters: Vec<(i64, String)>) -> Vec<(i64, String)> {
    letters.sort();
    letters
}

/// Lets the workers run until `is_true`, within a minute of the paused clock.
async fn wait_until(is_true: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if is_true() {
            return;
        }
        tokio::time::advance(Duration::from_millis(10)).await;
        tokio::task::yield_now().await;
    }
    panic!("it did not come true");
}
