//! A client for Stripe's API. It returns raw JSON, for the same reader that reads events.
//!
//! Uses async-stripe (`async-stripe-client-core`, the core of its clients) for the path, query and form of a request,
//! for which failures may be retried (`Stripe-Should-Retry` and the transient statuses), for what an idempotency key
//! may be, and for the pinned API version. Does not use its ready client: that one ignores `Retry-After` (it drops the
//! headers), reads an answer of any size, opens a connection per request, loses the status of an error it cannot parse,
//! and returns typed objects that reject half of what real accounts return.

use std::fmt;
use std::io::Cursor;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};
pub use stripe_client_core::IdempotencyKey;
use stripe_client_core::{Outcome, RequestBuilder, RequestStrategy, StripeMethod, VERSION};

use crate::account::Account;
use runtime::aws::secrets::{self, Form, Secret};
use runtime::config::{self, BoxError, Environment};
use runtime::deadline::Deadline;

/// The base address of Stripe's API.
const API_BASE: &str = "https://api.stripe.com";
/// The most objects that Stripe returns on one page.
const PAGE_SIZE: u64 = 100;
/// [Stripe's limit](https://docs.stripe.com/rate-limits) for one endpoint, or for a sandbox. A live account may do four
/// times as much, which leaves room for the application and other functions.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(25).expect("more than none");
/// The largest answer that is read. A page of 100 invoices with ten lines each has about 2 MB.
const BODY_BYTES: usize = 16 * 1024 * 1024;
/// An idle connection older than this may have been closed by Stripe, or died while the sandbox was frozen.
const IDLE: Duration = Duration::from_secs(20);
/// The characters of an id that stay unencoded in a path. A plan's id may be any text.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// Why Stripe did not answer a request. `Display` contains no text of Stripe's: it may name people or the key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key is configured.
    #[error("the key of Stripe's API is not available")]
    NoKey(#[source] secrets::Error),
    /// Stripe has no such object. Never a cancellation: an id that is stored here must exist.
    #[error("Stripe knows no such object")]
    NotFound {
        /// The path of the request.
        path: String,
    },
    /// Too many requests, even after the retries, or the required pause is too long.
    #[error("Stripe limits the rate")]
    RateLimited {
        /// What the last `Retry-After` said, if there was one.
        retry_after: Option<Duration>,
    },
    /// The key is wrong, revoked, or lacks the permission.
    #[error("Stripe refuses the key: {status}")]
    Unauthorized {
        /// The HTTP status, 401 or 403.
        status: StatusCode,
    },
    /// Stripe refuses the request; sending it again changes nothing.
    #[error(
        "Stripe refuses the request: {status} {} {}",
        .code.as_deref().unwrap_or("without a code"),
        .param.as_deref().unwrap_or_default()
    )]
    Invalid {
        /// The HTTP status of the answer.
        status: StatusCode,
        /// Stripe's `error.code`, otherwise its `error.type`.
        code: Option<String>,
        /// The parameter at fault, if Stripe names one.
        param: Option<String>,
        /// Stripe's message. Must not be logged.
        message: String,
    },
    /// No answer in time, no connection, or a server error, on each attempt.
    #[error("Stripe is unavailable")]
    Unavailable(#[source] BoxError),
    /// An answer that Stripe would not give, on each attempt.
    #[error("Stripe's answer cannot be read: {0}")]
    Unreadable(&'static str),
    /// The run's deadline came before an answer.
    #[error("Stripe did not answer before the deadline")]
    Deadline,
    /// The object is a test object where live ones are wanted, or the other way round: the key is of the other mode.
    #[error("wrong_mode: the object is of the other mode")]
    WrongMode,
    /// The list is longer than the caller wanted to read.
    #[error("the list goes on beyond the pages that were to be read")]
    MorePages {
        /// The id of the last object read: continue after it.
        after: String,
    },
}

impl Error {
    /// Whether the same request may succeed later without a change by anybody.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::RateLimited { .. }
            | Error::Unavailable(_)
            | Error::Unreadable(_)
            | Error::Deadline => true,
            Error::NoKey(error) => matches!(error, secrets::Error::Unavailable(_)),
            Error::NotFound { .. }
            | Error::Unauthorized { .. }
            | Error::Invalid { .. }
            | Error::WrongMode
            | Error::MorePages { .. } => false,
        }
    }
}

/// How long and how often a request is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The time for one attempt, to the last byte of its answer.
    pub timeout: Duration,
    /// The number of attempts, at least one.
    pub attempts: u32,
    /// The pause before the second attempt. It doubles before each further one; half of it is random.
    pub first_pause: Duration,
    /// The longest pause. A longer `Retry-After` is an error at once.
    pub longest_pause: Duration,
}

impl Default for Patience {
    /// For a scheduled run: 20 s an attempt, 5 attempts, pauses from 0.5 s to 30 s.
    fn default() -> Patience {
        Patience {
            timeout: Duration::from_secs(20),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// Decides when the next attempt may begin.
#[derive(Debug)]
struct Pace {
    /// The time between two attempts.
    interval: Duration,
    free_at: Option<Instant>,
}

impl Pace {
    fn of(requests_per_second: NonZeroU32) -> Pace {
        Pace {
            interval: Duration::from_secs(1) / requests_per_second.get(),
            free_at: None,
        }
    }

    /// Takes the next turn, at `now` or later. Turns are evenly spaced, so that every second, however it is cut, holds
    /// no more of them than allowed.
    fn turn(&mut self, now: Instant) -> Instant {
        let turn = self.free_at.map_or(now, |free_at| free_at.max(now));
        self.free_at = Some(turn + self.interval);
        turn
    }
}

/// A client for Stripe's API with the account's key. Clones share connections and the cached key.
#[derive(Clone)]
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Cursor<Vec<u8>>>>,
    base: String,
    key: Secret,
    account: Account,
    patience: Patience,
    deadline: Deadline,
    /// `None` when nothing limits the rate.
    pace: Option<Arc<Mutex<Pace>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("base", &self.base)
            .field("key", &self.key)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// One page of a list, in Stripe's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The objects of the page.
    pub data: Vec<Value>,
    /// Whether more objects follow the last one.
    pub has_more: bool,
}

impl Client {
    /// Reads `STRIPE_API_BASE` (default: Stripe), `STRIPE_API_KEY` or `STRIPE_API_KEY_SECRET_ARN`, and the variables of
    /// [`Account`]. A missing key is reported when it is needed.
    ///
    /// # Errors
    /// When the base is not an `http` or `https` address, or a variable has another form.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> Result<Client, config::Error> {
        let base = environment.optional("STRIPE_API_BASE");
        let key = Secret::from_env(
            environment,
            sdk,
            "STRIPE_API_KEY",
            "STRIPE_API_KEY_SECRET_ARN",
            Form::Single,
        );
        let client = Client::new(base.as_deref().unwrap_or(API_BASE), key).map_err(|reason| {
            config::Error::Invalid {
                variable: "STRIPE_API_BASE",
                reason: reason.to_string(),
            }
        })?;
        let account = Account::from_env(environment)?;
        Ok(Client { account, ..client })
    }

    /// The API at `base`, such as `https://api.stripe.com`.
    ///
    /// # Errors
    /// When `base` is not an `http` or `https` address.
    pub fn new(base: &str, key: Secret) -> Result<Client, BoxError> {
        let base = base.trim_end_matches('/');
        let address: http::Uri = base.parse()?;
        if !matches!(address.scheme_str(), Some("http" | "https")) || address.query().is_some() {
            return Err("an address that begins with http:// or https://".into());
        }
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(runtime::tls::client_config(None)?)
            .https_or_http()
            .enable_http1()
            .build();
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        let client = Client {
            http,
            base: base.to_owned(),
            key,
            account: Account::default(),
            patience: Patience::default(),
            deadline: Deadline::default(),
            pace: None,
        };
        // Stripe itself always uses TLS. A server without it is a fake, and has no limit.
        Ok(if address.scheme_str() == Some("https") {
            client.with_requests_per_second(REQUESTS_PER_SECOND)
        } else {
            client
        })
    }

    /// Whether there is a key, or a place to fetch it from.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_configured()
    }

    /// The same client with another patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Client {
        self.patience = patience;
        self
    }

    /// The same client for a run with this deadline: it never waits beyond it, however patient it is.
    #[must_use]
    pub fn until(mut self, deadline: Deadline) -> Client {
        self.deadline = deadline;
        self
    }

    /// The same client with a limit on the attempts per second, shared by all its later clones.
    #[must_use]
    pub fn with_requests_per_second(mut self, requests: NonZeroU32) -> Client {
        self.pace = Some(Arc::new(Mutex::new(Pace::of(requests))));
        self
    }

    /// Retrieves one object with `GET`: `["invoices", id]`, with the fields in `expand` expanded.
    pub async fn retrieve(
        &self,
        path: &[&str],
        expand: &[&str],
        now: Timestamp,
    ) -> Result<Value, Error> {
        let mut request = RequestBuilder::new(StripeMethod::Get, joined(path));
        if !expand.is_empty() {
            request = request.query(&serde_json::json!({ "expand": expand }));
        }
        let answer = self.send(&request, None, now).await?;
        self.ours(answer)
    }

    /// Reads one page of the list at `path`, such as `["charges"]` or `["invoices", id, "lines"]`. `params` are
    /// Stripe's: `{"created": {"gte": 1700000000}, "expand": ["data.discounts"]}`. Without a `limit` the page has 100
    /// objects.
    pub async fn list(
        &self,
        path: &[&str],
        params: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Page, Error> {
        let mut params = params.clone();
        params.entry("limit").or_insert(PAGE_SIZE.into());
        let request = RequestBuilder::new(StripeMethod::Get, joined(path)).query(&params);
        let mut answer = self.send(&request, None, now).await?;
        let has_more = answer.get("has_more").and_then(Value::as_bool);
        match (answer.get_mut("data").map(Value::take), has_more) {
            // Each event is judged for itself, as when it is delivered.
            (Some(Value::Array(data)), Some(_))
                if path != ["events"]
                    && data.iter().any(|one| self.account.is_foreign_object(one)) =>
            {
                Err(Error::WrongMode)
            }
            (Some(Value::Array(data)), Some(has_more)) => Ok(Page { data, has_more }),
            _ => Err(Error::Unreadable("a list has no data or no has_more")),
        }
    }

    /// Reads the pages of that list one after the other, at most `at_most` of them. A `starting_after` in `params` says
    /// where to begin.
    pub fn pages<'a>(
        &'a self,
        path: &'a [&'a str],
        params: Map<String, Value>,
        at_most: u32,
        now: Timestamp,
    ) -> Pages<'a> {
        Pages {
            client: self,
            path,
            params,
            left: at_most,
            is_over: false,
            now,
        }
    }

    /// Sends a form with `POST`. The same key with the same form changes Stripe once, however often it is sent; a
    /// second call with the key returns the first answer.
    ///
    /// # Errors
    /// After [`Error::Unavailable`] or [`Error::Unreadable`] the change may have happened: ask again with the same key.
    pub async fn post(
        &self,
        path: &[&str],
        form: &impl Serialize,
        idempotency_key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Value, Error> {
        let request = RequestBuilder::new(StripeMethod::Post, joined(path)).form(form);
        let answer = self.send(&request, Some(idempotency_key), now).await?;
        self.ours(answer)
    }

    fn ours(&self, object: Value) -> Result<Value, Error> {
        if self.account.is_foreign_object(&object) {
            return Err(Error::WrongMode);
        }
        Ok(object)
    }

    /// Whether Stripe answers and accepts the key.
    pub async fn check(&self, now: Timestamp) -> Result<(), Error> {
        let mut params = Map::new();
        params.insert("limit".to_owned(), 1.into());
        self.list(&["events"], &params, now).await?;
        Ok(())
    }

    async fn send(
        &self,
        request: &RequestBuilder,
        idempotency_key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<Value, Error> {
        let answer = self.send_with_new_keys(request, idempotency_key, now);
        self.deadline
            .cut(answer)
            .await
            .unwrap_or(Err(Error::Deadline))
    }

    /// Tries each key in turn while Stripe refuses them, then once more when the stored secret has changed.
    async fn send_with_new_keys(
        &self,
        request: &RequestBuilder,
        idempotency_key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<Value, Error> {
        let answer = self.send_with_keys(request, idempotency_key, now).await;
        if is_refused_key(&answer) && self.key.refresh(now).await.map_err(Error::NoKey)? {
            return self.send_with_keys(request, idempotency_key, now).await;
        }
        answer
    }

    async fn send_with_keys(
        &self,
        request: &RequestBuilder,
        idempotency_key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<Value, Error> {
        let mut answer = Err(Error::Unauthorized {
            status: StatusCode::UNAUTHORIZED,
        });
        for key in self.key.values(now).await.map_err(Error::NoKey)?.iter() {
            answer = self.send_patiently(request, idempotency_key, key).await;
            if !is_refused_key(&answer) {
                break;
            }
        }
        answer
    }

    async fn send_patiently(
        &self,
        request: &RequestBuilder,
        idempotency_key: Option<&IdempotencyKey>,
        key: &SecretString,
    ) -> Result<Value, Error> {
        let strategy = RequestStrategy::Retry(self.patience.attempts.max(1));
        let mut attempt = 1;
        loop {
            self.wait_for_turn().await;
            let sent = self.attempt(request, idempotency_key, key);
            let failed = match tokio::time::timeout(self.patience.timeout, sent).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failed)) => failed,
                Err(elapsed) => Failed::from(Error::Unavailable(elapsed.into())),
            };
            if strategy.test(failed.status, failed.should_retry, attempt) == Outcome::Stop {
                return Err(failed.error);
            }
            let pause = match failed.retry_after {
                Some(asked) if asked > self.patience.longest_pause => return Err(failed.error),
                Some(asked) => asked.max(self.patience.pause(attempt)),
                None => self.patience.pause(attempt),
            };
            tracing::debug!(
                path = %request.path,
                attempt,
                pause_ms = pause.as_millis(),
                cause = runtime::telemetry::cause_chain(&failed.error),
                "Stripe is asked again"
            );
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Waits for the next turn. Stripe's limit belongs to the account: without waiting, a fast run would take it from
    /// everybody else.
    async fn wait_for_turn(&self) {
        let Some(pace) = &self.pace else {
            return;
        };
        let now = Instant::now();
        let turn = pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .turn(now);
        if turn > now {
            tokio::time::sleep_until(turn.into()).await;
        }
    }

    async fn attempt(
        &self,
        request: &RequestBuilder,
        idempotency_key: Option<&IdempotencyKey>,
        key: &SecretString,
    ) -> Result<Value, Failed> {
        let request = self
            .http_request(request, idempotency_key, key)
            .map_err(Failed::for_good)?;
        let path = request.uri().path().to_owned();
        let answer = self
            .http
            .request(request)
            .await
            .map_err(|error| Failed::from(Error::Unavailable(error.into())))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BODY_BYTES).collect().await;
        let Ok(body) = body.map(http_body_util::Collected::to_bytes) else {
            // An error whose body is too large is still an error.
            return Err(failed(head.status, &head.headers, path, None)
                .unwrap_or_else(|| Error::Unreadable("it is cut off or too large").into()));
        };
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        if let Some(failed) = failed(head.status, &head.headers, path, body.as_ref()) {
            return Err(failed);
        }
        body.filter(Value::is_object)
            .ok_or_else(|| Error::Unreadable("it is not a JSON object").into())
    }

    fn http_request(
        &self,
        request: &RequestBuilder,
        idempotency_key: Option<&IdempotencyKey>,
        key: &SecretString,
    ) -> Result<http::Request<Full<Cursor<Vec<u8>>>>, Error> {
        // A key that cannot be sent as a header is useless.
        let Ok(mut authorization) =
            HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
        else {
            return Err(Error::Unauthorized {
                status: StatusCode::UNAUTHORIZED,
            });
        };
        authorization.set_sensitive(true);
        let query = request.query.as_ref().map(|query| format!("?{query}"));
        let address = format!(
            "{}/v1{}{}",
            self.base,
            request.path,
            query.unwrap_or_default()
        );
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let mut http = http::Request::builder()
            .method(method)
            .uri(address)
            .header(AUTHORIZATION, authorization)
            .header(
                USER_AGENT,
                concat!("deedpro-billing/", env!("CARGO_PKG_VERSION")),
            )
            .header("stripe-version", VERSION.as_str());
        if let Some(key) = idempotency_key {
            http = http.header("idempotency-key", key.as_str());
        }
        if request.body.is_some() {
            http = http.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = request.body.clone().unwrap_or_default().into_bytes();
        http.body(Full::new(Cursor::new(body)))
            .map_err(|error| Error::Invalid {
                status: StatusCode::BAD_REQUEST,
                code: None,
                param: None,
                message: error.to_string(),
            })
    }
}

/// The pages of a list, read on demand: never more than one is in memory.
#[derive(Debug)]
pub struct Pages<'a> {
    client: &'a Client,
    path: &'a [&'a str],
    params: Map<String, Value>,
    left: u32,
    is_over: bool,
    now: Timestamp,
}

impl Pages<'_> {
    /// The objects of the next page; `None` after the last page.
    ///
    /// # Errors
    /// After an error the next call asks for the same page again. [`Error::MorePages`] when the list continues after
    /// the pages that were to be read, so that a part is never taken for the whole.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Value>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let before = self.params.get("starting_after").and_then(Value::as_str);
        if self.left == 0 {
            let after = before.unwrap_or_default().to_owned();
            return Err(Error::MorePages { after });
        }
        let page = self.client.list(self.path, &self.params, self.now).await?;
        let last = page.data.last().and_then(|last| last.get("id")?.as_str());
        if page.has_more {
            match last {
                // With the same cursor the loop would never end.
                Some(last) if Some(last) != before => {
                    let last = last.to_owned();
                    self.params.insert("starting_after".to_owned(), last.into());
                }
                _ => return Err(Error::Unreadable("a list goes on from nowhere")),
            }
        }
        self.is_over = !page.has_more;
        self.left -= 1;
        Ok(Some(page.data))
    }
}

impl Patience {
    /// The pause after an attempt: twice the one before, half of it random, so that two runs that collided do not
    /// collide again.
    fn pause(&self, attempt: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let whole = self
            .first_pause
            .saturating_mul(doubled)
            .min(self.longest_pause);
        let half = whole / 2;
        let chance = fastrand::u64(0..=u64::try_from(half.as_nanos()).unwrap_or(u64::MAX));
        half + Duration::from_nanos(chance)
    }
}

/// A failed attempt, and what decides whether there is another one.
struct Failed {
    error: Error,
    /// `None` when the network failed or the answer is unreadable; both are retried.
    status: Option<u16>,
    should_retry: Option<bool>,
    retry_after: Option<Duration>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed {
            error,
            status: None,
            should_retry: None,
            retry_after: None,
        }
    }
}

impl Failed {
    fn for_good(error: Error) -> Failed {
        Failed {
            should_retry: Some(false),
            ..Failed::from(error)
        }
    }
}

/// The error for an answer that is not 2xx, by [Stripe's error object](https://docs.stripe.com/api/errors).
fn failed(
    status: StatusCode,
    headers: &HeaderMap,
    path: String,
    body: Option<&Value>,
) -> Option<Failed> {
    if status.is_success() {
        return None;
    }
    let header = |name: &str| headers.get(name)?.to_str().ok();
    // Stripe sends whole seconds. A date would come from a proxy, and is not worth a clock.
    let retry_after = header(RETRY_AFTER.as_str())
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_secs);
    let stripe = body.and_then(|body| body.get("error")?.as_object());
    let text = |name: &str| Some(stripe?.get(name)?.as_str()?.to_owned());
    let code = text("code").or_else(|| text("type"));
    let error = match status {
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { retry_after },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized { status },
        _ if status.is_server_error() => Error::Unavailable(format!("it answered {status}").into()),
        // A 404 from something other than Stripe, or for a path it does not have, says nothing about the object.
        StatusCode::NOT_FOUND if code.as_deref() == Some("resource_missing") => {
            Error::NotFound { path }
        }
        _ if stripe.is_some() && status.is_client_error() => Error::Invalid {
            status,
            code,
            param: text("param"),
            message: text("message").unwrap_or_default(),
        },
        _ => Error::Unreadable("it is an error, but not one of Stripe's"),
    };
    Some(Failed {
        error,
        status: Some(status.as_u16()),
        should_retry: header("stripe-should-retry").and_then(|text| text.parse().ok()),
        retry_after,
    })
}

fn is_refused_key(answer: &Result<Value, Error>) -> bool {
    matches!(
        answer,
        Err(Error::Unauthorized { status }) if *status == StatusCode::UNAUTHORIZED
    )
}

/// The path `/invoices/in_1`, each segment encoded: an id never leads to another path.
fn joined(path: &[&str]) -> String {
    path.iter()
        .flat_map(|segment| {
            [
                "/".to_owned(),
                utf8_percent_encode(segment, PATH).to_string(),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(base: &str) -> Result<Client, config::Error> {
        let sdk = SdkConfig::builder().build();
        let environment = Environment::from_pairs([
            ("STRIPE_API_BASE", base),
            ("STRIPE_API_KEY", "sk_test_secretive"),
        ]);
        Client::from_env(&environment, &sdk)
    }

    #[test]
    fn an_id_stays_one_segment_of_the_path() {
        assert_eq!(
            joined(&["invoices", "in_1-a", "lines"]),
            "/invoices/in_1-a/lines"
        );
        assert_eq!(
            joined(&["plans", "../charges?limit=1 é"]),
            "/plans/%2E%2E%2Fcharges%3Flimit%3D1%20%C3%A9"
        );
    }

    #[test]
    fn the_base_is_stripe_unless_configured_and_the_key_is_never_shown() {
        let shown = format!("{:?}", client("").unwrap());
        assert!(shown.contains("\"https://api.stripe.com\""), "{shown}");
        assert!(!shown.contains("secretive"), "{shown}");
        assert!(client("http://localhost:1/").is_ok());
        for base in ["api.stripe.com", "ftp://stripe", "http://a b"] {
            let error = client(base).unwrap_err().to_string();
            assert!(error.contains("STRIPE_API_BASE"), "{error}");
        }
    }

    #[test]
    fn a_request_carries_the_version_and_a_key_that_is_marked_as_a_secret() {
        let request = RequestBuilder::new(StripeMethod::Get, "/charges")
            .query(&serde_json::json!({"created": {"gte": 5}, "expand": ["data.refunds"]}));
        let request = client("http://localhost:1")
            .unwrap()
            .http_request(&request, None, &"sk_test_secretive".into())
            .unwrap();
        assert_eq!(request.headers()["stripe-version"], "2026-09-30.endive");
        assert!(!format!("{request:?}").contains("secretive"));
        let address = request.uri().to_string();
        let address = percent_encoding::percent_decode_str(&address).decode_utf8_lossy();
        assert_eq!(
            address,
            "http://localhost:1/v1/charges?created[gte]=5&expand[0]=data.refunds"
        );
    }

    #[test]
    fn no_second_holds_more_turns_than_it_may() {
        let start = Instant::now();
        let mut pace = Pace::of(REQUESTS_PER_SECOND);
        // Many at once, a single one after a pause, and one between two turns.
        let mut turns: Vec<Instant> = (0..60).map(|_| pace.turn(start)).collect();
        assert_eq!(turns[0], start);
        assert_eq!(turns[59], start + Duration::from_millis(59 * 40));
        let rested = start + Duration::from_secs(60);
        turns.push(pace.turn(rested));
        turns.push(pace.turn(rested + Duration::from_millis(10)));
        assert_eq!(turns[60], rested);
        assert_eq!(turns[61], rested + Duration::from_millis(40));
        for from in &turns {
            let until = *from + Duration::from_secs(1);
            let within = turns.iter().filter(|turn| (from..&until).contains(turn));
            assert!(within.count() <= 25);
        }
    }

    #[test]
    fn stripe_is_asked_at_its_rate_and_a_fake_as_fast_as_it_answers() {
        for (base, interval) in [
            ("", Some(Duration::from_millis(40))),
            ("https://proxy.example.com", Some(Duration::from_millis(40))),
            ("http://127.0.0.1:1", None),
        ] {
            let client = client(base).unwrap();
            let pace = client.pace.map(|pace| pace.lock().unwrap().interval);
            assert_eq!(pace, interval, "{base}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_at_least_half() {
        let patience = Patience::default();
        for (attempt, milliseconds) in [(1, 500), (2, 1_000), (4, 4_000), (40, 30_000)] {
            let whole = Duration::from_millis(milliseconds);
            for _ in 0..100 {
                let pause = patience.pause(attempt);
                assert!(pause >= whole / 2 && pause <= whole, "{attempt}: {pause:?}");
            }
        }
    }

    #[test]
    fn an_error_is_read_by_status_and_code_and_says_nothing_stripe_wrote() {
        let cases = [
            (
                404,
                r#"{"error":{"code":"resource_missing"}}"#,
                "Stripe knows no such object",
            ),
            (
                404,
                r#"{"error":{"type":"invalid_request_error","message":"Unrecognized URL"}}"#,
                "Stripe refuses the request: 404 Not Found invalid_request_error ",
            ),
            (
                404,
                "<html>",
                "Stripe's answer cannot be read: it is an error, but not one of Stripe's",
            ),
            (
                302,
                r#"{"error":{}}"#,
                "Stripe's answer cannot be read: it is an error, but not one of Stripe's",
            ),
            (403, "{}", "Stripe refuses the key: 403 Forbidden"),
            (429, "", "Stripe limits the rate"),
            (503, "", "Stripe is unavailable"),
            (
                402,
                r#"{"error":{"code":"card_declined","param":"source","message":"Jane's card"}}"#,
                "Stripe refuses the request: 402 Payment Required card_declined source",
            ),
        ];
        for (status, body, said) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let body: Option<Value> = serde_json::from_str(body).ok();
            let failed = failed(status, &HeaderMap::new(), String::new(), body.as_ref());
            assert_eq!(failed.unwrap().error.to_string(), said);
        }
        assert!(failed(StatusCode::OK, &HeaderMap::new(), String::new(), None).is_none());
    }
}
