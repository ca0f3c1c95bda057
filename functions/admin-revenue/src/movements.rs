//! `GET /admin/revenue/movements`: the MRR bridge per day, week or month, and the ratios drawn from it.

use domain::money::Currency;
use domain::revenue::mrr_bridge::{Granularity, MrrBridge, Pending, PeriodFigures, spans};
use domain::stripe_objects::subscription::DiscountProfile;
use jiff::SignedDuration;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use store::movement_report;
use store::revenue_report::{self, MrrStanding};
use tokio_postgres::GenericClient;

use crate::Clients;
use crate::asked::{Asked, Longest};
use crate::sections::{FieldError, Nulls, Section};

/// The words of `?profile=`. `at_period_end` is the default's other name: a subscription set to end churns when it ends.
const PROFILES: [&str; 4] = ["stripe", "at_period_end", "all_discounts", "no_discounts"];

#[derive(Serialize)]
struct Report {
    profile: &'static str,
    currency: Currency,
    granularity: &'static str,
    from: Timestamp,
    /// Exclusive; `as_of`, inclusive, when that is earlier.
    to: Timestamp,
    as_of: Timestamp,
    /// Of `periods`.
    order: &'static str,
    periods: Option<Vec<PeriodFigures>>,
    definitions: Definitions,
    errors: Vec<FieldError>,
}

/// What the figures mean.
#[derive(Serialize)]
struct Definitions {
    mrr: &'static str,
    movements: &'static str,
    churn: &'static str,
    retention: &'static str,
    customer_churn: &'static str,
    arpa_and_ltv: &'static str,
    quick_ratio: &'static str,
    trial_and_committed: &'static str,
}

const DEFINITIONS: Definitions = Definitions {
    mrr: "subscriptions that are active or past_due, trials and metered prices excluded, per month; of coupons, \
        profile stripe takes off those that last forever, all_discounts every one, no_discounts none. A subscription \
        set to cancel at its period's end churns when it ends",
    movements: "per customer and currency: the first time from nothing new, later reactivation; up expansion, down \
        contraction, to nothing churn. opening + new + expansion - contraction - churned + reactivation + fx = closing \
        in the integers shown: opening and closing are rounded half-even, the movements take the remainder by largest \
        remainder. Each currency has a bridge of its own and is not converted: fx is 0",
    churn: "gross (churned + contraction) / opening; net (churned + contraction - expansion - reactivation) / opening",
    retention: "of the customers with MRR at the opening: GRR (opening - churned - contraction) / opening, NRR \
        (opening + expansion - contraction - churned) / opening",
    customer_churn: "classic: customers of the opening who pay nothing at the end / customers of the opening. stripe: \
        customers who stopped in the 30 days before the end and did not come back / (customers who paid 30 days before \
        the end + customers who began since)",
    arpa_and_ltv: "ARPA: closing MRR / paying customers at the end. LTV: ARPA / customer_churn_stripe, which is per 30 \
        days whatever the granularity",
    quick_ratio: "(new + expansion) / (contraction + churned)",
    trial_and_committed: "trial: what the subscriptions in trial at the end would count. committed: closing MRR + trial \
        MRR - what the subscriptions set to cancel count, those in trial included",
};

/// Checks the token, reads the parameters and answers with the periods, oldest first; null when they could not be read.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let known = ["from", "to", "granularity", "profile", "currency", "as_of"];
    let query = Query::parse(request, &known)?;
    let granularity = query
        .one_of("granularity", &Granularity::WORDS)?
        .and_then(Granularity::parse)
        .unwrap_or(Granularity::Month);
    let (profile, discounts) = match query.one_of("profile", &PROFILES)? {
        Some("all_discounts") => ("all_discounts", DiscountProfile::AllDiscounts),
        Some("no_discounts") => ("no_discounts", DiscountProfile::NoDiscounts),
        _ => ("stripe", DiscountProfile::Stripe),
    };
    let currency = query
        .currency("currency")?
        .unwrap_or(app.reporting_currency);
    let longest = match granularity {
        Granularity::Day => Longest::Days,
        Granularity::Week | Granularity::Month => Longest::Months,
    };
    let asked = Asked::parse(&query, longest, now)?;
    let client = app.database.client().await?;
    let mut nulls = Nulls::default();
    let periods = periods(
        &**client,
        currency,
        discounts,
        granularity,
        asked,
        &mut nulls,
    )
    .await;
    let report = Report {
        profile,
        currency,
        granularity: granularity.as_str(),
        from: asked.range.start,
        to: asked.to(),
        as_of: asked.as_of,
        order: "oldest first",
        periods,
        definitions: DEFINITIONS,
        errors: nulls.errors,
    };
    api::json(StatusCode::OK, &report)
}

async fn periods(
    db: &impl GenericClient,
    currency: Currency,
    profile: DiscountProfile,
    granularity: Granularity,
    asked: Asked,
    nulls: &mut Nulls,
) -> Option<Vec<PeriodFigures>> {
    let bridge = bridge(db, currency, profile, granularity, asked).await;
    let bridge = nulls.keep("periods", bridge)?;
    let pending = pending(db, currency, profile, &bridge).await;
    let pending = nulls.keep("trial_mrr_cents", pending);
    if pending.is_none() {
        nulls.also("committed_mrr_cents");
    }
    let periods = bridge.periods(pending.as_deref()).map_err(Into::into);
    nulls.keep("periods", periods)
}

async fn bridge(
    db: &impl GenericClient,
    currency: Currency,
    profile: DiscountProfile,
    granularity: Granularity,
    asked: Asked,
) -> Section<MrrBridge> {
    let spans = spans(granularity, asked.range);
    let last_before = asked
        .range
        .start
        .saturating_sub(SignedDuration::from_micros(1));
    let standing = revenue_report::standing(db, last_before.unwrap_or(Timestamp::MIN)).await?;
    let opening = MrrStanding::of(&standing, currency);
    let mut bridge = MrrBridge::new(spans, opening.mrr_microcents, opening.customers);
    let added = movement_report::add_discounted(db, currency, profile, &mut bridge).await?;
    movement_report::add_movements(db, currency, &added, &mut bridge).await?;
    Ok(bridge)
}

async fn pending(
    db: &impl GenericClient,
    currency: Currency,
    profile: DiscountProfile,
    bridge: &MrrBridge,
) -> Section<Vec<Pending>> {
    Ok(movement_report::pending(db, currency, profile, &bridge.ends()).await?)
}
