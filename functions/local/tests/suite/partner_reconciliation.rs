//! The daily reconciliation over what partner invoicing really issues: no false alarm, and no gap overlooked.

use domain::partner::contract::Contract;
use fake_stripe::account::Account;
use fake_stripe::payments::Outcome;
use fake_stripe::{FakeStripe, Options};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{contracts, invoices};
use testing::roles::as_function;
use testing::{Surroundings, TestDatabase, sample};
use tokio::net::TcpListener;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// When the last of the bills is issued.
fn now() -> Timestamp {
    at("2026-02-01T00:05:00Z")
}

/// The two functions, their database, and a Stripe.
struct Site {
    database: TestDatabase,
    stripe: FakeStripe,
    invoicing: partner_invoicing::App,
    reconciliation: reconciliation::App,
}

impl Site {
    async fn new() -> Site {
        let account = Account::new("Numbers", now());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stripe = FakeStripe::start(listener, Options::new(account, now)).unwrap();
        let surroundings = Surroundings::new([
            ("INVOICE_ISSUER", r#"{"name": "DeedPro"}"#.to_owned()),
            ("STRIPE_API_BASE", stripe.base_url()),
            ("STRIPE_API_KEY", "sk_test_any".to_owned()),
        ])
        .await;
        let environment = surroundings.environment(&[]);
        Site {
            invoicing: partner_invoicing::App::from_env(
                &as_function("partner-invoicing", &environment),
                &surroundings.aws,
            )
            .unwrap(),
            reconciliation: reconciliation::App::from_env(
                &as_function("reconciliation", &environment),
                &surroundings.aws,
            )
            .unwrap(),
            database: surroundings.database,
            stripe,
        }
    }

    async fn contract(&self, prefix: &str, changes: Value) {
        let mut members = json!({
            "api_key_prefix": prefix, "company": "Alpha Title", "pricing_model": "hybrid",
            "monthly_flat_fee_cents": 50_000, "per_deed_price_cents": 250, "payment_method": "wire",
            "tax_rate_bps": 1_900, "contract_start_date": "2025-11-01",
        });
        for (name, value) in changes.as_object().unwrap() {
            members[name] = value.clone();
        }
        let contract = Contract::parse(members.as_object().unwrap()).unwrap();
        let client = self.database.client().await;
        let entered_at = at("2025-11-01T00:00:00Z");
        contracts::insert(&client, &contract, entered_at)
            .await
            .unwrap();
    }

    async fn execute(&self, statement: &str) {
        let client = self.database.client().await;
        client.batch_execute(statement).await.unwrap();
    }

    async fn texts(&self, select: &str) -> Vec<String> {
        let client = self.database.client().await;
        let rows = client.query(select, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn bill(&self, time: &str) {
        let mut event = sample("schedule_partner_invoicing_monthly").json();
        event["time"] = json!(time);
        let summary = partner_invoicing::handle(&self.invoicing, event, now()).await;
        assert_eq!(summary.unwrap()["failed"], json!([]));
    }

    /// As `POST /admin/invoices/{id}/void` does, but for what it checks before.
    async fn void(&self, number: &str) {
        let client = self.database.client().await;
        let row = client
            .query_one(
                "SELECT id FROM invoices WHERE invoice_number = $1",
                &[&number],
            )
            .await
            .unwrap();
        invoices::void(&client, row.get("id"), now()).await.unwrap();
    }

    /// The whole time in which there were invoices.
    async fn reconcile(&self) -> Value {
        let event = json!({
            "detail-type": "reconciliation.daily", "time": "2026-02-02T06:00:00Z",
            "detail": {"since": "2025-11-01T00:00:00Z"},
        });
        let later = at("2026-02-02T06:00:00Z");
        self.stripe.with_account(|account| account.set_now(later));
        reconciliation::handle(&self.reconciliation, event, later)
            .await
            .unwrap()
    }

    /// `<kind> <type> <id> <stripe's value> <ledger's value>` of what the newest run leaves open.
    async fn open(&self) -> Vec<String> {
        self.texts(
            "SELECT concat_ws(' ', kind, object_type, object_id, stripe_value, ledger_value)
             FROM reconciliation_items
             WHERE run_id = (SELECT max(run_id) FROM reconciliation_runs) AND resolution = 'open'
             ORDER BY 1",
        )
        .await
    }

    async fn assert_sound(&self) {
        let summary = self.reconcile().await;
        assert_eq!(self.open().await, Vec::<String>::new(), "{summary:#}");
        assert_eq!(summary["open"], 0);
        assert_eq!(summary["not_checked"], json!([]));
    }
}

#[tokio::test]
async fn numbers_of_many_partners_months_and_reissues_are_dense_and_a_lost_one_is_found() {
    let site = Site::new().await;
    // The second one's first number is what the first one's second number would be.
    for prefix in ["dp_pk_a", "dp_pk_a-2", "dp pk/ä", "dp_pk_b"] {
        site.contract(prefix, json!({})).await;
    }
    // The predecessor has billed a month of one of them.
    site.execute(
        "INSERT INTO invoices (invoice_number, api_key_prefix, kind, status, currency, subtotal_cents,
             total_cents, amount_due_cents, line_items, created_at)
         VALUES ('API-202512-dp_pk_b', 'dp_pk_b', 'partner', 'open', 'USD', 100, 100, 100,
                 '{\"items\": [{\"total_cents\": 100}]}', '2025-12-31Z')",
    )
    .await;
    site.bill("2025-12-01T00:05:00Z").await;
    for number in ["API-202511-dp_pk_a", "API-202511-dp_pk_b"] {
        site.void(number).await;
    }
    site.bill("2026-01-01T00:05:00Z").await;
    site.void("API-202511-dp_pk_b-2").await;
    site.bill("2026-02-01T00:05:00Z").await;
    let numbers = site
        .texts("SELECT invoice_number FROM invoices ORDER BY 1")
        .await;
    assert_eq!(
        numbers,
        [
            "API-202511-dp-pk--",
            "API-202511-dp_pk_a",
            "API-202511-dp_pk_a-2",
            "API-202511-dp_pk_a-3",
            "API-202511-dp_pk_b",
            "API-202511-dp_pk_b-2",
            "API-202511-dp_pk_b-3",
            "API-202512-dp-pk--",
            "API-202512-dp_pk_a",
            "API-202512-dp_pk_a-2",
            "API-202512-dp_pk_b",
            "API-202512-dp_pk_b-2",
            "API-202601-dp-pk--",
            "API-202601-dp_pk_a",
            "API-202601-dp_pk_a-2",
            "API-202601-dp_pk_b",
        ]
    );
    site.assert_sound().await;

    // Renamed rather than deleted: others refer to it.
    site.execute(
        "UPDATE invoices SET invoice_number = 'lost' WHERE invoice_number = 'API-202511-dp_pk_b-2';
         UPDATE invoices SET invoice_number = 'gone' WHERE invoice_number = 'API-202601-dp_pk_a'",
    )
    .await;
    let told = [
        "missing_in_db invoice_number API-202511-dp_pk_b-2 taken from its series",
        "missing_in_db invoice_number API-202601-dp_pk_a taken from its series",
    ];
    site.reconcile().await;
    assert_eq!(site.open().await, told);
    // Nobody can recreate an invoice that was lost: every run reports it until somebody accepts it.
    site.reconcile().await;
    assert_eq!(site.open().await, told);
}

#[tokio::test]
async fn an_invoice_that_stripe_collects_is_no_discrepancy_and_one_changed_by_hand_is() {
    let site = Site::new().await;
    let collected = json!({"payment_method": "stripe", "billing_email": "ap@example.com"});
    site.contract("dp_pk_a", collected).await;
    site.execute(
        "INSERT INTO api_usage (api_key_prefix, cost_units, created_at) VALUES ('dp_pk_a', 312, '2026-01-10Z');
         INSERT INTO credits (api_key_prefix, amount_cents, remaining_cents, currency, reason)
         VALUES ('dp_pk_a', 2320, 2320, 'USD', 'goodwill')",
    )
    .await;
    site.bill("2026-02-01T00:05:00Z").await;
    site.assert_sound().await;
    let ids = site
        .texts("SELECT stripe_invoice_id FROM invoices WHERE stripe_invoice_id IS NOT NULL ORDER BY id")
        .await;
    let paid = site
        .stripe
        .with_account(|account| account.pay_invoice(&ids[0], Outcome::Succeeds));
    paid.unwrap();
    site.assert_sound().await;
    site.assert_sound().await;

    site.execute(
        "UPDATE invoices SET tax_cents = tax_cents + 1, line_items = jsonb_build_object('items', '[]'::jsonb)
         WHERE invoice_number = 'API-202601-dp_pk_a'",
    )
    .await;
    site.reconcile().await;
    assert_eq!(
        site.open().await,
        ["amount_differs invoice_total API-202601-dp_pk_a lines 0 subtotal 128000"]
    );
}
