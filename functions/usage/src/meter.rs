//! What a subject has used of its limit in a month: units of a user, requests of a partner.

use std::collections::HashMap;

use domain::period::Month;
use domain::usage::UsageStanding;
use futures_util::try_join;
use store::usage_terms::PartnerTerms;
use store::{api_usage, usage_daily};
use tokio_postgres::GenericClient;

/// A subject with what its use is compared with.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    /// Whose usage is counted: `user:<id>` or `partner:<prefix>`.
    pub(crate) subject: String,
    pub(crate) limit: Option<i64>,
    pub(crate) measure: Measure,
}

/// The meter of one subject, which orders the writers that count for it.
#[derive(Debug, Clone)]
pub(crate) enum Measure {
    /// Units of billable events.
    Units,
    /// Requests, by the contract's `unit_source`.
    Requests(PartnerTerms),
}

impl Meter {
    pub(crate) fn of_user(user_id: i32, limit: Option<i64>) -> Meter {
        Meter {
            subject: format!("user:{user_id}"),
            limit,
            measure: Measure::Units,
        }
    }

    pub(crate) fn of_partner(terms: PartnerTerms) -> Meter {
        Meter {
            subject: format!("partner:{}", terms.api_key_prefix),
            limit: terms.monthly_request_limit,
            measure: Measure::Requests(terms),
        }
    }

    fn counts_api_usage(&self) -> Option<&str> {
        match &self.measure {
            Measure::Units => None,
            Measure::Requests(terms) => terms
                .counts_api_usage
                .then_some(terms.api_key_prefix.as_str()),
        }
    }
}

/// Where the subjects stand in a month, in the order given.
pub(crate) async fn standings(
    db: &impl GenericClient,
    meters: &[Meter],
    month: Month,
) -> Result<Vec<UsageStanding>, store::Error> {
    let subjects: Vec<&str> = meters.iter().map(|meter| meter.subject.as_str()).collect();
    let prefixes: Vec<&str> = meters.iter().filter_map(Meter::counts_api_usage).collect();
    let (of_types, requests) = try_join!(
        usage_daily::of_month(db, &subjects, month),
        api_usage::requests(db, &prefixes, month.start(), month.end()),
    )?;
    let requests: HashMap<String, i64> = requests.into_iter().collect();
    let mut of_subjects: HashMap<&str, Vec<&usage_daily::OfType>> = HashMap::new();
    for row in &of_types {
        of_subjects.entry(&row.subject).or_default().push(row);
    }
    let standing = |meter: &Meter| {
        let rows = of_subjects.get(meter.subject.as_str());
        let rows = rows.into_iter().flatten();
        let used = match &meter.measure {
            Measure::Units => rows.fold(0_i64, |used, row| used.saturating_add(row.billable_units)),
            Measure::Requests(terms) => rows
                .filter(|row| terms.counts(&row.event_type))
                .fold(0_i64, |used, row| used.saturating_add(row.events)),
        };
        let prefix = meter.counts_api_usage();
        let requests = prefix.and_then(|prefix| requests.get(prefix)).copied();
        UsageStanding {
            used: used.saturating_add(requests.unwrap_or(0)),
            limit: meter.limit,
        }
    };
    Ok(meters.iter().map(standing).collect())
}
