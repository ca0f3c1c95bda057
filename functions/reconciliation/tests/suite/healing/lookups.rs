//! Look-ups: each kind is asked for, applied and closed; nobody is asked twice, nothing is lost.

use fake_stripe::account::NewPrice;
use fake_stripe::delivery::thin;
use fake_stripe::objects::{Metadata, Tier};
use fake_stripe::{Account, FakeStripe, Shape, scenarios};
use jiff::{SignedDuration, Timestamp};
use reconciliation::Deadline;
use serde_json::{Value, json};
use testing::logs;

use super::site::{Site, faults, later, run, run_until, serve};

const REDRIVE: &str = "reconciliation.redrive";

fn spring() -> Timestamp {
    "2026-04-01T00:00:00Z".parse().unwrap()
}

/// An account with payments whose fees nobody has told yet.
fn payments(number: usize) -> Account {
    use fake_stripe::payments::Outcome;
    let mut account = Account::new("Lookup", spring());
    let customer = account.create_customer(None, None, Metadata::new());
    for _ in 0..number {
        account
            .pay_once(&customer, 2_999, "usd", Outcome::Succeeds)
            .unwrap();
        account.advance(60);
    }
    account
}

async fn open(site: &Site) -> Vec<String> {
    site.texts(
        "SELECT concat_ws(' ', kind, stripe_id, attempts, last_error) FROM stripe_lookups
         WHERE done_at IS NULL ORDER BY id",
    )
    .await
}

/// The fees Stripe charges in the fake are those of the estimate, so only their source tells.
const ESTIMATED: &str = "payment_history WHERE fee_source = 'estimated'";

async fn everything_is_known_after_the_redrive(shape: Shape) {
    let site = Site::new().await;
    for scenario in scenarios() {
        let name = format!("{} in {shape:?}", scenario.name);
        site.deliver(&scenario.events(shape)).await;
        let stripe = serve(scenario.account(), shape).await;
        let summary = run(&site.app(&stripe), REDRIVE, Value::Null, later(&stripe)).await;
        assert_eq!(summary["lookups_failed"], 0, "{name}: {summary}");
        assert_eq!(summary["lookups_not_found"], 0, "{name}: {summary}");
        assert_eq!(open(&site).await, Vec::<String>::new(), "{name}");
        assert_eq!(site.count(ESTIMATED).await, 0, "{name}: fees");
        let provisional = site.count("subscriptions WHERE mrr_provisional").await;
        assert_eq!(provisional, 0, "{name}: MRR");
        // The figures worked out by hand, with those that only a look-up can supply. They know the
        // estimated fees only.
        let expected = scenario.expected();
        let mut payments: Vec<String> = expected
            .payments
            .iter()
            .map(|p| {
                let figures = [p.amount_cents, p.refund_amount_cents, p.disputed_cents];
                format!("{} {} {figures:?} {:?}", p.key, p.status, p.succeeded_at)
            })
            .collect();
        payments.sort();
        let client = site.surroundings.database.client().await;
        let like = format!("%{}0%", scenario.prefix);
        let stored: Vec<String> = client
            .query(
                "SELECT payment_key, status, amount_cents, refund_amount_cents,
                        disputed_amount_cents, succeeded_at
                 FROM payment_history WHERE payment_key LIKE $1 ORDER BY payment_key",
                &[&like],
            )
            .await
            .unwrap()
            .iter()
            .map(|row| {
                let figures: [i64; 3] = [row.get(2), row.get(3), row.get(4)];
                let succeeded_at: Option<Timestamp> = row.get(5);
                let (key, status): (&str, &str) = (row.get(0), row.get(1));
                format!("{key} {status} {figures:?} {succeeded_at:?}")
            })
            .collect();
        assert_eq!(stored, payments, "{name}");
        let mrr = "SELECT (round(COALESCE(sum(mrr_microcents), 0) / 1000000.0))::bigint
                   FROM subscriptions WHERE stripe_subscription_id LIKE $1";
        let mrr: i64 = client.query_one(mrr, &[&like]).await.unwrap().get(0);
        assert_eq!(mrr, expected.mrr_cents, "{name}: MRR");
        // A second run has nothing to ask.
        let before = stripe.requests();
        run(&site.app(&stripe), REDRIVE, Value::Null, later(&stripe)).await;
        assert_eq!(stripe.requests(), before, "{name}");
    }
}

#[tokio::test]
async fn everything_is_known_after_the_redrive_in_basil() {
    everything_is_known_after_the_redrive(Shape::Basil).await;
}

#[tokio::test]
async fn everything_is_known_after_the_redrive_in_endive() {
    everything_is_known_after_the_redrive(Shape::Endive).await;
}

#[tokio::test]
async fn tiers_and_lines_beyond_the_tenth_are_fetched() {
    let mut account = Account::new("Tiers", spring());
    let customer = account.create_customer(None, None, Metadata::new());
    let tier = |up_to, unit_amount| Tier {
        up_to,
        unit_amount,
        flat_amount: 0,
    };
    let price = account.create_price(&NewPrice {
        tiers: Some(("graduated", vec![tier(Some(5), 1_000), tier(None, 500)])),
        ..NewPrice::monthly("usd", 0, "professional")
    });
    account
        .subscribe(
            &customer,
            &fake_stripe::billing::NewSubscription {
                items: vec![(price.as_str(), 7)],
                trial_days: None,
                coupon: None,
                tax_bps: 0,
                metadata: Metadata::new(),
            },
        )
        .unwrap();
    let names: Vec<String> = (0..23).map(|number| format!("Deed {number}")).collect();
    let lines: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 100)).collect();
    let invoice = account.create_invoice(&customer, "usd", &lines).unwrap();
    let events = account.events(Shape::Endive);
    let site = Site::new().await;
    site.deliver(&events).await;
    assert_eq!(
        site.texts("SELECT mrr_provisional::text FROM subscriptions")
            .await,
        ["true"]
    );
    let stripe = serve(account, Shape::Endive).await;
    run(&site.app(&stripe), REDRIVE, Value::Null, later(&stripe)).await;
    assert_eq!(open(&site).await, Vec::<String>::new());
    // 5 × $10 + 2 × $5.
    assert_eq!(
        site.texts("SELECT concat_ws(' ', mrr_cents, mrr_provisional) FROM subscriptions")
            .await,
        ["6000 f"]
    );
    assert_eq!(
        site.texts("SELECT (sum(delta_microcents) / 1000000)::bigint::text FROM mrr_movements")
            .await,
        ["6000"]
    );
    let lines = format!(
        "SELECT jsonb_array_length(line_items->'items')::text FROM invoices
         WHERE stripe_invoice_id = '{invoice}'"
    );
    assert_eq!(site.texts(&lines).await, ["23"]);
}

#[tokio::test]
async fn an_object_that_stripe_does_not_know_is_an_alarm_and_changes_nothing() {
    let site = Site::new().await;
    let account = payments(2);
    site.deliver(&account.events(Shape::Endive)).await;
    let before = site.figures().await;
    let stripe = serve(Account::new("Other", spring()), Shape::Endive).await;
    let now = spring() + SignedDuration::from_hours(2);
    let summary = run(&site.app(&stripe), REDRIVE, Value::Null, now).await;
    assert_eq!(
        (&summary["lookups_done"], &summary["lookups_not_found"]),
        (&json!(0), &json!(2)),
        "{summary}"
    );
    assert_eq!(site.figures().await, before);
    assert_eq!(open(&site).await.len(), 2);
    assert!(logs::captured().contains("Stripe does not know an object that the ledger names"));
    // Not again today.
    let summary = run(&site.app(&stripe), REDRIVE, Value::Null, now).await;
    assert_eq!(summary["lookups_not_found"], 0, "{summary}");
}

#[tokio::test]
async fn without_a_key_the_redrive_says_so_and_does_the_rest() {
    let site = Site::new().await;
    let account = payments(3);
    site.deliver(&account.events(Shape::Endive)).await;
    let now = spring() + SignedDuration::from_hours(2);
    let summary = run(&site.app_with(&[]), REDRIVE, Value::Null, now).await;
    assert_eq!(summary["lookups_remaining"], 3, "{summary}");
    assert_eq!(
        summary["lookups_stopped"], "STRIPE_API_KEY is not configured",
        "{summary}"
    );
    assert!(summary["published"].as_u64() > Some(0), "{summary}");
}

#[tokio::test]
async fn a_stripe_in_trouble_is_left_alone_and_asked_again_later() {
    let site = Site::new().await;
    let account = payments(30);
    site.deliver(&account.events(Shape::Endive)).await;
    let before = site.figures().await;
    let stripe = serve(account, Shape::Endive).await;
    let app = site.app(&stripe);
    let mut now = later(&stripe);
    for fault in faults("/v1/balance_transactions", 10_000) {
        let app = site.app_in_trouble(&stripe, &fault);
        stripe.inject(fault.clone());
        let asked = stripe.requests();
        let summary = run(&app, REDRIVE, Value::Null, now).await;
        assert_eq!(summary["lookups_done"], 0, "{fault:?}: {summary}");
        assert!(
            summary["lookups_stopped"].is_string(),
            "{fault:?}: {summary}"
        );
        let asked = stripe.requests() - asked;
        assert!(asked <= 20, "{fault:?}: {asked} requests");
        assert_eq!(site.figures().await, before, "{fault:?}");
        stripe.clear_faults();
        now += SignedDuration::from_hours(1);
    }
    let summary = run(&app, REDRIVE, Value::Null, now).await;
    assert_eq!(summary["lookups_done"], 30, "{summary}");
    assert_eq!(site.count(ESTIMATED).await, 0);
}

#[tokio::test]
async fn two_runs_at_once_ask_for_each_object_once() {
    let site = Site::new().await;
    let account = payments(60);
    site.deliver(&account.events(Shape::Endive)).await;
    let stripe = serve(account, Shape::Endive).await;
    let (one, other) = (site.app(&stripe), site.app(&stripe));
    let now = later(&stripe);
    let (one, other) = tokio::join!(
        run(&one, REDRIVE, Value::Null, now),
        run(&other, REDRIVE, Value::Null, now)
    );
    let done = |summary: &Value| summary["lookups_done"].as_u64().unwrap();
    assert_eq!(done(&one) + done(&other), 60, "{one} {other}");
    assert_eq!(stripe.requests(), 60);
    assert_eq!(site.count("stripe_lookups WHERE done_at IS NULL").await, 0);
}

#[tokio::test]
async fn a_deadline_leaves_the_rest_for_the_next_run() {
    let site = Site::new().await;
    let account = payments(5);
    site.deliver(&account.events(Shape::Endive)).await;
    let stripe = serve(account, Shape::Endive).await;
    let app = site.app(&stripe);
    let now = later(&stripe);
    let reached = Deadline::after(std::time::Duration::ZERO);
    let summary = run_until(&app, REDRIVE, Value::Null, now, reached).await;
    assert_eq!(
        (&summary["lookups_remaining"], &summary["lookups_stopped"]),
        (&json!(5), &json!("the time was up"))
    );
    assert_eq!(
        run(&app, REDRIVE, Value::Null, now).await["lookups_done"],
        5
    );
}

#[tokio::test]
async fn a_run_that_was_killed_gives_its_look_ups_back() {
    let site = Site::new().await;
    let account = payments(4);
    site.deliver(&account.events(Shape::Endive)).await;
    let stripe: FakeStripe = serve(account, Shape::Endive).await;
    let app = site.app(&stripe);
    let now = later(&stripe);
    stripe.inject(fake_stripe::Fault::Hang {
        path: String::new(),
        times: 100,
    });
    // Killed once it waits for Stripe, and has taken its look-ups by then.
    let before = stripe.requests();
    let asked = async {
        while stripe.requests() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        summary = run(&app, REDRIVE, Value::Null, now) => panic!("it does not hang: {summary}"),
        () = asked => {}
    }
    stripe.clear_faults();
    let summary = run(&app, REDRIVE, Value::Null, now).await;
    assert_eq!(summary["lookups_done"], 0, "still leased: {summary}");
    let summary = run(
        &app,
        REDRIVE,
        Value::Null,
        now + SignedDuration::from_mins(20),
    )
    .await;
    assert_eq!(summary["lookups_done"], 4, "{summary}");
}

#[tokio::test]
async fn an_object_of_the_other_mode_is_no_answer() {
    let mut account = Account::new("Mode", spring());
    let customer = account.create_customer(None, None, Metadata::new());
    let names: Vec<String> = (0..23).map(|number| format!("Deed {number}")).collect();
    let lines: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 100)).collect();
    account.create_invoice(&customer, "usd", &lines).unwrap();
    let events = account.events(Shape::Basil);
    let site = Site::new().await;
    site.deliver(&events).await;
    let before = site.figures().await;
    assert!(!open(&site).await.is_empty());
    let stripe = serve(account, Shape::Basil).await;
    let base = stripe.base_url();
    let pairs = [
        ("STRIPE_API_BASE", base.as_str()),
        ("STRIPE_API_KEY", "rk_test_healing"),
    ];
    let [address, key] = pairs;
    let app = site.app_with(&[address, key, ("STRIPE_LIVEMODE", "true")]);
    let summary = run(&app, REDRIVE, Value::Null, later(&stripe)).await;
    assert_eq!(summary["lookups_done"], 0, "{summary}");
    assert!(summary["lookups_failed"].as_u64() > Some(0), "{summary}");
    let first = open(&site).await;
    assert!(
        first
            .iter()
            .any(|one| one.ends_with("1 wrong_mode: the object is of the other mode")),
        "{first:?}"
    );
    assert_eq!(site.figures().await, before);
}

/// A site whose events come thin, some of them as snapshots, too, in a random order, and what it should be.
#[tokio::test]
async fn thin_events_end_in_the_ledger_of_their_snapshots() {
    let scenario = scenarios().into_iter().next().unwrap();
    for shape in [Shape::V2022_11_15, Shape::Endive] {
        let events = scenario.events(shape);
        let snapshots = Site::new().await;
        snapshots.deliver(&events).await;
        let stripe = serve(scenario.account(), shape).await;
        let now = later(&stripe);
        run(&snapshots.app(&stripe), REDRIVE, Value::Null, now).await;

        let site = Site::new().await;
        let mut mixed: Vec<Value> = events.iter().map(thin).collect();
        mixed.extend(events.iter().step_by(3).cloned());
        mixed.reverse();
        site.deliver(&mixed).await;
        let deferred = "stripe_events WHERE outcome = 'deferred'";
        assert_eq!(
            site.count(deferred).await,
            i64::try_from(events.len()).unwrap()
        );
        let summary = run(&site.app(&stripe), REDRIVE, Value::Null, now).await;
        assert_eq!(summary["lookups_failed"], 0, "{shape:?}: {summary}");
        // What the fetched events have named is fetched by the next run.
        run(&site.app(&stripe), REDRIVE, Value::Null, now).await;
        assert_eq!(site.count(deferred).await, 0, "{shape:?}");
        assert_eq!(open(&site).await, Vec::<String>::new(), "{shape:?}");
        let money =
            "SELECT concat_ws(' ', day, currency, gross_cents, fees_cents, refunds_cents, payments)
                     FROM revenue_daily ORDER BY 1";
        let users = "SELECT concat_ws(' ', id, plan) FROM users ORDER BY id";
        for figures in [money, users] {
            assert_eq!(
                site.texts(figures).await,
                snapshots.texts(figures).await,
                "{shape:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_thin_event_whose_snapshot_is_gone_is_about_its_object() {
    let account = payments(1);
    let event = account.events(Shape::Endive);
    let mut charged = event
        .iter()
        .find(|one| one["type"] == "charge.succeeded")
        .map(thin)
        .unwrap();
    let stripe = serve(account, Shape::Endive).await;
    let site = Site::new().await;
    for (id, snapshot) in [
        ("evt_Old", json!("evt_LongGone")),
        ("evt_None", Value::Null),
    ] {
        charged["id"] = id.into();
        charged["snapshot_event"] = snapshot;
        site.deliver(&[charged.clone()]).await;
    }
    let summary = run(&site.app(&stripe), REDRIVE, Value::Null, later(&stripe)).await;
    assert_eq!(summary["lookups_done"], 2, "{summary}");
    assert_eq!(
        site.count("payment_history WHERE amount_cents = 2999")
            .await,
        1
    );
    assert_eq!(
        site.count("stripe_events WHERE outcome = 'applied'").await,
        2
    );

    // Neither is there: it waits, and says so.
    charged["id"] = "evt_Lost".into();
    charged["snapshot_event"] = "evt_LongGone".into();
    charged["related_object"]["id"] = "ch_LongGone".into();
    site.deliver(&[charged]).await;
    let summary = run(&site.app(&stripe), REDRIVE, Value::Null, later(&stripe)).await;
    assert_eq!(summary["lookups_not_found"], 1, "{summary}");
    assert_eq!(
        site.count("stripe_lookups WHERE state = 'absent' AND subject = 'evt_Lost'")
            .await,
        1
    );
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_healed_by_its_object() {
    let account = payments(1);
    let events = account.events(Shape::Endive);
    let mut charged = events
        .iter()
        .find(|one| one["type"] == "charge.succeeded")
        .unwrap()
        .clone();
    charged["data"]["object"]["currency"] = Value::Null;
    let stripe = serve(account, Shape::Endive).await;
    let site = Site::new().await;
    site.park(&charged).await;
    // The first run finds that it cannot be read, and asks for the charge; so the figures are there.
    let app = site.app(&stripe);
    let summary = run(&app, REDRIVE, Value::Null, later(&stripe)).await;
    assert_eq!(
        (&summary["failed"], &summary["lookups_done"]),
        (&json!(1), &json!(1)),
        "{summary}"
    );
    assert_eq!(
        site.count("payment_history WHERE amount_cents = 2999")
            .await,
        1
    );
    assert_eq!(
        site.count("stripe_events WHERE outcome = 'healed'").await,
        1
    );
    let again = later(&stripe) + SignedDuration::from_hours(1);
    let summary = run(&app, REDRIVE, Value::Null, again).await;
    assert_eq!(
        (&summary["failed"], &summary["duplicate"]),
        (&json!(0), &json!(0)),
        "{summary}"
    );
}
