//! Random events through the whole daemon, against the map; and the same again after kills.

use super::{
    check::{self, Kept},
    daemon::{Daemon, START_MS, World, block_on},
    story::Story,
    workload::{Body, Player, USERS, event},
};
use proptest::prelude::*;
use serde_json::json;
use taskwire::{
    broker::Durability,
    clock::Clock,
    disk::testing::{Image, SimDisk, Unsynced},
};

/// Few ids, so that events meet.
#[derive(Clone, Debug)]
struct Random {
    kind: usize,
    task: usize,
    user: usize,
    title: usize,
    id: Option<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    /// One batch.
    Produce(Vec<Random>),
    /// Events that were sent before, at new offsets.
    Again(Vec<prop::sample::Index>),
    Checkpoint,
    Kill,
}

impl Random {
    fn body(&self) -> Body {
        let Self { kind, task, user, title, id } = self;
        let (task, user) = (format!("t{task}"), USERS[*user]);
        let (kind, data) = match kind {
            0..=2 => (
                "task_created",
                json!({ "id": task, "title": format!("v{title}"), "user_id": user }),
            ),
            3..=4 => ("task_updated", json!({ "id": task, "title": format!("v{title}") })),
            5 => ("task_updated", json!({ "id": task, "title": "mine", "user_id": user })),
            6 => ("task_completed", json!({ "id": task })),
            7 => ("task_deleted", json!({ "id": task })),
            8 => ("note", json!({ "user_id": user, "text": title })),
            9 => return None,
            _ => ("task_created", json!({ "id": task, "title": "nobody's" })),
        };
        event(kind, id.map(|id| format!("e{id}")).as_deref(), data)
    }
}

fn random() -> impl Strategy<Value = Random> {
    let id = prop::option::weighted(0.6, 0..12_usize);
    (0..11_usize, 0..4_usize, 0..2_usize, 0..3_usize, id)
        .prop_map(|(kind, task, user, title, id)| Random { kind, task, user, title, id })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(random(), 1..6).prop_map(Step::Produce),
        3 => prop::collection::vec(any::<prop::sample::Index>(), 1..6).prop_map(Step::Again),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Kill),
    ]
}

/// Lives until the next kill; the rest of the steps.
async fn live<'a>(player: &Player<'_>, mut steps: &'a [Step], sent: &mut Vec<Body>) -> &'a [Step] {
    while let Some((step, rest)) = steps.split_first() {
        steps = rest;
        match step {
            Step::Produce(events) => {
                let bodies: Vec<Body> = events.iter().map(Random::body).collect();
                sent.extend(bodies.clone());
                player.produce(bodies).await;
            }
            Step::Again(indexes) if !sent.is_empty() => {
                player.produce(indexes.iter().map(|index| index.get(sent).clone()).collect()).await;
            }
            Step::Again(_) => (),
            Step::Checkpoint => player.daemon.checkpoint().await.expect("apply lives"),
            Step::Kill => break,
        }
    }
    player.daemon.quiet(None).await.expect("apply lives");
    check::all(player.daemon, player, Kept::All).await;
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_events_sent_in_any_order_and_again_come_to_what_the_map_says(
        steps in prop::collection::vec(step(), 1..14),
    ) {
        let (mut image, mut story, mut now_ms) = (Image::default(), Story::default(), START_MS);
        let (mut left, mut sent) = (&steps[..], Vec::new());
        loop {
            let clock = Clock::manual(now_ms);
            let disk = SimDisk::new(image, clock.clone());
            let world = World { disk: disk.clone(), clock, durability: Durability::Commit };
            (left, story, image) = block_on(async {
                let daemon = Daemon::start(&world).await.expect("it starts");
                daemon.quiet(None).await.expect("apply lives");
                let player = Player::new(&daemon, story);
                let left = live(&player, left, &mut sent).await;
                (left, player.story.into_inner(), disk.image().crash(Unsynced::Kept))
            });
            now_ms = world.clock.now_ms();
            if left.is_empty() {
                break;
            }
        }
    }
}
