//! Which of the gateway's rows are billed, by the HTTP status they were answered with.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

const LARGEST: u16 = 999;
const RANGES_MAX: usize = 50;
const ALL: &str = "all";

/// The statuses that are billed: ranges in a text, `200-299,404`. `all` bills each row, also a repeated one. A row without
/// a status is always billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusCodes {
    /// Each row, as often as it was written.
    All,
    /// First and last status of each range, ascending and apart.
    Ranges(Vec<(u16, u16)>),
}

impl Default for StatusCodes {
    /// All but what the caller was refused for too many requests (429) and what went wrong on our side (500 to 599).
    fn default() -> StatusCodes {
        StatusCodes::Ranges(vec![(0, 428), (430, 499), (600, LARGEST)])
    }
}

impl StatusCodes {
    /// Whether a row with this status is billed.
    #[must_use]
    pub fn contains(&self, status: Option<u16>) -> bool {
        match (self, status) {
            (StatusCodes::All, _) | (_, None) => true,
            (StatusCodes::Ranges(ranges), Some(status)) => ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&status)),
        }
    }

    /// As a multirange of Postgres, `{[200,299],[404,404]}`; `None` for [`StatusCodes::All`].
    #[must_use]
    pub fn multirange(&self) -> Option<String> {
        let StatusCodes::Ranges(ranges) = self else {
            return None;
        };
        let ranges = ranges
            .iter()
            .map(|(first, last)| format!("[{first},{last}]"));
        Some(format!("{{{}}}", ranges.collect::<Vec<_>>().join(",")))
    }
}

/// A text that is no [`StatusCodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all, or ascending statuses and ranges of them, as in 200-299,404")]
pub struct InvalidStatusCodes;

impl FromStr for StatusCodes {
    type Err = InvalidStatusCodes;

    fn from_str(text: &str) -> Result<StatusCodes, InvalidStatusCodes> {
        if text == ALL {
            return Ok(StatusCodes::All);
        }
        let status = |digits: &str| {
            let is_status = digits.len() <= 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
            let status = digits.parse().ok().filter(|_| is_status);
            status.ok_or(InvalidStatusCodes)
        };
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for range in text.split(',').map(str::trim) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (status(first)?, status(last)?);
            let is_ascending = ranges.last().is_none_or(|(_, before)| *before < first);
            if first > last || !is_ascending || ranges.len() == RANGES_MAX {
                return Err(InvalidStatusCodes);
            }
            ranges.push((first, last));
        }
        Ok(StatusCodes::Ranges(ranges))
    }
}

impl fmt::Display for StatusCodes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusCodes::Ranges(ranges) = self else {
            return formatter.write_str(ALL);
        };
        for (place, (first, last)) in ranges.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            if first == last {
                write!(formatter, "{comma}{first}")?;
            } else {
                write!(formatter, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for StatusCodes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusCodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StatusCodes, D::Error> {
        let text = String::deserialize(deserializer)
            .map_err(|_no_text| D::Error::custom(InvalidStatusCodes))?;
        text.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for StatusCodes {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(r"^(all|[0-9]{1,3}(-[0-9]{1,3})?(,[0-9]{1,3}(-[0-9]{1,3})?)*)$"))
            .description(Some(
                "HTTP statuses and ranges of them, ascending; `all` for each row, also a repeated one",
            ))
            .examples(["200-299,404"])
            .into()
    }
}

impl ToSchema for StatusCodes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_ascending_ranges_in_a_text() {
        let codes: StatusCodes = "200-299, 404".parse().unwrap();
        assert_eq!(codes.to_string(), "200-299,404");
        assert_eq!(codes.multirange().as_deref(), Some("{[200,299],[404,404]}"));
        assert!(codes.contains(Some(204)) && codes.contains(Some(404)) && codes.contains(None));
        assert!(!codes.contains(Some(403)));
        for text in [
            "", "ALL", "2xx", "299-200", "200,200", "404,200", "1000", "-200", "200-",
        ] {
            assert_eq!(
                text.parse::<StatusCodes>(),
                Err(InvalidStatusCodes),
                "{text}"
            );
        }
    }

    #[test]
    fn refusals_and_our_own_failures_are_not_billed_unless_a_contract_says_so() {
        let codes = StatusCodes::default();
        let billed = [200, 301, 404, 428, 430, 499, 600, 0];
        assert!(
            billed
                .into_iter()
                .all(|status| codes.contains(Some(status)))
        );
        let free = [429, 500, 503, 599];
        assert!(!free.into_iter().any(|status| codes.contains(Some(status))));
        assert_eq!(codes.to_string().parse(), Ok(codes));
        assert_eq!(StatusCodes::All.multirange(), None);
        assert!(StatusCodes::All.contains(Some(503)));
    }
}
