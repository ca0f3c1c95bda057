//! Stretches of time: half-open periods, civil days and calendar months, all in UTC.

use std::fmt;

use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan};
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Why a period or month could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The end is not after the start.
    #[error("a period ends after it starts")]
    Empty,
    /// The text is not `YYYY-MM`.
    #[error("a month is written YYYY-MM")]
    InvalidMonth,
}

/// `[start, end)`: the instant `end` belongs to the next period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    /// The first instant inside the period.
    pub start: Timestamp,
    /// The first instant after the period.
    pub end: Timestamp,
}

impl Period {
    /// A period that holds at least one instant.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Period, Error> {
        if start < end {
            Ok(Period { start, end })
        } else {
            Err(Error::Empty)
        }
    }

    /// Whether `instant` is in `[start, end)`.
    pub fn contains(&self, instant: Timestamp) -> bool {
        self.start <= instant && instant < self.end
    }
}

/// The civil day of `instant` in UTC: what `revenue_daily.day` is keyed by.
pub fn day_of(instant: Timestamp) -> Date {
    Offset::UTC.to_datetime(instant).date()
}

/// Midnight UTC at the start of `day`. A day beyond the range of instants (in the years −9999 and 9999) is clamped.
pub fn start_of_day(day: Date) -> Timestamp {
    Offset::UTC
        .to_timestamp(day.to_datetime(Time::midnight()))
        .unwrap_or(if day.year() < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
}

/// A calendar month in UTC. Printed and serialised as `2025-10`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    first_day: Date,
}

impl PartialSchema for Month {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A calendar month in UTC"))
            .pattern(Some("^[0-9]{4}-[0-9]{2}$"))
            .examples(["2025-10"])
            .into()
    }
}

impl ToSchema for Month {}

impl Month {
    /// The month that contains `instant`.
    pub fn of(instant: Timestamp) -> Month {
        Month::of_day(day_of(instant))
    }

    /// The month that contains `day`.
    pub fn of_day(day: Date) -> Month {
        Month {
            first_day: day.first_of_month(),
        }
    }

    /// Reads a month written `YYYY-MM`.
    pub fn parse(text: &str) -> Result<Month, Error> {
        let (year, month) = text.split_once('-').ok_or(Error::InvalidMonth)?;
        let digits = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(year, 4) || !digits(month, 2) {
            return Err(Error::InvalidMonth);
        }
        let invalid = |_not_a_number| Error::InvalidMonth;
        let year = year.parse::<i16>().map_err(invalid)?;
        let month = month.parse::<i8>().map_err(invalid)?;
        Date::new(year, month, 1)
            .map(Month::of_day)
            .map_err(|_beyond_the_calendar| Error::InvalidMonth)
    }

    /// The 1st of the month.
    pub fn first_day(self) -> Date {
        self.first_day
    }

    /// The last day of the month, the 28th to the 31st.
    pub fn last_day(self) -> Date {
        self.first_day.last_of_month()
    }

    /// Midnight UTC on the 1st.
    pub fn start(self) -> Timestamp {
        start_of_day(self.first_day)
    }

    /// Midnight UTC on the 1st of the next month.
    pub fn end(self) -> Timestamp {
        self.next().start()
    }

    /// The period `[start, end)` of the month.
    pub fn period(self) -> Period {
        Period {
            start: self.start(),
            end: self.end(),
        }
    }

    /// The month after this one.
    #[must_use]
    pub fn next(self) -> Month {
        Month {
            first_day: self.first_day.saturating_add(1.month()),
        }
    }

    /// The month before this one.
    #[must_use]
    pub fn previous(self) -> Month {
        Month {
            first_day: self.first_day.saturating_sub(1.month()),
        }
    }

    /// This month and the `count − 1` before it, newest first.
    pub fn last(self, count: usize) -> Vec<Month> {
        std::iter::successors(Some(self), |month| Some(month.previous()))
            .take(count)
            .collect()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:04}-{:02}",
            self.first_day.year(),
            self.first_day.month()
        )
    }
}

impl fmt::Debug for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_period_excludes_its_end() {
        let october = Month::parse("2025-10").unwrap().period();
        assert!(october.contains(at("2025-10-01T00:00:00Z")));
        assert!(october.contains(at("2025-10-31T23:59:59.999999999Z")));
        assert!(!october.contains(at("2025-11-01T00:00:00Z")));
        assert!(!october.contains(at("2025-09-30T23:59:59.999999999Z")));
        assert_eq!(Period::new(october.end, october.start), Err(Error::Empty));
        assert_eq!(Period::new(october.end, october.end), Err(Error::Empty));
    }

    #[test]
    fn a_day_is_a_day_in_utc() {
        assert_eq!(day_of(at("2025-10-31T23:59:59Z")), date(2025, 10, 31));
        assert_eq!(
            day_of(at("2025-10-31T23:30:00-05:00")),
            date(2025, 11, 1),
            "the writer's own offset does not matter"
        );
        assert_eq!(day_of(at("1969-12-31T23:59:59Z")), date(1969, 12, 31));
        assert_eq!(start_of_day(date(2025, 2, 28)), at("2025-02-28T00:00:00Z"));
    }

    #[test]
    fn the_last_twelve_months_cross_the_year_newest_first() {
        let months = Month::of(at("2025-03-15T12:00:00Z")).last(12);
        let printed: Vec<String> = months.iter().map(ToString::to_string).collect();
        assert_eq!(printed.len(), 12);
        assert_eq!(printed[0], "2025-03");
        assert_eq!(printed[2], "2025-01");
        assert_eq!(printed[3], "2024-12");
        assert_eq!(printed[11], "2024-04");
    }

    #[test]
    fn months_know_their_last_day() {
        let february = Month::parse("2024-02").unwrap();
        assert_eq!(february.last_day(), date(2024, 2, 29));
        assert_eq!(february.next().to_string(), "2024-03");
        assert_eq!(february.end(), at("2024-03-01T00:00:00Z"));
    }

    #[test]
    fn a_month_that_is_none_is_refused() {
        for text in [
            "2025",
            "2025-13",
            "2025-00",
            "25-01",
            "2025-1",
            "2025-01-01",
            "+025-01",
            "",
        ] {
            assert_eq!(Month::parse(text), Err(Error::InvalidMonth), "{text}");
        }
    }

    #[test]
    fn the_edges_of_time_do_not_panic() {
        assert_eq!(Month::of(Timestamp::MIN).last(3).len(), 3);
        assert!(Month::of(Timestamp::MAX).end() > at("9999-01-01T00:00:00Z"));
        assert_eq!(start_of_day(Date::MIN), Timestamp::MIN);
    }
}
