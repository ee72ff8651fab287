//! One bounded GET of a JWKS document. No redirect is followed, no proxy asked.

use super::{
    jwks::DOCUMENT_BYTES_MAX,
    source::{Host, JwksUrl},
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use std::{error::Error, io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Time for the whole exchange.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the connection's buffer; the headers of the answer must fit.
const BUFFER_BYTES_MAX: usize = 64 * 1_024;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody there, or the connection broke.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// No certificate of an authority to check the server with.
    #[error("this machine has no CA certificates; install them or set SSL_CERT_FILE")]
    NoRoots,
    /// The server's certificate, or what it speaks, is not good.
    #[error("no trusted TLS connection")]
    Tls(#[source] io::Error),
    /// Not HTTP, or it ended early.
    #[error("the answer broke off")]
    Http(#[source] hyper::Error),
    /// Any status but 200.
    #[error("the answer has status {0}")]
    Status(u16),
    /// The answer is longer than the bound.
    #[error("the answer is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// Not within the bound of time.
    #[error("no answer within {FETCH_TIMEOUT:?}")]
    Timeout,
}

/// An answer.
pub(super) struct Fetched {
    /// The document.
    pub(super) body: Bytes,
    /// How long it may be kept, where the answer says so.
    pub(super) max_age: Option<Duration>,
}

/// Gets the document. Cancel safe: dropped, it leaves nothing.
///
/// # Errors
/// See [`FetchError`].
pub(super) async fn fetch(url: &JwksUrl) -> Result<Fetched, FetchError> {
    timeout(FETCH_TIMEOUT, connect(url)).await.unwrap_or(Err(FetchError::Timeout))
}

async fn connect(url: &JwksUrl) -> Result<Fetched, FetchError> {
    let port = url.port();
    let tcp = match url.host() {
        Host::Name(name) => TcpStream::connect((name, port)).await,
        Host::Address(address) => TcpStream::connect((address, port)).await,
    };
    let tcp = tcp.map_err(FetchError::Connect)?;
    if !url.is_tls() {
        return exchange(tcp, url).await;
    }
    let name = match url.host() {
        Host::Name(name) => ServerName::try_from(name.to_owned())
            .map_err(|error| FetchError::Tls(io::Error::other(error)))?,
        Host::Address(address) => ServerName::from(address),
    };
    // Made anew each time: it is rare, and the machine's certificates may have changed.
    let config = tokio::task::spawn_blocking(tls_config)
        .await
        .map_err(|error| FetchError::Tls(io::Error::other(error)))??;
    let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(FetchError::Tls)?;
    exchange(stream, url).await
}

/// TLS 1.2 and 1.3 with the machine's authorities.
fn tls_config() -> Result<Arc<ClientConfig>, FetchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(FetchError::NoRoots);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Tls(io::Error::other(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    url: &JwksUrl,
) -> Result<Fetched, FetchError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
    let request = Request::get(url.path_and_query())
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("taskwire/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("every part was checked when the URL was read");
    let answer = async {
        let response = sender.send_request(request).await.map_err(FetchError::Http)?;
        read(response).await
    };
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answered = answer.as_mut() => answered,
        // Its last bytes may be on their way to us still; why it broke, the answer says.
        _ = connection => answer.await,
    }
}

async fn read(response: http::Response<Incoming>) -> Result<Fetched, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let max_age = max_age(response.headers());
    match Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await {
        Ok(body) => Ok(Fetched { body: body.to_bytes(), max_age }),
        Err(error) => Err(broken(error)),
    }
}

fn broken(error: Box<dyn Error + Send + Sync>) -> FetchError {
    if error.is::<LengthLimitError>() {
        return FetchError::TooLong;
    }
    match error.downcast::<hyper::Error>() {
        Ok(error) => FetchError::Http(*error),
        Err(error) => FetchError::Connect(io::Error::other(error)),
    }
}

/// What `Cache-Control` allows; nothing where it forbids to keep the answer.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut age = None;
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => return Some(Duration::ZERO),
                "max-age" => {
                    age = argument.trim_matches('"').parse().ok().map(Duration::from_secs);
                }
                _ => (),
            }
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_is_read() {
        let age = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, value.parse().expect("a value"));
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=300"), Some(300));
        assert_eq!(age("MAX-AGE=\"7\""), Some(7));
        assert_eq!(age("no-cache, max-age=300"), Some(0));
        assert_eq!(age("max-age=300, no-store"), Some(0));
        assert_eq!(age("max-age=-1"), None);
        assert_eq!(age("private"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
