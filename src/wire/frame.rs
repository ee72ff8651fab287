//! Frames: an int32 length, then that many bytes.

use bytes::{Bytes, BytesMut};

/// Longest frame by default: 16 MiB.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Why the stream cannot go on.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A length below the smallest header or above the bound.
    #[error("frame of {length} bytes, allowed are 8 to {max}")]
    Length {
        /// What the prefix says.
        length: i32,
        /// The bound.
        max: usize,
    },
    /// The peer speaks HTTP.
    #[error("an HTTP request on the Kafka port")]
    Http,
}

/// Takes the next whole frame off the front of `buffer`, without its prefix; `None` if more bytes
/// are needed. Never reserves memory by the prefix.
///
/// # Errors
/// See [`FrameError`]: the connection is to be closed.
pub fn try_decode(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    let _ = (buffer, max);
    todo!()
}
