//! Replays every saved input of the fuzz targets (`tests/fuzz/corpus`), with no fuzzing engine.

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::{
    fs, panic,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Panics of any thread, the daemon's own among them.
static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn every_saved_input_keeps_the_promises() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        report(info);
    }));
    let mut failed = Vec::new();
    for (name, target) in targets::TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() > 5, "{name}: the corpus is there");
        for path in inputs {
            let input = fs::read(&path).expect("readable");
            let before = PANICS.load(Ordering::Relaxed);
            let ended = panic::catch_unwind(|| target(&input));
            if ended.is_err() || PANICS.load(Ordering::Relaxed) != before {
                failed.push(path.display().to_string());
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

fn inputs(name: &str) -> Vec<PathBuf> {
    let folder = format!("{}/tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(folder).expect("the corpus is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}
