//! `GET /admin/reports/{report}` over the story of `story.rs`: every figure worked out by hand, and the same as a file.

use crate::ledger::Ledger;
use crate::story::{NOW, prorated, story};
use jiff::Timestamp;
use serde_json::{Value, json};

const NAMES: [&str; 9] = [
    "top-customers",
    "failed-payments",
    "refunds",
    "disputes",
    "fees",
    "tax",
    "partners",
    "plan-changes",
    "aging",
];
const OCTOBER: &str = "?from=2025-10-01&to=2025-11-01";

async fn report(ledger: &Ledger, name: &str, query: &str) -> Value {
    let path = format!("/admin/reports/{name}{query}");
    let (status, body) = ledger.get(&path, NOW).await;
    assert_eq!(status, 200, "{path}: {body}");
    assert_eq!(body["report"], name);
    assert_eq!(body["errors"], json!([]));
    assert!(body["definition"].is_string());
    body
}

/// The values of each row, in the order of these names.
fn rows<const N: usize>(report: &Value, names: [&str; N]) -> Vec<Value> {
    let rows = report["rows"].as_array().expect("rows");
    for row in rows {
        assert_eq!(row.as_object().expect("a row").len(), N, "{row}");
    }
    rows.iter()
        .map(|row| names.iter().map(|name| row[*name].clone()).collect())
        .collect()
}

#[tokio::test]
async fn customers_are_ranked_by_what_they_left() {
    let ledger = story().await;
    let names = [
        "stripe_customer_id",
        "name",
        "gross_cents",
        "fees_cents",
        "refunds_cents",
        "disputes_cents",
        "net_cents",
        "mrr_cents",
    ];
    let october = report(&ledger, "top-customers", OCTOBER).await;
    assert_eq!(
        rows(&october, names),
        [
            // 25000 − (175 + 610).
            json!(["cus_bob", null, 25_000, 785, 0, 0, 24_215, 2_000]),
            // The 2500 are of September's payment, and of October by their date.
            json!(["cus_alice", null, 10_000, 320, 3_500, 0, 6_180, 11_000]),
            json!(["cus_erin", null, 4_000, 146, 0, 0, 3_854, 0]),
            json!(["cus_gina", null, 1_000, 59, 0, 0, 941, 0]),
            // 117 and the dispute's 1500.
            json!(["cus_dan", null, 3_000, 1_617, 0, 3_000, -1_617, 2_000]),
            json!(["cus_carol", null, 0, 1_500, 0, 8_000, -9_500, 0]),
        ]
    );
    assert_eq!(
        october["totals"],
        json!({"gross_cents": 43_000, "fees_cents": 4_427, "refunds_cents": 3_500, "disputes_cents": 11_000,
               "net_cents": 24_073, "mrr_cents": 15_000})
    );
    // As the dashboard has it: at the end of October the refund that failed later had not.
    let dashboard = ledger.revenue("?as_of=2025-10-31T23:59:59Z", NOW).await;
    assert_eq!(dashboard["overview"]["monthly_revenue_cents"], 43_000);
    assert_eq!(dashboard["overview"]["net_monthly_revenue_cents"], 24_073);
    let november = report(&ledger, "top-customers", "?from=2025-11-01").await;
    assert_eq!(
        rows(&november, names),
        [json!(["cus_carol", null, 0, 0, 0, -8_000, 8_000, 0])],
        "a won dispute comes back on its date"
    );
    let two = report(&ledger, "top-customers", &format!("{OCTOBER}&limit=2")).await;
    assert_eq!(two["rows"].as_array().unwrap().len(), 2);
    assert_eq!(two["totals"]["gross_cents"], 35_000);
    let then = format!("{OCTOBER}&as_of=2025-10-20T09:59:59Z");
    let then = report(&ledger, "top-customers", &then).await;
    assert_eq!(
        rows(&then, names)[1],
        json!(["cus_bob", null, 5_000, 175, 0, 0, 4_825, 2_000]),
        "Bob's second payment is a second away"
    );
}

#[tokio::test]
async fn failures_are_counted_by_code_and_retries_once() {
    let ledger = story().await;
    let names = [
        "failure_code",
        "decline_code",
        "attempts",
        "payments",
        "amount_cents",
        "recovered",
        "recovered_cents",
        "recovery_rate_bps",
    ];
    let october = report(&ledger, "failed-payments", OCTOBER).await;
    assert_eq!(
        rows(&october, names),
        [
            json!([
                "card_declined",
                "insufficient_funds",
                2,
                1,
                4_000,
                1,
                4_000,
                10_000
            ]),
            json!([
                "card_declined",
                "do_not_honor",
                1,
                1,
                1_000,
                1,
                1_000,
                10_000
            ]),
            json!(["expired_card", null, 1, 1, 2_500, 0, 0, 0]),
        ]
    );
    assert_eq!(
        october["totals"],
        json!({"attempts": 4, "payments": 3, "amount_cents": 7_500, "recovered": 2, "recovered_cents": 5_000,
               "recovery_rate_bps": 6_667})
    );
    // Before Erin's third attempt nothing is recovered.
    let then = format!("{OCTOBER}&as_of=2025-10-05T00:00:00Z");
    let then = report(&ledger, "failed-payments", &then).await;
    assert_eq!(
        rows(&then, names),
        [json!([
            "card_declined",
            "insufficient_funds",
            2,
            1,
            4_000,
            0,
            0,
            0
        ])]
    );
    let none = report(&ledger, "failed-payments", "?from=2025-11-01").await;
    assert_eq!(
        (&none["rows"], &none["totals"]["recovery_rate_bps"]),
        (&json!([]), &Value::Null)
    );
}

#[tokio::test]
async fn refunds_are_of_their_own_date_and_failed_ones_of_none() {
    let ledger = story().await;
    let names = ["reason", "refunds", "amount_cents", "rate_of_gross_bps"];
    let october = report(&ledger, "refunds", OCTOBER).await;
    // Of 43000: 5.814 % and 2.326 %.
    assert_eq!(
        rows(&october, names),
        [
            json!(["requested_by_customer", 1, 2_500, 581]),
            json!(["duplicate", 1, 1_000, 233])
        ]
    );
    assert_eq!(
        october["totals"],
        json!({"refunds": 2, "amount_cents": 3_500, "gross_cents": 43_000, "rate_of_gross_bps": 814})
    );
    let september = report(&ledger, "refunds", "?from=2025-09-01&to=2025-10-01").await;
    assert_eq!(
        (&september["rows"], &september["totals"]["gross_cents"]),
        (&json!([]), &json!(18_000))
    );
    let euro = report(&ledger, "refunds", "?from=2025-11-01&currency=eur").await;
    assert_eq!(
        rows(&euro, names),
        [json!(["requested_by_customer", 1, 700, null])]
    );
    assert_eq!(euro["currency"], "EUR");
}

#[tokio::test]
async fn disputes_are_of_the_withdrawals_date_and_decided_when_they_were() {
    let ledger = story().await;
    let names = [
        "status",
        "reason",
        "disputes",
        "amount_cents",
        "won",
        "lost",
        "fee_cents",
    ];
    let october = report(&ledger, "disputes", OCTOBER).await;
    assert_eq!(
        rows(&october, names),
        [
            json!(["won", "fraudulent", 1, 8_000, 1, 0, 1_500]),
            json!(["warning_needs_response", "general", 1, 5_000, 0, 0, 0]),
            json!(["lost", "product_not_received", 1, 3_000, 0, 1, 1_500]),
        ]
    );
    assert_eq!(
        october["totals"],
        json!({"disputes": 3, "amount_cents": 16_000, "won": 1, "lost": 1, "fee_cents": 3_000, "win_rate_bps": 5_000})
    );
    let then = report(
        &ledger,
        "disputes",
        &format!("{OCTOBER}&as_of=2025-11-05T09:59:59Z"),
    )
    .await;
    assert_eq!(
        rows(&then, names)[0],
        json!(["under_review", "fraudulent", 1, 8_000, 0, 0, 1_500])
    );
    assert_eq!(then["totals"]["win_rate_bps"], Value::Null);
}

#[tokio::test]
async fn fees_are_actual_estimated_or_of_disputes() {
    let ledger = story().await;
    let names = [
        "fee_source",
        "charged",
        "gross_cents",
        "fees_cents",
        "effective_rate_bps",
    ];
    let october = report(&ledger, "fees", OCTOBER).await;
    assert_eq!(
        rows(&october, names),
        [
            // 320 + 610 + 117 + 146 + 59 of 10000 + 20000 + 3000 + 4000 + 1000.
            json!(["actual", 5, 38_000, 1_252, 329]),
            json!(["dispute", 2, null, 3_000, null]),
            json!(["estimated", 1, 5_000, 175, 350]),
        ]
    );
    assert_eq!(
        october["totals"],
        json!({"charged": 8, "gross_cents": 43_000, "fees_cents": 4_427, "effective_rate_bps": 1_030})
    );
}

#[tokio::test]
async fn tax_is_told_as_far_as_the_invoices_tell_it() {
    let ledger = story().await;
    let names = [
        "jurisdiction",
        "tax_rate",
        "invoices",
        "taxable_cents",
        "tax_cents",
    ];
    let october = report(&ledger, "tax", OCTOBER).await;
    assert_eq!(
        rows(&october, names),
        [
            json!(["US-TX", "txr_texas", 1, 10_000, 625]),
            json!(["unknown", "txr_city", 1, 10_000, 200]),
            json!(["unknown", "unknown", 1, null, 190]),
        ]
    );
    assert_eq!(
        october["totals"],
        json!({"taxable_cents": 20_000, "tax_cents": 1_015})
    );
}

#[tokio::test]
async fn what_partners_were_invoiced_is_paid_credited_due_or_lost() {
    let ledger = story().await;
    let names = [
        "api_key_prefix",
        "company",
        "invoices",
        "total_cents",
        "amount_paid_cents",
        "credit_applied_cents",
        "amount_due_cents",
        "uncollectible_cents",
    ];
    let october = report(&ledger, "partners", OCTOBER).await;
    assert_eq!(
        rows(&october, names),
        [
            json!(["pk_acme", "=Acme, Inc.", 3, 8_300, 900, 0, 7_000, 400]),
            json!(["pk_beta", "Beta", 1, 6_000, 5_000, 1_000, 0, 0]),
        ]
    );
    assert_eq!(
        october["totals"],
        json!({"invoices": 4, "total_cents": 14_300, "amount_paid_cents": 5_900, "credit_applied_cents": 1_000,
               "amount_due_cents": 7_000, "uncollectible_cents": 400})
    );
    let then = report(
        &ledger,
        "partners",
        &format!("{OCTOBER}&as_of=2025-11-15T00:00:00Z"),
    )
    .await;
    assert_eq!(
        rows(&then, names)[0],
        json!(["pk_acme", "=Acme, Inc.", 3, 8_300, 0, 0, 7_900, 400])
    );
    let (_, name, text) = ledger
        .file(&format!("/admin/reports/partners.csv{OCTOBER}"), NOW)
        .await;
    assert_eq!(name, "attachment; filename=\"partners.csv\"");
    assert_eq!(
        text.lines().nth(1),
        Some("pk_acme,\"'=Acme, Inc.\",3,8300,900,0,7000,400,USD"),
        "no formula runs"
    );
}

#[tokio::test]
async fn plans_change_by_month_with_what_they_moved() {
    let ledger = story().await;
    let names = [
        "month",
        "change",
        "from_plan",
        "to_plan",
        "subscriptions",
        "mrr_delta_cents",
    ];
    let autumn = report(&ledger, "plan-changes", "?from=2025-10-01").await;
    assert_eq!(
        rows(&autumn, names),
        [
            json!(["2025-10", "new", null, "basic", 1, 2_000]),
            json!(["2025-10", "new", null, "silver", 1, 6_000]),
            json!(["2025-10", "upgrade", "basic", "pro", 1, 3_000]),
            json!(["2025-10", "downgrade", "pro", "basic", 1, -3_000]),
            json!(["2025-11", "new", null, "basic", 1, 2_000]),
            json!(["2025-11", "canceled", "pro", null, 1, -5_000]),
        ]
    );
    assert_eq!(
        autumn["totals"],
        json!({"subscriptions": 6, "mrr_delta_cents": 5_000})
    );
}

#[tokio::test]
async fn open_invoices_age_by_days() {
    let ledger = story().await;
    let names = ["bucket", "invoices", "amount_due_cents"];
    let now = report(&ledger, "aging", "").await;
    assert_eq!(now.get("from"), None);
    assert_eq!(
        rows(&now, names),
        [
            json!(["current", 1, 500]),
            // 30 days, 41 days, 90 days, 91 days.
            json!(["1-30", 1, 7_000]),
            json!(["31-60", 1, 2_190]),
            json!(["61-90", 1, 4_000]),
            json!(["over_90", 1, 3_000]),
        ]
    );
    assert_eq!(
        now["totals"],
        json!({"invoices": 5, "amount_due_cents": 16_690})
    );
    // On 15 November acme's 900 was five days late, the 7000 25, 2190 36, 4000 85, 3000 86; the newest was not issued.
    let then = report(&ledger, "aging", "?as_of=2025-11-15T00:00:00Z").await;
    assert_eq!(
        rows(&then, names),
        [
            json!(["current", 0, 0]),
            json!(["1-30", 2, 7_900]),
            json!(["31-60", 1, 2_190]),
            json!(["61-90", 2, 7_000]),
            json!(["over_90", 0, 0]),
        ]
    );
}

#[tokio::test]
async fn a_draft_that_was_deleted_was_never_open() {
    let ledger = Ledger::create().await;
    let invoice = |kind: &str, at: &str| {
        let created: Timestamp = at.parse().expect("an instant");
        json!({"id": format!("evt_{kind}"), "object": "event", "api_version": "2022-11-15", "livemode": false,
            "created": created.as_second(), "type": kind, "data": {"object": {
                "id": "in_1", "object": "invoice", "customer": "cus_1", "currency": "usd", "status": "draft",
                "subtotal": 900, "total": 900, "amount_due": 900, "amount_paid": 0, "amount_remaining": 900,
                "created": 1_762_340_000, "metadata": {}, "lines": {"object": "list", "has_more": false, "data": []},
                "status_transitions": {"finalized_at": null, "paid_at": null, "voided_at": null}}}})
    };
    // Created on 5 November.
    let created = invoice("invoice.created", "2025-11-05T12:00:00Z");
    let deleted = invoice("invoice.deleted", "2025-11-16T12:00:00Z");
    ledger.ingest(vec![created, deleted]).await;
    for as_of in ["", "?as_of=2025-11-15T00:00:00Z"] {
        let report = report(&ledger, "aging", as_of).await;
        let nothing = json!({"invoices": 0, "amount_due_cents": 0});
        assert_eq!(report["totals"], nothing, "{as_of}");
    }
}

#[tokio::test]
async fn a_file_has_the_rows_of_the_answer_and_adds_up_to_its_totals() {
    let ledger = story().await;
    for name in NAMES {
        let query = if name == "aging" { "" } else { OCTOBER };
        let answer = report(&ledger, name, query).await;
        let (status, disposition, text) = ledger
            .file(&format!("/admin/reports/{name}.csv{query}"), NOW)
            .await;
        assert_eq!(status, 200, "{name}: {text}");
        assert_eq!(disposition, format!("attachment; filename=\"{name}.csv\""));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().unwrap().clone();
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let answered = answer["rows"].as_array().unwrap();
        assert_eq!(records.len(), answered.len(), "{name}");
        assert!(!records.is_empty(), "{name}");
        for (record, row) in records.iter().zip(answered) {
            assert_eq!(header.len(), row.as_object().unwrap().len() + 1);
            for (column, field) in header.iter().zip(record) {
                let value = &row[column];
                let expected = if column == "currency" {
                    "USD".to_owned()
                } else if let Some(text) = value.as_str() {
                    text.replace("=Acme", "'=Acme")
                } else if value.is_null() {
                    String::new()
                } else {
                    value.to_string()
                };
                assert_eq!(field, expected, "{name}.{column}");
            }
        }
        for (column, total) in answer["totals"].as_object().unwrap() {
            let Some(place) = header.iter().position(|name| name == column) else {
                continue;
            };
            if column.ends_with("_bps") {
                continue;
            }
            let sum: i64 = records
                .iter()
                .map(|record| record[place].parse().unwrap_or(0))
                .sum();
            assert_eq!(total, &json!(sum), "{name}.{column}");
        }
    }
}

#[tokio::test]
async fn a_parameter_or_report_that_is_unknown_is_refused() {
    let ledger = Ledger::create().await;
    for name in [
        "churn",
        "refunds.xlsx",
        ".csv",
        "Refunds",
        "refunds.csv.csv",
    ] {
        let (status, _) = ledger.get(&format!("/admin/reports/{name}"), NOW).await;
        assert_eq!(status, 404, "{name}");
    }
    let mut bad = vec![
        ("top-customers", "?limit=0", "limit"),
        ("top-customers", "?limit=501", "limit"),
        ("top-customers", "?limit=ten", "limit"),
        ("refunds", "?limit=5", "limit"),
        ("aging", "?from=2025-10-01", "from"),
        ("aging", "?to=2025-10-01", "to"),
        ("aging", "?limit=5", "limit"),
    ];
    for name in NAMES {
        bad.extend([
            (name, "?currency=dollar", "currency"),
            (name, "?as_of=2026-01-01T00:00:00Z", "as_of"),
            (name, "?as_of=2025-10-01", "as_of"),
            (name, "?profile=stripe", "profile"),
            (name, "?currency=USD&currency=USD", "currency"),
        ]);
        if name != "aging" {
            bad.extend([
                (name, "?from=x", "from"),
                (name, "?to=x", "to"),
                (name, "?from=2025-10-02&to=2025-10-01", "from"),
                (name, "?from=2023-01-01", "from"),
                (name, "?from=2025-12-01", "from"),
            ]);
        }
    }
    for (name, query, field) in bad {
        for suffix in ["", ".csv"] {
            let (status, problem) = ledger
                .get(&format!("/admin/reports/{name}{suffix}{query}"), NOW)
                .await;
            assert_eq!(
                (status, &problem["field"]),
                (400, &json!(field)),
                "{name}{query}"
            );
        }
    }
}

#[tokio::test]
async fn a_failed_read_is_null_and_a_file_is_refused() {
    for (name, broken) in [
        ("top-customers", "DROP TABLE mrr_movements"),
        ("failed-payments", "DROP TABLE payment_attempts"),
        ("refunds", "DROP TABLE revenue_entries CASCADE"),
        ("disputes", "DROP TABLE disputes CASCADE"),
        ("fees", "DROP TABLE revenue_entries CASCADE"),
        ("tax", "DROP TABLE invoices CASCADE"),
        ("partners", "DROP TABLE api_partner_contracts CASCADE"),
        ("plan-changes", "DROP TABLE subscription_versions"),
        ("aging", "DROP TABLE invoices CASCADE"),
    ] {
        let ledger = Ledger::create().await;
        ledger.run(broken).await;
        let (status, answer) = ledger.get(&format!("/admin/reports/{name}"), NOW).await;
        assert_eq!(status, 200, "{name}");
        assert_eq!(
            (&answer["rows"], &answer["totals"]),
            (&Value::Null, &Value::Null),
            "{name}"
        );
        let fields: Vec<&Value> = answer["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| &error["field"])
            .collect();
        assert_eq!(fields, [&json!("rows"), &json!("totals")], "{name}");
        let (status, _) = ledger.get(&format!("/admin/reports/{name}.csv"), NOW).await;
        assert_eq!(status, 500, "{name}: a file has no null");
    }
}

#[tokio::test]
async fn a_report_needs_an_admin() {
    use crate::ledger::request;
    let ledger = Ledger::create().await;
    let now = NOW.parse().unwrap();
    for path in [
        "/admin/reports/refunds",
        "/admin/reports/nonsense",
        "/admin/revenue/cohorts",
        "/admin/revenue/movements",
    ] {
        let response = admin_revenue::handle(&ledger.app, request("GET", path, None), now).await;
        assert_eq!(response.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn a_proration_is_money_of_its_day_and_no_recurring_revenue() {
    let ledger = prorated().await;
    let top = report(&ledger, "top-customers", OCTOBER).await;
    assert_eq!(
        top["totals"],
        json!({"gross_cents": 1_000, "fees_cents": 59, "refunds_cents": 0, "disputes_cents": 0, "net_cents": 941,
               "mrr_cents": 5_000}),
        "what was paid, and not 2500 with 1500 refunded"
    );
    let path = "/admin/revenue/movements?from=2025-10-01&to=2025-11-01";
    let (status, body) = ledger.get(path, NOW).await;
    assert_eq!(status, 200, "{body}");
    let october = &body["periods"][0];
    let bridge = [
        "opening_mrr_cents",
        "new_mrr_cents",
        "expansion_mrr_cents",
        "contraction_mrr_cents",
        "closing_mrr_cents",
    ]
    .map(|name| october[name].as_i64().unwrap());
    assert_eq!(
        bridge,
        [0, 3_000, 2_000, 0, 5_000],
        "the plans alone move it"
    );
    let (_, invoices) = ledger.get("/admin/invoices", NOW).await;
    assert_eq!(invoices["data"][0]["total_cents"], 1_000);
    let id = invoices["data"][0]["id"].as_i64().unwrap();
    let (_, invoice) = ledger.get(&format!("/admin/invoices/{id}"), NOW).await;
    let lines = invoice["lines"].as_array().unwrap();
    let amounts: Vec<i64> = lines
        .iter()
        .map(|line| line["total_cents"].as_i64().unwrap())
        .collect();
    assert_eq!(amounts, [-1_500, 2_500]);
}
