//! Looks at a whole data directory or backup and changes nothing.

use super::{
    BROKER_FILE, Held, LOG_DIR, LOG_FORMAT_FILE, LockError, LogFormatError, Manifest,
    ManifestError, TASKS_FILE, check_log_format, manifest::MANIFEST_FILE, restore::check_files,
};
use crate::{
    broker::{
        meta::{MetaError, file},
        parse_place, places_of, topics_of,
    },
    causes::chain,
    disk::dir::RealDir,
    log::{self, Finding},
    position::{Offset, TopicPartition},
    store::{StoreError, redb},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Why nothing could be verified. Damage is no error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The directory is in use, or none.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The log's format.
    #[error(transparent)]
    LogFormat(#[from] LogFormatError),
    /// A newer format of a backup.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store is of another format, or cannot be read.
    #[error("cannot verify the tasks")]
    Store(#[source] StoreError),
    /// The broker's file is of another format, or cannot be read.
    #[error("cannot verify broker.redb")]
    Broker(#[source] MetaError),
    /// The disk refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing of ours.
    #[error("{} is no data directory and no backup", path.display())]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
}

/// One thing that is damaged, and what mends it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// The file, or the topic partition.
    pub part: String,
    /// What is wrong, in one clause.
    pub what: String,
    /// A command, or what a person decides.
    pub mend: &'static str,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The manifest, of a backup.
    pub manifest: Option<Manifest>,
    /// The store; `None` where there is no file of it.
    pub store: Option<redb::verify::Report>,
    /// Groups' committed offsets.
    pub committed_offsets: usize,
    /// The log of every partition.
    pub logs: BTreeMap<String, log::Report>,
    /// What is damaged.
    pub damages: Vec<Damage>,
    /// What is worth a word and no damage.
    pub notes: Vec<String>,
}

const REBUILD: &str = "taskwire rebuild";
const REBUILD_BROKER: &str = "taskwire rebuild --broker, or taskwire restore";
const REPAIR: &str = "taskwire repair";
const RESTORE: &str = "taskwire restore, from another backup";
const NEW_BACKUP: &str = "make a new backup";

impl Report {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty()
    }

    fn damage(&mut self, part: impl Into<String>, what: impl Into<String>, mend: &'static str) {
        // A backup is not mended: another one is made, or taken.
        let mend = if self.manifest.is_some() { NEW_BACKUP } else { mend };
        self.damages.push(Damage { part: part.into(), what: what.into(), mend });
    }
}

/// Verifies a data directory that no daemon uses, or a backup.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify(dir: &Path) -> Result<Report, VerifyError> {
    let _held = Held::take(dir)?;
    let format = check_log_format(dir);
    let is_there = |name: &str| dir.join(name).exists();
    if ![MANIFEST_FILE, TASKS_FILE, BROKER_FILE, LOG_DIR].into_iter().any(is_there) {
        return Err(VerifyError::Nothing { path: dir.to_owned() });
    }
    let mut report = Report::default();
    if is_there(MANIFEST_FILE) {
        manifest(dir, &mut report)?;
    }
    match format {
        Err(error @ LogFormatError::Damaged) => {
            report.damage("log/format", error.to_string(), "write that number into it");
        }
        checked => checked?,
    }
    let contents = broker(dir, &mut report)?;
    logs(dir, contents.as_ref(), &mut report)?;
    store(dir, &mut report)?;
    if let Some(contents) = contents {
        ends(&contents, &mut report);
    }
    agreement(&mut report);
    Ok(report)
}

fn manifest(dir: &Path, report: &mut Report) -> Result<(), VerifyError> {
    match Manifest::read(dir) {
        Ok(manifest) => {
            report.manifest = Some(manifest.clone());
            if let Err(error) = check_files(dir, &manifest) {
                report.damage("backup", chain(&error), NEW_BACKUP);
            }
            Ok(())
        }
        Err(error @ ManifestError::Damaged { .. }) => {
            report.damage(MANIFEST_FILE, error.to_string(), NEW_BACKUP);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn broker(dir: &Path, report: &mut Report) -> Result<Option<file::Contents>, VerifyError> {
    let path = dir.join(BROKER_FILE);
    if !path.exists() {
        report.damage(BROKER_FILE, "the file is missing", REBUILD_BROKER);
        return Ok(None);
    }
    match file::read(&path) {
        Ok(contents) => {
            report.committed_offsets = contents.offsets.len();
            Ok(Some(contents))
        }
        Err(MetaError::Damaged(what)) => {
            report.damage(BROKER_FILE, what, REBUILD_BROKER);
            Ok(None)
        }
        Err(error) => Err(VerifyError::Broker(error)),
    }
}

fn logs(
    dir: &Path,
    contents: Option<&file::Contents>,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let dir = dir.join(LOG_DIR);
    let failed = |source| VerifyError::Io { path: dir.clone(), source };
    let mut found = BTreeSet::new();
    if dir.exists() {
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // A name that is not UTF-8 is none of ours.
            found.extend(name.into_string().ok().filter(|name| name != LOG_FORMAT_FILE));
        }
    }
    let expected: BTreeSet<String> = match contents {
        Some(contents) => contents.places().map(|place| place.to_string()).collect(),
        None => {
            let topics = topics_of(found.iter().filter_map(|name| parse_place(name)));
            let places = places_of(topics.iter().map(|(topic, count)| (topic, *count)));
            places.map(|place| place.to_string()).collect()
        }
    };
    for name in &expected {
        if found.contains(name) {
            one_log(&dir.join(name), name, report)?;
        } else {
            report.damage(name, "the log's directory is missing", RESTORE);
        }
    }
    for name in found.difference(&expected) {
        report.notes.push(format!("log/{name} belongs to no topic"));
    }
    Ok(())
}

fn one_log(path: &Path, name: &str, report: &mut Report) -> Result<(), VerifyError> {
    let failed = |source| VerifyError::Io { path: path.to_owned(), source };
    let read = log::verify(&RealDir::open(path).map_err(failed)?).map_err(failed)?;
    for finding in &read.findings {
        if finding.is_damage() {
            report.damage(name, finding.to_string(), REPAIR);
        } else if !matches!(finding, Finding::Stray { .. }) {
            report.notes.push(format!("{name}: {finding}"));
        }
    }
    if read.findings_left_out > 0 {
        let more = format!("{} more findings", read.findings_left_out);
        report.damage(name, more, REPAIR);
    }
    report.logs.insert(name.to_owned(), read);
    Ok(())
}

fn store(dir: &Path, report: &mut Report) -> Result<(), VerifyError> {
    let path = dir.join(TASKS_FILE);
    if !path.exists() {
        if report.manifest.is_some() {
            report.damage(TASKS_FILE, "the file is missing", NEW_BACKUP);
        } else {
            report.notes.push("tasks.redb is not there: a start makes it from the log".to_owned());
        }
        return Ok(());
    }
    let found = redb::verify::verify(&path).map_err(VerifyError::Store)?;
    for what in &found.damages {
        report.damage(TASKS_FILE, what.trim_start_matches("tasks.redb: "), REBUILD);
    }
    let listed = u64::try_from(found.damages.len()).unwrap_or(u64::MAX);
    if listed < found.damage_count {
        let more = format!("{} more damages", found.damage_count - listed);
        report.damage(TASKS_FILE, more, REBUILD);
    }
    report.store = Some(found);
    Ok(())
}

/// Recorded ends that a log does not reach: records are lost.
fn ends(contents: &file::Contents, report: &mut Report) {
    for (place, end) in &contents.durable_ends {
        let name = place.to_string();
        let log_end = report.logs.get(&name).map(|log| log.log_end);
        if let Some(log_end) = log_end.filter(|log_end| log_end < end) {
            let what = format!("the log ends at {log_end}, and was durable up to {end}");
            report.damage(name, what, RESTORE);
        }
    }
}

/// That the log has what the store has applied, and what it still has to apply.
fn agreement(report: &mut Report) {
    let Some(store) = &report.store else { return };
    let mut wrong = Vec::new();
    for (place, processed) in &store.processed {
        let name = place.to_string();
        let Some(log) = report.logs.get(&name) else {
            wrong.push((name, "the store has applied it, and its log is not there".to_owned()));
            continue;
        };
        let next = processed.next;
        if log.log_end < next {
            let end = log.log_end;
            let what = format!("the store has applied up to {next}, and the log ends at {end}");
            wrong.push((name, what));
        } else if next < log.log_start {
            let start = log.log_start;
            let what = format!("the store has applied up to {next}, the log begins at {start}");
            wrong.push((name, what));
        }
    }
    for (part, what) in wrong {
        report.damage(part, what, RESTORE);
    }
}

/// The store's processed offsets, as a manifest has them.
pub(super) fn processed_of(report: &redb::verify::Report) -> Vec<(String, i32, i64)> {
    let row = |(place, processed): (&TopicPartition, &crate::store::Processed)| {
        let next: Offset = processed.next;
        (place.topic.to_string(), place.partition.get(), next.get())
    };
    report.processed.iter().map(row).collect()
}
