//! `GET /usage/partner/{prefix}/current`: the invoice that the contract would produce if its period ended now.

use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use domain::partner::cycle::BillingPeriod;
use domain::partner::draft::{self, Draft, DraftKind, Plan, Rules};
use domain::partner::pricing::{RatedLine, Usage};
use domain::partner::tax::TaxGroup;
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path};
use serde::Serialize;
use shared::partner_billing;
use store::contracts;
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
    /// As the invoice will have them, corrections of earlier periods among them; none when there would be no invoice.
    lines: Vec<RatedLine>,
    taxes: Vec<TaxGroup>,
    /// Sum of the lines before tax, in minor units of `currency`.
    subtotal_cents: i64,
    tax_cents: i64,
    /// Before credits.
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
        .contract(now)
        .map_err(|invalid| unpriceable(read.row.id, invalid.field, invalid.expected))?;
    let rated = |error: draft::Error| match error {
        draft::Error::Cycle(error) => {
            unpriceable(contract.id, "timezone".to_owned(), error.to_string())
        }
        other @ (draft::Error::Money(_) | draft::Error::Terms | draft::Error::Counts { .. }) => {
            Error::Internal(Box::new(other))
        }
    };
    let terms = contract
        .history
        .at(now)
        .map_err(|error| rated(error.into()))?;
    let billed = partner_billing::billed(db, contract.id).await?;
    let (plan, period) = Plan::current(&contract.history, &billed, now).map_err(rated)?;
    let counted = partner_billing::count(db, &plan).await?;
    let drafts = plan.drafts(&counted, &LOOKED_AT).map_err(rated)?;
    let is_running = |draft: &Draft| {
        let first_day = period.as_ref().map(|period| period.first_day);
        draft.kind == DraftKind::Period && Some(draft.first_day) == first_day
    };
    let bill = drafts
        .drafts
        .into_iter()
        .find(is_running)
        .map(|draft| draft.bill);
    let usage = plan.usage_of(period.as_ref(), &counted);
    let priced = period.as_ref().map_or(terms, |period| &period.terms);
    let mut current = CurrentInvoice {
        api_key_prefix: read.row.api_key_prefix,
        contract_id: contract.id,
        pricing_model: priced.pricing_model.as_str(),
        currency: priced.currency,
        as_of: now,
        period: period.as_ref().map(CurrentPeriod::from),
        usage,
        lines: Vec::new(),
        taxes: Vec::new(),
        subtotal_cents: 0,
        tax_cents: 0,
        total_cents: 0,
    };
    if let Some(bill) = bill {
        current.lines = bill.lines;
        current.taxes = bill.taxes;
        current.subtotal_cents = bill.subtotal_cents;
        current.tax_cents = bill.tax_cents;
        current.total_cents = bill.total_cents;
    }
    Ok(Json(current))
}

/// The running invoice is shown, whatever would hold it back.
const LOOKED_AT: Rules = Rules {
    cap_cents: None,
    catch_up: usize::MAX,
    reviewed: true,
};

fn unpriceable(id: i64, field: String, expected: String) -> Error {
    Error::NotConfigured(Box::new(Unpriceable {
        id,
        field,
        expected,
    }))
}
