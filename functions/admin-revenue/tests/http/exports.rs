//! `GET /admin/exports/…` over a real ledger and, for the large ones, moto's S3.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lambda_http::{Body, Response};
use serde_json::Value;
use testing::{Aws, TestDatabase};

use crate::ledger::{Ledger, admin, app_with_aws, handle, request};

const NOW: &str = "2025-10-20T12:00:00Z";

const EXPORTS: [&str; 7] = [
    "payments",
    "invoices",
    "refunds",
    "usage",
    "subscriptions",
    "mrr-movements",
    "journal",
];

async fn export(ledger: &Ledger, path: &str) -> Response<Body> {
    let now: Timestamp = NOW.parse().expect("an instant");
    let path = format!("/admin/exports/{path}");
    handle(&ledger.app, request("GET", &path, Some(&admin(now))), now).await
}

/// The file of a 200: its header, and its rows by column name.
async fn rows(ledger: &Ledger, path: &str) -> Vec<BTreeMap<String, String>> {
    let response = export(ledger, path).await;
    let text = std::str::from_utf8(response.body()).expect("UTF-8");
    assert_eq!(response.status(), 200, "{path}: {text}");
    read(text.as_bytes())
}

fn read(bytes: &[u8]) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(bytes);
    reader
        .deserialize()
        .collect::<Result<_, _>>()
        .expect("a CSV")
}

fn sum(rows: &[BTreeMap<String, String>], column: &str) -> i64 {
    let cells = rows.iter().map(|row| row[column].as_str());
    cells
        .map(|cell| cell.parse::<i64>().expect("a number"))
        .sum()
}

async fn payment(ledger: &Ledger, key: &str, amount_cents: i64, status: &str, at: &str) {
    ledger
        .run(&format!(
            "INSERT INTO payment_history (payment_key, stripe_payment_intent_id, amount_cents, currency, status, \
             created_at) VALUES ('{key}', '{key}', {amount_cents}, 'USD', '{status}', '{at}')"
        ))
        .await;
}

#[tokio::test]
async fn every_export_of_an_empty_ledger_is_its_header() {
    let ledger = Ledger::create().await;
    for name in EXPORTS {
        let response = export(&ledger, &format!("{name}.csv")).await;
        assert_eq!(response.status(), 200, "{name}");
        let headers = response.headers();
        assert_eq!(
            headers["content-type"],
            "text/csv; charset=utf-8; header=present"
        );
        assert_eq!(
            headers["content-disposition"],
            format!("attachment; filename=\"{name}.csv\"")
        );
        let text = std::str::from_utf8(response.body()).unwrap();
        assert!(text.ends_with("\r\n"), "{name}: {text:?}");
        assert_eq!(text.lines().count(), 1, "{name}: {text:?}");
    }
}

#[tokio::test]
async fn the_header_has_the_names_of_the_columns() {
    let ledger = Ledger::create().await;
    for (name, expected) in [
        (
            "refunds.csv",
            "stripe_refund_id,stripe_charge_id,stripe_payment_intent_id,amount_cents,currency,reason,status,\
             created_at,failed_at\r\n",
        ),
        (
            "mrr-movements.csv",
            "id,occurred_at,stripe_customer_id,stripe_subscription_id,kind,currency,delta_microcents,\
             before_microcents,after_microcents,cause_event_id\r\n",
        ),
        (
            "journal.csv",
            "date,account,debit,credit,currency,reference\r\n",
        ),
    ] {
        let response = export(&ledger, name).await;
        assert_eq!(std::str::from_utf8(response.body()).unwrap(), expected);
    }
}

#[tokio::test]
async fn texts_come_back_as_they_are_and_formulas_are_disarmed() {
    let ledger = Ledger::create().await;
    let texts = [
        ("Smith, Jones & Co", "Smith, Jones & Co"),
        ("said \"no\"", "said \"no\""),
        ("two\r\nlines\nmore", "two\r\nlines\nmore"),
        ("Zoë 株式会社 🏠", "Zoë 株式会社 🏠"),
        ("00123", "00123"),
        ("it's", "it's"),
        ("\\.", "\\."),
        ("a\\tb", "a\\tb"),
        (" =1+1", " =1+1"),
        ("", ""),
        (
            "=HYPERLINK(\"http://example.com\",\"x\")",
            "'=HYPERLINK(\"http://example.com\",\"x\")",
        ),
        ("+1 (555) 0100", "'+1 (555) 0100"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("＝1+1", "'＝1+1"),
        ("＠x", "'＠x"),
    ];
    for (number, (text, _)) in texts.iter().enumerate() {
        ledger
            .client
            .execute(
                "INSERT INTO payment_history (payment_key, amount_cents, status, failure_message, net_amount_cents) \
                 VALUES ('pi_' || $1::text, 100, 'failed', $2, -100)",
                &[&number.to_string(), text],
            )
            .await
            .unwrap();
    }
    let rows = rows(&ledger, "payments.csv").await;
    assert_eq!(rows.len(), texts.len());
    for (row, (text, expected)) in rows.iter().zip(texts) {
        assert_eq!(row["failure_message"], expected, "{text:?}");
        assert_eq!(row["net_amount_cents"], "-100", "a number stays a number");
    }
}

#[tokio::test]
async fn instants_are_rfc_3339_whatever_the_session_says() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); \
             EXECUTE format('ALTER DATABASE %I SET datestyle = ''German''', current_database()); END $$",
        )
        .await;
    payment(&ledger, "pi_1", 2_999, "succeeded", "2025-10-01T23:30:00Z").await;
    payment(&ledger, "pi_2", 1, "failed", "2025-10-02T00:00:00.25Z").await;
    let rows = rows(&ledger, "payments.csv?from=2025-10-01").await;
    let instants: Vec<&str> = rows.iter().map(|row| row["created_at"].as_str()).collect();
    assert_eq!(
        instants,
        ["2025-10-01T23:30:00Z", "2025-10-02T00:00:00.25Z"]
    );
    assert_eq!(rows[0]["succeeded_at"], "");
}

#[tokio::test]
async fn from_to_and_status_choose_the_rows() {
    let ledger = Ledger::create().await;
    payment(&ledger, "pi_1", 1, "succeeded", "2025-09-30T23:59:59Z").await;
    payment(&ledger, "pi_2", 10, "succeeded", "2025-10-01T00:00:00Z").await;
    payment(&ledger, "pi_3", 100, "failed", "2025-10-15T00:00:00Z").await;
    payment(&ledger, "pi_4", 1_000, "succeeded", "2025-11-01T00:00:00Z").await;
    ledger
        .run("INSERT INTO payment_history (payment_key, amount_cents, superseded) VALUES ('legacy:9', 7, true)")
        .await;
    for (query, amount_cents) in [
        ("", 1_111),
        ("?from=2025-10-01&to=2025-11-01", 110),
        ("?from=2025-10-01T00:00:01Z", 1_100),
        ("?to=2025-10-15T00:00:00%2B01:00", 11),
        ("?status=succeeded", 1_011),
        ("?status=failed&from=2025-10-01&to=2025-11-01", 100),
        ("?status=canceled", 0),
        ("?from=2025-10-01&to=2025-10-01", 0),
    ] {
        let rows = rows(&ledger, &format!("payments.csv{query}")).await;
        assert_eq!(sum(&rows, "amount_cents"), amount_cents, "{query}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let ledger = Ledger::create().await;
    for (path, status, field) in [
        ("payments.csv?from=yesterday", 400, "from"),
        ("payments.csv?to=2025-13-01", 400, "to"),
        ("payments.csv?from=2025-10-02&to=2025-10-01", 400, "from"),
        ("payments.csv?status=paid", 400, "status"),
        ("payments.csv?status=x'--", 400, "status"),
        ("payments.csv?from=2025-10-01'--", 400, "from"),
        ("payments.csv?currency=USD", 400, "currency"),
        ("payments.csv?limit=1", 400, "limit"),
        ("invoices.csv?status=succeeded", 400, "status"),
        ("refunds.csv?status=refunded", 400, "status"),
        ("subscriptions.csv?status=open", 400, "status"),
        ("usage.csv?status=active", 400, "status"),
        ("mrr-movements.csv?status=new", 400, "status"),
        ("journal.csv?status=open", 400, "status"),
        ("journal.csv?from=2025-10-01T12:00:00Z", 400, "from"),
        ("journal.csv?to=2025-10-01T00:00:01Z", 400, "to"),
    ] {
        let response = export(&ledger, path).await;
        let problem: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(problem["field"], field, "{path}");
    }
    for path in ["payments", "payments.json", "users.csv", "../revenue"] {
        assert_eq!(export(&ledger, path).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn rows_of_every_table_are_written() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO invoices (invoice_number, stripe_invoice_id, kind, total_cents, currency, status, po_number, \
             created_at) VALUES ('=N-1', 'in_1', 'subscription', 2999, 'USD', 'open', '0042', '2025-10-01Z');
             INSERT INTO invoices (invoice_number, kind, deleted_at) VALUES ('in_gone', 'subscription', '2025-10-01Z');
             INSERT INTO refunds (stripe_refund_id, stripe_charge_id, amount_cents, currency, reason, status, created_at) \
             VALUES ('re_1', 'ch_1', 500, 'USD', 'requested_by_customer', 'succeeded', '2025-10-02Z');
             INSERT INTO usage_events (subject, idempotency_key, api_key_prefix, event_type, cost_units, metadata, \
             created_at) VALUES ('partner:pk', 'k-1', 'pk', 'deed', 3, '{\"a\": \"x,y\"}', '2025-10-03Z')",
        )
        .await;
    ledger
        .subscription("cus_1", "EUR", 2_500_000_000, "2025-10-04T00:00:00Z")
        .await;
    let invoices = rows(&ledger, "invoices.csv").await;
    assert_eq!(invoices.len(), 1, "a draft deleted at Stripe is none");
    assert_eq!(invoices[0]["invoice_number"], "'=N-1");
    assert_eq!(invoices[0]["po_number"], "0042");
    let refunds = rows(&ledger, "refunds.csv?status=succeeded").await;
    assert_eq!(refunds[0]["amount_cents"], "500");
    let usage = rows(&ledger, "usage.csv?from=2025-10-03&to=2025-10-04").await;
    assert_eq!(usage[0]["metadata"], "{\"a\": \"x,y\"}");
    assert_eq!(usage[0]["cost_units"], "3");
    let subscriptions = rows(&ledger, "subscriptions.csv?status=active").await;
    assert_eq!(subscriptions[0]["mrr_microcents"], "2500000000");
    let movements = rows(&ledger, "mrr-movements.csv?to=2025-10-05").await;
    assert_eq!(movements[0]["kind"], "new");
    assert_eq!(movements[0]["occurred_at"], "2025-10-04T00:00:00Z");
}

#[tokio::test]
async fn the_journal_balances_in_every_currency() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO revenue_entries (payment_key, kind, source_id, day, occurred_at, currency, amount_cents, is_estimated) VALUES
             ('pi_1', 'gross', 'pi_1', '2025-10-01', '2025-10-01T12:00:00Z', 'USD', 2999, false),
             ('pi_1', 'fee', 'pi_1', '2025-10-01', '2025-10-01T12:00:00Z', 'USD', 117, false),
             ('pi_1', 'refund', 're_1', '2025-10-03', '2025-10-03T12:00:00Z', 'USD', 1000, false),
             ('pi_2', 'gross', 'pi_2', '2025-10-02', '2025-10-02T12:00:00Z', 'JPY', 2980, false),
             ('pi_2', 'fee', 'pi_2', '2025-10-02', '2025-10-02T12:00:00Z', 'JPY', 86, true),
             ('pi_3', 'dispute', 'dp_1', '2025-10-04', '2025-10-04T12:00:00Z', 'KWD', 2990, false),
             ('pi_3', 'dispute_reinstated', 'dp_1', '2025-10-09', '2025-10-09T12:00:00Z', 'KWD', -2990, false),
             ('pi_4', 'failed', 'ch_9', '2025-10-05', '2025-10-05T12:00:00Z', 'USD', 0, false),
             ('in_5', 'gross', 'in_5', '2025-11-01', '2025-11-01T12:00:00Z', 'USD', 50000, false)",
        )
        .await;
    let october = rows(&ledger, "journal.csv?from=2025-10-01&to=2025-11-01").await;
    let lines: Vec<[&str; 6]> = october
        .iter()
        .map(|row| {
            [
                "date",
                "account",
                "debit",
                "credit",
                "currency",
                "reference",
            ]
            .map(|name| row[name].as_str())
        })
        .collect();
    assert_eq!(
        lines,
        [
            ["2025-10-01", "6010", "1.17", "0.00", "USD", "pi_1"],
            ["2025-10-01", "1010", "0.00", "1.17", "USD", "pi_1"],
            ["2025-10-01", "1010", "29.99", "0.00", "USD", "pi_1"],
            ["2025-10-01", "4000", "0.00", "29.99", "USD", "pi_1"],
            ["2025-10-02", "6020", "86", "0", "JPY", "pi_2"],
            ["2025-10-02", "1010", "0", "86", "JPY", "pi_2"],
            ["2025-10-02", "1010", "2980", "0", "JPY", "pi_2"],
            ["2025-10-02", "4000", "0", "2980", "JPY", "pi_2"],
            ["2025-10-03", "4100", "10.00", "0.00", "USD", "re_1"],
            ["2025-10-03", "1010", "0.00", "10.00", "USD", "re_1"],
            ["2025-10-04", "4200", "2.990", "0.000", "KWD", "dp_1"],
            ["2025-10-04", "1010", "0.000", "2.990", "KWD", "dp_1"],
            ["2025-10-09", "1010", "2.990", "0.000", "KWD", "dp_1"],
            ["2025-10-09", "4200", "0.000", "2.990", "KWD", "dp_1"],
        ]
    );
    let whole = rows(&ledger, "journal.csv").await;
    let last = &whole[whole.len() - 2];
    assert_eq!(
        (last["account"].as_str(), last["debit"].as_str()),
        ("1020", "500.00"),
        "paid past Stripe"
    );
    let mut balance: BTreeMap<&str, i64> = BTreeMap::new();
    for row in &whole {
        let units = |side: &str| -> i64 { row[side].replace('.', "").parse().unwrap() };
        *balance.entry(&row["currency"]).or_default() += units("debit") - units("credit");
    }
    assert_eq!(
        balance,
        BTreeMap::from([("JPY", 0), ("KWD", 0), ("USD", 0)])
    );
}

#[tokio::test]
async fn a_large_export_goes_through_s3_row_by_row() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let aws = Aws::shared().await;
    let bucket = aws.bucket().await;
    client
        .batch_execute(
            "INSERT INTO payment_history (payment_key, stripe_payment_intent_id, amount_cents, status, failure_message) \
             SELECT 'pi_' || n, 'pi_' || n, n, 'failed', repeat('x', 400) FROM generate_series(1, 60000) AS n",
        )
        .await
        .unwrap();
    let app = app_with_aws(&database.url, aws, &[("DOCUMENT_BUCKET", &bucket)]).await;
    let now: Timestamp = NOW.parse().unwrap();
    let get = |path| handle(&app, request("GET", path, Some(&admin(now))), now);
    let response = get("/admin/exports/payments.csv").await;
    assert_eq!(response.status(), 303);
    let link = response.headers()["location"].to_str().unwrap();
    assert!(link.contains("X-Amz-Expires=600"), "{link}");
    let file = reqwest::get(link).await.unwrap();
    assert_eq!(
        file.headers()["content-type"],
        "text/csv; charset=utf-8; header=present"
    );
    let bytes = file.bytes().await.unwrap();
    assert!(
        bytes.len() > 3 * 8 * 1024 * 1024,
        "several parts: {}",
        bytes.len()
    );
    let stored = read(&bytes);
    assert_eq!(sum(&stored, "amount_cents"), 60_000 * 60_001 / 2);
    let ids: Vec<i64> = stored
        .iter()
        .map(|row| row["id"].parse().unwrap())
        .collect();
    assert!(ids.is_sorted() && ids.len() == 60_000, "by id, each once");

    // The same file when there is less of it, and no file when S3 is away.
    client
        .batch_execute("DELETE FROM payment_history WHERE id > 5000")
        .await
        .unwrap();
    let response = get("/admin/exports/payments.csv").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.body().as_ref(), &bytes[..response.body().len()]);
}

#[tokio::test]
async fn a_large_export_without_s3_fails_and_is_no_partial_file() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO payment_history (payment_key, amount_cents, status, failure_message) \
             SELECT 'pi_' || n, n, 'failed', repeat('x', 1000) FROM generate_series(1, 10000) AS n",
        )
        .await;
    let response = export(&ledger, "payments.csv").await;
    let problem: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(problem["code"], "not_configured", "no bucket is named");
    ledger.run("DROP TABLE payment_history CASCADE").await;
    assert_eq!(export(&ledger, "payments.csv").await.status(), 500);
}

#[tokio::test]
async fn a_long_list_of_differences_goes_through_s3_too() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let aws = Aws::shared().await;
    let bucket = aws.bucket().await;
    client
        .batch_execute(
            "INSERT INTO reconciliation_runs (run_id, kind, started_at) VALUES (1, 'daily', '2025-11-02Z'),
                 (2, 'daily', '2025-11-02Z');
             INSERT INTO reconciliation_items (id, run_id, kind, object_type, object_id, stripe_value)
             SELECT n, 1, 'amount_differs', 'charge', 'ch_' || n, repeat('x', 400) FROM generate_series(1, 15000) AS n;
             INSERT INTO reconciliation_items (id, run_id, kind, object_type, object_id)
             VALUES (20000, 2, 'amount_differs', 'charge', 'ch_other')",
        )
        .await
        .unwrap();
    let now: Timestamp = NOW.parse().unwrap();
    let asked = || request("GET", "/admin/reconciliation/1.csv", Some(&admin(now)));
    let app = app_with_aws(&database.url, aws, &[("DOCUMENT_BUCKET", &bucket)]).await;
    let response = handle(&app, asked(), now).await;
    assert_eq!(response.status(), 303);
    let link = response.headers()["location"].to_str().unwrap();
    assert!(link.contains("reconciliation-1.csv"), "{link}");
    let bytes = reqwest::get(link).await.unwrap().bytes().await.unwrap();
    assert!(bytes.len() > 6 * 1024 * 1024, "{}", bytes.len());
    let stored = read(&bytes);
    let ids: Vec<i64> = stored
        .iter()
        .map(|row| row["id"].parse().unwrap())
        .collect();
    assert!(
        ids == (1..=15_000).collect::<Vec<i64>>(),
        "each once, in order"
    );
    // Nor is it cut where there is no bucket.
    let without = app_with_aws(&database.url, aws, &[]).await;
    assert_eq!(handle(&without, asked(), now).await.status(), 503);
}
