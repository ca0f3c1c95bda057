//! `GET /admin/contracts/{id}/statement.csv`: a partner's statement of account.

use documents::csv_export::{Cell, Writer};
use domain::money::{Currency, Money};
use domain::partner::account_statement::{self, Line};
use domain::period::day_of;
use futures_util::stream;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use store::{contracts, statements};

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

/// Opening balance, invoices, payments, credits, voids and closing balance of `[from, to)`, currency by currency.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["from", "to"])?;
    let (from, to) = query.from_to()?;
    let id = api::parse_id(id).ok_or(Error::NotFound)?;
    let client = app.database.client().await?;
    let contract = contracts::find(&**client, id).await?;
    let contract = contract.ok_or(Error::NotFound)?;
    let currency = Currency::parse(&contract.currency)?;
    let entries = statements::entries(&**client, &contract.api_key_prefix).await?;
    let lines = account_statement::lines(entries, currency, from, to)?;
    let name = format!("statement-{id}.csv");
    let lines = stream::iter(lines.into_iter().map(Ok));
    exports::answer(app, request, now, &name, &HEADER, lines, write_line).await
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
