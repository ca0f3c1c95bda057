//! Exports of more rows than a statement looks at.

use std::pin::pin;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use jiff::civil::date;
use store::exports::{self, Export, Filter};
use store::row::Field;
use testing::TestDatabase;
use tokio_postgres::Client;

/// A payment, a usage event, a refund and an entry a minute, of which every third payment is superseded and one in a
/// thousand has failed. Numbers leave gaps, and dates run against them.
const ROWS: &str = "
    INSERT INTO payment_history (id, payment_key, amount_cents, currency, status, superseded, created_at)
        OVERRIDING SYSTEM VALUE
    SELECT n * 3, 'pi_' || n, n, 'USD', CASE WHEN n % 1000 = 1 THEN 'failed' ELSE 'succeeded' END, n % 3 = 0,
           '2026-01-31Z'::timestamptz - n * interval '1 minute' FROM generate_series(1, 25000) AS n;
    INSERT INTO usage_events (subject, idempotency_key, user_id, event_type, created_at)
    SELECT 'user:1', 'k' || n, 1, 'deed', '2026-01-31Z'::timestamptz - n * interval '1 minute'
    FROM generate_series(1, 25000) AS n;
    INSERT INTO refunds (stripe_refund_id, amount_cents, currency, status, created_at)
    SELECT 're_' || n, n, 'USD', 'succeeded', '2026-01-31Z'::timestamptz - n * interval '1 minute'
    FROM generate_series(1, 25000) AS n;
    INSERT INTO revenue_entries (payment_key, kind, source_id, day, occurred_at, currency, amount_cents)
    SELECT 'pi_' || n, 'gross', 'ch_1', at::date, at, 'USD', n
    FROM (SELECT n, '2026-01-31Z'::timestamptz - n * interval '1 minute' AS at FROM generate_series(1, 25000) AS n) AS dated";

async fn database() -> (TestDatabase, Client) {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute(ROWS).await.expect("the rows");
    (database, client)
}

/// The first column of each row.
async fn keys(client: &mut Client, export: Export, filter: Filter<'_>) -> Vec<String> {
    let db = exports::snapshot(client).await.expect("a transaction");
    let rows = exports::rows(&db, export, filter).await.expect("the rows");
    let keys = rows.and_then(async |row| {
        let key = row.fields().next().expect("a column")?;
        Ok(match key {
            Field::Number(number) => number.to_string(),
            Field::Text(text) => text.into_owned(),
            Field::Null | Field::Flag(_) | Field::Instant(_) => panic!("a key is none of these"),
        })
    });
    keys.try_collect().await.expect("the keys")
}

/// The same from one statement.
async fn selected(client: &Client, statement: &str) -> Vec<String> {
    let rows = client.query(statement, &[]).await.expect("the keys");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_row_comes_once_and_in_the_order_of_the_keys() {
    let (_database, mut client) = database().await;
    let instant = |text: &str| Some(text.parse::<Timestamp>().expect("an instant"));
    let all = Filter::default();
    let some = Filter {
        from: instant("2026-01-20T00:00:00Z"),
        to: instant("2026-01-21T12:00:00Z"),
        status: None,
    };
    let none = Filter {
        from: instant("2027-01-01T00:00:00Z"),
        ..all
    };
    let failed = Filter {
        status: Some("failed"),
        ..all
    };
    let range = "created_at >= '2026-01-20Z' AND created_at < '2026-01-21T12:00Z'";
    for (export, table, key, condition) in [
        (Export::Payments, "payment_history", "id", "NOT superseded"),
        (Export::Usage, "usage_events", "id", "true"),
        (Export::Refunds, "refunds", "stripe_refund_id", "true"),
    ] {
        for (filter, more) in [(all, "true"), (some, range), (none, "false")] {
            let found = keys(&mut client, export, filter).await;
            let statement = format!(
                "SELECT {key}::text FROM {table} WHERE {condition} AND {more} ORDER BY {table}.{key}"
            );
            let expected = selected(&client, &statement).await;
            assert!(found == expected, "{export:?} {filter:?}: {}", found.len());
        }
    }
    let found = keys(&mut client, Export::Payments, failed).await;
    let statement =
        "SELECT id::text FROM payment_history WHERE NOT superseded AND status = 'failed'
        ORDER BY payment_history.id";
    assert_eq!(found, selected(&client, statement).await);
}

#[tokio::test]
async fn the_journal_has_every_entry_once_and_in_the_order_of_the_days() {
    let (_database, mut client) = database().await;
    for (from, to, condition) in [
        (None, None, "true"),
        (
            Some(date(2026, 1, 15)),
            Some(date(2026, 1, 30)),
            "day >= '2026-01-15' AND day < '2026-01-30'",
        ),
    ] {
        let db = exports::snapshot(&mut client).await.expect("a transaction");
        let entries: Vec<String> = exports::entries(&db, from, to)
            .map_ok(|entry| entry.payment_key)
            .try_collect()
            .await
            .expect("the entries");
        drop(db);
        let statement = format!(
            "SELECT payment_key FROM revenue_entries WHERE {condition} ORDER BY day, payment_key, kind, source_id"
        );
        assert!(
            entries == selected(&client, &statement).await,
            "{}",
            entries.len()
        );
    }
}

#[tokio::test]
async fn what_is_written_meanwhile_is_not_seen() {
    let (database, mut client) = database().await;
    let db = exports::snapshot(&mut client).await.expect("a transaction");
    let rows = exports::rows(&db, Export::Payments, Filter::default()).await;
    let mut rows = pin!(rows.expect("the rows"));
    let mut found = 0;
    while let Some(_row) = rows.try_next().await.expect("a row") {
        if found == 0 {
            let other = database.client().await;
            other
                .batch_execute(
                    "UPDATE payment_history SET superseded = NOT superseded;
                     INSERT INTO payment_history (payment_key, amount_cents, currency, status)
                     VALUES ('pi_new', 1, 'USD', 'succeeded')",
                )
                .await
                .expect("the changes");
        }
        found += 1;
    }
    assert_eq!(found, 25_000 - 25_000 / 3);
}
