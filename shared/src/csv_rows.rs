//! Rows of the store as rows of a CSV.

use documents::csv_export::Cell;
use store::row::Field;

/// A value of a row as a file has it: words that may be other people's are kept from being run by a spreadsheet.
#[must_use]
pub fn cell(field: Field<'_>) -> Cell {
    match field {
        Field::Null => Cell::Empty,
        Field::Number(number) => Cell::from(number),
        Field::Flag(flag) => Cell::value(flag),
        Field::Text(text) => Cell::from(text.into_owned()),
        Field::Instant(instant) => Cell::value(instant),
    }
}
