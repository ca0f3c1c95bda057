//! What finance and the owner ask for: one function a report, and one struct that the API answers and a CSV writes.
//!
//! A report whose reading failed has null in that place and says so in its `errors`; it is never a zero.

pub mod aging;
pub mod asked;
pub mod cohorts;
pub mod disputes;
pub mod failed_payments;
pub mod fees;
pub mod mrr_movements;
pub mod partners;
pub mod plan_changes;
pub mod provisional;
pub mod refunds;
pub mod revenue;
mod sections;
pub mod status;
pub mod tax;
pub mod top_customers;

use documents::csv_export;
use domain::money::{self, Currency, div_half_even_cents, narrow};
use jiff::Timestamp;
use runtime::api;
use serde::Serialize;
use store::row::Fields;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

use self::provisional::Provisional;
use self::sections::Nulls;
pub use self::sections::{FieldError, Section, SectionError};
use crate::csv_rows::cell;

/// The rows of a report and what they add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<R, T> {
    /// In the order of the report.
    pub rows: Vec<R>,
    /// Sums over the rows as they are shown, and ratios of the sums.
    pub totals: T,
}

/// What a report is about, apart from its rows.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The report's name in the path.
    pub report: &'static str,
    /// The one currency of every amount.
    pub currency: Currency,
    /// The first and the last instant of the period; `None` for a report of an instant.
    pub period: Option<(Timestamp, Timestamp)>,
    /// What happened later is not known yet.
    pub as_of: Timestamp,
    /// What the figures mean.
    pub definition: &'static str,
    /// What may still change in the report's period; `None` when it could not be read.
    pub provisional: Option<&'a [Provisional]>,
}

/// A report of one currency; rows and totals are null when they could not be read.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Report<R, T> {
    /// The report's name in the path.
    pub report: &'static str,
    pub currency: Currency,
    /// Begin of the period; absent in a report of an instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub from: Option<Timestamp>,
    /// End of the period, exclusive; absent in a report of an instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub to: Option<Timestamp>,
    /// What happened later is not known yet.
    pub as_of: Timestamp,
    /// Figures of the period that may still change; null when that could not be read.
    pub provisional: Option<Vec<Provisional>>,
    /// Null when they could not be read.
    pub rows: Option<Vec<R>>,
    /// Null when the rows could not be read.
    #[schema(schema_with = nullable::<T>)]
    pub totals: Option<T>,
    /// What the figures mean.
    pub definition: &'static str,
    pub errors: Vec<FieldError>,
}

impl<R, T> Report<R, T> {
    /// The report with its table, or with null in its place.
    #[must_use]
    pub fn new(about: About<'_>, table: Section<Table<R, T>>) -> Report<R, T> {
        let mut nulls = Nulls::default();
        if about.provisional.is_none() {
            nulls.also("provisional");
        }
        let table = nulls.keep("rows", table);
        if table.is_none() {
            nulls.also("totals");
        }
        let (rows, totals) =
            table.map_or((None, None), |table| (Some(table.rows), Some(table.totals)));
        Report {
            report: about.report,
            currency: about.currency,
            from: about.period.map(|(from, _)| from),
            to: about.period.map(|(_, to)| to),
            as_of: about.as_of,
            provisional: about.provisional.map(<[Provisional]>::to_vec),
            rows,
            totals,
            definition: about.definition,
            errors: nulls.errors,
        }
    }
}

/// The rows with their currency, as a file. It has no null for a report that could not be read, which is refused.
///
/// # Errors
/// Why the table could not be read.
pub fn csv<R: Fields, T>(
    currency: Currency,
    table: Section<Table<R, T>>,
) -> Result<Vec<u8>, api::Error> {
    let header = [R::NAMES, &["currency"]].concat();
    let rows = table?.rows;
    let rows = rows.iter().map(|row| {
        let mut cells: Vec<_> = row.fields().into_iter().map(cell).collect();
        cells.push(currency.into());
        cells
    });
    csv_export::write(&header, rows).map_err(|error| api::Error::Internal(Box::new(error)))
}

/// `T` or null: `utoipa` forgets the null of an `Option<T>` whose `T` is a parameter.
fn nullable<T: ToSchema>() -> RefOr<Schema> {
    OneOfBuilder::new()
        .item(T::schema())
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some("Null when the rows could not be read"))
        .into()
}

/// The sum of one column.
fn sum<R>(rows: &[R], column: impl Fn(&R) -> i64) -> Result<i64, money::Error> {
    narrow(rows.iter().map(|row| i128::from(column(row))).sum())
}

/// Micro-minor-units as minor units, half-even.
fn mrr_cents(microcents: i128) -> Result<i64, money::Error> {
    div_half_even_cents(microcents, 1_000_000)
}
