//! Facts that arrive late, or in the other order: small stories, each in every order, each with
//! the rows it must end in.

use std::time::Duration;

use domain::payment::FeeEstimate;
use futures_util::future::join;
use runtime::telemetry::cause_chain;
use serde_json::{Value, json};
use shared::ledger::apply_event;
use stripe::account::Account;
use stripe::event::Event;
use testing::TestDatabase;
use tokio_postgres::Transaction;

const FEES: FeeEstimate = FeeEstimate {
    bps: 290,
    fixed_cents: 30,
};

/// Noon of the first of May 2026; times in the stories are seconds from here.
const NOON: i64 = 1_777_636_800;

/// One event about one object, `seconds` after noon.
fn event(event_type: &str, seconds: i64, object: Value) -> Value {
    json!({"id": format!("evt_{event_type}_{seconds}"), "object": "event", "type": event_type,
           "created": NOON + seconds, "api_version": "2026-10-28.endive", "livemode": false,
           "data": {"object": object}})
}

fn subscription(status: &str, price: Value, rest: &Value) -> Value {
    let mut subscription = json!({
        "id": "sub_1", "object": "subscription", "customer": "cus_1", "status": status,
        "currency": "usd", "created": NOON, "start_date": NOON, "metadata": {},
        "items": {"data": [{"id": "si_1", "quantity": 1, "price": price,
                            "current_period_start": NOON, "current_period_end": NOON + 2_592_000}]},
    });
    let members = subscription.as_object_mut().unwrap();
    members.extend(rest.as_object().unwrap().clone());
    subscription
}

/// $100 a month.
fn price(id: &str, metadata: &Value) -> Value {
    json!({"id": id, "object": "price", "currency": "usd", "unit_amount": 10_000,
           "unit_amount_decimal": "10000", "billing_scheme": "per_unit", "metadata": metadata,
           "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}})
}

fn half_off(discount: &str) -> Value {
    json!({"id": discount, "object": "discount", "customer": "cus_1", "subscription": "sub_1",
           "start": NOON, "coupon": {"id": format!("half_{discount}"), "object": "coupon",
           "percent_off": 50, "duration": "forever", "created": NOON}})
}

fn charge(rest: &Value) -> Value {
    let mut charge = json!({
        "id": "ch_1", "object": "charge", "amount": 2_999, "amount_captured": 2_999,
        "amount_refunded": 0, "captured": true, "currency": "usd", "customer": "cus_1",
        "payment_intent": "pi_1", "status": "succeeded", "created": NOON, "metadata": {},
    });
    let members = charge.as_object_mut().unwrap();
    members.extend(rest.as_object().unwrap().clone());
    charge
}

fn intent() -> Value {
    json!({"id": "pi_1", "object": "payment_intent", "amount": 2_999, "amount_received": 2_999,
           "currency": "usd", "customer": "cus_1", "status": "succeeded", "latest_charge": "ch_1",
           "created": NOON, "metadata": {}})
}

/// Applies the event, in the caller's transaction; `told` is what came before.
async fn apply(db: &Transaction<'_>, event: &Value, told: &[String]) {
    let text = event.to_string();
    let event = Event::parse(text.as_bytes()).unwrap();
    let now = event.created_at.unwrap();
    if let Err(error) = apply_event(db, &Account::default(), &event, &text, FEES, now).await {
        let id = &event.event_id;
        panic!("{id} after {told:?}: {}", cause_chain(&error));
    }
}

/// Applies the events in every order; `rows` must then be `expected`, as text.
async fn in_every_order(events: &[Value], rows: &str, expected: &str) {
    let database = TestDatabase::create().await;
    let mut client = database.client().await;
    client
        .batch_execute(
            "INSERT INTO users (id, email, full_name, plan) VALUES
             (1, 'one@example.com', 'One', 'free'), (2, 'two@example.com', 'Two', 'enterprise')",
        )
        .await
        .unwrap();
    for order in permutations(events.len()) {
        let transaction = client.transaction().await.unwrap();
        let mut told = Vec::new();
        for place in &order {
            apply(&transaction, &events[*place], &told).await;
            told.push(events[*place]["id"].to_string());
        }
        let rows: Vec<String> = transaction
            .query(rows, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(rows.join("; "), expected, "after {told:?}");
        transaction.rollback().await.unwrap();
    }
}

fn permutations(length: usize) -> Vec<Vec<usize>> {
    let Some(last) = length.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let shorter = permutations(last);
    let with_last = |order: &Vec<usize>| -> Vec<Vec<usize>> {
        (0..length)
            .map(|place| {
                let mut longer = order.clone();
                longer.insert(place, last);
                longer
            })
            .collect()
    };
    shorter.iter().flat_map(with_last).collect()
}

#[tokio::test]
async fn store_credit_finds_its_user_whichever_side_comes_first() {
    let refund = json!({"id": "re_1", "object": "refund", "amount": 500, "currency": "usd",
        "charge": "ch_1", "payment_intent": "pi_1", "status": "succeeded", "created": NOON + 3,
        "metadata": {"credit": "true"}});
    let customer = json!({"id": "cus_1", "object": "customer", "created": NOON,
        "metadata": {"user_id": "1"}});
    in_every_order(
        &[
            event("customer.created", 0, customer),
            event("charge.succeeded", 1, charge(&json!({}))),
            event("payment_intent.succeeded", 2, intent()),
            event("refund.created", 3, refund),
        ],
        "SELECT concat_ws(' ', stripe_refund_id, stripe_customer_id, user_id, amount_cents,
                          remaining_cents, currency) FROM credits",
        "re_1 cus_1 1 500 500 USD",
    )
    .await;
}

#[tokio::test]
async fn a_refund_that_is_no_credit_after_all_leaves_none() {
    let refund = |metadata: Value| {
        json!({"id": "re_1", "object": "refund", "amount": 500, "currency": "usd",
               "charge": "ch_1", "payment_intent": "pi_1", "status": "succeeded",
               "created": NOON, "metadata": metadata})
    };
    in_every_order(
        &[
            event("refund.created", 1, refund(json!({"credit": "true"}))),
            event("refund.updated", 2, refund(json!({}))),
            event("charge.succeeded", 0, charge(&json!({}))),
        ],
        "SELECT count(*)::text FROM credits",
        "0",
    )
    .await;
}

#[tokio::test]
async fn an_expanded_discount_explains_the_id_beside_it() {
    let discounted = json!({"discounts": ["di_1"], "discount": half_off("di_1")});
    let subscription = subscription("active", price("price_1", &json!({})), &discounted);
    in_every_order(
        &[event("customer.subscription.created", 0, subscription)],
        "SELECT concat_ws(' ', mrr_cents, mrr_provisional, (SELECT string_agg(kind, ' ') FROM stripe_lookups))
         FROM subscriptions",
        // What the coupon is for is not shown.
        "5000 f coupon",
    )
    .await;
}

#[tokio::test]
async fn the_row_and_its_history_know_a_discount_while_another_is_unknown() {
    let two = json!({"discounts": ["di_1", "di_2"]});
    in_every_order(
        &[
            event(
                "customer.subscription.created",
                0,
                subscription("active", price("price_1", &json!({})), &two),
            ),
            event("customer.discount.created", 1, half_off("di_1")),
        ],
        "SELECT concat_ws(' ', subscriptions.mrr_microcents, versions.mrr_microcents,
                          versions.waits_for, after_microcents)
         FROM subscriptions JOIN subscription_versions AS versions USING (stripe_subscription_id)
         JOIN mrr_movements USING (stripe_subscription_id)",
        "5000000000 5000000000 {di_1,di_2,half_di_1} 5000000000",
    )
    .await;
}

/// Either of them finds what the other says, though it has not been committed when the other begins.
#[tokio::test]
async fn a_discount_and_its_coupon_that_come_at_once_price_the_subscription() {
    let discount = json!({"id": "di_1", "object": "discount", "customer": "cus_1",
        "subscription": "sub_1", "start": NOON, "source": {"type": "coupon", "coupon": "half"}});
    let coupon = json!({"id": "half", "object": "coupon", "percent_off": 50,
        "duration": "forever", "created": NOON});
    let told = [
        event("customer.discount.created", 1, discount),
        event("coupon.created", 2, coupon),
    ];
    let discounted = subscription(
        "active",
        price("price_1", &json!({})),
        &json!({"discounts": ["di_1"]}),
    );
    let begun = event("customer.subscription.created", 0, discounted);
    for (first, second) in [(&told[0], &told[1]), (&told[1], &told[0])] {
        let database = TestDatabase::create().await;
        let (mut one, mut other) = (database.client().await, database.client().await);
        let transaction = one.transaction().await.unwrap();
        apply(&transaction, &begun, &[]).await;
        transaction.commit().await.unwrap();

        let (held, waiting) = (
            one.transaction().await.unwrap(),
            other.transaction().await.unwrap(),
        );
        apply(&held, first, &[]).await;
        let commit_in_a_moment = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            held.commit().await.unwrap();
        };
        let apply_meanwhile = async {
            apply(&waiting, second, &[]).await;
            waiting.commit().await.unwrap();
        };
        join(commit_in_a_moment, apply_meanwhile).await;
        let rows = "SELECT mrr_microcents, waits_for FROM subscription_versions";
        let version = one.query_one(rows, &[]).await.unwrap();
        let waits_for: Vec<String> = version.get(1);
        // It may end, and what its coupon is for may be shown.
        assert_eq!(waits_for, ["di_1", "half"], "{} first", first["id"]);
        assert_eq!(version.get::<_, i64>(0), 5_000_000_000, "half of $100");
    }
}

#[tokio::test]
async fn an_ended_subscription_learns_its_discount_too() {
    let ended = json!({"discounts": ["di_1"], "ended_at": NOON + 1, "canceled_at": NOON + 1});
    in_every_order(
        &[
            event(
                "customer.subscription.deleted",
                1,
                subscription("canceled", price("price_1", &json!({})), &ended),
            ),
            event("customer.discount.created", 0, half_off("di_1")),
        ],
        "SELECT concat_ws(' ', discounts->0->'coupon'->>'percent_off',
                          (SELECT count(*) FROM stripe_lookups)) FROM subscriptions",
        "50 0",
    )
    .await;
}

#[tokio::test]
async fn the_plan_of_a_session_counts_once_it_is_paid_for() {
    let session = |payment_status: &str| {
        json!({"id": "cs_1", "object": "checkout.session", "customer": "cus_1",
               "subscription": "sub_1", "mode": "subscription", "status": "complete",
               "payment_status": payment_status, "client_reference_id": "1", "created": NOON,
               "metadata": {"plan": "professional"}})
    };
    let subscribed = event(
        "customer.subscription.created",
        1,
        subscription("active", price("price_1", &json!({})), &json!({})),
    );
    let completed = event("checkout.session.completed", 2, session("unpaid"));
    let plans =
        "SELECT plan_name || ' ' || (SELECT plan FROM users WHERE id = 1) FROM subscriptions";
    in_every_order(
        &[subscribed.clone(), completed.clone()],
        plans,
        "unknown free",
    )
    .await;
    let paid = event(
        "checkout.session.async_payment_succeeded",
        60,
        session("paid"),
    );
    let events = [subscribed, completed, paid];
    in_every_order(&events, plans, "professional professional").await;
}

#[tokio::test]
async fn a_plan_that_nothing_names_leaves_the_users_as_it_was() {
    let customer = json!({"id": "cus_1", "object": "customer", "created": NOON,
        "metadata": {"user_id": "2"}});
    let nameless = |status| subscription(status, price("price_1", &json!({})), &json!({}));
    in_every_order(
        &[
            event("customer.created", 0, customer),
            event("customer.subscription.created", 1, nameless("incomplete")),
            event("customer.subscription.updated", 2, nameless("active")),
        ],
        "SELECT plan FROM users WHERE id = 2",
        "enterprise",
    )
    .await;
}

#[tokio::test]
async fn a_change_to_a_nameless_price_keeps_the_plan_named_before() {
    let customer = json!({"id": "cus_1", "object": "customer", "created": NOON,
        "metadata": {"user_id": "1"}});
    let named = price("price_1", &json!({"plan": "professional"}));
    let nameless = price("price_2", &json!({}));
    in_every_order(
        &[
            event("customer.created", 0, customer),
            event(
                "customer.subscription.created",
                1,
                subscription("active", named, &json!({})),
            ),
            event(
                "customer.subscription.updated",
                2,
                subscription("active", nameless, &json!({})),
            ),
        ],
        "SELECT plan FROM users WHERE id = 1",
        "professional",
    )
    .await;
}

#[tokio::test]
async fn a_customer_that_goes_to_another_user_leaves_the_first() {
    let customer = json!({"id": "cus_1", "object": "customer", "created": NOON,
        "metadata": {"user_id": "1"}});
    let session = json!({"id": "cs_1", "object": "checkout.session", "customer": "cus_1",
        "mode": "setup", "status": "complete", "payment_status": "no_payment_required",
        "client_reference_id": "2", "created": NOON, "metadata": {}});
    in_every_order(
        &[
            event("customer.created", 0, customer),
            event("checkout.session.completed", 1, session),
        ],
        "SELECT concat_ws(' ', id, plan, COALESCE(stripe_customer_id, 'none')) FROM users ORDER BY id",
        "1 free none; 2 enterprise cus_1",
    )
    .await;
}

#[tokio::test]
async fn the_time_an_invoice_was_paid_dates_its_payment() {
    // A second before midnight; everything else is announced after it.
    let paid_at = NOON + 12 * 3_600 - 1;
    let invoice = json!({"id": "in_1", "object": "invoice", "customer": "cus_1", "currency": "usd",
        "status": "paid", "total": 2_999, "subtotal": 2_999, "amount_due": 2_999,
        "amount_paid": 2_999, "amount_remaining": 0, "created": NOON, "metadata": {},
        "lines": {"data": [], "has_more": false},
        "status_transitions": {"finalized_at": NOON, "paid_at": paid_at}});
    let link = json!({"id": "inpay_1", "object": "invoice_payment", "invoice": "in_1",
        "amount_paid": 2_999, "currency": "usd", "status": "paid",
        "status_transitions": {"paid_at": paid_at + 2},
        "payment": {"type": "payment_intent", "payment_intent": "pi_1"}});
    let midnight = 12 * 3_600;
    in_every_order(
        &[
            event("invoice.paid", midnight + 2, invoice),
            event("invoice_payment.paid", midnight + 1, link),
            event("payment_intent.succeeded", midnight + 1, intent()),
            event("charge.succeeded", midnight + 1, charge(&json!({}))),
        ],
        "SELECT concat_ws(' ', day, gross_cents, payments, (SELECT to_char(succeeded_at
                              AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM payment_history))
         FROM revenue_daily",
        "2026-05-01 2999 1 2026-05-01 23:59:59",
    )
    .await;
}

#[tokio::test]
async fn a_voided_credit_note_is_due_again() {
    let invoice = json!({"id": "in_1", "object": "invoice", "customer": "cus_1", "currency": "usd",
        "status": "open", "total": 1_000, "subtotal": 1_000, "amount_due": 1_000,
        "amount_paid": 0, "amount_remaining": 700, "pre_payment_credit_notes_amount": 300,
        "created": NOON, "metadata": {}, "lines": {"data": [], "has_more": false}});
    let note = |status: &str, voided_at: Value| {
        json!({"id": "cn_1", "object": "credit_note", "invoice": "in_1", "customer": "cus_1",
               "amount": 300, "pre_payment_amount": 300, "currency": "usd", "status": status,
               "type": "pre_payment", "created": NOON + 1, "voided_at": voided_at})
    };
    in_every_order(
        &[
            event("credit_note.created", 1, note("issued", Value::Null)),
            event("invoice.updated", 2, invoice),
            event("credit_note.voided", 60, note("void", json!(NOON + 60))),
        ],
        "SELECT amount_due_cents::text FROM invoices",
        "1000",
    )
    .await;
}

#[tokio::test]
async fn a_day_on_which_everything_cancels_out_is_still_a_day() {
    let moved = |id: &str, amount: i64, seconds: i64| {
        json!({"id": id, "object": "balance_transaction", "amount": amount, "fee": 0, "net": amount, "currency": "usd",
               "type": "adjustment", "source": "dp_1", "created": NOON + seconds})
    };
    let withdrawn = || moved("txn_1", -2_999, 86_401);
    let dispute = |status: &str, moved: Value| {
        json!({"id": "dp_1", "object": "dispute", "charge": "ch_1", "payment_intent": "pi_1",
               "amount": 2_999, "currency": "usd", "status": status, "reason": "fraudulent",
               "created": NOON + 86_400, "balance_transactions": moved})
    };
    in_every_order(
        &[
            event("charge.succeeded", 0, charge(&json!({}))),
            event(
                "charge.dispute.funds_withdrawn",
                86_401,
                dispute("needs_response", json!([withdrawn()])),
            ),
            event(
                "charge.dispute.funds_reinstated",
                86_402,
                dispute("won", json!([withdrawn(), moved("txn_2", 2_999, 86_402)])),
            ),
        ],
        "SELECT concat_ws(' ', day, gross_cents, fees_cents, disputes_cents, payments)
         FROM revenue_daily ORDER BY day",
        // 2999 × 2.9 % = 86.97 → 87, + 30.
        "2026-05-01 2999 117 0 1; 2026-05-02 0 0 0 0",
    )
    .await;
}

/// $100 authorised, of which $60 were captured ten seconds later.
fn captured_in_part(rest: &Value) -> Value {
    let mut charge = charge(&json!({"amount": 10_000, "amount_captured": 6_000}));
    let members = charge.as_object_mut().unwrap();
    members.extend(rest.as_object().unwrap().clone());
    charge
}

fn intent_captured_in_part() -> Value {
    let mut intent = intent();
    let amounts = json!({"amount": 10_000, "amount_received": 6_000});
    let members = intent.as_object_mut().unwrap();
    members.extend(amounts.as_object().unwrap().clone());
    intent
}

fn refund(id: &str, amount: i64, seconds: i64) -> Value {
    json!({"id": id, "object": "refund", "amount": amount, "currency": "usd", "charge": "ch_1",
           "payment_intent": "pi_1", "status": "succeeded", "created": NOON + seconds, "metadata": {}})
}

/// The payment, its days, and the refunds that were announced.
const CAPTURED_IN_PART: &str = "
    SELECT concat_ws(' ', payment.amount_cents, refund_amount_cents, status, net_amount_cents, 'on',
                     (SELECT string_agg(concat_ws(' ', day, gross_cents, refunds_cents), ', ' ORDER BY day)
                      FROM revenue_daily), 'told',
                     (SELECT string_agg(dedupe_key, ', ' ORDER BY dedupe_key) FROM outbox
                      WHERE detail_type = 'payment.refunded'))
    FROM payment_history AS payment";

#[tokio::test]
async fn what_a_capture_in_part_releases_is_no_refund() {
    let authorised = json!({"captured": false, "amount_captured": 0});
    let released = |objects: Value| {
        captured_in_part(&json!({"amount_refunded": 4_000, "refunds": {"data": objects}}))
    };
    // 6000 − (174 + 30).
    let expected = "6000 0 succeeded 5796 on 2026-05-01 6000 0 told";
    for objects in [json!([]), json!([refund("re_released", 4_000, 10)])] {
        let events = [
            event("charge.succeeded", 0, captured_in_part(&authorised)),
            event("charge.captured", 10, released(objects.clone())),
            event("charge.refunded", 10, released(objects)),
            event("payment_intent.succeeded", 10, intent_captured_in_part()),
        ];
        in_every_order(&events, CAPTURED_IN_PART, expected).await;
    }
    // Announced by itself, and only the intent says how much was captured.
    let events = [
        event("charge.succeeded", 0, captured_in_part(&authorised)),
        event("refund.created", 10, refund("re_released", 4_000, 10)),
        event("payment_intent.succeeded", 10, intent_captured_in_part()),
    ];
    in_every_order(&events, CAPTURED_IN_PART, expected).await;
}

#[tokio::test]
async fn a_refund_of_what_was_captured_in_part_counts_alone() {
    let captured = |refunded: i64| captured_in_part(&json!({"amount_refunded": refunded}));
    let succeeded = event("payment_intent.succeeded", 10, intent_captured_in_part());
    let day = 86_400;
    let expected = "6000 1000 partially_refunded 4796 on 2026-05-01 6000 0, 2026-05-02 0 1000 \
                    told payment.refunded:ch_1@1000";
    // The totals include the release, or leave it out.
    for (at_capture, later) in [(4_000, 5_000), (0, 1_000)] {
        let by_total = [
            event("charge.captured", 10, captured(at_capture)),
            event("charge.refunded", day, captured(later)),
            succeeded.clone(),
        ];
        in_every_order(&by_total, CAPTURED_IN_PART, expected).await;
        let mut one_by_one = by_total.to_vec();
        one_by_one.push(event("refund.created", day, refund("re_1", 1_000, day)));
        in_every_order(&one_by_one, CAPTURED_IN_PART, expected).await;
        one_by_one.push(event(
            "refund.created",
            10,
            refund("re_released", 4_000, 10),
        ));
        in_every_order(&one_by_one, CAPTURED_IN_PART, expected).await;
    }
}

#[tokio::test]
async fn a_refund_as_large_as_the_release_is_told_from_it() {
    let half = |refunded: i64| {
        captured_in_part(&json!({"amount_captured": 5_000, "amount_refunded": refunded}))
    };
    let mut intent = intent_captured_in_part();
    intent["amount_received"] = json!(5_000);
    let day = 86_400;
    let events = [
        event("charge.captured", 10, half(5_000)),
        event("payment_intent.succeeded", 10, intent),
        event("charge.refunded", day, half(10_000)),
        event("refund.created", day, refund("re_1", 5_000, day)),
    ];
    // 5000 − (145 + 30) − 5000.
    let expected = "5000 5000 refunded -175 on 2026-05-01 5000 0, 2026-05-02 0 5000 \
                    told payment.refunded:ch_1@5000";
    in_every_order(&events, CAPTURED_IN_PART, expected).await;
    let mut with_release = events.to_vec();
    with_release.push(event(
        "refund.created",
        10,
        refund("re_released", 5_000, 10),
    ));
    in_every_order(&with_release, CAPTURED_IN_PART, expected).await;
}

#[tokio::test]
async fn an_authorisation_that_is_released_whole_is_no_refund() {
    let authorised = |refunded: i64| {
        charge(&json!({"captured": false, "amount_captured": 0, "amount_refunded": refunded}))
    };
    let mut canceled = intent();
    canceled["status"] = json!("canceled");
    canceled["amount_received"] = json!(0);
    let events = [
        event("charge.succeeded", 0, authorised(0)),
        event("payment_intent.canceled", 10, canceled),
        event("charge.refunded", 10, authorised(2_999)),
    ];
    let expected = "2999 0 canceled 0 on told";
    in_every_order(&events, CAPTURED_IN_PART, expected).await;
}

/// An invoice paid with $29.99, of which so much is tax.
fn paid_invoice(rest: &Value) -> Value {
    let mut invoice = json!({"id": "in_1", "object": "invoice", "customer": "cus_1",
        "currency": "usd", "status": "paid", "total": 2_999, "subtotal": 2_799,
        "amount_due": 2_999, "amount_paid": 2_999, "amount_remaining": 0, "created": NOON,
        "metadata": {}, "lines": {"data": [], "has_more": false},
        "status_transitions": {"finalized_at": NOON, "paid_at": NOON}});
    let members = invoice.as_object_mut().unwrap();
    members.extend(rest.as_object().unwrap().clone());
    invoice
}

#[tokio::test]
async fn an_empty_list_hides_no_older_field() {
    let invoice = |rest: &Value| [event("invoice.paid", 1, paid_invoice(rest))];
    for (field, payment_id) in [("payment_intent", "pi_1"), ("charge", "ch_1")] {
        in_every_order(
            &invoice(&json!({"payments": {"data": []}, field: payment_id})),
            "SELECT concat_ws(' ', payment_key, stripe_invoice_id, amount_cents,
                              (SELECT count(*) FROM stripe_lookups)) FROM payment_history",
            &format!("{payment_id} in_1 2999 0"),
        )
        .await;
    }
    let taxes = json!([{"amount": 150}, {"amount": 50}]);
    for tax in [
        json!({"total_taxes": [], "total_tax_amounts": taxes}),
        json!({"total_taxes": [], "total_tax_amounts": [], "tax": 200}),
        json!({"total_taxes": null, "total_tax_amounts": [], "tax": 200}),
        json!({"total_taxes": taxes, "total_tax_amounts": [{"amount": 7}], "tax": 7}),
    ] {
        let listed = if tax.to_string().contains("150") {
            2
        } else {
            0
        };
        in_every_order(
            &invoice(&tax),
            "SELECT concat_ws(' ', tax_cents, jsonb_array_length(tax_breakdown)) FROM invoices",
            &format!("200 {listed}"),
        )
        .await;
    }
}

#[tokio::test]
async fn an_invoice_that_names_the_charge_and_an_intent_that_names_it_too_are_one_payment() {
    let events = [
        event("invoice.paid", 1, paid_invoice(&json!({"charge": "ch_1"}))),
        event("payment_intent.succeeded", 1, intent()),
        // Names neither.
        event("invoice.updated", 2, paid_invoice(&json!({}))),
        event("charge.succeeded", 1, charge(&json!({}))),
    ];
    let rows = "
        SELECT concat_ws(' ', payment_key, stripe_charge_id, stripe_invoice_id, amount_cents, 'on',
                         (SELECT string_agg(concat_ws(' ', day, gross_cents, payments), ', ')
                          FROM revenue_daily)) FROM payment_history";
    let expected = "pi_1 ch_1 in_1 2999 on 2026-05-01 2999 1";
    for told in [&events[..2], &events[..3], &events] {
        in_every_order(told, rows, expected).await;
    }
}

#[tokio::test]
async fn a_price_in_another_currency_counts_once_its_options_are_known() {
    let in_euros = json!({"currency": "eur"});
    let subscribed = |price: Value| {
        let subscription = subscription("active", price, &in_euros);
        event("customer.subscription.created", 0, subscription)
    };
    let dollars = price("price_1", &json!({}));
    let mut both = dollars.clone();
    both["currency_options"] = json!({
        "usd": {"unit_amount": 10_000, "unit_amount_decimal": "10000"},
        "eur": {"unit_amount": 9_000, "unit_amount_decimal": "9000"}});
    let rows = "
        SELECT concat_ws(' ', subscriptions.currency, subscriptions.mrr_cents, subscriptions.mrr_provisional,
                         version.mrr_microcents / 1000000, 'after',
                         (SELECT string_agg(concat_ws(' ', kind, after_microcents / 1000000), ', ') FROM mrr_movements),
                         'asked', (SELECT string_agg(concat_ws(' ', kind, stripe_id), ', ') FROM stripe_lookups))
        FROM subscriptions JOIN subscription_versions AS version USING (stripe_subscription_id)";
    let unknown = "EUR 0 t 0 after asked price_currency_options price_1";
    let told_in_dollars = event("price.updated", 1, dollars.clone());
    let known = "EUR 9000 f 9000 after new 9000 asked";
    let fetched = event("price.updated", 2, both.clone());
    let customer = json!({"id": "cus_1", "object": "customer", "created": NOON, "discount": null});
    let customer = event("customer.created", 0, customer);
    in_every_order(&[customer.clone(), subscribed(both)], rows, known).await;
    let mut events = vec![customer, subscribed(dollars), told_in_dollars];
    in_every_order(&events, rows, unknown).await;
    events.push(fetched);
    in_every_order(&events, rows, known).await;
}

#[tokio::test]
async fn a_coupon_of_another_currency_takes_nothing_off_that_is_known() {
    let mut discount = half_off("di_1");
    discount["coupon"] = json!({"id": "ten_off", "object": "coupon", "amount_off": 1_000,
        "currency": "eur", "duration": "forever", "created": NOON});
    let discounted = json!({"discounts": [discount]});
    let subscription = subscription("active", price("price_1", &json!({})), &discounted);
    in_every_order(
        &[event("customer.subscription.created", 0, subscription)],
        "SELECT concat_ws(' ', mrr_cents, mrr_provisional) FROM subscriptions",
        "10000 t",
    )
    .await;
}
