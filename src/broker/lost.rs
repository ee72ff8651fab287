//! Pieces of the data directory that are gone: what tells of them, and what a person can decide.
//!
//! The daemon does not decide these by itself, because the piece may only not be mounted.

use super::{StartError, meta};
use crate::{
    clock::Clock,
    disk::dir::RealDir,
    log,
    position::{Offset, Partition, TopicName, TopicPartition},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The broker's file in a data directory or a backup.
pub const BROKER_FILE: &str = "broker.redb";
/// The directory of the logs.
pub const LOG_DIR: &str = "log";

/// `broker.redb` in a data directory.
pub(super) fn meta_path(data_dir: &Path) -> PathBuf {
    data_dir.join(BROKER_FILE)
}

/// The directory of all logs in a data directory.
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(LOG_DIR)
}

/// The directory of one partition's log in a data directory.
pub fn partition_dir(data_dir: &Path, place: &TopicPartition) -> PathBuf {
    log_dir(data_dir).join(place.to_string())
}

/// The partitions that have a directory, in order.
///
/// # Errors
/// As the disk says; no directory at all is none.
pub fn partitions_on_disk(data_dir: &Path) -> io::Result<Vec<TopicPartition>> {
    let entries = match fs::read_dir(log_dir(data_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut places = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Also by a link to another disk.
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
            && let Some(place) = parse_place(&name)
        {
            places.push(place);
        }
    }
    places.sort_unstable();
    Ok(places)
}

/// `<topic>-<partition>`
pub fn parse_place(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    let index: i32 = partition.parse().ok()?;
    let place = TopicPartition { topic: TopicName::new(topic)?, partition: Partition::new(index)? };
    (place.to_string() == name).then_some(place)
}

/// Whether `broker.redb` is gone while there are logs that it should know of.
pub(super) fn check_meta(data_dir: &Path) -> Result<(), StartError> {
    let is_there = fs::metadata(meta_path(data_dir)).is_ok_and(|file| file.len() > 0);
    if is_there {
        return Ok(());
    }
    let places = partitions_on_disk(data_dir).unwrap_or_default();
    match places.first() {
        None => Ok(()),
        Some(first) => Err(StartError::MetaMissing {
            path: meta_path(data_dir),
            logs: places.len(),
            first: first.clone(),
        }),
    }
}

/// The topics of partitions, each with as many as its last one tells.
pub fn topics_of(places: impl IntoIterator<Item = TopicPartition>) -> BTreeMap<TopicName, u32> {
    let mut topics = BTreeMap::new();
    for place in places {
        let count = u32::try_from(place.partition.get()).unwrap_or(0) + 1;
        let known = topics.entry(place.topic).or_insert(0);
        *known = count.max(*known);
    }
    topics
}

/// Every partition of topics with so many each.
pub fn places_of<'a>(
    topics: impl IntoIterator<Item = (&'a TopicName, u32)>,
) -> impl Iterator<Item = TopicPartition> {
    topics.into_iter().flat_map(|(topic, count)| {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let place = |partition| TopicPartition { topic: topic.clone(), partition };
        (0..count).filter_map(Partition::new).map(place)
    })
}

/// Makes `broker.redb`, under the name `made`, from the directories of the partitions: see
/// [`meta::file::make`]. Returns the topics with their partition counts. Blocks on the disk; the
/// daemon must not run.
///
/// # Errors
/// There is a file of that name, or as the disk says.
pub fn rebuild_meta(
    data_dir: &Path,
    made: &Path,
    clock: &Clock,
) -> Result<BTreeMap<TopicName, u32>, meta::MetaError> {
    let topics = topics_of(partitions_on_disk(data_dir)?);
    meta::file::make(made, &topics, clock.now_ms())?;
    Ok(topics)
}

/// Lets a log whose directory holds no segment go on without what it held: above every offset that
/// can have been given. Returns the offset. Blocks on the disk; the daemon must not run.
///
/// # Errors
/// `UnknownPartition`, `NotMissing`, or as the disk says.
pub fn give_up(data_dir: &Path, place: &TopicPartition) -> Result<Offset, StartError> {
    let failed = |source| StartError::Log(place.clone(), source);
    let known = meta::file::read(&meta_path(data_dir)).map_err(StartError::Meta)?;
    if !known.places().any(|there| there == *place) {
        return Err(StartError::UnknownPartition(place.clone()));
    }
    let path = partition_dir(data_dir, place);
    let io_failed =
        |source| StartError::Log(place.clone(), log::OpenError::Io { path: path.clone(), source });
    let dir = RealDir::open(&path).map_err(io_failed)?;
    if log::has_segments(&dir).map_err(io_failed)? {
        return Err(StartError::NotMissing(place.clone()));
    }
    let recorded = known.durable_ends.get(place).copied().unwrap_or_default();
    let base = recorded.get().saturating_add(GIVEN_SINCE_MAX);
    let base = Offset::new(base).unwrap_or(recorded);
    log::start_at(&dir, base).map_err(failed)?;
    Ok(base)
}

/// Offsets that can have been given since a log's end was recorded last, half a minute before.
const GIVEN_SINCE_MAX: i64 = 1 << 30;
