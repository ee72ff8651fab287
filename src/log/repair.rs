//! What a person decides about damage. The daemon that writes the log must not run.
//!
//! Invariant: no byte is thrown away: what is replaced or cut is kept in a file beside, and no
//! offset becomes free to be given again.

use super::{
    accepted::Accepted,
    checked::{TEMPORARY, create_or_empty},
    epochs::Epochs,
    recovery::{self, keep_beside},
    segment::{LOG, SEAL, name, parse_name},
    verify::{self, Damage},
    walk::{self, Window},
};
use crate::{
    disk::{
        dir::{Dir, File},
        if_there,
    },
    position::Offset,
};
use std::{io, ops::Range, sync::Arc};

/// A person's decision.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// The records are given up; all others stay. The damaged bytes are copied beside.
    Accept,
    /// The records from the damage on are given up, too. Their bytes are moved aside.
    CutFrom,
    /// The records are taken from this directory, a copy of the same partition's.
    Take(&'a dyn Dir),
}

/// Why a repair was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// There is no such damage (any more).
    #[error("there is no damage at offset {0}")]
    NoDamage(Offset),
    /// The other directory lacks some of the records, or its own are damaged.
    #[error("the backup has no sound records from offset {0} on")]
    NotInBackup(Offset),
    /// The records do not fit in the segment's file.
    #[error("the records of the backup end at offset {found}, the damage ends at {wanted}")]
    OtherRecords {
        /// Where those in the backup end.
        found: Offset,
        /// Where the damage ends.
        wanted: Offset,
    },
    /// The disk refused; the log is as it was.
    #[error("cannot repair the log")]
    Io(#[from] io::Error),
}

/// Repairs one damage that [`verify`](super::verify()) has just found. Blocks on the disk.
///
/// # Errors
/// See [`RepairError`]. What was not damaged is as it was then, and the same may be tried again.
pub fn repair(dir: &dyn Dir, damage: &Damage, decision: Decision<'_>) -> Result<(), RepairError> {
    let report = verify::verify(dir)?;
    let is_there = |found: &Damage| found.from == damage.from && found.to == damage.to;
    let found = report.damages().find(|found| is_there(found));
    let damage = found.ok_or(RepairError::NoDamage(damage.from))?;
    match decision {
        Decision::Accept => Ok(accept(dir, damage)?),
        Decision::CutFrom => Ok(cut_from(dir, damage, report.log_end.get())?),
        Decision::Take(backup) => take(dir, damage, backup),
    }
}

/// In the name of a file with bytes that were damaged, or given up with them. Never removed by us.
pub(super) const DAMAGED: &str = ".damaged-";

fn accept(dir: &dyn Dir, damage: &Damage) -> io::Result<()> {
    keep_damaged(dir, damage)?;
    // Made again, it knows of the hole.
    damage_base(damage).map_or(Ok(()), |base| remove_seal(dir, base))?;
    Accepted::load(dir)?.add(dir, damage.from.get(), damage.to.get())
}

/// The damaged bytes, in a file of their own.
fn keep_damaged(dir: &dyn Dir, damage: &Damage) -> io::Result<()> {
    let Some((file_name, bytes)) = &damage.place else { return Ok(()) };
    let kept = format!("{file_name}{DAMAGED}{}", bytes.start);
    keep_beside(dir, &*dir.open(file_name)?, &kept, bytes.clone())
}

/// The log goes on at `log_end`, so that no offset is given twice. A crash between any two steps
/// leaves a hole within the range that is accepted first.
fn cut_from(dir: &dyn Dir, damage: &Damage, log_end: i64) -> io::Result<()> {
    let from = damage.from.get();
    Accepted::load(dir)?.add(dir, from, log_end)?;
    let mut later: Vec<i64> = dir.list()?.iter().filter_map(|name| parse_name(name, LOG)).collect();
    let is_whole = |base: &i64| *base >= from && damage_base(damage) != Some(*base);
    later.retain(|base| is_whole(base) && *base < log_end);
    recovery::create_segment(dir, log_end)?;
    for base in later {
        remove_seal(dir, base)?;
        dir.rename(&name(base, LOG), &format!("{}{DAMAGED}0", name(base, LOG)))?;
    }
    if let (Some((file_name, bytes)), Some(base)) = (&damage.place, damage_base(damage)) {
        let file = dir.open(file_name)?;
        let kept = format!("{file_name}{DAMAGED}{}", bytes.start);
        keep_beside(dir, &*file, &kept, bytes.start..file.size()?)?;
        remove_seal(dir, base)?;
        file.set_len(bytes.start)?;
        file.sync_data()?;
    }
    dir.sync()
}

/// Builds the segment anew with the backup's batches in the place of the damage.
fn take(dir: &dyn Dir, damage: &Damage, backup: &dyn Dir) -> Result<(), RepairError> {
    let base = damage_base(damage).unwrap_or(damage.from.get());
    let file_name = name(base, LOG);
    let temporary = format!("{file_name}{TEMPORARY}");
    let built = build(dir, damage, backup, &temporary);
    if let Err(error) = built {
        // It was not there before, and the next start removes it; the error at hand counts.
        drop(dir.remove(&temporary));
        return Err(error);
    }
    keep_damaged(dir, damage)?;
    // A seal that outlived its segment would tell of the hole again.
    remove_seal(dir, base)?;
    dir.sync()?;
    dir.rename(&temporary, &file_name)?;
    Ok(dir.sync()?)
}

fn build(
    dir: &dyn Dir,
    damage: &Damage,
    backup: &dyn Dir,
    temporary: &str,
) -> Result<(), RepairError> {
    let mut target = Target { file: create_or_empty(dir, temporary)?, end: 0 };
    let old = match &damage.place {
        Some((file_name, bytes)) => Some((dir.open(file_name)?, bytes.clone())),
        None => None,
    };
    if let Some((file, bytes)) = &old {
        target.copy(&**file, 0..bytes.start)?;
    }
    copy_batches(&mut target, damage, backup, &Epochs::load(dir)?)?;
    if let Some((file, bytes)) = &old {
        target.copy(&**file, bytes.end..file.size()?)?;
    }
    Ok(target.file.sync_data()?)
}

/// Appends the batches of exactly the damaged offsets, each checked.
fn copy_batches(
    target: &mut Target,
    damage: &Damage,
    backup: &dyn Dir,
    epochs: &Epochs,
) -> Result<(), RepairError> {
    let (mut next, to) = (damage.from.get(), damage.to.get());
    let mut bases: Vec<i64> =
        backup.list()?.iter().filter_map(|name| parse_name(name, LOG)).collect();
    bases.sort_unstable();
    let limits = bases.iter().skip(1).copied().chain([i64::MAX]);
    for (base, limit) in bases.iter().zip(limits) {
        if limit <= next || to <= next {
            continue;
        }
        let file = backup.open(&name(*base, LOG))?;
        let mut written = Ok(());
        walk::scan_with(&*file, file.size()?, (*base, limit), epochs, &mut |_, header, bytes| {
            if header.base_offset == next && next < to && written.is_ok() {
                written = target.append(bytes);
                next = header.last_offset().saturating_add(1);
            }
        })?;
        written?;
    }
    if next < to {
        return Err(RepairError::NotInBackup(Offset::new(next).unwrap_or_default()));
    }
    if next > to {
        let found = Offset::new(next).unwrap_or_default();
        return Err(RepairError::OtherRecords { found, wanted: damage.to });
    }
    Ok(())
}

/// A file that grows.
struct Target {
    file: Arc<dyn File>,
    end: u64,
}

impl Target {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(&[bytes], self.end)?;
        self.end += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        Ok(())
    }

    fn copy(&mut self, from: &dyn File, range: Range<u64>) -> io::Result<()> {
        let mut window = Window::new(from, range.end);
        let mut position = range.start;
        while position < range.end {
            let length = usize::try_from(range.end - position).unwrap_or(usize::MAX).min(1 << 20);
            let bytes = window.bytes(position, length)?;
            self.append(bytes.ok_or(io::ErrorKind::UnexpectedEof)?)?;
            position += u64::try_from(length).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Base of the segment that holds the damaged bytes.
fn damage_base(damage: &Damage) -> Option<i64> {
    damage.place.as_ref().and_then(|(file_name, _)| parse_name(file_name, LOG))
}

fn remove_seal(dir: &dyn Dir, base: i64) -> io::Result<()> {
    if_there(dir.remove(&name(base, SEAL)))
}
