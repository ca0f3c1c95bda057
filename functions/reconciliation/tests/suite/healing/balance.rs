//! Balance transactions, payouts and tax rates, from the look-ups and from the import: both end in the same ledger.

use fake_stripe::account::NewPrice;
use fake_stripe::billing::NewSubscription;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use fake_stripe::{Account, Shape};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::site::{Site, later, run, serve};

fn day(day: i8) -> Timestamp {
    format!("2026-10-{day:02}T12:00:00Z").parse().unwrap()
}

/// A taxed subscription, a dispute at another rate given back in part, a debit that fails, refunds, and two payouts, one of
/// which has more than a hundred transactions.
fn busy() -> Account {
    let mut account = Account::new("Balance", day(1));
    let customer = account.create_customer(None, None, Metadata::new());
    let price = account.create_price(&NewPrice::monthly("usd", 10_000, "professional"));
    let taxed = NewSubscription {
        items: vec![(price.as_str(), 1)],
        tax_bps: 2_000,
        ..NewSubscription::default()
    };
    account.subscribe(&customer, &taxed).unwrap();
    let euros = account.pay_once(&customer, 10_000, "eur", Outcome::Succeeds);
    account.set_now(day(2));
    let dispute = account.dispute_at(&euros.unwrap(), 10_900).unwrap();
    let debit = account.debit(&customer, 50_000, "usd").unwrap();
    account.set_now(day(5));
    account.close_dispute(&dispute, false).unwrap();
    account.move_dispute(&dispute, 4_000, 0).unwrap();
    account.fail_debit(&debit, 400).unwrap();
    account.pay_out_balance().unwrap();
    for number in 0..105 {
        account.advance(60);
        let intent = account.pay_once(&customer, 1_000 + number, "usd", Outcome::Succeeds);
        if number % 10 == 0 {
            account.refund(&intent.unwrap(), 100).unwrap();
        }
    }
    account.set_now(day(8));
    account.pay_out_balance().unwrap();
    account.pay_out(500).unwrap();
    account
}

/// Everything that follows from the balance, versions apart.
const BALANCE: &str = "
    SELECT name || ' ' || row::text FROM (
        SELECT 'day' AS name, to_jsonb(t) AS row FROM balance_daily t
        UNION ALL SELECT 'transaction', to_jsonb(t) - 'updated_at' - 'source_created_at' - 'source_event_id'
            - 'source_rank' FROM balance_transactions t
        UNION ALL SELECT 'payout', jsonb_build_array(stripe_payout_id, status, amount_cents,
            transactions_listed_at IS NOT NULL) FROM payouts
        UNION ALL SELECT 'rate', to_jsonb(stripe_tax_rate_id || percentage || jurisdiction) FROM tax_rates
        UNION ALL SELECT 'entry', to_jsonb(t) - 'occurred_at' FROM revenue_entries t WHERE kind <> 'gross'
        UNION ALL SELECT 'payment', jsonb_build_array(payment_key, status, stripe_fee_cents, fee_source,
            disputed_amount_cents, net_amount_cents) FROM payment_history
    ) AS figures ORDER BY 1";

async fn look_ups_and_the_import_end_in_the_same_ledger(shape: Shape) {
    let stripe = serve(busy(), shape).await;
    let now = later(&stripe);
    let open =
        "SELECT concat_ws(' ', kind, stripe_id, reason) FROM stripe_lookups WHERE done_at IS NULL";
    let redrive = "reconciliation.redrive";

    let told = Site::new().await;
    let mut events = busy().events(shape);
    events.retain(|event| event["type"] != "tax_rate.created");
    told.deliver(&events).await;
    let summary = run(&told.app(&stripe), redrive, Value::Null, now).await;
    assert_eq!(summary["lookups_failed"], 0, "{summary}");
    assert_eq!(told.texts(open).await, [""; 0]);
    // The refunds' and the manual payout's come with the payouts' lists, and with the daily one.
    let dispute = told
        .texts(
            "SELECT concat_ws(' ', status, stripe_fee_cents, disputed_amount_cents) FROM payment_history
             WHERE currency = 'EUR'",
        )
        .await;
    // 10 900 − 4000 of 10 800, each converted.
    assert_eq!(dispute, ["disputed 318 6389"]);
    let debit =
        "SELECT concat_ws(' ', status, stripe_fee_cents, net_amount_cents) FROM payment_history
                 WHERE amount_cents = 50000";
    assert_eq!(told.texts(debit).await, ["failed 400 -400"]);
    let listed = "payouts WHERE transactions_listed_at IS NOT NULL";
    assert_eq!(told.count(listed).await, 2);
    let paid_out =
        "SELECT concat_ws(' ', stripe_payout_id, sum(net_cents)) FROM balance_transactions
                    WHERE stripe_payout_id IS NOT NULL GROUP BY stripe_payout_id";
    for sum in told.texts(paid_out).await {
        assert!(sum.ends_with(" 0"), "with the payout's own: {sum}");
    }

    let imported = Site::new().await;
    let app = imported.app(&stripe);
    let summary = run(&app, "reconciliation.backfill", Value::Null, now).await;
    assert_eq!(summary["finished"], true, "{summary}");
    assert_eq!(summary["refused"], json!({}), "{summary}");
    assert_eq!(summary["imported"]["payouts"], 3, "{summary}");
    assert_eq!(summary["imported"]["tax_rates"], 1, "{summary}");
    let summary = run(&app, redrive, Value::Null, now).await;
    assert_eq!(summary["lookups_failed"], 0, "{summary}");
    assert_eq!(imported.texts(open).await, [""; 0]);

    // The day after: the list brings what nothing names.
    let until = json!({"since": "2026-10-01T00:00:00Z"});
    let summary = run(&told.app(&stripe), "reconciliation.daily", until, now).await;
    assert_eq!(summary["open"], 0, "{summary:#}");
    assert_eq!(summary["healed"], 0, "{summary:#}");
    let (told, imported) = (told.texts(BALANCE).await, imported.texts(BALANCE).await);
    let missing: Vec<&String> = told.iter().filter(|one| !imported.contains(one)).collect();
    let extra: Vec<&String> = imported.iter().filter(|one| !told.contains(one)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:#?}\nextra {extra:#?}"
    );
}

#[tokio::test]
async fn look_ups_and_the_import_end_in_the_same_ledger_in_2022_11_15() {
    look_ups_and_the_import_end_in_the_same_ledger(Shape::V2022_11_15).await;
}

#[tokio::test]
async fn look_ups_and_the_import_end_in_the_same_ledger_in_endive() {
    look_ups_and_the_import_end_in_the_same_ledger(Shape::Endive).await;
}
