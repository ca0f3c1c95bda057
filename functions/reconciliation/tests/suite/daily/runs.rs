//! Runs as such: a clean account, two at once, cut off, late, over.

use std::time::Duration;

use fake_stripe::account::{Account, NewPrice};
use fake_stripe::billing::NewSubscription;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use reconciliation::{Deadline, Error, handle};
use runtime::aws::document_bucket::DocumentBucket;
use runtime::config::Environment;
use serde_json::{Map, Value, json};
use shared::ledger;
use stripe::client::Client as Stripe;

use super::site::{FEES, Site, assert_counts, at, event, ingest, morning};

/// Payments, and of every tenth a refund.
fn busy(account: &mut Account, payments: i64) {
    let customer = account.create_customer(None, None, Metadata::new());
    for number in 0..payments {
        let intent = account
            .pay_once(&customer, 1_000 + number, "usd", Outcome::Succeeds)
            .unwrap();
        if number % 10 == 0 {
            account.refund(&intent, 100).unwrap();
        }
        // Some share a second with the next, as a page's end may.
        if number % 3 == 0 {
            account.advance(7);
        }
    }
}

fn count(summary: &Value, name: &str) -> i64 {
    summary[name].as_i64().unwrap()
}

#[tokio::test]
async fn a_clean_account_of_five_thousand_objects_is_complete() {
    let mut account = Account::new("Clean", at("2026-02-28T22:00:00Z"));
    let price = account.create_price(&NewPrice::monthly("eur", 2500, "professional"));
    for number in 0..150 {
        let customer = account.create_customer(None, None, Metadata::new());
        let wanted = NewSubscription {
            items: vec![(&price, 1)],
            ..NewSubscription::default()
        };
        account.subscribe(&customer, &wanted).unwrap();
        if number % 10 == 0 {
            let invoice = account
                .create_invoice(&customer, "eur", &[("Setup", 5_000)])
                .unwrap();
            account.pay_out_of_band(&invoice).unwrap();
        }
        account.advance(5);
    }
    busy(&mut account, 1_350);
    account.pay_out_balance().unwrap();
    account.set_now(morning());
    let site = Site::new(account).await;
    // The ledger as a backfill leaves it, which is quicker than 8,000 deliveries.
    let environment = Environment::from_pairs([
        ("STRIPE_API_BASE", site.stripe.base_url()),
        ("STRIPE_API_KEY", "rk_test_Backfill".to_owned()),
        ("STRIPE_LIVEMODE", "any".to_owned()),
    ]);
    let stripe = Stripe::from_env(&environment, &aws_types::SdkConfig::builder().build()).unwrap();
    let mut db = site.client().await;
    for (list, expand) in [
        ("customers", None),
        ("subscriptions", None),
        ("invoices", Some("data.payments")),
        ("payment_intents", None),
        ("charges", Some("data.balance_transaction")),
        ("refunds", None),
        ("payouts", None),
    ] {
        let mut params = Map::new();
        if let Some(expand) = expand {
            params.insert("expand".to_owned(), json!([expand]));
        }
        let path = [list];
        let mut pages = stripe.pages(&path, params, 100, morning());
        while let Some(page) = pages.next_page().await.unwrap() {
            ledger::ingest_fetched(&mut db, &page, at("2026-03-02T05:00:00Z"), FEES)
                .await
                .unwrap();
        }
    }
    let summary = site.run_with(json!({"heal": false})).await.unwrap();
    assert_counts(&summary, 0, 0);
    assert!(count(&summary, "compared") > 5_000, "{summary:#}");
    assert_eq!(summary["compared"], summary["matched"]);
    assert_eq!(summary["completeness_bps"], 10_000);
    assert_eq!(summary["not_checked"], json!([]));
    assert_eq!(site.items().await, Vec::<String>::new());
    assert_eq!(
        site.count("reconciliation_runs WHERE status = 'completed' AND completeness_bps = 10000")
            .await,
        1
    );
}

#[tokio::test]
async fn estimated_fees_become_actual_ones_and_are_no_discrepancy() {
    let mut account = Account::new("Fees", at("2026-03-01T10:00:00Z"));
    busy(&mut account, 12);
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver_all().await;
    assert_eq!(
        site.count("payment_history WHERE fee_source = 'estimated'")
            .await,
        12
    );
    assert_eq!(site.count("stripe_lookups WHERE done_at IS NULL").await, 12);
    let only_told = site.run_with(json!({"heal": false})).await.unwrap();
    assert_counts(&only_told, 0, 0);
    assert_eq!(only_told["fees_settled"], 0);
    let summary = site.run().await.unwrap();
    assert_counts(&summary, 0, 0);
    assert_eq!(summary["fees_settled"], 12);
    assert_eq!(
        site.count("payment_history WHERE fee_source = 'actual'")
            .await,
        12
    );
    assert_eq!(site.count("stripe_lookups WHERE done_at IS NULL").await, 0);
    assert_eq!(site.run().await.unwrap()["fees_settled"], 0);
}

#[tokio::test]
async fn two_runs_at_once_heal_the_same_once_and_leave_the_same_ledger() {
    let mut account = Account::new("Twice", at("2026-03-01T10:00:00Z"));
    busy(&mut account, 30);
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver(|event| event["type"] != "charge.succeeded" && event["type"] != "refund.created")
        .await;
    let other = site.app_with(&[]);
    let (left, right) = tokio::join!(site.run(), handle(&other, event(json!({})), morning()));
    for summary in [left.unwrap(), right.unwrap()] {
        assert_eq!(summary["open"], 0, "{summary:#}");
    }
    assert_eq!(site.count("payment_attempts").await, 30);
    assert_eq!(site.count("refunds").await, 3);
    assert_counts(&site.run().await.unwrap(), 0, 0);
    let unexplained = site
        .count(
            "(SELECT sum(amount_cents) AS cents FROM revenue_entries WHERE kind = 'gross') AS lines
             JOIN (SELECT sum(gross_cents) AS cents FROM revenue_daily) AS days
             ON lines.cents = days.cents",
        )
        .await;
    assert_eq!(unexplained, 1);
}

#[tokio::test]
async fn a_run_that_is_cut_off_at_any_request_is_made_good_by_the_next() {
    let mut account = Account::new("Cut", at("2026-03-01T10:00:00Z"));
    busy(&mut account, 6);
    account.pay_out_balance().unwrap();
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver(|event| event["type"] != "charge.succeeded")
        .await;
    for request in (1..40).step_by(4) {
        site.execute("DELETE FROM refunds").await;
        site.execute("DELETE FROM payment_attempts WHERE amount_cents IN (1001, 1004)")
            .await;
        let before = site.stripe.requests();
        let app = site.app_with(&[]);
        let run = handle(&app, event(json!({})), morning());
        let cut = async {
            while site.stripe.requests() < before + request {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = run => drop(done),
            () = cut => {}
        }
        let summary = site.run().await.unwrap();
        assert_eq!(summary["open"], 0, "after request {request}: {summary:#}");
        assert_counts(&site.run().await.unwrap(), 0, 0);
        assert_eq!(site.count("payment_attempts").await, 6);
        assert_eq!(site.count("refunds").await, 1);
    }
    // What was cut off is called failed by a later run.
    let running = site
        .count("reconciliation_runs WHERE status = 'running'")
        .await;
    assert!(running > 0);
    let later = json!({"source": "aws.scheduler", "detail-type": "reconciliation.daily",
                       "time": "2026-03-03T06:00:00Z"});
    site.stripe
        .with_account(|account| account.set_now(at("2026-03-03T06:00:00Z")));
    handle(&site.app, later, morning()).await.unwrap();
    assert_eq!(
        site.count("reconciliation_runs WHERE status = 'running'")
            .await,
        0
    );
    assert_eq!(
        site.count("reconciliation_runs WHERE status = 'failed'")
            .await,
        running
    );
}

#[tokio::test]
async fn deliveries_while_a_run_pages_are_no_discrepancies() {
    let mut account = Account::new("Paging", at("2026-03-01T10:00:00Z"));
    busy(&mut account, 60);
    account.set_now(morning());
    let mut site = Site::new(account).await;
    let events = site.announced(fake_stripe::Shape::Endive);
    let mut db = site.client().await;
    let delivering = async {
        for event in events {
            ingest(&mut db, event, morning()).await;
        }
    };
    let ((), summary) = tokio::join!(delivering, site.run());
    assert_eq!(summary.unwrap()["open"], 0);
    assert_counts(&site.run().await.unwrap(), 0, 0);
    assert_eq!(
        site.count("payment_history WHERE status IN ('succeeded', 'partially_refunded')")
            .await,
        60
    );
}

#[tokio::test]
async fn a_run_stops_before_its_deadline_and_says_so() {
    let mut account = Account::new("Late", at("2026-03-01T10:00:00Z"));
    busy(&mut account, 5);
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver(|event| event["type"] != "charge.succeeded")
        .await;
    let summary = site
        .run_until(Deadline::after(Duration::ZERO))
        .await
        .unwrap();
    assert_counts(&summary, 0, 0);
    assert_eq!(summary["status"], "incomplete");
    assert_eq!(summary["completeness_bps"], Value::Null);
    let not_checked = summary["not_checked"].as_array().unwrap();
    assert!(not_checked.len() >= 8, "{summary:#}");
    for one in not_checked {
        assert_eq!(one["reason"], "the deadline was near");
    }
    assert_eq!(site.run().await.unwrap()["open"], 0);
}

#[tokio::test]
async fn a_missing_report_fails_the_run_after_everything_else_is_done() {
    let mut account = Account::new("Bucket", at("2026-03-01T10:00:00Z"));
    busy(&mut account, 2);
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver(|event| event["type"] != "refund.created")
        .await;
    let app = site.app_with(&[("DOCUMENT_BUCKET", "no-such-bucket-of-ours")]);
    let Err(Error::Incomplete { summary }) = handle(&app, event(json!({})), morning()).await else {
        panic!("there is no bucket");
    };
    assert_counts(&summary, 1, 0);
    assert_eq!(summary["report"], Value::Null);
    assert_eq!(summary["not_checked"][0]["what"], "report");
}

#[tokio::test]
async fn the_report_is_a_file_in_the_bucket() {
    let mut account = Account::new("Report", at("2026-03-01T10:00:00Z"));
    busy(&mut account, 2);
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver(|event| event["type"] != "refund.created")
        .await;
    let summary = site.run().await.unwrap();
    assert_counts(&summary, 1, 0);
    let key = summary["report"].as_str().unwrap();
    assert_eq!(key, format!("reconciliation/{}.csv", summary["run_id"]));
    let bucket = DocumentBucket::from_env(&site.environment(), site.sdk()).unwrap();
    let file = String::from_utf8(bucket.get(key).await.unwrap().unwrap()).unwrap();
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), 2, "{file}");
    assert!(lines[0].starts_with("id,kind,resolution,object_type,object_id,currency"));
    assert!(
        lines[1].contains("missing_in_db,healed,refund,re_3Report0001,USD,100,,"),
        "{file}"
    );
}

#[tokio::test]
async fn a_detail_that_is_not_valid_is_refused_and_named() {
    let site = Site::new(Account::new("Detail", morning())).await;
    let error = site
        .run_with(json!({"since": "yesterday"}))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Detail(_)), "{error:?}");
    assert_eq!(site.count("reconciliation_runs").await, 0);
    // Nothing at all is complete.
    let summary = site.run().await.unwrap();
    assert_eq!(summary["completeness_bps"], 10_000);
    assert_eq!(summary["sums"], json!([]));
}
