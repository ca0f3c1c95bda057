//! A Stripe account, a ledger, and the function between them.

use std::time::Duration;

use aws_types::SdkConfig;
use domain::payment::FeeEstimate;
use fake_stripe::account::{Account, NewPrice};
use fake_stripe::billing::{Buyer, NewSubscription};
use fake_stripe::{FakeStripe, Fault, Options, Shape};
use jiff::Timestamp;
use reconciliation::{App, Deadline, Error, handle, handle_until};
use runtime::config::Environment;
use serde_json::{Value, json};
use shared::ledger;
use store::reconciliation_runs;
use stripe::client::{Client as Stripe, Patience};
use stripe::event::Event;
use testing::roles::as_function;
use testing::{Surroundings, logs, sample};
use tokio::net::TcpListener;
use tokio_postgres::Client;

pub(crate) const FEES: FeeEstimate = FeeEstimate {
    bps: 290,
    fixed_cents: 30,
};

/// The morning after a month's end, when the schedule fires: its window lies in two months.
pub(crate) fn morning() -> Timestamp {
    at("2026-03-02T06:00:00Z")
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) struct Site {
    surroundings: Surroundings,
    pub(crate) stripe: FakeStripe,
    pub(crate) app: App,
    /// Events that have been delivered or lost.
    seen: usize,
}

impl Site {
    pub(crate) async fn new(account: Account) -> Site {
        Site::in_shape(account, Shape::Endive).await
    }

    pub(crate) async fn in_shape(account: Account, shape: Shape) -> Site {
        logs::capture();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = Options::new(account, morning);
        options.shape = shape;
        let stripe = FakeStripe::start(listener, options).unwrap();
        let surroundings = Surroundings::new([
            ("STRIPE_API_BASE", stripe.base_url()),
            ("STRIPE_API_KEY", "rk_test_Daily".to_owned()),
        ])
        .await;
        let app = app(&surroundings, &[]);
        Site {
            surroundings,
            stripe,
            app,
            seen: 0,
        }
    }

    /// Another sandbox of the function, with other variables.
    pub(crate) fn app_with(&self, pairs: &[(&'static str, &str)]) -> App {
        app(&self.surroundings, pairs)
    }

    pub(crate) fn environment(&self) -> Environment {
        self.surroundings.environment(&[])
    }

    pub(crate) fn sdk(&self) -> &SdkConfig {
        &self.surroundings.aws
    }

    pub(crate) async fn client(&self) -> Client {
        self.surroundings.database.client().await
    }

    /// An object as Stripe answers it.
    pub(crate) async fn fetched(&self, list: &str, id: &str) -> Value {
        let stripe = Stripe::from_env(&self.environment(), self.sdk()).unwrap();
        let answer = stripe.retrieve(&[list, id], &[], morning()).await;
        answer.unwrap()
    }

    /// The user who [`subscribe`]s.
    pub(crate) async fn add_user(&self) {
        let insert =
            "INSERT INTO users (id, email, full_name) VALUES (7, 'buyer@example.com', 'B')";
        self.execute(insert).await;
    }

    pub(crate) async fn execute(&self, statement: &str) -> u64 {
        self.client().await.execute(statement, &[]).await.unwrap()
    }

    pub(crate) async fn count(&self, from: &str) -> i64 {
        let client = self.client().await;
        let statement = format!("SELECT count(*) FROM {from}");
        client.query_one(&statement, &[]).await.unwrap().get(0)
    }

    /// What has happened since the last call, as Stripe announces it.
    pub(crate) fn announced(&mut self, shape: Shape) -> Vec<Value> {
        let from = self.seen;
        let (events, seen) = self.stripe.with_account(|account| {
            let events = account.events_since(from);
            let rendered: Vec<Value> = events.iter().filter_map(|one| one.render(shape)).collect();
            (rendered, from + events.len())
        });
        self.seen = seen;
        events
    }

    /// Delivers what has happened, but for what is lost.
    pub(crate) async fn deliver(&mut self, arrives: impl Fn(&Value) -> bool) {
        let mut client = self.client().await;
        for event in self.announced(Shape::Endive) {
            if arrives(&event) {
                ingest(&mut client, event, morning()).await;
            }
        }
    }

    pub(crate) async fn deliver_all(&mut self) {
        self.deliver(|_| true).await;
    }

    pub(crate) async fn run(&self) -> Result<Value, Error> {
        self.run_with(json!({})).await
    }

    pub(crate) async fn run_with(&self, detail: Value) -> Result<Value, Error> {
        handle(&self.app, event(detail), morning()).await
    }

    pub(crate) async fn run_until(&self, deadline: Deadline) -> Result<Value, Error> {
        handle_until(&self.app, event(json!({})), morning(), deadline).await
    }

    /// Accepts what the newest run left open.
    pub(crate) async fn accept_open(&self) {
        let client = self.client().await;
        let open = client
            .query(
                "SELECT id FROM reconciliation_items
                 WHERE resolution = 'open'
                   AND run_id = (SELECT max(run_id) FROM reconciliation_runs)",
                &[],
            )
            .await
            .unwrap();
        for row in open {
            let id = row.get("id");
            reconciliation_runs::accept_item(&client, id, "a test", "known", morning())
                .await
                .unwrap();
        }
    }

    /// `<kind> <type> <id> <resolution>` of each item of the newest run, sorted.
    pub(crate) async fn items(&self) -> Vec<String> {
        let client = self.client().await;
        let rows = client
            .query(
                "SELECT kind || ' ' || object_type || ' ' || object_id || ' ' || resolution
                 FROM reconciliation_items
                 WHERE run_id = (SELECT max(run_id) FROM reconciliation_runs) ORDER BY 1",
                &[],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn app(surroundings: &Surroundings, others: &[(&'static str, &str)]) -> App {
    let app = App::from_env(
        &as_function("reconciliation", &surroundings.environment(others)),
        &surroundings.aws,
    )
    .unwrap();
    app.with_patience(Patience {
        timeout: Duration::from_secs(30),
        attempts: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_secs(5),
    })
}

/// So many answers of this status under this path.
pub(crate) fn status(status: u16, path: &str, times: u32) -> Fault {
    Fault::Status {
        status,
        retry_after: None,
        path: path.to_owned(),
        times,
    }
}

/// User 7 subscribes for $29.99 a month; the subscription.
pub(crate) fn subscribe(account: &mut Account) -> String {
    let price = account.create_price(&NewPrice::monthly("usd", 2999, "professional"));
    let bought = NewSubscription {
        items: vec![(&price, 1)],
        ..NewSubscription::default()
    };
    let buyer = Buyer {
        user_id: 7,
        email: "buyer@example.com",
        name: "Buyer",
        plan: "professional",
    };
    account.checkout(buyer, &bought).unwrap().1
}

/// What the schedule sends, with a detail.
pub(crate) fn event(detail: Value) -> Value {
    let mut event = sample("schedule_reconciliation_daily").json();
    assert_eq!(event["time"], morning().to_string());
    event["detail"] = detail;
    event
}

pub(crate) async fn ingest(client: &mut Client, event: Value, now: Timestamp) {
    let payload = event.to_string();
    let event = Event::from_value(event).unwrap();
    if let Err(error) = ledger::ingest(
        client,
        &stripe::account::Account::default(),
        &event,
        &payload,
        FEES,
        now,
    )
    .await
    {
        let chain = runtime::telemetry::cause_chain(&error);
        panic!("{} {}: {chain}", event.event_type, event.event_id);
    }
}

/// Asserts on the counts that matter.
pub(crate) fn assert_counts(summary: &Value, healed: i64, open: i64) {
    assert_eq!(
        (summary["healed"].as_i64(), summary["open"].as_i64()),
        (Some(healed), Some(open)),
        "{summary:#}"
    );
}
