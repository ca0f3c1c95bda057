//! Requests that cannot succeed, and what the refusals tell.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use shared::config::Environment;
use shared::contract;

use crate::bundle::{Bundle, Route};
use crate::gateway::{self, Incoming};
use crate::{Error, token};

const SECRET: &str = "of the prober alone";
const SERVICE_TOKEN: &str = "service-token-of-the-prober";
/// What stands for every `{…}` of a path that has no words of its own.
const ANY: &str = "7";
const UNKNOWN: &str = "surely_unknown";

/// What the refusals of a route tell.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The kinds of token it lets through; none when it takes none.
    pub(super) security: Vec<&'static str>,
    /// Parameters of the query, and the words one may have.
    pub(super) parameters: BTreeMap<String, BTreeSet<String>>,
    /// Members of the body.
    pub(super) members: BTreeSet<String>,
    /// Whether an `Idempotency-Key` has to be there; `None` when it is not looked at.
    pub(super) key_required: Option<bool>,
    /// It reserves units, which may have to be paid for.
    pub(super) can_require_payment: bool,
}

/// The functions, with a database and services that are not there: what is asked is answered before they are needed.
pub(super) struct Prober {
    bundle: Bundle,
    now: Timestamp,
    tokens: [(&'static str, String); 3],
}

struct Refusal {
    status: u64,
    code: String,
    field: String,
    detail: String,
}

impl Prober {
    pub(super) fn new(now: Timestamp) -> Result<Prober, Error> {
        let environment = Environment::from_pairs([
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
            ("ADMIN_JWT_SECRET", SECRET),
            ("SERVICE_TOKENS", SERVICE_TOKEN),
            ("STRIPE_WEBHOOK_SECRETS", "whsec_of_the_prober"),
            ("STRIPE_API_KEY", "rk_of_the_prober"),
            ("STRIPE_API_BASE", "http://127.0.0.1:1"),
            ("PARKED_EVENTS_TABLE", "none"),
            ("DOCUMENT_BUCKET", "none"),
            ("EVENT_BUS_NAME", "none"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ACCESS_KEY_ID", "none"),
            ("AWS_SECRET_ACCESS_KEY", "none"),
        ]);
        let sdk = shared::aws::sdk_config(&environment);
        let bundle = Bundle::new(&environment, &sdk)
            .map_err(|error| Error::because("the functions cannot be asked", error))?;
        let tokens = [
            ("admin", token::admin(SECRET, now)?),
            ("partner", partner(now)?),
            ("service", SERVICE_TOKEN.to_owned()),
        ];
        Ok(Prober {
            bundle,
            now,
            tokens,
        })
    }

    /// `words` are the values that a segment of the path may have, by its name.
    pub(super) async fn ask(&self, route: Route, words: &Value) -> Result<Asked, Error> {
        let mut asked = Asked::default();
        let nobody = self.refusal(route, words, 0, "", None, None).await?;
        if nobody.as_ref().is_some_and(|refusal| refusal.status == 401) {
            for (name, token) in &self.tokens {
                let query = format!("{UNKNOWN}=1");
                let refusal = self
                    .refusal(route, words, 0, &query, Some(token), None)
                    .await?;
                if refusal.is_none_or(|refusal| !matches!(refusal.status, 401 | 403)) {
                    asked.security.push(name);
                }
            }
            if asked.security.is_empty() {
                return Err(Error::new(format!("nobody may use {}", route.path)));
            }
        }
        let token = self
            .tokens
            .iter()
            .find(|(name, _)| asked.security.contains(name))
            .map(|(_, token)| token.as_str());
        let values = words.as_object().into_iter().flatten();
        let values = values.filter_map(|(_, words)| words.as_array());
        let values = values.map(Vec::len).max().unwrap_or(1);
        for value in 0..values {
            self.ask_query(route, words, value, token, &mut asked)
                .await?;
        }
        if route.method != "GET" && !asked.security.is_empty() {
            self.ask_body(route, words, token, &mut asked).await?;
        }
        Ok(asked)
    }

    async fn ask_query(
        &self,
        route: Route,
        words: &Value,
        value: usize,
        token: Option<&str>,
        asked: &mut Asked,
    ) -> Result<(), Error> {
        let query = format!("{UNKNOWN}=1");
        let refusal = self
            .refusal(route, words, value, &query, token, None)
            .await?;
        let Some(refusal) = refusal.filter(|refusal| refusal.code == "unknown_parameter") else {
            return Ok(());
        };
        for name in list_after(&refusal.detail, "known parameters: ") {
            let query = format!("{name}=~");
            let refusal = self
                .refusal(route, words, value, &query, token, None)
                .await?;
            let one_of = refusal.filter(|refusal| refusal.field == name);
            let found = one_of.map(|refusal| list_after(&refusal.detail, "one of "));
            asked
                .parameters
                .entry(name)
                .or_default()
                .extend(found.into_iter().flatten());
        }
        Ok(())
    }

    async fn ask_body(
        &self,
        route: Route,
        words: &Value,
        token: Option<&str>,
        asked: &mut Asked,
    ) -> Result<(), Error> {
        let unknown = json!({ UNKNOWN: 1 });
        let without_key = self
            .refusal(route, words, 0, "", token, Some((&unknown, None)))
            .await?;
        let is_missing = without_key.is_some_and(|refusal| refusal.code == "missing_header");
        let too_long = "k".repeat(256);
        let long_key = self
            .refusal(
                route,
                words,
                0,
                "",
                token,
                Some((&unknown, Some(&too_long))),
            )
            .await?;
        let is_read = long_key.is_some_and(|refusal| refusal.field == "Idempotency-Key");
        asked.key_required = (is_missing || is_read).then_some(is_missing);
        let refusal = self
            .refusal(route, words, 0, "", token, Some((&unknown, Some("a-key"))))
            .await?;
        let Some(refusal) = refusal.filter(|refusal| refusal.status == 422) else {
            return Err(Error::new(format!(
                "{} {} says nothing of the members of its body",
                route.method, route.path
            )));
        };
        asked.members = match refusal.detail.as_str() {
            // The contract says what it knows itself.
            "no such member" => contract::MEMBERS.map(str::to_owned).into(),
            "no member that can be changed" => contract::MEMBERS
                .iter()
                .filter(|name| **name != "api_key_prefix")
                .map(|name| (*name).to_owned())
                .collect(),
            detail => list_after(detail, "known members: ").into_iter().collect(),
        };
        asked.can_require_payment = asked.members.contains("accept_overage");
        Ok(())
    }

    /// What the function answers; `None` when it is no problem.
    async fn refusal(
        &self,
        route: Route,
        words: &Value,
        value: usize,
        query: &str,
        token: Option<&str>,
        body: Option<(&Value, Option<&str>)>,
    ) -> Result<Option<Refusal>, Error> {
        let unusable = |what: &str| Error::new(format!("{what} of a probe of {}", route.path));
        let mut parameters = BTreeMap::new();
        let mut path = String::new();
        for segment in route.path.split('/').skip(1) {
            let name = segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            let segment = match name {
                Some(name) => {
                    let word = words[name].get(value).and_then(Value::as_str);
                    let word = word.unwrap_or(ANY).to_owned();
                    parameters.insert(name.to_owned(), word.clone());
                    word
                }
                None => segment.to_owned(),
            };
            path.push('/');
            path.push_str(&segment);
        }
        let uri = if query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        };
        let uri: Uri = uri
            .parse()
            .map_err(|error| Error::because("no address", error))?;
        let method = Method::from_bytes(route.method.as_bytes())
            .map_err(|error| Error::because("no method", error))?;
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|error| Error::because("no token", error))?;
            headers.insert("authorization", bearer);
        }
        if let Some((_, Some(key))) = body {
            let key =
                HeaderValue::from_str(key).map_err(|error| Error::because("no key", error))?;
            headers.insert("idempotency-key", key);
        }
        let body = body.map(|(body, _)| body.to_string()).unwrap_or_default();
        let incoming = Incoming {
            method: &method,
            uri: &uri,
            headers: &headers,
            body: body.as_bytes(),
            source_ip: "127.0.0.1",
        };
        let event = gateway::event(&incoming, route, &parameters, "probe", self.now);
        // Boxed: the compiler gives up on the nesting of the types otherwise.
        let answer = Box::pin(self.bundle.invoke(route.function, event, self.now))
            .await
            .map_err(|error| Error::because("a probe failed", error))?;
        let status = answer["statusCode"]
            .as_u64()
            .ok_or_else(|| unusable("no status"))?;
        if status < 400 {
            return Ok(None);
        }
        let text = answer["body"].as_str().unwrap_or_default();
        let problem: Value = serde_json::from_str(text).unwrap_or_default();
        let member = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        Ok(Some(Refusal {
            status,
            code: member("code"),
            field: member("field"),
            detail: member("detail"),
        }))
    }
}

/// The words of `known parameters: from, to`; none when the text says something else.
fn list_after(detail: &str, start: &str) -> Vec<String> {
    let list = detail.strip_prefix(start);
    list.into_iter()
        .flat_map(|list| list.split(", "))
        .map(str::to_owned)
        .collect()
}

/// A token of the partner that [`ANY`] is the prefix of.
fn partner(now: Timestamp) -> Result<String, Error> {
    let expires = now.saturating_add(SignedDuration::from_hours(1));
    let expires = expires.map_err(|error| Error::because("no time is left", error))?;
    let claims = json!({"sub": "prober", "partner": ANY, "exp": expires.as_second()});
    EncodingKey::from_secret(SECRET.as_bytes())
        .and_then(|key| jsonwebtoken::encode(&Header::default(), &claims, &key))
        .map_err(|error| Error::because("cannot sign a token", error))
}
