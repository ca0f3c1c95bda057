//! Each invoice once: runs in a row, runs at once, a run that stops at its deadline.

use std::time::Duration;

use partner_invoicing::{Deadline, handle_until};
use serde_json::{Value, json};

use crate::site::{Site, at, event, run};

const TIME: &str = "2025-12-01T00:05:00Z";

/// `count` contracts of every model, with a little usage each.
async fn many(site: &Site, count: i32) {
    let client = site.client().await;
    client
        .execute(
            "INSERT INTO api_partner_contracts
                 (api_key_prefix, company, pricing_model, monthly_flat_fee_cents, per_deed_price_cents,
                  per_1000_requests_cents, payment_method, contract_start_date, billed_from, currency)
             SELECT 'dp_pk_' || lpad(n::text, 4, '0'), 'Partner ' || n,
                    (ARRAY['flat', 'per_deed', 'hybrid', 'per_request'])[n % 4 + 1], 1000 + n, 25, 700, 'wire',
                    '2025-11-01', '2025-11-01', (ARRAY['USD', 'EUR', 'JPY'])[n % 3 + 1]
             FROM generate_series(1, $1) AS n",
            &[&count],
        )
        .await
        .unwrap();
    client
        .execute(
            "INSERT INTO api_usage (api_key_prefix, cost_units, created_at)
             SELECT api_key_prefix, 1, '2025-11-01Z'::timestamptz + n * interval '1 day'
             FROM api_partner_contracts, generate_series(0, 19) AS n",
            &[],
        )
        .await
        .unwrap();
}

async fn assert_each_once(site: &Site, count: i64) {
    assert_eq!(site.number("SELECT count(*) FROM invoices").await, count);
    assert_eq!(
        site.number(
            "SELECT count(DISTINCT invoice_number) FROM invoices WHERE invoice_number !~ '-[0-9]$'"
        )
        .await,
        count
    );
    assert_eq!(
        site.number("SELECT count(*) FROM invoice_number_counters WHERE next_value = 2")
            .await,
        count
    );
    assert_eq!(
        site.number("SELECT count(*) FROM outbox WHERE detail_type = 'partner_invoice.issued'")
            .await,
        count
    );
    assert_eq!(
        site.number("SELECT count(*) FROM outbox WHERE published_at IS NULL")
            .await,
        0
    );
    assert_eq!(
        site.number("SELECT count(*) FROM invoiced_usage").await,
        count
    );
    let lines = "SELECT count(*) FROM invoices WHERE total_cents <> (
        SELECT sum((line ->> 'total_cents')::bigint + (line ->> 'tax_cents')::bigint)
        FROM jsonb_array_elements(line_items -> 'items') AS line)";
    assert_eq!(site.number(lines).await, 0, "the lines add up");
    assert_printed_once(site, count).await;
}

/// Each invoice has its own document in the bucket, of the digest that is noted on it, and there is no other.
async fn assert_printed_once(site: &Site, count: i64) {
    let documents = site.documents().await;
    assert_eq!(i64::try_from(documents.len()).unwrap(), count);
    let client = site.client().await;
    let select =
        "SELECT count(*) FROM invoices JOIN unnest($1::text[], $2::bytea[]) AS stored (key, bytes)
         ON pdf_key = key AND pdf_sha256 = encode(sha256(bytes), 'hex')";
    let keys: Vec<&str> = documents.keys().map(String::as_str).collect();
    let bytes: Vec<&[u8]> = documents.values().map(Vec::as_slice).collect();
    let noted = client.query_one(select, &[&keys, &bytes]).await.unwrap();
    assert_eq!(noted.get::<_, i64>(0), count, "digests as noted");
}

#[tokio::test]
async fn three_runs_in_a_row_are_one() {
    let site = Site::new().await;
    many(&site, 500).await;
    let app = site.app();
    let first = run(&app, TIME).await;
    assert_eq!(first["invoices_created"], 500);
    assert_eq!(first["contracts"], 500);
    let (state, documents) = (site.state().await, site.documents().await);
    assert_each_once(&site, 500).await;
    for _ in 0..2 {
        let again = run(&app, TIME).await;
        assert_eq!(again["invoices_created"], 0);
        assert_eq!(again["already_present"], 500);
        assert_eq!(again["total_cents"], json!({}));
    }
    assert_eq!(site.state().await, state);
    assert!(site.documents().await == documents, "the same bytes in S3");
    assert_eq!(
        site.number("SELECT count(*) FROM invoice_runs WHERE finished_at IS NOT NULL")
            .await,
        3
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_at_once_are_one() {
    let site = Site::new().await;
    many(&site, 500).await;
    let (one, two) = (site.app(), site.app());
    let (one, two) = tokio::join!(run(&one, TIME), run(&two, TIME));
    let created = |summary: &Value| summary["invoices_created"].as_i64().unwrap();
    assert_eq!(created(&one) + created(&two), 500);
    // What the slower one did not get to publish is published by its own sweep, or by the next run.
    run(&site.app(), TIME).await;
    assert_each_once(&site, 500).await;
    let alone = Site::new().await;
    many(&alone, 500).await;
    run(&alone.app(), TIME).await;
    assert_eq!(site.state().await, alone.state().await);
    assert!(
        site.documents().await == alone.documents().await,
        "the bytes in S3 are those of one run"
    );
}

#[tokio::test]
async fn a_run_that_reaches_its_deadline_says_so_and_the_next_goes_on() {
    let site = Site::new().await;
    many(&site, 3).await;
    let app = site.app();
    let none_left = Deadline::after(Duration::ZERO);
    let summary = handle_until(&app, event(TIME, Value::Null), at(TIME), none_left).await;
    let summary = summary.unwrap();
    assert_eq!(summary["stopped_early"], true);
    assert_eq!(summary["invoices_created"], 0);
    assert_eq!(
        site.number("SELECT count(*) FROM invoice_runs WHERE stopped_early")
            .await,
        1
    );
    assert_eq!(run(&app, TIME).await["invoices_created"], 3);
    assert_each_once(&site, 3).await;
}
