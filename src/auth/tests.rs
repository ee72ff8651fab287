//! Tokens of every kind against an authenticator with every kind of key.

use super::*;
use serde_json::{Value, json};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const NOW_S: i64 = 1_800_000_000;

fn authenticator() -> Authenticator {
    with(|_| ())
}

fn with(change: impl FnOnce(&mut Options)) -> Authenticator {
    let mut options = Options {
        secret: SECRET.to_vec(),
        jwks: None,
        is_development: false,
        audience: None,
        issuer: None,
    };
    change(&mut options);
    Authenticator::new(options, Clock::manual(NOW_S * 1_000), Arc::default())
}

fn token(header: &Value, claims: &Value, secret: &[u8]) -> String {
    forge::Signer::hmac(secret).token(header, claims)
}

fn claims(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({"sub": "alice", "exp": NOW_S + 60});
    change(&mut claims);
    token(&json!({"alg": "HS256", "typ": "JWT"}), &claims, SECRET)
}

#[track_caller]
fn refused(token: &str, why: &str) {
    match authenticator().authenticate(Some(token), Some("dev")) {
        Err(error) => assert!(error.to_string().contains(why), "{error}, expected {why}"),
        Ok(principal) => panic!("{principal:?}, expected {why}"),
    }
    let development = with(|options| options.is_development = true);
    assert!(development.authenticate(Some(token), None).is_err(), "never the dev user");
}

#[track_caller]
fn accepted(token: &str) -> Principal {
    authenticator().authenticate(Some(token), None).unwrap()
}

/// With a secret and every key of `keys`, as after a start.
async fn with_keys(keys: &forge::Keys) -> Authenticator {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    std::fs::write(&path, keys.jwks().to_string()).unwrap();
    let authenticator = with(|options| {
        options.jwks = Some(JwksSource::File(path));
        options.audience = Some(forge::AUDIENCE.to_owned());
        options.issuer = Some(forge::ISSUER.to_owned());
    });
    authenticator.load_keys().await.unwrap();
    authenticator
}

#[tokio::test]
async fn every_forged_token_is_refused() {
    let keys = forge::Keys::new(SECRET);
    let authenticator = with_keys(&keys).await;
    for signer in keys.all() {
        let principal = authenticator.authenticate(Some(&signer.good(NOW_S)), None).unwrap();
        assert_eq!(principal.user_id.as_str(), forge::SUBJECT);
        let without_kid = json!({"alg": signer.algorithm()});
        let token = signer.token(&without_kid, &forge::claims(NOW_S));
        authenticator.authenticate(Some(&token), None).unwrap();
    }
    let table = forge::forged(&keys, NOW_S);
    assert!(table.len() > 300, "{}", table.len());
    for (name, token) in table {
        let answer = authenticator.authenticate(Some(&token), Some("dev"));
        assert!(answer.is_err(), "{name}: {answer:?}");
    }
}

#[test]
fn forged_tokens_are_refused_with_a_reason() {
    let good = json!({"sub": "alice", "exp": NOW_S + 60});
    for (header, why) in [
        (json!({"alg": "none"}), "header"),
        (json!({"alg": "RS256"}), "algorithm"),
        (json!({"alg": "HS384"}), "algorithm"),
        (json!({"alg": "EdDSA"}), "algorithm"),
        (json!({"alg": "HS256", "crit": ["b64"], "b64": false}), "critical"),
        (json!({"alg": "HS256", "crit": []}), "critical"),
    ] {
        refused(&token(&header, &good, SECRET), why);
    }
    let header = json!({"alg": "HS256"});
    refused(&token(&header, &good, b"another secret of thirty-two bytes!!"), "signature");
    for broken in ["", ".", "..", "...", "a.b.c", "\u{e4}.\u{e4}.\u{e4}", "null", " "] {
        refused(broken, "header");
    }
    refused(&"a".repeat(TOKEN_BYTES_MAX + 1), "too long");
}

#[test]
fn a_token_without_kid_is_tried_with_few_keys() {
    let count = key::TRIES_MAX + 2;
    let signers: Vec<_> = (0..count).map(|n| forge::Signer::ed25519(&n.to_string())).collect();
    let jwks: Vec<_> = signers.iter().map(forge::Signer::jwk).collect();
    let document = jwks::parse(json!({ "keys": jwks }).to_string().as_bytes()).unwrap();
    let opens = |header: Value, signer: &forge::Signer| {
        let token = signer.token(&header, &forge::claims(NOW_S));
        let header = jsonwebtoken::decode_header(&token).unwrap();
        key::open_with(&document.keys, &header, &token).is_some_and(|opened| opened.is_ok())
    };
    let nameless = || json!({"alg": "EdDSA"});
    assert!(opens(nameless(), &signers[count - 3]));
    assert!(!opens(nameless(), &signers[count - 2]), "beyond the bound none is tried");
    assert!(opens(signers[count - 1].header(), &signers[count - 1]));
}

#[test]
fn claims_must_be_there_and_be_right() {
    refused(&claims(|c| c["exp"] = Value::Null), "no exp");
    refused(&claims(|c| c["exp"] = json!("1900000000")), "header or claims");
    refused(&claims(|c| c["exp"] = json!(NOW_S - 5)), "expired");
    refused(&claims(|c| c["exp"] = json!(-1)), "expired");
    refused(&claims(|c| c["exp"] = json!(i64::MIN)), "expired");
    refused(&claims(|c| c["exp"] = json!(-1e300)), "expired");
    refused(&claims(|c| c["exp"] = json!(0.5)), "expired");
    refused(&claims(|c| c["nbf"] = json!(NOW_S + 6)), "not valid yet");
    refused(&claims(|c| c["nbf"] = json!(u64::MAX)), "not valid yet");
    refused(&claims(|c| c["nbf"] = json!("soon")), "header or claims");
    refused(&claims(|c| c["sub"] = Value::Null), "no sub");
    refused(&claims(|c| c["sub"] = json!("")), "sub");
    refused(&claims(|c| c["sub"] = json!("x".repeat(129))), "sub");
    refused(&claims(|c| c["sub"] = json!("a\nb")), "sub");
    refused(&claims(|c| c["sub"] = json!(["alice"])), "header or claims");
    refused(&claims(|c| c["sub"] = json!(1.5)), "header or claims");
    refused(&claims(|c| c["sub"] = json!(true)), "header or claims");
    refused(&claims(|c| c["taskwire_admin"] = json!("yes")), "header or claims");
    refused(&token(&json!({"alg": "HS256"}), &json!([1]), SECRET), "header or claims");
}

#[test]
fn good_tokens_are_accepted() {
    let principal = accepted(&claims(|_| ()));
    assert_eq!(principal.user_id.as_str(), "alice");
    assert_eq!(principal.expires_at_ms, Some((NOW_S + 60) * 1_000));
    assert!(!principal.is_admin);
    assert!(accepted(&claims(|c| c["taskwire_admin"] = json!(true))).is_admin);
    assert_eq!(accepted(&claims(|c| c["sub"] = json!(42))).user_id.as_str(), "42");
    assert_eq!(accepted(&claims(|c| c["sub"] = json!(-7))).user_id.as_str(), "-7");
    let most = accepted(&claims(|c| c["sub"] = json!(u64::MAX)));
    assert_eq!(most.user_id.as_str(), u64::MAX.to_string());
    for exp in [json!(u64::MAX), json!(i64::MAX), json!(1e300), json!(1.9e9), json!(NOW_S - 4)] {
        accepted(&claims(|c| c["exp"] = exp));
    }
    accepted(&claims(|c| c["nbf"] = json!(NOW_S + 5)));
    accepted(&claims(|c| c["aud"] = json!("someone else")));
    let header = json!({"alg": "HS256", "kid": "../../etc/passwd", "jku": "http://evil/"});
    accepted(&token(&header, &json!({"sub": "a", "exp": NOW_S + 1}), SECRET));
}

#[test]
fn audience_and_issuer_are_checked_where_configured() {
    let strict = with(|options| {
        options.audience = Some("taskwire".into());
        options.issuer = Some("issuer".into());
    });
    let try_with = |aud: Value, iss: Value| {
        let token = claims(|c| {
            c["aud"] = aud;
            c["iss"] = iss;
        });
        strict.authenticate(Some(&token), None).is_ok()
    };
    assert!(try_with(json!("taskwire"), json!("issuer")));
    assert!(try_with(json!(["other", "taskwire"]), json!("issuer")));
    assert!(!try_with(json!("other"), json!("issuer")));
    assert!(!try_with(Value::Null, json!("issuer")));
    assert!(!try_with(json!("taskwire"), json!("other")));
    assert!(!try_with(json!("taskwire"), Value::Null));
}

#[test]
fn development_mode_needs_no_token() {
    let development = with(|options| options.is_development = true);
    let dev = development.authenticate(None, None).unwrap();
    assert_eq!((dev.user_id.as_str(), dev.is_admin), ("dev", true));
    let named = development.authenticate(None, Some("bob")).unwrap();
    assert_eq!((named.user_id.as_str(), named.is_admin), ("bob", false));
    assert!(development.authenticate(None, Some("")).is_err());
    let alice = development.authenticate(Some(&claims(|_| ())), Some("bob")).unwrap();
    assert_eq!(alice.user_id.as_str(), "alice", "a token wins");
    assert_eq!(authenticator().authenticate(None, Some("bob")), Err(AuthError::Missing));
}

#[test]
fn a_signed_token_is_accepted_until_it_expires() {
    let clock = Clock::manual(NOW_S * 1_000);
    let user_id = UserId::new("carol").unwrap();
    let grant = Grant { is_admin: true, ..Grant::new(&user_id, 60) };
    let token = sign(SECRET, grant, &clock);
    let principal = accepted(&token);
    assert_eq!((principal.user_id, principal.is_admin), (user_id, true));
    let options = Options {
        secret: SECRET.to_vec(),
        jwks: None,
        is_development: false,
        audience: None,
        issuer: None,
    };
    let later = Authenticator::new(options, clock.clone(), Arc::default());
    clock.set((NOW_S + 65) * 1_000);
    assert_eq!(later.authenticate(Some(&token), None), Err(AuthError::Expired));
}

#[test]
fn a_signed_token_names_its_audience_and_issuer() {
    let strict = with(|options| {
        options.audience = Some("taskwire".into());
        options.issuer = Some("issuer".into());
    });
    let user_id = UserId::new("carol").unwrap();
    let clock = Clock::manual(NOW_S * 1_000);
    let plain = Grant::new(&user_id, 60);
    let named = Grant { audience: Some("taskwire"), issuer: Some("issuer"), ..plain };
    assert!(strict.authenticate(Some(&sign(SECRET, named, &clock)), None).is_ok());
    assert!(strict.authenticate(Some(&sign(SECRET, plain, &clock)), None).is_err());
}

#[test]
fn without_a_secret_every_token_is_refused() {
    let none = with(|options| options.secret.clear());
    let token = token(&json!({"alg": "HS256"}), &json!({"sub": "alice", "exp": NOW_S + 60}), b"");
    assert!(none.authenticate(Some(&token), None).is_err());
}
