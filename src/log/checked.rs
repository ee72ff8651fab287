//! The envelope of every small file beside the segments: what it is, its version, and a CRC.
//! A file that does not pass is as good as absent.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | kind, four letters |
//! | 4..6 | format version, 1 |
//! | 6..10 | payload bytes |
//! | 10..14 | CRC-32C of bytes 0..10 and the payload |
//! | 14.. | payload |
//!
//! All numbers are big-endian, as in Kafka's files.

use crate::{
    disk::dir::{Dir, File},
    wire::batch::crc32c,
};
use std::{io, sync::Arc};

/// What a small file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Seal,
    Snapshot,
    Epochs,
    LogStart,
    Accepted,
}

impl Kind {
    const fn letters(self) -> [u8; 4] {
        *match self {
            Self::Seal => b"TWSL",
            Self::Snapshot => b"TWPS",
            Self::Epochs => b"TWEP",
            Self::LogStart => b"TWLS",
            Self::Accepted => b"TWAH",
        }
    }
}

const VERSION: u16 = 1;
/// Bytes before the payload.
pub(super) const ENVELOPE_BYTES: usize = 14;
/// A payload above this is refused before memory is taken for it.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// The payload in its envelope.
pub(super) fn wrap(kind: Kind, payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    bytes.extend_from_slice(&kind.letters());
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    let crc = envelope_crc(&bytes);
    bytes[10..14].copy_from_slice(&crc.to_be_bytes());
    Ok(bytes)
}

/// Reads the payload at the front of `file`; `None` if it is not there as it was written.
pub(super) fn read(file: &dyn File, kind: Kind) -> io::Result<Option<Vec<u8>>> {
    let mut front = [0; ENVELOPE_BYTES];
    if file.read_at(&mut front, 0)? < ENVELOPE_BYTES || front[0..4] != kind.letters() {
        return Ok(None);
    }
    let length = u32::from_be_bytes([front[6], front[7], front[8], front[9]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let stored = u64::try_from(length.saturating_add(ENVELOPE_BYTES)).unwrap_or(u64::MAX);
    if front[4..6] != VERSION.to_be_bytes() || length > PAYLOAD_BYTES_MAX || file.size()? < stored {
        return Ok(None);
    }
    let mut bytes = vec![0; ENVELOPE_BYTES + length];
    if file.read_at(&mut bytes, 0)? < bytes.len() {
        return Ok(None);
    }
    if bytes[10..14] != envelope_crc(&bytes).to_be_bytes() {
        return Ok(None);
    }
    bytes.drain(..ENVELOPE_BYTES);
    Ok(Some(bytes))
}

/// Like [`read`], by name; `None` also if there is no such file.
pub(super) fn read_named(dir: &dyn Dir, name: &str, kind: Kind) -> io::Result<Option<Vec<u8>>> {
    match dir.open(name) {
        Ok(file) => read(&*file, kind),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a whole file under another name, syncs it, and renames it: there is the old file or the
/// new one, never half of it. Durable after [`Dir::sync`].
pub(super) fn replace(dir: &dyn Dir, name: &str, slices: &[&[u8]]) -> io::Result<()> {
    let temporary = format!("{name}{TEMPORARY}");
    let result = create_or_empty(dir, &temporary).and_then(|file| {
        file.write_all_at(slices, 0)?;
        file.sync_data()?;
        dir.rename(&temporary, name)
    });
    if result.is_err() {
        // A leftover is removed at the next open; the error at hand is the one to report.
        drop(dir.remove(&temporary));
    }
    result
}

/// End of the name of a file that is not finished.
pub(super) const TEMPORARY: &str = ".tmp";

/// A file of that name without bytes, there before or not.
pub(super) fn create_or_empty(dir: &dyn Dir, name: &str) -> io::Result<Arc<dyn File>> {
    match dir.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = dir.open(name)?;
            file.set_len(0)?;
            Ok(file)
        }
        created => created,
    }
}

/// CRC of an envelope with its CRC field left out.
fn envelope_crc(bytes: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..10]);
    digest.update(&bytes[ENVELOPE_BYTES..]);
    u32::try_from(digest.finalize()).expect("a 32-bit checksum")
}

/// CRC-32C over a file that grows, resumable from its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RunningCrc {
    value: u32,
}

impl RunningCrc {
    /// Of no bytes.
    pub(super) const fn new() -> Self {
        Self { value: 0 }
    }

    pub(super) const fn resume(value: u32) -> Self {
        Self { value }
    }

    pub(super) const fn value(self) -> u32 {
        self.value
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let state = u64::from(!self.value);
        let mut digest =
            crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc32Iscsi, state);
        digest.update(bytes);
        self.value = u32::try_from(digest.finalize()).expect("a 32-bit checksum");
    }
}

/// CRC of a slice that stands alone.
pub(super) fn crc(bytes: &[u8]) -> u32 {
    crc32c(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_crc_is_the_crc_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut running = RunningCrc::new();
        for piece in bytes.chunks(977) {
            running = RunningCrc::resume(running.value());
            running.update(piece);
        }
        assert_eq!(running.value(), crc32c(&bytes));
    }
}
