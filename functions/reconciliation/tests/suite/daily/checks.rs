//! The ledger against itself: the rollup of usage and the totals of invoices.

use fake_stripe::account::Account;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use reconciliation::Deadline;
use serde_json::json;
use std::time::Duration;

use super::site::{Site, assert_counts, at, morning};

const ROLLUP: &str =
    "SELECT concat_ws(' ', subject, day, event_type, currency, events, units, billable_units,
                      amount_cents)
     FROM usage_daily WHERE events > 0 ORDER BY 1";

impl Site {
    async fn texts(&self, query: &str) -> Vec<String> {
        let client = self.client().await;
        let rows = client.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

#[tokio::test]
async fn a_rollup_that_drifted_is_told_row_by_row_and_made_anew() {
    let site = Site::new(Account::new("Rollup", morning())).await;
    site.execute(
        "INSERT INTO usage_events (user_id, event_type, cost_units, unit_price_cents, billable, created_at)
         VALUES (1, 'deed', 2, 100, true, '2026-02-28 23:59:59Z'), (1, 'deed', 3, 100, true, '2026-03-01Z'),
                (2, 'deed', 4, 100, false, '2026-03-01Z'), (3, 'deed', 5, 100, true, '2026-03-01Z'),
                (4, 'deed', 6, NULL, true, '2026-03-01Z')",
    )
    .await;
    // One day as it is, one with other sums, one of nothing, and one of user 3 and 1 not at all.
    site.execute(
        "INSERT INTO usage_daily (subject, day, event_type, currency, events, units, billable_units, amount_cents)
         VALUES ('user:1', '2026-02-28', 'deed', 'USD', 1, 2, 2, 200),
                ('user:2', '2026-03-01', 'deed', 'USD', 1, 4, 4, 400),
                ('user:9', '2026-03-01', 'deed', 'USD', 1, 1, 1, 5)",
    )
    .await;
    let told = |resolution: &str| -> Vec<String> {
        [
            "user:1:2026-03-01",
            "user:2:2026-03-01",
            "user:3:2026-03-01",
            "user:4:2026-03-01",
            "user:9:2026-03-01",
        ]
        .map(|of| format!("amount_differs usage_daily {of}:deed:USD {resolution}"))
        .to_vec()
    };
    let before = site.texts(ROLLUP).await;
    let only_told = site.run_with(json!({"heal": false})).await.unwrap();
    assert_counts(&only_told, 0, 5);
    assert_eq!(site.items().await, told("open"));
    assert_eq!(site.texts(ROLLUP).await, before);

    // A run without time leaves it for the next, and says so.
    let late = site
        .run_until(Deadline::after(Duration::ZERO))
        .await
        .unwrap();
    assert_counts(&late, 0, 5);
    let not_checked = late["not_checked"].as_array().unwrap();
    assert!(
        not_checked.iter().any(|one| one["what"] == "usage_daily"),
        "{late:#}"
    );

    let summary = site.run().await.unwrap();
    assert_counts(&summary, 5, 0);
    assert_eq!(summary["healed_by_kind"], json!({"amount_differs": 5}));
    assert_eq!(site.items().await, told("healed"));
    assert_eq!(
        site.texts(ROLLUP).await,
        [
            "user:1 2026-02-28 deed USD 1 2 2 200",
            "user:1 2026-03-01 deed USD 1 3 3 300",
            "user:2 2026-03-01 deed USD 1 4 0 0",
            "user:3 2026-03-01 deed USD 1 5 5 500",
            "user:4 2026-03-01 deed USD 1 6 6 0",
        ]
    );
    assert_counts(&site.run().await.unwrap(), 0, 0);
}

#[tokio::test]
async fn an_invoice_of_stripe_whose_lines_were_changed_is_read_again() {
    let mut account = Account::new("Totals", at("2026-03-01T10:00:00Z"));
    let customer = account.create_customer(None, None, Metadata::new());
    let mut invoices = Vec::new();
    // More lines than a snapshot carries, and few.
    for lines in [12, 2, 2] {
        let lines = vec![("Service", 1_000); lines];
        let invoice = account.create_invoice(&customer, "usd", &lines).unwrap();
        account.pay_invoice(&invoice, Outcome::Succeeds).unwrap();
        invoices.push(invoice);
        account.advance(60);
    }
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver_all().await;
    // The lines that no event carries are known only when somebody asked for them.
    site.execute(&format!(
        "UPDATE invoices SET lines_complete = true,
             line_items = jsonb_build_object('items', (
                 SELECT jsonb_agg(line) FROM (SELECT line_items -> 'items' -> 0 AS line
                                              FROM generate_series(1, 12)) AS lines))
         WHERE stripe_invoice_id = '{}'",
        invoices[0]
    ))
    .await;
    assert_counts(&site.run().await.unwrap(), 0, 0);
    for (invoice, items) in [(0, "(line_items -> 'items') - 0"), (1, "'[]'::jsonb")] {
        let changed = site
            .execute(&format!(
                "UPDATE invoices SET line_items = jsonb_build_object('items', {items})
                 WHERE stripe_invoice_id = '{}'",
                invoices[invoice]
            ))
            .await;
        assert_eq!(changed, 1);
    }
    let told = |resolution: &str| -> Vec<String> {
        let mut told: Vec<String> = invoices[..2]
            .iter()
            .map(|id| format!("amount_differs invoice_total {id} {resolution}"))
            .collect();
        told.sort();
        told
    };
    let only_told = site.run_with(json!({"heal": false})).await.unwrap();
    assert_counts(&only_told, 0, 2);
    assert_eq!(site.items().await, told("open"));
    let summary = site.run().await.unwrap();
    assert_counts(&summary, 2, 0);
    assert_eq!(site.items().await, told("healed"));
    let lines = site
        .texts(
            "SELECT jsonb_array_length(line_items -> 'items')::text FROM invoices ORDER BY created_at",
        )
        .await;
    assert_eq!(lines, ["12", "2", "2"]);
    assert_counts(&site.run().await.unwrap(), 0, 0);
}

#[tokio::test]
async fn an_invoice_of_ours_that_is_not_its_own_sum_is_told_until_it_is_accepted() {
    let site = Site::new(Account::new("Ours", morning())).await;
    // Sound ones: open, paid, void, with a credit, with nothing on it.
    site.execute(
        r#"INSERT INTO invoices (invoice_number, kind, status, currency, subtotal_cents, tax_cents, total_cents,
               amount_paid_cents, credit_applied_cents, amount_due_cents, line_items, created_at)
           SELECT number, 'partner', status, 'USD', subtotal, tax, total, paid, credit, due,
                  jsonb_build_object('items', lines::jsonb), '2026-03-01T00:05:00Z'
           FROM (VALUES
               ('open', 'open', 300, 30, 330, 0, 0, 330, '[{"total_cents": 100}, {"total_cents": 200}]'),
               ('paid', 'paid', 300, 30, 330, 330, 0, 0, '[{"total_cents": 300}]'),
               ('void', 'void', 300, 30, 330, 0, 0, 0, '[{"total_cents": 300}]'),
               ('credit', 'open', 300, 0, 300, 0, 100, 200, '[{"total_cents": 300}]'),
               ('nothing', 'paid', 0, 0, 0, 0, 0, 0, '[]'),
               ('wrong lines', 'open', 300, 30, 330, 0, 0, 330, '[{"total_cents": 299}]'),
               ('wrong total', 'open', 300, 30, 331, 0, 0, 331, '[{"total_cents": 300}]'),
               ('wrong due', 'open', 300, 30, 330, 100, 30, 210, '[{"total_cents": 300}]')
           ) AS invoice (number, status, subtotal, tax, total, paid, credit, due, lines)"#,
    )
    .await;
    let told: Vec<String> = ["wrong due", "wrong lines", "wrong total"]
        .map(|number| format!("amount_differs invoice_total {number} open"))
        .to_vec();
    for _ in 0..2 {
        let summary = site.run().await.unwrap();
        assert_counts(&summary, 0, 3);
        assert_eq!(site.items().await, told);
    }
    let values = site
        .texts(
            "SELECT object_id || ': ' || stripe_value || ', not ' || ledger_value FROM reconciliation_items
             WHERE run_id = (SELECT max(run_id) FROM reconciliation_runs) ORDER BY 1",
        )
        .await;
    assert_eq!(
        values,
        [
            "wrong due: rest 200, not due 210",
            "wrong lines: lines 299, not subtotal 300",
            "wrong total: parts 330, not total 331",
        ]
    );
    site.accept_open().await;
    let summary = site.run().await.unwrap();
    assert_counts(&summary, 0, 0);
    assert_eq!(summary["accepted"], 3);
}

#[tokio::test]
async fn money_outside_stripe_is_what_stripes_list_does_not_hold_and_may_be_a_double() {
    let mut account = Account::new("Outside", at("2026-03-01T10:00:00Z"));
    let customer = account.create_customer(None, None, Metadata::new());
    let invoice = account.create_invoice(&customer, "usd", &[("Search", 10_000)]);
    let invoice = invoice.unwrap();
    account.pay_part(&invoice, 8_000).unwrap();
    account.pay_out_of_band(&invoice).unwrap();
    // Somebody has also paid the rest by card, for no invoice; a refused attempt is no payment.
    account.advance(3_600);
    account
        .pay_once(&customer, 2_000, "usd", Outcome::Succeeds)
        .unwrap();
    account
        .pay_once(&customer, 2_000, "usd", Outcome::Fails)
        .unwrap();
    account.set_now(morning());
    let mut site = Site::new(account).await;
    site.deliver_all().await;
    let payments = "SELECT payment_key || ' ' || amount_cents FROM payment_history
         WHERE succeeded_at IS NOT NULL AND payment_key LIKE 'in%'";
    assert_eq!(site.texts(payments).await, Vec::<String>::new());

    let summary = site.run().await.unwrap();
    assert_eq!(site.texts(payments).await, [format!("{invoice} 2000")]);
    assert_counts(&summary, 1, 1);
    let double = format!("possible_double_payment payment {invoice} open");
    assert_eq!(
        site.items().await,
        [format!("amount_differs invoice {invoice} healed"), double]
    );

    // Lost by hand.
    site.execute("UPDATE invoices SET outside_stripe_stated_cents = 1999")
        .await;
    let summary = site.run().await.unwrap();
    assert_counts(&summary, 1, 1);
}
