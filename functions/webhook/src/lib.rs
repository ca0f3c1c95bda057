//! Stripe → ledger: every event applied exactly once, or kept where the redrive finds it.

mod gateway;
mod receive;

use aws_types::SdkConfig;
use domain::payment::FeeEstimate;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::lambda_runtime::LambdaEvent;
use lambda_http::{Body, Request, Response};
use runtime::api;
use runtime::aws::event_bus::EventBus;
use runtime::aws::parked_events::ParkedEvents;
use runtime::aws::secrets::{Form, Secret};
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::telemetry::log_failure;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use store::Database;

pub use receive::Error;

/// Method and path of every route. The second is the predecessor's.
pub const ROUTES: &[(&str, &str)] = &[("POST", "/payments/webhook"), ("POST", "/webhooks/stripe")];

/// Stripe's largest events stay far below; API Gateway lets no more through.
const BODY_LIMIT_BYTES: usize = 6 * 1024 * 1024;

/// The clients this function's policy allows, and what it is configured with.
#[derive(Debug)]
pub struct App {
    database: Database,
    parked_events: ParkedEvents,
    event_bus: EventBus,
    webhook_secrets: Secret,
    fee_estimate: FeeEstimate,
}

impl App {
    /// Reads the configuration; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is missing or not valid; the error names it.
    pub fn from_env(environment: &Environment, aws: &SdkConfig) -> Result<App, config::Error> {
        Ok(App {
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
            fee_estimate: config::fee_estimate(environment)?,
        })
    }

    /// Connects ahead of the first event, where it costs no delivery time.
    pub async fn warm(&self) {
        self.database.warm().await;
    }
}

/// Answers one HTTP request.
pub async fn handle(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    api::respond(&request, async {
        api::route(ROUTES, &request)?;
        let body = api::body(&request, BODY_LIMIT_BYTES)?;
        let outcome = receive::delivery(app, request.headers(), body, now).await?;
        api::json(
            StatusCode::OK,
            &json!({"received": true, "outcome": outcome.as_str()}),
        )
    })
    .await
}

/// Answers one invocation, whoever it comes from: an HTTP request in API Gateway's envelope, or
/// an event of Stripe's partner bus in EventBridge's.
///
/// # Errors
/// When the invocation is neither, or a partner event could be stored nowhere.
pub async fn handle_invocation(
    app: &App,
    invocation: LambdaEvent<Box<RawValue>>,
    now: Timestamp,
) -> Result<Value, lambda_http::Error> {
    let (payload, context) = invocation.into_parts();
    let text = payload.get();
    // Only the partner bus names itself so; a request that quotes it is told apart next.
    if text.contains("aws.partner/stripe.com") {
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
            .is_some_and(|source| source.starts_with("aws.partner/stripe.com"))
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
    let outcome = receive::detail(app, &detail, now)
        .await
        .inspect_err(|error| log_failure("a partner event was not kept", error))?;
    Ok(json!({"received": true, "outcome": outcome.as_str()}))
}
