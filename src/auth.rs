//! A JWT becomes a principal.
//!
//! Invariant: only HS256 with the configured secret is ever accepted, whatever a token's header
//! says; `kid`, `jku`, `jwk` and `x5u` are not looked at. A token that fails is never the
//! development user.

use crate::{clock::Clock, task::UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// Who asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    /// The token's `sub`.
    pub user_id: UserId,
    /// Claim `taskwire_admin`.
    pub is_admin: bool,
    /// The token's `exp` in milliseconds since 1970; `None` without a token (development mode).
    pub expires_at_ms: Option<i64>,
}

/// Seconds that `exp` and `nbf` may be off.
pub const LEEWAY_S: u64 = 5;

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Who a request without a token is in development mode.
pub const DEVELOPMENT_USER: &str = "dev";

/// Shortest HS256 secret that is not warned about, in bytes.
pub const SECRET_BYTES_MIN: usize = 32;

/// How tokens are checked.
#[derive(Clone)]
pub struct Options {
    /// The HS256 secret. Without one every token is refused.
    pub secret: Vec<u8>,
    /// No token means user `dev` with all rights; loopback only.
    pub is_development: bool,
    /// `aud` that a token must have.
    pub audience: Option<String>,
    /// `iss` that a token must have.
    pub issuer: Option<String>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("secret", &"[redacted]")
            .field("is_development", &self.is_development)
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .finish()
    }
}

/// Why a token is refused. The peer learns only that it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// None where one is needed.
    #[error("no token")]
    Missing,
    /// Expired.
    #[error("expired token")]
    Expired,
    /// Anything else; `.0` says what, never the token.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
}

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    key: Option<DecodingKey>,
    validation: Validation,
    is_development: bool,
    clock: Clock,
}

impl Authenticator {
    /// An authenticator with these options.
    #[expect(clippy::needless_pass_by_value, reason = "the secret is not to be kept elsewhere")]
    pub fn new(options: Options, clock: Clock) -> Self {
        let key = (!options.secret.is_empty()).then(|| DecodingKey::from_secret(&options.secret));
        let validation = validation(&options);
        let is_development = options.is_development;
        Self(Arc::new(Inner { key, validation, is_development, clock }))
    }

    /// Whether a request needs no token.
    pub fn is_development(&self) -> bool {
        self.0.is_development
    }

    /// Checks a token (the part after `Bearer `). `None` is a request without one, and
    /// `dev_user` what it names by `?user=` (development mode only).
    ///
    /// # Errors
    /// See [`AuthError`]. A token that fails is never the development user.
    pub fn authenticate(
        &self,
        token: Option<&str>,
        dev_user: Option<&str>,
    ) -> Result<Principal, AuthError> {
        match token {
            Some(token) => self.verify(token),
            None if self.0.is_development => development_principal(dev_user),
            None => Err(AuthError::Missing),
        }
    }

    fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Invalid("too long"));
        }
        let key = self.0.key.as_ref().ok_or(AuthError::Invalid("no secret is configured"))?;
        let data = jsonwebtoken::decode::<Claims>(token, key, &self.0.validation)
            .map_err(|error| AuthError::Invalid(describe(error.kind())))?;
        if data.header.crit.is_some_and(|names| !names.is_empty()) {
            return Err(AuthError::Invalid("critical header parameters are not supported"));
        }
        data.claims.into_principal(self.0.clock.now_ms())
    }
}

/// The crate checks the algorithm, the signature, `aud` and `iss`. Times and `sub` are ours: it
/// knows no clock but the machine's, and no integer `sub`.
fn validation(options: &Options) -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.leeway = LEEWAY_S;
    let mut required = Vec::new();
    match &options.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        None => validation.validate_aud = false,
    }
    if let Some(issuer) = &options.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn development_principal(named: Option<&str>) -> Result<Principal, AuthError> {
    let name = named.unwrap_or(DEVELOPMENT_USER);
    let user_id = UserId::new(name).ok_or(AuthError::Invalid("user"))?;
    Ok(Principal { user_id, is_admin: name == DEVELOPMENT_USER, expires_at_ms: None })
}

fn describe(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "algorithm",
        ErrorKind::InvalidAudience => "audience",
        ErrorKind::InvalidIssuer => "issuer",
        ErrorKind::MissingRequiredClaim(_) => "missing aud or iss",
        ErrorKind::Json(_) => "header or claims",
        _ => "malformed",
    }
}

/// The claims that we read.
#[derive(Deserialize)]
struct Claims {
    sub: Option<Subject>,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    #[serde(default)]
    taskwire_admin: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Subject {
    Text(String),
    Unsigned(u64),
    Signed(i64),
}

/// Seconds since 1970, saturated to what fits milliseconds in an i64.
#[derive(Clone, Copy)]
struct NumericDate {
    ms: i64,
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let whole_s = match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(seconds), _, _) => seconds,
            (None, Some(_), _) => i64::MAX,
            // A fraction of a second is within the leeway, so whole seconds do.
            (None, None, Some(seconds)) => saturate(seconds),
            (None, None, None) => return Err(serde::de::Error::custom("not a date")),
        };
        Ok(Self { ms: whole_s.saturating_mul(1_000) })
    }
}

/// Whole seconds of a number with a fraction or an exponent.
fn saturate(seconds: f64) -> i64 {
    /// Seconds until a year far beyond any token, and exact in an f64.
    const FAR_S: f64 = 9.0e15;
    let text = format!("{:.0}", seconds.clamp(-FAR_S, FAR_S).floor());
    text.parse().unwrap_or(0)
}

impl Claims {
    fn into_principal(self, now_ms: i64) -> Result<Principal, AuthError> {
        let leeway_ms = i64::try_from(LEEWAY_S * 1_000).unwrap_or(0);
        let expires_at_ms = self.exp.ok_or(AuthError::Invalid("no exp"))?.ms;
        if now_ms >= expires_at_ms.saturating_add(leeway_ms) {
            return Err(AuthError::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf.ms > now_ms.saturating_add(leeway_ms)) {
            return Err(AuthError::Invalid("not valid yet"));
        }
        let user_id = match self.sub.ok_or(AuthError::Invalid("no sub"))? {
            Subject::Text(text) => UserId::new(&text),
            Subject::Unsigned(number) => UserId::new(&number.to_string()),
            Subject::Signed(number) => UserId::new(&number.to_string()),
        };
        let user_id = user_id.ok_or(AuthError::Invalid("sub"))?;
        let expires_at_ms = Some(expires_at_ms);
        Ok(Principal { user_id, is_admin: self.taskwire_admin, expires_at_ms })
    }
}

/// What a token is to say.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// `sub`
    pub user_id: &'a UserId,
    /// `taskwire_admin`
    pub is_admin: bool,
    /// Seconds until `exp`.
    pub ttl_s: u64,
    /// `aud`, which a daemon with [`Options::audience`] asks for.
    pub audience: Option<&'a str>,
    /// `iss`, which a daemon with [`Options::issuer`] asks for.
    pub issuer: Option<&'a str>,
}

impl<'a> Grant<'a> {
    /// To a user without other rights, for no audience and by no issuer.
    pub fn new(user_id: &'a UserId, ttl_s: u64) -> Self {
        Self { user_id, is_admin: false, ttl_s, audience: None, issuer: None }
    }
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    taskwire_admin: bool,
}

/// Signs a token (HS256).
pub fn sign(secret: &[u8], grant: Grant<'_>, clock: &Clock) -> String {
    let iat = clock.now_ms().div_euclid(1_000);
    let claims = NewClaims {
        sub: grant.user_id.as_str(),
        iat,
        exp: iat.saturating_add(i64::try_from(grant.ttl_s).unwrap_or(i64::MAX)),
        aud: grant.audience,
        iss: grant.issuer,
        taskwire_admin: grant.is_admin,
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret))
        .expect("claims of strings and integers are JSON, and an HMAC takes any secret")
}

#[cfg(test)]
mod tests {
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
            is_development: false,
            audience: None,
            issuer: None,
        };
        change(&mut options);
        Authenticator::new(options, Clock::manual(NOW_S * 1_000))
    }

    fn token(header: &Value, claims: &Value, secret: &[u8]) -> String {
        let message = format!("{}.{}", b64(&header.to_string()), b64(&claims.to_string()));
        let key = EncodingKey::from_secret(secret);
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }

    fn b64(text: &str) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut out = String::new();
        for chunk in text.as_bytes().chunks(3) {
            let bits = chunk.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for place in 0..=chunk.len() {
                let digit = usize::try_from((bits >> (18 - 6 * place)) & 63).unwrap();
                out.push(char::from(DIGITS[digit]));
            }
        }
        out
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

    #[test]
    fn forged_tokens_are_refused() {
        let good = json!({"sub": "alice", "exp": NOW_S + 60});
        for (header, why) in [
            (json!({"alg": "none"}), "header or claims"),
            (json!({"alg": "None"}), "header or claims"),
            (json!({"alg": "RS256"}), "algorithm"),
            (json!({"alg": "HS384"}), "algorithm"),
            (json!({"alg": "HS512"}), "algorithm"),
            (json!({"alg": "EdDSA"}), "algorithm"),
            (json!({}), "header or claims"),
            (json!({"alg": "HS256", "crit": ["b64"], "b64": false}), "critical"),
        ] {
            refused(&token(&header, &good, SECRET), why);
        }
        let header = json!({"alg": "HS256"});
        refused(&token(&header, &good, b"another secret of thirty-two bytes!!"), "signature");
        refused(&token(&header, &good, b""), "signature");
        let whole = token(&header, &good, SECRET);
        refused(&whole[..whole.len() - 2], "");
        refused(&format!("{}.", whole.rsplit_once('.').unwrap().0), "signature");
        refused(whole.rsplit_once('.').unwrap().0, "");
        for broken in ["", ".", "..", "...", "a.b.c", "\u{e4}.\u{e4}.\u{e4}", "null", " "] {
            refused(broken, "");
        }
        refused(&"a".repeat(TOKEN_BYTES_MAX + 1), "too long");
        refused(&format!("{whole}{}", ".".repeat(100)), "");
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
        for exp in [json!(u64::MAX), json!(i64::MAX), json!(1e300), json!(1.9e9), json!(NOW_S - 4)]
        {
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
            is_development: false,
            audience: None,
            issuer: None,
        };
        let later = Authenticator::new(options, clock.clone());
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
        let token =
            token(&json!({"alg": "HS256"}), &json!({"sub": "alice", "exp": NOW_S + 60}), b"");
        assert!(none.authenticate(Some(&token), None).is_err());
    }
}
