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
use std::net::{IpAddr, Ipv6Addr};

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
        let host = only(headers, &header::HOST)
            .map_err(|()| Problem::with_detail(Code::InvalidHeader, "Host"))?;
        if self.is_development && !host.is_none_or(|host| self.knows_host(host)) {
            return Err(Problem::with_detail(
                Code::HostNotAllowed,
                "development mode answers to loopback names and to the hosts of --allow-origin",
            ));
        }
        let origin = only(headers, &header::ORIGIN);
        if origin == Ok(None) {
            return Ok(Origin::None);
        }
        let is_allowed = matches!(origin, Ok(Some(origin)) if self.allows(origin, host));
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
        let Some(page) = Page::parse(origin) else { return false };
        if self.allow_origins.iter().any(|allowed| Page::parse(allowed) == Some(page)) {
            return true;
        }
        // Our own origin, by whatever scheme a proxy before us speaks; in development mode the
        // host was looked at before.
        let is_own = host.is_some_and(|host| site(host, page.default_port()) == Some(page.site));
        is_own || (self.is_loopback && is_loopback_name(page.site.name))
    }

    fn knows_host(&self, host: &str) -> bool {
        let Some(site) = site(host, 0) else { return false };
        let is_listed = |allowed: &String| {
            Page::parse(allowed).is_some_and(|page| page.site.name.eq_ignore_ascii_case(site.name))
        };
        is_loopback_name(site.name) || self.allow_origins.iter().any(is_listed)
    }
}

/// The value of a header that must not be there twice.
fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The origin of a page: scheme, host and port, and nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Page<'a> {
    is_tls: bool,
    site: Site<'a>,
}

impl<'a> Page<'a> {
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = if is_tls { 443 } else { 80 };
        Some(Self { is_tls, site: site(authority, port)? })
    }

    const fn default_port(&self) -> u16 {
        if self.is_tls { 443 } else { 80 }
    }
}

/// Host and port; names are equal in any case.
#[derive(Clone, Copy, Debug)]
struct Site<'a> {
    name: &'a str,
    port: u16,
}

impl PartialEq for Site<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port && self.name.eq_ignore_ascii_case(other.name)
    }
}

impl Eq for Site<'_> {}

/// Reads `HOST[:PORT]`. What a browser would not write so is nothing: user information, a zone, a
/// path, a host beside brackets, a port that is no number, names that are not in ASCII.
fn site(authority: &str, default_port: u16) -> Option<Site<'_>> {
    let end = match authority.strip_prefix('[') {
        Some(_) => authority.find(']')? + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, rest) = authority.split_at_checked(end)?;
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        None if rest.is_empty() => default_port,
        _ => return None,
    };
    let is_name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !name.is_empty() && name.bytes().all(is_plain)
        }
    };
    is_name.then_some(Site { name, port })
}

fn is_loopback_name(name: &str) -> bool {
    let is_localhost =
        name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(name);
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
            allow_origins: vec!["https://app.example".to_owned()],
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
            (&listed, &get, ws, "a.example:443", "https://a.example", "Allowed"),
            (&listed, &get, ws, "a.example", "https://app.example:443", "Allowed"),
            (&listed, &get, ws, "a.example", "https://app.example:8443", foreign_origin),
            (&listed, &get, ws, "a.example", "http://app.example", foreign_origin),
            (&listed, &get, ws, "a.example", "https://app.example.", foreign_origin),
            (&listed, &get, ws, "a.example", "https://app.example/", foreign_origin),
            (&listed, &get, ws, "a.example", "https://app.example.evil.example", foreign_origin),
            (
                &listed,
                &get,
                ws,
                "a.example",
                "https://evil.example/https://app.example",
                foreign_origin,
            ),
            (&listed, &get, ws, "a.example", "https://app.example@evil.example", foreign_origin),
            (&listed, &get, ws, "a.example", "https://xapp.example", foreign_origin),
            (&development, &get, ws, localhost, "http://localhost@evil.example", foreign_origin),
            (&development, &get, ws, localhost, "http://localhost.evil.example", foreign_origin),
            (&development, &get, ws, localhost, "http://localhost.", foreign_origin),
            (&development, &get, ws, localhost, "http://127.0.0.1.evil.example", foreign_origin),
            (&development, &get, ws, localhost, "http://[::1].evil.example", foreign_origin),
            (&development, &get, ws, localhost, "http://[::1]:80:80", foreign_origin),
            (&development, &get, ws, localhost, "http://[evil.example]", foreign_origin),
            (&development, &get, ws, localhost, "http://localhost:x", foreign_origin),
            (&development, &get, ws, localhost, "http://0.0.0.0:8000", foreign_origin),
            (&development, &get, ws, localhost, "http://app.localhost:3000", "Allowed"),
            (&development, &get, api, "[::1].evil.example", "", foreign_host),
            (&development, &get, api, "localhost:80:80", "", foreign_host),
            (&development, &get, api, "localhost.", "", foreign_host),
            (&development, &get, api, "0.0.0.0:8000", "", foreign_host),
        ] {
            let mut headers = vec![("host", host), ("origin", origin)];
            headers.retain(|(_, value)| !value.is_empty());
            assert_eq!(judge(policy, method, path, &headers), expected, "{path} {headers:?}");
        }
    }
}
