//! The webhook's rows of the failure matrix, with real faults: every event counted once or kept.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::{Request as HttpRequest, StatusCode};
use lambda_http::lambda_runtime::LambdaEvent;
use lambda_http::{Body, Context, Request, Response};
use runtime::aws::parked_events::{ParkedEvents, ParkedState};
use secrecy::SecretString;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use stripe::signature;
use testing::access::{self, PUBLIC};
use testing::contract::Contract;
use testing::roles::as_function;
use testing::{Aws, FaultProxy, Surroundings, aws, logs, sample, samples};
use webhook::{App, handle, routes};

const SECRET: &str = "whsec_failures_current";
const PATH: &str = "/payments/webhook";
/// How long a delivery may take, whatever is away: Stripe gives up, and tries again later.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Everything the function uses, of one test's own.
pub(crate) struct Site {
    pub(crate) surroundings: Surroundings,
}

impl Site {
    pub(crate) async fn new() -> Site {
        let secrets = ("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned());
        Site {
            surroundings: Surroundings::new([secrets]).await,
        }
    }

    pub(crate) fn app(&self) -> App {
        self.app_with(&[], &self.surroundings.aws)
    }

    pub(crate) fn app_with(&self, pairs: &[(&'static str, &str)], aws: &SdkConfig) -> App {
        App::from_env(
            &as_function("webhook", &self.surroundings.environment(pairs)),
            aws,
        )
        .unwrap()
    }

    /// The function, with a proxy between it and the database.
    pub(crate) fn app_behind_proxy(&self) -> (App, FaultProxy) {
        let (proxy, url) = self.surroundings.database.behind_proxy();
        (
            self.app_with(&[("DATABASE_URL", &url)], &self.surroundings.aws),
            proxy,
        )
    }

    pub(crate) async fn redrive(&self, now: Timestamp) -> Value {
        let app = reconciliation::App::from_env(
            &as_function("reconciliation", &self.surroundings.environment(&[])),
            &self.surroundings.aws,
        )
        .unwrap();
        let mut event = sample("schedule_reconciliation_redrive").json();
        event["time"] = now.to_string().into();
        reconciliation::handle(&app, event, now).await.unwrap()
    }

    pub(crate) async fn parked(&self) -> Vec<ParkedState> {
        let parked =
            ParkedEvents::from_env(&self.surroundings.environment(&[]), &self.surroundings.aws)
                .unwrap();
        parked.list(1_000).await.unwrap()
    }

    pub(crate) async fn count(&self, from: &str) -> i64 {
        let client = self.surroundings.database.client().await;
        let statement = format!("SELECT count(*) FROM {from}");
        client.query_one(&statement, &[]).await.unwrap().get(0)
    }

    /// The renewal of `charge("Name")` is in the ledger, once.
    async fn assert_counted_once(&self) {
        assert_eq!(self.count("stripe_events").await, 1);
        assert_eq!(
            self.count("payment_history WHERE amount_cents = 3246")
                .await,
            1
        );
        let gross = "revenue_entries WHERE kind = 'gross' AND amount_cents = 3246";
        assert_eq!(self.count(gross).await, 1);
        let days = "revenue_daily WHERE gross_cents = 3246 AND payments = 1";
        assert_eq!(self.count(days).await, 1);
        assert_eq!(
            self.count("outbox WHERE detail_type = 'payment.succeeded'")
                .await,
            1
        );
    }

    async fn assert_untouched(&self) {
        assert_eq!(self.count("stripe_events").await, 0);
        assert_eq!(self.parked().await, []);
    }
}

pub(crate) fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn header(body: &[u8], secret: &str, at: Timestamp) -> String {
    signature::sign(body, &SecretString::from(secret.to_owned()), at)
}

fn post(body: impl Into<Vec<u8>>, signature: &str) -> Request {
    HttpRequest::post(PATH)
        .header("stripe-signature", signature)
        .body(Body::Binary(body.into()))
        .unwrap()
}

/// The answer's status and JSON; every answer has a request id, every problem says that it is one.
fn read(response: &Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let headers = response.headers();
    assert!(headers.contains_key("x-request-id"));
    let kind = if status == 200 {
        "application/json"
    } else {
        "application/problem+json"
    };
    assert_eq!(headers["content-type"], kind);
    let body: Value = serde_json::from_slice(response.body().as_ref()).unwrap();
    if status != 200 {
        assert_eq!(body["status"], status);
    }
    (status, body)
}

async fn send(app: &App, request: Request, now: Timestamp) -> (u16, Value) {
    read(&answer(app, request, now).await)
}

/// What the function answers, compared with its document: every answer of these tests is.
async fn answer(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    static CONTRACT: LazyLock<Contract> = LazyLock::new(|| Contract::new(routes().document()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = handle(app, request, now).await;
    CONTRACT.check(method.as_str(), &path, &response);
    response
}

fn request(method: &str, path: &str) -> Request {
    let request = HttpRequest::builder().method(method).uri(path);
    request.body(Body::Empty).unwrap()
}

#[tokio::test]
async fn every_route_with_every_token() {
    let app = Site::new().await.app();
    let rows = [
        ("POST /payments/webhook", PUBLIC),
        ("POST /webhooks/stripe", PUBLIC),
    ];
    let tokens = access::tokens("none here", "none here", "dp_pk_alpha", noon());
    access::check(&routes().table(), &rows, &tokens, async |route, token| {
        let mut unsigned = request(route.method.as_str(), &route.path);
        if let Some(token) = token {
            let token = token.parse().unwrap();
            unsigned.headers_mut().insert("authorization", token);
        }
        let (status, body) = send(&app, unsigned, noon()).await;
        assert_eq!(
            (status, &body["code"]),
            (400, &json!("invalid_signature")),
            "no token signs"
        );
        status
    })
    .await;
    Contract::new(routes().document()).assert_complete();
}

/// Delivers the body as Stripe does, signed at noon.
pub(crate) async fn deliver(app: &App, body: impl AsRef<[u8]>) -> (u16, Value) {
    let body = body.as_ref();
    let request = post(body, &header(body, SECRET, noon()));
    send(app, request, noon()).await
}

pub(crate) fn kept(outcome: &str) -> (u16, Value) {
    (200, json!({"received": true, "outcome": outcome}))
}

fn is_problem(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!((answer.0, &answer.1["code"]), (status, &json!(code)));
}

/// The renewal of the customer `name`.
pub(crate) fn charge(name: &str) -> String {
    renamed("stripe_charge_succeeded_2022_11_15", name)
}

fn renamed(event: &str, name: &str) -> String {
    sample(event).body.replace("Meridian", name)
}

/// Nobody listens on port 1 of this machine.
pub(crate) async fn no_aws() -> SdkConfig {
    aws::sdk_config("http://127.0.0.1:1")
}

pub(crate) async fn moto_address() -> SocketAddr {
    let url = Aws::shared().await.endpoint_url();
    url.trim_start_matches("http://").parse().unwrap()
}

/// Lets the fault happen: what the proxy was told, its other thread does in a moment.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("the proxy does what it is told");
}

// What is refused: 400 and the like, nothing written.

#[tokio::test]
async fn a_delivery_without_a_good_signature_writes_nothing() {
    let site = Site::new().await;
    let app = site.app();
    let body = charge("Ash");
    let at = |seconds| noon() + SignedDuration::from_secs(seconds);
    let good = header(body.as_bytes(), SECRET, noon());
    let (time, v1) = good.split_once(',').unwrap();
    let forged = [
        header(body.as_bytes(), "whsec_failures_other", noon()),
        header(charge("Asp").as_bytes(), SECRET, noon()),
        header(body.as_bytes(), SECRET, at(-301)),
        header(body.as_bytes(), SECRET, at(301)),
        format!("{time},{time},{v1}"),
        format!("t={},{good}", at(-9_000).as_second()),
        format!("{},{v1}", time.replace('=', "=+")),
        time.to_owned(),
        v1.to_owned(),
        good.replace("v1=", "v0="),
        String::new(),
        "nonsense".to_owned(),
    ];
    for signature in &forged {
        let answer = send(&app, post(body.as_bytes(), signature), noon()).await;
        is_problem(&answer, 400, "invalid_signature");
        assert_eq!(answer.1["field"], "stripe-signature", "{signature}");
    }
    // A second line of the header must not hide behind the first.
    let mut twice = post(body.as_bytes(), &good);
    let stale = header(body.as_bytes(), SECRET, at(-9_000));
    twice
        .headers_mut()
        .append("stripe-signature", stale.parse().unwrap());
    is_problem(&send(&app, twice, noon()).await, 400, "invalid_signature");
    let mut without = post(body.as_bytes(), &good);
    without.headers_mut().remove("stripe-signature");
    is_problem(&send(&app, without, noon()).await, 400, "invalid_signature");
    // Not even JSON, and yet the answer names the signature: nothing is parsed before the check.
    let answer = send(&app, post("nonsense", &good), noon()).await;
    is_problem(&answer, 400, "invalid_signature");
    site.assert_untouched().await;

    // At the edge of the tolerance, and with a signature of a rotated secret beside the good one.
    for edge in [-300, 300] {
        let signature = header(body.as_bytes(), SECRET, at(edge));
        let answer = send(&app, post(body.as_bytes(), &signature), noon()).await;
        assert_eq!(answer.0, 200, "{edge}");
    }
    let other = header(body.as_bytes(), "whsec_failures_other", noon());
    let both = format!("{time},{},{v1}", other.split_once(',').unwrap().1);
    let answer = send(&app, post(body.as_bytes(), &both), noon()).await;
    assert_eq!(answer, kept("duplicate"));
    site.assert_counted_once().await;
}

#[tokio::test]
async fn what_is_signed_and_no_event_is_refused_and_writes_nothing() {
    let site = Site::new().await;
    let app = site.app();
    let event = charge("Beech");
    let nested = format!(
        r#"{{"id":"evt_Deep","type":"charge.succeeded","data":{{"object":{}{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let deep_objects = format!(
        r#"{{"id":"evt_Deep","type":"a.b","data":{{"object":{}1{}}}}}"#,
        r#"{"a":"#.repeat(10_000),
        "}".repeat(10_000)
    );
    let mut not_utf8 = event.clone().into_bytes();
    let position = event.find("Payment complete.").unwrap();
    not_utf8[position] = 0xff;
    for body in [
        not_utf8,
        nested.into_bytes(),
        deep_objects.into_bytes(),
        event.as_bytes()[..event.len() / 2].to_vec(),
        event.replace("3246", "1e999").into_bytes(),
        Vec::new(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        br#"{"id":"","type":"a.b"}"#.to_vec(),
        br#"{"id":"evt_NoType"}"#.to_vec(),
        br#"{"id":7,"type":"a.b"}"#.to_vec(),
        format!(r#"{{"id":"evt_{}","type":"a.b"}}"#, "x".repeat(300)).into_bytes(),
        vec![0; 100],
        vec![b'['; 1_000_000],
    ] {
        let told = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = deliver(&app, &body).await;
        assert_eq!(
            (answer.0, &answer.1["code"]),
            (400, &json!("invalid_payload")),
            "{told}"
        );
        let quoted = answer.1["detail"].as_str().unwrap();
        assert!(!quoted.contains("Beech"), "{quoted}");
    }
    site.assert_untouched().await;
}

#[tokio::test]
async fn an_event_whose_data_is_no_object_is_an_event_and_kept() {
    let site = Site::new().await;
    let app = site.app();
    for (number, data) in ["7", "\"x\"", "[]", "null"].into_iter().enumerate() {
        let body = |kind: &str| {
            format!(
                r#"{{"id":"evt_{kind}_{number}","object":"event","type":"{kind}","created":1783767851,"data":{data}}}"#
            )
        };
        let known = deliver(&app, body("charge.succeeded")).await;
        assert_eq!(known, kept("parked"), "{data}");
        let unknown = deliver(&app, body("quantum.entangled")).await;
        assert_eq!(unknown, kept("ignored"), "{data}");
    }
    assert_eq!(site.parked().await.len(), 4);
    assert_eq!(site.count("stripe_events").await, 4);
}

#[tokio::test]
async fn a_body_over_six_megabytes_is_refused() {
    let site = Site::new().await;
    let body = charge("Cedar");
    let padding = 6 * 1024 * 1024 - body.len();
    let fitting = format!("{body}{}", " ".repeat(padding));
    let answer = deliver(&site.app(), format!("{fitting} ")).await;
    is_problem(&answer, 413, "payload_too_large");
    site.assert_untouched().await;
    assert_eq!(deliver(&site.app(), fitting).await, kept("applied"));
    site.assert_counted_once().await;
}

#[tokio::test]
async fn another_path_is_not_found_and_another_method_is_told_which() {
    let site = Site::new().await;
    let app = site.app();
    for path in ["/", "/payments", "/payments/webhook/", "//payments/webhook"] {
        let answer = send(&app, request("POST", path), noon()).await;
        is_problem(&answer, 404, "not_found");
    }
    for path in [PATH, "/webhooks/stripe"] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let response = answer(&app, request(method, path), noon()).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()["allow"], "POST");
            is_problem(&read(&response), 405, "method_not_allowed");
        }
    }
    site.assert_untouched().await;
}

#[tokio::test]
async fn a_deployment_without_a_secret_is_not_the_callers_fault() {
    let site = Site::new().await;
    let app = site.app_with(&[("STRIPE_WEBHOOK_SECRETS", "")], &site.surroundings.aws);
    let answer = deliver(&app, charge("Dogwood")).await;
    is_problem(&answer, 503, "not_configured");
    assert_eq!(answer.1.get("detail"), None);
    assert!(logs::captured().contains("neither STRIPE_WEBHOOK_SECRETS nor"));
    // Separators and nothing between them: as good as unset.
    for text in [",", "[]"] {
        let app = site.app_with(&[("STRIPE_WEBHOOK_SECRETS", text)], &site.surroundings.aws);
        is_problem(
            &deliver(&app, charge("Dogwood")).await,
            503,
            "not_configured",
        );
    }
    let created = aws_sdk_secretsmanager::Client::new(&site.surroundings.aws)
        .create_secret()
        .name(testing::unique("webhook-secret"))
        .secret_string(" , ");
    let arn = created.send().await.unwrap().arn.unwrap();
    let pairs = [
        ("STRIPE_WEBHOOK_SECRETS", ""),
        ("STRIPE_WEBHOOK_SECRET_ARN", arn.as_str()),
    ];
    let app = site.app_with(&pairs, &site.surroundings.aws);
    let answer = deliver(&app, charge("Dogwood")).await;
    is_problem(&answer, 503, "not_configured");
    assert!(logs::captured().contains("the secret that STRIPE_WEBHOOK_SECRET_ARN names"));
    site.assert_untouched().await;
}

// What comes in unusual clothes.

#[tokio::test]
async fn api_gateways_events_are_read_raw_whatever_they_are_encoded_in() {
    for (envelope, event_id) in [
        (
            "apigw_webhook_payments_webhook",
            "evt_CedarRidgeInvoicePaid",
        ),
        (
            "apigw_webhook_payments_webhook_base64",
            "evt_MeridianChargeSucceeded",
        ),
        ("apigw_webhook_webhooks_stripe", "evt_HarborCustomerCreated"),
    ] {
        let site = Site::new().await;
        let secrets = format!("whsec_before,{SAMPLE_SECRET}");
        let app = site.app_with(
            &[("STRIPE_WEBHOOK_SECRETS", &secrets)],
            &site.surroundings.aws,
        );
        let envelope = sample(envelope);
        let now = envelope.json()["requestContext"]["timeEpoch"].as_i64();
        let now = Timestamp::from_millisecond(now.unwrap()).unwrap();
        let request = || lambda_http::request::from_str(&envelope.body).unwrap();
        assert_eq!(send(&app, request(), now).await, kept("applied"));
        assert_eq!(send(&app, request(), now).await, kept("duplicate"));
        let rows = format!("stripe_events WHERE event_id = '{event_id}'");
        assert_eq!(site.count(&rows).await, 1, "{}", envelope.name);
        // Re-encoded on the way, it is another body.
        let mut tampered = envelope.json();
        tampered["body"] = "e30=".into();
        let request = lambda_http::request::from_str(&tampered.to_string()).unwrap();
        is_problem(&send(&app, request, now).await, 400, "invalid_signature");
    }
}

/// Signs the envelopes of `events/`, as its README says.
const SAMPLE_SECRET: &str = "whsec_events_sample";

#[tokio::test]
async fn stripes_partner_event_is_the_same_delivery_as_over_http() {
    let site = Site::new().await;
    let app = site.app();
    let invocation = sample("eventbridge_stripe_partner").json();
    assert!(webhook::is_partner_event(&invocation));
    let http = sample("apigw_webhook_payments_webhook").json();
    assert!(!webhook::is_partner_event(&http));
    let answer = webhook::handle_partner_event(&app, invocation.clone(), noon()).await;
    assert_eq!(answer.unwrap(), kept("applied").1);
    let over_http = deliver(&app, sample("stripe_invoice_paid_endive").body).await;
    assert_eq!(over_http, kept("duplicate"));
    assert_eq!(site.count("stripe_events").await, 1);
    assert_eq!(site.count("invoices").await, 1);

    // Stored nowhere, or no event at all: EventBridge tries again, then dead-letters.
    let (proxy, url) = site.surroundings.database.behind_proxy();
    proxy.refuse();
    let app = site.app_with(&[("DATABASE_URL", &url)], &no_aws().await);
    let answer = webhook::handle_partner_event(&app, invocation.clone(), noon()).await;
    assert!(matches!(answer, Err(webhook::Error::StoredNowhere(_))));
    let logged = logs::captured();
    let line = logged
        .lines()
        .find(|line| line.contains("a partner event was not kept"))
        .unwrap();
    let cause = "the event could be stored nowhere: DynamoDB is unavailable: ";
    assert!(line.contains(cause), "{line}");
    let mut nothing = invocation;
    nothing["detail"] = json!({"id": 7});
    let answer = webhook::handle_partner_event(&site.app(), nothing, noon()).await;
    assert!(matches!(answer, Err(webhook::Error::Event(_))));
}

#[tokio::test]
async fn an_invocation_is_told_apart_by_its_envelope_and_not_by_what_it_quotes() {
    let site = Site::new().await;
    let secrets = format!("{SECRET},{SAMPLE_SECRET}");
    let app = site.app_with(
        &[("STRIPE_WEBHOOK_SECRETS", &secrets)],
        &site.surroundings.aws,
    );
    let invoke = |envelope: String, now: Timestamp| {
        let payload = RawValue::from_string(envelope).unwrap();
        webhook::handle_invocation(&app, LambdaEvent::new(payload, Context::default()), now)
    };
    let partner = sample("eventbridge_stripe_partner").body;
    let answer = invoke(partner, noon()).await.unwrap();
    assert_eq!(answer, kept("applied").1);

    // In API Gateway's envelope the answer is an HTTP response.
    let http = sample("apigw_webhook_payments_webhook").json();
    let sent_at = http["requestContext"]["timeEpoch"].as_i64().unwrap();
    let sent_at = Timestamp::from_millisecond(sent_at).unwrap();
    let answer = invoke(http.to_string(), sent_at).await.unwrap();
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let told: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(told, kept("applied").1);

    // Stripe's partner source in the body of a request makes it no partner event: it has to be signed.
    let body = json!({"id": "evt_Quoting", "type": "quantum.entangled", "source": "aws.partner/stripe.com/x",
                      "detail": {"id": "evt_Smuggled", "type": "quantum.entangled"}})
    .to_string();
    let mut quoting = http;
    quoting["body"] = body.clone().into();
    quoting["isBase64Encoded"] = false.into();
    let refused = invoke(quoting.to_string(), noon()).await.unwrap();
    assert_eq!(refused["statusCode"], 400, "{refused}");
    assert!(
        refused["body"]
            .as_str()
            .unwrap()
            .contains("invalid_signature")
    );
    quoting["headers"]["stripe-signature"] = header(body.as_bytes(), SECRET, noon()).into();
    let answer = invoke(quoting.to_string(), noon()).await.unwrap();
    assert_eq!(answer["statusCode"], 200, "{answer}");
    assert_eq!(site.count("stripe_events").await, 3);
    let quoting = "stripe_events WHERE event_id = 'evt_Quoting'";
    assert_eq!(site.count(quoting).await, 1);

    // Neither of both: an error, not an answer.
    assert!(invoke("[7]".to_owned(), noon()).await.is_err());
}

#[tokio::test]
async fn what_the_ledger_does_not_know_is_kept_and_ignored() {
    let site = Site::new().await;
    let app = site.app();
    let unknown = r#"{"id":"evt_New","object":"event","type":"quantum.entangled","created":1}"#;
    let version = charge("Fir").replace("2022-11-15", "2031-01-01.zinnia");
    let word = version
        .replace("evt_Fir", "evt_Fir2")
        .replace("mastercard", "thoughts");
    for (body, outcome) in [
        (
            sample("stripe_v1_billing_meter_error_report_triggered_endive").body,
            "ignored",
        ),
        (sample("stripe_payout_paid_endive").body, "applied"),
        (unknown.to_owned(), "ignored"),
        (version, "applied"),
        (word, "applied"),
    ] {
        assert_eq!(deliver(&app, &body).await, kept(outcome));
        assert_eq!(deliver(&app, &body).await, kept("duplicate"));
    }
    assert_eq!(site.count("stripe_events").await, 5);
    assert_eq!(
        site.count("stripe_events WHERE outcome = 'ignored'").await,
        2
    );
}

#[tokio::test]
async fn numbers_out_of_all_proportion_are_kept_or_refused() {
    let site = Site::new().await;
    let app = site.app();
    for (number, digits) in [
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "123456789012345678901234567890",
        "1e30",
        "1e308",
        "0.1",
        "-0",
    ]
    .into_iter()
    .enumerate()
    {
        let body = charge(&format!("Gum{number}")).replace("3246", digits);
        let answer = deliver(&app, &body).await;
        assert_eq!(answer.0, 200, "{digits}: {answer:?}");
    }
    let in_all =
        site.count("stripe_events").await + i64::try_from(site.parked().await.len()).unwrap();
    assert_eq!(in_all, 8);
    for (number, (time, outcome)) in [
        ("1e30", "parked"),
        ("99999999999999", "parked"),
        ("-1", "applied"),
        ("\"soon\"", "parked"),
        ("null", "parked"),
        ("{}", "parked"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = charge(&format!("Gumtime{number}")).replace("1783767851", time);
        let answer = deliver(&app, &body).await;
        assert_eq!(answer, kept(outcome), "{time}");
    }
}

#[tokio::test]
async fn a_nul_is_stored_as_the_replacement_character() {
    let site = Site::new().await;
    let app = site.app();
    let body = sample("stripe_customer_created_endive")
        .body
        .replace("Lakeshore Land", r"Lakeshore\u0000Land")
        .replace("\"user_id\"", r#""note\u0000": "\\u0000", "user_id""#);
    assert_eq!(deliver(&app, &body).await, kept("applied"));
    let client = site.surroundings.database.client().await;
    let row = client
        .query_one(
            "SELECT c.name, c.metadata, e.payload FROM customers c, stripe_events e",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        row.get::<_, String>("name"),
        "Lakeshore\u{fffd}Land Records"
    );
    let metadata: Value = row.get("metadata");
    assert_eq!(metadata["note\u{fffd}"], r"\u0000");
    let payload: Value = row.get("payload");
    assert_eq!(
        payload["data"]["object"]["name"],
        "Lakeshore\u{fffd}Land Records"
    );
}

#[tokio::test]
async fn a_large_event_is_applied_and_waits_in_the_bucket_when_it_cannot() {
    let large = |name: &str| charge(name).replace("Subscription update", &"x".repeat(900 * 1024));
    let site = Site::new().await;
    assert_eq!(deliver(&site.app(), large("Hazel")).await, kept("applied"));
    site.assert_counted_once().await;

    let site = Site::new().await;
    let (app, proxy) = site.app_behind_proxy();
    proxy.refuse();
    assert_eq!(deliver(&app, large("Hazel")).await, kept("parked"));
    let summary = site.redrive(noon()).await;
    assert_eq!(summary["applied"], 1);
    site.assert_counted_once().await;
    assert_eq!(site.parked().await, []);
}

// Twice, and at once.

#[tokio::test]
async fn the_same_event_twice_counts_once() {
    let site = Site::new().await;
    let app = site.app();
    assert_eq!(deliver(&app, charge("Ivy")).await, kept("applied"));
    assert_eq!(deliver(&app, charge("Ivy")).await, kept("duplicate"));
    assert_eq!(deliver(&site.app(), charge("Ivy")).await, kept("duplicate"));
    site.assert_counted_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_deliveries_at_once_of_each_of_25_events_count_once() {
    const DELIVERIES: usize = 40;
    const CUSTOMERS: usize = 5;
    let events: Vec<String> = (0..CUSTOMERS)
        .flat_map(|number| {
            let name = format!("Juniper{number}");
            [
                "stripe_customer_created_2022_11_15",
                "stripe_customer_subscription_created_2022_11_15",
                "stripe_charge_succeeded_2022_11_15",
                "stripe_payment_intent_succeeded_2022_11_15",
                "stripe_invoice_paid_2022_11_15",
            ]
            .map(|event| renamed(event, &name).replace("\"2002\"", &format!("\"30{number}\"")))
        })
        .collect();
    assert_eq!(events.len(), 25);
    let site = Site::new().await;
    // A sandbox serves one request at a time: forty of them.
    let apps: Vec<App> = (0..DELIVERIES).map(|_| site.app()).collect();
    let answers = join_all(apps.iter().map(|app| async {
        let mut answers = Vec::new();
        for event in &events {
            answers.push(deliver(app, event).await);
        }
        answers
    }));
    let answers: Vec<(u16, Value)> = answers.await.into_iter().flatten().collect();
    assert_eq!(answers.len(), DELIVERIES * 25);
    for answer in &answers {
        assert_eq!(answer.0, 200, "{answer:?}");
    }
    let applied = answers
        .iter()
        .filter(|answer| **answer == kept("applied"))
        .count();
    // On a crowded machine the last in the line may have been parked: nothing must come of it.
    let summary = site.redrive(noon()).await;
    let applied_later = summary["applied"].as_u64().unwrap();
    assert_eq!(
        u64::try_from(applied).unwrap() + applied_later,
        25,
        "{summary}"
    );
    assert_eq!(site.parked().await, []);
    assert_eq!(site.count("stripe_events").await, 25);
    assert_eq!(site.count("customers").await, 5);
    assert_eq!(site.count("subscriptions").await, 5);
    assert_eq!(site.count("invoices").await, 5);
    assert_eq!(
        site.count("payment_history WHERE amount_cents = 3246")
            .await,
        5
    );
    assert_eq!(site.count("revenue_entries WHERE kind = 'gross'").await, 5);
    let day = format!(
        "revenue_daily WHERE gross_cents = {} AND payments = 5",
        5 * 3246
    );
    assert_eq!(site.count(&day).await, 1);
    assert_eq!(site.count("revenue_daily").await, 1);
    assert_eq!(site.count("mrr_movements").await, 5);
    assert_eq!(
        site.count("outbox WHERE detail_type = 'payment.succeeded'")
            .await,
        5
    );
}

// Postgres away.

#[tokio::test]
async fn a_database_that_refuses_leaves_the_event_parked_and_the_redrive_counts_it_once() {
    let site = Site::new().await;
    let (app, proxy) = site.app_behind_proxy();
    proxy.refuse();
    let started = Instant::now();
    assert_eq!(deliver(&app, charge("Kapok")).await, kept("parked"));
    // The one bound that is a promise in seconds: after it Stripe counts the delivery as failed.
    assert!(started.elapsed() < PATIENCE);
    // Delivered again meanwhile, it is parked once.
    assert_eq!(deliver(&app, charge("Kapok")).await, kept("parked"));
    assert_eq!(site.parked().await.len(), 1);
    assert_eq!(site.count("stripe_events").await, 0);
    proxy.pass();
    // Stripe is faster than the schedule: applied by the delivery, then found again.
    assert_eq!(deliver(&app, charge("Kapok")).await, kept("applied"));
    assert_eq!(site.redrive(noon()).await["duplicate"], 1);
    assert_eq!(site.parked().await, []);
    site.assert_counted_once().await;
}

#[tokio::test]
async fn a_connection_that_dies_within_the_transaction_leaves_nothing_half_done() {
    for statement in ["BEGIN", "-- ledger::open", "-- ledger::close", "COMMIT"] {
        let site = Site::new().await;
        let (app, proxy) = site.app_behind_proxy();
        app.warm().await;
        if statement == "COMMIT" {
            proxy.cut_before_commit();
        } else {
            proxy.cut_before(statement);
        }
        let started = Instant::now();
        assert_eq!(deliver(&app, charge("Larch")).await, kept("parked"));
        assert!(started.elapsed() < PATIENCE, "{statement}");
        assert!(proxy.cuts() > 0, "{statement}");
        for table in [
            "stripe_events",
            "payment_attempts",
            "payment_history",
            "outbox",
        ] {
            assert_eq!(site.count(table).await, 0, "{statement}: {table}");
        }
        assert_eq!(site.redrive(noon()).await["applied"], 1, "{statement}");
        site.assert_counted_once().await;
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_again_on_the_next_connection() {
    let site = Site::new().await;
    let (app, proxy) = site.app_behind_proxy();
    app.warm().await;
    proxy.cut_on_commit();
    let started = Instant::now();
    // The effect is there and nobody knows: applying it once more says so.
    assert_eq!(deliver(&app, charge("Maple")).await, kept("duplicate"));
    assert_eq!(proxy.cuts(), 1);
    assert!(started.elapsed() < PATIENCE);
    site.assert_counted_once().await;
    proxy.pass();
    assert_eq!(deliver(&app, charge("Maple")).await, kept("duplicate"));
    let summary = site.redrive(noon()).await;
    assert_eq!(
        (&summary["duplicate"], &summary["published"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(site.parked().await, []);
    site.assert_counted_once().await;
}

#[tokio::test]
async fn a_database_that_hangs_is_given_up_in_time() {
    for warmed in [true, false] {
        let site = Site::new().await;
        let (app, proxy) = site.app_behind_proxy();
        if warmed {
            app.warm().await;
        }
        proxy.hang();
        let started = Instant::now();
        assert_eq!(deliver(&app, charge("Nutmeg")).await, kept("parked"));
        let elapsed = started.elapsed();
        assert!(elapsed < PATIENCE, "warmed: {warmed}, {elapsed:?}");
        proxy.pass();
        assert_eq!(site.redrive(noon()).await["applied"], 1);
        site.assert_counted_once().await;
    }
}

#[tokio::test]
async fn a_thawed_sandbox_with_a_dead_socket_reconnects_once_and_silently() {
    let site = Site::new().await;
    let (app, proxy) = site.app_behind_proxy();
    app.warm().await;
    assert_eq!(deliver(&app, charge("Oak")).await, kept("applied"));
    let connections = proxy.connections();
    proxy.refuse();
    until(|| proxy.cuts() == connections).await;
    proxy.pass();
    assert_eq!(deliver(&app, charge("Oak")).await, kept("duplicate"));
    assert_eq!(proxy.connections(), connections + 1);
    assert_eq!(site.parked().await, []);
}

// AWS away.

#[tokio::test]
async fn without_dynamodb_and_eventbridge_an_event_is_applied_and_announced_later() {
    let site = Site::new().await;
    let app = site.app_with(&[], &no_aws().await);
    let started = Instant::now();
    assert_eq!(deliver(&app, charge("Pine")).await, kept("applied"));
    assert!(started.elapsed() < PATIENCE);
    let waiting = "outbox WHERE published_at IS NULL AND detail_type = 'payment.succeeded'";
    assert_eq!(site.count(waiting).await, 1);
    // Its pause after the failure is over in a minute.
    let summary = site.redrive(noon() + SignedDuration::from_mins(1)).await;
    assert_eq!(
        (&summary["published"], &summary["publish_failed"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(site.count(waiting).await, 0);
    site.assert_counted_once().await;
}

#[tokio::test]
async fn a_message_is_published_and_marked_as_soon_as_its_event_is_committed() {
    let site = Site::new().await;
    assert_eq!(
        deliver(&site.app(), charge("Quince")).await,
        kept("applied")
    );
    assert_eq!(site.count("outbox WHERE published_at IS NULL").await, 0);
    assert_eq!(site.count("outbox").await, 1);
}

#[tokio::test]
async fn an_event_that_can_be_stored_nowhere_is_left_to_stripe() {
    let site = Site::new().await;
    let (proxy, url) = site.surroundings.database.behind_proxy();
    proxy.refuse();
    let pairs = [("DATABASE_URL", url.as_str())];
    let app = site.app_with(&pairs, &no_aws().await);
    let large = charge("Rowan").replace("Subscription update", &"x".repeat(900 * 1024));
    for body in [charge("Rowan"), large] {
        let started = Instant::now();
        let answer = deliver(&app, body).await;
        is_problem(&answer, 503, "unavailable");
        assert!(started.elapsed() < PATIENCE);
    }
    site.assert_untouched().await;
    // Stripe delivers it again when both are back.
    proxy.pass();
    let app = site.app_with(&pairs, &site.surroundings.aws);
    assert_eq!(deliver(&app, charge("Rowan")).await, kept("applied"));
    site.assert_counted_once().await;
}

#[tokio::test]
async fn when_everything_hangs_the_answer_comes_in_time_all_the_same() {
    for warmed in [true, false] {
        let site = Site::new().await;
        let (database, url) = site.surroundings.database.behind_proxy();
        let moto = FaultProxy::start(moto_address().await);
        let aws = aws::sdk_config(&format!("http://{}", moto.address()));
        let app = site.app_with(&[("DATABASE_URL", &url)], &aws);
        if warmed {
            app.warm().await;
        }
        database.hang();
        moto.hang();
        let started = Instant::now();
        let answer = deliver(&app, charge("Spruce")).await;
        is_problem(&answer, 503, "unavailable");
        let elapsed = started.elapsed();
        assert!(elapsed < PATIENCE, "warmed: {warmed}, {elapsed:?}");
    }
}

// Events that cannot be applied.

#[tokio::test]
async fn a_poison_event_is_parked_and_given_up_and_holds_up_nobody() {
    let site = Site::new().await;
    let (app, proxy) = site.app_behind_proxy();
    let poison = charge("Teak").replace("\"currency\"", "\"no_currency\"");
    assert_eq!(deliver(&app, &poison).await, kept("parked"));
    proxy.refuse();
    let good = charge("Upas");
    assert_eq!(deliver(&app, &good).await, kept("parked"));
    proxy.pass();
    let mut now = noon();
    for attempt in 1..=8 {
        let summary = site.redrive(now).await;
        let applied = u64::from(attempt == 1);
        let verdict = if attempt == 8 { "poisoned" } else { "failed" };
        assert_eq!(
            (&summary["applied"], &summary[verdict]),
            (&json!(applied), &json!(1))
        );
        now += SignedDuration::from_hours(6);
    }
    site.assert_counted_once().await;
    let poisoned = site.parked().await;
    assert_eq!(poisoned.len(), 1);
    assert!(poisoned[0].is_poisoned());
    assert!(
        poisoned[0].reason.contains("`currency`"),
        "{}",
        poisoned[0].reason
    );
    assert_eq!(
        site.count("outbox WHERE detail_type = 'event.poisoned'")
            .await,
        1
    );
    // It stays kept when Stripe sends it again, and is not taken up again by that.
    assert_eq!(deliver(&app, &poison).await, kept("parked"));
    assert_eq!(site.parked().await, poisoned);
    assert_eq!(site.redrive(now).await["failed"], 0);
}

#[test]
fn without_its_configuration_the_program_says_which_variable_is_missing() {
    let line = logs::of_a_start_without_configuration(env!("CARGO_BIN_EXE_webhook"));
    assert_eq!(line["level"], "ERROR");
    let cause = line["fields"]["cause"].as_str().unwrap();
    assert!(cause.contains("DATABASE_URL"), "{line}");
}

// Rotation.

#[tokio::test]
async fn during_a_rotation_the_old_and_the_new_secret_are_accepted() {
    let site = Site::new().await;
    let pairs = [("STRIPE_WEBHOOK_SECRETS", "whsec_old, whsec_new")];
    let app = site.app_with(&pairs, &site.surroundings.aws);
    for (name, secret, status) in [
        ("Vine", "whsec_old", 200),
        ("Vine2", "whsec_new", 200),
        ("Vine3", "whsec_old, whsec_new", 400),
        ("Vine4", "", 400),
    ] {
        let body = charge(name);
        let request = post(body.as_bytes(), &header(body.as_bytes(), secret, noon()));
        assert_eq!(send(&app, request, noon()).await.0, status, "{secret}");
    }
}

#[tokio::test]
async fn a_secret_rotated_in_secrets_manager_is_read_again_at_the_first_failed_check() {
    let site = Site::new().await;
    let moto = FaultProxy::start(moto_address().await);
    let through_proxy = aws::sdk_config(&format!("http://{}", moto.address()));
    let manager = aws_sdk_secretsmanager::Client::new(&site.surroundings.aws);
    let name = testing::unique("webhook-secret");
    let created = manager
        .create_secret()
        .name(&name)
        .secret_string("whsec_first");
    let arn = created.send().await.unwrap().arn.unwrap();
    let pairs = [
        ("STRIPE_WEBHOOK_SECRETS", ""),
        ("STRIPE_WEBHOOK_SECRET_ARN", arn.as_str()),
    ];
    let app = site.app_with(&pairs, &through_proxy);
    let signed = |body: &str, secret: &str, at: Timestamp| {
        post(body.as_bytes(), &header(body.as_bytes(), secret, at))
    };
    let body = sample("stripe_payout_paid_endive").body;
    let renamed = |number: u32| body.replace("evt_", &format!("evt_{number}_"));
    let request = signed(&renamed(1), "whsec_first", noon());
    assert_eq!(send(&app, request, noon()).await.0, 200);

    // Rotated a minute later, long before the cache ends.
    let rotated = manager.put_secret_value().secret_id(&arn);
    let rotated = rotated.secret_string(r#"["whsec_second", "whsec_first"]"#);
    rotated.send().await.unwrap();
    let later = noon() + SignedDuration::from_mins(1);
    for (number, secret) in [(2, "whsec_second"), (3, "whsec_first")] {
        let request = signed(&renamed(number), secret, later);
        assert_eq!(send(&app, request, later).await.0, 200, "{secret}");
    }

    // A flood of forgeries asks Secrets Manager once, not each time.
    let later = later + SignedDuration::from_mins(1);
    moto.count_round_trips();
    for _ in 0..20 {
        let answer = send(&app, signed(&renamed(4), "whsec_third", later), later).await;
        is_problem(&answer, 400, "invalid_signature");
    }
    assert_eq!(moto.round_trips(), 1);

    // Away: what was read before is used beyond its time. Never read: nothing can be checked.
    moto.refuse();
    let much_later = later + SignedDuration::from_mins(6);
    let request = signed(&renamed(5), "whsec_second", much_later);
    assert_eq!(send(&app, request, much_later).await.0, 200);
    let app = site.app_with(&pairs, &through_proxy);
    let request = signed(&renamed(6), "whsec_second", noon());
    is_problem(&send(&app, request, noon()).await, 503, "unavailable");
}

// Logs.

#[tokio::test]
async fn the_logs_of_every_sample_tell_ids_and_nothing_personal() {
    let site = Site::new().await;
    let (app, proxy) = site.app_behind_proxy();
    let mut secrets = vec![SECRET.to_owned(), SAMPLE_SECRET.to_owned()];
    let events: Vec<_> = samples()
        .into_iter()
        .filter(|sample| sample.name.starts_with("stripe_"))
        .collect();
    for event in &events {
        secrets.extend(logs::personal_texts(&event.json()));
        let body = event.body.as_bytes();
        let signature = header(body, SECRET, noon());
        secrets.push(signature.split_once("v1=").unwrap().1.to_owned());
        let (status, _) = deliver(&app, body).await;
        assert_eq!(status, 200, "{}", event.name);
        // Refused, not applied and parked, and stored nowhere: what is logged then.
        let truncated = &body[..body.len() - 3];
        assert_eq!(deliver(&app, truncated).await.0, 400);
        let forged = send(&app, post(body, "t=1,v1=00"), noon()).await;
        assert_eq!(forged.0, 400);
        let lacking = event.body.replace("\"currency\"", "\"no_currency\"");
        let lacking = lacking.replace("\"evt_", "\"evt_lacking_");
        assert_eq!(deliver(&app, lacking).await.0, 200);
    }
    assert!(secrets.len() > 2 * events.len(), "the samples hold people");
    proxy.refuse();
    let no_database = "postgres://someone:hush-password@127.0.0.1:1/nothing";
    let nowhere = site.app_with(&[("DATABASE_URL", no_database)], &no_aws().await);
    secrets.push("hush-password".to_owned());
    for event in &events {
        let away = event.body.replace("\"evt_", "\"evt_away_");
        assert_eq!(deliver(&app, &away).await, kept("parked"));
        assert_eq!(deliver(&nowhere, &away).await.0, 503);
    }
    proxy.pass();
    site.redrive(noon()).await;
    let logged = logs::captured();
    assert!(logged.contains("evt_HarborCustomerCreated"));
    logs::assert_free_of(&secrets);
}
