//! One invoice, payment, customer or contract with all that belongs to it.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ledger::{Ledger, bearer, body, handle, request};

const NOW: &str = "2026-11-22T00:00:00Z";

/// One subscription invoice that was paid by a second attempt and partly refunded, with a credit on it, and a
/// partner's.
const STORY: &str = "
    INSERT INTO users (id, email, full_name, plan, stripe_customer_id) VALUES (3, 'z@example.test', 'Zoë', 'professional',
        'cus_1');
    INSERT INTO customers (stripe_customer_id, user_id, email, currency, created_at)
        VALUES ('cus_1', 3, 'z@example.test', 'USD', '2025-01-01Z');
    INSERT INTO invoices (id, invoice_number, stripe_invoice_id, stripe_customer_id, user_id, kind, currency,
        subtotal_cents, total_cents, amount_paid_cents, amount_due_cents, credit_applied_cents, status, line_items,
        invoice_pdf_url, created_at)
        VALUES (7, 'INV-7', 'in_7', 'cus_1', 3, 'subscription', 'USD', 3000, 3000, 2500, 0, 500, 'paid',
                '{\"items\": [{\"description\": \"Professional\", \"quantity\": 1, \"total_cents\": 3000}]}',
                'https://pay.example.test/in_7/pdf', '2025-10-01Z'),
               (8, 'INV-8', 'in_8', 'cus_1', 3, 'subscription', 'USD', 3000, 3000, 0, 3000, 0, 'open', NULL, NULL,
                '2025-11-01Z');
    INSERT INTO invoices (id, invoice_number, api_key_prefix, kind, currency, total_cents, amount_due_cents, status,
        metadata, created_at)
        VALUES (9, 'API-202510-dp_pk_alpha', 'dp_pk_alpha', 'partner', 'EUR', 12800, 12800, 'open', '{\"a\": 1}',
                '2025-11-01Z');
    INSERT INTO invoices (id, invoice_number, stripe_invoice_id, superseded) VALUES (10, 'INV-7', 'in_10', true);
    INSERT INTO payment_history (id, payment_key, invoice_id, user_id, stripe_payment_intent_id, stripe_charge_id,
        stripe_customer_id, amount_cents, currency, status, stripe_fee_cents, net_amount_cents, refund_amount_cents,
        created_at, succeeded_at)
        VALUES (21, 'pi_1', 7, 3, 'pi_1', 'ch_2', 'cus_1', 2500, 'USD', 'partially_refunded', 103, 1897, 500,
                '2025-10-01Z', '2025-10-02Z'),
               (22, 'py_alone', NULL, NULL, NULL, 'py_alone', NULL, 800, 'USD', 'succeeded', 0, 800, 0, '2025-10-05Z',
                '2025-10-05Z'),
               (23, 'wire:9', 9, NULL, NULL, NULL, NULL, 800, 'EUR', 'succeeded', 0, 800, 0, '2025-11-05Z',
                '2025-11-05Z');
    INSERT INTO payment_attempts (stripe_charge_id, stripe_payment_intent_id, amount_cents, amount_captured_cents,
        currency, status, captured, failure_code, attempted_at)
        VALUES ('ch_1', 'pi_1', 2500, 0, 'USD', 'failed', false, 'card_declined', '2025-10-01Z'),
               ('ch_2', 'pi_1', 2500, 2500, 'USD', 'succeeded', true, NULL, '2025-10-02Z'),
               ('py_alone', NULL, 800, 800, 'USD', 'succeeded', true, NULL, '2025-10-05Z');
    INSERT INTO refunds (stripe_refund_id, stripe_charge_id, amount_cents, currency, reason, status, created_at)
        VALUES ('re_1', 'ch_2', 500, 'USD', 'requested_by_customer', 'succeeded', '2025-10-09Z'),
               ('re_2', 'ch_of_another', 1, 'USD', NULL, 'succeeded', '2025-10-09Z');
    INSERT INTO disputes (stripe_dispute_id, stripe_charge_id, stripe_payment_intent_id, amount_cents, currency, reason,
        status, fee_cents, created_at)
        VALUES ('dp_1', 'ch_2', 'pi_1', 2500, 'USD', 'fraudulent', 'won', 1500, '2025-10-12Z');
    INSERT INTO credits (id, user_id, amount_cents, remaining_cents, currency, reason, expires_at, voided_at, created_at)
        VALUES (31, 3, 700, 200, 'USD', 'goodwill', NULL, NULL, '2025-09-01Z'),
               (32, 3, 900, 900, 'USD', 'goodwill', '2026-01-01Z', NULL, '2025-09-01Z'),
               (33, 3, 0, 0, 'USD', 'goodwill', NULL, '2025-09-02Z', '2025-09-01Z'),
               (34, 3, 50, 50, 'EUR', 'promotional', '2030-01-01Z', NULL, '2025-09-01Z');
    INSERT INTO credits (id, stripe_customer_id, amount_cents, remaining_cents, currency, reason)
        VALUES (35, 'cus_1', 40, 40, 'USD', 'refund');
    INSERT INTO credit_applications (credit_id, invoice_id, amount_cents, applied_at)
        VALUES (31, 7, 500, '2025-10-01Z');
    INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, user_id, status, plan_name, currency,
        mrr_microcents, created_at)
        VALUES ('sub_1', 'cus_1', 3, 'active', 'professional', 'USD', 2500500000, '2025-01-01Z'),
               ('sub_2', 'cus_1', 3, 'active', 'extra', 'USD', 1000000000, '2025-02-01Z'),
               ('sub_3', 'cus_1', 3, 'active', 'extra', 'EUR', 333333333, '2025-03-01Z'),
               ('sub_4', 'cus_1', 3, 'canceled', 'extra', 'GBP', 0, '2025-04-01Z');
    INSERT INTO api_partner_contracts (id, api_key_prefix, company, pricing_model, per_deed_price_cents,
        monthly_flat_fee_cents, contract_start_date, billed_from, created_at)
        VALUES (5, 'dp_pk_alpha', 'Alpha Title', 'hybrid', 250, 50000, '2025-10-01', '2025-10-01', '2025-09-15Z')";

/// The values of one member of a list of objects.
fn all<'a>(objects: &'a Value, member: &str) -> Vec<&'a Value> {
    let objects = objects.as_array().expect("a list");
    objects.iter().map(|object| &object[member]).collect()
}

async fn story() -> Ledger {
    let ledger = Ledger::create().await;
    ledger.run(STORY).await;
    ledger
}

#[tokio::test]
async fn an_invoice_has_its_lines_payments_and_credits_under_either_id() {
    let ledger = story().await;
    let (status, invoice) = ledger.get("/admin/invoices/7", NOW).await;
    assert_eq!(status, 200);
    assert_eq!(invoice["invoice_number"], "INV-7");
    assert_eq!(invoice["amount_due_cents"], 0);
    assert_eq!(
        invoice["lines"],
        json!([{"description": "Professional", "quantity": 1, "total_cents": 3000}])
    );
    assert_eq!(invoice.get("line_items"), None, "they are the lines");
    assert_eq!(all(&invoice["payments"], "payment_key"), ["pi_1"]);
    assert_eq!(all(&invoice["payments"], "stripe_fee_cents"), [103]);
    assert_eq!(
        invoice["credits"],
        json!([{"credit_id": 31, "amount_cents": 500, "currency": "USD", "reason": "goodwill", "description": null,
                "applied_at": "2025-10-01T00:00:00Z"}])
    );
    assert_eq!(ledger.get("/admin/invoices/in_7", NOW).await.1, invoice);
    let (_, open) = ledger.get("/admin/invoices/in_8", NOW).await;
    assert_eq!(
        (&open["lines"], &open["payments"], &open["credits"]),
        (&json!([]), &json!([]), &json!([]))
    );
}

#[tokio::test]
async fn a_payment_has_its_attempts_refunds_and_disputes_under_any_of_its_ids() {
    let ledger = story().await;
    let (status, payment) = ledger.get("/admin/payments/21", NOW).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&payment["net_amount_cents"], &payment["currency"]),
        (&json!(1897), &json!("USD"))
    );
    assert_eq!(
        all(&payment["attempts"], "stripe_charge_id"),
        ["ch_1", "ch_2"]
    );
    assert_eq!(all(&payment["refunds"], "stripe_refund_id"), ["re_1"]);
    assert_eq!(all(&payment["disputes"], "stripe_dispute_id"), ["dp_1"]);
    assert_eq!(payment["disputes"][0]["fee_cents"], 1500);
    for id in ["pi_1", "ch_1", "ch_2"] {
        let (_, same) = ledger.get(&format!("/admin/payments/{id}"), NOW).await;
        assert_eq!(same, payment, "{id}");
    }
    let (_, alone) = ledger.get("/admin/payments/py_alone", NOW).await;
    assert_eq!(all(&alone["attempts"], "stripe_charge_id"), ["py_alone"]);
    assert_eq!((&alone["id"], &alone["refunds"]), (&json!(22), &json!([])));
}

#[tokio::test]
async fn a_customer_has_its_user_subscriptions_open_invoices_credits_and_mrr() {
    let ledger = story().await;
    let (status, customer) = ledger.get("/admin/customers/cus_1", NOW).await;
    assert_eq!(status, 200);
    assert_eq!(
        customer["user"],
        json!({"id": 3, "email": "z@example.test", "full_name": "Zoë", "plan": "professional",
               "stripe_customer_id": "cus_1"})
    );
    let subscriptions = all(&customer["subscriptions"], "stripe_subscription_id");
    assert_eq!(subscriptions, ["sub_4", "sub_3", "sub_2", "sub_1"]);
    assert_eq!(all(&customer["open_invoices"], "id"), [8]);
    // 200 + 40 USD: what has expired or was voided is nothing.
    assert_eq!(
        customer["credit_balances"],
        json!([{"currency": "EUR", "remaining_cents": 50}, {"currency": "USD", "remaining_cents": 240}])
    );
    // 3500.5 is rounded to even.
    assert_eq!(
        customer["mrr"],
        json!([{"currency": "EUR", "mrr_cents": 333, "mrr_microcents": 333_333_333},
               {"currency": "USD", "mrr_cents": 3500, "mrr_microcents": 3_500_500_000_i64}])
    );
    ledger
        .run("INSERT INTO customers (stripe_customer_id) VALUES ('cus_named')")
        .await;
    let (_, named) = ledger.get("/admin/customers/cus_named", NOW).await;
    assert_eq!(
        (&named["user"], &named["mrr"], &named["open_invoices"]),
        (&Value::Null, &json!([]), &json!([]))
    );
}

#[tokio::test]
async fn a_contract_is_its_columns() {
    let ledger = story().await;
    let (status, contract) = ledger.get("/admin/contracts/5", NOW).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&contract["company"], &contract["contract_start_date"]),
        (&json!("Alpha Title"), &json!("2025-10-01"))
    );
    let (_, listed) = ledger.get("/admin/contracts", NOW).await;
    assert_eq!(listed["data"], json!([contract]));
}

#[tokio::test]
async fn what_is_not_there_is_a_404_however_the_id_is_written() {
    let ledger = story().await;
    for path in [
        "invoices/99",
        "invoices/10",
        "invoices/in_10",
        "invoices/in_99",
        "invoices/07",
        "invoices/7.0",
        "invoices/-7",
        "invoices/9223372036854775808",
        "invoices/INV-7",
        "invoices/in_%00",
        "invoices/7/pdf/x",
        "payments/99",
        "payments/ch_99",
        "payments/%00",
        "payments/ch_of_another",
        "customers/cus_9",
        "customers/3",
        "customers/a%00b",
        "contracts/9",
        "contracts/dp_pk_alpha",
        "contracts/05",
    ] {
        let (status, problem) = ledger.get(&format!("/admin/{path}"), NOW).await;
        assert_eq!(
            (status, &problem["code"]),
            (404, &json!("not_found")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_partner_reads_its_own_invoice_without_our_costs_and_no_others() {
    let ledger = story().await;
    let now: Timestamp = NOW.parse().unwrap();
    let exp = now.as_second() + 60;
    let get = async |partner: &str, path: &str| {
        let token = bearer(&json!({"exp": exp, "partner": partner}));
        let response = handle(&ledger.app, request("GET", path, Some(&token)), now).await;
        (response.status().as_u16(), body(&response))
    };
    let (status, invoice) = get("dp_pk_alpha", "/admin/invoices/9").await;
    assert_eq!(status, 200);
    assert_eq!(invoice["total_cents"], 12800);
    assert_eq!(
        invoice["payments"],
        json!([{"id": 23, "invoice_id": 9, "amount_cents": 800, "applied_cents": 800, "currency": "EUR", "status": "succeeded",
                "payment_method": null, "refund_amount_cents": 0, "succeeded_at": "2025-11-05T00:00:00Z",
                "created_at": "2025-11-05T00:00:00Z"}])
    );
    for member in ["metadata", "pdf_key"] {
        assert_eq!(invoice.get(member), None);
    }
    for (partner, path) in [
        ("dp_pk_beta", "/admin/invoices/9"),
        ("dp_pk_alpha", "/admin/invoices/7"),
        ("dp_pk_alpha", "/admin/invoices/in_7"),
        ("dp_pk_alpha", "/admin/invoices/99"),
    ] {
        assert_eq!(get(partner, path).await.0, 404, "{partner} {path}");
    }
}
