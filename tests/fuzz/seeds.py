"""Makes the first inputs of every target: `seeds.py OUT PROXY_PORT BROKER_PORT`.

Runs a proxy between real clients and the daemon until its input is closed, and keeps one frame of each
API, version and client, and the record batches in them. The rest is written here by hand.
"""

import json
import pathlib
import socket
import struct
import sys
import threading

OUT, PROXY, BROKER = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ROOT = pathlib.Path(__file__).resolve().parents[2]


def put(target, name, data):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# Frames and batches of real clients.
seen, batches = {}, set()


def keep(frame):
    key, version = struct.unpack(">hh", frame[:4])
    size = len(frame)
    if (key, version) not in seen or (size < 4096 and size > seen[key, version] + 64):
        seen[key, version] = size
        if size <= 4096:
            put("kafka_request", f"{key}-{version}-{size}", struct.pack(">i", size) + frame)
    # A record batch: magic 2 at byte 16, and a length that fits.
    at = frame.find(b"\x00" * 8)
    while at >= 0 and key == 0:
        if at + 61 < size and frame[at + 16] == 2:
            length = struct.unpack(">i", frame[at + 8 : at + 12])[0] + 12
            codec = frame[at + 22] & 7
            if 61 < length <= min(4096, size - at) and (codec, length) not in batches and len(batches) < 60:
                batches.add((codec, length))
                put("record_batch", f"{codec}-{length}", frame[at : at + length])
                return
        at = frame.find(b"\x00" * 8, at + 1)


def pump(source, sink, is_request):
    pending = b""
    while True:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        if not data:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            return
        sink.sendall(data)
        if not is_request:
            continue
        pending += data
        while len(pending) >= 4:
            size = struct.unpack(">i", pending[:4])[0]
            if len(pending) < 4 + size:
                break
            keep(pending[4 : 4 + size])
            pending = pending[4 + size :]


def proxy():
    listener = socket.create_server(("127.0.0.1", PROXY))
    while True:
        client, _ = listener.accept()
        broker = socket.create_connection(("127.0.0.1", BROKER))
        for source, sink, is_request in [(client, broker, True), (broker, client, False)]:
            threading.Thread(target=pump, args=(source, sink, is_request), daemon=True).start()


# Batches of every codec, each with three records.
saved = {}
for path in sorted((ROOT / "tests/data/batches").glob("*.hex")):
    saved[path.stem] = bytes.fromhex(path.read_text().replace("\n", ""))
    put("record_batch", path.stem, saved[path.stem])

# Log directories: a setting, then files (which, length, bytes); see targets/segment.rs.
none = saved["none"]


def batch(offset, body=none):
    return struct.pack(">q", offset) + body[8:12] + struct.pack(">i", 1) + body[16:]


def file(which, data):
    return bytes([which]) + struct.pack(">H", len(data)) + data


def envelope(kind, payload):
    return kind + struct.pack(">HII", 1, len(payload), 0) + payload


one, two = batch(0), batch(3)
epochs = file(4, envelope(b"TWEP", struct.pack(">iq", 1, 0)))
seal = struct.pack(">qqQIqqqII", 0, 3, len(one), 0, 1700000000010, 0, 0, 0, 0)
for settings in (0, 1, 2, 3, 4, 7):
    first = bytes([settings])
    put("segment", f"{settings}-one", first + file(0, one + two) + epochs)
    put("segment", f"{settings}-torn", first + file(0, one + two[:80]) + epochs)
    put("segment", f"{settings}-two", first + file(0, one) + file(2, two) + epochs)
    put("segment", f"{settings}-gap", first + file(0, one) + file(7, batch(6)) + epochs)
    put("segment", f"{settings}-damage", first + file(0, one[:90] + b"!" + one[91:] + two) + epochs)
    put("segment", f"{settings}-seal", first + file(0, one) + file(1, envelope(b"TWSL", seal)) + epochs)
    put("segment", f"{settings}-start", first + file(0, one + two) + file(5, envelope(b"TWLS", struct.pack(">q", 3))))
    put("segment", f"{settings}-producers", first + file(0, one) + file(2, two) + file(6, envelope(b"TWPS", b"state")))
for codec in ("gzip", "lz4", "snappy", "zstd"):
    put("segment", codec, b"\0" + file(0, batch(0, saved[codec]) + batch(3, saved[codec])) + epochs)

# Events in every form.
data = {"id": "t", "title": "x", "user_id": "ada"}
more = data | {"description": "d", "priority": "high", "due_date": "2030-01-01T00:00:00Z", "labels": ["a"]}
events = [
    {"type": "task_created", "data": data},
    {"event_type": "task_created", "event_id": "e1", "data": more},
    {"type": "task_created", "data": {"id": 7, "title": "\u00e9\U0001f600\\", "user_id": 42}},
    {"type": "task_completed", "data": {"id": "t", "completed": True, "completed_at": "2024-02-29T23:59:59.999+02:00"}},
    {"type": "task_updated", "expected_version": 1, "data": {"id": "t", "title": "new", "due_date": None, "labels": []}},
    {"type": "task_deleted", "data": {"id": "t", "user_id": "ada"}},
    {"type": "task_priority_changed", "data": {"id": "t", "priority": "urgent"}},
    {"type": "task_due_soon", "data": {"id": "t", "title": "x", "due_date": "2030-01-01"}},
    {"type": "something_else", "data": {"user_id": "ada", "any": [1, 2.5, -1e300, {"deep": [[]]}]}},
    {"specversion": "1.0", "type": "task_created", "source": "/crm", "id": "77", "data": data},
    {"specversion": "1.0", "type": "task_created", "source": "/crm", "id": "77", "data_base64": "e30="},
]
for number, event in enumerate(events):
    put("task_event", f"plain-{number}", json.dumps(event).encode())
put("task_event", "structured", b"content-type: application/cloudevents+json\n\n" + json.dumps(events[9]).encode())
binary = b"ce_specversion: 1.0\nce_type: task_created\nce_source: /crm\nce_id: 1\n\n"
put("task_event", "binary", binary + json.dumps(data).encode())
put("task_event", "redriven", b"taskwire-event-id: e9\n\n" + json.dumps(events[0]).encode())
put("task_event", "huge-number", b'{"type":"task_created","data":{"id":1' + b"0" * 40 + b',"title":"x","user_id":1}}')
put("task_event", "twice", b'{"type":"a","type":"task_created","data":{"id":"t","id":"u","title":"x","user_id":"ada"}}')

# Tokens: a header and claims to be signed, and tokens as they are.
claims = {"sub": "ada", "exp": 1800000000}
heads = [{"alg": "HS256", "typ": "JWT"}, {"alg": "none"}, {"alg": "RS256", "kid": "1"}, {"alg": "HS512"}]
heads += [{"alg": "HS256", "crit": ["exp"]}, {"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}, "jku": "http://x"}]
bodies = [claims, claims | {"sub": 42}, claims | {"nbf": 1900000000}, {"sub": "ada"}, claims | {"exp": 1}]
bodies += [claims | {"exp": 1.8e9}, claims | {"aud": ["a"], "iss": "b", "taskwire_admin": True}, claims | {"sub": ""}]
for number, head in enumerate(heads):
    put("token", f"head-{number}", json.dumps(head).encode() + b"\n" + json.dumps(claims).encode())
for number, body in enumerate(bodies):
    put("token", f"claims-{number}", json.dumps(heads[0]).encode() + b"\n" + json.dumps(body).encode())
put("token", "parts", b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.AAAA")
put("token", "none", b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.")

# Bodies: the first byte chooses route and content type; see targets/http.rs.
bodies = [
    b'{"title":"x"}', b'{"title":"x","description":null,"priority":"low","due_date":"2030-01-01T00:00:00Z"}',
    b'{"completed":true}', b'{"priority":"urgent"}', b'{"title":"y","labels":["a","b"],"due_date":null}',
    b'{"id":"0190a0a0-0000-7000-8000-000000000000","title":"own id"}', b'{"user_id":"bob","title":"x"}',
    b"", b"null", b"[]", b'{"title":', b'{"title":"' + b"x" * 600 + b'"}', b"[" * 200, b'{"title":"\\ud800"}',
    b'{"title":"x","unknown":1}', b'\xff\xfe{"title":"x"}', b'{"completed":false,"completed_at":"2024-01-01T00:00:00Z"}',
]
for number, body in enumerate(bodies):
    for route in range(6):
        put("http_body", f"{route}-{number}", bytes([route]) + body)


# Frames of a client with a mask of zeros, so that the text stays as it is.
def frame(first, payload, mask=b"\0\0\0\0"):
    size = len(payload)
    head = bytes([first, 0x80 | size]) if size < 126 else bytes([first, 0xFE]) + struct.pack(">H", size)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


frames = {
    "ping-text": frame(0x81, b"ping"), "masked": frame(0x81, b"ping", b"\1\2\3\4"), "json": frame(0x81, b'{"type":"ack"}'),
    "auth": frame(0x81, b'{"type":"auth","data":{"token":"x"}}'), "binary": frame(0x82, b"\0\1\2"),
    "fragments": frame(0x01, b"pi") + frame(0x80, b"ng"), "ping-between": frame(0x01, b"pi") + frame(0x89, b"") + frame(0x80, b"ng"),
    "ping": frame(0x89, b"x" * 125), "pong": frame(0x8A, b""), "close": frame(0x88, struct.pack(">H", 1000) + b"bye"),
    "close-empty": frame(0x88, b""), "close-bad-code": frame(0x88, struct.pack(">H", 1005)), "close-short": frame(0x88, b"\3"),
    "unmasked": b"\x81\x04ping", "reserved": frame(0xC1, b"ping"), "opcode-3": frame(0x83, b""), "continuation": frame(0x80, b"x"),
    "not-utf8": frame(0x81, b"\xc3\x28"), "long": frame(0x81, b"x" * 4000), "huge-length": b"\x81\xff\x7f" + b"\xff" * 11,
    "long-control": b"\x89\xfe\x01\x00" + b"\0" * 260, "half": frame(0x81, b"ping")[:5], "many": frame(0x81, b"ping") * 40,
}
for name, data in frames.items():
    put("socket", name, data)

threading.Thread(target=proxy, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
