//! `audit_log`: who did what to what, before and after.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::columns::columns;
use super::list::{self, Order, sorted};
use domain::page::{Page, Rows, Span};

columns! {
    /// Who did what to what, as the audit log lists it.
    pub struct AuditEntry of "audit_log" {
        pub id: i64,
        pub at: Timestamp,
        /// Who, as the token names them.
        pub actor: String,
        /// What was done, such as `contract.update`.
        pub action: String,
        /// What it was done to, such as `contract:7`.
        pub target: String,
        /// Null for a creation.
        pub before: Option<Value>,
        /// Null for a removal.
        pub after: Option<Value>,
    }
}

/// Which entries a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub actor: Option<&'a str>,
    pub action: Option<&'a str>,
    pub target: Option<&'a str>,
    pub at: Span,
}

/// A page of the log.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64, AuditEntry>, Error> {
    list::read(
        db,
        &format!(
            "-- audit_log::list
             SELECT {}, at AS listed_at FROM audit_log WHERE true",
            AuditEntry::COLUMNS
        ),
        Order {
            at: "at",
            key: "id",
        },
        &[
            sorted("target", &filter.target, Type::TEXT),
            sorted("actor", &filter.actor, Type::TEXT),
            sorted("action", &filter.action, Type::TEXT),
        ],
        filter.at,
        page,
    )
    .await
}

/// A line of the audit log that is about to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    /// Who, as the token names them.
    pub actor: &'a str,
    /// What was done, as in `contract.update`.
    pub action: &'static str,
    /// What it was done to, `contract:7`.
    pub target: String,
    /// `None` for a creation.
    pub before: Option<Value>,
    /// `None` for a removal.
    pub after: Option<Value>,
}

/// Writes an entry, in the transaction of what it tells.
///
/// # Errors
/// When the statement fails.
pub async fn insert(
    db: &impl GenericClient,
    entry: &Entry<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- audit_log::insert
             INSERT INTO audit_log (at, actor, action, target, before, after)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                (&now, Type::TIMESTAMPTZ),
                (&entry.actor, Type::TEXT),
                (&entry.action, Type::TEXT),
                (&entry.target, Type::TEXT),
                (&entry.before, Type::JSONB),
                (&entry.after, Type::JSONB),
            ],
        )
        .await?;
    Error::check_row_count("audit_log::insert", 1, changed)
}
