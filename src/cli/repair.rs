//! `taskwire repair`: what a person decides about damaged or lost logs.
//!
//! Works on the files of a stopped daemon; the lock of its data directory is held meanwhile.

use super::{Failure, output};
use crate::{
    broker,
    causes::chain,
    config::{Config, Flags},
    daemon::DataDir,
    disk::dir::RealDir,
    log::{self, Damage, Decision},
    position::{Offset, TopicPartition},
};
use clap::{ArgGroup, Args};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `repair`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("decision").args(["accept", "cut", "from", "give_up"])))]
pub(super) struct RepairArgs {
    /// Partitions, as TOPIC-PARTITION, or whole topics; all if there is none
    #[arg(value_name = "TOPIC[-PARTITION]")]
    places: Vec<String>,
    /// Only the damage that holds this offset
    #[arg(long, value_name = "N", value_parser = parse_offset)]
    offset: Option<Offset>,
    /// Give the damaged records up and keep all others: health is no longer degraded by them
    #[arg(long)]
    accept: bool,
    /// Give up everything from the first damage on; no offset is given again
    #[arg(long)]
    cut: bool,
    /// Take the damaged records from a backup: a copy of the data directory, or of its log/
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Go on without the records of a log that is gone whole
    #[arg(long)]
    give_up: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

fn parse_offset(text: &str) -> Result<Offset, String> {
    let offset = text.parse().ok().and_then(Offset::new);
    offset.ok_or_else(|| "an offset is a whole number from 0 on".to_owned())
}

/// Lists damages with the choices, or does what was decided.
pub(super) fn run(args: &RepairArgs, outer: &Flags) -> Result<(), Failure> {
    let config = Config::load(&args.flags.clone().or(outer))?;
    let data_dir = &config.data_dir;
    if !data_dir.is_dir() {
        return Err(Failure::Failed(format!("{} is not there", data_dir.display())));
    }
    let _held = DataDir::lock(data_dir).map_err(|error| failed(&error))?;
    if args.give_up {
        return give_up(args, data_dir);
    }
    let mut found = Vec::new();
    for place in places(args, data_dir)? {
        let dir = broker::partition_dir(data_dir, &place);
        let damages = damages(&dir)?;
        let is_asked = |damage: &Damage| {
            !damage.is_accepted && args.offset.is_none_or(|at| damage.from <= at && at < damage.to)
        };
        found.extend(damages.into_iter().filter(is_asked).map(|damage| (place.clone(), damage)));
    }
    let is_decided = args.accept || args.cut || args.from.is_some();
    if !is_decided {
        return list(args, &found);
    }
    if found.is_empty() {
        return Err(Failure::Failed("there is no such damage".to_owned()));
    }
    for (place, damage) in &found {
        decide(args, data_dir, place, damage)?;
    }
    Ok(())
}

/// Partitions that were asked for, and have a directory.
fn places(args: &RepairArgs, data_dir: &Path) -> Result<Vec<TopicPartition>, Failure> {
    let mut places = broker::partitions_on_disk(data_dir).map_err(|error| failed(&error))?;
    for asked in &args.places {
        if !places.iter().any(|place| is_asked(place, asked)) {
            return Err(Failure::Usage(format!("there is no log of {asked}")));
        }
    }
    if !args.places.is_empty() {
        places.retain(|place| args.places.iter().any(|asked| is_asked(place, asked)));
    }
    Ok(places)
}

fn is_asked(place: &TopicPartition, asked: &str) -> bool {
    place.topic.as_str() == asked || place.to_string() == asked
}

fn damages(dir: &Path) -> Result<Vec<Damage>, Failure> {
    let dir = RealDir::read_only(dir).map_err(|error| failed(&error))?;
    let report = log::verify(&dir).map_err(|error| failed(&error))?;
    Ok(report.damages().cloned().collect())
}

fn list(args: &RepairArgs, found: &[(TopicPartition, Damage)]) -> Result<(), Failure> {
    if args.json {
        return output::line(Value::Array(found.iter().map(described).collect()));
    }
    if found.is_empty() {
        return output::line("no damage that is not accepted");
    }
    for (place, damage) in found {
        output::line(format_args!("{place}: {damage}"))?;
    }
    output::line(
        "\nDecide with one of\n  \
         --from DIR  take the records from a backup (then `taskwire rebuild`, if the tasks shall \
         have them)\n  \
         --accept    give these records up, keep all others\n  \
         --cut       give up everything from the first damage on\n\
         and name the TOPIC-PARTITION, with --offset N where only one damage is meant.",
    )
}

fn described((place, damage): &(TopicPartition, Damage)) -> Value {
    json!({
        "topic": place.topic.as_str(),
        "partition": place.partition.get(),
        "from": damage.from.get(),
        "to": damage.to.get(),
        "file": damage.place.as_ref().map(|(file, _)| file),
        "bytes": damage.place.as_ref().map(|(_, bytes)| [bytes.start, bytes.end]),
    })
}

fn decide(
    args: &RepairArgs,
    data_dir: &Path,
    place: &TopicPartition,
    damage: &Damage,
) -> Result<(), Failure> {
    let path = broker::partition_dir(data_dir, place);
    if args.cut && !damages(&path)?.contains(damage) {
        return Ok(()); // It was behind one that is cut already.
    }
    let dir = RealDir::open(&path).map_err(|error| failed(&error))?;
    let backup = match &args.from {
        Some(from) => Some(backup_of(from, place)?),
        None => None,
    };
    let (decision, word) = match &backup {
        Some(backup) => (Decision::Take(backup), "taken from the backup"),
        None if args.cut => (Decision::CutFrom, "cut from there on"),
        None => (Decision::Accept, "accepted"),
    };
    log::repair(&dir, damage, decision)
        .map_err(|error| Failure::Failed(format!("{place}: {}", chain(&error))))?;
    let done = described(&(place.clone(), damage.clone()));
    if args.json {
        output::line(done)
    } else {
        output::line(format_args!("{place}: offsets {} to {}: {word}", damage.from, damage.to))
    }
}

/// The partition's directory in a backup: of a data directory, of its `log/`, or itself.
fn backup_of(from: &Path, place: &TopicPartition) -> Result<RealDir, Failure> {
    let name = place.to_string();
    let candidates = [broker::partition_dir(from, place), from.join(&name)];
    let found = candidates.iter().find(|path| path.is_dir());
    let path = found
        .ok_or_else(|| Failure::Usage(format!("{} holds no log of {name}", from.display())))?;
    RealDir::read_only(path).map_err(|error| failed(&error))
}

fn give_up(args: &RepairArgs, data_dir: &Path) -> Result<(), Failure> {
    if args.places.is_empty() {
        return Err(Failure::Usage("name the TOPIC-PARTITION to give up".to_owned()));
    }
    for asked in &args.places {
        let place = broker::parse_place(asked);
        let place = place.ok_or_else(|| Failure::Usage(format!("{asked} is no partition")))?;
        let base = broker::give_up(data_dir, &place).map_err(|error| failed(&error))?;
        output::line(format_args!("{place}: goes on at offset {base}"))?;
    }
    Ok(())
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::Failed(chain(error))
}
