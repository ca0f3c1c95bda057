//! The stretch of time a report is asked for: `from`, `to` and `as_of`.

use domain::period::{Month, Period, day_of, start_of_day};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan};
use runtime::api::Error;

/// Months of a report when `from` is not given, the last one included.
const MONTHS: usize = 12;
/// Longest range, in months.
const MONTHS_LIMIT: i32 = 24;
/// Longest range of daily periods, in days.
const DAYS_LIMIT: i32 = 366;
/// The resolution of an instant in Postgres.
const MICROSECOND: SignedDuration = SignedDuration::from_micros(1);

/// How long a range may be.
#[derive(Debug, Clone, Copy)]
pub enum Longest {
    /// At most 24 months, for figures by week or month.
    Months,
    /// At most 366 days, for figures by day.
    Days,
}

/// A range, and the instant after which nothing counts.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The part of the range that has happened by `as_of`, which itself belongs to it.
    pub range: Period,
    /// What happened later does not count; cut to the microsecond, as Postgres keeps instants.
    pub as_of: Timestamp,
    to: Timestamp,
}

impl Asked {
    /// From `from`, `to` and `as_of` as they were given: the last twelve months up to now when they were not, `[from, to)`,
    /// at most 24 months, or 366 days.
    ///
    /// # Errors
    /// Names the parameter that cannot be.
    pub fn new(
        (from, to): (Option<Timestamp>, Option<Timestamp>),
        as_of: Option<Timestamp>,
        longest: Longest,
        now: Timestamp,
    ) -> Result<Asked, Error> {
        let as_of = past(as_of, now)?;
        let end = after(as_of);
        let to = to.unwrap_or(end);
        let from = from.unwrap_or_else(|| default_from(to.min(end)));
        if from >= to {
            return Err(Error::invalid_parameter("from", "it is before to"));
        }
        if from >= end {
            return Err(Error::invalid_parameter("from", "it has begun"));
        }
        let (latest, detail) = match longest {
            Longest::Months => (MONTHS_LIMIT.months(), "at most 24 months before to"),
            Longest::Days => (DAYS_LIMIT.days(), "at most 366 days before to"),
        };
        let limit = day_of(from)
            .checked_add(latest)
            .map_or(Timestamp::MAX, |day| moved(from, day));
        // Up to now includes now, by a microsecond.
        if to > after(limit) {
            return Err(Error::invalid_parameter("from", detail));
        }
        let range = Period::new(from, to.min(end))
            .map_err(|_empty| Error::invalid_parameter("from", "it is before to"))?;
        Ok(Asked { range, as_of, to })
    }

    /// The end of the range as people say it: `to`, or `as_of` when that is earlier.
    pub fn to(&self) -> Timestamp {
        self.to.min(self.as_of)
    }
}

/// `as_of`, or now: an instant that has passed, to the microsecond.
///
/// # Errors
/// When it is to come.
pub fn past(as_of: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Error> {
    let as_of = as_of.unwrap_or(now);
    if as_of > now {
        return Err(Error::invalid_parameter(
            "as_of",
            "an instant that has passed",
        ));
    }
    let micros = as_of.as_microsecond();
    Ok(Timestamp::from_microsecond(micros).unwrap_or(as_of))
}

/// The first instant that does not count any more.
pub(super) fn after(as_of: Timestamp) -> Timestamp {
    as_of.saturating_add(MICROSECOND).unwrap_or(Timestamp::MAX)
}

fn default_from(end: Timestamp) -> Timestamp {
    let last_instant = end.saturating_sub(MICROSECOND).unwrap_or(Timestamp::MIN);
    let months = Month::of(last_instant).last(MONTHS);
    months.last().map_or(last_instant, |first| first.start())
}

/// The time of day of `instant`, on another day.
fn moved(instant: Timestamp, day: Date) -> Timestamp {
    let time = instant.duration_since(start_of_day(day_of(instant)));
    start_of_day(day)
        .saturating_add(time)
        .unwrap_or(Timestamp::MAX)
}
