//! What a caller gets wrong: a 4xx that names the member, and nothing stored.

use serde_json::{Value, json};

use crate::ledger::{Ledger, NOW, event, request, service};

#[tokio::test]
async fn a_body_that_is_no_json_object_is_a_400() {
    let ledger = Ledger::create().await;
    for path in ["/usage/events", "/usage/reserve", "/usage/events/k/void"] {
        for text in [
            "{",
            "[]",
            "null",
            "5",
            "\"x\"",
            "{\"events\":[1,]}",
            "\u{0}",
        ] {
            let sent = request("POST", path, Some(&service()), Some(text.to_owned()));
            let (status, body) = ledger.call(sent, NOW).await;
            assert_eq!(
                (status, &body["code"]),
                (400, &json!("invalid_json")),
                "{path} {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_list_is_of_1_to_1000_events_and_stands_alone() {
    let ledger = Ledger::create().await;
    let many: Vec<Value> = (0..1_001).map(|n| event(1, &format!("k{n}"))).collect();
    for (sent, field) in [
        (json!({"events": many}), "events"),
        (json!({"events": []}), "events"),
        (json!({"events": {}}), "events"),
        (json!({"events": null}), "events"),
        (json!({"events": [event(1, "k")], "user_id": 1}), "user_id"),
    ] {
        let (status, body) = ledger.post("/usage/events", &sent, NOW).await;
        assert_eq!((status, &body["field"]), (422, &json!(field)));
    }
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 0);
    let (status, body) = ledger
        .post("/usage/events", &json!({"events": many[..1_000]}), NOW)
        .await;
    assert_eq!((status, &body["accepted"]), (200, &json!(1_000)));
}

#[tokio::test]
async fn an_event_is_an_object_and_no_list_of_its_members() {
    let ledger = Ledger::with_users(1).await;
    let in_order = json!(["k", 1, null, "deed", null, true, 1, 25, null, null]);
    let sent = json!({"events": [event(1, "a"), in_order]});
    let (status, body) = ledger.post("/usage/events", &sent, NOW).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        body["results"][1],
        json!({"idempotency_key": null, "verdict": "rejected", "field": "events", "message": "an object"})
    );
    assert_eq!(body["accepted"], 1);
    let (status, body) = ledger
        .post("/usage/events", &json!([[event(1, "b")]]), NOW)
        .await;
    assert_eq!(status, 400, "{body}");
}

#[tokio::test]
async fn every_member_of_an_event_is_checked_alone_and_in_its_place() {
    let ledger = Ledger::with_users(1).await;
    for (n, (member, value)) in [
        ("idempotency_key", json!(1)),
        ("user_id", json!("1")),
        ("api_key_prefix", json!("both")),
        ("event_type", json!("")),
        ("resource_id", json!("x".repeat(256))),
        ("billable", json!("yes")),
        ("cost_units", json!(-1)),
        ("unit_price_cents", json!(0.5)),
        ("occurred_at", json!("yesterday")),
        ("metadata", json!([])),
        ("colour", json!("red")),
    ]
    .into_iter()
    .enumerate()
    {
        let field = if member == "api_key_prefix" {
            "user_id"
        } else {
            member
        };
        let mut bad = event(1, "bad");
        bad[member] = value;
        let (status, body) = ledger.post("/usage/events", &bad, NOW).await;
        assert_eq!((status, &body["field"]), (422, &json!(field)));
        let good = event(1, &format!("good{n}"));
        let batch = json!({"events": [good, bad]});
        let (status, body) = ledger.post("/usage/events?atomic=true", &batch, NOW).await;
        assert_eq!(
            (status, &body["field"]),
            (422, &json!(format!("events[1].{field}")))
        );
        let (status, body) = ledger.post("/usage/events", &batch, NOW).await;
        assert_eq!(status, 200);
        assert_eq!(body["results"][0]["verdict"], "accepted");
        assert_eq!(body["results"][1]["field"], json!(field));
        assert!(body["results"][1]["message"].is_string());
    }
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 11);
}

#[tokio::test]
async fn of_a_batch_every_wrong_type_range_and_length_is_named_in_its_place() {
    let ledger = Ledger::with_users(1).await;
    let wrong_types = |but: &[Value]| -> Vec<Value> {
        let all = [
            json!("x"),
            json!(1),
            json!(1.5),
            json!(true),
            json!([]),
            json!({}),
        ];
        all.into_iter()
            .filter(|value| !but.contains(value))
            .collect()
    };
    let text = || wrong_types(&[json!("x")]);
    let number = || wrong_types(&[json!(1)]);
    let cases = [
        (
            "idempotency_key",
            [
                text(),
                vec![json!(""), json!("x".repeat(256)), json!("a\u{7}")],
            ],
        ),
        (
            "user_id",
            [
                number(),
                vec![json!(0), json!(-1), json!(2_147_483_648_i64)],
            ],
        ),
        (
            "event_type",
            [text(), vec![json!(""), json!("x".repeat(101)), json!(null)]],
        ),
        ("resource_id", [text(), vec![json!("x".repeat(256))]]),
        ("billable", [wrong_types(&[json!(true)]), vec![]]),
        (
            "cost_units",
            [
                number(),
                vec![json!(-1), json!(1_000_000_001), json!(u64::MAX)],
            ],
        ),
        (
            "unit_price_cents",
            [number(), vec![json!(-1), json!(1_000_000_000_000_001_i64)]],
        ),
        (
            "occurred_at",
            [
                wrong_types(&[]),
                vec![json!("2025-02-29T00:00:00Z"), json!("2025-11-20T24:00:00Z")],
            ],
        ),
        (
            "metadata",
            [
                wrong_types(&[json!({})]),
                vec![json!({"x": "x".repeat(16 * 1024)})],
            ],
        ),
    ];
    let mut events = vec![event(1, "first")];
    let mut expected = vec![None];
    for (member, values) in cases {
        for (number, value) in values.concat().into_iter().enumerate() {
            let mut bad = event(1, &format!("{member}{number}"));
            bad[member] = value;
            events.push(bad);
            expected.push(Some(member));
        }
    }
    for value in text() {
        events.push(json!({"idempotency_key": "p", "api_key_prefix": value, "event_type": "deed"}));
        expected.push(Some("api_key_prefix"));
    }
    let neither = json!({"idempotency_key": "n", "event_type": "deed"});
    let both =
        json!({"idempotency_key": "b", "event_type": "deed", "user_id": 1, "api_key_prefix": "p"});
    events.extend([neither, both, event(1, "last")]);
    expected.extend([Some("user_id"), Some("user_id"), None]);

    let (status, body) = ledger
        .post("/usage/events", &json!({"events": events}), NOW)
        .await;
    assert_eq!(status, 200, "{body}");
    let rejected = expected.iter().flatten().count();
    assert_eq!(
        (&body["accepted"], &body["rejected"]),
        (&json!(2), &json!(rejected))
    );
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), expected.len());
    for ((result, expected), event) in results.iter().zip(&expected).zip(&events) {
        assert_eq!(result["field"].as_str(), *expected, "{event}");
        assert_eq!(result["message"].is_string(), expected.is_some(), "{event}");
    }
    // All or nothing: a 422 that names the place of the first, whichever it is.
    for (index, field) in expected
        .iter()
        .enumerate()
        .filter_map(|(n, field)| Some((n, (*field)?)))
    {
        let mut batch: Vec<Value> = (0..index).map(|n| event(1, &format!("good{n}"))).collect();
        batch.push(events[index].clone());
        let (status, body) = ledger
            .post("/usage/events?atomic=true", &json!({"events": batch}), NOW)
            .await;
        let place = format!("events[{index}].{field}");
        assert_eq!((status, &body["field"]), (422, &json!(place)));
    }
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 2);
}

#[tokio::test]
async fn a_reservation_says_what_is_wrong_with_it() {
    let ledger = Ledger::with_users(1).await;
    for (member, value) in [
        ("user_id", json!(null)),
        ("user_id", json!(0)),
        ("user_id", json!(4_294_967_296_i64)),
        ("units", json!(0)),
        ("units", json!(-1)),
        ("units", json!(1_000_000_001)),
        ("units", json!(null)),
        ("units", json!("1")),
        ("event_type", json!(null)),
        ("event_type", json!("a\tb")),
        ("idempotency_key", json!("")),
        ("idempotency_key", json!(null)),
        ("accept_overage", json!("true")),
        ("price", json!(1)),
    ] {
        let mut body =
            json!({"user_id": 1, "units": 1, "event_type": "deed", "idempotency_key": "k"});
        body[member] = value;
        let (status, answer) = ledger.post("/usage/reserve", &body, NOW).await;
        assert_eq!((status, &answer["field"]), (422, &json!(member)), "{body}");
    }
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 0);
}

#[tokio::test]
async fn a_void_says_what_is_wrong_with_it() {
    let ledger = Ledger::create().await;
    for (body, field) in [
        (json!({"reason": "r"}), "subject"),
        (json!({"subject": "alpha", "reason": "r"}), "subject"),
        (json!({"subject": "user:x", "reason": "r"}), "subject"),
        (json!({"subject": "user:1"}), "reason"),
        (json!({"subject": "user:1", "reason": ""}), "reason"),
        (
            json!({"subject": "user:1", "reason": "x".repeat(501)}),
            "reason",
        ),
        (
            json!({"subject": "user:1", "reason": "r", "by": "me"}),
            "by",
        ),
    ] {
        let (status, answer) = ledger.post("/usage/events/k/void", &body, NOW).await;
        assert_eq!((status, &answer["field"]), (422, &json!(field)));
    }
}

#[tokio::test]
async fn parameters_are_known_and_readable_or_a_400() {
    let ledger = Ledger::with_users(1).await;
    for (path, field) in [
        ("/usage/limit-check/user/x", "id"),
        ("/usage/limit-check/user/0", "id"),
        ("/usage/limit-check/user/1?units=1", "units"),
        ("/usage/limit-check/partner/p?units=1", "units"),
        ("/usage/overage/quote", "user_id"),
        ("/usage/overage/quote?user_id=1", "units"),
        ("/usage/overage/quote?user_id=1&units=0", "units"),
        ("/usage/overage/quote?user_id=1&units=%2B1", "units"),
        ("/usage/overage/quote?user_id=1&units=1000000001", "units"),
        ("/usage/overage/quote?user_id=-1&units=1", "user_id"),
        ("/usage/user/x/monthly", "id"),
        ("/usage/user/1/monthly?from=x", "from"),
        ("/usage/user/1/monthly?from=2025-13", "from"),
        ("/usage/user/1/monthly?from=2025-11-01T00:00:00Z", "from"),
        (
            "/usage/user/1/monthly?from=2025-11-02&to=2025-11-01",
            "from",
        ),
        ("/usage/user/1/monthly?from=2020-10&to=2025-10", "from"),
        ("/usage/user/1/monthly?to=9999-12-31", "to"),
        ("/usage/user/1/monthly?month=2025-11", "month"),
        ("/usage/partner/p/monthly?to=soon", "to"),
    ] {
        let (status, body) = ledger.get(path, NOW).await;
        assert_eq!((status, &body["field"]), (400, &json!(field)), "{path}");
    }
    let sent = event(1, "k");
    let (status, body) = ledger
        .post("/usage/events?atomic=perhaps", &sent, NOW)
        .await;
    assert_eq!((status, &body["field"]), (400, &json!("atomic")));
    let (status, body) = ledger.post("/usage/events?user_id=1", &sent, NOW).await;
    assert_eq!((status, &body["field"]), (400, &json!("user_id")));
}
