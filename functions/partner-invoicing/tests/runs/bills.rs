//! What is billed: usage, changes inside a period, late usage, credits, review, edges of time.

use domain::partner::draft::Window;
use domain::partner::pricing::Usage;
use domain::period::Period;
use jiff::Timestamp;
use partner_invoicing::{Error, handle};
use serde_json::{Value, json};
use store::contract_usage;
use store::contracts;

use crate::site::{Site, at, event, run, run_in_part, run_with};

#[tokio::test]
async fn the_sample_event_bills_november_to_the_cent() {
    let site = Site::new().await;
    let id = site
        .contract(
            "dp_pk_alpha",
            json!({"tax_rate_bps": 1_900, "po_number": "PO-7"}),
        )
        .await;
    site.served("dp_pk_alpha", 312, "2025-11-15T12:00:00Z")
        .await;
    site.served("dp_pk_alpha", 9, "2025-10-31T23:59:59.999Z")
        .await;
    site.served("dp_pk_alpha", 7, "2025-12-01T00:00:00Z").await;
    let summary = run(&site.app(), "2025-12-01T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 1);
    assert_eq!(summary["total_cents"], json!({"USD": 152_320}));
    assert_eq!(summary["failed"], json!([]));
    let client = site.client().await;
    let row = client
        .query_one(
            "SELECT to_jsonb(invoices) AS row FROM invoices WHERE contract_id = $1",
            &[&id],
        )
        .await
        .unwrap();
    let row: Value = row.get("row");
    for (column, value) in [
        ("invoice_number", json!("API-202511-dp_pk_alpha")),
        ("kind", json!("partner")),
        ("status", json!("open")),
        ("currency", json!("USD")),
        ("subtotal_cents", json!(128_000)),
        ("tax_cents", json!(24_320)),
        ("discount_cents", json!(0)),
        ("total_cents", json!(152_320)),
        ("amount_due_cents", json!(152_320)),
        ("amount_paid_cents", json!(0)),
        ("po_number", json!("PO-7")),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
    for (column, instant) in [
        ("billing_period_start", "2025-11-01T00:00:00Z"),
        ("billing_period_end", "2025-12-01T00:00:00Z"),
        ("due_date", "2025-12-31T00:00:00Z"),
        ("finalized_at", "2025-12-01T00:05:00Z"),
    ] {
        assert_eq!(at(row[column].as_str().unwrap()), at(instant), "{column}");
    }
    let items = row["line_items"]["items"].as_array().unwrap();
    let totals: Vec<_> = items
        .iter()
        .map(|line| line["total_cents"].as_i64())
        .collect();
    assert_eq!(totals, [Some(50_000), Some(78_000)]);
    let message = client
        .query_one(
            "SELECT detail FROM outbox WHERE detail_type = 'partner_invoice.issued'",
            &[],
        )
        .await
        .unwrap();
    let message: Value = message.get("detail");
    assert_eq!(message["data"]["total_cents"], 152_320);
    assert_eq!(message["data"]["api_key_prefix"], "dp_pk_alpha");
    assert_eq!(site.number("SELECT created FROM invoice_runs").await, 1);
}

#[tokio::test]
async fn every_missed_period_is_billed_and_a_selection_bills_only_its_own() {
    let site = Site::new().await;
    let id = site.contract("dp_pk_alpha", json!({})).await;
    let other = site.contract("dp_pk_beta", json!({})).await;
    let app = site.app();
    let december = json!({"contract_id": id, "period_start": "2025-12-01"});
    let summary = run_with(&app, "2026-02-01T00:05:00Z", december).await;
    assert_eq!(summary["invoices_created"], 1);
    assert_eq!(site.invoices().await, ["API-202512-dp_pk_alpha open 50000"]);
    let summary = run(&app, "2026-02-01T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 5);
    let of = |id: i64| format!("SELECT count(*) FROM invoices WHERE contract_id = {id}");
    assert_eq!(site.number(&of(id)).await, 3);
    assert_eq!(site.number(&of(other)).await, 3);
}

#[tokio::test]
async fn a_dry_run_tells_and_writes_nothing() {
    let site = Site::new().await;
    site.contract("dp_pk_alpha", json!({})).await;
    site.served("dp_pk_alpha", 312, "2025-11-15T12:00:00Z")
        .await;
    let app = site.app();
    let summary = run_with(&app, "2025-12-01T00:05:00Z", json!({"dry_run": true})).await;
    assert_eq!(summary["invoices"][0]["total_cents"], 128_000);
    assert_eq!(summary["invoices"][0]["lines"][1]["quantity"], 312);
    assert_eq!(summary["total_cents"], json!({"USD": 128_000}));
    for table in [
        "invoices",
        "invoice_runs",
        "invoice_number_counters",
        "outbox",
        "invoiced_usage",
    ] {
        assert_eq!(
            site.number(&format!("SELECT count(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
}

#[tokio::test]
async fn contracts_that_begin_end_and_pause_inside_a_period_are_billed_by_days() {
    let site = Site::new().await;
    let flat = |more: Value| {
        let mut members = json!({"pricing_model": "flat", "monthly_flat_fee_cents": 31_000,
                                 "contract_start_date": "2025-12-01"});
        for (name, value) in more.as_object().unwrap() {
            members[name] = value.clone();
        }
        members
    };
    site.contract(
        "a_begins",
        flat(json!({"contract_start_date": "2025-12-11"})),
    )
    .await;
    site.contract("b_ends", flat(json!({"contract_end_date": "2025-12-10"})))
        .await;
    site.contract("c_suspended", flat(json!({}))).await;
    site.contract("d_canceled", flat(json!({}))).await;
    site.contract("e_paused", flat(json!({}))).await;
    site.contract(
        "f_unit_price",
        json!({"pricing_model": "per_deed", "per_deed_price_cents": 100,
        "contract_start_date": "2025-12-11"}),
    )
    .await;
    site.execute(
        "UPDATE api_partner_contracts SET status = 'suspended', suspended_at = '2025-12-15 12:00Z'
             WHERE api_key_prefix = 'c_suspended';
         UPDATE api_partner_contracts SET status = 'canceled', canceled_at = '2025-12-20 12:00Z'
             WHERE api_key_prefix = 'd_canceled';
         UPDATE api_partner_contracts
             SET suspensions = '[{\"suspended_at\": \"2025-12-10T08:00:00Z\", \"resumed_at\": \"2025-12-20T08:00:00Z\"}]'
             WHERE api_key_prefix = 'e_paused'",
    )
    .await;
    // Inside and outside of the contract.
    site.served("f_unit_price", 5, "2025-12-10T23:59:59Z").await;
    site.served("f_unit_price", 3, "2025-12-11T00:00:00Z").await;
    let summary = run(&site.app(), "2026-01-01T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 6);
    assert_eq!(
        site.invoices()
            .await
            .iter()
            .collect::<std::collections::BTreeSet<_>>(),
        [
            "API-202512-a_begins open 21000".to_owned(),
            "API-202512-b_ends open 10000".to_owned(),
            "API-202512-c_suspended open 15000".to_owned(),
            "API-202512-d_canceled open 20000".to_owned(),
            "API-202512-e_paused open 22000".to_owned(),
            "API-202512-f_unit_price open 300".to_owned(),
        ]
        .iter()
        .collect()
    );
    // Nothing of them is left: the suspended and canceled ones are never billed again.
    let summary = run(&site.app(), "2026-02-01T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 2, "the two that go on");
}

#[tokio::test]
async fn a_change_of_price_or_currency_counts_from_the_period_that_is_not_invoiced() {
    let site = Site::new().await;
    let id = site.contract("dp_pk_alpha", json!({})).await;
    site.served("dp_pk_alpha", 10, "2025-11-10T00:00:00Z").await;
    let app = site.app();
    run(&app, "2025-12-01T00:05:00Z").await;
    site.execute(&format!(
        "UPDATE api_partner_contracts SET currency = 'EUR', per_deed_price_cents = 300, updated_at = '2025-12-02Z'
         WHERE id = {id};
         INSERT INTO credits (api_key_prefix, amount_cents, remaining_cents, currency, reason)
         VALUES ('dp_pk_alpha', 700, 700, 'USD', 'goodwill')"
    ))
    .await;
    site.served("dp_pk_alpha", 10, "2025-12-10T00:00:00Z").await;
    // Late, of a month that was billed in dollars: no invoice in euros can carry it.
    site.served("dp_pk_alpha", 1, "2025-11-11T00:00:00Z").await;
    let summary = run(&app, "2026-01-01T00:05:00Z").await;
    assert_eq!(summary["total_cents"], json!({"EUR": 53_000}));
    assert_eq!(
        summary["credit_applied_cents"],
        json!({"EUR": 0}),
        "never across currencies"
    );
    assert_eq!(
        summary["needs_review"][0]["reason"],
        "late_usage_in_a_former_currency"
    );
    assert_eq!(summary["needs_review"][0]["total_cents"], 250);
}

#[tokio::test]
async fn nothing_used_makes_no_invoice_without_a_fee_or_a_minimum() {
    let site = Site::new().await;
    let per_deed = json!({"pricing_model": "per_deed", "per_deed_price_cents": 250});
    site.contract("a_nothing", per_deed.clone()).await;
    let mut minimum = per_deed.clone();
    minimum["minimum_commitment_cents"] = json!(9_900);
    site.contract("b_minimum", minimum).await;
    site.contract("c_fee", json!({})).await;
    let app = site.app();
    let summary = run(&app, "2025-12-01T00:05:00Z").await;
    assert_eq!(summary["nothing_to_bill"], 1);
    let mut invoices = site.invoices().await;
    invoices.sort();
    assert_eq!(
        invoices,
        [
            "API-202511-b_minimum open 9900",
            "API-202511-c_fee open 50000"
        ]
    );
    // What comes later is billed as what it is: usage of a month that has no invoice.
    site.served("a_nothing", 2, "2025-11-20T00:00:00Z").await;
    let summary = run(&app, "2025-12-02T00:05:00Z").await;
    assert_eq!(summary["total_cents"], json!({"USD": 500}));
}

#[tokio::test]
async fn what_is_agreed_later_is_not_charged_for_months_that_came_to_nothing() {
    let site = Site::new().await;
    let per_deed = json!({"pricing_model": "per_deed", "per_deed_price_cents": 250});
    site.contract("dp_pk_alpha", per_deed).await;
    let app = site.app();
    for run_at in ["2025-12-01T00:05:00Z", "2026-01-01T00:05:00Z"] {
        let summary = run(&app, run_at).await;
        assert_eq!(summary["invoices_created"], 0);
    }
    // From now on there is a fee, and a deed costs more: the host writes columns, and it counts from the running cycle on.
    site.execute(
        "UPDATE api_partner_contracts SET pricing_model = 'hybrid', monthly_flat_fee_cents = 50000,
             per_deed_price_cents = 300, updated_at = '2026-01-09Z'",
    )
    .await;
    assert_eq!(
        run(&app, "2026-01-10T00:05:00Z").await["invoices_created"],
        0
    );
    let written = "SELECT count(*) FROM contract_changes WHERE created_by = 'host' AND effective_from = '2026-01-01'";
    assert_eq!(site.number(written).await, 1);
    // Used in November, told in January: at the price of November.
    site.served("dp_pk_alpha", 2, "2025-11-20T00:00:00Z").await;
    site.served("dp_pk_alpha", 1, "2026-01-20T00:00:00Z").await;
    run(&app, "2026-01-21T00:05:00Z").await;
    run(&app, "2026-02-01T00:05:00Z").await;
    run(&app, "2026-02-02T00:05:00Z").await;
    assert_eq!(
        site.invoices().await,
        [
            "API-202511-dp_pk_alpha open 500",
            "API-202601-dp_pk_alpha open 50300"
        ]
    );
}

/// What a run of the release before has left: a month that came to nothing, by other terms than those of today.
#[tokio::test]
async fn a_month_that_was_settled_before_terms_were_dated_stays_so() {
    let site = Site::new().await;
    let id = site.contract("dp_pk_alpha", json!({})).await;
    site.execute(&format!(
        r#"INSERT INTO settled_periods (contract_id, period_start, period_end, terms, settled_at) VALUES
           ({id}, '2025-11-01Z', '2025-12-01Z', '{{"contract": {{"api_key_prefix": "dp_pk_alpha",
             "pricing_model": "per_deed", "per_deed_price_cents": 100, "currency": "USD"}},
             "share": {{"months": 1, "billed_days": 30, "cycle_days": 30}}, "first_day": "2025-11-01",
             "last_day": "2025-11-30", "usage": [["2025-11-01T00:00:00Z", "2025-12-01T00:00:00Z"]]}}', '2025-12-01Z')"#
    ))
    .await;
    let app = site.app();
    assert_eq!(
        run(&app, "2025-12-02T00:05:00Z").await["invoices_created"],
        0
    );
    site.served("dp_pk_alpha", 3, "2025-11-20T00:00:00Z").await;
    run(&app, "2026-01-01T00:05:00Z").await;
    // 50000, and three at the price of then.
    assert_eq!(site.invoices().await, ["API-202512-dp_pk_alpha open 50300"]);
}

#[tokio::test]
async fn a_start_ten_years_ago_issues_nothing_until_somebody_has_looked() {
    let site = Site::new().await;
    let flat = |start: &str| json!({"pricing_model": "flat", "monthly_flat_fee_cents": 10_000, "contract_start_date": start});
    let id = site.contract("dp_pk_alpha", flat("2016-01-01")).await;
    // Three missed months are issued with the newest.
    site.contract("dp_pk_beta", flat("2025-07-01")).await;
    site.contract("dp_pk_gamma", flat("2025-06-01")).await;
    let app = site.app();
    let summary = run(&app, "2025-11-01T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 4);
    assert_eq!(
        summary["needs_review"][0],
        json!({
            "contract_id": id, "period_start": "2016-01-01T00:00:00Z", "status": "needs_review",
            "reason": "catch_up", "count": 118, "total_cents": 1_180_000, "currency": "USD",
        })
    );
    assert_eq!(summary["needs_review"][1]["count"], 5);
    let of = format!("SELECT count(*) FROM invoices WHERE contract_id = {id}");
    assert_eq!(site.number(&of).await, 0);
    // Somebody has looked.
    run_with(
        &app,
        "2025-11-02T00:05:00Z",
        json!({"contract_id": id, "reviewed": true}),
    )
    .await;
    assert_eq!(site.number(&of).await, 118);
}

#[tokio::test]
async fn usage_that_comes_after_the_last_invoice_is_looked_at_by_somebody() {
    let site = Site::new().await;
    let ends = json!({"contract_end_date": "2025-11-10"});
    let id = site.contract("dp_pk_alpha", ends).await;
    site.served("dp_pk_alpha", 3, "2025-11-09T00:00:00Z").await;
    let app = site.app();
    let summary = run(&app, "2025-11-11T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 1);
    let summary = run(&app, "2025-11-12T00:05:00Z").await;
    assert_eq!(summary["needs_review"], json!([]));
    site.served("dp_pk_alpha", 4, "2025-11-10T23:59:59Z").await;
    for run_at in ["2025-11-13T00:05:00Z", "2026-03-01T00:05:00Z"] {
        let summary = run(&app, run_at).await;
        assert_eq!(summary["invoices_created"], 0);
        assert_eq!(
            summary["needs_review"],
            json!([{
                "contract_id": id, "period_start": "2025-11-01T00:00:00Z", "status": "needs_review",
                "reason": "late_usage_after_the_last_invoice", "total_cents": 1_000, "currency": "USD",
            }])
        );
    }
    // What may be done about it while nothing is paid: void it, and it is issued again with all of its usage.
    site.execute("UPDATE invoices SET status = 'void', voided_at = now(), amount_due_cents = 0")
        .await;
    let summary = run(&app, "2026-03-02T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 1);
    let summary = run(&app, "2026-03-03T00:05:00Z").await;
    assert_eq!(summary["needs_review"], json!([]));
}

#[tokio::test]
async fn a_contract_that_was_never_active_is_not_billed() {
    let site = Site::new().await;
    site.contract("a_suspended", json!({"status": "suspended"}))
        .await;
    site.contract("b_canceled", json!({"status": "canceled"}))
        .await;
    let app = site.app();
    assert_eq!(
        run(&app, "2026-01-01T00:05:00Z").await["invoices_created"],
        0
    );
    // As the predecessor lets it go on, which knows of no dates: the months before are not billed either.
    site.execute(
        "UPDATE api_partner_contracts SET status = 'active' WHERE api_key_prefix = 'a_suspended'",
    )
    .await;
    assert_eq!(
        run(&app, "2026-01-02T00:05:00Z").await["invoices_created"],
        0
    );
}

#[tokio::test]
async fn late_usage_is_on_the_next_invoice_once() {
    let site = Site::new().await;
    site.contract("dp_pk_alpha", json!({})).await;
    site.served("dp_pk_alpha", 10, "2025-11-10T00:00:00Z").await;
    let app = site.app();
    run(&app, "2025-12-01T00:05:00Z").await;
    site.served("dp_pk_alpha", 4, "2025-11-30T23:00:00Z").await;
    // The price goes up; November was sold at the old one.
    site.execute("UPDATE api_partner_contracts SET per_deed_price_cents = 300")
        .await;
    run(&app, "2026-01-01T00:05:00Z").await;
    run(&app, "2026-02-01T00:05:00Z").await;
    // Two of them were a mistake of the gateway's.
    site.execute(
        "DELETE FROM api_usage WHERE id IN (SELECT max(id) FROM api_usage UNION SELECT min(id) FROM api_usage)",
    )
    .await;
    run(&app, "2026-03-01T00:05:00Z").await;
    run(&app, "2026-04-01T00:05:00Z").await;
    assert_eq!(
        site.invoices().await,
        [
            "API-202511-dp_pk_alpha open 52500",
            "API-202512-dp_pk_alpha open 51000",
            "API-202601-dp_pk_alpha open 50000",
            "API-202602-dp_pk_alpha open 49500",
            "API-202603-dp_pk_alpha open 50000",
        ]
    );
    let line = site
        .number("SELECT count(*) FROM invoices, jsonb_array_elements(line_items -> 'items') AS line
                 WHERE line ->> 'kind' = 'adjustment' AND line ->> 'description' LIKE 'Adjustment for 2025-11-01 to 2025-11-30: %'")
        .await;
    assert_eq!(line, 2);
}

#[tokio::test]
async fn a_correction_below_nothing_becomes_a_credit_that_the_next_invoice_takes() {
    let site = Site::new().await;
    let per_deed =
        json!({"pricing_model": "per_deed", "per_deed_price_cents": 250, "tax_rate_bps": 1_000});
    site.contract("dp_pk_alpha", per_deed).await;
    site.served("dp_pk_alpha", 10, "2025-11-10T00:00:00Z").await;
    let app = site.app();
    run(&app, "2025-12-01T00:05:00Z").await;
    site.execute("DELETE FROM api_usage").await;
    site.served("dp_pk_alpha", 2, "2025-12-10T00:00:00Z").await;
    run(&app, "2026-01-01T00:05:00Z").await;
    site.served("dp_pk_alpha", 20, "2026-01-10T00:00:00Z").await;
    let summary = run(&app, "2026-02-01T00:05:00Z").await;
    assert_eq!(
        site.invoices().await,
        [
            "API-202511-dp_pk_alpha open 2750",
            "API-202512-dp_pk_alpha paid 0",
            "API-202601-dp_pk_alpha open 5500",
        ]
    );
    assert_eq!(summary["credit_applied_cents"], json!({"USD": 2_200}));
    assert_eq!(site.number("SELECT remaining_cents FROM credits").await, 0);
    assert_eq!(
        site.number("SELECT amount_due_cents FROM invoices WHERE total_cents = 5500")
            .await,
        3_300
    );
}

#[tokio::test]
async fn a_correction_has_the_taxes_of_the_month_it_corrects() {
    let site = Site::new().await;
    let per_deed = json!({"pricing_model": "per_deed", "per_deed_price_cents": 250, "taxes": [
        {"name": "State", "jurisdiction": "NY", "percentage": "4", "registration": "NY-1"},
        {"name": "City", "jurisdiction": "NYC", "percentage": "4.875"}]});
    site.contract("dp_pk_alpha", per_deed).await;
    site.served("dp_pk_alpha", 10, "2025-11-10T00:00:00Z").await;
    let app = site.app();
    run(&app, "2025-12-01T00:05:00Z").await;
    site.execute(
        "UPDATE api_partner_contracts SET tax_rate_bps = 500, taxes = '[{\"name\": \"State\", \"jurisdiction\": \"NY\", \"percentage\": \"5\"}]', updated_at = '2025-12-02Z'",
    )
    .await;
    site.served("dp_pk_alpha", 1, "2025-11-10T00:00:00Z").await;
    site.served("dp_pk_alpha", 3, "2025-12-10T00:00:00Z").await;
    run(&app, "2026-01-01T00:05:00Z").await;
    let client = site.client().await;
    let select = "SELECT jsonb_agg(jsonb_build_array(tax_cents, metadata -> 'rounding', (
            SELECT jsonb_agg(jsonb_build_array(tax -> 'name', tax -> 'percentage', tax -> 'registration',
                                               tax -> 'taxable_cents', tax -> 'tax_cents'))
            FROM jsonb_array_elements(tax_breakdown) AS tax)) ORDER BY id) FROM invoices";
    let told: Value = client.query_one(select, &[]).await.unwrap().get(0);
    let none = Value::Null;
    assert_eq!(
        told,
        json!([
            // 4 and 4.875 % of 2500: 121.875.
            [
                222,
                "half_away_per_tax",
                [
                    ["State", "4", "NY-1", 2_500, 100],
                    ["City", "4.875", none, 2_500, 122]
                ]
            ],
            [
                60,
                "half_away_per_tax",
                [
                    ["State", "5", none, 750, 38],
                    ["State", "4", "NY-1", 250, 10],
                    ["City", "4.875", none, 250, 12]
                ]
            ]
        ])
    );
    let shares = "SELECT count(*) FROM invoices WHERE tax_cents <> (
        SELECT sum((line ->> 'tax_cents')::bigint) FROM jsonb_array_elements(line_items -> 'items') AS line)";
    assert_eq!(site.number(shares).await, 0);
}

#[tokio::test]
async fn credits_are_taken_by_expiry_and_may_pay_it_all() {
    let site = Site::new().await;
    site.contract("dp_pk_alpha", json!({})).await;
    site.execute(
        "INSERT INTO credits (api_key_prefix, amount_cents, remaining_cents, currency, reason, expires_at)
         VALUES ('dp_pk_alpha', 30000, 30000, 'USD', 'goodwill', NULL),
                ('dp_pk_alpha', 15000, 15000, 'USD', 'promotional', '2026-01-01Z'),
                ('dp_pk_alpha', 10000, 10000, 'USD', 'promotional', '2025-12-01 00:05Z'),
                ('dp_pk_alpha', 99000, 99000, 'EUR', 'goodwill', NULL),
                ('dp_pk_beta', 99000, 99000, 'USD', 'goodwill', NULL),
                ('dp_pk_alpha', 20000, 20000, 'USD', 'goodwill', NULL)",
    )
    .await;
    run(&site.app(), "2025-12-01T00:05:00Z").await;
    assert_eq!(site.invoices().await, ["API-202511-dp_pk_alpha paid 50000"]);
    assert_eq!(
        site.number("SELECT amount_due_cents FROM invoices").await,
        0
    );
    let left = |currency: &str| {
        format!(
            "SELECT sum(remaining_cents) FROM credits WHERE currency = '{currency}' AND api_key_prefix = 'dp_pk_alpha'"
        )
    };
    assert_eq!(
        site.number(&left("USD")).await,
        25_000,
        "the expired one, and 15000 of the last"
    );
    assert_eq!(site.number(&left("EUR")).await, 99_000);
    assert_eq!(
        site.number("SELECT count(*) FROM outbox WHERE detail_type = 'invoice.paid'")
            .await,
        1
    );
}

#[tokio::test]
async fn an_unusual_invoice_waits_until_somebody_has_looked() {
    let site = Site::new().await;
    let per_deed = json!({"pricing_model": "per_deed", "per_deed_price_cents": 100});
    let id = site.contract("dp_pk_alpha", per_deed).await;
    site.served("dp_pk_alpha", 10, "2025-11-10T00:00:00Z").await;
    site.served("dp_pk_alpha", 101, "2025-12-10T00:00:00Z")
        .await;
    let app = site.app();
    let summary = run(&app, "2026-01-01T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 1);
    assert_eq!(summary["needs_review"][0]["status"], "needs_review");
    assert_eq!(summary["needs_review"][0]["total_cents"], 10_100);
    assert_eq!(
        site.number("SELECT needs_review FROM invoice_runs").await,
        1
    );
    let detail = json!({"contract_id": id, "period_start": "2025-12-01", "reviewed": true});
    let summary = run_with(&app, "2026-01-02T00:05:00Z", detail).await;
    assert_eq!(summary["invoices_created"], 1);
    assert_eq!(
        site.invoices().await[1],
        "API-202512-dp_pk_alpha open 10100"
    );
    // And a cap that is configured.
    site.served("dp_pk_alpha", 50, "2026-01-10T00:00:00Z").await;
    let capped = site.app_with(&[("PARTNER_INVOICE_REVIEW_CAP_CENTS", "4999")]);
    let summary = run(&capped, "2026-02-01T00:05:00Z").await;
    assert_eq!(summary["needs_review"][0]["reason"], "above_the_cap");
}

#[tokio::test]
async fn usage_without_a_contract_is_reported() {
    let site = Site::new().await;
    site.contract("dp_pk_alpha", json!({})).await;
    site.served("dp_pk_alpha", 1, "2025-11-10T00:00:00Z").await;
    site.served("dp_pk_nobody", 3, "2025-11-10T00:00:00Z").await;
    site.served("dp_pk_long_ago", 3, "2025-06-10T00:00:00Z")
        .await;
    let summary = run(&site.app(), "2025-12-01T00:05:00Z").await;
    assert_eq!(
        summary["unknown_prefixes"],
        json!([{"api_key_prefix": "dp_pk_nobody", "requests": 3, "events": 0}])
    );
}

#[tokio::test]
async fn a_failed_request_is_free_and_a_repeated_one_counts_once() {
    let site = Site::new().await;
    let per_deed = |codes: Value| json!({"pricing_model": "per_deed", "per_deed_price_cents": 100, "billable_status_codes": codes});
    site.contract("a_default", per_deed(Value::Null)).await;
    site.contract("b_all", per_deed(json!("all"))).await;
    site.contract("c_some", per_deed(json!("200-299,404")))
        .await;
    for prefix in ["a_default", "b_all", "c_some"] {
        site.execute(&format!(
            "INSERT INTO api_usage (api_key_prefix, status_code, request_id, cost_units, created_at) VALUES
                 ('{prefix}', 200, NULL, 1, '2025-11-02Z'), ('{prefix}', 500, NULL, 1, '2025-11-02Z'),
                 ('{prefix}', 503, NULL, 1, '2025-11-02Z'), ('{prefix}', 429, NULL, 1, '2025-11-02Z'),
                 ('{prefix}', 404, NULL, 10, '2025-11-03Z'), ('{prefix}', 403, NULL, 100, '2025-11-03Z'),
                 ('{prefix}', NULL, NULL, 1000, '2025-11-03Z'),
                 -- Failed, then served, then written again.
                 ('{prefix}', 500, 'r1', 9, '2025-11-04Z'), ('{prefix}', 200, 'r1', 10000, '2025-11-05Z'),
                 ('{prefix}', 200, 'r1', 9, '2025-11-25Z'),
                 -- Served in the last day of October, and written again.
                 ('{prefix}', 200, 'r2', 7, '2025-10-31 00:30Z'), ('{prefix}', 200, 'r2', 9, '2025-11-01 00:30Z'),
                 -- Another partner's request of that name, and one from before that day.
                 ('x', 200, 'r3', 9, '2025-11-01Z'),
                 ('{prefix}', 200, 'r3', 100000, '2025-11-02Z'), ('{prefix}', 200, 'r4', 9, '2025-10-30 23:59Z'),
                 ('{prefix}', 200, 'r4', 1000000, '2025-11-02Z')"
        ))
        .await;
    }
    run(&site.app(), "2025-12-01T00:05:00Z").await;
    let mut invoices = site.invoices().await;
    invoices.sort();
    assert_eq!(
        invoices,
        [
            "API-202511-a_default open 111111100",
            "API-202511-b_all open 111114100",
            "API-202511-c_some open 111101100",
        ]
    );
}

#[tokio::test]
async fn usage_that_is_on_no_invoice_is_listed_and_announced_once() {
    let site = Site::new().await;
    let per_deed = |more: Value| {
        let mut members = json!({"pricing_model": "per_deed", "per_deed_price_cents": 100,
                                 "contract_start_date": "2025-11-11"});
        for (name, value) in more.as_object().unwrap() {
            members[name] = value.clone();
        }
        members
    };
    site.contract("a_gateway", per_deed(json!({}))).await;
    let types = json!({"unit_source": "usage_events", "billable_event_types": ["deed"]});
    site.contract("b_events", per_deed(types)).await;
    site.contract("c_flat", json!({"pricing_model": "flat"}))
        .await;
    for prefix in ["a_gateway", "b_events", "c_flat", "d_nobody"] {
        site.served(prefix, 2, "2025-11-10T23:59:59Z").await;
        site.served(prefix, 3, "2025-11-11T00:00:00Z").await;
        site.execute(&format!(
            "INSERT INTO usage_events (subject, idempotency_key, api_key_prefix, event_type, billable, cost_units,
                                       currency, created_at, voided_at)
             VALUES ('partner:{prefix}', '1', '{prefix}', 'deed', true, 5, 'USD', '2025-11-15Z', NULL),
                    ('partner:{prefix}', '2', '{prefix}', 'lien', true, 7, 'USD', '2025-11-15Z', NULL),
                    ('partner:{prefix}', '3', '{prefix}', 'lien', false, 7, 'USD', '2025-11-15Z', NULL),
                    ('partner:{prefix}', '4', '{prefix}', 'lien', true, 7, 'USD', '2025-11-15Z', '2025-11-16Z')"
        ))
        .await;
    }
    let app = site.app();
    let summary = run(&app, "2025-12-01T00:05:00Z").await;
    let told: Vec<String> = summary["unbilled_usage"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let word = |name: &str| row[name].as_str().unwrap();
            let (prefix, source, of) = (word("api_key_prefix"), word("source"), word("event_type"));
            let (reason, month) = (word("reason"), word("month"));
            format!(
                "{prefix} {month} {reason} {source} {of} {} {}",
                row["events"], row["units"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "a_gateway 2025-11 before_start api_usage api_request 2 2",
            "a_gateway 2025-11 source_not_counted usage_events deed 1 5",
            "a_gateway 2025-11 source_not_counted usage_events lien 1 7",
            "b_events 2025-11 before_start api_usage api_request 2 2",
            "b_events 2025-11 event_type_not_counted usage_events lien 1 7",
            "d_nobody 2025-11 no_contract api_usage api_request 5 5",
            "d_nobody 2025-11 no_contract usage_events deed 1 5",
            "d_nobody 2025-11 no_contract usage_events lien 1 7",
        ]
    );
    run(&app, "2025-12-02T00:05:00Z").await;
    let announced = "SELECT count(*) FROM outbox WHERE detail_type = 'usage.unbillable'";
    assert_eq!(
        site.number(announced).await,
        5,
        "each prefix, reason and month once"
    );
}

#[tokio::test]
async fn metered_events_count_where_the_contract_says_so() {
    let site = Site::new().await;
    let per_deed = |source: &str, types: Value| {
        json!({"pricing_model": "per_deed", "per_deed_price_cents": 100, "unit_source": source,
               "billable_event_types": types})
    };
    site.contract("a_events", per_deed("usage_events", Value::Null))
        .await;
    site.contract("b_types", per_deed("usage_events", json!(["deed", "lien"])))
        .await;
    site.contract("c_both", per_deed("both", Value::Null)).await;
    for prefix in ["a_events", "b_types", "c_both"] {
        site.served(prefix, 1_000, "2025-11-10T00:00:00Z").await;
        site.execute(&format!(
            "INSERT INTO usage_events (subject, idempotency_key, api_key_prefix, event_type, billable, cost_units,
                                       currency, created_at, voided_at)
             VALUES ('partner:{prefix}', '1', '{prefix}', 'deed', true, 5, 'USD', '2025-11-10Z', NULL),
                    ('partner:{prefix}', '2', '{prefix}', 'search', true, 2, 'USD', '2025-11-10Z', NULL),
                    ('partner:{prefix}', '3', '{prefix}', 'deed', false, 50, 'USD', '2025-11-10Z', NULL),
                    ('partner:{prefix}', '4', '{prefix}', 'deed', true, 70, 'USD', '2025-11-10Z', '2025-11-11Z'),
                    ('partner:{prefix}', '5', '{prefix}', 'deed', true, 90, 'USD', '2025-12-01Z', NULL)"
        ))
        .await;
    }
    run(&site.app(), "2025-12-01T00:05:00Z").await;
    let mut invoices = site.invoices().await;
    invoices.sort();
    assert_eq!(
        invoices,
        [
            "API-202511-a_events open 700",
            "API-202511-b_types open 500",
            "API-202511-c_both open 100700",
        ]
    );
}

#[tokio::test]
async fn a_month_ends_at_midnight_of_the_contract() {
    let site = Site::new().await;
    for (prefix, zone) in [
        ("a_tokyo", "Asia/Tokyo"),
        ("b_utc", "UTC"),
        ("c_new_york", "America/New_York"),
    ] {
        let members =
            json!({"pricing_model": "per_deed", "per_deed_price_cents": 1, "timezone": zone});
        site.contract(prefix, members).await;
        for (times, when) in [
            (1, "2025-10-31T14:59:59.999999Z"),
            (10, "2025-10-31T15:00:00Z"),
            (100, "2025-11-01T00:00:00Z"),
            (1_000, "2025-11-01T04:00:00Z"),
            (2_000, "2025-11-30T14:59:59.999999Z"),
            (20_000, "2025-11-30T15:00:00Z"),
            (200_000, "2025-12-01T00:00:00Z"),
        ] {
            // Few rows with many units.
            site.execute(&format!(
                "INSERT INTO api_usage (api_key_prefix, cost_units, created_at) VALUES ('{prefix}', {times}, '{when}')"
            ))
            .await;
        }
    }
    let app = site.app();
    let summary = run(&app, "2025-12-01T00:05:00Z").await;
    assert_eq!(
        summary["invoices_created"], 2,
        "New York's November goes on"
    );
    let summary = run(&app, "2025-12-02T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 1);
    let mut invoices = site.invoices().await;
    invoices.sort();
    assert_eq!(
        invoices,
        [
            "API-202511-a_tokyo open 3110",
            "API-202511-b_utc open 23100",
            "API-202511-c_new_york open 223000",
        ]
    );
}

/// The host may have made its table without a time zone; it holds UTC then, whatever the session's zone is.
#[tokio::test]
async fn usage_in_a_table_without_time_zone_is_counted_in_utc() {
    let site = Site::new().await;
    site.execute(
        "ALTER TABLE api_usage ALTER COLUMN created_at TYPE timestamp USING created_at AT TIME ZONE 'UTC';
         ALTER TABLE api_usage ALTER COLUMN api_key_prefix TYPE varchar(64);
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$",
    )
    .await;
    let per_deed = json!({"pricing_model": "per_deed", "per_deed_price_cents": 1});
    site.contract("dp_pk_alpha", per_deed).await;
    site.execute(
        "INSERT INTO api_usage (api_key_prefix, cost_units, created_at)
         VALUES ('dp_pk_alpha', 1, '2025-10-31 23:59:59'), ('dp_pk_alpha', 10, '2025-11-01 00:00:00'),
                ('dp_pk_alpha', 100, '2025-11-15 00:00:00'), ('dp_pk_alpha', 1000, '2025-11-30 23:59:59'),
                ('dp_pk_alpha', 10000, '2025-12-01 00:00:00'), ('dp_pk_nobody', 1, '2025-11-30 23:59:59')",
    )
    .await;
    let summary = run(&site.app(), "2025-12-01T00:00:00Z").await;
    assert_eq!(summary["total_cents"], json!({"USD": 1_110}));
    assert_eq!(summary["unknown_prefixes"][0]["requests"], 1);
}

/// Wherever a period is split, also at the very instant of a request, and whatever the table and the session say of time.
#[tokio::test]
async fn the_usage_of_a_split_period_is_that_of_the_whole() {
    let site = Site::new().await;
    site.contract("dp_pk_alpha", json!({})).await;
    // Every eight hours and a little, from October to December, with units that identify each event; and on both edges.
    site.execute(
        "INSERT INTO api_usage (api_key_prefix, cost_units, created_at)
         SELECT 'dp_pk_alpha', n, '2025-10-29Z'::timestamptz + n * interval '8 hours 7 minutes 13.000001 seconds'
         FROM generate_series(1, 110) AS n;
         INSERT INTO api_usage (api_key_prefix, cost_units, created_at)
         VALUES ('dp_pk_alpha', 1000, '2025-11-01Z'), ('dp_pk_alpha', 1000000, '2025-12-01Z')",
    )
    .await;
    let (from, to) = (at("2025-11-01T00:00:00Z"), at("2025-12-01T00:00:00Z"));
    let client = site.client().await;
    let select =
        "SELECT created_at FROM api_usage WHERE created_at > $1 AND created_at < $2 ORDER BY 1";
    let rows = client.query(select, &[&from, &to]).await.unwrap();
    let instants: Vec<Timestamp> = rows.iter().map(|row| row.get(0)).collect();
    assert!(instants.len() > 80);
    let whole = "SELECT sum(cost_units) FROM api_usage WHERE created_at >= $1 AND created_at < $2";
    let whole: i64 = client.query_one(whole, &[&from, &to]).await.unwrap().get(0);
    assert_split_adds_up(&site, &instants, whole).await;
    site.execute("ALTER TABLE api_usage ALTER COLUMN created_at TYPE timestamp USING created_at AT TIME ZONE 'UTC'")
        .await;
    assert_split_adds_up(&site, &instants, whole).await;
}

async fn assert_split_adds_up(site: &Site, instants: &[Timestamp], whole: i64) {
    let (from, to) = (at("2025-11-01T00:00:00Z"), at("2025-12-01T00:00:00Z"));
    for zone in ["America/Los_Angeles", "Asia/Tokyo", "UTC"] {
        let database = &site.surroundings.database.name;
        site.execute(&format!(
            "ALTER DATABASE {database} SET timezone = '{zone}'"
        ))
        .await;
        let client = site.client().await;
        let read = contracts::of_prefix(&client, "dp_pk_alpha").await.unwrap();
        let contract = read.unwrap().contract(from).unwrap();
        let contract = contract.history.at(from).unwrap();
        let window = |start: Timestamp, end: Timestamp| {
            Window::of(contract, Period::new(start, end).unwrap())
        };
        let mut windows = vec![window(from, to)];
        for at in instants {
            windows.extend([window(from, *at), window(*at, to)]);
        }
        // All of them: each is shorter than a day.
        let edges = [&[from][..], instants, &[to][..]].concat();
        windows.extend(edges.windows(2).map(|pair| window(pair[0], pair[1])));
        let counted = contract_usage::read(&client, &windows).await.unwrap();
        let (in_two, in_all) = counted[1..].split_at(2 * instants.len());
        let of_whole = counted[0];
        let sum = |parts: &[Usage]| Usage {
            units: parts.iter().map(|part| part.units).sum(),
            requests: parts.iter().map(|part| part.requests).sum(),
        };
        assert_eq!(of_whole.units, whole, "{zone}");
        for pair in in_two.chunks(2) {
            assert_eq!(sum(pair), of_whole, "{zone}");
        }
        assert_eq!(sum(in_all), of_whole, "{zone}");
        for (part, at) in in_all.iter().zip(instants) {
            assert_eq!(part.requests, 1, "before {at}, {zone}");
        }
    }
}

#[tokio::test]
async fn a_void_invoice_is_issued_again_with_the_next_number() {
    let site = Site::new().await;
    site.contract("dp_pk_alpha", json!({})).await;
    site.served("dp_pk_alpha", 10, "2025-11-10T00:00:00Z").await;
    let app = site.app();
    run(&app, "2025-12-01T00:05:00Z").await;
    site.served("dp_pk_alpha", 4, "2025-11-10T00:00:00Z").await;
    run(&app, "2026-01-01T00:05:00Z").await;
    // What `POST /admin/invoices/{id}/void` leaves.
    let void = "UPDATE invoices SET status = 'void', voided_at = now(), amount_due_cents = 0
                WHERE invoice_number LIKE 'API-202511-%' AND status <> 'void'";
    site.execute(void).await;
    run(&app, "2026-01-02T00:05:00Z").await;
    site.execute(void).await;
    run(&app, "2026-01-03T00:05:00Z").await;
    assert_eq!(
        site.invoices().await,
        [
            "API-202511-dp_pk_alpha void 52500",
            "API-202512-dp_pk_alpha open 51000",
            // The four late units are on December's invoice: not again.
            "API-202511-dp_pk_alpha-2 void 52500",
            "API-202511-dp_pk_alpha-3 open 52500",
        ]
    );
}

#[tokio::test]
async fn numbers_that_somebody_else_gave_are_passed_over() {
    let site = Site::new().await;
    site.execute(
        "INSERT INTO invoices (invoice_number, api_key_prefix, kind, status, total_cents, currency)
         VALUES ('API-202511-dp_pk_alpha', 'dp_pk_alpha', 'partner', 'open', 5, 'USD')",
    )
    .await;
    site.contract("dp_pk_alpha", json!({})).await;
    site.contract("dp/pk alpha", json!({})).await;
    run(&site.app(), "2025-12-01T00:05:00Z").await;
    let mut numbers = site.invoices().await;
    numbers.sort();
    assert_eq!(
        numbers[1..],
        [
            "API-202511-dp_pk_alpha open 5",
            "API-202511-dp_pk_alpha-2 open 50000"
        ]
    );
    assert_eq!(numbers[0], "API-202511-dp-pk-alpha open 50000");
}

#[tokio::test]
async fn one_contract_that_cannot_be_billed_does_not_stop_the_others() {
    let site = Site::new().await;
    site.contract("a_good", json!({})).await;
    let bad = site.contract("b_bad", json!({})).await;
    let overflows = site
        .contract(
            "c_overflows",
            json!({"pricing_model": "per_deed",
        "per_deed_price_cents": 1_000_000_000_000_000_i64}),
        )
        .await;
    site.contract("d_good", json!({})).await;
    // As one of the predecessor's may be.
    site.execute(
        "UPDATE api_partner_contracts SET per_deed_price_cents = NULL WHERE api_key_prefix = 'b_bad';
         INSERT INTO api_usage (api_key_prefix, cost_units, created_at)
         VALUES ('c_overflows', 2000000000, '2025-11-10Z')",
    )
    .await;
    let summary = run_in_part(&site.app(), "2025-12-01T00:05:00Z").await;
    assert_eq!(summary["invoices_created"], 2);
    let failed = summary["failed"].as_array().unwrap();
    let mut ids: Vec<_> = failed
        .iter()
        .map(|failure| failure["contract_id"].as_i64().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [bad, overflows]);
    assert_eq!(site.number("SELECT failed FROM invoice_runs").await, 2);
}

#[tokio::test]
async fn what_is_not_asked_for_properly_is_refused() {
    let site = Site::new().await;
    let app = site.app();
    let now = at("2025-12-01T00:05:00Z");
    let other = handle(
        &app,
        json!({"detail-type": "partner-invoicing.weekly"}),
        now,
    )
    .await;
    assert!(matches!(other, Err(Error::Unsupported(_))));
    let detail = event("2025-12-01T00:05:00Z", json!({"contract_id": "seven"}));
    assert!(matches!(
        handle(&app, detail, now).await,
        Err(Error::Detail { .. })
    ));
    let late = event("yesterday", Value::Null);
    assert!(matches!(handle(&app, late, now).await, Err(Error::Time(_))));
}
