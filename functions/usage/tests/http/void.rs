//! Taking events back.

use serde_json::json;

use crate::ledger::{Ledger, NOW, event, partner_event};

#[tokio::test]
async fn a_voided_event_stays_and_counts_nowhere() {
    let ledger = Ledger::with_users(1).await;
    let mut dear = event(1, "a/b");
    dear["cost_units"] = 3.into();
    dear["unit_price_cents"] = 250.into();
    ledger.ingest(&[dear.clone(), event(1, "c")], NOW).await;
    let body = json!({"subject": "user:1", "reason": "entered twice"});
    let path = "/usage/events/a%2Fb/void";
    let expected = json!({"idempotency_key": "a/b", "subject": "user:1", "voided_at": "2025-11-21T00:00:00Z",
                          "reason": "entered twice"});
    let (status, answer) = ledger.post(path, &body, "2025-11-21T00:00:00Z").await;
    assert_eq!((status, &answer), (200, &expected));
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 1 1 1 0"]
    );
    // Again, for another reason: the same answer, and nothing is taken off twice.
    let again = json!({"subject": "user:1", "reason": "another"});
    let (status, answer) = ledger.post(path, &again, "2025-11-22T00:00:00Z").await;
    assert_eq!((status, &answer), (200, &expected));
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 1 1 1 0"]
    );
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 2);
    // Its key stays taken.
    assert_eq!(ledger.ingest(&[dear], NOW).await, ["duplicate"]);
    assert_eq!(ledger.differences().await, []);
    let audit: String = ledger
        .client
        .query_one(
            "SELECT concat_ws(' ', count(*), min(actor), min(action), min(after ->> 'void_reason'), \
             min(after ->> 'idempotency_key')) FROM audit_log",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(audit, "1 service usage_event.void entered twice a/b");
}

#[tokio::test]
async fn voiding_frees_the_quota() {
    let ledger = Ledger::with_users(1).await;
    ledger.reserve(1, 5, "a", false).await;
    assert_eq!(ledger.reserve(1, 1, "b", false).await.0, 402);
    ledger
        .post(
            "/usage/events/a/void",
            &json!({"subject": "user:1", "reason": "not used"}),
            NOW,
        )
        .await;
    assert_eq!(
        ledger.get("/usage/limit-check/user/1", NOW).await.1["used"],
        0
    );
    assert_eq!(ledger.get("/usage/user/1/monthly", NOW).await.1, json!([]));
    assert_eq!(ledger.reserve(1, 5, "b", false).await.0, 200);
    // Its units are somebody else's by now: the key is spent.
    let (status, spent) = ledger.reserve(1, 5, "a", false).await;
    assert_eq!(
        (status, &spent["code"]),
        (409, &json!("reservation_voided"))
    );
    let (status, other) = ledger.reserve(1, 4, "a", false).await;
    assert_eq!(
        (status, &other["code"]),
        (409, &json!("idempotency_key_reused"))
    );
}

#[tokio::test]
async fn with_a_reservation_goes_the_part_of_it_that_is_charged() {
    let ledger = Ledger::with_users(1).await;
    // 5 are free: 4, then 1 free and 2 charged. Another's own key that looks alike is another event.
    assert_eq!(ledger.reserve(1, 4, "a", false).await.0, 200);
    assert_eq!(ledger.reserve(1, 3, "b", true).await.0, 200);
    let plain = json!({"idempotency_key": "a:overage", "user_id": 1, "event_type": "deed", "occurred_at": NOW});
    assert_eq!(ledger.ingest(&[plain], NOW).await, ["accepted"]);
    let body = json!({"subject": "user:1", "reason": "a test"});
    for key in ["a", "b", "b"] {
        let (status, answer) = ledger
            .post(&format!("/usage/events/{key}/void"), &body, NOW)
            .await;
        assert_eq!((status, &answer["idempotency_key"]), (200, &json!(key)));
    }
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 1 1 1 0"]
    );
    assert_eq!(ledger.differences().await, []);
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'usage_event.void'";
    assert_eq!(ledger.number(audited).await, 3);
    // The charged part alone, and then the rest.
    assert_eq!(ledger.reserve(1, 6, "c", true).await.0, 200);
    for (key, remaining) in [("c:overage", 5), ("c", 1)] {
        assert_eq!(
            ledger
                .post(&format!("/usage/events/{key}/void"), &body, NOW)
                .await
                .0,
            200
        );
        assert_eq!(
            ledger
                .number("SELECT sum(billable_units)::bigint FROM usage_daily")
                .await,
            remaining
        );
    }
}

#[tokio::test]
async fn voids_at_once_take_an_event_off_once() {
    let ledger = Ledger::create().await;
    ledger
        .ingest(
            &[partner_event("p", "a", NOW), partner_event("p", "b", NOW)],
            NOW,
        )
        .await;
    let body = json!({"subject": "partner:p", "reason": "r"});
    let void = || ledger.post("/usage/events/a/void", &body, NOW);
    let (one, two, three) = tokio::join!(void(), void(), void());
    assert_eq!((one.0, &one, &two), (200, &two, &three));
    assert_eq!(
        ledger.rollup().await,
        ["partner:p 2025-11-20 deed USD 1 1 1 0"]
    );
    assert_eq!(ledger.number("SELECT count(*) FROM audit_log").await, 1);
}

#[tokio::test]
async fn what_is_not_there_is_a_404() {
    let ledger = Ledger::create().await;
    ledger.ingest(&[event(1, "a")], NOW).await;
    for (path, subject) in [
        ("/usage/events/b/void", "user:1"),
        ("/usage/events/a/void", "user:2"),
        ("/usage/events/a/void", "partner:1"),
        ("/usage/events/%00/void", "user:1"),
    ] {
        let (status, _) = ledger
            .post(path, &json!({"subject": subject, "reason": "r"}), NOW)
            .await;
        assert_eq!(status, 404, "{path} {subject}");
    }
    assert_eq!(ledger.number("SELECT count(*) FROM audit_log").await, 0);
}
