//! The shape of every request (and of what our own client is answered), as data, and the walk that
//! checks a body against it.
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

/// An array of structs, which decode into the named type.
macro_rules! array {
    ($decoded:ty, $($field:expr),+ $(,)?) => {
        Kind::Array {
            element: &Kind::Struct(&[$($field),+]),
            decoded_bytes: size_of::<$decoded>(),
        }
    };
}

pub(super) mod requests;
pub(super) mod responses;

use super::{StrBytes, reader::Reader};

/// Most array elements of one request. The largest request of a sane client (a fetch or a
/// metadata request over every partition of a large cluster) has a tenth of it.
const ELEMENTS_MAX: usize = 100_000;
/// Most tagged fields of one request body. Clients send none or one; each costs the
/// decoder up to a whole map node (about 450 bytes).
const TAGGED_FIELDS_MAX: usize = 64;
/// Memory that the decoded arrays of any request may take.
const DECODED_BYTES_BASE: usize = 32 << 10;
/// What they may take beyond that, for each byte of the body.
pub const DECODED_BYTES_PER_BODY_BYTE: usize = 8;

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
    Array {
        /// Of what.
        element: &'static Kind,
        /// Memory of one decoded element, without what it points to.
        decoded_bytes: usize,
    },
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
const TEXTS: Kind = Kind::Array { element: &TEXT, decoded_bytes: size_of::<StrBytes>() };
const INT32S: Kind = Kind::Array { element: &INT32, decoded_bytes: size_of::<i32>() };

/// What the arrays of `body` decode into, in bytes; `None` if it does not have exactly the shape of
/// `fields` in `version`, or its counts decode into more than a bounded amount of memory.
pub(super) fn decoded_bytes(
    body: &[u8],
    fields: Fields,
    version: i16,
    is_flexible: bool,
) -> Option<usize> {
    let decoded_bytes_max =
        DECODED_BYTES_BASE.saturating_add(body.len().saturating_mul(DECODED_BYTES_PER_BODY_BYTE));
    let mut walk = Walk {
        reader: Reader::new(body),
        version,
        is_flexible,
        elements_left: ELEMENTS_MAX,
        tagged_fields_left: TAGGED_FIELDS_MAX,
        decoded_bytes_left: decoded_bytes_max,
    };
    walk.fields(fields)?;
    walk.reader.is_empty().then_some(decoded_bytes_max - walk.decoded_bytes_left)
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
            Kind::Array { element, decoded_bytes } => self.array(element, *decoded_bytes),
            Kind::Struct(fields) => self.fields(fields),
        }
    }

    fn array(&mut self, element: &Kind, decoded_bytes: usize) -> Option<()> {
        let count = if self.is_flexible { self.compact()? } else { self.int32()? };
        // Every element takes a byte or more, so a greater count is a lie.
        if count > self.reader.len() {
            return None;
        }
        self.elements_left = self.elements_left.checked_sub(count)?;
        self.decoded_bytes_left =
            self.decoded_bytes_left.checked_sub(count.checked_mul(decoded_bytes)?)?;
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
