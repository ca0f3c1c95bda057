//! Which figures may still change, because Stripe has shown only a part of some objects.

use std::collections::BTreeMap;

use domain::money::Currency;
use domain::period::Month;
use domain::stripe_objects::partial::Reason;
use jiff::Timestamp;
use serde::Serialize;
use store::provisional::waiting;
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::asked::Asked;
use super::sections::Section;

/// A figure of one month and currency that may change once the missing parts have been fetched.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Provisional {
    /// `total_revenue_cents`, `stripe_fees_cents`, `disputes_cents`, `tax_cents` or `mrr_cents`.
    pub figure: &'static str,
    /// The month that counts them, in UTC; that of `as_of` for MRR. Null for months before those that are shown.
    pub month: Option<Month>,
    pub currency: Currency,
    /// What is missing of the objects; `GET /admin/lookups?reason=` lists them.
    pub reason: Reason,
    pub objects: i64,
    /// What they may change the figure by, in minor units.
    pub amount_cents: i64,
    /// When the oldest part was first missed.
    pub oldest_at: Timestamp,
    /// Objects whose look-up keeps failing.
    pub failing: i64,
}

const REVENUE: &str = "total_revenue_cents";
const FEES: &str = "stripe_fees_cents";
const DISPUTES: &str = "disputes_cents";
const TAX: &str = "tax_cents";
const MRR: &str = "mrr_cents";

/// The figure that needs what is missing; `None` when none does.
fn figure(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Payments => REVENUE,
        Reason::Fee => FEES,
        Reason::Transactions => DISPUTES,
        Reason::TaxRate => TAX,
        Reason::Items
        | Reason::Tiers
        | Reason::Currency
        | Reason::Discounts
        | Reason::Coupon
        | Reason::Customer => MRR,
        Reason::Lines
        | Reason::Refunds
        | Reason::PayoutTransactions
        | Reason::Undecidable
        | Reason::Event
        | Reason::Unreadable => return None,
    })
}

/// What is provisional in `months` and as of an instant, newest month first. Older months are one entry each without a
/// month; `None` leaves them out.
///
/// # Errors
/// When it could not be read.
pub async fn list(
    db: &Client,
    months: &[Month],
    has_older: bool,
    as_of: Timestamp,
    now: Timestamp,
) -> Section<Vec<Provisional>> {
    let mut found: BTreeMap<(Option<Month>, Currency, &'static str, Reason), Provisional> =
        BTreeMap::new();
    for row in waiting(db, super::asked::after(as_of), now).await? {
        let Some(figure) = figure(row.reason) else {
            continue;
        };
        let month = match figure {
            MRR => Month::of(as_of),
            _ => Month::of_day(row.month),
        };
        let month = Some(month).filter(|month| months.contains(month) || figure == MRR);
        if month.is_none() && !has_older {
            continue;
        }
        let one = Provisional {
            figure,
            month,
            currency: row.currency,
            reason: row.reason,
            objects: row.objects,
            amount_cents: row.amount_cents,
            oldest_at: row.oldest_at,
            failing: row.failing,
        };
        found
            .entry((month, row.currency, figure, row.reason))
            .and_modify(|sum| {
                sum.objects += one.objects;
                sum.amount_cents += one.amount_cents;
                sum.oldest_at = sum.oldest_at.min(one.oldest_at);
                sum.failing += one.failing;
            })
            .or_insert(one);
    }
    let mut found: Vec<Provisional> = found.into_values().collect();
    found.sort_by_key(|one| std::cmp::Reverse(one.month));
    Ok(found)
}

/// What is provisional in the months of a range.
///
/// # Errors
/// When it could not be read.
pub async fn of_range(db: &Client, asked: &Asked, now: Timestamp) -> Section<Vec<Provisional>> {
    let mut months = vec![Month::of(asked.as_of)];
    let mut month = Month::of(asked.range.start);
    while month.start() < asked.range.end {
        months.push(month);
        month = month.next();
    }
    list(db, &months, false, asked.as_of, now).await
}

/// The members of a sum of money of all months that may change; `month` is the current one.
pub(super) fn of_overview(
    provisional: &[Provisional],
    currencies: impl Fn(Currency) -> bool,
    month: Month,
) -> Vec<&'static str> {
    let is = |figure, month: Option<Month>| {
        provisional.iter().any(|one| {
            one.figure == figure
                && currencies(one.currency)
                && (month.is_none() || one.month == month)
        })
    };
    let of_month = |figure| is(figure, Some(month));
    let members = [
        (REVENUE, is(REVENUE, None)),
        ("monthly_revenue_cents", of_month(REVENUE)),
        (FEES, of_month(FEES)),
        (DISPUTES, of_month(DISPUTES)),
        (
            "net_monthly_revenue_cents",
            of_month(REVENUE) || of_month(FEES) || of_month(DISPUTES),
        ),
    ];
    let named = members
        .into_iter()
        .filter(|(_, is_provisional)| *is_provisional);
    named.map(|(member, _)| member).collect()
}

/// The members of a month that may change.
pub(super) fn of_month(
    provisional: &[Provisional],
    currencies: impl Fn(Currency) -> bool,
    month: Month,
) -> Vec<&'static str> {
    let is = |figure| {
        provisional
            .iter()
            .any(|one| one.figure == figure && one.month == Some(month) && currencies(one.currency))
    };
    let (revenue, fees, disputes) = (is(REVENUE), is(FEES), is(DISPUTES));
    let members = [
        ("revenue_cents", revenue),
        ("fees_cents", fees),
        ("disputes_cents", disputes),
        ("net_cents", revenue || fees || disputes),
    ];
    let named = members
        .into_iter()
        .filter(|(_, is_provisional)| *is_provisional);
    named.map(|(member, _)| member).collect()
}

/// The members of the recurring revenue that may change.
pub(super) fn of_mrr(
    provisional: &[Provisional],
    currencies: impl Fn(Currency) -> bool,
) -> Vec<&'static str> {
    let mut found = provisional.iter();
    if found.any(|one| one.figure == MRR && currencies(one.currency)) {
        vec!["mrr_cents", "arr_cents"]
    } else {
        Vec::new()
    }
}
