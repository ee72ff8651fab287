//! Kafka's default choice of a partition by the record's key.

use crate::position::Partition;

/// The partition of a key among `count` (at least 1): murmur2 of the key, its sign bit cleared,
/// modulo the count.
///
/// Source: Apache Kafka, `BuiltInPartitioner.partitionForKey` and `Utils.toPositive`.
pub fn partition_of_key(key: &[u8], count: u32) -> Partition {
    partition_of_number(murmur2(key), count)
}

/// The partition of any number among `count` (at least 1).
pub fn partition_of_number(number: u32, count: u32) -> Partition {
    let index = (number & 0x7fff_ffff) % count.max(1);
    Partition::new(i32::try_from(index).expect("below 2^31")).expect("not negative")
}

/// 32-bit murmur2 with Kafka's seed.
///
/// Source: Apache Kafka, `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        mixed = (mixed ^ (mixed >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ mixed;
    }
    for (index, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_kafkas() {
        // The vectors of Apache Kafka's UtilsTest.testMurmur2.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_has_its_sign_cleared() {
        let positive = (-973_932_308_i32).cast_unsigned() & 0x7fff_ffff;
        let expected = i32::try_from(positive % 7).unwrap();
        assert_eq!(partition_of_key(b"21", 7).get(), expected);
        assert_eq!(partition_of_key(b"21", 1), Partition::ZERO);
    }
}
