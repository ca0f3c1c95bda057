//! The report of partners' usage that is on no invoice.

use serde_json::json;

use crate::ledger::{Ledger, admin, body, handle, request};

const NOW: &str = "2025-12-01T06:00:00Z";
const PATH: &str = "/admin/reports/unbilled-usage";

async fn rows(ledger: &Ledger, query: &str) -> Vec<String> {
    let (status, report) = ledger.get(&format!("{PATH}{query}"), NOW).await;
    assert_eq!(status, 200, "{report}");
    let rows = report["rows"].as_array().expect("it is there").iter();
    let told = rows.map(|row| {
        let names = [
            "api_key_prefix",
            "source",
            "event_type",
            "reason",
            "month",
            "events",
            "units",
        ];
        let words = names.map(|name| {
            let word = row[name].as_str().map(str::to_owned);
            word.unwrap_or_else(|| row[name].to_string())
        });
        words.join(",")
    });
    told.collect()
}

#[tokio::test]
async fn usage_that_is_on_no_invoice_is_a_row_with_its_reason() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO api_partner_contracts (id, api_key_prefix, pricing_model, per_deed_price_cents, unit_source,
                 contract_start_date, billed_from, billable_event_types)
             VALUES (1, 'dp_pk_alpha', 'per_deed', 250, 'usage_events', '2025-10-01', '2025-10-01', '{deed}');
             INSERT INTO waived_periods (contract_id, period_start, period_end, reason, waived_by, waived_at)
             VALUES (1, '2025-10-01Z', '2025-11-01Z', 'a trial', 'ops', '2025-11-02Z');
             INSERT INTO invoices (invoice_number, kind, contract_id, api_key_prefix, total_cents, currency, status,
                 billing_period_start, billing_period_end, finalized_at)
             VALUES ('1', 'partner', 1, 'dp_pk_alpha', 0, 'USD', 'open', '2023-01-01Z', '2023-02-01Z', now());
             INSERT INTO api_usage (api_key_prefix, status_code, cost_units, created_at)
             VALUES ('dp_pk_alpha', 200, 4, '2025-09-30 23:59Z'), ('dp_pk_alpha', 200, 5, '2025-10-05Z'),
                    ('dp_pk_alpha', 500, 6, '2025-11-05Z'), ('dp_pk_nobody', 200, 7, '2025-11-05Z');
             INSERT INTO usage_events (subject, idempotency_key, api_key_prefix, event_type, billable, cost_units, currency,
                 created_at, ingested_at)
             SELECT 'partner:dp_pk_alpha', at, 'dp_pk_alpha', word, true, 2, 'USD', at::timestamptz, at::timestamptz
             FROM (VALUES ('2025-09-30 23:59Z', 'deed'), ('2025-10-05Z', 'deed'), ('2025-11-05Z', 'deed'),
                          ('2025-11-06Z', 'lien')) AS used (at, word)",
        )
        .await;
    let expected = [
        "dp_pk_alpha,api_usage,api_request,before_start,2025-09,1,4",
        "dp_pk_alpha,usage_events,deed,before_start,2025-09,1,2",
        "dp_pk_alpha,api_usage,api_request,waived,2025-10,1,5",
        "dp_pk_alpha,usage_events,deed,waived,2025-10,1,2",
        "dp_pk_alpha,usage_events,lien,event_type_not_counted,2025-11,1,2",
        "dp_pk_nobody,api_usage,api_request,no_contract,2025-11,1,7",
    ];
    assert_eq!(rows(&ledger, "").await, expected);
    assert_eq!(
        rows(&ledger, "?from=2025-11-01&to=2025-12-01").await,
        expected[4..]
    );
    let now = NOW.parse().expect("it is there");
    let file = request(
        "GET",
        &format!("{PATH}.csv?from=2025-11-01"),
        Some(&admin(now)),
    );
    let response = handle(&ledger.app, file, now).await;
    let lambda_http::Body::Text(text) = response.body() else {
        panic!("{:?}", body(&response));
    };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "api_key_prefix,source,event_type,reason,month,events,units"
    );
    assert_eq!(lines[1..], expected[4..]);
    // What a change makes billable is none any more.
    ledger
        .run("UPDATE api_partner_contracts SET billable_event_types = NULL; DELETE FROM waived_periods")
        .await;
    assert_eq!(rows(&ledger, "?from=2025-10-01").await, expected[5..]);
    let (status, problem) = ledger
        .get(&format!("{PATH}?from=2025-12-01&to=2025-11-01"), NOW)
        .await;
    assert_eq!((status, &problem["field"]), (400, &json!("from")));
}

#[tokio::test]
async fn what_came_too_late_for_its_invoice_is_told() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO api_partner_contracts (id, api_key_prefix, pricing_model, per_deed_price_cents, unit_source,
                 contract_start_date, billed_from)
             VALUES (1, 'dp_pk_alpha', 'per_deed', 250, 'usage_events', '2023-01-01', '2023-01-01');
             INSERT INTO invoices (invoice_number, kind, contract_id, api_key_prefix, total_cents, currency, status,
                 billing_period_start, billing_period_end, finalized_at)
             VALUES ('1', 'partner', 1, 'dp_pk_alpha', 0, 'USD', 'open', '2023-01-01Z', '2023-02-01Z', now());
             INSERT INTO usage_events (subject, idempotency_key, api_key_prefix, event_type, billable, cost_units, currency,
                 created_at, ingested_at)
             VALUES ('partner:dp_pk_alpha', '1', 'dp_pk_alpha', 'deed', true, 2, 'USD', '2023-01-10Z', '2024-03-03Z'),
                    ('partner:dp_pk_alpha', '2', 'dp_pk_alpha', 'deed', true, 3, 'USD', '2023-01-10Z', '2024-03-04Z')",
        )
        .await;
    assert_eq!(
        rows(&ledger, "?from=2023-01-01").await,
        ["dp_pk_alpha,usage_events,deed,too_late,2023-01,1,3"]
    );
    assert_eq!(rows(&ledger, "").await, [""; 0], "the last 396 days");
}
