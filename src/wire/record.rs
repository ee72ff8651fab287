//! The records of a batch: iterated (decompression lives here, bounded) and built.

use super::batch::{BatchHeader, ProducedBatch};
use bytes::Bytes;

/// One record. Slices of the batch, or of its decompressed records.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers in order, duplicates kept. Names need not be UTF-8.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Why the records of a batch cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The codec's data is damaged.
    #[error("compressed records cannot be decompressed")]
    Compression,
    /// More than the bound once decompressed.
    #[error("records of more than {max} bytes once decompressed")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// A record's fields do not fit its length, or the count is wrong.
    #[error("malformed record")]
    Malformed,
}

/// Decodes every record of one batch. `decompressed_bytes_max` bounds what compression unfolds to.
///
/// # Errors
/// See [`RecordError`]. Memory is taken as bytes are there, never by a count alone.
pub fn decode(
    batch: &Bytes,
    header: &BatchHeader,
    decompressed_bytes_max: usize,
) -> Result<Vec<Record>, RecordError> {
    let _ = (batch, header, decompressed_bytes_max);
    todo!()
}

/// A record to be sent.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Bytes)>,
}

/// One uncompressed batch (base offset 0, no producer id) of at least one record.
pub fn encode(records: &[NewRecord]) -> ProducedBatch {
    let _ = records;
    todo!()
}
