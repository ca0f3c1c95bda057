//! One page of a list that is sorted by an instant and a key, newest first.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a page ended: the instant and the key of its last row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position<K>(pub Timestamp, pub K);

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// Where the previous page ended; `None` for the first.
    pub after: Option<Position<K>>,
    /// The largest number of rows the page may hold.
    pub limit: u16,
}

/// The half-open span `[from, to)`, open-ended where a bound is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first instant inside.
    pub from: Option<Timestamp>,
    /// The first instant after.
    pub to: Option<Timestamp>,
}

/// The rows of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows<K, T> {
    /// The rows, newest first.
    pub rows: Vec<T>,
    /// Where the next page starts; `None` on the last page.
    pub next: Option<Position<K>>,
}
