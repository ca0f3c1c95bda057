//! Webhooks as Stripe sends them: signed, retried, now and then lost or sent twice.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use stripe::signature;

/// Where webhooks go, and the secret (`whsec_…`) they are signed with.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where events are posted to; `http:` only.
    pub url: String,
    /// The whole secret, prefix and all, is the key.
    pub secret: SecretString,
    /// Whether events are sent in the payload style `thin`: they name their object.
    pub is_thin: bool,
}

/// The thin event that stands for a snapshot event.
/// Source: <https://docs.stripe.com/event-destinations#thin-events>.
#[must_use]
pub fn thin(event: &Value) -> Value {
    let (id, object) = (&event["id"], &event["data"]["object"]);
    let created = event["created"].as_i64().unwrap_or_default();
    let created = Timestamp::from_second(created).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, object_id) = (text(&object["object"]), text(&object["id"]));
    json!({
        "id": format!("{}_thin", text(id)), "object": "v2.core.event",
        "type": format!("v1.{}", text(&event["type"])), "livemode": event["livemode"],
        "created": created, "context": null, "reason": null, "snapshot_event": id,
        "related_object": {
            "id": object_id, "type": kind, "url": format!("/v1/{kind}s/{object_id}"),
        },
    })
}

/// One attempt to deliver an event.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Delivery {
    /// Id of the event (`evt_…`).
    pub event: String,
    /// Type of the event, such as `invoice.paid`.
    pub kind: String,
    /// 1 for the first.
    pub attempt: usize,
    /// The status answered; none when there was no answer.
    pub status: Option<u16>,
    /// Why there was none, or that the delivery was dropped on purpose.
    pub note: Option<String>,
}

/// How long Stripe waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An HTTP client for this machine: no proxy, whatever the environment says, and no redirects,
/// which Stripe does not follow either.
///
/// # Errors
/// When the client cannot be made.
pub fn http_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// Posts one event once, signed at `at`.
///
/// # Errors
/// When nobody answers.
pub async fn post(
    http: &reqwest::Client,
    endpoint: &Endpoint,
    body: Vec<u8>,
    at: Timestamp,
) -> reqwest::Result<reqwest::Response> {
    http.post(&endpoint.url)
        .header("content-type", "application/json; charset=utf-8")
        .header(
            "user-agent",
            "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        )
        .header(
            "stripe-signature",
            signature::sign(&body, &endpoint.secret, at),
        )
        .body(body)
        .send()
        .await
}
