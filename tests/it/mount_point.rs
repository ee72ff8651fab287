//! Backups and restores into directories that are there already: mount points, with what a file
//! system keeps in its root. Nothing can be renamed onto one.

use crate::support::{TestDaemon, created, disk::SmallDisk, taskwire};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

const DISK_BYTES: u64 = 256 << 20;
/// A kill comes too late when the machine is busy elsewhere; then it is done again.
const KILLS_MAX: usize = 50;
const MARKER: &str = "unfinished";

fn command(verb: &[&str], data_dir: &Path) -> Command {
    let mut command = taskwire();
    command.args(verb).arg("--data-dir").arg(data_dir);
    command
}

fn run(verb: &[&str], data_dir: &Path) -> Output {
    command(verb, data_dir).output().expect("it runs")
}

#[track_caller]
fn done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Kills a command that fills `target` as soon as `name` is there, until one leaves the marker.
fn kill_in_the_middle(target: &Path, name: &str, command: impl Fn() -> Command) {
    for _ in 0..KILLS_MAX {
        let mut child =
            command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        while !target.join(name).exists() && child.try_wait().expect("a child").is_none() {
            std::hint::spin_loop();
        }
        child.kill().expect("ours");
        child.wait().expect("a child");
        if target.join(MARKER).exists() {
            return;
        }
        empty(target);
    }
    panic!("no kill came in the middle");
}

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).expect("there") {
        let entry = entry.expect("an entry");
        match entry.file_name() == "lost+found" {
            true => {}
            false if entry.path().is_dir() => fs::remove_dir_all(entry.path()).expect("removed"),
            false => fs::remove_file(entry.path()).expect("removed"),
        }
    }
}

/// A daemon's data at rest, with 200 tasks and a log of some MiB.
async fn data() -> (TestDaemon, PathBuf) {
    let mut daemon = TestDaemon::start().await;
    let text = "x".repeat(9_000);
    for batch in 0..10 {
        let event = |n| {
            let mut event = created(&format!("t{batch}-{n}"), "ada", "x");
            event["data"]["description"] = json!(text);
            event
        };
        let events: Vec<_> = (0..20).map(event).collect();
        daemon.produce(&events).await;
    }
    daemon.user("ada").tasks_when(200).await;
    assert!(daemon.terminate().success());
    let data_dir = daemon.data_dir();
    (daemon, data_dir)
}

/// A mounted disk as a fresh ext4 would be: with `lost+found`, and something in it.
fn fresh_disk() -> Option<SmallDisk> {
    let disk = SmallDisk::mount(DISK_BYTES)?;
    fs::create_dir(disk.path().join("lost+found")).expect("made");
    fs::write(disk.path().join("lost+found/#12"), b"theirs").expect("written");
    Some(disk)
}

fn is_kept(disk: &SmallDisk) -> bool {
    fs::read(disk.path().join("lost+found/#12")).is_ok_and(|bytes| bytes == b"theirs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_and_a_restore_into_mount_points_survive_a_kill_in_the_middle() {
    let (Some(kept), Some(target)) = (fresh_disk(), fresh_disk()) else { return };
    let (mut daemon, data_dir) = data().await;
    let backup = kept.path().to_string_lossy().into_owned();

    kill_in_the_middle(kept.path(), "broker.redb", || command(&["backup", &backup], &data_dir));
    let told = refused(&run(&["restore", &backup], target.path()));
    assert!(told.contains("was not finished"), "{told}");
    assert!(
        refused(&taskwire().arg("verify").arg(kept.path()).output().expect("it runs"))
            .contains("was not finished")
    );
    done(&run(&["backup", &backup], &data_dir));
    assert!(!kept.path().join(MARKER).exists());
    done(&taskwire().arg("verify").arg(kept.path()).output().expect("it runs"));
    let manifest = fs::read_to_string(kept.path().join("manifest.json")).expect("a backup");
    assert!(!manifest.contains("lost+found") && !manifest.contains(MARKER), "{manifest}");

    for name in [MARKER, "tasks.redb", "log"] {
        kill_in_the_middle(target.path(), name, || command(&["restore", &backup], target.path()));
        let told = refused(&run(&["serve", "--http-listen", "127.0.0.1:0"], target.path()));
        assert!(told.contains("do it again"), "{told}");
        assert!(!target.path().join("lock").exists(), "a refused start writes nothing");
    }
    done(&run(&["restore", &backup], target.path()));
    done(&run(&["verify"], target.path()));
    assert!(is_kept(&kept) && is_kept(&target));

    // What was restored is what was there: the daemon starts on it.
    fs::remove_dir_all(&data_dir).expect("removed");
    std::os::unix::fs::symlink(target.path(), &data_dir).expect("linked");
    daemon.restart().await;
    assert_eq!(daemon.user("ada").tasks_when(200).await.len(), 200);
    let again = refused(&run(&["restore", &backup], target.path()));
    assert!(again.contains("lost+found"), "a directory in use is not empty: {again}");
    assert_eq!(daemon.kafka_client().await.fetch_all("task-events").await.len(), 200);
    daemon.produce(&[created("late", "ada", "x")]).await;
    daemon.user("ada").tasks_when(201).await;
    daemon.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_daemon_backs_up_into_a_mount_point() {
    let Some(disk) = fresh_disk() else { return };
    let daemon = TestDaemon::start().await;
    daemon.produce(&[created("t1", "ada", "x")]).await;
    daemon.user("ada").tasks_when(1).await;
    done(&run(&["backup", &disk.path().to_string_lossy()], &daemon.data_dir()));
    done(&taskwire().arg("verify").arg(disk.path()).output().expect("it runs"));
    let restored = TempDir::new().expect("an empty directory");
    done(&run(&["restore", &disk.path().to_string_lossy()], restored.path()));
    done(&run(&["verify"], restored.path()));
    assert!(is_kept(&disk));
}
