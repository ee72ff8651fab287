//! Compression of a batch's records, with a bound on what they unfold to.
//!
//! Memory is taken as data comes out. What a frame merely claims is bounded too: the length of
//! snappy and the blocks of LZ4 by their greatest ratio, the window of zstd by
//! [`ZSTD_WINDOW_LOG_MAX`] (its pages are touched only as far as data comes out).

use super::{batch::Codec, lz4, record::RecordError};
use bytes::Bytes;
use std::io::{self, Read, Write};

/// Largest zstd window: 8 MiB, which the format asks every decoder to support. Clients use 2 MiB
/// at their default level; only levels 20 and above go beyond it.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// A snappy copy of three bytes yields at most 64.
const SNAPPY_RATIO_MAX: usize = 22;
/// Magic of snappy-java's framing; version and compatible version follow, four bytes each.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// Block of snappy-java's framing, as written.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Unfolds `compressed` to at most `max` bytes. Without a codec it is given back as it is.
pub(super) fn decompress(
    codec: Codec,
    compressed: Bytes,
    max: usize,
) -> Result<Bytes, RecordError> {
    let bytes = match codec {
        Codec::None => return Ok(compressed),
        Codec::Gzip => read(flate2::bufread::MultiGzDecoder::new(&compressed[..]), max)?,
        Codec::Snappy => snappy(&compressed, max)?,
        Codec::Lz4 => lz4::decompress(&compressed, max)?,
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&compressed[..])
                .map_err(|_| RecordError::Compression)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| RecordError::Compression)?;
            read(decoder, max)?
        }
    };
    Ok(bytes.into())
}

fn read(decoder: impl Read, max: usize) -> Result<Vec<u8>, RecordError> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    decoder.take(limit).read_to_end(&mut bytes).map_err(|_| RecordError::Compression)?;
    if bytes.len() > max { Err(RecordError::TooLarge { max }) } else { Ok(bytes) }
}

fn snappy(compressed: &[u8], max: usize) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::new();
    if !compressed.starts_with(XERIAL_MAGIC) {
        snappy_block(compressed, &mut bytes, max)?;
        return Ok(bytes);
    }
    let mut blocks = compressed.get(XERIAL_HEADER_BYTES..).ok_or(RecordError::Compression)?;
    while !blocks.is_empty() {
        let (length, rest) = blocks.split_first_chunk().ok_or(RecordError::Compression)?;
        let (block, rest) = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(RecordError::Compression)?;
        snappy_block(block, &mut bytes, max)?;
        blocks = rest;
    }
    Ok(bytes)
}

/// Appends one raw snappy block to `bytes`.
fn snappy_block(block: &[u8], bytes: &mut Vec<u8>, max: usize) -> Result<(), RecordError> {
    let length = snap::raw::decompress_len(block).map_err(|_| RecordError::Compression)?;
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(RecordError::Compression);
    }
    let start = bytes.len();
    if length > max - start {
        return Err(RecordError::TooLarge { max });
    }
    bytes.resize(start + length, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut bytes[start..])
        .map_err(|_| RecordError::Compression)?;
    Ok(())
}

/// Compresses as Kafka's clients do: snappy in Xerial framing.
pub(super) fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let compressed = match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => gzip(bytes),
        Codec::Snappy => Ok(xerial(bytes)),
        Codec::Lz4 => lz4_frame(bytes),
        Codec::Zstd => zstd::stream::encode_all(bytes, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    compressed.expect("writing to memory does not fail")
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn lz4_frame(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes)?;
    encoder.finish().map_err(io::Error::other)
}

fn xerial(bytes: &[u8]) -> Vec<u8> {
    let mut framed = XERIAL_MAGIC.to_vec();
    framed.extend_from_slice(&1_i32.to_be_bytes());
    framed.extend_from_slice(&1_i32.to_be_bytes());
    for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = snap::raw::Encoder::new().compress_vec(block).expect("a block is small");
        let length = i32::try_from(compressed.len()).expect("a block is small");
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&compressed);
    }
    framed
}
