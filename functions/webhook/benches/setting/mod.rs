//! What the benches feed the webhook with: signed renewals.

use fake_stripe::account::{LoggedEvent, NewPrice};
use fake_stripe::billing::{Buyer, NewSubscription};
use fake_stripe::payments::Outcome;
use fake_stripe::{Account, Shape};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use stripe::signature;
use testing::{TestDatabase, sample};

pub(crate) const SECRET: &str = "whsec_bench";

/// One event as Stripe sends it, indented.
pub(crate) struct Delivery {
    pub(crate) event_type: String,
    pub(crate) body: String,
}

impl Delivery {
    pub(crate) fn of(event: &Value) -> Delivery {
        Delivery {
            event_type: event["type"].as_str().unwrap_or_default().to_owned(),
            body: format!("{event:#}"),
        }
    }

    /// The invocation API Gateway makes of it, signed at `now`.
    pub(crate) fn invocation(&self, now: Timestamp) -> String {
        let mut envelope = sample("apigw_webhook_payments_webhook").json();
        let secret = SecretString::from(SECRET);
        let header = signature::sign(self.body.as_bytes(), &secret, now);
        envelope["headers"]["stripe-signature"] = json!(header);
        envelope["headers"]["content-length"] = json!(self.body.len().to_string());
        envelope["body"] = json!(self.body);
        envelope.to_string()
    }
}

/// What makes `subscribers`, and the first renewal of each: every id occurs in one story only.
pub(crate) fn story(shape: Shape, subscribers: i32) -> (Vec<Delivery>, Vec<Delivery>) {
    let start: Timestamp = "2026-04-01T00:00:00Z".parse().expect("an instant");
    let mut account = Account::new("Bench", start);
    let price = account.create_price(&NewPrice::monthly("usd", 2_999, "professional"));
    let mut subscriptions = Vec::new();
    for user_id in 1..=subscribers {
        let buyer = Buyer {
            user_id,
            email: "buyer@example.com",
            name: "Sample Buyer",
            plan: "professional",
        };
        let new = NewSubscription {
            items: vec![(&price, 1)],
            ..NewSubscription::default()
        };
        let (_, subscription) = account.checkout(buyer, &new).expect("a subscription");
        subscriptions.push(subscription);
    }
    let subscribed = account.events_since(0).len();
    for subscription in &subscriptions {
        account
            .renew(subscription, Outcome::Succeeds)
            .expect("a renewal");
    }
    let (before, after) = account.events_since(0).split_at(subscribed);
    let render = |events: &[LoggedEvent]| {
        let rendered = events.iter().filter_map(|event| event.render(shape));
        rendered.map(|event| Delivery::of(&event)).collect()
    };
    (render(before), render(after))
}

/// A migrated database with the users the story is about.
pub(crate) async fn database(subscribers: i32) -> TestDatabase {
    let database = TestDatabase::create().await;
    let insert = "INSERT INTO users (id, email, full_name)
                  SELECT n, n || '@example.com', 'Buyer' FROM generate_series(1, $1) AS n";
    let client = database.client().await;
    client
        .execute(insert, &[&subscribers])
        .await
        .expect("users");
    database
}
