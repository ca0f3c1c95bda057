//! CSV as finance opens it: RFC 4180, UTF-8 without a mark, CRLF, and no text that a spreadsheet would run.

use crate::money::Currency;

/// Why a document could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the CSV could not be written")]
pub struct Error(#[from] csv::Error);

/// What a spreadsheet takes for the start of a formula (OWASP, "CSV injection").
const FORMULA_STARTS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Nothing: two commas side by side.
    Empty,
    /// As people wrote it; a formula's start is disarmed with an apostrophe.
    Text(String),
    /// Ours: numbers, dates, states. Written as it stands.
    Value(String),
}

impl Cell {
    /// A number, date or state of ours, as its `Display` writes it.
    pub fn value(value: impl ToString) -> Cell {
        Cell::Value(value.to_string())
    }

    fn into_field(self) -> String {
        match self {
            Cell::Empty => String::new(),
            Cell::Value(value) => value,
            Cell::Text(text) if text.starts_with(FORMULA_STARTS) => format!("'{text}"),
            Cell::Text(text) => text,
        }
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
pub fn write(
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<Cell>>,
) -> Result<Vec<u8>, Error> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(header)?;
    for row in rows {
        writer.write_record(row.into_iter().map(Cell::into_field))?;
    }
    writer
        .into_inner()
        .map_err(|error| Error(csv::Error::from(error.into_error())))
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
