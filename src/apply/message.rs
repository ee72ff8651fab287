//! What a socket is sent about a change, but for its position: a JSON object without its last
//! brace.

use crate::task::{Task, time};
use bytes::Bytes;

/// Bytes of a usual message.
const BYTES_USUAL: usize = 640;

/// What `data` holds.
pub(super) enum Data<'a> {
    /// The whole task.
    Task(&'a Task),
    /// The whole task, and beside it what the change replaced.
    Changed { before: &'a Task, after: &'a Task },
    /// A deleted task: its id, owner and last version.
    Deleted(&'a Task),
    /// JSON as it was written.
    Json(&'a [u8]),
}

/// `{"type":..,"data":..,"event_id":..,"time":..` of one change.
pub(super) fn message(event_type: &str, data: &Data<'_>, event_id: &str, time_ms: i64) -> Bytes {
    let mut out = Vec::with_capacity(BYTES_USUAL);
    out.extend_from_slice(b"{\"type\":");
    write_string(event_type, &mut out);
    out.extend_from_slice(b",\"data\":");
    match data {
        Data::Task(task) => task.write_json(&mut out),
        Data::Changed { before, after } => {
            after.write_json(&mut out);
            out.extend_from_slice(b",\"before\":");
            before.write_changed(after, &mut out);
        }
        Data::Deleted(task) => write_deleted(task, &mut out),
        Data::Json(json) => write_on_one_line(json, &mut out),
    }
    out.extend_from_slice(b",\"event_id\":");
    write_string(event_id, &mut out);
    out.extend_from_slice(b",\"time\":\"");
    time::write(time_ms, &mut out);
    out.push(b'"');
    out.into()
}

fn write_deleted(task: &Task, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    write_string(task.id.as_str(), out);
    out.extend_from_slice(b",\"user_id\":");
    write_string(task.user_id.as_str(), out);
    out.extend_from_slice(format!(",\"version\":{}}}", task.version).as_bytes());
}

/// Server-sent events end a message's line at a line break; within JSON text one can only be white
/// space between tokens.
fn write_on_one_line(json: &[u8], out: &mut Vec<u8>) {
    out.extend(json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string is written to memory");
}
