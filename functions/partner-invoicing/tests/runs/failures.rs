//! Failures on purpose: cuts before every statement and at COMMIT, S3 and the bus away or without memory. The next run
//! ends in the state of one that nothing happened to.

use partner_invoicing::{Error, handle};
use serde_json::{Value, json};
use testing::services::{Moto, progress_to_stderr};
use testing::{FaultProxy, aws};

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
        "contracts::ids_after",
        "contracts::lock",
        "contracts::read",
        "partner_invoices::periods",
        "contract_usage::read",
        "credits::lock_available",
        "partner_invoices::take_number",
        "partner_invoices::insert",
        "invoiced_usage::insert_all",
        "credits::apply",
        "outbox::insert_all",
        "partner_invoices::without_pdf",
        "invoices::find_all",
        "invoices::set_pdfs",
        "outbox::claim",
        "outbox::mark_published",
        "invoice_runs::finish",
    ];
    for step in steps {
        let site = Site::new().await;
        story(&site).await;
        let (proxy, url) = site.surroundings.database.behind_proxy();
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
        let (proxy, url) = site.surroundings.database.behind_proxy();
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

async fn moto() -> Moto {
    let start = || Moto::start(&progress_to_stderr);
    tokio::task::spawn_blocking(start).await.unwrap().unwrap()
}

/// The server is stopped in the middle of a run and comes back without bucket, bus and documents.
#[tokio::test]
async fn a_bucket_that_is_lost_during_a_run_costs_no_invoice_and_no_document() {
    let undisturbed = Site::new().await;
    story(&undisturbed).await;
    run(&undisturbed.app(), TIME).await;
    let mut site = Site::new().await;
    let first = moto().await;
    site.move_to(first.endpoint_url()).await;
    story(&site).await;
    let address = first.endpoint_url().trim_start_matches("http://");
    let proxy = FaultProxy::start(address.parse().unwrap());
    // One PDF after the other; the first gets through.
    let one_by_one = [("DATABASE_POOL_SIZE", "1")];
    let behind = aws::sdk_config(&format!("http://{}", proxy.address()));
    let app = site.app_on(&one_by_one, &behind);
    proxy.hold_flight(2);
    let running = handle(&app, event(TIME, Value::Null), at(TIME));
    tokio::pin!(running);
    tokio::select! {
        () = proxy.held() => {}
        done = &mut running => panic!("it should have been held: {done:?}"),
    }
    assert_eq!(site.documents().await.len(), 2, "October's, and one more");
    drop(first);
    proxy.refuse();
    let cut = running.await;
    assert!(matches!(cut, Err(Error::Partial { .. })), "{cut:?}");
    // It is up again, and knows nothing.
    let second = moto().await;
    let empty = site.app_with_aws(second.endpoint_url());
    let summary = run_in_part(&empty, TIME).await;
    assert_eq!(summary["invoices_created"], 0);
    assert_eq!(summary["failed"][0]["step"], "pdf");
    site.move_to(second.endpoint_url()).await;
    let summary = run(&site.app(), "2025-12-01T01:00:00Z").await;
    assert_eq!(summary["pdfs_stored"], 1, "the other");
    assert_eq!(site.state().await, undisturbed.state().await);
    // What was stored and noted before is printed again, byte for byte, once the note is taken off.
    assert_eq!(site.documents().await.len(), 1);
    site.execute("UPDATE invoices SET pdf_key = NULL, pdf_sha256 = NULL, invoice_pdf_url = NULL")
        .await;
    run(&site.app(), "2025-12-01T01:05:00Z").await;
    assert_eq!(site.state().await, undisturbed.state().await);
    assert!(
        site.documents().await == undisturbed.documents().await,
        "the same bytes in S3"
    );
}
