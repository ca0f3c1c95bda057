//! Generated histories: whatever is sent, in whatever order, the rollup is the sum of its events.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::ledger::{Ledger, NOW};

/// What a history is made of. Few keys and subjects, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    /// Events by (subject, key, variant); several make a batch.
    Send(Vec<(u8, u8, u8)>),
    /// The same, all or nothing.
    SendAtomically(Vec<(u8, u8, u8)>),
    /// Two batches at once.
    SendTwiceAtOnce(Vec<(u8, u8, u8)>),
    /// An event by (subject, key).
    Void(u8, u8),
    /// Units for a user, overage accepted or not.
    Reserve(u8, u8, u8, bool),
}

const SUBJECTS: u8 = 4;
const KEYS: u8 = 6;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let events = || prop::collection::vec((0..SUBJECTS, 0..KEYS, 0..5_u8), 1..8);
    let step = prop_oneof![
        4 => events().prop_map(Step::Send),
        1 => events().prop_map(Step::SendAtomically),
        2 => events().prop_map(Step::SendTwiceAtOnce),
        2 => (0..SUBJECTS, 0..KEYS).prop_map(|(subject, key)| Step::Void(subject, key)),
        2 => (0..2_u8, 0..KEYS, 1..4_u8, any::<bool>())
            .prop_map(|(user, key, units, overage)| Step::Reserve(user, key, units, overage)),
    ];
    prop::collection::vec(step, 1..14)
}

/// Two users and two partners; partner `a` has October invoiced.
fn subject(number: u8) -> (&'static str, Value) {
    match number {
        0 => ("user:1", json!({"user_id": 1})),
        1 => ("user:2", json!({"user_id": 2})),
        2 => ("partner:a", json!({"api_key_prefix": "a"})),
        _ => ("partner:b", json!({"api_key_prefix": "b"})),
    }
}

/// Late ones, others' days, unbillable ones, ones that are rejected.
fn event((who, key, variant): (u8, u8, u8)) -> Value {
    let mut event = subject(who).1;
    event["idempotency_key"] = format!("k{key}").into();
    event["event_type"] = if variant == 1 { "page" } else { "deed" }.into();
    event["cost_units"] = (variant + 1).into();
    event["unit_price_cents"] = 10.into();
    event["billable"] = (variant != 2).into();
    event["occurred_at"] = match variant {
        0 | 1 => NOW,
        2 => "2025-10-31T23:59:59Z",
        3 => "2024-02-29T12:00:00Z",
        _ => "2026-01-01T00:00:00Z",
    }
    .into();
    event
}

fn events(specs: &[(u8, u8, u8)]) -> Value {
    let events: Vec<Value> = specs.iter().map(|spec| event(*spec)).collect();
    json!({"events": events})
}

/// Key of an event in the model: subject and idempotency key.
type Model = BTreeMap<(u8, u8), u8>;

/// Whether the answer gives the verdicts a model of plain maps gives. Reserved keys are the server's to know.
fn check_verdicts(model: &mut Model, specs: &[(u8, u8, u8)], body: &Value, reserved: &[(u8, u8)]) {
    for (spec, result) in specs
        .iter()
        .zip(body["results"].as_array().expect("results"))
    {
        let (who, key, variant) = *spec;
        let verdict = result["verdict"].as_str().expect("a verdict");
        let expected = if variant == 4 {
            "rejected"
        } else if reserved.contains(&(who, key)) {
            "conflict"
        } else {
            match model.get(&(who, key)) {
                Some(stored) if *stored == variant => "duplicate",
                Some(_) => "conflict",
                None => {
                    model.insert((who, key), variant);
                    match (who, variant) {
                        (2, 2) => "late",
                        // Partner `b` has no contract; what is not billable is nobody's loss.
                        (3, 0 | 1 | 3) => "unbillable",
                        _ => "accepted",
                    }
                }
            }
        };
        assert_eq!(verdict, expected, "{spec:?} in {body}");
    }
}

async fn play(ledger: &Ledger, steps: &[Step]) {
    ledger
        .run("TRUNCATE usage_events, usage_daily, usage_alerts, outbox, audit_log")
        .await;
    let mut model = Model::new();
    let mut reserved: Vec<(u8, u8)> = Vec::new();
    for step in steps {
        match step {
            Step::Send(specs) => {
                let (status, body) = ledger.post("/usage/events", &events(specs), NOW).await;
                assert_eq!(status, 200, "{body}");
                check_verdicts(&mut model, specs, &body, &reserved);
            }
            Step::SendAtomically(specs) => {
                let before = ledger.rollup().await;
                let path = "/usage/events?atomic=true";
                let (status, body) = ledger.post(path, &events(specs), NOW).await;
                if status == 200 {
                    check_verdicts(&mut model, specs, &body, &reserved);
                } else {
                    assert!([409, 422].contains(&status), "{body}");
                    assert_eq!(ledger.rollup().await, before, "nothing of it is stored");
                }
            }
            Step::SendTwiceAtOnce(specs) => {
                let body = events(specs);
                let (one, two) = tokio::join!(
                    ledger.post("/usage/events", &body, NOW),
                    ledger.post("/usage/events", &body, NOW)
                );
                assert_eq!((one.0, two.0), (200, 200));
                // Each new key is accepted in one of the two requests; then both get the same answer.
                let mut both = Model::clone(&model);
                let first = one.1["results"].as_array().expect("results");
                let second = two.1["results"].as_array().expect("results");
                for ((spec, one), two) in specs.iter().zip(first).zip(second) {
                    let (who, key, variant) = *spec;
                    let is_new = |result: &Value| {
                        ["accepted", "late", "unbillable"]
                            .iter()
                            .any(|new| result["verdict"] == *new)
                    };
                    assert!(!(is_new(one) && is_new(two)), "{spec:?}");
                    if is_new(one) || is_new(two) {
                        assert_eq!(both.insert((who, key), variant), None, "{spec:?}");
                    }
                }
                model = both;
            }
            Step::Void(who, key) => {
                let path = format!("/usage/events/k{key}/void");
                let body = json!({"subject": subject(*who).0, "reason": "a step"});
                let (status, answer) = ledger.post(&path, &body, NOW).await;
                let is_there =
                    model.contains_key(&(*who, *key)) || reserved.contains(&(*who, *key));
                assert_eq!(status, if is_there { 200 } else { 404 }, "{answer}");
            }
            Step::Reserve(user, key, units, accept_overage) => {
                let user_id = i32::from(*user) + 1;
                let (status, body) = ledger
                    .reserve(
                        user_id,
                        i64::from(*units),
                        &format!("k{key}"),
                        *accept_overage,
                    )
                    .await;
                assert!([200, 402, 409].contains(&status), "{body}");
                let place = (*user, *key);
                if status == 200 && !reserved.contains(&place) {
                    assert!(!model.contains_key(&place), "an event's key was reserved");
                    reserved.push(place);
                }
            }
        }
        let differences = ledger.differences().await;
        assert!(differences.is_empty(), "after {step:?}: {differences:?}");
    }
}

#[test]
fn after_any_history_the_rollup_is_the_sum_of_its_events() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ledger = runtime.block_on(async {
        let ledger = Ledger::with_users(2).await;
        ledger.contract("a", "usage_events", 9).await;
        ledger
            .run("INSERT INTO invoices (invoice_number, kind, contract_id, subtotal_cents, total_cents, amount_due_cents, \
                  currency, status, billing_period_start, billing_period_end, finalized_at) \
                  SELECT 'one', 'partner', id, 0, 0, 0, 'EUR', 'open', '2025-10-01Z', '2025-11-01Z', now() \
                  FROM api_partner_contracts")
            .await;
        ledger
    });
    // Proptest prints the seed and the shrunk history of a failure.
    let mut runner = TestRunner::new(Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    });
    let played = runner.run(&steps(), |steps| {
        runtime.block_on(play(&ledger, &steps));
        Ok(())
    });
    if let Err(failure) = played {
        panic!("{failure}");
    }
    // Dropped inside the runtime that its connections live in.
    runtime.block_on(async move { drop(ledger) });
}
