//! A JWT becomes a principal.

use crate::{clock::Clock, task::UserId};

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

/// Shortest HS256 secret that is not warned about, in bytes.
pub const SECRET_BYTES_MIN: usize = 32;

/// How tokens are checked.
#[derive(Clone)]
pub struct Options {
    /// The HS256 secret.
    pub secret: Vec<u8>,
    /// No token means user `dev` with all rights; loopback only.
    pub is_development: bool,
    /// `aud` that a token must have.
    pub audience: Option<String>,
    /// `iss` that a token must have.
    pub issuer: Option<String>,
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
pub struct Authenticator {}

impl Authenticator {
    /// An authenticator with these options.
    pub fn new(options: Options, clock: Clock) -> Self {
        let _ = (options, clock);
        todo!()
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
        let _ = (token, dev_user);
        todo!()
    }
}

/// Signs a token for `user_id` (HS256).
pub fn sign(secret: &[u8], user_id: &UserId, ttl_s: u64, is_admin: bool, clock: &Clock) -> String {
    let _ = (secret, user_id, ttl_s, is_admin, clock);
    todo!()
}
