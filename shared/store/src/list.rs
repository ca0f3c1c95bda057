//! Pages of lists by keyset: where one ended, and its rows as structs.
//!
//! A list is sorted by an instant and a key, both descending, and a page goes on strictly below where the one before
//! ended. So a walk meets every row that was there when it began exactly once, whatever is added meanwhile.
//!
//! A page with a filter is asked for as a range of the index that begins with the filter's column, and is sorted by
//! that column too. Asked for with `=`, Postgres may think it cheaper to go through the history until enough rows with
//! the value have come by, which takes for ever when they are all old.

use domain::page::{Page, Position, Rows, Span};
use jiff::Timestamp;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{GenericClient, Row};

use super::Error;
use super::columns::FromRow;

/// The column every list selects besides those it shows: the instant it is sorted by.
const LISTED_AT: &str = "listed_at";

/// What orders rows of one instant: a surrogate id, or the text that is a table's key.
pub trait Key: Clone + Ord + Default + ToSql + Sync + for<'a> FromSql<'a> {
    /// The type of the column in Postgres.
    fn column_type() -> Type;
}

impl Key for i64 {
    fn column_type() -> Type {
        Type::INT8
    }
}

impl Key for String {
    fn column_type() -> Type {
        Type::TEXT
    }
}

/// What a list is sorted by: expressions over its table's columns.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub at: &'a str,
    /// The selected column that orders rows of one instant.
    pub key: &'a str,
}

/// A column that must have a value.
#[derive(Debug, Clone)]
pub struct Filter<'a> {
    pub column: &'a str,
    pub column_type: Type,
    /// An index ends in what the list is sorted by; else the rows with one value are few.
    pub is_sorted: bool,
}

/// A filter with the value that its column must have.
type Given<'a> = (Filter<'static>, &'a (dyn ToSql + Sync));

/// A filter with an index `(column, at, key)`; `None` when the list is not asked for it.
pub(super) fn sorted<'a, T: ToSql + Sync>(
    column: &'static str,
    value: &'a Option<T>,
    column_type: Type,
) -> Option<Given<'a>> {
    let filter = Filter {
        column,
        column_type,
        is_sorted: true,
    };
    Some((filter, value.as_ref()?))
}

/// A filter with an index `(column)` that finds few rows; `None` when the list is not asked for it.
pub(super) fn few<'a, T: ToSql + Sync>(
    column: &'static str,
    value: &'a Option<T>,
    column_type: Type,
) -> Option<Given<'a>> {
    let (mut filter, value) = sorted(column, value, column_type)?;
    filter.is_sorted = false;
    Some((filter, value))
}

/// Reads a page. `select` is the statement up to and including its first conditions; of the filters that are given the
/// first decides which index is read, so those that leave fewer rows go first.
pub(super) async fn read<K: Key, T: FromRow>(
    db: &impl GenericClient,
    select: &str,
    order: Order<'_>,
    filters: &[Option<Given<'_>>],
    span: Span,
    page: &Page<K>,
) -> Result<Rows<K, T>, Error> {
    let ends = [
        page.after.clone(),
        // No key is smaller than the default, so nothing of this instant is below.
        span.to.map(|to| Position(to, K::default())),
    ];
    let Position(below_at, below_key) = ends
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(Position(Timestamp::MAX, K::default()));
    let limit = i64::from(page.limit) + 1;
    let (filters, given): (Vec<_>, Vec<_>) = filters.iter().flatten().cloned().unzip();
    let (text, types) = statement(
        select,
        order,
        K::column_type(),
        span.from.is_some(),
        &filters,
    );
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&limit, &below_at, &below_key];
    if let Some(from) = &span.from {
        values.push(from);
    }
    values.extend(given);
    let parameters: Vec<_> = values.into_iter().zip(types).collect();
    let rows = db.query_typed(&text, &parameters).await?;
    read_rows(&rows, page, order.key)
}

/// The text of a list's statement, and the types of its parameters: how many rows, the position the page is below,
/// where the span begins when it `has_start`, and the values of the filters.
#[must_use]
pub fn statement(
    select: &str,
    order: Order<'_>,
    key_type: Type,
    has_start: bool,
    filters: &[Filter<'_>],
) -> (String, Vec<Type>) {
    let Order { at, key } = order;
    let mut types = vec![Type::INT8, Type::TIMESTAMPTZ, key_type];
    let mut text = select.to_owned();
    let mut from = None;
    if has_start {
        types.push(Type::TIMESTAMPTZ);
        from = Some(types.len());
    }
    let lead = filters.first().filter(|filter| filter.is_sorted);
    let lead = lead.map(|filter| filter.column);
    for filter in filters {
        types.push(filter.column_type.clone());
        let (column, number) = (filter.column, types.len());
        if lead != Some(column) {
            text.push_str(&format!(" AND {column} = ${number}"));
            continue;
        }
        text.push_str(&format!(
            " AND {column} >= ${number} AND ({column}, {at}, {key}) < (${number}, $2, $3)"
        ));
        if let Some(from) = from {
            text.push_str(&format!(" AND ({column}, {at}) >= (${number}, ${from})"));
        }
    }
    match lead {
        Some(column) => text.push_str(&format!(" ORDER BY {column} DESC, ")),
        None => {
            text.push_str(&format!(" AND ({at}, {key}) < ($2, $3)"));
            if let Some(from) = from {
                text.push_str(&format!(" AND {at} >= ${from}"));
            }
            text.push_str(" ORDER BY ");
        }
    }
    text.push_str(&format!("{at} DESC, {key} DESC LIMIT $1"));
    (text, types)
}

/// A page from its rows, of which one more was asked for than the page has.
fn read_rows<K: Key, T: FromRow>(
    rows: &[Row],
    page: &Page<K>,
    key: &str,
) -> Result<Rows<K, T>, Error> {
    let limit = usize::from(page.limit);
    let shown = &rows[..rows.len().min(limit)];
    let next = match shown.last() {
        Some(last) if rows.len() > limit => {
            Some(Position(last.try_get(LISTED_AT)?, last.try_get(key)?))
        }
        Some(_) | None => None,
    };
    Ok(Rows {
        rows: shown.iter().map(T::from_row).collect::<Result<_, _>>()?,
        next,
    })
}
