//! Tokens: what is taken, what is refused, and what becomes of a socket whose token or key ends.

use crate::support::{
    PATIENCE, SECRET, TestDaemon, created, eventually,
    forge::{self, Keys, Signer},
    http,
    plain::{ask, escaped, shake},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("before the end of time")
}

/// Written beside and renamed.
fn replace(path: &Path, jwks: &Value) {
    let beside = path.with_extension("new");
    fs::write(&beside, jwks.to_string()).expect("written");
    fs::rename(&beside, path).expect("renamed");
}

fn jwks(signers: &[&Signer]) -> Value {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys })
}

/// A directory with a JWKS file.
fn jwks_file(jwks: &Value) -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("jwks.json");
    replace(&path, jwks);
    (dir, path)
}

#[tokio::test]
async fn every_forged_token_is_refused_at_every_door() {
    let keys = Keys::new(SECRET.as_bytes());
    let (_dir, path) = jwks_file(&keys.jwks());
    let path = path.to_str().expect("text");
    let expected = ["--jwt-audience", forge::AUDIENCE, "--jwt-issuer", forge::ISSUER];
    let flags = [&["--jwt-jwks", path, "--log", "trace"][..], &expected].concat();
    let daemon = TestDaemon::start_with(&flags).await;
    for signer in keys.all() {
        let good = signer.good(now_s());
        assert_eq!(
            at_each_door(&daemon, &good).await,
            [200, 101, 101, 101],
            "{}",
            signer.algorithm()
        );
    }
    let table = forge::forged(&keys, now_s());
    assert!(table.len() > 300, "{}", table.len());
    for (name, token) in &table {
        for status in at_each_door(&daemon, token).await {
            assert_eq!(status, 401, "{name}");
        }
    }
    for (name, token) in &table {
        assert_eq!(by_first_frame(&daemon, token).await, Some(4401), "{name}");
    }
    let log = daemon.log();
    assert!(!log.contains(SECRET));
    for (name, token) in &table {
        for part in token.split('.').filter(|part| part.len() > 20) {
            assert!(!log.contains(part), "the log holds a part of: {name}");
        }
    }
}

/// How a socket is closed whose first frame holds the token.
async fn by_first_frame(daemon: &TestDaemon, token: &str) -> Option<u16> {
    let mut socket = daemon.try_socket("").await.expect("an upgrade");
    socket.send(&json!({"type": "auth", "data": {"token": token}}).to_string()).await;
    socket.close_code().await
}

#[tokio::test]
async fn a_socket_may_send_its_token_in_its_first_frame() {
    let daemon = TestDaemon::start().await;
    let auth = |token: &str| json!({"type": "auth", "data": {"token": token}}).to_string();
    let mut socket = daemon.try_socket("from=earliest").await.expect("an upgrade");
    daemon.produce(&[created("t1", "ada", "for ada"), created("t2", "bob", "for bob")]).await;
    socket.send(&auth(&daemon.token("ada"))).await;
    assert_eq!(socket.next().await["data"]["id"], "t1");
    // A later one of the same user moves the expiry; of another user, or bad, it ends the socket.
    socket.send(&auth(&daemon.token("ada"))).await;
    assert_eq!(socket.drain().await, Vec::<Value>::new());
    socket.send(&auth(&daemon.token("bob"))).await;
    assert_eq!(socket.close_code().await, Some(4401));
    let mut socket = daemon.socket("ada").await;
    socket.send(&auth("bad")).await;
    assert_eq!(socket.close_code().await, Some(4401));
    for first in ["ping", "hello", "{\"type\":\"ping\"}"] {
        let mut socket = daemon.try_socket("").await.expect("an upgrade");
        socket.send(first).await;
        assert_eq!(socket.close_code().await, Some(4401), "{first}");
    }
    let mut silent = daemon.try_socket("").await.expect("an upgrade");
    assert_eq!(silent.close_code().await, Some(4401));
}

#[tokio::test]
async fn a_renewed_token_lets_a_socket_live_on() {
    let daemon = TestDaemon::start().await;
    let signer = Signer::hmac(SECRET.as_bytes());
    let token = |exp| signer.token(&signer.header(), &json!({"sub": "ada", "exp": exp}));
    let first = now_s() + 3;
    let mut socket =
        daemon.try_socket(&format!("token={}", token(first))).await.expect("an upgrade");
    let second = now_s() + 7;
    let frame = json!({"type": "auth", "data": {"token": token(second)}});
    socket.send(&frame.to_string()).await;
    assert_eq!(socket.close_code().await, Some(4401));
    assert!(now_s() >= second, "closed by the first token's expiry");
}

/// The status at REST, and at the WebSocket with the token in the header and in the query.
async fn at_each_door(daemon: &TestDaemon, token: &str) -> Vec<u16> {
    let host = daemon.http.to_string();
    let mut statuses = Vec::new();
    let fits_a_header = !token.contains(['\n', '\0']);
    if fits_a_header {
        let bearer = format!("Bearer {token}");
        let headers = [("host", host.as_str()), ("authorization", &bearer)];
        let answer = ask(daemon.http, "GET /api/tasks", &headers, "").await;
        assert!(!token.is_empty() && !answer.body.contains(token), "a token in an answer");
        statuses.push(answer.status);
        let answer = shake(daemon.http, "/ws/tasks", &[("authorization", &bearer)]).await;
        statuses.push(answer.status);
        if !token.contains(',') {
            let items = format!("taskwire.v1, taskwire.bearer.{token}");
            let headers = [("sec-websocket-protocol", items.as_str())];
            let answer = shake(daemon.http, "/ws/tasks", &headers).await;
            assert!(!answer.head.contains("taskwire.bearer"), "{}", answer.head);
            statuses.push(answer.status);
        }
    }
    let target = format!("/ws/tasks?token={}", escaped(token));
    statuses.push(shake(daemon.http, &target, &[]).await.status);
    statuses
}

#[tokio::test]
async fn without_a_token_nothing_is_shown() {
    let daemon = TestDaemon::start().await;
    let nobody = daemon.with_token(None);
    for path in ["/api/tasks", "/api/tasks/t1", "/api/tasks?user=ada", "/api/admin/status"] {
        assert_eq!(nobody.get(path).await.status, 401, "{path}");
    }
    for scheme in ["Basic YTpi", "Bearer", "Bearer ", "bearer", "Token x", "\u{e4}"] {
        let headers = [("host", "localhost"), ("authorization", scheme)];
        let answer = ask(daemon.http, "GET /api/tasks", &headers, "").await;
        assert_eq!(answer.status, 401, "{scheme}");
        assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    }
}

#[tokio::test]
async fn a_key_that_is_rotated_away_lets_nobody_in_and_keeps_its_sockets_till_they_expire() {
    let (old, new) = (Signer::p256("old"), Signer::ed25519("new"));
    let (_dir, path) = jwks_file(&jwks(&[&old]));
    let flags = ["--jwt-jwks", path.to_str().expect("text")];
    let daemon = TestDaemon::start_in(&flags, &[("TASKWIRE_JWT_SECRET", "")]).await;
    let mut claims = forge::claims(now_s());
    claims["exp"] = json!(now_s() + 6);
    let token = old.token(&old.header(), &claims);
    let began = Instant::now();
    let mut socket = daemon.try_socket(&format!("token={token}")).await.expect("an upgrade");
    assert_eq!(daemon.with_token(Some(&token)).get("/api/tasks").await.status, 200);
    assert_eq!(daemon.with_token(Some(&new.good(now_s()))).get("/api/tasks").await.status, 401);
    replace(&path, &jwks(&[&new]));
    eventually("the old key is gone", async || {
        let status = daemon.with_token(Some(&token)).get("/api/tasks").await.status;
        (status == 401).then_some(())
    })
    .await;
    assert_eq!(daemon.with_token(Some(&new.good(now_s()))).get("/api/tasks").await.status, 200);
    daemon.produce(&[created("t1", forge::SUBJECT, "still here")]).await;
    assert_eq!(socket.next().await["data"]["id"], "t1");
    assert_eq!(socket.close_code().await, Some(4401));
    assert!(began.elapsed() < PATIENCE);
    let message = daemon.log();
    assert!(message.contains("took the keys of the JWKS"), "{message}");
}

#[tokio::test]
async fn a_socket_is_closed_when_its_token_expires() {
    let daemon = TestDaemon::start().await;
    let signer = Signer::hmac(SECRET.as_bytes());
    let exp = now_s() + 3;
    let claims = json!({"sub": "ada", "exp": exp});
    let token = signer.token(&signer.header(), &claims);
    let mut socket = daemon.try_socket(&format!("token={token}")).await.expect("an upgrade");
    daemon.produce(&[created("t1", "ada", "in time")]).await;
    assert_eq!(socket.next().await["data"]["id"], "t1");
    assert_eq!(socket.close_code().await, Some(4401));
    let late_s = now_s() - exp;
    assert!((0..=3).contains(&late_s), "closed {late_s} s after the expiry");
}

#[tokio::test]
async fn a_jwks_that_is_not_good_is_told_at_the_start() {
    let signer = Signer::rsa("a");
    let private = {
        let mut jwk = signer.jwk();
        jwk["d"] = json!("AAAA");
        json!({ "keys": [jwk] })
    };
    let symmetric = json!({"keys": [{"kty": "oct", "k": "AAAA"}]});
    for (jwks, expected) in [
        (private, "private key"),
        (symmetric, "symmetric key"),
        (json!({"keys": [forge::weak_rsa_jwk()]}), "none of its 1 keys"),
        (json!({}), "no JWKS document"),
    ] {
        let (dir, path) = jwks_file(&jwks);
        let output = crate::support::taskwire()
            .args(["config", "check", "--jwt-jwks"])
            .arg(&path)
            .arg("--data-dir")
            .arg(dir.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(expected) && said.contains("jwt-jwks"), "{said}");
        assert!(!said.contains("AAAA"), "{said}");
    }
}

/// An issuer's server, with a certificate of the authority in tests/data/tls.
struct Issuer {
    url: String,
    jwks: Arc<Mutex<Value>>,
    serving: JoinHandle<()>,
}

impl Issuer {
    async fn start(first: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url =
            format!("https://localhost:{}/keys", listener.local_addr().expect("bound").port());
        let acceptor = TlsAcceptor::from(Arc::new(tls()));
        let jwks = Arc::new(Mutex::new(first));
        let current = Arc::clone(&jwks);
        let serving = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.expect("accepted");
                // A client that does not trust us ends here.
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                let mut request = [0; 2_048];
                drop(stream.read(&mut request).await);
                let body = current.lock().expect("no panic").to_string();
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length:";
                let answer = format!("{head} {}\r\n\r\n{body}", body.len());
                drop(stream.write_all(answer.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        });
        Self { url, jwks, serving }
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn tls_data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

fn tls() -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_file(tls_data("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(tls_data("server.key")).expect("a key");
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they fit")
}

#[tokio::test]
async fn keys_come_from_an_issuer_by_https_and_follow_its_rotation() {
    let (old, new) = (Signer::rsa("old"), Signer::p256("new"));
    let issuer = Issuer::start(jwks(&[&old])).await;
    let authority = tls_data("ca.pem");
    let variables =
        [("TASKWIRE_JWT_SECRET", ""), ("SSL_CERT_FILE", authority.to_str().expect("text"))];
    let daemon = TestDaemon::start_in(&["--jwt-jwks", &issuer.url], &variables).await;
    let status = async |signer: &Signer| {
        daemon.with_token(Some(&signer.good(now_s()))).get("/api/tasks").await.status
    };
    assert_eq!(status(&old).await, 200);
    *issuer.jwks.lock().expect("no panic") = jwks(&[&old, &new]);
    // The first token with the new key is refused, and makes the daemon ask.
    eventually("the new key is there", async || (status(&new).await == 200).then_some(())).await;
    assert_eq!(status(&old).await, 200);
    assert_eq!(http::try_get(daemon.http, "/healthz").await, Some(200));
}

#[tokio::test]
async fn an_issuer_that_is_not_trusted_gives_no_keys() {
    let signer = Signer::p256("a");
    let issuer = Issuer::start(jwks(&[&signer])).await;
    let stranger = TempDir::new().expect("a directory");
    let variables = [
        ("TASKWIRE_JWT_SECRET", ""),
        // Its own certificate is no authority of ours.
        ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
        ("SSL_CERT_DIR", stranger.path().to_str().expect("text")),
    ];
    let daemon = TestDaemon::start_in(&["--jwt-jwks", &issuer.url], &variables).await;
    let bearer = format!("Bearer {}", signer.good(now_s()));
    let headers = [("host", "localhost"), ("authorization", &bearer)];
    let answer = ask(daemon.http, "GET /api/tasks", &headers, "").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("keys_unavailable") && answer.header("retry-after").is_some());
    let health = ask(daemon.http, "GET /healthz", &[("host", "localhost")], "").await;
    assert_eq!(health.status, 200, "a restart would mend nothing");
    assert!(health.body.contains("cannot be refreshed"), "{}", health.body);
    assert_eq!(daemon.log().matches("the JWKS cannot be refreshed").count(), 1, "told once");
}
