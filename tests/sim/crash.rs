//! One run is recorded; then the disk that a crash would have left at each of its calls is made,
//! a daemon started on it, crashed again while it recovers or goes on, and started once more.

use super::{
    check::{self, Kept},
    daemon::{Daemon, START_MS, World, block_on},
    story::Story,
    workload::{self, Player},
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use taskwire::{
    broker::Durability,
    clock::Clock,
    disk::testing::{Call, Chance, Image, SimDisk, Unsynced},
};

/// Least steps of the workload.
const STEPS_MIN: usize = 50;
const SEED_DEFAULT: u64 = 7;
/// With the durabilities that promise less, so that all takes less than two minutes.
const STRIDE_UNSYNCED: usize = 4;

pub(crate) fn seed() -> u64 {
    match std::env::var("SIM_SEED") {
        Ok(seed) => seed.parse().expect("SIM_SEED is a number"),
        Err(_) => SEED_DEFAULT,
    }
}

fn stride_or(default: usize) -> usize {
    match std::env::var("SIM_STRIDE") {
        Ok(stride) => stride.parse::<usize>().expect("SIM_STRIDE is a number").max(1),
        Err(_) => default,
    }
}

/// Crashes during recovery for each crash before it.
fn second_crashes() -> usize {
    match std::env::var("SIM_SECOND") {
        Ok(count) => count.parse().expect("SIM_SECOND is a number"),
        Err(_) => 1,
    }
}

/// What a daemon did on a disk.
pub(crate) struct Recording {
    base: Image,
    journal: Vec<Call>,
    story: Story,
    now_ms: i64,
}

impl Recording {
    pub(crate) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// What a crash after the last call leaves, and what was known then.
    pub(crate) fn left(self, unsynced: Unsynced) -> (Image, Story) {
        (self.image_at(self.journal.len()).crash(unsynced), self.story)
    }

    /// Everything that is told of the moment before call number `at`.
    fn known_at(&self, at: usize) -> Story {
        let marks = self.journal[..at].iter().rev().find_map(Call::mark);
        let facts = marks.map_or(0, |count| usize::try_from(count).expect("few"));
        self.story.up_to(facts.max(self.facts_before()))
    }

    /// Facts of the lives before.
    fn facts_before(&self) -> usize {
        let first = self.journal.iter().find_map(Call::mark);
        let before = |count: u64| usize::try_from(count).expect("few") - 1;
        first.map_or(self.story.facts.len(), before)
    }

    /// The disk right before call number `at`.
    fn image_at(&self, at: usize) -> Image {
        let mut image = self.base.clone();
        self.journal[..at].iter().for_each(|call| image.replay(call));
        image
    }

    /// Prints the calls around call number `at`, and the last facts before it.
    fn show(&self, at: usize) {
        for (number, call) in self.journal.iter().enumerate() {
            if (at.saturating_sub(20)..at + 5).contains(&number) {
                println!("{number} {:?}", call.summary());
            }
        }
        let known = self.known_at(at).facts;
        known.iter().rev().take(8).rev().for_each(|fact| println!("{fact:?}"));
    }

    /// Each file's calls, without their bytes. Files have threads of their own, so only a file's
    /// own order is the same each time.
    fn trace(&self) -> BTreeMap<usize, Vec<String>> {
        let mut trace: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (file, what) in self.journal.iter().map(Call::summary) {
            // What follows a point in a name may be an id by chance.
            let what = what.split('.').next().unwrap_or_default().to_owned();
            trace.entry(file).or_default().push(what);
        }
        trace
    }
}

/// Records the workload on an empty disk.
fn record(seed: u64, durability: Durability) -> Recording {
    let clock = Clock::manual(START_MS);
    let disk = SimDisk::new(Image::default(), clock.clone());
    let world = World { disk, clock, durability };
    world.disk.record();
    let (story, journal) = block_on(async {
        let daemon = Daemon::start(&world).await.expect("it starts on an empty disk");
        let player = Player::new(&daemon, Story::default());
        workload::play(&player, seed).await.expect("it goes on");
        check::all(&daemon, &player, Kept::WrittenToo).await;
        assert!(player.steps.get() >= STEPS_MIN, "{} steps", player.steps.get());
        // Before the daemon is dropped, which writes once more.
        (player.story.into_inner(), world.disk.journal())
    });
    Recording { base: Image::default(), journal, story, now_ms: world.clock.now_ms() }
}

/// A crash, and what it leaves to be expected.
#[derive(Clone, Copy, Debug)]
struct Crash {
    at: usize,
    unsynced: Unsynced,
}

impl Crash {
    fn kept(self, durability: Durability) -> Kept {
        check::kept(durability, self.unsynced == Unsynced::Kept)
    }
}

/// Starts a daemon on what a crash left, checks it, lets clients go on, and checks it again.
pub(crate) fn live(
    image: Image,
    story: Story,
    from: (i64, Durability),
    (life, kept): (usize, Kept),
) -> Recording {
    let (now_ms, durability) = from;
    let clock = Clock::manual(now_ms);
    let world = World { disk: SimDisk::new(image.clone(), clock.clone()), clock, durability };
    world.disk.record();
    let (story, journal) = block_on(async {
        let daemon = Daemon::start(&world).await.expect("it starts again");
        let player = match kept {
            Kept::Perhaps => Player::lenient(&daemon, story),
            _ => Player::new(&daemon, story),
        };
        daemon.quiet(None).await.expect("it catches up");
        // A tick, so that an event whose letter was written ends its wait.
        daemon.pass(Duration::from_secs(1)).await.expect("a tick");
        check::all(&daemon, &player, kept).await;
        workload::finish(&player, life).await.expect("it goes on");
        check::all(&daemon, &player, kept).await;
        let left = (player.story.into_inner(), world.disk.journal());
        daemon.kill().await;
        left
    });
    Recording { base: image, journal, story, now_ms: world.clock.now_ms() }
}

/// The same, after a clean stop and start.
fn stop_and_start(last: &Recording, durability: Durability, kept: Kept) {
    let image = last.image_at(last.journal.len());
    let clock = Clock::manual(last.now_ms);
    let world = World { disk: SimDisk::new(image, clock.clone()), clock, durability };
    block_on(async {
        for is_last in [false, true] {
            let daemon = Daemon::start(&world).await.expect("it starts again");
            daemon.quiet(None).await.expect("it catches up");
            let player = Player::new(&daemon, last.story.clone());
            check::all(&daemon, &player, kept).await;
            if is_last {
                return daemon.kill().await;
            }
            daemon.stop().await.expect("it stops");
        }
    });
}

/// Crashes at one call, then inside what comes after.
fn crash(first: &Recording, image: &Image, crash: Crash, durability: Durability, seed: u64) {
    let mut chance = Chance::new(seed ^ u64::try_from(crash.at).expect("few") << 20);
    let kept = crash.kept(durability);
    let from = (first.now_ms, durability);
    let left = image.crash(crash.unsynced);
    let second = live(left, first.known_at(crash.at), from, (1, kept));
    for _ in 0..second_crashes() {
        let again = Crash {
            at: chance.below(second.journal.len() + 1),
            unsynced: match chance.below(4) {
                0 => Unsynced::Kept,
                _ => Unsynced::Scattered { seed: chance.next() },
            },
        };
        let kept = weaker(kept, again.kept(durability));
        let context = || format!("  and then {again:?} of {} calls", second.journal.len());
        telling(context, || {
            let left = second.image_at(again.at).crash(again.unsynced);
            let from = (second.now_ms, durability);
            let third = live(left, second.known_at(again.at), from, (2, kept));
            if chance.below(8) == 0 {
                stop_and_start(&third, durability, kept);
            }
        });
    }
}

fn weaker(one: Kept, other: Kept) -> Kept {
    match (one, other) {
        (Kept::Perhaps, _) | (_, Kept::Perhaps) => Kept::Perhaps,
        (Kept::WrittenToo, Kept::WrittenToo) => Kept::WrittenToo,
        _ => Kept::All,
    }
}

/// Says where it was when it fails.
pub(crate) fn telling(context: impl Fn() -> String, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("{}", context());
        std::panic::resume_unwind(panic);
    }
}

/// Crashes at every `stride`-th call, in each of these ways.
fn crash_everywhere(durability: Durability, stride: usize, ways: impl Fn(u64) -> Vec<Unsynced>) {
    let seed = seed();
    let stride = stride_or(stride);
    let first = record(seed, durability);
    let calls = first.journal.len();
    println!("seed {seed}, {durability:?}: every {stride}th of {calls} calls and marks");
    let only: Option<usize> = std::env::var("SIM_AT").ok().map(|at| at.parse().expect("a number"));
    let mut image = first.base.clone();
    let mut crashes = 0;
    for at in 0..=calls {
        if only.map_or(at % stride == 0, |only| only == at) {
            if only.is_some() {
                first.show(at);
            }
            let number = u64::try_from(at).expect("few");
            for unsynced in ways(seed.wrapping_mul(1_000_003).wrapping_add(number)) {
                let one = Crash { at, unsynced };
                let context = || format!("SIM_SEED={seed} SIM_AT={at}: {durability:?}, {one:?}");
                telling(context, || crash(&first, &image, one, durability, seed));
                crashes += 1;
            }
        }
        if let Some(call) = first.journal.get(at) {
            image.replay(call);
        }
    }
    println!("{crashes} crashes, each with {} more inside recovery", second_crashes());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (one, other) = (record(seed(), Durability::Commit), record(seed(), Durability::Commit));
    let (one, other) = (one.trace(), other.trace());
    assert_eq!(one.len(), other.len(), "files");
    for (file, calls) in one {
        let others = &other[&file];
        let same = calls.iter().zip(others).take_while(|(one, other)| one == other).count();
        assert_eq!(calls.get(same), others.get(same), "file {file}, after {same} calls");
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    crash_everywhere(Durability::Commit, 1, |seed| {
        vec![Unsynced::Dropped, Unsynced::Scattered { seed }]
    });
}

#[test]
fn a_kill_at_any_call_loses_nothing_written() {
    crash_everywhere(Durability::Commit, 1, |_| vec![Unsynced::Kept]);
}

#[test]
fn without_syncs_a_kill_loses_nothing_and_a_power_cut_breaks_nothing() {
    crash_everywhere(Durability::Os, STRIDE_UNSYNCED, |seed| {
        vec![Unsynced::Kept, Unsynced::Scattered { seed }]
    });
}

#[test]
fn with_a_later_sync_a_power_cut_breaks_nothing() {
    let interval = Durability::Interval(Duration::from_secs(2));
    crash_everywhere(interval, STRIDE_UNSYNCED, |seed| vec![Unsynced::Scattered { seed }]);
}
