//! What usage is measured by: `plan_limits` for users, `api_partner_contracts` and their invoices for partners.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::{Error, columns};
use domain::money::Currency;
use domain::usage::PlanTerms;

/// The plan of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPlan {
    /// The user's id in the host application.
    pub user_id: i32,
    /// `users.plan`, `free` where it is empty.
    pub plan_name: String,
    /// What the plan includes; `None` when `plan_limits` has no such plan.
    pub terms: Option<PlanTerms>,
}

/// What a partner's contract says about usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartnerTerms {
    /// The prefix of the partner's API key.
    pub api_key_prefix: String,
    /// The currency of every price of the contract.
    pub currency: Currency,
    /// Requests per month; `None` for unlimited.
    pub monthly_request_limit: Option<i64>,
    /// Whether requests in the host's `api_usage` count.
    pub counts_api_usage: bool,
    /// Whether events in `usage_events` count.
    pub counts_usage_events: bool,
    /// The event types that count; `None` for all.
    pub billable_event_types: Option<Vec<String>>,
}

impl PartnerTerms {
    /// Whether events of this type count.
    #[must_use]
    pub fn counts(&self, event_type: &str) -> bool {
        let of_type = |types: &Vec<String>| types.iter().any(|counted| counted == event_type);
        self.counts_usage_events && self.billable_event_types.as_ref().is_none_or(of_type)
    }
}

/// An invoiced period of a partner, `[start, end)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoicedPeriod {
    /// The prefix of the partner's API key.
    pub api_key_prefix: String,
    /// The first instant of the period.
    pub start: Timestamp,
    /// The first instant after the period.
    pub end: Timestamp,
}

/// The plans of these users. Users that do not exist are left out.
pub async fn of_users(db: &impl GenericClient, user_ids: &[i32]) -> Result<Vec<UserPlan>, Error> {
    if user_ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "-- usage_terms::of_users
             SELECT users.id, COALESCE(CAST(users.plan AS text), 'free') AS plan, plan_limits.plan_name,
                    CAST(monthly_included_units AS bigint) AS monthly_included_units,
                    CAST(overage_price_cents AS bigint) AS overage_price_cents, plan_limits.currency, upgrade_plan,
                    CAST(upgrade_price_cents AS bigint) AS upgrade_price_cents
             FROM users
             LEFT JOIN plan_limits ON plan_limits.plan_name = COALESCE(CAST(users.plan AS text), 'free')
             WHERE users.id = ANY($1)",
            &[(&user_ids, Type::INT4_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let plan_name: String = row.try_get("plan")?;
            let known: Option<String> = row.try_get("plan_name")?;
            let terms = if known.is_some() {
                let upgrade_plan: Option<String> = row.try_get("upgrade_plan")?;
                let upgrade_price_cents: Option<i64> = row.try_get("upgrade_price_cents")?;
                Some(PlanTerms {
                    included_units: row.try_get("monthly_included_units")?,
                    currency: columns::currency(row, "plan_limits", &plan_name)?,
                    overage_price_cents: row.try_get("overage_price_cents")?,
                    upgrade: upgrade_plan.map(|plan| (plan, upgrade_price_cents)),
                })
            } else {
                None
            };
            Ok(UserPlan {
                user_id: row.try_get("id")?,
                plan_name,
                terms,
            })
        })
        .collect()
}

/// The contracts of these partners. Partners without a contract are left out.
pub async fn of_partners(
    db: &impl GenericClient,
    api_key_prefixes: &[&str],
) -> Result<Vec<PartnerTerms>, Error> {
    if api_key_prefixes.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "-- usage_terms::of_partners
             SELECT api_key_prefix, currency, NULLIF(monthly_request_limit, -1) AS monthly_request_limit,
                    unit_source IN ('api_usage', 'both') AS counts_api_usage,
                    unit_source IN ('usage_events', 'both') AS counts_usage_events, billable_event_types
             FROM api_partner_contracts WHERE api_key_prefix = ANY($1)",
            &[(&api_key_prefixes, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let api_key_prefix: String = row.try_get("api_key_prefix")?;
            Ok(PartnerTerms {
                currency: columns::currency(row, "api_partner_contracts", &api_key_prefix)?,
                monthly_request_limit: row.try_get("monthly_request_limit")?,
                counts_api_usage: row.try_get("counts_api_usage")?,
                counts_usage_events: row.try_get("counts_usage_events")?,
                billable_event_types: row.try_get("billable_event_types")?,
                api_key_prefix,
            })
        })
        .collect()
}

/// The periods of live invoices (finalized, not void) of these partners' contracts that end after `since`.
pub async fn invoiced_periods(
    db: &impl GenericClient,
    api_key_prefixes: &[&str],
    since: Timestamp,
) -> Result<Vec<InvoicedPeriod>, Error> {
    if api_key_prefixes.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "-- usage_terms::invoiced_periods
             SELECT contracts.api_key_prefix, billing_period_start, billing_period_end
             FROM api_partner_contracts AS contracts
             JOIN invoices ON invoices.contract_id = contracts.id
             WHERE contracts.api_key_prefix = ANY($1) AND invoices.status <> 'void' AND finalized_at IS NOT NULL
               AND billing_period_start IS NOT NULL AND billing_period_end > $2",
            &[
                (&api_key_prefixes, Type::TEXT_ARRAY),
                (&since, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(InvoicedPeriod {
                api_key_prefix: row.try_get("api_key_prefix")?,
                start: row.try_get("billing_period_start")?,
                end: row.try_get("billing_period_end")?,
            })
        })
        .collect()
}
