//! A month of contracts from usage to PDFs: what counting takes next to a bare `GROUP BY` with `count(DISTINCT
//! request_id)` of the same rows, how many invoices a run issues and prints in a second, and the memory that takes; then
//! the same for ten times as many contracts, of which the memory has to be the same.
//!
//! `cargo bench -p partner-invoicing --bench run`: 1,000 and 10,000 contracts over a million requests;
//! `-- --contracts 10000 --requests 10000000` for that number alone, whose inserting takes minutes. Each run is a
//! separate process, so that its peak memory is measured alone. "Without S3": bucket and bus are a stand-in on this
//! machine that reads what it is sent, throws it away and answers at once; Postgres is that of the tests.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use domain::partner::draft::Window;
use domain::period::Period;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use partner_invoicing::{App, handle};
use runtime::config::Environment;
use serde_json::json;
use store::contract_usage;
use store::contracts::{self, Which};
use testing::TestDatabase;
use testing::bench::{self, argument, median, number, ratio};
use testing::roles::as_function;
use tokio_postgres::Client;

const CONTRACTS: u64 = 1_000;
/// How many more contracts the larger run has.
const FACTOR: u64 = 10;
const REQUESTS: u64 = 1_000_000;
/// Measurements of the counting; the bench prints their median.
const COUNTS: usize = 5;
/// As the run reads them, and counts them on so many connections; as in template.yaml.
const CONTRACTS_PER_PAGE: i64 = 200;
const WINDOWS_PER_READ: usize = 50;
const CONNECTIONS: usize = 4;
const MONTH: (&str, &str) = ("2025-11-01T00:00:00Z", "2025-12-01T00:00:00Z");
const NOW: &str = "2025-12-01T00:05:00Z";
/// Makes this program one run over this database, with bucket and bus here.
const DATABASE: &str = "--database";
const AWS: &str = "--aws";

fn main() {
    bench::run(async {
        match (argument(DATABASE), argument(AWS)) {
            (Some(database), Some(aws)) => run(&database, &aws).await,
            _ => compare().await,
        }
    });
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare() {
    let requests = number("--requests").unwrap_or(REQUESTS);
    let sizes = number("--contracts").map_or_else(
        || vec![CONTRACTS, CONTRACTS * FACTOR],
        |contracts| vec![contracts],
    );
    let aws = bench::start_aws();
    let mut peaks = Vec::new();
    for contracts in sizes {
        let database = with_contracts(contracts, requests).await;
        println!("{contracts} contracts, {requests} requests in the month:");
        counting(&database).await;
        let told = run_in_a_process(&database.url, &aws);
        assert_eq!(told.invoices, contracts, "an invoice of each contract");
        let millis = u64::try_from(told.took.as_millis()).expect("not that long");
        println!(
            "  the run: {millis} ms, {} invoices per second with PDF (at least 300)",
            contracts * 1_000 / millis
        );
        println!(
            "  processor time of its process: {} µs for each",
            told.processor_ms * 1_000 / contracts
        );
        println!(
            "  peak memory: {} MB, of which {} MB before the run (at most 128)",
            told.peak_kb / 1_000,
            told.before_kb / 1_000
        );
        peaks.push(told.peak_kb);
    }
    if let [few, many] = peaks[..] {
        let percent = many * 100 / few;
        println!(
            "peak memory of {FACTOR} times the contracts: {}.{:02} × (0.80 to 1.20)",
            percent / 100,
            percent % 100
        );
    }
}

/// The statement of the run, page by page, and the bare one, in turns.
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn counting(database: &TestDatabase) {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(database.client().await);
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..COUNTS {
        let (expected, took) = count_bare(&clients[0]).await;
        bare.push(took);
        let (counted, took) = count(&clients).await;
        ours.push(took);
        assert!(counted == expected, "both count the same");
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "  counting usage: {} ms, the bare GROUP BY {} ms; {} × (at most 2)",
        ours.as_millis(),
        bare.as_millis(),
        ratio(ours, bare)
    );
}

/// Requests and units by prefix.
type Counts = HashMap<String, (i64, i64)>;

async fn count_bare(client: &Client) -> (Counts, Duration) {
    let start = Instant::now();
    let rows = client
        .query(
            "SELECT api_key_prefix, count(DISTINCT request_id) AS requests, sum(cost_units) AS units FROM api_usage
             WHERE created_at >= $1 AND created_at < $2 GROUP BY api_key_prefix",
            &[&at(MONTH.0), &at(MONTH.1)],
        )
        .await
        .expect("counts");
    let took = start.elapsed();
    let counts = rows.iter().map(|row| {
        let counts = (row.get("requests"), row.get("units"));
        (row.get("api_key_prefix"), counts)
    });
    (counts.collect(), took)
}

async fn count(clients: &[Client]) -> (Counts, Duration) {
    let period = Period::new(at(MONTH.0), at(MONTH.1)).expect("a period");
    let mut counts = Counts::new();
    let mut took = Duration::ZERO;
    let mut after = 0;
    loop {
        let ids = contracts::ids_after(&clients[0], after, CONTRACTS_PER_PAGE).await;
        let ids = ids.expect("contracts");
        let Some(last) = ids.last() else {
            return (counts, took);
        };
        after = *last;
        let page = contracts::read(&clients[0], Which::Ids(&ids)).await;
        let contracts: Vec<_> = page
            .expect("contracts")
            .into_iter()
            .map(|read| read.contract(at(NOW)).expect("a valid contract").history)
            .map(|history| history.at(period.start).expect("a time zone").clone())
            .collect();
        let windows: Vec<_> = contracts
            .iter()
            .map(|contract| Window::of(contract, period))
            .collect();
        let start = Instant::now();
        let reads = windows
            .chunks(WINDOWS_PER_READ)
            .zip(clients.iter().cycle())
            .map(|(windows, client)| contract_usage::read(client, windows));
        let counted = try_join_all(reads).await.expect("counts");
        took += start.elapsed();
        for (contract, usage) in contracts.iter().zip(counted.concat()) {
            let prefix = contract.api_key_prefix.clone();
            counts.insert(prefix, (usage.requests, usage.units));
        }
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// Contracts of every model from November on, and as many requests in November as told, one partner's after the
/// other's as a gateway writes them.
async fn with_contracts(contracts: u64, requests: u64) -> TestDatabase {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    for statement in [
        format!(
            "INSERT INTO api_partner_contracts
                 (api_key_prefix, company, billing_email, billing_address, pricing_model, monthly_flat_fee_cents,
                  per_deed_price_cents, per_1000_requests_cents, tax_rate_bps, payment_method, contract_start_date,
                  billed_from, billable_status_codes, currency)
             SELECT 'dp_pk_' || n, 'Partner Title & Escrow ' || n, 'billing@partner-' || n || '.example',
                    jsonb_build_object('line1', n || ' Grand Avenue', 'city', 'Los Angeles', 'state', 'CA',
                                       'postal_code', '90071', 'country', 'US'),
                    (ARRAY['flat', 'per_deed', 'hybrid', 'per_request'])[n % 4 + 1], 1000 + n, 25, 700, 1900, 'wire',
                    '2025-11-01', '2025-11-01', '0-428,430-499,600-999', (ARRAY['USD', 'EUR', 'JPY'])[n % 3 + 1]
             FROM generate_series(1, {contracts}) AS n"
        ),
        format!(
            "INSERT INTO api_usage
                 (api_key_prefix, endpoint, status_code, request_id, latency_ms, cost_units, created_at)
             SELECT 'dp_pk_' || n % {contracts} + 1, '/v1/deeds', 200, 'req_' || n, n % 900, n % 3 + 1,
                    '{}'::timestamptz + n * (interval '30 days' / {requests})
             FROM generate_series(0, {requests} - 1) AS n",
            MONTH.0
        ),
        // Rows whose commit is not on disk yet are not marked as visible by a vacuum.
        "CHECKPOINT".to_owned(),
        "VACUUM ANALYZE api_usage".to_owned(),
        "VACUUM ANALYZE api_partner_contracts".to_owned(),
    ] {
        client.batch_execute(&statement).await.expect("rows");
    }
    database
}

/// What the process of a run measured.
struct Told {
    took: Duration,
    invoices: u64,
    processor_ms: u64,
    before_kb: u64,
    peak_kb: u64,
}

fn run_in_a_process(database_url: &str, aws: &str) -> Told {
    let printed = bench::in_a_process(&[DATABASE, database_url, AWS, aws]);
    let [micros, invoices, processor_ms, before_kb, peak_kb] = printed[..] else {
        panic!("{printed:?}");
    };
    Told {
        took: Duration::from_micros(micros),
        invoices,
        processor_ms,
        before_kb,
        peak_kb,
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the process that started this one reads it"
)]
async fn run(database_url: &str, aws: &str) {
    let pool_size = CONNECTIONS.to_string();
    let environment = Environment::from_pairs([
        ("DATABASE_URL", database_url),
        ("DATABASE_POOL_SIZE", pool_size.as_str()),
        ("DOCUMENT_BUCKET", "documents"),
        ("EVENT_BUS_NAME", "billing"),
        ("INVOICE_ISSUER", r#"{"name": "DeedPro Inc."}"#),
    ]);
    let sdk = testing::aws::sdk_config(aws);
    let app = App::from_env(&as_function("partner-invoicing", &environment), &sdk).expect("an app");
    let event = json!({"detail-type": "partner-invoicing.monthly", "time": NOW});
    let before_kb = bench::peak_kb();
    let start = Instant::now();
    let summary = handle(&app, event, at(NOW)).await.expect("a run");
    let took = start.elapsed().as_micros();
    let invoices = &summary["invoices_created"];
    assert_eq!(invoices, &summary["pdfs_stored"]);
    println!(
        "{took} {invoices} {} {before_kb} {}",
        processor_ms(),
        bench::peak_kb()
    );
}

/// Of this process so far, in user and kernel mode.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // Behind the name, which is in parentheses: the 14th and 15th field, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum::<u64>()
        * 10
}
