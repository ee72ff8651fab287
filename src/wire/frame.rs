//! Frames: an int32 length, then that many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Longest frame by default: 16 MiB.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Shortest frame: key, version and correlation id.
const FRAME_BYTES_MIN: usize = 8;
/// Bytes of the length.
const PREFIX_BYTES: usize = 4;

/// How an HTTP request begins (`PRI ` is HTTP/2). As lengths these are above 1 GB.
const HTTP_METHODS: [&[u8; PREFIX_BYTES]; 10] =
    [b"GET ", b"POST", b"PUT ", b"HEAD", b"PRI ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC"];

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
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    if HTTP_METHODS.contains(&prefix) {
        return Err(FrameError::Http);
    }
    let length = i32::from_be_bytes(*prefix);
    let bytes = usize::try_from(length)
        .ok()
        .filter(|bytes| (FRAME_BYTES_MIN..=max).contains(bytes))
        .ok_or(FrameError::Length { length, max })?;
    if buffer.len() - PREFIX_BYTES < bytes {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(bytes).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let stream = b"\0\0\0\x08abcdefgh\0\0\0\x0a0123456789\0\0";
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for byte in stream {
            buffer.extend_from_slice(&[*byte]);
            frames.extend(try_decode(&mut buffer, 16).unwrap());
        }
        assert_eq!(frames, [&b"abcdefgh"[..], &b"0123456789"[..]]);
        assert_eq!(&buffer[..], b"\0\0");
    }

    #[test]
    fn a_large_length_takes_no_memory() {
        let mut buffer = BytesMut::from(&b"\0\xff\xff\xffxy"[..]);
        let capacity = buffer.capacity();
        assert_eq!(try_decode(&mut buffer, FRAME_BYTES_MAX), Ok(None));
        assert_eq!(buffer.capacity(), capacity);
    }

    #[test]
    fn lengths_out_of_bounds_end_the_stream() {
        for length in [i32::MIN, -1, 0, 7, 17, i32::MAX] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(
                try_decode(&mut buffer, 16),
                Err(FrameError::Length { length, max: 16 }),
                "length: {length}"
            );
        }
    }

    #[test]
    fn http_is_recognised_by_its_method() {
        for request in ["GET / HTTP/1.1\r\n", "POST /", "PRI * HTTP/2.0", "OPTIONS *"] {
            let mut buffer = BytesMut::from(request.as_bytes());
            assert_eq!(try_decode(&mut buffer, 16), Err(FrameError::Http), "{request}");
        }
    }
}
