//! The archive read again: a database that the release before has written becomes what this one would have written.

use fake_stripe::{Account, Shape, scenarios};
use jiff::Timestamp;
use reconciliation::Deadline;
use serde_json::{Value, json};
use testing::ledger::unmatched_parts;
use testing::{differing_rows, ledger_rows};

use super::site::{Site, later, run, run_until, serve};

const REBUILD: &str = "reconciliation.rebuild";
const REDRIVE: &str = "reconciliation.redrive";

/// What the release before did not write: its columns, its look-ups' rows, and money outside Stripe from basil on.
const AS_BEFORE: &str = "
    UPDATE invoices SET names_payment = NULL, outside_stripe_stated_at = NULL, outside_stripe_stated_cents = NULL,
        partial = '{}';
    UPDATE invoice_payments SET is_default = NULL, stripe_payment_record_id = NULL;
    UPDATE subscriptions SET items_shown_at = NULL, items_complete = NULL, partial = '{}';
    UPDATE subscription_versions SET missing = '[]';
    UPDATE payment_attempts SET partial = '{}';
    UPDATE customers SET partial = '{}';
    UPDATE payment_history SET amount_cents = amount_cents + 1 WHERE payment_key LIKE 'in%';
    UPDATE revenue_entries SET amount_cents = amount_cents + 1 WHERE payment_key LIKE 'in%' AND kind = 'gross';
    UPDATE revenue_daily SET gross_cents = gross_cents + 1
    WHERE (day, currency) IN (SELECT day, currency FROM revenue_entries WHERE payment_key LIKE 'in%');
    DELETE FROM stripe_lookups";

async fn rows(site: &Site) -> Vec<String> {
    let client = site.surroundings.database.client().await;
    let unmatched = unmatched_parts(&client).await.unwrap();
    assert_eq!(unmatched, Vec::<String>::new());
    ledger_rows(&client).await.unwrap()
}

async fn execute(site: &Site, sql: &str) {
    let client = site.surroundings.database.client().await;
    client.batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn a_database_of_the_release_before_becomes_what_this_one_writes() {
    for shape in [Shape::V2020_08_27, Shape::Endive] {
        let site = Site::new().await;
        for scenario in scenarios() {
            site.deliver(&scenario.events(shape)).await;
        }
        let stripe = serve(Account::new("None", Timestamp::UNIX_EPOCH), shape).await;
        let app = site.app(&stripe);
        let now = "2026-11-01T00:00:00Z".parse().unwrap();
        // Whatever was parked or unpublished is not what this is about.
        let expected = rows(&site).await;
        execute(&site, AS_BEFORE).await;
        let damaged = site
            .texts("SELECT sum(gross_cents)::text FROM revenue_daily")
            .await;

        let done = run(&app, REBUILD, json!({"all": true}), now).await;
        assert_eq!(done["is_finished"], true, "{done}");
        let actual = rows(&site).await;
        let (missing, extra) = differing_rows(&expected, &actual);
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{shape:?}\nmissing {missing:#?}\nextra {extra:#?}"
        );
        let restated = site
            .texts(
                "SELECT concat_ws(' ', object_id, ledger_value, stripe_value, resolution)
             FROM reconciliation_items WHERE kind = 'restated' ORDER BY 1",
            )
            .await;
        if shape == Shape::V2020_08_27 {
            assert_ne!(
                site.texts("SELECT sum(gross_cents)::text FROM revenue_daily")
                    .await,
                damaged
            );
            assert!(
                restated[0].starts_with("2026-04:USD:gross "),
                "{restated:?}"
            );
            assert!(restated[0].ends_with(" healed"), "{restated:?}");
        }
        let outbox = site.count("outbox").await;

        // Again: nothing changes, nothing is told, nothing is announced.
        let done = run(&app, REBUILD, json!({"all": true}), now).await;
        assert_eq!(done["restated"], json!({}), "{done}");
        assert_eq!(rows(&site).await, actual, "{shape:?}");
        assert_eq!(site.count("outbox").await, outbox);
        let told = "reconciliation_items WHERE kind = 'restated'";
        assert_eq!(
            site.count(told).await,
            i64::try_from(restated.len()).unwrap()
        );
    }
}

#[tokio::test]
async fn the_redrive_goes_on_with_what_the_migration_has_begun() {
    let site = Site::new().await;
    let scenario = scenarios().into_iter().next().unwrap();
    site.deliver(&scenario.events(Shape::Basil)).await;
    let stripe = serve(scenario.account(), Shape::Basil).await;
    let (app, now) = (site.app(&stripe), later(&stripe));
    run(&app, REDRIVE, Value::Null, now).await;
    let expected = rows(&site).await;
    execute(
        &site,
        "INSERT INTO import_cursors (name, state, started_at, updated_at)
                    VALUES ('rebuild', '{}', now(), now())",
    )
    .await;
    execute(
        &site,
        "UPDATE invoices SET names_payment = NULL WHERE source_event_id LIKE 'evt%'",
    )
    .await;
    // Without time it is left for the next run.
    let late = Deadline::after(std::time::Duration::ZERO);
    run_until(&app, REDRIVE, Value::Null, now, late).await;
    assert_eq!(
        site.count("import_cursors WHERE finished_at IS NULL").await,
        1
    );
    let summary = run(&app, REDRIVE, Value::Null, now).await;
    assert_eq!(summary["rebuild"]["is_finished"], true, "{summary}");
    assert_eq!(
        site.count("import_cursors WHERE finished_at IS NULL").await,
        0
    );
    assert_eq!(rows(&site).await, expected);

    // What only a fetch has shown is fetched again.
    execute(&site, "UPDATE invoices SET names_payment = NULL, source_event_id = 'fetch:x:1', source_created_at = '2026-04-01 01:00:00.999Z'").await;
    let done = run(&app, REBUILD, json!({"all": true}), now).await;
    assert_ne!(done["asked"], 0, "{done}");
    rows(&site).await;
    let summary = run(&app, REDRIVE, Value::Null, now).await;
    let left = site
        .texts("SELECT to_jsonb(invoices)::text FROM invoices WHERE names_payment IS NULL")
        .await;
    let lookups = site
        .texts("SELECT to_jsonb(stripe_lookups)::text FROM stripe_lookups")
        .await;
    assert_eq!(left, Vec::<String>::new(), "{summary} {lookups:#?}");
    assert_eq!(site.count("stripe_lookups WHERE done_at IS NULL").await, 0);
}

#[tokio::test]
async fn objects_and_kinds_are_read_again_alone() {
    let site = Site::new().await;
    let scenario = scenarios().into_iter().next().unwrap();
    site.deliver(&scenario.events(Shape::Endive)).await;
    let stripe = serve(scenario.account(), Shape::Endive).await;
    let (app, now) = (site.app(&stripe), later(&stripe));
    let invoice = site
        .texts("SELECT stripe_invoice_id FROM invoices ORDER BY 1 LIMIT 1")
        .await;
    let damage =
        "UPDATE invoices SET names_payment = NULL; UPDATE subscriptions SET items_complete = NULL";
    let unread = "invoices WHERE names_payment IS NULL AND source_event_id LIKE 'evt%'";
    execute(&site, damage).await;
    let before = site.count(unread).await;
    run(&app, REBUILD, json!({"objects": invoice}), now).await;
    assert_eq!(site.count(unread).await, before - 1);
    run(&app, REBUILD, json!({"kinds": ["invoice"]}), now).await;
    assert_eq!(site.count(unread).await, 0);
    assert_ne!(
        site.count("subscriptions WHERE items_complete IS NULL")
            .await,
        0
    );
}
