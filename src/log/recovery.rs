//! What is on disk, made into a log again.
//!
//! A bad tail that no sound batch follows is torn, and is cut (its bytes are kept beside). Anything
//! else that is bad is damage: it stays where it is, its offsets become a hole, and the log goes on
//! in a new segment.

use super::{
    LastStop, Outage, Recovery, Snapshot, TornTail,
    accepted::{self, Accepted},
    checked::{self, Kind, TEMPORARY},
    epochs::{self, Epochs},
    segment::{Growth, LOG, SEAL, Sealed, name, parse_name, seek_offset},
    snapshot,
    walk::{self, Place, Window},
};
use crate::{
    disk::{
        dir::{Dir, File},
        unsynced::{self, SYNC_FAILED},
    },
    position::Offset,
    wire::batch::BatchHeader,
};
use std::{collections::VecDeque, io, sync::Arc};

pub(super) const LOG_START: &str = "log-start";

/// A log as it was found, ready to go on.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) sealed: VecDeque<Arc<Sealed>>,
    pub(super) active: Growth,
    pub(super) file: Arc<dyn File>,
    pub(super) epochs: Epochs,
    pub(super) log_start: i64,
    /// Its end was damaged, so that the leader epoch must rise.
    pub(super) is_damaged: bool,
    pub(super) accepted: Accepted,
    pub(super) recovery: Recovery,
}

/// Opens every segment of `dir`, creating the first if there is none.
pub(super) fn open(dir: &dyn Dir, last_stop: &LastStop, outage: Outage) -> io::Result<Opened> {
    // Of what a failed sync left in memory only, anything may be missing, as after a power cut.
    let outage = if rewrite_unsynced(dir)? { Outage::Machine } else { outage };
    let names = dir.list()?;
    let mut bases: Vec<i64> = names.iter().filter_map(|name| parse_name(name, LOG)).collect();
    bases.sort_unstable();
    let stored_start = load_log_start(dir)?;
    // What is below a log start was given, also where a power cut has taken it: else records that
    // get its offsets would be gone with the next start.
    let floor = last_stop.durable_floor.get().max(orphans_end(dir, &names, &bases)?);
    let floor = floor.max(stored_start.unwrap_or_default());
    let last_stop =
        &LastStop { durable_floor: Offset::new(floor).unwrap_or_default(), ..*last_stop };
    remove_leftovers(dir, &names, &bases);
    let mut epochs = Epochs::load(dir)?;
    drop_bypassed(dir, &mut bases, &epochs)?;
    let mut recovery = Recovery::default();
    let mut sealed = VecDeque::new();
    for (base, limit) in bases.iter().zip(bases.iter().skip(1)) {
        sealed.push_back(Arc::new(open_sealed(dir, (*base, *limit), &epochs)?));
    }
    let last = match bases.last() {
        Some(base) => {
            let last = open_last(dir, *base, (last_stop, outage), &epochs, &mut recovery)?;
            // It grows from here on, and its old seal must not be found when it is full.
            if names.contains(&name(*base, SEAL)) {
                dir.remove(&name(*base, SEAL))?;
            }
            last
        }
        None => create_active(dir, floor)?,
    };
    let is_damaged = matches!(last, Last::Damaged { .. });
    let (active, file) = match last {
        Last::Open(active, file) => (active, file),
        Last::Damaged { growth, next } => {
            seal(dir, &growth);
            sealed.push_back(Arc::new(growth.facts()));
            match create_active(dir, next)? {
                Last::Open(active, file) => (active, file),
                Last::Damaged { .. } => unreachable!("a new segment is empty"),
            }
        }
    };
    epochs.truncate(active.end);
    let first = sealed.front().map_or(active.base, |first| first.base);
    let log_start = stored_start.unwrap_or(first).min(active.end);
    let accepted = Accepted::load(dir)?;
    (recovery.accepted_holes, recovery.holes) = holes(log_start, &sealed, active.base)
        .into_iter()
        .partition(|(from, to)| accepted.covers(from.get(), to.get()));
    let mut opened =
        Opened { sealed, active, file, epochs, log_start, is_damaged, accepted, recovery };
    load_producers(dir, &names, &mut opened)?;
    Ok(opened)
}

/// After a failed sync, writes anew what the disk may not have: the last segment with bytes, any
/// after it, and the small files. Segments before were synced when they were full; seals and
/// snapshots only save time.
fn rewrite_unsynced(dir: &dyn Dir) -> io::Result<bool> {
    if !unsynced::is_marked(dir, SYNC_FAILED)? {
        return Ok(false);
    }
    let names = dir.list()?;
    let mut last = 0;
    for base in names.iter().filter_map(|name| parse_name(name, LOG)) {
        if base > last && dir.open(&name(base, LOG))?.size()? > 0 {
            last = base;
        }
    }
    let is_needed = |name: &String| match parse_name(name, LOG) {
        Some(base) => base >= last,
        None => [accepted::NAME, epochs::NAME, LOG_START].contains(&name.as_str()),
    };
    let needed: Vec<String> = names.into_iter().filter(is_needed).collect();
    unsynced::rewrite(dir, &needed, SYNC_FAILED)?;
    Ok(true)
}

enum Last {
    Open(Growth, Arc<dyn File>),
    /// It takes no more batches; the log goes on at `next` in a segment of its own.
    Damaged {
        growth: Growth,
        next: i64,
    },
}

/// A new segment, durable in name.
pub(super) fn create_segment(dir: &dyn Dir, base: i64) -> io::Result<Arc<dyn File>> {
    let name = name(base, LOG);
    let file = match dir.create(&name) {
        // Left by a start or roll that got no further: nothing can be in it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = dir.open(&name)?;
            if file.size()? > 0 {
                return Err(error);
            }
            file
        }
        created => created?,
    };
    dir.sync()?;
    Ok(file)
}

fn create_active(dir: &dyn Dir, base: i64) -> io::Result<Last> {
    Ok(Last::Open(Growth::new(base), create_segment(dir, base)?))
}

/// Removes an empty last segment that a failed roll left, if the log went on in the one before.
fn drop_bypassed(dir: &dyn Dir, bases: &mut Vec<i64>, epochs: &Epochs) -> io::Result<()> {
    if is_last_bypassed(dir, bases, epochs)?
        && let Some(last) = bases.pop()
    {
        dir.remove(&name(last, LOG))?;
        dir.sync()?;
    }
    Ok(())
}

/// Whether the last segment is empty, and the one before goes on beyond its base.
pub(super) fn is_last_bypassed(dir: &dyn Dir, bases: &[i64], epochs: &Epochs) -> io::Result<bool> {
    let [.., previous, last] = *bases else { return Ok(false) };
    if dir.open(&name(last, LOG))?.size()? > 0 {
        return Ok(false);
    }
    let file = dir.open(&name(previous, LOG))?;
    let size = file.size()?;
    if Sealed::load(dir, previous, size)?.is_some_and(|sealed| sealed.end <= last) {
        return Ok(false);
    }
    Ok(walk::scan(&*file, size, (previous, i64::MAX), epochs)?.growth.end > last)
}

/// Writes the seal of `growth`; without it the next start scans, so a failure is only told.
pub(super) fn seal(dir: &dyn Dir, growth: &Growth) {
    if let Err(error) = growth.write_seal(dir) {
        tracing::warn!(
            %error, dir = %dir.path().display(), base = growth.base,
            "segment left without a seal, it will be scanned at the next start"
        );
    }
}

/// A segment that others follow: by its seal, or by a scan that makes the seal again.
fn open_sealed(dir: &dyn Dir, range: (i64, i64), epochs: &Epochs) -> io::Result<Sealed> {
    let file = dir.open(&name(range.0, LOG))?;
    let size = file.size()?;
    if let Some(sealed) = Sealed::load(dir, range.0, size)?.filter(|s| s.end <= range.1) {
        return Ok(sealed);
    }
    let growth = rescan(&*file, size, range, epochs)?;
    seal(dir, &growth);
    Ok(growth.facts())
}

/// Everything about a segment that its bytes tell.
pub(super) fn rescan(
    file: &dyn File,
    size: u64,
    range: (i64, i64),
    epochs: &Epochs,
) -> io::Result<Growth> {
    let mut growth = walk::scan(file, size, range, epochs)?.growth;
    take_tail(&mut growth, file, size)?;
    set_times(&mut growth, file)?;
    Ok(growth)
}

/// Counts damaged bytes at the end of the file as part of the segment.
fn take_tail(growth: &mut Growth, file: &dyn File, size: u64) -> io::Result<()> {
    walk::update_crc(&mut growth.crc, &mut Window::new(file, size), growth.size..size)?;
    growth.size = size;
    Ok(())
}

/// Without a seal the append times are lost; the file's own time is the nearest to them.
fn set_times(growth: &mut Growth, file: &dyn File) -> io::Result<()> {
    growth.last_append_ms = file.modified_ms()?;
    growth.first_append_ms = (growth.size > 0).then_some(growth.last_append_ms);
    Ok(())
}

fn open_last(
    dir: &dyn Dir,
    base: i64,
    (last_stop, outage): (&LastStop, Outage),
    epochs: &Epochs,
    recovery: &mut Recovery,
) -> io::Result<Last> {
    let mut floor = last_stop.durable_floor.get();
    let file = dir.open(&name(base, LOG))?;
    let size = file.size()?;
    if last_stop.was_clean
        && let Some(sealed) = Sealed::load_alone(dir, base)?
    {
        if let Some(growth) = resume(dir, (&*file, size), &sealed, epochs)? {
            return Ok(go_on(growth, file, floor));
        }
        // The file is not what was sealed, but the offsets that the seal tells of were given.
        floor = floor.max(sealed.end);
    }
    let walk::Scan { mut growth, not_torn } = walk::scan(&*file, size, (base, i64::MAX), epochs)?;
    let mut next = growth.end.max(floor);
    if growth.size < size {
        let (position, offset) = (growth.size, growth.end);
        let tail = Place { position, offset, size, limit: i64::MAX, epochs };
        let mut window = Window::new(&*file, size);
        // A clean stop had synced all, and a process that ends leaves all that it had written.
        let is_all_kept = last_stop.was_clean || outage == Outage::Process;
        let is_damage = not_torn.is_some()
            || growth.end < floor
            || is_all_kept && !walk::is_cut_short(&mut window, &tail)?;
        if is_damage {
            next = next.max(not_torn.unwrap_or(next)).max(walk::claimed_end(&mut window, &tail)?);
            take_tail(&mut growth, &*file, size)?;
        } else {
            let name = name(base, LOG);
            recovery.torn_tail = Some(cut(dir, &*file, &name, (&growth, size))?);
        }
    }
    set_times(&mut growth, &*file)?;
    // What was read may still be only in the page cache, and is about to be shown as durable.
    file.sync_data()?;
    Ok(go_on(growth, file, next))
}

/// The last segment as the clean stop sealed it; `None` if it does not end as its seal says. What
/// is appended after an end that the batches do not lead to would be lost with the next scan.
fn resume(
    dir: &dyn Dir,
    (file, size): (&dyn File, u64),
    sealed: &Sealed,
    epochs: &Epochs,
) -> io::Result<Option<Growth>> {
    let index = if sealed.size == size { sealed.load_index(dir)? } else { None };
    let Some(index) = index else { return Ok(None) };
    let (position, offset) = seek_offset(&index, sealed.base, i64::MAX);
    let mut window = Window::with_step(file, size, END_BYTES);
    let mut place = Place { position, offset, size, limit: i64::MAX, epochs };
    while let Some(header) = walk::batch_at(&mut window, &place)? {
        place = place.after(&header);
    }
    let is_its_end = place.position == size && place.offset == sealed.end;
    Ok(is_its_end.then(|| Growth::resume(sealed, index.to_vec())))
}

/// Bytes read at once to check a segment's end: the last index entry is seldom further from it.
const END_BYTES: usize = 8 << 10;

fn go_on(growth: Growth, file: Arc<dyn File>, next: i64) -> Last {
    let next = growth.end.max(next);
    if growth.holes.is_empty() && next == growth.end {
        Last::Open(growth, file)
    } else {
        Last::Damaged { growth, next }
    }
}

/// Cuts what follows the last sound batch, keeping the bytes in a file of their own.
fn cut(
    dir: &dyn Dir,
    file: &dyn File,
    name: &str,
    (growth, size): (&Growth, u64),
) -> io::Result<TornTail> {
    let position = growth.size;
    let kept = match keep_torn(dir, file, &format!("{name}{CUT}{position}"), position..size) {
        Ok(kept) => Some(dir.path().join(kept)),
        // A full disk must not keep the log from opening; the bytes were never acknowledged.
        Err(error) if is_full(&error) => None,
        Err(error) => return Err(error),
    };
    file.set_len(position)?;
    let path = dir.path().join(name);
    let offset = Offset::new(growth.end).unwrap_or_default();
    Ok(TornTail { path, position, offset, bytes: size - position, kept })
}

/// In the name of a file with the bytes of a torn tail.
pub(super) const CUT: &str = ".cut-";
/// Such files that are kept; the oldest go.
const CUTS_MAX: usize = 8;

/// Keeps a torn tail under a name of its own, and not too many of them.
fn keep_torn(
    dir: &dyn Dir,
    file: &dyn File,
    wanted: &str,
    range: std::ops::Range<u64>,
) -> io::Result<String> {
    let mut kept = Vec::new();
    for name in dir.list()?.into_iter().filter(|name| name.contains(CUT)) {
        kept.push((dir.open(&name)?.modified_ms()?, name));
    }
    kept.sort_unstable();
    for (_, oldest) in kept.iter().take((kept.len() + 1).saturating_sub(CUTS_MAX)) {
        dir.remove(oldest)?;
    }
    let is_free = |name: &String| !kept.iter().any(|(_, other)| other == name);
    let name = (0..=CUTS_MAX).map(|n| format!("{wanted}{}", ".again".repeat(n))).find(is_free);
    let name = name.unwrap_or_else(|| wanted.to_owned());
    keep_beside(dir, file, &name, range)?;
    Ok(name)
}

/// Copies bytes of a file to a file of their own, durably.
pub(super) fn keep_beside(
    dir: &dyn Dir,
    file: &dyn File,
    name: &str,
    range: std::ops::Range<u64>,
) -> io::Result<()> {
    let mut window = Window::new(file, range.end);
    let kept = match dir.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => dir.open(name)?,
        created => created?,
    };
    kept.set_len(0)?;
    let mut position = range.start;
    while position < range.end {
        let length = usize::try_from(range.end - position).unwrap_or(usize::MAX).min(1 << 20);
        let Some(bytes) = window.bytes(position, length)? else { break };
        kept.write_all_at(&[bytes], position - range.start)?;
        position += u64::try_from(length).map_err(io::Error::other)?;
    }
    kept.sync_data()?;
    dir.sync()
}

/// Whether the disk, or the share of it that is ours, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Ranges of offsets that cannot be read: before the first segment, within segments, between them.
fn holes(
    log_start: i64,
    sealed: &VecDeque<Arc<Sealed>>,
    active_base: i64,
) -> Vec<(Offset, Offset)> {
    let mut holes = Vec::new();
    let mut reached = log_start;
    for segment in sealed {
        holes.push((reached, segment.base));
        holes.extend(segment.holes.iter().map(|hole| (hole.from, hole.to)));
        reached = segment.end;
    }
    holes.push((reached, active_base));
    holes.retain(|(from, to)| from < to && log_start < *to);
    let offset = |raw| Offset::new(raw).unwrap_or_default();
    holes.into_iter().map(|(from, to)| (offset(from), offset(to))).collect()
}

/// The end of what seals tell of whose segments are lost: offsets below it were given.
fn orphans_end(dir: &dyn Dir, names: &[String], bases: &[i64]) -> io::Result<i64> {
    let mut end = 0;
    for base in names.iter().filter_map(|name| parse_name(name, SEAL)) {
        if bases.binary_search(&base).is_err()
            && let Some(sealed) = Sealed::load_alone(dir, base)?
        {
            end = end.max(sealed.end);
        }
    }
    Ok(end)
}

/// Files that only save time, or that were never finished. One that cannot be removed does no harm.
fn remove_leftovers(dir: &dyn Dir, names: &[String], bases: &[i64]) {
    for name in names {
        let is_orphan =
            parse_name(name, SEAL).is_some_and(|base| bases.binary_search(&base).is_err());
        if name.ends_with(TEMPORARY) || is_orphan {
            drop(dir.remove(name));
        }
    }
}

/// The log start, 0 if it was never raised; `None` if the file is damaged.
pub(super) fn load_log_start(dir: &dyn Dir) -> io::Result<Option<i64>> {
    match dir.open(LOG_START) {
        Ok(file) => {
            let payload = checked::read(&*file, Kind::LogStart)?;
            let start = payload.and_then(|payload| payload.try_into().ok()).map(i64::from_be_bytes);
            Ok(start.filter(|start| 0 <= *start))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

/// Makes a raised log start durable.
pub(super) fn store_log_start(dir: &dyn Dir, log_start: i64) -> io::Result<()> {
    let wrapped = checked::wrap(Kind::LogStart, &log_start.to_be_bytes())?;
    checked::replace(dir, LOG_START, &[&wrapped])?;
    dir.sync()
}

fn load_producers(dir: &dyn Dir, names: &[String], opened: &mut Opened) -> io::Result<()> {
    let found = snapshot::load(dir, names, opened.active.end)?;
    let from = found.as_ref().map_or(0, |(offset, _)| *offset);
    opened.recovery.snapshot = found.map(|(offset, bytes)| Snapshot {
        offset: Offset::new(offset).unwrap_or_default(),
        bytes: bytes.into(),
    });
    let mut headers = Vec::new();
    let nexts = opened.sealed.iter().skip(1).map(|next| next.base).chain([opened.active.base]);
    for (segment, limit) in opened.sealed.iter().zip(nexts).filter(|(s, _)| from < s.end) {
        let file = dir.open(&name(segment.base, LOG))?;
        let index = segment.load_index(dir)?.unwrap_or_default();
        let (position, offset) = seek_offset(&index, segment.base, from);
        let epochs = &opened.epochs;
        let place = Place { position, offset, size: segment.size, limit, epochs };
        collect_headers(&*file, place, from, &mut headers)?;
    }
    let Opened { active, file, epochs, .. } = &*opened;
    if from < active.end {
        let (position, offset) = seek_offset(&active.index, active.base, from);
        let place = Place { position, offset, size: active.size, limit: i64::MAX, epochs };
        collect_headers(&**file, place, from, &mut headers)?;
    }
    opened.recovery.active_batches = headers;
    Ok(())
}

/// Headers of the idempotent producers' batches from `from` on.
fn collect_headers(
    file: &dyn File,
    place: Place<'_>,
    from: i64,
    headers: &mut Vec<BatchHeader>,
) -> io::Result<()> {
    let mut window = Window::new(file, place.size);
    let mut place = place;
    while place.position < place.size {
        if let Some(header) = walk::batch_at(&mut window, &place)? {
            if header.is_idempotent() && header.base_offset >= from {
                headers.push(header);
            }
            place = place.after(&header);
        } else if let Some(hole) = walk::search(&mut window, &place)? {
            place = place.past(&hole);
        } else {
            break;
        }
    }
    Ok(())
}
