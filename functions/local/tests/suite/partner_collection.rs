//! A partner's invoice collected through Stripe: out by the client, back by signed webhooks.

use domain::partner::contract::Contract;
use fake_stripe::account::Account;
use fake_stripe::delivery::http_client;
use fake_stripe::payments::Outcome;
use fake_stripe::{FakeStripe, Options, Shape};
use jiff::Timestamp;
use lambda_http::http::{Method, Request};
use lambda_http::{Body, RequestExt};
use secrecy::SecretString;
use serde_json::{Value, json};
use store::contracts;
use stripe::signature;
use testing::roles::as_function;
use testing::{Surroundings, TestDatabase, sample};
use tokio::net::TcpListener;

const SECRET: &str = "whsec_test_of_the_collection";
const TIME: &str = "2025-12-01T00:05:00Z";

fn now() -> Timestamp {
    TIME.parse().unwrap()
}

/// The two functions, their database, and a Stripe.
struct Site {
    database: TestDatabase,
    stripe: FakeStripe,
    invoicing: partner_invoicing::App,
    webhook: webhook::App,
}

impl Site {
    async fn new() -> Site {
        let account = Account::new("Partners", now());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stripe = FakeStripe::start(listener, Options::new(account, now)).unwrap();
        let surroundings = Surroundings::new([
            ("INVOICE_ISSUER", r#"{"name": "DeedPro"}"#.to_owned()),
            ("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()),
            ("STRIPE_API_BASE", stripe.base_url()),
            ("STRIPE_API_KEY", "sk_test_any".to_owned()),
        ])
        .await;
        let environment = surroundings.environment(&[]);
        let site = Site {
            invoicing: partner_invoicing::App::from_env(
                &as_function("partner-invoicing", &environment),
                &surroundings.aws,
            )
            .unwrap(),
            webhook: webhook::App::from_env(
                &as_function("webhook", &environment),
                &surroundings.aws,
            )
            .unwrap(),
            database: surroundings.database,
            stripe,
        };
        site.contract().await;
        site
    }

    /// 500.00, 312 units at 2.50, 19 % tax, and a credit of 23.20.
    async fn contract(&self) {
        let members = json!({
            "api_key_prefix": "dp_pk_alpha", "company": "Alpha Title", "pricing_model": "hybrid",
            "monthly_flat_fee_cents": 50_000, "per_deed_price_cents": 250, "tax_rate_bps": 1_900,
            "contract_start_date": "2025-11-01", "billing_email": "ap@example.com",
        });
        let contract = Contract::parse(members.as_object().unwrap()).unwrap();
        let client = self.database.client().await;
        contracts::insert(&client, &contract, now()).await.unwrap();
        let rows = "INSERT INTO api_usage (api_key_prefix, cost_units, created_at)
                    VALUES ('dp_pk_alpha', 312, '2025-11-10Z');
                    INSERT INTO credits (api_key_prefix, amount_cents, remaining_cents, currency, reason)
                    VALUES ('dp_pk_alpha', 2320, 2320, 'USD', 'goodwill')";
        client.batch_execute(rows).await.unwrap();
    }

    async fn run(&self, time: &str) -> Value {
        let mut event = sample("schedule_partner_invoicing_monthly").json();
        event["time"] = json!(time);
        partner_invoicing::handle(&self.invoicing, event, now())
            .await
            .unwrap()
    }

    /// Delivers everything Stripe has announced so far, again and again.
    async fn deliver(&self) {
        let events = self
            .stripe
            .with_account(|account| account.events(Shape::Endive));
        for event in events {
            let body = event.to_string();
            let header = signature::sign(body.as_bytes(), &SecretString::from(SECRET), now());
            let request = Request::builder()
                .method(Method::POST)
                .uri("https://billing.example.com/payments/webhook")
                .header(signature::HEADER, header)
                .body(Body::Text(body))
                .unwrap()
                .with_raw_http_path("/payments/webhook");
            let answer = webhook::handle(&self.webhook, request, now()).await;
            let answer: Value = serde_json::from_slice(answer.body()).unwrap();
            assert_ne!(answer["outcome"], "parked", "{}", event["type"]);
        }
    }

    async fn execute(&self, statement: &str) {
        let client = self.database.client().await;
        client.batch_execute(statement).await.unwrap();
    }

    /// The one invoice there is.
    async fn invoice(&self) -> Value {
        let client = self.database.client().await;
        let select = "SELECT to_jsonb(invoices) FROM invoices";
        let rows = client.query(select, &[]).await.unwrap();
        assert_eq!(rows.len(), 1, "one invoice");
        rows[0].get(0)
    }

    /// Id, status and what is due of the invoices at Stripe.
    async fn at_stripe(&self) -> Vec<(String, String, i64)> {
        let http = http_client().unwrap();
        let list = http
            .get(format!("{}/v1/invoices?limit=100", self.stripe.base_url()))
            .bearer_auth("sk_test_any");
        let list: Value = list.send().await.unwrap().json().await.unwrap();
        let invoices = list["data"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        invoices
            .map(|invoice| {
                let amount_due = invoice["amount_due"].as_i64().unwrap();
                (text(&invoice["id"]), text(&invoice["status"]), amount_due)
            })
            .collect()
    }
}

/// What must not change, whatever Stripe says of the invoice.
fn frozen(invoice: &Value) -> Value {
    let mut kept = json!({});
    for column in [
        "id",
        "invoice_number",
        "kind",
        "contract_id",
        "api_key_prefix",
        "line_items",
        "metadata",
        "currency",
        "subtotal_cents",
        "tax_cents",
        "total_cents",
        "credit_applied_cents",
        "billing_period_start",
        "billing_period_end",
        "due_date",
        "pdf_key",
        "pdf_sha256",
        "collection_method",
        "created_at",
    ] {
        kept[column] = invoice[column].clone();
    }
    kept
}

#[tokio::test]
async fn the_payment_comes_back_to_the_invoice_it_is_for() {
    let site = Site::new().await;
    let summary = site.run(TIME).await;
    assert_eq!(summary["collected"], 1);
    let issued = site.invoice().await;
    assert_eq!(issued["amount_due_cents"], 150_000);
    let at_stripe = site.at_stripe().await;
    assert_eq!(at_stripe.len(), 1);
    let (id, status, amount_due) = at_stripe[0].clone();
    assert_eq!((status.as_str(), amount_due), ("open", 150_000));
    assert_eq!(issued["stripe_invoice_id"], id.as_str());
    assert!(issued["sent_at"].is_string());
    site.deliver().await;
    let announced = site.invoice().await;
    assert_eq!(frozen(&announced), frozen(&issued));
    assert_eq!(announced["status"], "open");
    assert_eq!(announced["amount_due_cents"], 150_000);
    site.stripe
        .with_account(|account| account.pay_invoice(&id, Outcome::Succeeds))
        .unwrap();
    site.deliver().await;
    let paid = site.invoice().await;
    assert_eq!(frozen(&paid), frozen(&issued));
    assert_eq!(paid["status"], "paid");
    assert_eq!(paid["amount_due_cents"], 0);
    assert_eq!(paid["amount_paid_cents"], 150_000);
    assert!(paid["paid_at"].is_string());
    let client = site.database.client().await;
    let payments = "SELECT count(*) FROM payment_history JOIN invoices ON invoices.id = payment_history.invoice_id
                    WHERE payment_history.amount_cents = 150000 AND payment_history.status = 'succeeded'";
    let payments: i64 = client.query_one(payments, &[]).await.unwrap().get(0);
    assert_eq!(payments, 1);
    assert_eq!(site.run("2025-12-02T00:05:00Z").await["collected"], 0);
}

/// As after a kill between Stripe's answer and ours, more than a day later: Stripe has forgotten the keys.
#[tokio::test]
async fn an_invoice_that_stripe_has_is_not_made_again() {
    let site = Site::new().await;
    site.run(TIME).await;
    let at_stripe = site.at_stripe().await;
    for forgotten in [
        "UPDATE invoices SET sent_at = NULL",
        "UPDATE invoices SET sent_at = NULL, stripe_invoice_id = NULL",
    ] {
        site.execute(forgotten).await;
        assert_eq!(site.run("2025-12-03T00:05:00Z").await["collected"], 1);
        assert_eq!(site.at_stripe().await, at_stripe, "{forgotten}");
        assert_eq!(
            site.invoice().await["stripe_invoice_id"],
            at_stripe[0].0.as_str()
        );
    }
    // The webhook is faster than the run that was killed: it finds our invoice by the metadata.
    site.execute("UPDATE invoices SET sent_at = NULL, stripe_invoice_id = NULL")
        .await;
    site.deliver().await;
    let linked = site.invoice().await;
    assert_eq!(linked["stripe_invoice_id"], at_stripe[0].0.as_str());
    assert_eq!(linked["invoice_number"], "API-202511-dp_pk_alpha");
}

#[tokio::test]
async fn an_invoice_voided_at_stripe_gives_its_credits_back_and_is_issued_again() {
    let site = Site::new().await;
    site.run(TIME).await;
    let (id, ..) = site.at_stripe().await[0].clone();
    site.stripe
        .with_account(|account| account.void_invoice(&id))
        .unwrap();
    site.deliver().await;
    let voided = site.invoice().await;
    assert_eq!(
        (&voided["status"], &voided["credit_applied_cents"]),
        (&json!("void"), &json!(0))
    );
    let summary = site.run("2025-12-02T00:05:00Z").await;
    assert_eq!(summary["credit_applied_cents"], json!({"USD": 2_320}));
    assert_eq!(summary["collected"], 1);
    let at_stripe = site.at_stripe().await;
    let open = at_stripe.iter().filter(|(_, status, _)| status == "open");
    assert_eq!((open.count(), at_stripe.len()), (1, 2));
}
