//! What is to be billed of a page of contracts: everything is read for all of them at once, then each is decided on
//! its own.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use domain::money;
use domain::partner::contract::Contract;
use domain::partner::cycle::{self, BillingPeriod, Calendar, StoredContract};
use domain::partner::pricing::{self, Adjustment, FrozenTerms, Usage};
use domain::period::Period;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use store::contract_usage::{self, Window};
use store::invoiced_usage::{self, InvoicedUsage};
use store::partner_invoices;
use store::settled_periods::{self, SettledPeriod};
use tokio_postgres::Client;

use crate::App;
use crate::request::Request;
use crate::run::Run;

/// How long after its end an invoiced period is counted again. Thirteen months: an annual cycle's first days too.
const LATE_FOR: SignedDuration = SignedDuration::from_hours(24 * 396);
/// Stretches counted in one statement; several are under way at once.
const WINDOWS_PER_READ: usize = 50;

/// What of one contract is to be billed, and everything that is known of it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) contract: StoredContract,
    /// Periods that live invoices bill.
    pub(crate) invoiced: Vec<Period>,
    /// What they billed of each that ends after `since`.
    pub(crate) billed: Vec<InvoicedUsage>,
    /// Periods that came to nothing by other terms than the contract's of today: they are not billed again, but usage
    /// that comes later is.
    settled: Vec<SettledPeriod>,
    /// The contract has ended for good, and its invoices may still be corrected.
    is_closed: bool,
    /// Periods that ended before are neither billed nor counted again.
    pub(crate) since: Timestamp,
    /// What has ended and is not billed, oldest first, as far as it was asked for.
    pub(crate) due: Vec<BillingPeriod>,
    /// The last ended period is invoiced.
    pub(crate) is_invoiced: bool,
    /// Totals of the last invoices in the contract's currency, newest first.
    pub(crate) totals_before: Vec<i64>,
    usage: HashMap<Period, Usage>,
    /// Usage of invoiced periods as it is counted now, by their period.
    recounted: BTreeMap<(Timestamp, Timestamp), Recount>,
}

/// The usage of a period that was billed before, counted again, with the terms it was billed by.
#[derive(Debug)]
struct Recount {
    terms: FrozenTerms,
    usage: Usage,
}

/// What an invoice corrects, and what it then has billed.
#[derive(Debug, Default)]
pub(crate) struct Late {
    pub(crate) adjustments: Vec<Adjustment>,
    pub(crate) billed: Vec<InvoicedUsage>,
    /// Corrections in a currency that the contract no longer has: no invoice of its can carry them.
    pub(crate) in_another_currency: Vec<(Period, i64, money::Currency)>,
}

/// Why a contract cannot be billed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the contract's dates cannot be read")]
    Cycle(#[from] cycle::Error),
    #[error("an amount is out of range")]
    Money(#[from] money::Error),
    #[error("what an earlier invoice was rated by cannot be read")]
    Terms,
}

/// A contract that is planned, or why it cannot be.
pub(crate) type Planned = (i64, Result<Plan, Error>);

/// Plans the contracts with a few statements for all of them; one that cannot be planned has its own error.
pub(crate) async fn plan(
    run: Run<'_>,
    contracts: Vec<StoredContract>,
) -> Result<Vec<Planned>, store::Error> {
    let ids: Vec<i64> = contracts.iter().map(|contract| contract.id).collect();
    let client = run.app.database.client().await?;
    let db: &Client = &client;
    let mut invoiced = by(partner_invoices::periods(db, &ids).await?);
    // What somebody has looked at is billed by the contract as it is.
    let settled = if run.request.reviewed {
        Vec::new()
    } else {
        settled_periods::of_contracts(db, &ids).await?
    };
    let mut settled = by(settled.into_iter().map(|row| (row.contract_id, row)));
    let mut planned: Vec<Planned> = contracts
        .into_iter()
        .map(|contract| {
            let invoiced = invoiced.remove(&contract.id).unwrap_or_default();
            let settled = settled.remove(&contract.id).unwrap_or_default();
            let id = contract.id;
            (
                id,
                Plan::begin(contract, invoiced, settled, run.request, run.now),
            )
        })
        .collect();
    let with_work: Vec<i64> = plans(&mut planned).map(|plan| plan.contract.id).collect();
    if with_work.is_empty() {
        return Ok(planned);
    }
    let ends = plans(&mut planned)
        .flat_map(|plan| &plan.due)
        .map(|period| period.period.start);
    let since = ends.fold(late_since(run.now), Timestamp::min);
    let mut billed = by_contract(invoiced_usage::of_contracts(db, &with_work, since).await?);
    let totals = partner_invoices::last_totals(db, &with_work).await?;
    let totals = totals.into_iter();
    let mut totals = by(totals.map(|(id, currency, cents)| ((id, currency), cents)));
    // Counting opens connections itself, and the pool may have only this one.
    drop(client);
    for (id, plan) in &mut planned {
        let Ok(of_contract) = plan else { continue };
        if !of_contract.has_work() {
            continue;
        }
        let key = (*id, of_contract.contract.terms.currency);
        of_contract.totals_before = totals.remove(&key).unwrap_or_default();
        of_contract.billed = billed.remove(id).unwrap_or_default();
        of_contract.since = since;
        if let Err(error) = of_contract.thaw(late_since(run.now)) {
            *plan = Err(error);
        }
    }
    count(run.app, &mut planned).await?;
    Ok(planned)
}

/// Reads the usage of every stretch that a plan asks for, on as many connections as there are.
async fn count(app: &App, planned: &mut [Planned]) -> Result<(), store::Error> {
    let mut windows: Vec<Window<'_>> = Vec::new();
    for (_, plan) in planned.iter() {
        let Ok(plan) = plan else { continue };
        plan.windows(&mut windows);
    }
    let mut reads = Vec::new();
    for windows in windows.chunks(WINDOWS_PER_READ) {
        reads.push(read(app, windows).boxed());
    }
    let mut reads = stream::iter(reads).buffered(app.concurrency);
    let mut counted = Vec::with_capacity(windows.len());
    while let Some(usage) = reads.next().await {
        counted.extend(usage?);
    }
    drop(reads);
    let mut counted = counted.into_iter();
    for plan in plans(planned) {
        plan.take_counts(&mut counted)
            .ok_or(store::Error::RowCount {
                statement: "contract_usage::read",
                expected: 1,
                changed: 0,
            })?;
    }
    Ok(())
}

async fn read(app: &App, windows: &[Window<'_>]) -> Result<Vec<Usage>, store::Error> {
    let client = app.database.client().await?;
    contract_usage::read(&**client, windows).await
}

/// The plans that have something to bill, or to correct.
fn plans(planned: &mut [Planned]) -> impl Iterator<Item = &mut Plan> {
    planned
        .iter_mut()
        .filter_map(|(_, plan)| plan.as_mut().ok())
        .filter(|plan| plan.has_work())
}

/// Periods that ended before are not counted again.
fn late_since(now: Timestamp) -> Timestamp {
    now.saturating_sub(LATE_FOR).unwrap_or(Timestamp::MIN)
}

impl Plan {
    fn begin(
        contract: StoredContract,
        invoiced: Vec<Period>,
        mut settled: Vec<SettledPeriod>,
        request: &Request,
        now: Timestamp,
    ) -> Result<Plan, Error> {
        let calendar = Calendar::new(&contract, &invoiced)?;
        let mut due = calendar.unbilled(now)?;
        if !settled.is_empty() {
            for period in &due {
                let by_terms_of_today = settle(&contract, period)?;
                settled.retain(|row| *row != by_terms_of_today);
            }
            let mut decided = invoiced.clone();
            decided.extend(settled.iter().map(|row| row.period));
            due = Calendar::new(&contract, &decided)?.unbilled(now)?;
        }
        due.retain(|period| request.selects(period));
        let is_recent = invoiced.iter().any(|period| period.end > late_since(now));
        Ok(Plan {
            is_invoiced: calendar.is_last_ended_invoiced(now)?,
            is_closed: is_recent && calendar.is_closed(now),
            due,
            contract,
            invoiced,
            billed: Vec::new(),
            settled,
            since: Timestamp::MIN,
            totals_before: Vec::new(),
            usage: HashMap::new(),
            recounted: BTreeMap::new(),
        })
    }

    /// Whether there is something to bill, or to correct.
    fn has_work(&self) -> bool {
        self.is_closed || !self.due.is_empty()
    }

    /// Finds the periods, invoiced or closed with nothing to bill, whose usage has to be counted again.
    fn thaw(&mut self, since: Timestamp) -> Result<(), Error> {
        let billed = self.billed.iter();
        let billed =
            billed.filter_map(|row| Some((row.period, row.terms.as_ref()?, row.tax_rate_bps)));
        let settled = self
            .settled
            .iter()
            .map(|row| (row.period, &row.terms, None));
        for (period, stored, tax_rate_bps) in billed.chain(settled) {
            if period.end > since {
                let terms = FrozenTerms::read(stored, tax_rate_bps).ok_or(Error::Terms)?;
                let usage = Usage::default();
                self.recounted
                    .insert((period.start, period.end), Recount { terms, usage });
            }
        }
        Ok(())
    }

    /// Adds the stretches to count; [`Plan::take_counts`] takes their counts in the same order.
    fn windows<'a>(&'a self, windows: &mut Vec<Window<'a>>) {
        let stretches = |contract: &'a Contract, usage: &'a [Period]| {
            usage.iter().map(move |period| Window {
                contract,
                period: *period,
            })
        };
        for period in &self.due {
            windows.extend(stretches(&self.contract.terms, &period.usage));
        }
        for recount in self.recounted.values() {
            windows.extend(stretches(&recount.terms.contract, &recount.terms.usage));
        }
    }

    fn take_counts(&mut self, counted: &mut impl Iterator<Item = Usage>) -> Option<()> {
        let mut sum = |stretches: usize| {
            let mut sum = Usage::default();
            for _ in 0..stretches {
                let usage = counted.next()?;
                sum.units += usage.units;
                sum.requests += usage.requests;
            }
            Some(sum)
        };
        for period in &self.due {
            self.usage.insert(period.period, sum(period.usage.len())?);
        }
        for recount in self.recounted.values_mut() {
            recount.usage = sum(recount.terms.usage.len())?;
        }
        Some(())
    }

    /// What was used in a period that is due.
    pub(crate) fn usage(&self, period: &BillingPeriod) -> Usage {
        self.usage.get(&period.period).copied().unwrap_or_default()
    }

    /// Notes an invoice that has just been issued, so that the next one of this contract knows it.
    pub(crate) fn note_issued(
        &mut self,
        period: Period,
        billed: Vec<InvoicedUsage>,
        total_cents: i64,
    ) {
        self.invoiced.push(period);
        self.invoiced
            .sort_by_key(|period| (period.start, period.end));
        self.billed.extend(billed);
        self.totals_before.insert(0, total_cents);
        self.totals_before.truncate(6);
    }

    /// What live invoices have billed of a period.
    fn billed_of(&self, period: Period) -> Result<(Usage, i64), Error> {
        let mut usage = Usage::default();
        let mut amount_cents = 0_i64;
        for row in self.billed.iter().filter(|row| row.period == period) {
            usage.units += row.usage.units;
            usage.requests += row.usage.requests;
            amount_cents = amount_cents
                .checked_add(row.amount_cents)
                .ok_or(money::Error::OutOfRange)?;
        }
        Ok((usage, amount_cents))
    }

    /// What an invoice of `period` has to correct: its [`Plan::corrections`], and what other invoices have billed of
    /// this period already, when its own was voided.
    pub(crate) fn late(&self, period: &BillingPeriod) -> Result<Late, Error> {
        let mut late = self.corrections()?;
        let (adjustment, billed) = self.own(period)?;
        if adjustment.amount_cents != 0 {
            late.adjustments.insert(0, adjustment);
        }
        late.billed.push(billed);
        Ok(late)
    }

    /// What the next invoice has to correct: periods decided before that have other usage now.
    pub(crate) fn corrections(&self) -> Result<Late, Error> {
        let mut late = Late::default();
        let contract_id = self.contract.id;
        for ((start, end), recount) in &self.recounted {
            let corrected = Period {
                start: *start,
                end: *end,
            };
            let (billed, billed_cents) = self.billed_of(corrected)?;
            if recount.usage == billed {
                continue;
            }
            let terms = &recount.terms;
            let now_cents = pricing::rate_again(&terms.contract, terms.share, recount.usage)?;
            let amount_cents = now_cents
                .checked_sub(billed_cents)
                .ok_or(money::Error::OutOfRange)?;
            if terms.contract.currency != self.contract.terms.currency {
                if amount_cents != 0 {
                    let currency = terms.contract.currency;
                    late.in_another_currency
                        .push((corrected, amount_cents, currency));
                }
                continue;
            }
            let more = Usage {
                units: recount.usage.units - billed.units,
                requests: recount.usage.requests - billed.requests,
            };
            late.adjustments.push(Adjustment {
                first_day: terms.first_day,
                last_day: terms.last_day,
                period: corrected,
                amount_cents,
                quantity: quantity(&terms.contract, more),
                counted: pricing::counted(&terms.contract),
                taxes: terms.contract.taxes.clone(),
            });
            late.billed.push(InvoicedUsage {
                contract_id,
                period: corrected,
                usage: more,
                amount_cents,
                terms: None,
                tax_rate_bps: None,
            });
        }
        Ok(late)
    }

    /// The invoice's own period: what others have billed of it (as a correction), and what this one bills.
    fn own(&self, period: &BillingPeriod) -> Result<(Adjustment, InvoicedUsage), Error> {
        let terms = &self.contract.terms;
        let usage = self.usage(period);
        let (before, before_cents) = self.billed_of(period.period)?;
        let rated_cents = pricing::rate(terms, period, usage)?.subtotal_cents()?;
        let adjustment = Adjustment {
            first_day: period.first_day,
            last_day: period.last_day,
            period: period.period,
            amount_cents: before_cents.checked_neg().ok_or(money::Error::OutOfRange)?,
            quantity: -quantity(terms, before),
            counted: pricing::counted(terms),
            taxes: terms.taxes.clone(),
        };
        let billed = InvoicedUsage {
            contract_id: self.contract.id,
            period: period.period,
            usage: Usage {
                units: usage.units - before.units,
                requests: usage.requests - before.requests,
            },
            amount_cents: rated_cents
                .checked_sub(before_cents)
                .ok_or(money::Error::OutOfRange)?,
            terms: Some(freeze(terms, period)?),
            tax_rate_bps: None,
        };
        Ok((adjustment, billed))
    }
}

/// A period that comes to nothing, by the contract's terms of today.
pub(crate) fn settle(
    contract: &StoredContract,
    period: &BillingPeriod,
) -> Result<SettledPeriod, Error> {
    Ok(SettledPeriod {
        contract_id: contract.id,
        period: period.period,
        terms: freeze(&contract.terms, period)?,
    })
}

fn freeze(terms: &Contract, period: &BillingPeriod) -> Result<Value, Error> {
    FrozenTerms::freeze(terms, period).map_err(|_never| Error::Terms)
}

/// Rows by what they belong to, in their order.
pub(crate) fn by<K: Eq + Hash, V>(rows: impl IntoIterator<Item = (K, V)>) -> HashMap<K, Vec<V>> {
    let mut by: HashMap<K, Vec<V>> = HashMap::new();
    for (key, value) in rows {
        by.entry(key).or_default().push(value);
    }
    by
}

pub(crate) fn by_contract(rows: Vec<InvoicedUsage>) -> HashMap<i64, Vec<InvoicedUsage>> {
    by(rows.into_iter().map(|row| (row.contract_id, row)))
}

/// Requests where requests are priced, else units.
fn quantity(contract: &Contract, usage: Usage) -> i64 {
    match contract.pricing_model {
        domain::partner::contract::PricingModel::PerRequest => usage.requests,
        domain::partner::contract::PricingModel::Flat
        | domain::partner::contract::PricingModel::PerDeed
        | domain::partner::contract::PricingModel::Hybrid
        | domain::partner::contract::PricingModel::Tiered => usage.units,
    }
}
