//! What counting costs: batches through the handler next to a bare binary `COPY` of the same rows into the same table,
//! one event next to its bare transaction (the same statements in the same flights) and next to the least that could be
//! written by hand, and the reads over 10 thousand and over 10 million events.
//!
//! `cargo bench -p usage --bench usage`; `-- --events 1000000` for another larger number, whose inserting takes minutes.

use std::pin::pin;
use std::time::{Duration, Instant};

use domain::money::Currency;
use domain::period::Month;
use futures_util::try_join;
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::Request;
use lambda_http::{Body, RequestExt};
use runtime::config::Environment;
use serde_json::{Value, json};
use store::usage_events::NewEvent;
use store::{locks, usage_daily, usage_events, usage_terms};
use testing::TestDatabase;
use testing::bench::{self, in_turns, median, number, ratio};
use testing::roles::as_function;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use usage::{App, handle};

const FEW: u64 = 10_000;
const MANY: u64 = 10_000_000;
const BATCH: u64 = 1_000;
const BATCHES: u64 = 60;
const SINGLES: u64 = 600;
const CALLS: usize = 200;
const USERS: u64 = 100;
const DAYS: u64 = 3 * 365;
const TOKEN: &str = "the token of the backend";
const NOW: &str = "2025-10-20T12:00:00Z";

const PATHS: [&str; 5] = [
    "/usage/limit-check/user/7",
    "/usage/user/7/monthly?from=2024-11&to=2025-10",
    "/usage/overage/quote?user_id=7&units=3",
    "/usage/limit-check/partner/dp_pk_7",
    "/usage/partner/dp_pk_7/monthly?from=2025-10&to=2025-10",
];

fn main() {
    bench::run(async {
        let database = with_events(FEW).await;
        batches(&database).await;
        singles(&database).await;
        reads().await;
    });
}

/// Batches of new events, the handler's and `COPY`'s in turns, so that whatever else the machine does falls on both.
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn batches(database: &TestDatabase) {
    let function = Function::over(&database.url);
    let client = database.client().await;
    let (mut ours, mut copies) = (Vec::new(), Vec::new());
    for batch in 0..BATCHES + 5 {
        let events: Vec<_> = (0..BATCH).map(|number| event("b", batch, number)).collect();
        let body = json!({"events": events}).to_string();
        let ours_took = function.post("/usage/events", body).await;
        let copy_took = copy(&client, batch).await;
        if batch >= 5 {
            ours.push(ours_took);
            copies.push(copy_took);
        }
    }
    let (ours, copy) = (median(ours), median(copies));
    let per_second = |took: Duration| u128::from(BATCH) * 1_000_000 / took.as_micros();
    println!("events per second, median of {BATCHES} batches of {BATCH}:");
    println!(
        "  handler {} (at least 20000), binary COPY {}",
        per_second(ours),
        per_second(copy)
    );
    println!(
        "  ratio: {} of COPY's rate (at least 0.50)",
        ratio(copy, ours)
    );
}

/// What Postgres takes for the same rows in the same table, without the rollup, verdicts, limits.
async fn copy(client: &Client, batch: u64) -> Duration {
    const COLUMNS: [(&str, Type); 13] = [
        ("subject", Type::TEXT),
        ("idempotency_key", Type::TEXT),
        ("user_id", Type::INT4),
        ("event_type", Type::TEXT),
        ("resource_id", Type::TEXT),
        ("billable", Type::BOOL),
        ("cost_units", Type::INT8),
        ("unit_price_cents", Type::INT8),
        ("currency", Type::TEXT),
        ("created_at", Type::TIMESTAMPTZ),
        ("metadata", Type::JSONB),
        ("payload_sha256", Type::TEXT),
        ("ingested_at", Type::TIMESTAMPTZ),
    ];
    let now: Timestamp = NOW.parse().expect("an instant");
    let digest = "0123456789abcdef".repeat(4);
    let instant = |text: &Value| -> Timestamp {
        let text = text.as_str().expect("an instant");
        text.parse().expect("an instant")
    };
    let rows: Vec<_> = (0..BATCH)
        .map(|number| {
            let event = event("c", batch, number);
            let user = i32::try_from(event["user_id"].as_i64().expect("a user")).expect("a user");
            let occurred_at = instant(&event["occurred_at"]);
            (format!("user:{user}"), user, occurred_at, event)
        })
        .collect();
    let names = COLUMNS.map(|(name, _)| name).join(", ");
    let types = COLUMNS.map(|(_, column)| column);
    let copy = format!("COPY usage_events ({names}) FROM STDIN (FORMAT binary)");
    let copy = client.prepare(&copy).await.expect("a statement");
    let start = Instant::now();
    let sink = client.copy_in(&copy).await.expect("a copy");
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for (subject, user, occurred_at, event) in &rows {
        let text = |member: &str| event[member].as_str();
        let row: [&(dyn ToSql + Sync); 13] = [
            subject,
            &text("idempotency_key"),
            user,
            &text("event_type"),
            &text("resource_id"),
            &true,
            &1_i64,
            &25_i64,
            &"USD",
            occurred_at,
            &event["metadata"],
            &digest,
            &now,
        ];
        writer.as_mut().write(&row).await.expect("a row");
    }
    let copied = writer.as_mut().finish().await.expect("the rows");
    let elapsed = start.elapsed();
    assert_eq!(copied, BATCH);
    elapsed
}

/// One event at a time: ours, its bare transaction and the one by hand in turns.
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn singles(database: &TestDatabase) {
    let function = Function::over(&database.url);
    let mut client = database.client().await;
    let (mut ours, mut bare, mut by_hand) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..SINGLES + 20 {
        let body = event("s", 0, number).to_string();
        let ours_took = function.post("/usage/events", body).await;
        let bare_took = bare_transaction(&mut client, number).await;
        let by_hand_took = transaction_by_hand(&mut client, number).await;
        if number >= 20 {
            ours.push(ours_took);
            bare.push(bare_took);
            by_hand.push(by_hand_took);
        }
    }
    let (ours, bare, by_hand) = (median(ours), median(bare), median(by_hand));
    println!(
        "one event, median of {SINGLES}: handler {} µs, bare transaction {} µs, by hand {} µs",
        ours.as_micros(),
        bare.as_micros(),
        by_hand.as_micros()
    );
    println!(
        "  ratio: {} (at most 1.50), to the one by hand {}",
        ratio(ours, bare),
        ratio(ours, by_hand)
    );
}

/// The handler's statements for one event in the handler's flights, without the handler: no request, no check of the
/// connection, no verdict.
async fn bare_transaction(client: &mut Client, number: u64) -> Duration {
    let event = event("t", 0, number);
    let user_id = i32::try_from(event["user_id"].as_i64().expect("a user")).expect("a user");
    let subject = format!("user:{user_id}");
    let digest = "0123456789abcdef".repeat(4);
    let row = NewEvent {
        subject: &subject,
        idempotency_key: event["idempotency_key"].as_str().expect("a key"),
        user_id: Some(user_id),
        api_key_prefix: None,
        event_type: "deed",
        resource_id: event["resource_id"].as_str(),
        billable: true,
        cost_units: 1,
        unit_price_cents: Some(25),
        currency: Currency::USD,
        occurred_at: event["occurred_at"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("an instant"),
        metadata: Some(&event["metadata"]),
        payload_sha256: &digest,
    };
    let now: Timestamp = NOW.parse().expect("an instant");
    let (user_ids, subjects, events) = ([user_id], [subject.as_str()], [row]);
    let start = Instant::now();
    let db = client.transaction().await.expect("a transaction");
    try_join!(
        locks::take_meters(&db, &subjects),
        usage_terms::of_users(&db, &user_ids),
    )
    .expect("the limit");
    let (taken, _used) = try_join!(
        usage_events::insert_all(&db, &events, now),
        usage_daily::of_month(&db, &subjects, Month::of(now)),
    )
    .expect("the event");
    db.commit().await.expect("a commit");
    let elapsed = start.elapsed();
    assert!(taken.is_empty());
    elapsed
}

/// The least that has to happen for one event: the limit read under the subject's lock, the event and its rollup with
/// what never changes written into the statement, the use of the month, the commit; one after the other.
async fn transaction_by_hand(client: &mut Client, number: u64) -> Duration {
    let event = event("u", 0, number);
    let user = i32::try_from(event["user_id"].as_i64().expect("a user")).expect("a user");
    let subject = format!("user:{user}");
    let key = event["idempotency_key"].as_str().expect("a key");
    let occurred_at: Timestamp = event["occurred_at"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("an instant");
    let digest = "0123456789abcdef".repeat(4);
    let start = Instant::now();
    let transaction = client.transaction().await.expect("a transaction");
    transaction
        .query_typed(
            "SELECT monthly_included_units, pg_advisory_xact_lock(hashtextextended($2, 0)) IS NULL AS locked
             FROM users JOIN plan_limits ON plan_name = plan WHERE users.id = $1",
            &[(&user, Type::INT4), (&subject, Type::TEXT)],
        )
        .await
        .expect("the limit");
    transaction
        .query_typed(
            "WITH inserted AS (
                 INSERT INTO usage_events (subject, idempotency_key, user_id, event_type, resource_id, billable,
                     cost_units, unit_price_cents, currency, created_at, metadata, payload_sha256, ingested_at)
                 VALUES ($1, $2, $3, 'deed', 'deed', true, 1, 25, 'USD', $4, '{\"county\": \"Los Angeles\"}', $5, $4)
                 ON CONFLICT (subject, idempotency_key) DO NOTHING RETURNING id)
             INSERT INTO usage_daily AS daily (subject, day, event_type, currency, events, units, billable_units,
                 amount_cents)
             SELECT $1, ($4::timestamptz AT TIME ZONE 'UTC')::date, 'deed', 'USD', 1, 1, 1, 25 FROM inserted
             ON CONFLICT (subject, day, event_type, currency) DO UPDATE SET events = daily.events + 1,
                 units = daily.units + 1, billable_units = daily.billable_units + 1,
                 amount_cents = daily.amount_cents + 25",
            &[
                (&subject, Type::TEXT),
                (&key, Type::TEXT),
                (&user, Type::INT4),
                (&occurred_at, Type::TIMESTAMPTZ),
                (&digest, Type::TEXT),
            ],
        )
        .await
        .expect("the event");
    transaction
        .query_typed(
            "SELECT sum(billable_units)::bigint FROM usage_daily
             WHERE subject = $1 AND day >= '2025-10-01' AND day <= '2025-10-31'",
            &[(&subject, Type::TEXT)],
        )
        .await
        .expect("the use");
    transaction.commit().await.expect("a commit");
    start.elapsed()
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn reads() {
    let many = number("--events").unwrap_or(MANY);
    let few_events = with_events(FEW).await;
    println!("inserting {many} events");
    let many_events = with_events(many).await;
    let small = Function::over(&few_events.url);
    let large = Function::over(&many_events.url);
    println!("median of {CALLS} calls, µs      {FEW:>9} {many:>9}  ratio (at most 1.50)");
    for path in PATHS {
        let (few, many) = in_turns(
            CALLS,
            async || small.get(path).await,
            async || large.get(path).await,
        )
        .await;
        println!(
            "{:>9} {:>9}  {}  {path}",
            few.as_micros(),
            many.as_micros(),
            ratio(many, few)
        );
    }
}

/// An event of this month, of one of the users.
fn event(series: &str, batch: u64, number: u64) -> serde_json::Value {
    let now: Timestamp = NOW.parse().expect("an instant");
    let seconds = i64::try_from(number).expect("a number");
    let occurred_at = now - SignedDuration::from_secs(seconds * 60);
    json!({
        "idempotency_key": format!("{series}-2025-10-20-{batch:06}-{number:06}"),
        "user_id": number % USERS + 1,
        "event_type": "deed",
        "resource_id": format!("deed-{number}"),
        "cost_units": 1,
        "unit_price_cents": 25,
        "occurred_at": occurred_at.to_string(),
        "metadata": {"county": "Los Angeles"},
    })
}

/// A database with this many events of five users and as many requests of partners, over three years, as they would have
/// come in: each user has some on every day, whatever the number. The running month of partner 7 has as many requests whatever the number.
async fn with_events(events: u64) -> TestDatabase {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute(&format!(
            // What was committed without waiting for the log, as this cluster does, stays unknown to the vacuum below, and
            // an index then cannot answer by itself. Autovacuum comes later than that.
            "SET synchronous_commit = on;
             INSERT INTO plan_limits (plan_name, monthly_included_units, overage_price_cents)
                 VALUES ('bench', 1000000000, 500);
             INSERT INTO users (id, plan) SELECT n, 'bench' FROM generate_series(1, {USERS}) AS n;
             INSERT INTO api_partner_contracts (api_key_prefix, pricing_model, per_deed_price_cents, currency,
                 monthly_request_limit)
             SELECT 'dp_pk_' || n, 'per_deed', 250, 'USD', 1000000000 FROM generate_series(1, 100) AS n;
             INSERT INTO usage_events (subject, idempotency_key, user_id, event_type, billable, cost_units,
                 unit_price_cents, currency, created_at, payload_sha256, ingested_at)
             SELECT 'user:' || n % 5 + 5, 'old-' || n, n % 5 + 5, 'deed', true, 1, 25, 'USD',
                    '2025-10-20Z'::timestamptz - n * (interval '{DAYS} days' / {events}), repeat('0', 64), '2025-10-20Z'
             FROM generate_series(1, {events}) AS n;
             INSERT INTO usage_daily (subject, day, event_type, currency, events, units, billable_units, amount_cents)
             SELECT subject, (created_at AT TIME ZONE 'UTC')::date, event_type, currency, count(*), sum(cost_units),
                    sum(cost_units), sum(cost_units * unit_price_cents)
             FROM usage_events GROUP BY 1, 2, 3, 4;
             INSERT INTO api_usage (api_key_prefix, endpoint, status_code, cost_units, created_at)
             SELECT 'dp_pk_' || n % 100 + 1, '/deeds', 200, 1,
                    '2025-09-30Z'::timestamptz - n * (interval '{DAYS} days' / {events})
             FROM generate_series(1, {events}) AS n;
             INSERT INTO api_usage (api_key_prefix, endpoint, status_code, cost_units, created_at)
             SELECT 'dp_pk_7', '/deeds', 200, 1, '2025-10-20Z'::timestamptz - n * interval '1 minute'
             FROM generate_series(1, 1000) AS n"
        ))
        .await
        .expect("the rows");
    client
        .batch_execute("VACUUM ANALYZE")
        .await
        .expect("a vacuum");
    database
}

/// The function over one database. The bus cannot be reached, and nothing here announces anything.
struct Function {
    app: App,
    now: Timestamp,
}

impl Function {
    fn over(database_url: &str) -> Function {
        let environment = Environment::from_pairs([
            ("DATABASE_URL", database_url),
            ("SERVICE_TOKENS", TOKEN),
            ("EVENT_BUS_NAME", "billing"),
        ]);
        let sdk = testing::aws::sdk_config("http://127.0.0.1:1");
        Function {
            app: App::from_env(&as_function("usage", &environment), &sdk).expect("an app"),
            now: NOW.parse().expect("an instant"),
        }
    }

    async fn get(&self, path: &str) -> Duration {
        let request = Request::get(path);
        self.call(request, path, Body::Empty).await
    }

    async fn post(&self, path: &str, body: String) -> Duration {
        let request = Request::post(path);
        self.call(request, path, Body::Text(body)).await
    }

    async fn call(
        &self,
        request: lambda_http::http::request::Builder,
        path: &str,
        body: Body,
    ) -> Duration {
        let request = request
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(body)
            .expect("a request")
            .with_raw_http_path(path.split('?').next().unwrap_or(path));
        let start = Instant::now();
        let response = handle(&self.app, request, self.now).await;
        let elapsed = start.elapsed();
        assert_eq!(response.status(), 200, "{path}: {:?}", response.body());
        elapsed
    }
}
