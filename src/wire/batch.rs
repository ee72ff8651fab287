//! Record batch v2 as a checked view. The bytes are kept as the producer sent them; only the base
//! offset and the leader epoch, which lie outside the CRC, are stamped.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | base offset |
//! | 8..12 | batch length (what follows these 12 bytes) |
//! | 12..16 | partition leader epoch |
//! | 16 | magic, 2 |
//! | 17..21 | CRC-32C of bytes 21.. |
//! | 21..23 | attributes: bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control |
//! | 23..27 | last offset delta |
//! | 27..35 | base timestamp |
//! | 35..43 | max timestamp |
//! | 43..51 | producer id |
//! | 51..53 | producer epoch |
//! | 53..57 | base sequence |
//! | 57..61 | record count |
//! | 61.. | records, compressed as one |
//!
//! Source: Kafka protocol guide, "Record Batch"; KIP-98.

use bytes::{Bytes, BytesMut};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the part that the batch length counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;

const CODEC_BITS: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip
    Gzip,
    /// Snappy, raw or in Xerial framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard
    Zstd,
}

impl Codec {
    /// Its number in the attributes.
    pub(super) fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// Why bytes are no record batch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than the header, or than the batch length says.
    #[error("truncated record batch")]
    Truncated,
    /// A magic other than 2.
    #[error("record batch magic {0}, only 2 is taken")]
    Magic(i8),
    /// Negative or inconsistent length, count, delta or codec.
    #[error("record batch with invalid {0}")]
    Field(&'static str),
    /// The CRC does not match.
    #[error("record batch with wrong crc")]
    Crc,
}

/// The fixed fields of one batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes of the whole batch, this header included.
    pub size_bytes: usize,
    /// Leader epoch that the broker stamped.
    pub leader_epoch: i32,
    /// CRC as written.
    pub crc: u32,
    /// All bits.
    pub attributes: i16,
    /// Last offset minus base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, or the append time.
    pub base_timestamp: i64,
    /// Largest timestamp.
    pub max_timestamp: i64,
    /// -1 if not idempotent.
    pub producer_id: i64,
    /// -1 if not idempotent.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1 if not idempotent.
    pub base_sequence: i32,
    /// Records in the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, and checks that the whole batch is there. The CRC
    /// is not checked (see [`check_crc`]).
    ///
    /// # Errors
    /// `Truncated`, `Magic`, or `Field` for a length below the header's.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = Self::parse_fields(bytes)?;
        if bytes.len() < header.size_bytes {
            return Err(BatchError::Truncated);
        }
        Ok(header)
    }

    /// Like [`BatchHeader::parse`], from the first [`HEADER_BYTES`] alone.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`], but for records that are missing.
    pub fn parse_fields(bytes: &[u8]) -> Result<Self, BatchError> {
        let fixed: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BatchError::Truncated)?;
        let magic = i8::from_be_bytes([fixed[16]]);
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let length = usize::try_from(i32::from_be_bytes(field(fixed, 8)))
            .map_err(|_| BatchError::Field("length"))?;
        let size_bytes = length + LENGTH_PREFIX_BYTES;
        if size_bytes < HEADER_BYTES {
            return Err(BatchError::Field("length"));
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(fixed, 0)),
            size_bytes,
            leader_epoch: i32::from_be_bytes(field(fixed, 12)),
            crc: u32::from_be_bytes(field(fixed, 17)),
            attributes: i16::from_be_bytes(field(fixed, 21)),
            last_offset_delta: i32::from_be_bytes(field(fixed, 23)),
            base_timestamp: i64::from_be_bytes(field(fixed, 27)),
            max_timestamp: i64::from_be_bytes(field(fixed, 35)),
            producer_id: i64::from_be_bytes(field(fixed, 43)),
            producer_epoch: i16::from_be_bytes(field(fixed, 51)),
            base_sequence: i32::from_be_bytes(field(fixed, 53)),
            record_count: i32::from_be_bytes(field(fixed, 57)),
        })
    }

    /// Offset of the last record; saturating.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// How the records are compressed; `None` for a codec that does not exist.
    pub fn codec(&self) -> Option<Codec> {
        match self.attributes & CODEC_BITS {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// Whether the timestamps are the broker's.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether it holds control records (transaction markers).
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether an idempotent producer sent it.
    pub fn is_idempotent(&self) -> bool {
        self.producer_id >= 0
    }
}

/// Whether the CRC of the batch at the front of `bytes` is right; `header` is its header.
pub fn check_crc(bytes: &[u8], header: &BatchHeader) -> bool {
    bytes.get(21..header.size_bytes).is_some_and(|covered| crc32c(covered) == header.crc)
}

/// CRC-32C (Castagnoli).
pub fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes))
        .expect("a 32-bit checksum")
}

/// One batch from a producer that passed every check that needs no state, in a buffer of its own
/// so that its offset can be stamped and nothing else is kept alive by it.
#[derive(Debug)]
pub struct ProducedBatch {
    bytes: BytesMut,
    header: BatchHeader,
}

impl ProducedBatch {
    /// Checks a batch as a broker must before it is appended: exact length, magic, CRC, count > 0,
    /// last offset delta = count - 1, a known codec, no control bit, an epoch and a sequence if
    /// there is a producer id.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if bytes.len() != header.size_bytes {
            return Err(BatchError::Field("length"));
        }
        if header.record_count <= 0 {
            return Err(BatchError::Field("record count"));
        }
        if header.last_offset_delta != header.record_count - 1 {
            return Err(BatchError::Field("last offset delta"));
        }
        if header.codec().is_none() {
            return Err(BatchError::Field("codec"));
        }
        if header.is_control() {
            return Err(BatchError::Field("control bit"));
        }
        if header.is_idempotent() && (header.producer_epoch < 0 || header.base_sequence < 0) {
            return Err(BatchError::Field("producer epoch or sequence"));
        }
        if !check_crc(bytes, &header) {
            return Err(BatchError::Crc);
        }
        Ok(Self { bytes: BytesMut::from(bytes), header })
    }

    /// A batch that this process has built, CRC and all.
    pub(super) fn from_encoded(bytes: BytesMut) -> Self {
        let header = BatchHeader::parse(&bytes).expect("an encoded batch has every field");
        debug_assert!(check_crc(&bytes, &header));
        Self { bytes, header }
    }

    /// Its fields.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Writes base offset and leader epoch into the bytes; the CRC stays valid.
    pub fn stamp(mut self, base_offset: i64, leader_epoch: i32) -> (BatchHeader, Bytes) {
        self.bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
        self.bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
        (self.header, self.bytes.freeze())
    }
}

fn field<const N: usize>(fixed: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *fixed[at..].first_chunk().expect("every field lies within the header")
}

#[cfg(test)]
mod tests;
