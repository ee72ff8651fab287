//! New tokens, signed with the secret of HS256.

use crate::{clock::Clock, task::UserId};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// What a token is to say.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// `sub`
    pub user_id: &'a UserId,
    /// `taskwire_admin`
    pub is_admin: bool,
    /// Seconds until `exp`.
    pub ttl_s: u64,
    /// `aud`, which a daemon with [`super::Options::audience`] asks for.
    pub audience: Option<&'a str>,
    /// `iss`, which a daemon with [`super::Options::issuer`] asks for.
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
