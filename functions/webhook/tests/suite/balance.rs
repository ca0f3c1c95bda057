//! Stripe's balance and what follows from it, to the cent: small stories in every shape of the API, in random orders,
//! doubled, and cut into sets.

use domain::money::Currency;
use domain::payment::FeeEstimate;
use domain::period::Period;
use fake_stripe::account::NewPrice;
use fake_stripe::billing::NewSubscription;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use fake_stripe::{Account, Shape};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use shared::{figures, ledger};
use store::invoices;
use store::reports::Scope;
use stripe::event::Event;
use testing::{TestDatabase, differing_rows, ledger_rows};
use tokio_postgres::Transaction;

/// Random orders of each story in each shape.
const ORDERS: u64 = 6;

const FEES: FeeEstimate = FeeEstimate {
    bps: 290,
    fixed_cents: 30,
};
/// The type of what is fetched among the events.
const FETCHED: &str = "fetched";

/// Objects as Stripe answers them, among the events.
fn fetched(objects: Value, at: Timestamp) -> Value {
    json!({"type": FETCHED, "objects": objects, "at": at.as_second()})
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Noon of a day in October 2026.
fn october(day: i8) -> Timestamp {
    at(&format!("2026-10-{day:02}T12:00:00Z"))
}

/// An account with a customer, on the first of October.
fn account(name: &str) -> (Account, String) {
    let mut account = Account::new(name, october(1));
    let customer = account.create_customer(None, None, Metadata::new());
    (account, customer)
}

/// An event about an object, a second after noon of a day in October.
fn event(event_type: &str, day: i8, object: Value) -> Value {
    json!({"id": format!("evt_{event_type}_{day}"), "object": "event", "type": event_type, "livemode": false,
        "created": october(day).as_second() + 1, "data": {"object": object}})
}

/// Applies what is told, cut into sets at random.
async fn apply(db: &Transaction<'_>, told: &[&Value], random: &mut StdRng) {
    let now = at("2026-12-01T00:00:00Z");
    let mut rest = told;
    while let Some(first) = rest.first() {
        if first["type"] == FETCHED {
            let objects = first["objects"].as_array().unwrap();
            let fetched_at = Timestamp::from_second(first["at"].as_i64().unwrap()).unwrap();
            let applied = ledger::apply_fetched(db, objects, fetched_at, FEES);
            applied.await.unwrap();
            rest = &rest[1..];
            continue;
        }
        let events = rest.iter().take_while(|one| one["type"] != FETCHED);
        let length = random.random_range(1..=events.count());
        let (set, later) = rest.split_at(length);
        let set = set.iter().map(|value| {
            let event = Event::from_value((*value).clone()).unwrap();
            (event, value.to_string())
        });
        let set: Vec<(Event, String)> = set.collect();
        let deliveries: Vec<_> = set
            .iter()
            .map(|(event, body)| (event, body.as_str()))
            .collect();
        let account = stripe::account::Account::default();
        let applied = ledger::apply_events(db, &account, &deliveries, FEES, now);
        if let Err(error) = applied.await {
            panic!("{}: {set:?}", runtime::telemetry::cause_chain(&error));
        }
        rest = later;
    }
}

/// Tells it in random orders, some of it twice, each time to a new ledger, and checks each of these. All end in the same
/// rows, and each payment's entries add up to its row.
async fn in_any_order(
    database: &TestDatabase,
    name: &str,
    told: &[Value],
    check: impl AsyncFn(&Transaction<'_>, &str),
) {
    let mut client = database.client().await;
    let mut expected: Option<Vec<String>> = None;
    for seed in 0..ORDERS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut order: Vec<&Value> = told.iter().collect();
        if seed > 0 {
            order.extend(told.iter().filter(|_| random.random_bool(0.3)));
            order.shuffle(&mut random);
        }
        let transaction = client.transaction().await.unwrap();
        apply(&transaction, &order, &mut random).await;
        let types = order.iter().filter_map(|one| one["type"].as_str());
        let name = format!("{name}, after {:?}", types.collect::<Vec<_>>());
        assert_rows_add_up(&transaction, &name).await;
        check(&transaction, &name).await;
        let mut rows = ledger_rows(&transaction).await.unwrap();
        // What a fetch brings is not announced, so that it matters which came first.
        let is_fetched = told.iter().any(|one| one["type"] == FETCHED);
        rows.retain(|row| !is_fetched || !row.starts_with("outbox "));
        if let Some(expected) = &expected {
            let (missing, extra) = differing_rows(expected, &rows);
            assert!(
                missing.is_empty() && extra.is_empty(),
                "{name}\nmissing {missing:#?}\nextra {extra:#?}"
            );
        }
        expected.get_or_insert(rows);
        transaction.rollback().await.unwrap();
    }
}

/// The one text that a statement selects.
async fn told(db: &Transaction<'_>, statement: &str) -> String {
    let row = db.query_one(statement, &[]).await.unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// Payments whose row is not the sum of their entries, and days that are not the sums of their transactions.
pub(crate) const DIFFERING: &str = "
    SELECT string_agg(text, ', ') FROM (
        SELECT payment_key || ' ' || concat_ws(' ', fees, refunds, disputes) AS text
        FROM payment_history CROSS JOIN LATERAL (
            SELECT coalesce(sum(amount_cents) FILTER (WHERE kind = 'gross'), 0) AS gross,
                   coalesce(sum(amount_cents) FILTER (WHERE kind = 'fee'), 0) AS fees,
                   coalesce(sum(amount_cents) FILTER (WHERE kind = 'refund'), 0) AS refunds,
                   coalesce(sum(amount_cents) FILTER (WHERE kind IN ('dispute', 'dispute_reinstated')), 0) AS disputes
            FROM revenue_entries WHERE revenue_entries.payment_key = payment_history.payment_key
        ) AS entries
        WHERE (fees, refunds, disputes, gross - fees - refunds - disputes)
            IS DISTINCT FROM (stripe_fee_cents, refund_amount_cents, disputed_amount_cents, net_amount_cents)
        UNION ALL
        SELECT day || ' ' || reporting_category
        FROM balance_daily FULL JOIN (
            SELECT (created_at AT TIME ZONE 'UTC')::date AS day, balance_type, currency, reporting_category,
                   sum(amount_cents) AS amount, sum(fee_cents) AS fee, sum(net_cents) AS net, count(*) AS transactions
            FROM balance_transactions GROUP BY 1, 2, 3, 4
        ) AS summed USING (day, balance_type, currency, reporting_category)
        WHERE (amount_cents, fee_cents, net_cents, count) IS DISTINCT FROM (amount, fee, net, transactions)
    ) AS differing";

async fn assert_rows_add_up(db: &Transaction<'_>, name: &str) {
    assert_eq!(told(db, DIFFERING).await, "", "{name}");
}

/// The unfinished look-ups of fees, disputes, payouts and tax rates.
const LOOKUPS: &str = "
    SELECT string_agg(concat_ws(' ', kind, stripe_id, reason), ', ' ORDER BY kind, stripe_id, reason)
    FROM stripe_lookups
    WHERE done_at IS NULL AND reason IN ('fee', 'transactions', 'payout_transactions', 'tax_rate')";

#[tokio::test]
async fn a_payout_is_listed_once_and_has_its_transactions() {
    let (mut account, customer) = account("Payouts");
    let intent = account.pay_once(&customer, 10_000, "usd", Outcome::Succeeds);
    account.set_now(october(2));
    account.refund(&intent.unwrap(), 2_000).unwrap();
    account.set_now(october(5));
    let payout = account.pay_out_balance().unwrap();
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        let is_payout = |event: &&Value| event["data"]["object"]["id"] == *payout;
        let last = events.iter().rfind(is_payout).unwrap().clone();
        let name = format!("{shape:?}");
        in_any_order(&database, &name, &events, async |db, name| {
            let row = told(
                db,
                "SELECT concat_ws(' ', status, amount_cents, currency, arrival_on, transactions_listed_at) FROM payouts",
            );
            assert_eq!(row.await, "paid 7680 USD 2026-10-06", "{name}");
            let announced = told(
                db,
                "SELECT string_agg(dedupe_key, ' ') FROM outbox WHERE detail_type LIKE 'payout.%'",
            );
            assert_eq!(announced.await, format!("payout.paid:{payout}"), "{name}");
            let lookups = told(db, LOOKUPS).await;
            let expected = format!("payout_transactions {payout} payout_transactions");
            assert!(lookups.ends_with(&expected), "{lookups}: {name}");
        })
        .await;
        // What the look-up brings: each transaction with the payout it was listed of, and the payout.
        let transaction = |id: &str| {
            let mut transaction = account.show(id, &[], shape).unwrap();
            transaction["payout"] = payout.as_str().into();
            transaction
        };
        let mut listed = last["data"]["object"].clone();
        listed["balance_transactions"] = json!({"data": [], "has_more": false});
        let own = listed["balance_transaction"].as_str().unwrap().to_owned();
        events.push(fetched(
            json!([
                transaction("txn_3Payouts0001"),
                transaction("txn_3Payouts0002"),
                transaction(&own),
                listed,
            ]),
            october(9),
        ));
        in_any_order(&database, &name, &events, async |db, name| {
            assert_eq!(told(db, LOOKUPS).await, "", "{name}");
            let days = told(
                db,
                "SELECT string_agg(concat_ws(' ', to_char(day, 'DD'), reporting_category, amount_cents, fee_cents,
                     net_cents, count), ', ' ORDER BY day) FROM balance_daily",
            );
            let expected = "01 charge 10000 320 9680 1, 02 refund -2000 0 -2000 1, 05 payout -7680 0 -7680 1";
            assert_eq!(days.await, expected, "{name}");
            let belong = told(
                db,
                "SELECT string_agg(concat_ws(' ', source_kind, payment_key = 'pi_3Payouts0001',
                     stripe_payout_id IS NOT NULL), ', ' ORDER BY created_at) FROM balance_transactions",
            );
            assert_eq!(belong.await, "charge t t, refund t t, t", "{name}");
        })
        .await;
    }
}

/// A subscription of 100.00 with 20 % tax, and a credit note of half of it.
fn taxed() -> Account {
    let (mut account, customer) = account("Rates");
    let price = account.create_price(&NewPrice::monthly("usd", 10_000, "professional"));
    let subscription = NewSubscription {
        items: vec![(price.as_str(), 1)],
        tax_bps: 2_000,
        ..NewSubscription::default()
    };
    account.subscribe(&customer, &subscription).unwrap();
    let log = account.log();
    let mut ids = log.iter().rev().map(|event| event.object_id());
    let invoice = ids.find(|id| id.starts_with("in_")).unwrap().to_owned();
    account.set_now(october(20));
    account.credit(&invoice, 6_000).unwrap();
    account
}

#[tokio::test]
async fn a_tax_rate_says_what_a_tax_only_names() {
    let account = taxed();
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let events = account.events(shape);
        let is_rate = |event: &Value| event["type"] == "tax_rate.created";
        let rate = events.iter().find(|event| is_rate(event)).unwrap();
        let id = rate["data"]["object"]["id"].as_str().unwrap();
        let report = async |db: &Transaction<'_>| {
            let scope = Scope {
                currency: Currency::USD,
                range: Period::new(october(1), at("2026-11-01T00:00:00Z")).unwrap(),
                as_of: at("2027-01-01T00:00:00Z"),
            };
            let table = figures::tax::table(db.client(), &scope).await.unwrap();
            let rows = table.rows.iter();
            let rows = rows.map(|row| json!([row.jurisdiction, row.tax_rate, row.tax_cents]));
            rows.collect::<Value>()
        };
        let name = format!("{shape:?}");
        in_any_order(&database, &name, &events, async |db, name| {
            let expected = json!([["United Kingdom", id, 1_000]]);
            assert_eq!(report(db).await, expected, "{name}");
            let lookups = told(db, LOOKUPS).await;
            assert!(!lookups.contains("tax_rate"), "{lookups}: {name}");
            let invoice = told(db, "SELECT stripe_invoice_id FROM invoices").await;
            let shown = invoices::find(db.client(), None, Some(&invoice))
                .await
                .unwrap();
            let taxes = shown.unwrap().details.tax_breakdown.unwrap();
            let rate = &taxes[0]["tax_rate"];
            let said = json!([
                rate["id"],
                rate["percentage"],
                rate["display_name"],
                rate["country"]
            ]);
            assert_eq!(said, json!([id, 20, "VAT", "GB"]), "{name}");
        })
        .await;
        // Nobody has told it yet: it is looked up, and then it is known.
        let mut without: Vec<Value> = events.iter().filter(|one| !is_rate(one)).cloned().collect();
        in_any_order(&database, &name, &without, async |db, name| {
            let expected = json!([["unknown", id, 1_000]]);
            assert_eq!(report(db).await, expected, "{name}");
            let lookups = told(db, LOOKUPS).await;
            let expected = format!("tax_rate {id} tax_rate");
            assert!(lookups.ends_with(&expected), "{lookups}: {name}");
        })
        .await;
        without.push(fetched(json!([rate["data"]["object"]]), october(25)));
        in_any_order(&database, &name, &without, async |db, name| {
            let expected = json!([["United Kingdom", id, 1_000]]);
            assert_eq!(report(db).await, expected, "{name}");
            let lookups = told(db, LOOKUPS).await;
            assert!(!lookups.contains("tax_rate"), "{lookups}: {name}");
        })
        .await;
    }
}

/// The only payment's status, fee, refunded, disputed and net amount, and the figures of all days: gross, fees, refunds,
/// disputes.
async fn figures(db: &Transaction<'_>) -> (String, String) {
    let row = told(
        db,
        "SELECT concat_ws(' ', status, stripe_fee_cents, fee_source, disputed_amount_cents, net_amount_cents)
         FROM payment_history",
    );
    let days = told(
        db,
        "SELECT string_agg(concat_ws(' ', to_char(day, 'MM-DD'), gross_cents, fees_cents, refunds_cents, disputes_cents),
             ', ' ORDER BY day) FROM revenue_daily",
    );
    (row.await, days.await)
}

/// The charge of the only payment with its balance transaction, as it is fetched.
fn settled_charge(account: &Account, intent: &str, shape: Shape) -> Value {
    let charge = account.charge_of(intent).unwrap();
    let events = account.events(shape);
    let is_paid = |event: &&Value| {
        let object = &event["data"]["object"];
        object["id"] == *charge && !object["balance_transaction"].is_null()
    };
    let mut object = events.iter().rfind(is_paid).unwrap()["data"]["object"].clone();
    let transaction = account.balance_transaction_of(intent).unwrap();
    object["balance_transaction"] = account.show(&transaction, &[], shape).unwrap();
    object
}

#[tokio::test]
async fn a_dispute_is_what_its_transactions_moved() {
    let (mut account, customer) = account("Disputed");
    let intent = account.pay_once(&customer, 10_000, "usd", Outcome::Succeeds);
    let intent = intent.unwrap();
    account.set_now(october(3));
    let dispute = account.dispute(&intent).unwrap();
    account.set_now(october(10));
    account.close_dispute(&dispute, false).unwrap();
    account.set_now(october(20));
    account.move_dispute(&dispute, 4_000, 0).unwrap();
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        let charge = settled_charge(&account, &intent, shape);
        events.push(fetched(json!([charge]), october(25)));
        in_any_order(
            &database,
            &format!("{shape:?}"),
            &events,
            async |db, name| {
                let (row, days) = figures(db).await;
                assert_eq!(row, "disputed 320 actual 6000 3680", "{name}");
                let expected = "10-01 10000 320 0 0, 10-03 0 1500 0 10000, 10-20 0 0 0 -4000";
                assert_eq!(days, expected, "{name}");
                assert_eq!(told(db, LOOKUPS).await, "", "{name}");
            },
        )
        .await;
        // Whether and when it was announced moves nothing.
        let is_closed = |event: &Value| event["type"] == "charge.dispute.closed";
        events.retain(|event| !is_closed(event));
        for event in &mut events {
            if event["type"] == "charge.dispute.funds_withdrawn" {
                event["type"] = "charge.dispute.updated".into();
            }
        }
        in_any_order(
            &database,
            &format!("{shape:?}"),
            &events,
            async |db, name| {
                assert_eq!(
                    figures(db).await.0,
                    "disputed 320 actual 6000 3680",
                    "{name}"
                );
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_dispute_in_another_currency_waits_for_what_the_charge_settled_at() {
    let (mut account, customer) = account("Euros");
    let intent = account.pay_once(&customer, 10_000, "eur", Outcome::Succeeds);
    let intent = intent.unwrap();
    account.set_now(october(3));
    let dispute = account.dispute_at(&intent, 10_900).unwrap();
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        let name = format!("{shape:?}");
        in_any_order(&database, &name, &events, async |db, name| {
            let (row, days) = figures(db).await;
            assert_eq!(row, "disputed 320 estimated 0 9680", "{name}");
            assert_eq!(days, "10-01 10000 320 0 0", "{name}");
            let lookups = told(db, LOOKUPS).await;
            let transaction = account.balance_transaction_of(&intent).unwrap();
            let expected =
                format!("balance_transaction {transaction} fee, dispute {dispute} transactions");
            assert_eq!(lookups, expected, "{name}");
        })
        .await;
        // What the look-up of the dispute brings: the dispute, with its charge, with that one's transaction.
        let is_dispute = |event: &&Value| event["data"]["object"]["id"] == *dispute;
        let last = events.iter().rfind(is_dispute).unwrap();
        let mut shown = last["data"]["object"].clone();
        shown["charge"] = settled_charge(&account, &intent, shape);
        events.push(fetched(json!([shown]), october(25)));
        in_any_order(&database, &name, &events, async |db, name| {
            let (row, days) = figures(db).await;
            // (10 800 × 2.9 % + 30) and 1500 × 10 000 / 10 800.
            assert_eq!(row, "disputed 318 actual 10093 -411", "{name}");
            assert_eq!(days, "10-01 10000 318 0 0, 10-03 0 1389 0 10093", "{name}");
            assert_eq!(told(db, LOOKUPS).await, "", "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_dispute_in_a_third_currency_is_not_guessed() {
    let (mut account, customer) = account("Third");
    let intent = account.pay_once(&customer, 10_000, "eur", Outcome::Succeeds);
    let intent = intent.unwrap();
    account.set_now(october(3));
    let dispute = account.dispute(&intent).unwrap();
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        for event in &mut events {
            if event["data"]["object"]["id"] == *dispute
                && let Some(moved) = event["data"]["object"]["balance_transactions"].as_array_mut()
            {
                moved
                    .iter_mut()
                    .for_each(|one| one["currency"] = "chf".into());
            }
        }
        let charge = settled_charge(&account, &intent, shape);
        events.push(fetched(json!([charge]), october(25)));
        in_any_order(
            &database,
            &format!("{shape:?}"),
            &events,
            async |db, name| {
                assert_eq!(figures(db).await.0, "disputed 318 actual 0 9682", "{name}");
                let expected = format!("dispute {dispute} transactions");
                assert_eq!(told(db, LOOKUPS).await, expected, "{name}");
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_dispute_that_does_not_show_its_list_is_looked_up() {
    let (mut account, customer) = account("Hidden");
    let intent = account.pay_once(&customer, 10_000, "usd", Outcome::Succeeds);
    let intent = intent.unwrap();
    account.set_now(october(3));
    let dispute = account.dispute(&intent).unwrap();
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let whole = account.events(shape);
        let mut events = whole.clone();
        let is_dispute = |event: &Value| event["data"]["object"]["id"] == *dispute;
        for event in events.iter_mut().filter(|event| is_dispute(event)) {
            let object = event["data"]["object"].as_object_mut().unwrap();
            object.remove("balance_transactions");
        }
        let charge = settled_charge(&account, &intent, shape);
        events.push(fetched(json!([charge]), october(25)));
        let name = format!("{shape:?}");
        in_any_order(&database, &name, &events, async |db, name| {
            assert_eq!(figures(db).await.0, "disputed 320 actual 0 9680", "{name}");
            let expected = format!("dispute {dispute} transactions");
            assert_eq!(told(db, LOOKUPS).await, expected, "{name}");
        })
        .await;
        let last = whole.iter().rfind(|event| is_dispute(event)).unwrap();
        events.push(fetched(json!([last["data"]["object"]]), october(26)));
        in_any_order(&database, &name, &events, async |db, name| {
            assert_eq!(
                figures(db).await.0,
                "disputed 320 actual 10000 -320",
                "{name}"
            );
            assert_eq!(told(db, LOOKUPS).await, "", "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_debit_that_fails_costs_its_fees_and_brings_nothing() {
    let (mut account, customer) = account("Debit");
    let intent = account.debit(&customer, 50_000, "usd").unwrap();
    account.set_now(october(6));
    account.fail_debit(&intent, 400).unwrap();
    let charge = account.charge_of(&intent).unwrap();
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        let name = format!("{shape:?}");
        let is_failed = |event: &&Value| event["type"] == "charge.failed";
        let failed = events.iter().find(is_failed).unwrap()["data"]["object"].clone();
        let (own, failure) = ("txn_3Debit0001", "txn_3Debit0002");
        in_any_order(&database, &name, &events, async |db, name| {
            assert_eq!(figures(db).await.0, "failed 0 0 0", "{name}");
            let expected =
                format!("balance_transaction {own} fee, balance_transaction {failure} fee");
            assert_eq!(told(db, LOOKUPS).await, expected, "{name}");
        })
        .await;
        // By two look-ups, or by the charge with both.
        let shown = |id: &str| account.show(id, &[], shape).unwrap();
        let mut whole = failed.clone();
        whole["balance_transaction"] = shown(own);
        whole["failure_balance_transaction"] = shown(failure);
        for answers in [
            vec![json!([shown(own)]), json!([shown(failure)])],
            vec![json!([whole])],
        ] {
            let mut story = events.clone();
            story.extend(
                answers
                    .into_iter()
                    .map(|answer| fetched(answer, october(25))),
            );
            in_any_order(&database, &name, &story, async |db, name| {
                let (row, days) = figures(db).await;
                assert_eq!(row, "failed 400 actual 0 -400", "{name}");
                assert_eq!(days, "10-01 0 0 0 0, 10-06 0 400 0 0", "{name}");
                assert_eq!(told(db, LOOKUPS).await, "", "{name}");
                let belong = told(
                    db,
                    "SELECT string_agg(concat_ws(' ', source_kind, payment_key), ', ' ORDER BY created_at)
                     FROM balance_transactions",
                );
                let expected = format!("charge {intent}, charge_failure {intent}");
                assert_eq!(belong.await, expected, "{name}");
            })
            .await;
        }
        // It is found by its source when no event has named it.
        for event in &mut events {
            if event["data"]["object"]["id"] == *charge {
                let object = event["data"]["object"].as_object_mut().unwrap();
                object.remove("failure_balance_transaction");
            }
        }
        events.push(fetched(json!([shown(failure)]), october(25)));
        in_any_order(&database, &name, &events, async |db, name| {
            assert_eq!(figures(db).await.0, "failed 400 actual 0 -400", "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_paid_charge_that_names_no_transaction_is_looked_up() {
    let (mut account, customer) = account("Unnamed");
    let intent = account.pay_once(&customer, 10_000, "usd", Outcome::Succeeds);
    let intent = intent.unwrap();
    let charge = account.charge_of(&intent).unwrap();
    let database = TestDatabase::create().await;
    for shape in [Shape::Basil, Shape::Endive] {
        let mut events = account.events(shape);
        events.retain(|event| event["type"] != "charge.updated");
        let name = format!("{shape:?}");
        in_any_order(&database, &name, &events, async |db, name| {
            assert_eq!(
                figures(db).await.0,
                "succeeded 320 estimated 0 9680",
                "{name}"
            );
            assert_eq!(
                told(db, LOOKUPS).await,
                format!("charge {charge} fee"),
                "{name}"
            );
        })
        .await;
        // By the charge, or by the transaction that the daily list brings.
        let transaction = account.balance_transaction_of(&intent).unwrap();
        for answer in [
            settled_charge(&account, &intent, shape),
            account.show(&transaction, &[], shape).unwrap(),
        ] {
            let mut story = events.clone();
            story.push(fetched(json!([answer]), october(25)));
            in_any_order(&database, &name, &story, async |db, name| {
                assert_eq!(figures(db).await.0, "succeeded 320 actual 0 9680", "{name}");
                assert_eq!(told(db, LOOKUPS).await, "", "{name}");
            })
            .await;
        }
    }
}

#[tokio::test]
async fn the_fees_of_refunds_count_on_their_own_dates() {
    let (mut account, customer) = account("Refunded");
    let intent = account.pay_once(&customer, 10_000, "usd", Outcome::Succeeds);
    let intent = intent.unwrap();
    account.set_now(october(5));
    account.refund(&intent, 2_000).unwrap();
    let events_of = |shape: Shape| {
        let mut events = account.events(shape);
        let charge = settled_charge(&account, &intent, shape);
        events.push(fetched(json!([charge]), october(25)));
        let mut of_refund = account.show("txn_3Refunded0002", &[], shape).unwrap();
        of_refund["fee"] = 25.into();
        of_refund["net"] = (-2_025).into();
        events.push(fetched(json!([of_refund]), october(26)));
        events
    };
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let events = events_of(shape);
        in_any_order(
            &database,
            &format!("{shape:?}"),
            &events,
            async |db, name| {
                let (row, days) = figures(db).await;
                assert_eq!(row, "partially_refunded 345 actual 0 7655", "{name}");
                assert_eq!(days, "10-01 10000 320 0 0, 10-05 0 25 2000 0", "{name}");
                assert_eq!(told(db, LOOKUPS).await, "", "{name}");
            },
        )
        .await;
    }
}

/// The payments by key: status, amount, refunded and net; the sums of gross and refunds of all days; the rows of refunds.
async fn paid_back(db: &Transaction<'_>) -> [String; 3] {
    let payments = told(
        db,
        "SELECT string_agg(concat_ws(' ', payment_key, status, amount_cents, refund_amount_cents, net_amount_cents),
             ', ' ORDER BY payment_key) FROM payment_history WHERE succeeded_at IS NOT NULL",
    );
    let days = told(
        db,
        "SELECT string_agg(concat_ws(' ', to_char(day, 'MM-DD'), gross_cents, refunds_cents), ', ' ORDER BY day)
         FROM revenue_daily",
    );
    let rows = told(
        db,
        "SELECT string_agg(concat_ws(' ', stripe_refund_id, source, stripe_invoice_id, status, amount_cents), ', ')
         FROM refunds",
    );
    [payments.await, days.await, rows.await]
}

#[tokio::test]
async fn what_a_credit_note_pays_back_outside_is_a_refund() {
    let (mut account, customer) = account("Wire");
    let invoice = account.create_invoice(&customer, "usd", &[("Search", 90_000)]);
    let invoice = invoice.unwrap();
    account.send_invoice(&invoice).unwrap();
    account.set_now(october(5));
    account.pay_out_of_band(&invoice).unwrap();
    account.set_now(october(20));
    let note = account.pay_back_outside(&invoice, 25_000).unwrap();
    let database = TestDatabase::create().await;
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        let name = format!("{shape:?}");
        if shape >= Shape::Basil {
            // No event tells that it was paid outside; the fetched invoice lists no payment.
            let mut shown = account.show(&invoice, &[], shape).unwrap();
            shown["payments"] = json!({"data": [], "has_more": false});
            events.push(fetched(json!([shown]), october(25)));
        }
        in_any_order(&database, &name, &events, async |db, name| {
            let expected = [
                format!("{invoice} partially_refunded 90000 25000 65000"),
                "10-05 90000 0, 10-20 0 25000".to_owned(),
                format!("{note} credit_note {invoice} succeeded 25000"),
            ];
            assert_eq!(paid_back(db).await, expected, "{name}");
        })
        .await;
        // A note that is void pays nothing back.
        let is_note = |event: &&Value| event["type"] == "credit_note.created";
        let mut voided = events.iter().find(is_note).unwrap()["data"]["object"].clone();
        voided["status"] = "void".into();
        voided["voided_at"] = october(22).as_second().into();
        let mut story = events.clone();
        story.push(event("credit_note.voided", 22, voided));
        in_any_order(&database, &name, &story, async |db, name| {
            let expected = [
                format!("{invoice} succeeded 90000 0 90000"),
                "10-05 90000 0".to_owned(),
                format!("{note} credit_note {invoice} canceled 25000"),
            ];
            assert_eq!(paid_back(db).await, expected, "{name}");
        })
        .await;
        // While nobody has told of the invoice, it is a refund of no payment.
        events.retain(|one| one["type"].as_str().unwrap().starts_with("credit_note."));
        in_any_order(&database, &name, &events, async |db, name| {
            let expected = [
                String::new(),
                "10-20 0 25000".to_owned(),
                format!("{note} credit_note {invoice} succeeded 25000"),
            ];
            assert_eq!(paid_back(db).await, expected, "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_credit_note_keeps_which_refunds_it_covers() {
    let note = |more: Value| {
        let mut note = json!({"id": "cn_1", "object": "credit_note", "invoice": "in_1", "customer": "cus_1",
            "currency": "usd", "amount": 6_000, "total": 6_000, "status": "issued", "type": "post_payment",
            "created": october(2).as_second()});
        let members = more.as_object().unwrap().clone();
        note.as_object_mut().unwrap().extend(members);
        event("credit_note.created", 2, note)
    };
    let record = |amount: i64| {
        json!({"type": "payment_record_refund", "amount_refunded": amount, "refund": null,
            "payment_record_refund": {"payment_record": "pr_1", "refund_group": "g_1"}})
    };
    let database = TestDatabase::create().await;
    for (more, covered, outside) in [
        (json!({"out_of_band_amount": null, "refunds": []}), "", ""),
        (json!({"refund": "re_1"}), "refund re_1", ""),
        (
            json!({"refunds": [{"type": "refund", "amount_refunded": 1_000, "refund": "re_1"}, record(2_000)],
                "out_of_band_amount": 500}),
            "refund 1000 re_1, payment_record_refund 2000 pr_1",
            "2500",
        ),
    ] {
        let events = [note(more.clone())];
        in_any_order(&database, &more.to_string(), &events, async |db, name| {
            let list = told(
                db,
                "SELECT string_agg(concat_ws(' ', one ->> 'type', one ->> 'amount_cents', one ->> 'stripe_refund_id',
                     one ->> 'stripe_payment_record_id'), ', ') FROM credit_notes, jsonb_array_elements(refunds) AS one",
            );
            assert_eq!(list.await, covered, "{name}");
            let refunds = told(db, "SELECT string_agg(amount_cents::text, ' ') FROM refunds");
            assert_eq!(refunds.await, outside, "{name}");
        })
        .await;
    }
}
