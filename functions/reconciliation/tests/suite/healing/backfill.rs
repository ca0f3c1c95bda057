//! The backfill: a whole history from Stripe's lists, in slices, whatever interrupts it.

use std::time::Duration;

use fake_stripe::account::{Account, NewPrice};
use fake_stripe::billing::NewSubscription;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use fake_stripe::{Shape, sample_account, scenarios};
use jiff::{SignedDuration, Timestamp};
use reconciliation::{App, Deadline, handle_until};
use serde_json::{Value, json};
use testing::logs;

use super::site::{MOVEMENTS, Site, event, faults, later, patience_with, run, run_until, serve};

const BACKFILL: &str = "reconciliation.backfill";

/// Sequences whose last objects do not show what happened in between: the plan or the quantity before a
/// change, a pause. Their payments and their MRR now are the same all the same.
const CHANGED_IN_BETWEEN: [&str; 4] = [
    "upgrade_with_proration",
    "quantity_change",
    "collection_paused_and_resumed",
    "two_changes_in_one_second",
];

/// Every scenario is a separate account, imported into one ledger.
async fn the_import_equals_the_ledger_of_the_webhooks(shape: Shape) {
    let delivered = Site::new().await;
    let imported = Site::new().await;
    for scenario in scenarios() {
        let name = format!("{} in {shape:?}", scenario.name);
        delivered.deliver(&scenario.events(shape)).await;
        let stripe = serve(scenario.account(), shape).await;
        let now = later(&stripe);
        let (told, app) = (delivered.app(&stripe), imported.app(&stripe));
        run(&told, "reconciliation.redrive", Value::Null, now).await;
        let summary = run(&app, BACKFILL, json!({"restart": true}), now).await;
        assert_eq!(summary["finished"], true, "{name}: {summary}");
        assert_eq!(summary["refused"], json!({}), "{name}: {summary}");
        run(&app, "reconciliation.redrive", Value::Null, now).await;
    }
    assert_same(&delivered.figures().await, &imported.figures().await);
    let between: Vec<String> = scenarios()
        .iter()
        .filter(|scenario| CHANGED_IN_BETWEEN.contains(&scenario.name))
        .map(|scenario| format!("sub_1{}0", scenario.prefix))
        .collect();
    let movements = async |site: &Site| {
        let mut movements = site.texts(MOVEMENTS).await;
        movements.retain(|one| !between.iter().any(|prefix| one.starts_with(prefix)));
        movements
    };
    assert_same(&movements(&delivered).await, &movements(&imported).await);
    // No news: nothing is announced of what happened long ago.
    assert_eq!(imported.count("outbox").await, 0);
}

fn assert_same(expected: &[String], actual: &[String]) {
    let missing: Vec<&String> = expected.iter().filter(|f| !actual.contains(f)).collect();
    let extra: Vec<&String> = actual.iter().filter(|f| !expected.contains(f)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:#?}\nextra {extra:#?}"
    );
}

#[tokio::test]
async fn the_import_equals_the_ledger_of_the_webhooks_in_2022_11_15() {
    the_import_equals_the_ledger_of_the_webhooks(Shape::V2022_11_15).await;
}

#[tokio::test]
async fn the_import_equals_the_ledger_of_the_webhooks_in_endive() {
    the_import_equals_the_ledger_of_the_webhooks(Shape::Endive).await;
}

/// More than two pages of everything.
fn large_account() -> Account {
    let mut account = Account::new("Large", "2025-06-01T00:00:00Z".parse().unwrap());
    let price = account.create_price(&NewPrice::monthly("usd", 2_900, "professional"));
    for number in 0..210 {
        let customer = account.create_customer(None, None, Metadata::new());
        account.advance(3_600);
        let subscription = account
            .subscribe(
                &customer,
                &NewSubscription {
                    items: vec![(price.as_str(), 1)],
                    trial_days: None,
                    coupon: None,
                    tax_bps: 0,
                    metadata: Metadata::new(),
                },
            )
            .unwrap();
        if number % 5 == 0 {
            account.advance(60);
            account.cancel_now(&subscription).unwrap();
        }
        if number % 7 == 0 {
            let intent = account
                .pay_once(&customer, 1_000, "usd", Outcome::Succeeds)
                .unwrap();
            account.advance(60);
            account.refund(&intent, 400).unwrap();
        }
    }
    account
}

#[tokio::test]
async fn an_import_that_is_interrupted_anywhere_goes_on_where_it_was() {
    let account = large_account();
    let stripe = serve(account, Shape::Endive).await;
    let now = later(&stripe);
    let undisturbed = Site::new().await;
    let summary = run(&undisturbed.app(&stripe), BACKFILL, Value::Null, now).await;
    assert_eq!(summary["finished"], true, "{summary}");
    assert_eq!(summary["imported"]["customers"], 210);
    let slices = stripe.requests();

    let site = Site::new().await;
    // Cut at the commit of a slice, before it and after it: both are as good as a kill.
    let (proxy, url) = site.surroundings.database.behind_proxy();
    let base = stripe.base_url();
    let function = || {
        site.app_with(&[
            ("STRIPE_API_BASE", &base),
            ("STRIPE_API_KEY", "rk_test_healing"),
            ("DATABASE_URL", &url),
        ])
    };
    let app = function();
    let invoke = async |app: &App| {
        let event = event(BACKFILL, Value::Null, now);
        handle_until(app, event, now, Deadline::default()).await
    };
    // As the platform does: on a busy machine a connection may take longer than the function waits for one.
    let invoke_until_it_succeeds = async |app: &App| {
        for _ in 0..10 {
            if let Ok(summary) = invoke(app).await {
                return summary;
            }
        }
        invoke(app).await.unwrap()
    };
    for cut in 0..3 {
        match cut {
            0 => proxy.cut_before_commit(),
            1 => proxy.cut_on_commit(),
            _ => proxy.cut_before("-- invoices::upsert"),
        }
        let cut_off = invoke(&app).await;
        proxy.pass();
        assert!(proxy.cuts() > 0, "{cut_off:?}");
    }
    // Killed in the middle of whatever it was doing, and its connection with it.
    for milliseconds in [30, 90, 200, 400] {
        let app = function();
        let killed = tokio::time::timeout(Duration::from_millis(milliseconds), invoke(&app)).await;
        drop(killed);
    }
    // And in trouble with Stripe.
    for fault in faults("/v1/charges", 10_000) {
        let app = function().with_patience(patience_with(&fault));
        stripe.inject(fault);
        invoke_until_it_succeeds(&app).await;
        stripe.clear_faults();
    }
    let summary = invoke_until_it_succeeds(&app).await;
    assert_eq!(summary["finished"], true, "{summary}");
    assert_eq!(summary["imported"]["customers"], 210, "{summary}");
    assert_eq!(summary["refused"], json!({}), "{summary}");
    assert_eq!(site.figures().await, undisturbed.figures().await);
    assert_eq!(
        site.texts(MOVEMENTS).await,
        undisturbed.texts(MOVEMENTS).await
    );

    // Once finished it stays so, and asks for nothing.
    let app = site.app(&stripe);
    let before = stripe.requests();
    let summary = run(&app, BACKFILL, Value::Null, now).await;
    assert_eq!(summary["finished"], true);
    assert_eq!(stripe.requests(), before);
    // Started over, it reads everything again and changes nothing.
    let figures = site.figures().await;
    let again = json!({"restart": true});
    run(&app, BACKFILL, again, now + SignedDuration::from_hours(1)).await;
    assert_eq!(stripe.requests() - before, slices);
    assert_eq!(site.figures().await, figures);
}

#[tokio::test]
async fn a_stripe_in_trouble_is_said_with_the_place_and_nothing_is_imported_in_part() {
    let stripe = serve(large_account(), Shape::Endive).await;
    let now = later(&stripe);
    let site = Site::new().await;
    for fault in faults("/v1/customers", 10_000) {
        let app = site.app_in_trouble(&stripe, &fault);
        stripe.inject(fault.clone());
        let summary = run(&app, BACKFILL, Value::Null, now).await;
        assert_eq!(summary["finished"], false, "{fault:?}");
        assert_eq!(summary["kind"], "customers", "{fault:?}: {summary}");
        assert!(summary["stopped"].is_string(), "{fault:?}: {summary}");
        stripe.clear_faults();
    }
    assert_eq!(site.count("customers").await, 0);
    let app = site.app(&stripe);
    let reached = Deadline::after(Duration::ZERO);
    let summary = run_until(&app, BACKFILL, Value::Null, now, reached).await;
    assert_eq!(
        (&summary["kind"], &summary["stopped"]),
        (&json!("customers"), &json!("the time was up"))
    );
}

#[tokio::test]
async fn two_imports_at_once_do_each_slice_once() {
    let stripe = serve(large_account(), Shape::Endive).await;
    let now = later(&stripe);
    let site = Site::new().await;
    let (one, other) = (site.app(&stripe), site.app(&stripe));
    let (one, other) = tokio::join!(
        run(&one, BACKFILL, Value::Null, now),
        run(&other, BACKFILL, Value::Null, now)
    );
    assert_eq!(one["imported"]["customers"], 210, "{one}");
    assert_eq!(one["imported"], other["imported"], "{other}");
    assert_eq!(site.count("customers").await, 210);
}

#[tokio::test]
async fn an_object_that_cannot_be_applied_is_named_and_the_others_are_imported() {
    let stripe = serve(large_account(), Shape::Endive).await;
    let now = later(&stripe);
    let site = Site::new().await;
    let client = site.surroundings.database.client().await;
    client
        .batch_execute(
            "ALTER TABLE refunds ADD CONSTRAINT mistake CHECK (stripe_refund_id NOT LIKE '%05')",
        )
        .await
        .unwrap();
    let summary = run(&site.app(&stripe), BACKFILL, Value::Null, now).await;
    assert_eq!(summary["finished"], true, "{summary}");
    let refused: u64 = summary["refused"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert!(refused > 0, "{summary}");
    assert_eq!(site.count("refunds").await, 29, "30 but one");
    assert!(logs::captured().contains("an object of Stripe's history cannot be applied"));
}

#[tokio::test]
async fn a_year_imported_since_a_date_leaves_older_money_out_and_knows_every_subscription() {
    let anchor: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let account = sample_account(anchor);
    let delivered = Site::new().await;
    delivered.deliver(&account.events(Shape::Endive)).await;
    let stripe = serve(account, Shape::Endive).await;
    let now = later(&stripe);
    run(
        &delivered.app(&stripe),
        "reconciliation.redrive",
        Value::Null,
        now,
    )
    .await;
    let site = Site::new().await;
    let app = site.app(&stripe);
    let detail = json!({"since": "2026-06-01T00:00:00Z"});
    let summary = run(&app, BACKFILL, detail, now).await;
    assert_eq!(summary["finished"], true, "{summary}");
    run(&app, "reconciliation.redrive", Value::Null, now).await;
    let days = "SELECT concat_ws(' ', day, currency, gross_cents, fees_cents, payments)
                FROM revenue_daily WHERE day >= '2026-07-01' AND refunds_cents = 0
                ORDER BY day, currency";
    assert_eq!(site.texts(days).await, delivered.texts(days).await);
    let older = site.count("revenue_daily WHERE day < '2026-05-31' AND gross_cents <> 0");
    assert_eq!(older.await, 0);
    let mrr = "SELECT concat_ws(' ', stripe_subscription_id, status, mrr_microcents)
               FROM subscriptions ORDER BY 1";
    assert_eq!(site.texts(mrr).await, delivered.texts(mrr).await);
}

#[tokio::test]
async fn a_detail_that_means_nothing_is_refused() {
    let site = Site::new().await;
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    for detail in [
        json!({"since": "yesterday"}),
        json!({"from": "2026-01-01T00:00:00Z"}),
        json!(7),
    ] {
        let event = event(BACKFILL, detail.clone(), now);
        let answer = handle_until(&site.app_with(&[]), event, now, Deadline::default()).await;
        assert!(answer.is_err(), "{detail}");
    }
}
