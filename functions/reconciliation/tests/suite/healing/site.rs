//! What the tests of healing share: the function with everything it uses, and the ledger's figures.

use std::time::Duration;

use domain::payment::FeeEstimate;
use fake_stripe::{Account, FakeStripe, Fault, Options, Shape, scenarios};
use jiff::{SignedDuration, Timestamp};
use reconciliation::{App, Deadline, handle_until};
use runtime::aws::parked_events::ParkedEvents;
use runtime::telemetry::cause_chain;
use serde_json::Value;
use shared::ledger;
use stripe::client::Patience;
use stripe::event::Event;
use testing::roles::as_function;
use testing::{Surroundings, logs, sample};
use tokio::net::TcpListener;

pub(crate) const FEES: FeeEstimate = FeeEstimate {
    bps: 290,
    fixed_cents: 30,
};
/// How often the client asks before it gives up.
pub(crate) const ATTEMPTS: u32 = 2;

/// However busy the machine is, a page comes within this time.
const PATIENCE: Patience = Patience {
    timeout: Duration::from_secs(60),
    attempts: ATTEMPTS,
    first_pause: Duration::from_millis(2),
    longest_pause: Duration::from_millis(10),
};

/// What is never answered is not worth waiting for that long.
pub(crate) fn patience_with(fault: &Fault) -> Patience {
    if !matches!(fault, Fault::Hang { .. }) {
        return PATIENCE;
    }
    Patience {
        timeout: Duration::from_secs(1),
        ..PATIENCE
    }
}

/// Everything the function uses, of one test's own.
pub(crate) struct Site {
    pub(crate) surroundings: Surroundings,
}

impl Site {
    pub(crate) async fn new() -> Site {
        logs::capture();
        let surroundings = Surroundings::new([]).await;
        let client = surroundings.database.client().await;
        for scenario in scenarios() {
            client
                .execute(
                    "INSERT INTO users (id, email, full_name)
                     VALUES ($1, 'buyer@example.com', 'Buyer')",
                    &[&scenario.user_id],
                )
                .await
                .unwrap();
        }
        Site { surroundings }
    }

    /// The function, asking this Stripe.
    pub(crate) fn app(&self, stripe: &FakeStripe) -> App {
        self.app_with(&[
            ("STRIPE_API_BASE", &stripe.base_url()),
            ("STRIPE_API_KEY", "rk_test_healing"),
        ])
    }

    pub(crate) fn app_with(&self, pairs: &[(&'static str, &str)]) -> App {
        let environment = self.surroundings.environment(pairs);
        let app = App::from_env(
            &as_function("reconciliation", &environment),
            &self.surroundings.aws,
        )
        .unwrap();
        app.with_patience(PATIENCE)
    }

    /// The function, asking a Stripe that has this fault: a hang is given up after a second.
    pub(crate) fn app_in_trouble(&self, stripe: &FakeStripe, fault: &Fault) -> App {
        self.app(stripe).with_patience(patience_with(fault))
    }

    /// Events as deliveries bring them.
    pub(crate) async fn deliver(&self, events: &[Value]) {
        let mut client = self.surroundings.database.client().await;
        for event in events {
            let body = event.to_string();
            let read = Event::parse(body.as_bytes()).unwrap();
            let now = read.created_at.unwrap();
            if let Err(error) = ledger::ingest(
                &mut client,
                &stripe::account::Account::default(),
                &read,
                &body,
                FEES,
                now,
            )
            .await
            {
                panic!("{}: {}", read.event_type, cause_chain(&error));
            }
        }
    }

    /// An event that could not be applied.
    pub(crate) async fn park(&self, event: &Value) {
        let environment = self.surroundings.environment(&[]);
        let table = ParkedEvents::from_env(&environment, &self.surroundings.aws).unwrap();
        let (id, body) = (event["id"].as_str().unwrap(), event.to_string());
        let created = event["created"].as_i64().unwrap();
        let now = Timestamp::from_second(created).unwrap();
        table.park(id, &body, "a test", now).await.unwrap();
    }

    pub(crate) async fn count(&self, from: &str) -> i64 {
        let client = self.surroundings.database.client().await;
        let statement = format!("SELECT count(*) FROM {from}");
        client.query_one(&statement, &[]).await.unwrap().get(0)
    }

    /// The rows of a query of one text column.
    pub(crate) async fn texts(&self, query: &str) -> Vec<String> {
        let client = self.surroundings.database.client().await;
        let rows = client.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// What the ledger says of money and subscriptions.
    pub(crate) async fn figures(&self) -> Vec<String> {
        self.texts(FIGURES).await
    }
}

/// What both events and fetched objects tell, surrogate ids and versions apart.
const FIGURES: &str = "
    SELECT name || ' ' || row::text FROM (
        SELECT 'day' AS name, to_jsonb(t) AS row FROM revenue_daily t
        UNION ALL SELECT 'payment', to_jsonb(t) - 'id' - 'updated_at' - 'invoice_id'
            FROM payment_history t
        UNION ALL SELECT 'refund', jsonb_build_object('id', stripe_refund_id, 'status', status,
            'amount', amount_cents, 'at', created_at) FROM refunds
        UNION ALL SELECT 'dispute', jsonb_build_object('id', stripe_dispute_id, 'status', status,
            'fee', fee_cents, 'amount', amount_cents) FROM disputes
        UNION ALL SELECT 'invoice', jsonb_build_object('id', stripe_invoice_id, 'status', status,
            'number', invoice_number, 'total', total_cents, 'due', amount_due_cents,
            'paid', amount_paid_cents, 'paid_at', paid_at, 'lines', line_items) FROM invoices
        UNION ALL SELECT 'subscription', jsonb_build_object('id', stripe_subscription_id,
            'status', status, 'mrr', mrr_microcents, 'provisional', mrr_provisional,
            'plan', plan_name, 'ended_at', ended_at, 'user', user_id) FROM subscriptions
        UNION ALL SELECT 'user', jsonb_build_object('id', id, 'plan', plan,
            'customer', stripe_customer_id) FROM users
    ) AS figures ORDER BY 1";

/// `{kind, instant, delta}` of each movement.
pub(crate) const MOVEMENTS: &str = "
    SELECT concat_ws(' ', stripe_subscription_id, kind, date_trunc('second', occurred_at),
                     delta_microcents)
    FROM mrr_movements ORDER BY occurred_at, stripe_customer_id, currency";

/// A fake Stripe that serves the account in the shape.
pub(crate) async fn serve(account: Account, shape: Shape) -> FakeStripe {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = Options::new(account, || Timestamp::UNIX_EPOCH);
    options.shape = shape;
    FakeStripe::start(listener, options).unwrap()
}

/// The sample of this schedule with another time and detail; without a detail where it is null.
pub(crate) fn event(detail_type: &str, detail: Value, now: Timestamp) -> Value {
    let name = match detail_type {
        "reconciliation.missed-webhooks" => "schedule_reconciliation_missed_webhooks",
        "reconciliation.backfill" => "schedule_reconciliation_backfill",
        "reconciliation.rebuild" => "schedule_reconciliation_rebuild",
        "reconciliation.daily" => "schedule_reconciliation_daily",
        _ => "schedule_reconciliation_redrive",
    };
    let mut event = sample(name).json();
    assert_eq!(event["detail-type"], detail_type);
    event["time"] = now.to_string().into();
    event["detail"] = detail;
    event
}

pub(crate) async fn run(app: &App, detail_type: &str, detail: Value, now: Timestamp) -> Value {
    run_until(app, detail_type, detail, now, Deadline::default()).await
}

pub(crate) async fn run_until(
    app: &App,
    detail_type: &str,
    detail: Value,
    now: Timestamp,
    deadline: Deadline,
) -> Value {
    let event = event(detail_type, detail, now);
    match handle_until(app, event, now, deadline).await {
        Ok(summary) => summary,
        Err(error) => panic!("{}", cause_chain(&error)),
    }
}

/// A while after everything in the account has happened.
pub(crate) fn later(stripe: &FakeStripe) -> Timestamp {
    stripe.with_account(|account| account.now()) + SignedDuration::from_hours(2)
}

/// What goes wrong with requests whose path begins so, `times` times.
pub(crate) fn faults(path: &str, times: u32) -> Vec<Fault> {
    let path = path.to_owned();
    let status = |status, path: String| Fault::Status {
        status,
        retry_after: None,
        path,
        times,
    };
    vec![
        status(429, path.clone()),
        status(500, path.clone()),
        // An answer that is no answer of Stripe's: a proxy's page.
        status(502, path.clone()),
        Fault::Hang { path, times },
    ]
}
