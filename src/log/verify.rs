//! A whole reading of one partition's directory that changes nothing.

use super::{
    accepted::{self, Accepted},
    checked::{self, Kind, TEMPORARY},
    epochs::{self, Epochs},
    recovery::{self, CUT, LOG_START},
    repair::DAMAGED,
    segment::{LOG, SEAL, Sealed, name, parse_name},
    snapshot::PRODUCERS,
    walk::{self, Scan},
};
use crate::{
    disk::dir::Dir,
    position::Offset,
    wire::{
        batch::BatchHeader,
        record::{self, RecordError},
    },
};
use bytes::Bytes;
use std::{fmt, io, ops::Range};

/// Bytes that the records of one batch may unfold to.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
/// Findings of one log that are kept one by one; the rest is counted.
const FINDINGS_MAX: usize = 1_000;

/// What a reading of one log found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Oldest offset that can be read.
    pub log_start: Offset,
    /// The offset that the next batch would get, if no floor lies above it.
    pub log_end: Offset,
    /// Segment files.
    pub segments: u64,
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Sound batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// What is not as it was written, in the order of the offsets; at most 1,000.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub findings_left_out: u64,
}

impl Report {
    /// Whether nothing is lost or altered, but for what a person has accepted.
    pub fn is_sound(&self) -> bool {
        self.findings_left_out == 0 && !self.findings.iter().any(Finding::is_damage)
    }

    /// The damages among the findings.
    pub fn damages(&self) -> impl Iterator<Item = &Damage> {
        self.findings.iter().filter_map(|finding| match finding {
            Finding::Damage(damage) => Some(damage),
            _ => None,
        })
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }
}

/// Offsets that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// The first offset lost.
    pub from: Offset,
    /// The next offset that is there, or will be given.
    pub to: Offset,
    /// The segment's file and its damaged bytes; `None` where a whole segment is missing.
    pub place: Option<(String, Range<u64>)>,
    /// A person has accepted it: see [`repair`](super::repair()).
    pub is_accepted: bool,
}

/// One thing that is not as it was written. `Display` is one clause.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// Records are lost.
    Damage(Damage),
    /// Bytes at the log's end that are no batch: what a crash leaves of an unfinished write. The
    /// next start cuts them, or makes them damage where they lie below a floor.
    TornTail {
        /// The segment's file.
        file: String,
        /// First byte.
        position: u64,
        /// First offset that is not there.
        offset: Offset,
        /// How many.
        bytes: u64,
    },
    /// A segment whose batches are all sound, but which as a whole is not what was sealed.
    Altered {
        /// The segment's file.
        file: String,
    },
    /// A batch as its producer sent it, whose records cannot be decoded.
    Records {
        /// The segment's file.
        file: String,
        /// Its first byte.
        position: u64,
        /// Its first offset.
        offset: Offset,
        /// Why.
        error: RecordError,
    },
    /// A small file that is not as it was written. The next start makes it again or does without.
    SmallFile {
        /// Its name.
        file: String,
    },
    /// A file that is none of the log's, or is left over.
    Stray {
        /// Its name.
        file: String,
    },
}

impl Finding {
    /// Whether something that was written is lost or altered, and no person has accepted it.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Damage(damage) => !damage.is_accepted,
            Self::Altered { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage(damage) => damage.fmt(f),
            Self::TornTail { file, position, offset, bytes } => {
                write!(f, "torn tail of {bytes} bytes in {file} at byte {position}, {offset} on")
            }
            Self::Altered { file } => {
                write!(f, "{file} is not as it was sealed, though each batch in it is sound")
            }
            Self::Records { file, position, offset, error } => {
                write!(f, "batch at offset {offset} ({file}, byte {position}): {error}")
            }
            Self::SmallFile { file } => write!(f, "{file} is damaged and will be made again"),
            Self::Stray { file } => write!(f, "{file} is left over"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offsets {} to {} cannot be read: ", self.from, self.to)?;
        match &self.place {
            Some((file, bytes)) => write!(f, "{file}, bytes {} to {}", bytes.start, bytes.end)?,
            None => write!(f, "the segment is missing")?,
        }
        if self.is_accepted { write!(f, " (accepted)") } else { Ok(()) }
    }
}

/// Reads every byte of the log in `dir` and changes nothing: each batch's CRC and place in the
/// chain, each record (decompressed), seals against their segments, and the small files. Blocks on
/// the disk; the daemon that writes the log must not run.
///
/// # Errors
/// As the disk says. What is damaged is in the report and no error.
pub fn verify(dir: &dyn Dir) -> io::Result<Report> {
    let names = dir.list()?;
    let mut bases: Vec<i64> = names.iter().filter_map(|name| parse_name(name, LOG)).collect();
    bases.sort_unstable();
    let epochs = Epochs::load(dir)?;
    let first = bases.first().copied().unwrap_or(0);
    let log_start = recovery::load_log_start(dir)?.unwrap_or(first);
    let mut verifier = Verifier {
        dir,
        accepted: Accepted::load(dir)?,
        log_start,
        report: Report::default(),
        epochs: &epochs,
    };
    if recovery::is_last_bypassed(dir, &bases, &epochs)? {
        let last = bases.pop().unwrap_or_default();
        verifier.report.add(Finding::Stray { file: name(last, LOG) });
    }
    if log_start < first {
        verifier.damage((log_start, first), None);
    }
    let limits = bases.iter().skip(1).map(|next| Some(*next)).chain([None]);
    for (base, limit) in bases.iter().zip(limits) {
        verifier.segment(*base, limit)?;
    }
    verifier.small_files(&names, &bases)?;
    let Verifier { mut report, .. } = verifier;
    report.log_start = offset(log_start.min(report.log_end.get()));
    Ok(report)
}

struct Verifier<'a> {
    dir: &'a dyn Dir,
    epochs: &'a Epochs,
    accepted: Accepted,
    /// Nothing below it counts.
    log_start: i64,
    report: Report,
}

impl Verifier<'_> {
    /// `limit`: where the next segment begins; `None` for the last.
    fn segment(&mut self, base: i64, limit: Option<i64>) -> io::Result<()> {
        let file_name = name(base, LOG);
        let file = self.dir.open(&file_name)?;
        let size = file.size()?;
        self.report.segments += 1;
        self.report.bytes += size;
        let range = (base, limit.unwrap_or(i64::MAX));
        let report = &mut self.report;
        let scan = walk::scan_with(&*file, size, range, self.epochs, &mut |at, header, bytes| {
            records(report, (&file_name, at), header, bytes);
        })?;
        let growth = &scan.growth;
        for hole in &growth.holes {
            let bytes = hole.from_position..hole.to_position;
            self.damage((hole.from, hole.to), Some((file_name.clone(), bytes)));
        }
        self.report.log_end = offset(growth.end);
        let is_whole = growth.holes.is_empty() && growth.size == size;
        self.tail(&scan, size, (base, limit));
        let sealed = Sealed::load(self.dir, base, size)?;
        let crc = growth.crc.value();
        if is_whole && sealed.is_some_and(|sealed| sealed.crc != crc) {
            self.report.add(Finding::Altered { file: file_name });
        }
        Ok(())
    }

    /// What follows the last sound batch of a segment.
    fn tail(&mut self, scan: &Scan, size: u64, (base, limit): (i64, Option<i64>)) {
        let Scan { growth, not_torn } = scan;
        let bytes = growth.size..size;
        let place = (!bytes.is_empty()).then(|| (name(base, LOG), bytes));
        match (limit.or(*not_torn), place) {
            (Some(next), place) if growth.end < next => {
                self.damage((growth.end, next), place);
                self.report.log_end = offset(next);
            }
            (None, Some((file, bytes))) => self.report.add(Finding::TornTail {
                file,
                position: bytes.start,
                offset: offset(growth.end),
                bytes: bytes.end - bytes.start,
            }),
            // The next segment begins where it should, and yet there are bytes too many.
            (Some(_), Some((file, _))) => self.report.add(Finding::Altered { file }),
            (_, None) => (),
        }
    }

    fn damage(&mut self, (from, to): (i64, i64), place: Option<(String, Range<u64>)>) {
        if to <= self.log_start {
            return;
        }
        let is_accepted = self.accepted.covers(from, to);
        let (from, to) = (offset(from), offset(to));
        self.report.add(Finding::Damage(Damage { from, to, place, is_accepted }));
    }

    fn small_files(&mut self, names: &[String], bases: &[i64]) -> io::Result<()> {
        for file in names {
            let kind = match file.as_str() {
                epochs::NAME => Some(Kind::Epochs),
                LOG_START => Some(Kind::LogStart),
                accepted::NAME => Some(Kind::Accepted),
                name if parse_name(name, PRODUCERS).is_some() => Some(Kind::Snapshot),
                _ => None,
            };
            if let Some(kind) = kind {
                if checked::read_named(self.dir, file, kind)?.is_none() {
                    self.report.add(Finding::SmallFile { file: file.clone() });
                }
            } else if let Some(base) = parse_name(file, SEAL) {
                self.seal(base, file, bases)?;
            } else if parse_name(file, LOG).is_none() && !is_kept_bytes(file) {
                self.report.add(Finding::Stray { file: file.clone() });
            }
        }
        Ok(())
    }

    fn seal(&mut self, base: i64, file: &str, bases: &[i64]) -> io::Result<()> {
        if bases.binary_search(&base).is_err() {
            self.report.add(Finding::Stray { file: file.to_owned() });
            return Ok(());
        }
        let size = self.dir.open(&name(base, LOG))?.size()?;
        let is_good = match Sealed::load(self.dir, base, size)? {
            Some(sealed) => sealed.load_index(self.dir)?.is_some(),
            None => false,
        };
        if !is_good {
            self.report.add(Finding::SmallFile { file: file.to_owned() });
        }
        Ok(())
    }
}

/// Bytes that were kept beside: nothing is wrong with them.
fn is_kept_bytes(file: &str) -> bool {
    let is_kept = [CUT, DAMAGED].iter().any(|part| file.contains(part));
    is_kept && !file.ends_with(TEMPORARY)
}

fn records(report: &mut Report, place: (&str, u64), header: &BatchHeader, bytes: &[u8]) {
    report.batches += 1;
    report.records += u64::try_from(header.record_count).unwrap_or(0);
    let bytes = Bytes::copy_from_slice(bytes);
    if let Err(error) = record::Records::open(&bytes, header, DECOMPRESSED_BYTES_MAX) {
        let (file, position) = place;
        let offset = offset(header.base_offset);
        report.add(Finding::Records { file: file.to_owned(), position, offset, error });
    }
}

fn offset(raw: i64) -> Offset {
    Offset::new(raw).unwrap_or_default()
}
