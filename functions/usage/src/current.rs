//! `GET /usage/partner/{prefix}/current`: the invoice that the contract would produce if its period ended now.

use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use domain::partner::cycle::{BillingPeriod, Calendar, StoredContract};
use domain::partner::pricing::{self, RatedLine, Usage};
use domain::period::Period;
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path};
use serde::Serialize;
use store::contract_usage::{self, Window};
use store::{contracts, usage_terms};
use tokio_postgres::GenericClient;
use utoipa::ToSchema;

use crate::Clients;
use crate::parameters::PartnerPath;

/// A contract that cannot be billed: the predecessor's were never checked.
#[derive(Debug, thiserror::Error)]
#[error("contract {id} cannot be priced: {field} should be {expected}")]
struct Unpriceable {
    id: i64,
    field: String,
    expected: String,
}

/// The invoice that a contract would produce if its period ended now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrentInvoice {
    api_key_prefix: String,
    contract_id: i64,
    /// How the contract prices usage.
    pricing_model: &'static str,
    currency: Currency,
    /// Usage up to here is in it.
    as_of: Timestamp,
    /// Null when nothing of this cycle will be billed, or all of it has been.
    period: Option<CurrentPeriod>,
    /// What was used of the period.
    usage: Usage,
    /// As the invoice will have them; none when there would be no invoice.
    lines: Vec<RatedLine>,
    /// Sum of the lines before tax, in minor units of `currency`.
    subtotal_cents: i64,
    tax_cents: i64,
    /// Before credits, and before corrections of earlier periods.
    total_cents: i64,
}

/// The period of the invoice that would be made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrentPeriod {
    /// `[start, end)` of the invoice.
    start: Timestamp,
    end: Timestamp,
    /// In the contract's time zone, both billed.
    first_day: Date,
    last_day: Date,
}

impl From<&BillingPeriod> for CurrentPeriod {
    fn from(period: &BillingPeriod) -> CurrentPeriod {
        CurrentPeriod {
            start: period.period.start,
            end: period.period.end,
            first_day: period.first_day,
            last_day: period.last_day,
        }
    }
}

/// Answers the invoice of the partner's running period so far, rated by the code that rates its invoices.
#[utoipa::path(get, path = "/usage/partner/{prefix}/current")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(PartnerPath { prefix }): Path<PartnerPath>,
    Now(now): Now,
) -> Result<Json<CurrentInvoice>, Error> {
    let client = app.database.client().await?;
    let db = &**client;
    let read = contracts::of_prefix(db, prefix.as_str()).await?;
    let read = read.ok_or(Error::NotFound)?;
    let contract = read
        .contract
        .map_err(|invalid| unpriceable(read.id, invalid.field, invalid.expected))?;
    let period = running_period(db, &contract, now).await?;
    let mut current = CurrentInvoice {
        api_key_prefix: read.api_key_prefix,
        contract_id: contract.id,
        pricing_model: contract.terms.pricing_model.as_str(),
        currency: contract.terms.currency,
        as_of: now,
        period: period.as_ref().map(CurrentPeriod::from),
        usage: Usage::default(),
        lines: Vec::new(),
        subtotal_cents: 0,
        tax_cents: 0,
        total_cents: 0,
    };
    if let Some(period) = period {
        current.usage = used(db, &contract, &period, now).await?;
        let bill = pricing::bill(&contract.terms, &period, current.usage, &[])
            .map_err(|error| Error::Internal(Box::new(error)))?;
        if let Some(bill) = bill {
            current.lines = bill.lines;
            current.subtotal_cents = bill.subtotal_cents;
            current.tax_cents = bill.tax_cents;
            current.total_cents = bill.total_cents;
        }
    }
    Ok(Json(current))
}

async fn running_period(
    db: &impl GenericClient,
    contract: &StoredContract,
    now: Timestamp,
) -> Result<Option<BillingPeriod>, Error> {
    let prefix = contract.terms.api_key_prefix.as_str();
    let invoiced = usage_terms::invoiced_periods(db, &[prefix], Timestamp::UNIX_EPOCH).await?;
    let invoiced: Vec<Period> = invoiced
        .iter()
        .map(|invoiced| Period {
            start: invoiced.start,
            end: invoiced.end,
        })
        .collect();
    let dates = |error: domain::partner::cycle::Error| {
        unpriceable(contract.id, "timezone".to_owned(), error.to_string())
    };
    Calendar::new(contract, &invoiced)
        .and_then(|calendar| calendar.current(now))
        .map_err(dates)
}

/// What was used of the period up to and including `now`: events of the next minutes are there already.
async fn used(
    db: &impl GenericClient,
    contract: &StoredContract,
    period: &BillingPeriod,
    now: Timestamp,
) -> Result<Usage, Error> {
    let after_now = now.saturating_add(jiff::SignedDuration::from_micros(1));
    let after_now = after_now.unwrap_or(Timestamp::MAX);
    let windows: Vec<Window<'_>> = period
        .usage
        .iter()
        .filter(|stretch| stretch.start < after_now)
        .map(|stretch| Window {
            contract: &contract.terms,
            period: Period {
                start: stretch.start,
                end: stretch.end.min(after_now),
            },
        })
        .collect();
    let mut used = Usage::default();
    for counted in contract_usage::read(db, &windows).await? {
        used.units = used.units.saturating_add(counted.units);
        used.requests = used.requests.saturating_add(counted.requests);
    }
    Ok(used)
}

fn unpriceable(id: i64, field: String, expected: String) -> Error {
    Error::NotConfigured(Box::new(Unpriceable {
        id,
        field,
        expected,
    }))
}
