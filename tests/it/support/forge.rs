//! Signers, and every forged token that we know of. Also used by the unit tests of `src/auth`.
//!
//! Nothing here comes from the daemon's code: tokens are put together byte by byte.

use aws_lc_rs::{
    encoding::{AsBigEndian, EcPublicKeyUncompressedBin},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// The audience and the issuer of the tokens here.
pub(crate) const AUDIENCE: &str = "taskwire";
pub(crate) const ISSUER: &str = "issuer";

/// Whom the tokens name.
pub(crate) const SUBJECT: &str = "mallory";

/// A key that signs.
pub(crate) struct Signer {
    kid: String,
    kind: Kind,
}

enum Kind {
    Hmac(Vec<u8>),
    Rsa(Box<RsaKeyPair>),
    P256 { fixed: Box<EcdsaKeyPair>, der: Box<EcdsaKeyPair> },
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn hmac(secret: &[u8]) -> Self {
        Self { kid: String::new(), kind: Kind::Hmac(secret.to_vec()) }
    }

    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
        Self { kid: kid.to_owned(), kind: Kind::Rsa(Box::new(pair)) }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a P-256 key");
        let pair = |algorithm| {
            Box::new(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).expect("the same key"))
        };
        let kind =
            Kind::P256 { fixed: pair(algorithm), der: pair(&ECDSA_P256_SHA256_ASN1_SIGNING) };
        Self { kid: kid.to_owned(), kind }
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("an Ed25519 key");
        Self { kid: kid.to_owned(), kind: Kind::Ed25519(pair) }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Hmac(_) => "HS256",
            Kind::Rsa(_) => "RS256",
            Kind::P256 { .. } => "ES256",
            Kind::Ed25519(_) => "EdDSA",
        }
    }

    pub(crate) fn header(&self) -> Value {
        match self.kind {
            Kind::Hmac(_) => json!({"alg": "HS256", "typ": "JWT"}),
            _ => json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.kid}),
        }
    }

    /// The public half as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.kind {
            Kind::Hmac(secret) => json!({"kty": "oct", "k": b64(secret)}),
            Kind::Rsa(_) => json!({"kty": "RSA", "n": b64(&self.public()[9..265]), "e": "AQAB"}),
            Kind::P256 { .. } => {
                let point = self.public();
                json!({"kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..])})
            }
            Kind::Ed25519(_) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(self.public())}),
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    /// PKCS #1, the uncompressed point, or the 32 bytes.
    fn public(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Hmac(_) => unreachable!("a secret has no public half"),
            Kind::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Kind::P256 { fixed, .. } => {
                let point: EcPublicKeyUncompressedBin<'_> =
                    fixed.public_key().as_be_bytes().expect("a point");
                point.as_ref().to_vec()
            }
            Kind::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// SubjectPublicKeyInfo.
    fn spki(&self) -> Vec<u8> {
        let prefix = match self.kind {
            Kind::Hmac(_) => "",
            Kind::Rsa(_) => "30820122300d06092a864886f70d01010105000382010f00",
            Kind::P256 { .. } => "3059301306072a8648ce3d020106082a8648ce3d030107034200",
            Kind::Ed25519(_) => "302a300506032b6570032100",
        };
        let byte = |at: usize| u8::from_str_radix(&prefix[at..at + 2], 16).expect("hex");
        let mut der: Vec<u8> = (0..prefix.len()).step_by(2).map(byte).collect();
        der.extend(self.public());
        der
    }

    fn pem(&self) -> String {
        let text = STANDARD.encode(self.spki());
        let lines: Vec<&str> =
            (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// Every form in which the public half could be taken for a secret.
    fn public_forms(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("raw", self.public()),
            ("DER", self.spki()),
            ("PEM", self.pem().into_bytes()),
            ("PEM without its last line end", self.pem().trim_end().to_owned().into_bytes()),
            ("JWK", self.jwk().to_string().into_bytes()),
        ]
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.kind {
            Kind::Hmac(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
                signature
            }
            Kind::P256 { fixed, .. } => {
                fixed.sign(&random, message).expect("signed").as_ref().to_vec()
            }
            Kind::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token of this header and these claims, signed whatever they say.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    fn token_of(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", b64(header), b64(claims));
        let signature = self.signature(message.as_bytes());
        format!("{message}.{}", b64(signature))
    }

    /// A good token.
    pub(crate) fn good(&self, now_s: i64) -> String {
        self.token(&self.header(), &claims(now_s))
    }
}

/// The keys of a daemon, and one that it had.
pub(crate) struct Keys {
    pub(crate) hmac: Signer,
    pub(crate) rsa: Signer,
    pub(crate) p256: Signer,
    pub(crate) ed25519: Signer,
    pub(crate) gone: Signer,
}

impl Keys {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self {
            hmac: Signer::hmac(secret),
            rsa: Signer::rsa("rsa"),
            p256: Signer::p256("p256"),
            ed25519: Signer::ed25519("ed25519"),
            gone: Signer::p256("gone"),
        }
    }

    pub(crate) fn all(&self) -> [&Signer; 4] {
        [&self.hmac, &self.rsa, &self.p256, &self.ed25519]
    }

    /// The JWKS, with a weak key and one of small order in it.
    pub(crate) fn jwks(&self) -> Value {
        let [_, rsa, p256, ed25519] = self.all();
        json!({"keys": [rsa.jwk(), p256.jwk(), ed25519.jwk(), weak_rsa_jwk(), small_order_jwk()]})
    }
}

/// The claims of a good token.
pub(crate) fn claims(now_s: i64) -> Value {
    json!({"sub": SUBJECT, "exp": now_s + 600, "nbf": now_s - 60, "aud": AUDIENCE, "iss": ISSUER})
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of 1024 bits.
pub(crate) fn weak_rsa_jwk() -> Value {
    json!({"kty": "RSA", "kid": "weak", "n": WEAK_MODULUS, "e": "AQAB"})
}

/// The neutral element: with it, R = S * B is a signature of every message.
fn small_order_jwk() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "small", "x": b64(neutral())})
}

fn neutral() -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = 1;
    point
}

/// Every forged token, with a word about it. With `keys`, the time `now_s`, and audience and issuer
/// as above, each must be refused.
pub(crate) fn forged(keys: &Keys, now_s: i64) -> Vec<(String, String)> {
    let mut table = Vec::new();
    algorithms(&mut table, keys, now_s);
    public_keys_as_secrets(&mut table, keys, now_s);
    key_names(&mut table, keys, now_s);
    for signer in keys.all() {
        wrong_claims(&mut table, signer, now_s);
        wrong_forms(&mut table, signer, now_s);
    }
    weak_signatures(&mut table, keys, now_s);
    table
}

type Table = Vec<(String, String)>;

fn put(table: &mut Table, name: impl Into<String>, token: String) {
    table.push((name.into(), token));
}

fn algorithms(table: &mut Table, keys: &Keys, now_s: i64) {
    let claims = claims(now_s);
    for alg in ["none", "None", "NONE", "nOnE", "", "null", "hs256", "HS256 ", "HS384", "HS512"] {
        let whole = keys.hmac.token(&json!({ "alg": alg }), &claims);
        let message = whole.rsplit_once('.').expect("a signature").0;
        put(table, format!("alg {alg:?} without signature"), format!("{message}."));
        put(table, format!("alg {alg:?} without the third part"), message.to_owned());
        put(table, format!("alg {alg:?} with a signature"), whole);
    }
    for header in ["{}", "[]", "null", "", "{\"alg\":null}", "{\"alg\":[\"HS256\"]}", "{\"alg\":"] {
        put(table, format!("header {header}"), keys.hmac.token_of(header, &claims.to_string()));
    }
    for header in ["{\"alg\":\"none\",\"alg\":\"HS256\"}", "{\"alg\":\"HS256\",\"alg\":\"none\"}"] {
        put(table, "alg twice", keys.hmac.token_of(header, &claims.to_string()));
    }
    for signer in keys.all() {
        for alg in ["HS256", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"] {
            if alg == signer.algorithm() {
                continue;
            }
            let name = format!("{} signature as {alg}", signer.algorithm());
            let mut header = signer.header();
            header["alg"] = json!(alg);
            put(table, name.clone(), signer.token(&header, &claims));
            let header = json!({ "alg": alg });
            put(table, format!("{name} without kid"), signer.token(&header, &claims));
        }
        for crit in [json!(["b64"]), json!(["exp"]), json!([]), json!("b64")] {
            let mut header = signer.header();
            header["crit"] = crit;
            header["b64"] = json!(false);
            put(table, format!("{} with crit", signer.algorithm()), signer.token(&header, &claims));
        }
    }
}

/// Algorithm confusion: the public key, which all know, taken for the secret of HS256.
fn public_keys_as_secrets(table: &mut Table, keys: &Keys, now_s: i64) {
    for signer in [&keys.rsa, &keys.p256, &keys.ed25519] {
        for (form, secret) in signer.public_forms() {
            let name = format!("HS256 with the {} key as {form}", signer.algorithm());
            let forger = Signer::hmac(&secret);
            put(table, name.clone(), forger.good(now_s));
            let mut header = signer.header();
            header["alg"] = json!("HS256");
            let token = forger.token(&header, &claims(now_s));
            put(table, format!("{name} with its kid"), token);
        }
    }
}

fn key_names(table: &mut Table, keys: &Keys, now_s: i64) {
    let claims = claims(now_s);
    let attackers = [Signer::rsa("rsa"), Signer::p256("p256"), Signer::ed25519("ed25519")];
    for attacker in &attackers {
        let alg = attacker.algorithm();
        put(table, format!("{alg} with our kid"), attacker.good(now_s));
        put(table, format!("{alg} without kid"), attacker.token(&json!({ "alg": alg }), &claims));
        for (name, value) in [
            ("jwk", attacker.jwk()),
            ("jku", json!("http://127.0.0.1:1/jwks.json")),
            ("x5u", json!("http://127.0.0.1:1/chain.pem")),
            ("x5c", json!([STANDARD.encode(attacker.spki())])),
            ("kid", json!("http://127.0.0.1:1/jwks.json")),
        ] {
            for mut header in [attacker.header(), json!({ "alg": alg })] {
                header[name] = value.clone();
                put(table, format!("{alg} with {name}"), attacker.token(&header, &claims));
            }
        }
    }
    for (kid, secret) in [
        (json!("../../../../../../dev/null"), &b""[..]),
        (json!("/dev/null"), b""),
        (json!("../../../proc/sys/kernel/randomize_va_space"), b"2\n"),
        (json!("x' UNION SELECT 'known' -- "), b"known"),
        (json!("|| echo known"), b"known"),
        (json!(["rsa"]), b""),
        (json!(7), b""),
        (json!({"kid": "rsa"}), b""),
        (json!("k".repeat(4_000)), b""),
    ] {
        let header = json!({"alg": "HS256", "kid": kid});
        put(table, format!("kid {kid:.40}"), Signer::hmac(secret).token(&header, &claims));
        let header = json!({"alg": "RS256", "kid": kid});
        put(table, format!("RS256 kid {kid:.40}"), keys.rsa.token(&header, &claims));
    }
    for (signer, kid) in
        [(&keys.rsa, "p256"), (&keys.p256, "rsa"), (&keys.ed25519, "p256"), (&keys.rsa, "RSA")]
    {
        let header = json!({"alg": signer.algorithm(), "kid": kid});
        let name = format!("{} with kid {kid}", signer.algorithm());
        put(table, name, signer.token(&header, &claims));
    }
    put(table, "a key that was rotated away", keys.gone.good(now_s));
    let header = json!({"alg": "ES256", "kid": "p256"});
    put(table, "the same with a kid of today", keys.gone.token(&header, &claims));
}

fn wrong_claims(table: &mut Table, signer: &Signer, now_s: i64) {
    let far = now_s + 600;
    for (name, value) in [
        ("exp", Value::Null),
        ("exp", json!(now_s - 6)),
        ("exp", json!(0)),
        ("exp", json!(-1)),
        ("exp", json!(far.to_string())),
        ("exp", json!(true)),
        ("exp", json!([far])),
        ("exp", json!({"$gt": far})),
        ("nbf", json!(now_s + 60)),
        ("nbf", json!("0")),
        ("nbf", json!(u64::MAX)),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(true)),
        ("sub", json!(1.5)),
        ("sub", json!([SUBJECT])),
        ("sub", json!({"id": SUBJECT})),
        ("sub", json!("x".repeat(129))),
        ("sub", json!("mal\nlory")),
        ("sub", json!("mal\u{0}lory")),
        ("aud", Value::Null),
        ("aud", json!("Taskwire")),
        ("aud", json!([])),
        ("aud", json!(["other", "taskwire2"])),
        ("aud", json!([["taskwire"]])),
        ("aud", json!(["taskwire", 1])),
        ("aud", json!({"taskwire": 1})),
        ("aud", json!(1)),
        ("iss", Value::Null),
        ("iss", json!("issuer/")),
        ("iss", json!(["issuer"])),
        ("iss", json!(1)),
        ("taskwire_admin", json!("true")),
        ("taskwire_admin", json!(1)),
    ] {
        let mut claims = claims(now_s);
        claims[name] = value.clone();
        let name = format!("{} with {name} {value:.40}", signer.algorithm());
        put(table, name, signer.token(&signer.header(), &claims));
    }
    for missing in ["exp", "sub", "aud", "iss"] {
        let mut claims = claims(now_s);
        claims.as_object_mut().expect("an object").remove(missing);
        let name = format!("{} without {missing}", signer.algorithm());
        put(table, name, signer.token(&signer.header(), &claims));
    }
    let good = claims(now_s).to_string();
    for twice in
        ["\"sub\":\"alice\"", "\"exp\":1", "\"nbf\":0", "\"aud\":\"taskwire\"", "\"iss\":\"x\""]
    {
        for text in [
            good.replacen('{', &format!("{{{twice},"), 1),
            good.replacen('}', &format!(",{twice}}}"), 1),
        ] {
            let name = format!("{} with {twice} twice", signer.algorithm());
            put(table, name, signer.token_of(&signer.header().to_string(), &text));
        }
    }
    for text in ["", "[]", "null", "1", "{", "{}{}", "\u{feff}{}", &"[".repeat(500)] {
        let name = format!("{} with claims {text:.20}", signer.algorithm());
        put(table, name, signer.token_of(&signer.header().to_string(), text));
    }
}

fn wrong_forms(table: &mut Table, signer: &Signer, now_s: i64) {
    let alg = signer.algorithm();
    let good = signer.good(now_s);
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (header, claims) = message.split_once('.').expect("three parts");
    let other = b64(self::claims(now_s + 1).to_string());
    let half = signature.len() / 2;
    let last = char::from(signature.as_bytes()[signature.len() - 1]);
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // The last digit of our signatures has bits that count for nothing.
    let at = DIGITS.find(last).expect("a digit");
    let uncanonical = &DIGITS[at + 1..at + 2];
    for (name, token) in [
        ("signature cut by a digit", format!("{message}.{}", &signature[..signature.len() - 1])),
        ("signature cut by four", format!("{message}.{}", &signature[..signature.len() - 4])),
        ("half a signature", format!("{message}.{}", &signature[..half])),
        ("signature with a digit more", format!("{message}.{signature}A")),
        ("signature with four more", format!("{message}.{signature}AAAA")),
        ("signature twice", format!("{message}.{signature}{signature}")),
        ("no signature", format!("{message}.")),
        ("no third part", message.to_owned()),
        ("padded signature", format!("{message}.{signature}=")),
        ("twice padded signature", format!("{message}.{signature}==")),
        ("padded claims", format!("{header}.{claims}=.{signature}")),
        ("padded header", format!("{header}=.{claims}.{signature}")),
        (
            "uncanonical signature",
            format!("{message}.{}{uncanonical}", &signature[..signature.len() - 1]),
        ),
        ("alphabet of base64", format!("{message}.+/{}", &signature[2..])),
        (
            "space in the signature",
            format!("{message}.{} {}", &signature[..half], &signature[half..]),
        ),
        ("space after the header", format!("{header} .{claims}.{signature}")),
        ("line end in the claims", format!("{header}.\n{claims}.{signature}")),
        ("zero byte", format!("{message}.{signature}\u{0}")),
        ("not ASCII", format!("{message}.\u{e4}{}", &signature[2..])),
        ("other claims", format!("{header}.{other}.{signature}")),
        ("a part more", format!("{good}.{signature}")),
        ("an empty part more", format!("{good}.")),
        ("an empty part before", format!(".{good}")),
        ("five parts", format!("{header}.{claims}.{header}.{claims}.{signature}")),
        ("quoted", format!("\"{good}\"")),
        ("two tokens", format!("{good},{good}")),
        ("very long", format!("{message}.{}", "A".repeat(9_000))),
        ("very long claims", format!("{header}.{}.{signature}", "A".repeat(9_000))),
    ] {
        put(table, format!("{alg}: {name}"), token);
    }
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    for place in [0, bytes.len() / 2, bytes.len() - 1] {
        bytes[place] ^= 1;
        put(table, format!("{alg}: a bit of byte {place}"), format!("{message}.{}", b64(&bytes)));
        bytes[place] ^= 1;
    }
    for byte in [0, 0xff] {
        let flat = vec![byte; bytes.len()];
        put(table, format!("{alg}: all {byte}"), format!("{message}.{}", b64(flat)));
    }
}

fn weak_signatures(table: &mut Table, keys: &Keys, now_s: i64) {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let claims = b64(claims(now_s).to_string());
    let with = |header: &Value, signature: &[u8]| {
        format!("{}.{claims}.{}", b64(header.to_string()), b64(signature))
    };
    // r = s = 0, and what is 0 modulo the order (CVE-2022-21449).
    let byte = |at: usize| u8::from_str_radix(&ORDER[2 * at..2 * at + 2], 16).expect("hex");
    let order: Vec<u8> = (0..32).map(byte).collect();
    let zero = vec![0; 32];
    for (r, s) in [(&zero, &zero), (&order, &order), (&zero, &order), (&order, &zero)] {
        let token = with(&keys.p256.header(), &[&r[..], s].concat());
        put(table, "ES256 with r and s of zero", token);
    }
    for der in [&[0x30, 6, 2, 1, 0, 2, 1, 0][..], &[0x30, 6, 2, 1, 1, 2, 1, 1]] {
        put(table, "ES256 with a DER of zeros or ones", with(&keys.p256.header(), der));
    }
    if let Kind::P256 { der, .. } = &keys.p256.kind {
        let header = keys.p256.header();
        let message = format!("{}.{claims}", b64(header.to_string()));
        let signature = der.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        put(table, "ES256 with its signature in DER", with(&header, signature.as_ref()));
    }
    let forever = [&neutral()[..], &[0; 32]].concat();
    let header = json!({"alg": "EdDSA", "kid": "small"});
    put(table, "EdDSA by a key of small order", with(&header, &forever));
    put(table, "the same without kid", with(&json!({"alg": "EdDSA"}), &forever));
    put(table, "RS256 by a key of 1024 bits", WEAK_TOKEN.to_owned());
}

const WEAK_MODULUS: &str = "niHQqEAI2xXSjSbfbkiTScI7YEXj4V4Et2ueE-huVYM_Qv4wIEzKV6Eglb53fMARzNws3uoE-lbi\
    e5XHBoi-2YXer7p0AoJ3ETdEt1390OzPz7lArktaHpz4x1JWwM57V-2zh54tlDVQY7Iy-4eT3b46\
    PppYl_M9Wy6-NoHFb0M";

/// Signed by that key, good until the year 2100.
const WEAK_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYWsifQ.eyJzdWIiOiJtYWxsb3J5IiwiZXhwIjo0MTAyN\
    DQ0ODAwLCJhdWQiOiJ0YXNrd2lyZSIsImlzcyI6Imlzc3VlciJ9.CbeqVOb-MYsbIQO3yiSXkosJ\
    rgGQ6h1qxeh3Rcl5Kc5p2hdj484285c0BaL2B1qjl15au09IibYVnF6lMZnS7I5iKUS8bLEKDwmV\
    v2U9CFr9Qj27hsSUUkTylRDlkyroV6BjvwEsDGYcl3E4Ve7d1sxI4walgebpHPuvy5Gak3U";
