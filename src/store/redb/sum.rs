//! The checksum at the end of every value: redb checks its pages only when it opens a file with
//! that asked for, and a byte may flip later.
//!
//! CRC-32C over the table's name, the key, and the value. The key belongs to it so that a row which
//! is found under another key, by a flipped byte in a key or a branch, is not taken for that key's.

use crate::store::StoreError;
use crc_fast::{CrcAlgorithm, Digest};

/// Bytes of the checksum.
pub(super) const SUM_BYTES: usize = 4;

/// The bytes of a key that its row's checksum covers.
pub(super) trait Key: Copy {
    /// Adds them.
    fn cover(&self, digest: &mut Digest);
}

impl Key for u64 {
    fn cover(&self, digest: &mut Digest) {
        digest.update(&self.to_le_bytes());
    }
}

impl Key for i64 {
    fn cover(&self, digest: &mut Digest) {
        digest.update(&self.to_le_bytes());
    }
}

impl Key for i32 {
    fn cover(&self, digest: &mut Digest) {
        digest.update(&self.to_le_bytes());
    }
}

impl Key for &str {
    fn cover(&self, digest: &mut Digest) {
        digest.update(self.as_bytes());
    }
}

impl Key for &[u8] {
    fn cover(&self, digest: &mut Digest) {
        digest.update(self);
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    fn cover(&self, digest: &mut Digest) {
        self.0.cover(digest);
        self.1.cover(digest);
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    fn cover(&self, digest: &mut Digest) {
        self.0.cover(digest);
        self.1.cover(digest);
        self.2.cover(digest);
    }
}

/// The row with its checksum.
pub(super) fn seal(table: &'static str, key: impl Key, mut row: Vec<u8>) -> Vec<u8> {
    let sum = sum(table, &key, &row);
    row.extend_from_slice(&sum.to_le_bytes());
    row
}

/// The row without its checksum, decoded.
///
/// # Errors
/// `Damaged`: the checksum is not the row's, or the row is none of ours.
pub(super) fn open<'a, T>(
    table: &'static str,
    key: impl Key,
    sealed: &'a [u8],
    decode: impl FnOnce(&'a [u8]) -> Option<T>,
) -> Result<T, StoreError> {
    let opened = sealed.split_last_chunk::<SUM_BYTES>().and_then(|(row, stored)| {
        let is_right = u32::from_le_bytes(*stored) == sum(table, &key, row);
        if is_right { decode(row) } else { None }
    });
    opened.ok_or_else(|| damaged(table, key))
}

/// The error about a row, which is named by the checksum of its key.
pub(super) fn damaged(table: &'static str, key: impl Key) -> StoreError {
    StoreError::Damaged { table, row: sum(table, &key, &[]) }
}

fn sum(table: &str, key: &impl Key, row: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(table.as_bytes());
    key.cover(&mut digest);
    digest.update(row);
    u32::try_from(digest.finalize()).expect("a 32-bit checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_or_another_key_is_damage() {
        let sealed = seal("t", (7_u64, "key"), b"row".to_vec());
        let read = |key, sealed: &[u8]| open("t", key, sealed, |row| Some(row.to_vec()));
        assert_eq!(read((7_u64, "key"), &sealed).unwrap(), b"row");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read((7, "key"), &flipped).is_err(), "bit {bit}");
        }
        assert!(read((6, "key"), &sealed).is_err());
        assert!(read((7, "kez"), &sealed).is_err());
        assert!(open("u", (7_u64, "key"), &sealed, |_| Some(())).is_err());
        assert!(read((7, "key"), &[]).is_err());
    }
}
