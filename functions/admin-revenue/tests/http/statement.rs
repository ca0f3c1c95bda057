//! A partner's statement of account, against hand-computed balances and the invoices as JSON.

use std::collections::BTreeMap;

use serde_json::json;

use crate::ledger::Ledger;

const NOW: &str = "2025-12-22T00:00:00Z";

/// Two currencies; a payment in two parts, a void, a credit, an invoice nobody entered a payment for, a draft, another
/// partner's.
const STORY: &str = "
    INSERT INTO api_partner_contracts (id, api_key_prefix, company, pricing_model, monthly_flat_fee_cents, currency,
        contract_start_date, created_at)
        VALUES (5, 'dp_pk_alpha', 'Alpha Title', 'flat', 10000, 'EUR', '2025-10-01', '2025-09-15Z'),
               (6, 'dp_pk_beta', 'Beta', 'flat', 10000, 'USD', '2025-10-01', '2025-09-15Z');
    INSERT INTO invoices (id, invoice_number, kind, api_key_prefix, currency, total_cents, credit_applied_cents,
        amount_paid_cents, amount_due_cents, status, finalized_at, paid_at, voided_at, created_at)
        VALUES (1, 'A-1', 'partner', 'dp_pk_alpha', 'EUR', 10000, 1000, 6000, 3000, 'open', '2025-10-01Z', NULL, NULL,
                '2025-09-30Z'),
               (2, 'A-2', 'partner', 'dp_pk_alpha', 'EUR', 5000, 0, 0, 0, 'void', '2025-11-01Z', NULL, '2025-11-03Z',
                '2025-11-01Z'),
               (3, '=A-3', 'partner', 'dp_pk_alpha', 'EUR', 700, 0, 700, 0, 'paid', '2025-08-01Z', '2025-08-09Z', NULL,
                '2025-08-01Z'),
               (4, 'A-4', 'partner', 'dp_pk_alpha', 'JPY', 900, 0, 0, 900, 'uncollectible', NULL, NULL, NULL,
                '2025-11-02Z'),
               (7, 'A-5', 'partner', 'dp_pk_alpha', 'EUR', 111, 0, 0, 111, 'draft', NULL, NULL, NULL, '2025-11-02Z'),
               (8, 'B-1', 'partner', 'dp_pk_beta', 'USD', 222, 0, 0, 222, 'open', NULL, NULL, NULL, '2025-11-02Z');
    INSERT INTO payment_history (payment_key, invoice_id, amount_cents, currency, status, payment_method, reference,
        succeeded_at, created_at)
        VALUES ('manual:1:1', 1, 4000, 'EUR', 'succeeded', 'wire', '=cmd|x', '2025-10-20Z', '2025-10-20Z'),
               ('manual:1:2', 1, 2000, 'EUR', 'succeeded', 'wire', NULL, '2025-11-20Z', '2025-11-20Z'),
               ('pi_failed', 1, 2000, 'EUR', 'failed', 'card', NULL, NULL, '2025-11-19Z');
    INSERT INTO credits (id, api_key_prefix, amount_cents, remaining_cents, currency, reason, description)
        VALUES (9, 'dp_pk_alpha', 1000, 0, 'EUR', 'goodwill', 'sorry, again');
    INSERT INTO credit_applications (credit_id, invoice_id, amount_cents, applied_at) VALUES (9, 1, 1000, '2025-10-01Z')";

#[tokio::test]
async fn a_statement_runs_from_the_opening_to_the_closing_balance_of_each_currency() {
    let ledger = Ledger::create().await;
    ledger.run(STORY).await;
    let path = "/admin/contracts/5/statement.csv?from=2025-10-02&to=2025-11-20";
    let (status, name, text) = ledger.file(path, NOW).await;
    assert_eq!(
        (status, name.as_str()),
        (200, "attachment; filename=\"statement-5.csv\"")
    );
    // 100.00 billed, 10.00 credited on the 1st.
    assert_eq!(
        text,
        "date,entry,invoice_number,reference,debit,credit,balance,currency\r\n\
         2025-10-02,opening_balance,,,,,90.00,EUR\r\n\
         2025-10-20,payment,A-1,'=cmd|x,,40.00,50.00,EUR\r\n\
         2025-11-01,invoice,A-2,,50.00,,100.00,EUR\r\n\
         2025-11-03,void,A-2,,,50.00,50.00,EUR\r\n\
         2025-11-20,closing_balance,,,,,50.00,EUR\r\n\
         2025-10-02,opening_balance,,,,,0,JPY\r\n\
         2025-11-02,invoice,A-4,,900,,900,JPY\r\n\
         2025-11-20,closing_balance,,,,,900,JPY\r\n"
    );
}

#[tokio::test]
async fn the_whole_statement_ends_with_what_is_due_by_the_invoices() {
    let ledger = Ledger::create().await;
    ledger.run(STORY).await;
    let (_, _, text) = ledger.file("/admin/contracts/5/statement.csv", NOW).await;
    let rows: Vec<BTreeMap<String, String>> = csv::Reader::from_reader(text.as_bytes())
        .deserialize()
        .map(|row| row.expect("a row"))
        .collect();
    let units = |text: &str| text.replace('.', "").parse::<i64>().unwrap_or_default();
    let sum = |side: &str, entry: &str, currency: &str| -> i64 {
        let rows = rows.iter();
        let rows = rows.filter(|row| row["currency"] == currency && row["entry"] == entry);
        rows.map(|row| units(&row[side])).sum()
    };
    let (_, listed) = ledger
        .get("/admin/invoices?api_key_prefix=dp_pk_alpha", NOW)
        .await;
    let invoices = listed["data"].as_array().unwrap();
    let of = |member: &str, currency: &str| -> i64 {
        let invoices = invoices
            .iter()
            .filter(|invoice| invoice["currency"] == currency && invoice["status"] != "draft");
        invoices
            .filter_map(|invoice| invoice[member].as_i64())
            .sum()
    };
    for currency in ["EUR", "JPY"] {
        assert_eq!(
            sum("debit", "invoice", currency),
            of("total_cents", currency)
        );
        assert_eq!(
            sum("credit", "payment", currency),
            of("amount_paid_cents", currency)
        );
        assert_eq!(
            sum("credit", "credit", currency),
            of("credit_applied_cents", currency)
        );
        assert_eq!(
            sum("balance", "closing_balance", currency),
            of("amount_due_cents", currency)
        );
    }
    assert_eq!(sum("balance", "closing_balance", "EUR"), 3_000);
    // Paid, but nobody entered how; its number is no formula.
    let predecessors = rows.iter().find(|row| row["date"] == "2025-08-09").unwrap();
    assert_eq!(
        (
            predecessors["entry"].as_str(),
            predecessors["invoice_number"].as_str()
        ),
        ("payment", "'=A-3")
    );
    let (_, _, none) = ledger
        .file("/admin/contracts/6/statement.csv?to=2025-01-01", NOW)
        .await;
    assert_eq!(
        none.lines().skip(1).collect::<Vec<_>>(),
        [
            ",opening_balance,,,,,0.00,USD",
            "2025-01-01,closing_balance,,,,,0.00,USD"
        ]
    );
}

#[tokio::test]
async fn what_is_no_statement_is_refused() {
    let ledger = Ledger::create().await;
    ledger.run(STORY).await;
    for (path, status, field) in [
        ("5/statement.csv?from=x", 400, json!("from")),
        ("5/statement.csv?to=2025-13-01", 400, json!("to")),
        (
            "5/statement.csv?from=2025-02-01&to=2025-01-01",
            400,
            json!("from"),
        ),
        ("5/statement.csv?currency=EUR", 400, json!("currency")),
        ("99/statement.csv", 404, json!(null)),
        ("05/statement.csv", 404, json!(null)),
        ("5/statement", 404, json!(null)),
    ] {
        let (answered, problem) = ledger.get(&format!("/admin/contracts/{path}"), NOW).await;
        assert_eq!((answered, &problem["field"]), (status, &field), "{path}");
    }
    ledger.run("DROP TABLE credit_applications").await;
    let (status, _) = ledger.get("/admin/contracts/5/statement.csv", NOW).await;
    assert_eq!(status, 500, "a failed read is no empty statement");
}
