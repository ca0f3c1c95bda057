//! Missed webhooks: what Stripe could not deliver, and what nobody was asked to take.

use fake_stripe::account::Account;
use fake_stripe::delivery::Endpoint;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use fake_stripe::{Fault, Shape, sample_account};
use jiff::SignedDuration;
use reconciliation::Deadline;
use serde_json::{Value, json};

use super::site::{MOVEMENTS, Site, faults, later, run, run_until, serve};

const MISSED: &str = "reconciliation.missed-webhooks";

/// A year of a small business of which Stripe has kept the last 30 days.
fn account() -> Account {
    sample_account("2026-11-22T12:00:00Z".parse().unwrap())
}

/// The last days, as far as Stripe still has them.
fn of_the_last_days(events: &[Value], account: &Account) -> usize {
    let oldest = (account.now() - SignedDuration::from_hours(29 * 24)).as_second();
    events
        .iter()
        .position(|event| event["created"].as_i64() >= Some(oldest))
        .unwrap()
}

#[tokio::test]
async fn events_that_never_arrived_are_found_and_applied_like_deliveries() {
    let undisturbed = Site::new().await;
    let site = Site::new().await;
    let account = account();
    let events = account.events(Shape::Endive);
    let kept = of_the_last_days(&events, &account);
    undisturbed.deliver(&events).await;
    // A third of the last month's events got lost.
    let arrived: Vec<Value> = events
        .iter()
        .enumerate()
        .filter(|(place, _)| *place < kept || place % 3 != 0)
        .map(|(_, event)| event.clone())
        .collect();
    let lost = events.len() - arrived.len();
    assert!(lost > 10, "{lost} events got lost");
    site.deliver(&arrived).await;
    let stripe = serve(account, Shape::Endive).await;
    let app = site.app(&stripe);
    let now = later(&stripe);
    let summary = run(&app, MISSED, Value::Null, now).await;
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(
        count("applied") + count("ignored"),
        u64::try_from(lost).unwrap(),
        "{summary}"
    );
    assert_eq!(summary.get("stopped"), None, "{summary}");
    assert_eq!(site.figures().await, undisturbed.figures().await);
    assert_eq!(
        site.texts(MOVEMENTS).await,
        undisturbed.texts(MOVEMENTS).await
    );
    let ids = "SELECT event_id FROM stripe_events ORDER BY 1";
    assert_eq!(site.texts(ids).await, undisturbed.texts(ids).await);

    // The next day only what is new is compared.
    let summary = run(
        &app,
        MISSED,
        Value::Null,
        now + SignedDuration::from_hours(1),
    )
    .await;
    assert_eq!(
        (&summary["compared"], &summary["applied"]),
        (&json!(0), &json!(0)),
        "{summary}"
    );
    // Unless somebody asks for more.
    let detail = json!({"since": (now - SignedDuration::from_hours(48)).to_string()});
    let summary = run(&app, MISSED, detail, now).await;
    assert_eq!(summary["applied"], 0, "{summary}");
}

#[tokio::test]
async fn a_later_since_leaves_nothing_out_that_was_not_compared() {
    let site = Site::new().await;
    let account = Account::new("Gap", "2026-11-01T00:00:00Z".parse().unwrap());
    let stripe = serve(account, Shape::Endive).await;
    let app = site.app(&stripe);
    let pay = |amount: i64| {
        stripe.with_account(|account| {
            account.advance(86_400);
            let customer = account.create_customer(None, None, Metadata::new());
            account
                .pay_once(&customer, amount, "usd", Outcome::Succeeds)
                .unwrap();
        });
    };
    pay(1_000);
    run(&app, MISSED, Value::Null, later(&stripe)).await;
    assert_eq!(site.count("payment_history").await, 1);
    // Both are lost, and somebody asks for the second day alone.
    pay(2_000);
    let since = later(&stripe);
    pay(3_000);
    let detail = json!({"since": since.to_string()});
    run(&app, MISSED, detail, later(&stripe)).await;
    run(&app, MISSED, Value::Null, later(&stripe)).await;
    assert_eq!(site.count("payment_history").await, 3);
}

#[tokio::test]
async fn what_stripe_could_not_deliver_is_asked_for_first() {
    let site = Site::new().await;
    let account = Account::new("Dropped", "2026-11-01T00:00:00Z".parse().unwrap());
    let stripe = serve(account, Shape::Endive).await;
    // Nobody takes webhooks at this address.
    stripe.set_webhook(Some(Endpoint {
        url: "http://127.0.0.1:1/payments/webhook".to_owned(),
        secret: "whsec_x".into(),
        is_thin: false,
    }));
    stripe.inject(Fault::DropDeliveries { times: 1_000 });
    stripe.with_account(|account| {
        let customer = account.create_customer(None, None, Metadata::new());
        account
            .pay_once(&customer, 2_999, "usd", Outcome::Succeeds)
            .unwrap();
    });
    let now = later(&stripe);
    // The second part does not come to anything: its requests are the ones without the filter.
    let app = site.app(&stripe);
    let summary = run(&app, MISSED, Value::Null, now).await;
    assert!(summary["applied"].as_u64() >= Some(3), "{summary}");
    assert_eq!(site.count("payment_history").await, 1);
    let deliveries = stripe.deliveries();
    assert!(deliveries.iter().all(|one| one.status.is_none()));
}

#[tokio::test]
async fn a_stripe_in_trouble_is_said_and_the_next_run_goes_on() {
    let site = Site::new().await;
    let account = account();
    let stripe = serve(account, Shape::Endive).await;
    let app = site.app(&stripe);
    let now = later(&stripe);
    for fault in faults("/v1/events", 10_000) {
        let app = site.app_in_trouble(&stripe, &fault);
        stripe.inject(fault.clone());
        let summary = run(&app, MISSED, Value::Null, now).await;
        assert!(summary["stopped"].is_string(), "{fault:?}: {summary}");
        assert_eq!(summary["applied"], 0, "{fault:?}: {summary}");
        stripe.clear_faults();
    }
    let reached = Deadline::after(std::time::Duration::ZERO);
    let summary = run_until(&app, MISSED, Value::Null, now, reached).await;
    assert_eq!(summary["stopped"], "the time was up", "{summary}");
    let summary = run(&app, MISSED, Value::Null, now).await;
    assert_eq!(summary.get("stopped"), None, "{summary}");
    assert!(summary["applied"].as_u64() > Some(0), "{summary}");
    // Two at once find nothing twice.
    let other = site.app(&stripe);
    let detail = json!({"since": "2026-10-01T00:00:00Z"});
    let (one, two) = tokio::join!(
        run(&app, MISSED, detail.clone(), now),
        run(&other, MISSED, detail, now)
    );
    assert_eq!((&one["applied"], &two["applied"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn an_event_that_cannot_be_applied_is_parked_and_holds_up_nobody() {
    let site = Site::new().await;
    let account = account();
    let stripe = serve(account, Shape::Endive).await;
    let app = site.app(&stripe);
    let now = later(&stripe);
    // A rule of the database that a charge breaks, as a mistake of ours would.
    let client = site.surroundings.database.client().await;
    client
        .batch_execute(
            "ALTER TABLE payment_attempts ADD CONSTRAINT mistake CHECK (amount_cents < 0)",
        )
        .await
        .unwrap();
    let summary = run(&app, MISSED, Value::Null, now).await;
    assert!(summary["parked"].as_u64() > Some(0), "{summary}");
    assert!(summary["applied"].as_u64() > Some(0), "{summary}");
    client
        .batch_execute("ALTER TABLE payment_attempts DROP CONSTRAINT mistake")
        .await
        .unwrap();
    let redriven = run(&app, "reconciliation.redrive", Value::Null, now).await;
    assert_eq!(redriven["applied"], summary["parked"], "{redriven}");
}

#[tokio::test]
async fn without_a_key_nothing_is_compared_and_that_is_said() {
    let site = Site::new().await;
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let summary = run(&site.app_with(&[]), MISSED, Value::Null, now).await;
    assert_eq!(
        summary["stopped"], "STRIPE_API_KEY is not configured",
        "{summary}"
    );
}

/// The key of another mode shows that mode's events: they are kept, as if they had been delivered.
#[tokio::test]
async fn missed_events_of_the_other_mode_are_kept_and_not_applied() {
    let site = Site::new().await;
    let account = account();
    let events = account.events(Shape::Endive);
    let stripe = serve(account, Shape::Endive).await;
    let (base, key) = (stripe.base_url(), "rk_test_healing");
    let app = site.app_with(&[
        ("STRIPE_API_BASE", &base),
        ("STRIPE_API_KEY", key),
        ("STRIPE_LIVEMODE", "true"),
    ]);
    let summary = run(&app, MISSED, Value::Null, later(&stripe)).await;
    assert_eq!(summary["applied"], 0, "{summary}");
    assert_eq!(summary["parked"], 0, "{summary}");
    let foreign = site.count("stripe_events WHERE outcome = 'foreign'").await;
    assert!(foreign > 10, "{foreign} of {}", events.len());
    assert_eq!(site.count("stripe_events").await, foreign);
    assert_eq!(site.count("payment_history").await, 0);
    assert_eq!(site.count("outbox").await, 0);
    assert_eq!(site.count("stripe_lookups").await, 0);
}
