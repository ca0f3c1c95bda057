//! What a fact of Stripe's means, to the cent: small stories in every shape of the API, in random orders and doubled.

use domain::money::Currency;
use domain::payment::FeeEstimate;
use domain::period::Period;
use domain::revenue::movement;
use domain::stripe_objects::objects::Ids;
use domain::stripe_objects::subscription::DiscountProfile;
use fake_stripe::account::{NewCoupon, NewPrice};
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
use store::reports::Scope;
use testing::ledger::unmatched_parts;
use tokio_postgres::Client;

use super::bundle::{Webhook, deliver};

/// Random orders of each story in each shape.
const ORDERS: u64 = 2;

const FEES: FeeEstimate = FeeEstimate {
    bps: 290,
    fixed_cents: 30,
};
/// The type of what is fetched among the events.
const FETCHED: &str = "fetched";

/// An object as Stripe answers it, among the events.
fn fetched(object: Value, fetched_at: Timestamp) -> Value {
    json!({"type": FETCHED, "object": object, "at": fetched_at.as_second()})
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Noon of a day in October 2026.
fn october(day: i8) -> Timestamp {
    at(&format!("2026-10-{day:02}T12:00:00Z"))
}

/// Delivers the events in random orders, some of them twice, each time to a new ledger, and checks each of these.
async fn in_any_order(name: &str, events: &[Value], check: impl AsyncFn(&Client, &str)) {
    for seed in 0..ORDERS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut order: Vec<&Value> = events.iter().collect();
        for event in events {
            if random.random_bool(0.3) {
                order.push(event);
            }
        }
        order.shuffle(&mut random);
        let webhook = Webhook::start(1).await;
        for event in &order {
            if event["type"] == FETCHED {
                let mut client = webhook.database.client().await;
                let objects = [event["object"].clone()];
                let fetched_at = Timestamp::from_second(event["at"].as_i64().unwrap()).unwrap();
                let applied = ledger::ingest_fetched(&mut client, &objects, fetched_at, FEES);
                applied.await.unwrap();
                continue;
            }
            let (status, answer) = deliver(&webhook.sandbox(0), event.to_string()).await;
            assert_eq!(status, 200, "{answer}");
            assert_ne!(answer["outcome"], "parked", "{name}: {event}");
        }
        let types: Vec<&str> = order
            .iter()
            .filter_map(|one| one["type"].as_str())
            .collect();
        let client = webhook.database.client().await;
        let name = format!("{name}, after {types:?}");
        let unmatched = unmatched_parts(&client).await.unwrap();
        assert_eq!(unmatched, Vec::<String>::new(), "{name}");
        check(&client, &name).await;
    }
}

/// The story in every shape.
async fn in_every_shape(account: &Account, check: impl AsyncFn(&Client, &str)) {
    for shape in Shape::ALL {
        let events = account.events(shape);
        in_any_order(&format!("{shape:?}"), &events, &check).await;
    }
}

/// An account with a customer, on the first of October.
fn account(name: &str) -> (Account, String) {
    let mut account = Account::new(name, october(1));
    let customer = account.create_customer(None, None, Metadata::new());
    (account, customer)
}

/// Subscribes the customer to a monthly price; answers the subscription.
fn subscribe(account: &mut Account, customer: &str, amount: i64, tax_bps: i64) -> String {
    let price = account.create_price(&NewPrice::monthly("usd", amount, "professional"));
    let subscription = NewSubscription {
        items: vec![(price.as_str(), 1)],
        trial_days: None,
        coupon: None,
        tax_bps,
        metadata: Metadata::new(),
    };
    account.subscribe(customer, &subscription).unwrap()
}

/// An invoice that the customer is sent.
fn sent(account: &mut Account, customer: &str, amount: i64) -> String {
    let invoice = account.create_invoice(customer, "usd", &[("Search", amount)]);
    let invoice = invoice.unwrap();
    account.send_invoice(&invoice).unwrap();
    invoice
}

/// The last invoice that an event is about.
fn last_invoice(account: &Account) -> String {
    let log = account.log();
    let mut invoices = log.iter().rev().map(|event| event.object_id());
    invoices
        .find(|id| id.starts_with("in_"))
        .unwrap()
        .to_owned()
}

/// `totals` of the tax report of a span.
async fn tax(client: &Client, from: Timestamp, to: Timestamp) -> Value {
    let scope = Scope {
        currency: Currency::USD,
        range: Period::new(from, to).unwrap(),
        as_of: at("2027-01-01T00:00:00Z"),
    };
    json!(figures::tax::table(client, &scope).await.unwrap().totals)
}

/// `[bucket, amount]` of every age of which something is due.
async fn aging(client: &Client, as_of: Timestamp) -> Value {
    let table = figures::aging::table(client, Currency::USD, as_of);
    let rows = table.await.unwrap().rows;
    let due = rows.iter().filter(|row| row.invoices > 0);
    due.map(|row| json!([row.bucket, row.amount_due_cents]))
        .collect()
}

#[tokio::test]
async fn the_tax_of_a_credit_note_is_taken_off() {
    let (mut account, customer) = account("Tax");
    subscribe(&mut account, &customer, 10_000, 2_000);
    let invoice = last_invoice(&account);
    account.set_now(october(20));
    account.credit(&invoice, 6_000).unwrap();
    let whole = (october(1), at("2026-11-01T00:00:00Z"));
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        let name = format!("{shape:?}");
        in_any_order(&name, &events, async |client, name| {
            let (from, to) = whole;
            assert_eq!(tax(client, from, to).await["tax_cents"], 1_000, "{name}");
            let (from, to) = (october(1), october(20));
            assert_eq!(tax(client, from, to).await["tax_cents"], 2_000, "{name}");
            let (from, to) = (october(20), october(30));
            assert_eq!(tax(client, from, to).await["tax_cents"], -1_000, "{name}");
            // The oldest shape does not show what is taxed.
            if shape >= Shape::V2022_11_15 {
                let (from, to) = whole;
                assert_eq!(
                    tax(client, from, to).await["taxable_cents"],
                    5_000,
                    "{name}"
                );
            }
        })
        .await;
        // Voided in the same month, nothing is given back.
        let is_note = |event: &&Value| event["type"] == "credit_note.created";
        let mut voided = events.iter().find(is_note).unwrap().clone();
        voided["id"] = "evt_Voided".into();
        voided["type"] = "credit_note.voided".into();
        voided["created"] = october(25).as_second().into();
        voided["data"]["object"]["status"] = "void".into();
        voided["data"]["object"]["voided_at"] = october(25).as_second().into();
        events.push(voided);
        in_any_order(&name, &events, async |client, name| {
            let (from, to) = whole;
            assert_eq!(tax(client, from, to).await["tax_cents"], 2_000, "{name}");
            let (from, to) = (october(21), october(30));
            assert_eq!(tax(client, from, to).await["tax_cents"], 1_000, "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn the_tax_of_a_credit_note_without_a_list_is_what_its_total_has_more() {
    let note = |more: Value| {
        let mut note = json!({"id": "cn_1", "object": "credit_note", "invoice": "in_1", "customer": "cus_1",
            "currency": "usd", "amount": 6_000, "total": 6_000, "status": "issued", "type": "post_payment",
            "created": october(2).as_second()});
        note.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"id": "evt_1", "object": "event", "type": "credit_note.created", "livemode": false,
            "created": october(2).as_second(), "data": {"object": note}})
    };
    for (more, tax_cents) in [
        (json!({"total_excluding_tax": 5_000}), 1_000),
        (
            json!({"total_excluding_tax": 5_000, "total_taxes": []}),
            1_000,
        ),
        (
            json!({"total_excluding_tax": 5_000, "tax_amounts": [{"amount": 900, "inclusive": false, "tax_rate": "txr_1"}]}),
            900,
        ),
        (
            json!({"total_taxes": [{"amount": 800}], "tax_amounts": [{"amount": 900}]}),
            800,
        ),
        (json!({}), 0),
    ] {
        in_any_order(
            &more.to_string(),
            &[note(more.clone())],
            async |client, name| {
                let rows = client.query("SELECT tax_cents FROM credit_notes", &[]);
                assert_eq!(rows.await.unwrap()[0].get::<_, i64>(0), tax_cents, "{name}");
            },
        )
        .await;
    }
}

#[tokio::test]
async fn an_invoice_that_is_charged_automatically_is_due_when_it_is_finalised() {
    let (mut account, customer) = account("Declined");
    let subscription = subscribe(&mut account, &customer, 4_000, 0);
    account.set_now(at("2026-11-01T12:00:00Z"));
    account.renew(&subscription, Outcome::Fails).unwrap();
    in_every_shape(&account, async |client, name| {
        let aged = async |instant: &str| aging(client, at(instant)).await;
        // The day it is due is not past it.
        let same_day = aged("2026-11-01T23:59:59Z").await;
        assert_eq!(same_day, json!([["current", 4_000]]), "{name}");
        let next_day = aged("2026-11-03T00:00:00Z").await;
        assert_eq!(next_day, json!([["1-30", 4_000]]), "{name}");
        let later = aged("2026-12-21T13:00:00Z").await;
        assert_eq!(later, json!([["31-60", 4_000]]), "{name}");
    })
    .await;
}

#[tokio::test]
async fn what_was_due_at_an_instant_is_less_the_notes_and_payments_up_to_then() {
    let (mut account, customer) = account("Aging");
    let invoice = sent(&mut account, &customer, 10_000);
    account.set_now(october(5));
    account.credit(&invoice, 3_000).unwrap();
    account.set_now(october(10));
    account.pay_invoice(&invoice, Outcome::Succeeds).unwrap();
    in_every_shape(&account, async |client, name| {
        let due = async |day| {
            let aged = aging(client, october(day)).await;
            aged[0][1].as_i64().unwrap_or(0)
        };
        for (day, expected) in [(3, 10_000), (7, 7_000), (9, 7_000), (11, 0)] {
            assert_eq!(due(day).await, expected, "on {day} October: {name}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_due_of_what_was_given_up_from_then_on() {
    for is_void in [true, false] {
        let (mut account, customer) = account("GivenUp");
        let invoice = sent(&mut account, &customer, 10_000);
        account.set_now(october(10));
        if is_void {
            account.void_invoice(&invoice).unwrap();
        } else {
            account.mark_uncollectible(&invoice).unwrap();
            // Paid after all: that does not make it due in between.
            account.set_now(october(20));
            account.pay_invoice(&invoice, Outcome::Succeeds).unwrap();
        }
        in_every_shape(&account, async |client, name| {
            for (day, expected) in [
                (9, json!(10_000)),
                (10, json!(null)),
                (15, json!(null)),
                (25, json!(null)),
            ] {
                let due = aging(client, october(day)).await[0][1].clone();
                assert_eq!(due, expected, "on {day} October: {name}");
            }
        })
        .await;
    }
}

/// An event about an object, a second after noon of the first of October.
fn event(event_type: &str, object: Value) -> Value {
    json!({"id": format!("evt_{event_type}"), "object": "event", "type": event_type, "livemode": false,
        "created": october(1).as_second() + 1, "data": {"object": object}})
}

#[tokio::test]
async fn a_total_is_what_its_parts_make() {
    // 120.00 with 20.00 tax inside, less 12.00 discount and 8.00 of a billing credit, plus 5.00 shipping with 1.00 tax.
    let taxes = |newer: bool| {
        let tax = |amount: i64, is_inclusive: bool| {
            if newer {
                json!({"amount": amount, "tax_behavior": if is_inclusive { "inclusive" } else { "exclusive" }})
            } else {
                json!({"amount": amount, "inclusive": is_inclusive, "tax_rate": "txr_1"})
            }
        };
        json!([tax(2_000, true), tax(100, false)])
    };
    for (list, newer) in [("total_taxes", true), ("total_tax_amounts", false)] {
        let mut invoice = json!({"id": "in_1", "object": "invoice", "customer": "cus_1", "currency": "usd",
            "status": "open", "number": "A-1", "created": october(1).as_second(), "subtotal": 12_000, "total": 10_600,
            "amount_due": 10_600, "amount_paid": 0, "amount_remaining": 10_600,
            "total_discount_amounts": [{"amount": 1_200, "discount": "di_1"}],
            "total_pretax_credit_amounts": [
                {"amount": 1_200, "discount": "di_1", "type": "discount"},
                {"amount": 800, "credit_balance_transaction": "cbtxn_1", "type": "credit_balance_transaction"}],
            "amount_shipping": 500, "shipping_cost": {"amount_subtotal": 500, "amount_tax": 100, "amount_total": 600},
            "lines": {"data": [
                {"id": "il_1", "amount": 12_000, "currency": "usd", "quantity": 2, "quantity_decimal": "2.5",
                 "description": "Hours"}], "has_more": false}});
        invoice[list] = taxes(newer);
        in_any_order(list, &[event("invoice.finalized", invoice)], async |client, name| {
            let row = client.query_one(
                "SELECT total_cents = subtotal_cents - discount_cents - pretax_credits_cents
                            + (tax_cents - inclusive_tax_cents) + shipping_cents,
                        concat_ws(' ', tax_cents, inclusive_tax_cents, pretax_credits_cents, shipping_cents,
                            line_items #>> '{items,0,quantity}', line_items #>> '{items,0,quantity_decimal}')
                 FROM invoices", &[]).await.unwrap();
            assert!(row.get::<_, bool>(0), "{name}");
            assert_eq!(row.get::<_, String>(1), "2100 2000 800 500 2 2.5", "{name}");
        })
        .await;
    }
}

/// `key amount method` of every payment that counts, the gross revenue, and how many look-ups of payments are unfinished.
async fn gross(client: &Client) -> String {
    let row = client.query_one(
        "SELECT concat_ws(', ',
                (SELECT string_agg(CASE WHEN payment_key LIKE 'pi%' THEN 'card' ELSE left(payment_key, 2) END
                     || ' ' || amount_cents, ' + ' ORDER BY amount_cents, payment_key)
                 FROM payment_history WHERE succeeded_at IS NOT NULL),
                (SELECT sum(gross_cents) || ' on ' || count(*) || ' days, fees ' || sum(fees_cents)
                 FROM revenue_daily WHERE payments > 0),
                (SELECT NULLIF(count(*), 0) || ' look-ups' FROM stripe_lookups
                 WHERE done_at IS NULL AND kind = 'invoice_payments'))", &[]).await.unwrap();
    row.get(0)
}

/// The invoice as Stripe answers for it with all its payments.
fn with_payments(account: &Account, invoice: &str, shape: Shape, day: i8) -> Value {
    // Before basil an invoice had no list of them.
    let paths: &[&str] = match shape < Shape::Basil {
        true => &[],
        false => &["payments.data.payment.payment_record"],
    };
    fetched(account.show(invoice, paths, shape).unwrap(), october(day))
}

#[tokio::test]
async fn money_outside_stripe_counts_once_whatever_tells_of_it() {
    // By card 400.00 of 1,000.00, then 600.00 by wire, recorded.
    let (mut account, customer) = account("Parts");
    let invoice = sent(&mut account, &customer, 100_000);
    account.set_now(october(10));
    account.pay_part(&invoice, 40_000).unwrap();
    account.set_now(october(12));
    account.report_payment(&invoice, 60_000).unwrap();
    for shape in Shape::ALL {
        let name = format!("{shape:?}");
        let record = if shape < Shape::Basil { "in" } else { "pr" };
        let expected = format!("card 40000 + {record} 60000, 100000 on 2 days, fees 1190");
        in_any_order(&name, &account.events(shape), async |client, name| {
            assert_eq!(gross(client).await, expected, "{name}");
        })
        .await;
        let mut events = account.events(shape);
        events.push(with_payments(&account, &invoice, shape, 20));
        in_any_order(&name, &events, async |client, name| {
            assert_eq!(gross(client).await, expected, "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn what_no_record_stands_for_is_booked_once_the_list_is_known() {
    // Nobody has recorded 640.00 by wire; the intent that was made with the invoice is canceled.
    let (mut account, customer) = account("Wire");
    let invoice = sent(&mut account, &customer, 64_000);
    account.set_now(october(10));
    account.pay_out_of_band(&invoice).unwrap();
    // And 20.00 of 100.00.
    let (mut rest, customer) = self::account("Rest");
    let of_rest = sent(&mut rest, &customer, 10_000);
    rest.set_now(october(10));
    rest.pay_part(&of_rest, 8_000).unwrap();
    rest.set_now(october(12));
    rest.pay_out_of_band(&of_rest).unwrap();
    for shape in Shape::ALL {
        let name = format!("{shape:?}");
        let mut events = account.events(shape);
        if shape >= Shape::Basil {
            in_any_order(&name, &events, async |client, name| {
                assert_eq!(gross(client).await, "1 look-ups", "{name}");
            })
            .await;
        }
        events.push(with_payments(&account, &invoice, shape, 20));
        in_any_order(&name, &events, async |client, name| {
            let expected = "in 64000, 64000 on 1 days, fees 0";
            assert_eq!(gross(client).await, expected, "{name}");
        })
        .await;
        let mut events = rest.events(shape);
        events.push(with_payments(&rest, &of_rest, shape, 20));
        in_any_order(&name, &events, async |client, name| {
            let expected = "in 2000 + card 8000, 10000 on 2 days, fees 262";
            assert_eq!(gross(client).await, expected, "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_flag_says_what_came_outside_stripe_beside_the_paid_amount() {
    let invoice = json!({"id": "in_1", "object": "invoice", "customer": "cus_1", "currency": "usd", "status": "paid",
        "number": "A-1", "created": october(1).as_second(), "total": 100_000, "amount_due": 100_000,
        "amount_paid": 40_000, "amount_remaining": 60_000, "paid_out_of_band": true, "charge": "ch_1",
        "payment_intent": "pi_1", "status_transitions": {"paid_at": october(3).as_second()},
        "lines": {"data": [], "has_more": false}});
    let events = [event("invoice.paid", invoice)];
    in_any_order("flagged", &events, async |client, name| {
        let expected = "card 40000 + in 60000, 100000 on 1 days, fees 1190";
        assert_eq!(gross(client).await, expected, "{name}");
    })
    .await;
}

#[tokio::test]
async fn one_payment_of_several_invoices_counts_once() {
    let paid = |id: &str, invoice: &str, payment: Value, amount: i64| {
        json!({"id": format!("evt_{id}"), "object": "event", "type": "invoice_payment.paid", "livemode": false,
            "created": october(2).as_second(), "data": {"object": {
                "id": id, "object": "invoice_payment", "invoice": invoice, "amount_paid": amount,
                "currency": "usd", "status": "paid", "payment": payment, "is_default": false,
                "status_transitions": {"paid_at": october(2).as_second()}}}})
    };
    let invoice = |id: &str, amount: i64| {
        let mut event = event(
            "invoice.paid",
            json!({"id": id, "object": "invoice", "customer": "cus_1",
            "currency": "usd", "status": "paid", "number": id, "created": october(1).as_second(), "total": amount,
            "amount_due": amount, "amount_paid": amount, "amount_remaining": 0,
            "status_transitions": {"paid_at": october(2).as_second()}, "lines": {"data": [], "has_more": false}}),
        );
        event["id"] = format!("evt_{id}").into();
        event
    };
    for (payment, gross_of) in [
        (
            json!({"type": "payment_intent", "payment_intent": "pi_1"}),
            "card 90000, 90000 on 1 days, fees 2640",
        ),
        (
            json!({"type": "payment_record", "payment_record": "pr_1"}),
            "pr 90000, 90000 on 1 days, fees 0",
        ),
    ] {
        let events = [
            paid("inpay_1", "in_1", payment.clone(), 50_000),
            paid("inpay_2", "in_2", payment.clone(), 40_000),
            invoice("in_1", 50_000),
            invoice("in_2", 40_000),
        ];
        in_any_order(gross_of, &events, async |client, name| {
            assert_eq!(gross(client).await, gross_of, "{name}");
            let row = client
                .query_one(
                    "SELECT stripe_invoice_id, stripe_customer_id FROM payment_history",
                    &[],
                )
                .await
                .unwrap();
            assert_eq!(row.get::<_, &str>(0), "in_1", "the larger part: {name}");
            assert_eq!(
                row.get::<_, Option<&str>>(1),
                Some("cus_1").filter(|_| gross_of.starts_with("pr")),
                "{name}"
            );
        })
        .await;
    }
}

/// What the subscription is worth per month, in minor units, whether that is final, and the unfinished look-ups.
async fn recurring(client: &Client) -> String {
    let row = client.query_one(
        "SELECT concat_ws(' ', trim_scale(mrr_microcents / 1000000.0), CASE WHEN mrr_provisional THEN 'provisional' END,
                (SELECT string_agg(kind, ' ' ORDER BY kind) FROM stripe_lookups
                 WHERE done_at IS NULL AND kind <> 'balance_transaction' AND kind <> 'invoice_payments'))
         FROM subscriptions", &[]).await.unwrap();
    row.get(0)
}

/// `kind delta` on a day, of each movement under a profile.
async fn moved(client: &Client, profile: DiscountProfile) -> Vec<String> {
    let rows = client
        .query("SELECT stripe_subscription_id FROM subscriptions", &[])
        .await;
    let named = Ids {
        subscriptions: rows.unwrap().iter().map(|row| row.get(0)).collect(),
        ..Ids::default()
    };
    let versions = store::ledger::read(client, &named).await.unwrap().versions;
    let versions: Vec<_> = versions.into_iter().map(|one| one.under(profile)).collect();
    let movements = movement::movements(&versions).unwrap();
    let shown = movements.iter().map(|one| {
        let day = one.occurred_at.to_zoned(jiff::tz::TimeZone::UTC).date();
        format!(
            "{day} {} {}",
            one.kind.as_str(),
            one.delta_microcents / 1_000_000
        )
    });
    shown.collect()
}

fn forever(bps: i64) -> NewCoupon<'static> {
    NewCoupon {
        percent_off_bps: Some(bps),
        amount_off: None,
        duration: "forever",
        duration_in_months: None,
        prices: &[],
    }
}

#[tokio::test]
async fn a_coupon_reduces_the_products_that_it_is_for() {
    let (mut account, customer) = account("Products");
    let first = account.create_price(&NewPrice::monthly("usd", 2_000, "basic"));
    let second = account.create_price(&NewPrice::monthly("usd", 3_000, "extra"));
    let coupon = account.create_coupon(&NewCoupon {
        prices: &[&first],
        ..forever(5_000)
    });
    let subscription = NewSubscription {
        items: vec![(first.as_str(), 1), (second.as_str(), 1)],
        trial_days: None,
        coupon: Some(&coupon),
        tax_bps: 0,
        metadata: Metadata::new(),
    };
    account.subscribe(&customer, &subscription).unwrap();
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        let name = format!("{shape:?}");
        // No event says what the coupon is for.
        in_any_order(&name, &events, async |client, name| {
            assert_eq!(recurring(client).await, "2500 provisional coupon", "{name}");
        })
        .await;
        let is_coupon = |event: &&Value| event["type"] == "coupon.created";
        let mut shown = events.iter().find(is_coupon).unwrap()["data"]["object"].clone();
        let product = events
            .iter()
            .find(|one| one["type"] == "price.created")
            .unwrap();
        shown["applies_to"] = json!({"products": [product["data"]["object"]["product"]]});
        events.push(fetched(shown, october(9)));
        in_any_order(&name, &events, async |client, name| {
            assert_eq!(recurring(client).await, "4000", "{name}");
            let moves = moved(client, DiscountProfile::Stripe).await;
            assert_eq!(moves, ["2026-10-01 new 4000"], "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_subscription_without_discounts_has_its_customers() {
    let (mut account, customer) = account("Inherits");
    let coupon = account.create_coupon(&forever(2_500));
    subscribe(&mut account, &customer, 4_000, 0);
    account.set_now(october(5));
    account.discount_customer(&customer, Some(&coupon)).unwrap();
    in_every_shape(&account, async |client, name| {
        // One product: what the coupon is for changes nothing, but it is asked.
        assert_eq!(recurring(client).await, "3000 coupon", "{name}");
        let moves = moved(client, DiscountProfile::Stripe).await;
        let expected = ["2026-10-01 new 4000", "2026-10-05 contraction -1000"];
        assert_eq!(moves, expected, "{name}");
        let stored = client.query(
            "SELECT delta_microcents FROM mrr_movements ORDER BY occurred_at",
            &[],
        );
        let stored: Vec<i64> = stored.await.unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(stored, [4_000_000_000, -1_000_000_000], "{name}");
    })
    .await;
    account.set_now(october(20));
    account.discount_customer(&customer, None).unwrap();
    in_every_shape(&account, async |client, name| {
        assert_eq!(recurring(client).await, "4000 coupon", "{name}");
        let moves = moved(client, DiscountProfile::Stripe).await;
        let expected = [
            "2026-10-01 new 4000",
            "2026-10-05 contraction -1000",
            "2026-10-20 expansion 1000",
        ];
        assert_eq!(moves, expected, "{name}");
        let moves = moved(client, DiscountProfile::NoDiscounts).await;
        assert_eq!(moves, ["2026-10-01 new 4000"], "{name}");
    })
    .await;
}

#[tokio::test]
async fn a_discount_of_three_months_ends_without_an_event() {
    let (mut account, customer) = account("Months");
    let price = account.create_price(&NewPrice::monthly("usd", 4_000, "professional"));
    let coupon = account.create_coupon(&NewCoupon {
        duration: "repeating",
        duration_in_months: Some(3),
        ..forever(5_000)
    });
    let subscription = NewSubscription {
        items: vec![(price.as_str(), 1)],
        trial_days: None,
        coupon: Some(&coupon),
        tax_bps: 0,
        metadata: Metadata::new(),
    };
    account.subscribe(&customer, &subscription).unwrap();
    in_every_shape(&account, async |client, name| {
        assert_eq!(recurring(client).await, "4000 coupon", "{name}");
        let moves = moved(client, DiscountProfile::AllDiscounts).await;
        let expected = ["2026-10-01 new 2000", "2027-01-01 expansion 2000"];
        assert_eq!(moves, expected, "{name}");
        let moves = moved(client, DiscountProfile::Stripe).await;
        assert_eq!(moves, ["2026-10-01 new 4000"], "{name}");
    })
    .await;
}

#[tokio::test]
async fn a_customer_that_nobody_has_seen_may_have_a_discount() {
    let (mut account, customer) = account("Unseen");
    subscribe(&mut account, &customer, 4_000, 0);
    for shape in Shape::ALL {
        let all = account.events(shape);
        let is_of_customer = |event: &&Value| event["data"]["object"]["object"] == "customer";
        let (seen, mut events): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|event| is_of_customer(&event));
        let name = format!("{shape:?}");
        in_any_order(&name, &events, async |client, name| {
            assert_eq!(
                recurring(client).await,
                "4000 provisional customer",
                "{name}"
            );
        })
        .await;
        events.push(seen[0].clone());
        in_any_order(&name, &events, async |client, name| {
            assert_eq!(recurring(client).await, "4000", "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn quantities_are_exact_and_the_period_is_the_one_that_ends_first() {
    let item = |id: &str, quantity: Value, days: i64| {
        let mut item = json!({"id": id, "price": {"id": "price_1", "object": "price", "currency": "usd",
                "unit_amount": 1_000, "unit_amount_decimal": "1000", "billing_scheme": "per_unit", "product": "prod_1",
                "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}},
            "current_period_start": october(1).as_second() + days,
            "current_period_end": october(1).as_second() + days * 86_400});
        item.as_object_mut()
            .unwrap()
            .extend(quantity.as_object().unwrap().clone());
        item
    };
    let subscription = json!({"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active",
        "currency": "usd", "created": october(1).as_second(), "start_date": october(1).as_second(), "discounts": [],
        "items": {"data": [item("si_1", json!({"quantity": 2, "quantity_decimal": "2.5"}), 30),
                           item("si_2", json!({"quantity": 1}), 7)]}});
    let customer = json!({"id": "cus_1", "object": "customer", "created": october(1).as_second(), "discount": null});
    let events = [
        event("customer.subscription.created", subscription),
        event("customer.created", customer),
    ];
    in_any_order("items", &events, async |client, name| {
        assert_eq!(recurring(client).await, "3500", "{name}");
        let row = client.query_one(
            "SELECT current_period_start, current_period_end, items #>> '{0,quantity_decimal}' FROM subscriptions", &[]);
        let row = row.await.unwrap();
        let (from, to): (Timestamp, Timestamp) = (row.get(0), row.get(1));
        assert_eq!(from.as_second(), october(1).as_second() + 7, "{name}");
        assert_eq!(to, october(8), "{name}");
        assert_eq!(row.get::<_, String>(2), "2.5", "{name}");
    })
    .await;
}

/// What went back of the only payment, and the unfinished look-ups of refunds.
async fn refunded(client: &Client) -> String {
    let row = client
        .query_one(
            "SELECT concat_ws(' ', (SELECT refund_amount_cents FROM payment_history),
                (SELECT sum(refunds_cents) FROM revenue_daily),
                (SELECT string_agg(kind || ' ' || reason, ' ') FROM stripe_lookups
                 WHERE done_at IS NULL AND kind = 'charge_refunds'))",
            &[],
        )
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test]
async fn a_total_counts_beyond_the_refunds_that_are_listed() {
    let (mut account, customer) = account("Refunds");
    let intent = account
        .pay_once(&customer, 6_000, "usd", Outcome::Succeeds)
        .unwrap();
    let mut refunds = Vec::new();
    for day in 2..13 {
        account.set_now(october(day));
        refunds.push(account.refund(&intent, 100).unwrap());
    }
    let newest = account.events(Shape::Endive);
    for shape in Shape::ALL {
        let mut events = account.events(shape);
        let is_total = |event: &Value| event["type"] == "charge.refunded";
        let last_total = events.iter().rposition(is_total).unwrap();
        let last_total = events[last_total]["id"].clone();
        // The oldest shape lists the newest ten inside the charge; the others announce each.
        let missing = if shape == Shape::V2020_08_27 {
            &refunds[0]
        } else {
            &refunds[10]
        };
        events.retain(|event| {
            let is_earlier_total = is_total(event) && event["id"] != last_total;
            !is_earlier_total && event["data"]["object"]["id"] != *missing.as_str()
        });
        for event in &mut events {
            let list = &mut event["data"]["object"]["refunds"];
            if let Some(data) = list["data"].as_array_mut().filter(|data| data.len() > 10) {
                data.truncate(10);
                list["has_more"] = true.into();
            }
        }
        let name = format!("{shape:?}");
        in_any_order(&name, &events, async |client, name| {
            assert_eq!(
                refunded(client).await,
                "1100 1100 charge_refunds refunds",
                "{name}"
            );
        })
        .await;
        let created = newest.iter().find(|event| {
            event["type"] == "refund.created" && event["data"]["object"]["id"] == *missing.as_str()
        });
        events.push(fetched(
            created.unwrap()["data"]["object"].clone(),
            october(20),
        ));
        in_any_order(&name, &events, async |client, name| {
            assert_eq!(refunded(client).await, "1100 1100", "{name}");
            let days = client.query(
                "SELECT count(*) FROM revenue_daily WHERE refunds_cents = 100",
                &[],
            );
            assert_eq!(days.await.unwrap()[0].get::<_, i64>(0), 11, "{name}");
        })
        .await;
    }
}

/// A monthly subscription of 10.00 for each of some items, as an event shows it.
fn with_items(event_type: &str, status: &str, items: &[i64], has_more: bool, day: i8) -> Value {
    let items: Vec<Value> = items.iter().map(|number| json!({
        "id": format!("si_{number}"), "object": "subscription_item", "quantity": 1, "price": {
            "id": format!("price_{number}"), "object": "price", "product": "prod_1", "currency": "usd",
            "unit_amount": 1_000, "unit_amount_decimal": "1000", "billing_scheme": "per_unit",
            "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}}})).collect();
    let ended_at = (status == "canceled").then(|| october(day).as_second());
    json!({"id": format!("evt_{event_type}_{day}"), "object": "event", "type": event_type, "livemode": false,
        "created": october(day).as_second(), "data": {"object": {
            "id": "sub_1", "object": "subscription", "customer": "cus_1", "currency": "usd", "status": status,
            "created": october(1).as_second(), "start_date": october(1).as_second(), "ended_at": ended_at,
            "discounts": [], "items": {"object": "list", "data": items, "has_more": has_more}}}})
}

#[tokio::test]
async fn a_list_of_items_that_was_cut_is_provisional_until_it_is_whole() {
    let cut: Vec<i64> = (1..=10).collect();
    let whole: Vec<i64> = (1..=15).collect();
    let customer = event(
        "customer.created",
        json!({"id": "cus_1", "object": "customer", "discount": null,
        "created": october(1).as_second()}),
    );
    let begun = with_items("customer.subscription.created", "active", &cut, true, 1);
    let mut events = vec![customer, begun];
    in_any_order("cut", &events, async |client, name| {
        assert_eq!(
            recurring(client).await,
            "10000 provisional subscription_items",
            "{name}"
        );
    })
    .await;
    let shown = with_items("", "active", &whole, false, 1)["data"]["object"].clone();
    events.push(fetched(shown, october(3)));
    in_any_order("fetched", &events, async |client, name| {
        assert_eq!(recurring(client).await, "15000", "{name}");
        // It has been so since it began.
        let moved = moved(client, DiscountProfile::Stripe).await;
        assert_eq!(moved, ["2026-10-01 new 15000"], "{name}");
    })
    .await;
    // A later event is cut again.
    events.push(with_items(
        "customer.subscription.updated",
        "active",
        &cut,
        true,
        5,
    ));
    in_any_order("cut again", &events, async |client, name| {
        assert_eq!(
            recurring(client).await,
            "10000 provisional subscription_items",
            "{name}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_ended_subscription_without_items_has_none_and_a_live_one_keeps_them() {
    let customer = event(
        "customer.created",
        json!({"id": "cus_1", "object": "customer", "discount": null,
        "created": october(1).as_second()}),
    );
    let begun = with_items(
        "customer.subscription.created",
        "active",
        &[1, 2, 3, 4],
        false,
        1,
    );
    let ended = with_items("customer.subscription.deleted", "canceled", &[], false, 20);
    let events = [customer.clone(), begun.clone(), ended];
    in_any_order("ended", &events, async |client, name| {
        assert_eq!(recurring(client).await, "0", "{name}");
        let moved = moved(client, DiscountProfile::Stripe).await;
        assert_eq!(
            moved,
            ["2026-10-01 new 4000", "2026-10-20 churn -4000"],
            "{name}"
        );
        let row = client
            .query_one("SELECT jsonb_array_length(items) FROM subscriptions", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i32>(0), 4, "those last shown: {name}");
    })
    .await;
    let bare = with_items("customer.subscription.updated", "past_due", &[], false, 10);
    in_any_order("live", &[customer, begun, bare], async |client, name| {
        assert_eq!(
            recurring(client).await,
            "4000 provisional subscription_items",
            "{name}"
        );
        let moved = moved(client, DiscountProfile::Stripe).await;
        assert_eq!(moved, ["2026-10-01 new 4000"], "{name}");
    })
    .await;
}
