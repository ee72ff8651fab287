//! A JWT becomes a principal.
//!
//! Invariant: the key decides which algorithm checks a token, never the token. HS256 is checked
//! with the configured secret, RS256, ES256 and EdDSA with the keys of the configured JWKS; `kid`
//! selects among those, and `jku`, `jwk`, `x5u` and `x5c` are not looked at. A token that fails is
//! never the development user.

mod claims;
mod fetch;
#[cfg(test)]
#[path = "../../tests/it/support/forge.rs"]
mod forge;
mod jwks;
mod key;
mod keys;
#[cfg(test)]
mod rotation_tests;
mod sign;
mod source;
#[cfg(test)]
mod tests;

pub use fetch::FetchError;
pub use jwks::DocumentError;
pub use keys::{JwksError, check_file};
pub use sign::{Grant, sign};
pub use source::{JwksSource, JwksUrl};

use crate::{clock::Clock, metrics::Metrics, shutdown::Shutdown, task::UserId};
use claims::{Claims, Expected};
use jsonwebtoken::{Algorithm, Header};
use key::Key;
use keys::KeyRing;
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
    /// The HS256 secret; empty for none.
    pub secret: Vec<u8>,
    /// The keys of RS256, ES256 and EdDSA. Without these and a secret every token is refused.
    pub jwks: Option<JwksSource>,
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
            .field("jwks", &self.jwks)
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
    /// The JWKS could not be read since the start, so that nobody can be judged.
    #[error("there are no keys yet")]
    NoKeys,
    /// Anything else; `.0` says what, never the token.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
}

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    secret: Option<Key>,
    ring: Option<KeyRing>,
    expected: Expected,
    is_development: bool,
    clock: Clock,
}

impl Authenticator {
    /// An authenticator with these options, and without the keys of its JWKS: see
    /// [`Authenticator::load_keys`] and [`Authenticator::keep_keys`].
    pub fn new(options: Options, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self::with_timing(options, keys::TIMING, clock, metrics)
    }

    fn with_timing(
        options: Options,
        timing: keys::Timing,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let secret = (!options.secret.is_empty()).then(|| Key::of_secret(&options.secret));
        let ring = options.jwks.map(|source| KeyRing::new(source, timing, metrics));
        let expected = Expected { audience: options.audience, issuer: options.issuer };
        let is_development = options.is_development;
        Self(Arc::new(Inner { secret, ring, expected, is_development, clock }))
    }

    /// Reads the JWKS for the first time, if there is one.
    ///
    /// # Errors
    /// The file is not there or not good. A URL that fails is warned about, and asked again.
    pub async fn load_keys(&self) -> Result<(), JwksError> {
        match &self.0.ring {
            Some(ring) => ring.load().await,
            None => Ok(()),
        }
    }

    /// Keeps the keys of the JWKS fresh until the stop begins; without one it only waits for that.
    pub async fn keep_keys(&self, shutdown: Shutdown) {
        match &self.0.ring {
            Some(ring) => ring.keep(shutdown).await,
            None => shutdown.begun().await,
        }
    }

    /// The JWKS could not be read lately; its last keys stay.
    pub fn has_stale_keys(&self) -> bool {
        self.0.ring.as_ref().is_some_and(KeyRing::is_stale)
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
        let header =
            jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid("header or form"))?;
        if header.crit.is_some() {
            return Err(AuthError::Invalid("critical header parameters are not supported"));
        }
        let claims = self.open(&header, token)?;
        claims.into_principal(&self.0.expected, self.0.clock.now_ms())
    }

    fn open(&self, header: &Header, token: &str) -> Result<Claims, AuthError> {
        match (header.alg, &self.0.secret, &self.0.ring) {
            (Algorithm::HS256, Some(key), _) => key.open(token),
            (Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA, _, Some(ring)) => {
                ring.open(header, token)
            }
            _ => Err(AuthError::Invalid("algorithm")),
        }
    }
}

fn development_principal(named: Option<&str>) -> Result<Principal, AuthError> {
    let name = named.unwrap_or(DEVELOPMENT_USER);
    let user_id = UserId::new(name).ok_or(AuthError::Invalid("user"))?;
    Ok(Principal { user_id, is_admin: name == DEVELOPMENT_USER, expires_at_ms: None })
}
