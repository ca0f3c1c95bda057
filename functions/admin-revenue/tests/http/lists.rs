//! Every list: what it shows, its filters, its pages, its parameters, and that a page reads the rows it shows.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use runtime::aws::parked_events::ParkedEvents;
use runtime::config::Environment;
use serde_json::{Value, json};
use testing::{Aws, TestDatabase};

use crate::ledger::{Ledger, admin, app, app_with_aws, bearer, body, handle, request};

const NOW: &str = "2026-11-22T00:00:00Z";

/// A list, the member that identifies a row, and each of its parameters with values it refuses.
struct List {
    path: &'static str,
    key: &'static str,
    refused: &'static [(&'static str, &'static [&'static str])],
}

const USER_ID: (&str, &[&str]) = ("user_id", &["", "x", "-1", "1.5", "2147483648"]);
const TEXTS: &[&str] = &["", "a%00b", "%0A"];
const MOMENTS: &[&str] = &["", "yesterday", "2025-13-01", "2025-11", "0000-01-01"];
const FROM: (&str, &[&str]) = ("from", MOMENTS);
const TO: (&str, &[&str]) = ("to", MOMENTS);
const LIMIT: (&str, &[&str]) = ("limit", &["", "0", "501", "-1", "+5", "1.0", "all"]);
/// Not base64; no position; a position before our time (`["-004800-01-01T00:00:00Z",1]` and with a text as key); one
/// with U+0000 in it (`["2025-01-01T00:00:00Z","a\u0000"]`).
const CURSOR: (&str, &[&str]) = (
    "cursor",
    &[
        "",
        "!",
        "e30",
        "WyItMDA0ODAwLTAxLTAxVDAwOjAwOjAwWiIsMV0",
        "WyItMDA0ODAwLTAxLTAxVDAwOjAwOjAwWiIsImEiXQ",
        "WyIyMDI1LTAxLTAxVDAwOjAwOjAwWiIsImFcdTAwMDAiXQ",
    ],
);

const LISTS: &[List] = &[
    List {
        path: "/admin/invoices",
        key: "id",
        refused: &[
            ("status", &["", "Open", "past_due"]),
            ("kind", &["", "other"]),
            USER_ID,
            ("api_key_prefix", TEXTS),
            ("customer", TEXTS),
            ("number", TEXTS),
            FROM,
            TO,
            LIMIT,
            CURSOR,
        ],
    },
    List {
        path: "/admin/payments",
        key: "id",
        refused: &[
            ("status", &["", "paid"]),
            USER_ID,
            ("customer", TEXTS),
            ("invoice_id", &["", "in_1", "-1", "9223372036854775808"]),
            FROM,
            TO,
            LIMIT,
            CURSOR,
        ],
    },
    List {
        path: "/admin/subscriptions",
        key: "id",
        refused: &[
            ("status", &["", "open"]),
            USER_ID,
            ("customer", TEXTS),
            ("plan", TEXTS),
            FROM,
            TO,
            LIMIT,
            CURSOR,
        ],
    },
    List {
        path: "/admin/customers",
        key: "stripe_customer_id",
        refused: &[USER_ID, FROM, TO, LIMIT, CURSOR],
    },
    List {
        path: "/admin/contracts",
        key: "id",
        refused: &[
            ("status", &["", "ended"]),
            ("api_key_prefix", TEXTS),
            LIMIT,
            CURSOR,
        ],
    },
    List {
        path: "/admin/credits",
        key: "id",
        refused: &[USER_ID, ("api_key_prefix", TEXTS), FROM, TO, LIMIT, CURSOR],
    },
    List {
        path: "/admin/events",
        key: "event_id",
        refused: &[
            ("outcome", &["", "duplicate"]),
            ("type", TEXTS),
            FROM,
            TO,
            LIMIT,
            CURSOR,
        ],
    },
    List {
        path: "/admin/events/parked",
        key: "event_id",
        refused: &[LIMIT, CURSOR],
    },
    List {
        path: "/admin/audit-log",
        key: "id",
        refused: &[
            ("actor", TEXTS),
            ("action", TEXTS),
            ("target", TEXTS),
            FROM,
            TO,
            LIMIT,
            CURSOR,
        ],
    },
    List {
        path: "/admin/reconciliation",
        key: "run_id",
        refused: &[LIMIT, CURSOR],
    },
];

impl Ledger {
    /// A list that must be a 200: its rows and the cursor of the next page.
    async fn page(&self, path: &str) -> (Vec<Value>, Option<String>) {
        let (status, body) = self.get(path, NOW).await;
        assert_eq!(status, 200, "{path}: {body}");
        let rows = body["data"].as_array().expect("rows").clone();
        (rows, body["next_cursor"].as_str().map(str::to_owned))
    }

    /// One member of each row of a list.
    async fn shown(&self, path: &str, member: &str) -> Vec<Value> {
        let (rows, next) = self.page(path).await;
        assert_eq!(next, None, "{path}");
        rows.iter().map(|row| row[member].clone()).collect()
    }

    /// Rows in every list: `count` of each, `per_instant` of which share their instant.
    async fn fill(&self, count: u32, per_instant: u32) {
        let at = format!("timestamptz '2025-01-01Z' + interval '1 minute' * (n / {per_instant})");
        let rows = format!("generate_series(1, {count}) AS n");
        self.run(&format!(
            "INSERT INTO invoices (invoice_number, stripe_invoice_id, stripe_customer_id, user_id, api_key_prefix,
                 kind, status, created_at)
             SELECT 'INV-' || n, 'in_' || n, 'cus_' || n % 997, n % 997,
                 CASE WHEN n % 50 = 0 THEN 'dp_pk_' || n % 7 END,
                 CASE WHEN n % 50 = 0 THEN 'partner' WHEN n = 5 THEN 'overage' WHEN n > 100 AND n < 900 THEN 'one_off' ELSE 'subscription' END,
                 CASE WHEN n = 3 THEN 'void' WHEN n > 100 AND n < 900 THEN 'uncollectible' WHEN n % 5 = 0 THEN 'open'
                 ELSE 'paid' END, {at} FROM {rows};
             INSERT INTO payment_history (payment_key, amount_cents, stripe_customer_id, user_id, invoice_id, status,
                 created_at)
             SELECT 'pi_' || n, n, 'cus_' || n % 997, n % 997, n / 2,
                 CASE WHEN n = 3 THEN 'disputed' WHEN n > 100 AND n < 900 THEN 'refunded' WHEN n % 9 = 0 THEN 'failed' ELSE 'succeeded' END, {at} FROM {rows};
             INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, user_id, plan_name, status,
                 created_at)
             SELECT 'sub_' || n, 'cus_' || n % 997, n % 997, CASE WHEN n = 3 THEN 'enterprise' ELSE 'professional' END,
                 CASE WHEN n = 4 THEN 'paused' WHEN n > 100 AND n < 4000 THEN 'canceled' ELSE 'active' END, {at} FROM {rows};
             INSERT INTO customers (stripe_customer_id, user_id, created_at)
             SELECT 'cus_' || n, n, CASE WHEN n % 3 > 0 THEN {at} END FROM {rows};
             INSERT INTO api_partner_contracts (api_key_prefix, pricing_model, status, created_at)
             SELECT 'dp_pk_' || n, 'flat', CASE WHEN n = 3 THEN 'suspended' ELSE 'active' END, {at} FROM {rows};
             INSERT INTO credits (user_id, api_key_prefix, amount_cents, remaining_cents, created_at)
             SELECT n % 997, 'dp_pk_' || n % 997, n, n, {at} FROM {rows};
             INSERT INTO stripe_events (event_id, type, payload, outcome, created_at, received_at)
             SELECT 'evt_' || n, CASE WHEN n = 3 THEN 'payout.paid' WHEN n > 100 AND n < 4000 THEN 'invoice.payment_succeeded'
                 ELSE 'invoice.paid' END, '{{}}',
                 CASE WHEN n = 4 THEN 'failed' WHEN n % 5 = 0 THEN 'ignored' ELSE 'applied' END,
                 CASE WHEN n % 7 > 0 THEN {at} END, {at} FROM {rows};
             INSERT INTO audit_log (at, actor, action, target)
             SELECT {at}, 'admin-' || n % 997, CASE WHEN n = 3 THEN 'credit.void' ELSE 'contract.update' END,
                 'contract:' || n % 997 FROM {rows};
             INSERT INTO reconciliation_runs (kind, started_at) SELECT 'daily', {at} FROM {rows};
             INSERT INTO reconciliation_items (run_id, kind, object_type, object_id)
             SELECT 1 + n % 10, 'missing_in_db', 'charge', 'ch_' || n FROM {rows}"
        ))
        .await;
    }
}

#[tokio::test]
async fn every_parameter_of_every_list_is_checked_and_named() {
    let ledger = Ledger::create().await;
    for list in LISTS {
        for (field, values) in list.refused {
            for value in *values {
                let path = format!("{}?{field}={value}", list.path);
                let (status, problem) = ledger.get(&path, NOW).await;
                assert_eq!((status, &problem["field"]), (400, &json!(field)), "{path}");
            }
            let twice = format!("{}?{field}=1&{field}=1", list.path);
            let (status, problem) = ledger.get(&twice, NOW).await;
            assert_eq!((status, &problem["field"]), (400, &json!(field)), "{twice}");
        }
        let unknown = format!("{}?as_of=2025-01-01T00:00:00Z", list.path);
        let (status, problem) = ledger.get(&unknown, NOW).await;
        assert_eq!(
            (status, &problem["field"]),
            (400, &json!("as_of")),
            "{unknown}"
        );
        if list.refused.iter().any(|(field, _)| *field == "from") {
            let backwards = format!("{}?from=2025-02-01&to=2025-01-01", list.path);
            let (status, problem) = ledger.get(&backwards, NOW).await;
            assert_eq!((status, &problem["field"]), (400, &json!("from")));
        }
    }
    let by_type = "/admin/events?outcome=parked&type=invoice.paid";
    let (status, problem) = ledger.get(by_type, NOW).await;
    assert_eq!((status, &problem["field"]), (400, &json!("type")));
}

#[tokio::test]
async fn a_walk_meets_every_old_row_once_while_rows_are_added() {
    let ledger = Ledger::create().await;
    ledger.fill(60, 20).await;
    let in_postgres = |list: &&List| list.path != "/admin/events/parked";
    for (number, list) in LISTS.iter().filter(in_postgres).enumerate() {
        let (old, next) = ledger.page(&format!("{}?limit=500", list.path)).await;
        assert_eq!((old.len() >= 60, next), (true, None), "{}", list.path);
        let old: Vec<&Value> = old.iter().map(|row| &row[list.key]).collect();
        let mut seen: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        for round in 0..100 {
            assert!(round < 99, "the walk does not end");
            let after = cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
            let (rows, next) = ledger.page(&format!("{}?limit=7{after}", list.path)).await;
            seen.extend(rows.iter().map(|row| row[list.key].clone()));
            // New rows above, below and in the middle of where the walk is, also in the same instant.
            ledger
                .run(&format!(
                    "INSERT INTO invoices (invoice_number, created_at) VALUES ('{0}-a', '2025-01-01 00:01Z');
                     INSERT INTO payment_history (payment_key, amount_cents, created_at)
                         VALUES ('{0}-a', 1, '2025-01-01 00:01Z'), ('{0}-b', 1, '2030-01-01Z');
                     INSERT INTO subscriptions (stripe_subscription_id, status, created_at)
                         VALUES ('{0}-a', 'active', '2025-01-01 00:02Z');
                     INSERT INTO customers (stripe_customer_id, created_at)
                         VALUES ('cus_{0}-a', '2025-01-01 00:01Z'), ('cus_{0}-b', NULL);
                     INSERT INTO api_partner_contracts (api_key_prefix, pricing_model, created_at)
                         VALUES ('{0}-a', 'flat', '2025-01-01 00:01Z');
                     INSERT INTO credits (amount_cents, remaining_cents, created_at) VALUES (1, 1, '2025-01-01 00:01Z');
                     INSERT INTO stripe_events (event_id, type, payload, outcome, created_at)
                         VALUES ('evt_{0}-a', 'x', '{{}}', 'applied', '2025-01-01 00:01Z');
                     INSERT INTO audit_log (at, actor, action, target) VALUES ('2025-01-01 00:01Z', 'a', 'b', 'c');
                     INSERT INTO reconciliation_runs (kind, started_at) VALUES ('daily', '2025-01-01 00:01Z')",
                    format_args!("{number}-{round}")
                ))
                .await;
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let of_old: Vec<&Value> = seen.iter().filter(|key| old.contains(key)).collect();
        assert_eq!(of_old, old, "{}", list.path);
        let distinct: BTreeSet<String> = seen.iter().map(Value::to_string).collect();
        assert_eq!(distinct.len(), seen.len(), "{}", list.path);
    }
}

/// Waits until nobody else is connected: what Postgres counts of a connection is there once it has ended.
pub(crate) async fn connections_have_ended(ledger: &Ledger) {
    loop {
        let others = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
              AND backend_type = 'client backend'";
        let others: i64 = ledger
            .client
            .query_one(others, &[])
            .await
            .expect("a count")
            .get(0);
        if others == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// What an app read of one table while it answered, as Postgres counted it.
async fn rows_read(ledger: &Ledger, table: &str, path: &str) -> (i64, i64, usize) {
    let counted = async || {
        connections_have_ended(ledger).await;
        let counts = "SELECT seq_scan, COALESCE(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = $1";
        let row = ledger
            .client
            .query_one(counts, &[&table])
            .await
            .expect("counts");
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let (scans_before, rows_before) = counted().await;
    let now: Timestamp = NOW.parse().expect("an instant");
    let app = app(ledger.url(), &[]).await;
    let response = handle(&app, request("GET", path, Some(&admin(now))), now).await;
    assert!(response.status() == 200 || path.ends_with("none"), "{path}");
    let answer = body(&response);
    let shown = answer.get("data").or(answer.get("items"));
    let shown = shown.and_then(Value::as_array).map_or(1, Vec::len);
    drop(app);
    let (scans, rows) = counted().await;
    (scans - scans_before, rows - rows_before, shown)
}

#[tokio::test]
async fn a_page_reads_about_the_rows_it_shows_whatever_is_asked_for() {
    let ledger = Ledger::create().await;
    ledger.fill(12_000, 60).await;
    ledger.run("ANALYZE").await;
    let dated = "from=2025-01-01T01:00:00Z&to=2025-01-01T02:00:00Z";
    let oldest = "to=2025-01-01T00:02:00Z";
    for (table, path, filters) in [
        (
            "invoices",
            "/admin/invoices",
            &[
                "status=void",
                "status=open",
                "status=uncollectible",
                "kind=overage",
                "kind=partner",
                "kind=one_off",
                "user_id=5",
                "api_key_prefix=dp_pk_3",
                "customer=cus_5",
                "number=INV-77",
                dated,
                oldest,
                "status=open&from=2025-01-01T01:00:00Z&to=2025-01-01T02:00:00Z",
                "status=uncollectible&to=2025-01-01T00:12:00Z",
            ][..],
        ),
        (
            "payment_history",
            "/admin/payments",
            &[
                "status=disputed",
                "status=failed",
                "status=refunded",
                "status=canceled",
                "user_id=5",
                "customer=cus_5",
                "invoice_id=100",
                dated,
                oldest,
            ],
        ),
        (
            "subscriptions",
            "/admin/subscriptions",
            &[
                "status=paused",
                "status=canceled",
                "status=unpaid",
                "user_id=5",
                "customer=cus_5",
                "plan=enterprise",
                "plan=professional",
                dated,
                oldest,
            ],
        ),
        (
            "customers",
            "/admin/customers",
            &["user_id=5", dated, oldest],
        ),
        (
            "api_partner_contracts",
            "/admin/contracts",
            &[
                "status=suspended",
                "status=canceled",
                "api_key_prefix=dp_pk_77",
            ],
        ),
        (
            "credits",
            "/admin/credits",
            &["user_id=5", "api_key_prefix=dp_pk_5", dated, oldest],
        ),
        (
            "stripe_events",
            "/admin/events",
            &[
                "outcome=failed",
                "outcome=ignored",
                "type=payout.paid",
                "type=invoice.payment_succeeded",
                "type=none.such",
                dated,
                oldest,
            ],
        ),
        (
            "audit_log",
            "/admin/audit-log",
            &[
                "actor=admin-5",
                "action=credit.void",
                "target=contract:5",
                dated,
                oldest,
            ],
        ),
        ("reconciliation_runs", "/admin/reconciliation", &[]),
        ("reconciliation_items", "/admin/reconciliation/4", &[]),
    ] {
        // The middle of the list: `["2025-01-01T01:40:00Z",…]` in the key's own type.
        let middle = match table {
            "customers" | "stripe_events" => {
                Some("WyIyMDI1LTAxLTAxVDAxOjQwOjAwWiIsImUiXQ".to_owned())
            }
            "reconciliation_items" => None,
            _ => Some("WyIyMDI1LTAxLTAxVDAxOjQwOjAwWiIsNTAwMF0".to_owned()),
        };
        let middle = middle.map(|cursor| format!("cursor={cursor}"));
        let all = ["limit=10"].into_iter().chain(filters.iter().copied());
        for filter in all.chain(middle.as_deref()) {
            let path = format!("{path}?limit=10&{filter}").replace("limit=10&limit", "limit");
            let (scans, rows, shown) = rows_read(&ledger, table, &path).await;
            assert_eq!(scans, 0, "{path} reads the whole of {table}");
            // Few rows may be read whole and sorted.
            let most = 2 * (i64::try_from(shown).expect("a count") + 2);
            assert!(rows <= most, "{path} shows {shown} and reads {rows}");
        }
    }
    for (table, path) in [
        ("invoices", "/admin/invoices/in_77"),
        ("invoices", "/admin/invoices/77"),
        ("payment_history", "/admin/payments/77"),
        ("payment_history", "/admin/payments/pi_77"),
        ("payment_history", "/admin/payments/ch_none"),
        ("customers", "/admin/customers/cus_77"),
        ("subscriptions", "/admin/customers/cus_77"),
        ("api_partner_contracts", "/admin/contracts/77"),
    ] {
        let (scans, rows, _) = rows_read(&ledger, table, path).await;
        assert_eq!(scans, 0, "{path} reads the whole of {table}");
        assert!(rows <= 20, "{path} reads {rows}");
    }
}

#[tokio::test]
async fn rows_are_the_columns_of_their_tables_without_what_is_internal() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO invoices (id, invoice_number, stripe_invoice_id, user_id, kind, currency, subtotal_cents,
                 tax_cents, discount_cents, total_cents, amount_paid_cents, amount_due_cents, status, due_date,
                 created_at, updated_at, source_event_id)
             VALUES (77, 'INV-77', 'in_77', 3, 'subscription', 'EUR', 10000, 1900, 500, 11400, 400, 11000, 'open',
                 '2025-11-30 23:30+01', '2025-11-01 00:00:00.123456Z', '2025-11-01Z', 'evt_77')",
        )
        .await;
    let (rows, _) = ledger.page("/admin/invoices").await;
    assert_eq!(
        rows,
        [json!({
            "id": 77, "user_id": 3, "api_key_prefix": null, "invoice_number": "INV-77", "stripe_invoice_id": "in_77",
            "kind": "subscription", "stripe_customer_id": null, "stripe_subscription_id": null, "contract_id": null,
            "subtotal_cents": 10000, "tax_cents": 1900, "discount_cents": 500, "total_cents": 11400,
            "amount_paid_cents": 400, "amount_due_cents": 11000, "credit_applied_cents": 0, "currency": "EUR",
            "status": "open", "billing_period_start": null, "billing_period_end": null,
            "due_date": "2025-11-30T22:30:00Z", "finalized_at": null, "sent_at": null, "paid_at": null,
            "voided_at": null, "attempt_count": 0, "next_payment_attempt_at": null, "invoice_pdf_url": null,
            "po_number": null, "created_at": "2025-11-01T00:00:00.123456Z", "updated_at": "2025-11-01T00:00:00Z"
        })]
    );
    ledger.fill(12, 1).await;
    for list in LISTS
        .iter()
        .filter(|list| list.path != "/admin/events/parked")
    {
        for row in ledger.page(list.path).await.0 {
            let members = row.as_object().unwrap();
            assert!(!members[list.key].is_null(), "{row}");
            let internal = |name: &&String| {
                name.starts_with("source_")
                    || ["superseded", "payload", "listed_at", "user_link_rank"]
                        .contains(&name.as_str())
            };
            assert_eq!(members.keys().find(internal), None, "{}", list.path);
        }
    }
}

#[tokio::test]
async fn what_the_predecessor_wrote_twice_and_what_was_deleted_is_not_listed() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO invoices (invoice_number, superseded, deleted_at) VALUES ('A', false, NULL),
                 ('A', true, NULL), ('B', false, now());
             INSERT INTO payment_history (payment_key, amount_cents, superseded) VALUES ('a', 1, false), ('b', 1, true);
             INSERT INTO subscriptions (status, plan_name, superseded) VALUES ('active', 'a', false),
                 ('active', 'b', true)",
        )
        .await;
    let (invoices, payments, subscriptions) = (
        ledger.shown("/admin/invoices", "invoice_number").await,
        ledger.shown("/admin/payments", "payment_key").await,
        ledger.shown("/admin/subscriptions", "plan_name").await,
    );
    assert_eq!(invoices, ["A"]);
    assert_eq!(payments, ["a"]);
    assert_eq!(subscriptions, ["a"]);
}

#[tokio::test]
async fn each_filter_shows_the_rows_it_names_and_no_other() {
    let ledger = Ledger::create().await;
    ledger.fill(100, 1).await;
    // Row n is of minute n: the newest first.
    for (path, member, expected) in [
        ("/admin/invoices?status=void", "id", json!([3])),
        ("/admin/invoices?kind=overage", "id", json!([5])),
        ("/admin/invoices?kind=partner", "id", json!([100, 50])),
        ("/admin/invoices?user_id=42", "id", json!([42])),
        ("/admin/invoices?customer=cus_42", "id", json!([42])),
        ("/admin/invoices?number=INV-9", "id", json!([9])),
        ("/admin/invoices?api_key_prefix=dp_pk_2", "id", json!([100])),
        (
            "/admin/invoices?status=open&kind=partner&to=2025-01-01T01:00:00Z",
            "id",
            json!([50]),
        ),
        (
            "/admin/invoices?from=2025-01-01T00:10:00Z&to=2025-01-01T00:12:00Z",
            "id",
            json!([11, 10]),
        ),
        ("/admin/invoices?from=2025-01-02", "id", json!([])),
        ("/admin/invoices?to=2025-01-01", "id", json!([])),
        ("/admin/payments?status=disputed", "id", json!([3])),
        ("/admin/payments?invoice_id=10", "id", json!([21, 20])),
        ("/admin/payments?customer=cus_9", "id", json!([9])),
        ("/admin/payments?user_id=9&status=failed", "id", json!([9])),
        (
            "/admin/payments?user_id=9&status=succeeded",
            "id",
            json!([]),
        ),
        (
            "/admin/payments?from=2025-01-01T01:40:00Z",
            "id",
            json!([100]),
        ),
        ("/admin/subscriptions?plan=enterprise", "id", json!([3])),
        ("/admin/subscriptions?status=paused", "id", json!([4])),
        ("/admin/subscriptions?customer=cus_8", "id", json!([8])),
        ("/admin/subscriptions?user_id=8", "id", json!([8])),
        (
            "/admin/subscriptions?to=2025-01-01T00:02:00Z",
            "id",
            json!([1]),
        ),
        (
            "/admin/customers?user_id=3",
            "stripe_customer_id",
            json!(["cus_3"]),
        ),
        (
            "/admin/customers?from=2025-01-01T01:38:00Z",
            "stripe_customer_id",
            json!(["cus_100", "cus_98"]),
        ),
        ("/admin/contracts?status=suspended", "id", json!([3])),
        (
            "/admin/contracts?api_key_prefix=dp_pk_12",
            "id",
            json!([12]),
        ),
        ("/admin/credits?user_id=12", "id", json!([12])),
        ("/admin/credits?api_key_prefix=dp_pk_13", "id", json!([13])),
        (
            "/admin/credits?to=2025-01-01T00:03:00Z",
            "id",
            json!([2, 1]),
        ),
        ("/admin/events?outcome=failed", "event_id", json!(["evt_4"])),
        (
            "/admin/events?type=payout.paid",
            "event_id",
            json!(["evt_3"]),
        ),
        (
            "/admin/events?from=2025-01-01T00:07:00Z&to=2025-01-01T00:09:00Z",
            "event_id",
            json!(["evt_8", "evt_7"]),
        ),
        ("/admin/audit-log?actor=admin-3", "id", json!([3])),
        ("/admin/audit-log?action=credit.void", "id", json!([3])),
        ("/admin/audit-log?target=contract:4", "id", json!([4])),
        (
            "/admin/audit-log?from=2025-01-01T01:40:00Z",
            "id",
            json!([100]),
        ),
    ] {
        assert_eq!(json!(ledger.shown(path, member).await), expected, "{path}");
    }
    let (customers, _) = ledger.page("/admin/customers?limit=500").await;
    let last = customers.last().unwrap();
    assert_eq!(customers.len(), 100);
    assert_eq!(last["created_at"], Value::Null, "only named so far: last");
}

#[tokio::test]
async fn parked_and_poisoned_events_are_listed_from_where_they_lie() {
    let aws = Aws::shared().await;
    let (bucket, table) = tokio::join!(aws.bucket(), aws.parked_events_table());
    let pairs = [
        ("DOCUMENT_BUCKET", bucket.as_str()),
        ("PARKED_EVENTS_TABLE", &table),
    ];
    let parked =
        ParkedEvents::from_env(&Environment::from_pairs(pairs), &aws.sdk_config()).unwrap();
    let now: Timestamp = NOW.parse().unwrap();
    for (event_id, hours_ago) in [("evt_a", 3), ("evt_b", 2), ("evt_c", 2), ("evt_d", 1)] {
        let at = now - SignedDuration::from_hours(hours_ago);
        parked.park(event_id, "{}", "away", at).await.unwrap();
    }
    for attempts in 0..8 {
        let noted = parked.record_failure("evt_b", attempts, "a bug", now);
        noted.await.unwrap();
    }
    let noted = parked.record_failure("evt_c", 0, "a bug", now);
    noted.await.unwrap();
    // Another kind of item, which is no event: it never came in.
    let item = [("event_id", "evt_e/part"), ("reason", "none")];
    let item = item.map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned())));
    let put = aws_sdk_dynamodb::Client::new(&aws.sdk_config())
        .put_item()
        .table_name(&table)
        .set_item(Some(item.into()));
    put.send().await.unwrap();
    let database = TestDatabase::create().await;
    let app = app_with_aws(&database.url, aws, &pairs).await;
    let get = async |path: String| {
        let response = handle(&app, request("GET", &path, Some(&admin(now))), now).await;
        assert_eq!(response.status(), 200, "{path}");
        body(&response)
    };
    let ids = |answer: &Value| -> Vec<String> {
        let rows = answer["data"].as_array().expect("rows").iter();
        rows.map(|row| row["event_id"].as_str().expect("an id").to_owned())
            .collect()
    };
    let all = get("/admin/events/parked".to_owned()).await;
    assert_eq!(ids(&all), ["evt_d", "evt_c", "evt_b", "evt_a"]);
    assert_eq!(
        all["data"][1],
        json!({"event_id": "evt_c", "outcome": "parked", "reason": "a bug", "attempts": 1,
               "next_attempt_at": "2026-11-22T00:05:00Z", "received_at": "2026-11-21T22:00:00Z", "poisoned_at": null})
    );
    assert_eq!(
        all["data"][2],
        json!({"event_id": "evt_b", "outcome": "poisoned", "reason": "a bug", "attempts": 8,
               "next_attempt_at": null, "received_at": "2026-11-21T22:00:00Z", "poisoned_at": NOW})
    );
    let mut walked = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = get(format!("/admin/events/parked?limit=1{cursor}")).await;
        walked.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(walked, ["evt_d", "evt_c", "evt_b", "evt_a"]);
    for (path, expected) in [
        ("outcome=parked", &["evt_d", "evt_c", "evt_a"][..]),
        ("outcome=poisoned", &["evt_b"]),
        (
            "outcome=parked&from=2026-11-21T22:00:00Z",
            &["evt_d", "evt_c"],
        ),
        ("outcome=parked&to=2026-11-21T22:00:00Z", &["evt_a"]),
        ("outcome=applied", &[]),
    ] {
        assert_eq!(
            ids(&get(format!("/admin/events?{path}")).await),
            expected,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_run_has_its_items_and_is_a_file_too() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO reconciliation_runs (run_id, kind, started_at, status, compared, matched, open,
                 completeness_bps, summary)
             VALUES (1, 'daily', '2025-11-02Z', 'completed', 10, 8, 2, 8000, '{\"USD\": 5}'),
                 (2, 'daily', '2025-11-03Z', 'running', 0, 0, 0, NULL, '{}');
             INSERT INTO reconciliation_items (id, run_id, kind, object_type, object_id, currency, stripe_value,
                 ledger_value, detail, found_at, accepted_reason)
             VALUES (11, 1, 'amount_differs', 'charge', 'ch_1', 'USD', '-500', '500', '{\"fee\": 1}', '2025-11-02Z', NULL),
                 (12, 1, 'status_differs', 'invoice', 'in_1', NULL, 'paid', '=1+1', '{}', '2025-11-02Z', 'said \"so\", twice')",
        )
        .await;
    let (status, run) = ledger.get("/admin/reconciliation/1?limit=1", NOW).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&run["status"], &run["completeness_bps"], &run["summary"]),
        (&json!("completed"), &json!(8000), &json!({"USD": 5}))
    );
    assert_eq!(run["items"][0]["object_id"], "ch_1");
    assert_eq!(run["items"][0]["detail"], json!({"fee": 1}));
    let cursor = run["next_cursor"].as_str().unwrap();
    let path = format!("/admin/reconciliation/1?limit=1&cursor={cursor}");
    let (_, rest) = ledger.get(&path, NOW).await;
    assert_eq!(rest["items"][0]["object_id"], "in_1");
    assert_eq!(rest["next_cursor"], Value::Null);
    let (_, empty) = ledger.get("/admin/reconciliation/2", NOW).await;
    assert_eq!(empty["items"], json!([]));
    let now: Timestamp = NOW.parse().unwrap();
    let asked = request("GET", "/admin/reconciliation/1.csv", Some(&admin(now)));
    let response = handle(&ledger.app, asked, now).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-disposition"],
        "attachment; filename=\"reconciliation-1.csv\""
    );
    assert_eq!(
        std::str::from_utf8(response.body()).unwrap(),
        "id,run_id,kind,resolution,object_type,object_id,currency,stripe_value,ledger_value,detail,found_at,\
         resolved_at,accepted_by,accepted_reason\r\n\
         11,1,amount_differs,open,charge,ch_1,USD,-500,500,\"{\"\"fee\"\":1}\",2025-11-02T00:00:00Z,,,\r\n\
         12,1,status_differs,open,invoice,in_1,,paid,'=1+1,{},2025-11-02T00:00:00Z,,,\"said \"\"so\"\", twice\"\r\n"
    );
    for path in ["9", "9.csv", "x", "-1", "01", "1.csv.csv", "1.pdf", "%00"] {
        let (status, _) = ledger
            .get(&format!("/admin/reconciliation/{path}"), NOW)
            .await;
        assert_eq!(status, 404, "{path}");
    }
    for (path, field) in [
        ("1?limit=0", "limit"),
        ("1?cursor=x", "cursor"),
        ("1?kind=x", "kind"),
        ("1.csv?limit=5", "limit"),
    ] {
        let (status, problem) = ledger
            .get(&format!("/admin/reconciliation/{path}"), NOW)
            .await;
        assert_eq!((status, &problem["field"]), (400, &json!(field)), "{path}");
    }
}

#[tokio::test]
async fn a_partner_lists_its_own_invoices_and_nothing_else() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO invoices (invoice_number, kind, api_key_prefix) VALUES ('A', 'partner', 'dp_pk_alpha'),
                 ('B', 'partner', 'dp_pk_beta'), ('S', 'subscription', NULL)",
        )
        .await;
    let now: Timestamp = NOW.parse().unwrap();
    let exp = now.as_second() + 60;
    let alpha = bearer(&json!({"exp": exp, "partner": "dp_pk_alpha"}));
    for (path, status, numbers) in [
        ("/admin/invoices", 200, &["A"][..]),
        ("/admin/invoices?api_key_prefix=dp_pk_alpha", 200, &["A"]),
        ("/admin/invoices?number=B", 200, &[]),
        ("/admin/invoices?api_key_prefix=dp_pk_beta", 403, &[]),
    ] {
        let response = handle(&ledger.app, request("GET", path, Some(&alpha)), now).await;
        assert_eq!(response.status(), status, "{path}");
        let answer = body(&response);
        let rows = answer["data"].as_array().into_iter().flatten();
        let shown: Vec<&Value> = rows.map(|row| &row["invoice_number"]).collect();
        assert_eq!(shown, numbers, "{path}");
    }
}
