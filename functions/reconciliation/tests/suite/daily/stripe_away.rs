//! Stripe answers late, wrongly, in part or not at all: the run says what it could not check and concludes nothing.

use std::time::Duration;

use fake_stripe::Fault;
use fake_stripe::account::Account;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use reconciliation::{Error, handle};
use serde_json::{Value, json};
use stripe::client::Patience;

use super::site::{Site, assert_counts, at, event, morning, status};

/// Ten payments, of which the ledger lacks one; and a subscription-less extra row that Stripe does not have.
async fn site() -> Site {
    let mut account = Account::new("Away", at("2026-03-01T10:00:00Z"));
    let customer = account.create_customer(None, None, Metadata::new());
    for number in 0..10 {
        account
            .pay_once(&customer, 1_000 + number, "usd", Outcome::Succeeds)
            .unwrap();
        account.advance(60);
    }
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver(|event| {
        let object = &event["data"]["object"];
        object["id"] != "ch_3Away0003" && object["id"] != "pi_3Away0003"
    })
    .await;
    site
}

async fn incomplete(site: &Site) -> Value {
    match site.run().await {
        Err(Error::Incomplete { summary }) => *summary,
        other => panic!("{other:?}"),
    }
}

fn not_checked(summary: &Value) -> Vec<&str> {
    let not_checked = summary["not_checked"].as_array().unwrap();
    let mut names: Vec<&str> = not_checked
        .iter()
        .map(|one| one["what"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn what_cannot_be_listed_is_named_and_nothing_is_concluded_from_it() {
    let times = 100_000;
    let path = || "/v1/charges".to_owned();
    for fault in [
        status(429, "/v1/charges", times),
        status(500, "/v1/charges", times),
        Fault::Garbage {
            path: path(),
            times,
        },
        Fault::CutOff {
            path: path(),
            times,
        },
    ] {
        let site = site().await;
        let name = format!("{fault:?}");
        site.stripe.inject(fault);
        let before = site.stripe.requests();
        let summary = incomplete(&site).await;
        assert!(
            site.stripe.requests() - before < 60,
            "{name}: {} requests",
            site.stripe.requests() - before
        );
        assert!(
            not_checked(&summary).contains(&"charges"),
            "{name}: {summary:#}"
        );
        assert_eq!(
            summary["open_by_kind"]["missing_in_stripe"],
            Value::Null,
            "{name}"
        );
        assert_eq!(summary["sums"][0]["line"], {
            let ledger = summary["sums"][0]["ledger_cents"].as_i64().unwrap();
            format!("Stripe 24h: not known vs DB 24h: {ledger}")
        });
        assert_eq!(
            site.count(
                "reconciliation_runs WHERE status = 'incomplete' AND finished_at IS NOT NULL"
            )
            .await,
            1
        );
        site.stripe.clear_faults();
        let summary = site.run().await.unwrap();
        assert_eq!(summary["open"], 0, "{name}: {summary:#}");
        assert_counts(&site.run().await.unwrap(), 0, 0);
    }
}

#[tokio::test]
async fn everything_away_concludes_nothing_at_all() {
    let site = site().await;
    site.stripe.inject(status(503, "", 100_000));
    let rows = site.count("payment_history").await;
    let summary = incomplete(&site).await;
    assert_counts(&summary, 0, 0);
    assert_eq!(summary["compared"], 0);
    assert_eq!(summary["completeness_bps"], Value::Null);
    assert_eq!(
        not_checked(&summary),
        [
            "balance_transactions",
            "charges",
            "disputes",
            "events",
            "invoices",
            "payment_intents",
            "payout_transactions",
            "payouts",
            "refunds",
            "subscriptions",
            "tax_rates"
        ]
    );
    assert_eq!(site.count("payment_history").await, rows);
}

#[tokio::test]
async fn a_hang_is_given_up_and_a_short_429_is_waited_for() {
    let site = site().await;
    let app = site.app_with(&[]).with_patience(Patience {
        timeout: Duration::from_millis(300),
        attempts: 2,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_secs(5),
    });
    site.stripe.inject(Fault::Hang {
        path: "/v1/refunds".to_owned(),
        times: 2,
    });
    let Err(Error::Incomplete { summary }) = handle(&app, event(json!({})), morning()).await else {
        panic!("the refunds hang");
    };
    assert_eq!(not_checked(&summary), ["refunds"]);
    assert_eq!(summary["open"], 0, "{summary:#}");

    site.stripe.inject(Fault::Status {
        status: 429,
        retry_after: Some(1),
        path: "/v1/charges".to_owned(),
        times: 1,
    });
    assert_counts(&site.run().await.unwrap(), 0, 0);
}

#[tokio::test]
async fn an_object_that_cannot_be_asked_for_is_not_taken_for_missing() {
    let site = site().await;
    site.execute(
        "INSERT INTO payment_attempts (stripe_charge_id, amount_cents, amount_captured_cents,
             currency, status, attempted_at)
         VALUES ('ch_extra', 100, 100, 'USD', 'succeeded', '2026-03-01T12:00:00Z')",
    )
    .await;
    site.stripe.inject(status(500, "/v1/charges/ch_extra", 100));
    let summary = incomplete(&site).await;
    assert_eq!(not_checked(&summary), ["charges"]);
    assert_eq!(summary["open"], 0, "{summary:#}");
    site.stripe.clear_faults();
    // Now that Stripe says it knows no such charge, the run reports it and changes nothing.
    let summary = site.run().await.unwrap();
    assert_eq!(summary["open_by_kind"], json!({"missing_in_stripe": 1}));
    assert_eq!(
        site.items().await,
        ["missing_in_stripe charge ch_extra open"]
    );
    assert_eq!(
        site.count("payment_attempts WHERE stripe_charge_id = 'ch_extra'")
            .await,
        1
    );
}

#[tokio::test]
async fn lists_of_the_other_mode_are_not_compared() {
    let site = site().await;
    let rows = site.count("payment_history").await;
    let app = site.app_with(&[("STRIPE_LIVEMODE", "true")]);
    let summary = match handle(&app, event(json!({})), morning()).await {
        Err(Error::Incomplete { summary }) => *summary,
        other => panic!("{other:?}"),
    };
    assert_counts(&summary, 0, 0);
    let not_checked = summary["not_checked"].as_array().unwrap();
    let charges = not_checked.iter().find(|one| one["what"] == "charges");
    assert_eq!(
        charges.unwrap()["reason"],
        "wrong_mode: the object is of the other mode"
    );
    // The events that the key shows are of the other mode as well.
    assert_eq!(summary["events_applied"], 0);
    assert_eq!(site.count("payment_history").await, rows);
}
