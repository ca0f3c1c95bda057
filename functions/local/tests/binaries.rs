//! Every function's binary as Lambda runs it: started under a Runtime API, given its samples of `events/`, and asked
//! for the right answers. What a start and a call cost is printed.
//!
//! The binaries are those cargo put beside this test. `BILLING_BINARIES=<folder>` names optimised ones, as `.ci/binaries`
//! does; those have to start in time and to stay small.
//!
//! A separate target: nothing may run beside it while it measures.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use local::services::{Services, Story, connect};
use local::state::DataDir;
use local::{story, token};
use secrecy::SecretString;
use serde_json::{Value, json};
use stripe::signature;
use testing::roles::as_function;
use testing::{Function, places, sample};

/// Starts of each binary, for the median.
const STARTS: usize = 9;
/// How long an optimised binary may take from its start to its first poll.
const START_LIMIT: Duration = Duration::from_millis(30);
/// How much memory an optimised binary may have had resident, in KiB.
const MEMORY_LIMIT_KIB: u64 = 32 * 1_024;

/// A function's calls, the first of them to a cold process: a sample, and what its answer has to have among other things.
/// The functions in this order, as each needs what the ones before it did.
const CALLS: [(&str, &[(&str, &str)]); 7] = [
    (
        "migrate",
        &[
            ("invoke_migrate", "{}"),
            // The first has left nothing out.
            ("invoke_migrate", r#"{"applied": []}"#),
            ("schedule_migrate_maintain", r#"{"maintained": []}"#),
        ],
    ),
    (
        "webhook",
        &[
            (
                "apigw_webhook_payments_webhook",
                r#"{"statusCode": 200, "body": {"outcome": "applied"}}"#,
            ),
            (
                "apigw_webhook_payments_webhook_base64",
                r#"{"statusCode": 200, "body": {"outcome": "applied"}}"#,
            ),
            (
                "apigw_webhook_webhooks_stripe",
                r#"{"statusCode": 200, "body": {"outcome": "applied"}}"#,
            ),
            // An invoice that is paid, as the first: what that costs a warm process.
            ("eventbridge_stripe_partner", r#"{"outcome": "applied"}"#),
            ("sqs_stripe_partner", r#"{"batchItemFailures": []}"#),
        ],
    ),
    (
        "usage",
        &[
            (
                "apigw_usage_event",
                r#"{"statusCode": 200, "body": {"accepted": 1}}"#,
            ),
            (
                "apigw_usage_events_batch",
                r#"{"statusCode": 200, "body": {"accepted": 1, "unbillable": 1}}"#,
            ),
            (
                "apigw_usage_events_query",
                r#"{"statusCode": 200, "body": {"accepted": 1}}"#,
            ),
            (
                "apigw_usage_reserve",
                r#"{"statusCode": 200, "body": {"allowed": true, "used": 2}}"#,
            ),
            (
                "apigw_usage_limit_check",
                r#"{"statusCode": 200, "body": {"used": 2}}"#,
            ),
            (
                "apigw_usage_overage_quote",
                r#"{"statusCode": 200, "body": {"units": 3, "currency": "USD"}}"#,
            ),
            (
                "apigw_usage_monthly",
                r#"{"statusCode": 200, "body": [{"month": "2025-11", "events": 1}]}"#,
            ),
            (
                "apigw_usage_void",
                r#"{"statusCode": 200, "body": {"subject": "user:42"}}"#,
            ),
            (
                "apigw_usage_current",
                r#"{"statusCode": 200, "body": {"api_key_prefix": "dp_pk_live"}}"#,
            ),
            (
                "apigw_usage_invoices",
                r#"{"statusCode": 200, "body": {"data": []}}"#,
            ),
            (
                "apigw_usage_event",
                r#"{"statusCode": 200, "body": {"duplicate": 1}}"#,
            ),
        ],
    ),
    (
        "partner-invoicing",
        &[
            (
                "schedule_partner_invoicing_monthly",
                r#"{"invoices_created": 3, "failed": []}"#,
            ),
            (
                "schedule_partner_invoicing_monthly",
                r#"{"invoices_created": 0, "failed": []}"#,
            ),
        ],
    ),
    (
        "invoice-pdf",
        &[
            // Printed now, then found.
            ("apigw_invoice_pdf", r#"{"statusCode": 302}"#),
            ("apigw_invoice_pdf", r#"{"statusCode": 302}"#),
        ],
    ),
    (
        "reconciliation",
        &[
            (
                "schedule_reconciliation_redrive",
                r#"{"failed": 0, "poisoned": 0}"#,
            ),
            (
                "schedule_reconciliation_daily",
                r#"{"status": "completed"}"#,
            ),
            ("schedule_reconciliation_missed_webhooks", "{}"),
            ("schedule_reconciliation_backfill", "{}"),
            ("schedule_reconciliation_usage_rollup", "{}"),
            (
                "schedule_reconciliation_redrive",
                r#"{"failed": 0, "poisoned": 0}"#,
            ),
        ],
    ),
    (
        "admin-revenue",
        &[
            // Meridian's charge of 32.46: the two other invoices that are paid are of shapes which do not say by what,
            // and count when their payment is known.
            (
                "apigw_admin_revenue_revenue",
                r#"{"statusCode": 200, "body": {"overview": {"total_revenue_cents": 3246}, "errors": []}}"#,
            ),
            (
                "apigw_admin_revenue_health",
                r#"{"statusCode": 200, "body": {"status": "ok"}}"#,
            ),
            (
                "apigw_admin_revenue_revenue",
                r#"{"statusCode": 200, "body": {"overview": {"total_revenue_cents": 3246}, "errors": []}}"#,
            ),
        ],
    ),
];

#[expect(
    clippy::disallowed_methods,
    reason = "the binaries compare signatures with their own clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Where the optimised binaries are, if those are meant.
#[expect(
    clippy::disallowed_methods,
    reason = "which binaries are meant is said by who runs the test"
)]
fn optimised() -> Option<PathBuf> {
    let folder = std::env::var("BILLING_BINARIES").ok();
    folder
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
}

/// Where cargo put those it built with this test: `<target>/<profile>/deps/<this test>`.
fn beside_this_test() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.ancestors().nth(2).unwrap().to_owned()
}

/// The binary of a function, unless it is older than what it is made from.
fn binary(folder: &Path, function: &str) -> PathBuf {
    let path = folder.join(function);
    let build = "type: cargo build --workspace --exclude local (the optimised ones: .ci/binaries)";
    let made_at = std::fs::metadata(&path)
        .and_then(|binary| binary.modified())
        .unwrap_or_else(|error| panic!("no {}: {error}; {build}", path.display()));
    // What cargo knows of it: `<binary>: <source> <source> …`.
    let sources = std::fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    // Only `cargo build` rewrites it, and another checkout may share the folder.
    let root = testing::workspace_root();
    let ours = |source: &&str| Path::new(source).starts_with(&root);
    for source in sources.split_whitespace().skip(1).filter(ours) {
        let changed_at = std::fs::metadata(source).and_then(|source| source.modified());
        let is_stale = changed_at.is_ok_and(|changed_at| changed_at > made_at);
        assert!(!is_stale, "{function} is older than {source}; {build}");
    }
    path
}

/// The sample with what it leaves out: a signature of now, a token.
fn event(services: &Services, name: &str) -> String {
    let mut event = sample(name).json();
    let body = event["body"].as_str().unwrap_or_default();
    let body = match event["isBase64Encoded"] == true {
        true => BASE64.decode(body).unwrap(),
        false => body.as_bytes().to_vec(),
    };
    let secrets = services.secrets();
    let headers = event.get_mut("headers").and_then(Value::as_object_mut);
    for (name, value) in headers.into_iter().flatten() {
        if name == "stripe-signature" {
            let secret = SecretString::from(secrets.webhook_secret.as_str());
            *value = json!(signature::sign(&body, &secret, now()));
        } else if value == "Bearer put-an-admin-token-here" {
            let token = token::admin(&secrets.admin_jwt_secret, now()).unwrap();
            *value = json!(format!("Bearer {token}"));
        } else if value == "Bearer put-a-service-token-here" {
            *value = json!(format!("Bearer {}", secrets.service_token));
        }
    }
    event.to_string()
}

/// The answer, its HTTP body read as JSON.
fn read(answer: &str) -> Value {
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    let body = answer.get("body").and_then(Value::as_str);
    if let Some(body) = body.filter(|body| !body.is_empty()) {
        answer["body"] = serde_json::from_str(body).unwrap();
    }
    answer
}

/// Whether every member that is expected is there, and every item.
fn has(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => expected
            .iter()
            .all(|(name, expected)| actual.get(name).is_some_and(|actual| has(actual, expected))),
        (Value::Array(actual), Value::Array(expected)) => {
            let pairs = actual.iter().zip(expected);
            actual.len() == expected.len() && pairs.into_iter().all(|(a, e)| has(a, e))
        }
        (actual, expected) => actual == expected,
    }
}

/// What the samples speak of: the user 42 with an invoice, a contract of `dp_pk_live`, and two partners with usage.
async fn create_subjects(database_url: &str) {
    let client = connect(database_url).await.unwrap();
    let insert = "INSERT INTO users (id, plan) VALUES (42, 'free');
         -- The invoice 1.
         INSERT INTO invoices (invoice_number, user_id, kind, currency, subtotal_cents, total_cents, amount_paid_cents,
             status, line_items)
         VALUES ('OVER-42-202510', 42, 'overage', 'USD', 500, 500, 500, 'paid',
             '{\"items\": [{\"description\": \"Deeds\", \"total_cents\": 500}]}');
         INSERT INTO api_partner_contracts (api_key_prefix, company, pricing_model, monthly_flat_fee_cents,
             payment_method, contract_start_date, billed_from)
         VALUES ('dp_pk_live', 'Live Title', 'flat', 50000, 'wire', '2025-11-01', '2025-11-01')";
    client.batch_execute(insert).await.unwrap();
    let billed_at = "2025-12-01T00:05:00Z".parse().unwrap();
    story::create_partners(database_url, billed_at)
        .await
        .unwrap();
}

fn in_ms(time: Duration) -> String {
    let hundredths = (time.as_micros() + 5) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Starts the binary, gives it its samples, and returns what that cost as a row of the table.
async fn row(
    services: &Services,
    binary: &Path,
    name: &str,
    calls: &[(&str, &str)],
    is_limited: bool,
) -> String {
    let mut variables = services.variables();
    let database_url = as_function(name, &services.environment()).required("DATABASE_URL");
    variables.push(("DATABASE_URL", database_url.unwrap()));
    let spawn = || {
        let variables = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        Function::spawn(binary, name, variables)
    };
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(spawn().start_time().await);
    }
    starts.sort();
    let mut function = spawn();
    function.start_time().await;
    let (mut took, mut wrong) = (Vec::new(), Vec::<String>::new());
    for (sample, expected) in calls {
        let (answer, time) = function.call(event(services, sample)).await;
        assert_eq!(answer.kind, "response", "{name}, {sample}: {}", answer.body);
        let answer = read(&answer.body);
        let expected: Value = serde_json::from_str(expected).unwrap();
        if !has(&answer, &expected) {
            wrong.push(format!("{name}, {sample}: {answer}"));
        }
        took.push(time);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let size = std::fs::metadata(binary).unwrap().len();
    let memory = function.most_memory_kib();
    let start = starts[STARTS / 2];
    if is_limited {
        assert!(start <= START_LIMIT, "{name} started in {start:?}");
        let fits = memory.is_some_and(|kib| kib <= MEMORY_LIMIT_KIB);
        assert!(fits, "{name} took {memory:?} KiB");
    }
    let memory = memory.unwrap_or_default();
    format!(
        "| {name} | {}.{:02} | {} | {} | {} | {}.{} |\n",
        size / 1_000_000,
        size % 1_000_000 / 10_000,
        in_ms(start),
        in_ms(took[0]),
        in_ms(took[took.len() - 1]),
        memory / 1_024,
        memory % 1_024 * 10 / 1_024,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_binary_answers_its_samples() {
    let data = tempfile::tempdir_in(places::private_dir().unwrap()).unwrap();
    let data = DataDir::new(Some(data.path().to_owned()), 0).unwrap();
    // Nobody sends webhooks here.
    let nowhere = "http://127.0.0.1:1/payments/webhook";
    let services = Services::start(&data, nowhere, Story::Known, now).await;
    let services = services.unwrap();
    let optimised = optimised();
    let is_limited = optimised.is_some();
    let folder = optimised.unwrap_or_else(beside_this_test);
    let mut table = String::from(
        "| function | size, MB | start, ms | first call, ms | warm call, ms | most memory, MB |\n|---|---|---|---|---|---|\n",
    );
    for (name, calls) in CALLS {
        let binary = binary(&folder, name);
        table.push_str(&row(&services, &binary, name, calls, is_limited).await);
        if name == "migrate" {
            services.make_roles().await.unwrap();
            create_subjects(&services.database_url()).await;
        }
    }
    let invoice = story::newest_partner_invoice(&services.database_url()).await;
    assert!(invoice.unwrap().is_some(), "an invoice with its PDF");
    writeln!(table, "({})", folder.display()).unwrap();
    println!("{table}");
}
