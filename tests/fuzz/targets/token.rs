//! A JWT: whatever is let in was signed with our secret and is in force.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use taskwire::{
    auth::{Authenticator, Options},
    clock::Clock,
    metrics::Metrics,
};

const SECRET: &[u8] = b"fuzz-secret-fuzz-secret-fuzz-secret-fuzz";
const NOW_S: u32 = 1_700_000_000;
const LEEWAY_S: f64 = 5.0;

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let options = Options {
        secret: SECRET.to_vec(),
        jwks: None,
        is_development: false,
        audience: None,
        issuer: None,
    };
    let clock = Clock::manual(i64::from(NOW_S) * 1_000);
    Authenticator::new(options, clock, Arc::new(Metrics::new()))
});

/// `data`: a token; or, with a line break in it, a header and claims to be signed.
pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.split_once('\n') {
        None => check_signature(text),
        Some((header, claims)) => check_claims(header, claims),
    }
}

fn check_signature(token: &str) {
    if AUTHENTICATOR.authenticate(Some(token), None).is_ok() {
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        assert_eq!(signature, sign(signed), "signed with our secret");
    }
}

fn check_claims(header: &str, claims: &str) {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let token = format!("{signed}.{}", sign(&signed));
    if AUTHENTICATOR.authenticate(Some(&token), None).is_err() {
        return;
    }
    let header: Value = serde_json::from_str(header).expect("a header is JSON");
    let claims: Value = serde_json::from_str(claims).expect("claims are JSON");
    let now = f64::from(NOW_S);
    assert_eq!(header["alg"], "HS256");
    assert!(claims["sub"].is_string() || claims["sub"].is_number(), "{claims}");
    assert!(claims["exp"].as_f64().expect("exp is a number") >= now - LEEWAY_S - 1.0, "{claims}");
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf <= now + LEEWAY_S + 1.0), "{claims}");
}

fn sign(signed: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()))
}
