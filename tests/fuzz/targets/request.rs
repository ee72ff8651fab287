//! What a connection on port 9092 reads: frames off a stream, and one frame's request.

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use taskwire::wire::{
    api,
    frame::{self, FRAME_BYTES_MAX},
};

/// `data`: a stream of frames with their length prefixes.
pub(super) fn run(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(frame)) = frame::try_decode(&mut buffer, FRAME_BYTES_MAX) {
        decode(frame);
    }
    // Also as a frame of its own, so that a prefix that does not fit hides nothing.
    decode(Bytes::copy_from_slice(data.get(4..).unwrap_or_default()));
}

fn decode(frame: Bytes) {
    let bytes = u64::try_from(frame.len()).expect("a length");
    let taken = measure(|| drop(api::decode_request(frame)));
    assert!(taken.bytes_max <= 8 * bytes + (64 << 10), "{taken:?} for {bytes} bytes");
}
