//! What every list has in common: the parameters of its page, and its answer.

use lambda_http::http::StatusCode;
use lambda_http::{Body, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, Query};
use domain::page::{Page, Position, Rows, Span};
use domain::period::day_of;

#[derive(Serialize)]
struct List<T> {
    /// Newest first.
    data: Vec<T>,
    next_cursor: Option<String>,
}

/// `limit` and `cursor`.
///
/// # Errors
/// When one of them is not valid; the error names it.
pub fn page<K: DeserializeOwned>(query: &Query) -> Result<Page<K>, Error> {
    let limit = query.limit()?;
    let after: Option<Position<K>> = query.cursor()?;
    match &after {
        // We never wrote such a one, and no column can be compared with it.
        Some(Position(at, _)) if day_of(*at).year() < 1 => Err(Error::invalid_parameter(
            "cursor",
            "pass on the next_cursor of a list",
        )),
        Some(_) | None => Ok(Page { after, limit }),
    }
}

/// `from` and `to`.
///
/// # Errors
/// When one of them is not valid; the error names it.
pub fn span(query: &Query) -> Result<Span, Error> {
    let (from, to) = query.from_to()?;
    Ok(Span { from, to })
}

/// A page of rows.
///
/// # Errors
/// When it cannot be written.
pub fn answer<K: Serialize>(rows: Rows<K, impl Serialize>) -> Result<Response<Body>, Error> {
    answer_with(rows.rows, rows.next.as_ref())
}

/// A page of anything, and where it ended unless it is the last.
///
/// # Errors
/// When it cannot be written.
pub fn answer_with<K: Serialize>(
    data: Vec<impl Serialize>,
    next: Option<&Position<K>>,
) -> Result<Response<Body>, Error> {
    let next_cursor = next.map(super::cursor).transpose()?;
    super::json(StatusCode::OK, &List { data, next_cursor })
}
