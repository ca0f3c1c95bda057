//! The ledger against itself: days against their entries, rollups, totals, numbers.

use std::collections::BTreeSet;

use domain::money::Currency;
use domain::reconciliation::{Discrepancy, Kind, ObjectType};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use store::reconciliation_window::{self as window, InvoiceDifference};
use store::{reconciliation_runs, revenue_daily, usage_daily};
use stripe::client;
use tokio_postgres::Client;

use super::{Run, Stop};
use crate::fetch;

/// Differences of one check that a run stores at most.
const TOLD: i64 = 1_000;

impl Run<'_> {
    /// After the healing, so that what it put right is not told twice.
    pub(super) async fn check(&mut self) -> Result<(), store::Error> {
        let days = self.check_days().await;
        self.note("revenue_daily", days.map_err(Stop::from))?;
        let usage = self.check_usage().await;
        self.note("usage_daily", usage.map_err(Stop::from))?;
        let totals = self.check_totals().await;
        self.note("invoice_totals", totals.map_err(Stop::from))?;
        let numbers = self.check_numbers().await;
        self.note("invoice_numbers", numbers.map_err(Stop::from))?;
        let doubles = self.check_doubles().await;
        self.note("double_payments", doubles.map_err(Stop::from))
    }

    /// Nothing is taken out: somebody who knows the customer has to say whether it was paid twice.
    async fn check_doubles(&mut self) -> Result<(), store::Error> {
        let doubles = {
            let client = self.app.database.client().await?;
            let db: &Client = &client;
            let (since, until) = (self.window.since, self.window.until);
            window::possible_double_payments(db, since, until, TOLD).await?
        };
        let found = doubles.into_iter().map(|double| Discrepancy {
            kind: Kind::PossibleDoublePayment,
            object_type: ObjectType::Payment,
            object_id: double.outside_stripe,
            currency: Currency::parse(&double.currency).ok(),
            stripe_value: Some(format!("{} {}", double.at_stripe, double.amount_cents)),
            ledger_value: Some(double.amount_cents.to_string()),
        });
        self.tell_all(found.collect()).await
    }

    async fn check_numbers(&mut self) -> Result<(), store::Error> {
        let numbers = {
            let client = self.app.database.client().await?;
            let db: &Client = &client;
            window::missing_numbers(db, TOLD).await?
        };
        let mut found = Vec::new();
        for number in numbers {
            found.push(Discrepancy {
                kind: Kind::MissingInDb,
                object_type: ObjectType::InvoiceNumber,
                object_id: number,
                currency: None,
                stripe_value: Some("taken from its series".to_owned()),
                ledger_value: None,
            });
        }
        self.tell_all(found).await
    }

    /// The days from the first of the window's first month on: what is booked late is booked on the day of its cause.
    async fn check_days(&mut self) -> Result<(), store::Error> {
        let first = self
            .window
            .since
            .to_zoned(TimeZone::UTC)
            .date()
            .first_of_month();
        let last = self.now.to_zoned(TimeZone::UTC).date();
        let days = {
            let client = self.app.database.client().await?;
            let db: &Client = &client;
            revenue_daily::differences(db, first, last).await?
        };
        for day in days {
            let item = vec![Discrepancy {
                kind: Kind::AmountDiffers,
                object_type: ObjectType::RevenueDaily,
                object_id: format!("{}:{}", day.day, day.currency),
                currency: Some(day.currency),
                stripe_value: Some(day.summed),
                ledger_value: Some(day.stored),
            }];
            self.tell_all(item).await?;
            if self.window.heal {
                self.rebuild_day(day.day, day.currency).await?;
            }
        }
        // What was rebuilt is what it is the sum of, by the same transaction.
        if self.window.heal {
            let left = BTreeSet::new();
            self.mark_healed(ObjectType::RevenueDaily, &left).await?;
        }
        Ok(())
    }

    async fn rebuild_day(&self, day: Date, currency: Currency) -> Result<(), store::Error> {
        let mut client = self.app.database.client().await?;
        let transaction = client.transaction().await?;
        revenue_daily::lock(&*transaction, day, currency).await?;
        revenue_daily::rebuild(&*transaction, day, currency).await?;
        revenue_daily::delete_unexplained(&*transaction, day, currency).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn check_usage(&mut self) -> Result<(), store::Error> {
        let rows = {
            let client = self.app.database.client().await?;
            let db: &Client = &client;
            usage_daily::differences(db).await?
        };
        let mut found = Vec::new();
        let mut subjects = BTreeSet::new();
        for row in rows {
            let value = |totals: &usage_daily::Totals| {
                Some(format!(
                    "{} events, {} units, {} billable, {}",
                    totals.events, totals.units, totals.billable_units, totals.amount_cents
                ))
            };
            subjects.insert(row.subject.clone());
            found.push(Discrepancy {
                kind: Kind::AmountDiffers,
                object_type: ObjectType::UsageDaily,
                object_id: format!(
                    "{}:{}:{}:{}",
                    row.subject, row.day, row.event_type, row.currency
                ),
                currency: Currency::parse(row.currency.as_str()).ok(),
                stripe_value: value(&row.summed),
                ledger_value: value(&row.rolled_up),
            });
        }
        self.tell_all(found).await?;
        if !self.window.heal {
            return Ok(());
        }
        for subject in subjects {
            if self.deadline.is_reached() {
                return self.note("usage_daily", Err(Stop::Deadline));
            }
            let mut client = self.app.database.client().await?;
            let transaction = client.transaction().await?;
            usage_daily::lock(&*transaction).await?;
            usage_daily::rebuild(&*transaction, &subject).await?;
            transaction.commit().await?;
        }
        self.mark_healed(ObjectType::UsageDaily, &BTreeSet::new())
            .await
    }

    /// Whether invoices are the sums of their lines. One of Stripe's is read again, whole; one of ours is the only
    /// record there is of what was billed.
    async fn check_totals(&mut self) -> Result<(), store::Error> {
        let differences = self.invoice_differences().await?;
        let mut found = Vec::new();
        for difference in &differences {
            let currency = difference.currency.as_deref();
            found.push(Discrepancy {
                kind: Kind::AmountDiffers,
                object_type: ObjectType::InvoiceTotal,
                object_id: difference.reference.clone(),
                currency: currency.and_then(|currency| Currency::parse(currency).ok()),
                stripe_value: Some(difference.expected.clone()),
                ledger_value: Some(difference.stored.clone()),
            });
        }
        self.tell_all(found).await?;
        let at_stripe = differences.iter().filter(|difference| !difference.is_ours);
        let at_stripe: Vec<&str> = at_stripe.map(|one| one.reference.as_str()).collect();
        if !self.window.heal || at_stripe.is_empty() {
            return Ok(());
        }
        let read = self.read_again(&at_stripe).await;
        self.note("invoice_totals", read)?;
        let left = self.invoice_differences().await?;
        let left: BTreeSet<String> = left.into_iter().map(|one| one.reference).collect();
        self.mark_healed(ObjectType::InvoiceTotal, &left).await
    }

    async fn invoice_differences(&self) -> Result<Vec<InvoiceDifference>, store::Error> {
        let client = self.app.database.client().await?;
        let db: &Client = &client;
        window::invoice_differences(db, self.window.since, self.window.until, TOLD).await
    }

    async fn read_again(&mut self, invoices: &[&str]) -> Result<(), Stop> {
        for id in invoices {
            if self.deadline.is_reached() {
                return Err(Stop::Deadline);
            }
            let answer = fetch::answer(&self.app.stripe, "invoice", id, self.now).await;
            match answer {
                Ok(objects) => {
                    for object in objects.into_iter().flatten() {
                        let applied = self.apply(&object).await;
                        self.note("invoice_totals", applied)?;
                    }
                }
                // What Stripe does not know is left as it is, and told.
                Err(client::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Marks as healed what was rebuilt and is not among what is `left`.
    async fn mark_healed(
        &self,
        object_type: ObjectType,
        left: &BTreeSet<String>,
    ) -> Result<(), store::Error> {
        let client = self.app.database.client().await?;
        let db: &Client = &client;
        let mut after = 0;
        loop {
            let items = reconciliation_runs::open_items(db, self.run_id, after, TOLD).await?;
            let Some(last) = items.last() else {
                return Ok(());
            };
            after = last.id;
            for item in &items {
                if item.object_type == object_type.as_str() && !left.contains(&item.object_id) {
                    reconciliation_runs::heal_item(db, item.id, self.now).await?;
                }
            }
        }
    }
}
