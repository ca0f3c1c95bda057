//! CSV that spreadsheets open safely: RFC 4180, UTF-8 without a byte order mark, CRLF, and no text that runs as a
//! formula.

use std::fmt::{Display, Write as _};
use std::io;

use domain::money::Currency;

/// The media type of every file that is written here.
pub const CONTENT_TYPE: &str = "text/csv; charset=utf-8; header=present";

/// Why a document could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the CSV could not be written")]
pub struct Error(#[from] csv::Error);

/// The characters that start a formula in a spreadsheet (OWASP, "CSV injection"), with their full-width forms.
const FORMULA_STARTS: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// An empty field: two separators side by side.
    Empty,
    /// Text that somebody else wrote. The start of a formula is disarmed with an apostrophe.
    Text(String),
    /// A value of ours: a number, date or state. Written unchanged.
    Value(String),
}

impl Cell {
    /// A number, date or state of ours, as `Display` writes it.
    pub fn value(value: impl ToString) -> Cell {
        Cell::Value(value.to_string())
    }

    /// A text that may be an amount: a negative one is no formula.
    #[must_use]
    pub fn number_or_text(text: &str) -> Cell {
        if text.parse::<i64>().is_ok() {
            return Cell::value(text);
        }
        Cell::from(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Cell {
        Cell::value(number)
    }
}

impl From<Currency> for Cell {
    fn from(currency: Currency) -> Cell {
        Cell::value(currency)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Empty, Into::into)
    }
}

/// A header row and its rows, as the bytes of a file.
pub fn write(header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    writer.header(header)?;
    for row in rows {
        writer.row(row)?;
    }
    writer.into_bytes()
}

/// Writes a file, or a part of one, row by row. Every row must have as many fields as the first.
#[derive(Debug)]
pub struct Writer {
    csv: csv::Writer<Vec<u8>>,
    /// A buffer in which a value is formatted before it is written.
    printed: String,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::new()
    }
}

impl Writer {
    /// A writer of an empty file.
    #[must_use]
    pub fn new() -> Writer {
        Writer {
            csv: csv::WriterBuilder::new()
                .terminator(csv::Terminator::CRLF)
                .from_writer(Vec::new()),
            printed: String::new(),
        }
    }

    /// Writes the row with the names of the columns.
    pub fn header(&mut self, names: &[&str]) -> Result<(), Error> {
        Ok(self.csv.write_record(names)?)
    }

    /// Writes a row of cells.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> Result<(), Error> {
        for cell in cells {
            match cell {
                Cell::Empty => self.empty()?,
                Cell::Text(text) => self.text(&text)?,
                Cell::Value(value) => self.csv.write_field(value)?,
            }
        }
        self.end_row()
    }

    /// Writes an empty field.
    pub fn empty(&mut self) -> Result<(), Error> {
        Ok(self.csv.write_field("")?)
    }

    /// Writes text that somebody else wrote; see [`Cell::Text`].
    pub fn text(&mut self, text: &str) -> Result<(), Error> {
        if text.starts_with(FORMULA_STARTS) {
            return Ok(self.csv.write_field(format!("'{text}"))?);
        }
        Ok(self.csv.write_field(text)?)
    }

    /// Writes a value of ours; see [`Cell::Value`].
    pub fn value(&mut self, value: impl Display) -> Result<(), Error> {
        self.printed.clear();
        // Writing to a String cannot fail.
        write!(self.printed, "{value}")
            .map_err(io::Error::other)
            .map_err(csv::Error::from)?;
        Ok(self.csv.write_field(&self.printed)?)
    }

    /// Ends the row of the fields written since the last row.
    pub fn end_row(&mut self) -> Result<(), Error> {
        Ok(self.csv.write_record(None::<&[u8]>)?)
    }

    /// How many bytes have been written; the last few thousand may be missing.
    pub fn size_bytes(&self) -> usize {
        self.csv.get_ref().len()
    }

    /// The bytes of the file.
    pub fn into_bytes(self) -> Result<Vec<u8>, Error> {
        self.csv
            .into_inner()
            .map_err(|error| Error(csv::Error::from(error.into_error())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_as_it_went_and_no_formula_runs() {
        for (text, expected) in [
            ("Smith, Jones & Co", "Smith, Jones & Co"),
            ("said \"no\"", "said \"no\""),
            ("two\r\nlines", "two\r\nlines"),
            ("Zoë 株式会社 🏠", "Zoë 株式会社 🏠"),
            ("00123", "00123"),
            (" padded ", " padded "),
            (
                "=HYPERLINK(\"http://x\",\"y\")",
                "'=HYPERLINK(\"http://x\",\"y\")",
            ),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@cmd", "'@cmd"),
            ("\ttab", "'\ttab"),
            ("\rreturn", "'\rreturn"),
            ("＝1+1", "'＝1+1"),
            ("", ""),
        ] {
            let bytes = write(&["a", "b"], [vec![text.into(), Cell::from(-5)]]).unwrap();
            let mut reader = csv::Reader::from_reader(bytes.as_slice());
            let record = reader.records().next().unwrap().unwrap();
            assert_eq!((&record[0], &record[1]), (expected, "-5"), "{text:?}");
        }
    }

    #[test]
    fn a_file_is_its_header_and_rows_with_crlf() {
        let rows = [
            vec![Cell::from("a,b"), Cell::from(1)],
            vec![Cell::Empty, Cell::from(None::<i64>)],
        ];
        let bytes = write(&["company", "amount_cents"], rows).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "company,amount_cents\r\n\"a,b\",1\r\n,\r\n");
    }

    #[test]
    fn a_row_of_another_length_than_the_header_is_refused() {
        assert!(write(&["a", "b"], [vec![Cell::from(1)]]).is_err());
    }
}
