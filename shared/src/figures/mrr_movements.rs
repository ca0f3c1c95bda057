//! The MRR bridge per day, week or month, and the ratios drawn from it.

use domain::money::Currency;
use domain::revenue::mrr_bridge::{Granularity, MrrBridge, Pending, PeriodFigures, spans};
use domain::stripe_objects::subscription::DiscountProfile;
use jiff::SignedDuration;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::movement_report;
use store::revenue_report::{self, Moment, MrrStanding};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::asked::Asked;
use super::provisional::{self, Provisional};
use super::sections::{FieldError, Nulls, Section};

/// Which discounts are taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Only coupons of the duration `forever` reduce MRR; the default.
    #[default]
    Stripe,
    /// The default's other name: a subscription set to end churns when it ends.
    AtPeriodEnd,
    /// Every discount lowers the recurring revenue.
    AllDiscounts,
    /// No discount lowers the recurring revenue.
    NoDiscounts,
}

impl From<Profile> for DiscountProfile {
    fn from(profile: Profile) -> DiscountProfile {
        match profile {
            Profile::Stripe | Profile::AtPeriodEnd => DiscountProfile::Stripe,
            Profile::AllDiscounts => DiscountProfile::AllDiscounts,
            Profile::NoDiscounts => DiscountProfile::NoDiscounts,
        }
    }
}

/// The bridge of one currency. What could not be read is null and named in `errors`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MrrMovements {
    /// Which discounts are taken off.
    pub profile: &'static str,
    pub currency: Currency,
    pub granularity: Granularity,
    pub from: Timestamp,
    /// Exclusive; `as_of`, inclusive, when that is earlier.
    pub to: Timestamp,
    pub as_of: Timestamp,
    /// The order of `periods`, always `oldest first`.
    pub order: &'static str,
    pub periods: Option<Vec<PeriodFigures>>,
    /// Figures of the range that may still change; null when that could not be read.
    pub provisional: Option<Vec<Provisional>>,
    pub definitions: MrrDefinitions,
    pub errors: Vec<FieldError>,
}

/// What the figures of the bridge mean.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MrrDefinitions {
    pub mrr: &'static str,
    pub movements: &'static str,
    pub churn: &'static str,
    pub retention: &'static str,
    pub customer_churn: &'static str,
    pub arpa_and_ltv: &'static str,
    pub quick_ratio: &'static str,
    pub trial_and_committed: &'static str,
}

const DEFINITIONS: MrrDefinitions = MrrDefinitions {
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

/// The periods of a range, oldest first; null when they could not be read.
pub async fn report(
    db: &Client,
    currency: Currency,
    profile: Profile,
    granularity: Granularity,
    asked: Asked,
    now: Timestamp,
) -> MrrMovements {
    let profile = DiscountProfile::from(profile);
    let mut nulls = Nulls::default();
    let provisional = provisional::of_range(db, &asked, now).await;
    let provisional = nulls.keep("provisional", provisional);
    let periods = periods(db, currency, profile, granularity, asked, &mut nulls).await;
    MrrMovements {
        profile: match profile {
            DiscountProfile::Stripe => "stripe",
            DiscountProfile::AllDiscounts => "all_discounts",
            DiscountProfile::NoDiscounts => "no_discounts",
        },
        currency,
        granularity,
        from: asked.range.start,
        to: asked.to(),
        as_of: asked.as_of,
        order: "oldest first",
        periods,
        provisional,
        definitions: DEFINITIONS,
        errors: nulls.errors,
    }
}

async fn periods(
    db: &Client,
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
    db: &Client,
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
    let opening = Moment::Past(last_before.unwrap_or(Timestamp::MIN));
    let standing = revenue_report::standing(db, opening).await?;
    let opening = MrrStanding::of(&standing, currency);
    let mut bridge = MrrBridge::new(spans, opening.mrr_microcents, opening.customers);
    let added = movement_report::add_discounted(db, currency, profile, &mut bridge).await?;
    movement_report::add_movements(db, currency, &added, &mut bridge).await?;
    Ok(bridge)
}

async fn pending(
    db: &Client,
    currency: Currency,
    profile: DiscountProfile,
    bridge: &MrrBridge,
) -> Section<Vec<Pending>> {
    Ok(movement_report::pending(db, currency, profile, &bridge.ends()).await?)
}
