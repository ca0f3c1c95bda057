//! `contract_changes`: what of a contract changes on which day.

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{Json, Type};

use super::Error;
use super::columns::{self, columns};
use super::list::{self, Order};
use domain::page::{Page, Rows, Span};
use domain::partner::terms::Change;

columns! {
    /// A change of a contract's dated members.
    pub struct ContractChange of "contract_changes" {
        pub id: i64,
        pub contract_id: i64,
        /// The first day on which it holds; null for since ever.
        pub effective_from: Option<Date>,
        /// The members it changes; null restores a default.
        pub members: Value,
        /// Why, where somebody said so.
        pub reason: Option<String>,
        /// Whether somebody has looked at what it does to days before the running cycle.
        pub reviewed: bool,
        /// Who entered it, as the audit log names them; `host` for what was written into the columns.
        pub created_by: String,
        pub created_at: Timestamp,
        /// When it was taken back; null while it holds.
        pub revoked_at: Option<Timestamp>,
    }
}

/// Who changes a contract, and why.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// As the audit log names them.
    pub created_by: &'a str,
    pub reason: Option<&'a str>,
    pub reviewed: bool,
}

/// A page of a contract's changes, newest first, those that are revoked among them.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    contract_id: i64,
    page: &Page<i64>,
) -> Result<Rows<i64, ContractChange>, Error> {
    list::read(
        db,
        &format!(
            "-- contract_changes::list
             SELECT {}, created_at AS listed_at FROM contract_changes WHERE true",
            ContractChange::COLUMNS
        ),
        Order {
            at: "created_at",
            key: "id",
        },
        &[list::sorted("contract_id", &Some(contract_id), Type::INT8)],
        Span::default(),
        page,
    )
    .await
}

/// One change of a contract.
///
/// # Errors
/// When the statement fails.
pub async fn find(
    db: &impl GenericClient,
    contract_id: i64,
    id: i64,
) -> Result<Option<ContractChange>, Error> {
    columns::first(
        db,
        &format!(
            "-- contract_changes::find
             SELECT {} FROM contract_changes WHERE contract_id = $1 AND id = $2",
            ContractChange::COLUMNS
        ),
        &[(&contract_id, Type::INT8), (&id, Type::INT8)],
    )
    .await
}

/// Enters changes of a contract, which is locked, and returns their ids, in their order.
///
/// # Errors
/// When the statement fails.
pub async fn insert_all(
    db: &impl GenericClient,
    contract_id: i64,
    changes: &[Change],
    author: &Author<'_>,
) -> Result<Vec<i64>, Error> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let days: Vec<Option<Date>> = changes.iter().map(|change| change.effective_from).collect();
    let members: Vec<Json<&serde_json::Map<String, Value>>> =
        changes.iter().map(|change| Json(&change.members)).collect();
    let created_at: Vec<Timestamp> = changes.iter().map(|change| change.created_at).collect();
    let rows = db
        .query_typed(
            "-- contract_changes::insert_all
             INSERT INTO contract_changes
                 (contract_id, effective_from, members, reason, reviewed, created_by, created_at)
             SELECT $1, effective_from, members, $5, $6, $7, created_at
             FROM unnest($2, $3, $4) WITH ORDINALITY AS new (effective_from, members, created_at, position)
             ORDER BY position
             RETURNING id",
            &[
                (&contract_id, Type::INT8),
                (&days, Type::DATE_ARRAY),
                (&members, Type::JSONB_ARRAY),
                (&created_at, Type::TIMESTAMPTZ_ARRAY),
                (&author.reason, Type::TEXT),
                (&author.reviewed, Type::BOOL),
                (&author.created_by, Type::TEXT),
            ],
        )
        .await?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        ids.push(row.try_get("id")?);
    }
    // They are given in the order of the rows.
    ids.sort_unstable();
    Ok(ids)
}

/// Takes changes of a contract back, which is locked.
///
/// # Errors
/// When the statement fails, or one of them was taken back before.
pub async fn revoke(
    db: &impl GenericClient,
    contract_id: i64,
    ids: &[i64],
    now: Timestamp,
) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let changed = db
        .execute_typed(
            "-- contract_changes::revoke
             UPDATE contract_changes SET revoked_at = $3
             WHERE contract_id = $1 AND id = ANY($2) AND revoked_at IS NULL",
            &[
                (&contract_id, Type::INT8),
                (&ids, Type::INT8_ARRAY),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let expected = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    Error::check_row_count("contract_changes::revoke", expected, changed)
}
