//! Drafts: what waits, what is approved and what is waived.

use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::writes::send_at;

const NOW: &str = "2025-11-01T06:00:00Z";

async fn contract(ledger: &Ledger, members: Value) -> i64 {
    let mut contract = json!({"pricing_model": "flat", "monthly_flat_fee_cents": 10_000, "payment_method": "wire"});
    for (name, value) in members.as_object().expect("it is there") {
        contract[name] = value.clone();
    }
    let (status, created) = send_at(
        &ledger.app,
        "POST",
        "/admin/contracts",
        &contract,
        None,
        NOW,
    )
    .await;
    assert_eq!(status, 201, "{created}");
    created["id"].as_i64().expect("it is there")
}

async fn waiting(ledger: &Ledger, query: &str) -> Vec<Value> {
    let (status, drafts) = ledger.get(&format!("/admin/drafts{query}"), NOW).await;
    assert_eq!(status, 200, "{drafts}");
    drafts["data"].as_array().expect("it is there").clone()
}

async fn post(ledger: &Ledger, path: &str, content: Value, key: &str) -> (u16, Value) {
    send_at(&ledger.app, "POST", path, &content, Some(key), NOW).await
}

fn approval(drafts: &[Value]) -> Value {
    let named = drafts
        .iter()
        .map(|draft| json!({"draft_id": draft["draft_id"], "sha256": draft["sha256"]}));
    json!({"drafts": named.collect::<Vec<_>>()})
}

async fn numbers(ledger: &Ledger) -> Value {
    let select = "SELECT jsonb_agg(invoice_number ORDER BY id) FROM invoices";
    ledger
        .client
        .query_one(select, &[])
        .await
        .expect("it is there")
        .get(0)
}

#[tokio::test]
async fn what_waits_is_listed_approved_and_waived() {
    let ledger = Ledger::create().await;
    let id = contract(&ledger, json!({"api_key_prefix": "dp_pk_alpha", "contract_start_date": "2016-01-01", "tax_percent": "8.875"})).await;
    contract(
        &ledger,
        json!({"api_key_prefix": "dp_pk_beta", "contract_start_date": "2025-09-01"}),
    )
    .await;
    let drafts = waiting(&ledger, "").await;
    assert_eq!(drafts.len(), 118, "the other contract waits for nobody");
    let first = &drafts[0];
    for (member, value) in [
        ("draft_id", json!(format!("{id}:2016-01-01"))),
        ("reason", json!("catch_up")),
        ("first_day", json!("2016-01-01")),
        ("last_day", json!("2016-01-31")),
        ("subtotal_cents", json!(10_000)),
        ("tax_cents", json!(888)),
        ("total_cents", json!(10_888)),
    ] {
        assert_eq!(first[member], value, "{member}");
    }
    assert_eq!(first["taxes"][0]["percentage"], "8.875");
    assert_eq!(waiting(&ledger, "?reason=above_the_cap").await.len(), 0);
    assert_eq!(
        waiting(&ledger, &format!("?contract_id={id}&reason=catch_up"))
            .await
            .len(),
        118
    );
    // Two of them, in whatever order they are named: the oldest first.
    let two = [drafts[1].clone(), drafts[0].clone()];
    let (status, issued) = post(&ledger, "/admin/drafts/approve", approval(&two), "k1").await;
    assert_eq!(status, 200, "{issued}");
    assert_eq!(
        numbers(&ledger).await,
        json!(["API-201601-dp_pk_alpha", "API-201602-dp_pk_alpha"])
    );
    assert_eq!(issued["invoices"][0]["draft_id"], first["draft_id"]);
    let again = post(&ledger, "/admin/drafts/approve", approval(&two), "k1").await;
    assert_eq!(again, (200, issued), "the key's first answer");
    // What is issued is no draft any more, and none of an approval with it is issued.
    let stale = [drafts[2].clone(), drafts[1].clone()];
    let (status, problem) = post(&ledger, "/admin/drafts/approve", approval(&stale), "k2").await;
    assert_eq!((status, &problem["code"]), (409, &json!("draft_changed")));
    // A draft that is another one by now.
    send_at(
        &ledger.app,
        "PATCH",
        &format!("/admin/contracts/{id}"),
        &json!({"monthly_flat_fee_cents": 7,
        "effective_from": "2016-03-01", "reviewed": true, "reason": "a typo"}),
        None,
        NOW,
    )
    .await;
    let (status, problem) = post(
        &ledger,
        "/admin/drafts/approve",
        approval(&drafts[2..3]),
        "k3",
    )
    .await;
    assert_eq!((status, &problem["code"]), (409, &json!("draft_changed")));
    assert_eq!(
        numbers(&ledger)
            .await
            .as_array()
            .expect("it is there")
            .len(),
        2
    );
    // Never billed.
    let waive = json!({"draft_id": drafts[2]["draft_id"], "reason": "before we had a contract"});
    let (status, waived) = post(&ledger, "/admin/drafts/waive", waive.clone(), "k4").await;
    assert_eq!(
        (status, &waived["period_start"]),
        (200, &json!("2016-03-01T00:00:00Z")),
        "{waived}"
    );
    assert_eq!(
        post(&ledger, "/admin/drafts/waive", waive, "k5").await.0,
        404
    );
    let left = waiting(&ledger, "").await;
    assert_eq!(
        (left.len(), &left[0]["first_day"]),
        (115, &json!("2016-04-01"))
    );
    let actions: Value = ledger
        .client
        .query_one(
            "SELECT jsonb_agg(action ORDER BY id) FROM audit_log WHERE action LIKE 'draft.%'",
            &[],
        )
        .await
        .expect("it is there")
        .get(0);
    assert_eq!(actions, json!(["draft.approve", "draft.waive"]));
    let issued = "SELECT count(*) FROM outbox WHERE detail_type = 'partner_invoice.issued'";
    assert_eq!(
        ledger
            .client
            .query_one(issued, &[])
            .await
            .expect("it is there")
            .get::<_, i64>(0),
        2
    );
}

#[tokio::test]
async fn late_usage_of_a_contract_that_has_ended_is_a_draft() {
    let ledger = Ledger::create().await;
    let id = contract(&ledger, json!({"api_key_prefix": "dp_pk_alpha", "pricing_model": "per_deed",
        "per_deed_price_cents": 250, "contract_start_date": "2025-09-01", "contract_end_date": "2025-10-10"})).await;
    let served = async |units: i32| {
        let insert = format!("INSERT INTO api_usage (api_key_prefix, cost_units, created_at)
                              VALUES ('dp_pk_alpha', {units}, '2025-09-10Z'), ('dp_pk_alpha', {units}, '2025-10-09Z')");
        ledger.run(&insert).await;
    };
    served(3).await;
    assert_eq!(waiting(&ledger, "").await.len(), 0);
    // Nothing waits, and what is due may be approved as well.
    for name in ["2025-09-01", "2025-10-01"] {
        let wrong = json!({"drafts": [{"draft_id": format!("{id}:{name}"), "sha256": "0"}]});
        let (status, problem) = post(&ledger, "/admin/drafts/approve", wrong, name).await;
        assert_eq!((status, &problem["code"]), (409, &json!("draft_changed")));
    }
    ledger
        .run(
            "INSERT INTO invoices (id, invoice_number, contract_id, api_key_prefix, kind, status, total_cents, currency,
                 finalized_at, billing_period_start, billing_period_end)
             VALUES (1, 'API-202509-dp_pk_alpha', 1, 'dp_pk_alpha', 'partner', 'open', 750, 'USD', now(), '2025-09-01Z', '2025-10-01Z'),
                    (2, 'API-202510-dp_pk_alpha', 1, 'dp_pk_alpha', 'partner', 'open', 750, 'USD', now(), '2025-10-01Z', '2025-10-11Z');
             SELECT setval('invoices_id_seq', 10);
             INSERT INTO invoiced_usage (invoice_id, contract_id, period_start, period_end, units, requests, amount_cents, terms)
             SELECT id, 1, billing_period_start, billing_period_end, 3, 1, 750, jsonb_build_object(
                 'contract', jsonb_build_object('api_key_prefix', 'dp_pk_alpha', 'pricing_model', 'per_deed',
                     'per_deed_price_cents', 250, 'currency', 'USD'),
                 'share', '{\"months\": 1, \"billed_days\": 30, \"cycle_days\": 30}'::jsonb,
                 'first_day', to_char(billing_period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
                 'last_day', to_char(billing_period_end AT TIME ZONE 'UTC' - interval '1 day', 'YYYY-MM-DD'),
                 'usage', jsonb_build_array(jsonb_build_array(billing_period_start, billing_period_end)))
             FROM invoices",
        )
        .await;
    assert_eq!(waiting(&ledger, "").await.len(), 0);
    served(2).await;
    let drafts = waiting(&ledger, "?reason=late_usage_after_the_last_invoice").await;
    let told: Vec<Value> = drafts
        .iter()
        .map(|draft| json!([draft["draft_id"], draft["total_cents"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!([format!("{id}:2025-09-01-correction"), 500]),
            json!([format!("{id}:2025-10-01-correction"), 500])
        ]
    );
    let (status, issued) = post(
        &ledger,
        "/admin/drafts/approve",
        approval(&drafts[..1]),
        "k2",
    )
    .await;
    assert_eq!(
        (status, &issued["invoices"][0]["invoice_number"]),
        (200, &json!("API-202509-dp_pk_alpha-2")),
        "{issued}"
    );
    let invoice = ledger
        .get(
            &format!("/admin/invoices/{}", issued["invoices"][0]["invoice_id"]),
            NOW,
        )
        .await
        .1;
    assert_eq!(
        (
            &invoice["billing_period_start"],
            &invoice["lines"][0]["total_cents"]
        ),
        (&Value::Null, &json!(500))
    );
    let waive = json!({"draft_id": drafts[1]["draft_id"], "reason": "too little"});
    assert_eq!(
        post(&ledger, "/admin/drafts/waive", waive, "k3").await.0,
        200
    );
    served(1).await;
    let left = waiting(&ledger, "").await;
    assert_eq!(
        (left.len(), &left[0]["total_cents"]),
        (1, &json!(250)),
        "only September is corrected again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_approvals_and_a_change_at_once_are_one_after_the_other() {
    let ledger = Ledger::create().await;
    let id = contract(
        &ledger,
        json!({"api_key_prefix": "dp_pk_alpha", "contract_start_date": "2025-01-01"}),
    )
    .await;
    let drafts = waiting(&ledger, "").await;
    assert_eq!(drafts.len(), 10);
    let (path, patch) = ("/admin/drafts/approve", format!("/admin/contracts/{id}"));
    let dearer = json!({"monthly_flat_fee_cents": 20_000, "effective_from": "2025-01-01", "reviewed": true, "reason": "x"});
    let (one, two, changed) = tokio::join!(
        post(&ledger, path, approval(&drafts), "k1"),
        post(&ledger, path, approval(&drafts), "k2"),
        send_at(&ledger.app, "PATCH", &patch, &dearer, None, NOW)
    );
    assert_eq!(changed.0, 200, "{}", changed.1);
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert!(
        statuses == [200, 409] || statuses == [409, 409],
        "{statuses:?}: the change came first"
    );
    // Ten invoices at the old price, or none; the other approval has seen what came before it.
    let issued = "SELECT count(*), COALESCE(sum(total_cents), 0)::bigint FROM invoices";
    let issued = ledger
        .client
        .query_one(issued, &[])
        .await
        .expect("it is there");
    let expected = if statuses[0] == 200 {
        (10, 100_000)
    } else {
        (0, 0)
    };
    assert_eq!((issued.get::<_, i64>(0), issued.get::<_, i64>(1)), expected);
}

#[tokio::test]
async fn an_approval_that_names_no_drafts_of_one_contract_is_refused() {
    let ledger = Ledger::create().await;
    let draft = |id: &str| json!({"draft_id": id, "sha256": "0"});
    for (drafts, field) in [
        (json!([]), "drafts"),
        (
            json!(
                (0..121)
                    .map(|day| draft(&format!("1:{day}")))
                    .collect::<Vec<_>>()
            ),
            "drafts",
        ),
        (json!([draft("x")]), "drafts[0].draft_id"),
        (json!([draft("0:2025-01-01")]), "drafts[0].draft_id"),
        (
            json!([draft("1:2025-01-01"), draft("2:2025-01-01")]),
            "drafts[1].draft_id",
        ),
        (
            json!([draft("1:2025-01-01"), draft("1:2025-01-01")]),
            "drafts[1].draft_id",
        ),
        (json!([{"draft_id": "1:2025-01-01"}]), "drafts[0].sha256"),
    ] {
        let content = json!({"drafts": drafts});
        let (status, problem) = post(&ledger, "/admin/drafts/approve", content, "k").await;
        assert_eq!(
            (status, problem["field"].as_str()),
            (422, Some(field)),
            "{problem}"
        );
    }
    let unknown = json!({"drafts": [draft("1:2025-01-01")]});
    assert_eq!(
        post(&ledger, "/admin/drafts/approve", unknown, "k").await.0,
        409
    );
    for (waive, field) in [
        (json!({"draft_id": "1:2025-01-01"}), "reason"),
        (json!({"draft_id": "1:2025-01-01", "reason": ""}), "reason"),
    ] {
        let (status, problem) = post(&ledger, "/admin/drafts/waive", waive, "k").await;
        assert_eq!(
            (
                status,
                problem["field"].as_str().unwrap_or_default().is_empty()
            ),
            (422, false),
            "{field} {problem}"
        );
    }
    for query in ["?reason=mood", "?contract_id=x", "?limit=5"] {
        assert_eq!(
            ledger.get(&format!("/admin/drafts{query}"), NOW).await.0,
            400,
            "{query}"
        );
    }
}
