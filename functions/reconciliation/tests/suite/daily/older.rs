//! What happened in the window to objects that are older than it, and runs of one instant.

use std::time::{Duration, Instant};

use fake_stripe::Fault;
use fake_stripe::account::Account;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use reconciliation::{Deadline, Error};
use serde_json::{Value, json};

use super::site::{Site, assert_counts, at, status, subscribe};

/// A subscription and a payment of February, and both after they changed on the last day of the window.
struct Story {
    site: Site,
    subscription: String,
    invoice: String,
    intent: String,
}

async fn story() -> Story {
    let mut account = Account::new("Older", at("2026-02-01T10:00:00Z"));
    let subscription = subscribe(&mut account);
    account.set_now(at("2026-02-10T10:00:00Z"));
    let customer = account.create_customer(None, None, Metadata::new());
    let intent = account
        .pay_once(&customer, 4_200, "usd", Outcome::Fails)
        .unwrap();
    let invoice = account
        .create_invoice(&customer, "usd", &[("Setup", 9_900)])
        .unwrap();
    let mut site = Site::new(account).await;
    site.add_user().await;
    site.deliver_all().await;
    let happened = site.stripe.with_account(|account| {
        account.set_now(at("2026-03-01T12:00:00Z"));
        account.cancel_now(&subscription)?;
        account.confirm_intent(&intent, Outcome::Succeeds)?;
        account.pay_invoice(&invoice, Outcome::Succeeds)
    });
    happened.unwrap();
    Story {
        site,
        subscription,
        invoice,
        intent,
    }
}

#[tokio::test]
async fn what_lost_events_say_of_older_objects_is_told_and_healed() {
    let mut story = story().await;
    story
        .site
        .deliver(|event| event["type"].as_str().unwrap().starts_with("charge."))
        .await;
    let items = [
        format!("amount_differs invoice {}", story.invoice),
        format!("status_differs invoice {}", story.invoice),
        format!("status_differs payment_intent {}", story.intent),
        format!("status_differs subscription {}", story.subscription),
    ];
    let summary = story.site.run().await.unwrap();
    assert_eq!(summary["open"], 0, "{summary:#}");
    assert!(
        summary["completeness_bps"].as_i64() < Some(10_000),
        "{summary:#}"
    );
    let all = story.site.items().await;
    for item in &items {
        assert!(all.contains(&format!("{item} healed")), "{item}: {all:#?}");
    }
    assert_counts(&story.site.run().await.unwrap(), 0, 0);
}

#[tokio::test]
async fn a_payment_begun_before_the_window_is_compared_when_it_was_paid_in_it() {
    let mut story = story().await;
    story.site.deliver_all().await;
    assert_counts(&story.site.run().await.unwrap(), 0, 0);
    let intent = &story.intent;
    for damage in [
        format!("UPDATE payment_history SET amount_cents = 1 WHERE payment_key = '{intent}'"),
        format!("DELETE FROM payment_history WHERE payment_key = '{intent}'"),
    ] {
        assert_eq!(story.site.execute(&damage).await, 1);
        let summary = story.site.run().await.unwrap();
        assert_eq!(summary["open"], 0, "{damage}: {summary:#}");
        assert!(
            summary["healed"].as_i64() > Some(0),
            "{damage}: {summary:#}"
        );
        let row = format!("payment_history WHERE payment_key = '{intent}' AND amount_cents = 4200");
        assert_eq!(story.site.count(&row).await, 1, "{damage}");
        assert_counts(&story.site.run().await.unwrap(), 0, 0);
    }
}

#[tokio::test]
async fn a_payout_made_up_after_its_first_days_is_summed() {
    let mut account = Account::new("Payouts", at("2026-02-24T10:00:00Z"));
    let customer = account.create_customer(None, None, Metadata::new());
    let intent = account
        .pay_once(&customer, 1_000, "usd", Outcome::Succeeds)
        .unwrap();
    account
        .pay_once(&customer, 2_000, "usd", Outcome::Succeeds)
        .unwrap();
    account.advance(86_400);
    let transaction = account.balance_transaction_of(&intent).unwrap();
    let payout = account.pay_out_balance().unwrap();
    let mut site = Site::new(account).await;
    site.deliver_all().await;
    assert_counts(&site.run().await.unwrap(), 0, 0);
    let lost = site
        .stripe
        .with_account(|account| account.lose_from_payout(&transaction));
    lost.unwrap();
    assert_counts(&site.run().await.unwrap(), 0, 1);
    assert_eq!(
        site.items().await,
        [format!("amount_differs payout {payout} open")]
    );
}

/// Two payments; the second one's refund never arrived, and Stripe has forgotten its events.
async fn refunded() -> (Site, String) {
    let mut account = Account::new("Again", at("2026-03-01T10:00:00Z"));
    let customer = account.create_customer(None, None, Metadata::new());
    let intent = account
        .pay_once(&customer, 5_000, "usd", Outcome::Succeeds)
        .unwrap();
    let refund = account.refund(&intent, 700).unwrap();
    let mut site = Site::new(account).await;
    site.deliver(|event| event["data"]["object"]["id"] != json!(refund))
        .await;
    (site, refund)
}

#[tokio::test]
async fn a_run_puts_right_what_was_changed_since_another_run_of_the_same_instant() {
    let (site, refund) = refunded().await;
    site.stripe.inject(status(500, "/v1/events", 1_000));
    assert!(matches!(site.run().await, Err(Error::Incomplete { .. })));
    assert_eq!(
        site.items().await,
        [format!("missing_in_db refund {refund} healed")]
    );
    // The row shows what this very second fetched.
    let changed =
        format!("UPDATE refunds SET amount_cents = 1 WHERE stripe_refund_id = '{refund}'");
    assert_eq!(site.execute(&changed).await, 1);
    site.stripe.clear_faults();
    let summary = site.run().await.unwrap();
    assert_eq!(summary["open"], 0, "{summary:#}");
    let right = format!("refunds WHERE stripe_refund_id = '{refund}' AND amount_cents = 700");
    assert_eq!(site.count(&right).await, 1);
    assert_counts(&site.run().await.unwrap(), 0, 0);
}

#[tokio::test]
async fn an_object_the_ledger_cannot_take_does_not_end_the_run() {
    let (site, refund) = refunded().await;
    let client = site.client().await;
    client
        .batch_execute(&format!(
            "ALTER TABLE refunds ADD CONSTRAINT mistake CHECK (stripe_refund_id <> '{refund}');
             UPDATE payment_history SET amount_cents = 1"
        ))
        .await
        .unwrap();
    let Err(Error::Incomplete { summary }) = site.run().await else {
        panic!("the refund cannot be stored");
    };
    assert_eq!(
        summary["open_by_kind"],
        json!({"missing_in_db": 1}),
        "{summary:#}"
    );
    assert_eq!(summary["healed"], 1, "the payment: {summary:#}");
    assert_eq!(summary["not_checked"][0]["what"], "healing");
    assert_ne!(summary["report"], Value::Null);
    client
        .batch_execute("ALTER TABLE refunds DROP CONSTRAINT mistake")
        .await
        .unwrap();
    let summary = site.run().await.unwrap();
    assert_eq!(
        (&summary["open"], &summary["healed"]),
        (&json!(0), &json!(1))
    );
}

#[tokio::test]
async fn a_key_that_is_refused_fails_the_run() {
    let (site, _) = refunded().await;
    for (refusal, path, lists) in [(401, "", 11), (403, "/v1/payouts", 2)] {
        site.stripe.inject(status(refusal, path, 1_000));
        let Err(Error::Incomplete { summary }) = site.run().await else {
            panic!("nobody would be told of {refusal}");
        };
        assert_eq!(summary["not_checked"].as_array().unwrap().len(), lists);
        site.stripe.clear_faults();
    }
}

#[tokio::test]
async fn stripe_that_hangs_is_waited_for_until_the_deadline_and_no_longer() {
    let (site, _) = refunded().await;
    site.stripe.inject(Fault::Hang {
        path: String::new(),
        times: 1_000,
    });
    let begun = Instant::now();
    let deadline = Deadline::after(Duration::from_secs(1));
    let Err(Error::Incomplete { summary }) = site.run_until(deadline).await else {
        panic!("nothing was checked");
    };
    // The patience of the client is thirty seconds for each of three attempts.
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(summary["status"], "incomplete");
    let ended = "reconciliation_runs WHERE status = 'incomplete' AND finished_at IS NOT NULL";
    assert_eq!(site.count(ended).await, 1);
}
