//! What parking costs: events through the redrive next to the same events delivered to the webhook; and what it costs to
//! read them again from the archive, when a new release means something else by them.
//!
//! `cargo bench -p reconciliation --bench redrive`; `-- --events 200` for another number of events.

use std::time::{Duration, Instant};

use fake_stripe::Shape;
use fake_stripe::account::{Account, NewPrice};
use fake_stripe::billing::{Buyer, NewSubscription};
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::Request;
use lambda_http::{Body, RequestExt};
use runtime::aws::parked_events::ParkedEvents;
use runtime::config::Environment;
use secrecy::SecretString;
use serde_json::{Value, json};
use stripe::signature;
use testing::bench::{self, median, number, ratio};
use testing::roles::as_function;
use testing::{Aws, TestDatabase};

const EVENTS: usize = 1_000;
const ROUNDS: usize = 3;
const SECRET: &str = "whsec_bench";
const PATH: &str = "/payments/webhook";

fn main() {
    bench::run(compare(number("--events").unwrap_or(EVENTS)));
}

fn now() -> Timestamp {
    "2026-04-02T00:00:00Z".parse().expect("an instant")
}

/// Buyers who subscribe, as Stripe announces it.
fn story(events: usize) -> Vec<(String, String)> {
    let mut account = Account::new("Bench", "2026-04-01T00:00:00Z".parse().expect("an instant"));
    let price = account.create_price(&NewPrice::monthly("usd", 2_999, "professional"));
    let mut user_id = 0;
    while account.events_since(0).len() < events * 11 / 10 + 20 {
        user_id += 1;
        let buyer = Buyer {
            user_id,
            email: "buyer@example.com",
            name: "Sample Buyer",
            plan: "professional",
        };
        let new = NewSubscription {
            items: vec![(&price, 1)],
            ..NewSubscription::default()
        };
        account.checkout(buyer, &new).expect("a subscription");
        account.advance(7);
    }
    let rendered = account.events_since(0).iter();
    let rendered = rendered.filter_map(|event| event.render(Shape::Endive));
    rendered
        .map(|event| {
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            (id, event.to_string())
        })
        .take(events)
        .collect()
}

/// A database and everything else of one round's own.
struct Site {
    environment: Environment,
    aws: aws_types::SdkConfig,
    database: TestDatabase,
}

impl Site {
    async fn new() -> Site {
        let moto = Aws::shared().await;
        let database = TestDatabase::create().await;
        let client = database.client().await;
        let users = "INSERT INTO users (id, email, full_name)
                     SELECT n, n || '@example.com', 'Buyer' FROM generate_series(1, 1000) AS n";
        client.batch_execute(users).await.expect("users");
        let environment = Environment::from_pairs([
            ("DATABASE_URL", database.url.clone()),
            ("PARKED_EVENTS_TABLE", moto.parked_events_table().await),
            ("DOCUMENT_BUCKET", moto.bucket().await),
            ("EVENT_BUS_NAME", moto.event_bus().await),
            ("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()),
            ("STRIPE_LIVEMODE", "any".to_owned()),
        ]);
        Site {
            environment,
            aws: moto.sdk_config(),
            database,
        }
    }

    async fn applied(&self) -> i64 {
        let client = self.database.client().await;
        let select = "SELECT count(*) FROM stripe_events";
        let row = client.query_one(select, &[]).await.expect("a count");
        row.get(0)
    }
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare(events: usize) {
    let story = story(events);
    let (mut delivered, mut redriven, mut rebuilt) = (Vec::new(), Vec::new(), Vec::new());
    let mut read_again = 0;
    for _ in 0..ROUNDS {
        let direct = Site::new().await;
        delivered.push(deliver(&direct, &story).await);
        let (events, took) = rebuild(&direct).await;
        read_again = events;
        rebuilt.push(took);
        let parked = Site::new().await;
        redriven.push(redrive(&parked, &story).await);
        assert_eq!(direct.applied().await, parked.applied().await);
    }
    let (delivered, redriven, rebuilt) = (median(delivered), median(redriven), median(rebuilt));
    println!("{} events, medians of {ROUNDS}:", story.len());
    println!(
        "  delivered in {} ms, redriven in {} ms",
        delivered.as_millis(),
        redriven.as_millis()
    );
    println!("  ratio: {} (at most 2.00)", ratio(redriven, delivered));
    println!(
        "  {read_again} of them read again in {} ms, ratio: {}",
        rebuilt.as_millis(),
        ratio(rebuilt, delivered)
    );
}

async fn deliver(site: &Site, story: &[(String, String)]) -> Duration {
    let app = webhook::App::from_env(&as_function("webhook", &site.environment), &site.aws)
        .expect("the webhook");
    app.warm().await;
    let secret = SecretString::from(SECRET);
    let began = Instant::now();
    for (_, body) in story {
        let header = signature::sign(body.as_bytes(), &secret, now());
        let request = Request::builder()
            .method("POST")
            .uri(format!("https://billing.example.com{PATH}"))
            .header(signature::HEADER, header)
            .body(Body::Text(body.clone()))
            .expect("a request")
            .with_raw_http_path(PATH);
        let answer = webhook::handle(&app, request, now()).await;
        let answer: Value = serde_json::from_slice(answer.body()).expect("an answer");
        assert_ne!(answer["outcome"], "parked");
    }
    began.elapsed()
}

async fn redrive(site: &Site, story: &[(String, String)]) -> Duration {
    let table = ParkedEvents::from_env(&site.environment, &site.aws).expect("the table");
    for (id, body) in story {
        let parked = table.park(id, body, "a bench", now());
        parked.await.expect("a place to park");
    }
    let (summary, took) = reconcile(site, "reconciliation.redrive", Value::Null).await;
    let kept = ["applied", "ignored"].map(|outcome| summary[outcome].as_u64().unwrap_or_default());
    assert_eq!(
        usize::try_from(kept.iter().sum::<u64>()).ok(),
        Some(story.len()),
        "{summary}"
    );
    took
}

/// Reads the whole archive again, which changes nothing. Returns how many events the ledger has a use for.
async fn rebuild(site: &Site) -> (u64, Duration) {
    let detail = json!({"all": true});
    let (summary, took) = reconcile(site, "reconciliation.rebuild", detail).await;
    assert_eq!(summary["is_finished"], true, "{summary}");
    assert_eq!(summary["restated"], json!({}), "{summary}");
    (summary["events"].as_u64().expect("a number"), took)
}

/// A run of the function, and how long it took.
async fn reconcile(site: &Site, kind: &str, detail: Value) -> (Value, Duration) {
    let app =
        reconciliation::App::from_env(&as_function("reconciliation", &site.environment), &site.aws)
            .expect("the function");
    let later = now() + SignedDuration::from_hours(1);
    let event = json!({"detail-type": kind, "time": later, "detail": detail});
    let began = Instant::now();
    let summary = reconciliation::handle(&app, event, later).await;
    (summary.expect("a run"), began.elapsed())
}
