//! The snapshot of a partition's producers beside its log, so that a start needs not read the whole
//! log to know who sent what.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | CRC-32C of bytes 4.. |
//! | 4..12 | offset: the state of every batch below it |
//! | 12.. | the producers, see [`Producers::encode`] |
//!
//! Invariant: a snapshot never knows more than the durable log, so that what it calls a duplicate is
//! there. One that does (or is damaged) is passed over, which costs reading the log from its start.

use super::producer::{Producers, Undo};
use crate::{
    log::{Batches, LogReader, ReadError, Recovery, dir::Dir},
    position::Offset,
    wire::batch::{BatchHeader, crc32c},
};
use std::io;

/// Writes the state as of `offset`, in place of the last one. Blocks on the disk.
///
/// # Errors
/// As the disk says; the last snapshot is still there.
pub fn store(dir: &dyn Dir, offset: Offset, producers: &Producers) -> io::Result<()> {
    let mut body = offset.get().to_be_bytes().to_vec();
    body.extend(producers.encode());
    let crc = crc32c(&body).to_be_bytes();
    if dir.list()?.iter().any(|name| name == TEMPORARY) {
        dir.remove(TEMPORARY)?;
    }
    let file = dir.create(TEMPORARY)?;
    file.write_all_at(&[&crc, &body], 0)?;
    file.sync_data()?;
    dir.rename(TEMPORARY, NAME)?;
    dir.sync()
}

/// The state as of the end of the log. Blocks on the disk.
///
/// # Errors
/// The log cannot be read.
pub fn restore(
    dir: &dyn Dir,
    reader: &LogReader,
    recovery: &Recovery,
    now_ms: i64,
) -> Result<Producers, ReadError> {
    let end = reader.high_watermark();
    let stored = load(dir).map_err(ReadError::Io)?.filter(|(offset, _)| *offset <= end);
    let (at, producers) = stored.unwrap_or_default();
    let mut replay = Replay { producers, next: at.max(reader.log_start()), now_ms };
    let scanned = recovery.active_batches.first().and_then(|first| Offset::new(first.base_offset));
    // Below what recovery has scanned the log itself is read.
    replay.read(reader, scanned.unwrap_or(end).min(end))?;
    for header in &recovery.active_batches {
        replay.take(header);
    }
    replay.read(reader, end)?;
    Ok(replay.producers)
}

/// Follows the log's headers.
struct Replay {
    producers: Producers,
    next: Offset,
    now_ms: i64,
}

impl Replay {
    fn take(&mut self, header: &BatchHeader) {
        let Some(end) = Offset::new(header.last_offset().saturating_add(1)) else { return };
        if header.base_offset >= self.next.get() {
            self.producers.note(header, self.now_ms, &mut Undo::default());
            self.producers.expire(self.now_ms);
            self.next = end;
        }
    }

    fn read(&mut self, reader: &LogReader, until: Offset) -> Result<(), ReadError> {
        while self.next < until {
            let before = self.next;
            match reader.read(self.next, READ_BYTES) {
                Ok(batches) => self.take_all(&batches),
                // A hole: what lies in it cannot be known, what comes after it can.
                Err(ReadError::Corrupt { resume_at: Some(resume_at), .. }) => {
                    self.next = resume_at;
                }
                Err(ReadError::Corrupt { resume_at: None, .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.next <= before {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take_all(&mut self, batches: &Batches) {
        for chunk in &batches.chunks {
            let mut rest = &chunk[..];
            while let Ok(header) = BatchHeader::parse(rest) {
                // A batch that begins below was noted already, with the snapshot.
                let end = Offset::new(header.last_offset().saturating_add(1));
                self.take(&header);
                self.next = self.next.max(end.unwrap_or(self.next));
                rest = &rest[header.size_bytes..];
            }
        }
    }
}

/// The stored snapshot; `None` if there is none or it is damaged.
fn load(dir: &dyn Dir) -> io::Result<Option<(Offset, Producers)>> {
    let file = match dir.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = file.size()?.min(SNAPSHOT_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(size).expect("bounded")];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8]) -> Option<(Offset, Producers)> {
    let (crc, body) = bytes.split_first_chunk::<4>()?;
    if crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let (offset, producers) = body.split_first_chunk::<8>()?;
    Some((Offset::new(i64::from_be_bytes(*offset))?, Producers::decode(producers)?))
}

const NAME: &str = "producers.snapshot";
const TEMPORARY: &str = "producers.snapshot.new";
/// Bytes read at once where the log itself is followed.
const READ_BYTES: usize = 1 << 20;
/// More than the bound on producers can fill.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 20;
