//! `GET /admin/exports/{export}`: tables and the journal as CSV, in the answer or, when they are large, through S3.

use std::pin::pin;

use documents::csv_export::{self, Cell, Writer};
use domain::period::{day_of, start_of_day};
use domain::revenue::entries::RevenueEntry;
use domain::revenue::journal;
use futures_util::future::join;
use futures_util::{Stream, TryStreamExt};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use store::exports::{self, Export, ExportRow, Field, Filter};

use crate::{Clients, attachment};

/// Largest file in an answer: a function's answer has at most 6 MB, and the quotes of a CSV are escaped in it.
const INLINE_BYTES: usize = 4 * 1024 * 1024;
/// S3 takes at most 10,000 parts of at least 5 MiB; two are in memory at a time.
const PART_BYTES: usize = 8 * 1024 * 1024;

const JOURNAL_HEADER: [&str; 6] = [
    "date",
    "account",
    "debit",
    "credit",
    "currency",
    "reference",
];

/// What a file is made of.
#[derive(Clone, Copy)]
enum File {
    Table(Export),
    Journal,
}

const FILES: [(&str, File); 7] = [
    ("payments.csv", File::Table(Export::Payments)),
    ("invoices.csv", File::Table(Export::Invoices)),
    ("refunds.csv", File::Table(Export::Refunds)),
    ("usage.csv", File::Table(Export::Usage)),
    ("subscriptions.csv", File::Table(Export::Subscriptions)),
    ("mrr-movements.csv", File::Table(Export::MrrMovements)),
    ("journal.csv", File::Journal),
];

/// The rows of `[from, to)`. Up to 4 MiB are answered with 200; more goes to S3 while it is read, and the answer is a
/// 303 to a link that holds for ten minutes.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    export: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let file = FILES.iter().find(|(name, _)| *name == export);
    let (name, file) = file.ok_or(Error::NotFound)?;
    let statuses = match file {
        File::Table(export) => export.statuses(),
        File::Journal => &[],
    };
    let known: &[&str] = if statuses.is_empty() {
        &["from", "to"]
    } else {
        &["from", "to", "status"]
    };
    let query = Query::parse(request, known)?;
    let (from, to) = query.from_to()?;
    let status = query.one_of("status", statuses)?;
    let mut client = app.database.client().await?;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    match file {
        File::Table(export) => {
            let filter = Filter { from, to, status };
            let rows = exports::rows(&transaction, *export, filter).await?;
            let rows = rows.map_err(Error::from);
            answer(app, request, now, name, export.header(), rows, write_row).await
        }
        File::Journal => {
            let from = whole_day("from", from)?;
            let to = whole_day("to", to)?;
            let entries = exports::entries(&transaction, from, to).await?;
            let entries = entries.map_err(Error::from);
            answer(
                app,
                request,
                now,
                name,
                &JOURNAL_HEADER,
                entries,
                write_lines,
            )
            .await
        }
    }
}

fn write_row(writer: &mut Writer, row: &ExportRow) -> Result<(), Error> {
    for field in row.fields() {
        match field? {
            Field::Null => writer.empty(),
            Field::Number(number) => writer.value(number),
            Field::Flag(flag) => writer.value(flag),
            Field::Text(text) => writer.text(text),
            Field::Instant(instant) => writer.value(instant),
        }
        .map_err(unwritten)?;
    }
    writer.end_row().map_err(unwritten)
}

fn write_lines(writer: &mut Writer, entry: &RevenueEntry) -> Result<(), Error> {
    for line in journal::lines(entry)? {
        let cells = [
            Cell::value(line.date),
            Cell::value(line.account.code()),
            Cell::value(line.debit.to_decimal()),
            Cell::value(line.credit.to_decimal()),
            line.debit.currency.into(),
            line.reference.into(),
        ];
        writer.row(cells).map_err(unwritten)?;
    }
    Ok(())
}

pub(crate) fn unwritten(error: csv_export::Error) -> Error {
    Error::Internal(Box::new(error))
}

/// Entries are of days: an instant within one would cut it in two.
fn whole_day(field: &str, instant: Option<Timestamp>) -> Result<Option<jiff::civil::Date>, Error> {
    match instant {
        Some(instant) if start_of_day(day_of(instant)) != instant => Err(Error::invalid_parameter(
            field,
            "the journal is of whole days: a date, or midnight UTC",
        )),
        other => Ok(other.map(day_of)),
    }
}

/// The rows in the answer, or a redirect to where they were stored.
pub(crate) async fn answer<T>(
    app: &Clients,
    request: &Request,
    now: Timestamp,
    name: &str,
    header: &[&str],
    rows: impl Stream<Item = Result<T, Error>>,
    write: fn(&mut Writer, &T) -> Result<(), Error>,
) -> Result<Response<Body>, Error> {
    let mut rows = pin!(rows);
    let mut writer = Writer::new();
    writer.header(header).map_err(unwritten)?;
    let mut has_more = read(&mut rows, &mut writer, write, INLINE_BYTES).await?;
    if !has_more {
        return attachment::csv(name, writer.into_bytes().map_err(unwritten)?);
    }
    let bucket = app
        .document_bucket
        .as_ref()
        .map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
    let key = format!("exports/{}/{name}", api::request_id(request));
    let mut upload = bucket.begin_upload(&key, attachment::CSV).await?;
    let stored: Result<(), Error> = async {
        has_more = read(&mut rows, &mut writer, write, PART_BYTES).await?;
        loop {
            let part = writer.into_bytes().map_err(unwritten)?;
            if !has_more {
                return Ok(upload.part(part).await?);
            }
            // The next part is read while this one is stored.
            writer = Writer::new();
            let next = read(&mut rows, &mut writer, write, PART_BYTES);
            let (stored, next) = join(upload.part(part), next).await;
            stored?;
            has_more = next?;
        }
    }
    .await;
    if let Err(error) = stored {
        // What cannot be removed now is removed by the bucket's lifecycle rule.
        if let Err(left) = upload.abort().await {
            tracing::warn!(cause = %left, key, "an unfinished upload could not be aborted");
        }
        return Err(error);
    }
    upload.complete().await?;
    let link = bucket.presigned_get(&key, name, now).await?;
    api::redirect(StatusCode::SEE_OTHER, &link)
}

/// Writes rows until the part has `limit_bytes` or there are no more; says whether there may be.
async fn read<T>(
    rows: &mut (impl Stream<Item = Result<T, Error>> + Unpin),
    writer: &mut Writer,
    write: fn(&mut Writer, &T) -> Result<(), Error>,
    limit_bytes: usize,
) -> Result<bool, Error> {
    while writer.size_bytes() < limit_bytes {
        match rows.try_next().await? {
            Some(row) => write(writer, &row)?,
            None => return Ok(false),
        }
    }
    Ok(true)
}
