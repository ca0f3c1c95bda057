//! Failures on purpose: cuts before every statement and at COMMIT, S3 and the bus away. The next run ends in the state
//! of one that nothing happened to.

use partner_invoicing::{Error, handle};
use serde_json::{Value, json};

use crate::site::{Site, at, event, run, run_in_part};

const TIME: &str = "2025-12-01T00:05:00Z";

/// Contracts with usage, a credit, and a month invoiced before, of which usage has come late.
pub(crate) async fn story(site: &Site) {
    site.contract(
        "dp_pk_alpha",
        json!({"tax_rate_bps": 1_900, "contract_start_date": "2025-10-01"}),
    )
    .await;
    site.contract(
        "dp_pk_beta",
        json!({"pricing_model": "per_request", "per_1000_requests_cents": 700}),
    )
    .await;
    site.served("dp_pk_alpha", 5, "2025-10-10T00:00:00Z").await;
    run(&site.app(), "2025-11-01T00:05:00Z").await;
    site.served("dp_pk_alpha", 3, "2025-10-11T00:00:00Z").await;
    site.served("dp_pk_alpha", 312, "2025-11-10T00:00:00Z")
        .await;
    site.served("dp_pk_beta", 1_001, "2025-11-10T00:00:00Z")
        .await;
    site.execute(
        "INSERT INTO credits (api_key_prefix, amount_cents, remaining_cents, currency, reason)
         VALUES ('dp_pk_alpha', 700, 700, 'USD', 'goodwill')",
    )
    .await;
}

async fn undisturbed() -> Vec<String> {
    let site = Site::new().await;
    story(&site).await;
    run(&site.app(), TIME).await;
    site.state().await
}

#[tokio::test]
async fn a_connection_cut_anywhere_leaves_what_the_next_run_completes() {
    let expected = undisturbed().await;
    let steps = [
        "contracts::after",
        "partner_invoices::periods",
        "contract_usage::read",
        "contracts::lock_and_read",
        "credits::lock_available",
        "partner_invoices::take_number",
        "partner_invoices::insert",
        "invoiced_usage::insert_all",
        "credits::apply",
        "outbox::insert_all",
        "partner_invoices::without_pdf",
        "outbox::claim",
        "outbox::mark_published",
        "invoice_runs::finish",
    ];
    for step in steps {
        let site = Site::new().await;
        story(&site).await;
        let (proxy, url) = site.database.behind_proxy();
        let app = site.app_with(&[("DATABASE_URL", &url), ("DATABASE_SSLMODE", "disable")]);
        proxy.cut_before(step);
        // It may fail, or go on by itself; what it says is not the point.
        let cut = handle(&app, event(TIME, Value::Null), at(TIME)).await;
        assert!(proxy.cuts() > 0, "{step} was reached: {cut:?}");
        proxy.pass();
        // The messages that were claimed when it was cut are due again a minute later.
        run(&app, TIME).await;
        run(&app, "2025-12-01T00:10:00Z").await;
        assert_eq!(site.state().await, expected, "{step}");
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_done_again() {
    let expected = undisturbed().await;
    for before in [false, true] {
        let site = Site::new().await;
        story(&site).await;
        let (proxy, url) = site.database.behind_proxy();
        let app = site.app_with(&[("DATABASE_URL", &url), ("DATABASE_SSLMODE", "disable")]);
        if before {
            proxy.cut_before_commit();
        } else {
            proxy.cut_on_commit();
        }
        let cut = handle(&app, event(TIME, Value::Null), at(TIME)).await;
        assert!(proxy.cuts() > 0, "{cut:?}");
        proxy.pass();
        run(&app, TIME).await;
        run(&app, "2025-12-01T00:10:00Z").await;
        assert_eq!(site.state().await, expected, "before the commit: {before}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_fails_the_run() {
    let site = Site::new().await;
    let app = site.app_with(&[
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ("DATABASE_SSLMODE", "disable"),
    ]);
    let away = handle(&app, event(TIME, Value::Null), at(TIME)).await;
    assert!(matches!(away, Err(Error::Database { .. })), "{away:?}");
}

#[tokio::test]
async fn without_s3_and_bus_the_invoices_are_issued_and_the_next_run_does_the_rest() {
    let expected = undisturbed().await;
    let site = Site::new().await;
    story(&site).await;
    let summary = run_in_part(&site.app_without_aws(), TIME).await;
    assert_eq!(summary["invoices_created"], 2);
    assert_eq!(summary["failed"][0]["step"], "pdf");
    assert!(summary["publish_failed"].as_i64().unwrap() > 0);
    // The bus is asked again after its pause.
    let summary = run(&site.app(), "2025-12-01T00:10:00Z").await;
    assert_eq!(summary["pdfs_stored"], 2);
    assert_eq!(site.state().await, expected);
}
