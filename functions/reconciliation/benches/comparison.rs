//! What comparing costs: the daily run, without healing, over an account in which nothing differs, next to paging its lists alone, and
//! the most memory it takes.
//!
//! `cargo bench -p reconciliation --bench comparison`; `-- --objects 100000` for another number of objects. The fake
//! Stripe runs in a separate process, so that neither its memory nor its processor time counts as ours.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use fake_stripe::account::Account;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use fake_stripe::{FakeStripe, Options};
use jiff::{SignedDuration, Timestamp};
use reconciliation::{App, handle};
use runtime::config::Environment;
use serde_json::{Map, Value, json};
use stripe::client::Client;
use testing::bench::{self, median, number, ratio};
use testing::roles::as_function;
use testing::{Aws, TestDatabase};
use tokio::net::TcpListener;

const OBJECTS: i64 = 20_000;
const ROUNDS: usize = 5;
/// Set for the process that is the fake Stripe: the number of objects.
const SERVE: &str = "--serve";
/// Where the kernel forgets how much memory this process has taken at most.
const FORGET: &str = "/proc/self/clear_refs";
/// What the daily run reads.
const LISTS: [&str; 8] = [
    "charges",
    "payment_intents",
    "refunds",
    "disputes",
    "invoices",
    "subscriptions",
    "balance_transactions",
    "payouts",
];

fn main() {
    bench::run(async {
        match number(SERVE) {
            Some(objects) => serve(objects).await,
            None => compare(number("--objects").unwrap_or(OBJECTS)).await,
        }
    });
}

fn begin() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().expect("an instant")
}

/// When the run fires: everything of the account is older, and nothing is older than the window.
fn now() -> Timestamp {
    begin() + SignedDuration::from_hours(72)
}

/// Payments of one object each in three lists, every tenth with a refund, which is in two.
fn account(objects: i64) -> Account {
    let mut account = Account::new("Bench", begin());
    let customer = account.create_customer(None, None, Metadata::new());
    let payments = objects * 10 / 32;
    for number in 0..payments {
        let intent = account
            .pay_once(&customer, 1_000 + number % 100, "usd", Outcome::Succeeds)
            .expect("a payment");
        if number % 10 == 0 {
            account.refund(&intent, 100).expect("a refund");
        }
        // A day of business, whatever the number.
        if number % (payments / 80_000 + 1) == 0 {
            account.advance(1);
        }
    }
    account.set_now(now());
    account
}

/// The fake Stripe, until the other process ends.
#[expect(clippy::print_stdout, reason = "the other process reads it there")]
async fn serve(objects: i64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let options = Options::new(account(objects), now);
    let stripe = FakeStripe::start(listener, options).expect("a fake Stripe");
    println!("{}", stripe.base_url());
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.expect("a reader").expect("the other's end");
}

/// The process of the fake Stripe, ended with this value.
struct Stripe {
    process: Child,
    base: String,
}

impl Stripe {
    fn start(objects: i64) -> Stripe {
        let bench = std::env::current_exe().expect("this bench");
        let mut process = Command::new(bench)
            .args([SERVE, &objects.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let said = process.stdout.take().expect("its output");
        let mut base = String::new();
        BufReader::new(said)
            .read_line(&mut base)
            .expect("its address");
        Stripe {
            process,
            base: base.trim_end().to_owned(),
        }
    }
}

impl Drop for Stripe {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().expect("the fake Stripe has ended");
    }
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare(objects: i64) {
    let stripe = Stripe::start(objects);
    let database = TestDatabase::create().await;
    let moto = Aws::shared().await;
    let environment = Environment::from_pairs([
        ("DATABASE_URL", database.url.clone()),
        ("PARKED_EVENTS_TABLE", moto.parked_events_table().await),
        ("DOCUMENT_BUCKET", moto.bucket().await),
        ("EVENT_BUS_NAME", moto.event_bus().await),
        ("STRIPE_API_BASE", stripe.base.clone()),
        ("STRIPE_API_KEY", "rk_test_Bench".to_owned()),
        ("STRIPE_LIVEMODE", "any".to_owned()),
    ]);
    let app = App::from_env(
        &as_function("reconciliation", &environment),
        &moto.sdk_config(),
    )
    .expect("the function");
    let client = Client::from_env(&environment, &SdkConfig::builder().build()).expect("a client");
    let began = Instant::now();
    // An hour earlier, as if every one had been delivered then.
    let imported = event("backfill", json!({}), now() - SignedDuration::from_hours(1));
    let imported = tokio::select! {
        imported = handle(&app, imported, now()) => imported.expect("an import"),
        never = keep_analyzed(&database) => match never {},
    };
    assert_eq!(imported["finished"], true, "{imported}");
    println!("imported in {} s", began.elapsed().as_secs());
    let db = database.client().await;
    db.batch_execute("VACUUM ANALYZE").await.expect("a vacuum");

    let (mut alone, mut compared) = (Vec::new(), Vec::new());
    let mut count = 0;
    std::fs::write(FORGET, "5").expect("Linux");
    for _ in 0..ROUNDS {
        let (took, pages) = page_alone(&client).await;
        alone.push(took);
        assert!(pages > 0);
        let (took, summary) = run(&app).await;
        compared.push(took);
        count = summary["compared"].as_i64().expect("a count");
        assert!(count >= objects, "all are of the window: {summary:#}");
    }
    let (alone, compared) = (median(alone), median(compared));
    println!("{count} objects compared, medians of {ROUNDS}:");
    println!(
        "  paging alone {} ms, the comparison {} ms",
        alone.as_millis(),
        compared.as_millis()
    );
    println!("  ratio: {} (at most 1.30)", ratio(compared, alone));
    println!("  most memory: {} (at most 64 MB)", in_mb(bench::peak_kb()));
}

/// The clusters of tests have no autovacuum: without its statistics an import reads whole tables for each of its slices.
async fn keep_analyzed(database: &TestDatabase) -> Infallible {
    let db = database.client().await;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        db.batch_execute("ANALYZE").await.expect("an analysis");
    }
}

/// What the schedule sends.
fn event(what: &str, detail: Value, time: Timestamp) -> Value {
    json!({"detail-type": format!("reconciliation.{what}"), "time": time, "detail": detail})
}

/// Without healing, which would read and apply the events of an account that was imported.
async fn run(app: &App) -> (Duration, Value) {
    let event = event("daily", json!({"heal": false}), now());
    let began = Instant::now();
    let answer = handle(app, event, now()).await;
    let took = began.elapsed();
    let summary = answer.expect("a run");
    let clean = (
        &summary["open"],
        &summary["healed"],
        &summary["completeness_bps"],
    );
    assert_eq!(clean, (&json!(0), &json!(0), &json!(10_000)), "{summary:#}");
    (took, summary)
}

/// The same lists of the same time, with the same client.
async fn page_alone(client: &Client) -> (Duration, usize) {
    let began = Instant::now();
    let mut pages_read = 0;
    for list in LISTS {
        let since = now() - SignedDuration::from_mins(3 * 24 * 60 + 15);
        let created = json!({
            "gte": since.as_second(),
            "lt": (now() - SignedDuration::from_mins(15)).as_second(),
        });
        let mut params = Map::from_iter([("created".to_owned(), created)]);
        if list == "subscriptions" {
            params.insert("status".to_owned(), "all".into());
        }
        let path = [list];
        let mut pages = client.pages(&path, params, u32::MAX, now());
        while let Some(page) = pages.next_page().await.expect("a page") {
            pages_read += 1;
            std::hint::black_box(page);
        }
    }
    (began.elapsed(), pages_read)
}

fn in_mb(kb: u64) -> String {
    format!("{}.{} MB", kb / 1_024, kb % 1_024 * 10 / 1_024)
}
