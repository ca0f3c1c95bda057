//! `GET /admin/revenue` over 10 thousand and over 10 million payments: the answer must not cost more with history.
//!
//! `cargo bench -p admin-revenue`; `-- --payments 1000000` for another number. Inserting 10 million rows takes minutes.

use std::time::{Duration, Instant};

use admin_revenue::{App, handle};
use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use lambda_http::http::Request;
use lambda_http::{Body, RequestExt};
use serde_json::json;
use shared::config::Environment;
use shared::test_support::TestDatabase;

const FEW: u64 = 10_000;
const MANY: u64 = 10_000_000;
const CUSTOMERS: u64 = 1_000;
const DAYS: u64 = 5 * 365;
const CALLS: usize = 300;
const SECRET: &str = "bench";

fn main() {
    // `cargo test --all-targets` runs a bench without arguments, only to see that it starts.
    if std::env::args().count() == 1 {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(compare(payments()));
}

/// The larger number, from `--payments`.
fn payments() -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--payments");
    match arguments.nth(1) {
        Some(number) => number.parse().expect("--payments takes a number"),
        None => MANY,
    }
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare(many: u64) {
    let small = Ledger::create(FEW).await;
    println!("inserting {many} payments");
    let start = Instant::now();
    let large = Ledger::create(many).await;
    println!("inserted in {} s", start.elapsed().as_secs());
    // Warm both, then alternate, so that whatever else the machine does falls on both.
    for _ in 0..20 {
        small.call().await;
        large.call().await;
    }
    let (mut few_times, mut many_times) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        few_times.push(small.call().await);
        many_times.push(large.call().await);
    }
    let (few_median, many_median) = (median(few_times), median(many_times));
    println!("GET /admin/revenue, median of {CALLS} calls, {CUSTOMERS} customers, {DAYS} days:");
    println!("  {FEW:>9} payments: {:>6} µs", few_median.as_micros());
    println!("  {many:>9} payments: {:>6} µs", many_median.as_micros());
    let percent = many_median.as_nanos() * 100 / few_median.as_nanos();
    println!(
        "  ratio: {}.{:02} (at most 1.50)",
        percent / 100,
        percent % 100
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

struct Ledger {
    app: App,
    now: Timestamp,
    authorization: String,
    _database: TestDatabase,
}

impl Ledger {
    async fn create(payments: u64) -> Ledger {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        // Spread over the days, one in fifty refunded, one in ten in EUR: as the webhook would have left them.
        client
            .batch_execute(&format!(
                "INSERT INTO payment_history (payment_key, stripe_payment_intent_id, stripe_customer_id, amount_cents,
                     currency, status, stripe_fee_cents, fee_source, succeeded_at, created_at)
                 SELECT 'pi_' || n, 'pi_' || n, 'cus_' || n % {CUSTOMERS}, 2999,
                        CASE WHEN n % 10 = 0 THEN 'EUR' ELSE 'USD' END,
                        CASE WHEN n % 50 = 0 THEN 'refunded' ELSE 'succeeded' END, 117, 'actual', paid_at, paid_at
                 FROM (SELECT n, '2025-10-20Z'::timestamptz - n % {DAYS} * interval '1 day' AS paid_at
                       FROM generate_series(1, {payments}) AS n) AS numbered;
                 INSERT INTO revenue_daily (day, currency, gross_cents, fees_cents, refunds_cents, payments)
                 SELECT (succeeded_at AT TIME ZONE 'UTC')::date, currency, sum(amount_cents), sum(stripe_fee_cents),
                        coalesce(sum(amount_cents) FILTER (WHERE status = 'refunded'), 0), count(*)
                 FROM payment_history GROUP BY 1, 2;
                 INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, status, plan_name, currency,
                     mrr_microcents)
                 SELECT 'sub_' || n, 'cus_' || n, 'active', 'unknown', 'USD', 2999000000
                 FROM generate_series(1, {CUSTOMERS}) AS n;
                 INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents,
                     before_microcents, after_microcents, cause_event_id)
                 SELECT '2025-10-01Z', 'cus_' || n, 'new', 'USD', 2999000000, 0, 2999000000, 'evt'
                 FROM generate_series(1, {CUSTOMERS}) AS n;
                 ANALYZE"
            ))
            .await
            .expect("the rows");
        let environment = Environment::from_pairs([
            ("DATABASE_URL", database.url.as_str()),
            ("ADMIN_JWT_SECRET", SECRET),
        ]);
        let sdk = shared::test_support::aws::sdk_config("http://127.0.0.1:1");
        let now: Timestamp = "2025-10-20T12:00:00Z".parse().expect("an instant");
        let claims = json!({"exp": now.as_second() + 60, "role": "admin"});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
        Ledger {
            app: App::from_env(&environment, &sdk).expect("an app"),
            now,
            authorization: format!("Bearer {token}"),
            _database: database,
        }
    }

    async fn call(&self) -> Duration {
        let request = Request::get("/admin/revenue")
            .header("authorization", &self.authorization)
            .body(Body::Empty)
            .expect("a request")
            .with_raw_http_path("/admin/revenue");
        let start = Instant::now();
        let response = handle(&self.app, request, self.now).await;
        let elapsed = start.elapsed();
        assert_eq!(response.status(), 200);
        elapsed
    }
}
