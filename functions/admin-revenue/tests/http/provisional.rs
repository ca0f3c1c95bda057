//! Figures that may still change, the look-ups behind them, and the status.

use serde_json::{Value, json};

use crate::ledger::Ledger;

const NOW: &str = "2025-10-20T12:00:00Z";

/// Two invoices of October and one of last year whose payments nobody knows, one that is not due yet; a charge without its
/// fee; a subscription that waits for two coupons and keeps failing; in euros the balance transactions of a dispute.
const LOOKUPS: &str = "
    INSERT INTO stripe_lookups (id, kind, stripe_id, reason, subject, subject_type, event_id, requested_at, due_at,
        currency, figure_at, amount_cents, state, attempts)
    VALUES
        (1, 'invoice_payments', 'in_1', 'payments', 'in_1', 'invoice', 'evt_1', '2025-10-03Z', '2025-10-03 01:00Z',
            'USD', '2025-10-03Z', 50000, 'open', 0),
        (2, 'invoice_payments', 'in_2', 'payments', 'in_2', 'invoice', 'evt_2', '2025-10-04Z', '2025-10-04 01:00Z',
            'USD', '2025-10-04Z', 10000, 'failing', 3),
        (3, 'invoice_payments', 'in_3', 'payments', 'in_3', 'invoice', 'evt_3', '2025-10-20 11:30Z',
            '2025-10-20 12:30Z', 'USD', '2025-10-20 11:30Z', 700, 'open', 0),
        (4, 'invoice_payments', 'in_4', 'payments', 'in_4', 'invoice', 'evt_4', '2024-02-04Z', '2024-02-04 01:00Z',
            'USD', '2024-02-04Z', 300, 'absent', 1),
        (5, 'balance_transaction', 'txn_5', 'fee', 'ch_5', 'charge', 'evt_5', '2025-09-04Z', '2025-09-04Z',
            'USD', '2025-09-04Z', 117, 'open', 0),
        (6, 'coupon', 'half', 'coupon', 'sub_6', 'subscription', 'evt_6', '2025-08-01Z', '2025-08-01Z',
            'USD', '2025-08-01Z', 4000, 'failing', 5),
        (7, 'coupon', 'ten', 'coupon', 'sub_6', 'subscription', 'evt_6', '2025-08-01Z', '2025-08-01Z',
            'USD', '2025-08-01Z', 4000, 'open', 0),
        (8, 'dispute', 'dp_8', 'transactions', 'dp_8', 'dispute', 'evt_8', '2025-10-05Z', '2025-10-05Z',
            'EUR', '2025-10-05Z', 900, 'open', 0),
        (9, 'invoice_lines', 'in_9', 'lines', 'in_9', 'invoice', 'evt_9', '2025-10-05Z', '2025-10-05Z',
            NULL, NULL, NULL, 'open', 0);
    INSERT INTO stripe_lookups (id, kind, stripe_id, reason, subject, requested_at, done_at, state)
    VALUES (10, 'price', 'price_1', 'tiers', 'sub_1', '2025-10-01Z', '2025-10-02Z', 'done')";

async fn ledger() -> Ledger {
    let ledger = Ledger::create().await;
    ledger.run(LOOKUPS).await;
    ledger
}

fn entry(
    (figure, month, currency, reason): (&str, Option<&str>, &str, &str),
    objects: i64,
    amount_cents: i64,
    oldest_at: &str,
    failing: i64,
) -> Value {
    json!({"figure": figure, "month": month, "currency": currency, "reason": reason, "objects": objects,
        "amount_cents": amount_cents, "oldest_at": oldest_at, "failing": failing})
}

#[tokio::test]
async fn a_figure_says_what_may_still_change_it() {
    let ledger = ledger().await;
    let report = ledger.revenue("", NOW).await;
    let of_october = Some("2025-10");
    let mrr = ("mrr_cents", of_october, "USD", "coupon");
    let revenue = ("total_revenue_cents", of_october, "USD", "payments");
    assert_eq!(
        report["provisional"],
        json!([
            entry(
                ("disputes_cents", of_october, "EUR", "transactions"),
                1,
                900,
                "2025-10-05T00:00:00Z",
                0
            ),
            entry(mrr, 1, 4_000, "2025-08-01T00:00:00Z", 1),
            entry(revenue, 2, 60_000, "2025-10-03T00:00:00Z", 1),
            entry(
                ("stripe_fees_cents", Some("2025-09"), "USD", "fee"),
                1,
                117,
                "2025-09-04T00:00:00Z",
                0
            ),
            entry(
                ("total_revenue_cents", None, "USD", "payments"),
                1,
                300,
                "2024-02-04T00:00:00Z",
                1
            ),
        ])
    );
    // The dispute is in euros, which have no rate.
    assert_eq!(
        report["overview"]["provisional"],
        json!([
            "total_revenue_cents",
            "monthly_revenue_cents",
            "net_monthly_revenue_cents"
        ])
    );
    let months = &report["monthly_breakdown"];
    assert_eq!(
        months[0]["provisional"],
        json!(["revenue_cents", "net_cents"])
    );
    assert_eq!(months[1]["provisional"], json!(["fees_cents", "net_cents"]));
    assert_eq!(months[2]["provisional"], json!([]));
    assert_eq!(
        report["mrr_arr"]["provisional"],
        json!(["mrr_cents", "arr_cents"])
    );

    // As of an instant before the payments.
    let before = ledger.revenue("?as_of=2025-10-02T00:00:00Z", NOW).await;
    let reasons = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|one| format!("{} {}", one["reason"], one["month"]).replace('"', ""))
            .collect()
    };
    assert_eq!(
        reasons(&before["provisional"]),
        ["coupon 2025-10", "fee 2025-09", "payments null"]
    );

    // Reports have what their span has.
    let (_, september) = ledger
        .get(
            "/admin/reports/fees?from=2025-09-01T00:00:00Z&to=2025-10-01T00:00:00Z",
            NOW,
        )
        .await;
    let shown = reasons(&september["provisional"]);
    assert!(shown.contains(&"fee 2025-09".to_owned()), "{shown:?}");
    assert!(!shown.contains(&"payments null".to_owned()), "{shown:?}");
    let (_, bridge) = ledger.get("/admin/revenue/movements", NOW).await;
    let shown = reasons(&bridge["provisional"]);
    assert!(shown.contains(&"coupon 2025-10".to_owned()), "{shown:?}");
}

#[tokio::test]
async fn look_ups_are_listed_and_made_due() {
    let ledger = ledger().await;
    let ids = async |query: &str| -> Vec<i64> {
        let (status, list) = ledger.get(&format!("/admin/lookups{query}"), NOW).await;
        assert_eq!(status, 200, "{list}");
        let rows = list["data"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids("").await, [3, 9, 8, 2, 1, 5, 7, 6, 4]);
    assert_eq!(ids("?state=failing").await, [2, 6]);
    assert_eq!(ids("?state=done").await, [10]);
    assert_eq!(
        ids("?reason=payments&currency=USD&from=2025-10-01T00:00:00Z&to=2025-10-04T00:00:00Z")
            .await,
        [1]
    );
    assert_eq!(ids("?limit=2").await, [3, 9]);
    let (status, problem) = ledger.get("/admin/lookups?reason=gone", NOW).await;
    assert_eq!((status, &problem["field"]), (400, &json!("reason")));

    ledger
        .run("UPDATE stripe_lookups SET next_attempt_at = '2025-10-21Z' WHERE id = 3")
        .await;
    let (status, retried) = ledger
        .post("/admin/lookups/3/retry", json!({}), Some("key-1"))
        .await;
    assert_eq!(status, 200, "{retried}");
    assert_eq!(
        (&retried["next_attempt_at"], &retried["subject"]),
        (&Value::Null, &json!("in_3"))
    );
    let again = ledger
        .post("/admin/lookups/3/retry", json!({}), Some("key-1"))
        .await;
    assert_eq!(again, (200, retried));
    let audited = ledger
        .get("/admin/audit-log?action=lookup.retry", NOW)
        .await
        .1;
    assert_eq!(audited["data"].as_array().unwrap().len(), 1);
    let (status, problem) = ledger
        .post("/admin/lookups/10/retry", json!({}), None)
        .await;
    assert_eq!((status, &problem["code"]), (409, &json!("lookup_done")));
    assert_eq!(
        ledger
            .post("/admin/lookups/99/retry", json!({}), None)
            .await
            .0,
        404
    );
}
