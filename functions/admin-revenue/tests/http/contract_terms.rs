//! Dated terms of contracts: changes, suspensions, ends and returns.

use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::writes::send_at;

struct Terms {
    ledger: Ledger,
}

impl Terms {
    /// A flat contract of 100.00 from October 2025 on.
    async fn new(members: Value) -> Terms {
        let terms = Terms {
            ledger: Ledger::create().await,
        };
        let mut contract = json!({"api_key_prefix": "dp_pk_alpha", "pricing_model": "flat",
            "monthly_flat_fee_cents": 10_000, "contract_start_date": "2025-10-01", "payment_method": "wire"});
        for (name, value) in members.as_object().expect("it is there") {
            contract[name] = value.clone();
        }
        let created = terms.post("2025-09-20T12:00:00Z", contract).await;
        assert_eq!(created.0, 201, "{}", created.1);
        terms
    }

    async fn post(&self, now: &str, contract: Value) -> (u16, Value) {
        let app = &self.ledger.app;
        send_at(app, "POST", "/admin/contracts", &contract, None, now).await
    }

    async fn patch(&self, now: &str, changes: Value) -> (u16, Value) {
        let app = &self.ledger.app;
        send_at(app, "PATCH", "/admin/contracts/1", &changes, None, now).await
    }

    /// The status and the member at fault.
    async fn refused(&self, now: &str, changes: Value) -> (u16, String) {
        let (status, problem) = self.patch(now, changes).await;
        let told = problem["field"].as_str().or(problem["code"].as_str());
        (status, told.unwrap_or_default().to_owned())
    }

    async fn get(&self, path: &str, now: &str) -> Value {
        let (status, answer) = self.ledger.get(path, now).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Whether a day is billed, and the fee of it.
    async fn on(&self, day: &str) -> (bool, i64) {
        let path = format!("/admin/contracts/1/terms?on={day}");
        let terms = self.get(&path, "2025-11-30T12:00:00Z").await;
        let fee = terms["terms"]["monthly_flat_fee_cents"]
            .as_i64()
            .expect("it is there");
        (terms["billed"].as_bool().expect("it is there"), fee)
    }
}

#[tokio::test]
async fn a_price_has_a_day_from_which_on_it_holds() {
    let terms = Terms::new(json!({})).await;
    let now = "2025-11-30T12:00:00Z";
    let (status, today) = terms
        .patch(now, json!({"monthly_flat_fee_cents": 20_000}))
        .await;
    assert_eq!(
        (status, &today["monthly_flat_fee_cents"]),
        (200, &json!(20_000)),
        "{today}"
    );
    assert_eq!(terms.on("2025-10-31").await, (true, 10_000));
    assert_eq!(terms.on("2025-11-01").await, (true, 20_000));
    let january = json!({"monthly_flat_fee_cents": 30_000, "effective_from": "2026-01-01", "reason": "as agreed"});
    let (_, today) = terms.patch(now, january).await;
    assert_eq!(today["monthly_flat_fee_cents"], 20_000, "as it is today");
    assert_eq!(
        today["next_change"],
        json!({"effective_from": "2026-01-01", "members": {"monthly_flat_fee_cents": 30_000}})
    );
    assert_eq!(today["warnings"], json!(["no_billing_email"]));
    // On the day it is so, whether a run has written the columns or not.
    let on_the_day = terms
        .get("/admin/contracts/1", "2026-01-01T00:00:01Z")
        .await;
    assert_eq!(
        (
            &on_the_day["monthly_flat_fee_cents"],
            &on_the_day["next_change"]
        ),
        (&json!(30_000), &Value::Null)
    );
    let changes = terms.get("/admin/contracts/1/changes", now).await;
    let told: Vec<Value> = changes["data"]
        .as_array()
        .expect("it is there")
        .iter()
        .map(|change| {
            json!([
                change["effective_from"],
                change["reason"],
                change["created_by"]
            ])
        })
        .collect();
    assert_eq!(
        told,
        [
            json!(["2026-01-01", "as agreed", "ops"]),
            json!(["2025-11-01", null, "ops"]),
            json!([null, null, "ops"])
        ]
    );
    // It is taken back before it is in force, and stays in the list.
    let id = changes["data"][0]["id"].as_i64().expect("it is there");
    let path = format!("/admin/contracts/1/changes/{id}");
    let app = &terms.ledger.app;
    let delete =
        async |path: &str, now: &str| send_at(app, "DELETE", path, &Value::Null, None, now).await;
    let late = delete(&path, "2026-01-01T00:00:00Z").await;
    assert_eq!((late.0, &late.1["code"]), (409, &json!("change_in_force")));
    let (status, revoked) = delete(&path, now).await;
    assert_eq!(
        (status, &revoked["revoked_at"]),
        (200, &json!(now)),
        "{revoked}"
    );
    assert_eq!(terms.on("2026-01-01").await, (true, 20_000));
    assert_eq!(delete(&path, now).await.0, 404);
    assert_eq!(delete("/admin/contracts/1/changes/99", now).await.0, 404);
    let since_ever = changes["data"][2]["id"].as_i64().expect("it is there");
    let path = format!("/admin/contracts/1/changes/{since_ever}");
    assert_eq!(delete(&path, now).await.1["code"], "change_in_force");
    assert_eq!(
        terms.get("/admin/contracts/1/changes", now).await["data"]
            .as_array()
            .expect("it is there")
            .len(),
        3
    );
}

#[tokio::test]
async fn a_date_in_the_past_needs_somebody_who_has_looked_and_says_why() {
    let terms = Terms::new(json!({})).await;
    let now = "2025-12-15T12:00:00Z";
    let price = |from: &str| json!({"monthly_flat_fee_cents": 5, "effective_from": from});
    let refused = (422, "effective_from".to_owned());
    for from in ["2025-11-01", "2025-12-02", "2026-01-31"] {
        assert_eq!(terms.refused(now, price(from)).await, refused, "{from}");
    }
    for (name, value) in [
        ("effective_from", json!("December")),
        ("reviewed", json!("yes")),
        ("reason", json!("")),
    ] {
        let mut changes = price("2026-01-01");
        changes[name] = value;
        assert_eq!(terms.refused(now, changes).await, (422, name.to_owned()));
    }
    let mut reviewed = price("2025-11-01");
    reviewed["reviewed"] = json!(true);
    assert_eq!(
        terms.refused(now, reviewed.clone()).await,
        (422, "reason".to_owned())
    );
    reviewed["reason"] = json!("a price list that was sent late");
    let (status, changed) = terms.patch(now, reviewed).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(
        (
            terms.on("2025-10-31").await.1,
            terms.on("2025-11-01").await.1
        ),
        (10_000, 5)
    );
    // A name has no day from which on it holds.
    let name = json!({"company": "Alpha", "effective_from": "2026-01-01"});
    assert_eq!(terms.refused(now, name).await, refused);
    // What would not be valid from a day on says from which.
    let per_deed = json!({"pricing_model": "per_deed", "effective_from": "2026-02-01"});
    let (_, problem) = terms.patch(now, per_deed).await;
    assert_eq!(problem["field"], "per_deed_price_cents");
    assert!(
        problem["detail"]
            .as_str()
            .expect("it is there")
            .contains("2026-02-01"),
        "{problem}"
    );
    // Stripe cannot charge it.
    let kwd =
        json!({"currency": "KWD", "payment_method": "stripe", "monthly_flat_fee_cents": 10_005});
    assert_eq!(
        terms.refused(now, kwd).await,
        (422, "monthly_flat_fee_cents".to_owned())
    );
}

#[tokio::test]
async fn the_day_on_which_a_status_changes_is_billed() {
    let terms = Terms::new(json!({})).await;
    let (_, suspended) = terms
        .patch("2025-11-10T08:00:00Z", json!({"status": "suspended"}))
        .await;
    assert_eq!(
        (&suspended["status"], &suspended["suspended_at"]),
        (&json!("suspended"), &json!("2025-11-10T08:00:00Z"))
    );
    assert_eq!(
        (
            terms.on("2025-11-10").await.0,
            terms.on("2025-11-11").await.0
        ),
        (true, false)
    );
    let (_, active) = terms
        .patch("2025-11-20T08:00:00Z", json!({"status": "active"}))
        .await;
    assert_eq!(
        (&active["status"], &active["suspended_at"]),
        (&json!("active"), &Value::Null)
    );
    assert_eq!(
        (
            terms.on("2025-11-19").await.0,
            terms.on("2025-11-20").await.0
        ),
        (false, true)
    );
    let end = json!({"contract_end_date": "2025-12-15"});
    let (_, ending) = terms.patch("2025-11-21T08:00:00Z", end).await;
    assert_eq!(
        (&ending["status"], &ending["contract_end_date"]),
        (&json!("active"), &json!("2025-12-15"))
    );
    assert_eq!(
        (
            terms.on("2025-12-15").await.0,
            terms.on("2025-12-16").await.0
        ),
        (true, false)
    );
    // `active` takes an end back that is not in force; a null moves one that has passed.
    let (_, open) = terms
        .patch("2025-11-22T08:00:00Z", json!({"status": "active"}))
        .await;
    assert_eq!(open["contract_end_date"], Value::Null);
    let (_, canceled) = terms
        .patch("2025-11-25T08:00:00Z", json!({"status": "canceled"}))
        .await;
    assert_eq!(canceled["contract_end_date"], "2025-11-25");
    let again = terms
        .refused("2025-12-01T00:00:00Z", json!({"status": "suspended"}))
        .await;
    assert_eq!(again, (409, "contract_canceled".to_owned()));
    let (_, back) = terms
        .patch("2025-12-05T08:00:00Z", json!({"status": "active"}))
        .await;
    assert_eq!(
        (&back["status"], &back["canceled_at"]),
        (&json!("active"), &Value::Null)
    );
    assert_eq!(
        (
            terms.on("2025-12-04").await.0,
            terms.on("2025-12-05").await.0
        ),
        (false, true)
    );
}

#[tokio::test]
async fn a_partner_comes_back_under_the_same_number() {
    let terms = Terms::new(json!({"company": "Alpha Title", "minimum_commitment_cents": 9})).await;
    let back = json!({"api_key_prefix": "dp_pk_alpha", "pricing_model": "flat",
        "monthly_flat_fee_cents": 30_000, "contract_start_date": "2025-12-11", "billing_email": "ap@alpha.test"});
    let (status, problem) = terms.post("2025-11-20T12:00:00Z", back.clone()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("contract_exists")));
    let end = json!({"contract_end_date": "2025-11-30"});
    terms.patch("2025-11-20T12:00:00Z", end).await;
    let early = json!({"api_key_prefix": "dp_pk_alpha", "pricing_model": "flat",
        "monthly_flat_fee_cents": 30_000, "contract_start_date": "2025-11-30"});
    assert_eq!(terms.post("2025-11-20T12:00:00Z", early).await.0, 409);
    let (status, today) = terms.post("2025-12-05T12:00:00Z", back).await;
    assert_eq!(status, 201, "{today}");
    assert_eq!(
        (&today["id"], &today["company"], &today["billing_email"]),
        (&json!(1), &json!("Alpha Title"), &json!("ap@alpha.test"))
    );
    assert_eq!(today["next_change"]["effective_from"], "2025-12-11");
    assert_eq!(
        (terms.on("2025-12-10").await.0, terms.on("2025-12-11").await),
        (false, (true, 30_000))
    );
    let since = terms
        .get("/admin/contracts/1", "2025-12-11T12:00:00Z")
        .await;
    assert_eq!(
        (
            &since["minimum_commitment_cents"],
            &since["contract_start_date"]
        ),
        (&json!(0), &json!("2025-12-11"))
    );
}

#[tokio::test]
async fn a_start_is_moved_while_nothing_of_it_is_invoiced() {
    let terms = Terms::new(json!({})).await;
    let now = "2025-11-10T12:00:00Z";
    let start = |day: &str| json!({"contract_start_date": day});
    let (_, moved) = terms.patch(now, start("2025-09-15")).await;
    assert_eq!(
        (&moved["contract_start_date"], &moved["billed_from"]),
        (&json!("2025-09-15"), &json!("2025-09-15"))
    );
    assert_eq!(
        (
            terms.on("2025-09-14").await.0,
            terms.on("2025-09-15").await.0
        ),
        (false, true)
    );
    terms
        .ledger
        .run(
            "INSERT INTO invoices (invoice_number, contract_id, kind, status, total_cents, currency, finalized_at,
                                   billing_period_start, billing_period_end)
             VALUES ('API-1', 1, 'partner', 'open', 5, 'USD', now(), '2025-10-01Z', '2025-11-01Z')",
        )
        .await;
    let refused = terms.refused(now, start("2025-10-01")).await;
    assert_eq!(refused, (409, "contract_invoiced".to_owned()));
    assert_eq!(
        terms.patch(now, start("2025-09-15")).await.0,
        200,
        "the same day again"
    );
}

#[tokio::test]
async fn a_repeated_change_is_one_and_a_row_of_the_predecessors_is_made_valid() {
    let terms = Terms::new(json!({})).await;
    let (app, now) = (&terms.ledger.app, "2025-11-30T12:00:00Z");
    let price = json!({"monthly_flat_fee_cents": 20_000, "effective_from": "2026-01-01"});
    for _ in 0..2 {
        let (status, _) =
            send_at(app, "PATCH", "/admin/contracts/1", &price, Some("k1"), now).await;
        assert_eq!(status, 200);
    }
    let changes = terms.get("/admin/contracts/1/changes", now).await;
    assert_eq!(changes["data"].as_array().expect("it is there").len(), 2);
    terms
        .ledger
        .run(
            "INSERT INTO api_partner_contracts (id, api_key_prefix, pricing_model, contract_start_date, billed_from)
             VALUES (7, 'dp_pk_old', 'per_deed', '2025-01-01', '2025-01-01')",
        )
        .await;
    let old = terms.get("/admin/contracts/7", now).await;
    assert_eq!(old["warnings"], json!(["not_valid", "no_billing_email"]));
    let (status, problem) = terms.ledger.get("/admin/contracts/7/terms", now).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("contract_not_valid"))
    );
    let price = json!({"per_deed_price_cents": 250});
    let (status, valid) = send_at(app, "PATCH", "/admin/contracts/7", &price, None, now).await;
    assert_eq!(
        (status, &valid["per_deed_price_cents"]),
        (200, &json!(250)),
        "{valid}"
    );
    let changes = terms.get("/admin/contracts/7/changes", now).await;
    assert_eq!(changes["data"][0]["created_by"], "host");
}
