//! Events that are not ours: kept, seen, and without any effect.

use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use fake_stripe::{Account, Shape};
use jiff::Timestamp;
use serde_json::{Value, json};
use testing::ledger_rows;

use super::bundle::{Webhook, deliver};

/// What one payment makes, in a shape; each event is of this mode.
fn payment(name: &str, amount: i64, is_live: bool, shape: Shape) -> Vec<Value> {
    let mut account = Account::new(name, "2026-10-01T00:00:00Z".parse().unwrap());
    let customer = account.create_customer(None, None, Metadata::new());
    account
        .pay_once(&customer, amount, "usd", Outcome::Succeeds)
        .unwrap();
    let mut events = account.events(shape);
    for event in &mut events {
        event["livemode"] = is_live.into();
    }
    events
}

async fn gross(webhook: &Webhook) -> i64 {
    let client = webhook.database.client().await;
    let gross = "SELECT COALESCE(sum(gross_cents), 0)::bigint FROM revenue_daily";
    client.query_one(gross, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_test_charge_is_no_revenue_of_a_live_ledger() {
    for shape in Shape::ALL {
        let ours = payment("Live", 4_000, true, shape);
        let theirs = payment("Test", 990_000, false, shape);
        let live = Webhook::start_with(1, &[("STRIPE_LIVEMODE", "true")]).await;
        let only_ours = Webhook::start_with(1, &[("STRIPE_LIVEMODE", "true")]).await;
        let app = live.sandbox(0);
        for event in &theirs {
            let answer = deliver(&app, event.to_string()).await;
            assert_eq!(
                answer,
                (200, json!({"received": true, "outcome": "ignored"}))
            );
        }
        for event in &ours {
            deliver(&app, event.to_string()).await;
            deliver(&only_ours.sandbox(0), event.to_string()).await;
        }
        // The second time as the first: nothing.
        for event in &theirs {
            let answer = deliver(&app, event.to_string()).await;
            assert_eq!(
                answer,
                (200, json!({"received": true, "outcome": "duplicate"}))
            );
        }
        assert_eq!(gross(&live).await, 4_000, "{shape:?}");
        let client = live.database.client().await;
        let foreign = "SELECT count(*) FROM stripe_events WHERE outcome = 'foreign'";
        let foreign: i64 = client.query_one(foreign, &[]).await.unwrap().get(0);
        assert_eq!(foreign, i64::try_from(theirs.len()).unwrap());
        // All else is as if they had never come.
        client
            .execute("DELETE FROM stripe_events WHERE outcome = 'foreign'", &[])
            .await
            .unwrap();
        let other = only_ours.database.client().await;
        assert_eq!(
            ledger_rows(&client).await.unwrap(),
            ledger_rows(&other).await.unwrap(),
            "{shape:?}"
        );
    }
}

#[tokio::test]
async fn an_event_of_another_account_is_not_ours() {
    let named = |name: &str, member: &str, value: &str| {
        let mut events = payment(name, 1_000, false, Shape::Endive);
        for event in &mut events {
            event[member] = value.into();
        }
        events
    };
    let deliveries = [
        (named("A", "account", "acct_ours"), true),
        (named("B", "account", "acct_other"), false),
        (named("C", "context", "acct_ours"), true),
        (named("D", "context", "org_1/acct_ours/acct_other"), false),
        (payment("E", 1_000, false, Shape::Endive), true),
    ];
    for (account, expected) in [("acct_ours", 3_000), ("", 1_000)] {
        let webhook = Webhook::start_with(1, &[("STRIPE_ACCOUNT", account)]).await;
        for (events, is_ours) in &deliveries {
            for event in events {
                let (status, answer) = deliver(&webhook.sandbox(0), event.to_string()).await;
                assert_eq!(status, 200);
                if !is_ours {
                    assert_eq!(answer["outcome"], "ignored");
                }
            }
        }
        assert_eq!(gross(&webhook).await, expected, "STRIPE_ACCOUNT={account}");
    }
}

/// What is not ours has no say in which of two snapshots of one second came last.
#[tokio::test]
async fn a_foreign_event_of_the_same_second_decides_nothing() {
    let invoice = |event_id: &str, is_live: bool, status: &str| {
        json!({"id": event_id, "object": "event", "type": "invoice.updated", "livemode": is_live,
            "created": 1_780_000_000, "data": {"object": {"id": "in_1", "object": "invoice",
            "customer": "cus_1", "currency": "usd", "status": status, "amount_due": 1_000,
            "amount_paid": 0, "amount_remaining": 1_000, "subtotal": 1_000, "total": 1_000,
            "created": 1_780_000_000, "number": "A-1", "lines": {"data": [], "has_more": false}}}})
    };
    let webhook = Webhook::start_with(1, &[("STRIPE_LIVEMODE", "true")]).await;
    let app = webhook.sandbox(0);
    deliver(&app, invoice("evt_2", false, "void").to_string()).await;
    deliver(&app, invoice("evt_1", true, "open").to_string()).await;
    deliver(&app, invoice("evt_3", true, "open").to_string()).await;
    let client = webhook.database.client().await;
    let status = "SELECT status FROM invoices WHERE stripe_invoice_id = 'in_1'";
    let status: String = client.query_one(status, &[]).await.unwrap().get(0);
    assert_eq!(status, "open");
    let lookups = "SELECT count(*) FROM stripe_lookups WHERE reason = 'undecidable'";
    let lookups: i64 = client.query_one(lookups, &[]).await.unwrap().get(0);
    assert_eq!(lookups, 0);
}

#[tokio::test]
async fn eventbridge_is_no_other_door() {
    let webhook = Webhook::start_with(1, &[("STRIPE_LIVEMODE", "true")]).await;
    for event in payment("Bus", 4_000, false, Shape::Endive) {
        let envelope = json!({"source": "aws.partner/stripe.com/ed_1", "detail": event});
        let answer = webhook::handle_partner_event(&webhook.sandbox(0), envelope, noon()).await;
        assert_eq!(
            answer.unwrap(),
            json!({"received": true, "outcome": "ignored"})
        );
    }
    assert_eq!(gross(&webhook).await, 0);
}

/// Parked it would wait for a ledger that does not take it; answered with 200 nobody would know that it came.
#[tokio::test]
async fn without_a_ledger_stripe_keeps_what_is_not_ours() {
    let webhook = Webhook::start_with(
        1,
        &[
            ("STRIPE_LIVEMODE", "true"),
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing"),
        ],
    )
    .await;
    for event in payment("Away", 4_000, false, Shape::Endive) {
        let (status, answer) = deliver(&webhook.sandbox(0), event.to_string()).await;
        assert_eq!(status, 503, "{answer}");
        let id = event["id"].as_str().unwrap();
        assert_eq!(webhook.parked_because(id).await, None);
    }
}

fn noon() -> Timestamp {
    "2026-10-01T12:00:00Z".parse().unwrap()
}
