//! Dead letters as a tool, and letters that others have forged.

use super::{
    double::{dlq, offset, topic},
    letter::Letter,
    letters::{BulkPlace, LetterId, LettersError},
    tests::{Run, World, created, event, messages},
    *,
};
use crate::{
    feed::FeedRecord,
    position::{Partition, RecordPosition},
    store::Outcome,
    store::letter::{LetterFilter, LetterState, StoredLetter},
    task::transition::Reason,
};
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// The clock of a [`World`].
const NOW_MS: i64 = 1_000_000;
const START: BulkPlace = BulkPlace { after: None, until_ms: i64::MAX };

fn id(at: usize) -> LetterId {
    LetterId { partition: Partition::ZERO, offset: offset(at) }
}

async fn state_of(run: &Run, at: usize) -> LetterState {
    run.applied.letters().show(id(at)).await.unwrap().0.state
}

async fn all(run: &Run) -> Vec<StoredLetter> {
    let page = run.applied.letters().list(&LetterFilter::default(), None, 1_000).await.unwrap();
    page.letters.into_iter().map(|(_, letter)| letter).collect()
}

/// The log has been applied to its end.
async fn settled(world: &World, run: &Run) {
    let mut outcome = run.applied.expect(EventId::new("marker").unwrap());
    world.send(&event("marker", "marker", r#"{"at":1}"#));
    outcome.outcome().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_sent_again_as_it_came_and_the_second_time_is_a_duplicate() {
    let world = World::new(1);
    // The task is there only when the letter is sent again.
    world.send(r#"{"type":"task_created","data":{"id":"t","title":"a","user_id":""}}"#);
    let headers = vec![
        (Bytes::from_static(b"\xff\x00"), None),
        (Bytes::from_static(b"taskwire-reason"), Some(Bytes::from_static(b"mine"))),
        (Bytes::from_static(b"\xff\x00"), Some(Bytes::from_static(b"\xfe"))),
    ];
    world.log.produce_record(0, |offset| FeedRecord {
        offset,
        timestamp_ms: 77,
        key: Some(Bytes::from_static(b"\x80key")),
        value: Some(Bytes::from_static(b"not json")),
        headers: headers.clone(),
    });
    let run = world.start();
    run.caught_up().await;
    let (stored, letter) = run.applied.letters().show(id(1)).await.unwrap();
    assert_eq!((stored.state, stored.reason), (LetterState::Open, Reason::InvalidJson));
    assert_eq!(letter.headers, headers);
    assert_eq!(letter.timestamp_ms, Some(77));

    let mended = Bytes::from(created("", "t", "b").replace(r#""event_id":"","#, ""));
    for is_first in [true, false] {
        let mut sent = run.applied.letters().redrive(id(1), Some(mended.clone())).await.unwrap();
        assert_eq!(sent.event_id.as_str(), "task-events/0/1");
        assert_eq!(sent.outcome.outcome().await, Some(Outcome::Applied { sequence: 1 }));
        assert_eq!(state_of(&run, 1).await, LetterState::Redriven);
        let record = world.log.records(&topic()).pop().unwrap();
        assert_eq!((record.key.as_deref(), record.timestamp_ms), (Some(&b"\x80key"[..]), 77));
        assert_eq!(record.value, Some(mended.clone()));
        assert_eq!(record.headers[..3], headers[..]);
        assert_eq!(world.metrics.apply_duplicates.get(), u64::from(!is_first));
    }
    world.store.crash();
    assert_eq!(world.store.state().letters.len(), 2);
    run.stop().await.unwrap();
    assert_eq!(messages(&world.store.state()), ["task_created task-events/0/1"]);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_is_killed_leaves_the_letter_open_and_can_be_repeated() {
    let mended = Bytes::from(created("e", "t", "b"));
    for is_noted in [false, true] {
        let world = World::new(1);
        world.send("not json");
        let run = world.start();
        run.caught_up().await;
        if is_noted {
            run.applied.letters().redrive(id(0), Some(mended.clone())).await.unwrap();
        } else {
            // What a kill between the publish and the note leaves.
            let (_, mut letter) = run.applied.letters().show(id(0)).await.unwrap();
            letter.value = Some(mended.clone());
            world.log.publish(letters::redriven(letter)).await.unwrap();
        }
        settled(&world, &run).await;
        run.worker.abort();
        world.store.crash();
        let run = world.start();
        run.caught_up().await;
        let expected = if is_noted { LetterState::Redriven } else { LetterState::Open };
        assert_eq!(state_of(&run, 0).await, expected);
        run.applied.letters().redrive(id(0), Some(mended.clone())).await.unwrap();
        assert_eq!(state_of(&run, 0).await, LetterState::Redriven);
        run.stop().await.unwrap();
        let state = world.store.state();
        assert_eq!(messages(&state), ["task_created task-events/0/0"]);
        assert_eq!(state.letters.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn letters_go_when_their_topic_has_let_go_of_them_or_long_after_they_were_ended() {
    let world = World::new(1);
    for number in 0..4 {
        world.send(&format!("not json {number}"));
    }
    let run = world.start();
    run.caught_up().await;
    run.applied.letters().dismiss(id(2)).await.unwrap();
    world.log.dlq_start.store(1, Ordering::Relaxed);
    world.clock.set(NOW_MS + 31 * 24 * 3_600_000);
    settled(&world, &run).await;
    run.stop().await.unwrap();
    let left: Vec<_> = world.store.state().letters.into_keys().map(|p| p.offset).collect();
    assert_eq!(left, [offset(1), offset(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_was_mended_is_not_sent_again_as_it_came() {
    let world = World::new(1);
    // Without a user, and so a letter; with one, the same event id has another content.
    let bad = created("e", "t", "a").replace("user_id", "user");
    world.send(&bad);
    let run = world.start();
    run.caught_up().await;
    let letters = run.applied.letters();
    let mended = Bytes::from(created("e", "t", "a"));
    letters.redrive(id(0), Some(mended.clone())).await.unwrap();
    let refused = letters.redrive(id(0), None).await;
    assert!(matches!(refused, Err(LettersError::Redriven)));
    letters.redrive(id(0), Some(mended)).await.unwrap();
    settled(&world, &run).await;
    assert_eq!(all(&run).await.len(), 1, "no new letter");
    run.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reused_event_id_is_applied_under_the_letters_own() {
    let world = World::new(1);
    world.send(&created("e", "t", "a"));
    world.send(&created("e", "x", "b"));
    let run = world.start();
    run.caught_up().await;
    run.applied.letters().redrive(id(0), None).await.unwrap();
    run.stop().await.unwrap();
    let state = world.store.state();
    assert_eq!(messages(&state), ["task_created e", "task_created task-events/0/1"]);
    assert_eq!(state.letters.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_open_letters_of_a_reason_are_sent_again() {
    let world = World::new(1);
    for number in 0..3 {
        world.send(&event("task_deleted", &format!("d{number}"), r#"{"id":"t","user_id":"v"}"#));
        world.send("not json");
    }
    world.send(&created("e", "t", "a"));
    world.log.damage(None);
    let run = world.start();
    run.caught_up().await;
    let letters = run.applied.letters();
    letters.dismiss(id(0)).await.unwrap();
    assert!(matches!(letters.dismiss(id(99)).await, Err(LettersError::NotFound)));
    let hole = all(&run).await.iter().position(|letter| letter.reason == Reason::Hole).unwrap();
    let refused = letters.redrive(id(hole), None).await;
    assert!(matches!(refused, Err(LettersError::NotARecord(Reason::Hole))));

    let done = letters.redrive_all(Some(Reason::WrongUser), START, NOW_MS).await.unwrap();
    assert_eq!((done.redriven, done.skipped, done.next), (3, 0, None));
    settled(&world, &run).await;
    // They are bad still, and new letters of the same events; two others were open, and the hole.
    let done = letters.redrive_all(None, START, NOW_MS).await.unwrap();
    assert_eq!((done.redriven, done.skipped), (5, 1));
    settled(&world, &run).await;
    // Of those that came since, none is taken by a redrive that began before.
    let before = BulkPlace { after: None, until_ms: 999_999 };
    assert_eq!(letters.redrive_all(None, before, NOW_MS).await.unwrap().redriven, 0);
    let dismissed = state_of(&run, 0).await;
    assert_eq!(dismissed, LetterState::Dismissed);
    letters.redrive(id(0), None).await.unwrap();
    assert!(matches!(letters.dismiss(id(0)).await, Err(LettersError::Redriven)));
    run.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_forged_letter_keeps_no_real_one_from_being_written() {
    let world = World::new(1);
    world.send("first");
    world.send("second");
    // Of a record that is there, of the very same record with another reason, and of one to come.
    let mut forged = Letter::of_record(
        &RecordPosition { topic: topic(), partition: Partition::ZERO, offset: offset(1) },
        &world.log.records(&topic())[1],
        None,
        (Reason::NullValue, "forged"),
    );
    world.log.publish(forged.to_record(&dlq())).await.unwrap();
    (forged.reason, forged.value) = (Reason::InvalidJson, Some(Bytes::from_static(b"other")));
    world.log.publish(forged.to_record(&dlq())).await.unwrap();
    forged.source.offset = offset(2);
    forged.value = Some(Bytes::from_static(b"third"));
    world.log.publish(forged.to_record(&dlq())).await.unwrap();
    let run = world.start();
    run.caught_up().await;
    world.send("third");
    settled(&world, &run).await;
    let sources = |letters: Vec<StoredLetter>| -> Vec<i64> {
        letters.iter().map(|letter| letter.source.offset.get()).collect()
    };
    assert_eq!(sources(all(&run).await), [0, 1, 2]);
    assert_eq!(world.letters().len(), 6);
    tokio::time::sleep(Duration::from_secs(2)).await; // a tick, in paused time
    run.stop().await.unwrap();
    let marks = world.store.state().outbound;
    let mark = marks.iter().find(|(place, _)| place.topic == dlq()).map(|(_, mark)| *mark);
    assert_eq!(mark, Some(offset(6)), "no forged letter holds it up");
    // A second start finds nothing to do.
    world.drain().await;
    assert_eq!(world.letters().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_was_written_before_the_kill_is_not_written_again() {
    for is_bare in [false, true] {
        let world = World::new(1);
        world.send("first");
        let source =
            RecordPosition { topic: topic(), partition: Partition::ZERO, offset: offset(0) };
        let record = world.log.records(&topic()).remove(0);
        let why = (Reason::InvalidJson, "in the words of an older version");
        let letter = Letter::of_record(&source, &record, None, why);
        let letter = if is_bare { letter.bare() } else { letter };
        world.log.publish(letter.to_record(&dlq())).await.unwrap();
        let run = world.start();
        run.caught_up().await;
        assert_eq!(world.letters().len(), 1, "bare: {is_bare}");
        // The bytes that the topic did not take are read at the source.
        let (_, letter) = run.applied.letters().show(id(0)).await.unwrap();
        assert_eq!(letter.value, record.value);
        run.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn letters_are_synced_before_the_store_passes_their_records_for_good() {
    let world = World::new(1);
    world.send("nonsense");
    world.drain().await;
    let synced = world.log.synced.lock().unwrap().get(&dlq()).copied();
    assert_eq!(synced, Some(offset(1)));
}

#[tokio::test(start_paused = true)]
async fn events_beyond_the_bytes_that_may_wait_are_dead_letters() {
    let world = World::new(1);
    let padding = "x".repeat((1 << 20) - 100);
    let value = format!(r#"{{"type":"task_deleted","data":{{"id":"t","padding":"{padding}"}}}}"#);
    let fitting = usize::try_from(WAITING_BYTES_MAX >> 20).unwrap();
    for _ in 0..=fitting {
        world.log.produce(0, Some(&value), 0);
    }
    world.send(&event("task_deleted", "small", r#"{"id":"u"}"#));
    let state = world.drain().await;
    let last = i64::try_from(fitting).unwrap();
    assert_eq!(world.letters(), [(last, "wait_overflow".to_owned())]);
    assert_eq!(state.waiting.len(), fitting + 1, "what is small has room still");
}

#[tokio::test(start_paused = true)]
async fn a_record_with_as_many_headers_as_can_be_leaves_its_bytes_at_the_source() {
    let world = World::new(1);
    world.log.produce_record(0, |offset| FeedRecord {
        offset,
        timestamp_ms: 7,
        key: None,
        value: None,
        headers: vec![(Bytes::from_static(b"h"), None); 10_000],
    });
    let run = world.start();
    run.caught_up().await;
    assert!(world.log.records(&dlq())[0].headers.len() < 20);
    let (_, letter) = run.applied.letters().show(id(0)).await.unwrap();
    assert_eq!(letter.headers.len(), 10_000);
    run.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn letters_whose_bytes_retention_took_hold_up_no_others() {
    for is_bare in [false, true] {
        let world = World::new(1);
        if is_bare {
            *world.log.publish_errors.lock().unwrap() =
                vec![FeedError::TooLarge, FeedError::TooLarge];
        }
        world.send("first");
        let run = world.start();
        run.caught_up().await;
        world.send("second");
        settled(&world, &run).await;
        world.log.log_start.store(1, Ordering::Relaxed);
        world.log.dlq_start.store(i64::from(!is_bare), Ordering::Relaxed);
        let letters = run.applied.letters();
        let (_, letter) = letters.show(id(0)).await.unwrap();
        assert_eq!((letter.value.clone(), letter.omitted_bytes), (None, Some(5)));
        let refused = letters.redrive(id(0), None).await;
        assert!(matches!(refused, Err(LettersError::NotARecord(Reason::InvalidJson))));
        let done = letters.redrive_all(None, START, NOW_MS).await.unwrap();
        assert_eq!((done.redriven, done.skipped), (1, 1), "bare: {is_bare}");
        if !is_bare {
            // With the record of the letter, the letter goes at the next checkpoint.
            run.stop().await.unwrap();
            continue;
        }
        assert_eq!(state_of(&run, 0).await, LetterState::Open);
        // A mended value needs no bytes of the old one.
        let mended = Bytes::from(created("e", "t", "a"));
        let mut sent = letters.redrive(id(0), Some(mended)).await.unwrap();
        assert!(matches!(sent.outcome.outcome().await, Some(Outcome::Applied { .. })));
        run.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bulk_redrive_holds_few_bytes_of_records_without_values() {
    let world = World::new(1);
    let key = Bytes::from(vec![b'k'; 1 << 20]);
    for _ in 0..9 {
        let (key, value, headers) = (Some(key.clone()), None, Vec::new());
        world.log.produce_record(0, |offset| FeedRecord {
            offset,
            timestamp_ms: 7,
            key: key.clone(),
            value: value.clone(),
            headers: headers.clone(),
        });
    }
    let run = world.start();
    run.caught_up().await;
    world.log.groups.lock().unwrap().clear();
    let done = run.applied.letters().redrive_all(None, START, NOW_MS).await.unwrap();
    assert_eq!(done.redriven, 9);
    assert_eq!(world.log.groups.lock().unwrap()[..2], [4, 4]);
    run.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_letter_redriven_and_dismissed_at_once_was_redriven() {
    let world = World::new(1);
    world.send("not json");
    let run = world.start();
    run.caught_up().await;
    let letters = run.applied.letters();
    let (redriven, dismissed) = tokio::join!(letters.redrive(id(0), None), letters.dismiss(id(0)));
    assert!(redriven.is_ok());
    assert!(matches!(dismissed, Err(LettersError::Redriven)));
    assert_eq!(state_of(&run, 0).await, LetterState::Redriven);
    run.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_never_mistaken_for_another_at_its_place() {
    let world = World::new(1);
    world.send("first");
    world.send("second");
    let run = world.start();
    run.caught_up().await;
    let (_, second) = run.applied.letters().show(id(1)).await.unwrap();
    let mut other = second.clone();
    other.source.topic = TopicName::new("others").unwrap();
    world.log.replace(&dlq(), 1, other.to_record(&dlq()));
    assert_eq!(run.applied.letters().show(id(1)).await.unwrap().1.source, second.source);
    run.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_letter_too_large_to_send_again_holds_up_no_others() {
    let world = World::new(1);
    world.send("small");
    world.send("far too large");
    world.send("small");
    let run = world.start();
    run.caught_up().await;
    world.log.value_bytes_max.store(5, Ordering::Relaxed);
    let letters = run.applied.letters();
    let done = letters.redrive_all(None, START, NOW_MS).await.unwrap();
    assert_eq!((done.redriven, done.skipped), (2, 1));
    let states = [state_of(&run, 0).await, state_of(&run, 1).await, state_of(&run, 2).await];
    assert_eq!(states, [LetterState::Redriven, LetterState::Open, LetterState::Redriven]);
    run.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn letters_noted_before_the_clock_was_set_back_are_sent_again() {
    let world = World::new(1);
    world.send("not json");
    let run = world.start();
    run.caught_up().await;
    world.clock.set(500_000);
    let from = BulkPlace { after: None, until_ms: 500_000 };
    let letters = run.applied.letters();
    assert_eq!(letters.redrive_all(None, from, 500_000).await.unwrap().redriven, 1);
    settled(&world, &run).await;
    world.clock.set(500_001);
    world.send("not json either");
    let mut outcome = run.applied.expect(EventId::new("last").unwrap());
    world.send(&event("marker", "last", r#"{"at":1}"#));
    outcome.outcome().await.unwrap();
    let done = letters.redrive_all(None, BulkPlace { until_ms: 499_999, ..from }, 500_001).await;
    assert_eq!(done.unwrap().redriven, 0, "what has come since");
    run.stop().await.unwrap();
}
