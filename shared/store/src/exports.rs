//! What the CSV exports read: 10,000 rows of a table a statement, by its key, so that neither memory nor the time of a
//! statement grows with the table. One snapshot holds for all statements of an export ([`snapshot`]).

use futures_util::{Stream, TryStreamExt, stream, try_join};
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::value::RawValue;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{Client, IsolationLevel, Row, Transaction};

use super::row::Field;
use super::{Error, payment_facts};
use domain::revenue::entries::RevenueEntry;

/// A table that is exported as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// One line per payment, however often it was tried; the table `payment_history`.
    Payments,
    /// Stripe's, the predecessor's and our own invoices; the table `invoices`.
    Invoices,
    /// One line per refund object of Stripe; the table `refunds`.
    Refunds,
    /// One line per metered event, voided ones included; the table `usage_events`.
    Usage,
    /// One line per subscription as Stripe last showed it; the table `subscriptions`.
    Subscriptions,
    /// One line per change of a customer's MRR; the table `mrr_movements`.
    MrrMovements,
}

/// Which rows: `[from, to)` by the instant the export is dated by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// The first instant exported; `None` from the beginning.
    pub from: Option<Timestamp>,
    /// The first instant no longer exported; `None` to the end.
    pub to: Option<Timestamp>,
    /// Only rows with this status, one of [`Export::statuses`]; `None` for every status.
    pub status: Option<&'a str>,
}

/// Where an export's rows are, and which of them count.
struct Source {
    table: &'static str,
    /// Rows that are no rows of ours are left out.
    condition: &'static str,
    /// The column that `status` is compared with.
    status: &'static str,
    /// The column that `from` and `to` are compared with.
    dated_by: &'static str,
    /// The order of the rows: the primary key, a number unless `key_is_text`.
    key: &'static str,
    key_is_text: bool,
    /// Whether an index finds the rows of a range of `dated_by`.
    has_dates: bool,
    /// Named in the header as in the statement.
    columns: &'static [&'static str],
}

impl Export {
    /// The words `status` may be; none when the table has no status.
    #[must_use]
    pub const fn statuses(self) -> &'static [&'static str] {
        match self {
            Export::Payments => &[
                "pending",
                "succeeded",
                "failed",
                "refunded",
                "partially_refunded",
                "disputed",
                "canceled",
            ],
            Export::Invoices => &["draft", "open", "paid", "void", "uncollectible"],
            Export::Refunds => &[
                "pending",
                "requires_action",
                "succeeded",
                "failed",
                "canceled",
            ],
            Export::Subscriptions => &[
                "incomplete",
                "incomplete_expired",
                "trialing",
                "active",
                "past_due",
                "canceled",
                "unpaid",
                "paused",
            ],
            Export::Usage | Export::MrrMovements => &[],
        }
    }

    /// The names of the columns.
    pub fn header(self) -> &'static [&'static str] {
        self.source().columns
    }

    /// What reads the rows between two keys, and the types of its parameters: the ends of the range and the status, each of
    /// which may be NULL, the key before the first and the last one.
    #[must_use]
    pub fn statement(self) -> (String, [Type; 5]) {
        let Source {
            table,
            condition,
            status,
            dated_by,
            key,
            columns,
            ..
        } = self.source();
        let columns = columns.join(", ");
        let text = format!(
            "-- exports::page
             SELECT {columns} FROM {table}
             WHERE {condition} AND ($1::timestamptz IS NULL OR {dated_by} >= $1)
               AND ($2::timestamptz IS NULL OR {dated_by} < $2) AND ($3::text IS NULL OR {status} = $3)
               AND {key} > $4 AND {key} <= $5
             ORDER BY {key}"
        );
        let key = self.key_type();
        let types = [
            Type::TIMESTAMPTZ,
            Type::TIMESTAMPTZ,
            Type::TEXT,
            key.clone(),
            key,
        ];
        (text, types)
    }

    /// What finds the last key of the next rows, counted without a filter: each statement has so many rows to look at and
    /// no more, however few of them are exported. Its parameter is the key before.
    #[must_use]
    pub fn end_statement(self) -> (String, [Type; 1]) {
        let Source { table, key, .. } = self.source();
        let text = format!(
            "-- exports::end
             SELECT max(key) AS key
             FROM (SELECT {key} AS key FROM {table} WHERE {key} > $1 ORDER BY {key} LIMIT {ROWS}) AS next"
        );
        (text, [self.key_type()])
    }

    /// What finds the least and the greatest key of a range, where an index has its dates.
    #[must_use]
    pub fn span_statement(self) -> Option<(String, [Type; 2])> {
        let Source {
            table,
            dated_by,
            key,
            has_dates,
            ..
        } = self.source();
        // `+ 0`: the key's own index would be read from its end until a row of the range is found.
        let text = format!(
            "-- exports::span
             SELECT min({key} + 0)::bigint AS first, max({key} + 0)::bigint AS last FROM {table}
             WHERE ($1::timestamptz IS NULL OR {dated_by} >= $1)
               AND ($2::timestamptz IS NULL OR {dated_by} < $2)"
        );
        has_dates.then_some((text, [Type::TIMESTAMPTZ, Type::TIMESTAMPTZ]))
    }

    fn key_type(self) -> Type {
        if self.source().key_is_text {
            Type::TEXT
        } else {
            Type::INT8
        }
    }

    fn source(self) -> Source {
        match self {
            Export::Payments => Source {
                table: "payment_history",
                condition: "NOT superseded",
                status: "status",
                dated_by: "created_at",
                key: "id",
                key_is_text: false,
                has_dates: true,
                columns: &[
                    "id",
                    "invoice_id",
                    "user_id",
                    "stripe_payment_intent_id",
                    "stripe_charge_id",
                    "amount_cents",
                    "currency",
                    "status",
                    "payment_method",
                    "stripe_fee_cents",
                    "net_amount_cents",
                    "failure_code",
                    "failure_message",
                    "refunded_at",
                    "refund_reason",
                    "refund_amount_cents",
                    "created_at",
                    "stripe_customer_id",
                    "stripe_invoice_id",
                    "fee_source",
                    "stripe_balance_transaction_id",
                    "settlement_currency",
                    "settlement_amount_cents",
                    "settlement_fee_cents",
                    "exchange_rate",
                    "succeeded_at",
                    "dispute_status",
                    "disputed_amount_cents",
                ],
            },
            Export::Invoices => Source {
                table: "invoices",
                condition: "NOT superseded AND deleted_at IS NULL",
                status: "status",
                dated_by: "created_at",
                key: "id",
                key_is_text: false,
                has_dates: true,
                columns: &[
                    "id",
                    "user_id",
                    "api_key_prefix",
                    "invoice_number",
                    "stripe_invoice_id",
                    "subtotal_cents",
                    "tax_cents",
                    "discount_cents",
                    "total_cents",
                    "amount_paid_cents",
                    "amount_due_cents",
                    "currency",
                    "status",
                    "billing_period_start",
                    "billing_period_end",
                    "due_date",
                    "paid_at",
                    "voided_at",
                    "notes",
                    "invoice_pdf_url",
                    "created_at",
                    "kind",
                    "stripe_customer_id",
                    "stripe_subscription_id",
                    "contract_id",
                    "finalized_at",
                    "sent_at",
                    "credit_applied_cents",
                    "attempt_count",
                    "next_payment_attempt_at",
                    "po_number",
                ],
            },
            Export::Refunds => Source {
                table: "refunds",
                condition: "true",
                status: "status",
                dated_by: "created_at",
                key: "stripe_refund_id",
                key_is_text: true,
                has_dates: false,
                columns: &[
                    "stripe_refund_id",
                    "stripe_charge_id",
                    "stripe_payment_intent_id",
                    "amount_cents",
                    "currency",
                    "reason",
                    "status",
                    "created_at",
                    "failed_at",
                ],
            },
            Export::Usage => Source {
                table: "usage_events",
                condition: "true",
                status: "NULL",
                dated_by: "created_at",
                key: "id",
                key_is_text: false,
                has_dates: false,
                columns: &[
                    "id",
                    "user_id",
                    "api_key_prefix",
                    "event_type",
                    "resource_id",
                    "billable",
                    "cost_units",
                    "unit_price_cents",
                    "currency",
                    "metadata",
                    "created_at",
                    "idempotency_key",
                    "ingested_at",
                    "voided_at",
                    "void_reason",
                ],
            },
            Export::Subscriptions => Source {
                table: "subscriptions",
                condition: "NOT superseded",
                status: "status",
                dated_by: "created_at",
                key: "id",
                key_is_text: false,
                has_dates: true,
                columns: &[
                    "id",
                    "user_id",
                    "stripe_subscription_id",
                    "status",
                    "current_period_start",
                    "current_period_end",
                    "plan_name",
                    "current_plan_price_cents",
                    "billing_cycle",
                    "auto_renew",
                    "cancel_at_period_end",
                    "cancellation_reason",
                    "mrr_cents",
                    "trial_end",
                    "created_at",
                    "stripe_customer_id",
                    "currency",
                    "mrr_microcents",
                    "potential_mrr_microcents",
                    "mrr_provisional",
                    "started_at",
                    "trial_start",
                    "cancel_at",
                    "canceled_at",
                    "ended_at",
                    "paused_at",
                ],
            },
            Export::MrrMovements => Source {
                table: "mrr_movements",
                condition: "true",
                status: "NULL",
                dated_by: "occurred_at",
                key: "id",
                key_is_text: false,
                has_dates: true,
                columns: &[
                    "id",
                    "occurred_at",
                    "stripe_customer_id",
                    "stripe_subscription_id",
                    "kind",
                    "currency",
                    "delta_microcents",
                    "before_microcents",
                    "after_microcents",
                    "cause_event_id",
                ],
            },
        }
    }
}

/// How many rows a statement looks at.
const ROWS: i64 = 10_000;

/// A transaction in which every statement of an export sees the same rows.
///
/// # Errors
/// When it cannot be begun.
pub async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, Error> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true);
    Ok(transaction.start().await?)
}

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Number(i64),
    Text(String),
}

impl Key {
    fn parameter(&self) -> &(dyn ToSql + Sync) {
        match self {
            Key::Number(number) => number,
            Key::Text(text) => text,
        }
    }
}

/// The rows of an export, in the order of their keys. `db` is a [`snapshot`].
///
/// # Errors
/// When a statement fails, at the start or in the stream.
pub async fn rows<'a>(
    db: &'a Transaction<'_>,
    export: Export,
    filter: Filter<'a>,
) -> Result<impl Stream<Item = Result<ExportRow, Error>> + use<'a>, Error> {
    let (before, last) = span(db, export, filter).await?;
    let end = end(db, export, &before).await?;
    let pages = stream::try_unfold((before, end), move |(before, end)| {
        let last = last.clone();
        async move {
            let Some(end) = end else {
                return Ok::<_, Error>(None);
            };
            let is_last = last.as_ref().is_some_and(|last| reaches(&end, last));
            let next = async {
                match is_last {
                    true => Ok(None),
                    false => self::end(db, export, &end).await,
                }
            };
            // In one flight: the rows of this page, and where the next one ends.
            let (rows, next) = try_join!(page(db, export, filter, &before, &end), next)?;
            let rows = rows.into_iter().map(|row| Ok(ExportRow { row }));
            Ok(Some((stream::iter(rows), (end, next))))
        }
    });
    Ok(pages.try_flatten())
}

/// Whether keys up to `end` include the last one. Texts have no known last one.
fn reaches(end: &Key, last: &Key) -> bool {
    match (end, last) {
        (Key::Number(end), Key::Number(last)) => end >= last,
        (Key::Number(_) | Key::Text(_), _) => false,
    }
}

/// The key before the first row of the range, and the last one where it is known.
async fn span(
    db: &Transaction<'_>,
    export: Export,
    filter: Filter<'_>,
) -> Result<(Key, Option<Key>), Error> {
    let Filter { from, to, .. } = filter;
    if export.source().key_is_text {
        return Ok((Key::Text(String::new()), None));
    }
    let whole = (Key::Number(i64::MIN), None);
    if from.is_none() && to.is_none() {
        return Ok(whole);
    }
    let Some((text, [from_type, to_type])) = export.span_statement() else {
        return Ok(whole);
    };
    let row = db
        .query_typed_one(&text, &[(&from, from_type), (&to, to_type)])
        .await?;
    let first: Option<i64> = row.try_get("first")?;
    let last: Option<i64> = row.try_get("last")?;
    // Without a row in the range none is after the greatest number.
    let before = first.map_or(i64::MAX, |first| first.saturating_sub(1));
    Ok((Key::Number(before), last.map(Key::Number)))
}

/// The last key of the next rows after `before`; `None` when there are none.
async fn end(db: &Transaction<'_>, export: Export, before: &Key) -> Result<Option<Key>, Error> {
    let (text, [key]) = export.end_statement();
    let row = db
        .query_typed_one(&text, &[(before.parameter(), key)])
        .await?;
    Ok(match before {
        Key::Text(_) => row.try_get::<_, Option<String>>("key")?.map(Key::Text),
        Key::Number(_) => row.try_get::<_, Option<i64>>("key")?.map(Key::Number),
    })
}

async fn page(
    db: &Transaction<'_>,
    export: Export,
    filter: Filter<'_>,
    before: &Key,
    end: &Key,
) -> Result<Vec<Row>, Error> {
    let (text, types) = export.statement();
    let values = [
        &filter.from as &(dyn ToSql + Sync),
        &filter.to,
        &filter.status,
        before.parameter(),
        end.parameter(),
    ];
    let parameters: Vec<_> = values.into_iter().zip(types).collect();
    Ok(db.query_typed(&text, &parameters).await?)
}

/// A row of an export, whatever its table.
#[derive(Debug)]
pub struct ExportRow {
    row: Row,
}

impl ExportRow {
    /// The values in the order of [`Export::header`].
    pub fn fields(&self) -> impl Iterator<Item = Result<Field<'_>, Error>> {
        (0..self.row.len()).map(|column| self.field(column))
    }

    fn field(&self, column: usize) -> Result<Field<'_>, Error> {
        let row = &self.row;
        let field = match *row.columns()[column].type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(column)?.map(Field::Number),
            Type::INT4 => row
                .try_get::<_, Option<i32>>(column)?
                .map(|number| Field::Number(number.into())),
            Type::BOOL => row.try_get::<_, Option<bool>>(column)?.map(Field::Flag),
            Type::TIMESTAMPTZ => row
                .try_get::<_, Option<Timestamp>>(column)?
                .map(Field::Instant),
            // As Postgres wrote it, numbers of any length included.
            Type::JSONB => row
                .try_get::<_, Option<Json<&RawValue>>>(column)?
                .map(|json| Field::Text(json.0.get().into())),
            _ => row
                .try_get::<_, Option<&str>>(column)?
                .map(|text| Field::Text(text.into())),
        };
        Ok(field.unwrap_or(Field::Null))
    }
}

/// The revenue entries of the days `[from, to)`, in the order of their days. `db` is a [`snapshot`].
///
/// # Errors
/// When a statement fails, in the stream.
pub fn entries<'a>(
    db: &'a Transaction<'_>,
    from: Option<Date>,
    to: Option<Date>,
) -> impl Stream<Item = Result<RevenueEntry, Error>> + use<'a> {
    let pages = stream::try_unfold(Some(EntryKey::before(from)), move |before| async move {
        let Some(before) = before else {
            return Ok::<_, Error>(None);
        };
        let rows = entries_after(db, &before, to).await?;
        let next = match rows.last() {
            Some(row) if i64::try_from(rows.len()) == Ok(ROWS) => Some(EntryKey::of(row)?),
            Some(_) | None => None,
        };
        let entries = rows
            .into_iter()
            .map(|row| payment_facts::entry_from_row(&row));
        Ok(Some((stream::iter(entries), next)))
    });
    pages.try_flatten()
}

/// The place of an entry in the order of the journal.
struct EntryKey {
    day: Date,
    payment_key: String,
    kind: String,
    source_id: String,
}

impl EntryKey {
    /// The place before the entries of a day; of all days for `None`.
    fn before(day: Option<Date>) -> EntryKey {
        EntryKey {
            // Postgres has no earlier one than 4713 BC.
            day: day.unwrap_or(Date::constant(1, 1, 1)),
            payment_key: String::new(),
            kind: String::new(),
            source_id: String::new(),
        }
    }

    fn of(row: &Row) -> Result<EntryKey, Error> {
        Ok(EntryKey {
            day: row.try_get("day")?,
            payment_key: row.try_get("payment_key")?,
            kind: row.try_get("kind")?,
            source_id: row.try_get("source_id")?,
        })
    }
}

async fn entries_after(
    db: &Transaction<'_>,
    before: &EntryKey,
    to: Option<Date>,
) -> Result<Vec<Row>, Error> {
    let rows = db
        .query_typed(
            "-- exports::entries_after
             SELECT day, payment_key, kind, source_id, occurred_at, currency, amount_cents, is_estimated
             FROM revenue_entries
             WHERE (day, payment_key, kind, source_id) > ($1, $2, $3, $4) AND ($5::date IS NULL OR day < $5)
             ORDER BY day, payment_key, kind, source_id LIMIT $6",
            &[
                (&before.day, Type::DATE),
                (&before.payment_key, Type::TEXT),
                (&before.kind, Type::TEXT),
                (&before.source_id, Type::TEXT),
                (&to, Type::DATE),
                (&ROWS, Type::INT8),
            ],
        )
        .await?;
    Ok(rows)
}
