//! Stripe → ledger: every event applied exactly once, or kept where the redrive finds it.

mod gateway;
mod queue;
mod receive;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_types::SdkConfig;
use axum::extract::State;
use domain::payment::FeeEstimate;
use jiff::Timestamp;
use lambda_http::http::HeaderMap;
use lambda_http::lambda_runtime::LambdaEvent;
use lambda_http::{Body, Request, Response};
use runtime::api;
use runtime::api::access::{Access, Authenticator};
use runtime::api::extract::{Json, Now};
use runtime::api::router::{Api, RawBody, Routes};
use runtime::aws::event_bus::EventBus;
use runtime::aws::parked_events::ParkedEvents;
use runtime::aws::secrets::{Form, Secret};
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::routes;
use runtime::telemetry::log_failure;
use runtime::time_limit::TimeOuts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use shared::ledger;
use store::Database;
use stripe::account::Account;
use utoipa::ToSchema;

use receive::Outcome;

pub use receive::Error;

/// Stripe's largest events stay far below; API Gateway lets no more through.
const BODY_LIMIT_BYTES: usize = 6 * 1024 * 1024;

/// Checking the signature, the ledger and parking take no longer, however slow each of them is.
const TIME_LIMIT: Duration = Duration::from_millis(4_800);

/// How the source of every event on Stripe's partner bus begins.
const PARTNER_SOURCE: &str = "aws.partner/stripe.com";

/// The function: its routes over what its policy lets it reach.
#[derive(Debug)]
pub struct App {
    clients: Arc<Clients>,
    api: Api,
}

/// Every route of this function, who may call it, and what the OpenAPI document says of it.
#[must_use]
pub fn routes() -> Routes<impl Clone + Send + Sync + 'static + use<>> {
    table()
}

fn table() -> Routes<Arc<Clients>> {
    Routes::new()
        .with_body_limit(BODY_LIMIT_BYTES)
        .with_time_limit(TIME_LIMIT)
        .add(Access::Public, routes!(payments_webhook))
        .add(Access::Public, routes!(webhooks_stripe))
}

/// The clients this function's policy allows, and what it is configured with.
#[derive(Debug)]
pub(crate) struct Clients {
    database: Database,
    parked_events: ParkedEvents,
    event_bus: EventBus,
    webhook_secrets: Secret,
    account: Account,
    fee_estimate: FeeEstimate,
    time_outs: TimeOuts,
}

impl App {
    /// Reads the configuration; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is missing or not valid; the error names it.
    pub fn from_env(environment: &Environment, aws: &SdkConfig) -> Result<App, config::Error> {
        let clients = Arc::new(Clients {
            database: Database::connect_lazily(&DatabaseConfig::from_env(environment, aws)?),
            parked_events: ParkedEvents::from_env(environment, aws)?,
            event_bus: EventBus::from_env(environment, aws)?,
            webhook_secrets: Secret::from_env(
                environment,
                aws,
                "STRIPE_WEBHOOK_SECRETS",
                "STRIPE_WEBHOOK_SECRET_ARN",
                Form::List,
            ),
            account: Account::from_env(environment)?,
            fee_estimate: config::fee_estimate(environment)?,
            time_outs: TimeOuts::default(),
        });
        let authenticator = Authenticator::of_nobody();
        Ok(App {
            api: table().serve(Arc::clone(&clients), authenticator),
            clients,
        })
    }

    /// Connects ahead of the first event, where it costs no delivery time.
    pub async fn warm(&self) {
        self.clients.database.warm().await;
    }
}

/// Answers one HTTP request.
pub async fn handle(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    app.api.answer(request, now).await
}

/// An event of Stripe's; what else it has is its own.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(
    dead_code,
    reason = "the signature is of the bytes, which are read once it holds"
)]
struct StripeEvent {
    /// `evt_…`; an event is applied once.
    id: String,
    /// `invoice.paid`, …; one that the ledger has no use for is kept and ignored.
    r#type: String,
    /// As the API version of the endpoint has it: <https://docs.stripe.com/api/events/object>.
    #[serde(flatten)]
    rest: HashMap<String, Value>,
}

/// An event that was kept: Stripe does not send it again.
#[derive(Debug, Serialize, ToSchema)]
struct Kept {
    /// Always true: Stripe need not deliver the event again.
    received: bool,
    outcome: KeptOutcome,
}

/// The outcome of an event that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum KeptOutcome {
    Applied,
    /// It was applied before.
    Duplicate,
    /// The ledger has no use for its type, or it is of another account or mode.
    Ignored,
    /// A thin event: what it stands for is fetched.
    Deferred,
    /// It could not be applied, and is kept for the redrive.
    Parked,
}

impl From<Outcome> for KeptOutcome {
    fn from(outcome: Outcome) -> KeptOutcome {
        match outcome {
            Outcome::Ledger(ledger::Outcome::Applied) => KeptOutcome::Applied,
            Outcome::Ledger(ledger::Outcome::Duplicate) => KeptOutcome::Duplicate,
            Outcome::Ledger(ledger::Outcome::Ignored | ledger::Outcome::Foreign) => {
                KeptOutcome::Ignored
            }
            Outcome::Ledger(ledger::Outcome::Deferred) => KeptOutcome::Deferred,
            Outcome::Parked => KeptOutcome::Parked,
        }
    }
}

runtime::refusals! {
    /// Why an event was not kept.
    enum NotKept {
        /// The sender is not proven to be Stripe.
        Signature = 400 "invalid_signature" "the signature of the header is not one of a configured secret, or is too old",
        /// What was signed is no event.
        Payload = 400 "invalid_payload" "the body is not an event",
    }
}

/// Takes an event of Stripe with its signature.
#[utoipa::path(
    post,
    path = "/payments/webhook",
    params(("stripe-signature" = String, Header, description = "t=…,v1=…")),
    request_body(content = StripeEvent)
)]
async fn payments_webhook(
    State(app): State<Arc<Clients>>,
    headers: HeaderMap,
    RawBody(body): RawBody,
    Now(now): Now,
) -> Result<Json<Kept>, NotKept> {
    deliver(&app, &headers, &body, now).await
}

/// Takes an event of Stripe with its signature, at the predecessor's address.
#[utoipa::path(
    post,
    path = "/webhooks/stripe",
    params(("stripe-signature" = String, Header, description = "t=…,v1=…")),
    request_body(content = StripeEvent)
)]
async fn webhooks_stripe(
    State(app): State<Arc<Clients>>,
    headers: HeaderMap,
    RawBody(body): RawBody,
    Now(now): Now,
) -> Result<Json<Kept>, NotKept> {
    deliver(&app, &headers, &body, now).await
}

async fn deliver(
    app: &Clients,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Json<Kept>, NotKept> {
    let outcome = receive::delivery(app, headers, body, now).await;
    let outcome = outcome.map_err(api::Error::from)?.into();
    Ok(Json(Kept {
        received: true,
        outcome,
    }))
}

/// Answers one invocation, whoever it comes from: an HTTP request in API Gateway's envelope, or events of Stripe's
/// partner bus: those of the queue in SQS's, one in EventBridge's.
///
/// # Errors
/// When the invocation is none of these, or an event that came alone could be stored nowhere.
pub async fn handle_invocation(
    app: &App,
    invocation: LambdaEvent<Box<RawValue>>,
    now: Timestamp,
) -> Result<Value, lambda_http::Error> {
    let (payload, context) = invocation.into_parts();
    let text = payload.get();
    // A request whose body quotes the name has no records.
    if text.contains("aws:sqs")
        && let Some(batch) = queue::Batch::of(text)
    {
        return Ok(batch.keep(&app.clients, now).await);
    }
    // Until a deploy is over, the rule of the release before may call the function itself.
    // Only the partner bus has this source. A request whose body quotes the name fails the check that follows.
    if text.contains(PARTNER_SOURCE) {
        let event: Value = serde_json::from_str(text)?;
        if is_partner_event(&event) {
            return Ok(handle_partner_event(app, event, now).await?);
        }
    }
    let request = gateway::request(serde_json::from_str(text)?, context);
    let answer = gateway::answer(handle(app, request, now).await);
    Ok(serde_json::to_value(answer)?)
}

/// Whether an invocation is an event on Stripe's EventBridge partner bus, not an HTTP request.
#[must_use]
pub fn is_partner_event(invocation: &Value) -> bool {
    invocation.get("detail").is_some_and(Value::is_object)
        && invocation
            .get("source")
            .and_then(Value::as_str)
            .is_some_and(|source| source.starts_with(PARTNER_SOURCE))
}

/// Applies the event in `detail` of Stripe's EventBridge partner envelope. EventBridge has checked
/// where it comes from: there is no signature.
///
/// # Errors
/// When it is no event or could be stored nowhere: the platform tries again, then dead-letters. Logged here: no answer
/// tells it.
pub async fn handle_partner_event(
    app: &App,
    mut invocation: Value,
    now: Timestamp,
) -> Result<Value, Error> {
    let detail = invocation
        .get_mut("detail")
        .map(Value::take)
        .unwrap_or_default();
    let outcome = receive::keep(&app.clients, &detail.to_string(), now)
        .await
        .inspect_err(|error| log_failure("a partner event was not kept", error))?;
    Ok(json!(Kept {
        received: true,
        outcome: outcome.into(),
    }))
}
