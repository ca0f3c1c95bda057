//! `reconciliation_runs` and `reconciliation_items`: what was compared with Stripe, and what differed.

use futures_util::{Stream, StreamExt};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Transaction};

use super::list::{self, Object, Order, Page, Rows, Span};
use super::{Error, columns};

/// A page of runs, the one that began last first.
///
/// # Errors
/// When the statement fails.
pub async fn list(db: &impl GenericClient, page: &Page<i64>) -> Result<Rows<i64>, Error> {
    list::read(
        db,
        "-- reconciliation_runs::list
             SELECT run_id, kind, since, until, started_at, finished_at, status, compared, matched,
                    healed, open, completeness_bps, summary, report_key, started_at AS listed_at
             FROM reconciliation_runs
             WHERE true",
        Order {
            at: "started_at",
            key: "run_id",
        },
        &[],
        Span::default(),
        page,
    )
    .await
}

/// One run.
///
/// # Errors
/// When the statement fails.
pub async fn get(db: &impl GenericClient, run_id: i64) -> Result<Option<Object>, Error> {
    let row = db
        .query_typed(
            "-- reconciliation_runs::get
             SELECT run_id, kind, since, until, started_at, finished_at, status, compared, matched,
                    healed, open, completeness_bps, summary, report_key
             FROM reconciliation_runs WHERE run_id = $1",
            &[(&run_id, Type::INT8)],
        )
        .await?;
    row.first().map(columns::object).transpose()
}

/// Up to `limit` items of a run, asked for as a range of their index (see [`super::list`]), in the order in which they were found, after the one with the id `after`.
///
/// # Errors
/// When the statement fails.
pub async fn items(
    db: &impl GenericClient,
    run_id: i64,
    after: i64,
    limit: i64,
) -> Result<Vec<Object>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_runs::items
             SELECT id, run_id, kind, resolution, object_type, object_id, currency, stripe_value,
                    ledger_value, detail, found_at, resolved_at, accepted_by, accepted_reason
             FROM reconciliation_items
             WHERE (run_id, id) > ($1, $2) AND run_id <= $1
             ORDER BY run_id, id LIMIT $3",
            &[
                (&run_id, Type::INT8),
                (&after, Type::INT8),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter().map(columns::object).collect()
}

/// All items of a run, in the order in which they were found, row by row.
///
/// # Errors
/// When the statement fails; a row may be an error too.
pub async fn all_items(
    db: &Transaction<'_>,
    run_id: i64,
) -> Result<impl Stream<Item = Result<Object, Error>> + use<>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&run_id, Type::INT8)];
    let rows = db
        .query_typed_raw(
            "-- reconciliation_runs::all_items
             SELECT id, run_id, kind, resolution, object_type, object_id, currency, stripe_value,
                    ledger_value, detail, found_at, resolved_at, accepted_by, accepted_reason
             FROM reconciliation_items
             WHERE run_id = $1
             ORDER BY run_id, id",
            parameters,
        )
        .await?;
    Ok(rows.map(|row| columns::object(&row?)))
}
