//! Who is calling: JWTs of the host application or its identity provider, and service tokens.
//!
//! <https://www.rfc-editor.org/rfc/rfc8725> (JWT best current practices): one key per algorithm family, the algorithm
//! is ours to choose and not the token's, no leeway.

use std::sync::Arc;

use aws_types::SdkConfig;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;

use super::Error;
use super::access::Role;
use crate::aws::secrets::{self, Form, Secret};
use crate::config::{BoxError, Environment};
use crate::http_call::http_get;

/// How long a fetched key set is used.
const KEYS_CACHED_FOR: SignedDuration = SignedDuration::from_mins(5);
/// A token with an unknown key id has the set fetched again, but not more often than this.
const PAUSE_BETWEEN_FETCHES: SignedDuration = SignedDuration::from_secs(10);
/// Most bytes of a token that are read; a longer one is refused.
const TOKEN_BYTES: usize = 16 * 1024;

/// Who a verified JWT speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The claim `sub`, for the audit log.
    pub subject: Option<String>,
    /// The highest of `admin`, `finance` and `viewer` that `role` equals or contains, or `scope` has as a word. A
    /// token that names a partner is the partner's, whatever role it has, unless that is `admin`: hosts may give a
    /// role to partners' users, too.
    pub role: Option<Role>,
    /// The API key prefix whose own usage and invoices it may read.
    pub partner: Option<String>,
}

/// Verifies JWTs: HS256 with `ADMIN_JWT_SECRET` (or `ADMIN_JWT_SECRET_ARN`), RS256 and ES256 with the key set at
/// `ADMIN_JWKS_URL`; `exp` is required, `aud` and `iss` must match `ADMIN_JWT_AUDIENCE` and `ADMIN_JWT_ISSUER` where
/// those are set. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct JwtVerifier {
    secret: Secret,
    keys: Option<Arc<KeySet>>,
    audience: Option<String>,
    issuer: Option<String>,
}

#[derive(Debug)]
struct KeySet {
    url: String,
    cache: Mutex<KeyCache>,
}

#[derive(Debug, Default)]
struct KeyCache {
    keys: Vec<Jwk>,
    fetched_at: Option<Timestamp>,
    asked_at: Option<Timestamp>,
}

impl JwtVerifier {
    /// Reads the variables above. None being set is found when a token comes.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> JwtVerifier {
        JwtVerifier {
            secret: Secret::from_env(
                environment,
                sdk,
                "ADMIN_JWT_SECRET",
                "ADMIN_JWT_SECRET_ARN",
                Form::Single,
            ),
            keys: environment.optional("ADMIN_JWKS_URL").map(|url| {
                Arc::new(KeySet {
                    url,
                    cache: Mutex::default(),
                })
            }),
            audience: environment.optional("ADMIN_JWT_AUDIENCE"),
            issuer: environment.optional("ADMIN_JWT_ISSUER"),
        }
    }

    /// The bearer of any token that holds at `now`.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Principal, Error> {
        if !self.secret.is_configured() && self.keys.is_none() {
            // Answers the 503 of a missing secret, which names the variables.
            self.secret.values(now).await?;
        }
        let token = bearer(headers)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_quotes_it| INVALID)?;
        if header.crit.is_some() {
            return Err(INVALID);
        }
        let algorithm = header.alg;
        let claims = if algorithm == Algorithm::HS256 && self.secret.is_configured() {
            self.claims_by_secret(token, now).await?
        } else if let Some(keys) = &self.keys
            && [Algorithm::RS256, Algorithm::ES256].contains(&algorithm)
        {
            claims_by_key(keys, token, algorithm, header.kid.as_deref(), now).await?
        } else {
            return Err(INVALID);
        };
        self.check_claims(&claims, now)?;
        Ok(principal(&claims))
    }

    async fn claims_by_secret(&self, token: &str, now: Timestamp) -> Result<Value, Error> {
        for attempt in 0..2 {
            for secret in self.secret.values(now).await?.iter() {
                // An empty secret is no key: anybody could sign with it.
                if let Ok(key) = DecodingKey::from_secret(secret.expose_secret().as_bytes())
                    && let Some(claims) = verified(token, &key, Algorithm::HS256)
                {
                    return Ok(claims);
                }
            }
            // The secret may have been rotated since it was fetched.
            if attempt > 0 || !self.secret.refresh(now).await? {
                break;
            }
        }
        Err(INVALID)
    }

    fn check_claims(&self, claims: &Value, now: Timestamp) -> Result<(), Error> {
        let now = now.as_second();
        let expired = Error::Unauthenticated {
            detail: "the token has expired or names no expiry",
        };
        match numeric_date(&claims["exp"]) {
            Some(expiry) if now < expiry => {}
            Some(_) | None => return Err(expired),
        }
        match (&claims["nbf"], numeric_date(&claims["nbf"])) {
            (Value::Null, _) => {}
            (_, Some(not_before)) if not_before <= now => {}
            _ => {
                return Err(Error::Unauthenticated {
                    detail: "the token is not valid yet",
                });
            }
        }
        for (expected, claim) in [(&self.audience, "aud"), (&self.issuer, "iss")] {
            if let Some(expected) = expected
                && !is_or_contains(&claims[claim], expected)
            {
                return Err(Error::Unauthenticated {
                    detail: "the token is meant for another audience or from another issuer",
                });
            }
        }
        Ok(())
    }
}

const INVALID: Error = Error::Unauthenticated {
    detail: "the token is not one this service accepts",
};

/// The credentials of `Authorization: Bearer …`; the scheme in any case (RFC 9110).
fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    const MISSING: Error = Error::Unauthenticated {
        detail: "send Authorization: Bearer with a token",
    };
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(MISSING);
    };
    let text = value.to_str().map_err(|_not_ascii| MISSING)?;
    let (scheme, token) = text.split_once(' ').ok_or(MISSING)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > TOKEN_BYTES {
        return Err(MISSING);
    }
    Ok(token)
}

/// The claims of a token signed with `key`; times and audiences are checked by the caller, against its own clock.
fn verified(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<Value> {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let token = jsonwebtoken::decode::<Value>(token, key, &validation).ok()?;
    token.claims.is_object().then_some(token.claims)
}

async fn claims_by_key(
    keys: &KeySet,
    token: &str,
    algorithm: Algorithm,
    key_id: Option<&str>,
    now: Timestamp,
) -> Result<Value, Error> {
    let mut cache = keys.cache.lock().await;
    let mut fetched = false;
    if is_past(cache.fetched_at, KEYS_CACHED_FOR, now) {
        fetched = refresh_keys(keys, &mut cache, now).await?;
    }
    loop {
        let claims = cache
            .keys
            .iter()
            .filter(|key| may_verify(key, algorithm, key_id))
            .filter_map(|key| DecodingKey::from_jwk(key).ok())
            .find_map(|key| verified(token, &key, algorithm));
        if let Some(claims) = claims {
            return Ok(claims);
        }
        // The key may have been added since the set was fetched.
        if fetched {
            return Err(INVALID);
        }
        fetched = true;
        if !refresh_keys(keys, &mut cache, now).await? {
            return Err(INVALID);
        }
    }
}

/// Whether a key is meant for signatures of this algorithm and bears the id the token names.
fn may_verify(key: &Jwk, algorithm: Algorithm, key_id: Option<&str>) -> bool {
    let named = &key.common;
    let algorithm_fits = named
        .key_algorithm
        .is_none_or(|named| named == KeyAlgorithm::from(algorithm));
    let use_fits = named
        .public_key_use
        .as_ref()
        .is_none_or(|named| *named == PublicKeyUse::Signature);
    let id_fits = key_id.is_none_or(|id| named.key_id.as_deref() == Some(id));
    algorithm_fits && use_fits && id_fits
}

/// Fetches the key set unless that was just tried; says whether it did. When the provider is away, known keys stay.
async fn refresh_keys(keys: &KeySet, cache: &mut KeyCache, now: Timestamp) -> Result<bool, Error> {
    if !is_past(cache.asked_at, PAUSE_BETWEEN_FETCHES, now) {
        return if cache.fetched_at.is_some() {
            Ok(false)
        } else {
            Err(Error::Unavailable(
                "the key set could not be fetched a moment ago".into(),
            ))
        };
    }
    cache.asked_at = Some(now);
    match fetch_keys(&keys.url).await {
        Ok(fetched) => {
            cache.keys = fetched;
            cache.fetched_at = Some(now);
            Ok(true)
        }
        Err(error) if cache.fetched_at.is_some() => {
            tracing::warn!(cause = %error, "a cached key set is used beyond its time");
            Ok(false)
        }
        Err(error) => Err(Error::Unavailable(error)),
    }
}

async fn fetch_keys(url: &str) -> Result<Vec<Jwk>, BoxError> {
    let (status, body) = http_get(url).await?;
    if !status.is_success() {
        return Err(format!("the key set answered {status}").into());
    }
    let set: Value = serde_json::from_slice(&body)?;
    let keys = set["keys"].as_array().ok_or("the key set has no keys")?;
    // A key of a kind we do not know does not spoil the others.
    Ok(keys
        .iter()
        .filter_map(|key| serde_json::from_value(key.clone()).ok())
        .collect())
}

fn is_past(since: Option<Timestamp>, pause: SignedDuration, now: Timestamp) -> bool {
    since.is_none_or(|since| now.duration_since(since) >= pause)
}

fn principal(claims: &Value) -> Principal {
    let text = |claim: &str| claims[claim].as_str().map(str::to_owned);
    let has = |role: &Role| {
        let in_scope = claims["scope"]
            .as_str()
            .is_some_and(|scope| scope.split_whitespace().any(|word| word == role.as_str()));
        in_scope || is_or_contains(&claims["role"], role.as_str())
    };
    let partner = text("partner").filter(|prefix| super::is_plain(prefix));
    let role = Role::ALL.into_iter().find(has);
    Principal {
        subject: text("sub"),
        role: role.filter(|role| partner.is_none() || *role == Role::Admin),
        partner,
    }
}

fn is_or_contains(claim: &Value, expected: &str) -> bool {
    claim == expected
        || claim
            .as_array()
            .is_some_and(|values| values.iter().any(|value| value == expected))
}

/// Seconds since 1970; a fraction (RFC 7519 allows one) is cut off.
fn numeric_date(claim: &Value) -> Option<i64> {
    let number = claim.as_number()?;
    if let Some(seconds) = number.as_i64() {
        return Some(seconds);
    }
    let text = number.to_string();
    text.split_once('.')?.0.parse().ok()
}

/// Verifies the tokens of the application's backend against `SERVICE_TOKENS` (or `SERVICE_TOKENS_SECRET_ARN`), several
/// at once during a rotation.
#[derive(Debug, Clone)]
pub struct ServiceTokens {
    tokens: Secret,
}

impl ServiceTokens {
    /// Reads the variables above. None being set is found when a token comes.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> ServiceTokens {
        let tokens = Secret::from_env(
            environment,
            sdk,
            "SERVICE_TOKENS",
            "SERVICE_TOKENS_SECRET_ARN",
            Form::List,
        );
        ServiceTokens { tokens }
    }

    /// 401 unless the bearer token is one of them. Compares in constant time, so that the time taken reveals no token.
    pub async fn check(&self, headers: &HeaderMap, now: Timestamp) -> Result<(), Error> {
        // Before the token is looked at: a deployment without tokens is not the caller's fault.
        let mut values = self.tokens.values(now).await?;
        let presented = Sha256::digest(bearer(headers)?.as_bytes());
        for attempt in 0..2 {
            let mut matches = subtle::Choice::from(0);
            for token in values.iter() {
                matches |= Sha256::digest(token.expose_secret().as_bytes()).ct_eq(&presented);
            }
            if matches.into() {
                return Ok(());
            }
            if attempt > 0 || !self.refresh(now).await? {
                break;
            }
            values = self.tokens.values(now).await?;
        }
        Err(INVALID)
    }

    async fn refresh(&self, now: Timestamp) -> Result<bool, secrets::Error> {
        self.tokens.refresh(now).await
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_760_000_000;
    const SECRET: &str = "the host application's own secret";

    fn verifier(pairs: &[(&str, &str)]) -> JwtVerifier {
        let environment = Environment::from_pairs(pairs.iter().copied());
        JwtVerifier::from_env(&environment, &SdkConfig::builder().build())
    }

    fn token(claims: &Value) -> String {
        let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
        encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value.parse().unwrap());
        headers
    }

    async fn status(pairs: &[(&str, &str)], authorization: &str) -> u16 {
        let now = Timestamp::from_second(NOW).unwrap();
        let verifier = verifier(pairs);
        match verifier.authenticate(&headers(authorization), now).await {
            Ok(principal) if principal.role == Some(Role::Admin) => 200,
            Ok(_) => 403,
            Err(error) => error.status().as_u16(),
        }
    }

    async fn status_of(claims: Value) -> u16 {
        let bearer = format!("Bearer {}", token(&claims));
        status(&[("ADMIN_JWT_SECRET", SECRET)], &bearer).await
    }

    #[tokio::test]
    async fn the_role_is_admin_or_contains_it_or_the_scope_has_the_word() {
        let exp = NOW + 1;
        for (claims, expected) in [
            (json!({"exp": exp, "role": "admin"}), 200),
            (json!({"exp": exp, "role": ["user", "admin"]}), 200),
            (json!({"exp": exp, "scope": "read admin"}), 200),
            (json!({"exp": exp, "role": "administrator"}), 403),
            (json!({"exp": exp, "role": "Admin"}), 403),
            (json!({"exp": exp, "role": ["user"]}), 403),
            (json!({"exp": exp, "scope": "admin:read"}), 403),
            (json!({"exp": exp, "role": {"admin": true}}), 403),
            (json!({"exp": exp, "partner": "pk_1"}), 403),
            (json!({"exp": exp}), 403),
        ] {
            assert_eq!(status_of(claims.clone()).await, expected, "{claims}");
        }
    }

    #[test]
    fn the_highest_role_counts_and_a_partners_token_is_the_partners() {
        let own = |prefix: &str| Some(prefix.to_owned());
        for (claims, role, partner) in [
            (json!({"role": "viewer"}), Some(Role::Viewer), None),
            (
                json!({"role": ["viewer", "finance"]}),
                Some(Role::Finance),
                None,
            ),
            (
                json!({"role": "viewer", "scope": "admin"}),
                Some(Role::Admin),
                None,
            ),
            (json!({"scope": "read finance"}), Some(Role::Finance), None),
            (json!({"role": "Viewer", "scope": "viewers"}), None, None),
            (json!({"partner": "dp_pk_alpha"}), None, own("dp_pk_alpha")),
            (
                json!({"partner": "dp_pk_alpha", "role": "viewer"}),
                None,
                own("dp_pk_alpha"),
            ),
            (
                json!({"partner": "dp_pk_alpha", "role": "finance"}),
                None,
                own("dp_pk_alpha"),
            ),
            (
                json!({"partner": "dp_pk_alpha", "role": "admin"}),
                Some(Role::Admin),
                own("dp_pk_alpha"),
            ),
            (json!({"partner": ""}), None, None),
            (json!({"partner": "a\u{0}b"}), None, None),
            (json!({"partner": ["dp_pk_alpha"]}), None, None),
            (json!({"partner": true}), None, None),
        ] {
            let read = principal(&claims);
            assert_eq!((read.role, read.partner), (role, partner), "{claims}");
        }
    }

    #[tokio::test]
    async fn a_token_holds_from_nbf_until_just_before_exp() {
        let role = "admin";
        for (claims, expected) in [
            (json!({"role": role, "exp": NOW}), 401),
            (json!({"role": role, "exp": NOW + 1}), 200),
            (json!({"role": role}), 401),
            (json!({"role": role, "exp": "9999999999"}), 401),
            (json!({"role": role, "exp": null}), 401),
            (json!({"role": role, "exp": 1_760_000_001.5}), 200),
            (json!({"role": role, "exp": 1.0e300}), 401),
            (json!({"role": role, "exp": NOW + 9, "nbf": NOW}), 200),
            (json!({"role": role, "exp": NOW + 9, "nbf": NOW + 1}), 401),
            (json!({"role": role, "exp": NOW + 9, "nbf": "soon"}), 401),
        ] {
            assert_eq!(status_of(claims.clone()).await, expected, "{claims}");
        }
    }

    #[tokio::test]
    async fn audience_and_issuer_are_checked_where_configured() {
        let pairs = [
            ("ADMIN_JWT_SECRET", SECRET),
            ("ADMIN_JWT_AUDIENCE", "billing"),
            ("ADMIN_JWT_ISSUER", "https://login.example.com/"),
        ];
        let issuer = "https://login.example.com/";
        for (aud, iss, expected) in [
            (json!("billing"), json!(issuer), 200),
            (json!(["other", "billing"]), json!(issuer), 200),
            (json!("other"), json!(issuer), 401),
            (Value::Null, json!(issuer), 401),
            (json!("billing"), json!("https://evil.example.com/"), 401),
        ] {
            let claims = json!({"exp": NOW + 9, "role": "admin", "aud": aud, "iss": iss});
            let bearer = format!("Bearer {}", token(&claims));
            assert_eq!(status(&pairs, &bearer).await, expected, "{claims}");
        }
        let claims = json!({"exp": NOW + 9, "role": "admin", "aud": "any", "iss": "any"});
        assert_eq!(
            status_of(claims).await,
            200,
            "nothing configured, nothing checked"
        );
    }

    #[tokio::test]
    async fn only_configured_algorithms_and_keys_are_accepted() {
        let claims = json!({"exp": NOW + 9, "role": "admin"});
        let good = token(&claims);
        let pairs = [("ADMIN_JWT_SECRET", SECRET)];
        assert_eq!(status(&pairs, &format!("bearer {good}")).await, 200);
        let (_, payload_and_signature) = good.split_once('.').unwrap();
        let with_header = |header: Value| {
            use base64::Engine;
            let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
            format!(
                "Bearer {}.{payload_and_signature}",
                engine.encode(header.to_string())
            )
        };
        let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
        let hs512 = encode(&Header::new(Algorithm::HS512), &claims, &key).unwrap();
        let mut critical = Header::new(Algorithm::HS256);
        critical.crit = Some(vec!["exp".to_owned()]);
        let critical = encode(&critical, &claims, &key).unwrap();
        let other = EncodingKey::from_secret(b"another secret").unwrap();
        let forged = encode(&Header::new(Algorithm::HS256), &claims, &other).unwrap();
        for refused in [
            with_header(json!({"alg": "none"})),
            with_header(json!({"alg": "RS256"})),
            with_header(json!({"alg": "HS384"})),
            format!("Bearer {hs512}"),
            format!("Bearer {critical}"),
            format!("Bearer {forged}"),
            format!("Bearer {}", good.rsplit_once('.').unwrap().0),
            format!("Basic {good}"),
            "Bearer".to_owned(),
            "Bearer  ".to_owned(),
            format!("Bearer {}", "x".repeat(TOKEN_BYTES + 1)),
            good.clone(),
        ] {
            assert_eq!(status(&pairs, &refused).await, 401, "{refused:.60}");
        }
        // No secret but a key set: HS256 is not configured, whatever it was signed with.
        let pairs = [("ADMIN_JWKS_URL", "http://127.0.0.1:1/keys")];
        assert_eq!(status(&pairs, &format!("Bearer {good}")).await, 401);
    }

    #[tokio::test]
    async fn a_deployment_without_keys_is_not_the_callers_fault() {
        assert_eq!(status(&[], "Bearer x.y.z").await, 503);
        let tokens =
            ServiceTokens::from_env(&Environment::default(), &SdkConfig::builder().build());
        let error = tokens.check(&HeaderMap::new(), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(error, Err(Error::NotConfigured(_))));
    }

    #[tokio::test]
    async fn a_service_token_is_one_of_several() {
        let environment = Environment::from_pairs([("SERVICE_TOKENS", "old,new")]);
        let tokens = ServiceTokens::from_env(&environment, &SdkConfig::builder().build());
        for (authorization, accepted) in [
            ("Bearer old", true),
            ("Bearer new", true),
            ("Bearer ol", false),
            ("Bearer old,new", false),
            ("Basic old", false),
        ] {
            let headers = headers(authorization);
            let checked = tokens.check(&headers, Timestamp::UNIX_EPOCH);
            assert_eq!(checked.await.is_ok(), accepted, "{authorization}");
        }
        let nobody = HeaderMap::new();
        let missing = tokens.check(&nobody, Timestamp::UNIX_EPOCH);
        assert_eq!(missing.await.unwrap_err().status().as_u16(), 401);
    }
}
