//! The only mapping of errors to a status, a stable `code` and a public message (RFC 9457).
//!
//! What a peer reads never holds a path, a token or an internal name.

use super::limits::Exceeded;
use crate::{
    auth::AuthError,
    causes::chain,
    feed::FeedError,
    position::Position,
    store::StoreError,
    task::{JsonError, field::FieldError, transition::Reason},
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::borrow::Cow;
use tracing::error;

/// Seconds after which a refused request may be tried again.
const RETRY_AFTER_S: u32 = 1;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:ident $code:literal $title:literal;)*) => {
        /// Every problem that a client can be told of.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Code {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Code {
            /// All of them.
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The status of the answer.
            pub(super) const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }

            /// The stable code.
            pub(super) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    InvalidJson = BAD_REQUEST "invalid_json" "The body is not valid JSON";
    /// The body is nested too deep.
    JsonTooDeep = BAD_REQUEST "json_too_deep" "The body is nested too deep";
    /// The body ended early.
    IncompleteBody = BAD_REQUEST "incomplete_body" "The body ended early";
    /// A query parameter is wrong.
    InvalidParameter = BAD_REQUEST "invalid_parameter" "A query parameter is not valid";
    /// The cursor is not ours, or belongs to another user or filter.
    InvalidCursor = BAD_REQUEST "invalid_cursor" "The cursor is not valid for this list";
    /// So many tasks are not sorted.
    TooManyToSort = BAD_REQUEST "too_many_to_sort" "Only the order of creation takes so many tasks";
    /// A header is wrong.
    InvalidHeader = BAD_REQUEST "invalid_header" "A header is not valid";
    /// No token.
    TokenMissing = UNAUTHORIZED "token_missing" "A token is needed";
    /// An expired token.
    TokenExpired = UNAUTHORIZED "token_expired" "The token has expired";
    /// Any other bad token.
    TokenInvalid = UNAUTHORIZED "token_invalid" "The token is not valid";
    /// The token is of no administrator.
    AdminRequired = FORBIDDEN "admin_required" "Only an administrator may do this";
    /// It came by port 8000.
    LocalOnly = FORBIDDEN "local_only" "Only the daemon's own socket takes this";
    /// Nobody but the daemon writes there.
    TopicReserved = FORBIDDEN "topic_reserved" "Only the daemon writes to this topic";
    /// The body names another user.
    OtherUser = FORBIDDEN "other_user" "Only your own tasks can be written";
    /// The browser's page may not use us.
    OriginNotAllowed = FORBIDDEN "origin_not_allowed" "This origin is not allowed";
    /// The name by which we were reached is not allowed (development mode).
    HostNotAllowed = FORBIDDEN "host_not_allowed" "This host name is not allowed";
    /// No such path.
    NotFound = NOT_FOUND "not_found" "There is nothing at this path";
    /// No such task of this user.
    TaskNotFound = NOT_FOUND "task_not_found" "There is no such task";
    /// No such connection (any more).
    ConnectionNotFound = NOT_FOUND "connection_not_found" "There is no such connection";
    /// No such topic.
    TopicNotFound = NOT_FOUND "topic_not_found" "There is no such topic";
    /// No such dead letter.
    LetterNotFound = NOT_FOUND "letter_not_found" "There is no such dead letter";
    /// The path has other methods.
    MethodNotAllowed = METHOD_NOT_ALLOWED "method_not_allowed" "This path has other methods";
    /// The body came too slowly.
    RequestTimeout = REQUEST_TIMEOUT "request_timeout" "The body came too slowly";
    /// Another creation has this id.
    TaskConflict = CONFLICT "task_conflict" "Another task has this id";
    /// It was redriven before.
    LetterRedriven = CONFLICT "letter_redriven" "The dead letter was redriven";
    /// Only a mended value can be sent.
    LetterWithoutRecord = CONFLICT "letter_without_record"
        "The dead letter holds no record to send again";
    /// The task was deleted.
    TaskDeleted = GONE "task_deleted" "The task was deleted";
    /// The position cannot be placed; `pos` is where to go on.
    Resync = GONE "resync" "The position is too old, or of another store";
    /// `If-Match` lost.
    VersionMismatch = PRECONDITION_FAILED "version_mismatch" "The task has another version";
    /// The request target is too long.
    TargetTooLong = URI_TOO_LONG "target_too_long" "The path and the query are too long";
    /// The body is too long.
    BodyTooLarge = PAYLOAD_TOO_LARGE "body_too_large" "The body is too large";
    /// The body is of another type.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "JSON is needed";
    /// The body is JSON, and no object.
    NotAnObject = UNPROCESSABLE_ENTITY "not_an_object" "The body is not a JSON object";
    /// A field is wrong; `pointer` says which.
    InvalidField = UNPROCESSABLE_ENTITY "invalid_field" "A field is not valid";
    /// The key was used for another body.
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY "idempotency_key_reused"
        "The Idempotency-Key was used for another request";
    /// `/ws/...` without a WebSocket handshake.
    UpgradeRequired = UPGRADE_REQUIRED "upgrade_required" "A WebSocket handshake is needed";
    /// What is asked for is damaged on disk; the log says more.
    Damaged = INTERNAL_SERVER_ERROR "damaged" "This is damaged on disk";
    /// Too many requests; when to come back is in the headers.
    RateLimited = TOO_MANY_REQUESTS "rate_limited" "Too many requests";
    /// As many sessions as are allowed are open.
    TooManySessions = TOO_MANY_REQUESTS "too_many_sessions" "Too many sessions are open";
    /// As many tickets as are allowed are unused.
    TooManyTickets = TOO_MANY_REQUESTS "too_many_tickets" "Too many tickets are unused";
    /// The backup was not made; the detail says why.
    BackupFailed = INTERNAL_SERVER_ERROR "backup_failed" "The backup was not made";
    /// Another backup is being made.
    BackupRunning = CONFLICT "backup_running" "Another backup is being made";
    /// A defect of ours; the log says more.
    Internal = INTERNAL_SERVER_ERROR "internal" "Something went wrong here";
    /// The log cannot be written for now.
    Unavailable = SERVICE_UNAVAILABLE "unavailable" "Tasks cannot be written for now";
    /// The keys of the tokens were never fetched.
    KeysUnavailable = SERVICE_UNAVAILABLE "keys_unavailable" "Tokens cannot be checked for now";
    /// Apply has not reached the log end of the start.
    CatchingUp = SERVICE_UNAVAILABLE "catching_up" "The daemon is still catching up";
    /// The daemon stops.
    Stopping = SERVICE_UNAVAILABLE "stopping" "The daemon is stopping";
    /// No space on disk.
    DiskFull = INSUFFICIENT_STORAGE "disk_full" "The disk is full";
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    detail: Option<Cow<'static, str>>,
    pointer: Option<String>,
    parameter: Option<&'static str>,
    position: Option<Box<Position>>,
    refused: Option<AuthError>,
    exceeded: Option<Box<Exceeded>>,
}

/// Why a token was refused, for the one log line about it; an extension of the response.
#[derive(Clone, Debug)]
pub(super) struct Refused(pub(super) AuthError);

impl Problem {
    /// A problem that its code says all about.
    pub(super) const fn new(code: Code) -> Self {
        let (detail, pointer, parameter, position) = (None, None, None, None);
        Self { code, detail, pointer, parameter, position, refused: None, exceeded: None }
    }

    /// A problem with a sentence about this occurrence.
    pub(super) fn with_detail(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(code) }
    }

    /// A wrong query parameter.
    pub(super) fn parameter(name: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let parameter = Some(name);
        Self { parameter, ..Self::with_detail(Code::InvalidParameter, detail) }
    }

    /// A position that cannot be placed; the client goes on from another.
    pub(super) fn resync(position: Position) -> Self {
        Self { position: Some(Box::new(position)), ..Self::new(Code::Resync) }
    }

    /// A limit that was exceeded.
    pub(super) fn rate_limited(exceeded: Exceeded) -> Self {
        Self { exceeded: Some(Box::new(exceeded)), ..Self::new(Code::RateLimited) }
    }

    /// The problem at a place of the body (RFC 6901).
    pub(super) fn at(self, pointer: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..self }
    }

    /// The problem of an item, within its array.
    pub(super) fn within(self, index: usize) -> Self {
        let inner = self.pointer.as_deref().unwrap_or_default();
        let pointer = format!("/{index}{inner}");
        self.at(pointer)
    }

    /// Which problem it is.
    #[cfg(test)]
    pub(super) const fn code(&self) -> Code {
        self.code
    }

    /// What a dead letter's reason means to the request that waited for it. `is_creation` tells a
    /// POST (an id of its own) from a request about a task that was there.
    pub(super) fn from_reason(reason: Reason, is_creation: bool) -> Self {
        Self::new(match reason {
            Reason::TaskConflict => Code::TaskConflict,
            Reason::TaskDeleted if is_creation => Code::TaskDeleted,
            Reason::TaskDeleted | Reason::WrongUser | Reason::WaitExpired => Code::TaskNotFound,
            Reason::EventIdReused => Code::IdempotencyKeyReused,
            Reason::WaitOverflow => Code::Unavailable,
            _ => {
                error!(?reason, "an event of the REST API became a dead letter");
                Code::Internal
            }
        })
    }

    fn to_json(&self) -> Vec<u8> {
        let mut document = Map::new();
        let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
        put("type", Value::from(format!("urn:taskwire:problem:{}", self.code.as_str())));
        put("title", Value::from(self.code.title()));
        put("status", Value::from(self.code.status().as_u16()));
        put("code", Value::from(self.code.as_str()));
        if let Some(detail) = &self.detail {
            put("detail", Value::from(detail.as_ref()));
        }
        if let Some(pointer) = &self.pointer {
            put("pointer", Value::from(pointer.as_str()));
        }
        if let Some(parameter) = self.parameter {
            put("parameter", Value::from(parameter));
        }
        if let Some(position) = &self.position {
            put("pos", Value::from(position.to_string()));
        }
        Value::Object(document).to_string().into_bytes()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.code {
            Code::TokenMissing => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"taskwire\""),
                );
            }
            Code::TokenExpired | Code::TokenInvalid => {
                let challenge = "Bearer realm=\"taskwire\", error=\"invalid_token\"";
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            Code::UpgradeRequired => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Code::Unavailable
            | Code::KeysUnavailable
            | Code::CatchingUp
            | Code::Stopping
            | Code::TooManySessions
            | Code::TooManyTickets => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            _ => (),
        }
        if let Some(exceeded) = self.exceeded {
            tell_limit(response.headers_mut(), *exceeded);
        }
        if let Some(refused) = self.refused {
            response.extensions_mut().insert(Refused(refused));
        }
        response
    }
}

/// When to come back, and how much may be asked then.
///
/// Source: RFC 9110, 10.2.3; draft-ietf-httpapi-ratelimit-headers-10 (`q` requests in `w` seconds;
/// `r` are left, and more come in `t` seconds).
fn tell_limit(headers: &mut HeaderMap, exceeded: Exceeded) {
    let Exceeded { policy, burst, window_s, retry_after_s } = exceeded;
    let value = |text: String| {
        HeaderValue::from_maybe_shared(Bytes::from(text)).expect("names and digits are plain")
    };
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
    headers.insert("ratelimit-policy", value(format!("\"{policy}\";q={burst};w={window_s}")));
    headers.insert("ratelimit", value(format!("\"{policy}\";r=0;t={retry_after_s}")));
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let code = match &error {
            AuthError::Missing => Code::TokenMissing,
            AuthError::Expired => Code::TokenExpired,
            AuthError::NoKeys => Code::KeysUnavailable,
            AuthError::Invalid(_) => Code::TokenInvalid,
        };
        Self { refused: Some(error), ..Self::new(code) }
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        Self::new(match error {
            JsonError::NotJson => Code::InvalidJson,
            JsonError::TooDeep => Code::JsonTooDeep,
            JsonError::NotAnObject => Code::NotAnObject,
        })
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        let pointer = Some(error.pointer());
        Self { pointer, ..Self::with_detail(Code::InvalidField, error.to_string()) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::TooManyToSort { .. } = error {
            return Self::with_detail(Code::TooManyToSort, error.to_string());
        }
        // The store has told of a damaged row, once.
        if !matches!(error, StoreError::Damaged { .. }) {
            error!(error = chain(&error), "the store failed a request");
        }
        match error {
            StoreError::Full(_) => Self::new(Code::DiskFull),
            StoreError::Damaged { .. } | StoreError::DamagedFile(_) => Self::new(Code::Damaged),
            _ => Self::new(Code::Internal),
        }
    }
}

impl From<FeedError> for Problem {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Full => Self::new(Code::DiskFull),
            FeedError::Unavailable => Self::new(Code::Unavailable),
            FeedError::TooLarge => Self::new(Code::BodyTooLarge),
            other => {
                error!(error = chain(&other), "the log failed a request");
                Self::new(Code::Internal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_is_a_problem_document() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code:?} is there twice");
            let response = Problem::new(*code).into_response();
            assert_eq!(response.status(), code.status());
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let is_401 = code.status() == StatusCode::UNAUTHORIZED;
            assert_eq!(response.headers().contains_key("www-authenticate"), is_401, "{code:?}");
            let is_full = matches!(code, Code::TooManySessions | Code::TooManyTickets);
            let passes = is_full || code.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(response.headers().contains_key("retry-after"), passes, "{code:?}");
            let document: Value = serde_json::from_slice(&Problem::new(*code).to_json()).unwrap();
            assert_eq!(document["code"], code.as_str());
            assert_eq!(document["status"], code.status().as_u16());
        }
    }

    #[test]
    fn a_limit_is_told_with_when_to_come_back() {
        let exceeded = Exceeded { policy: "user", burst: 30, window_s: 15, retry_after_s: 2 };
        let response = Problem::rate_limited(exceeded).into_response();
        assert_eq!(response.status(), 429);
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!(header("retry-after"), "2");
        assert_eq!(header("ratelimit-policy"), "\"user\";q=30;w=15");
        assert_eq!(header("ratelimit"), "\"user\";r=0;t=2");
    }

    #[test]
    fn a_dead_letter_is_told_to_whoever_waited() {
        for (reason, of_creation, of_change) in [
            (Reason::TaskConflict, Code::TaskConflict, Code::TaskConflict),
            (Reason::TaskDeleted, Code::TaskDeleted, Code::TaskNotFound),
            (Reason::WrongUser, Code::TaskNotFound, Code::TaskNotFound),
            (Reason::WaitExpired, Code::TaskNotFound, Code::TaskNotFound),
            (Reason::WaitOverflow, Code::Unavailable, Code::Unavailable),
            (Reason::EventIdReused, Code::IdempotencyKeyReused, Code::IdempotencyKeyReused),
            (Reason::InvalidEvent, Code::Internal, Code::Internal),
            (Reason::InvalidJson, Code::Internal, Code::Internal),
        ] {
            assert_eq!(Problem::from_reason(reason, true).code(), of_creation, "{reason:?}");
            assert_eq!(Problem::from_reason(reason, false).code(), of_change, "{reason:?}");
        }
    }

    #[test]
    fn what_a_peer_reads_holds_no_internals() {
        let source = std::io::Error::other("/var/lib/taskwire/tasks.redb: broken");
        let problem = Problem::from(StoreError::Database(Box::new(source)));
        let text = String::from_utf8(problem.to_json()).unwrap();
        assert!(!text.contains("redb") && text.contains("internal"), "{text}");
        let full = StoreError::Full(Box::new(std::io::Error::other("x")));
        assert_eq!(Problem::from(full).code(), Code::DiskFull);
        assert_eq!(Problem::from(FeedError::TooLarge).code(), Code::BodyTooLarge);
    }
}
