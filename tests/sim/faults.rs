//! Calls that fail while the daemon runs: it may refuse, and it may end, but what it acknowledged
//! stays, and a sync that failed is never tried again.

use super::{
    check::Kept,
    crash::{live, seed, telling},
    daemon::{Daemon, START_MS, World, block_on},
    story::Story,
    workload::{self, Player},
};
use std::{
    collections::HashSet,
    io,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
};
use taskwire::{
    broker::Durability,
    clock::Clock,
    disk::testing::{Chance, Fault, Image, SimDisk, Unsynced},
};

/// Runs, spread evenly over the calls, if `SIM_FAULTS` does not say how many.
const RUNS_DEFAULT: u64 = 60;

/// Panics of threads that are not a test's own.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A test's thread has the path of the test as its name.
            if !std::thread::current().name().is_some_and(|name| name.contains("::")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

/// What a run with a fault left.
struct Left {
    disk: SimDisk,
    story: Story,
    now_ms: i64,
    /// Why it did not come to its end.
    end: Result<(), String>,
}

fn run(seed: u64, fault: Option<(u64, Fault)>) -> Left {
    run_on(seed, |disk| {
        if let Some((call, fault)) = fault {
            disk.fail_at(call, fault);
        }
    })
}

fn run_on(seed: u64, prepare: impl FnOnce(&SimDisk)) -> Left {
    let clock = Clock::manual(START_MS);
    let disk = SimDisk::new(Image::default(), clock.clone());
    let world = World { disk: disk.clone(), clock, durability: Durability::Commit };
    disk.record();
    prepare(&disk);
    let (story, end) = block_on(async {
        let daemon = match Daemon::start(&world).await {
            Ok(daemon) => daemon.impatient(),
            Err(error) => return (Story::default(), Err(error)),
        };
        let player = Player::lenient(&daemon, Story::default());
        let end = workload::play(&player, seed).await;
        check_failed_syncs(&daemon, &disk);
        let story = player.story.into_inner();
        daemon.kill().await;
        (story, end)
    });
    check_no_second_sync(&disk);
    Left { disk, story, now_ms: world.clock.now_ms(), end }
}

/// A partition whose sync failed takes no writes, and health says so.
fn check_failed_syncs(daemon: &Daemon, disk: &SimDisk) {
    let failed = daemon.broker.failures();
    for call in disk.failed() {
        let Some(path) = call.strip_prefix("sync /data/log/") else { continue };
        let Some((partition, file)) = path.split_once('/') else { continue };
        // A deleted topic's partition is gone with its failure.
        if file.ends_with(".log") && !partition.starts_with(workload::OTHER) {
            let is_told = failed.iter().any(|told| told.starts_with(&format!("{partition}: ")));
            assert!(is_told, "{call} failed, and health knows of {failed:?}");
        }
    }
}

/// After a failed sync of a file, the kernel may have dropped what was to be written.
fn check_no_second_sync(disk: &SimDisk) {
    let mut lost = HashSet::new();
    for (file, what) in disk.journal().iter().map(|call| call.summary()) {
        match what.as_str() {
            "failed sync" => assert!(lost.insert(file), "file {file}: a second sync failed"),
            "sync" => assert!(!lost.contains(&file), "file {file} was synced after a failure"),
            _ => (),
        }
    }
}

#[test]
fn a_call_that_fails_loses_nothing_acknowledged() {
    count_panics();
    let seed = seed();
    let calls = run(seed, None).disk.calls();
    let runs = std::env::var("SIM_FAULTS").map_or(RUNS_DEFAULT, |runs| runs.parse().expect("one"));
    let stride = (calls / runs).max(1);
    let mut chance = Chance::new(seed);
    let mut ended = 0;
    let first = u64::try_from(chance.below(usize::try_from(stride).expect("few"))).expect("few");
    let only: Option<u64> = std::env::var("SIM_AT").ok().map(|at| at.parse().expect("a number"));
    for call in (first..calls).step_by(usize::try_from(stride).expect("few")) {
        let fault = match chance.below(4) {
            0 => Fault::Error(io::ErrorKind::Other),
            1 => Fault::Error(io::ErrorKind::StorageFull),
            2 => Fault::ShortWrite { bytes: 100, kind: io::ErrorKind::StorageFull },
            _ => Fault::ShortWrite { bytes: 100, kind: io::ErrorKind::Other },
        };
        let unsynced = match chance.below(3) {
            0 => Unsynced::Kept,
            1 => Unsynced::Dropped,
            _ => Unsynced::Scattered { seed: chance.next() },
        };
        if only.is_some_and(|only| only != call) {
            continue;
        }
        let context = || format!("SIM_SEED={seed} SIM_AT={call}: {fault:?}, then {unsynced:?}");
        telling(context, || {
            let left = run(seed, Some((call, fault)));
            if only.is_some() {
                println!("{:?} failed, {:?}", left.disk.failed(), left.end);
            }
            ended += usize::from(left.end.is_err());
            let kept = if unsynced == Unsynced::Kept { Kept::WrittenToo } else { Kept::All };
            let image = left.disk.image().crash(unsynced);
            live(image, left.story, (left.now_ms, Durability::Commit), (1, kept));
        });
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "panics of the daemon's threads");
    println!("every {stride}th of {calls} calls failed; {ended} runs ended early");
}

/// The kernel counts pages as written after a failed sync. The daemon is killed and started again,
/// reads them, and acknowledges what is sent again; then the power goes.
#[test]
fn what_is_sent_again_after_a_failed_sync_and_a_restart_survives_a_power_cut() {
    let seed = seed();
    let syncs = run(seed, None).disk.syncs_tried();
    let runs = std::env::var("SIM_FAULTS").map_or(RUNS_DEFAULT, |runs| runs.parse().expect("one"));
    let stride = (syncs / runs).max(1);
    let only: Option<u64> = std::env::var("SIM_AT").ok().map(|at| at.parse().expect("a number"));
    for sync in (0..syncs).step_by(usize::try_from(stride).expect("few")) {
        if only.is_some_and(|only| only != sync) {
            continue;
        }
        telling(
            || format!("SIM_SEED={seed} SIM_AT={sync}: a failed sync, a restart, a power cut"),
            || {
                let left = run_on(seed, |disk| disk.fail_sync_at(sync));
                let from = (left.now_ms, Durability::Commit);
                let image = left.disk.image().crash(Unsynced::Kept);
                let second = live(image, left.story, from, (1, Kept::All));
                let from = (second.now_ms(), Durability::Commit);
                let (image, story) = second.left(Unsynced::Dropped);
                live(image, story, from, (2, Kept::All));
            },
        );
    }
    println!("every {stride}th of {syncs} syncs failed");
}
