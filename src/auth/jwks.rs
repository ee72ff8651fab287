//! A JWKS document (RFC 7517) becomes keys; pure.
//!
//! Invariant: a document that holds anything secret gives no keys at all, for whoever can read it
//! could sign. A key that is weak or not for us is passed over with its reason.

use super::key::Key;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest document in bytes.
pub(super) const DOCUMENT_BYTES_MAX: usize = 256 * 1_024;

/// Most keys of a document.
const KEYS_MAX: usize = 64;

/// Longest `kid` in bytes.
const KID_BYTES_MAX: usize = 256;

/// Fewest and most bits of an RSA modulus.
const RSA_BITS: (usize, usize) = (2_048, 8_192);

/// Members that only a private or a symmetric key has.
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a document gives no keys.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// No JSON object with an array `keys` of objects.
    #[error("it is no JWKS document")]
    Malformed,
    /// Longer than the bound.
    #[error("it is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// More keys than the bound.
    #[error("it holds more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// A private key: whoever can read it can sign.
    #[error("keys[{index}] is a private key; publish the public half only, and replace the key")]
    PrivateKey {
        /// Its place in the array.
        index: usize,
    },
    /// A symmetric key.
    #[error(
        "keys[{index}] is a symmetric key, which has no place in a JWKS; give the secret of HS256 \
         by --jwt-secret-file"
    )]
    SymmetricKey {
        /// Its place in the array.
        index: usize,
    },
    /// Nothing that could check a token.
    #[error("none of its {count} keys can check a token")]
    NoUsableKey {
        /// Keys in the document.
        count: usize,
    },
}

/// The keys of a document.
pub(super) struct Document {
    /// At least one.
    pub(super) keys: Vec<Key>,
    /// What was passed over: its place and why.
    pub(super) skipped: Vec<(usize, &'static str)>,
}

/// Reads a document.
///
/// # Errors
/// See [`DocumentError`].
pub(super) fn parse(bytes: &[u8]) -> Result<Document, DocumentError> {
    #[derive(Deserialize)]
    struct Whole {
        keys: Vec<Map<String, Value>>,
    }
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::TooLong);
    }
    let whole: Whole = serde_json::from_slice(bytes).map_err(|_| DocumentError::Malformed)?;
    let count = whole.keys.len();
    if count > KEYS_MAX {
        return Err(DocumentError::TooManyKeys);
    }
    for (index, members) in whole.keys.iter().enumerate() {
        refuse_secret(index, members)?;
    }
    let mut document = Document { keys: Vec::new(), skipped: Vec::new() };
    for (index, members) in whole.keys.into_iter().enumerate() {
        match key(members) {
            Ok(key) if document.keys.iter().any(|other| other.is_named_as(&key)) => {
                document.skipped.push((index, "another key has its kid"));
            }
            Ok(key) => document.keys.push(key),
            Err(why) => document.skipped.push((index, why)),
        }
    }
    if document.keys.is_empty() {
        return Err(DocumentError::NoUsableKey { count });
    }
    Ok(document)
}

fn refuse_secret(index: usize, members: &Map<String, Value>) -> Result<(), DocumentError> {
    if members.get("kty").is_some_and(|kty| kty == "oct") {
        return Err(DocumentError::SymmetricKey { index });
    }
    if SECRET_MEMBERS.iter().any(|name| members.contains_key(*name)) {
        return Err(DocumentError::PrivateKey { index });
    }
    Ok(())
}

/// A key for other ends than signatures, as issuers publish them beside.
pub(super) const OTHER_USE: &str = "it is not for signatures";

#[derive(Deserialize)]
struct Members {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

fn key(members: Map<String, Value>) -> Result<Key, &'static str> {
    let members: Members = serde_json::from_value(Value::Object(members))
        .map_err(|_| "a member is missing or of a wrong type")?;
    let is_for_signatures = members.usage.as_deref().is_none_or(|usage| usage == "sig")
        && members.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !is_for_signatures {
        return Err(OTHER_USE);
    }
    if members.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return Err("its kid is too long");
    }
    let (algorithm, names, decoding) = match (members.kty.as_str(), members.crv.as_deref()) {
        ("RSA", _) => (Algorithm::RS256, &["RS256"][..], rsa(&members)?),
        ("EC", Some("P-256")) => (Algorithm::ES256, &["ES256"][..], p256(&members)?),
        ("OKP", Some("Ed25519")) => {
            (Algorithm::EdDSA, &["EdDSA", "Ed25519"][..], ed25519(&members)?)
        }
        _ => return Err("neither RSA nor P-256 nor Ed25519"),
    };
    if members.alg.is_some_and(|alg| !names.contains(&alg.as_str())) {
        return Err("its algorithm is none of RS256, ES256, EdDSA");
    }
    Ok(Key::new(members.kid, algorithm, decoding))
}

/// Bytes of a member; base64url without padding, canonical.
fn bytes(member: Option<&String>) -> Result<Vec<u8>, &'static str> {
    let text = member.ok_or("a member is missing or of a wrong type")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member is not base64url")
}

fn rsa(members: &Members) -> Result<DecodingKey, &'static str> {
    let (n, e) = (bytes(members.n.as_ref())?, bytes(members.e.as_ref())?);
    let zeros = n.iter().take_while(|byte| **byte == 0).count();
    let n = n.get(zeros..).unwrap_or_default();
    let first = n.first().map_or(0, |byte| usize::try_from(byte.leading_zeros()).unwrap_or(0));
    let bits = (n.len() * 8).saturating_sub(first);
    if bits < RSA_BITS.0 {
        return Err("an RSA key of less than 2048 bits is weak");
    }
    if bits > RSA_BITS.1 {
        return Err("an RSA key of more than 8192 bits takes too long");
    }
    let components = RsaPublicKeyComponents { n, e: &e };
    let is_parsed = components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).is_ok();
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    // An exponent of 1 would sign for anybody; of more than 33 bits the library takes none.
    if !is_parsed || !is_odd(n) || !is_odd(&e) || e == [1] || e.len() > 5 {
        return Err("no RSA key");
    }
    Ok(DecodingKey::from_rsa_raw_components(n, &e))
}

fn p256(members: &Members) -> Result<DecodingKey, &'static str> {
    let (x, y) = (bytes(members.x.as_ref())?, bytes(members.y.as_ref())?);
    // Exactly as long as the field: RFC 7518, 6.2.1.2.
    if x.len() != 32 || y.len() != 32 {
        return Err("no point of P-256");
    }
    let point = [&[4], &x[..], &y[..]].concat();
    if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).is_err() {
        return Err("no point of P-256");
    }
    Ok(DecodingKey::from_ec_der(&point))
}

fn ed25519(members: &Members) -> Result<DecodingKey, &'static str> {
    let x = bytes(members.x.as_ref())?;
    if ParsedPublicKey::new(&ED25519, &x).is_err() {
        return Err("no point of Ed25519");
    }
    if is_of_small_order(&x) {
        return Err("a point of small order, for which anybody can sign");
    }
    Ok(DecodingKey::from_ed_der(&x))
}

/// The y of every point whose order divides 8, also as they can be written above the prime.
/// Source: the list of libsodium's `ge25519_has_small_order`.
const SMALL_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn is_of_small_order(point: &[u8]) -> bool {
    let hex = |(place, byte): (usize, &u8)| {
        // The highest bit is the sign of x.
        let byte = if place + 1 == point.len() { byte & 0x7f } else { *byte };
        format!("{byte:02x}")
    };
    let text: String = point.iter().enumerate().map(hex).collect();
    SMALL_ORDER.contains(&text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::forge;
    use serde_json::json;

    fn skipped(keys: &[Value]) -> Vec<&'static str> {
        let good = forge::Signer::ed25519("good").jwk();
        let keys: Vec<&Value> = keys.iter().chain([&good]).collect();
        let document = parse(json!({ "keys": keys }).to_string().as_bytes()).expect("one is good");
        document.skipped.iter().map(|(_, why)| *why).collect()
    }

    fn changed(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    #[test]
    fn keys_of_the_three_algorithms_are_read() {
        let keys = [
            forge::Signer::rsa("a").jwk(),
            forge::Signer::p256("b").jwk(),
            changed(forge::Signer::ed25519("c").jwk(), "alg", json!("Ed25519")),
        ];
        assert_eq!(skipped(&keys), Vec::<&str>::new());
    }

    #[test]
    fn weak_and_unusable_keys_are_passed_over() {
        let (rsa, p256) = (forge::Signer::rsa("r").jwk(), forge::Signer::p256("p").jwk());
        let ed25519 = forge::Signer::ed25519("e").jwk();
        let long = URL_SAFE_NO_PAD.encode([0xff; 1_025]);
        let even = URL_SAFE_NO_PAD.encode([0xfe; 256]);
        for (key, why) in [
            (forge::weak_rsa_jwk(), "an RSA key of less than 2048 bits is weak"),
            (
                changed(rsa.clone(), "n", json!(long)),
                "an RSA key of more than 8192 bits takes too long",
            ),
            (changed(rsa.clone(), "n", json!(even)), "no RSA key"),
            (changed(rsa.clone(), "e", json!("AQ")), "no RSA key"),
            (changed(rsa.clone(), "e", json!("Ag")), "no RSA key"),
            (changed(rsa.clone(), "n", json!("=")), "a member is not base64url"),
            (changed(rsa.clone(), "n", json!(7)), "a member is missing or of a wrong type"),
            (
                changed(rsa.clone(), "alg", json!("RS512")),
                "its algorithm is none of RS256, ES256, EdDSA",
            ),
            (
                changed(rsa.clone(), "alg", json!("HS256")),
                "its algorithm is none of RS256, ES256, EdDSA",
            ),
            (changed(rsa.clone(), "use", json!("enc")), OTHER_USE),
            (changed(rsa.clone(), "key_ops", json!(["sign"])), OTHER_USE),
            (changed(rsa, "kid", json!("k".repeat(257))), "its kid is too long"),
            (changed(p256.clone(), "crv", json!("P-384")), "neither RSA nor P-256 nor Ed25519"),
            (changed(p256.clone(), "y", p256["x"].clone()), "no point of P-256"),
            (changed(p256, "x", json!("AAAA")), "no point of P-256"),
            (changed(ed25519.clone(), "x", json!("AAAA")), "no point of Ed25519"),
            (changed(ed25519.clone(), "kty", json!("XYZ")), "neither RSA nor P-256 nor Ed25519"),
            (changed(ed25519, "kid", json!(["a"])), "a member is missing or of a wrong type"),
        ] {
            assert_eq!(skipped(std::slice::from_ref(&key)), [why], "{key}");
        }
    }

    #[test]
    fn points_of_small_order_are_passed_over() {
        for (index, y) in SMALL_ORDER.iter().enumerate() {
            for sign in [0, 0x80] {
                let byte = |at: usize| u8::from_str_radix(&y[2 * at..2 * at + 2], 16).expect("hex");
                let mut point: Vec<u8> = (0..32).map(byte).collect();
                point[31] |= sign;
                let x = URL_SAFE_NO_PAD.encode(&point);
                let why = skipped(&[json!({"kty": "OKP", "crv": "Ed25519", "x": x})]);
                assert_eq!(why.len(), 1, "{index}");
            }
        }
    }

    #[test]
    fn a_second_key_of_the_same_name_is_passed_over() {
        let keys = [forge::Signer::p256("a").jwk(), forge::Signer::p256("a").jwk()];
        assert_eq!(skipped(&keys), ["another key has its kid"]);
        let other = [forge::Signer::p256("a").jwk(), forge::Signer::rsa("a").jwk()];
        assert_eq!(skipped(&other), Vec::<&str>::new(), "of another algorithm");
    }

    #[test]
    fn a_document_with_a_secret_gives_no_keys() {
        let good = forge::Signer::p256("a").jwk();
        let check = |bad: Value, expected: DocumentError| {
            let text = json!({"keys": [good, bad]}).to_string();
            assert_eq!(parse(text.as_bytes()).err(), Some(expected));
        };
        let symmetric = DocumentError::SymmetricKey { index: 1 };
        check(json!({"kty": "oct", "k": "AAAA"}), symmetric.clone());
        check(json!({"kty": "oct"}), symmetric);
        for name in SECRET_MEMBERS {
            let bad = changed(forge::Signer::rsa("r").jwk(), name, json!("AAAA"));
            check(bad, DocumentError::PrivateKey { index: 1 });
        }
        check(json!({"d": null}), DocumentError::PrivateKey { index: 1 });
    }

    #[test]
    fn a_document_is_bounded_and_well_formed() {
        let error = |text: &str| parse(text.as_bytes()).err();
        for bad in
            ["", "null", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[1]}", "<html>", "{\"keys\":[["]
        {
            assert_eq!(error(bad), Some(DocumentError::Malformed), "{bad}");
        }
        assert_eq!(error(&"[".repeat(100_000)), Some(DocumentError::Malformed));
        assert_eq!(error("{\"keys\":[]}"), Some(DocumentError::NoUsableKey { count: 0 }));
        assert_eq!(error("{\"keys\":[{}]}"), Some(DocumentError::NoUsableKey { count: 1 }));
        let many = json!({"keys": vec![json!({}); KEYS_MAX + 1]}).to_string();
        assert_eq!(error(&many), Some(DocumentError::TooManyKeys));
        assert_eq!(error(&" ".repeat(DOCUMENT_BYTES_MAX + 1)), Some(DocumentError::TooLong));
    }
}
