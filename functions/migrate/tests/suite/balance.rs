//! What earlier releases held of Stripe's balance becomes balance transactions.

use serde_json::json;
use store::migrations::{Background, Release};
use testing::TestDatabase;

use super::upgrade::json_of;

/// The number of the migrations before the table of balance transactions.
fn before() -> usize {
    let mut files = Release::EMBEDDED.versioned.iter();
    let first = files.position(|one| one.file.ends_with("__balance_transactions.sql"));
    first.unwrap()
}

/// Rows as the release before wrote them: a charge that was settled, one that was not, and three disputes.
const ROWS: &str = r#"
    INSERT INTO payment_attempts (stripe_charge_id, stripe_payment_intent_id, amount_cents, amount_captured_cents, currency,
        status, captured, attempted_at, succeeded_at, stripe_balance_transaction_id, settlement_currency,
        settlement_amount_cents, settlement_fee_cents, exchange_rate)
    VALUES ('ch_1', 'pi_1', 10000, 10000, 'EUR', 'succeeded', true, '2026-01-31T23:00:00Z', '2026-02-01T00:00:00Z', 'txn_1',
            'USD', 10800, 343, '1.08'),
           ('py_2', NULL, 500, 500, 'USD', 'succeeded', true, '2026-02-02T00:00:00Z', NULL, 'txn_2', 'USD', 500, 45, NULL),
           ('ch_3', 'pi_3', 700, 700, 'USD', 'succeeded', true, '2026-02-02T00:00:00Z', NULL, 'txn_3', NULL, NULL, NULL, NULL);
    INSERT INTO disputes (stripe_dispute_id, stripe_charge_id, stripe_payment_intent_id, amount_cents, currency, status,
        fee_cents, balance_transactions, funds_withdrawn_at, funds_reinstated_at, created_at)
    VALUES ('dp_1', 'ch_1', NULL, 10000, 'EUR', 'won', 1389,
            '{"txn_5": {"amount_cents": 10900, "fee_cents": 0, "currency": "USD"},
              "txn_4": {"amount_cents": -10900, "fee_cents": 1500, "currency": "USD"}}',
            '2026-02-10T00:00:00Z', '2026-03-10T00:00:00Z', '2026-02-09T00:00:00Z'),
           ('dp_2', 'py_2', NULL, 500, 'USD', 'needs_response', 1500,
            '{"txn_6": {"amount_cents": -500, "fee_cents": 1500, "currency": "USD"}}', NULL, NULL, '2026-02-11T00:00:00Z'),
           ('dp_3', 'ch_3', 'pi_3', 700, 'USD', 'needs_response', 0, '{}', NULL, NULL, '2026-02-12T00:00:00Z');
"#;

#[tokio::test]
async fn what_objects_held_becomes_balance_transactions() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    let former = Release {
        versioned: &Release::EMBEDDED.versioned[..before()],
        repeatable: &[],
        ..Release::EMBEDDED
    };
    former.apply(&mut client, Background::AtOnce).await.unwrap();
    client.batch_execute(ROWS).await.unwrap();
    let release = Release::EMBEDDED;
    release
        .apply(&mut client, Background::AtOnce)
        .await
        .unwrap();

    let rows = "SELECT jsonb_agg(jsonb_build_array(stripe_balance_transaction_id, reporting_category, amount_cents,
                    fee_cents, currency, source_kind, payment_key, to_char(created_at AT TIME ZONE 'UTC', 'MM-DD'))
                ORDER BY stripe_balance_transaction_id) FROM balance_transactions";
    let expected = json!([
        [
            "txn_1", "charge", 10_800, 343, "USD", "charge", "pi_1", "02-01"
        ],
        ["txn_2", "charge", 500, 45, "USD", "charge", "py_2", "02-02"],
        [
            "txn_4", "dispute", -10_900, 1_500, "USD", "dispute", "pi_1", "02-10"
        ],
        [
            "txn_5",
            "dispute_reversal",
            10_900,
            0,
            "USD",
            "dispute",
            "pi_1",
            "03-10"
        ],
        [
            "txn_6", "dispute", -500, 1_500, "USD", "dispute", "py_2", "02-11"
        ],
    ]);
    assert_eq!(json_of(&client, rows).await, expected);
    let daily = "SELECT jsonb_agg(jsonb_build_array(to_char(day, 'MM-DD'), reporting_category, amount_cents, net_cents, count)
                     ORDER BY day) FROM balance_daily";
    let expected = json!([
        ["02-01", "charge", 10_800, 10_457, 1],
        ["02-02", "charge", 500, 455, 1],
        ["02-10", "dispute", -10_900, -12_400, 1],
        ["02-11", "dispute", -500, -2_000, 1],
        ["03-10", "dispute_reversal", 10_900, 10_900, 1],
    ]);
    assert_eq!(json_of(&client, daily).await, expected);
    let lists = "SELECT jsonb_object_agg(stripe_dispute_id, balance_transaction_ids) FROM disputes";
    let expected = json!({"dp_1": ["txn_4", "txn_5"], "dp_2": ["txn_6"], "dp_3": null});
    assert_eq!(json_of(&client, lists).await, expected);
    let lookups =
        "SELECT jsonb_agg(jsonb_build_array(kind, stripe_id, reason)) FROM stripe_lookups";
    let expected = json!([["dispute", "dp_3", "transactions"]]);
    assert_eq!(json_of(&client, lookups).await, expected);
    // What the release before reads is still there.
    let kept =
        "SELECT jsonb_agg(settlement_fee_cents ORDER BY stripe_charge_id) FROM payment_attempts";
    assert_eq!(json_of(&client, kept).await, json!([343, null, 45]));
}
