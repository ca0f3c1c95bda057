//! What the dashboard asks for, over 10 thousand and over 5 million rows: no answer may cost more with history. And its
//! revenue figures, of 1,000 and of 200,000 active subscriptions; and what unfinished look-ups add to them.
//!
//! `cargo bench -p admin-revenue --bench history`; `-- --rows 500000` for another larger number, `-- --subscriptions 200000`
//! for the subscriptions alone, `-- --lookups 10000` for the look-ups alone. Inserting 5 million rows takes minutes. At the end a process of its own answers a thousand
//! of these requests, and says how much memory it has.

use std::time::{Duration, Instant};

use admin_revenue::{App, handle};
use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use lambda_http::http::Request;
use lambda_http::{Body, RequestExt};
use runtime::config::Environment;
use serde_json::json;
use testing::TestDatabase;
use testing::bench::{self, argument, in_turns, number, ratio};
use testing::roles::as_function;

const FEW: u64 = 10_000;
const MANY: u64 = 5_000_000;
const FEW_SUBSCRIPTIONS: u64 = 1_000;
const MANY_SUBSCRIPTIONS: u64 = 200_000;
const LOOKUPS: u64 = 10_000;
const CUSTOMERS: u64 = 1_000;
const DAYS: u64 = 5 * 365;
const CALLS: usize = 100;
const MIXED_REQUESTS: usize = 1_000;
const SECRET: &str = "bench";
const NOW: &str = "2025-10-20T12:00:00Z";
/// Makes this program answer the mixed requests over this database.
const DATABASE: &str = "--database";

/// One page or report each; the filters are those the dashboard has. A page is as full in the small ledger as in the large.
const PATHS: [&str; 19] = [
    "/admin/revenue",
    "/admin/revenue?currency=EUR",
    "/admin/revenue?as_of=2022-06-15T12:00:00Z",
    "/admin/revenue/movements?from=2023-11-01&to=2025-10-20",
    "/admin/revenue/movements?from=2023-11-01&to=2025-10-20&profile=all_discounts",
    "/admin/revenue/movements?from=2023-11-01&to=2025-10-20&profile=no_discounts",
    "/admin/revenue/movements?from=2023-11-01&to=2025-10-20&as_of=2024-06-15T12:00:00Z",
    "/admin/payments",
    "/admin/payments?status=refunded",
    "/admin/payments?status=disputed&limit=2",
    "/admin/payments?customer=cus_7&limit=10",
    "/admin/payments?user_id=7&limit=10",
    "/admin/payments?from=2024-01-01&to=2024-02-01",
    "/admin/invoices",
    "/admin/invoices?status=open&limit=10",
    "/admin/invoices?customer=cus_7&limit=10",
    "/admin/invoices?number=N-77",
    "/admin/subscriptions?status=active",
    "/admin/events?outcome=ignored",
];

fn main() {
    bench::run(async {
        match argument(DATABASE) {
            Some(url) => answer_mixed_requests(&url).await,
            None => {
                let (subscriptions, lookups) = (number("--subscriptions"), number("--lookups"));
                let is_all = subscriptions.is_none() && lookups.is_none();
                if is_all || lookups.is_some() {
                    compare_lookups(lookups.unwrap_or(LOOKUPS)).await;
                }
                if is_all || subscriptions.is_some() {
                    compare_subscriptions(subscriptions.unwrap_or(MANY_SUBSCRIPTIONS)).await;
                }
                if is_all {
                    compare().await;
                }
            }
        }
    });
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare_subscriptions(many: u64) {
    let few_active = with_subscriptions(FEW_SUBSCRIPTIONS).await;
    let many_active = with_subscriptions(many).await;
    let small = Function::over(&few_active.url);
    let large = Function::over(&many_active.url);
    println!(
        "median of {CALLS} calls, µs      {FEW_SUBSCRIPTIONS:>9} {many:>9}  active subscriptions, ratio (at most 1.20)"
    );
    for path in &PATHS[..3] {
        turns(&small, &large, path).await;
    }
}

/// Figures that are exact, and figures of which this many charges of the last two years may change the fees.
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare_lookups(many: u64) {
    let exact = with_subscriptions(FEW_SUBSCRIPTIONS).await;
    let waiting = with_subscriptions(FEW_SUBSCRIPTIONS).await;
    let client = waiting.client().await;
    client
        .batch_execute(&format!(
            "INSERT INTO stripe_lookups (kind, stripe_id, reason, subject, subject_type, requested_at, currency, figure_at,
                 amount_cents)
             SELECT 'balance_transaction', 'txn_' || n, 'fee', 'ch_' || n, 'charge', at, 'USD', at, 117
             FROM (SELECT n, '2025-10-20Z'::timestamptz - n % 730 * interval '1 day' AS at
                   FROM generate_series(1, {many}) AS n) AS numbered"
        ))
        .await
        .expect("the look-ups");
    client
        .batch_execute("VACUUM ANALYZE")
        .await
        .expect("a vacuum");
    let exact = Function::over(&exact.url);
    let waiting = Function::over(&waiting.url);
    println!("median of {CALLS} calls, µs              0 {many:>9}  unfinished look-ups, ratio");
    for path in &PATHS[..4] {
        turns(&exact, &waiting, path).await;
    }
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn turns(small: &Function, large: &Function, path: &str) {
    let (few, many) = in_turns(
        CALLS,
        async || small.call(path).await,
        async || large.call(path).await,
    )
    .await;
    println!(
        "{:>9} {:>9}  {}  {path}",
        few.as_micros(),
        many.as_micros(),
        ratio(many, few)
    );
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare() {
    let many = number("--rows").unwrap_or(MANY);
    let few_rows = with_rows(FEW).await;
    println!("inserting {many} rows");
    let start = Instant::now();
    let many_rows = with_rows(many).await;
    println!("inserted in {} s", start.elapsed().as_secs());
    let (small, large) = (
        Function::over(&few_rows.url),
        Function::over(&many_rows.url),
    );
    println!("median of {CALLS} calls, µs      {FEW:>9} {many:>9}  ratio (at most 1.50)");
    for path in PATHS {
        turns(&small, &large, path).await;
    }
    let kb = bench::in_a_process(&[DATABASE, &many_rows.url])[0];
    println!(
        "resident after {MIXED_REQUESTS} mixed requests: {} MB (at most 48)",
        kb / 1_000
    );
}

#[expect(
    clippy::print_stdout,
    reason = "the process that started this one reads it"
)]
async fn answer_mixed_requests(url: &str) {
    let function = Function::over(url);
    for number in 0..MIXED_REQUESTS {
        function.call(PATHS[number % PATHS.len()]).await;
    }
    println!("{}", bench::resident_kb());
}

/// A ledger with about this many active subscriptions, begun day by day over five years. One customer in twenty had left and
/// come back, and as many customers as stay have left for good: in the last month of 200,000 come 6,700, leave 3,500 and
/// come back 170. Every tenth pays in euro.
async fn with_subscriptions(active: u64) -> TestDatabase {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute(&format!(
            "CREATE TEMPORARY TABLE steps AS
             SELECT 'cus_' || n AS customer, 'sub_' || n || '_' || spell AS subscription,
                    CASE WHEN n % 10 = 0 THEN 'EUR' ELSE 'USD' END AS currency,
                    began + spell * interval '45 days' + CASE WHEN is_end THEN interval '40 days' ELSE interval '0' END AS at,
                    CASE WHEN is_end THEN 'canceled' WHEN n % 50 = 1 THEN 'past_due' ELSE 'active' END AS status,
                    CASE WHEN is_end THEN 'churn' WHEN spell = 0 THEN 'new' ELSE 'reactivation' END AS kind
             FROM (SELECT n, '2020-11-20Z'::timestamptz + n % 1795 * interval '1 day' + n % 1440 * interval '1 minute' AS began
                   FROM generate_series(1, 2 * {active}) AS n) AS numbered,
                  generate_series(0, 1) AS spell, unnest(ARRAY[false, true]) AS is_end
             WHERE CASE WHEN n > {active} THEN spell = 0
                        WHEN n % 20 = 7 THEN NOT (spell = 1 AND is_end)
                        ELSE spell = 0 AND NOT is_end END;
             DELETE FROM steps WHERE at > '2025-10-20Z';
             INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, status, plan_name, currency,
                 mrr_microcents, created_at)
             SELECT DISTINCT ON (subscription) subscription, customer, status, 'unknown', currency,
                    CASE WHEN status = 'canceled' THEN 0 ELSE 2999000000 END, at
             FROM steps ORDER BY subscription, at DESC;
             INSERT INTO subscription_versions (stripe_subscription_id, source_event_id, stripe_customer_id, currency,
                 source_created_at, occurred_at, status, mrr_microcents)
             SELECT subscription, 'evt_' || status || subscription, customer, currency, at, at, status,
                    CASE WHEN status = 'canceled' THEN 0 ELSE 2999000000 END
             FROM steps;
             INSERT INTO mrr_movements (occurred_at, stripe_customer_id, stripe_subscription_id, kind, currency,
                 delta_microcents, before_microcents, after_microcents, cause_event_id, churned_at, churned_microcents)
             SELECT at, customer, subscription, kind, currency, CASE WHEN kind = 'churn' THEN -2999000000 ELSE 2999000000 END,
                    CASE WHEN kind = 'churn' THEN 2999000000 ELSE 0 END, CASE WHEN kind = 'churn' THEN 0 ELSE 2999000000 END,
                    'evt', CASE WHEN kind = 'reactivation' THEN at - interval '5 days' END,
                    CASE WHEN kind = 'reactivation' THEN 2999000000 END
             FROM steps"
        ))
        .await
        .expect("the rows");
    client
        .batch_execute("VACUUM ANALYZE")
        .await
        .expect("a vacuum");
    database
}

/// A ledger with this many payments, invoices, events and movements of a thousand subscriptions before the last two years,
/// as the webhook would have left them; the customers move within the two years, too, and one in fifty has a discount.
async fn with_rows(rows: u64) -> TestDatabase {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let per_customer = rows / CUSTOMERS;
    client
        .batch_execute(&format!(
            "INSERT INTO payment_history (payment_key, stripe_payment_intent_id, stripe_customer_id, user_id, amount_cents,
                 currency, status, stripe_fee_cents, fee_source, succeeded_at, created_at)
             SELECT 'pi_' || n, 'pi_' || n, 'cus_' || n % {CUSTOMERS}, n % {CUSTOMERS}, 2999,
                    CASE WHEN n % 10 = 0 THEN 'EUR' ELSE 'USD' END,
                    CASE WHEN n % 5000 = 1 THEN 'disputed' WHEN n % 50 = 0 THEN 'refunded' ELSE 'succeeded' END,
                    117, 'actual', paid_at, paid_at
             FROM (SELECT n, '2025-10-20Z'::timestamptz - n % {DAYS} * interval '1 day' AS paid_at
                   FROM generate_series(1, {rows}) AS n) AS numbered;
             INSERT INTO invoices (invoice_number, stripe_invoice_id, kind, stripe_customer_id, user_id, total_cents,
                 currency, status, created_at)
             SELECT 'N-' || n, 'in_' || n, 'subscription', 'cus_' || n % {CUSTOMERS}, n % {CUSTOMERS}, 2999, 'USD',
                    CASE WHEN n % 1000 = 0 THEN 'open' ELSE 'paid' END,
                    '2025-10-20Z'::timestamptz - n % {DAYS} * interval '1 day'
             FROM generate_series(1, {rows}) AS n;
             INSERT INTO stripe_events (event_id, type, object_id, created_at, payload, outcome)
             SELECT 'evt_' || n, 'invoice.paid', 'in_' || n, '2025-10-20Z'::timestamptz - n * interval '1 second', '{{}}',
                    CASE WHEN n % 100 = 0 THEN 'ignored' ELSE 'applied' END
             FROM generate_series(1, {rows}) AS n;
             INSERT INTO revenue_entries (payment_key, kind, source_id, day, occurred_at, currency, amount_cents)
             SELECT payment_key, kind, payment_key, (succeeded_at AT TIME ZONE 'UTC')::date, succeeded_at, currency,
                    CASE kind WHEN 'fee' THEN stripe_fee_cents ELSE amount_cents END
             FROM payment_history, unnest(ARRAY['gross', 'fee']) AS kind;
             INSERT INTO revenue_daily (day, currency, gross_cents, fees_cents, refunds_cents, payments)
             SELECT (succeeded_at AT TIME ZONE 'UTC')::date, currency, sum(amount_cents), sum(stripe_fee_cents),
                    coalesce(sum(amount_cents) FILTER (WHERE status = 'refunded'), 0), count(*)
             FROM payment_history GROUP BY 1, 2;
             INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, status, plan_name, currency,
                 mrr_microcents, created_at)
             SELECT 'sub_' || n, 'cus_' || n, 'active', 'unknown', 'USD', 2999000000, '2020-01-01Z'
             FROM generate_series(1, {CUSTOMERS}) AS n;
             INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents,
                 before_microcents, after_microcents, cause_event_id)
             SELECT '2010-01-01Z'::timestamptz + step * interval '1 hour', 'cus_' || customer,
                    CASE WHEN step = 0 THEN 'new' WHEN step % 2 = 1 THEN 'expansion' ELSE 'contraction' END, 'USD',
                    CASE WHEN step = 0 THEN 2999000000 WHEN step % 2 = 1 THEN 1000000 ELSE -1000000 END,
                    CASE WHEN step = 0 THEN 0 WHEN step % 2 = 1 THEN 2999000000 ELSE 3000000000 END,
                    CASE WHEN step % 2 = 1 THEN 3000000000 ELSE 2999000000 END, 'evt'
             FROM generate_series(1, {CUSTOMERS}) AS customer, generate_series(0, {per_customer} / 2 * 2) AS step;
             INSERT INTO subscription_versions (stripe_subscription_id, source_event_id, stripe_customer_id, currency,
                 source_created_at, occurred_at, status, mrr_microcents, potential_mrr_microcents, is_counted,
                 all_discounts_microcents, no_discounts_microcents)
             SELECT 'sub_' || substr(stripe_customer_id, 5), 'evt_' || id, stripe_customer_id, currency, occurred_at,
                    occurred_at, CASE WHEN id % 7 = 0 THEN 'past_due' ELSE 'active' END, after_microcents,
                    after_microcents, true, after_microcents, after_microcents
             FROM mrr_movements;
             INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents,
                 before_microcents, after_microcents, cause_event_id)
             SELECT '2025-10-01Z'::timestamptz - customer % 24 * interval '30 days', 'cus_' || customer, 'expansion', 'USD',
                    1000000, 2999000000, 3000000000, 'evt'
             FROM generate_series(1, {CUSTOMERS}) AS customer;
             INSERT INTO subscription_versions (stripe_subscription_id, source_event_id, stripe_customer_id, currency,
                 source_created_at, occurred_at, status, mrr_microcents, potential_mrr_microcents, is_counted,
                 all_discounts_microcents, no_discounts_microcents)
             SELECT 'sub_d' || customer, 'evt_d' || customer, 'cus_d' || customer, 'USD', '2024-01-15Z', '2024-01-15Z',
                    'active', 1000000000, 1000000000, true, 500000000, 2000000000
             FROM generate_series(1, {CUSTOMERS} / 50) AS customer;
             INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents,
                 before_microcents, after_microcents, cause_event_id)
             SELECT '2024-01-15Z', 'cus_d' || customer, 'new', 'USD', 1000000000, 0, 1000000000, 'evt'
             FROM generate_series(1, {CUSTOMERS} / 50) AS customer"
        ))
        .await
        .expect("the rows");
    client
        .batch_execute("VACUUM ANALYZE")
        .await
        .expect("a vacuum");
    database
}

/// The function over one database.
struct Function {
    app: App,
    now: Timestamp,
    authorization: String,
}

impl Function {
    fn over(database_url: &str) -> Function {
        let environment =
            Environment::from_pairs([("DATABASE_URL", database_url), ("ADMIN_JWT_SECRET", SECRET)]);
        let sdk = testing::aws::sdk_config("http://127.0.0.1:1");
        let now: Timestamp = NOW.parse().expect("an instant");
        let claims = json!({"exp": now.as_second() + 60, "role": "admin"});
        let key = EncodingKey::from_secret(SECRET.as_bytes()).expect("a key");
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
        Function {
            app: App::from_env(&as_function("admin-revenue", &environment), &sdk).expect("an app"),
            now,
            authorization: format!("Bearer {token}"),
        }
    }

    async fn call(&self, path: &str) -> Duration {
        let request = Request::get(path)
            .header("authorization", &self.authorization)
            .body(Body::Empty)
            .expect("a request")
            .with_raw_http_path(path.split('?').next().unwrap_or(path));
        let start = Instant::now();
        let response = handle(&self.app, request, self.now).await;
        let elapsed = start.elapsed();
        assert_eq!(response.status(), 200, "{path}: {:?}", response.body());
        elapsed
    }
}
