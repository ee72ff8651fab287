//! The shape of every request, as data, and the walk that checks a body against it.
//!
//! kafka-protocol allocates from counts that it does not check, so a body is walked first: every
//! string, byte array, array and tagged field must lie within the bytes that are there, and what
//! the decoded structs will take in memory must stay below a small multiple of them.
//!
//! A shape says where things are, not what they mean: null where Kafka allows none is left to the
//! decoder, which refuses it. Whether a version is flexible (compact lengths, tagged fields) is not
//! written here, as it is the version whose request header is v2.
//!
//! Invariant: a body that passes is read by kafka-protocol along the same path, so the walk is
//! never looser than its decoder (a tagged field that the decoder knows is walked by its kind).
//!
//! Source: Kafka protocol guide, "The Messages"; the `*Request.json` schemas of Apache Kafka.

use super::reader::Reader;

/// Most array elements of one request. The largest request of a sane client (a fetch or a
/// metadata request over every partition of a large cluster) has a tenth of it.
const ELEMENTS_MAX: usize = 100_000;
/// Most tagged fields of one request, its header included. Clients send none or one; each costs the
/// decoder up to a whole map node (about 450 bytes).
const TAGGED_FIELDS_MAX: usize = 64;
/// Memory that the decoded arrays of any request may take.
const DECODED_BYTES_BASE: usize = 32 << 10;
/// What they may take beyond that, for each byte of the body.
const DECODED_BYTES_PER_BODY_BYTE: usize = 8;

/// Memory of one decoded string or byte array: a `Bytes`.
const DECODED_BYTES_HANDLE: usize = 32;
/// Memory of one `Vec`, and of one (empty) map of unknown tagged fields.
const DECODED_VEC: usize = 24;

/// What a field is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// So many bytes: integers, booleans, UUIDs.
    Fixed(usize),
    /// STRING, NULLABLE_STRING and their compact forms.
    Text,
    /// BYTES, NULLABLE_BYTES, RECORDS and their compact forms.
    Bytes,
    /// ARRAY and COMPACT_ARRAY.
    Array(&'static Kind),
    /// Fields in order, and tagged fields where the version is flexible.
    Struct(Fields),
}

/// The fields of a body or struct, in the order of the wire.
pub(super) type Fields = &'static [Field];

/// One field and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    kind: Kind,
    first: i16,
    last: i16,
    /// Set for a tagged field that the decoder knows.
    tag: Option<u32>,
}

impl Field {
    fn is_in(&self, version: i16) -> bool {
        (self.first..=self.last).contains(&version)
    }
}

/// A field of every version.
const fn all(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

/// A field from version `first` on.
const fn since(first: i16, kind: Kind) -> Field {
    between(first, i16::MAX, kind)
}

/// A field up to version `last`.
const fn until(last: i16, kind: Kind) -> Field {
    between(0, last, kind)
}

/// A field of versions `first` to `last`.
const fn between(first: i16, last: i16, kind: Kind) -> Field {
    Field { kind, first, last, tag: None }
}

/// A tagged field of every flexible version.
const fn tagged(tag: u32, kind: Kind) -> Field {
    Field { kind, first: 0, last: i16::MAX, tag: Some(tag) }
}

const BOOLEAN: Kind = Kind::Fixed(1);
const INT8: Kind = Kind::Fixed(1);
const INT16: Kind = Kind::Fixed(2);
const INT32: Kind = Kind::Fixed(4);
const INT64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const TEXT: Kind = Kind::Text;
const BYTES: Kind = Kind::Bytes;
const TEXTS: Kind = Kind::Array(&TEXT);
const INT32S: Kind = Kind::Array(&INT32);

/// An array of structs.
macro_rules! array {
    ($($field:expr),+ $(,)?) => { Kind::Array(&Kind::Struct(&[$($field),+])) };
}

pub(super) const PRODUCE: Fields = &[
    all(TEXT),  // transactional id
    all(INT16), // acks
    all(INT32), // timeout
    all(array![all(TEXT), all(array![all(INT32), all(BYTES)])]),
];

pub(super) const FETCH: Fields = &[
    all(INT32),      // replica id
    all(INT32),      // max wait
    all(INT32),      // min bytes
    all(INT32),      // max bytes
    all(INT8),       // isolation level
    since(7, INT32), // session id
    since(7, INT32), // session epoch
    all(array![
        all(TEXT),
        all(array![
            all(INT32),       // partition
            since(9, INT32),  // current leader epoch
            all(INT64),       // fetch offset
            since(12, INT32), // last fetched epoch
            since(5, INT64),  // log start offset
            all(INT32),       // partition max bytes
        ]),
    ]),
    since(7, array![all(TEXT), all(INT32S)]), // forgotten topics
    since(11, TEXT),                          // rack id
    tagged(0, TEXT),                          // cluster id
];

pub(super) const LIST_OFFSETS: Fields = &[
    all(INT32),     // replica id
    since(2, INT8), // isolation level
    // Partition, current leader epoch, timestamp.
    all(array![all(TEXT), all(array![all(INT32), since(4, INT32), all(INT64)])]),
];

pub(super) const METADATA: Fields = &[
    all(array![since(10, UUID), all(TEXT)]), // topics
    since(4, BOOLEAN),                       // allow auto topic creation
    between(8, 10, BOOLEAN),                 // include cluster authorized operations
    since(8, BOOLEAN),                       // include topic authorized operations
];

pub(super) const OFFSET_COMMIT: Fields = &[
    all(TEXT),       // group id
    all(INT32),      // generation id
    all(TEXT),       // member id
    since(7, TEXT),  // group instance id
    until(4, INT64), // retention time
    // Partition, offset, leader epoch, metadata.
    all(array![all(TEXT), all(array![all(INT32), all(INT64), since(6, INT32), all(TEXT)])]),
];

pub(super) const OFFSET_FETCH: Fields = &[
    until(7, TEXT),                                                   // group id
    until(7, array![all(TEXT), all(INT32S)]),                         // topics
    since(8, array![all(TEXT), all(array![all(TEXT), all(INT32S)])]), // groups
    since(7, BOOLEAN),                                                // require stable
];

pub(super) const FIND_COORDINATOR: Fields = &[
    until(3, TEXT),  // key
    since(1, INT8),  // key type
    since(4, TEXTS), // keys
];

pub(super) const JOIN_GROUP: Fields = &[
    all(TEXT),                          // group id
    all(INT32),                         // session timeout
    since(1, INT32),                    // rebalance timeout
    all(TEXT),                          // member id
    since(5, TEXT),                     // group instance id
    all(TEXT),                          // protocol type
    all(array![all(TEXT), all(BYTES)]), // protocols: name, metadata
    since(8, TEXT),                     // reason
];

pub(super) const HEARTBEAT: Fields = &[
    all(TEXT),      // group id
    all(INT32),     // generation id
    all(TEXT),      // member id
    since(3, TEXT), // group instance id
];

pub(super) const LEAVE_GROUP: Fields = &[
    all(TEXT),      // group id
    until(2, TEXT), // member id
    // Members: member id, group instance id, reason.
    since(3, array![all(TEXT), all(TEXT), since(5, TEXT)]),
];

pub(super) const SYNC_GROUP: Fields = &[
    all(TEXT),                          // group id
    all(INT32),                         // generation id
    all(TEXT),                          // member id
    since(3, TEXT),                     // group instance id
    since(5, TEXT),                     // protocol type
    since(5, TEXT),                     // protocol name
    all(array![all(TEXT), all(BYTES)]), // assignments: member id, assignment
];

pub(super) const DESCRIBE_GROUPS: Fields = &[
    all(TEXTS),        // groups
    since(3, BOOLEAN), // include authorized operations
];

pub(super) const LIST_GROUPS: Fields = &[
    since(4, TEXTS), // states filter
];

pub(super) const API_VERSIONS: Fields = &[
    since(3, TEXT), // client software name
    since(3, TEXT), // client software version
];

pub(super) const CREATE_TOPICS: Fields = &[
    all(array![
        all(TEXT),                            // name
        all(INT32),                           // partitions
        all(INT16),                           // replication factor
        all(array![all(INT32), all(INT32S)]), // assignments: partition, broker ids
        all(array![all(TEXT), all(TEXT)]),    // configs: name, value
    ]),
    all(INT32),   // timeout
    all(BOOLEAN), // validate only
];

pub(super) const DELETE_TOPICS: Fields = &[
    all(TEXTS), // topic names
    all(INT32), // timeout
];

pub(super) const INIT_PRODUCER_ID: Fields = &[
    all(TEXT),       // transactional id
    all(INT32),      // transaction timeout
    since(3, INT64), // producer id
    since(3, INT16), // producer epoch
];

pub(super) const DESCRIBE_CONFIGS: Fields = &[
    all(array![all(INT8), all(TEXT), all(TEXTS)]), // resources: type, name, keys
    all(BOOLEAN),                                  // include synonyms
    since(3, BOOLEAN),                             // include documentation
];

pub(super) const CREATE_PARTITIONS: Fields = &[
    // Topics: name, count, assignments of broker ids.
    all(array![all(TEXT), all(INT32), all(array![all(INT32S)])]),
    all(INT32),   // timeout
    all(BOOLEAN), // validate only
];

pub(super) const DELETE_GROUPS: Fields = &[
    all(TEXTS), // group names
];

pub(super) const INCREMENTAL_ALTER_CONFIGS: Fields = &[
    // Resources: type, name, configs of name, operation, value.
    all(array![all(INT8), all(TEXT), all(array![all(TEXT), all(INT8), all(TEXT)])]),
    all(BOOLEAN), // validate only
];

pub(super) const DESCRIBE_CLUSTER: Fields = &[
    all(BOOLEAN),   // include cluster authorized operations
    since(1, INT8), // endpoint type
];

/// Whether `body` has exactly the shape of `fields` in `version`, with counts that decode into a
/// bounded amount of memory.
pub(super) fn fits(body: &[u8], fields: Fields, version: i16, is_flexible: bool) -> bool {
    let mut walk = Walk {
        reader: Reader::new(body),
        version,
        is_flexible,
        elements_left: ELEMENTS_MAX,
        tagged_fields_left: TAGGED_FIELDS_MAX,
        decoded_bytes_left: DECODED_BYTES_BASE
            .saturating_add(body.len().saturating_mul(DECODED_BYTES_PER_BODY_BYTE)),
    };
    walk.fields(fields).is_some() && walk.reader.is_empty()
}

/// Passes over the tagged fields of a request header.
pub(super) fn skip_tagged_fields(reader: &mut Reader<'_>) -> Option<()> {
    for _ in 0..reader.unsigned_varint()? {
        reader.unsigned_varint()?;
        let size = usize::try_from(reader.unsigned_varint()?).ok()?;
        reader.take(size)?;
    }
    Some(())
}

/// The walk of one body. `None` from any method: the body is not of its shape, or over a bound.
struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    is_flexible: bool,
    elements_left: usize,
    tagged_fields_left: usize,
    decoded_bytes_left: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: Fields) -> Option<()> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.kind(&field.kind)?;
            }
        }
        if self.is_flexible { self.tagged_fields(fields) } else { Some(()) }
    }

    fn kind(&mut self, kind: &Kind) -> Option<()> {
        match kind {
            Kind::Fixed(bytes) => self.reader.take(*bytes).map(drop),
            Kind::Text => {
                let bytes = if self.is_flexible { self.compact()? } else { self.int16()? };
                self.reader.take(bytes).map(drop)
            }
            Kind::Bytes => {
                let bytes = if self.is_flexible { self.compact()? } else { self.int32()? };
                self.reader.take(bytes).map(drop)
            }
            Kind::Array(element) => self.array(element),
            Kind::Struct(fields) => self.fields(fields),
        }
    }

    fn array(&mut self, element: &Kind) -> Option<()> {
        let count = if self.is_flexible { self.compact()? } else { self.int32()? };
        // Every element takes a byte or more, so a greater count is a lie.
        if count > self.reader.len() {
            return None;
        }
        self.elements_left = self.elements_left.checked_sub(count)?;
        let decoded_bytes = count.checked_mul(decoded_bytes(element))?;
        self.decoded_bytes_left = self.decoded_bytes_left.checked_sub(decoded_bytes)?;
        (0..count).try_for_each(|_| self.kind(element))
    }

    fn tagged_fields(&mut self, fields: Fields) -> Option<()> {
        let count = usize::try_from(self.reader.unsigned_varint()?).ok()?;
        self.tagged_fields_left = self.tagged_fields_left.checked_sub(count)?;
        for _ in 0..count {
            let tag = self.reader.unsigned_varint()?;
            let size = usize::try_from(self.reader.unsigned_varint()?).ok()?;
            let known =
                fields.iter().find(|field| field.tag == Some(tag) && field.is_in(self.version));
            match known {
                None => self.reader.take(size).map(drop)?,
                // The decoder reads it by its kind and does not look at the size.
                Some(field) => {
                    let after = self.reader.len().checked_sub(size)?;
                    self.kind(&field.kind)?;
                    (self.reader.len() == after).then_some(())?;
                }
            }
        }
        Some(())
    }

    /// A compact length or count: one more than it says, 0 for null.
    fn compact(&mut self) -> Option<usize> {
        let raw = self.reader.unsigned_varint()?;
        usize::try_from(raw.saturating_sub(1)).ok()
    }

    /// A length of two bytes, -1 for null.
    fn int16(&mut self) -> Option<usize> {
        match self.reader.i16()? {
            -1 => Some(0),
            length => usize::try_from(length).ok(),
        }
    }

    /// A length or count of four bytes, -1 for null.
    fn int32(&mut self) -> Option<usize> {
        match self.reader.i32()? {
            -1 => Some(0),
            length => usize::try_from(length).ok(),
        }
    }
}

/// What one decoded value takes in memory, without what it points to.
fn decoded_bytes(kind: &Kind) -> usize {
    match kind {
        Kind::Fixed(bytes) => *bytes,
        Kind::Text | Kind::Bytes => DECODED_BYTES_HANDLE,
        Kind::Array(_) => DECODED_VEC,
        Kind::Struct(fields) => {
            let sum: usize = fields.iter().map(|field| decoded_bytes(&field.kind)).sum();
            sum + DECODED_VEC
        }
    }
}
