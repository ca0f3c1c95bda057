//! Tokens for the admin routes, signed as the host application signs its own.

use crate::Error;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

/// How long an admin token is good for.
const LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);

/// An HS256 token with the role `admin`, good for 30 days.
///
/// # Errors
/// When the time is out of range or the token cannot be signed.
pub fn admin(secret: &str, now: Timestamp) -> Result<String, Error> {
    let expires = now
        .checked_add(LIFETIME)
        .map_err(|error| Error::because("no time is left for a token", error))?;
    let claims = json!({
        "sub": "local",
        "role": "admin",
        "iat": now.as_second(),
        "exp": expires.as_second(),
    });
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key)
        .map_err(|error| Error::because("cannot sign a token", error))
}
