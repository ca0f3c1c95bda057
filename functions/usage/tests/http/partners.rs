//! What a partner sees of its money: the running invoice, and the invoices it has been sent.

use serde_json::{Value, json};
use testing::logs;

use crate::ledger::{Ledger, NOW, app, bearer, call, partner_event, request, service};

impl Ledger {
    /// A contract of `dp_pk_1` since the start of the year, with these further columns and values.
    async fn priced(&self, columns: &str, values: &str) {
        self.run(&format!(
            "INSERT INTO api_partner_contracts (api_key_prefix, currency, contract_start_date, billed_from, {columns}) \
             VALUES ('dp_pk_1', 'USD', '2025-01-01', '2025-01-01', {values})"
        ))
        .await;
    }

    /// This many requests of `dp_pk_1` at an instant.
    async fn served(&self, requests: u32, at: &str) {
        self.run(&format!(
            "INSERT INTO api_usage (api_key_prefix, endpoint, status_code, cost_units, created_at) \
             SELECT 'dp_pk_1', '/deeds', 200, 1, '{at}' FROM generate_series(1, {requests})"
        ))
        .await;
    }

    async fn current(&self, now: &str) -> Value {
        let (status, body) = self.get("/usage/partner/dp_pk_1/current", now).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// An invoice of a partner, numbered and dated by its id.
    async fn invoice(&self, id: u32, prefix: &str, status: &str, columns: &str, values: &str) {
        self.run(&format!(
            "INSERT INTO invoices (id, invoice_number, api_key_prefix, kind, status, currency, total_cents, created_at, \
             {columns}) VALUES ({id}, 'API-{id}', '{prefix}', 'partner', '{status}', 'USD', {id}00, \
             '2025-10-{id:02}T00:00:00Z', {values})"
        ))
        .await;
    }
}

/// What the lines stand for and come to.
fn lines(current: &Value) -> Vec<(&str, i64, i64)> {
    let lines = current["lines"].as_array().expect("lines");
    let figure = |line: &Value, name: &str| line[name].as_i64().expect("a figure");
    lines
        .iter()
        .map(|line| {
            let kind = line["kind"].as_str().expect("a kind");
            (kind, figure(line, "quantity"), figure(line, "total_cents"))
        })
        .collect()
}

#[tokio::test]
async fn the_running_invoice_is_rated_line_by_line_as_the_invoice_will_be() {
    let ledger = Ledger::create().await;
    // The worked example: fee 50000, price 250, 312 units.
    ledger
        .priced(
            "pricing_model, monthly_flat_fee_cents, per_deed_price_cents, tax_rate_bps",
            "'hybrid', 50000, 250, 1000",
        )
        .await;
    ledger.served(5, "2025-10-31T23:59:59Z").await;
    ledger.served(300, "2025-11-01T00:00:00Z").await;
    ledger.served(12, NOW).await;
    let current = ledger.current(NOW).await;
    assert_eq!(
        lines(&current),
        [("flat_fee", 1, 50_000), ("usage", 312, 78_000)]
    );
    for (name, value) in [
        ("pricing_model", json!("hybrid")),
        ("currency", json!("USD")),
        ("as_of", json!(NOW)),
        ("usage", json!({"units": 312, "requests": 312})),
        ("subtotal_cents", json!(128_000)),
        ("tax_cents", json!(12_800)),
        ("total_cents", json!(140_800)),
        (
            "period",
            json!({"start": "2025-11-01T00:00:00Z", "end": "2025-12-01T00:00:00Z",
                   "first_day": "2025-11-01", "last_day": "2025-11-30"}),
        ),
    ] {
        assert_eq!(current[name], value, "{name}");
    }
    // As of an earlier instant, what was used until then.
    let earlier = ledger.current("2025-11-10T00:00:00Z").await;
    assert_eq!(earlier["usage"]["units"], 300);
}

#[tokio::test]
async fn the_running_invoice_counts_what_the_contract_counts() {
    let ledger = Ledger::create().await;
    ledger
        .priced(
            "pricing_model, per_deed_price_cents, unit_source, included_units, minimum_commitment_cents",
            "'per_deed', 100, 'both', 2, 5000",
        )
        .await;
    ledger.served(3, "2025-11-02T00:00:00Z").await;
    let events: Vec<Value> = [
        "2025-10-31T00:00:00Z",
        "2025-11-03T00:00:00Z",
        "2025-11-04T00:00:00Z",
    ]
    .iter()
    .map(|at| partner_event("dp_pk_1", at, at))
    .collect();
    assert_eq!(ledger.ingest(&events, NOW).await, ["accepted"; 3]);
    let current = ledger.current(NOW).await;
    // 3 requests and 2 events, 2 of them included; the minimum brings 300 up to 5000.
    assert_eq!(
        lines(&current),
        [("usage", 3, 300), ("minimum_commitment", 1, 4_700)]
    );
    let void = json!({"subject": "partner:dp_pk_1", "reason": "a test"});
    let path = "/usage/events/2025-11-03T00:00:00Z/void";
    assert_eq!(ledger.post(path, &void, NOW).await.0, 200);
    assert_eq!(ledger.current(NOW).await["lines"][0]["total_cents"], 200);
}

#[tokio::test]
async fn where_nothing_runs_there_is_no_period_and_no_line() {
    let ledger = Ledger::create().await;
    ledger
        .priced(
            "pricing_model, monthly_flat_fee_cents, contract_end_date",
            "'flat', 31000, '2025-11-15'",
        )
        .await;
    // Until it ends, the days of the month that are billed.
    let before = ledger.current("2025-11-10T00:00:00Z").await;
    assert_eq!(before["total_cents"], 15_500);
    assert_eq!(before["period"]["last_day"], "2025-11-15");
    let after = ledger.current("2025-12-10T00:00:00Z").await;
    assert_eq!(
        (&after["period"], &after["lines"], &after["total_cents"]),
        (&Value::Null, &json!([]), &json!(0))
    );
    // What an invoice has billed already is not in the next one.
    ledger
        .invoice(
            1,
            "dp_pk_1",
            "open",
            "contract_id, finalized_at, billing_period_start, billing_period_end",
            "(SELECT id FROM api_partner_contracts), '2025-11-16Z', '2025-11-01Z', '2025-11-16Z'",
        )
        .await;
    let invoiced = ledger.current("2025-11-20T00:00:00Z").await;
    assert_eq!(invoiced["period"], Value::Null);
}

#[tokio::test]
async fn a_contract_that_is_not_there_or_cannot_be_priced_is_told_apart() {
    let ledger = Ledger::create().await;
    let path = "/usage/partner/dp_pk_1/current";
    assert_eq!(ledger.get(path, NOW).await.0, 404);
    let (status, body) = ledger.get(&format!("{path}?at=1"), NOW).await;
    assert_eq!((status, &body["field"]), (400, &json!("at")));
    // As the predecessor may have left it.
    ledger.priced("pricing_model", "'per_deed'").await;
    let (status, body) = ledger.get(path, NOW).await;
    assert_eq!((status, &body["code"]), (503, &json!("not_configured")));
    assert!(logs::captured().contains("per_deed_price_cents"));
}

#[tokio::test]
async fn a_partner_lists_what_it_was_sent_with_links_to_the_pdfs() {
    let ledger = Ledger::create().await;
    let no_more = ("notes", "NULL");
    let ours = ("pdf_key", "'invoices/partner/2.pdf'");
    let stripes = (
        "stripe_invoice_id, invoice_pdf_url",
        "'in_3', 'https://pay.stripe.com/x/pdf'",
    );
    for (id, prefix, status, (columns, values)) in [
        (1, "dp_pk_1", "void", no_more),
        (2, "dp_pk_1", "paid", ours),
        (3, "dp_pk_1", "open", stripes),
        (4, "dp_pk_1", "draft", no_more),
        (5, "dp_pk_2", "open", no_more),
    ] {
        ledger.invoice(id, prefix, status, columns, values).await;
    }
    let own = bearer(json!({"partner": "dp_pk_1"}));
    let ask = async |query: &str| {
        let path = format!("/usage/partner/dp_pk_1/invoices{query}");
        ledger
            .call(request("GET", &path, Some(&own), None), NOW)
            .await
    };
    let numbers = |body: &Value| -> Vec<String> {
        let rows = body["data"].as_array().expect("rows");
        let number = |row: &Value| row["invoice_number"].as_str().expect("a number").to_owned();
        rows.iter().map(number).collect()
    };
    let (status, all) = ask("").await;
    assert_eq!(status, 200, "{all}");
    assert_eq!(numbers(&all), ["API-3", "API-2", "API-1"]);
    assert_eq!(all["next_cursor"], Value::Null);
    let links: Vec<&Value> = all["data"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| &row["pdf_url"])
        .collect();
    assert_eq!(
        (links[0], links[2]),
        (&json!("https://pay.stripe.com/x/pdf"), &Value::Null)
    );
    let link = links[1].as_str().expect("a link");
    for part in ["/invoices/partner/2.pdf?", "X-Amz-Expires=600", "API-2.pdf"] {
        assert!(link.contains(part), "{link} has no {part}");
    }
    assert!(all["data"][1].get("pdf_key").is_none());

    // Page by page, and by status and date.
    let (_, first) = ask("?limit=2").await;
    assert_eq!(numbers(&first), ["API-3", "API-2"]);
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let (_, last) = ask(&format!("?limit=2&cursor={cursor}")).await;
    assert_eq!(
        (numbers(&last), &last["next_cursor"]),
        (vec!["API-1".to_owned()], &Value::Null)
    );
    assert_eq!(numbers(&ask("?status=paid").await.1), ["API-2"]);
    assert_eq!(
        numbers(&ask("?from=2025-10-02&to=2025-10-03").await.1),
        ["API-2"]
    );
    for (query, field) in [
        ("?status=draft", "status"),
        ("?from=x", "from"),
        ("?limit=501", "limit"),
        ("?cursor=!", "cursor"),
        ("?api_key_prefix=dp_pk_2", "api_key_prefix"),
    ] {
        let (status, body) = ask(query).await;
        assert_eq!((status, &body["field"]), (400, &json!(field)), "{query}");
    }
    // Without a bucket only what is in it cannot be linked to.
    let app = app(&ledger.database.url, &[("DOCUMENT_BUCKET", "")]);
    let get = |path: &str| request("GET", path, Some(&service()), None);
    assert_eq!(
        call(&app, get("/usage/partner/dp_pk_2/invoices"), NOW)
            .await
            .0,
        200
    );
    assert_eq!(
        call(&app, get("/usage/partner/dp_pk_1/invoices"), NOW)
            .await
            .0,
        503
    );
}
