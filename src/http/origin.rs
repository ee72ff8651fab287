//! Which pages a browser may use us from, and CORS for those.
//!
//! Allowed are our own origin, the configured ones and, on loopback listeners, loopback origins of
//! any port. In development mode, where a request needs no token, the name by which we were reached
//! must be a loopback one too: else any page could reach us under a name of its own that resolves
//! to this machine.

use super::problem::{Code, Problem};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
};
use std::net::IpAddr;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// From no browser, or from one that reads our own page.
    None,
    /// From a page that may use us.
    Allowed,
    /// From any other page.
    Foreign,
}

/// What is allowed on one listener.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// Origins beside our own.
    pub(super) allow_origins: Vec<String>,
    /// The listener takes connections of this machine only.
    pub(super) is_loopback: bool,
    /// Requests need no token.
    pub(super) is_development: bool,
}

impl Policy {
    /// Judges a request by its headers.
    ///
    /// # Errors
    /// A host name or origin that is not to be served at all.
    pub(super) fn judge(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Origin, Problem> {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        if self.is_development && !host.is_none_or(|host| self.knows_host(host)) {
            return Err(Problem::with_detail(
                Code::HostNotAllowed,
                "development mode answers to loopback names and to the hosts of --allow-origin",
            ));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(Origin::None) };
        let is_allowed = origin.to_str().is_ok_and(|origin| self.allows(origin, host));
        if is_allowed {
            return Ok(Origin::Allowed);
        }
        // CORS lets a foreign page send simple requests and only keeps the answer from it.
        let is_harmless = method.is_safe() && !path.starts_with("/ws/");
        let needs_token = !self.is_development && !path.starts_with("/ws/");
        if (is_harmless && *method != Method::OPTIONS) || needs_token {
            return Ok(Origin::Foreign);
        }
        Err(Problem::new(Code::OriginNotAllowed))
    }

    fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        let is_listed = |allowed: &String| {
            allowed == "*" || allowed.trim_end_matches('/').eq_ignore_ascii_case(origin)
        };
        if self.allow_origins.iter().any(is_listed) {
            return true;
        }
        let Some(authority) = authority(origin) else { return false };
        // Our own origin, also behind a proxy; in development mode the host was looked at before.
        let is_own = host.is_some_and(|host| host.eq_ignore_ascii_case(authority));
        is_own || (self.is_loopback && is_loopback_name(name_of(authority)))
    }

    fn knows_host(&self, host: &str) -> bool {
        let name = name_of(host);
        let is_listed = |allowed: &String| {
            allowed == "*"
                || authority(allowed)
                    .is_some_and(|authority| name_of(authority).eq_ignore_ascii_case(name))
        };
        is_loopback_name(name) || self.allow_origins.iter().any(is_listed)
    }
}

/// Host and port of an origin.
fn authority(origin: &str) -> Option<&str> {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))?;
    let rest = rest.trim_end_matches('/');
    (!rest.is_empty() && !rest.contains(['/', '@'])).then_some(rest)
}

/// The host without its port.
fn name_of(authority: &str) -> &str {
    if let Some(end) = authority.find(']') {
        return authority.get(..=end).unwrap_or(authority);
    }
    authority.split(':').next().unwrap_or(authority)
}

fn is_loopback_name(name: &str) -> bool {
    let is_localhost =
        name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    let address = name.trim_start_matches('[').trim_end_matches(']');
    is_localhost || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the browser asks what a page may do.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight from an allowed page; [`allow`] completes it.
pub(super) fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID",
        ),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Lets the page of `origin` read an answer.
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("ETag, Link, Location, Retry-After, Taskwire-Position"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &Policy, method: &Method, path: &str, pairs: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: header::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        match policy.judge(method, path, &headers) {
            Ok(origin) => format!("{origin:?}"),
            Err(problem) => problem.code().as_str().to_owned(),
        }
    }

    #[test]
    fn foreign_pages_are_kept_out() {
        let development =
            Policy { allow_origins: Vec::new(), is_loopback: true, is_development: true };
        let local = Policy { is_development: false, ..development.clone() };
        let listed = Policy {
            allow_origins: vec!["https://app.example/".to_owned()],
            is_loopback: false,
            is_development: false,
        };
        let (get, post, options) = (Method::GET, Method::POST, Method::OPTIONS);
        let (ws, api) = ("/ws/tasks", "/api/tasks");
        let (foreign_origin, foreign_host) = ("origin_not_allowed", "host_not_allowed");
        let localhost = "localhost:8000";
        let evil = "http://evil.example";
        for (policy, method, path, host, origin, expected) in [
            (&development, &get, ws, localhost, "", "None"),
            (&development, &get, ws, "", "", "None"),
            (&development, &get, ws, localhost, evil, foreign_origin),
            (&development, &get, ws, localhost, "null", foreign_origin),
            (&development, &post, api, localhost, evil, foreign_origin),
            (&development, &options, api, localhost, evil, foreign_origin),
            (&development, &get, api, localhost, evil, "Foreign"),
            (&development, &get, api, "evil.example:8000", "", foreign_host),
            (&development, &get, api, "127.0.0.1.evil.example", "", foreign_host),
            (&development, &get, api, "[::1]:8000", "", "None"),
            (&development, &get, ws, localhost, "http://localhost:3000", "Allowed"),
            (&development, &get, ws, localhost, "http://127.9.9.9", "Allowed"),
            (&development, &get, ws, localhost, "https://[::1]:1", "Allowed"),
            (&local, &get, ws, localhost, evil, foreign_origin),
            (&local, &get, ws, "proxied.example", "https://proxied.example", "Allowed"),
            (&local, &post, api, localhost, evil, "Foreign"),
            (&listed, &get, ws, "a.example", "https://a.example", "Allowed"),
            (&listed, &get, ws, "a.example", "https://APP.example", "Allowed"),
            (&listed, &get, ws, "a.example", "http://localhost", foreign_origin),
            (&listed, &get, ws, "a.example", "ftp://a.example", foreign_origin),
        ] {
            let mut headers = vec![("host", host), ("origin", origin)];
            headers.retain(|(_, value)| !value.is_empty());
            assert_eq!(judge(policy, method, path, &headers), expected, "{path} {headers:?}");
        }
    }
}
