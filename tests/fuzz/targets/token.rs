//! A JWT: whatever is let in was signed with our secret and is in force.

use aws_lc_rs::hmac;
use serde_json::Value;
use std::sync::LazyLock;
use taskwire::{
    auth::{Authenticator, Options},
    clock::Clock,
};

const SECRET: &[u8] = b"fuzz-secret-fuzz-secret-fuzz-secret-fuzz";
const NOW_S: u32 = 1_700_000_000;
const LEEWAY_S: f64 = 5.0;

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let options =
        Options { secret: SECRET.to_vec(), is_development: false, audience: None, issuer: None };
    Authenticator::new(options, Clock::manual(i64::from(NOW_S) * 1_000))
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
    let signed = format!("{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()));
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
    base64(hmac::sign(&key, signed.as_bytes()).as_ref())
}

/// base64url without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            let index = group >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[usize::try_from(index).expect("6 bits")]));
        }
    }
    text
}
