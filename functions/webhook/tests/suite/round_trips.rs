//! How often one delivery waits for Postgres, counted on the wire: the whole handler, the outbox included.

#![expect(clippy::print_stdout, reason = "the figure is part of the report")]

use fake_stripe::account::NewPrice;
use fake_stripe::billing::{Buyer, NewSubscription};
use fake_stripe::payments::Outcome;
use fake_stripe::{Account, Shape};
use jiff::Timestamp;
use lambda_http::http::{Method, Request};
use lambda_http::{Body, RequestExt};
use runtime::config::Environment;
use secrecy::SecretString;
use serde_json::Value;
use stripe::signature;
use testing::roles::as_function;
use testing::{Aws, FaultProxy, TestDatabase};
use webhook::App;

const SECRET: &str = "whsec_test_of_the_round_trips";
const USER: i32 = 7;
/// Open, and close.
const APPLIED: u64 = 2;
/// And what the bus has taken is marked.
const APPLIED_AND_ANNOUNCED: u64 = 3;
/// Open; nobody waits for the end of the transaction.
const DUPLICATE: u64 = 1;
/// One statement.
const IGNORED: u64 = 1;

/// A webhook whose one connection goes through a proxy that counts.
struct Webhook {
    app: App,
    proxy: FaultProxy,
    database: TestDatabase,
}

impl Webhook {
    async fn start() -> Webhook {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        let insert =
            "INSERT INTO users (id, email, full_name) VALUES ($1, 'buyer@example.com', 'Buyer')";
        client.execute(insert, &[&USER]).await.unwrap();
        let (proxy, url) = database.behind_proxy();
        let aws = Aws::shared().await;
        let environment = Environment::from_pairs([
            ("DATABASE_URL", url),
            ("DATABASE_SSLMODE", "disable".to_owned()),
            ("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()),
            ("STRIPE_LIVEMODE", "any".to_owned()),
            ("PARKED_EVENTS_TABLE", aws.parked_events_table().await),
            ("DOCUMENT_BUCKET", aws.bucket().await),
            ("EVENT_BUS_NAME", aws.event_bus().await),
        ]);
        let app = App::from_env(&as_function("webhook", &environment), &aws.sdk_config()).unwrap();
        Webhook {
            app,
            proxy,
            database,
        }
    }

    /// Delivers events, oldest first.
    async fn deliver(&self, events: &[Value]) {
        for event in events {
            let now = Timestamp::from_second(1_780_000_000).unwrap();
            let body = event.to_string();
            let header = signature::sign(body.as_bytes(), &SecretString::from(SECRET), now);
            let request = Request::builder()
                .method(Method::POST)
                .uri("https://billing.example.com/payments/webhook")
                .header(signature::HEADER, header)
                .body(Body::Text(body))
                .unwrap()
                .with_raw_http_path("/payments/webhook");
            let answer = webhook::handle(&self.app, request, now).await;
            let answer: Value = serde_json::from_slice(answer.body()).unwrap();
            assert_ne!(answer["outcome"], "parked", "{}", event["type"]);
        }
    }

    /// Messages the bus does not have yet.
    async fn unpublished(&self) -> i64 {
        let count = "SELECT count(*) FROM outbox WHERE published_at IS NULL";
        let client = self.database.client().await;
        client.query_one(count, &[]).await.unwrap().get(0)
    }

    /// Delivers one event; the flights it took.
    async fn flights(&self, event: Value) -> u64 {
        self.proxy.count_round_trips();
        self.deliver(&[event]).await;
        let flights = self.proxy.round_trips();
        assert_eq!(self.unpublished().await, 0, "marking them is counted");
        assert_eq!(
            self.proxy.connections(),
            1,
            "on the connection that was open"
        );
        flights
    }
}

/// The events that make a subscriber, and those of the first renewal.
fn story(shape: Shape) -> (Vec<Value>, Vec<Value>) {
    let start: Timestamp = "2026-04-01T00:00:00Z".parse().unwrap();
    let mut account = Account::new("Flights", start);
    let price = account.create_price(&NewPrice::monthly("usd", 2_999, "professional"));
    let buyer = Buyer {
        user_id: USER,
        email: "buyer@example.com",
        name: "Sample Buyer",
        plan: "professional",
    };
    let new = NewSubscription {
        items: vec![(&price, 1)],
        ..NewSubscription::default()
    };
    let (_, subscription) = account.checkout(buyer, &new).unwrap();
    let known = account.events_since(0).len();
    account.renew(&subscription, Outcome::Succeeds).unwrap();
    let render = |events: &[fake_stripe::account::LoggedEvent]| {
        events
            .iter()
            .filter_map(|event| event.render(shape))
            .collect()
    };
    let all = account.events_since(0);
    (render(&all[..known]), render(&all[known..]))
}

async fn assert_few_flights(shape: Shape) {
    for payment_is_known in [true, false] {
        let webhook = Webhook::start().await;
        let (subscribed, renewal) = story(shape);
        webhook.deliver(&subscribed).await;
        let is_paid = |event: &Value| event["type"] == "invoice.paid";
        let paid = renewal.iter().find(|event| is_paid(event)).unwrap().clone();
        if payment_is_known {
            let others = renewal.into_iter().filter(|event| !is_paid(event));
            webhook.deliver(&others.collect::<Vec<_>>()).await;
        }
        let flights = webhook.flights(paid.clone()).await;
        println!(
            "invoice.paid, {shape:?}, its payment known: {payment_is_known}: {flights} flights"
        );
        // The payment's own events have announced it, if there were any.
        let expected = match payment_is_known {
            true => APPLIED,
            false => APPLIED_AND_ANNOUNCED,
        };
        assert_eq!(flights, expected);
        // Nothing that was not announced before.
        let mut again = paid.clone();
        again["id"] = "evt_again".into();
        assert_eq!(webhook.flights(again).await, APPLIED);
        let mut ignored = paid.clone();
        ignored["id"] = "evt_ignored".into();
        ignored["type"] = "account.updated".into();
        assert_eq!(webhook.flights(ignored).await, IGNORED);
        assert_eq!(webhook.flights(paid).await, DUPLICATE);
    }
}

#[tokio::test]
async fn a_renewal_takes_few_flights_in_the_predecessors_version() {
    assert_few_flights(Shape::V2020_08_27).await;
}

#[tokio::test]
async fn a_renewal_takes_few_flights_in_basil() {
    assert_few_flights(Shape::Basil).await;
}
