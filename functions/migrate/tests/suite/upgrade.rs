//! The migrations on an empty database, and on the predecessor's with rows.

use super::predecessor;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::money::Currency;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use migrate::{App, Error, handle};
use runtime::config::Environment;
use runtime::deadline::Deadline;
use serde_json::{Value, json};
use store::idempotency_keys::{self, Owner, Taken, Use};
use store::migrations::{self, Background, Release};
use store::revenue_report::{self, Moment};
use testing::{TestDatabase, logs, sample};
use tokio_postgres::{Client, GenericClient};

async fn migrate(database: &TestDatabase) -> Result<Value, Error> {
    let event = sample("invoke_migrate").json();
    handle(&app(&database.url), event, Timestamp::UNIX_EPOCH).await
}

/// The one column of the one row of `sql`, which must be JSON.
pub(crate) async fn json_of(client: &impl GenericClient, sql: &str) -> Value {
    client
        .query_one(sql, &[])
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .get(0)
}

async fn rows_of(client: &Client, table: &str) -> Vec<Value> {
    let sql = format!("SELECT to_jsonb(t) FROM {table} AS t ORDER BY id");
    client
        .query(&sql, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// The instant a text stands for; one without a zone is UTC.
fn instant(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    text.parse::<Timestamp>().ok().or_else(|| {
        Some(
            text.parse::<DateTime>()
                .ok()?
                .to_zoned(TimeZone::UTC)
                .ok()?
                .timestamp(),
        )
    })
}

/// That every column of `before` has the same value in `after`, row by row.
fn assert_kept(table: &str, before: &[Value], after: &[Value]) {
    assert_eq!(before.len(), after.len(), "{table}: rows");
    for (old, new) in before.iter().zip(after) {
        for (column, value) in old.as_object().unwrap() {
            let expected = match column.as_str() {
                "currency" => json!(value.as_str().unwrap_or("USD").to_uppercase()),
                _ => value.clone(),
            };
            let kept = &new[column];
            let is_same = *kept == expected
                || instant(&expected).is_some_and(|expected| instant(kept) == Some(expected));
            assert!(
                is_same,
                "{table} {}: {column} was {value}, is {kept}",
                old["id"]
            );
        }
    }
}

/// Upgrades a database of the predecessor and compares every value.
async fn upgrade_and_compare(database: &TestDatabase, absent: &[&str]) -> Client {
    let client = database.client().await;
    predecessor::create(&client, absent).await;
    let mut before = BTreeMap::new();
    for table in predecessor::TABLES
        .iter()
        .filter(|table| !absent.contains(&table.name))
    {
        before.insert(table.name, rows_of(&client, table.name).await);
    }
    migrate(database).await.unwrap();
    for (table, before) in before {
        assert_kept(table, &before, &rows_of(&client, table).await);
    }
    client
}

/// Name, type, nullability and default of every column.
async fn columns(client: &Client) -> BTreeSet<String> {
    client
        .query(
            "SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default)
             FROM information_schema.columns WHERE table_schema = 'public'",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Definition of every index, trigger and constraint.
async fn rules(client: &Client) -> BTreeSet<String> {
    client
        .query(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
             UNION ALL
             SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
             WHERE connamespace = 'public'::regnamespace
             UNION ALL
             SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// How many files a new database is made by.
fn files() -> usize {
    Release::EMBEDDED.versioned.len() + Release::EMBEDDED.repeatable.len()
}

#[tokio::test]
async fn an_empty_database_gets_every_table() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    assert_eq!(migrations::current_version(&client).await.unwrap(), None);
    let answer = migrate(&database).await.unwrap();
    assert_eq!(answer["version"], json!(Release::EMBEDDED.latest()));
    assert_eq!(answer["applied"].as_array().unwrap().len(), files());
    assert_eq!(
        migrations::current_version(&client).await.unwrap(),
        Some(Release::EMBEDDED.latest())
    );
    let tables = json_of(
        &client,
        "SELECT jsonb_agg(tablename ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'",
    )
    .await;
    assert_eq!(
        tables,
        json!([
            "api_partner_contracts",
            "api_usage",
            "audit_log",
            "balance_daily",
            "balance_transactions",
            "billing_migrations",
            "billing_repeatables",
            "checkout_sessions",
            "contract_changes",
            "coupons",
            "credit_applications",
            "credit_notes",
            "credits",
            "customers",
            "discounts",
            "disputes",
            "dunning_attempts",
            "dunning_campaigns",
            "fetched_objects",
            "fx_rates",
            "idempotency_keys",
            "import_cursors",
            "invoice_number_counters",
            "invoice_payments",
            "invoice_runs",
            "invoiced_usage",
            "invoices",
            "mrr_daily",
            "mrr_movements",
            "notifications",
            "outbox",
            "payment_attempts",
            "payment_history",
            "payment_intents",
            "payouts",
            "plan_limits",
            "plan_prices",
            "prices",
            "reconciliation_items",
            "reconciliation_runs",
            "refunds",
            "revenue_daily",
            "revenue_entries",
            "settled_periods",
            "stripe_events",
            "stripe_lookups",
            "subscription_status_changes",
            "subscription_versions",
            "subscriptions",
            "subscriptions_daily",
            "tax_rates",
            "usage_alerts",
            "usage_daily",
            "usage_events",
            "user_plans",
            "users",
            "waived_periods",
        ])
    );
    assert_eq!(
        json_of(
            &client,
            "SELECT jsonb_agg(to_jsonb(p) ORDER BY plan_name) FROM plan_limits AS p"
        )
        .await,
        json!([
            { "plan_name": "enterprise", "monthly_included_units": null, "overage_price_cents": null,
              "currency": "USD", "upgrade_plan": null, "upgrade_price_cents": null },
            { "plan_name": "free", "monthly_included_units": 5, "overage_price_cents": 500,
              "currency": "USD", "upgrade_plan": "professional", "upgrade_price_cents": 2999 },
            { "plan_name": "professional", "monthly_included_units": null, "overage_price_cents": null,
              "currency": "USD", "upgrade_plan": "enterprise", "upgrade_price_cents": 9999 },
        ])
    );
}

/// Compiling a statement costs more than running it; whatever the cluster says, our sessions do not.
#[tokio::test]
async fn statements_are_not_compiled() {
    let database = TestDatabase::empty().await;
    migrate(&database).await.unwrap();
    let jit = json_of(
        &database.client().await,
        "SELECT jsonb_build_array(setting, source) FROM pg_settings WHERE name = 'jit'",
    )
    .await;
    assert_eq!(jit, json!(["off", "database user"]));
}

#[tokio::test]
async fn the_predecessors_rows_keep_every_value() {
    upgrade_and_compare(&TestDatabase::empty().await, &[]).await;
}

#[tokio::test]
async fn a_database_in_another_time_zone_keeps_every_instant() {
    let database = TestDatabase::empty().await;
    let admin = database.client().await;
    let zone = format!(
        "ALTER DATABASE {} SET timezone = 'America/Los_Angeles'",
        database.name
    );
    admin.batch_execute(&zone).await.unwrap();
    let client = upgrade_and_compare(&database, &[]).await;
    assert_eq!(
        json_of(&client, "SELECT to_jsonb(current_setting('timezone'))").await,
        json!("America/Los_Angeles")
    );
    // 23:30 UTC on the last of October is October, and 00:30 UTC on the first of November is November.
    assert_eq!(
        json_of(
            &client,
            "SELECT jsonb_agg(DISTINCT day ORDER BY day) FROM revenue_daily"
        )
        .await,
        json!(["2025-10-01", "2025-10-02", "2025-10-31", "2025-11-01"])
    );
}

#[tokio::test]
async fn each_predecessor_table_may_be_absent() {
    for table in predecessor::TABLES {
        upgrade_and_compare(&TestDatabase::empty().await, &[table.name]).await;
    }
}

#[tokio::test]
async fn an_upgraded_database_has_the_columns_and_rules_of_a_new_one() {
    let new = TestDatabase::empty().await;
    migrate(&new).await.unwrap();
    let new = new.client().await;
    let database = TestDatabase::empty().await;
    let upgraded = upgrade_and_compare(&database, &[]).await;
    // The host's own tables stay as the host made them.
    let ours = |column: &String| !column.starts_with("users ") && !column.starts_with("api_usage ");
    let expected: BTreeSet<String> = columns(&new).await.into_iter().filter(ours).collect();
    let found: BTreeSet<String> = columns(&upgraded).await.into_iter().filter(ours).collect();
    // The predecessor's defaults of columns for which we have none may stay.
    let lost: Vec<&String> = expected
        .iter()
        .filter(|column| !found.iter().any(|other| other.starts_with(column.as_str())))
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert_eq!(expected.len(), found.len());
    let lost: Vec<String> = rules(&new)
        .await
        .difference(&rules(&upgraded).await)
        .cloned()
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[tokio::test]
async fn the_predecessors_payments_become_revenue() {
    let database = TestDatabase::empty().await;
    let client = upgrade_and_compare(&database, &[]).await;
    let daily = "SELECT jsonb_agg(jsonb_build_array(day, currency, gross_cents, fees_cents, refunds_cents,
        disputes_cents, payments, failed_payments, estimated_fees) ORDER BY day, currency) FROM revenue_daily";
    assert_eq!(
        json_of(&client, daily).await,
        json!([
            ["2025-10-01", "EUR", 5000, 0, 0, 0, 1, 0, 1],
            ["2025-10-01", "JPY", 2147483647, 0, 0, 0, 1, 0, 1],
            ["2025-10-01", "USD", 1700, 109, 0, 0, 2, 1, 2],
            ["2025-10-02", "EUR", 0, 0, 5000, 0, 0, 0, 0],
            ["2025-10-31", "USD", 13239, 444, 0, 0, 2, 0, 2],
            ["2025-11-01", "USD", 0, 0, 2500, 0, 0, 0, 0],
        ])
    );
    let attempts = "SELECT jsonb_agg(jsonb_build_array(stripe_charge_id, stripe_payment_intent_id,
        stripe_customer_id, amount_captured_cents, refund_totals, status, captured, source_event_id)
        ORDER BY stripe_charge_id) FROM payment_attempts";
    assert_eq!(
        json_of(&client, attempts).await,
        json!([
            ["ch_alone", null, "cus_three", 800, {}, "succeeded", true, ""],
            ["ch_disputed", "pi_disputed", "cus_three", 900, {}, "succeeded", true, ""],
            ["ch_failed", "pi_failed", null, 0, {}, "failed", false, ""],
            ["ch_one", "pi_one", "cus_one", 3239, {}, "succeeded", true, ""],
            ["ch_part", "pi_part", "cus_one", 10000, { "1761957000": 2500 }, "succeeded", true, ""],
        ])
    );
    let intents = "SELECT jsonb_agg(jsonb_build_array(stripe_payment_intent_id, status, amount_received_cents,
        latest_charge_id, source_rank) ORDER BY stripe_payment_intent_id) FROM payment_intents";
    assert_eq!(
        json_of(&client, intents).await,
        json!([
            ["pi_disputed", "succeeded", 900, "ch_disputed", 0],
            ["pi_failed", "requires_payment_method", null, "ch_failed", 0],
            ["pi_full", "succeeded", 5000, null, 0],
            ["pi_one", "succeeded", 3239, "ch_one", 0],
            ["pi_part", "succeeded", 10000, "ch_part", 0],
            ["pi_pending", "processing", null, null, 0],
        ])
    );
    let keys = "SELECT jsonb_agg(jsonb_build_array(payment_key, fee_source, succeeded_at IS NOT DISTINCT FROM
        created_at) ORDER BY id) FROM payment_history";
    assert_eq!(
        json_of(&client, keys).await,
        json!([
            ["pi_one", "estimated", true],
            ["pi_part", "estimated", true],
            ["pi_full", "estimated", true],
            ["pi_failed", null, false],
            ["ch_alone", "estimated", true],
            ["legacy:6", "estimated", true],
            ["pi_disputed", "estimated", true],
            ["pi_pending", null, false],
        ])
    );
}

#[tokio::test]
async fn the_predecessors_subscriptions_become_recurring_revenue() {
    let database = TestDatabase::empty().await;
    let client = upgrade_and_compare(&database, &[]).await;
    let movements = "SELECT jsonb_agg(jsonb_build_array(stripe_customer_id, currency, kind, stripe_subscription_id,
        delta_microcents, before_microcents, after_microcents, cause_event_id,
        extract(epoch FROM occurred_at)::bigint) ORDER BY occurred_at) FROM mrr_movements";
    assert_eq!(
        json_of(&client, movements).await,
        json!([
            [
                "cus_one",
                "USD",
                "new",
                "sub_one",
                2_999_000_000_i64,
                0,
                2_999_000_000_i64,
                "",
                1_740_824_430
            ],
            [
                "cus_one",
                "USD",
                "expansion",
                "sub_more",
                1_000_000_000,
                2_999_000_000_i64,
                3_999_000_000_i64,
                "",
                1_743_811_200
            ],
            [
                "user:2",
                "EUR",
                "new",
                "sub_nobody",
                2_147_483_647_000_000_i64,
                0,
                2_147_483_647_000_000_i64,
                "",
                1_746_142_200
            ],
        ])
    );
    let versions = "SELECT jsonb_agg(jsonb_build_array(stripe_subscription_id, status, mrr_microcents,
        potential_mrr_microcents, source_event_id) ORDER BY stripe_subscription_id) FROM subscription_versions";
    assert_eq!(
        json_of(&client, versions).await,
        json!([
            ["sub_more", "past_due", 1_000_000_000, 1_000_000_000, ""],
            [
                "sub_nobody",
                "active",
                2_147_483_647_000_000_i64,
                2_147_483_647_000_000_i64,
                ""
            ],
            [
                "sub_one",
                "active",
                2_999_000_000_i64,
                2_999_000_000_i64,
                ""
            ],
            ["sub_three", "canceled", 0, 0, ""],
            ["sub_two", "trialing", 0, 2_999_000_000_i64, ""],
        ])
    );
    let customers = "SELECT jsonb_agg(stripe_customer_id ORDER BY id) FROM subscriptions";
    assert_eq!(
        json_of(&client, customers).await,
        json!(["cus_one", "cus_one", null, "cus_three", null])
    );
}

#[tokio::test]
async fn the_predecessors_usage_credits_and_contracts_go_on() {
    let database = TestDatabase::empty().await;
    let client = upgrade_and_compare(&database, &[]).await;
    let usage =
        "SELECT jsonb_agg(jsonb_build_array(subject, day, event_type, currency, events, units,
        billable_units, amount_cents) ORDER BY subject) FROM usage_daily";
    assert_eq!(
        json_of(&client, usage).await,
        json!([
            [
                "partner:dp_pk_alpha",
                "2025-11-01",
                "deed.created",
                "USD",
                1,
                4,
                4,
                0
            ],
            ["user:1", "2025-10-31", "deed.created", "USD", 3, 4, 3, 1500],
        ])
    );
    let keys = "SELECT jsonb_agg(jsonb_build_array(subject, idempotency_key) ORDER BY id) FROM usage_events";
    assert_eq!(
        json_of(&client, keys).await,
        json!([
            ["user:1", "legacy:1"],
            ["user:1", "legacy:2"],
            ["user:1", "legacy:3"],
            ["partner:dp_pk_alpha", "legacy:4"],
        ])
    );
    let remaining = "SELECT jsonb_agg(remaining_cents ORDER BY id) FROM credits";
    assert_eq!(json_of(&client, remaining).await, json!([1500, 0, 300]));
    let applied = "SELECT jsonb_agg(jsonb_build_array(credit_id, invoice_id, amount_cents)) FROM credit_applications";
    assert_eq!(json_of(&client, applied).await, json!([[2, 1, 700]]));
    let billed_from = "SELECT to_jsonb(bool_and(
        billed_from = date_trunc('month', applied_at AT TIME ZONE 'UTC')::date
        AND currency = 'USD' AND unit_source = 'api_usage' AND timezone = 'UTC'))
        FROM api_partner_contracts, billing_migrations WHERE version = 4";
    assert_eq!(json_of(&client, billed_from).await, json!(true));
    // Suspended before we bill anything: no day of it is billed.
    let suspended =
        "SELECT jsonb_agg(suspended_at::date < billed_from ORDER BY id) FROM api_partner_contracts";
    assert_eq!(json_of(&client, suspended).await, json!([null, true]));
    let kinds = "SELECT jsonb_agg(kind ORDER BY id) FROM invoices";
    assert_eq!(
        json_of(&client, kinds).await,
        json!(["subscription", "partner", "subscription"])
    );
}

#[tokio::test]
async fn payments_counted_twice_stay_and_count_once() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    predecessor::create(&client, &[]).await;
    client
        .batch_execute(
            "ALTER TABLE payment_history DROP CONSTRAINT payment_history_stripe_payment_intent_id_key;
             DELETE FROM payment_history;
             INSERT INTO payment_history (id, invoice_id, user_id, stripe_payment_intent_id, stripe_charge_id,
                 amount_cents, status, stripe_fee_cents, refund_amount_cents, created_at) VALUES
                 (11, 1, 1, 'pi_twice', 'ch_twice', 1000, 'succeeded', 59, 0, '2025-10-01'),
                 (12, 1, 1, 'pi_twice', 'ch_twice', 1000, 'succeeded', 59, 0, '2025-10-02'),
                 (13, 1, 1, NULL, 'ch_twice', 1000, 'succeeded', 59, 0, '2025-10-03'),
                 (21, 1, 1, 'pi_retried', NULL, 2000, 'failed', NULL, 0, '2025-10-04'),
                 (22, 1, 1, 'pi_retried', NULL, 2000, 'succeeded', 88, 0, '2025-10-05'),
                 (31, 1, 1, NULL, 'ch_early', 3000, 'succeeded', 117, 0, '2025-10-06'),
                 (32, 1, 1, 'pi_late', 'ch_early', 3000, 'succeeded', 117, 0, '2025-10-06')",
        )
        .await
        .unwrap();
    let before = rows_of(&client, "payment_history").await;
    migrate(&database).await.unwrap();
    assert_kept(
        "payment_history",
        &before,
        &rows_of(&client, "payment_history").await,
    );
    let keys = "SELECT jsonb_agg(jsonb_build_array(id, payment_key, superseded) ORDER BY id) FROM payment_history";
    assert_eq!(
        json_of(&client, keys).await,
        json!([
            [11, "pi_twice", false],
            [12, "legacy:12", true],
            [13, "legacy:13", true],
            // The row that shows the money goes on, not the attempt before it.
            [21, "legacy:21", true],
            [22, "pi_retried", false],
            // The row that names the intent goes on: events will.
            [31, "legacy:31", true],
            [32, "pi_late", false],
        ])
    );
    let gross = "SELECT jsonb_build_array(sum(gross_cents), sum(payments), sum(failed_payments)) FROM revenue_daily";
    assert_eq!(json_of(&client, gross).await, json!([6000, 3, 0]));
}

#[tokio::test]
async fn invoices_and_subscriptions_written_twice_stay() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    predecessor::create(&client, &[]).await;
    client
        .batch_execute(
            "ALTER TABLE invoices DROP CONSTRAINT invoices_stripe_invoice_id_key;
             ALTER TABLE invoices DROP CONSTRAINT invoices_invoice_number_key;
             ALTER TABLE subscriptions DROP CONSTRAINT subscriptions_stripe_subscription_id_key;
             INSERT INTO invoices (id, invoice_number, stripe_invoice_id, subtotal_cents, total_cents,
                 amount_due_cents, status, billing_period_start, billing_period_end, due_date, line_items) VALUES
                 (11, 'INV-0001', NULL, 1, 1, 1, 'open', '2025-01-01', '2025-02-01', '2025-02-01', '{}'),
                 (12, 'INV-0012', 'in_one', 1, 1, 1, 'open', '2025-01-01', '2025-02-01', '2025-02-01', '{}');
             INSERT INTO subscriptions SELECT 11, user_id, stripe_subscription_id, status, current_period_start,
                 current_period_end, plan_name, current_plan_price_cents, billing_cycle, auto_renew,
                 cancel_at_period_end, cancellation_reason, mrr_cents FROM subscriptions WHERE id = 1",
        )
        .await
        .unwrap();
    let invoices = rows_of(&client, "invoices").await;
    let subscriptions = rows_of(&client, "subscriptions").await;
    migrate(&database).await.unwrap();
    assert_kept("invoices", &invoices, &rows_of(&client, "invoices").await);
    assert_kept(
        "subscriptions",
        &subscriptions,
        &rows_of(&client, "subscriptions").await,
    );
    let superseded = "SELECT jsonb_build_array(
        (SELECT jsonb_agg(id ORDER BY id) FROM invoices WHERE superseded),
        (SELECT jsonb_agg(id ORDER BY id) FROM subscriptions WHERE superseded),
        (SELECT count(*) FROM mrr_movements))";
    assert_eq!(
        json_of(&client, superseded).await,
        json!([[11, 12], [11], 3])
    );
}

#[tokio::test]
async fn what_the_predecessor_left_unset_does_not_stop_the_upgrade() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TYPE payment_status AS ENUM ('succeeded', 'failed');
             CREATE TABLE payment_history (id INT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
                 stripe_payment_intent_id VARCHAR(64), amount_cents INT, currency CHAR(3),
                 status payment_status DEFAULT 'succeeded', created_at TIMESTAMP(3) WITH TIME ZONE);
             INSERT INTO payment_history (stripe_payment_intent_id, amount_cents, currency, created_at) VALUES
                 ('pi_a', 100, 'eur', '2025-10-01 00:30:00+02'), ('pi_b', NULL, NULL, NULL)",
        )
        .await
        .unwrap();
    migrate(&database).await.unwrap();
    let rows = "SELECT jsonb_agg(jsonb_build_array(payment_key, amount_cents, currency, status,
        extract(epoch FROM created_at)::bigint, stripe_fee_cents) ORDER BY id) FROM payment_history";
    assert_eq!(
        json_of(&client, rows).await,
        json!([
            ["pi_a", 100, "EUR", "succeeded", 1_759_271_400, null],
            ["pi_b", 0, "USD", "succeeded", 0, null],
        ])
    );
}

#[tokio::test]
async fn the_predecessor_may_go_on_writing() {
    let database = TestDatabase::empty().await;
    let client = upgrade_and_compare(&database, &[]).await;
    client
        .batch_execute(
            "INSERT INTO payment_history (invoice_id, user_id, stripe_payment_intent_id, amount_cents, status)
                 VALUES (1, 1, 'pi_new', 500, 'succeeded');
             INSERT INTO usage_events (user_id, event_type) VALUES (7, 'deed.created');
             INSERT INTO credits (user_id, amount_cents, reason) VALUES (1, 250, 'goodwill');
             INSERT INTO invoices (api_key_prefix, invoice_number, stripe_invoice_id, total_cents)
                 VALUES ('dp_pk_beta', 'API-202511-dp_pk_beta', 'in_new', 5)
                 ON CONFLICT (stripe_invoice_id) DO NOTHING;
             UPDATE subscriptions SET status = 'active' WHERE stripe_subscription_id = 'sub_two'",
        )
        .await
        .unwrap();
    let filled = "SELECT jsonb_build_array(
        (SELECT payment_key FROM payment_history ORDER BY id DESC LIMIT 1),
        (SELECT subject FROM usage_events ORDER BY id DESC LIMIT 1),
        (SELECT idempotency_key FROM usage_events ORDER BY id DESC LIMIT 1),
        (SELECT remaining_cents FROM credits ORDER BY id DESC LIMIT 1),
        (SELECT kind FROM invoices ORDER BY id DESC LIMIT 1))";
    assert_eq!(
        json_of(&client, filled).await,
        json!(["pi_new", "user:7", "legacy:5", 250, "partner"])
    );
}

#[tokio::test]
async fn a_partner_period_is_billed_once() {
    let database = TestDatabase::empty().await;
    let client = upgrade_and_compare(&database, &[]).await;
    let bill =
        "INSERT INTO invoices (kind, contract_id, invoice_number, status, billing_period_start,
        billing_period_end) VALUES ('partner', 1, $1, 'open', '2025-11-01Z', '2025-12-01Z')";
    client.execute(bill, &[&"A-1"]).await.unwrap();
    let error = client.execute(bill, &[&"A-2"]).await.unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().constraint(),
        Some("invoices_contract_period_live_key")
    );
    client
        .execute(
            "UPDATE invoices SET status = 'void' WHERE invoice_number = 'A-1'",
            &[],
        )
        .await
        .unwrap();
    client.execute(bill, &[&"A-2"]).await.unwrap();
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let database = TestDatabase::empty().await;
    let client = upgrade_and_compare(&database, &[]).await;
    let before = (
        columns(&client).await,
        rules(&client).await,
        rows_of(&client, "payment_history").await,
    );
    let answer = migrate(&database).await.unwrap();
    assert_eq!(
        answer,
        json!({ "applied": [], "version": Release::EMBEDDED.latest() })
    );
    let after = (
        columns(&client).await,
        rules(&client).await,
        rows_of(&client, "payment_history").await,
    );
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_at_once_apply_each_migration_once() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    predecessor::create(&client, &[]).await;
    let (one, two) = tokio::join!(migrate(&database), migrate(&database));
    let mut files = Vec::new();
    for answer in [one.unwrap(), two.unwrap()] {
        assert_eq!(answer["version"], json!(Release::EMBEDDED.latest()));
        files.extend(answer["applied"].as_array().unwrap().clone());
    }
    let distinct: BTreeSet<String> = files.iter().map(Value::to_string).collect();
    assert_eq!(files.len(), distinct.len());
    assert_eq!(files.len(), self::files());
    assert_eq!(rows_of(&client, "payment_history").await.len(), 8);
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let database = TestDatabase::empty().await;
    migrate(&database).await.unwrap();
    let client = database.client().await;
    let edit = "UPDATE billing_migrations SET sha256 = repeat('0', 64) WHERE version = 2";
    client.execute(edit, &[]).await.unwrap();
    let error = migrate(&database).await.unwrap_err();
    assert!(
        error.to_string().contains("V0002__predecessor_tables.sql"),
        "{error}"
    );
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let database = TestDatabase::empty().await;
    migrate(&database).await.unwrap();
    let client = database.client().await;
    let release = "INSERT INTO billing_migrations (version, file, sha256)
        SELECT max(version) + 1, 'V9999__later.sql', '' FROM billing_migrations";
    client.execute(release, &[]).await.unwrap();
    let error = migrate(&database).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Migrations(migrations::Error::DatabaseIsNewer { .. })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing_behind() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    // The mirror's second table is in the way; its first must not remain.
    client
        .batch_execute("CREATE TABLE customers (id INT)")
        .await
        .unwrap();
    let error = migrate(&database).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("V0005__stripe_inbox_and_mirror.sql"),
        "{error}"
    );
    assert_eq!(migrations::current_version(&client).await.unwrap(), Some(4));
    let remains = "SELECT to_jsonb(to_regclass('stripe_events') IS NOT NULL)";
    assert_eq!(json_of(&client, remains).await, json!(false));
    client.batch_execute("DROP TABLE customers").await.unwrap();
    let answer = migrate(&database).await.unwrap();
    assert_eq!(answer["applied"].as_array().unwrap().len() + 4, files());
}

#[tokio::test]
async fn a_database_out_of_reach_is_said_so() {
    logs::capture();
    let app = app("host=127.0.0.1 port=1 user=nobody dbname=none connect_timeout=2");
    let error = handle(&app, json!({}), Timestamp::UNIX_EPOCH)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    let logged = logs::captured();
    let line = logged
        .lines()
        .find(|line| line.contains("the database is out of reach"))
        .unwrap();
    assert!(
        line.contains("the database is unavailable: ") && line.contains("refused"),
        "{line}"
    );
}

#[tokio::test]
async fn the_log_has_the_cause_of_a_failed_migration_and_nobodys_data() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    predecessor::create(&client, &[]).await;
    // Postgres quotes the key that an index refuses.
    client
        .batch_execute(
            "ALTER TABLE api_partner_contracts DROP CONSTRAINT api_partner_contracts_api_key_prefix_key CASCADE;
             UPDATE api_partner_contracts SET api_key_prefix = 'hush@example.test'",
        )
        .await
        .unwrap();
    let error = migrate(&database).await.unwrap_err();
    assert!(
        matches!(error, Error::Migrations(migrations::Error::Failed { .. })),
        "{error}"
    );
    // The platform prints what it is handed in its own way.
    assert!(!format!("{error:?}").contains("hush@"), "{error:?}");
    let logged = logs::captured();
    let causes: Vec<&str> = logged
        .lines()
        .filter(|line| line.contains("api_partner_contracts_api_key_prefix_key"))
        .collect();
    assert_eq!(causes.len(), 1, "logged once: {causes:#?}");
    for told in [
        "\"ERROR\"",
        "V0004__extend_predecessor_tables.sql failed and was rolled back: the constraint ",
    ] {
        assert!(causes[0].contains(told), "{told}: {}", causes[0]);
    }
    logs::assert_free_of([
        "hush@example.test",
        "one@example.test",
        "two@example.test",
        "three@example.test",
        "pi_disputed",
    ]);
}

/// As the release did whose newest migration that was.
async fn migrate_to(version: usize, client: &mut Client) {
    let release = Release {
        versioned: &Release::EMBEDDED.versioned[..version],
        repeatable: &[],
        ..Release::EMBEDDED
    };
    release.apply(client, Background::AtOnce).await.unwrap();
}

/// The runner of the release before writes and reads its three columns, and what it recorded is done.
#[tokio::test]
async fn what_was_applied_before_migrations_had_a_state_is_done() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    migrate_to(31, &mut client).await;
    client
        .batch_execute("INSERT INTO users (email) VALUES ('one@example.test')")
        .await
        .unwrap();
    migrate(&database).await.unwrap();
    let states = "SELECT jsonb_object_agg(state || slices || rows_done, n)
        FROM (SELECT state, slices, rows_done, count(*) AS n FROM billing_migrations GROUP BY 1, 2, 3) AS m";
    let latest = Release::EMBEDDED.latest();
    assert_eq!(json_of(&client, states).await, json!({ "done00": latest }));
    let recorded_by_the_release_before =
        "INSERT INTO billing_migrations (version, file, sha256) VALUES (1000, 'V1000__x.sql', 'x')";
    client
        .execute(recorded_by_the_release_before, &[])
        .await
        .unwrap();
    let state = "SELECT to_jsonb(state) FROM billing_migrations WHERE version = 1000";
    assert_eq!(json_of(&client, state).await, json!("done"));
    let kept = "SELECT to_jsonb(count(*)) FROM users";
    assert_eq!(json_of(&client, kept).await, json!(1));
}

/// Of movements from before the upgrade as of those after it, the revenue report and the rollup know what customers who
/// left had paid: before the backfill, while a movement is being written, and after it.
#[tokio::test]
async fn churn_from_before_the_upgrade_is_rolled_up() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    let movement = |customer: &str, at: &str, kind: &str, before: i64, after: i64| {
        format!(
            "INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents, before_microcents,
                 after_microcents, cause_event_id)
             VALUES ('{at}', '{customer}', '{kind}', 'USD', {after} - {before}, {before}, {after}, 'evt')"
        )
    };
    migrate_to(32, &mut client).await;
    for row in [
        movement("cus_a", "2025-10-01T00:00:00Z", "new", 0, 700),
        movement("cus_b", "2025-10-01T00:00:00Z", "new", 0, 700),
        movement("cus_c", "2025-10-01T00:00:00Z", "new", 0, 700),
        movement("cus_a", "2025-10-02T23:59:59Z", "churn", 700, 0),
        movement("cus_b", "2025-10-02T01:00:00Z", "contraction", 700, 300),
    ] {
        client.batch_execute(&row).await.unwrap();
    }
    let release = Release {
        repeatable: &[],
        ..Release::EMBEDDED
    };
    release.apply(&mut client, Background::Later).await.unwrap();
    for row in [
        movement("cus_b", "2025-10-02T02:00:00Z", "churn", 300, 0),
        movement("cus_c", "2025-10-03T00:00:00Z", "churn", 700, 0),
        movement("cus_a", "2025-10-04T00:00:00Z", "reactivation", 0, 200),
    ] {
        client.batch_execute(&row).await.unwrap();
    }
    let daily = "SELECT jsonb_object_agg(day, jsonb_build_array(customers_lost, churned_microcents)) FROM mrr_daily";
    assert_eq!(
        json_of(&client, daily).await,
        json!({"2025-10-01": [0, null], "2025-10-02": [2, null], "2025-10-03": [1, 700], "2025-10-04": [0, 0]})
    );
    let now: Timestamp = "2025-10-20T12:00:00Z".parse().unwrap();
    let churned = async |client: &Client| {
        let moment = Moment::Now(now);
        let usd = Currency::parse("USD").unwrap();
        let churned = revenue_report::churned(client, usd, moment).await.unwrap();
        (churned.customers, churned.mrr_microcents)
    };
    // Of the three who left cus_a is back.
    assert_eq!(churned(&client).await, (2, 1_000));

    // The backfill waits for a movement of its day, and counts it once. The index before it would wait, too.
    let indexes = Release {
        versioned: &release.versioned[..34],
        ..release
    };
    indexes
        .maintain(&mut client, Deadline::default())
        .await
        .unwrap();
    let mut writer = database.client().await;
    let writing = writer.transaction().await.unwrap();
    for row in [
        movement("cus_d", "2025-10-01T00:00:00Z", "new", 0, 40),
        movement("cus_d", "2025-10-02T03:00:00Z", "churn", 40, 0),
    ] {
        writing.batch_execute(&row).await.unwrap();
    }
    let mut runner = database.client().await;
    let run = tokio::spawn(async move { release.maintain(&mut runner, Deadline::default()).await });
    let waits = "SELECT to_jsonb(count(*) > 0) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%billing_churned_on%'";
    while json_of(&client, waits).await != json!(true) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    writing.commit().await.unwrap();
    run.await.unwrap().unwrap();
    assert_eq!(
        json_of(&client, daily).await,
        json!({"2025-10-01": [0, 0], "2025-10-02": [3, 1_040], "2025-10-03": [1, 700], "2025-10-04": [0, 0]})
    );
    assert_eq!(churned(&client).await, (3, 1_040));
    let index = "SELECT to_jsonb(indisvalid) FROM pg_index
        WHERE indexrelid = to_regclass('mrr_movements_reactivations_idx')";
    assert_eq!(json_of(&client, index).await, json!(true));
}

/// What the release before V0031 does with a key: its statements, as they were.
mod before_v0031 {
    use serde_json::Value;
    use tokio_postgres::GenericClient;

    pub(crate) async fn take(db: &impl GenericClient, key: &str, path: &str, digest: &str) -> bool {
        let taken = db
            .execute(
                "INSERT INTO idempotency_keys (key, route, request_sha256, created_at)
                 VALUES ($1, $2, $3, now()) ON CONFLICT (key) DO NOTHING",
                &[&key, &path, &digest],
            )
            .await;
        taken.unwrap() == 1
    }

    pub(crate) async fn answer(db: &impl GenericClient, key: &str, body: &str) {
        let answered = db
            .execute(
                "UPDATE idempotency_keys SET status = 200, body = $2 WHERE key = $1 AND status IS NULL",
                &[&key, &body],
            )
            .await;
        assert_eq!(answered.unwrap(), 1);
    }

    /// Path, digest and body of a key that was used.
    pub(crate) async fn get(db: &impl GenericClient, key: &str) -> Value {
        super::json_of(
            db,
            &format!(
                "SELECT jsonb_build_array(route, request_sha256, body) FROM idempotency_keys
                 WHERE key = '{key}' AND status IS NOT NULL"
            ),
        )
        .await
    }
}

/// A key that the release before has taken, or takes while this one is rolled out, is known to this one, and the other
/// way round: a request that is sent again across the upgrade has one effect.
#[tokio::test]
async fn a_key_holds_across_the_upgrade_that_gives_it_an_owner() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    migrate_to(30, &mut client).await;
    assert!(before_v0031::take(&client, "old", "POST /credits/1/void", "d").await);
    before_v0031::answer(&client, "old", "first").await;
    migrate_to(31, &mut client).await;

    let now = Timestamp::UNIX_EPOCH;
    let owner = |key, actor| Owner {
        key,
        actor,
        route: "POST /credits/{id}/void",
    };
    let void = |id: i32, digest: &str| Use {
        route: format!("POST /credits/{id}/void"),
        request_sha256: digest.to_owned(),
    };
    let answered = |taken: Taken| match taken {
        Taken::Before(answered) => answered.body,
        Taken::Now => "taken now".to_owned(),
    };

    // The answer of the release before is given again to the very same request, and to no other.
    let db = client.transaction().await.unwrap();
    let same = idempotency_keys::take(&db, &owner("old", "ops"), &void(1, "d"), now).await;
    assert_eq!(answered(same.unwrap()), "first");
    db.rollback().await.unwrap();
    for (key, first_use) in [("old", void(2, "d")), ("old", void(1, "e"))] {
        let db = client.transaction().await.unwrap();
        let other = idempotency_keys::take(&db, &owner(key, "ops"), &first_use, now).await;
        assert_eq!(answered(other.unwrap()), "taken now", "{first_use:?}");
        db.rollback().await.unwrap();
    }

    // What this release takes, the release before finds under the text.
    let db = client.transaction().await.unwrap();
    let new = owner("new", "ops");
    let taken = idempotency_keys::take(&db, &new, &void(3, "d"), now).await;
    assert_eq!(taken.unwrap(), Taken::Now);
    idempotency_keys::answer(&db, &new, 200, "second")
        .await
        .unwrap();
    db.commit().await.unwrap();
    assert!(!before_v0031::take(&client, "new", "POST /credits/3/void", "d").await);
    let found = before_v0031::get(&client, "new").await;
    assert_eq!(found, json!(["POST /credits/3/void", "d", "second"]));

    // The same text of somebody else is another key; its owner's own answer stays.
    let db = client.transaction().await.unwrap();
    let another = owner("new", "boss");
    let taken = idempotency_keys::take(&db, &another, &void(3, "d"), now).await;
    assert_eq!(taken.unwrap(), Taken::Now);
    idempotency_keys::answer(&db, &another, 200, "third")
        .await
        .unwrap();
    db.commit().await.unwrap();
    for (actor, body) in [("ops", "second"), ("boss", "third")] {
        let db = client.transaction().await.unwrap();
        let again = idempotency_keys::take(&db, &owner("new", actor), &void(3, "d"), now).await;
        assert_eq!(answered(again.unwrap()), body);
        db.rollback().await.unwrap();
    }
    assert_eq!(before_v0031::get(&client, "new").await, found);

    // A request that the release before is working on is waited for.
    let mut other = database.client().await;
    let working = other.transaction().await.unwrap();
    assert!(before_v0031::take(&working, "slow", "POST /credits/4/void", "d").await);
    let db = client.transaction().await.unwrap();
    let slow = owner("slow", "ops");
    let first_use = void(4, "d");
    let waiting = idempotency_keys::take(&db, &slow, &first_use, now);
    let working = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        before_v0031::answer(&working, "slow", "fourth").await;
        working.commit().await.unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, working);
    assert_eq!(answered(waited.unwrap()), "fourth");
}

/// What was entered in whole shillings is in hundredths afterwards, as is what Stripe sent all along; nothing else moves.
/// A contract as the release before wrote it: its terms since ever, its suspensions, and each of the gateway's rows
/// counts until the cycle that runs at the upgrade.
#[tokio::test]
async fn a_contract_from_before_terms_were_dated_is_read_as_it_was() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    migrate_to(47, &mut client).await;
    client
        .batch_execute(
            r#"INSERT INTO api_partner_contracts (api_key_prefix, pricing_model, per_deed_price_cents, tax_rate_bps,
                   contract_start_date, billed_from, status, suspended_at, suspensions)
               VALUES ('dp_pk_alpha', 'per_deed', 250, 1900, '2025-01-01', '2025-01-01', 'suspended', '2025-06-10 12:00Z',
                   '[{"suspended_at": "2025-02-10T08:00:00Z", "resumed_at": "2025-02-20T08:00:00Z"}]')"#,
        )
        .await
        .unwrap();
    migrate(&database).await.unwrap();
    let now: Timestamp = "2025-07-01T00:00:00Z".parse().unwrap();
    let read = store::contracts::of_prefix(&client, "dp_pk_alpha").await;
    let history = read.unwrap().unwrap().contract(now).unwrap().history;
    let on = |day: &str| history.on(day.parse().unwrap());
    let billed = |day: &str| history.is_billed(day.parse().unwrap());
    let days = [
        "2024-12-31",
        "2025-01-01",
        "2025-02-10",
        "2025-02-11",
        "2025-02-20",
        "2025-06-10",
        "2025-06-11",
    ];
    assert_eq!(
        days.map(billed),
        [false, true, true, false, true, true, false]
    );
    assert_eq!(on("2025-01-01").tax_rate_bps(), 1_900);
    assert_eq!(on("2025-01-01").billable_status_codes.to_string(), "all");
    assert_eq!(
        on("2100-01-01").billable_status_codes.to_string(),
        "0-428,430-499,600-999"
    );
    let unstored = "SELECT jsonb_build_array(projected_on, (SELECT count(*) FROM contract_changes),
        terms_since = (now() AT TIME ZONE 'UTC')::date) FROM api_partner_contracts";
    assert_eq!(json_of(&client, unstored).await, json!([null, 0, true]));
}

#[tokio::test]
async fn shillings_become_hundredths_once() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    let versioned = Release::EMBEDDED.versioned;
    let before = versioned
        .iter()
        .position(|migration| migration.file.ends_with("ugx_has_two_decimals.sql"));
    migrate_to(before.unwrap(), &mut client).await;
    for (number, currency) in [(1, "UGX"), (2, "USD")] {
        let rows = format!(
            r#"INSERT INTO api_partner_contracts (id, api_key_prefix, pricing_model, currency, monthly_flat_fee_cents,
                   per_deed_price_cents, per_1000_requests_cents, minimum_commitment_cents, tiers)
               VALUES ({number}, 'p{number}', 'flat', '{currency}', 500, 7, NULL, 0,
                       '[{{"up_to": 100, "unit_price_cents": 7, "flat_cents": 0}}]');
               INSERT INTO plan_limits (plan_name, overage_price_cents, upgrade_price_cents, currency)
                   VALUES ('plan{number}', 3, NULL, '{currency}');
               INSERT INTO credits (id, api_key_prefix, amount_cents, remaining_cents, currency, stripe_refund_id) VALUES
                   ({number}1, 'p{number}', 90, 40, '{currency}', NULL), ({number}2, NULL, 90, 90, '{currency}', 're_{number}');
               INSERT INTO invoices (id, invoice_number, kind, contract_id, stripe_invoice_id, currency, status,
                   subtotal_cents, tax_cents, discount_cents, total_cents, amount_paid_cents, amount_due_cents,
                   credit_applied_cents, line_items, tax_breakdown, metadata) VALUES
                   ({number}1, 'A-{number}1', 'partner', {number}, NULL, '{currency}', 'open', 500, 90, 0, 590, 200, 340, 50,
                    '{{"items": [{{"description": "5 \"x_cents\": 5", "quantity": 5, "unit_price_cents": null,
                       "unit_amount_decimal": "0.125", "total_cents": 500}},
                      {{"unit_amount_decimal": "12"}}, {{"unit_amount_decimal": "12.5"}}, {{"unit_amount_decimal": "1.25"}},
                      {{"unit_amount_decimal": "0", "total_cents": -5}}]}}',
                    '[{{"tax_rate_bps": 1800, "taxable_cents": 500, "tax_cents": 90}}]', '{{"units": 5}}'),
                   ({number}2, 'A-{number}2', 'subscription', NULL, 'in_{number}', '{currency}', 'open', 500, 0, 0, 500, 0, 500, 0,
                    '{{"items": [{{"total_cents": 500}}]}}', '[]', '{{}}');
               INSERT INTO credit_applications (credit_id, invoice_id, amount_cents) VALUES ({number}1, {number}1, 50);
               INSERT INTO invoiced_usage (invoice_id, contract_id, period_start, period_end, units, requests,
                   amount_cents, terms)
                   VALUES ({number}1, {number}, '2026-01-01Z', '2026-02-01Z', 5, 0, 500, '{{"monthly_flat_fee_cents": 500}}');
               INSERT INTO settled_periods (contract_id, period_start, period_end, terms, settled_at)
                   VALUES ({number}, '2026-01-01Z', '2026-02-01Z', '{{"per_deed_price_cents": 7}}', '2026-02-01Z');
               INSERT INTO payment_history (payment_key, invoice_id, amount_cents, net_amount_cents, currency, status,
                   stripe_payment_intent_id, stripe_fee_cents) VALUES
                   ('manual:{number}1:1', {number}1, 200, 200, '{currency}', 'succeeded', NULL, 0),
                   ('pi_{number}', NULL, 500, 485, '{currency}', 'succeeded', 'pi_{number}', 15);
               INSERT INTO revenue_entries (payment_key, kind, source_id, day, currency, amount_cents, occurred_at) VALUES
                   ('manual:{number}1:1', 'gross', 'm', '2026-01-05', '{currency}', 200, '2026-01-05Z'),
                   ('pi_{number}', 'gross', 'p', '2026-01-05', '{currency}', 500, '2026-01-05Z');
               INSERT INTO revenue_daily (day, currency, gross_cents, payments) VALUES ('2026-01-05', '{currency}', 700, 2);
               INSERT INTO usage_events (user_id, event_type, unit_price_cents, currency, subject, idempotency_key)
                   VALUES ({number}, 'x', 3, '{currency}', 'user:{number}', 'k');
               INSERT INTO usage_daily (subject, day, event_type, currency, amount_cents)
                   VALUES ('user:{number}', '2026-01-05', 'x', '{currency}', 3)"#
        );
        client.batch_execute(&rows).await.unwrap();
    }
    let shown = async |client: &Client, currency: &str| {
        let of_contract =
            format!("(SELECT id FROM api_partner_contracts WHERE currency = '{currency}')");
        let amounts = format!(
            "SELECT jsonb_build_object(
                'contract', (SELECT jsonb_build_array(monthly_flat_fee_cents, per_deed_price_cents,
                    per_1000_requests_cents, minimum_commitment_cents, tiers)
                    FROM api_partner_contracts WHERE currency = '{currency}'),
                'plan', (SELECT jsonb_build_array(overage_price_cents, upgrade_price_cents)
                    FROM plan_limits WHERE currency = '{currency}' AND plan_name LIKE 'plan%'),
                'credits', (SELECT jsonb_agg(jsonb_build_array(amount_cents, remaining_cents) ORDER BY id)
                    FROM credits WHERE currency = '{currency}'),
                'applied', (SELECT jsonb_agg(applied.amount_cents) FROM credit_applications AS applied
                    JOIN credits ON credits.id = credit_id WHERE currency = '{currency}'),
                'invoices', (SELECT jsonb_agg(jsonb_build_array(subtotal_cents, tax_cents, total_cents, amount_paid_cents,
                    amount_due_cents, credit_applied_cents, line_items -> 'items', tax_breakdown, metadata) ORDER BY id)
                    FROM invoices WHERE currency = '{currency}'),
                'billed', (SELECT jsonb_build_array(amount_cents, terms) FROM invoiced_usage
                    WHERE contract_id IN {of_contract}),
                'settled', (SELECT terms FROM settled_periods WHERE contract_id IN {of_contract}),
                'payments', (SELECT jsonb_agg(jsonb_build_array(amount_cents, net_amount_cents) ORDER BY payment_key)
                    FROM payment_history WHERE currency = '{currency}'),
                'entries', (SELECT jsonb_agg(amount_cents ORDER BY payment_key)
                    FROM revenue_entries WHERE currency = '{currency}'),
                'day', (SELECT gross_cents FROM revenue_daily WHERE currency = '{currency}'),
                'usage', (SELECT jsonb_build_array(unit_price_cents, (SELECT amount_cents FROM usage_daily
                    WHERE currency = '{currency}')) FROM usage_events WHERE currency = '{currency}'))"
        );
        json_of(client, &amounts).await
    };
    let dollars = shown(&client, "USD").await;
    assert_eq!(dollars, shown(&client, "UGX").await);
    for _ in 0..2 {
        migrate(&database).await.unwrap();
        assert_eq!(shown(&client, "USD").await, dollars);
        assert_eq!(
            shown(&client, "UGX").await,
            json!({
                "contract": [50_000, 700, null, 0, [{"up_to": 100, "unit_price_cents": 700, "flat_cents": 0}]],
                "plan": [300, null],
                "credits": [[9_000, 4_000], [90, 90]],
                "applied": [5_000],
                "invoices": [
                    [50_000, 9_000, 59_000, 20_000, 34_000, 5_000, [
                        {"description": "5 \"x_cents\": 5", "quantity": 5, "unit_price_cents": null,
                         "unit_amount_decimal": "12.5", "total_cents": 50_000},
                        {"unit_amount_decimal": "1200"}, {"unit_amount_decimal": "1250"},
                        {"unit_amount_decimal": "125"}, {"unit_amount_decimal": "0", "total_cents": -500}],
                     [{"tax_rate_bps": 1_800, "taxable_cents": 50_000, "tax_cents": 9_000}], {"units": 5}],
                    [500, 0, 500, 0, 500, 0, [{"total_cents": 500}], [], {}]],
                "billed": [50_000, {"monthly_flat_fee_cents": 50_000}],
                "settled": {"per_deed_price_cents": 700},
                "payments": [[20_000, 20_000], [500, 485]],
                "entries": [20_000, 500],
                "day": 20_500,
                "usage": [300, 300],
            })
        );
    }
}

/// The release before names no row in its look-ups and relies on an index that goes. Its function goes on writing.
#[tokio::test]
async fn the_release_before_may_go_on_writing_look_ups() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    migrate_to(50, &mut client).await;
    let function = "CREATE FUNCTION billing_close_0123abcd(changes JSONB, at TIMESTAMPTZ)
        RETURNS JSON LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO stripe_lookups AS stored (kind, stripe_id, reason, requested_at)
            SELECT kind, stripe_id, reason, min(requested_at)
            FROM jsonb_to_recordset(changes) AS wanted (kind TEXT, stripe_id TEXT, reason TEXT,
                requested_at TIMESTAMPTZ)
            GROUP BY kind, stripe_id, reason
            ON CONFLICT (kind, stripe_id, reason) WHERE done_at IS NULL DO UPDATE SET
                requested_at = least(stored.requested_at, excluded.requested_at);
            RETURN NULL;
        END
        $$";
    client.batch_execute(function).await.unwrap();
    let close = "SELECT billing_close_0123abcd('[{\"kind\": \"price\", \"stripe_id\": \"price_1\", \"reason\": \"tiers\",
        \"requested_at\": \"2025-10-01T00:00:00Z\"}]', now())";
    client.batch_execute(close).await.unwrap();
    migrate_to(Release::EMBEDDED.versioned.len(), &mut client).await;
    client.batch_execute(close).await.unwrap();
    let unfinished =
        "SELECT to_jsonb(count(*) > 0 AND count(*) = count(*) FILTER (WHERE subject = ''))
        FROM stripe_lookups WHERE done_at IS NULL";
    assert_eq!(json_of(&client, unfinished).await, json!(true));
}

#[test]
fn without_a_database_the_program_says_which_variable_is_missing() {
    let line = logs::of_a_start_without_configuration(env!("CARGO_BIN_EXE_migrate"));
    assert_eq!(line["level"], "ERROR");
    let cause = line["fields"]["cause"].as_str().unwrap();
    assert!(cause.contains("DATABASE_URL"), "{line}");
}

pub(crate) fn app(database_url: &str) -> App {
    let environment = Environment::from_pairs([
        ("DATABASE_URL", database_url),
        ("DATABASE_SSLMODE", "disable"),
    ]);
    App::from_env(&environment, &aws_types::SdkConfig::builder().build()).unwrap()
}
