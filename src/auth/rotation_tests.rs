//! Keys that change while the daemon runs.

use super::*;
use crate::shutdown;
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep},
};

const NOW_S: i64 = 1_800_000_000;

/// As [`keys::TIMING`], a hundred times faster; only what a test is about happens in its time.
const FAST: keys::Timing = keys::Timing {
    poll: Duration::from_millis(10),
    refresh: (Duration::from_millis(200), Duration::from_secs(36)),
    refresh_default: Duration::from_secs(3),
    retry: Duration::from_millis(100),
    cooldown: Duration::from_millis(300),
};

/// An authenticator whose keys are kept.
struct Kept {
    authenticator: Authenticator,
    metrics: Arc<Metrics>,
    trigger: shutdown::Trigger,
    keeping: JoinHandle<()>,
}

impl Kept {
    async fn of(source: JwksSource) -> Self {
        let metrics = Arc::new(Metrics::new());
        let options = Options {
            secret: Vec::new(),
            jwks: Some(source),
            is_development: false,
            audience: None,
            issuer: None,
        };
        let clock = Clock::manual(NOW_S * 1_000);
        let authenticator = Authenticator::with_timing(options, FAST, clock, Arc::clone(&metrics));
        authenticator.load_keys().await.unwrap();
        let (trigger, shutdown) = shutdown::pair();
        let worker = authenticator.clone();
        let keeping = tokio::spawn(async move { worker.keep_keys(shutdown).await });
        Self { authenticator, metrics, trigger, keeping }
    }

    fn takes(&self, signer: &forge::Signer) -> bool {
        self.authenticator.authenticate(Some(&signer.good(NOW_S)), None).is_ok()
    }

    async fn until(&self, what: &str, fact: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !fact() {
            assert!(Instant::now() < end, "not in time: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        self.trigger.fire();
        self.keeping.await.unwrap();
    }
}

fn jwks(signers: &[&forge::Signer]) -> Value {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys })
}

/// Written beside and renamed, as it should be done.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let (old, new) = (forge::Signer::p256("old"), forge::Signer::ed25519("new"));
    replace(&path, &jwks(&[&old]).to_string());
    let kept = Kept::of(JwksSource::File(path.clone())).await;
    assert!(kept.takes(&old) && !kept.takes(&new));
    replace(&path, &jwks(&[&old, &new]).to_string());
    kept.until("the new key is there", || kept.takes(&new)).await;
    assert!(kept.takes(&old));
    replace(&path, &jwks(&[&new]).to_string());
    kept.until("the old key is gone", || !kept.takes(&old)).await;
    assert!(kept.takes(&new));
    kept.stop().await;
}

#[tokio::test]
async fn a_token_is_tried_with_all_keys_without_a_name_up_to_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let signers: Vec<_> = (0..=key::TRIES_MAX).map(|_| forge::Signer::p256("k")).collect();
    let nameless = |count: usize| {
        let mut document = jwks(&signers[..count].iter().collect::<Vec<_>>());
        for key in document["keys"].as_array_mut().unwrap() {
            key.as_object_mut().unwrap().remove("kid");
        }
        document.to_string()
    };
    replace(&path, &nameless(key::TRIES_MAX));
    let kept = Kept::of(JwksSource::File(path.clone())).await;
    for (index, signer) in signers[..key::TRIES_MAX].iter().enumerate() {
        assert!(kept.takes(signer), "key {index}");
    }
    let is_over =
        |document: &str| key::has_untried(&jwks::parse(document.as_bytes()).unwrap().keys);
    assert!(!is_over(&nameless(key::TRIES_MAX)) && is_over(&nameless(signers.len())));
    replace(&path, &nameless(signers.len()));
    let count = i64::try_from(signers.len()).unwrap();
    kept.until("all keys are there", || kept.metrics.auth_keys.get() == count).await;
    assert!(kept.takes(&signers[key::TRIES_MAX - 1]) && !kept.takes(&signers[key::TRIES_MAX]));
    kept.stop().await;
}

#[tokio::test]
async fn the_last_good_keys_stay_while_the_file_is_not_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let signer = forge::Signer::p256("a");
    let good = jwks(&[&signer]).to_string();
    replace(&path, &good);
    let kept = Kept::of(JwksSource::File(path.clone())).await;
    let mut private = jwks(&[&signer]);
    private["keys"][0]["d"] = json!("AAAA");
    for bad in ["", "{\"keys\":[]}", &good[..good.len() / 2], &private.to_string()] {
        replace(&path, bad);
        kept.until("it is noticed", || kept.authenticator.has_stale_keys()).await;
        assert!(kept.takes(&signer), "{bad}");
        replace(&path, &good);
        kept.until("it is good again", || !kept.authenticator.has_stale_keys()).await;
    }
    std::fs::remove_file(&path).unwrap();
    kept.until("it is missed", || kept.authenticator.has_stale_keys()).await;
    assert!(kept.takes(&signer));
    assert!(kept.metrics.auth_key_refresh_failures.get() >= 5);
    assert_eq!(kept.metrics.auth_keys.get(), 1);
    kept.stop().await;
}

#[tokio::test]
async fn a_daemon_does_not_start_on_a_bad_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let load = async || {
        let options = Options {
            secret: Vec::new(),
            jwks: Some(JwksSource::File(path.clone())),
            is_development: false,
            audience: None,
            issuer: None,
        };
        let clock = Clock::system();
        Authenticator::new(options, clock, Arc::default()).load_keys().await
    };
    assert!(matches!(load().await, Err(JwksError::Read { .. })));
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(load().await, Err(JwksError::Document { .. })));
}

/// A server of one document, which a test changes.
struct Server {
    url: String,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicU32>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json?key=hunter2", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(answer));
        let asked = Arc::new(AtomicU32::new(0));
        let (answers, counter) = (Arc::clone(&answer), Arc::clone(&asked));
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1_024];
                let read = stream.read(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request[..read]);
                assert!(text.starts_with("GET /jwks.json?key=hunter2 HTTP/1.1\r\n"), "{text}");
                counter.fetch_add(1, Ordering::Relaxed);
                let answer = answers.lock().unwrap().clone();
                drop(stream.write_all(answer.as_bytes()).await); // the client may have enough
            }
        });
        Self { url, answer, asked, serving }
    }

    fn source(&self) -> JwksSource {
        JwksSource::parse(&self.url).unwrap()
    }

    fn set(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_url_is_asked_again_in_its_time() {
    let (old, new) = (forge::Signer::p256("old"), forge::Signer::p256("new"));
    let server =
        Server::start(ok("cache-control: max-age=0\r\n", &jwks(&[&old]).to_string())).await;
    let kept = Kept::of(server.source()).await;
    assert!(kept.takes(&old));
    server.set(ok("", &jwks(&[&new]).to_string()));
    // Without a token that asks for it: after the shortest time, for max-age is below that.
    kept.until("the old key is gone", || !kept.takes(&old)).await;
    assert!(kept.takes(&new));
    assert_eq!(server.asked(), 2);
    kept.stop().await;
}

#[tokio::test]
async fn an_unknown_kid_asks_the_url_and_a_thousand_ask_once() {
    let (old, new) = (forge::Signer::p256("old"), forge::Signer::p256("new"));
    let server = Server::start(ok("", &jwks(&[&old]).to_string())).await;
    let kept = Kept::of(server.source()).await;
    assert_eq!(server.asked(), 1);
    server.set(ok("", &jwks(&[&old, &new]).to_string()));
    kept.until("the new key is there", || kept.takes(&new)).await;
    assert_eq!(server.asked(), 2, "at once, and not after the usual time");
    let began = Instant::now();
    for number in 0..1_000 {
        let forger = forge::Signer::hmac(b"x");
        let header = json!({"alg": "ES256", "kid": format!("forged-{number}")});
        let token = forger.token(&header, &forge::claims(NOW_S));
        assert!(kept.authenticator.authenticate(Some(&token), None).is_err());
        if number % 100 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let forged_for = began.elapsed();
    let most = 3 + u32::try_from(forged_for.as_millis() / FAST.cooldown.as_millis()).unwrap();
    assert!(server.asked() <= most, "{} times in {forged_for:?}", server.asked());
    kept.stop().await;
}

#[tokio::test]
async fn the_last_good_keys_stay_while_the_url_fails() {
    let signer = forge::Signer::rsa("a");
    let good = ok("cache-control: max-age=0\r\n", &jwks(&[&signer]).to_string());
    let server = Server::start(good.clone()).await;
    let kept = Kept::of(server.source()).await;
    let too_long = " ".repeat(jwks::DOCUMENT_BYTES_MAX + 1);
    for bad in [
        "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", server.url),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned(),
        "SSH-2.0-OpenSSH\r\n".to_owned(),
        String::new(),
        ok("", "<html>"),
        ok("", &too_long),
        format!("HTTP/1.1 200 OK\r\n\r\n{too_long}"),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000)),
    ] {
        server.set(bad.clone());
        kept.until("it is noticed", || kept.authenticator.has_stale_keys()).await;
        assert!(kept.takes(&signer), "{bad:.60}");
        server.set(good.clone());
        kept.until("it is good again", || !kept.authenticator.has_stale_keys()).await;
    }
    kept.stop().await;
}

#[tokio::test]
async fn without_keys_nobody_is_judged_until_the_url_answers() {
    let signer = forge::Signer::ed25519("a");
    let server = Server::start(String::new()).await;
    let kept = Kept::of(server.source()).await;
    let token = signer.good(NOW_S);
    let answer = kept.authenticator.authenticate(Some(&token), None);
    assert_eq!(answer, Err(AuthError::NoKeys));
    assert!(kept.authenticator.has_stale_keys());
    server.set(ok("", &jwks(&[&signer]).to_string()));
    kept.until("the keys are there", || kept.takes(&signer)).await;
    kept.stop().await;
}

#[tokio::test]
async fn a_url_that_nobody_answers_is_an_error_with_its_place_and_no_query() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = format!("https://{closed}/keys?key=hunter2");
    let JwksSource::Url(url) = JwksSource::parse(&text).unwrap() else { panic!("a URL") };
    assert!(matches!(fetch::fetch(&url).await, Err(FetchError::Connect(_))));
    assert!(!format!("{url} {url:?}").contains("hunter2"));
}
