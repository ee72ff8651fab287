//! A small HTTP client for the verbs: one request per connection, bounded in time and size.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{fmt, io, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// Longest time of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Scheme and authority of a daemon: `http://HOST:PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Base(String);

impl Base {
    pub(super) fn of(address: SocketAddr) -> Self {
        Self(address.to_string())
    }

    /// `HOST:PORT`.
    pub(super) fn authority(&self) -> &str {
        &self.0
    }
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no address of a daemon; allowed is http://HOST:PORT");
        if text.starts_with("https://") {
            return Err("TLS is not supported here; use the daemon's own http:// address".into());
        }
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let authority: http::uri::Authority = rest.parse().map_err(|_| refused())?;
        if authority.as_str().contains('@') {
            return Err(refused());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self(format!("{}:{port}", authority.host())))
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// A client of one daemon.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    way: Way,
    token: Option<String>,
    timeout: Duration,
}

/// How a daemon is reached.
#[derive(Clone, Debug)]
enum Way {
    Address(Base),
    /// The socket in its data directory.
    Socket(PathBuf),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(base) => base.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// What the daemon answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl HttpClient {
    pub(super) fn new(base: Base, token: Option<String>) -> Self {
        Self { way: Way::Address(base), token, timeout: REQUEST_TIMEOUT }
    }

    /// A client of the daemon that listens on this socket.
    pub(super) fn by_socket(path: PathBuf) -> Self {
        Self { way: Way::Socket(path), token: None, timeout: REQUEST_TIMEOUT }
    }

    /// With so much time for each request.
    #[must_use]
    #[allow(dead_code, reason = "the first verb that needs it is backup")]
    pub(super) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.request(Method::GET, path, None, &[]).await
    }

    /// Sends one request; the error says why no answer came.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let body = body.map(|body| ("application/json", Bytes::from(body.to_string())));
        self.send(method, path, body, headers).await
    }

    /// As [`HttpClient::request`], with a body of any type.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let request = self.build(method, path, body, headers)?;
        match timeout(self.timeout, self.exchange(request)).await {
            Ok(answer) => answer.map_err(|error| format!("{}: {error}", self.way)),
            Err(_) => Err(format!("{}: no answer within {:?}", self.way, self.timeout)),
        }
    }

    fn build(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        headers: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, String> {
        let host = match &self.way {
            Way::Address(base) => base.authority(),
            Way::Socket(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((content_type, _)) = &body {
            request = request.header(header::CONTENT_TYPE, *content_type);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Bytes::new, |(_, body)| body);
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        match &self.way {
            Way::Address(base) => {
                let stream = TcpStream::connect(base.authority()).await;
                exchange_on(stream.map_err(|error| error.to_string())?, request).await
            }
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                exchange_on(stream.map_err(|error| no_daemon(&error))?, request).await
            }
        }
    }
}

async fn exchange_on(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end right after the last byte: the answer is then there already.
        _ = &mut connection => exchange.await,
    }
}

/// Why the socket in a data directory cannot be connected to.
fn no_daemon(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "no daemon runs on this data directory; start one, or name another with --data-dir DIR \
             or --http URL"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "only the user that runs the daemon may use its socket; use that user's account, or \
             --http URL with an administrator's token"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_an_address_with_or_without_its_scheme() {
        let base = |text: &str| text.parse::<Base>().map(|base| base.to_string());
        assert_eq!(base("http://127.0.0.1:8000/"), Ok("http://127.0.0.1:8000".to_owned()));
        assert_eq!(base("localhost"), Ok("http://localhost:80".to_owned()));
        assert_eq!(base("[::1]:8000"), Ok("http://[::1]:8000".to_owned()));
        for bad in ["", "http://", "https://a", "http://u@h:1", "a b"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
