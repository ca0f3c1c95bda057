//! The account over HTTP: `/v1` as Stripe answers it, `/_fake` to control it, webhooks out.
//!
//! The configured [`Shape`] decides how everything is rendered, answers and webhooks alike; a
//! `Stripe-Version` header is accepted and ignored, so that a client with a fixed version can be
//! tested against every shape.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::Shape;
use super::account::{Account, Refusal};
use super::delivery::{Delivery, Endpoint, http_client, post, thin};
use super::form::Form;
use super::journal::{Journal, Request};
use super::{api, control};

/// How a fake Stripe starts.
pub struct Options {
    /// The account that is served.
    pub account: Account,
    /// The API shape of its answers and events.
    pub shape: Shape,
    /// The only key it accepts; none accepts any key, but not a missing one.
    pub api_key: Option<String>,
    /// Where webhooks go; none sends none.
    pub webhook: Option<Endpoint>,
    /// Whether the events the account starts with are delivered too.
    pub deliver_existing: bool,
    /// The waits before the second and later attempts of a delivery.
    pub retry_delays: Vec<Duration>,
    /// The time signatures carry: the receiver's, not the account's.
    pub clock: fn() -> Timestamp,
    /// The file of what is asked of the account from start to start: what it holds has happened to `account`
    /// already. None forgets. Operations of [`FakeStripe::with_account`] are not kept.
    pub journal: Option<PathBuf>,
}

impl Options {
    /// An account served in the newest shape to any key, without webhooks.
    #[must_use]
    pub fn new(account: Account, clock: fn() -> Timestamp) -> Options {
        Options {
            account,
            shape: Shape::Endive,
            api_key: None,
            webhook: None,
            deliver_existing: false,
            retry_delays: vec![
                Duration::from_millis(200),
                Duration::from_secs(1),
                Duration::from_secs(5),
            ],
            clock,
            journal: None,
        }
    }
}

/// Something that goes wrong on purpose, `times` times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Requests whose path begins with `path` are answered with `status` (429, 500, …).
    Status {
        /// HTTP status of the answers.
        status: u16,
        /// Seconds, for the `Retry-After` header.
        retry_after: Option<u32>,
        /// The beginning of the path; empty for every request under `/v1`.
        #[serde(default)]
        path: String,
        /// How many requests it hits.
        times: u32,
    },
    /// Requests are answered late.
    Latency {
        /// Delay of each answer.
        milliseconds: u64,
        #[serde(default)]
        path: String,
        times: u32,
    },
    /// Requests are never answered.
    Hang {
        #[serde(default)]
        path: String,
        times: u32,
    },
    /// Requests are answered with 200 and what is no JSON.
    Garbage {
        #[serde(default)]
        path: String,
        times: u32,
    },
    /// Answers are cut off in the middle.
    CutOff {
        #[serde(default)]
        path: String,
        times: u32,
    },
    /// Events are never delivered.
    DropDeliveries { times: u32 },
    /// Events are delivered twice.
    DuplicateDeliveries { times: u32 },
}

/// What the fake Stripe knows.
pub(super) struct State {
    pub(super) account: Account,
    pub(super) shape: Shape,
    pub(super) webhook: Option<Endpoint>,
    pub(super) faults: Vec<Fault>,
    pub(super) deliveries: VecDeque<Delivery>,
    /// Places of events to be delivered again.
    pub(super) resend: Vec<usize>,
    /// How many events have been handed to delivery.
    handed_over: usize,
    /// Answers given per idempotency key, with the digest of the request they answered.
    answered: BTreeMap<String, (String, StatusCode, Value)>,
    requests: u64,
    journal: Option<Journal>,
}

impl State {
    /// Does again what the journal holds, and goes on from where the account is now.
    fn resume(&mut self, path: &Path) -> std::io::Result<()> {
        let (journal, entries) = Journal::open(path)?;
        let (now, prefix) = (self.account.now(), self.account.prefix().to_owned());
        for entry in entries {
            entry.set(&mut self.account);
            drop(self.answer(&entry.request));
        }
        self.account.set_now(now);
        self.account.set_prefix(&prefix);
        self.journal = Some(journal);
        Ok(())
    }

    /// Answers a request under `/v1` or `/_fake`, after writing it down when it may change the account.
    fn answer(&mut self, request: &Request) -> Answer {
        let segments: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let is_kept = match segments.as_slice() {
            ["_fake", "operations", ..] => true,
            ["v1", ..] => request.method != Method::GET.as_str(),
            _ => false,
        };
        if let Some(journal) = self.journal.as_mut().filter(|_| is_kept)
            && let Err(refusal) = journal.record(&self.account, request)
        {
            return Answer::refused(&refusal);
        }
        match segments.as_slice() {
            ["_fake", path @ ..] => {
                control::answer(self, &request.method, path, request.body.as_bytes()).into()
            }
            ["v1", path @ ..] => self.answer_v1(path, request),
            _ => Answer::refused(&super::listing::unknown_path(&request.path)),
        }
    }

    /// Idempotency first, then the account.
    fn answer_v1(&mut self, path: &[&str], request: &Request) -> Answer {
        let form = match request.body.is_empty() {
            true => request.query.clone(),
            false => format!("{}&{}", request.query, request.body),
        };
        let parsed = Form::parse(form.as_bytes());
        let ask = |account| api::answer(account, self.shape, &request.method, path, &parsed);
        let Some(key) = &request.idempotency_key else {
            return ask(&mut self.account).into();
        };
        let digest = hex::encode(Sha256::digest(format!("{}?{form}", request.path)));
        if let Some((asked, status, body)) = self.answered.get(key) {
            if *asked != digest {
                return Answer::error(
                    StatusCode::BAD_REQUEST,
                    &json!({
                        "type": "idempotency_error",
                        "message": "Keys for idempotent requests can only be used with the same \
                                    parameters they were first used with.",
                    }),
                );
            }
            return Answer {
                status: *status,
                body: body.clone(),
                is_replayed: true,
            };
        }
        let answer = Answer::from(ask(&mut self.account));
        // A request that was refused before it did anything may be repeated with other parameters.
        if matches!(answer.status, StatusCode::OK | StatusCode::PAYMENT_REQUIRED) {
            let kept = (digest, answer.status, answer.body.clone());
            self.answered.insert(key.clone(), kept);
        }
        answer
    }
}

/// What a request is answered.
struct Answer {
    status: StatusCode,
    body: Value,
    /// Whether it is the answer to an earlier request with the same key.
    is_replayed: bool,
}

impl Answer {
    fn error(status: StatusCode, error: &Value) -> Answer {
        Answer {
            status,
            body: json!({"error": error}),
            is_replayed: false,
        }
    }

    fn refused(refusal: &Refusal) -> Answer {
        Answer::error(status_of(refusal), &error_of(refusal))
    }
}

impl From<Result<Value, Refusal>> for Answer {
    fn from(answer: Result<Value, Refusal>) -> Answer {
        match answer {
            Ok(body) => Answer {
                status: StatusCode::OK,
                body,
                is_replayed: false,
            },
            Err(refusal) => Answer::refused(&refusal),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (
            self.status,
            [
                (header::CONTENT_TYPE, "application/json"),
                (header::HeaderName::from_static("request-id"), "req_fake"),
            ],
            Body::from(self.body.to_string()),
        )
            .into_response();
        if self.is_replayed {
            response.headers_mut().insert(
                "idempotent-replayed",
                header::HeaderValue::from_static("true"),
            );
        }
        response
    }
}

/// How many deliveries are remembered.
const DELIVERIES_KEPT: usize = 1000;
/// How many deliveries are on their way at once.
const DELIVERIES_AT_ONCE: usize = 4;

struct Shared {
    state: Mutex<State>,
    api_key: Option<String>,
    retry_delays: Vec<Duration>,
    clock: fn() -> Timestamp,
    http: reqwest::Client,
    slots: Arc<Semaphore>,
    /// How many deliveries are not over.
    pending: watch::Sender<usize>,
    tasks: Mutex<JoinSet<()>>,
}

/// A running fake Stripe; dropping it stops it.
pub struct FakeStripe {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl std::fmt::Debug for FakeStripe {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("FakeStripe")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for FakeStripe {
    fn drop(&mut self) {
        self.server.abort();
        lock(&self.shared.tasks).abort_all();
    }
}

/// A panic while the lock was held does not make the state worse than the panic itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeStripe {
    /// Serves `options.account` on `listener` from now on. Call it inside a Tokio runtime.
    ///
    /// # Errors
    /// When the listener has no local address, no HTTP client can be built, or the journal cannot be used.
    pub fn start(listener: TcpListener, options: Options) -> std::io::Result<FakeStripe> {
        let address = listener.local_addr()?;
        let http = http_client().map_err(std::io::Error::other)?;
        let mut state = State {
            account: options.account,
            shape: options.shape,
            webhook: options.webhook,
            faults: Vec::new(),
            deliveries: VecDeque::new(),
            resend: Vec::new(),
            handed_over: 0,
            answered: BTreeMap::new(),
            requests: 0,
            journal: None,
        };
        if let Some(path) = &options.journal {
            state.resume(path)?;
        }
        if !options.deliver_existing {
            state.handed_over = state.account.events_since(0).len();
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            api_key: options.api_key,
            retry_delays: options.retry_delays,
            clock: options.clock,
            http,
            slots: Arc::new(Semaphore::new(DELIVERIES_AT_ONCE)),
            pending: watch::Sender::new(0),
            tasks: Mutex::new(JoinSet::new()),
        });
        deliver(&shared);
        let router = Router::new()
            .fallback(serve)
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the fake Stripe stopped serving");
            }
        });
        Ok(FakeStripe {
            address,
            shared,
            server,
        })
    }

    /// `http://host:port`, to be used in place of `https://api.stripe.com`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs operations on the account; their events are delivered afterwards. Call it inside a
    /// Tokio runtime.
    pub fn with_account<T>(&self, operate: impl FnOnce(&mut Account) -> T) -> T {
        let result = operate(&mut lock(&self.shared.state).account);
        deliver(&self.shared);
        result
    }

    /// Renders everything in another shape from now on.
    pub fn set_shape(&self, shape: Shape) {
        lock(&self.shared.state).shape = shape;
    }

    /// Sends webhooks there from now on, or nowhere.
    pub fn set_webhook(&self, webhook: Option<Endpoint>) {
        lock(&self.shared.state).webhook = webhook;
    }

    /// Adds a fault behind those that are still active.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.state).faults.push(fault);
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        lock(&self.shared.state).faults.clear();
    }

    /// The newest attempts at deliveries, oldest first.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.shared.state)
            .deliveries
            .iter()
            .cloned()
            .collect()
    }

    /// How many requests `/v1` has had.
    #[must_use]
    pub fn requests(&self) -> u64 {
        lock(&self.shared.state).requests
    }

    /// Waits until every delivery has been answered with 2xx or given up.
    pub async fn delivered(&self) {
        let mut pending = self.shared.pending.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        if pending.wait_for(|count| *count == 0).await.is_err() {
            tracing::error!("the fake Stripe lost count of its deliveries");
        }
    }
}

/// Takes one turn of the first fault `wanted` picks, removing it with its last turn.
fn take_fault(
    faults: &mut Vec<Fault>,
    mut wanted: impl FnMut(&mut Fault) -> Option<&mut u32>,
) -> Option<Fault> {
    let place = faults
        .iter_mut()
        .position(|fault| wanted(fault).is_some())?;
    let fault = faults.get_mut(place)?;
    let taken = fault.clone();
    let times = wanted(fault)?;
    *times = times.saturating_sub(1);
    if *times == 0 {
        faults.remove(place);
    }
    Some(taken)
}

/// Hands events that were not delivered yet to delivery.
fn deliver(shared: &Arc<Shared>) {
    let mut due = Vec::new();
    {
        let mut state = lock(&shared.state);
        let all = state.account.events_since(0).len();
        let from = std::mem::replace(&mut state.handed_over, all);
        let new = from..state.handed_over;
        let resend = std::mem::take(&mut state.resend);
        let Some(endpoint) = state.webhook.clone() else {
            return;
        };
        for place in resend.into_iter().chain(new) {
            let Some(event) = state.account.events_since(place).first().cloned() else {
                continue;
            };
            let Some(body) = event.render(state.shape) else {
                continue;
            };
            let dropped = take_fault(&mut state.faults, |fault| {
                if let Fault::DropDeliveries { times } = fault {
                    return Some(times);
                }
                None
            });
            if dropped.is_some() {
                state.account.undelivered.insert(event.id.clone());
                remember(
                    &mut state,
                    Delivery {
                        event: event.id,
                        kind: event.kind.to_owned(),
                        attempt: 0,
                        status: None,
                        note: Some("dropped on purpose".to_owned()),
                    },
                );
                continue;
            }
            let doubled = take_fault(&mut state.faults, |fault| {
                if let Fault::DuplicateDeliveries { times } = fault {
                    return Some(times);
                }
                None
            });
            let body = match endpoint.is_thin {
                true => thin(&body).to_string(),
                false => body.to_string(),
            };
            for _ in 0..=usize::from(doubled.is_some()) {
                due.push((event.id.clone(), event.kind, body.clone(), endpoint.clone()));
            }
        }
    }
    let mut tasks = lock(&shared.tasks);
    while tasks.try_join_next().is_some() {}
    for (event, kind, body, endpoint) in due {
        shared.pending.send_modify(|count| *count += 1);
        let shared = Arc::clone(shared);
        tasks.spawn(async move {
            deliver_event(&shared, &event, kind, &body, &endpoint).await;
            shared.pending.send_modify(|count| *count -= 1);
        });
    }
}

fn remember(state: &mut State, delivery: Delivery) {
    if state.deliveries.len() == DELIVERIES_KEPT {
        state.deliveries.pop_front();
    }
    state.deliveries.push_back(delivery);
}

/// Delivers one event until it is answered with 2xx or the waits are used up.
async fn deliver_event(shared: &Shared, event: &str, kind: &str, body: &str, endpoint: &Endpoint) {
    for attempt in 1.. {
        let answer = {
            // A closed semaphore would only mean that nobody counts any more.
            let _slot = shared.slots.acquire().await;
            post(
                &shared.http,
                endpoint,
                body.as_bytes().to_vec(),
                (shared.clock)(),
            )
            .await
        };
        let (status, note) = match answer {
            Ok(answer) => (Some(answer.status().as_u16()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        remember(
            &mut lock(&shared.state),
            Delivery {
                event: event.to_owned(),
                kind: kind.to_owned(),
                attempt,
                status,
                note,
            },
        );
        if status.is_some_and(|status| (200..300).contains(&status)) {
            lock(&shared.state).account.undelivered.remove(event);
            return;
        }
        let Some(delay) = shared.retry_delays.get(attempt - 1) else {
            let mut state = lock(&shared.state);
            state.account.undelivered.insert(event.to_owned());
            return;
        };
        tokio::time::sleep(*delay).await;
    }
}

/// Answers a request: by a fault, by the control interface, or as Stripe's API does.
async fn serve(
    extract::State(shared): extract::State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let key = headers
        .get("idempotency-key")
        .filter(|_| method == Method::POST)
        .and_then(|key| key.to_str().ok());
    let request = Request {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        idempotency_key: key.map(str::to_owned),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let hindered = match uri.path().starts_with("/v1/") {
        true => hinder(&shared, uri.path(), &headers).await,
        false => None,
    };
    let response = hindered.unwrap_or_else(|| lock(&shared.state).answer(&request).into_response());
    deliver(&shared);
    response
}

/// What keeps a request under `/v1` from the account: a fault first, then the key.
async fn hinder(shared: &Shared, path: &str, headers: &HeaderMap) -> Option<Response> {
    let fault = {
        let mut state = lock(&shared.state);
        state.requests += 1;
        take_fault(&mut state.faults, |fault| match fault {
            Fault::Status {
                path: start, times, ..
            }
            | Fault::Latency {
                path: start, times, ..
            }
            | Fault::Hang { path: start, times }
            | Fault::Garbage { path: start, times }
            | Fault::CutOff { path: start, times } => {
                path.starts_with(start.as_str()).then_some(times)
            }
            Fault::DropDeliveries { .. } | Fault::DuplicateDeliveries { .. } => None,
        })
    };
    match fault {
        Some(Fault::Status {
            status,
            retry_after,
            ..
        }) => return Some(faulty(status, retry_after)),
        Some(Fault::Latency { milliseconds, .. }) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        Some(Fault::Hang { .. }) => std::future::pending().await,
        Some(Fault::Garbage { .. }) => {
            return Some("<html>out of order</html>".into_response());
        }
        Some(Fault::CutOff { .. }) => return Some(cut_off()),
        Some(Fault::DropDeliveries { .. } | Fault::DuplicateDeliveries { .. }) | None => {}
    }
    unauthorized(shared, headers)
}

/// Stripe's 401, unless the key is there and right. `Bearer` and the user of `Basic` both count.
fn unauthorized(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .filter(|key| !key.is_empty());
    let message = match (given, &shared.api_key) {
        (None, _) => {
            "You did not provide an API key. Provide it in the Authorization header, \
                      using Bearer auth."
        }
        (Some(given), Some(right)) if given != right => "Invalid API Key provided.",
        (Some(_), _) => return None,
    };
    let error = json!({"type": "invalid_request_error", "message": message});
    Some(Answer::error(StatusCode::UNAUTHORIZED, &error).into_response())
}

fn faulty(status: u16, retry_after: Option<u32>) -> Response {
    let status = StatusCode::from_u16(status)
        .ok()
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        json!({
            "type": "invalid_request_error", "code": "rate_limit",
            "message": "Request rate limit exceeded.",
        })
    } else {
        json!({"type": "api_error", "message": "An unknown error occurred."})
    };
    let mut response = Answer::error(status, &error).into_response();
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    response
}

/// The beginning of a list, and then the connection is gone.
fn cut_off() -> Response {
    let begun = Ok(Bytes::from_static(br#"{"object":"list","data":[{"id":"#));
    let broken = Err(std::io::Error::other("cut off on purpose"));
    let body = Body::from_stream(futures_util::stream::iter([begun, broken]));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn status_of(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.status)
        .ok()
        .unwrap_or(StatusCode::BAD_REQUEST)
}

/// Stripe's error object: <https://docs.stripe.com/api/errors>.
fn error_of(refusal: &Refusal) -> Value {
    let kind = if refusal.status == StatusCode::PAYMENT_REQUIRED.as_u16() {
        "card_error"
    } else {
        "invalid_request_error"
    };
    let mut error = json!({
        "type": kind, "code": refusal.code, "message": refusal.message,
        "doc_url": format!("https://stripe.com/docs/error-codes/{}", refusal.code),
    });
    if let Some(param) = &refusal.param {
        error["param"] = param.as_str().into();
    }
    error
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::objects::Metadata;
    use crate::payments::Outcome;
    use crate::{sample_account, scenarios};

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().expect("an instant")
    }

    async fn start(options: Options) -> FakeStripe {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        FakeStripe::start(listener, options).expect("a fake Stripe")
    }

    async fn call(
        stripe: &FakeStripe,
        method: Method,
        path: &str,
        form: &[(&str, &str)],
    ) -> (u16, Value) {
        call_with(stripe, method, path, form, None).await
    }

    async fn call_with(
        stripe: &FakeStripe,
        method: Method,
        path: &str,
        form: &[(&str, &str)],
        idempotency_key: Option<&str>,
    ) -> (u16, Value) {
        let mut request = reqwest::Client::new()
            .request(method, format!("{}{path}", stripe.base_url()))
            .bearer_auth("sk_test_fake");
        if !form.is_empty() {
            request = request.form(form);
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("JSON"))
    }

    async fn control(stripe: &FakeStripe, path: &str, body: Value) -> (u16, Value) {
        let answer = reqwest::Client::new()
            .post(format!("{}/_fake/{path}", stripe.base_url()))
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("JSON"))
    }

    /// An endpoint that answers 500 to the first `failures` requests, and what it got.
    async fn receiver(failures: usize) -> (String, Arc<Mutex<Vec<(HeaderMap, Bytes)>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>> = Arc::default();
        let seen = Arc::clone(&got);
        let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
            let mut seen = lock(&seen);
            seen.push((headers, body));
            let status = if seen.len() <= failures {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::OK
            };
            std::future::ready(status)
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, got)
    }

    #[tokio::test]
    async fn paging_walks_every_object_once_in_both_directions() {
        let stripe = start(Options::new(sample_account(noon()), noon)).await;
        for kind in [
            "charges",
            "refunds",
            "disputes",
            "invoices",
            "customers",
            "balance_transactions",
            "payment_intents",
            "invoice_payments",
            "prices",
            "products",
            "coupons",
            "payouts",
            "credit_notes",
            "events",
        ] {
            for limit in [1, 7, 100] {
                let mut newest_first = Vec::new();
                let mut cursor = String::new();
                loop {
                    let path = format!("/v1/{kind}?limit={limit}{cursor}");
                    let (status, page) = call(&stripe, Method::GET, &path, &[]).await;
                    assert_eq!(status, 200, "{kind}: {page}");
                    let data = page["data"].as_array().expect("a list").clone();
                    newest_first.extend(data);
                    if page["has_more"] == false {
                        break;
                    }
                    let last = newest_first.last().expect("a row")["id"].as_str();
                    cursor = format!("&starting_after={}", last.expect("an id"));
                    if limit == 1 && newest_first.len() > 12 {
                        break;
                    }
                }
                let ids: BTreeSet<String> = newest_first
                    .iter()
                    .map(|row| row["id"].to_string())
                    .collect();
                assert_eq!(ids.len(), newest_first.len(), "{kind}");
                let times: Vec<i64> = newest_first
                    .iter()
                    .filter_map(|row| row["created"].as_i64())
                    .collect();
                assert!(times.iter().rev().is_sorted(), "{kind}");
            }
        }
        let (_, all) = call(&stripe, Method::GET, "/v1/charges?limit=100", &[]).await;
        let all = all["data"].as_array().expect("a list").clone();
        let oldest = all.last().expect("a charge")["id"].as_str().expect("an id");
        let path = format!("/v1/charges?limit=3&ending_before={oldest}");
        let (_, page) = call(&stripe, Method::GET, &path, &[]).await;
        assert_eq!(
            page["data"].as_array(),
            Some(&all[all.len() - 4..all.len() - 1].to_vec())
        );
        assert_eq!(page["has_more"], true);
    }

    #[tokio::test]
    async fn lists_filter_by_time_and_by_field_and_refuse_what_stripe_refuses() {
        let stripe = start(Options::new(sample_account(noon()), noon)).await;
        let since = noon().as_second() - 40 * 86_400;
        let path = format!("/v1/charges?limit=100&created[gte]={since}");
        let (_, page) = call(&stripe, Method::GET, &path, &[]).await;
        let recent = page["data"].as_array().expect("a list");
        assert!(!recent.is_empty());
        assert!(
            recent
                .iter()
                .all(|row| row["created"].as_i64().is_some_and(|at| at >= since))
        );
        let (_, all) = call(
            &stripe,
            Method::GET,
            "/v1/subscriptions?status=all&limit=100",
            &[],
        )
        .await;
        let (_, live) = call(&stripe, Method::GET, "/v1/subscriptions?limit=100", &[]).await;
        assert_eq!(all["data"].as_array().map(Vec::len), Some(10));
        assert_eq!(live["data"].as_array().map(Vec::len), Some(8));
        for (path, param) in [
            ("/v1/charges?limit=101", "limit"),
            ("/v1/charges?limit=x", "limit"),
            ("/v1/charges?colour=red", "colour"),
            ("/v1/charges?starting_after=ch_nobody", "starting_after"),
            ("/v1/charges?expand[]=data.amount.x.y", "expand"),
        ] {
            let (status, answer) = call(&stripe, Method::GET, path, &[]).await;
            assert_eq!(
                (status, &answer["error"]["param"]),
                (400, &json!(param)),
                "{path}"
            );
        }
        let (status, answer) = call(&stripe, Method::GET, "/v1/charges/ch_nobody", &[]).await;
        assert_eq!(status, 404);
        assert_eq!(answer["error"]["code"], "resource_missing");
        let bare = reqwest::get(format!("{}/v1/charges", stripe.base_url())).await;
        assert_eq!(bare.expect("an answer").status().as_u16(), 401);
    }

    #[tokio::test]
    async fn expand_shows_what_an_id_stands_for() {
        let stripe = start(Options::new(sample_account(noon()), noon)).await;
        let path = "/v1/payment_intents?expand[]=data.latest_charge.balance_transaction";
        let (_, page) = call(&stripe, Method::GET, path, &[]).await;
        let transaction = &page["data"][0]["latest_charge"]["balance_transaction"];
        assert_eq!(transaction["object"], "balance_transaction");
        assert!(transaction["fee"].as_i64().is_some_and(|fee| fee > 0));
        let path = "/v1/invoices?expand[]=data.payments&limit=1";
        let (_, page) = call(&stripe, Method::GET, path, &[]).await;
        let payment = &page["data"][0]["payments"]["data"][0]["payment"]["payment_intent"];
        assert!(
            payment.as_str().is_some_and(|id| id.starts_with("pi_")),
            "{page}"
        );
        let path = "/v1/subscriptions?limit=100&expand[]=data.discounts.source.coupon";
        let (status, page) = call(&stripe, Method::GET, path, &[]).await;
        assert_eq!(status, 200, "{page}");
        let percent = page["data"]
            .as_array()
            .expect("a list")
            .iter()
            .find_map(|row| row["discounts"][0]["source"]["coupon"]["percent_off"].as_i64());
        assert_eq!(percent, Some(50));
    }

    #[tokio::test]
    async fn an_invoice_is_made_finalised_and_paid_over_http_once_per_key() {
        let stripe = start(Options::new(Account::new("Http", noon()), noon)).await;
        let buyer = [("email", "buyer@example.com"), ("metadata[user_id]", "7")];
        let key = Some("first");
        let (_, customer) = call_with(&stripe, Method::POST, "/v1/customers", &buyer, key).await;
        let (_, again) = call_with(&stripe, Method::POST, "/v1/customers", &buyer, key).await;
        assert_eq!(customer, again);
        let (status, other) = call_with(
            &stripe,
            Method::POST,
            "/v1/customers",
            &[("email", "x")],
            key,
        )
        .await;
        assert_eq!(
            (status, &other["error"]["type"]),
            (400, &json!("idempotency_error"))
        );
        let customer = customer["id"].as_str().expect("an id");
        let (_, invoice) = call(
            &stripe,
            Method::POST,
            "/v1/invoices",
            &[("customer", customer), ("currency", "usd")],
        )
        .await;
        let invoice = invoice["id"].as_str().expect("an id").to_owned();
        for (description, amount) in [("Deeds", "12500"), ("Support", "500")] {
            let item = [
                ("customer", customer),
                ("invoice", &invoice),
                ("currency", "usd"),
                ("amount", amount),
                ("description", description),
            ];
            let (status, answer) = call(&stripe, Method::POST, "/v1/invoiceitems", &item).await;
            assert_eq!(status, 200, "{answer}");
        }
        let path = format!("/v1/invoices/{invoice}/finalize");
        let (_, open) = call(&stripe, Method::POST, &path, &[]).await;
        assert_eq!(
            (&open["status"], &open["total"]),
            (&json!("open"), &json!(13_000))
        );
        let path = format!("/v1/invoices/{invoice}/pay");
        let (_, paid) = call(&stripe, Method::POST, &path, &[]).await;
        assert_eq!(
            (&paid["status"], &paid["amount_paid"]),
            (&json!("paid"), &json!(13_000))
        );
        let path = format!("/v1/invoices/{invoice}/void");
        let (status, answer) = call(&stripe, Method::POST, &path, &[]).await;
        assert_eq!(status, 400, "{answer}");
        let path = format!("/v1/invoices/{invoice}/lines?limit=1");
        let (_, lines) = call(&stripe, Method::GET, &path, &[]).await;
        assert_eq!(
            (&lines["has_more"], lines["data"].as_array().map(Vec::len)),
            (&json!(true), Some(1))
        );
        let declined = [
            ("customer", customer),
            ("amount", "700"),
            ("currency", "usd"),
            ("confirm", "true"),
            ("payment_method", "pm_card_chargeDeclined"),
        ];
        let (status, answer) = call(&stripe, Method::POST, "/v1/payment_intents", &declined).await;
        assert_eq!(
            (status, &answer["error"]["type"]),
            (402, &json!("card_error"))
        );
    }

    #[tokio::test]
    async fn webhooks_are_signed_retried_and_duplicated_or_lost_on_request() {
        let (url, got) = receiver(1).await;
        let mut options = Options::new(Account::new("Hooks", noon()), noon);
        options.webhook = Some(Endpoint {
            url,
            secret: "whsec_test".into(),
            is_thin: false,
        });
        options.retry_delays = vec![Duration::from_millis(1); 3];
        let stripe = start(options).await;
        stripe.inject(Fault::DropDeliveries { times: 1 });
        stripe.inject(Fault::DuplicateDeliveries { times: 1 });
        let customer = stripe.with_account(|account| {
            account.create_customer(Some("buyer@example.com"), None, Metadata::new())
        });
        stripe
            .with_account(|account| account.pay_once(&customer, 900, "usd", Outcome::Succeeds))
            .expect("a payment");
        stripe.delivered().await;
        let got = lock(&got).clone();
        // The customer is lost, the intent's creation doubled, and one delivery failed at first.
        let mut kinds: Vec<String> = got
            .iter()
            .map(|(_, body)| {
                let event: Value = serde_json::from_slice(body).expect("JSON");
                event["type"].as_str().expect("a type").to_owned()
            })
            .collect();
        kinds.sort();
        kinds.dedup();
        assert_eq!(
            kinds,
            [
                "charge.succeeded",
                "charge.updated",
                "payment_intent.created",
                "payment_intent.succeeded"
            ]
        );
        assert_eq!(got.len(), 6);
        for (headers, body) in &got {
            let signature = headers
                .get("stripe-signature")
                .and_then(|value| value.to_str().ok());
            let right = stripe::signature::sign(body, &"whsec_test".into(), noon());
            assert_eq!(signature, Some(right.as_str()));
        }
        let dropped = stripe
            .deliveries()
            .iter()
            .filter(|one| one.attempt == 0)
            .count();
        assert_eq!(dropped, 1);
    }

    #[tokio::test]
    async fn the_control_routes_move_the_clock_run_operations_and_inject_faults() {
        let account = scenarios().remove(0).account();
        let stripe = start(Options::new(account, noon)).await;
        let (status, _) = control(&stripe, "shape", json!({"shape": "2020-08-27"})).await;
        assert_eq!(status, 200);
        let renewal = json!({"subscription": "sub_1FirstPaid0001"});
        let (status, answer) = control(&stripe, "operations/renew", renewal).await;
        assert_eq!(
            (status, &answer["invoice"]),
            (200, &json!("in_1FirstPaid0002"))
        );
        let (_, invoice) = call(&stripe, Method::GET, "/v1/invoices/in_1FirstPaid0002", &[]).await;
        assert_eq!(invoice["payment_intent"], "pi_3FirstPaid0002");
        let (status, answer) = control(&stripe, "operations/fly", json!({})).await;
        assert_eq!(status, 404, "{answer}");
        let (status, answer) = control(&stripe, "clock", json!({"now": "yesterday"})).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("now")));
        let fault = json!({
            "kind": "status", "status": 429, "retry_after": 2, "path": "/v1/charges", "times": 1,
        });
        control(&stripe, "faults", fault).await;
        let (status, _) = call(&stripe, Method::GET, "/v1/refunds", &[]).await;
        assert_eq!(status, 200);
        let url = format!("{}/v1/charges", stripe.base_url());
        let limited = reqwest::Client::new()
            .get(&url)
            .bearer_auth("sk")
            .send()
            .await;
        let limited = limited.expect("an answer");
        assert_eq!(limited.status().as_u16(), 429);
        assert_eq!(limited.headers()["retry-after"], "2");
        let (status, _) = call(&stripe, Method::GET, "/v1/charges", &[]).await;
        assert_eq!(status, 200);
        let (status, _) = control(&stripe, "faults", json!({"kind": "flood"})).await;
        assert_eq!(status, 400);
    }
}
