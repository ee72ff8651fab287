//! Where a JWKS comes from.

use http::{Uri, uri::Authority};
use std::{fmt, net::IpAddr, path::PathBuf};

/// Longest URL in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// A file, or a URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JwksSource {
    /// Watched by its time of change.
    File(PathBuf),
    /// Asked for again and again.
    Url(JwksUrl),
}

impl JwksSource {
    /// Reads the form of `--jwt-jwks`.
    ///
    /// # Errors
    /// What is allowed, in one clause, without the text itself: a URL may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return JwksUrl::parse(text).map(Self::Url);
        }
        Ok(Self::File(PathBuf::from(text)))
    }

    /// Whether somebody between us and the source could change the keys.
    pub fn is_in_the_clear(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Url(url) => !url.is_tls() && !url.is_loopback(),
        }
    }
}

/// The path, or the URL without its query.
impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => write!(f, "{url}"),
        }
    }
}

/// An absolute URL of scheme http or https, without user information.
#[derive(Clone, Eq, PartialEq)]
pub struct JwksUrl {
    uri: Uri,
    authority: Authority,
    port: u16,
    is_tls: bool,
}

/// To whom a URL points.
pub(super) enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

impl JwksUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let refused = || "allowed is a file, or http(s)://HOST[:PORT]/PATH".to_owned();
        if text.len() > URL_BYTES_MAX || text.contains('#') {
            return Err(refused());
        }
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refused()),
        };
        let authority = uri.authority().cloned().ok_or_else(refused)?;
        if authority.as_str().contains('@') {
            return Err("a URL with a user or a password is not taken".to_owned());
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host).and_then(|rest| rest.get(1..)) {
            Some(port) => port.parse().ok(),
            None if is_tls => Some(443),
            None => Some(80),
        };
        let port = port.filter(|port| *port != 0).ok_or_else(refused)?;
        if host.is_empty() {
            return Err(refused());
        }
        Ok(Self { uri, authority, port, is_tls })
    }

    pub(super) const fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn host(&self) -> Host<'_> {
        let host = self.authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().map_or(Host::Name(host), Host::Address)
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    pub(super) fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    fn is_loopback(&self) -> bool {
        match self.host() {
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Host::Address(address) => address.is_loopback(),
        }
    }
}

/// Without its query, which may hold a key.
impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.uri.path())
    }
}

impl fmt::Debug for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_file_or_a_url() {
        let shown = |text: &str| JwksSource::parse(text).map(|source| source.to_string());
        assert_eq!(shown("keys.json").as_deref(), Ok("keys.json"));
        assert_eq!(shown("https://a.example/k?api_key=1").as_deref(), Ok("https://a.example/k"));
        assert_eq!(shown("http://[::1]:8080").as_deref(), Ok("http://[::1]:8080/"));
        for bad in [
            "ftp://a/k",
            "https://",
            "https:///k",
            "https://u:hunter2@a/k",
            "https://a/k#f",
            "https://a:0/",
            "https://a b/",
            "://",
            "https://a:99999/",
        ] {
            let refused = shown(bad).expect_err(bad);
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        assert!(shown(&format!("https://a/{}", "k".repeat(URL_BYTES_MAX))).is_err());
    }

    #[test]
    fn plain_http_is_safe_on_loopback_only() {
        for (text, expected) in [
            ("http://127.0.0.1/k", false),
            ("http://localhost:1/k", false),
            ("http://[::1]/k", false),
            ("https://a.example/k", false),
            ("keys.json", false),
            ("http://a.example/k", true),
            ("http://localhost.evil.example/k", true),
            ("http://10.0.0.1/k", true),
        ] {
            let source = JwksSource::parse(text).expect("a source");
            assert_eq!(source.is_in_the_clear(), expected, "{text}");
        }
    }
}
