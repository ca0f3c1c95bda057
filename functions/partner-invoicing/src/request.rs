//! What an event may ask for: `{contract_id, period_start, dry_run, reviewed}`, each of them optional.

use domain::partner::draft::Draft;
use jiff::civil::Date;
use serde_json::Value;

use crate::Error;

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Request {
    /// Bills this contract only; `None` bills every contract.
    pub(crate) contract_id: Option<i64>,
    /// Periods that begin on this day alone, or whose cycle does.
    pub(crate) period_start: Option<Date>,
    /// Shows what would be issued, and writes nothing.
    pub(crate) dry_run: bool,
    /// Somebody has looked at what needs review: it is issued.
    pub(crate) reviewed: bool,
}

const MEMBERS: [&str; 4] = ["contract_id", "period_start", "dry_run", "reviewed"];

impl Request {
    /// Reads the event's `detail`; without one, everything is to be done.
    ///
    /// # Errors
    /// Names the first member that is not valid.
    pub(crate) fn read(detail: Option<&Value>) -> Result<Request, Error> {
        let Some(detail) = detail.filter(|detail| !detail.is_null()) else {
            return Ok(Request::default());
        };
        let members = detail.as_object().ok_or_else(|| invalid("", "an object"))?;
        if let Some(unknown) = members
            .keys()
            .find(|name| !MEMBERS.contains(&name.as_str()))
        {
            return Err(invalid(unknown, "no such member"));
        }
        let member = |name: &str| members.get(name).filter(|value| !value.is_null());
        let flag = |name: &'static str| match member(name) {
            None => Ok(false),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| invalid(name, "true or false")),
        };
        let contract_id = member("contract_id").map(|value| {
            let id = value.as_i64().filter(|id| *id > 0);
            id.ok_or_else(|| invalid("contract_id", "a contract's number"))
        });
        let period_start = member("period_start").map(|value| {
            // An instant of the invoice will do as well: its day is meant.
            let day = value.as_str().and_then(|text| text.get(..10)?.parse().ok());
            day.ok_or_else(|| invalid("period_start", "a day, as in 2025-11-01"))
        });
        let request = Request {
            contract_id: contract_id.transpose()?,
            period_start: period_start.transpose()?,
            dry_run: flag("dry_run")?,
            reviewed: flag("reviewed")?,
        };
        if request.reviewed && request.contract_id.is_none() {
            return Err(invalid("reviewed", "only together with contract_id"));
        }
        Ok(request)
    }

    /// Whether a draft is asked for.
    pub(crate) fn selects(&self, draft: &Draft) -> bool {
        self.period_start
            .is_none_or(|day| day == draft.first_day || day == draft.cycle_from)
    }
}

fn invalid(field: &str, expected: &'static str) -> Error {
    Error::Detail {
        field: field.to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_member_is_optional_and_checked() {
        assert_eq!(Request::read(None).unwrap(), Request::default());
        assert_eq!(Request::read(Some(&json!({}))).unwrap(), Request::default());
        let read = Request::read(Some(&json!({
            "contract_id": 7, "period_start": "2025-11-01T00:00:00Z", "dry_run": true, "reviewed": true
        })));
        assert_eq!(
            read.unwrap(),
            Request {
                contract_id: Some(7),
                period_start: Some(date(2025, 11, 1)),
                dry_run: true,
                reviewed: true
            }
        );
        for (detail, field) in [
            (json!({"contract_id": "7"}), "contract_id"),
            (json!({"contract_id": 0}), "contract_id"),
            (json!({"period_start": "November"}), "period_start"),
            (json!({"dry_run": "yes"}), "dry_run"),
            (json!({"reviewed": true}), "reviewed"),
            (json!({"contract": 7}), "contract"),
            (json!([7]), ""),
        ] {
            let Err(Error::Detail { field: at, .. }) = Request::read(Some(&detail)) else {
                panic!("{detail} is refused");
            };
            assert_eq!(at, field);
        }
    }
}
