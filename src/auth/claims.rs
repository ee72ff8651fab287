//! What a token says, and whether that is enough.
//!
//! Times and `sub` are read here and not by the JWT crate: it knows no clock but the machine's, no
//! integer `sub`, and takes an `iss` that is an array. A claim that is there twice is refused.

use super::{AuthError, LEEWAY_S, Principal};
use crate::task::UserId;
use serde::Deserialize;

/// What the daemon's operator expects of every token.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// `aud`
    pub(super) audience: Option<String>,
    /// `iss`
    pub(super) issuer: Option<String>,
}

/// The claims that we read. Their types are checked even where their values are not.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: Option<Subject>,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    aud: Option<Audience>,
    iss: Option<String>,
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

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self, expected: &str) -> bool {
        match self {
            Self::One(name) => name == expected,
            Self::Several(names) => names.iter().any(|name| name == expected),
        }
    }
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
    /// The principal of a token whose signature is good.
    ///
    /// # Errors
    /// `Expired`; `Invalid` with the claim that is missing or wrong.
    pub(super) fn into_principal(
        self,
        expected: &Expected,
        now_ms: i64,
    ) -> Result<Principal, AuthError> {
        self.check_times(now_ms)?;
        self.check_names(expected)?;
        let user_id = match self.sub.ok_or(AuthError::Invalid("no sub"))? {
            Subject::Text(text) => UserId::new(&text),
            Subject::Unsigned(number) => UserId::new(&number.to_string()),
            Subject::Signed(number) => UserId::new(&number.to_string()),
        };
        let user_id = user_id.ok_or(AuthError::Invalid("sub"))?;
        let expires_at_ms = self.exp.map(|exp| exp.ms);
        Ok(Principal { user_id, is_admin: self.taskwire_admin, expires_at_ms })
    }

    fn check_times(&self, now_ms: i64) -> Result<(), AuthError> {
        let leeway_ms = i64::try_from(LEEWAY_S * 1_000).unwrap_or(0);
        let expires_at_ms = self.exp.ok_or(AuthError::Invalid("no exp"))?.ms;
        if now_ms >= expires_at_ms.saturating_add(leeway_ms) {
            return Err(AuthError::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf.ms > now_ms.saturating_add(leeway_ms)) {
            return Err(AuthError::Invalid("not valid yet"));
        }
        Ok(())
    }

    fn check_names(&self, expected: &Expected) -> Result<(), AuthError> {
        if let Some(audience) = &expected.audience
            && !self.aud.as_ref().is_some_and(|aud| aud.names(audience))
        {
            return Err(AuthError::Invalid("audience"));
        }
        if expected.issuer.is_some() && self.iss != expected.issuer {
            return Err(AuthError::Invalid("issuer"));
        }
        Ok(())
    }
}
