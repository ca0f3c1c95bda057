//! `GET /admin/exports/{export}`: tables and the journal as CSV, in the answer or, when they are large, through S3.

use std::pin::pin;
use std::sync::Arc;

use axum::extract::State;
use documents::csv_export::{self, Cell, Writer};
use domain::page::Span;
use domain::period::{day_of, start_of_day};
use domain::revenue::entries::RevenueEntry;
use domain::revenue::journal;
use futures_util::future::join;
use futures_util::{Stream, TryStreamExt};
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{Attachment, FileAnswer, Now, Path, Query, RequestId, SeeOther};
use runtime::api::list::SpanQuery;
use serde::Deserialize;
use store::exports::{self, Export, ExportRow, Filter};
use store::row::Field;
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::parameters::unknown_parameter;
use crate::reports::text;

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

/// A table or the journal, as a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) enum ExportFile {
    #[serde(rename = "payments.csv")]
    Payments,
    #[serde(rename = "invoices.csv")]
    Invoices,
    #[serde(rename = "refunds.csv")]
    Refunds,
    #[serde(rename = "usage.csv")]
    Usage,
    #[serde(rename = "subscriptions.csv")]
    Subscriptions,
    #[serde(rename = "mrr-movements.csv")]
    MrrMovements,
    #[serde(rename = "journal.csv")]
    Journal,
}

impl ExportFile {
    /// Its name, and the table that it is made of; the journal is of none.
    fn named(self) -> (&'static str, Option<Export>) {
        match self {
            ExportFile::Payments => ("payments.csv", Some(Export::Payments)),
            ExportFile::Invoices => ("invoices.csv", Some(Export::Invoices)),
            ExportFile::Refunds => ("refunds.csv", Some(Export::Refunds)),
            ExportFile::Usage => ("usage.csv", Some(Export::Usage)),
            ExportFile::Subscriptions => ("subscriptions.csv", Some(Export::Subscriptions)),
            ExportFile::MrrMovements => ("mrr-movements.csv", Some(Export::MrrMovements)),
            ExportFile::Journal => ("journal.csv", None),
        }
    }
}

/// The export of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ExportPath {
    /// The name of the file.
    #[param(inline)]
    export: ExportFile,
}

/// Which rows are exported.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ExportQuery {
    /// Only rows of this status, where the table has one.
    status: Option<String>,
}

/// Answers the rows of `[from, to)` as a CSV. Up to 4 MiB are answered with 200; a larger file goes to S3, and the
/// answer is a 303 to a link that works for ten minutes. The journal takes whole days.
#[utoipa::path(get, path = "/admin/exports/{export}")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(ExportPath { export }): Path<ExportPath>,
    Query(ExportQuery { status }): Query<ExportQuery>,
    Query(span): Query<SpanQuery>,
    RequestId(request_id): RequestId,
    Now(now): Now,
) -> Result<FileAnswer, Error> {
    let (name, export) = export.named();
    let Span { from, to } = span.span()?;
    if let Some(status) = &status {
        let statuses = export.map_or(&[][..], Export::statuses);
        if statuses.is_empty() {
            let detail = "the rows of this export have none";
            return Err(unknown_parameter("status", detail));
        }
        if !statuses.contains(&status.as_str()) {
            let detail = format!("one of {}", statuses.join(", "));
            return Err(Error::invalid_parameter("status", detail));
        }
    }
    let mut client = app.database.client().await?;
    let transaction = exports::snapshot(&mut client).await?;
    let file = File {
        app: &app,
        request_id: &request_id,
        name,
        now,
    };
    match export {
        Some(export) => {
            let filter = Filter {
                from,
                to,
                status: status.as_deref(),
            };
            let rows = exports::rows(&transaction, export, filter).await?;
            file.of(export.header(), rows.map_err(Error::from), write_row)
                .await
        }
        None => {
            let from = whole_day("from", from)?;
            let to = whole_day("to", to)?;
            let entries = exports::entries(&transaction, from, to);
            file.of(&JOURNAL_HEADER, entries.map_err(Error::from), write_lines)
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
            Field::Text(text) => writer.text(&text),
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

/// A file that is being answered.
pub(crate) struct File<'a> {
    pub(crate) app: &'a Clients,
    /// Part of the key under which a large one is stored.
    pub(crate) request_id: &'a str,
    /// Letters, digits, dots and hyphens.
    pub(crate) name: &'a str,
    pub(crate) now: Timestamp,
}

impl File<'_> {
    /// The rows in the answer, or a redirect to where they were stored.
    pub(crate) async fn of<T: Sync>(
        &self,
        header: &[&str],
        rows: impl Stream<Item = Result<T, Error>> + Send,
        write: fn(&mut Writer, &T) -> Result<(), Error>,
    ) -> Result<FileAnswer, Error> {
        let mut rows = pin!(rows);
        let mut writer = Writer::new();
        writer.header(header).map_err(unwritten)?;
        let has_more = read(&mut rows, &mut writer, write, INLINE_BYTES).await?;
        if !has_more {
            return Ok(FileAnswer::Attached(Attachment {
                content_type: csv_export::CONTENT_TYPE,
                filename: self.name.to_owned(),
                text: text(writer.into_bytes().map_err(unwritten)?)?,
            }));
        }
        let bucket = self.app.document_bucket.as_ref();
        let bucket = bucket.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
        let key = format!("exports/{}/{}", self.request_id, self.name);
        let mut upload = bucket.begin_upload(&key, csv_export::CONTENT_TYPE).await?;
        let stored: Result<(), Error> = async {
            let mut has_more = read(&mut rows, &mut writer, write, PART_BYTES).await?;
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
        let link = bucket.presigned_get(&key, self.name, self.now).await?;
        Ok(FileAnswer::Stored(SeeOther(link)))
    }
}

/// Writes rows until the part has `limit_bytes` or there are no more; says whether there may be.
async fn read<T: Sync>(
    rows: &mut (impl Stream<Item = Result<T, Error>> + Unpin + Send),
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
