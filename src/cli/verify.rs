//! `taskwire verify`: what is damaged in a data directory or backup, and what mends it.

use super::{Failure, blocking, output};
use crate::{
    archive::verify::{self, Report},
    config::{Config, Flags},
};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A backup or data directory; the daemon's own if left out
    dir: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Exits with 1 where anything is damaged.
pub(super) async fn run(args: VerifyArgs, outer: &Flags) -> Result<(), Failure> {
    let dir = match args.dir {
        Some(dir) => dir,
        None => Config::load(&args.flags.or(outer))?.data_dir,
    };
    let verified = dir.clone();
    let report = blocking(move || verify::verify(&verified)).await?;
    if args.json {
        output::line(document(&report))?;
    } else {
        print(&report)?;
    }
    if report.is_sound() {
        return Ok(());
    }
    let count = report.damages.len();
    Err(Failure::Failed(format!("{}: {count} damages found", dir.display())))
}

fn print(report: &Report) -> Result<(), Failure> {
    if let Some(manifest) = &report.manifest {
        let (version, bytes) = (&manifest.taskwire, manifest.bytes_in_all());
        output::line(format!("backup       made by taskwire {version}, {bytes} bytes"))?;
    }
    for (name, log) in &report.logs {
        let (start, end, records) = (log.log_start, log.log_end, log.records);
        let (segments, bytes) = (log.segments, log.bytes);
        output::line(format!(
            "log          {name}: offsets {start} to {end}, {records} records, {segments} \
             segments, {bytes} bytes"
        ))?;
    }
    output::line(format!("broker.redb  {} committed offsets", report.committed_offsets))?;
    if let Some(store) = &report.store {
        let (tasks, changes) = (store.tasks, store.changes);
        output::line(format!("tasks.redb   {tasks} tasks, {changes} changes"))?;
    }
    for note in &report.notes {
        output::line(format!("note         {note}"))?;
    }
    for damage in &report.damages {
        let (part, what, mend) = (&damage.part, &damage.what, damage.mend);
        output::line(format!("DAMAGED      {part}: {what} [{mend}]"))?;
    }
    if report.is_sound() { output::line("sound") } else { Ok(()) }
}

fn document(report: &Report) -> Value {
    let logs = report.logs.iter().map(|(name, log)| {
        json!({
            "partition": name, "log_start": log.log_start.get(), "log_end": log.log_end.get(),
            "records": log.records, "batches": log.batches, "segments": log.segments,
            "bytes": log.bytes,
        })
    });
    let logs = logs.collect::<Vec<_>>();
    let store = report.store.as_ref().map(|store| {
        json!({
            "epoch": format!("{:x}", store.epoch), "tasks": store.tasks, "changes": store.changes,
            "head": store.head.1,
        })
    });
    let damages = report
        .damages
        .iter()
        .map(|damage| json!({ "part": damage.part, "what": damage.what, "mend": damage.mend }));
    json!({
        "sound": report.is_sound(),
        "backup": report.manifest,
        "store": store,
        "committed_offsets": report.committed_offsets,
        "logs": logs,
        "damages": damages.collect::<Vec<_>>(),
        "notes": report.notes,
    })
}
