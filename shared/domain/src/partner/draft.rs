//! Drafts: what a contract's invoices would say if they were issued now. The run, its dry run, the list of drafts, an
//! approval and the running invoice are all computed here.
//!
//! A [`Plan`] says which usage has to be counted; [`Plan::drafts`] rates what was counted.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::money::{self, Currency};
use crate::partner::contract::{Contract, PricingModel, UnitSource};
use crate::partner::cycle::{self, BillingPeriod, Calendar, Share};
use crate::partner::pricing::{self, Adjustment, Bill, FrozenTerms, Usage};
use crate::partner::tax::{self, Taxable};
use crate::partner::terms::{History, LATE_FOR};
use crate::period::Period;
use crate::words::words;

words!(
    /// Why a draft waits until somebody has looked at it.
    DraftReason {
        /// More periods than usual were missed; a start may have been entered wrong.
        CatchUp = "catch_up",
        /// Its total is above the cap that is configured.
        AboveTheCap = "above_the_cap",
        /// Its total is more than ten times what the last invoices came to.
        AboveTenTimesTheMedian = "above_ten_times_the_median",
        /// Usage came after the contract's last invoice.
        LateUsageAfterTheLastInvoice = "late_usage_after_the_last_invoice",
        /// Usage came of a time when the contract had another currency.
        LateUsageInAFormerCurrency = "late_usage_in_a_former_currency",
    }
);

/// What one invoice billed of one period. Amounts in minor units of that period's currency.
#[derive(Debug, Clone, PartialEq)]
pub struct BilledUsage {
    /// The period the usage belongs to.
    pub period: Period,
    /// The usage that was billed; negative when an adjustment takes some back.
    pub usage: Usage,
    /// Before tax; may be negative.
    pub amount_cents: i64,
    /// The terms by which the period is rated again; `None` on an adjustment.
    pub terms: Option<Value>,
    /// The tax of the invoice in hundredths of a percent, where its terms were stored before they had it.
    pub tax_rate_bps: Option<i64>,
}

/// What is decided of a contract's periods. Void invoices are no part of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Billed {
    /// The periods of its invoices.
    pub invoiced: Vec<Period>,
    /// What they billed of each period.
    pub usage: Vec<BilledUsage>,
    /// Periods that are never billed.
    pub waived: Vec<Period>,
    /// The totals of its last six invoices in each currency, newest first.
    pub totals_before: Vec<(Currency, i64)>,
}

/// How drafts are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A total above it is looked at first, in minor units of any currency.
    pub cap_cents: Option<i64>,
    /// With more past periods than these a contract issues nothing.
    pub catch_up: usize,
    /// Somebody has looked.
    pub reviewed: bool,
}

/// A stretch of time whose usage is counted.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Says which partner, source, event types and statuses count.
    pub contract: &'a Contract,
    /// The stretch `[start, end)`.
    pub period: Period,
    /// The start of the whole period: a request that was repeated is looked for from a day before it.
    pub since: Timestamp,
    /// Events that arrived later do not count; `None` counts all of them.
    pub ingested_until: Option<Timestamp>,
}

impl<'a> Window<'a> {
    /// A stretch by itself.
    #[must_use]
    pub fn of(contract: &'a Contract, period: Period) -> Window<'a> {
        Window {
            contract,
            period,
            since: period.start,
            ingested_until: None,
        }
    }
}

/// Why a contract cannot be billed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the contract's dates cannot be read")]
    Cycle(#[from] cycle::Error),
    #[error("an amount is out of range")]
    Money(#[from] money::Error),
    #[error("what an earlier invoice was rated by cannot be read")]
    Terms,
    #[error("the usage of {asked} stretches was asked for, and that of {counted} counted")]
    Counts { asked: usize, counted: usize },
}

/// What a draft bills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DraftKind {
    /// A period that is not billed, and what corrects earlier ones.
    Period,
    /// A correction that no invoice of a period will carry.
    Correction,
}

/// An invoice that is not issued.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub kind: DraftKind,
    /// Why it waits; `None` when the next run issues it.
    pub reason: Option<DraftReason>,
    /// The terms it is rated by, with what is printed of the contract today.
    pub terms: Contract,
    /// First and last day of the period that it bills or corrects.
    pub first_day: Date,
    pub last_day: Date,
    pub period: Period,
    /// The first day of the period's cycle.
    pub cycle_from: Date,
    /// What of the cycle is billed; `None` of a correction.
    pub share: Option<Share>,
    /// What was used in the period.
    pub usage: Usage,
    pub bill: Bill,
    /// What it then has billed, period by period.
    pub billed: Vec<BilledUsage>,
    pub due_at: Timestamp,
}

impl Draft {
    /// What names a draft of a contract, as long as nothing of it is issued.
    #[must_use]
    pub fn key(&self) -> String {
        match self.kind {
            DraftKind::Period => self.first_day.to_string(),
            DraftKind::Correction => format!("{}-correction", self.first_day),
        }
    }
}

/// What a contract comes to now.
#[derive(Debug, Clone, PartialEq)]
pub struct Drafts {
    /// Oldest first.
    pub drafts: Vec<Draft>,
    /// Periods that have ended and come to nothing.
    pub nothing_to_bill: i64,
    /// The last ended period is invoiced.
    pub is_invoiced: bool,
}

/// The usage of a period that was billed before, with the terms it was billed by.
#[derive(Debug, Clone)]
struct Recount {
    period: Period,
    terms: FrozenTerms,
}

/// What has ended and is not billed, and what has to be counted again.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    history: &'a History,
    billed: &'a Billed,
    now: Timestamp,
    /// Usage is counted up to here.
    until: Timestamp,
    due: Vec<BillingPeriod>,
    recounts: Vec<Recount>,
    is_invoiced: bool,
    is_closed: bool,
}

impl<'a> Plan<'a> {
    /// What there is to bill now.
    ///
    /// # Errors
    /// When days are beyond the calendar, or what earlier invoices were rated by cannot be read.
    pub fn new(
        history: &'a History,
        billed: &'a Billed,
        now: Timestamp,
    ) -> Result<Plan<'a>, Error> {
        let mut decided = billed.invoiced.clone();
        decided.extend(&billed.waived);
        let calendar = Calendar::new(history, &decided)?;
        let due = calendar.unbilled(now)?;
        let mut recounts: BTreeMap<(Timestamp, Timestamp), Recount> = BTreeMap::new();
        for row in &billed.usage {
            let Some(stored) = &row.terms else { continue };
            if billed.waived.contains(&row.period) {
                continue;
            }
            let terms = FrozenTerms::read(stored, row.tax_rate_bps).ok_or(Error::Terms)?;
            if now > last_instant(row.period) && counts_gateway(&terms.contract) {
                // The gateway's rows do not say when they arrived, and the host may have removed old ones.
                continue;
            }
            let period = row.period;
            recounts.insert((period.start, period.end), Recount { period, terms });
        }
        Ok(Plan {
            history,
            billed,
            now,
            until: Timestamp::MAX,
            due,
            recounts: recounts.into_values().collect(),
            is_invoiced: calendar.is_last_ended_invoiced(now)?,
            is_closed: calendar.is_closed(now),
        })
    }

    /// What there would be to bill if the running cycle ended now, and the period of that cycle; `None` when no day of it
    /// will be billed.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn current(
        history: &'a History,
        billed: &'a Billed,
        now: Timestamp,
    ) -> Result<(Plan<'a>, Option<BillingPeriod>), Error> {
        let mut plan = Plan::new(history, billed, now)?;
        let mut decided = billed.invoiced.clone();
        decided.extend(&billed.waived);
        let running = Calendar::new(history, &decided)?.current(now)?;
        let running = running.filter(|running| {
            let is_due = |due: &BillingPeriod| due.first_day == running.first_day;
            !plan.due.iter().any(is_due)
        });
        plan.due.extend(running.clone());
        // Usage of this very instant is counted.
        let after_now = now.saturating_add(SignedDuration::from_micros(1));
        plan.until = after_now.unwrap_or(Timestamp::MAX);
        Ok((plan, running))
    }

    /// The stretches to count, in the order in which [`Plan::drafts`] takes their counts.
    #[must_use]
    pub fn windows(&self) -> Vec<Window<'_>> {
        let mut windows = Vec::new();
        for period in &self.due {
            windows.extend(self.stretches(&period.terms, &period.usage, None));
        }
        for recount in &self.recounts {
            let until = Some(last_instant(recount.period));
            windows.extend(self.stretches(&recount.terms.contract, &recount.terms.usage, until));
        }
        windows
    }

    fn stretches<'b>(
        &self,
        contract: &'b Contract,
        usage: &[Period],
        ingested_until: Option<Timestamp>,
    ) -> Vec<Window<'b>> {
        let since = usage.first().map_or(Timestamp::MIN, |first| first.start);
        let until = self.until;
        let stretches = usage.iter().filter(|stretch| stretch.start < until);
        let windows = stretches.map(|stretch| Window {
            contract,
            period: Period {
                start: stretch.start,
                end: stretch.end.min(until),
            },
            since,
            ingested_until,
        });
        windows.collect()
    }

    /// What was used of a period that is due, from the usage of [`Plan::windows`]; nothing without a period.
    #[must_use]
    pub fn usage_of(&self, period: Option<&BillingPeriod>, counted: &[Usage]) -> Usage {
        let mut sum = Usage::default();
        let mut counts = counted.iter();
        for due in &self.due {
            for usage in counts
                .by_ref()
                .take(self.stretches(&due.terms, &due.usage, None).len())
            {
                if period.is_some_and(|period| period.first_day == due.first_day) {
                    sum.units = sum.units.saturating_add(usage.units);
                    sum.requests = sum.requests.saturating_add(usage.requests);
                }
            }
        }
        sum
    }

    /// The drafts, from the usage of [`Plan::windows`].
    ///
    /// # Errors
    /// When an amount is out of range.
    pub fn drafts(&self, counted: &[Usage], rules: &Rules) -> Result<Drafts, Error> {
        let asked = self.windows().len();
        if asked != counted.len() {
            let counted = counted.len();
            return Err(Error::Counts { asked, counted });
        }
        let mut counts = counted.iter();
        let mut sum = |stretches: usize| {
            let mut sum = Usage::default();
            for usage in counts.by_ref().take(stretches) {
                sum.units = sum.units.saturating_add(usage.units);
                sum.requests = sum.requests.saturating_add(usage.requests);
            }
            sum
        };
        let mut used = Vec::with_capacity(self.due.len());
        for period in &self.due {
            used.push(sum(self
                .stretches(&period.terms, &period.usage, None)
                .len()));
        }
        let mut late = Vec::new();
        for recount in &self.recounts {
            let usage = &recount.terms.usage;
            let usage = sum(self.stretches(&recount.terms.contract, usage, None).len());
            late.extend(self.correction(recount, usage)?);
        }
        let carriers = self.carriers(&used)?;
        let mut drafts = Vec::new();
        let mut nothing_to_bill = 0;
        for (place, (period, usage)) in self.due.iter().zip(used).enumerate() {
            let currency = period.terms.currency;
            let is_carried = |late: &mut Late| {
                late.currency == currency && carriers.get(&currency) == Some(&place)
            };
            let carried: Vec<Late> = late.extract_if(.., is_carried).collect();
            match self.period_draft(period, usage, carried)? {
                Some(draft) => drafts.push(draft),
                None => nothing_to_bill += 1,
            }
        }
        self.hold(&mut drafts, rules)?;
        let today = self.history.at(self.now)?;
        for late in late {
            let reason = if late.currency != today.currency {
                DraftReason::LateUsageInAFormerCurrency
            } else if self.is_closed {
                DraftReason::LateUsageAfterTheLastInvoice
            } else {
                // The next invoice carries it.
                continue;
            };
            if late.adjustment.amount_cents != 0 {
                let reason = Some(reason).filter(|_| !rules.reviewed);
                drafts.push(self.correction_draft(late, reason, today)?);
            }
        }
        Ok(Drafts {
            drafts,
            nothing_to_bill,
            is_invoiced: self.is_invoiced,
        })
    }

    /// Of each currency the place of the period whose draft carries corrections: the oldest that comes to something, else
    /// the newest.
    fn carriers(&self, used: &[Usage]) -> Result<BTreeMap<Currency, usize>, Error> {
        let mut carriers = BTreeMap::new();
        let mut newest = BTreeMap::new();
        for (place, (period, usage)) in self.due.iter().zip(used).enumerate() {
            let currency = period.terms.currency;
            newest.insert(currency, place);
            if !carriers.contains_key(&currency)
                && pricing::bill(&period.terms, period, *usage, &[])?.is_some()
            {
                carriers.insert(currency, place);
            }
        }
        for (currency, place) in newest {
            carriers.entry(currency).or_insert(place);
        }
        Ok(carriers)
    }

    /// What invoices have billed of a period.
    fn billed_of(&self, period: Period) -> Result<(Usage, i64), Error> {
        let mut usage = Usage::default();
        let mut amount_cents = 0_i64;
        for row in self.billed.usage.iter().filter(|row| row.period == period) {
            usage.units += row.usage.units;
            usage.requests += row.usage.requests;
            amount_cents = amount_cents
                .checked_add(row.amount_cents)
                .ok_or(money::Error::OutOfRange)?;
        }
        Ok((usage, amount_cents))
    }

    /// What has to be corrected of a period that was billed; `None` when it was counted as it is counted now.
    fn correction(&self, recount: &Recount, usage: Usage) -> Result<Option<Late>, Error> {
        let (billed, billed_cents) = self.billed_of(recount.period)?;
        if usage == billed {
            return Ok(None);
        }
        let terms = &recount.terms;
        let contract = &terms.contract;
        let now_cents = pricing::rate_again(contract, terms.share, usage)?;
        let exact_cents = now_cents
            .checked_sub(billed_cents)
            .ok_or(money::Error::OutOfRange)?;
        // It may be collected otherwise than what it corrects.
        let step_cents = Contract {
            currency: contract.currency,
            ..self.history.at(self.now)?.clone()
        }
        .step_cents();
        let amount_cents = pricing::round_to_step(i128::from(exact_cents), 1, step_cents)?;
        let more = Usage {
            units: usage.units - billed.units,
            requests: usage.requests - billed.requests,
        };
        Ok(Some(Late {
            currency: contract.currency,
            step_cents,
            adjustment: Adjustment {
                first_day: terms.first_day,
                last_day: terms.last_day,
                period: recount.period,
                amount_cents,
                quantity: quantity(contract, more),
                counted: pricing::counted(contract),
                taxes: contract.taxes.clone(),
            },
            billed: BilledUsage {
                period: recount.period,
                usage: more,
                amount_cents,
                terms: None,
                tax_rate_bps: None,
            },
        }))
    }

    /// The invoice of a period with the corrections that it carries, and what others have billed of this period already
    /// when its own was voided; `None` when there is nothing to bill.
    fn period_draft(
        &self,
        period: &BillingPeriod,
        usage: Usage,
        carried: Vec<Late>,
    ) -> Result<Option<Draft>, Error> {
        let terms = &period.terms;
        let (before, before_cents) = self.billed_of(period.period)?;
        let mut adjustments = Vec::new();
        if before_cents != 0 {
            adjustments.push(Adjustment {
                first_day: period.first_day,
                last_day: period.last_day,
                period: period.period,
                amount_cents: before_cents.checked_neg().ok_or(money::Error::OutOfRange)?,
                quantity: -quantity(terms, before),
                counted: pricing::counted(terms),
                taxes: terms.taxes.clone(),
            });
        }
        adjustments.extend(carried.iter().map(|late| late.adjustment.clone()));
        let Some(bill) = pricing::bill(terms, period, usage, &adjustments)? else {
            return Ok(None);
        };
        let rated_cents = pricing::rate(terms, period, usage)?.subtotal_cents()?;
        let mut billed: Vec<BilledUsage> = carried.into_iter().map(|late| late.billed).collect();
        billed.push(BilledUsage {
            period: period.period,
            usage: Usage {
                units: usage.units - before.units,
                requests: usage.requests - before.requests,
            },
            amount_cents: rated_cents
                .checked_sub(before_cents)
                .ok_or(money::Error::OutOfRange)?,
            terms: Some(FrozenTerms::freeze(terms, period).map_err(|_never| Error::Terms)?),
            tax_rate_bps: None,
        });
        Ok(Some(Draft {
            kind: DraftKind::Period,
            reason: None,
            first_day: period.first_day,
            last_day: period.last_day,
            period: period.period,
            cycle_from: period.cycle_from,
            share: Some(period.share),
            usage,
            due_at: period.due_at(terms.payment_terms, self.now),
            terms: terms.clone(),
            bill,
            billed,
        }))
    }

    fn correction_draft(
        &self,
        late: Late,
        reason: Option<DraftReason>,
        today: &Contract,
    ) -> Result<Draft, Error> {
        let adjustment = &late.adjustment;
        let bill = pricing::bill_correction(adjustment, late.currency, late.step_cents)?;
        let terms = Contract {
            currency: late.currency,
            ..today.clone()
        };
        let days = terms.payment_terms.days().unwrap_or_default();
        let due_at = self
            .now
            .saturating_add(SignedDuration::from_hours(24 * days))
            .unwrap_or(Timestamp::MAX);
        Ok(Draft {
            kind: DraftKind::Correction,
            reason,
            first_day: adjustment.first_day,
            last_day: adjustment.last_day,
            period: adjustment.period,
            cycle_from: adjustment.first_day,
            share: None,
            usage: late.billed.usage,
            bill,
            billed: vec![late.billed],
            due_at,
            terms,
        })
    }

    /// Says of each draft of a period why it waits, if it does.
    fn hold(&self, drafts: &mut [Draft], rules: &Rules) -> Result<(), Error> {
        if rules.reviewed {
            return Ok(());
        }
        // The newest is no past period.
        if drafts.len().saturating_sub(1) > rules.catch_up {
            for draft in drafts {
                draft.reason = Some(DraftReason::CatchUp);
            }
            return Ok(());
        }
        let mut totals = self.billed.totals_before.clone();
        for draft in drafts {
            let currency = draft.bill.currency;
            let of_currency = totals.iter().filter(|(other, _)| *other == currency);
            let before: Vec<i64> = of_currency.map(|(_, cents)| *cents).take(6).collect();
            let total_cents = draft.bill.total_cents;
            let is_above = |cap_cents: i64| total_cents > cap_cents;
            draft.reason = if rules.cap_cents.is_some_and(is_above) {
                Some(DraftReason::AboveTheCap)
            } else if pricing::needs_review(total_cents, fixed_with_tax(draft)?, &before, None) {
                Some(DraftReason::AboveTenTimesTheMedian)
            } else {
                totals.insert(0, (currency, total_cents));
                None
            };
        }
        Ok(())
    }
}

/// A correction of a period that was billed before.
#[derive(Debug, Clone)]
struct Late {
    currency: Currency,
    step_cents: i64,
    adjustment: Adjustment,
    billed: BilledUsage,
}

/// What the period costs when nothing is used, with tax: what an invoice is compared with beside those before it.
fn fixed_with_tax(draft: &Draft) -> Result<i64, Error> {
    let Some(share) = draft.share else {
        return Ok(0);
    };
    let fixed_cents = pricing::fixed_cents(&draft.terms, share)?;
    let fixed = Taxable {
        amount_cents: fixed_cents,
        taxes: &draft.terms.taxes,
    };
    let taxes = tax::assess(&[fixed], 1)?.groups;
    let total = taxes
        .iter()
        .try_fold(fixed_cents, |sum, tax| sum.checked_add(tax.tax_cents));
    Ok(total.ok_or(money::Error::OutOfRange)?)
}

/// Until when usage of an invoiced period may arrive to be billed.
#[must_use]
pub fn last_instant(invoiced: Period) -> Timestamp {
    let last = invoiced.end.saturating_add(LATE_FOR);
    last.unwrap_or(Timestamp::MAX)
}

/// Whether the gateway's rows are among what a contract counts.
fn counts_gateway(contract: &Contract) -> bool {
    contract.pricing_model == PricingModel::PerRequest
        || match contract.unit_source {
            UnitSource::ApiUsage | UnitSource::Both => true,
            UnitSource::UsageEvents => false,
        }
}

/// Requests where requests are priced, else units.
fn quantity(contract: &Contract, usage: Usage) -> i64 {
    match contract.pricing_model {
        PricingModel::PerRequest => usage.requests,
        PricingModel::Flat
        | PricingModel::PerDeed
        | PricingModel::Hybrid
        | PricingModel::Tiered => usage.units,
    }
}

#[cfg(test)]
mod tests;
