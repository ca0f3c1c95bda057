//! What no refusal of a handler tells: what a route is for, what its body's members are, what it answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Schemas of rows, and the tables their columns are of.
pub(super) const ROWS: &[(&str, &str)] = &[
    ("Invoice", "invoices"),
    ("Payment", "payment_history"),
    ("Subscription", "subscriptions"),
    ("Customer", "customers"),
    ("Contract", "api_partner_contracts"),
    ("Credit", "credits"),
    ("AuditEntry", "audit_log"),
    ("ReconciliationRun", "reconciliation_runs"),
    ("ReconciliationItem", "reconciliation_items"),
];

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn nullable(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

fn list_of(name: &str) -> Value {
    json!({
        "type": "object",
        "required": ["data", "next_cursor"],
        "properties": {
            "data": {"type": "array", "items": reference(name)},
            "next_cursor": {"type": ["string", "null"]},
        },
    })
}

/// An object of which these members are always there; others may be.
fn object(members: &[(&str, Value)]) -> Value {
    let properties: serde_json::Map<String, Value> = members
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// The same object, which may have these members, too.
fn and_maybe(mut object: Value, members: &[(&str, Value)]) -> Value {
    for (name, schema) in members {
        object["properties"][*name] = schema.clone();
    }
    object
}

fn integer() -> Value {
    json!({"type": "integer"})
}

fn maybe_integer() -> Value {
    json!({"type": ["integer", "null"]})
}

fn string() -> Value {
    json!({"type": "string"})
}

fn instant() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn date() -> Value {
    json!({"type": ["string", "null"], "format": "date"})
}

fn text() -> Value {
    json!({"type": ["string", "null"], "minLength": 1, "maxLength": 255})
}

fn amount() -> Value {
    json!({"type": ["integer", "null"], "minimum": 0})
}

fn moment() -> Value {
    json!({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]})
}

fn got(description: &str, schema: Value) -> Value {
    json!({"200": {"description": description, "schema": schema}})
}

/// A row of a table, and what belongs to it.
fn row_with(name: &str, members: &[(&str, Value)]) -> Value {
    json!({"allOf": [reference(name), object(members)]})
}

/// The answer in place of a file that is too large to be one.
fn elsewhere() -> Value {
    json!({"description": "Where a large file lies for ten minutes", "location": true})
}

fn read(summary: &str, schema: Value) -> Value {
    json!({"summary": summary, "answers": got(summary, schema)})
}

/// By `METHOD /path`.
pub(super) fn operations() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (key, operation) in webhook()
        .into_iter()
        .chain(reads())
        .chain(writes())
        .chain(usage())
    {
        all.insert(key.to_owned(), operation);
    }
    all
}

fn webhook() -> Vec<(&'static str, Value)> {
    let delivery = |summary: &str| {
        json!({
            "summary": summary,
            "headers": [{"name": "Stripe-Signature", "in": "header", "required": true,
                "schema": {"type": "string"}, "description": "t=…,v1=…"}],
            "raw_body": {"application/json": {"schema": {"type": "object"}}},
            "answers": got("Kept", object(&[
                ("received", json!({"const": true})),
                ("outcome", json!({"enum": ["applied", "duplicate", "ignored", "parked"]})),
            ])),
        })
    };
    vec![
        ("POST /payments/webhook", delivery("An event of Stripe")),
        (
            "POST /webhooks/stripe",
            delivery("An event of Stripe, at the predecessor's address"),
        ),
    ]
}

fn reads() -> Vec<(&'static str, Value)> {
    let errors =
        json!({"type": "array", "items": object(&[("field", string()), ("reason", string())])});
    let rows = |name: &str| {
        (
            name.to_owned(),
            json!({"type": ["array", "null"], "items": {"type": "object"}}),
        )
    };
    let figures = |members: &[(&str, Value)], listed: &str| {
        let (name, schema) = rows(listed);
        let mut all = members.to_vec();
        all.push((&name, schema));
        all.push(("errors", errors.clone()));
        object(&all)
    };
    vec![
        (
            "GET /admin/revenue",
            read(
                "The dashboard's figures",
                object(&[
                    ("currency", string()),
                    ("as_of", instant()),
                    ("overview", nullable(reference("Overview"))),
                    (
                        "monthly_breakdown",
                        json!({"type": ["array", "null"], "items": reference("Month")}),
                    ),
                    ("mrr_arr", nullable(reference("MrrArr"))),
                    ("churn", json!({"type": ["object", "null"]})),
                    ("subscriptions", json!({"type": ["object", "null"]})),
                    (
                        "by_currency",
                        json!({"type": ["array", "null"], "items": {"type": "object"}}),
                    ),
                    (
                        "unconverted_currencies",
                        json!({"type": ["array", "null"], "items": string()}),
                    ),
                    ("estimated_fees", json!({"type": ["boolean", "null"]})),
                    ("errors", errors.clone()),
                ]),
            ),
        ),
        (
            "GET /admin/revenue/movements",
            read(
                "The MRR bridge, oldest period first",
                figures(
                    &[
                        ("profile", string()),
                        ("currency", string()),
                        ("granularity", string()),
                        ("from", instant()),
                        ("to", instant()),
                        ("as_of", instant()),
                        ("order", string()),
                        ("definitions", json!({"type": "object"})),
                    ],
                    "periods",
                ),
            ),
        ),
        (
            "GET /admin/revenue/cohorts",
            read(
                "Customers and MRR kept, by the month they began",
                figures(
                    &[
                        ("currency", string()),
                        ("from", instant()),
                        ("to", instant()),
                        ("as_of", instant()),
                        ("order", string()),
                        ("definition", string()),
                    ],
                    "cohorts",
                ),
            ),
        ),
        (
            "GET /admin/reports/{report}",
            json!({
                "summary": "A report for finance, as JSON or, with .csv, as a file",
                "path": {"report": with_files(&["top-customers", "failed-payments", "refunds", "disputes", "fees",
                    "tax", "partners", "plan-changes", "aging"])},
                "answers": {"200": {"description": "The report", "csv": true, "schema": figures(&[
                    ("report", string()), ("currency", string()), ("as_of", instant()),
                    ("totals", json!({"type": ["object", "null"]})), ("definition", string()),
                ], "rows")}},
            }),
        ),
        (
            "GET /admin/exports/{export}",
            json!({
                "summary": "A table, or the journal, as CSV",
                "path": {"export": ["payments.csv", "invoices.csv", "refunds.csv", "usage.csv", "subscriptions.csv",
                    "mrr-movements.csv", "journal.csv"]},
                "answers": {"200": {"description": "The file", "csv": true}, "303": elsewhere()},
            }),
        ),
        ("GET /admin/health", {
            let health = object(&[
                ("status", json!({"enum": ["ok", "degraded"]})),
                (
                    "checks",
                    json!({"type": "object", "additionalProperties":
                    {"enum": ["ok", "unavailable", "timed_out", "not_configured"]}}),
                ),
            ]);
            json!({"summary": "Whether everything can be reached", "answers": {
                "200": {"description": "Everything can", "schema": health},
                "503": {"description": "Something cannot", "schema": health},
            }})
        }),
        (
            "GET /admin/invoices",
            read("Invoices, newest first", list_of("Invoice")),
        ),
        (
            "GET /admin/payments",
            read("Payments, newest first", list_of("Payment")),
        ),
        (
            "GET /admin/subscriptions",
            read("Subscriptions, newest first", list_of("Subscription")),
        ),
        (
            "GET /admin/customers",
            read("Customers, newest first", list_of("Customer")),
        ),
        (
            "GET /admin/contracts",
            read("Partners' contracts, newest first", list_of("Contract")),
        ),
        (
            "GET /admin/credits",
            read("Credits, newest first", list_of("Credit")),
        ),
        (
            "GET /admin/events",
            read("Stripe's events without their bodies", list_of("Event")),
        ),
        (
            "GET /admin/events/parked",
            read("Parked and poisoned events", list_of("Event")),
        ),
        (
            "GET /admin/audit-log",
            read("Who changed what, newest first", list_of("AuditEntry")),
        ),
        (
            "GET /admin/reconciliation",
            read("Runs of the reconciliation", list_of("ReconciliationRun")),
        ),
        (
            "GET /admin/reconciliation/{run_id}",
            json!({
                "summary": "A run with a page of its items; {run_id}.csv: all of them as a file",
                "answers": {"200": {"description": "The run", "csv": true, "schema": row_with("ReconciliationRun", &[
                        ("items", json!({"type": "array", "items": reference("ReconciliationItem")})),
                        ("next_cursor", json!({"type": ["string", "null"]})),
                    ])}, "303": elsewhere()},
            }),
        ),
        (
            "GET /admin/invoices/{id}",
            read(
                "One invoice with what belongs to it",
                row_with(
                    "Invoice",
                    &[
                        ("lines", json!({"type": "array"})),
                        (
                            "payments",
                            json!({"type": "array", "items": reference("Payment")}),
                        ),
                        ("credits", json!({"type": "array"})),
                    ],
                ),
            ),
        ),
        (
            "GET /admin/invoices/{id}/pdf",
            json!({"summary": "The invoice's PDF", "answers":
                {"302": {"description": "Where the PDF lies", "location": true}}, "refusals": ["409"]}),
        ),
        (
            "GET /admin/payments/{id}",
            read(
                "One payment with what belongs to it",
                row_with(
                    "Payment",
                    &[
                        ("attempts", json!({"type": "array"})),
                        ("refunds", json!({"type": "array"})),
                        ("disputes", json!({"type": "array"})),
                    ],
                ),
            ),
        ),
        (
            "GET /admin/customers/{stripe_customer_id}",
            read(
                "One customer with what belongs to it",
                row_with(
                    "Customer",
                    &[
                        ("user", json!({"type": ["object", "null"]})),
                        ("subscriptions", json!({"type": "array"})),
                        ("open_invoices", json!({"type": "array"})),
                        ("credit_balances", json!({})),
                        ("mrr", json!({})),
                    ],
                ),
            ),
        ),
        (
            "GET /admin/contracts/{id}",
            read("One contract", reference("Contract")),
        ),
        (
            "GET /admin/contracts/{id}/statement.csv",
            json!({
                "summary": "A partner's statement of account, as CSV",
                "answers": {"200": {"description": "The file", "csv": true}, "303": elsewhere()},
            }),
        ),
    ]
}

/// Each name, and the same as a file.
fn with_files(names: &[&str]) -> Vec<String> {
    let files = names.iter().map(|name| format!("{name}.csv"));
    names
        .iter()
        .map(|name| (*name).to_owned())
        .chain(files)
        .collect()
}

fn writes() -> Vec<(&'static str, Value)> {
    let made =
        |name: &str| json!({"201": {"description": "As it is now", "schema": reference(name)}});
    let contract = |required: &[&str], keeps_prefix: bool| {
        let mut properties = contract_members();
        if keeps_prefix {
            properties
                .as_object_mut()
                .map(|members| members.remove("api_key_prefix"));
        }
        json!({"required": required, "properties": properties})
    };
    vec![
        (
            "POST /admin/contracts",
            json!({
                "summary": "Enters a contract",
                "body": contract(&["api_key_prefix", "pricing_model", "contract_start_date"], false),
                "answers": made("Contract"),
            }),
        ),
        (
            "PATCH /admin/contracts/{id}",
            json!({
                "summary": "Changes the members given; null ones to their defaults",
                "body": contract(&[], true), "body_optional": true,
                "answers": got("As it is now", reference("Contract")),
            }),
        ),
        (
            "POST /admin/credits",
            json!({
                "summary": "Grants a credit to a user or a partner",
                "body": {"required": ["amount_cents", "currency", "reason"], "properties": {
                    "user_id": {"type": ["integer", "null"], "minimum": 1},
                    "api_key_prefix": text(),
                    "amount_cents": {"type": "integer", "minimum": 1},
                    "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
                    "reason": {"type": "string"},
                    "description": text(),
                    "expires_at": nullable(moment()),
                }},
                "answers": made("Credit"),
            }),
        ),
        (
            "POST /admin/credits/{id}/void",
            json!({
                "summary": "Takes back a credit of which nothing is used",
                "answers": got("As it is now", reference("Credit")),
            }),
        ),
        (
            "POST /admin/invoices/{id}/void",
            json!({
                "summary": "Voids a partner's invoice of which nothing is paid",
                "answers": got("As it is now", reference("Invoice")),
            }),
        ),
        (
            "POST /admin/invoices/{id}/mark-paid",
            json!({
                "summary": "Notes a payment of a partner's invoice outside Stripe",
                "body": {"required": ["amount_cents", "method", "paid_at"], "properties": {
                    "amount_cents": {"type": "integer", "minimum": 1},
                    "method": {"type": "string", "enum": ["wire", "check", "ach"]},
                    "reference": text(),
                    "paid_at": moment(),
                }},
                "answers": got("As it is now", reference("Invoice")),
            }),
        ),
        (
            "POST /admin/reconciliation/items/{id}/accept",
            json!({
                "summary": "Accepts an open discrepancy: the same one is not reported again",
                "body": {"required": ["reason"], "properties": {
                    "reason": {"type": "string", "minLength": 1, "maxLength": 255},
                }},
                "answers": got("As it is now", reference("ReconciliationItem")),
            }),
        ),
        (
            "POST /admin/events/{event_id}/replay",
            json!({
                "summary": "Applies a parked or poisoned event now",
                "answers": got("What became of it", and_maybe(object(&[
                    ("event_id", string()),
                    ("outcome", json!({"enum": ["applied", "ignored", "duplicate", "parked"]})),
                ]), &[("reason", string())])),
            }),
        ),
    ]
}

fn contract_members() -> Value {
    json!({
        "api_key_prefix": {"type": "string", "minLength": 1, "maxLength": 255},
        "company": text(),
        "pricing_model": {"type": "string"},
        "currency": {"type": ["string", "null"], "pattern": "^[A-Z]{3}$"},
        "monthly_flat_fee_cents": amount(),
        "per_deed_price_cents": amount(),
        "per_1000_requests_cents": amount(),
        "tiers": {"type": ["array", "null"]},
        "tier_mode": text(),
        "included_units": amount(),
        "minimum_commitment_cents": amount(),
        "unit_source": text(),
        "billable_event_types": {"type": ["array", "null"], "items": string()},
        "billing_cycle": text(),
        "payment_terms": text(),
        "payment_method": text(),
        "monthly_request_limit": {"type": ["integer", "null"], "minimum": -1},
        "rate_limit_per_minute": amount(),
        "status": text(),
        "contract_start_date": date(),
        "contract_end_date": date(),
        "billed_from": date(),
        "timezone": text(),
        "billing_email": text(),
        "billing_address": {},
        "tax_id": text(),
        "tax_rate_bps": amount(),
        "po_number": text(),
        "stripe_customer_id": text(),
        "notes": {"type": ["string", "null"]},
    })
}

fn usage() -> Vec<(&'static str, Value)> {
    let months = json!({"type": "array", "items": object(&[
        ("month", json!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"})),
        ("currency", string()),
        ("events", integer()),
        ("units", integer()),
        ("billable_units", integer()),
        ("amount_cents", integer()),
        ("by_event_type", json!({"type": "object"})),
    ])});
    vec![
        (
            "POST /usage/events",
            json!({
                "summary": "One event, or up to 1,000, each counted once; without a body the one in the query",
                "body_optional": true,
                "batch": "events",
                "body": {"required": ["idempotency_key", "event_type"], "properties": {
                    "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 255},
                    "user_id": {"type": ["integer", "null"], "minimum": 1},
                    "api_key_prefix": text(),
                    "event_type": {"type": "string", "minLength": 1, "maxLength": 100},
                    "resource_id": {"type": ["string", "null"], "maxLength": 255},
                    "billable": {"type": ["boolean", "null"]},
                    "cost_units": amount(),
                    "unit_price_cents": amount(),
                    "occurred_at": {"type": ["string", "null"], "format": "date-time"},
                    "metadata": {"type": ["object", "null"]},
                }},
                "answers": got("A verdict for each, in order", object(&[
                    ("results", json!({"type": "array", "items": and_maybe(object(&[
                        ("idempotency_key", json!({"type": ["string", "null"]})),
                        ("verdict", json!({"enum": ["accepted", "late", "duplicate", "conflict", "rejected"]})),
                    ]), &[("field", string()), ("message", string())])})),
                    ("accepted", integer()), ("duplicate", integer()), ("conflict", integer()),
                    ("rejected", integer()), ("late", integer()),
                ])),
            }),
        ),
        (
            "POST /usage/events/{idempotency_key}/void",
            json!({
                "summary": "Takes an event back",
                "body": {"required": ["subject", "reason"], "properties": {
                    "subject": {"type": "string", "pattern": "^(user|partner):.+$", "maxLength": 100},
                    "reason": {"type": "string", "minLength": 1, "maxLength": 500},
                }},
                "answers": got("The same every time", object(&[
                    ("idempotency_key", string()), ("subject", string()), ("voided_at", instant()), ("reason", string()),
                ])),
            }),
        ),
        (
            "POST /usage/reserve",
            json!({
                "summary": "Takes units of a user's quota, all or none",
                "body": {"required": ["user_id", "units", "event_type", "idempotency_key"], "properties": {
                    "user_id": {"type": "integer", "minimum": 1},
                    "units": {"type": "integer", "minimum": 1},
                    "event_type": {"type": "string", "minLength": 1, "maxLength": 100},
                    "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 255},
                    "accept_overage": {"type": ["boolean", "null"]},
                }},
                "answers": got("They are taken", and_maybe(object(&[
                    ("allowed", json!({"const": true})),
                    ("used", integer()), ("limit", maybe_integer()), ("remaining", maybe_integer()),
                ]), &[
                    ("overage", json!({"const": true})),
                    ("overage_units", integer()), ("price_cents", integer()), ("currency", string()),
                ])),
            }),
        ),
        (
            "GET /usage/limit-check/user/{id}",
            read(
                "What is left of a user's month",
                object(&[
                    ("user_id", integer()),
                    ("plan", string()),
                    ("used", integer()),
                    ("limit", maybe_integer()),
                    ("remaining_free_units", maybe_integer()),
                    ("threshold", maybe_integer()),
                    ("overage", json!({"type": ["object", "null"]})),
                    ("resets_at", instant()),
                ]),
            ),
        ),
        (
            "GET /usage/limit-check/partner/{prefix}",
            read(
                "What is left of a partner's month",
                object(&[
                    ("api_key_prefix", string()),
                    ("allowed", json!({"type": "boolean"})),
                    ("used", integer()),
                    ("limit", maybe_integer()),
                    ("remaining", maybe_integer()),
                    ("threshold", maybe_integer()),
                    ("resets_at", instant()),
                ]),
            ),
        ),
        (
            "GET /usage/overage/quote",
            json!({
                "summary": "What units would cost if they were reserved now",
                "required": ["user_id", "units"],
                "answers": got("The quote", object(&[
                    ("overage_price_cents", maybe_integer()), ("currency", string()), ("units", integer()),
                    ("free_units", integer()), ("overage_units", integer()), ("total_cents", maybe_integer()),
                ])),
            }),
        ),
        (
            "GET /usage/user/{id}/monthly",
            read("A user's months, newest first", months.clone()),
        ),
        (
            "GET /usage/partner/{prefix}/monthly",
            read("A partner's months, newest first", months),
        ),
        (
            "GET /usage/partner/{prefix}/current",
            read(
                "The invoice the contract would produce if its period ended now",
                object(&[
                    ("api_key_prefix", string()),
                    ("contract_id", integer()),
                    ("pricing_model", string()),
                    ("currency", string()),
                    ("as_of", instant()),
                    (
                        "period",
                        nullable(object(&[
                            ("start", instant()),
                            ("end", instant()),
                            ("first_day", string()),
                            ("last_day", string()),
                        ])),
                    ),
                    (
                        "usage",
                        object(&[("units", integer()), ("requests", integer())]),
                    ),
                    (
                        "lines",
                        json!({"type": "array", "items": object(&[
                            ("kind", string()), ("description", string()), ("quantity", integer()),
                            ("total_cents", integer()), ("tax_cents", integer()),
                        ])}),
                    ),
                    ("subtotal_cents", integer()),
                    ("tax_cents", integer()),
                    ("total_cents", integer()),
                ]),
            ),
        ),
        (
            "GET /usage/partner/{prefix}/invoices",
            read(
                "A partner's invoices, newest first",
                list_of("PartnerInvoice"),
            ),
        ),
    ]
}

/// Schemas that are not rows.
pub(super) fn schemas() -> Value {
    let cents = |names: &[&str]| {
        let members: Vec<(&str, Value)> = names.iter().map(|name| (*name, integer())).collect();
        object(&members)
    };
    json!({
        "Problem": {
            "type": "object",
            "description": "RFC 9457. 402 adds what more would cost",
            "required": ["code", "title", "status", "request_id"],
            "properties": {
                "code": {"type": "string", "pattern": "^[a-z0-9_]+$"},
                "title": string(),
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": string(),
                "field": string(),
                "request_id": string(),
            },
        },
        "Overview": cents(&["total_revenue_cents", "monthly_revenue_cents", "stripe_fees_cents", "refunds_cents",
            "disputes_cents", "net_monthly_revenue_cents"]),
        "Month": {"allOf": [
            cents(&["revenue_cents", "fees_cents", "refunds_cents", "disputes_cents", "net_cents"]),
            object(&[("month", string()), ("revenue_dollars", json!({"type": "number"}))]),
        ]},
        "MrrArr": {"allOf": [
            cents(&["mrr_cents", "arr_cents"]),
            object(&[("mrr_dollars", json!({"type": "number"})), ("arr_dollars", json!({"type": "number"})),
                ("definition", string())]),
        ]},
        "PartnerInvoice": object(&[
            ("id", integer()), ("invoice_number", string()), ("currency", string()), ("status", string()),
            ("total_cents", integer()), ("amount_due_cents", integer()), ("created_at", instant()),
            ("pdf_url", json!({"type": ["string", "null"]})),
        ]),
        // Of the inbox, or parked: the members differ.
        "Event": {"type": "object"},
    })
}
