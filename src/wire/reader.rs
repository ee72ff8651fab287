//! A bounded reader over bytes that came from outside: every method gives `None` at the end.

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    /// INT16
    pub(super) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    /// INT32
    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// UNSIGNED_VARINT: at most 5 bytes, and no bit above the 32nd.
    #[inline]
    pub(super) fn unsigned_varint(&mut self) -> Option<u32> {
        u32::try_from(self.base_128(5)?).ok()
    }

    /// VARINT (zigzag).
    #[inline]
    pub(super) fn varint(&mut self) -> Option<i32> {
        let raw = self.unsigned_varint()?;
        Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// VARLONG (zigzag).
    #[inline]
    pub(super) fn varlong(&mut self) -> Option<i64> {
        let raw = self.base_128(10)?;
        Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// Little-endian groups of 7 bits in at most `bytes_max` bytes; `None` above 64 bits.
    #[inline]
    fn base_128(&mut self, bytes_max: usize) -> Option<u64> {
        // Most lengths, deltas and counts of a record are a byte.
        let (first, rest) = self.rest.split_first()?;
        if *first < 0x80 {
            self.rest = rest;
            return Some(u64::from(*first));
        }
        self.long_base_128(bytes_max)
    }

    fn long_base_128(&mut self, bytes_max: usize) -> Option<u64> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().copied().take(bytes_max).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * index;
            // Only the tenth byte can lose bits, and only its lowest one has room.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], unsigned: Option<u32>, int: Option<i32>, long: Option<i64>) {
        assert_eq!(Reader::new(bytes).unsigned_varint(), unsigned, "unsigned: {bytes:x?}");
        assert_eq!(Reader::new(bytes).varint(), int, "int: {bytes:x?}");
        assert_eq!(Reader::new(bytes).varlong(), long, "long: {bytes:x?}");
    }

    // Vectors of Kafka's own ByteUtilsTest.
    #[test]
    fn varints_are_read_as_kafka_writes_them() {
        check(&[0x00], Some(0), Some(0), Some(0));
        check(&[0x01], Some(1), Some(-1), Some(-1));
        check(&[0x7e], Some(126), Some(63), Some(63));
        check(&[0x80, 0x01], Some(128), Some(64), Some(64));
        check(&[0xff, 0xff, 0x01], Some(32_767), Some(-16_384), Some(-16_384));
        check(
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            Some(u32::MAX),
            Some(i32::MIN),
            Some(i64::from(i32::MIN)),
        );
        let (min, max) = ([0xff; 9], [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        check(&[&min[..], &[0x01]].concat(), None, None, Some(i64::MIN));
        check(&[&max[..], &[0x01]].concat(), None, None, Some(i64::MAX));
    }

    #[test]
    fn varints_that_are_too_long_or_cut_are_refused() {
        check(&[], None, None, None);
        check(&[0x80], None, None, None);
        check(&[0xff; 10], None, None, None);
        check(&[0xff, 0xff, 0xff, 0xff, 0x1f], None, None, Some(-4_294_967_296));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], None, None, None);
    }
}
