//! Locked tables: sections that are null, 503 in time where there are none, and nothing left waiting.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ledger::{Ledger, admin, app, body, handle, request};

/// Within which whoever asks is answered, whatever hangs.
const PATIENCE: Duration = Duration::from_secs(5);
const NOW: &str = "2026-03-15T12:00:00Z";

/// What a sandbox of its own answers, in time, while a table is locked; no backend goes on waiting.
async fn while_locked(ledger: &Ledger, table: &str, path: &str) -> (u16, Value) {
    let app = app(ledger.url(), &[]).await;
    let lock = ledger.database().lock_table(table).await;
    let now: Timestamp = NOW.parse().expect("an instant");
    let started = Instant::now();
    let response = handle(&app, request("GET", path, Some(&admin(now))), now).await;
    let elapsed = started.elapsed();
    assert!(elapsed < PATIENCE, "{path}: {elapsed:?}");
    let busy = ledger.database().backends("state <> 'idle'").await;
    assert_eq!(busy, 0, "{path}");
    lock.release().await;
    let status = response.status().as_u16();
    if status == 503 {
        assert_eq!(response.headers()["retry-after"], "2", "{path}");
    }
    (status, body(&response))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_section_that_timed_out_is_null_and_the_rest_is_answered() {
    let ledger = Ledger::create().await;
    ledger
        .days(&[("2026-03-02", "USD", 5_000, 100, 0, 0)])
        .await;
    for (table, query, nulls) in [
        ("mrr_daily", "", &["mrr_arr", "churn"][..]),
        ("subscriptions_daily", "", &["subscriptions"]),
        (
            "mrr_movements",
            "?as_of=2026-03-10T00:00:00Z",
            &["mrr_arr", "churn"],
        ),
        (
            "revenue_daily",
            "",
            &["overview", "monthly_breakdown", "estimated_fees"],
        ),
    ] {
        let path = format!("/admin/revenue{query}");
        let (status, revenue) = while_locked(&ledger, table, &path).await;
        assert_eq!(status, 200, "{revenue}");
        let members = [
            "overview",
            "monthly_breakdown",
            "mrr_arr",
            "churn",
            "subscriptions",
            "estimated_fees",
        ];
        for member in members {
            let is_null = revenue[member].is_null();
            assert_eq!(is_null, nulls.contains(&member), "{table}: {member}");
        }
        let reasons: Vec<&str> = revenue["errors"]
            .as_array()
            .expect("as the answer has it")
            .iter()
            .map(|error| error["reason"].as_str().expect("as the answer has it"))
            .collect();
        for reason in reasons {
            let is_late = reason == "the database did not answer in time"
                || reason == "a figure it is made of could not be read";
            assert!(is_late, "{table}: {reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_timed_out_is_null_and_its_file_is_refused() {
    let ledger = Ledger::create().await;
    let (status, report) = while_locked(&ledger, "refunds", "/admin/reports/refunds").await;
    assert_eq!((status, &report["rows"]), (200, &Value::Null), "{report}");
    assert_eq!(
        report["errors"][0]["reason"],
        "the database did not answer in time"
    );
    let file = while_locked(&ledger, "refunds", "/admin/reports/refunds.csv").await;
    assert_eq!((file.0, &file.1["code"]), (503, &json!("unavailable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_objects_are_answered_503_in_time() {
    let ledger = Ledger::create().await;
    for path in ["/admin/invoices", "/admin/invoices/1"] {
        let (status, problem) = while_locked(&ledger, "invoices", path).await;
        let told = (status, &problem["code"], problem.get("detail"));
        assert_eq!(told, (503, &json!("unavailable"), None), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_timed_out_says_that_its_key_finds_out() {
    let ledger = Ledger::create().await;
    let lock = ledger.database().lock_table("invoices").await;
    let now: Timestamp = NOW.parse().expect("an instant");
    let mut void = request("POST", "/admin/invoices/1/void", Some(&admin(now)));
    void.headers_mut().insert(
        "idempotency-key",
        "a key".parse().expect("as the answer has it"),
    );
    let response = handle(&ledger.app, void, now).await;
    lock.release().await;
    let problem = body(&response);
    assert_eq!(response.status(), 503, "{problem}");
    let detail = problem["detail"].as_str().expect("as the answer has it");
    assert!(detail.contains("Idempotency-Key"), "{detail}");
}
