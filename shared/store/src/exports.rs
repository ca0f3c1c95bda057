//! What the CSV exports read: row by row, so that memory does not grow with the table.

use futures_util::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::value::RawValue;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{Row, Transaction};

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
    /// The order of the rows: the primary key, so that they come as they are found.
    key: &'static str,
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

    /// What reads the rows, and the types of its parameters: the ends of the range and the status; each may be NULL.
    #[must_use]
    pub fn statement(self) -> (String, [Type; 3]) {
        let Source {
            table,
            condition,
            status,
            dated_by,
            key,
            columns,
        } = self.source();
        let columns = columns.join(", ");
        let text = format!(
            "-- exports::rows
             SELECT {columns} FROM {table}
             WHERE {condition} AND ($1::timestamptz IS NULL OR {dated_by} >= $1)
               AND ($2::timestamptz IS NULL OR {dated_by} < $2) AND ($3::text IS NULL OR {status} = $3)
             ORDER BY {key}"
        );
        (text, [Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::TEXT])
    }

    fn source(self) -> Source {
        match self {
            Export::Payments => Source {
                table: "payment_history",
                condition: "NOT superseded",
                status: "status",
                dated_by: "created_at",
                key: "id",
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

/// The rows of an export. They come as fast as they are taken: what is not taken yet waits in the connection.
///
/// # Errors
/// When the statement fails, at its start or in the stream.
pub async fn rows(
    db: &Transaction<'_>,
    export: Export,
    filter: Filter<'_>,
) -> Result<impl Stream<Item = Result<ExportRow, Error>> + use<>, Error> {
    let (text, types) = export.statement();
    let values: [&(dyn ToSql + Sync); 3] = [&filter.from, &filter.to, &filter.status];
    let parameters = values.into_iter().zip(types);
    let rows = db.query_typed_raw(&text, parameters).await?;
    Ok(rows.map(|row| Ok(ExportRow { row: row? })))
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

/// The revenue entries of the days `[from, to)`, in the order of their days.
///
/// # Errors
/// When the statement fails, at its start or in the stream.
pub async fn entries(
    db: &Transaction<'_>,
    from: Option<Date>,
    to: Option<Date>,
) -> Result<impl Stream<Item = Result<RevenueEntry, Error>> + use<>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&from, Type::DATE), (&to, Type::DATE)];
    let rows = db
        .query_typed_raw(
            "-- exports::entries
             SELECT payment_key, kind, source_id, occurred_at, currency, amount_cents, is_estimated
             FROM revenue_entries
             WHERE ($1::date IS NULL OR day >= $1) AND ($2::date IS NULL OR day < $2)
             ORDER BY day, payment_key, kind, source_id",
            parameters,
        )
        .await?;
    Ok(rows
        .map_err(Error::from)
        .map(|row| payment_facts::entry_from_row(&row?)))
}
