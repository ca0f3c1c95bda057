//! A story of seven customers and two partners, told by Stripe's events, whose figures are worked out by hand.
//!
//! Recurring, per month in minor units (gold is 120000 a year, silver 3000, basic 2000, pro 5000 a month):
//! * Alice: gold from 5 September, half off for ever: 5000. From 5 October also two silver: 6000, half off once.
//! * Bob: basic in trial from 20 September, paid from 10 October: 2000. Pro from 25 October: 5000. Ends on
//!   12 November. Another basic from 15 November: 2000.
//! * Dan: pro from 1 September: 5000. Basic from 15 October: 2000. Set to end since 1 November.
//! * Emil: pro in euro from 12 October: 5000.
//!
//! Payments in dollar: Alice 10000 (fee 320) on 5 September and on 5 October; Carol 8000 (262) on 28 September; Bob 5000
//! on 10 October, fee not known: 2.9 % + 30 = 175, and 20000 (610) on 20 October; Dan 3000 (117) on 15 October. Erin's
//! 4000 (146) fails on 1 and 3 October and succeeds on the 6th. Frank's 2500 fails on 7 October. Gina's invoice of
//! 1000 (59) fails on 8 October, and another payment of it succeeds on the 9th. In euro: Emil 7000 (250) on 12 October.
//!
//! Refunds: 2500 of Alice's September on 2 October; 1000 of her October on the 25th; 500 of Bob's on 26 October, which
//! fails on 3 November and so counts nowhere; €700 of Emil's on 2 November.
//!
//! Disputes: Carol's 8000, opened on 30 September, withdrawn on 1 October at a fee of 1500, won on 5 November. Dan's 3000,
//! withdrawn on 18 October at a fee of 1500, lost on 10 November. An inquiry about Bob's 5000 on 22 October.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ledger::Ledger;

/// When the story is looked at.
pub(crate) const NOW: &str = "2025-11-20T12:00:00Z";

/// The ledger after all of it.
pub(crate) async fn story() -> Ledger {
    let ledger = Ledger::create().await;
    ledger.ingest(subscriptions()).await;
    ledger.ingest(payments()).await;
    ledger.ingest(refunds_and_disputes()).await;
    ledger.ingest(invoices()).await;
    partners(&ledger).await;
    ledger
}

/// Hana alone: silver (3000) from 1 October, pro (5000) from the 16th. The change is invoiced that day: 1500 back for the
/// rest of silver, 2500 for the rest of pro; the 1000 are paid at once (fee 59).
pub(crate) async fn prorated() -> Ledger {
    let ledger = Ledger::create().await;
    let hana = ("cus_hana", "usd");
    let plain = json!({});
    let line = |id: &str, amount: i64| {
        json!({"id": id, "object": "line_item", "amount": amount, "currency": "usd", "description": id, "quantity": 1,
            "proration": true, "period": {"start": second("10-16"), "end": second("11-01")}})
    };
    let lines = [line("il_unused", -1_500), line("il_remaining", 2_500)];
    let paid = json!({"customer": "cus_hana", "subscription": "sub_hana", "status": "paid", "paid": true,
        "billing_reason": "subscription_update", "amount_paid": 1_000, "amount_remaining": 0, "charge": "ch_hana",
        "payment_intent": "pi_hana", "lines": {"object": "list", "has_more": false, "data": lines},
        "status_transitions": {"finalized_at": second("10-16"), "paid_at": second("10-16"), "voided_at": null}});
    let payment = charge("hana", "hana", "hana", "usd", "10-16", 1_000);
    let events = vec![
        subscription("created", "10-01", "sub_hana", hana, ("silver", 1), &plain),
        subscription("updated", "10-16", "sub_hana", hana, ("pro", 1), &plain),
        succeeded(of_invoice(payment, "in_hana"), "10-16", Some(59)),
        invoice("invoice.paid", "in_hana", ("10-16", "10-16"), 1_000, &paid),
    ];
    ledger.ingest(events).await;
    ledger
}

fn second(day: &str) -> i64 {
    let instant: Timestamp = format!("2025-{day}T10:00:00Z").parse().expect("an instant");
    instant.as_second()
}

fn event(kind: &str, day: &str, object: &Value) -> Value {
    let id = object["id"].as_str().expect("an id");
    json!({"id": format!("evt_{kind}_{id}_{day}"), "object": "event", "api_version": "2022-11-15", "livemode": false,
           "created": second(day), "type": kind, "data": {"object": object}})
}

/// A subscription's event: its customer, price, quantity and what differs from a running one.
fn subscription(
    kind: &str,
    day: &str,
    id: &str,
    (customer, currency): (&str, &str),
    (plan, quantity): (&str, i64),
    rest: &Value,
) -> Value {
    let (amount, interval) = match plan {
        "gold" => (120_000, "year"),
        "silver" => (3_000, "month"),
        "basic" => (2_000, "month"),
        _ => (5_000, "month"),
    };
    let price = json!({"id": format!("price_{plan}_{currency}"), "object": "price", "currency": currency,
        "billing_scheme": "per_unit", "metadata": {"plan": plan}, "product": format!("prod_{plan}"),
        "recurring": {"interval": interval, "interval_count": 1, "usage_type": "licensed"}, "type": "recurring",
        "unit_amount": amount, "unit_amount_decimal": amount.to_string()});
    let mut object = json!({"id": id, "object": "subscription", "customer": customer, "currency": currency,
        "status": "active", "created": second(day), "start_date": second(day), "cancel_at_period_end": false,
        "cancel_at": null, "canceled_at": null, "ended_at": null, "discount": null, "metadata": {},
        "items": {"object": "list", "data": [{"id": format!("si_{id}"), "price": price, "quantity": quantity}]}});
    for (name, value) in rest.as_object().expect("members") {
        object[name] = value.clone();
    }
    event(&format!("customer.subscription.{kind}"), day, &object)
}

fn half_off(duration: &str) -> Value {
    json!({"discount": {"id": format!("di_{duration}"), "object": "discount", "coupon": {"id": format!("half_{duration}"),
        "object": "coupon", "percent_off": 50, "amount_off": null, "currency": null, "duration": duration}}})
}

fn subscriptions() -> Vec<Value> {
    let alice = ("cus_alice", "usd");
    let bob = ("cus_bob", "usd");
    let dan = ("cus_dan", "usd");
    let plain = json!({});
    let trial = json!({"status": "trialing"});
    let ended =
        json!({"status": "canceled", "ended_at": second("11-12"), "canceled_at": second("11-12")});
    let ending = json!({"cancel_at_period_end": true, "canceled_at": second("11-01")});
    vec![
        subscription(
            "created",
            "09-05",
            "sub_alice",
            alice,
            ("gold", 1),
            &half_off("forever"),
        ),
        subscription(
            "created",
            "10-05",
            "sub_alice_too",
            alice,
            ("silver", 2),
            &half_off("once"),
        ),
        subscription("created", "09-20", "sub_bob", bob, ("basic", 1), &trial),
        subscription("updated", "10-10", "sub_bob", bob, ("basic", 1), &plain),
        subscription("updated", "10-25", "sub_bob", bob, ("pro", 1), &plain),
        subscription("deleted", "11-12", "sub_bob", bob, ("pro", 1), &ended),
        subscription(
            "created",
            "11-15",
            "sub_bob_again",
            bob,
            ("basic", 1),
            &plain,
        ),
        subscription("created", "09-01", "sub_dan", dan, ("pro", 1), &plain),
        subscription("updated", "10-15", "sub_dan", dan, ("basic", 1), &plain),
        subscription("updated", "11-01", "sub_dan", dan, ("basic", 1), &ending),
        subscription(
            "created",
            "10-12",
            "sub_emil",
            ("cus_emil", "eur"),
            ("pro", 1),
            &plain,
        ),
    ]
}

/// A charge: `ch_<name>` of `pi_<intent>`.
fn charge(
    name: &str,
    intent: &str,
    customer: &str,
    currency: &str,
    day: &str,
    amount: i64,
) -> Value {
    json!({"id": format!("ch_{name}"), "object": "charge", "payment_intent": format!("pi_{intent}"),
        "customer": format!("cus_{customer}"), "currency": currency, "amount": amount, "amount_captured": amount,
        "amount_refunded": 0, "captured": true, "paid": true, "status": "succeeded", "created": second(day),
        "failure_code": null, "metadata": {}, "invoice": null, "balance_transaction": null,
        "payment_method_details": {"type": "card"}})
}

fn succeeded(mut charge: Value, day: &str, fee: Option<i64>) -> Value {
    if let Some(fee) = fee {
        let id = charge["id"].as_str().expect("an id");
        charge["balance_transaction"] = json!({"id": format!("txn_{id}"), "object": "balance_transaction",
            "amount": charge["amount"], "fee": fee, "currency": charge["currency"], "exchange_rate": null});
    }
    event("charge.succeeded", day, &charge)
}

fn failed(mut charge: Value, day: &str, code: &str, decline_code: Option<&str>) -> Value {
    charge["status"] = json!("failed");
    charge["captured"] = json!(false);
    charge["paid"] = json!(false);
    charge["amount_captured"] = json!(0);
    charge["failure_code"] = json!(code);
    charge["outcome"] = json!({"reason": decline_code});
    event("charge.failed", day, &charge)
}

fn of_invoice(mut charge: Value, invoice: &str) -> Value {
    charge["invoice"] = json!(invoice);
    charge
}

fn payments() -> Vec<Value> {
    let erin = |name, day| of_invoice(charge(name, "erin", "erin", "usd", day, 4_000), "in_erin");
    let gina = |name, day| of_invoice(charge(name, name, "gina", "usd", day, 1_000), "in_gina");
    let low = Some("insufficient_funds");
    vec![
        succeeded(
            charge("alice_1", "alice_1", "alice", "usd", "09-05", 10_000),
            "09-05",
            Some(320),
        ),
        succeeded(
            charge("alice_2", "alice_2", "alice", "usd", "10-05", 10_000),
            "10-05",
            Some(320),
        ),
        succeeded(
            charge("carol", "carol", "carol", "usd", "09-28", 8_000),
            "09-28",
            Some(262),
        ),
        succeeded(
            charge("bob_1", "bob_1", "bob", "usd", "10-10", 5_000),
            "10-10",
            None,
        ),
        succeeded(
            charge("bob_2", "bob_2", "bob", "usd", "10-20", 20_000),
            "10-20",
            Some(610),
        ),
        succeeded(
            charge("dan", "dan", "dan", "usd", "10-15", 3_000),
            "10-15",
            Some(117),
        ),
        failed(erin("erin_1", "10-01"), "10-01", "card_declined", low),
        failed(erin("erin_2", "10-03"), "10-03", "card_declined", low),
        succeeded(erin("erin_3", "10-06"), "10-06", Some(146)),
        failed(
            charge("frank", "frank", "frank", "usd", "10-07", 2_500),
            "10-07",
            "expired_card",
            None,
        ),
        failed(
            gina("gina_1", "10-08"),
            "10-08",
            "card_declined",
            Some("do_not_honor"),
        ),
        succeeded(gina("gina_2", "10-09"), "10-09", Some(59)),
        succeeded(
            charge("emil", "emil", "emil", "eur", "10-12", 7_000),
            "10-12",
            Some(250),
        ),
    ]
}

fn refund(
    kind: &str,
    day: &str,
    name: &str,
    of: &str,
    amount: i64,
    rest: (&str, &str, &str),
) -> Value {
    let (currency, reason, status) = rest;
    let created = if name == "bob" { "10-26" } else { day };
    let object = json!({"id": format!("re_{name}"), "object": "refund", "charge": format!("ch_{of}"),
        "payment_intent": format!("pi_{of}"), "amount": amount, "currency": currency, "reason": reason,
        "status": status, "created": second(created), "metadata": {}});
    event(kind, day, &object)
}

fn dispute(kind: &str, day: &str, of: &str, amount: i64, told: (&str, &str, &str)) -> Value {
    let (created, reason, status) = told;
    let moved = |what: &str, day: &str, amount: i64, fee: i64| {
        json!({"id": format!("txn_{of}_{what}"), "object": "balance_transaction", "amount": amount, "fee": fee,
            "net": amount - fee, "currency": "usd", "type": "adjustment", "source": format!("dp_{of}"),
            "created": second(day)})
    };
    let withdrawn_on = if of == "carol" { "10-01" } else { created };
    let withdrawal = || moved("withdrawn", withdrawn_on, -amount, 1_500);
    let transactions = match (kind, status) {
        ("created", _) | (_, "warning_needs_response") => json!([]),
        (_, "won") => json!([withdrawal(), moved("reinstated", "11-05", amount, 0)]),
        _ => json!([withdrawal()]),
    };
    let object = json!({"id": format!("dp_{of}"), "object": "dispute", "charge": format!("ch_{of}"),
        "payment_intent": format!("pi_{of}"), "amount": amount, "currency": "usd", "reason": reason,
        "status": status, "created": second(created), "balance_transactions": transactions});
    event(&format!("charge.dispute.{kind}"), day, &object)
}

fn refunds_and_disputes() -> Vec<Value> {
    let customer = "requested_by_customer";
    let carol = |status| ("09-30", "fraudulent", status);
    let dan = |status| ("10-18", "product_not_received", status);
    vec![
        refund(
            "refund.created",
            "10-02",
            "alice_1",
            "alice_1",
            2_500,
            ("usd", customer, "succeeded"),
        ),
        refund(
            "refund.created",
            "10-25",
            "alice_2",
            "alice_2",
            1_000,
            ("usd", "duplicate", "succeeded"),
        ),
        refund(
            "refund.created",
            "10-26",
            "bob",
            "bob_2",
            500,
            ("usd", customer, "succeeded"),
        ),
        refund(
            "refund.failed",
            "11-03",
            "bob",
            "bob_2",
            500,
            ("usd", customer, "failed"),
        ),
        refund(
            "refund.created",
            "11-02",
            "emil",
            "emil",
            700,
            ("eur", customer, "succeeded"),
        ),
        dispute("created", "09-30", "carol", 8_000, carol("needs_response")),
        dispute(
            "funds_withdrawn",
            "10-01",
            "carol",
            8_000,
            carol("needs_response"),
        ),
        dispute("funds_reinstated", "11-05", "carol", 8_000, carol("won")),
        dispute("closed", "11-05", "carol", 8_000, carol("won")),
        dispute("created", "10-18", "dan", 3_000, dan("needs_response")),
        dispute(
            "funds_withdrawn",
            "10-18",
            "dan",
            3_000,
            dan("needs_response"),
        ),
        dispute("closed", "11-10", "dan", 3_000, dan("lost")),
        dispute(
            "created",
            "10-22",
            "bob_1",
            5_000,
            ("10-22", "general", "warning_needs_response"),
        ),
    ]
}

/// An invoice issued on a day and due on another.
fn invoice(kind: &str, id: &str, (issued, due): (&str, &str), total: i64, rest: &Value) -> Value {
    let mut object = json!({"id": id, "object": "invoice", "number": id, "customer": "cus_alice", "currency": "usd",
        "status": "open", "total": total, "subtotal": total, "amount_due": total, "amount_paid": 0,
        "amount_remaining": total, "created": second(issued), "due_date": second(due), "lines": {"data": []},
        "status_transitions": {"finalized_at": second(issued), "paid_at": null, "voided_at": null}, "metadata": {}});
    for (name, value) in rest.as_object().expect("members") {
        object[name] = value.clone();
    }
    event(kind, issued, &object)
}

/// Issued in October: 10825 with 625 of tax for Texas and 200 for an unnamed place, paid; 2190 with 190 of tax nobody
/// explains, open since 10 October. Issued in November: 500, due tomorrow.
fn invoices() -> Vec<Value> {
    let taxed = json!({"status": "paid", "paid": true, "amount_paid": 10_825, "amount_remaining": 0, "tax": 825,
        "charge": "ch_alice_2",
        "status_transitions": {"finalized_at": second("10-03"), "paid_at": second("10-05"), "voided_at": null},
        "total_tax_amounts": [
            {"amount": 625, "inclusive": false, "taxable_amount": 10_000,
             "tax_rate": {"id": "txr_texas", "object": "tax_rate", "jurisdiction": "US-TX"}},
            {"amount": 200, "inclusive": false, "taxable_amount": 10_000, "tax_rate": "txr_city"}]});
    vec![
        invoice(
            "invoice.paid",
            "in_taxed",
            ("10-03", "10-03"),
            10_825,
            &taxed,
        ),
        invoice(
            "invoice.finalized",
            "in_old",
            ("10-04", "10-10"),
            2_190,
            &json!({"tax": 190}),
        ),
        invoice(
            "invoice.finalized",
            "in_new",
            ("11-19", "11-21"),
            500,
            &json!({}),
        ),
    ]
}

/// Partner invoices: of acme in October 7000 open and due on 21 October, 900 due on 10 November and paid on the 18th, 400
/// uncollectible, one void, one draft; of beta in October 6000, paid but for a credit of 1000; of beta in July 3000 due
/// on 21 August, and 5000 due on the 22nd, of which 1000 is paid.
async fn partners(ledger: &Ledger) {
    ledger
        .run(
            "INSERT INTO api_partner_contracts (api_key_prefix, company, pricing_model)
                 VALUES ('pk_acme', '=Acme, Inc.', 'flat'), ('pk_beta', 'Beta', 'flat');
             INSERT INTO invoices (invoice_number, kind, api_key_prefix, currency, status, finalized_at, due_date, paid_at,
                 voided_at, total_cents, amount_paid_cents, credit_applied_cents, amount_due_cents, created_at)
             VALUES
                 ('P1', 'partner', 'pk_acme', 'USD', 'open', '2025-10-01Z', '2025-10-21Z', NULL, NULL, 7000, 0, 0, 7000, '2025-10-01Z'),
                 ('P4', 'partner', 'pk_acme', 'USD', 'paid', '2025-10-11Z', '2025-11-10Z', '2025-11-18Z', NULL, 900, 900, 0, 0, '2025-10-11Z'),
                 ('P8', 'partner', 'pk_acme', 'USD', 'uncollectible', '2025-10-12Z', '2025-10-13Z', NULL, NULL, 400, 0, 0, 400, '2025-10-12Z'),
                 ('P6', 'partner', 'pk_acme', 'USD', 'void', '2025-10-12Z', '2025-10-13Z', NULL, '2025-10-14Z', 111, 0, 0, 0, '2025-10-12Z'),
                 ('P7', 'partner', 'pk_acme', 'USD', 'draft', NULL, NULL, NULL, NULL, 222, 0, 0, 222, '2025-10-12Z'),
                 ('P5', 'partner', 'pk_beta', 'USD', 'paid', '2025-10-15Z', '2025-11-15Z', '2025-10-30Z', NULL, 6000, 5000, 1000, 0, '2025-10-15Z'),
                 ('P2', 'partner', 'pk_beta', 'USD', 'open', '2025-07-22Z', '2025-08-21Z', NULL, NULL, 3000, 0, 0, 3000, '2025-07-22Z'),
                 ('P3', 'partner', 'pk_beta', 'USD', 'open', '2025-07-22Z', '2025-08-22Z', NULL, NULL, 5000, 1000, 0, 4000, '2025-07-22Z')",
        )
        .await;
}
