//! Frames from a client on an open WebSocket: the daemon answers with sound frames, or closes with a
//! code that blames the client.

use super::server::{read_head, server};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
};

/// `data`: what a client sends after the handshake, masks and all.
pub(super) fn run(data: &[u8]) {
    let server = server();
    let mut stream = server.connect();
    let handshake = format!(
        "GET /ws/tasks?from=earliest HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address, server.token
    );
    stream.write_all(handshake.as_bytes()).expect("written");
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The daemon may have closed already.
    drop(stream.write_all(data));
    drop(stream.shutdown(Shutdown::Write));
    check_frames(&read_to_end(&mut stream));
}

fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            // Reset: it closed with bytes of ours unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("the socket is not ended: {error}"),
        }
    }
}

/// RFC 6455, section 5.2, from a server: no mask, no reserved bits, known opcodes.
fn check_frames(mut bytes: &[u8]) {
    while let [first, second, rest @ ..] = bytes {
        assert_eq!((first & 0x70, second & 0x80), (0, 0), "reserved bits or a mask");
        assert!(matches!(first & 15, 0..=2 | 8..=10), "opcode {}", first & 15);
        let (length, rest) = match (second & 127, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, _) => panic!("a message of more than 64 KiB"),
            (length, rest) => (usize::from(length), rest),
        };
        let Some(payload) = rest.get(..length) else { return };
        if first & 15 == 8 && length >= 2 {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            assert!(code != 1011 && code != 4500, "an internal error: {payload:?}");
        }
        bytes = &rest[length..];
    }
}
