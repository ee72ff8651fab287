//! The records of a batch: iterated and built. Decompression is apart (`codec`), and bounded.
//!
//! | field of a record | type |
//! |---|---|
//! | length (of what follows) | varint |
//! | attributes (unused) | int8 |
//! | timestamp delta | varlong |
//! | offset delta | varint |
//! | key, value | varint length (-1 for null), bytes |
//! | headers | varint count, then for each: name and value as key and value above |
//!
//! Source: Kafka protocol guide, "Record".

use super::{
    batch::{BatchHeader, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES, ProducedBatch, crc32c},
    codec,
    reader::Reader,
};
use bytes::{BufMut, Bytes, BytesMut};

/// Most headers of one record. Each takes two bytes on the wire and sixty-four in memory.
const HEADERS_MAX: usize = 10_000;

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
    /// A record's fields do not fit its length, or the count is wrong, or there are more than
    /// 10,000 headers.
    #[error("malformed record")]
    Malformed,
}

/// The records of one batch, one after the other. A record of seven bytes takes a hundred in
/// memory, so that a batch of millions is never a list.
///
/// Offsets rise from record to record and stay within the batch (a compacted batch has gaps).
#[derive(Clone, Debug)]
pub struct Records {
    payload: Bytes,
    header: BatchHeader,
    place: Place,
}

impl Records {
    /// Unfolds a batch to at most `decompressed_bytes_max` and walks through it, so that every
    /// record is known to be well-formed before the first is given.
    ///
    /// # Errors
    /// See [`RecordError`]. Memory is taken as bytes are there, never by a count alone.
    pub fn open(
        batch: &Bytes,
        header: &BatchHeader,
        decompressed_bytes_max: usize,
    ) -> Result<Self, RecordError> {
        let payload = payload(batch, header, decompressed_bytes_max)?;
        let records_left =
            usize::try_from(header.record_count).map_err(|_| RecordError::Malformed)?;
        let place = Place { byte: 0, records_left, delta_min: 0 };
        let mut walk = Walk::new(&payload, header, place);
        while let Some(record) = walk.next() {
            record?;
        }
        Ok(Self { payload, header: *header, place })
    }

    /// Bytes of all records, which stay in memory as long as one of them.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let mut walk = Walk::new(&self.payload, &self.header, self.place);
        let record = walk.next()?.ok()?;
        self.place = Place { byte: self.payload.len() - walk.reader.len(), ..walk.place };
        Some(record.to_record(&self.payload))
    }
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// In the payload.
    byte: usize,
    records_left: usize,
    /// The least offset delta that the next record may have.
    delta_min: i32,
}

/// The records' bytes, decompressed.
fn payload(
    batch: &Bytes,
    header: &BatchHeader,
    decompressed_bytes_max: usize,
) -> Result<Bytes, RecordError> {
    if batch.len() < header.size_bytes || header.size_bytes < HEADER_BYTES {
        return Err(RecordError::Malformed);
    }
    let payload = batch.slice(HEADER_BYTES..header.size_bytes);
    let codec = header.codec().ok_or(RecordError::Malformed)?;
    codec::decompress(codec, payload, decompressed_bytes_max)
}

/// A record whose fields lie in the payload.
#[derive(Clone, Copy, Debug)]
struct RecordRef<'a> {
    offset: i64,
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    /// How many, and their bytes; walked once already.
    headers: (usize, Reader<'a>),
}

impl RecordRef<'_> {
    /// Slices of `payload`, in which the fields lie.
    fn to_record(self, payload: &Bytes) -> Record {
        let (count, mut reader) = self.headers;
        let header = |_| {
            let (name, value) = header(&mut reader)?;
            Some((payload.slice_ref(name), value.map(|value| payload.slice_ref(value))))
        };
        Record {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(|key| payload.slice_ref(key)),
            value: self.value.map(|value| payload.slice_ref(value)),
            headers: (0..count).map_while(header).collect(),
        }
    }
}

/// The walk over the records of one payload, without copies.
struct Walk<'a> {
    reader: Reader<'a>,
    batch: &'a BatchHeader,
    /// But for its byte, which the reader knows.
    place: Place,
}

impl<'a> Walk<'a> {
    fn new(payload: &'a [u8], batch: &'a BatchHeader, place: Place) -> Self {
        Self { reader: Reader::new(&payload[place.byte..]), batch, place }
    }

    /// The next record; after the last one nothing may be left.
    fn next(&mut self) -> Option<Result<RecordRef<'a>, RecordError>> {
        let Some(records_left) = self.place.records_left.checked_sub(1) else {
            let is_at_end = self.reader.is_empty();
            // The complaint is made once.
            self.reader = Reader::new(&[]);
            return (!is_at_end).then_some(Err(RecordError::Malformed));
        };
        self.place.records_left = records_left;
        Some(self.record().ok_or(RecordError::Malformed))
    }

    fn record(&mut self) -> Option<RecordRef<'a>> {
        let length = usize::try_from(self.reader.varint()?).ok()?;
        let mut fields = Reader::new(self.reader.take(length)?);
        fields.take(1)?;
        let timestamp_delta = fields.varlong()?;
        let offset_delta = fields.varint()?;
        if !(self.place.delta_min..=self.batch.last_offset_delta).contains(&offset_delta) {
            return None;
        }
        self.place.delta_min = offset_delta.checked_add(1)?;
        let key = nullable(&mut fields)?;
        let value = nullable(&mut fields)?;
        let headers = headers(&mut fields)?;
        let timestamp_ms = if self.batch.is_log_append_time() {
            self.batch.max_timestamp
        } else {
            self.batch.base_timestamp.saturating_add(timestamp_delta)
        };
        let offset = self.batch.base_offset.checked_add(i64::from(offset_delta))?;
        Some(RecordRef { offset, timestamp_ms, key, value, headers })
    }
}

/// Walks the headers to the end of the record.
fn headers<'a>(fields: &mut Reader<'a>) -> Option<(usize, Reader<'a>)> {
    let count = usize::try_from(fields.varint()?).ok().filter(|count| *count <= HEADERS_MAX)?;
    let start = *fields;
    for _ in 0..count {
        header(fields)?;
    }
    fields.is_empty().then_some((count, start))
}

fn header<'a>(fields: &mut Reader<'a>) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let name = nullable(fields)??;
    Some((name, nullable(fields)?))
}

/// Bytes by a varint length, null for -1; the outer `None`: malformed.
fn nullable<'a>(fields: &mut Reader<'a>) -> Option<Option<&'a [u8]>> {
    match fields.varint()? {
        -1 => Some(None),
        length => Some(Some(fields.take(usize::try_from(length).ok()?)?)),
    }
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
    /// Headers in order. Names need not be UTF-8.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// One uncompressed batch (base offset 0, no producer id) of at least one record.
///
/// # Panics
/// If there is no record, or more than 2 GiB of them.
pub fn encode(records: &[NewRecord]) -> ProducedBatch {
    encode_compressed(records, Codec::None)
}

/// As [`encode`], with the records compressed.
///
/// # Panics
/// As [`encode`].
pub fn encode_compressed(records: &[NewRecord], codec: Codec) -> ProducedBatch {
    let first = records.first().expect("a batch has at least one record");
    let max_timestamp =
        records.iter().fold(first.timestamp_ms, |max, record| max.max(record.timestamp_ms));
    let count = i32::try_from(records.len()).expect("fewer than 2^31 records");
    let body: usize = records.iter().map(record_bytes_max).sum();
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + body);
    bytes.put_i64(0);
    bytes.put_i32(0); // the length, once it is known
    bytes.put_i32(-1);
    bytes.put_i8(2);
    bytes.put_u32(0); // the CRC, once it is known
    bytes.put_i16(codec.bits());
    bytes.put_i32(count - 1);
    bytes.put_i64(first.timestamp_ms);
    bytes.put_i64(max_timestamp);
    bytes.put_i64(-1);
    bytes.put_i16(-1);
    bytes.put_i32(-1);
    bytes.put_i32(count);
    put_records(&mut bytes, records, first.timestamp_ms);
    if codec != Codec::None {
        let compressed = codec::compress(codec, &bytes[HEADER_BYTES..]);
        bytes.truncate(HEADER_BYTES);
        bytes.put_slice(&compressed);
    }
    let length = i32::try_from(bytes.len() - LENGTH_PREFIX_BYTES).expect("a batch below 2 GiB");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    ProducedBatch::from_encoded(bytes)
}

fn put_records(bytes: &mut BytesMut, records: &[NewRecord], base_timestamp: i64) {
    let mut fields = BytesMut::new();
    for (delta, record) in (0_i64..).zip(records) {
        fields.clear();
        fields.put_i8(0);
        put_varlong(&mut fields, record.timestamp_ms.wrapping_sub(base_timestamp));
        put_varlong(&mut fields, delta);
        put_nullable(&mut fields, record.key.as_deref());
        put_nullable(&mut fields, record.value.as_deref());
        put_length(&mut fields, record.headers.len());
        for (name, value) in &record.headers {
            put_nullable(&mut fields, Some(name));
            put_nullable(&mut fields, value.as_deref());
        }
        put_length(bytes, fields.len());
        bytes.put_slice(&fields);
    }
}

/// Room that a record surely fits in.
fn record_bytes_max(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize =
        record.headers.iter().map(|(name, value)| name.len() + length(value) + 10).sum();
    length(&record.key) + length(&record.value) + headers + 36
}

fn put_nullable(bytes: &mut BytesMut, field: Option<&[u8]>) {
    match field {
        None => put_varlong(bytes, -1),
        Some(field) => {
            put_length(bytes, field.len());
            bytes.put_slice(field);
        }
    }
}

fn put_length(bytes: &mut BytesMut, length: usize) {
    put_varlong(bytes, i64::try_from(length).expect("a length in memory fits 63 bits"));
}

/// VARLONG; a VARINT of the same value has the same bytes.
fn put_varlong(bytes: &mut BytesMut, value: i64) {
    let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return bytes.put_u8(low & 0x7f);
        }
        bytes.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests;
