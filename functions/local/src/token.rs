//! Tokens for people, signed as the host application signs its own.

use crate::Error;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

/// How long a token is good for.
const LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);

/// An HS256 token with the role `admin`, good for 30 days.
///
/// # Errors
/// When the time is out of range or the token cannot be signed.
pub fn admin(secret: &str, now: Timestamp) -> Result<String, Error> {
    signed(json!({"sub": "local", "role": "admin"}), secret, now)
}

/// The same for an API partner, who may read what is of this key prefix.
///
/// # Errors
/// When the time is out of range or the token cannot be signed.
pub fn partner(api_key_prefix: &str, secret: &str, now: Timestamp) -> Result<String, Error> {
    signed(
        json!({"sub": "local", "partner": api_key_prefix}),
        secret,
        now,
    )
}

fn signed(mut claims: Value, secret: &str, now: Timestamp) -> Result<String, Error> {
    let expires = now
        .checked_add(LIFETIME)
        .map_err(|error| Error::because("no time is left for a token", error))?;
    claims["iat"] = now.as_second().into();
    claims["exp"] = expires.as_second().into();
    EncodingKey::from_secret(secret.as_bytes())
        .and_then(|key| jsonwebtoken::encode(&Header::default(), &claims, &key))
        .map_err(|error| Error::because("cannot sign a token", error))
}
