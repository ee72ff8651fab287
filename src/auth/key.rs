//! One key, and the one algorithm that it checks.

use super::{AuthError, claims::Claims};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, errors::ErrorKind};

/// Most keys that one token is tried with. Several fit only where the token or the keys have no
/// `kid`. Each try costs some 50 us, so a forged token at most 0.8 ms, and refused tokens of an
/// address are bounded; an issuer that rotates has two or three keys of an algorithm at a time.
pub(super) const TRIES_MAX: usize = 16;

/// A key of ours.
pub(super) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    validation: Validation,
}

impl Key {
    /// A key that checks `algorithm` and nothing else.
    pub(super) fn new(kid: Option<String>, algorithm: Algorithm, decoding: DecodingKey) -> Self {
        // Signature and algorithm only: all claims are looked at by `Claims`.
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.set_required_spec_claims::<&str>(&[]);
        Self { kid, algorithm, decoding, validation }
    }

    /// The key of HS256 tokens.
    pub(super) fn of_secret(secret: &[u8]) -> Self {
        Self::new(None, Algorithm::HS256, DecodingKey::from_secret(secret))
    }

    /// What a token selects it by.
    pub(super) fn name(&self) -> (Option<&str>, Algorithm) {
        (self.kid.as_deref(), self.algorithm)
    }

    /// Whether two keys answer to the same tokens.
    pub(super) fn is_named_as(&self, other: &Self) -> bool {
        self.kid.is_some() && self.name() == other.name()
    }

    /// A key without a name fits any token of its algorithm, and so does any key a token without
    /// `kid`.
    fn fits(&self, header: &Header) -> bool {
        let is_named = match (&self.kid, &header.kid) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.algorithm == header.alg && is_named
    }

    /// The claims, if the signature is this key's.
    pub(super) fn open(&self, token: &str) -> Result<Claims, AuthError> {
        jsonwebtoken::decode(token, &self.decoding, &self.validation)
            .map(|data| data.claims)
            .map_err(|error| AuthError::Invalid(describe(error.kind())))
    }
}

/// Opens a token with that of `keys` which its header selects; `None` if it selects none.
pub(super) fn open_with(
    keys: &[Key],
    header: &Header,
    token: &str,
) -> Option<Result<Claims, AuthError>> {
    let mut opened = None;
    for key in keys.iter().filter(|key| key.fits(header)).take(TRIES_MAX) {
        match key.open(token) {
            Ok(claims) => return Some(Ok(claims)),
            refused => opened = Some(refused),
        }
    }
    opened
}

/// Whether a token that fits all keys of its algorithm is not tried with some of them.
pub(super) fn has_untried(keys: &[Key]) -> bool {
    let of_algorithm =
        |key: &Key| keys.iter().filter(|other| other.algorithm == key.algorithm).count();
    keys.iter().any(|key| of_algorithm(key) > TRIES_MAX)
}

fn describe(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "algorithm",
        ErrorKind::Json(_) => "header or claims",
        _ => "malformed",
    }
}
