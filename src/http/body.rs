//! Reads a request's body within its bounds.

use super::{
    limits::Limits,
    problem::{Code, Problem},
};
use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

/// Types of a body that is a task.
pub(super) const JSON: &[&str] = &["application/json"];

/// Types of a body that changes a task (RFC 7396).
pub(super) const PATCH: &[&str] = &["application/merge-patch+json", "application/json"];

/// Reads a body of one of `types` (or of no named type), within its limits.
///
/// # Errors
/// `UnsupportedMediaType`, `BodyTooLarge`, `IncompleteBody`, `RequestTimeout`.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    types: &[&str],
    limits: &Limits,
) -> Result<Bytes, Problem> {
    let bytes_max = limits.body_bytes_max;
    check_type(headers, types)?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if usize::try_from(length).map_or(true, |length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    match tokio::time::timeout(limits.body_timeout, collect(body, bytes_max)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(Code::RequestTimeout)),
    }
}

/// Nearly every body is one frame, and is then not copied.
async fn collect(mut body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let Some(first) = next_data(&mut body, bytes_max).await? else { return Ok(Bytes::new()) };
    let Some(second) = next_data(&mut body, bytes_max - first.len()).await? else {
        return Ok(first);
    };
    let mut joined = BytesMut::from(&first[..]);
    let mut next = Some(second);
    while let Some(data) = next {
        joined.extend_from_slice(&data);
        next = next_data(&mut body, bytes_max - joined.len()).await?;
    }
    Ok(joined.freeze())
}

/// The next data frame, of at most `bytes_max`.
async fn next_data(body: &mut Body, bytes_max: usize) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(Code::IncompleteBody))?;
        // Trailers are not data, and nobody asks for them.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max {
            return Err(Problem::with_detail(Code::BodyTooLarge, "the body is too long"));
        }
        return Ok(Some(data));
    }
    Ok(None)
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::with_detail(Code::BodyTooLarge, format!("a body has at most {bytes_max} bytes"))
}

fn check_type(headers: &HeaderMap, types: &[&str]) -> Result<(), Problem> {
    let is_plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let is_json = headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
        types.iter().any(|known| essence.eq_ignore_ascii_case(known))
    });
    if is_plain && is_json {
        return Ok(());
    }
    let detail = format!("send {}, not compressed", types.join(" or "));
    Err(Problem::with_detail(Code::UnsupportedMediaType, detail))
}
