//! `GET /admin/reports/{report}`: what finance asks for, as JSON and, as `{report}.csv`, the same figures as a file.

use std::collections::BTreeMap;

use documents::csv_export::{self, Cell};
use domain::money::{self, Currency, div_half_even_cents, narrow};
use domain::period::Month;
use domain::revenue::figures::ratio_bps;
use domain::revenue::plan_change::Change;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use store::reports::{self, Scope};
use tokio_postgres::GenericClient;

use crate::asked::{self, Asked, Longest};
use crate::sections::{FieldError, Nulls, Section, SectionError};
use crate::{Clients, attachment};

/// The reports by their names in the path.
const REPORTS: [(&str, Report); 9] = [
    ("top-customers", Report::TopCustomers),
    ("failed-payments", Report::FailedPayments),
    ("refunds", Report::Refunds),
    ("disputes", Report::Disputes),
    ("fees", Report::Fees),
    ("tax", Report::Tax),
    ("partners", Report::Partners),
    ("plan-changes", Report::PlanChanges),
    ("aging", Report::Aging),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Report {
    TopCustomers,
    FailedPayments,
    Refunds,
    Disputes,
    Fees,
    Tax,
    Partners,
    PlanChanges,
    Aging,
}

impl Report {
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Report::TopCustomers => &["from", "to", "limit", "currency", "as_of"],
            // Of an instant, not of a period.
            Report::Aging => &["currency", "as_of"],
            Report::FailedPayments
            | Report::Refunds
            | Report::Disputes
            | Report::Fees
            | Report::Tax
            | Report::Partners
            | Report::PlanChanges => &["from", "to", "currency", "as_of"],
        }
    }

    fn definition(self) -> &'static str {
        match self {
            Report::TopCustomers => {
                "money of the period per customer: captured, fees, refunds and disputes each by its own date; net = gross \
                 - fees - refunds - disputes; disputes = withdrawn - reinstated. mrr_cents as of as_of. The limit \
                 customers with the highest net; totals are of those"
            }
            Report::FailedPayments => {
                "attempts: failed charges by their own date. payments: each payment once, under the code of its last \
                 failed attempt in the period; all retries of an invoice are one payment. amount_cents: of those \
                 payments. recovered: those paid by as_of. recovery_rate_bps = recovered / payments"
            }
            Report::Refunds => {
                "refunds by their own date; one that failed or was canceled, however late, counts nowhere. \
                 rate_of_gross_bps = amount / money captured in the period"
            }
            Report::Disputes => {
                "by the date the money was withdrawn, or the dispute was opened where none was; status as of as_of; \
                 fee_cents: what Stripe charged for the dispute. win_rate_bps = won / (won + lost)"
            }
            Report::Fees => {
                "by the payment's date, a dispute's by the withdrawal's: actual as Stripe's balance transactions say, \
                 estimated until they do. effective_rate_bps = fees / gross of the same payments"
            }
            Report::Tax => {
                "of invoices issued in the period, neither draft nor void, by jurisdiction and rate as far as their tax \
                 breakdown names them; the rest is unknown"
            }
            Report::Partners => {
                "partner invoices issued in the period: total = paid + credits + due + uncollectible; due: open, or \
                 paid after as_of"
            }
            Report::PlanChanges => {
                "per month: new (a subscription counts for the first time), upgrade, downgrade and switch (another plan \
                 at more, less or the same MRR), canceled (ended after having counted), with what they changed MRR by"
            }
            Report::Aging => {
                "invoices open at as_of by civil days (UTC) past due, by what was to be paid then; without a due date \
                 they are current"
            }
        }
    }
}

/// One value of a row.
enum Field {
    /// Other people's words; a spreadsheet must not run them.
    Text(Option<String>),
    /// Ours.
    Word(String),
    Number(i64),
    /// Undefined: null, and an empty field.
    Undefined,
}

impl Field {
    fn ratio(part: i64, whole: i64) -> Section<Field> {
        Ok(ratio_bps(part, i128::from(whole))?.map_or(Field::Undefined, Field::Number))
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Field::Text(text) => text.serialize(serializer),
            Field::Word(word) => word.serialize(serializer),
            Field::Number(number) => number.serialize(serializer),
            Field::Undefined => serializer.serialize_none(),
        }
    }
}

impl From<Field> for Cell {
    fn from(field: Field) -> Cell {
        match field {
            Field::Text(text) => text.into(),
            Field::Word(word) => Cell::value(word),
            Field::Number(number) => number.into(),
            Field::Undefined => Cell::Empty,
        }
    }
}

/// A row of names and values, in their order.
struct Named {
    names: &'static [&'static str],
    values: Vec<Field>,
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.names.len()))?;
        for (name, value) in self.names.iter().zip(&self.values) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The figures of a report, whichever way they are written.
struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Field>>,
    /// Sums of columns, and the ratios of the sums.
    totals: BTreeMap<&'static str, Option<i64>>,
}

impl Table {
    fn new(columns: &'static [&'static str]) -> Table {
        Table {
            columns,
            rows: Vec::new(),
            totals: BTreeMap::new(),
        }
    }

    /// Adds up these columns of the rows as they are shown.
    fn sum(&mut self, names: &[&'static str]) -> Section<()> {
        for name in names {
            let place = self.columns.iter().position(|column| column == name);
            let values = self.rows.iter().filter_map(|row| row.get(place?));
            let sum = values
                .filter_map(|value| match value {
                    Field::Number(number) => Some(i128::from(*number)),
                    Field::Text(_) | Field::Word(_) | Field::Undefined => None,
                })
                .sum();
            self.totals.insert(name, Some(narrow(sum)?));
        }
        Ok(())
    }

    fn total(&self, name: &str) -> i64 {
        self.totals.get(name).copied().flatten().unwrap_or_default()
    }

    /// A ratio of two sums.
    fn ratio(&mut self, name: &'static str, part: i64, whole: i64) -> Section<()> {
        self.totals
            .insert(name, ratio_bps(part, i128::from(whole))?);
        Ok(())
    }
}

#[derive(Serialize)]
struct Answer {
    report: &'static str,
    currency: Currency,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    as_of: Timestamp,
    rows: Option<Vec<Named>>,
    totals: Option<BTreeMap<&'static str, Option<i64>>>,
    definition: &'static str,
    errors: Vec<FieldError>,
}

/// Checks the token, reads the parameters of the report and answers with its rows and totals; null when they could not
/// be read. A file has no null: it is refused then.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    name: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let (plain, is_csv) = match name.strip_suffix(".csv") {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    let found = REPORTS.iter().find(|(known, _)| *known == plain);
    let (name, report) = found.copied().ok_or(Error::NotFound)?;
    let query = Query::parse(request, report.parameters())?;
    let currency = query
        .currency("currency")?
        .unwrap_or(app.reporting_currency);
    let limit = i64::from(query.limit()?);
    let asked = match report {
        Report::Aging => None,
        Report::TopCustomers
        | Report::FailedPayments
        | Report::Refunds
        | Report::Disputes
        | Report::Fees
        | Report::Tax
        | Report::Partners
        | Report::PlanChanges => Some(Asked::parse(&query, Longest::Months, now)?),
    };
    let as_of = asked::as_of(&query, now)?;
    let client = app.database.client().await?;
    let table = match asked {
        None => aging(&**client, currency, as_of).await,
        Some(asked) => {
            let scope = Scope {
                currency,
                range: asked.range,
                as_of,
            };
            table(&**client, report, &scope, limit).await
        }
    };
    if is_csv {
        return file(name, currency, table);
    }
    let mut nulls = Nulls::default();
    let table = nulls.keep("rows", table);
    if table.is_none() {
        nulls.also("totals");
    }
    let (rows, totals) = table.map_or((None, None), |table| {
        let names = table.columns;
        let named = |values| Named { names, values };
        let rows = table.rows.into_iter().map(named).collect();
        (Some(rows), Some(table.totals))
    });
    let answer = Answer {
        report: name,
        currency,
        from: asked.map(|asked| asked.range.start),
        to: asked.map(|asked| asked.to()),
        as_of,
        rows,
        totals,
        definition: report.definition(),
        errors: nulls.errors,
    };
    api::json(StatusCode::OK, &answer)
}

/// The rows with their currency.
fn file(name: &str, currency: Currency, table: Section<Table>) -> Result<Response<Body>, Error> {
    let table = table.map_err(|error| match error {
        SectionError::Store(error) => error.into(),
        SectionError::Revenue(_)
        | SectionError::Bridge(_)
        | SectionError::Cohort(_)
        | SectionError::Money(_)
        | SectionError::Json(_)
        | SectionError::DependsOn => Error::Internal(Box::new(error)),
    })?;
    let mut header = table.columns.to_vec();
    header.push("currency");
    let rows = table.rows.into_iter().map(|row| {
        let mut cells: Vec<Cell> = row.into_iter().map(Cell::from).collect();
        cells.push(currency.into());
        cells
    });
    let bytes =
        csv_export::write(&header, rows).map_err(|error| Error::Internal(Box::new(error)))?;
    attachment::csv(&format!("{name}.csv"), bytes)
}

async fn table(
    db: &impl GenericClient,
    report: Report,
    scope: &Scope,
    limit: i64,
) -> Section<Table> {
    match report {
        Report::TopCustomers => top_customers(db, scope, limit).await,
        Report::FailedPayments => failed_payments(db, scope).await,
        Report::Refunds => refunds(db, scope).await,
        Report::Disputes => disputes(db, scope).await,
        Report::Fees => fees(db, scope).await,
        Report::Tax => tax(db, scope).await,
        Report::Partners => partners(db, scope).await,
        Report::PlanChanges => plan_changes(db, scope).await,
        Report::Aging => aging(db, scope.currency, scope.as_of).await,
    }
}

async fn top_customers(db: &impl GenericClient, scope: &Scope, limit: i64) -> Section<Table> {
    let mut table = Table::new(&[
        "stripe_customer_id",
        "name",
        "gross_cents",
        "fees_cents",
        "refunds_cents",
        "disputes_cents",
        "net_cents",
        "mrr_cents",
    ]);
    for customer in reports::top_customers(db, scope, limit).await? {
        table.rows.push(vec![
            Field::Word(customer.stripe_customer_id),
            Field::Text(customer.name),
            Field::Number(customer.gross_cents),
            Field::Number(customer.fees_cents),
            Field::Number(customer.refunds_cents),
            Field::Number(customer.disputes_cents),
            Field::Number(customer.net_cents),
            Field::Number(mrr_cents(i128::from(customer.mrr_microcents))?),
        ]);
    }
    table.sum(&[
        "gross_cents",
        "fees_cents",
        "refunds_cents",
        "disputes_cents",
        "net_cents",
        "mrr_cents",
    ])?;
    Ok(table)
}

async fn failed_payments(db: &impl GenericClient, scope: &Scope) -> Section<Table> {
    let mut table = Table::new(&[
        "failure_code",
        "decline_code",
        "attempts",
        "payments",
        "amount_cents",
        "recovered",
        "recovered_cents",
        "recovery_rate_bps",
    ]);
    for failures in reports::failed_payments(db, scope).await? {
        table.rows.push(vec![
            Field::Text(failures.failure_code),
            Field::Text(failures.decline_code),
            Field::Number(failures.attempts),
            Field::Number(failures.payments),
            Field::Number(failures.amount_cents),
            Field::Number(failures.recovered),
            Field::Number(failures.recovered_cents),
            Field::ratio(failures.recovered, failures.payments)?,
        ]);
    }
    table.sum(&[
        "attempts",
        "payments",
        "amount_cents",
        "recovered",
        "recovered_cents",
    ])?;
    let (recovered, payments) = (table.total("recovered"), table.total("payments"));
    table.ratio("recovery_rate_bps", recovered, payments)?;
    Ok(table)
}

async fn refunds(db: &impl GenericClient, scope: &Scope) -> Section<Table> {
    let mut table = Table::new(&["reason", "refunds", "amount_cents", "rate_of_gross_bps"]);
    let gross_cents = reports::gross_cents(db, scope).await?;
    for refunds in reports::refunds(db, scope).await? {
        table.rows.push(vec![
            Field::Text(Some(refunds.reason.unwrap_or_else(|| "unknown".to_owned()))),
            Field::Number(refunds.refunds),
            Field::Number(refunds.amount_cents),
            Field::ratio(refunds.amount_cents, gross_cents)?,
        ]);
    }
    table.sum(&["refunds", "amount_cents"])?;
    table.totals.insert("gross_cents", Some(gross_cents));
    let amount_cents = table.total("amount_cents");
    table.ratio("rate_of_gross_bps", amount_cents, gross_cents)?;
    Ok(table)
}

async fn disputes(db: &impl GenericClient, scope: &Scope) -> Section<Table> {
    let mut table = Table::new(&[
        "status",
        "reason",
        "disputes",
        "amount_cents",
        "won",
        "lost",
        "fee_cents",
    ]);
    for disputes in reports::disputes(db, scope).await? {
        table.rows.push(vec![
            Field::Text(Some(disputes.status)),
            Field::Text(disputes.reason),
            Field::Number(disputes.disputes),
            Field::Number(disputes.amount_cents),
            Field::Number(disputes.won),
            Field::Number(disputes.lost),
            Field::Number(disputes.fee_cents),
        ]);
    }
    table.sum(&["disputes", "amount_cents", "won", "lost", "fee_cents"])?;
    let (won, lost) = (table.total("won"), table.total("lost"));
    let decided = won.checked_add(lost).ok_or(money::Error::OutOfRange)?;
    table.ratio("win_rate_bps", won, decided)?;
    Ok(table)
}

async fn fees(db: &impl GenericClient, scope: &Scope) -> Section<Table> {
    let mut table = Table::new(&[
        "fee_source",
        "charged",
        "gross_cents",
        "fees_cents",
        "effective_rate_bps",
    ]);
    for fees in reports::fees(db, scope).await? {
        table.rows.push(vec![
            Field::Word(fees.fee_source),
            Field::Number(fees.charged),
            fees.gross_cents.map_or(Field::Undefined, Field::Number),
            Field::Number(fees.fees_cents),
            Field::ratio(fees.fees_cents, fees.gross_cents.unwrap_or_default())?,
        ]);
    }
    table.sum(&["charged", "gross_cents", "fees_cents"])?;
    let (fees_cents, gross_cents) = (table.total("fees_cents"), table.total("gross_cents"));
    table.ratio("effective_rate_bps", fees_cents, gross_cents)?;
    Ok(table)
}

async fn tax(db: &impl GenericClient, scope: &Scope) -> Section<Table> {
    let mut table = Table::new(&[
        "jurisdiction",
        "tax_rate",
        "invoices",
        "taxable_cents",
        "tax_cents",
    ]);
    let known =
        |word: Option<String>| Field::Text(Some(word.unwrap_or_else(|| "unknown".to_owned())));
    for tax in reports::tax(db, scope).await? {
        table.rows.push(vec![
            known(tax.jurisdiction),
            known(tax.tax_rate),
            Field::Number(tax.invoices),
            Field::Number(tax.taxable_cents),
            Field::Number(tax.tax_cents),
        ]);
    }
    // An invoice may be taxed in two places: invoices do not add up.
    table.sum(&["taxable_cents", "tax_cents"])?;
    Ok(table)
}

async fn partners(db: &impl GenericClient, scope: &Scope) -> Section<Table> {
    let mut table = Table::new(&[
        "api_key_prefix",
        "company",
        "invoices",
        "total_cents",
        "amount_paid_cents",
        "credit_applied_cents",
        "amount_due_cents",
        "uncollectible_cents",
    ]);
    for partner in reports::partners(db, scope).await? {
        table.rows.push(vec![
            Field::Text(Some(partner.api_key_prefix)),
            Field::Text(partner.company),
            Field::Number(partner.invoices),
            Field::Number(partner.total_cents),
            Field::Number(partner.amount_paid_cents),
            Field::Number(partner.credit_applied_cents),
            Field::Number(partner.amount_due_cents),
            Field::Number(partner.uncollectible_cents),
        ]);
    }
    table.sum(&[
        "invoices",
        "total_cents",
        "amount_paid_cents",
        "credit_applied_cents",
        "amount_due_cents",
        "uncollectible_cents",
    ])?;
    Ok(table)
}

async fn plan_changes(db: &impl GenericClient, scope: &Scope) -> Section<Table> {
    type Key = (Month, Change, Option<String>, Option<String>);
    let mut sums: BTreeMap<Key, (i64, i128)> = BTreeMap::new();
    for change in reports::plan_changes_of(db, scope).await? {
        let month = Month::of(change.occurred_at);
        let key = (month, change.change, change.from_plan, change.to_plan);
        let (count, delta) = sums.entry(key).or_default();
        *count += 1;
        *delta += change.delta_microcents;
    }
    let mut table = Table::new(&[
        "month",
        "change",
        "from_plan",
        "to_plan",
        "subscriptions",
        "mrr_delta_cents",
    ]);
    for ((month, change, from_plan, to_plan), (count, delta)) in sums {
        table.rows.push(vec![
            Field::Word(month.to_string()),
            Field::Word(change.as_str().to_owned()),
            Field::Text(from_plan),
            Field::Text(to_plan),
            Field::Number(count),
            Field::Number(mrr_cents(delta)?),
        ]);
    }
    table.sum(&["subscriptions", "mrr_delta_cents"])?;
    Ok(table)
}

async fn aging(db: &impl GenericClient, currency: Currency, as_of: Timestamp) -> Section<Table> {
    /// The name of an age, and the last day of it.
    const BUCKETS: [(&str, i64); 5] = [
        ("current", 0),
        ("1-30", 30),
        ("31-60", 60),
        ("61-90", 90),
        ("over_90", i64::MAX),
    ];
    let aged = reports::aging(db, currency, as_of).await?;
    let mut table = Table::new(&["bucket", "invoices", "amount_due_cents"]);
    let mut rest = aged.as_slice();
    for (bucket, last_day) in BUCKETS {
        let count = rest.partition_point(|aged| aged.days_past_due <= last_day);
        let (of_bucket, older) = rest.split_at(count);
        let invoices = of_bucket.iter().map(|aged| i128::from(aged.invoices)).sum();
        let due = of_bucket
            .iter()
            .map(|aged| i128::from(aged.amount_due_cents))
            .sum();
        table.rows.push(vec![
            Field::Word(bucket.to_owned()),
            Field::Number(narrow(invoices)?),
            Field::Number(narrow(due)?),
        ]);
        rest = older;
    }
    table.sum(&["invoices", "amount_due_cents"])?;
    Ok(table)
}

/// Micro-minor-units as minor units, half-even.
fn mrr_cents(microcents: i128) -> Section<i64> {
    Ok(div_half_even_cents(microcents, 1_000_000)?)
}
