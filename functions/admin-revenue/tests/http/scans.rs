//! No figure and no report reads a large table whole: what Postgres counted while each was answered.

use jiff::Timestamp;

use crate::ledger::{Ledger, admin, app, body, handle, request};
use crate::lists::connections_have_ended;

const NOW: &str = "2025-10-20T12:00:00Z";
/// A table of more rows than this is large.
const LARGE: i64 = 10_000;

/// 12,000 rows in every table that figures and reports read, one every 90 minutes for two years.
async fn filled() -> Ledger {
    let ledger = Ledger::create().await;
    let at = "(timestamptz '2025-10-20Z' - n * interval '90 minutes')";
    let rows = "generate_series(1, 12000) AS n";
    ledger
        .run(&format!(
            "INSERT INTO customers (stripe_customer_id, created_at) SELECT 'cus_' || n, {at} FROM {rows};
             INSERT INTO payment_history (payment_key, stripe_payment_intent_id, stripe_invoice_id, stripe_customer_id,
                 amount_cents, currency, status, stripe_fee_cents, fee_source, succeeded_at, created_at)
             SELECT 'pi_' || n, 'pi_' || n, 'in_' || n, 'cus_' || n, 2999, 'USD', 'succeeded', 117, 'actual', {at}, {at}
             FROM {rows};
             INSERT INTO payment_attempts (stripe_charge_id, stripe_payment_intent_id, amount_cents,
                 amount_captured_cents, currency, status, attempted_at)
             SELECT 'ch_' || n, 'pi_' || n, 2999, 2999, 'USD', CASE WHEN n % 2 = 0 THEN 'failed' ELSE 'succeeded' END, {at}
             FROM {rows};
             INSERT INTO refunds (stripe_refund_id, amount_cents, currency, reason, status, created_at)
             SELECT 're_' || n, 100, 'USD', 'requested_by_customer', 'succeeded', {at} FROM {rows};
             INSERT INTO disputes (stripe_dispute_id, amount_cents, currency, status, funds_withdrawn_at, created_at)
             SELECT 'dp_' || n, 100, 'USD', 'lost', {at}, {at} FROM {rows};
             INSERT INTO revenue_entries (payment_key, kind, source_id, day, occurred_at, currency, amount_cents)
             SELECT 'pi_' || n, kind, CASE kind WHEN 'refund' THEN 're_' WHEN 'dispute' THEN 'dp_' ELSE 'pi_' END || n,
                    ({at} AT TIME ZONE 'UTC')::date, {at}, 'USD', 100
             FROM {rows}, unnest(ARRAY['gross', 'fee', 'refund', 'dispute']) AS kind;
             INSERT INTO invoices (invoice_number, stripe_invoice_id, api_key_prefix, kind, currency, status, total_cents,
                 tax_cents, amount_due_cents, due_date, finalized_at, paid_at, created_at)
             SELECT 'N-' || n, 'in_' || n, 'dp_pk_' || n % 50, CASE WHEN n % 2 = 0 THEN 'partner' ELSE 'subscription' END,
                    'USD', CASE WHEN n % 100 = 0 THEN 'open' ELSE 'paid' END, 2999, 100, 2999, {at}, {at},
                    CASE WHEN n % 100 > 0 THEN {at} END, {at} FROM {rows};
             INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, status, plan_name, currency,
                 mrr_microcents, created_at)
             SELECT 'sub_' || n, 'cus_' || n, CASE WHEN n % 100 = 0 THEN 'active' ELSE 'canceled' END, 'unknown', 'USD',
                    CASE WHEN n % 100 = 0 THEN 1000000000 ELSE 0 END, {at} FROM {rows};
             INSERT INTO subscription_versions (stripe_subscription_id, source_event_id, stripe_customer_id, currency,
                 source_created_at, occurred_at, status, mrr_microcents, potential_mrr_microcents, is_counted,
                 all_discounts_microcents, no_discounts_microcents)
             SELECT 'sub_' || n, 'evt_' || n, 'cus_' || n, 'USD', {at}, {at}, 'active', 1000000000, 1000000000, true,
                    1000000000, CASE WHEN n % 500 = 0 THEN 2000000000 ELSE 1000000000 END FROM {rows};
             INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents,
                 before_microcents, after_microcents, cause_event_id)
             SELECT {at}, 'cus_' || n, 'new', 'USD', 1000000000, 0, 1000000000, 'evt_' || n FROM {rows}"
        ))
        .await;
    ledger.run("VACUUM ANALYZE").await;
    ledger
}

/// How often each large table has been read whole.
async fn scans(ledger: &Ledger) -> Vec<(String, i64)> {
    connections_have_ended(ledger).await;
    let counts = "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE n_live_tup > $1 ORDER BY relname";
    let rows = ledger.client.query(counts, &[&LARGE]).await;
    let rows = rows.expect("counts");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn no_figure_and_no_report_reads_a_large_table_whole() {
    let ledger = filled().await;
    let before = scans(&ledger).await;
    let large: Vec<&str> = before.iter().map(|(table, _)| table.as_str()).collect();
    for table in [
        "customers",
        "disputes",
        "invoices",
        "mrr_movements",
        "payment_attempts",
        "payment_history",
        "refunds",
        "revenue_entries",
        "subscription_status_changes",
        "subscription_versions",
        "subscriptions",
    ] {
        assert!(large.contains(&table), "{table} is not among {large:?}");
    }
    // A short range: of a longer one so small a table may be read whole with good reason.
    let morning = "from=2025-06-02&to=2025-06-02T12:00:00Z";
    let mut paths = vec![
        "/admin/revenue".to_owned(),
        "/admin/revenue?as_of=2025-06-02T12:00:00Z".to_owned(),
        "/admin/revenue/cohorts?from=2025-06-01&to=2025-07-01&as_of=2025-07-15T00:00:00Z"
            .to_owned(),
        "/admin/reports/aging".to_owned(),
    ];
    for profile in ["stripe", "all_discounts", "no_discounts"] {
        paths.push(format!(
            "/admin/revenue/movements?{morning}&profile={profile}"
        ));
    }
    for report in [
        "top-customers",
        "failed-payments",
        "refunds",
        "disputes",
        "fees",
        "tax",
        "partners",
        "plan-changes",
    ] {
        paths.push(format!("/admin/reports/{report}?{morning}"));
    }
    let now: Timestamp = NOW.parse().expect("an instant");
    for path in paths {
        let app = app(ledger.url(), &[]).await;
        let response = handle(&app, request("GET", &path, Some(&admin(now))), now).await;
        let answer = body(&response);
        assert_eq!(response.status(), 200, "{path}: {answer}");
        assert_eq!(answer["errors"], serde_json::json!([]), "{path}");
        drop(app);
        assert_eq!(scans(&ledger).await, before, "{path}");
    }
}
