//! Ingestion: one event, batches, retries, conflicts, late ones, the query-string form.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use usage::handle;

use crate::ledger::{Ledger, NOW, body, event, partner_event, post, request, service, verdicts};

#[tokio::test]
async fn an_event_is_counted_once_however_often_it_is_sent() {
    let ledger = Ledger::with_users(1).await;
    let event = json!({"idempotency_key": "k", "user_id": 1, "event_type": "deed", "cost_units": 3,
                       "unit_price_cents": 250, "metadata": {"county": "Kings", "n": 1.5}});
    for (now, verdict) in [
        (NOW, "accepted"),
        (NOW, "duplicate"),
        ("2025-12-24T00:00:00Z", "duplicate"),
    ] {
        let (status, body) = ledger.post("/usage/events", &event, now).await;
        assert_eq!(status, 200, "{body}");
        let mut expected = json!({"accepted": 0, "duplicate": 0, "conflict": 0, "rejected": 0, "late": 0,
                                  "unbillable": 0, "results": [{"idempotency_key": "k", "verdict": verdict}]});
        expected[verdict] = 1.into();
        assert_eq!(body, expected);
    }
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 1 3 3 750"]
    );
    assert_eq!(
        ledger
            .number("SELECT count(*) FROM usage_events WHERE metadata ->> 'county' = 'Kings'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_key_with_another_payload_is_a_conflict_and_changes_nothing() {
    let ledger = Ledger::with_users(2).await;
    ledger.ingest(&[event(1, "k")], NOW).await;
    let other =
        json!({"idempotency_key": "k", "user_id": 1, "event_type": "deed", "cost_units": 2});
    let (status, body) = ledger.post("/usage/events", &other, NOW).await;
    assert_eq!(
        (status, &body["code"]),
        (409, &json!("idempotency_key_reused"))
    );
    assert!(
        body["detail"].as_str().unwrap().contains("idempotency_key"),
        "{body}"
    );
    // Another subject's key is another key.
    let sent = [other, event(2, "k"), event(1, "new")];
    assert_eq!(
        ledger.ingest(&sent, NOW).await,
        ["conflict", "accepted", "accepted"]
    );
    assert_eq!(
        ledger.rollup().await,
        [
            "user:1 2025-11-20 deed USD 2 2 2 0",
            "user:2 2025-11-20 deed USD 1 1 1 0"
        ]
    );
}

#[tokio::test]
async fn of_a_key_that_comes_twice_in_a_batch_the_first_counts() {
    let ledger = Ledger::with_users(1).await;
    let mut other = event(1, "k");
    other["cost_units"] = 9.into();
    let sent = [event(1, "k"), event(1, "k"), other.clone(), event(1, "l")];
    assert_eq!(
        ledger.ingest(&sent, NOW).await,
        ["accepted", "duplicate", "conflict", "accepted"]
    );
    let again = [other, event(1, "k"), event(1, "k")];
    assert_eq!(
        ledger.ingest(&again, NOW).await,
        ["conflict", "duplicate", "duplicate"]
    );
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 2 2 2 0"]
    );
}

#[tokio::test]
async fn what_cannot_be_billed_counts_as_an_event_and_not_as_a_billable_unit() {
    let ledger = Ledger::with_users(1).await;
    let mut free = event(1, "free");
    free["billable"] = false.into();
    free["cost_units"] = 7.into();
    free["unit_price_cents"] = 100.into();
    ledger.ingest(&[free, event(1, "k")], NOW).await;
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 2 8 1 0"]
    );
}

#[tokio::test]
async fn the_same_batch_twice_at_once_and_in_pieces_ends_in_the_same_rows() {
    let whole = Ledger::with_users(20).await;
    let batch: Vec<Value> = (0..300)
        .map(|n| {
            json!({"idempotency_key": format!("k{n}"), "user_id": n % 20 + 1, "event_type": format!("t{}", n % 3),
                   "cost_units": n % 5, "unit_price_cents": 10, "occurred_at": format!("2025-11-{:02}T00:00:00Z", n % 20 + 1)})
        })
        .collect();
    assert_eq!(whole.ingest(&batch, NOW).await, vec!["accepted"; 300]);
    let expected = whole.rollup().await;
    assert_eq!(expected.len(), 60);

    let twice = Ledger::with_users(20).await;
    let mut backwards = batch.clone();
    backwards.reverse();
    let (one, other, pieces) = tokio::join!(
        twice.ingest(&batch, NOW),
        twice.ingest(&backwards, NOW),
        async {
            let mut verdicts = Vec::new();
            for piece in batch.chunks(37) {
                verdicts.extend(twice.ingest(piece, NOW).await);
            }
            verdicts
        }
    );
    let accepted = [one, other, pieces].concat();
    let count = |verdict| accepted.iter().filter(|given| *given == verdict).count();
    assert_eq!((count("accepted"), count("duplicate")), (300, 600));
    assert_eq!(twice.rollup().await, expected);
    assert_eq!(twice.number("SELECT count(*) FROM usage_events").await, 300);
    assert_eq!(twice.differences().await, []);
}

#[tokio::test]
async fn a_key_that_somebody_takes_meanwhile_is_known_in_the_end() {
    let ledger = Ledger::with_users(1).await;
    // By hand, without the meter that every function of ours locks.
    ledger
        .run(
            "BEGIN; INSERT INTO usage_events (subject, idempotency_key, user_id, event_type, payload_sha256)
                 VALUES ('user:1', 'b', 1, 'deed', 'of something else')",
        )
        .await;
    let batch = ["a", "b", "c"].map(|key| event(1, key));
    let commit = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        ledger.run("COMMIT").await;
    };
    let (verdicts, ()) = tokio::join!(ledger.ingest(&batch, NOW), commit);
    assert_eq!(verdicts, ["accepted", "conflict", "accepted"]);
    let counted = "SELECT sum(events)::bigint FROM usage_daily";
    assert_eq!(ledger.number(counted).await, 2);
}

#[tokio::test]
async fn an_atomic_batch_is_stored_whole_or_not_at_all() {
    let ledger = Ledger::with_users(1).await;
    ledger.ingest(&[event(1, "taken")], NOW).await;
    let mut conflicting = event(1, "taken");
    conflicting["event_type"] = "page".into();
    let mut invalid = event(1, "bad");
    invalid["cost_units"] = (-1).into();
    let atomic = async |events: &[Value]| {
        let body = json!({"events": events});
        ledger.post("/usage/events?atomic=true", &body, NOW).await
    };
    let (status, body) = atomic(&[event(1, "a"), event(1, "b"), conflicting.clone()]).await;
    assert_eq!(status, 409);
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .starts_with("events[2].idempotency_key"),
        "{body}"
    );
    let (status, body) = atomic(&[event(1, "a"), conflicting, event(1, "b"), invalid]).await;
    assert_eq!(
        (status, &body["field"]),
        (422, &json!("events[3].cost_units"))
    );
    let (status, body) = atomic(&[event(1, "a"), json!(5)]).await;
    assert_eq!((status, &body["field"]), (422, &json!("events[1]")));
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 1);
    // A retry is no conflict.
    let (status, body) = atomic(&[event(1, "a"), event(1, "taken")]).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(verdicts(&body), ["accepted", "duplicate"]);
    assert_eq!(ledger.differences().await, []);
}

#[tokio::test]
async fn valid_events_of_a_batch_are_stored_beside_rejected_ones() {
    let ledger = Ledger::with_users(1).await;
    let mut invalid = event(1, "bad");
    invalid["cost_units"] = "one".into();
    let sent = json!({"events": [event(1, "a"), invalid, 7, {"user_id": 1}, event(1, "b")]});
    let (status, body) = ledger.post("/usage/events", &sent, NOW).await;
    assert_eq!(status, 200);
    let told: Vec<(&Value, &Value, &Value)> = body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| {
            (
                &result["idempotency_key"],
                &result["verdict"],
                &result["field"],
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (&json!("a"), &json!("accepted"), &json!(null)),
            (&json!("bad"), &json!("rejected"), &json!("cost_units")),
            (&json!(null), &json!("rejected"), &json!("events")),
            (&json!(null), &json!("rejected"), &json!("idempotency_key")),
            (&json!("b"), &json!("accepted"), &json!(null)),
        ]
    );
    assert_eq!(
        (&body["accepted"], &body["rejected"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 2 2 2 0"]
    );
}

#[tokio::test]
async fn days_and_months_end_at_midnight_utc() {
    let ledger = Ledger::with_users(1).await;
    let at = |key: &str, occurred_at: &str| {
        let mut event = event(1, key);
        event["occurred_at"] = occurred_at.into();
        event
    };
    let sent = [
        at("a", "2024-02-28T23:59:59.999999Z"),
        at("b", "2024-02-29T00:00:00Z"),
        at("c", "2024-02-29T23:59:59.9999999Z"),
        at("d", "2024-03-01T00:00:00Z"),
        at("e", "2025-01-01T00:30:00+01:00"),
        at("f", "2024-12-31T19:30:00-05:00"),
    ];
    assert_eq!(ledger.ingest(&sent, NOW).await, vec!["accepted"; 6]);
    assert_eq!(
        ledger.rollup().await,
        [
            "user:1 2024-02-28 deed USD 1 1 1 0",
            "user:1 2024-02-29 deed USD 2 2 2 0",
            "user:1 2024-03-01 deed USD 1 1 1 0",
            "user:1 2024-12-31 deed USD 1 1 1 0",
            "user:1 2025-01-01 deed USD 1 1 1 0",
        ]
    );
}

#[tokio::test]
async fn an_event_by_itself_and_one_of_a_batch_leave_the_same_row() {
    let ledger = Ledger::with_users(1).await;
    ledger.contract("dp_pk_alpha", "usage_events", -1).await;
    let mut said = json!({"user_id": 1, "event_type": "deed", "resource_id": "r", "billable": true, "cost_units": 3,
                          "unit_price_cents": 7, "occurred_at": "2024-02-29T12:00:00.000001Z", "metadata": {"a": [1, null]}});
    let mut partners = partner_event("dp_pk_alpha", "", "2024-02-29T23:59:59Z");
    partners["billable"] = false.into();
    partners["unit_price_cents"] = 7.into();
    for (number, event) in [&mut said, &mut partners].into_iter().enumerate() {
        let mut keyed = |key: &str| {
            event["idempotency_key"] = format!("{number}{key}").into();
            event.clone()
        };
        let alone = keyed("alone");
        let batch = json!({"events": [keyed("batch"), keyed("other")]});
        assert_eq!(ledger.post("/usage/events", &alone, NOW).await.0, 200);
        assert_eq!(ledger.post("/usage/events", &batch, NOW).await.0, 200);
    }
    assert_eq!(
        ledger
            .number(
                "SELECT count(DISTINCT to_jsonb(usage_events) - '{id,idempotency_key}'::text[]) \
                 FROM usage_events"
            )
            .await,
        2,
        "but for id and key the three of each subject are the same"
    );
    assert_eq!(
        ledger.rollup().await,
        [
            "partner:dp_pk_alpha 2024-02-29 deed EUR 3 3 0 0",
            "user:1 2024-02-29 deed USD 3 9 9 63"
        ]
    );
    assert_eq!(ledger.differences().await, []);
}

#[tokio::test]
async fn a_leap_day_is_of_its_february() {
    let ledger = Ledger::with_users(1).await;
    ledger.contract("dp_pk_alpha", "usage_events", 10).await;
    ledger
        .run(
            "INSERT INTO invoices (invoice_number, kind, contract_id, api_key_prefix, subtotal_cents, total_cents, \
             amount_due_cents, currency, status, billing_period_start, billing_period_end, finalized_at) \
             SELECT '1', 'partner', id, api_key_prefix, 0, 0, 0, 'EUR', 'open', '2020-02-01Z', '2020-03-01Z', now() \
             FROM api_partner_contracts",
        )
        .await;
    let leap = "2024-02-29T23:59:59.999999Z";
    let mut mine = event(1, "k");
    mine["occurred_at"] = "2024-02-29T00:00:00Z".into();
    mine["unit_price_cents"] = 40.into();
    let sent = [
        mine,
        partner_event("dp_pk_alpha", "a", "2024-02-29T12:00:00Z"),
        // Years old: of an invoiced February, of the day after it, of one that nobody invoiced.
        partner_event("dp_pk_alpha", "b", "2020-02-29T23:59:59.999999Z"),
        partner_event("dp_pk_alpha", "c", "2020-03-01T00:00:00Z"),
        partner_event("dp_pk_alpha", "d", "2016-02-29T12:00:00Z"),
    ];
    assert_eq!(
        ledger.ingest(&sent, leap).await,
        // The invoiced one came years after its invoice: nothing bills it any more.
        ["accepted", "accepted", "unbillable", "accepted", "accepted"]
    );
    for (now, used, resets_at) in [
        (leap, 1, "2024-03-01T00:00:00Z"),
        ("2024-03-01T00:00:00Z", 0, "2024-04-01T00:00:00Z"),
        ("2025-02-28T23:59:59.999999Z", 0, "2025-03-01T00:00:00Z"),
    ] {
        for path in ["user/1", "partner/dp_pk_alpha"] {
            let (_, body) = ledger.get(&format!("/usage/limit-check/{path}"), now).await;
            assert_eq!(
                (&body["used"], &body["resets_at"]),
                (&json!(used), &json!(resets_at)),
                "{path} at {now}"
            );
        }
    }
    let (_, months) = ledger
        .get("/usage/user/1/monthly?from=2024-02-29&to=2024-03-01", NOW)
        .await;
    assert_eq!(
        (&months[0]["month"], &months[0]["amount_cents"]),
        (&json!("2024-02"), &json!(40))
    );
    let (status, body) = ledger
        .get("/usage/user/1/monthly?from=2023-02-29&to=2023-03-01", NOW)
        .await;
    assert_eq!((status, &body["field"]), (400, &json!("from")));
}

#[tokio::test]
async fn the_future_is_rejected_from_five_minutes_on() {
    let ledger = Ledger::with_users(1).await;
    let now: Timestamp = NOW.parse().unwrap();
    for (key, ahead, verdict) in [("a", 300_000, "accepted"), ("b", 300_001, "rejected")] {
        let mut event = event(1, key);
        let at = now + SignedDuration::from_millis(ahead);
        event["occurred_at"] = at.to_string().into();
        assert_eq!(ledger.ingest(&[event], NOW).await, [verdict]);
    }
}

#[tokio::test]
async fn an_event_of_an_invoiced_month_is_late_and_stored() {
    let ledger = Ledger::create().await;
    ledger.contract("dp_pk_alpha", "usage_events", -1).await;
    ledger.contract("dp_pk_beta", "usage_events", -1).await;
    let invoice = |number: &str, month: &str, status: &str, finalized: &str| {
        format!(
            "INSERT INTO invoices (invoice_number, kind, contract_id, api_key_prefix, subtotal_cents, total_cents, \
             amount_due_cents, currency, status, billing_period_start, billing_period_end, finalized_at) \
             SELECT '{number}', 'partner', id, api_key_prefix, 0, 0, 0, 'EUR', '{status}', '{month}-01Z', \
             '{month}-01Z'::timestamptz + interval '1 month', {finalized} \
             FROM api_partner_contracts WHERE api_key_prefix = 'dp_pk_alpha';"
        )
    };
    // October is live, September void, August a draft.
    ledger
        .run(
            &[
                invoice("1", "2025-10", "open", "now()"),
                invoice("2", "2025-09", "void", "now()"),
                invoice("3", "2025-08", "draft", "NULL"),
            ]
            .concat(),
        )
        .await;
    let sent = [
        partner_event("dp_pk_alpha", "a", "2025-10-01T00:00:00Z"),
        partner_event("dp_pk_alpha", "b", "2025-10-31T23:59:59.999999Z"),
        partner_event("dp_pk_alpha", "c", "2025-11-01T00:00:00Z"),
        partner_event("dp_pk_alpha", "d", "2025-09-30T23:59:59Z"),
        partner_event("dp_pk_alpha", "e", "2025-08-15T00:00:00Z"),
        partner_event("dp_pk_beta", "f", "2025-10-15T00:00:00Z"),
        partner_event("dp_pk_alpha", "g", "2019-01-01T00:00:00Z"),
    ];
    let expected = [
        "late", "late", "accepted", "accepted", "accepted", "accepted", "accepted",
    ];
    let (_, body) = ledger
        .post("/usage/events", &json!({"events": sent}), NOW)
        .await;
    assert_eq!(verdicts(&body), expected);
    assert_eq!((&body["late"], &body["accepted"]), (&json!(2), &json!(5)));
    assert_eq!(ledger.ingest(&sent, NOW).await, vec!["duplicate"; 7]);
    assert_eq!(
        ledger
            .number("SELECT count(*) FROM usage_events WHERE currency = 'EUR'")
            .await,
        7
    );
    let single = partner_event("dp_pk_alpha", "h", "2025-10-15T00:00:00Z");
    let (status, body) = ledger.post("/usage/events", &single, NOW).await;
    assert_eq!((status, verdicts(&body)), (200, vec!["late".to_owned()]));
}

#[tokio::test]
async fn usage_that_no_invoice_will_carry_is_stored_and_says_why() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO api_partner_contracts (id, api_key_prefix, pricing_model, per_deed_price_cents, unit_source, \
             currency, contract_start_date, billed_from, contract_end_date, billable_event_types) VALUES \
             (1, 'events', 'per_deed', 250, 'usage_events', 'USD', '2025-09-11', '2025-09-11', '2025-11-15', '{deed}'), \
             (2, 'gateway', 'per_deed', 250, 'api_usage', 'USD', '2025-09-01', '2025-09-01', NULL, NULL); \
             INSERT INTO api_partner_contracts (id, api_key_prefix, pricing_model, monthly_flat_fee_cents, \
             contract_start_date, billed_from) VALUES (3, 'flat', 'flat', 5, '2025-09-01', '2025-09-01'); \
             INSERT INTO contract_changes (contract_id, members, reviewed, created_by, created_at) \
             SELECT 2, jsonb_build_object('pricing_model', 'per_deed', 'per_deed_price_cents', 250, \
                    'contract_start_date', '2025-09-01', 'status', 'active'), false, 'ops', '2025-09-01Z'; \
             INSERT INTO contract_changes (contract_id, effective_from, members, reviewed, created_by, created_at) VALUES \
             (2, '2025-10-01', '{\"unit_source\": \"usage_events\"}', false, 'ops', '2025-09-01Z'), \
             (2, '2025-10-11', '{\"status\": \"suspended\"}', false, 'ops', '2025-09-01Z'), \
             (2, '2025-10-21', '{\"status\": \"active\"}', false, 'ops', '2025-09-01Z'), \
             (2, '2025-11-01', '{\"unit_source\": \"api_usage\"}', false, 'ops', '2025-09-01Z'); \
             INSERT INTO waived_periods (contract_id, period_start, period_end, reason, waived_by, waived_at) \
             VALUES (1, '2025-10-01Z', '2025-11-01Z', 'a trial', 'ops', '2025-11-02Z'); \
             INSERT INTO invoices (invoice_number, kind, contract_id, api_key_prefix, total_cents, currency, status, \
             billing_period_start, billing_period_end, finalized_at) VALUES \
             ('1', 'partner', 1, 'events', 0, 'USD', 'open', '2025-09-11Z', '2025-10-01Z', now())",
        )
        .await;
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    for (prefix, occurred_at, event_type, verdict) in [
        ("nobody", "2025-11-01T00:00:00Z", "deed", "no_contract"),
        ("events", "2025-09-10T23:59:59Z", "deed", "before_start"),
        ("events", "2025-09-11T00:00:00Z", "deed", "late"),
        ("events", "2025-10-15T00:00:00Z", "deed", "waived"),
        ("events", "2025-11-15T23:59:59Z", "deed", "accepted"),
        (
            "events",
            "2025-11-15T23:59:59Z",
            "lien",
            "event_type_not_counted",
        ),
        ("events", "2025-11-16T00:00:00Z", "deed", "after_end"),
        ("gateway", "2025-10-05T00:00:00Z", "deed", "accepted"),
        ("gateway", "2025-10-15T00:00:00Z", "deed", "suspended"),
        ("gateway", "2025-10-25T00:00:00Z", "deed", "accepted"),
        (
            "gateway",
            "2025-11-05T00:00:00Z",
            "deed",
            "source_not_counted",
        ),
        ("flat", "2020-11-05T00:00:00Z", "deed", "accepted"),
    ] {
        let key = format!("{}", sent.len());
        let mut event = partner_event(prefix, &key, occurred_at);
        event["event_type"] = event_type.into();
        sent.push(event);
        expected.push(verdict);
    }
    let told = |body: &Value| -> Vec<String> {
        let results = body["results"].as_array().unwrap().iter();
        let word = |result: &Value| {
            let verdict = result["verdict"].as_str().unwrap();
            let reason = result["reason"].as_str();
            assert_eq!(verdict == "unbillable", reason.is_some(), "{result}");
            reason.unwrap_or(verdict).to_owned()
        };
        results.map(word).collect()
    };
    let (status, body) = ledger
        .post("/usage/events", &json!({"events": sent}), NOW)
        .await;
    assert_eq!(
        (status, told(&body)),
        (
            200,
            expected.iter().map(|word| (*word).to_owned()).collect()
        )
    );
    assert_eq!(
        (&body["unbillable"], &body["accepted"], &body["late"]),
        (&json!(7), &json!(4), &json!(1))
    );
    assert_eq!(
        ledger.number("SELECT count(*) FROM usage_events").await,
        12,
        "all of them are stored"
    );
    // A day more than 396 days after the period's end, and what nobody wants billed.
    let too_late = partner_event("events", "late", "2025-09-20T00:00:00Z");
    let (_, body) = ledger
        .post("/usage/events", &too_late, "2026-11-01T00:00:00Z")
        .await;
    assert_eq!(told(&body), ["late"]);
    let too_late = partner_event("events", "too late", "2025-09-20T00:00:00Z");
    let (_, body) = ledger
        .post("/usage/events", &too_late, "2026-11-01T00:00:01Z")
        .await;
    assert_eq!(told(&body), ["too_late"]);
    let mut free = partner_event("nobody", "free", "2025-11-01T00:00:00Z");
    free["billable"] = false.into();
    let (_, body) = ledger.post("/usage/events", &free, NOW).await;
    assert_eq!(told(&body), ["accepted"]);
}

#[tokio::test]
async fn the_predecessors_query_form_brings_one_event() {
    let ledger = Ledger::with_users(1).await;
    let path = "/usage/events?user_id=1&event_type=deed&resource_id=r%2F1&billable=True&cost_units=2\
                &unit_price_cents=300&metadata=%7B%22county%22%3A%22Kings%22%7D&idempotency_key=k";
    let send = async |path: &str, header: Option<&str>, id: &str| {
        let text = include_str!("../../../../events/apigw_usage_events_query.json");
        let mut request =
            lambda_http::request::from_str(&text.replace("Kx2mTh1YIAMEV9x=", id)).unwrap();
        *request.uri_mut() = format!("https://billing.example.com{path}")
            .parse()
            .unwrap();
        request
            .headers_mut()
            .insert("authorization", service().parse().unwrap());
        if let Some(header) = header {
            request
                .headers_mut()
                .insert("idempotency-key", header.parse().unwrap());
        }
        let response = handle(&ledger.app, request, NOW.parse().unwrap()).await;
        (response.status().as_u16(), body(&response))
    };
    for verdict in ["accepted", "duplicate"] {
        let (status, body) = send(path, None, "id-1").await;
        assert_eq!(
            (status, verdicts(&body)),
            (200, vec![verdict.to_owned()]),
            "{body}"
        );
    }
    // The body's form of the same says the same.
    let same = json!({"user_id": 1, "event_type": "deed", "resource_id": "r/1", "cost_units": 2,
                      "unit_price_cents": 300, "metadata": {"county": "Kings"}, "idempotency_key": "k"});
    assert_eq!(ledger.ingest(&[same], NOW).await, ["duplicate"]);
    let bare = "/usage/events?user_id=1&event_type=deed";
    for (header, id, key) in [
        (Some("from-header"), "id-2", "from-header"),
        (None, "id-3", "id-3"),
    ] {
        let (_, body) = send(bare, header, id).await;
        assert_eq!(
            body["results"][0],
            json!({"idempotency_key": key, "verdict": "accepted"})
        );
    }
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 3 4 4 600"]
    );
    for (query, status, field) in [
        ("user_id=x&event_type=deed", 400, "user_id"),
        (
            "user_id=1&event_type=deed&billable=perhaps",
            400,
            "billable",
        ),
        ("user_id=1&event_type=deed&metadata=%7B", 400, "metadata"),
        ("user_id=1&event_type=deed&price=1", 400, "price"),
        ("user_id=1&user_id=2&event_type=deed", 400, "user_id"),
        ("user_id=1&event_type=deed&cost_units=-1", 422, "cost_units"),
        ("user_id=1&event_type=deed&metadata=5", 422, "metadata"),
        ("user_id=1&event_type=", 422, "event_type"),
        ("event_type=deed", 422, "user_id"),
    ] {
        let (got, body) = send(&format!("/usage/events?{query}"), None, "id-4").await;
        assert_eq!(
            (got, &body["field"]),
            (status, &json!(field)),
            "{query} {body}"
        );
    }
}

#[tokio::test]
async fn without_a_gateway_the_query_form_needs_a_key() {
    let ledger = Ledger::with_users(1).await;
    let request = request(
        "POST",
        "/usage/events?user_id=1&event_type=deed",
        Some(&service()),
        None,
    );
    let (status, body) = ledger.call(request, NOW).await;
    assert_eq!((status, &body["field"]), (422, &json!("idempotency_key")));
}

#[tokio::test]
async fn the_currency_is_the_plans_or_the_contracts() {
    let ledger = Ledger::with_users(1).await;
    ledger
        .run(
            "INSERT INTO plan_limits (plan_name, currency) VALUES ('euro', 'EUR'); \
              INSERT INTO users (id, plan) VALUES (2, 'euro'), (3, 'unheard of'), (4, NULL)",
        )
        .await;
    ledger.contract("dp_pk_alpha", "usage_events", -1).await;
    let sent = [
        event(1, "k"),
        event(2, "k"),
        event(3, "k"),
        event(4, "k"),
        event(99, "k"),
        partner_event("dp_pk_alpha", "k", NOW),
        partner_event("stranger", "k", NOW),
    ];
    let mut verdicts = vec!["accepted"; 6];
    verdicts.push("unbillable");
    assert_eq!(ledger.ingest(&sent, NOW).await, verdicts);
    let currencies: Vec<String> = ledger
        .client
        .query(
            "SELECT subject || ' ' || currency FROM usage_events ORDER BY subject",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(
        currencies,
        [
            "partner:dp_pk_alpha EUR",
            "partner:stranger USD",
            "user:1 USD",
            "user:2 EUR",
            "user:3 USD",
            "user:4 USD",
            "user:99 USD"
        ]
    );
}

#[tokio::test]
async fn a_sum_beyond_the_range_stores_nothing_and_is_not_our_mistake() {
    let ledger = Ledger::with_users(1).await;
    ledger
        .run(
            "INSERT INTO usage_daily (subject, day, event_type, currency, amount_cents) \
              VALUES ('user:1', '2025-11-20', 'deed', 'USD', 9223372036854775000)",
        )
        .await;
    let mut large = event(1, "k");
    large["unit_price_cents"] = 1_000.into();
    for sent in [
        large.clone(),
        json!({"events": [event(1, "a"), large, event(1, "z")]}),
    ] {
        let (status, body) = ledger.post("/usage/events", &sent, NOW).await;
        assert_eq!(
            (status, &body["field"]),
            (422, &json!("cost_units")),
            "{body}"
        );
    }
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 0);
}

#[tokio::test]
async fn while_the_database_is_away_the_answer_is_503_and_a_retry_counts_once() {
    let ledger = Ledger::with_users(1).await;
    let (proxy, url) = ledger.database.behind_proxy();
    let app = crate::ledger::app(&url, &[]);
    proxy.cut_on_commit();
    let lost = crate::ledger::call(&app, post("/usage/events", &event(1, "k")), NOW).await;
    assert_eq!(lost.0, 503, "{lost:?}");
    proxy.pass();
    // Whether the commit got through is not known; the retry is right in both cases.
    let (status, body) =
        crate::ledger::call(&app, post("/usage/events", &event(1, "k")), NOW).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 1 1 1 0"]
    );
}
