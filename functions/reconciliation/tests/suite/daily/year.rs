//! A year of business of which every tenth webhook is lost: with a run a day the ledger is the undisturbed one.

use fake_stripe::Shape;
use fake_stripe::account::{Account, NewPrice};
use fake_stripe::billing::{Buyer, NewSubscription, Proration};
use fake_stripe::payments::Outcome;
use jiff::{SignedDuration, Timestamp, ToSpan, tz::TimeZone};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reconciliation::handle;
use runtime::config::Environment;
use serde_json::{Value, json};
use testing::{differing_rows, ledger_rows};
use tokio_postgres::Client;

use super::site::{Site, at, ingest};

const DAYS: i64 = 365;
const LOST: f64 = 0.1;

/// A subscription, and when its period ends.
struct Live {
    customer: String,
    subscription: String,
    anchor: Timestamp,
    cycles: i64,
    period_end: Timestamp,
    unpaid: Option<String>,
}

/// The business: what happens on one day, decided by the seed.
struct Business {
    random: StdRng,
    price: String,
    larger: String,
    live: Vec<Live>,
    paid: Vec<String>,
    disputes: Vec<String>,
    users: i32,
}

impl Business {
    fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    /// The clock goes on by some minutes before each thing that happens.
    fn later(&mut self, account: &mut Account) {
        account.advance(self.random.random_range(60..3_600));
    }

    fn day(&mut self, account: &mut Account, start: Timestamp) {
        account.set_now(start + SignedDuration::from_hours(8));
        if self.live.len() < 5 && self.chance(0.08) {
            self.later(account);
            self.users += 1;
            let wanted = NewSubscription {
                items: vec![(&self.price, 1)],
                ..NewSubscription::default()
            };
            let buyer = Buyer {
                user_id: self.users,
                email: "buyer@example.com",
                name: "Buyer",
                plan: "professional",
            };
            let begins = account.now();
            let (customer, subscription) = account.checkout(buyer, &wanted).unwrap();
            self.live.push(Live {
                customer,
                subscription,
                anchor: begins,
                cycles: 1,
                period_end: months_later(begins, 1),
                unpaid: None,
            });
        }
        for number in 0..self.live.len() {
            if self.live[number].period_end < start {
                self.later(account);
                let outcome = if self.chance(0.15) {
                    Outcome::Fails
                } else {
                    Outcome::Succeeds
                };
                let one = &mut self.live[number];
                let invoice = account.renew(&one.subscription, outcome).unwrap();
                one.cycles += 1;
                one.period_end = months_later(one.anchor, one.cycles);
                one.unpaid = (outcome == Outcome::Fails).then_some(invoice);
            } else if let Some(invoice) = self.live[number].unpaid.take() {
                self.later(account);
                account.retry(&invoice, Outcome::Succeeds).unwrap();
            }
        }
        if !self.live.is_empty() && self.chance(0.1) {
            self.something_rare(account);
        }
    }

    fn something_rare(&mut self, account: &mut Account) {
        self.later(account);
        let number = self.random.random_range(0..self.live.len());
        let customer = self.live[number].customer.clone();
        match self.random.random_range(0..8) {
            0 if self.live[number].unpaid.is_none() => {
                let gone = self.live.remove(number);
                account.cancel_now(&gone.subscription).unwrap();
            }
            1 => {
                let subscription = self.live[number].subscription.clone();
                account
                    .change(
                        &subscription,
                        Some(&self.larger),
                        Some(2),
                        Proration::NextInvoice,
                    )
                    .unwrap();
            }
            2 => {
                let lines = [("Service", 4_200)];
                let invoice = account.create_invoice(&customer, "usd", &lines).unwrap();
                account.pay_out_of_band(&invoice).unwrap();
            }
            3 => {
                let lines = [("Service", 4_300)];
                let invoice = account.create_invoice(&customer, "usd", &lines).unwrap();
                account.send_invoice(&invoice).unwrap();
                account.void_invoice(&invoice).unwrap();
            }
            4 | 5 => {
                let intent = account.pay_once(&customer, 1_500, "usd", Outcome::Succeeds);
                self.paid.push(intent.unwrap());
            }
            6 => match self.paid.pop() {
                Some(intent) => drop(account.refund(&intent, 500).unwrap()),
                None => {
                    let failed = account.pay_once(&customer, 700, "usd", Outcome::Fails);
                    account.cancel_intent(&failed.unwrap()).unwrap();
                }
            },
            _ => match (self.disputes.pop(), self.paid.pop()) {
                (Some(dispute), _) => {
                    let won = self.chance(0.5);
                    account.close_dispute(&dispute, won).unwrap();
                }
                (None, Some(intent)) => self.disputes.push(account.dispute(&intent).unwrap()),
                (None, None) => {
                    account
                        .update_customer(&customer, Some("new@example.com"), &[].into())
                        .unwrap();
                }
            },
        }
    }
}

/// As Stripe counts: from the anchor, so that what began on the 31st is renewed on it where there is one.
fn months_later(anchor: Timestamp, months: i64) -> Timestamp {
    let zoned = anchor.to_zoned(TimeZone::UTC);
    zoned.checked_add(months.months()).unwrap().timestamp()
}

/// The ledger without what the runs themselves announce, and without when a balance transaction was fetched: Stripe never
/// changes one.
pub(crate) async fn ledger(client: &Client) -> Vec<String> {
    let mut rows = ledger_rows(client).await.unwrap();
    rows.retain(|row| !row.starts_with(r#"outbox {"key": "reconciliation."#));
    for row in &mut rows {
        if let Some(("balance_transactions", columns)) = row.split_once(' ') {
            let mut columns: Value = serde_json::from_str(columns).unwrap();
            for column in ["source_created_at", "source_event_id"] {
                columns.as_object_mut().unwrap().remove(column);
            }
            *row = format!("balance_transactions {columns}");
        }
    }
    rows.sort();
    rows
}

pub(crate) fn assert_same(name: &str, expected: &[String], actual: &[String]) {
    let (missing, extra) = differing_rows(expected, actual);
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{name}\nmissing {missing:#?}\nextra {extra:#?}"
    );
    assert_eq!(actual.len(), expected.len(), "{name}");
}

fn seed() -> u64 {
    let given = Environment::from_process().optional("RECONCILIATION_SEED");
    given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random)
}

#[tokio::test]
async fn a_year_of_which_a_tenth_is_lost_ends_as_if_nothing_had_been() {
    let seed = seed();
    let name = format!("RECONCILIATION_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let first = at("2025-01-01T00:00:00Z");
    let mut account = Account::new("Year", first);
    let price = account.create_price(&NewPrice::monthly("usd", 2_999, "professional"));
    let larger = account.create_price(&NewPrice::monthly("usd", 9_999, "enterprise"));
    let mut business = Business {
        random: StdRng::seed_from_u64(random.random()),
        price,
        larger,
        live: Vec::new(),
        paid: Vec::new(),
        disputes: Vec::new(),
        users: 0,
    };
    let mut site = Site::new(account).await;
    let undisturbed = Site::new(Account::new("Other", first)).await;
    let users = "INSERT INTO users (id, email, full_name)
                 SELECT id, 'buyer@example.com', 'Buyer' FROM generate_series(1, 60) AS id";
    site.execute(users).await;
    undisturbed.execute(users).await;
    let mut db = site.client().await;
    let mut undisturbed_db = undisturbed.client().await;
    let (mut lost, mut all, mut healed) = (0, 0, 0);
    for day in 0..DAYS {
        let start = first + SignedDuration::from_hours(24 * day);
        site.stripe
            .with_account(|account| business.day(account, start));
        for event in site.announced(Shape::Endive) {
            let received_at = start + SignedDuration::from_hours(23);
            ingest(&mut undisturbed_db, event.clone(), received_at).await;
            all += 1;
            if random.random_bool(LOST) {
                lost += 1;
            } else {
                ingest(&mut db, event, received_at).await;
            }
        }
        let now = start + SignedDuration::from_hours(30);
        site.stripe.with_account(|account| account.set_now(now));
        let event = json!({"detail-type": "reconciliation.daily", "time": now});
        let summary = handle(&site.app, event, now).await.unwrap();
        assert_eq!(summary["open"], 0, "{name}, {start}: {summary:#}");
        healed += summary["healed"].as_i64().unwrap();
    }
    assert!(
        lost > 30 && healed > 10,
        "{name}: lost {lost} of {all}, healed {healed}"
    );

    // The undisturbed ledger knows no actual fee yet; nothing else differs from Stripe.
    let now = first + SignedDuration::from_hours(24 * DAYS + 6);
    let app = undisturbed.app_with(&[("STRIPE_API_BASE", &site.stripe.base_url())]);
    let event =
        json!({"detail-type": "reconciliation.daily", "time": now, "detail": {"since": first}});
    let summary = handle(&app, event, now).await.unwrap();
    assert_eq!(summary["open"], 0, "{name}: {summary:#}");
    // Nor what came outside Stripe: only the lists of an invoice's payments say so.
    for item in undisturbed.items().await {
        let is_outside = item.starts_with("amount_differs invoice ") && item.ends_with(" healed");
        assert!(is_outside, "{name}: {item}");
    }

    let expected = whenever_fetched(ledger(&undisturbed_db).await);
    let actual = whenever_fetched(ledger(&db).await);
    assert_same(&name, &expected, &actual);
}

/// The rows without the times of the fetches that some of them show.
fn whenever_fetched(rows: Vec<String>) -> Vec<String> {
    let without = rows.into_iter().map(|line| {
        let (table, row) = line.split_once(' ').unwrap();
        let mut row: Value = serde_json::from_str(row).unwrap();
        let event_id = row["source_event_id"].as_str().unwrap_or_default();
        if event_id.starts_with("fetch:") {
            let row = row.as_object_mut().unwrap();
            for column in [
                "source_event_id",
                "source_created_at",
                "outside_stripe_stated_at",
            ] {
                row.remove(column);
            }
        }
        format!("{table} {row}")
    });
    without.collect()
}
