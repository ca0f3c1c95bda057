//! `GET /admin/exports/payments.csv` of a million and of five million payments, next to `psql`'s `\copy` of the same
//! columns: the time of both, and the memory of ours.
//!
//! `cargo bench -p admin-revenue --bench exports`; `-- --payments 200000` for another smaller number. Needs `psql` on
//! the path. Each export runs in a process of its own, so that its peak is its own; S3 is a stand-in that reads the
//! parts and throws them away, as `psql` writes to `/dev/null`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use admin_revenue::{App, handle};
use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use lambda_http::Body;
use lambda_http::http::Request;
use serde_json::json;
use shared::config::Environment;
use shared::store::exports::Export;
use shared::test_support::TestDatabase;

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
    // `cargo test --all-targets` runs a bench without arguments, only to see that it starts.
    if std::env::args().count() == 1 {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match (argument(DATABASE), argument(BUCKET)) {
            (Some(database), Some(bucket)) => export(&database, &bucket).await,
            _ => compare().await,
        }
    });
}

fn argument(name: &str) -> Option<String> {
    std::env::args()
        .skip_while(|argument| argument != name)
        .nth(1)
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare() {
    let bucket = start_bucket();
    let payments = argument("--payments").map_or(PAYMENTS, |text| text.parse().expect("a number"));
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
        let percent = ours.as_millis() * 100 / copy.as_millis();
        println!("payments.csv of {payments} payments, median of {RUNS}:");
        println!(
            "  export {:>6} ms, \\copy {:>6} ms",
            ours.as_millis(),
            copy.as_millis()
        );
        println!(
            "  ratio: {}.{:02} (at most 1.50)",
            percent / 100,
            percent % 100
        );
        println!("  peak memory: {} MB (at most 64)", peak_kb / 1_000);
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
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
    let this = std::env::current_exe().expect("this program");
    let output = Command::new(this)
        .args([DATABASE, database_url, BUCKET, bucket])
        .output()
        .expect("a process");
    let printed = String::from_utf8(output.stdout).expect("text");
    let words: Vec<u64> = printed
        .split_whitespace()
        .map(|word| word.parse().expect("a number"))
        .collect();
    assert_eq!(
        words.len(),
        2,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (Duration::from_micros(words[0]), words[1])
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
    let sdk = shared::test_support::aws::sdk_config(bucket);
    let app = App::from_env(&environment, &sdk).expect("an app");
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
    println!("{} {}", elapsed.as_micros(), peak_kb());
}

fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1));
    kb.expect("a peak").parse().expect("a number")
}

/// As much of S3 as an upload needs; the address.
fn start_bucket() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("a connection");
            std::thread::spawn(move || serve(connection));
        }
    });
    format!("http://{address}")
}

fn serve(connection: TcpStream) {
    let mut answers = connection.try_clone().expect("a socket");
    let mut requests = BufReader::new(connection);
    while let Some(first_line) = read_request(&mut requests) {
        let body = if first_line.starts_with("POST") && first_line.contains("?uploads") {
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        } else if first_line.starts_with("POST") {
            "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>"
        } else {
            ""
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        answers.write_all(answer.as_bytes()).expect("an answer");
    }
}

/// The request line; head and body are read.
fn read_request(requests: &mut BufReader<TcpStream>) -> Option<String> {
    let mut first_line = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a length");
        }
        if first_line.is_empty() {
            first_line.clone_from(&line);
        }
        if line == "\r\n" {
            break;
        }
    }
    std::io::copy(&mut requests.take(length), &mut std::io::sink()).ok()?;
    Some(first_line)
}
