//! The LZ4 frame format, unfolded block by block into one list.
//!
//! A frame names the largest size of its blocks, up to 4 MiB, and a decoder that takes buffers by
//! that word takes 12 MiB for a batch of a few bytes. Here a block takes memory by its own length.
//!
//! Source: lz4_Frame_format.md. The legacy format, dictionaries and skippable frames are refused,
//! as Kafka refuses them; what follows the frame is not looked at.

use super::record::RecordError;
use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};
use twox_hash::XxHash32;

const MAGIC: &[u8] = &[0x04, 0x22, 0x4d, 0x18];
/// What a block may refer to of those before it.
const WINDOW_BYTES: usize = 64 << 10;
/// A byte of a block yields at most so many.
const RATIO_MAX: usize = 255;
/// Most blocks yield less than so many a byte; one that yields more is unfolded again.
const RATIO_FIRST: usize = 8;
const UNCOMPRESSED: u32 = 1 << 31;

/// Unfolds one frame to at most `max` bytes.
pub(super) fn decompress(frame: &[u8], max: usize) -> Result<Vec<u8>, RecordError> {
    let mut rest = frame;
    let header = Header::take(&mut rest).ok_or(RecordError::Compression)?;
    let mut bytes = Vec::new();
    // Some encoders leave out the end mark.
    while !rest.is_empty() {
        let word = take_u32(&mut rest).ok_or(RecordError::Compression)?;
        if word == 0 {
            header.check_end(&mut rest, &bytes).ok_or(RecordError::Compression)?;
            break;
        }
        let block = header.take_block(&mut rest, word & !UNCOMPRESSED);
        let block = block.ok_or(RecordError::Compression)?;
        if word & UNCOMPRESSED == 0 {
            header.unfold(block, &mut bytes, max)?;
        } else if block.len() > max - bytes.len() {
            return Err(RecordError::TooLarge { max });
        } else {
            bytes.extend_from_slice(block);
        }
    }
    Ok(bytes)
}

/// What a frame says of itself.
struct Header {
    is_linked: bool,
    has_block_checksums: bool,
    has_content_checksum: bool,
    content_bytes: Option<u64>,
    block_bytes_max: usize,
}

impl Header {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        *rest = rest.strip_prefix(MAGIC)?;
        let whole = *rest;
        let [flags, sizes] = take(rest)?;
        let bit = |bit: u8| flags & bit != 0;
        let is_version_1 = flags & 0xc0 == 0x40;
        let (has_reserved, has_dictionary) = (bit(2) || sizes & 0x8f != 0, bit(1));
        if !is_version_1 || has_reserved || has_dictionary {
            return None;
        }
        let content_bytes = if bit(8) { Some(u64::from_le_bytes(take(rest)?)) } else { None };
        let described = &whole[..whole.len() - rest.len()];
        let [checksum] = take(rest)?;
        if XxHash32::oneshot(0, described).to_le_bytes()[1] != checksum {
            return None;
        }
        Some(Self {
            is_linked: !bit(0x20),
            has_block_checksums: bit(0x10),
            has_content_checksum: bit(4),
            content_bytes,
            block_bytes_max: match sizes >> 4 {
                4 => 64 << 10,
                5 => 256 << 10,
                6 => 1 << 20,
                7 => 4 << 20,
                _ => return None,
            },
        })
    }

    fn take_block<'a>(&self, rest: &mut &'a [u8], length: u32) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.block_bytes_max);
        let (block, after) = rest.split_at_checked(length?)?;
        *rest = after;
        let is_right = !self.has_block_checksums || take_u32(rest)? == XxHash32::oneshot(0, block);
        is_right.then_some(block)
    }

    /// Appends what `block` unfolds to.
    fn unfold(&self, block: &[u8], bytes: &mut Vec<u8>, max: usize) -> Result<(), RecordError> {
        let start = bytes.len();
        let block_max = self.block_bytes_max.min(block.len().saturating_mul(RATIO_MAX));
        let room_max = block_max.min(max - start);
        let mut room = block.len().saturating_mul(RATIO_FIRST).min(room_max);
        loop {
            bytes.resize(start + room, 0);
            let (before, into) = bytes.split_at_mut(start);
            let unfolded = if self.is_linked {
                let window = &before[start.saturating_sub(WINDOW_BYTES)..];
                decompress_into_with_dict(block, into, window)
            } else {
                decompress_into(block, into)
            };
            match unfolded {
                Ok(length) => {
                    bytes.truncate(start + length);
                    return Ok(());
                }
                Err(DecompressError::OutputTooSmall { .. }) if room < room_max => {
                    room = room.saturating_mul(RATIO_FIRST).min(room_max);
                }
                Err(DecompressError::OutputTooSmall { .. }) if room_max < block_max => {
                    return Err(RecordError::TooLarge { max });
                }
                Err(_) => return Err(RecordError::Compression),
            }
        }
    }

    /// `None` if the content is not what was compressed.
    fn check_end(&self, rest: &mut &[u8], bytes: &[u8]) -> Option<()> {
        let length = u64::try_from(bytes.len()).ok()?;
        let is_right = self.content_bytes.is_none_or(|due| due == length)
            && (!self.has_content_checksum || take_u32(rest)? == XxHash32::oneshot(0, bytes));
        is_right.then_some(())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocation_counter::measure;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use std::io::Write;

    fn frame(content: &[u8], info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn with_all(block_size: BlockSize, block_mode: BlockMode) -> FrameInfo {
        let info = FrameInfo::new().block_size(block_size).block_mode(block_mode);
        info.block_checksums(true).content_checksum(true)
    }

    /// Text that repeats, numbers that do not, and zeros: every kind of block.
    fn content() -> Vec<u8> {
        let text = (0..30_000).flat_map(|i| format!("task {i} of {}, ", i % 7).into_bytes());
        let mut noise = 1_u64;
        let noise = (0..20_000).flat_map(move |_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.to_be_bytes()
        });
        text.chain(noise).chain(std::iter::repeat_n(0, 300_000)).collect()
    }

    #[test]
    fn every_form_of_a_frame_unfolds_to_its_content() {
        let content = content();
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
            for mode in [BlockMode::Independent, BlockMode::Linked] {
                let length = u64::try_from(content.len()).unwrap();
                for info in [
                    with_all(size, mode),
                    with_all(size, mode).content_size(Some(length)),
                    FrameInfo::new().block_size(size).block_mode(mode),
                ] {
                    let frame = frame(&content, info.clone());
                    let unfolded = decompress(&frame, content.len());
                    assert!(unfolded.as_ref() == Ok(&content), "{info:?}");
                    let outcome = decompress(&frame, content.len() - 1);
                    let max = content.len() - 1;
                    assert!(outcome == Err(RecordError::TooLarge { max }), "{info:?}");
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_or_a_lost_end_is_an_error_where_there_are_checksums() {
        let content = b"a task, a task, and one more task".repeat(3);
        let frame = frame(&content, with_all(BlockSize::Max64KB, BlockMode::Linked));
        for at in 0..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 0x40;
            assert_eq!(decompress(&changed, 1 << 20), Err(RecordError::Compression), "{at}");
            // A frame may end without its mark, with all its blocks.
            let cut = decompress(&frame[..at], 1 << 20);
            assert!(at == 7 || at == frame.len() - 8 || cut.is_err(), "{at}");
        }
    }

    #[test]
    fn a_block_takes_memory_by_its_own_length_and_not_by_what_its_frame_claims() {
        let info = with_all(BlockSize::Max4MB, BlockMode::Linked);
        let small = frame(b"one small task", info.content_size(Some(14)));
        let taken = measure(|| drop(decompress(&small, 16 << 20).unwrap()));
        assert!(taken.bytes_max < 1024, "{taken:?}");
        // Blocks of 8 MiB without a word.
        let legacy = b"\x02\x21\x4c\x18\x05\0\0\0\x40task";
        let taken = measure(|| assert!(decompress(legacy, 16 << 20).is_err()));
        assert!(taken.bytes_max < 1024, "{taken:?}");
    }
}
