//! The sample: the host application's users, and a year of Stripe's events about them.

use crate::{Clock, Error, services};
use domain::period::Month;
use fake_stripe::delivery::{self, Endpoint};
use fake_stripe::sample_users;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// How the webhook answered the events of a story: `applied` → 41, `duplicate` → 2, …
pub type Outcomes = BTreeMap<String, u32>;

/// Creates the sample's users where they are missing; the host application would have them.
///
/// # Errors
/// When the database refuses.
pub async fn create_users(database_url: &str) -> Result<(), Error> {
    let client = services::connect(database_url).await?;
    for (id, email, name) in sample_users() {
        client
            .execute_typed(
                "-- story::create_users\n\
                 INSERT INTO users (id, email, full_name) VALUES ($1, $2, $3)\n\
                 ON CONFLICT (id) DO NOTHING",
                &[(&id, Type::INT4), (&email, Type::TEXT), (&name, Type::TEXT)],
            )
            .await
            .map_err(|error| Error::because("cannot create the sample users", error))?;
    }
    Ok(())
}

/// The sample's partners: prefix, company, how they pay.
const PARTNERS: [(&str, &str, &str); 2] = [
    ("dp_pk_meridian", "Meridian Title Company", "wire"),
    ("dp_pk_harbor", "Harbor Escrow LLC", "ach"),
];

/// Creates the sample's partners where they are missing: a contract that began with the month before, and usage in
/// that month; the host application's gateway would have written it.
///
/// # Errors
/// When the database refuses.
pub async fn create_partners(database_url: &str, now: Timestamp) -> Result<(), Error> {
    let client = services::connect(database_url).await?;
    let failed = |error| Error::because("cannot create the sample partners", error);
    let month = Month::of(now).previous();
    for (prefix, company, payment_method) in PARTNERS {
        let created = client
            .execute_typed(
                "-- story::create_partners\n\
                 INSERT INTO api_partner_contracts (api_key_prefix, company, pricing_model, monthly_flat_fee_cents,\n\
                     per_deed_price_cents, payment_method, contract_start_date, billed_from, billing_email)\n\
                 VALUES ($1, $2, 'hybrid', 50000, 250, $3, $4, $4, 'billing@example.com')\n\
                 ON CONFLICT (api_key_prefix) DO NOTHING",
                &[
                    (&prefix, Type::TEXT),
                    (&company, Type::TEXT),
                    (&payment_method, Type::TEXT),
                    (&month.first_day(), Type::DATE),
                ],
            )
            .await
            .map_err(failed)?;
        if created == 0 {
            continue;
        }
        client
            .execute_typed(
                "-- story::create_partner_usage\n\
                 INSERT INTO api_usage (api_key_prefix, endpoint, status_code, cost_units, created_at)\n\
                 SELECT $1, '/v1/deeds', 200, 1, CAST($2 AS timestamptz) + n * interval '2 hours'\n\
                 FROM generate_series(1, 312) AS n",
                &[(&prefix, Type::TEXT), (&month.start(), Type::TIMESTAMPTZ)],
            )
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// Has every invoice printed again: moto starts with an empty bucket, and the ledger notes what was in it.
///
/// # Errors
/// When the database refuses.
pub async fn forget_pdfs(database_url: &str) -> Result<(), Error> {
    let client = services::connect(database_url).await?;
    client
        .execute_typed(
            "-- story::forget_pdfs\n\
             UPDATE invoices SET pdf_key = NULL, pdf_sha256 = NULL WHERE pdf_key IS NOT NULL",
            &[],
        )
        .await
        .map(|_| ())
        .map_err(|error| Error::because("cannot forget the invoices' PDFs", error))
}

/// Number and object key of the partners' invoice that was issued last and has a PDF.
///
/// # Errors
/// When the database refuses.
pub async fn newest_partner_invoice(database_url: &str) -> Result<Option<(String, String)>, Error> {
    let client = services::connect(database_url).await?;
    let rows = client
        .query_typed(
            "-- story::newest_partner_invoice\n\
             SELECT invoice_number, pdf_key FROM invoices\n\
             WHERE kind = 'partner' AND pdf_key IS NOT NULL ORDER BY id DESC LIMIT 1",
            &[],
        )
        .await
        .map_err(|error| Error::because("cannot read the invoices", error))?;
    let read = |error| Error::because("cannot read an invoice", error);
    rows.first()
        .map(|row| {
            Ok((
                row.try_get("invoice_number").map_err(read)?,
                row.try_get("pdf_key").map_err(read)?,
            ))
        })
        .transpose()
}

/// Delivers the events in order through the real route, each signed now; `progress` gets the number
/// of events done so far.
///
/// # Errors
/// When an event is not answered 200: then it is not stored.
pub async fn replay(
    endpoint: &Endpoint,
    events: &[Value],
    clock: Clock,
    progress: impl Fn(usize),
) -> Result<Outcomes, Error> {
    let http = delivery::http_client().map_err(Error::no_http_client)?;
    let mut outcomes = Outcomes::new();
    for (done, event) in (1..).zip(events) {
        let id = event
            .get("id")
            .and_then(Value::as_str)
            .unwrap_or("without an id");
        let unanswered =
            |error| Error::because(format!("event {id} of the sample got no answer"), error);
        let body = event.to_string().into_bytes();
        let answer = delivery::post(&http, endpoint, body, clock())
            .await
            .map_err(unanswered)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unanswered)?;
        if status != StatusCode::OK {
            return Err(Error::new(format!(
                "the webhook answered event {id} with {status}: {text}"
            )));
        }
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let outcome = answer
            .get("outcome")
            .and_then(Value::as_str)
            .unwrap_or("unknown");
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
        progress(done);
    }
    Ok(outcomes)
}
