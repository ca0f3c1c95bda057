//! `audit_log`: who did what to what, before and after.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::list::{self, Order, Page, Rows, Span, sorted};

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
) -> Result<Rows<i64>, Error> {
    list::read(
        db,
        "-- audit_log::list
             SELECT id, at, actor, action, target, before, after, at AS listed_at
             FROM audit_log
             WHERE true",
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
