//! `GET /admin/contracts/{id}/statement.csv`: a partner's account statement.

use std::sync::Arc;

use axum::extract::State;
use documents::csv_export::{Cell, Writer};
use domain::money::{Currency, Money};
use domain::page::Span;
use domain::partner::account_statement::{self, Line};
use domain::period::day_of;
use futures_util::stream;
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{FileAnswer, Now, Path, Query, RequestId};
use runtime::api::list::SpanQuery;
use store::{contracts, statements};

use crate::parameters::NumberPath;
use crate::{Clients, exports};

const HEADER: [&str; 8] = [
    "date",
    "entry",
    "invoice_number",
    "reference",
    "debit",
    "credit",
    "balance",
    "currency",
];

/// Answers a partner's account statement: opening balance, invoices, payments, credits, voids and closing balance of
/// `[from, to)`, each entry with the balance after it.
#[utoipa::path(get, path = "/admin/contracts/{id}/statement.csv")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(contract): Path<NumberPath>,
    Query(span): Query<SpanQuery>,
    RequestId(request_id): RequestId,
    Now(now): Now,
) -> Result<FileAnswer, Error> {
    let id = contract.number();
    let Span { from, to } = span.span()?;
    let client = app.database.client().await?;
    let contract = contracts::find(&**client, id).await?;
    let contract = contract.ok_or(Error::NotFound)?;
    let currency = Currency::parse(&contract.row.currency)?;
    let entries = statements::entries(&**client, &contract.row.api_key_prefix).await?;
    let lines = account_statement::lines(entries, currency, from, to)?;
    let file = exports::File {
        app: &app,
        request_id: &request_id,
        name: &format!("statement-{id}.csv"),
        now,
    };
    file.of(&HEADER, stream::iter(lines.into_iter().map(Ok)), write_line)
        .await
}

fn write_line(writer: &mut Writer, line: &Line) -> Result<(), Error> {
    let bound = |at: &Option<Timestamp>| at.map_or(Cell::Empty, |at| Cell::value(day_of(at)));
    let cells = match line {
        Line::Opening { at, balance } => ends(bound(at), "opening_balance", *balance),
        Line::Closing { at, balance } => ends(bound(at), "closing_balance", *balance),
        Line::Entry { entry, balance } => {
            let amount = entry.amount;
            let (debit, credit) = if amount.amount_cents < 0 {
                (Cell::Empty, Cell::value(amount.checked_neg()?.to_decimal()))
            } else {
                (Cell::value(amount.to_decimal()), Cell::Empty)
            };
            [
                Cell::value(day_of(entry.at)),
                Cell::value(&entry.kind),
                Cell::from(entry.invoice_number.as_str()),
                Cell::from(entry.reference.as_deref()),
                debit,
                credit,
                Cell::value(balance.to_decimal()),
                Cell::from(balance.currency),
            ]
        }
    };
    writer.row(cells).map_err(exports::unwritten)
}

/// The first and the last line of a currency.
fn ends(date: Cell, entry: &str, balance: Money) -> [Cell; 8] {
    [
        date,
        Cell::value(entry),
        Cell::Empty,
        Cell::Empty,
        Cell::Empty,
        Cell::Empty,
        Cell::value(balance.to_decimal()),
        Cell::from(balance.currency),
    ]
}
