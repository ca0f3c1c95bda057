//! Every route of a table with every kind of token.

use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use runtime::api::router::Route;

/// What a kind of token gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in: whatever is wrong then is the request.
    In,
    /// 401: the token does not hold, or is of a kind the route does not take.
    Unknown,
    /// 403: the token holds, but its role or prefix does not allow this route.
    Refused,
}

/// The kinds of token, in the order of a [`Row`]'s verdicts.
pub const TOKENS: [&str; 9] = [
    "none",
    "garbage",
    "expired",
    "service",
    "viewer",
    "finance",
    "admin",
    "the partner's own",
    "another partner's",
];

/// What a route answers each of the nine tokens.
pub type Row = [Verdict; 9];

use Verdict::{In, Refused as No, Unknown as Q};

/// Lets every caller in: a signature is checked later.
pub const PUBLIC: Row = [In, In, In, In, In, In, In, In, In];
/// Lets in the application's backend alone.
pub const SERVICE: Row = [Q, Q, Q, In, Q, Q, Q, Q, Q];
/// Lets staff with any role in.
pub const VIEWER: Row = [Q, Q, Q, Q, In, In, In, No, No];
/// Lets in staff with the role `finance` or `admin`.
pub const FINANCE: Row = [Q, Q, Q, Q, No, In, In, No, No];
/// Lets in staff with the role `admin`.
pub const ADMIN: Row = [Q, Q, Q, Q, No, No, In, No, No];
/// Lets in staff and every partner; the handler shows a partner its own rows only.
pub const VIEWER_OR_PARTNER: Row = [Q, Q, Q, Q, In, In, In, In, In];
/// Lets in the backend, staff, and the partner whose prefix the path names.
pub const PARTNER: Row = [Q, Q, Q, In, In, In, In, In, No];

/// Tokens of each kind, as `Authorization` has them.
pub fn tokens(
    jwt_secret: &str,
    service_token: &str,
    prefix: &str,
    now: Timestamp,
) -> [Option<String>; 9] {
    let jwt = |claims: Value, seconds: i64| {
        let mut claims = claims;
        claims["exp"] = (now.as_second() + seconds).into();
        claims["sub"] = "u1".into();
        let token = EncodingKey::from_secret(jwt_secret.as_bytes())
            .and_then(|key| jsonwebtoken::encode(&Header::default(), &claims, &key));
        Some(format!("Bearer {}", token.unwrap_or_default()))
    };
    [
        None,
        Some("Bearer garbage".to_owned()),
        jwt(json!({"role": "admin", "partner": prefix}), 0),
        Some(format!("Bearer {service_token}")),
        jwt(json!({"role": "viewer"}), 60),
        jwt(json!({"role": ["user", "finance"]}), 60),
        jwt(json!({"scope": "read admin"}), 60),
        jwt(json!({"partner": prefix, "role": "viewer"}), 60),
        jwt(json!({"partner": format!("{prefix}x")}), 60),
    ]
}

/// Calls each route with each kind of token; `ask` answers the status.
///
/// # Panics
/// When a route has no row, a row has no route, or a token gets another verdict.
pub async fn check(
    table: &[Route],
    rows: &[(&str, Row)],
    tokens: &[Option<String>; 9],
    mut ask: impl AsyncFnMut(&Route, Option<&str>) -> u16,
) {
    let named = |route: &Route| format!("{} {}", route.method, route.path);
    for (name, _) in rows {
        assert!(
            table.iter().any(|route| named(route) == *name),
            "{name} is no route"
        );
    }
    for route in table {
        let name = named(route);
        let row = rows.iter().find(|(known, _)| *known == name);
        let Some((_, row)) = row else {
            panic!("{name} has no row: who may call it?");
        };
        for ((kind, token), expected) in TOKENS.iter().zip(tokens).zip(row) {
            let status = ask(route, token.as_deref()).await;
            let verdict = match status {
                401 => Verdict::Unknown,
                403 => Verdict::Refused,
                _ => Verdict::In,
            };
            assert_eq!(verdict, *expected, "{name} with {kind}: {status}");
        }
    }
}
