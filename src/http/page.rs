//! The page at `/`: a few small files, embedded. The browser is told to load nothing else.
//!
//! The JavaScript client is that of `clients/js`, byte for byte.

use aws_lc_rs::digest;
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use std::{
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, LazyLock},
};

use super::{
    State,
    extract::PathText,
    problem::{Code, Problem},
};

/// What the page may do: its own scripts and styles, requests and sockets to us, and nothing that
/// could turn text into markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    trusted-types 'none'; require-trusted-types-for 'script'";

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(super) const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// What `index.html` has in the place of the mode, so that the page need not ask (and fail) first.
const MODE: &str = "MODE";

/// Name, type and text of every file but `index.html`.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", STYLE, include_str!("page/style.css")),
    ("icon.svg", ICON, include_str!("page/icon.svg")),
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("tasks.js", SCRIPT, include_str!("page/tasks.js")),
    ("records.js", SCRIPT, include_str!("page/records.js")),
    ("groups.js", SCRIPT, include_str!("page/groups.js")),
    ("letters.js", SCRIPT, include_str!("page/letters.js")),
    ("connections.js", SCRIPT, include_str!("page/connections.js")),
    ("health.js", SCRIPT, include_str!("page/health.js")),
    ("taskwire.js", SCRIPT, include_str!("../../clients/js/src/taskwire.js")),
    ("transport.js", SCRIPT, include_str!("../../clients/js/src/transport.js")),
];

/// What a file of a page says of itself to the browser.
pub(super) fn describe(headers: &mut HeaderMap, kind: &'static str, policy: &'static str) {
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A file as it is sent.
struct File {
    name: &'static str,
    kind: &'static str,
    plain: Bytes,
    gzip: Bytes,
    tag: HeaderValue,
}

impl File {
    fn new(name: &'static str, kind: &'static str, text: &str) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
        let gzip = written.expect("writing to memory does not fail").into();
        let mut tag = "\"".to_owned();
        for byte in &digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..12] {
            write!(tag, "{byte:02x}").expect("writing to memory does not fail");
        }
        tag.push('"');
        let tag = HeaderValue::from_str(&tag).expect("hex digits are a header value");
        Self { name, kind, plain: Bytes::copy_from_slice(text.as_bytes()), gzip, tag }
    }

    fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let has = |name, part: &HeaderValue| {
            headers.get_all(name).iter().any(|value| {
                let (value, part) = (value.as_bytes(), part.as_bytes());
                value.windows(part.len()).any(|window| window == part)
            })
        };
        let mut response = Response::new(Body::empty());
        if has(header::IF_NONE_MATCH, &self.tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else if has(header::ACCEPT_ENCODING, &HeaderValue::from_static("gzip")) {
            *response.body_mut() = Body::from(self.gzip.clone());
            let encoding = HeaderValue::from_static("gzip");
            response.headers_mut().insert(header::CONTENT_ENCODING, encoding);
        } else {
            *response.body_mut() = Body::from(self.plain.clone());
        }
        let described = response.headers_mut();
        describe(described, self.kind, POLICY);
        described.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        response.headers_mut().insert(header::ETAG, self.tag.clone());
        response
    }
}

/// All files, compressed once.
static SENT: LazyLock<Vec<File>> =
    LazyLock::new(|| FILES.iter().map(|(name, kind, text)| File::new(name, kind, text)).collect());

/// `index.html`, with a token and without.
static INDEX: LazyLock<[File; 2]> = LazyLock::new(|| {
    let index = include_str!("page/index.html");
    ["token", "development"].map(|mode| File::new("", HTML, &index.replace(MODE, mode)))
});

/// `GET /`
pub(super) async fn index(
    AxumState(state): AxumState<Arc<State>>,
    headers: HeaderMap,
) -> Response<Body> {
    let mode = usize::from(state.parts.authenticator.is_development());
    INDEX[mode].answer(&headers)
}

/// `GET /page/{file}`
pub(super) async fn file(
    PathText(name): PathText,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let file = SENT.iter().find(|file| file.name == name);
    Ok(file.ok_or(Problem::new(Code::NotFound))?.answer(&headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPRESSED_BYTES_MAX: usize = 150 * 1024;

    #[test]
    fn the_whole_page_is_small() {
        let files = SENT.iter().chain(&INDEX[..1]);
        let bytes: usize = files.map(|file| file.gzip.len()).sum();
        println!("the page: {bytes} bytes, compressed");
        assert!(bytes <= COMPRESSED_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn the_page_asks_for_its_own_files_and_no_others() {
        let index = include_str!("page/index.html");
        assert_eq!(index.matches(MODE).count(), 1);
        let all = FILES.iter().map(|(_, _, text)| *text).chain([index]);
        for text in all {
            for outside in ["src=\"http", "href=\"http", "url(", "@import \"", "from \"http"] {
                assert!(!text.contains(outside), "{outside}");
            }
            for rest in text.split("from \"./").skip(1) {
                let name = rest.split('"').next().unwrap();
                assert!(FILES.iter().any(|(file, ..)| *file == name), "{name}");
            }
        }
        assert!(!index.contains("<style") && !index.contains("<script>"), "nothing inline");
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let file = &SENT[0];
        let mut headers = HeaderMap::new();
        assert_eq!(file.answer(&headers).status(), 200);
        headers.insert(header::IF_NONE_MATCH, file.tag.clone());
        assert_eq!(file.answer(&headers).status(), 304);
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"0\""));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br"));
        let answer = file.answer(&headers);
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-encoding"]),
            (200, &HeaderValue::from_static("gzip"))
        );
    }
}
