//! `GET /admin/exports/payments.csv` of a million and of five million payments, next to `psql`'s `\copy` of the same
//! columns: the time of both, and the memory of ours.
//!
//! `cargo bench -p admin-revenue --bench exports`; `-- --payments 200000` for another smaller number. Needs `psql` on
//! the path. Each export runs in a separate process, so that its peak memory is measured alone; S3 is a stand-in that
//! reads the parts and throws them away, as `psql` writes to `/dev/null`.

use std::process::Command;
use std::time::{Duration, Instant};

use admin_revenue::{App, handle};
use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use lambda_http::Body;
use lambda_http::http::Request;
use runtime::config::Environment;
use serde_json::json;
use store::exports::Export;
use testing::TestDatabase;
use testing::bench::{self, argument, median, number, ratio};
use testing::roles::as_function;

const PAYMENTS: u64 = 1_000_000;
/// How much more the larger export has.
const FACTOR: u64 = 5;
const RUNS: usize = 3;
const SECRET: &str = "bench";
const NOW: &str = "2025-10-20T12:00:00Z";
/// Makes this program run one export, over this database, with the bucket here.
const DATABASE: &str = "--database";
const BUCKET: &str = "--bucket";

fn main() {
    bench::run(async {
        match (argument(DATABASE), argument(BUCKET)) {
            (Some(database), Some(bucket)) => export(&database, &bucket).await,
            _ => compare().await,
        }
    });
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare() {
    let bucket = bench::start_aws();
    let payments = number("--payments").unwrap_or(PAYMENTS);
    for payments in [payments, payments * FACTOR] {
        let database = with_payments(payments).await;
        let (mut ours, mut copies, mut peak_kb) = (Vec::new(), Vec::new(), 0);
        for _ in 0..RUNS {
            copies.push(copy(&database.url));
            let (time, kb) = export_in_a_process(&database.url, &bucket);
            ours.push(time);
            peak_kb = peak_kb.max(kb);
        }
        let (ours, copy) = (median(ours), median(copies));
        println!("payments.csv of {payments} payments, median of {RUNS}:");
        println!(
            "  export {:>6} ms, \\copy {:>6} ms",
            ours.as_millis(),
            copy.as_millis()
        );
        println!("  ratio: {} (at most 1.50)", ratio(ours, copy));
        println!("  peak memory: {} MB (at most 64)", peak_kb / 1_000);
    }
}

async fn with_payments(payments: u64) -> TestDatabase {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute(&format!(
            "INSERT INTO payment_history (payment_key, stripe_payment_intent_id, stripe_charge_id, amount_cents, currency,
                 status, payment_method, stripe_fee_cents, net_amount_cents, fee_source, failure_message, succeeded_at,
                 created_at, stripe_customer_id, stripe_invoice_id, user_id)
             SELECT 'pi_3PqRsTuVwXyZ' || n, 'pi_3PqRsTuVwXyZ' || n, 'ch_3PqRsTuVwXyZ' || n, 2999, 'USD', 'succeeded', 'card',
                    117, 2882, 'actual', CASE WHEN n % 10 = 0 THEN 'Your card was declined, \"sorry\"' END, paid_at, paid_at,
                    'cus_AbCdEfGh' || n % 100000, 'in_1PqRsTuVwXyZ' || n, n % 100000
             FROM (SELECT n, '2025-10-20Z'::timestamptz - n * interval '1 second' AS paid_at
                   FROM generate_series(1, {payments}) AS n) AS numbered"
        ))
        .await
        .expect("the rows");
    client
        .batch_execute("VACUUM ANALYZE payment_history")
        .await
        .expect("a vacuum");
    database
}

/// What `psql` takes to write the columns of the export.
fn copy(database_url: &str) -> Duration {
    let columns = Export::Payments.header().join(", ");
    let command = format!(
        "\\copy (SELECT {columns} FROM payment_history WHERE NOT superseded ORDER BY id) TO '/dev/null' WITH (FORMAT csv, HEADER)"
    );
    let start = Instant::now();
    let status = Command::new("psql")
        .args(["--quiet", "--command", &command, database_url])
        .status();
    assert!(status.expect("psql on the path").success());
    start.elapsed()
}

/// Time and peak memory (kB) of one export.
fn export_in_a_process(database_url: &str, bucket: &str) -> (Duration, u64) {
    let printed = bench::in_a_process(&[DATABASE, database_url, BUCKET, bucket]);
    let [micros, peak_kb] = printed[..] else {
        panic!("{printed:?}");
    };
    (Duration::from_micros(micros), peak_kb)
}

#[expect(
    clippy::print_stdout,
    reason = "the process that started this one reads it"
)]
async fn export(database_url: &str, bucket: &str) {
    let environment = Environment::from_pairs([
        ("DATABASE_URL", database_url),
        ("ADMIN_JWT_SECRET", SECRET),
        ("DOCUMENT_BUCKET", "documents"),
    ]);
    let sdk = testing::aws::sdk_config(bucket);
    let app = App::from_env(&as_function("admin-revenue", &environment), &sdk).expect("an app");
    app.warm().await;
    let now: Timestamp = NOW.parse().expect("an instant");
    let claims = json!({"exp": now.as_second() + 60, "role": "admin"});
    let key = EncodingKey::from_secret(SECRET.as_bytes()).expect("a key");
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
    let request = Request::get("/admin/exports/payments.csv")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::Empty)
        .expect("a request");
    let start = Instant::now();
    let response = handle(&app, request, now).await;
    let elapsed = start.elapsed();
    assert_eq!(response.status(), 303, "too small to go through S3");
    println!("{} {}", elapsed.as_micros(), bench::peak_kb());
}
