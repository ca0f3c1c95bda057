//! Writes: contracts, credits, partners' invoices, replays; their keys, their audit log, and two at once.

use std::collections::BTreeSet;

use admin_revenue::App;
use jiff::Timestamp;
use lambda_http::Body;
use runtime::aws::parked_events::ParkedEvents;
use runtime::config::Environment;
use serde_json::{Value, json};
use testing::{Aws, TestDatabase};

use crate::ledger::{Ledger, app_with_aws, bearer, body, handle, request};

const NOW: &str = "2026-11-22T00:00:00Z";

/// A partner's open invoice of 12,799 with 799 of two credits applied, a draft, and one of Stripe's.
const INVOICES: &str = "
    INSERT INTO invoices (id, invoice_number, api_key_prefix, kind, currency, total_cents, amount_due_cents,
        credit_applied_cents, status)
        VALUES (1, 'API-202510-dp_pk_alpha', 'dp_pk_alpha', 'partner', 'EUR', 12799, 12000, 799, 'open'),
               (2, 'API-202511-dp_pk_alpha', 'dp_pk_alpha', 'partner', 'EUR', 5000, 5000, 0, 'draft'),
               (4, 'API-202509-dp_pk_alpha', 'dp_pk_alpha', 'partner', 'EUR', 700, 700, 0, 'uncollectible');
    INSERT INTO invoices (id, invoice_number, stripe_invoice_id, kind, total_cents, amount_due_cents, status)
        VALUES (3, 'INV-3', 'in_3', 'subscription', 3000, 3000, 'open'),
               (5, 'INV-5', NULL, 'subscription', 3000, 3000, 'open');
    INSERT INTO credits (id, api_key_prefix, amount_cents, remaining_cents, currency, reason, applied_to_invoice_id)
        VALUES (1, 'dp_pk_alpha', 1000, 300, 'EUR', 'goodwill', 1), (2, 'dp_pk_alpha', 100, 0, 'EUR', 'goodwill', 1);
    INSERT INTO credit_applications (credit_id, invoice_id, amount_cents) VALUES (1, 2, 1), (1, 1, 699), (2, 1, 100)";

/// Sends a write as the admin `ops`: status and body.
async fn send(
    app: &App,
    method: &str,
    path: &str,
    content: &Value,
    key: Option<&str>,
) -> (u16, Value) {
    send_at(app, method, path, content, key, NOW).await
}

pub(crate) async fn send_at(
    app: &App,
    method: &str,
    path: &str,
    content: &Value,
    key: Option<&str>,
    now: &str,
) -> (u16, Value) {
    let now: Timestamp = now.parse().expect("an instant");
    let claims = json!({"exp": now.as_second() + 60, "role": "admin", "sub": "ops"});
    let mut request = request(method, path, Some(&bearer(&claims)));
    if let Some(key) = key {
        let key = key.parse().expect("a header");
        request.headers_mut().insert("idempotency-key", key);
    }
    if !content.is_null() {
        *request.body_mut() = Body::Text(content.to_string());
    }
    let response = handle(app, request, now).await;
    (response.status().as_u16(), body(&response))
}

impl Ledger {
    pub(crate) async fn post(&self, path: &str, content: Value, key: Option<&str>) -> (u16, Value) {
        send(&self.app, "POST", path, &content, key).await
    }

    async fn patch(&self, path: &str, content: Value) -> (u16, Value) {
        send(&self.app, "PATCH", path, &content, None).await
    }

    /// One JSON value of a statement.
    async fn value(&self, sql: &str) -> Value {
        let row = self.client.query_one(sql, &[]).await;
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            .get(0)
    }

    async fn with_invoices() -> Ledger {
        let ledger = Ledger::create().await;
        ledger.run(INVOICES).await;
        ledger
    }
}

fn payment(amount_cents: i64) -> Value {
    json!({"amount_cents": amount_cents, "method": "wire", "reference": "MT103-7", "paid_at": "2026-11-20"})
}

fn contract() -> Value {
    json!({"api_key_prefix": "dp_pk_alpha", "company": "Alpha Title", "pricing_model": "hybrid", "currency": "EUR",
           "monthly_flat_fee_cents": 50_000, "per_deed_price_cents": 250, "contract_start_date": "2026-12-01",
           "timezone": "America/New_York", "tax_rate_bps": 1900})
}

#[tokio::test]
async fn a_contract_is_entered_once_and_changed_as_a_whole() {
    let ledger = Ledger::create().await;
    let (status, created) = ledger.post("/admin/contracts", contract(), None).await;
    assert_eq!(status, 201, "{created}");
    assert_eq!(
        (
            &created["status"],
            &created["billed_from"],
            &created["payment_terms"]
        ),
        (&json!("active"), &json!("2026-12-01"), &json!("net_30"))
    );
    let path = format!("/admin/contracts/{}", created["id"]);
    assert_eq!(ledger.get(&path, NOW).await.1, created);
    let (status, problem) = ledger.post("/admin/contracts", contract(), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("contract_exists")));

    let tiers =
        json!([{"up_to": 100, "unit_price_cents": "0.5"}, {"up_to": null, "unit_price_cents": 2}]);
    let (status, problem) = ledger
        .patch(&path, json!({"pricing_model": "tiered"}))
        .await;
    assert_eq!((status, &problem["field"]), (422, &json!("tiers")));
    let changes = json!({"pricing_model": "tiered", "tiers": tiers, "tier_mode": "graduated", "company": null});
    let (status, changed) = ledger.patch(&path, changes).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(
        (&changed["company"], &changed["tax_rate_bps"]),
        (&Value::Null, &json!(1900))
    );
    assert_eq!(
        changed["tiers"][0],
        json!({"up_to": 100, "unit_price_cents": "0.5", "flat_cents": 0})
    );

    let (_, suspended) = ledger.patch(&path, json!({"status": "suspended"})).await;
    assert_eq!(suspended["suspended_at"], NOW);
    let (_, resumed) = ledger.patch(&path, json!({"status": "active"})).await;
    assert_eq!(resumed["suspended_at"], Value::Null);
    let (_, canceled) = ledger.patch(&path, json!({"status": "canceled"})).await;
    assert_eq!(canceled["canceled_at"], NOW);

    let (_, log) = ledger.get("/admin/audit-log?target=contract:1", NOW).await;
    let log = log["data"].as_array().unwrap();
    let actions: Vec<&Value> = log.iter().map(|entry| &entry["action"]).collect();
    let update = "contract.update";
    assert_eq!(actions, [update, update, update, update, "contract.create"]);
    // The log has the row, without what follows from it.
    let row = |answer: &Value| {
        let mut row = answer.clone();
        for member in ["next_change", "warnings"] {
            row.as_object_mut().unwrap().remove(member);
        }
        row
    };
    assert_eq!(
        (&log[4]["actor"], &log[4]["before"]),
        (&json!("ops"), &Value::Null)
    );
    assert_eq!(log[4]["after"], row(&created));
    assert_eq!(
        (&log[3]["before"], &log[3]["after"]),
        (&row(&created), &row(&changed))
    );
}

#[tokio::test]
async fn a_contract_that_is_not_valid_changes_nothing() {
    let ledger = Ledger::create().await;
    for (name, value) in [
        ("api_key_prefix", Value::Null),
        ("pricing_model", json!("per_page")),
        ("per_deed_price_cents", Value::Null),
        ("monthly_flat_fee_cents", json!(-1)),
        ("contract_start_date", Value::Null),
        ("contract_end_date", json!("2026-11-30")),
        ("timezone", json!("Mars/Olympus")),
        ("tax_rate_bps", json!(10_001)),
        ("status", json!("suspended")),
        ("suspended_at", json!(NOW)),
        ("color", json!("red")),
    ] {
        let mut members = contract();
        members[name] = value.clone();
        let (status, problem) = ledger.post("/admin/contracts", members, None).await;
        assert_eq!((status, &problem["field"]), (422, &json!(name)), "{value}");
    }
    let (_, created) = ledger.post("/admin/contracts", contract(), None).await;
    for (name, value) in [
        ("api_key_prefix", json!("dp_pk_beta")),
        ("id", json!(7)),
        ("created_at", json!(NOW)),
        ("monthly_flat_fee_cents", Value::Null),
        ("currency", json!("dollar")),
    ] {
        let changes = json!({name: value});
        let (status, problem) = ledger.patch("/admin/contracts/1", changes).await;
        assert_eq!((status, &problem["field"]), (422, &json!(name)), "{value}");
    }
    assert_eq!(ledger.get("/admin/contracts/1", NOW).await.1, created);
    assert_eq!(ledger.patch("/admin/contracts/9", json!({})).await.0, 404);
    for content in [json!([]), json!("x"), json!(5)] {
        let (status, _) = ledger.post("/admin/contracts", content.clone(), None).await;
        assert_eq!(status, 400, "{content}");
    }
    assert_eq!(
        ledger
            .value("SELECT to_jsonb(count(*)) FROM audit_log")
            .await,
        1
    );
}

#[tokio::test]
async fn a_credit_is_granted_to_somebody_and_voided_while_nothing_is_used() {
    let ledger = Ledger::with_invoices().await;
    ledger
        .run(
            "INSERT INTO users (id, email) VALUES (3, 'z@example.test');
             INSERT INTO api_partner_contracts (api_key_prefix, pricing_model) VALUES ('dp_pk_alpha', 'flat');
             SELECT setval('credits_id_seq', 10)",
        )
        .await;
    let valid = json!({"user_id": 3, "amount_cents": 500, "currency": "usd", "reason": "goodwill",
                       "description": "Sorry", "expires_at": "2027-01-01"});
    for (name, value) in [
        ("user_id", Value::Null),
        ("user_id", json!(4)),
        ("user_id", json!("3")),
        ("user_id", json!(2_147_483_648_i64)),
        ("api_key_prefix", json!("dp_pk_alpha")),
        ("amount_cents", json!(0)),
        ("amount_cents", json!(-5)),
        ("amount_cents", json!(1.5)),
        ("amount_cents", Value::Null),
        ("currency", json!("dollar")),
        ("currency", Value::Null),
        ("reason", json!("mood")),
        ("reason", Value::Null),
        ("description", json!("")),
        ("expires_at", json!("2026-11-22")),
        ("remaining_cents", json!(5)),
    ] {
        let mut members = valid.clone();
        members[name] = value.clone();
        let (status, problem) = ledger.post("/admin/credits", members, None).await;
        assert_eq!(
            (status, &problem["field"]),
            (422, &json!(name)),
            "{name}: {value}"
        );
    }
    let (status, credit) = ledger
        .post("/admin/credits", valid.clone(), Some("k0"))
        .await;
    assert_eq!(status, 201, "{credit}");
    let (app, later) = (&ledger.app, "2028-01-01T00:00:00Z");
    let in_2028 = send_at(app, "POST", "/admin/credits", &valid, Some("k0"), later).await;
    assert_eq!(
        in_2028,
        (201, credit.clone()),
        "it has expired since, and was granted all the same"
    );
    assert_eq!(
        (
            &credit["remaining_cents"],
            &credit["currency"],
            &credit["created_by"],
            &credit["expires_at"]
        ),
        (
            &json!(500),
            &json!("USD"),
            &json!("ops"),
            &json!("2027-01-01T00:00:00Z")
        )
    );
    let of_partner = json!({"api_key_prefix": "dp_pk_alpha", "amount_cents": 1, "currency": "EUR", "reason": "refund"});
    assert_eq!(ledger.post("/admin/credits", of_partner, None).await.0, 201);
    let nobodys = json!({"api_key_prefix": "dp_pk_x", "amount_cents": 1, "currency": "EUR", "reason": "refund"});
    let (status, problem) = ledger.post("/admin/credits", nobodys, None).await;
    assert_eq!((status, &problem["field"]), (422, &json!("api_key_prefix")));

    let path = format!("/admin/credits/{}/void", credit["id"]);
    let (status, voided) = ledger.post(&path, json!({}), Some("k1")).await;
    assert_eq!(status, 200, "{voided}");
    assert_eq!(
        (&voided["remaining_cents"], &voided["voided_at"]),
        (&json!(0), &json!(NOW))
    );
    for (path, key, code) in [
        (path.as_str(), "k2", "credit_voided"),
        ("/admin/credits/1/void", "k3", "credit_used"),
        ("/admin/credits/2/void", "k4", "credit_used"),
    ] {
        let (status, problem) = ledger.post(path, json!({}), Some(key)).await;
        assert_eq!((status, &problem["code"]), (409, &json!(code)), "{path}");
    }
    assert_eq!(
        ledger
            .post("/admin/credits/99/void", json!({}), Some("k5"))
            .await
            .0,
        404
    );
    let actions = "SELECT jsonb_agg(action ORDER BY id) FROM audit_log";
    assert_eq!(
        ledger.value(actions).await,
        json!(["credit.create", "credit.create", "credit.void"])
    );
}

#[tokio::test]
async fn a_partners_invoice_is_voided_and_its_credits_go_back() {
    let ledger = Ledger::with_invoices().await;
    let (status, voided) = ledger
        .post("/admin/invoices/1/void", Value::Null, Some("k1"))
        .await;
    assert_eq!(status, 200, "{voided}");
    assert_eq!(
        (
            &voided["status"],
            &voided["amount_due_cents"],
            &voided["credit_applied_cents"],
            &voided["voided_at"]
        ),
        (&json!("void"), &json!(0), &json!(0), &json!(NOW))
    );
    let credits = "SELECT jsonb_agg(jsonb_build_array(remaining_cents, applied_to_invoice_id) ORDER BY id) FROM credits";
    // 300 + 699, for 1 is on another invoice; 0 + 100.
    assert_eq!(ledger.value(credits).await, json!([[999, 2], [100, null]]));
    let left = "SELECT jsonb_agg(invoice_id) FROM credit_applications";
    assert_eq!(ledger.value(left).await, json!([2]));
    let log = "SELECT jsonb_agg(jsonb_build_array(action, target, actor, before->'status', before->'credits'->0->'amount_cents',
        after->'status')) FROM audit_log";
    assert_eq!(
        ledger.value(log).await,
        json!([["invoice.void", "invoice:1", "ops", "open", 699, "void"]])
    );
    for (id, key) in [(2, "k2"), (4, "k3")] {
        let path = format!("/admin/invoices/{id}/void");
        assert_eq!(
            ledger.post(&path, json!({}), Some(key)).await.0,
            200,
            "{id}"
        );
    }
    ledger
        .run(
            "INSERT INTO invoices (id, invoice_number, kind, total_cents, amount_paid_cents, status)
             VALUES (6, 'P', 'partner', 100, 100, 'paid'), (7, 'Q', 'partner', 100, 1, 'open')",
        )
        .await;
    for (id, code) in [
        (1, "invoice_void"),
        (3, "stripe_invoice"),
        (5, "not_a_partner_invoice"),
        (6, "invoice_paid"),
        (7, "invoice_paid"),
    ] {
        let path = format!("/admin/invoices/{id}/void");
        let (status, problem) = ledger.post(&path, json!({}), Some("k9")).await;
        assert_eq!((status, &problem["code"]), (409, &json!(code)), "{id}");
    }
    for id in ["99", "x", "in_3", "01"] {
        let path = format!("/admin/invoices/{id}/void");
        assert_eq!(
            ledger.post(&path, json!({}), Some("k9")).await.0,
            404,
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_payment_outside_stripe_is_counted_once_and_closes_the_invoice_when_all_is_paid() {
    let ledger = Ledger::with_invoices().await;
    let path = "/admin/invoices/1/mark-paid";
    let (status, partly) = ledger.post(path, payment(5_000), Some("k1")).await;
    assert_eq!(status, 200, "{partly}");
    assert_eq!(
        (
            &partly["status"],
            &partly["amount_paid_cents"],
            &partly["amount_due_cents"],
            &partly["paid_at"]
        ),
        (&json!("open"), &json!(5_000), &json!(7_000), &Value::Null)
    );
    let (status, problem) = ledger.post(path, payment(7_001), Some("k2")).await;
    assert_eq!((status, &problem["field"]), (422, &json!("amount_cents")));
    assert!(
        problem["detail"].as_str().unwrap().contains("7000"),
        "{problem}"
    );
    let mut rest = payment(7_000);
    rest["paid_at"] = json!("2026-11-21T10:00:00Z");
    rest["method"] = json!("check");
    let (status, paid) = ledger.post(path, rest, Some("k2")).await;
    assert_eq!(status, 200, "a refused request leaves its key free: {paid}");
    assert_eq!(
        (
            &paid["status"],
            &paid["amount_paid_cents"],
            &paid["amount_due_cents"],
            &paid["paid_at"]
        ),
        (
            &json!("paid"),
            &json!(12_000),
            &json!(0),
            &json!("2026-11-21T10:00:00Z")
        )
    );
    let (status, problem) = ledger.post(path, payment(1), Some("k3")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("invoice_paid")));

    let (_, invoice) = ledger.get("/admin/invoices/1", NOW).await;
    let payments = invoice["payments"].as_array().unwrap();
    let shown: Vec<Value> = payments
        .iter()
        .map(|payment| {
            json!([
                payment["payment_key"],
                payment["amount_cents"],
                payment["payment_method"],
                payment["reference"],
                payment["status"],
                payment["stripe_fee_cents"],
                payment["net_amount_cents"]
            ])
        })
        .collect();
    assert_eq!(
        shown,
        [
            json!([
                "manual:1:2",
                7_000,
                "check",
                "MT103-7",
                "succeeded",
                0,
                7_000
            ]),
            json!([
                "manual:1:1",
                5_000,
                "wire",
                "MT103-7",
                "succeeded",
                0,
                5_000
            ]),
        ]
    );
    let days = "SELECT jsonb_agg(jsonb_build_array(day, currency, gross_cents, fees_cents, payments, estimated_fees)
        ORDER BY day) FROM revenue_daily";
    assert_eq!(
        ledger.value(days).await,
        json!([
            ["2026-11-20", "EUR", 5_000, 0, 1, 0],
            ["2026-11-21", "EUR", 7_000, 0, 1, 0]
        ])
    );
    let entries = "SELECT to_jsonb(sum(amount_cents)) FROM revenue_entries WHERE kind = 'gross'";
    assert_eq!(ledger.value(entries).await, 12_000);
    let report = ledger.revenue("?currency=EUR", NOW).await;
    assert_eq!(report["overview"]["monthly_revenue_cents"], 12_000);
    let outbox = "SELECT jsonb_agg(jsonb_build_array(dedupe_key, detail->'data'->'amount_cents') ORDER BY id) FROM outbox";
    assert_eq!(
        ledger.value(outbox).await,
        json!([
            ["payment.succeeded:manual:1:1", 5_000],
            ["payment.succeeded:manual:1:2", 7_000],
            ["invoice.paid:invoice:1", null]
        ])
    );
    let log = "SELECT jsonb_agg(jsonb_build_array(action, before->'amount_paid_cents', after->'amount_paid_cents',
        after->'payment'->'reference') ORDER BY id) FROM audit_log";
    assert_eq!(
        ledger.value(log).await,
        json!([
            ["invoice.mark_paid", 0, 5_000, "MT103-7"],
            ["invoice.mark_paid", 5_000, 12_000, "MT103-7"]
        ])
    );
}

#[tokio::test]
async fn a_payment_that_cannot_be_is_refused() {
    let ledger = Ledger::with_invoices().await;
    for (name, value) in [
        ("amount_cents", Value::Null),
        ("amount_cents", json!(0)),
        ("amount_cents", json!(-1)),
        ("amount_cents", json!(1.5)),
        ("amount_cents", json!(12_001)),
        ("amount_cents", json!(i64::MAX)),
        ("method", json!("stripe")),
        ("method", Value::Null),
        ("reference", json!("a\u{0}b")),
        ("paid_at", json!("2026-11-22T00:00:01Z")),
        ("paid_at", json!("2026-11-23")),
        ("paid_at", json!("soon")),
        ("paid_at", Value::Null),
        ("currency", json!("USD")),
    ] {
        let mut members = payment(100);
        members[name] = value.clone();
        let (status, problem) = ledger
            .post("/admin/invoices/1/mark-paid", members, Some("k"))
            .await;
        assert_eq!(
            (status, &problem["field"]),
            (422, &json!(name)),
            "{name}: {value}"
        );
    }
    for (id, code) in [
        (2, "invoice_draft"),
        (3, "stripe_invoice"),
        (5, "not_a_partner_invoice"),
    ] {
        let path = format!("/admin/invoices/{id}/mark-paid");
        let (status, problem) = ledger.post(&path, payment(100), Some("k")).await;
        assert_eq!((status, &problem["code"]), (409, &json!(code)), "{id}");
    }
    let path = "/admin/invoices/99/mark-paid";
    assert_eq!(ledger.post(path, payment(1), Some("k")).await.0, 404);
    // Stripe is asked for the whole of what is due, once.
    let path = "/admin/invoices/1/mark-paid";
    ledger
        .run("UPDATE invoices SET collection_method = 'send_invoice' WHERE id = 1")
        .await;
    let (status, problem) = ledger.post(path, payment(100), Some("k")).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("invoice_for_stripe"))
    );
    ledger
        .run("UPDATE invoices SET collection_method = NULL WHERE id = 1")
        .await;
    ledger
        .post("/admin/invoices/1/void", json!({}), Some("v"))
        .await;
    let path = "/admin/invoices/1/mark-paid";
    let (status, problem) = ledger.post(path, payment(1), Some("k")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("invoice_void")));
    for table in [
        "payment_history",
        "revenue_entries",
        "revenue_daily",
        "outbox",
    ] {
        let rows = format!("SELECT to_jsonb(count(*)) FROM {table}");
        assert_eq!(ledger.value(&rows).await, 0, "{table}");
    }
    let path = "/admin/invoices/4/mark-paid";
    let (status, paid) = ledger.post(path, payment(700), Some("k")).await;
    assert_eq!(
        (status, &paid["status"]),
        (200, &json!("paid")),
        "uncollectible, and paid after all"
    );
}

#[tokio::test]
async fn a_key_has_one_effect_and_one_answer() {
    let ledger = Ledger::with_invoices().await;
    let path = "/admin/invoices/1/mark-paid";
    for path in [path, "/admin/invoices/1/void", "/admin/credits/1/void"] {
        let (status, problem) = ledger.post(path, payment(1), None).await;
        assert_eq!(
            (status, &problem["field"]),
            (400, &json!("Idempotency-Key")),
            "{path}"
        );
    }
    let long = "x".repeat(256);
    for key in ["", "a\tb", &long] {
        for path in [path, "/admin/contracts", "/admin/credits"] {
            let (status, problem) = ledger.post(path, contract(), Some(key)).await;
            assert_eq!(
                (status, &problem["field"]),
                (400, &json!("Idempotency-Key")),
                "{key:?}"
            );
        }
    }
    let longest = "k".repeat(255);
    let first = ledger.post(path, payment(5_000), Some(&longest)).await;
    assert_eq!(first.0, 200);
    ledger.post(path, payment(7_000), Some("another")).await;
    assert_eq!(
        ledger.post(path, payment(5_000), Some(&longest)).await,
        first,
        "as it was then"
    );
    for (path, content) in [
        (path, payment(5_001)),
        ("/admin/invoices/4/mark-paid", payment(5_000)),
    ] {
        let (status, problem) = ledger.post(path, content, Some(&longest)).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("idempotency_key_reused")),
            "{path}"
        );
    }
    let created = ledger.post("/admin/contracts", contract(), Some("c")).await;
    assert_eq!(created.0, 201);
    assert_eq!(
        ledger.post("/admin/contracts", contract(), Some("c")).await,
        created
    );
    let payments = "SELECT to_jsonb(sum(amount_cents)) FROM payment_history";
    assert_eq!(ledger.value(payments).await, 12_000);
    let log = "SELECT to_jsonb(count(*)) FROM audit_log";
    assert_eq!(ledger.value(log).await, 3);
}

/// The same text of somebody else, or on another route, is another key; on the same route for another object it is not.
#[tokio::test]
async fn a_key_belongs_to_who_uses_it_and_to_the_route() {
    let ledger = Ledger::create().await;
    let rows = "INSERT INTO users (id, email) VALUES (3, 'z@example.test')";
    ledger.run(rows).await;
    let credit =
        json!({"user_id": 3, "amount_cents": 500, "currency": "usd", "reason": "goodwill"});
    let grant = async |subject: &str| {
        let now: Timestamp = NOW.parse().expect("an instant");
        let claims = json!({"exp": now.as_second() + 60, "role": "finance", "sub": subject});
        let mut request = request("POST", "/admin/credits", Some(&bearer(&claims)));
        let key = "k".parse().expect("a header");
        request.headers_mut().insert("idempotency-key", key);
        *request.body_mut() = Body::Text(credit.to_string());
        let response = handle(&ledger.app, request, now).await;
        (response.status().as_u16(), body(&response))
    };
    let (status, first) = grant("ops").await;
    assert_eq!((status, &first["created_by"]), (201, &json!("ops")));
    assert_eq!(grant("ops").await.1, first);
    let (status, second) = grant("boss").await;
    assert_eq!((status, &second["created_by"]), (201, &json!("boss")));
    assert_eq!(grant("boss").await.1, second);
    assert_eq!(grant("ops").await.1, first);

    let void = |credit: &Value| format!("/admin/credits/{}/void", credit["id"]);
    let voided = ledger.post(&void(&first), Value::Null, Some("k")).await;
    assert_eq!(voided.0, 200, "another route: {}", voided.1);
    let (status, problem) = ledger.post(&void(&second), Value::Null, Some("k")).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("idempotency_key_reused"))
    );
}

#[tokio::test]
async fn two_requests_with_one_key_at_once_have_one_effect() {
    let ledger = Ledger::with_invoices().await;
    let path = "/admin/invoices/1/mark-paid";
    let same = || ledger.post(path, payment(4_000), Some("once"));
    let answers = futures_util::future::join_all((0..4).map(|_| same())).await;
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
        assert_eq!(answer.0, 200);
    }
    let paid = "SELECT to_jsonb(amount_paid_cents) FROM invoices WHERE id = 1";
    assert_eq!(ledger.value(paid).await, 4_000);
    assert_eq!(
        ledger
            .value("SELECT to_jsonb(count(*)) FROM payment_history")
            .await,
        1
    );
    let entered = || ledger.post("/admin/contracts", contract(), Some("c"));
    let answers = futures_util::future::join_all((0..4).map(|_| entered())).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer == &answers[0] && answer.0 == 201)
    );
}

#[tokio::test]
async fn payments_at_once_never_pay_more_than_is_due() {
    let ledger = Ledger::with_invoices().await;
    let keys: Vec<String> = (0..8).map(|number| format!("k{number}")).collect();
    // 12,000 is due: two of 5,000 fit.
    let pay = |key| ledger.post("/admin/invoices/1/mark-paid", payment(5_000), Some(key));
    let answers = futures_util::future::join_all(keys.iter().map(|key| pay(key.as_str()))).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.0).collect();
    let paid = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 422).count();
    assert_eq!((paid, refused), (2, 6), "{statuses:?}");
    let sums = "SELECT jsonb_build_array(amount_paid_cents, amount_due_cents,
        (SELECT sum(amount_cents) FROM payment_history), (SELECT sum(gross_cents) FROM revenue_daily))
        FROM invoices WHERE id = 1";
    assert_eq!(
        ledger.value(sums).await,
        json!([10_000, 2_000, 10_000, 10_000])
    );
    // One of the two, whichever: never both.
    let (voided, paid) = tokio::join!(
        ledger.post("/admin/invoices/4/void", json!({}), Some("v")),
        ledger.post("/admin/invoices/4/mark-paid", payment(700), Some("p")),
    );
    let statuses = BTreeSet::from([voided.0, paid.0]);
    assert_eq!(statuses, BTreeSet::from([200, 409]), "{voided:?} {paid:?}");
}

#[tokio::test]
async fn what_a_write_announces_goes_to_the_bus_after_the_commit() {
    let aws = Aws::shared().await;
    let bus = aws.event_bus().await;
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute(INVOICES).await.unwrap();
    let app = app_with_aws(&database.url, aws, &[("EVENT_BUS_NAME", &bus)]).await;
    let path = "/admin/invoices/4/mark-paid";
    let (status, _) = send(&app, "POST", path, &payment(700), Some("k")).await;
    assert_eq!(status, 200);
    let unpublished = "SELECT count(*) FILTER (WHERE published_at IS NULL), count(*) FROM outbox";
    let row = client.query_one(unpublished, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 2));
}

#[tokio::test]
async fn a_poisoned_event_is_applied_by_a_replay_and_one_that_fails_stays() {
    let aws = Aws::shared().await;
    let (bucket, table) = tokio::join!(aws.bucket(), aws.parked_events_table());
    let pairs = [
        ("DOCUMENT_BUCKET", bucket.as_str()),
        ("PARKED_EVENTS_TABLE", &table),
    ];
    let parked =
        ParkedEvents::from_env(&Environment::from_pairs(pairs), &aws.sdk_config()).unwrap();
    let now: Timestamp = NOW.parse().unwrap();
    let text = include_str!("../../../../events/stripe_invoice_paid_basil.json");
    let sample: Value = serde_json::from_str(text).unwrap();
    let event_id = sample["id"].as_str().unwrap();
    let broken = json!({"id": "evt_broken", "object": "event", "type": "invoice.paid", "created": 1_760_000_000,
        "api_version": "2025-03-31.basil", "livemode": false, "data": {"object": {"object": "invoice", "id": "in_x"}}});
    parked.park(event_id, text, "a bug", now).await.unwrap();
    parked
        .park("evt_broken", &broken.to_string(), "a bug", now)
        .await
        .unwrap();
    for attempts in 0..8 {
        parked
            .record_failure(event_id, attempts, "a bug", now)
            .await
            .unwrap();
        parked
            .record_failure("evt_broken", attempts, "a bug", now)
            .await
            .unwrap();
    }
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let app = app_with_aws(&database.url, aws, &pairs).await;
    let replay = async |event_id: &str, key: Option<&str>| {
        let path = format!("/admin/events/{event_id}/replay");
        send(&app, "POST", &path, &Value::Null, key).await
    };
    let first = replay(event_id, Some("r1")).await;
    assert_eq!(
        first,
        (200, json!({"event_id": event_id, "outcome": "applied"}))
    );
    assert_eq!(
        parked.get(event_id).await.unwrap(),
        None,
        "no longer parked"
    );
    let stored = "SELECT outcome FROM stripe_events WHERE event_id = $1";
    let row = client.query_one(stored, &[&event_id]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "applied");
    assert_eq!(
        replay(event_id, Some("r1")).await,
        first,
        "the key's first answer"
    );
    assert_eq!(
        replay(event_id, None).await,
        (200, json!({"event_id": event_id, "outcome": "duplicate"}))
    );
    let (status, failed) = replay("evt_broken", None).await;
    assert_eq!(
        (status, &failed["outcome"]),
        (200, &json!("parked")),
        "{failed}"
    );
    assert!(failed["reason"].is_string(), "{failed}");
    let state = parked.get("evt_broken").await.unwrap().unwrap().state;
    assert_eq!(
        (state.attempts, state.is_poisoned()),
        (1, false),
        "tried again from the start"
    );
    assert_eq!(parked.count_due(now).await.unwrap(), 0, "after a pause");
    for unknown in ["evt_none", "a%00b"] {
        assert_eq!(replay(unknown, None).await.0, 404, "{unknown}");
    }
    let log =
        "SELECT string_agg(target || ' ' || (after->>'outcome'), ', ' ORDER BY id) FROM audit_log
        WHERE action = 'event.replay' AND actor = 'ops'";
    let row = client.query_one(log, &[]).await.unwrap();
    assert_eq!(
        row.get::<_, String>(0),
        format!("event:{event_id} applied, event:{event_id} duplicate, event:evt_broken parked")
    );
}

#[tokio::test]
async fn a_discrepancy_is_accepted_once_with_a_reason_and_audited() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO reconciliation_runs (run_id, kind, started_at) VALUES (1, 'daily', '2025-11-02Z');
             INSERT INTO reconciliation_items (id, run_id, kind, resolution, object_type, object_id)
             VALUES (11, 1, 'missing_in_stripe', 'open', 'charge', 'ch_1'),
                 (12, 1, 'missing_in_db', 'healed', 'charge', 'ch_2')",
        )
        .await;
    let path = "/admin/reconciliation/items/11/accept";
    for (members, status) in [
        (json!({}), 422),
        (json!({"reason": ""}), 422),
        (json!({"reason": "ok", "more": 1}), 422),
    ] {
        let answer = ledger.post(path, members.clone(), None).await;
        assert_eq!(answer.0, status, "{members}: {}", answer.1);
    }
    let reason = json!({"reason": "test data of 2019"});
    let (status, accepted) = ledger.post(path, reason.clone(), Some("k1")).await;
    assert_eq!(status, 200, "{accepted}");
    assert_eq!(
        (
            &accepted["resolution"],
            &accepted["accepted_by"],
            &accepted["accepted_reason"],
            &accepted["resolved_at"]
        ),
        (
            &json!("accepted"),
            &json!("ops"),
            &json!("test data of 2019"),
            &json!(NOW)
        )
    );
    // The same request gets its first answer; another one finds nothing open.
    let again = ledger.post(path, reason.clone(), Some("k1")).await;
    assert_eq!(again, (200, accepted));
    for (path, status) in [
        (path, 409),
        ("/admin/reconciliation/items/12/accept", 409),
        ("/admin/reconciliation/items/13/accept", 404),
        ("/admin/reconciliation/items/x/accept", 404),
    ] {
        assert_eq!(
            ledger.post(path, reason.clone(), None).await.0,
            status,
            "{path}"
        );
    }
    let (_, audited) = ledger
        .get("/admin/audit-log?target=reconciliation_item:11", NOW)
        .await;
    let audited = audited["data"].as_array().expect("entries");
    assert_eq!(audited.len(), 1);
    assert_eq!(audited[0]["action"], "reconciliation_item.accept");
    assert_eq!(audited[0]["before"]["resolution"], "open");
    assert_eq!(audited[0]["after"]["resolution"], "accepted");
}

/// It was parked before somebody said which mode is ours.
#[tokio::test]
async fn a_replay_of_the_other_mode_is_kept_and_not_applied() {
    let aws = Aws::shared().await;
    let table = aws.parked_events_table().await;
    let bucket = aws.bucket().await;
    let pairs = [
        ("DOCUMENT_BUCKET", bucket.as_str()),
        ("PARKED_EVENTS_TABLE", &table),
        ("STRIPE_LIVEMODE", "true"),
    ];
    let parked =
        ParkedEvents::from_env(&Environment::from_pairs(pairs), &aws.sdk_config()).unwrap();
    let now: Timestamp = NOW.parse().unwrap();
    let text = include_str!("../../../../events/stripe_invoice_paid_basil.json");
    let sample: Value = serde_json::from_str(text).unwrap();
    let event_id = sample["id"].as_str().unwrap();
    parked.park(event_id, text, "a bug", now).await.unwrap();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let app = app_with_aws(&database.url, aws, &pairs).await;
    let path = format!("/admin/events/{event_id}/replay");
    assert_eq!(
        send(&app, "POST", &path, &Value::Null, None).await,
        (200, json!({"event_id": event_id, "outcome": "foreign"}))
    );
    assert_eq!(parked.get(event_id).await.unwrap(), None);
    let row = client
        .query_one("SELECT count(*) FROM invoices", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    let listed = |outcome: &str| format!("/admin/events?outcome={outcome}");
    let (_, answer) = send(&app, "GET", &listed("foreign"), &Value::Null, None).await;
    assert_eq!(answer["data"][0]["event_id"], event_id, "{answer}");
    assert_eq!(answer["data"][0]["outcome"], "foreign");
    let (_, answer) = send(&app, "GET", &listed("applied"), &Value::Null, None).await;
    assert_eq!(answer["data"], json!([]));
}
